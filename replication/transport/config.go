package transport

import (
	"cmp"
	"context"
	"crypto/tls"
	"hash/crc32"
	"log/slog"
	"net"
	"time"

	"github.com/hashicorp/raft"
)

// DialTimeout is how long a node waits for another to accept its connection and to shake hands.
const DialTimeout = 3 * time.Second

// Config says who a Transport is, whom it asks and whom it tells. The zero of every
// field means the default named.
type Config struct {
	// Local is this process's name. Node is 0 for one that is joining.
	Local Peer
	// Cluster is the id of the cluster that the node is a member of. "": of none yet, so
	// that CallAddr and connections for one call are all there is.
	Cluster string
	// Address is where peers are told to dial this node.
	Address string

	Guard      Guard      // secures connections; nil: they are not, and nothing is proved
	Membership Membership // who peers are; nil: everybody is let in and nobody has an address
	Observer   Observer   // hears of peers; nil: nobody does
	Handler    Handler    // serves other nodes' calls; nil: they are refused
	Entries    Entries    // sums and checks what appends carry; nil: sums by reading, and lets anything in
	Dialer     Dialer     // opens connections; nil: a net.Dialer

	Timers Timers
	Limits Limits

	Logger *slog.Logger // nil: discards
}

// A Membership is what a node knows of its cluster's members: where they are, and whether
// who says that he is one is let in. Its methods are called by many goroutines at once.
type Membership interface {
	// Resolve gives the address a node is dialled at, each time it is.
	Resolve(node int32) (addr string, ok bool)

	// About is what this node says about itself in every handshake and its answer, at most
	// 128 bytes.
	About() string

	// Judge decides whether a peer is let in, by who it says it is and what it says about
	// itself, before a connection of kind 1 to 3 carries anything. The error is the reason
	// for which it is not: ErrStranger unless it is ErrOldDisk or a ReplacedError.
	Judge(p Peer, about string) error

	// Admitted is told of a peer that was let in, which takes that no other process of the
	// same name is alive.
	Admitted(p Peer, about string)
}

// A Guard says how connections to other nodes are secured. Its methods are called by many
// goroutines at once.
type Guard interface {
	// Dial is how a peer is dialled: with a handshake by cfg (identity.Dial), or bare if that
	// is nil. With orBare one with whom the handshake fails is dialled bare. p.Node is 0 for
	// whoever answers at an address.
	Dial(p Peer) (cfg *tls.Config, orBare bool)

	// Bare decides about a connection that begins without a handshake, by who the caller says
	// that it is; once is of kind 4. The error is the reason for which it is refused.
	Bare(p Peer, once bool) error
}

// An Observer hears of peers. Its methods must not block. PeerUp, PeerDown and Learned
// must not call Close either: they are called by one goroutine, in the order in which
// things happened, and not after Close. The others are called by many at once.
type Observer interface {
	// PeerUp hears that the first connection from or to a process opened, PeerDown that the
	// last one closed, or was closed because the peer fell silent. They alternate.
	PeerUp(p Process)
	PeerDown(p Process)

	// Learned hears of the address that a peer introduced itself with.
	Learned(p Peer, addr string)

	// Outdated hears that a peer refused this node with ErrOldDisk, Replaced that one did
	// with a ReplacedError, and of its At.
	Outdated(by Peer, reason string)
	Replaced(by Peer, at uint64, reason string)

	// Foreign hears of a handshake, for whichever node, that names another cluster.
	Foreign(cluster string)
}

// A Handler serves the calls of other nodes: Call, CallBulk and CallAddr.
type Handler interface {
	// Handle answers a call. It must return soon after ctx ends, and owns req. Its answer
	// is limited like the request. A panic is an error.
	//
	// from.Node is 0 on a connection of kind 4, whoever the caller said it was, and so for
	// a node that is joining. OriginOf(ctx) tells what the caller has proved there.
	Handle(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error)
}

// Entries know what the entries of the node's groups hold. Their methods are called by
// many goroutines at once, for each entry that is sent or received.
type Entries interface {
	// Sum continues a CRC-32C over an entry's data, for the checksum of an append. It may
	// take what the data says of itself, where that has been checked before.
	Sum(sum uint32, l *raft.Log) uint32

	// Check looks at an entry that a peer sent for a group, before the group is given it.
	// Its header was checked by then. What is refused costs the sender an answer of
	// invalid, and nobody else anything.
	Check(group uint64, l *raft.Log) error
}

// A Dialer opens connections, as net.Dialer does; network is "tcp". With connections that
// are no *net.TCPConn, what writev would join is a Write a piece.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Timers are how long a Transport waits for what. How they relate is in the package's
// comment.
type Timers struct {
	GatherInterval  time.Duration // heartbeats to a peer wait this long for company; 15 ms
	Timeout         time.Duration // for an answer to a vote, an append, a heartbeat, a call without deadline; 10 s
	SnapshotTimeout time.Duration // for an answer to InstallSnapshot; 5 min
	DialTimeout     time.Duration // for connect and handshake together, on either side; the constant
	PingInterval    time.Duration // between pings on a control connection; 500 ms
	PeerTimeout     time.Duration // a peer silent for longer is gone; 3 s
	Quiesce         time.Duration // from a follower's answer to the next append without entries, about, see quiesce; 0: none
}

// Limits are how much a Transport takes on.
type Limits struct {
	MaxRequestBytes int // entries' bytes in one append, unless a single one is larger; 4 MiB
	QueueLength     int // requests of one group not yet answered, before busy; 32
	QueueBytes      int // bytes of the entries they carry; 4 × MaxRequestBytes
	InflightBytes   int // the same over all groups and calls of the node; 128 MiB
	MaxConnections  int // in and out; 4,096, a quarter of which may be inbound with the handshake to come
}

func (c Config) withDefaults() Config {
	if c.Membership == nil {
		c.Membership = anyone{}
	}
	if c.Observer == nil {
		c.Observer = NopObserver{}
	}
	if c.Entries == nil {
		c.Entries = plainEntries{}
	}
	if c.Dialer == nil {
		c.Dialer = new(net.Dialer)
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	t, l := &c.Timers, &c.Limits
	t.GatherInterval = cmp.Or(t.GatherInterval, 15*time.Millisecond)
	t.Timeout = cmp.Or(t.Timeout, 10*time.Second)
	t.SnapshotTimeout = cmp.Or(t.SnapshotTimeout, 5*time.Minute)
	t.DialTimeout = cmp.Or(t.DialTimeout, DialTimeout)
	t.PingInterval = cmp.Or(t.PingInterval, 500*time.Millisecond)
	t.PeerTimeout = cmp.Or(t.PeerTimeout, 3*time.Second)
	l.MaxRequestBytes = cmp.Or(l.MaxRequestBytes, 4<<20)
	l.QueueLength = cmp.Or(l.QueueLength, 32)
	l.QueueBytes = cmp.Or(l.QueueBytes, 4*l.MaxRequestBytes)
	l.InflightBytes = cmp.Or(l.InflightBytes, 128<<20)
	l.MaxConnections = cmp.Or(l.MaxConnections, 4096)
	return c
}

// anyone is the Membership of a node that knows of no members.
type anyone struct{}

func (anyone) Resolve(int32) (string, bool) { return "", false }
func (anyone) About() string                { return "" }
func (anyone) Judge(Peer, string) error     { return nil }
func (anyone) Admitted(Peer, string)        {}

// A NopObserver is an Observer that nothing matters to. Who needs to hear of some things
// only embeds it.
type NopObserver struct{}

func (NopObserver) PeerUp(Process)                {} // implements Observer
func (NopObserver) PeerDown(Process)              {} // implements Observer
func (NopObserver) Learned(Peer, string)          {} // implements Observer
func (NopObserver) Outdated(Peer, string)         {} // implements Observer
func (NopObserver) Replaced(Peer, uint64, string) {} // implements Observer
func (NopObserver) Foreign(string)                {} // implements Observer

// plainEntries are entries of which nothing is known.
type plainEntries struct{}

func (plainEntries) Sum(sum uint32, l *raft.Log) uint32 {
	return crc32.Update(sum, castagnoli, l.Data)
}
func (plainEntries) Check(uint64, *raft.Log) error { return nil }

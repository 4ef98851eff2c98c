package transport

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/bufpool"
	"millrace/internal/slowlog"
)

// DialTimeout is how long a node waits for another to accept its connection and to shake hands.
const DialTimeout = 3 * time.Second

// Config says who a Transport is and how it reaches others. Fields marked
// required have no default; the zero of every other one means the default named.
type Config struct {
	// Local is this node, Cluster its cluster's id and Address what it tells
	// peers to dial. Cluster is required and may answer "" while the node is
	// joining; so may Local be zero until SetLocal.
	Local   Peer
	Cluster func() string
	Address func() string // nil: ""

	// Resolve gives the address a node is dialled at, each time it is. Required.
	Resolve func(node int32) (addr string, ok bool)

	// Dial opens a connection; nil: TCP. With anything but a *net.TCPConn, what
	// writev joins becomes a Write a piece.
	Dial func(ctx context.Context, addr string) (net.Conn, error)

	// Learned hears of the address a peer introduced itself with. PeerUp is
	// called when the first connection from or to a process opens, PeerDown when
	// the last one closed or was closed because the peer fell silent; they
	// alternate. All three are called by one goroutine, in order, and hold up
	// each other: they must not block, nor call Close. Not called after Close.
	Learned  func(p Peer, addr string)
	PeerUp   func(p Process)
	PeerDown func(p Process)

	// About says at most 128 bytes about this node in every handshake and its answer;
	// nil: nothing. Judge is told what the other side says, and who it says it is,
	// before a connection of kind 1 to 3 carries anything; its error is the reason
	// for which there is none, ErrStranger unless it is ErrOldDisk or a ReplacedError.
	// nil: all are let in. Admitted is told of those who really were, which takes that no other process
	// of the same name is alive. All are called by many goroutines at once.
	About    func() string
	Judge    func(p Peer, about string) error
	Admitted func(p Peer, about string)

	// Outdated hears of a peer that refused this node with ErrOldDisk, Replaced of one
	// that did with a ReplacedError and of its At, Foreign of a handshake, for whichever
	// node, that names another cluster. They must not block. nil: nobody cares.
	Outdated func(by Peer, reason string)
	Replaced func(by Peer, at uint64, reason string)
	Foreign  func(cluster string)

	// Handle serves Call, CallBulk and CallAddr of other nodes. It must return
	// soon after ctx ends. from.Node may be 0 for a node that is joining. It
	// owns req; its answer is limited like the request. A panic is an error. On a
	// connection of kind 4 from.Node is 0, whatever the caller said it was.
	Handle func(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error)

	// Sum continues a CRC-32C over an entry's data, for the checksum of an append;
	// nil: by reading it.
	Sum func(sum uint32, l *raft.Log) uint32

	// Check looks at an entry that a peer sent for a group, before the group is given
	// it: what is refused costs the sender an answer of invalid, and nobody else
	// anything. Its header was checked by then. nil: whatever it holds is let in.
	Check func(group uint64, l *raft.Log) error

	GatherInterval  time.Duration // heartbeats to a peer wait this long for company; 15 ms
	MaxRequestBytes int           // entries' bytes in one append, unless a single one is larger; 4 MiB
	Timeout         time.Duration // for an answer to a vote, an append, a heartbeat, a call without deadline; 10 s
	SnapshotTimeout time.Duration // for an answer to InstallSnapshot; 5 min
	DialTimeout     time.Duration // for connect and handshake together, on either side; the constant
	PingInterval    time.Duration // between pings on a control connection; 500 ms
	PeerTimeout     time.Duration // a peer silent for longer is gone; 3 s
	Quiesce         time.Duration // from a follower's answer to the next append without entries, about, see quiesce; 0: none
	QueueLength     int           // requests of one group not yet answered, before busy; 32
	QueueBytes      int           // bytes of the entries they carry; 4 × MaxRequestBytes
	InflightBytes   int           // the same over all groups and calls of the node; 128 MiB
	MaxConnections  int           // in and out; 4,096, a quarter of which may be inbound with the handshake to come

	Logger *slog.Logger // nil: discards
}

func (c Config) withDefaults() Config {
	or := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	orInt := func(n *int, def int) {
		if *n == 0 {
			*n = def
		}
	}
	if c.Address == nil {
		c.Address = func() string { return "" }
	}
	if c.About == nil {
		c.About = func() string { return "" }
	}
	if c.Judge == nil {
		c.Judge = func(Peer, string) error { return nil }
	}
	if c.Admitted == nil {
		c.Admitted = func(Peer, string) {}
	}
	if c.Outdated == nil {
		c.Outdated = func(Peer, string) {}
	}
	if c.Replaced == nil {
		c.Replaced = func(Peer, uint64, string) {}
	}
	if c.Foreign == nil {
		c.Foreign = func(string) {}
	}
	if c.Sum == nil {
		c.Sum = func(sum uint32, l *raft.Log) uint32 { return crc32.Update(sum, castagnoli, l.Data) }
	}
	if c.Dial == nil {
		c.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	or(&c.GatherInterval, 15*time.Millisecond)
	or(&c.Timeout, 10*time.Second)
	or(&c.SnapshotTimeout, 5*time.Minute)
	or(&c.DialTimeout, DialTimeout)
	or(&c.PingInterval, 500*time.Millisecond)
	or(&c.PeerTimeout, 3*time.Second)
	orInt(&c.MaxRequestBytes, 4<<20)
	orInt(&c.QueueLength, 32)
	orInt(&c.QueueBytes, 4*c.MaxRequestBytes)
	orInt(&c.InflightBytes, 128<<20)
	orInt(&c.MaxConnections, 4096)
	return c
}

// A Transport carries the messages of all Raft groups of one node, and calls from
// node to node, over three connections a peer. It is safe for concurrent use.
type Transport struct {
	cfg      Config
	low      uint8 // versions spoken
	high     uint8
	session  uint64        // tells this process from one before it under the same name
	start    time.Time     // epoch of presence.last
	ends     atomic.Uint64 // connections to peers that have ended
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup // every goroutine but those of ports; added to under mu while not closed
	evidence eventQueue
	slow     slowlog.Limit // of warnings
	stats    counters
	inflight atomic.Int64 // bytes admitted and not yet answered
	buffers  bufpool.Pool // of entries that come in
	quiesced quiescedTable

	mu        sync.Mutex
	closed    bool
	local     Peer
	conns     map[net.Conn]struct{} // all there are, for Close
	strangers list.List             // inbound ones whose handshake is not done or that are for one call, oldest first
	present   map[Peer]*presence
	departed  map[Peer]time.Duration // when those who are not present were last heard, since start
	peers     map[int32]*peer

	portsMu sync.RWMutex
	ports   map[uint64]*Port // nil after Close
}

// New starts a Transport. It listens nowhere: the shared listener hands
// connections to Serve.
func New(cfg Config) *Transport {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Transport{
		cfg:      cfg.withDefaults(),
		low:      minVersion,
		high:     maxVersion,
		start:    time.Now(),
		ctx:      ctx,
		cancel:   cancel,
		local:    cfg.Local,
		conns:    make(map[net.Conn]struct{}),
		present:  make(map[Peer]*presence),
		departed: make(map[Peer]time.Duration),
		peers:    make(map[int32]*peer),
		ports:    make(map[uint64]*Port),
		slow:     slowlog.Limit{Every: 10 * time.Second},
	}
	var b [8]byte
	rand.Read(b[:]) // never fails
	t.session = binary.BigEndian.Uint64(b[:])
	t.evidence.ready.L = &t.evidence.mu
	t.wg.Add(2)
	go t.report()
	go t.monitor()
	return t
}

// Close closes every port and connection and returns when all goroutines of the
// transport have ended. It reports no peer as down. Further calls do nothing.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	conns := make([]net.Conn, 0, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()

	t.evidence.close()
	t.cancel()
	for _, c := range conns {
		c.Close()
	}
	t.portsMu.Lock()
	ports := t.ports
	t.ports = nil
	t.portsMu.Unlock()
	for _, p := range ports {
		p.Close()
	}
	t.wg.Wait()
	return nil
}

// SetLocal names this node once its cluster has. It must come before the first
// Group and the first connection other than CallAddr's.
func (t *Transport) SetLocal(p Peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.local = p
}

func (t *Transport) self() Peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.local
}

// spawn runs f in a goroutine that Close waits for, unless closed.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f()
	}()
	return true
}

// contain is deferred by every goroutine that parses what came from outside. One
// bad message may cost its connection, never the process.
func (t *Transport) contain(what string, peer Peer) {
	if p := recover(); p != nil {
		t.stats.Panics.Add(1)
		t.warn("panic "+what, "panic while serving a peer", "what", what, "peer", peer.String(),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}

// warn logs what a peer causes, once in a while for each key, so that one that fails in a
// loop costs a line, not the disk.
func (t *Transport) warn(key, message string, args ...any) {
	t.slow.Warn(t.cfg.Logger, key, "transport: "+message, args...)
}

// admit reserves n bytes of the node's room for requests. One request is always
// let in, however large.
func (t *Transport) admit(n int) error {
	for {
		have := t.inflight.Load()
		if have > 0 && have+int64(n) > int64(t.cfg.InflightBytes) {
			return ErrBusy
		}
		if t.inflight.CompareAndSwap(have, have+int64(n)) {
			return nil
		}
	}
}

func (t *Transport) release(n int) { t.inflight.Add(int64(-n)) }

// SetPeers makes the transport hold a control connection to each of nodes, this
// one excepted, redialling whenever it is lost, and no longer to others. Without
// it a connection is opened by the first message for it.
func (t *Transport) SetPeers(nodes []int32) {
	hold := make(map[int32]bool, len(nodes))
	self := t.self().Node
	for _, n := range nodes {
		if n != self && n > 0 {
			hold[n] = true
		}
	}
	for n := range hold {
		t.peer(n)
	}
	t.mu.Lock()
	peers := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		peers = append(peers, p)
	}
	t.mu.Unlock()
	for _, p := range peers {
		p.hold(hold[p.node])
	}
}

// peer returns the one object for a node.
func (t *Transport) peer(node int32) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[node]
	if p == nil {
		p = newPeer(t, node)
		t.peers[node] = p
	}
	return p
}

// port returns the open port of a group.
func (t *Transport) port(group uint64) (*Port, error) {
	t.portsMu.RLock()
	defer t.portsMu.RUnlock()
	if p := t.ports[group]; p != nil {
		return p, nil
	}
	return nil, ErrUnknownGroup
}

// counters are Stats, counting.
type counters struct {
	Dials, DialsFailed, Refused, Malformed, Invalid, Busy, Expired, Panics, Silent, Ups, Downs atomic.Uint64
	HeartbeatFrames, Heartbeats, Quiesced, Appends                                             atomic.Uint64
}

// Stats counts what happened since New.
type Stats struct {
	Dials, DialsFailed uint64 // connections tried, and those that did not come to be
	Refused            uint64 // connections we turned away in their handshake
	Malformed          uint64 // connections we closed because of bytes no peer of ours sends
	Invalid            uint64 // requests that break a rule, answered so
	Busy               uint64 // requests refused because a queue was full
	Expired            uint64 // requests that waited longer than their sender
	Panics             uint64 // contained
	Silent             uint64 // peers given up for their silence
	Ups, Downs         uint64 // events reported
	HeartbeatFrames    uint64 // sent
	Heartbeats         uint64 // sent in them
	Quiesced           uint64 // appends without entries that were not sent at once, see quiesce
	Appends            uint64 // with entries, sent
}

// Stats returns the counters as they are now.
func (t *Transport) Stats() Stats {
	c := &t.stats
	return Stats{
		Dials: c.Dials.Load(), DialsFailed: c.DialsFailed.Load(), Refused: c.Refused.Load(),
		Malformed: c.Malformed.Load(), Invalid: c.Invalid.Load(), Busy: c.Busy.Load(),
		Expired: c.Expired.Load(), Panics: c.Panics.Load(), Silent: c.Silent.Load(),
		Ups: c.Ups.Load(), Downs: c.Downs.Load(), HeartbeatFrames: c.HeartbeatFrames.Load(),
		Heartbeats: c.Heartbeats.Load(), Quiesced: c.Quiesced.Load(), Appends: c.Appends.Load(),
	}
}

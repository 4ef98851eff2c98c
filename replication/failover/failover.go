package failover

import (
	"context"
	"encoding/json"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// A Failover has the groups of a node led by somebody who is there. Any goroutine may call
// its methods; none of them waits for a disk, another node or Raft, but for ReceiveGossip
// and ReceiveView, which may wait for Raft. Nothing may be told to it before Start but
// VotesRecovered.
//
// It is three types. The gossiper spreads which groups are open where and who leads them,
// and has the leaders table. The evidence is whom this node hears, and whom the others do.
// The elector looks after groups without a leader. Each guards what it has with a mutex of
// its own; evidence.mu may be held when gossiper.mu is taken, and no other two together,
// but for elector.tending, which is taken first.
type Failover struct {
	node     Node
	observer Observer
	peers    Peers           // set by Start, as is what follows
	ctx      context.Context // ends with the node
	logger   *slog.Logger
	running  sync.WaitGroup // its goroutines

	gossip    gossiper
	evidence  evidence
	elections elector
}

// A Config says what a Failover works with.
type Config struct {
	Node     Node     // must be set
	Observer Observer // must be set
	// Jitter draws by how much a campaign comes later that follows one in vain; nil: by
	// chance.
	Jitter rand.Source
}

// A Node is what a Failover asks of the node that it works for.
type Node interface {
	// Image is the cluster's metadata as it is known here.
	Image() *metadata.Image
	// Member returns the node's part in a group that is open here now.
	Member(group uint64) (m Member, ok bool)
	// EachMember calls f for the node's part in every group that is open here.
	EachMember(f func(m Member))
	// About is what the node says of itself to each peer beside its gossip; "": nothing.
	About() string
	// Addresses is what the node knows of where the others are, in JSON. It goes along in
	// views.
	Addresses() json.RawMessage
}

// An Observer is told what a Failover notices. No method blocks.
type Observer interface {
	// PeerUp says that a node is heard again, or for the first time.
	PeerUp(node int32)
	// PeerDown says that it is heard no more.
	PeerDown(node int32)
	// Led says that this node leads a partition's group from now on.
	Led(group uint64)
	// Ended says that it does so no more.
	Ended(group uint64)
	// Changed says that another may have to lead a group, or to be its member.
	Changed()
	// Said is what a peer says of itself beside its gossip: its About.
	Said(by transport.Peer, about string)
	// Addressed is what a peer knows of where the others are: its Addresses. news tells
	// that this node did not, and its own views are to say so.
	Addressed(addresses json.RawMessage) (news bool, err error)
}

// Peers are the other nodes, as far as this one has connections to them.
// *transport.Transport implements it.
type Peers interface {
	// Self is this node's process.
	Self() transport.Process
	// Hears returns the process of a peer that this node has a connection to.
	Hears(p transport.Peer) (transport.Process, bool)
	// LastHeard is when a peer was heard last.
	LastHeard(p transport.Peer) time.Time
	// Heard are all processes that this node has a connection to.
	Heard() []transport.Process
	// Connected are their nodes.
	Connected() []int32
	// Call asks a node something and returns its answer.
	Call(ctx context.Context, node int32, kind uint8, req []byte) ([]byte, error)
}

// A Member is this node's part in one Raft group, the controllers' or a partition's. It is
// all that elections and gossip see of a group.
type Member interface {
	// Group is the group's number.
	Group() uint64
	// Name names the group, for the log.
	Name() string

	// Leader is whom Raft takes for the leader, "" if nobody.
	Leader() raft.ServerID
	// Term is Raft's present term.
	Term() uint64
	// State is what this node is in it.
	State() raft.RaftState
	// Voters are the servers that vote, in the order of the group's configuration.
	Voters() []raft.ServerID

	// LeadsNow returns the term in which this node leads the group, as it tells others.
	LeadsNow() (term uint64, ok bool)
	// StillLeads tells whether what it told of a term a moment ago may be told still.
	StillLeads(term uint64) bool
	// Stalls tells whether the disk keeps it from leading.
	Stalls() bool

	// Campaign asks for votes at once, and of those too that hear a leader.
	Campaign() error
	// AskPreVotes asks who would vote for it, if no leader is heard here: who hears one
	// says no. If a majority says yes, Raft asks for votes.
	AskPreVotes() error
	// AbandonCandidacy makes a candidate a follower, in the term given.
	AbandonCandidacy(term uint64) error
	// ShortenTimeouts shortens Raft's own timeouts to the lease's, or makes them long again.
	ShortenTimeouts(on bool)
}

// A process is one run of one node.
type process = transport.Process

// The calls by which nodes tell each other what is in here, among the calls of nodes.
const (
	CallGossip uint8 = 1
	CallView   uint8 = 7
)

// UnknownCall is what nodes of all releases answer to a call that they do not know.
const UnknownCall = "replication: unknown call"

// controllerGroup is the group of the controllers. It differs from the others in what is
// logged of its leader, and in that it is open for as long as its node runs.
const controllerGroup = 0

// New returns a Failover that Start sets to work.
func New(cfg Config) *Failover {
	f := &Failover{node: cfg.Node, observer: cfg.Observer}
	f.gossip = gossiper{
		f: f, leaders: make(map[uint64]leaderEntry), openAt: make(map[process]map[uint64]bool), numbers: make(map[process]uint64),
		peers: make(map[int32]*gossipPeer), wake: make(chan struct{}, 1),
	}
	f.evidence = evidence{f: f, views: make(map[process]seen), peers: make(map[int32]*viewPeer)}
	jitter := cfg.Jitter
	if jitter == nil {
		jitter = rand.NewPCG(rand.Uint64(), rand.Uint64())
	}
	f.elections = elector{f: f, leaderless: make(map[uint64]*leaderlessGroup), wake: make(chan struct{}, 1), jitter: rand.New(jitter)}
	return f
}

// Start has it work with the peers that there are, until ctx ends. Wait waits for that.
func (f *Failover) Start(ctx context.Context, peers Peers, logger *slog.Logger) {
	f.peers, f.ctx, f.logger = peers, ctx, logger
	f.goTracked(f.gossip.gossipLoop)
	f.goTracked(f.elections.electLoop)
}

// Wait returns when all of its goroutines have ended, once ctx has.
func (f *Failover) Wait() { f.running.Wait() }

// goTracked starts a goroutine that Wait waits for.
func (f *Failover) goTracked(run func()) {
	f.running.Add(1)
	go func() {
		defer f.running.Done()
		run()
	}()
}

// call makes one call to a node.
func (f *Failover) call(node int32, kind uint8, req []byte) error {
	ctx, cancel := context.WithTimeout(f.ctx, callTimeout)
	defer cancel()
	_, err := f.peers.Call(ctx, node, kind, req)
	return err
}

// pause waits before something is tried again, or for the end.
func (f *Failover) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-f.ctx.Done():
	}
}

// member returns this node's part in a group, nil if it is not open here.
func (f *Failover) member(group uint64) Member {
	if m, ok := f.node.Member(group); ok {
		return m
	}
	return nil
}

// self is this node's name in groups.
func (f *Failover) self() raft.ServerID { return f.peers.Self().ServerID() }

// live tells whether this node has a connection to a broker; to itself it always has.
func (f *Failover) live(broker int32) bool {
	return broker == f.peers.Self().Node || slices.Contains(f.peers.Connected(), broker)
}

// PeerUp introduces this node to one that is heard from now on: what it has open, what it
// leads.
func (f *Failover) PeerUp(peer transport.Process) {
	f.observer.PeerUp(peer.Node)
	f.observer.Changed()
	f.elections.peerUp(time.Now())
	f.gossip.introduce(peer.Node)
	f.evidence.sendViews()
	f.evidence.isolated(time.Now()) // not any more
}

// PeerDown is evidence that a process died, or cannot be reached from here. What it has
// open it still has, and what it hears it still hears, if it is there after all: it may have
// heard this node all the while, and then says nothing again. See gossiper.hasOpen, and
// ReceiveGossip.
func (f *Failover) PeerDown(peer transport.Process) {
	f.evidence.lostAt.Store(peer.Node, time.Now())
	f.observer.PeerDown(peer.Node)
	f.observer.Changed()
	f.evidence.sendViews()
	f.evidence.isolated(time.Now()) // from now on, it may be
	f.elections.peerDown(peer)
}

// Leads notes and spreads that this node leads a group.
func (f *Failover) Leads(group, term uint64) {
	f.gossip.leads(group, term)
	if group == controllerGroup {
		f.logger.Info("this node is the controller now", "term", term)
	} else {
		f.observer.Led(group)
	}
	f.observer.Changed()
	f.gossip.spread()
}

// Ended notes that this node leads a partition's group no more. Others learn of it when
// another leads.
func (f *Failover) Ended(group uint64) { f.observer.Ended(group) }

// Noticed notes that Raft has another lead a group than before: this node, which may not
// serve yet, or no more this node.
func (f *Failover) Noticed() { f.observer.Changed() }

// StoodDown has a group elected like any other that this node led, by what Raft says, and
// leads no more: a leader that steps down, for its lease or for a later term, may be the
// only one whose log can win, and nobody else learns that it is needed.
func (f *Failover) StoodDown(group uint64) {
	f.elections.leaderLost(group, f.peers.Self(), true, 2*raftgroup.ElectionStagger)
}

// Opened notes and spreads that a group is open here.
func (f *Failover) Opened(group uint64) {
	f.elections.opened(group)
	f.gossip.opened(group)
}

// Closed notes that a group is no longer open here. Nobody is told: others that bounce are
// open again before it matters. Of one that stays shut NotOpen tells.
func (f *Failover) Closed(group uint64) { f.elections.closed(group) }

// NotOpen has every peer told what is open here, of which gossip else only tells what is
// added. It is for a group that stays shut, or was led here until now: others that bounce
// are open again before it matters.
func (f *Failover) NotOpen() { f.gossip.notOpen() }

// VotesRecovered implements vote.Observer: it is told that votes of a group can be saved here again. For as long as they
// could not, this node answered too late, and the others campaigned in vain: if the group
// has no leader, their campaigns are minutes apart by then.
func (f *Failover) VotesRecovered(group uint64) {
	f.gossip.opened(group)
	f.elections.campaignAnew([]uint64{group})
}

// Gossip has every peer told what is new: what the node says of itself, if nothing else.
func (f *Failover) Gossip() { f.gossip.spread() }

// ShowViews has every peer shown this node's view, in which something changed that is the
// node's own.
func (f *Failover) ShowViews() { f.evidence.sendViews() }

// ReceiveGossip takes in what a peer tells of itself, which a Failover there has encoded.
func (f *Failover) ReceiveGossip(from transport.Peer, data []byte) error {
	g, err := decodeGossip(data)
	if err != nil {
		return err
	}
	return f.gossip.receiveGossip(from, g)
}

// ReceiveView takes in whom a peer hears, which a Failover there has encoded.
func (f *Failover) ReceiveView(from transport.Peer, data []byte) error {
	return f.evidence.receiveView(from, data)
}

// Forget drops what was said of groups that the image says were deleted.
func (f *Failover) Forget() { f.gossip.forget(f.node.Image()) }

// HasOpen tells whether another node, which is heard here, has said that it has a group
// open.
func (f *Failover) HasOpen(id raft.ServerID, group uint64) bool {
	return f.gossip.hasOpen(id, group, process{})
}

// HeardOf tells when a server was last heard of here: now, while it is connected.
func (f *Failover) HeardOf(id raft.ServerID, now time.Time) (at time.Time, connected bool) {
	return f.evidence.heardOf(id, now)
}

// LostAt tells when the last connection to a node ended, if any ever did.
func (f *Failover) LostAt(node int32) (at time.Time, ok bool) {
	v, ok := f.evidence.lostAt.Load(node)
	if !ok {
		return time.Time{}, false
	}
	return v.(time.Time), true
}

// Controller returns the node that leads the controllers' group by Raft's word, if it is
// heard here.
func (f *Failover) Controller() (node int32, ok bool) {
	m := f.member(controllerGroup)
	if m == nil {
		return 0, false
	}
	peer, err := transport.ParseServerID(m.Leader())
	if err != nil || !f.live(peer.Node) {
		return 0, false
	}
	return peer.Node, true
}

// ControllerHearer returns a node that hears the controller, which this one does not.
func (f *Failover) ControllerHearer() (node int32, ok bool) {
	c, led := f.gossip.leaderOf(controllerGroup)
	if !led {
		return 0, false
	}
	return f.evidence.hearer(c.process)
}

// What clients are told: who leads, and who is there. It is not what elections go by, nor
// what this node's own connections say.

// Leader returns who else leads a group and since which term, as far as this node knows.
// Whoever said so last stays the leader, out of this node's own hearing too, until another
// one does. ok is false when nobody else has said so, when nobody among a majority of the
// brokers hears who did, and when this node is Isolated.
func (f *Failover) Leader(group uint64) (node int32, term uint64, ok bool) {
	c, ok := f.gossip.leaderOf(group)
	switch {
	case !ok || c.Node == f.peers.Self().Node:
		return -1, 0, false
	case f.evidence.hears(c.process):
	case f.Isolated():
		return -1, 0, false
	case f.evidence.majority() && !f.evidence.anyHears(func(p process) bool { return p == c.process }):
		return -1, 0, false
	}
	return c.Node, c.term, true
}

// Isolated tells whether this node has heard neither the controller nor a majority of
// the brokers for a while. Who leads what elsewhere is not known then.
func (f *Failover) Isolated() bool { return f.evidence.isolated(time.Now()) }

// Present tells whether a broker is there, as far as this node knows: it hears it, or
// hears a node that does. A node that has lost the majority of the brokers cannot
// tell who is gone, and says so of nobody: clients are to go on asking the others.
func (f *Failover) Present(broker int32) bool { return !f.evidence.majority() || f.Heard(broker) }

// Heard tells whether this node hears a broker, or hears a node that does.
func (f *Failover) Heard(broker int32) bool {
	return f.live(broker) || f.evidence.anyHears(func(p process) bool { return p.Node == broker })
}

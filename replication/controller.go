package replication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"millrace/replication/bulletin"
	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// controllerGroup is the group whose log is the cluster's metadata.
const controllerGroup = 0

// maxVoters controllers vote; further nodes follow without a vote.
const maxVoters = 5

// A controller is this node's member of the controller group: Raft over
// raft-boltdb, with the image as its state machine.
type controller struct {
	raftgroup.Member
	n     *Node
	db    *raftboltdb.BoltStore
	store *controllerStore
	image atomic.Pointer[metadata.Image]

	loaded  uint64        // where the image stood that the node started from
	given   atomic.Uint64 // the last change that Raft had applied, that one's again
	saveNow chan struct{} // wakes saveImages

	replayTo uint64      // the last change that the log had when the node started
	replayed atomic.Bool // the image has it
	closing  sync.Once   // closes Node.imageReplayed

	// decode reads a change: metadata.DecodeChange, or in tests an older release's.
	decode func([]byte) (metadata.Change, error)
	// stuck is why this member stopped; see stop.
	stuck atomic.Pointer[error]
	ended sync.WaitGroup // of the goroutine that ends it
}

// openController starts the controller group's member here.
func (n *Node) openController() (*controller, error) {
	dir := n.folder.Path(folder.MetaName)
	db, err := openControllerStore(dir)
	if err != nil {
		return nil, err
	}
	n.upkeep.keepRoom()
	c := &controller{n: n, db: db, saveNow: make(chan struct{}, 1), decode: n.decodeChange}
	c.Member = raftgroup.Member{Group: controllerGroup, Role: c}
	c.store = &controllerStore{metaStore: db, member: c, logger: n.logger, closing: n.closing}
	c.image.Store(&metadata.Image{})
	logger := raftgroup.NewLogger(n.logger.With("group", "controller"), n.raftLimits)
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, logger)
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("open snapshots in %s: %w", dir, err)
	}
	snapshots := raft.SnapshotStore(files)
	if n.overMeta != nil {
		c.store.metaStore, snapshots = n.overMeta(db, files)
	}
	conf := c.Config(n.serverID(), logger)
	conf.CommitTimeout = 50 * time.Millisecond // every node waits for the image
	conf.SnapshotThreshold = 1024
	conf.TrailingLogs = 1024

	c.Port = n.transport.Group(controllerGroup, n.serverID())
	last, err := db.LastIndex()
	if err != nil {
		db.Close()
		return nil, err
	}
	if last == 0 && n.identity.Founder {
		id := n.serverID()
		err := raft.BootstrapCluster(conf, c.store, c.store.metaStore, snapshots, c.Port, raft.Configuration{
			Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(id)}},
		})
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			db.Close()
			return nil, fmt.Errorf("found the controller group: %w", err)
		}
	}
	c.loadImage(last, snapshots)
	c.loaded = c.image.Load().Index
	c.store.committed.Store(c.loaded)
	if c.replayTo, err = lastChange(db, last, c.loaded); err != nil {
		db.Close()
		return nil, err
	}
	c.reached(c.loaded)
	term, err := db.GetUint64([]byte("CurrentTerm"))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		db.Close()
		return nil, err
	}
	c.Port.StartAt(term)
	if c.Raft, err = raft.NewRaft(conf, c, c.store, c.store, snapshots, c.Transport(nil)); err != nil {
		db.Close()
		return nil, errors.Join(fmt.Errorf("start the controller group: %w", err), c.Down())
	}
	c.Port.Attach(c)
	c.store.live.Store(true)
	return c, nil
}

// stop ends this member of the group, before it would apply what it cannot: to go on
// without a change is to hold another image than all others, and to store one
// topic's records in the other's folder. It takes no further entry, takes no
// snapshot, does not vote, and says so; the partitions go on with the image there
// is. Raft is ended beside, since this is called in its goroutines.
func (c *controller) stop(cause error) {
	if !c.stuck.CompareAndSwap(nil, &cause) {
		return
	}
	c.n.logger.Error("this node's member of the controller group has stopped: it knows of no change of the cluster from here on",
		"error", cause, "image", c.image.Load().Index)
	if !c.store.live.Load() {
		return // NewRaft fails
	}
	c.ended.Add(1)
	go func() { // ends with Raft
		defer c.ended.Done()
		c.Port.Close()
		c.Raft.Shutdown().Error()
	}()
}

// votesRecovered has the group's elections begin anew: see failover.VotesRecovered.
func (c *controller) votesRecovered() { c.n.failover.VotesRecovered(controllerGroup) }

// Down returns why this member has stopped, nil while it has not.
func (c *controller) Down() error {
	if cause := c.stuck.Load(); cause != nil {
		return *cause
	}
	return nil
}

// ControllerDown returns why this node learns of no change of the cluster any more,
// nil while it does.
func (n *Node) ControllerDown() error {
	select {
	case <-n.ready:
		return n.controller.Down()
	default:
		return nil
	}
}

// openControllerStore opens the controller group's log and votes.
func openControllerStore(dir string) (*raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, folder.LogName)
	db, err := raftboltdb.New(raftboltdb.Options{Path: path, MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// InstallSnapshot implements transport.Member: the snapshot goes to Raft after all. The
// controller group's snapshots hold the whole image, and raft-boltdb keeps its log. vet
// judges them first.
func (c *controller) InstallSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte) {
	switch skip, err := c.vet(req, data); {
	case err != nil:
		rpc.Respond(nil, err)
		return
	case skip:
		rpc.Respond(&raft.InstallSnapshotResponse{Term: req.Term, Success: true}, nil)
		return
	}
	rpc.Command, rpc.Reader = req, bytes.NewReader(data)
	c.Port.Pass(rpc)
}

// close ends the member.
func (c *controller) close() {
	c.ended.Wait()
	c.Port.Close()
	if err := c.Raft.Shutdown().Error(); err != nil {
		c.n.logger.Warn("the controller group did not shut down cleanly", "error", err)
	}
	if err := c.db.Close(); err != nil {
		c.n.logger.Warn("the controller group's log did not close cleanly", "error", err)
	}
}

// Name implements raftgroup.Role.
func (c *controller) Name() string { return "controller" }

// LeadsNow implements raftgroup.Role.
func (c *controller) LeadsNow() (term uint64, ok bool) {
	return c.Raft.CurrentTerm(), c.Raft.State() == raft.Leader
}

// StillLeads implements raftgroup.Role: nothing shuts this member but the end of the node.
func (c *controller) StillLeads(uint64) bool { return true }

// Stalls implements raftgroup.Role. Every change waits for the disk, and is seldom.
func (c *controller) Stalls() bool { return false }

// LeadershipChanged implements raftgroup.Role.
func (c *controller) LeadershipChanged(leads bool) {
	if !leads {
		c.n.logger.Info("this node is the controller no longer")
		return
	}
	c.Port.Expedite()
	c.n.failover.Leads(controllerGroup, c.Raft.CurrentTerm())
}

// Apply implements raft.FSM: the result is an outcome. A change that cannot be read
// stops this member; whether it was refused is for all nodes the same.
func (c *controller) Apply(l *raft.Log) interface{} {
	defer raftgroup.Contain("apply a metadata change", c.stop)
	if err := c.Down(); err != nil {
		return err
	}
	c.store.committed.Store(max(c.store.committed.Load(), l.Index))
	defer c.reached(l.Index)
	if c.applied(l.Index) {
		return nil
	}
	change, err := c.decode(l.Data)
	if err != nil {
		err = fmt.Errorf("metadata change %d cannot be read; upgrade this node if a newer release wrote it: %w", l.Index, err)
		c.stop(err)
		return err
	}
	next, err := c.image.Load().Apply(l.Index, change)
	if err != nil {
		return err
	}
	if d, deletes := change.(metadata.DeleteTopic); deletes {
		c.n.drop(d.Topic)
	}
	was := c.image.Swap(next)
	c.n.imageChanged()
	// A change of an earlier term is no news: it may be applied again after a start.
	if m := c.n.memberOf(controllerGroup); m != nil && m.Raft.State() == raft.Leader && m.Raft.CurrentTerm() == l.Term {
		bulletin.Change(c.n.logger, was, next, change)
	}
	return nil
}

// Snapshot implements raft.FSM.
func (c *controller) Snapshot() (raft.FSMSnapshot, error) {
	if err := c.Down(); err != nil {
		return nil, err
	}
	if c.replays() {
		return nil, errReplays
	}
	select {
	case c.saveNow <- struct{}{}:
	default:
	}
	return raftgroup.State(c.image.Load().Encode()), nil
}

// Restore implements raft.FSM. What a leader sends was vetted.
func (c *controller) Restore(r io.ReadCloser) error {
	defer r.Close()
	p, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	image, err := metadata.DecodeImage(p)
	if err == nil && image.ClusterID != "" && image.ClusterID != c.n.identity.Cluster {
		err = fmt.Errorf("the image is of cluster %s, this node of %s", image.ClusterID, c.n.identity.Cluster)
	}
	if err != nil {
		c.stop(fmt.Errorf("metadata image cannot be taken: %w", err))
		return err
	}
	c.store.committed.Store(max(c.store.committed.Load(), image.Index))
	if c.applied(image.Index) {
		return nil
	}
	c.image.Store(image)
	c.n.imageChanged()
	c.reached(image.Index)
	return nil
}

// vet judges a snapshot of the image before Raft is given it, which keeps it, forgets
// its log and asks afterwards. skip tells that everything in it is here already.
func (c *controller) vet(req *raft.InstallSnapshotRequest, data []byte) (skip bool, err error) {
	if !c.store.live.Load() {
		return false, ErrNoController // starting
	}
	if term := c.Raft.CurrentTerm(); req.Term < term {
		return false, fmt.Errorf("replication: a snapshot of term %d in term %d", req.Term, term)
	}
	if req.LastLogIndex <= max(c.Raft.CommitIndex(), c.Raft.AppliedIndex()) {
		return true, nil
	}
	image, err := metadata.DecodeImage(data)
	now := c.image.Load()
	switch {
	case errors.Is(err, metadata.ErrVersion):
		c.stop(fmt.Errorf("metadata image at entry %d cannot be read: %w", req.LastLogIndex, err))
		return false, err
	case err != nil:
		return false, err
	case image.Level() < now.Level():
		return false, fmt.Errorf("replication: an image at feature level %d after %d", image.Level(), now.Level())
	case image.ClusterID != c.n.identity.Cluster:
		return false, fmt.Errorf("replication: an image of cluster %s in cluster %s", image.ClusterID, c.n.identity.Cluster)
	case image.Index > req.LastLogIndex || image.Index < now.Index:
		return false, fmt.Errorf("replication: an image at change %d in a snapshot at %d, after change %d", image.Index, req.LastLogIndex, now.Index)
	case image.LastGroup() < now.LastGroup(),
		image.LastGroup()-now.LastGroup() > (image.Index-now.Index)*metadata.MaxTopicPartitions:
		return false, fmt.Errorf("replication: an image at change %d with group %d, after change %d with group %d", image.Index, image.LastGroup(), now.Index, now.LastGroup())
	case len(image.Brokers()) == 0 && len(now.Brokers()) > 0:
		return false, errors.New("replication: an image without brokers")
	}
	return false, nil
}

// propose commits a change here, on the leader. It returns the index that an
// image must have reached to hold the change. When ctx ends the change may still be
// committed: a leader whose followers cannot store it leads on.
func (c *controller) propose(ctx context.Context, change metadata.Change) (index uint64, err error) {
	if c.Down() != nil || c.Raft.State() != raft.Leader {
		return 0, ErrNoController
	}
	if err := c.image.Load().Check(change); err != nil {
		return 0, err
	}
	data, err := metadata.EncodeChange(change)
	if err != nil {
		return 0, err
	}
	c.Port.Expedite()
	f := c.Raft.Apply(data, 5*time.Second)
	switch err := raftgroup.Await(ctx, c.n.closing, f); {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout):
		return 0, ErrNoController
	case err != nil:
		return 0, fmt.Errorf("%w: %v", ErrUnknown, err)
	}
	if err, refused := f.Response().(error); refused {
		return 0, err
	}
	return f.Index(), nil
}

// Change commits a change through the controller group, wherever its leader
// is, and waits until this node's image holds it. A refusal is metadata's own
// error. While the group has no leader Change waits for one, until ctx ends.
func (n *Node) Change(ctx context.Context, change metadata.Change) error {
	data, err := metadata.EncodeChange(change)
	if err != nil {
		return err
	}
	for {
		index, err := n.commit(ctx, change, data)
		switch {
		case err == nil:
			return n.awaitIndex(ctx, index)
		case !errors.Is(err, ErrNoController):
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrNoController, ctx.Err())
		case <-n.closing:
			return ErrClosed
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// commit makes one attempt at a change.
func (n *Node) commit(ctx context.Context, change metadata.Change, data []byte) (uint64, error) {
	leader, ok := n.Controller()
	switch {
	case !ok:
		through, ok := n.failover.ControllerHearer()
		if !ok {
			return 0, ErrNoController
		}
		return n.ask(ctx, through, callForward, append([]byte{0}, data...))
	case leader == n.identity.Node:
		return n.controller.propose(ctx, change)
	}
	return n.ask(ctx, leader, callChange, data)
}

// ask sends a change to another node.
func (n *Node) ask(ctx context.Context, node int32, kind uint8, data []byte) (uint64, error) {
	answer, err := n.transport.Call(ctx, node, kind, data)
	if err != nil {
		if ctx.Err() != nil || !sentNothing(err) {
			return 0, fmt.Errorf("%w: %v", ErrUnknown, err)
		}
		return 0, ErrNoController
	}
	return decodeOutcome(answer)
}

// forwarded passes a change on to the controller, if that is heard here, and returns
// what it answered. It is passed on once only, and a broker that it registers must be
// the one who sent it, as where it is sent to the controller itself.
func (n *Node) forwarded(ctx context.Context, from transport.Peer, req []byte) ([]byte, error) {
	if len(req) == 0 || req[0] > 1 {
		return nil, fmt.Errorf("replication: a change to pass on, of %d bytes, says not how often it was", len(req))
	}
	hops, data := req[0], req[1:]
	change, err := metadata.DecodeChange(data)
	if err != nil {
		return encodeOutcome(0, err), nil
	}
	r, registers := change.(metadata.RegisterBroker)
	if hops == 0 && registers && (r.Broker.ID != from.Node || r.Broker.Incarnation != from.Incarnation) {
		return nil, fmt.Errorf("replication: node %s registers broker %s; a node registers itself", from, r.Broker.ServerID())
	}
	leader, ok := n.Controller()
	switch {
	case !ok || hops > 0 && leader != n.identity.Node:
		return encodeOutcome(0, ErrNoController), nil
	case leader == n.identity.Node:
		return encodeOutcome(n.controller.propose(ctx, change)), nil
	}
	return encodeOutcome(n.ask(ctx, leader, callForward, append([]byte{1}, data...))), nil
}

// awaitIndex waits until this node's image has reached index.
func (n *Node) awaitIndex(ctx context.Context, index uint64) error {
	for {
		changed := n.Changed()
		if n.Image().Index >= index {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-n.closing:
			return ErrClosed
		}
	}
}

// Controller returns the node that leads the controller group, false if this
// node knows of none that is there.
func (n *Node) Controller() (node int32, ok bool) { return n.failover.Controller() }

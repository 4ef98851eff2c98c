package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/segment"
)

// Group is the number of the group.
const Group = 0

// ErrNoController says that the group has no leader that this node knows of.
var ErrNoController = errors.New("controller: the controller has no leader now")

// A Controller is this node's member of the controllers' group: Raft over raft-boltdb, with
// the cluster's image as its state machine. Image and Changed may be called from New on,
// anything else once Open has returned; all by any goroutine.
type Controller struct {
	raftgroup.Member
	cfg   Config
	db    *raftboltdb.BoltStore
	store *store

	image   atomic.Pointer[metadata.Image]
	mu      sync.Mutex
	changed chan struct{} // closed and replaced at each new image

	loaded  uint64        // where the image stood that the node started from
	given   atomic.Uint64 // the last change that Raft had applied, that one's again
	saveNow chan struct{} // wakes saveImages

	producerIDs producerIDs

	replayTo uint64        // the last change that the log had when the node started
	all      atomic.Bool   // the image has it
	replayed chan struct{} // closed when it has, and Run has been called
	once     sync.Once     // closes it
	runs     atomic.Bool   // Run has been called

	stuck   atomic.Pointer[error] // why this member stopped; see stop
	ended   sync.WaitGroup        // of the goroutine that ends it
	running sync.WaitGroup        // of those that Run starts
}

// A Config says what a Controller works with. What is not said to have a default must be set.
type Config struct {
	// Log is the path of the log and the votes. Snapshots and the last image are beside it.
	Log string
	// FS is the file system of the last image. The others are kept by libraries that know
	// no other than the system's.
	FS segment.FS
	// Cluster is the cluster's id: no other's image is taken.
	Cluster string
	// Self is this node.
	Self transport.Peer
	// Founder has an empty log begin with a group of this node alone.
	Founder bool
	Port    *transport.Port
	Peers   Peers
	// Elections looks after the group's.
	Elections Elections
	Observer  Observer
	// Closing is closed when the node ends.
	Closing <-chan struct{}
	Logger  *slog.Logger
	Limits  *raftgroup.LogLimits
	// Decoder reads changes; nil: as this release does.
	Decoder Decoder
	// Files stands over the files, unless nil.
	Files Files
}

// Peers are the other nodes. *transport.Transport implements it.
type Peers interface {
	// Call asks a node something and returns its answer.
	Call(ctx context.Context, node int32, kind uint8, req []byte) ([]byte, error)
}

// Elections is who looks after the group's elections, and knows who leads it.
// *failover.Failover implements it.
type Elections interface {
	raftgroup.Elections
	// Leads says that this node leads the group since a term. It does not block.
	Leads(group, term uint64)
	// VotesRecovered says that votes are saved again that could not be. It does not block.
	VotesRecovered(group uint64)
	// Controller returns the node that leads the group, if it is heard here.
	Controller() (node int32, ok bool)
	// ControllerHearer returns a node that hears it, where this one does not.
	ControllerHearer() (node int32, ok bool)
}

// An Observer is told of what the group has decided. No method blocks.
type Observer interface {
	// Dropped says that a topic was deleted, before the image says so.
	Dropped(topic metadata.TopicID)
	// ImageChanged says that Image returns another one.
	ImageChanged()
	// Decided says what a change did. It is told on the leader, once for the cluster.
	Decided(was, now *metadata.Image, change metadata.Change)
}

// A Decoder reads changes as the log has them: a test's as an older release would.
type Decoder interface {
	DecodeChange(p []byte) (metadata.Change, error)
}

// Files puts something over the group's files before Raft is given them: a test's fail.
type Files interface {
	Log(below Log) Log
	Snapshots(below raft.SnapshotStore) raft.SnapshotStore
}

// current is the Decoder of this release.
type current struct{}

// DecodeChange implements Decoder.
func (current) DecodeChange(p []byte) (metadata.Change, error) { return metadata.DecodeChange(p) }

// New returns a Controller with an empty image, until it is opened.
func New() *Controller {
	c := &Controller{changed: make(chan struct{}), saveNow: make(chan struct{}, 1), replayed: make(chan struct{})}
	c.image.Store(&metadata.Image{})
	return c
}

// Open opens the files and starts the group's member here. It has the image that was saved
// last. If it fails, nothing is open.
func (c *Controller) Open(cfg Config) error {
	if cfg.Decoder == nil {
		cfg.Decoder = current{}
	}
	c.cfg = cfg
	db, err := openLog(cfg.Log)
	if err != nil {
		return err
	}
	if err := c.start(db); err != nil {
		db.Close() // Close does nothing then, and the file is locked while it is open
		return err
	}
	return nil
}

// start starts the member over its log.
func (c *Controller) start(db *raftboltdb.BoltStore) error {
	cfg := &c.cfg
	c.db = db
	c.Member = raftgroup.Member{Group: Group, Role: c, Port: cfg.Port}
	c.store = &store{Log: db, member: c, logger: cfg.Logger, closing: cfg.Closing}
	logger := raftgroup.NewLogger(cfg.Logger.With("group", "controller"), cfg.Limits)
	files, err := raft.NewFileSnapshotStoreWithLogger(filepath.Dir(cfg.Log), 2, logger)
	if err != nil {
		return fmt.Errorf("open snapshots beside %s: %w", cfg.Log, err)
	}
	snapshots := raft.SnapshotStore(files)
	if cfg.Files != nil {
		c.store.Log, snapshots = cfg.Files.Log(db), cfg.Files.Snapshots(files)
	}
	id := cfg.Self.ServerID()
	conf := c.Config(id, logger)
	conf.CommitTimeout = 50 * time.Millisecond // every node waits for the image
	conf.SnapshotThreshold = 1024
	conf.TrailingLogs = 1024

	last, err := db.LastIndex()
	if err != nil {
		return err
	}
	if last == 0 && cfg.Founder {
		err := raft.BootstrapCluster(conf, c.store, c.store.Log, snapshots, c.Port, raft.Configuration{
			Servers: []raft.Server{{ID: id, Address: raft.ServerAddress(id)}},
		})
		if err != nil && !errors.Is(err, raft.ErrCantBootstrap) {
			return fmt.Errorf("found the controller group: %w", err)
		}
	}
	c.loadImage(last, snapshots)
	c.loaded = c.image.Load().Index
	c.store.committed.Store(c.loaded)
	if c.replayTo, err = lastChange(db, last, c.loaded); err != nil {
		return err
	}
	c.reached(c.loaded)
	term, err := db.GetUint64([]byte("CurrentTerm"))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	c.Port.StartAt(term)
	if c.Raft, err = raft.NewRaft(conf, c, c.store, c.store, snapshots, c.Transport(nil)); err != nil {
		return errors.Join(fmt.Errorf("start the controller group: %w", err), c.Down())
	}
	c.Port.Attach(c)
	c.store.live.Store(true)
	return nil
}

// stop ends this member of the group, before it would apply what it cannot: to go on
// without a change is to hold another image than all others, and to store one
// topic's records in the other's folder. It takes no further entry, takes no
// snapshot, does not vote, and says so; the partitions go on with the image there
// is. Raft is ended beside, since this is called in its goroutines.
func (c *Controller) stop(cause error) {
	if !c.stuck.CompareAndSwap(nil, &cause) {
		return
	}
	c.cfg.Logger.Error("this node's member of the controller group has stopped: it knows of no change of the cluster from here on",
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

// votesRecovered has the group's elections begin anew.
func (c *Controller) votesRecovered() { c.cfg.Elections.VotesRecovered(Group) }

// Down returns why this member has stopped, nil while it has not.
func (c *Controller) Down() error {
	if cause := c.stuck.Load(); cause != nil {
		return *cause
	}
	return nil
}

// CreateLog makes the file of the log and the votes, if it is not there.
func CreateLog(path string) error {
	db, err := openLog(path)
	if err != nil {
		return err
	}
	return db.Close()
}

// openLog opens the group's log and votes.
func openLog(path string) (*raftboltdb.BoltStore, error) {
	db, err := raftboltdb.New(raftboltdb.Options{Path: path, MsgpackUseNewTimeFormat: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return db, nil
}

// InstallSnapshot implements transport.Member: the snapshot goes to Raft after all. The
// controller group's snapshots hold the whole image, and raft-boltdb keeps its log. vet
// judges them first.
func (c *Controller) InstallSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte) {
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

// Run hands on who leads and saves images, until the node ends. From now on what the Observer
// is told may be acted upon.
func (c *Controller) Run() {
	c.runs.Store(true)
	c.noteReplayed()
	for _, run := range []func(){c.saveImages, func() { c.WatchLeadership(c.cfg.Elections, c.cfg.Closing) }} {
		c.running.Add(1)
		go func() {
			defer c.running.Done()
			run()
		}()
	}
}

// Close ends the member, once the node's end has begun. It does nothing if none is open.
func (c *Controller) Close() {
	if c.Raft == nil {
		return
	}
	c.ended.Wait()
	c.Port.Close()
	if err := c.Raft.Shutdown().Error(); err != nil {
		c.cfg.Logger.Warn("the controller group did not shut down cleanly", "error", err)
	}
	if err := c.db.Close(); err != nil {
		c.cfg.Logger.Warn("the controller group's log did not close cleanly", "error", err)
	}
	c.running.Wait()
}

// Name implements raftgroup.Role.
func (c *Controller) Name() string { return "controller" }

// LeadsNow implements raftgroup.Role.
func (c *Controller) LeadsNow() (term uint64, ok bool) {
	return c.Raft.CurrentTerm(), c.Raft.State() == raft.Leader
}

// StillLeads implements raftgroup.Role: nothing shuts this member but the end of the node.
func (c *Controller) StillLeads(uint64) bool { return true }

// Stalls implements raftgroup.Role. Every change waits for the disk, and is seldom.
func (c *Controller) Stalls() bool { return false }

// LeadershipChanged implements raftgroup.Role.
func (c *Controller) LeadershipChanged(leads bool) {
	if !leads {
		c.cfg.Logger.Info("this node is the controller no longer")
		return
	}
	c.Port.Expedite()
	c.cfg.Elections.Leads(Group, c.Raft.CurrentTerm())
}

// Image returns the cluster's metadata as this node knows it.
func (c *Controller) Image() *metadata.Image { return c.image.Load() }

// Changed returns a channel that is closed when a newer image comes than the
// one at the time of the call.
func (c *Controller) Changed() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changed
}

// take makes an image the one there is, and returns the one before it.
func (c *Controller) take(image *metadata.Image) (was *metadata.Image) {
	was = c.image.Swap(image)
	c.mu.Lock()
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()
	c.cfg.Observer.ImageChanged()
	return was
}

// Apply implements raft.FSM: the result is an outcome. A change that cannot be read
// stops this member; whether it was refused is for all nodes the same.
func (c *Controller) Apply(l *raft.Log) interface{} {
	defer raftgroup.Contain("apply a metadata change", c.stop)
	if err := c.Down(); err != nil {
		return err
	}
	c.store.committed.Store(max(c.store.committed.Load(), l.Index))
	defer c.reached(l.Index)
	if c.applied(l.Index) {
		return nil
	}
	change, err := c.cfg.Decoder.DecodeChange(l.Data)
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
		c.cfg.Observer.Dropped(d.Topic)
	}
	was := c.take(next)
	// A change of an earlier term is no news: it may be applied again after a start.
	if c.runs.Load() && c.Raft.State() == raft.Leader && c.Raft.CurrentTerm() == l.Term {
		c.cfg.Observer.Decided(was, next, change)
	}
	return nil
}

// Snapshot implements raft.FSM.
func (c *Controller) Snapshot() (raft.FSMSnapshot, error) {
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
func (c *Controller) Restore(r io.ReadCloser) error {
	defer r.Close()
	p, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	image, err := metadata.DecodeImage(p)
	if err == nil && image.ClusterID != "" && image.ClusterID != c.cfg.Cluster {
		err = fmt.Errorf("the image is of cluster %s, this node of %s", image.ClusterID, c.cfg.Cluster)
	}
	if err != nil {
		c.stop(fmt.Errorf("metadata image cannot be taken: %w", err))
		return err
	}
	c.store.committed.Store(max(c.store.committed.Load(), image.Index))
	if c.applied(image.Index) {
		return nil
	}
	c.take(image)
	c.reached(image.Index)
	return nil
}

// vet judges a snapshot of the image before Raft is given it, which keeps it, forgets
// its log and asks afterwards. skip tells that everything in it is here already.
func (c *Controller) vet(req *raft.InstallSnapshotRequest, data []byte) (skip bool, err error) {
	if !c.store.live.Load() {
		return false, ErrNoController // starting
	}
	if term := c.Raft.CurrentTerm(); req.Term < term {
		return false, fmt.Errorf("controller: a snapshot of term %d in term %d", req.Term, term)
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
		return false, fmt.Errorf("controller: an image at feature level %d after %d", image.Level(), now.Level())
	case image.ClusterID != c.cfg.Cluster:
		return false, fmt.Errorf("controller: an image of cluster %s in cluster %s", image.ClusterID, c.cfg.Cluster)
	case image.Index > req.LastLogIndex || image.Index < now.Index:
		return false, fmt.Errorf("controller: an image at change %d in a snapshot at %d, after change %d", image.Index, req.LastLogIndex, now.Index)
	case image.LastGroup() < now.LastGroup(),
		image.LastGroup()-now.LastGroup() > (image.Index-now.Index)*metadata.MaxTopicPartitions:
		return false, fmt.Errorf("controller: an image at change %d with group %d, after change %d with group %d", image.Index, image.LastGroup(), now.Index, now.LastGroup())
	case len(image.Brokers()) == 0 && len(now.Brokers()) > 0:
		return false, errors.New("controller: an image without brokers")
	}
	return false, nil
}

// Propose commits a change here, on the leader. It returns the index that an
// image must have reached to hold the change. When ctx ends the change may still be
// committed: a leader whose followers cannot store it leads on.
func (c *Controller) Propose(ctx context.Context, change metadata.Change) (index uint64, err error) {
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
	switch err := raftgroup.Await(ctx, c.cfg.Closing, f); {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrEnqueueTimeout):
		return 0, ErrNoController
	case err != nil:
		return 0, fmt.Errorf("%w: %v", raftgroup.ErrUnknown, err)
	}
	if err, refused := f.Response().(error); refused {
		return 0, err
	}
	return f.Index(), nil
}

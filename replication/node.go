package replication

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/failover"
	"millrace/replication/folder"
	"millrace/replication/keyring"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/roster"
	"millrace/replication/transport"
	"millrace/replication/vote"
	"millrace/segment"
)

// cacheBytes is what a node keeps of its partitions' recent entries, so that
// replicating a tail touches no mapping.
const cacheBytes = 32 << 20

// defaultReplicas is the replication factor of topics that do not ask for one,
// where there are as many brokers.
const defaultReplicas = 3

// A Config says what a node is and where it keeps its data.
type Config struct {
	// DataDir is the node's folder. It is made if it is not there.
	DataDir string
	// NodeID is the node's id, 1 or more. 0: what the folder says; in an empty
	// one 1 when founding a cluster, or whatever the cluster gives.
	NodeID int32
	// Advertise is the HOST:PORT that peers are told, and clients unless Listeners
	// says otherwise.
	Advertise string
	// Listeners are where clients reach this node, by the name of the listener that
	// they came in by, here or at another node. None: at Advertise.
	Listeners []metadata.Listener
	// Join lists addresses of nodes of a cluster to become a member of. With an
	// empty folder and no addresses the node founds a cluster, unless a join was begun
	// there. Once the folder belongs to a cluster they are asked where the others are,
	// at each start.
	Join []string
	// Found has an empty folder found a cluster whatever else is known: that a join was
	// begun in it, or that nodes of another cluster look for this one.
	Found bool
	// FoundAfter is how long a node that would found a cluster listens before whether
	// the nodes of another look for it; they dial once a second at least. 0: not at all.
	FoundAfter time.Duration
	// Users are those with whom a cluster begins that this node founds: see millrace.Config.
	Users []metadata.User
	// Rack is where the broker stands, for placement; "" is nowhere in particular.
	Rack string
	// Settings are broker settings under Kafka's names, defaults for topics among them.
	Settings map[string]string
	// Logger gets diagnostics; nil discards them.
	Logger *slog.Logger
	// Now is the clock for timestamps and retention; nil is time.Now.
	Now func() time.Time
	// FS is the file system of the partitions and of the node's own small files; nil is the
	// operating system's. The votes and the controller group's log and snapshots are kept
	// by libraries that know no other, and the folder's age is overwritten in place.
	FS segment.FS
	// Dialer opens connections to other nodes; nil is TCP.
	Dialer transport.Dialer

	decoder   controller.Decoder // of changes; nil: this release's, and an older one's in tests
	metaFiles controller.Files   // over the controller group's; nil: nothing, and what fails in tests
	maxLevel  int32              // the highest feature level that it reads; 0: this release's, and less in tests
}

// A Node is one broker's replicas, and its part in the controller group.
type Node struct {
	cfg      Config
	logger   *slog.Logger
	folder   folder.Folder
	identity folder.Identity
	votes    *vote.Store

	standing *folder.Standing
	members  *roster.Members // set by Start, as book is
	book     *roster.Book

	security
	registrar registrar // set by Start
	upkeep    upkeep

	*lifetime
	*hosted

	ready      chan struct{} // closed when transport and controller are set
	transport  *transport.Transport
	controller *controller.Controller
	news       news

	dropped droppedTopics

	failover *failover.Failover
	events   partition.Events // what partitions tell: the failover
	env      *partition.Env   // of the partitions

	reconcileWake chan struct{}

	resolved atomic.Pointer[resolvedSettings]
}

// Open reads who the node is and opens what its groups share. Start does the rest.
func Open(cfg Config) (*Node, error) {
	n := &Node{
		controller:    controller.New(),
		cfg:           cfg,
		logger:        cfg.Logger,
		ready:         make(chan struct{}),
		lifetime:      newLifetime(),
		hosted:        newHosted(),
		reconcileWake: make(chan struct{}, 1),
	}
	n.failover = failover.New(failover.Config{Node: groups{n}, Observer: groups{n}})
	n.events = n.failover
	n.upkeep = newUpkeep(n)
	if n.cfg.maxLevel == 0 {
		n.cfg.maxLevel = metadata.MaxLevel
	}
	if n.cfg.FS == nil {
		n.cfg.FS = segment.OS
	}
	n.folder = folder.Folder{FS: n.cfg.FS, Dir: cfg.DataDir}
	n.standing = folder.NewStanding(n.folder)
	if n.logger == nil {
		n.logger = slog.New(slog.DiscardHandler)
		n.cfg.Logger = n.logger
	}
	if n.cfg.Now == nil {
		n.cfg.Now = time.Now
	}
	if _, _, err := roster.SplitAddress(cfg.Advertise); err != nil {
		return nil, fmt.Errorf("advertised address %q: %w", cfg.Advertise, err)
	}
	n.keyring = keyring.Open(n.folder, n.logger)
	n.security.n, n.door = n, admission.NewDoor(calls{n}, n.logger)
	var err error
	n.entry, err = admission.Identify(admission.Config{
		Folder: n.folder, NodeID: cfg.NodeID, Advertise: cfg.Advertise, Rack: cfg.Rack, Join: cfg.Join,
		Found: cfg.Found, FoundAfter: cfg.FoundAfter, MaxLevel: n.cfg.maxLevel, Dialer: cfg.Dialer, Keyring: n.keyring,
		CallTimeout: 2 * callTimeout, Logger: n.logger,
	})
	if err != nil {
		return nil, err
	}
	n.identity = n.entry.Identity()
	if err := n.folder.Make(); err != nil {
		return nil, err
	}
	n.votes, err = n.folder.OpenVotes(vote.Config{Logger: n.logger, Observer: n.failover})
	if errors.Is(err, vote.ErrDamaged) {
		return nil, fmt.Errorf("%w; move the file away and start again: the node then comes back as a new incarnation and catches up from the others", err)
	}
	if err != nil {
		return nil, err
	}
	n.upkeep.keepRoom()
	return n, nil
}

// Start makes the node a member of its cluster, founding or joining one if the
// folder is empty. Connections of other nodes must come to Serve by now. It returns
// when the node has the cluster's image and is registered in it, and a cluster that it
// founded has a user, if it was given any. The image that it had
// last will do; a quorum of controllers must be there where that does not have the node as
// it is now, at another address say.
func (n *Node) Start(ctx context.Context) error {
	if !n.entry.Belongs() {
		if err := n.enter(ctx); err != nil {
			return err
		}
	}
	n.logger = n.logger.With("node", n.identity.Node)
	age, err := n.folder.OpenAge(n.registeredAge())
	if err != nil {
		return fmt.Errorf("raise the data folder's age: %w", err)
	}
	n.upkeep.aging.Age = age
	run := folder.NewRun()
	n.registrar = registrar{n: n, Registrar: admission.NewRegistrar(admission.Registration{
		Node: n.identity.Peer(), Cluster: n.identity.Cluster, Advertise: n.cfg.Advertise, Rack: n.cfg.Rack, Listeners: n.cfg.Listeners,
		MaxLevel: n.cfg.maxLevel, Run: run, Age: age, Keyring: n.keyring, Founder: n.identity.Founder, Users: n.cfg.Users, Logger: n.logger,
	}, n, n.standing)}
	n.standing.Belongs(n.identity, n.logger)
	n.members = roster.NewMembers(roster.Config{
		Self: n.identity.Peer(), Run: run, Began: n.began, Age: age, MaxLevel: n.cfg.maxLevel, Node: rosterNode{n}, Logger: n.logger,
	})
	n.transport = transport.New(transport.Config{
		Local:      n.identity.Peer(),
		Cluster:    n.identity.Cluster,
		Address:    n.cfg.Advertise,
		Guard:      keyring.Guard{Keyring: n.keyring, Images: n},
		Membership: peers{n},
		Observer:   peers{n},
		Handler:    peers{n},
		Entries:    gate{},
		Dialer:     n.cfg.Dialer,
		Timers: transport.Timers{
			GatherInterval: raftgroup.GatherInterval,
			Timeout:        raftgroup.AnswerTimeout,
			PingInterval:   raftgroup.PingInterval,
			PeerTimeout:    raftgroup.PeerTimeout,
			Quiesce:        raftgroup.QuiesceTime,
		},
		Logger: n.logger,
	})
	n.env = hosting{n}.env()
	n.book = roster.OpenBook(roster.BookConfig{
		Self: n.identity.Peer(), Address: n.cfg.Advertise, Folder: n.folder,
		Cluster: n, Network: n.transport, Views: rosterNode{n}, Logger: n.logger,
		Timers: roster.BookTimers{Call: callTimeout, SeekFirst: seekEvery, SeekMost: seekMost},
	})
	n.upkeep.keepRoom()
	err = n.controller.Open(controller.Config{
		Log: n.folder.MetaLog(), FS: n.cfg.FS, Cluster: n.identity.Cluster, Self: n.identity.Peer(), Founder: n.identity.Founder,
		Port: n.transport.Group(controller.Group, n.serverID()), Peers: n.transport, Elections: n.failover, Observer: decisions{n},
		Closing: n.closing, Logger: n.logger, Limits: n.env.LogLimits, Decoder: n.cfg.decoder, Files: n.cfg.metaFiles,
	})
	if err != nil {
		n.transport.Close()
		return err
	}
	n.failover.Start(n.ctx, n.transport, n.logger)
	close(n.ready)
	n.keyring.Belongs(n.identity.Name(), n)
	n.controller.Run()
	n.goTracked(n.upkeep.snapshotLoop)
	n.goTracked(n.upkeep.loop)
	n.goTracked(n.upkeep.cleanerLoop)
	n.goTracked(newReconciler(n).loop)
	n.goTracked(func() { n.book.Seek(n.ctx, callSeek, n.entry.Join()) })
	n.book.SetPeers()
	n.failover.Opened(controller.Group)
	if n.registrar.Known() {
		// As it was; that it was started again is said in the background, since the
		// node can serve what it has without a controller.
		n.registrar.registered.Store(true)
		n.registrar.stay(n.Image())
		return n.registrar.FirstUsers(ctx)
	}
	if err := n.registrar.Register(ctx); err != nil {
		if errors.Is(err, metadata.ErrOldDisk) {
			n.outdated(err.Error())
		}
		if failure := n.Failure(); failure != nil {
			return failure // which says what err does, or made it
		}
		return err
	}
	n.registrar.registered.Store(true)
	return n.registrar.FirstUsers(ctx)
}

// enter founds a cluster or joins one, and keeps who the node is from then on.
func (n *Node) enter(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })()
	if err := n.entry.Enter(ctx); err != nil {
		return err
	}
	// The files that Folder.Load looks for must be there before node.json is.
	if err := controller.CreateLog(n.folder.MetaLog()); err != nil {
		return err
	}
	if err := segment.SyncDir(n.cfg.FS, n.folder.Path(folder.MetaName)); err != nil { // its name, too
		return err
	}
	if err := n.entry.Settle(); err != nil {
		return err
	}
	n.identity = n.entry.Identity()
	return nil
}

// Shutdown hands leadership over, unless controlled.shutdown.enable says not to,
// closes every log clean and leaves. ctx bounds the handing over only.
func (n *Node) Shutdown(ctx context.Context) error {
	n.news.leaving.Store(true)
	select {
	case <-n.ready:
		if n.settings().Leaders.ControlledShutdown {
			n.handOver(ctx)
		}
	default:
	}
	n.end(n.closeAll)
	return nil
}

// closeAll closes what the node has open. The votes go first: a group that
// still waits to save one on a broken disk gives up then, and can be shut down.
func (n *Node) closeAll() {
	if err := n.votes.Close(); err != nil {
		n.logger.Warn("votes did not close cleanly", "error", err)
	}
	n.closePartitions()
	n.controller.Close()
	if n.transport != nil {
		n.transport.Close()
	}
	n.tracked.Wait()
	n.failover.Wait()
	if n.upkeep.aging.Age != nil {
		n.upkeep.aging.Age.Close()
	}
}

// handOver moves leadership of every group to another node.
func (n *Node) handOver(ctx context.Context) {
	var wait sync.WaitGroup
	limit := make(chan struct{}, 32)
	n.eachReplica(func(r *partition.Replica) {
		id, ok := r.Successor()
		if _, leads := r.LeadsNow(); !leads || !ok {
			return
		}
		wait.Add(1)
		go func() {
			defer wait.Done()
			limit <- struct{}{}
			defer func() { <-limit }()
			if err := r.TransferTo(ctx, id); err != nil {
				n.logger.Debug("leadership was not handed over", "partition", r.Name(), "to", id, "error", err)
			}
		}()
	})
	wait.Wait()
	m := n.memberOf(controller.Group)
	if m == nil || m.Raft.State() != raft.Leader || ctx.Err() != nil {
		return
	}
	for _, id := range m.Voters() {
		if id != n.serverID() && n.connected(id) && m.SendTimeoutNow(id) == nil {
			return
		}
	}
}

// ID returns the node's id: 1 or more once Start has returned, 0 while the node
// does not belong to a cluster yet.
func (n *Node) ID() int32 {
	select {
	case <-n.ready:
		return n.identity.Node
	default:
		return 0
	}
}

// ClusterID returns the cluster's id, 22 characters of base64; "" like ID.
func (n *Node) ClusterID() string {
	select {
	case <-n.ready:
		return n.identity.Cluster
	default:
		return ""
	}
}

// Settings returns the broker settings the node was started with.
func (n *Node) Settings() map[string]string { return n.cfg.Settings }

// serverID returns the node's name in Raft groups.
func (n *Node) serverID() raft.ServerID { return n.identity.Peer().ServerID() }

// serverOf returns a node's name in Raft groups, as the image has it.
func (n *Node) serverOf(node int32) (raft.ServerID, bool) {
	b, ok := n.Image().Broker(node)
	if !ok {
		return "", false
	}
	return raft.ServerID(b.ServerID()), true
}

// connected tells whether a server's node is there.
func (n *Node) connected(id raft.ServerID) bool {
	peer, err := transport.ParseServerID(id)
	return err == nil && n.Live(peer.Node)
}

// Live tells whether this node has a connection to a broker; to itself it always has.
func (n *Node) Live(broker int32) bool {
	return broker == n.identity.Node || slices.Contains(n.transport.Connected(), broker)
}

// Image returns the cluster's metadata as this node knows it.
func (n *Node) Image() *metadata.Image {
	select {
	case <-n.ready:
		return n.controller.Image()
	default:
		return &metadata.Image{}
	}
}

// Changed returns a channel that is closed when a newer image comes than the
// one at the time of the call.
func (n *Node) Changed() <-chan struct{} { return n.controller.Changed() }

// Change commits a change through the controller group, wherever its leader
// is, and waits until this node's image holds it. A refusal is metadata's own
// error. While the group has no leader Change waits for one, until ctx ends.
func (n *Node) Change(ctx context.Context, change metadata.Change) error {
	return n.controller.Change(ctx, change)
}

// NewProducerID returns a producer id that no other call in the cluster's life
// has returned.
func (n *Node) NewProducerID(ctx context.Context) (int64, error) {
	return n.controller.NewProducerID(ctx)
}

// Controller returns the node that leads the controller group, false if this
// node knows of none that is there.
func (n *Node) Controller() (node int32, ok bool) { return n.failover.Controller() }

// ControllerDown returns why this node learns of no change of the cluster any more,
// nil while it does.
func (n *Node) ControllerDown() error { return n.controller.Down() }

// Replayed returns a channel that is closed once the image has all that this node's log
// had of the cluster's changes when it started; see controller.Controller.Replayed.
func (n *Node) Replayed() <-chan struct{} { return n.controller.Replayed() }

// LastImage reads the image that a node's data folder has, whether the node runs or not.
// It is at most a second older than what the node knows.
func LastImage(dataDir string) (*metadata.Image, error) {
	return controller.LastImage(filepath.Join(dataDir, folder.MetaName))
}

// memberOf returns this node's member of a group, nil if it has none now.
func (n *Node) memberOf(group uint64) *raftgroup.Member {
	if group == controller.Group {
		select {
		case <-n.ready:
			return &n.controller.Member
		default:
			return nil
		}
	}
	if r := n.replicaOf(group); r != nil {
		return &r.Member
	}
	return nil
}

// eachMember calls f for this node's members of all groups, the controllers' first.
func (n *Node) eachMember(f func(*raftgroup.Member)) {
	if m := n.memberOf(controller.Group); m != nil {
		f(m)
	}
	n.eachReplica(func(r *partition.Replica) { f(&r.Member) })
}

// Failed is closed when the node must not go on; Failure says why.
func (n *Node) Failed() <-chan struct{} { return n.standing.Failed() }

// Failure is why the node must not go on, nil while it may.
func (n *Node) Failure() error { return n.standing.Failure() }

// outdated is called when another node shows that this folder is an old copy. It may
// lack what was acknowledged under its name, and another may be at work under it: so
// it is noted that the next start is that of a new incarnation, as after a lost
// disk, and the node ends.
func (n *Node) outdated(reason string) {
	n.standing.Fail(fmt.Errorf("%w: %s; unless the other one is at work, which then has its place, start it again: it comes back as a new incarnation and catches up, and its partitions are set aside; if most nodes were restored, there is nobody to catch up from", ErrOldDisk, reason),
		n.Image().Level(), func(id *folder.Identity) { id.Outdated = true })
}

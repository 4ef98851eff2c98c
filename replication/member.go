package replication

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// An about is what a node says about itself in each handshake between nodes:
//
//	lowest feature level u16 · highest u16 · age u64 · run, the rest: 16 hex digits
//
// and in gossip too, as the age grows. Nodes of the first release say nothing.
type about struct {
	low, high int32
	age       uint64 // of its data folder
	run       string // random, of the process
}

// of is what a says, as the image would have it of the node that says it.
func (a about) of(p transport.Peer) *metadata.Broker {
	return &metadata.Broker{Incarnation: p.Incarnation, Starts: a.age, Run: a.run}
}

func (a about) encode() string {
	p := binary.BigEndian.AppendUint16(nil, uint16(a.low))
	p = binary.BigEndian.AppendUint16(p, uint16(a.high))
	return string(binary.BigEndian.AppendUint64(p, a.age)) + a.run
}

func decodeAbout(s string) (about, error) {
	if s == "" {
		return about{low: 1, high: 1}, nil
	}
	if len(s) < 12 {
		return about{}, fmt.Errorf("replication: a peer says %d bytes about itself, at least 12", len(s))
	}
	p := []byte(s)
	return about{
		low: int32(binary.BigEndian.Uint16(p)), high: int32(binary.BigEndian.Uint16(p[2:])),
		age: binary.BigEndian.Uint64(p[4:]), run: s[12:],
	}, nil
}

// about is what this node says.
func (n *Node) about() string {
	if n.maxLevel < 2 {
		return "" // as the first release
	}
	return about{low: metadata.MinLevel, high: n.maxLevel, age: n.age.Now(), run: n.run}.encode()
}

// lostAfter is how long a node must have known of no controller before it lets in whom
// its image does not name: it may be the one whose image is old.
const lostAfter = 10 * time.Second

// judge decides who opens connections to this node, and to whom it does: the brokers
// that the image names, by their incarnation, and members of the controller group. A
// node without an image lets everybody in who knows the cluster's id, and so does
// one that has been without a controller for a while.
//
// A name is no proof. What only authentication can tell, such as one who knows a
// member's incarnation and the starts of its folder, passes here.
func (n *Node) judge(p transport.Peer, text string) error {
	a, err := decodeAbout(text)
	if err != nil {
		return err
	}
	image := n.Image()
	b, known := image.Broker(p.Node)
	switch {
	case image.ClusterID == "":
	case known && b.Incarnation == p.Incarnation:
		if b.Outran(a.of(p)) {
			return n.oldDisk(p, b.Starts, a.age)
		}
		if a.high < image.Level() || a.low > image.Level() {
			return fmt.Errorf("node %d runs a release that reads feature levels %d to %d, the cluster is at %d: upgrade it", p.Node, a.low, a.high, image.Level())
		}
	case n.inControllerGroup(p), time.Since(n.start)-time.Duration(n.controllerSeen.Load()) > lostAfter:
	case known:
		return &transport.ReplacedError{Peer: p, At: image.Index}
	default:
		return fmt.Errorf("%w: %s", transport.ErrStranger, p)
	}
	n.aboutMu.Lock()
	defer n.aboutMu.Unlock()
	if seen := n.abouts[p]; seen.of(p).Outran(a.of(p)) { // more than is registered
		return n.oldDisk(p, seen.age, a.age)
	}
	return nil
}

// oldDisk refuses a peer as an old copy. When too few controllers are left without those
// that were, nothing goes on by itself any more, and this node says so, once.
func (n *Node) oldDisk(p transport.Peer, heard, says uint64) error {
	n.oldCopies.Store(p.ServerID(), true)
	if m := n.memberOf(controllerGroup); m != nil {
		voters := m.Voters()
		sound := slices.DeleteFunc(slices.Clone(voters), func(id raft.ServerID) bool { _, old := n.oldCopies.Load(id); return old })
		if len(sound) < len(voters)/2+1 && n.warned.CompareAndSwap(false, true) {
			n.logger.Error("the data folders of a majority of the controllers are old copies: they are not let in, and without them no controller is elected, nor a leader of partitions that lost a majority, too; what is on this node is not lost: see `millrace cluster rescue --help`",
				"controllers", voters, "sound", sound)
		}
	}
	if heard == says {
		return fmt.Errorf("%w: another run of node %s was at age %d already, as this one is", transport.ErrOldDisk, p, says)
	}
	return fmt.Errorf("%w: the folder of node %s had come to age %d, this one is at %d", transport.ErrOldDisk, p, heard, says)
}

// admitted remembers what a peer says about itself, unless it has said more meanwhile.
func (n *Node) admitted(p transport.Peer, text string) {
	a, err := decodeAbout(text)
	if err != nil {
		return // judge has refused it
	}
	n.aboutMu.Lock()
	defer n.aboutMu.Unlock()
	seen, known := n.abouts[p]
	switch {
	case !known && len(n.abouts) >= 2*metadata.MaxBrokers:
		return
	case a.age == 0: // the first release again, which does not count
		a.age, a.run = seen.age, seen.run
	case a.age < seen.age:
		return
	}
	n.abouts[p] = a
	n.oldCopies.Delete(p.ServerID()) // a clone of its folder may have called before; this is no copy
}

func (n *Node) inControllerGroup(p transport.Peer) bool {
	m := n.memberOf(controllerGroup)
	if m == nil {
		return false
	}
	for _, s := range m.Raft.GetConfiguration().Configuration().Servers {
		if s.ID == p.ServerID() {
			return true
		}
	}
	return false
}

// noteController remembers when there was a controller last.
func (n *Node) noteController() {
	if _, ok := n.Controller(); ok {
		n.controllerSeen.Store(int64(time.Since(n.start)))
	}
}

// raiseLevel raises the cluster's feature level, on its controller, as far as it can.
func (n *Node) raiseLevel() {
	m := n.memberOf(controllerGroup)
	if m == nil || n.controller.Down() != nil || n.Image().Level() >= n.maxLevel || m.Raft.State() != raft.Leader {
		return
	}
	change, ok := n.nextLevel()
	if !ok || !n.raising.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer n.raising.Store(false)
		if _, err := n.controller.propose(n.ctx, change); err != nil {
			n.logger.Warn("the cluster's feature level was not raised", "to", change.Level, "error", err)
			return
		}
		n.logger.Info("the cluster's feature level was raised: all brokers read it", "to", change.Level)
	})
}

// nextLevel is the change to the highest feature level that all registered brokers read:
// of those that registered below level 2, and so could not say it, by what the process
// that is connected now says. ok is false if that is no higher than the cluster's.
func (n *Node) nextLevel() (change metadata.SetLevel, ok bool) {
	image := n.Image()
	level := n.maxLevel
	if image.Level() < 2 {
		level = min(level, 2) // where brokers register with what they read; from there it goes on
	}
	for _, b := range image.Brokers() {
		high := max(b.MaxLevel, 1)
		switch {
		case image.Level() >= 2:
		case b.ID == n.identity.Node:
			high = n.maxLevel
		case n.Live(b.ID):
			n.aboutMu.Lock()
			high = max(high, n.abouts[transport.Peer{Node: b.ID, Incarnation: b.Incarnation}].high)
			n.aboutMu.Unlock()
		}
		level = min(level, high)
	}
	return metadata.SetLevel{Level: level, Judged: image.Index}, image.Level() > 0 && level > image.Level()
}

// noteLevel keeps in the folder that the cluster has reached a feature level, for a
// release that cannot read it. It is the reconciler's, who comes again if it is not ok.
func (n *Node) noteLevel(level int32) (ok bool) {
	if level < 2 || level <= max(n.identity.Level, n.noted) {
		return true
	}
	n.aboutMu.Lock()
	defer n.aboutMu.Unlock()
	if n.failure != nil {
		return true // which has noted it, and more
	}
	id := n.identity
	id.Level = level
	if err := n.folder.Save(id); err != nil {
		n.logger.Warn("the feature level was not noted, trying again", "level", level, "error", err)
		return false
	}
	n.noted = level
	return true
}

// broker is this node as it registers at a feature level.
func (n *Node) broker(level int32) (metadata.Broker, error) {
	host, port, err := splitAddress(n.cfg.Advertise)
	b := metadata.Broker{ID: n.identity.Node, Incarnation: n.identity.Incarnation, Host: host, Port: port, Rack: n.cfg.Rack}
	if level >= 2 {
		b.MinLevel, b.MaxLevel, b.Starts, b.Run = metadata.MinLevel, n.maxLevel, n.age.Now(), n.run
	}
	if level >= 3 {
		b.Listeners = metadata.JoinListeners(n.cfg.Listeners)
	}
	return b, err
}

// sameRegistration tells whether b, as the image has it, is what self says. The age moves on
// in one run, and is registered where that begins.
func sameRegistration(b, self metadata.Broker) bool {
	if b.Run == self.Run {
		self.Starts = b.Starts
	}
	return b == self
}

// known tells whether the image has this node where it is, whatever start it was.
func (n *Node) known() bool {
	self, err := n.broker(1)
	b, ok := n.Image().Broker(self.ID)
	if err != nil || !ok {
		return false
	}
	was := *b
	was.MinLevel, was.MaxLevel, was.Starts, was.Run, was.Listeners = 0, 0, 0, "", ""
	return was == self
}

// stayRegistered registers again when the image no longer says what this node is: the
// feature level was raised, or somebody else said something.
func (n *Node) stayRegistered(image *metadata.Image) {
	if !n.isRegistered.Load() || n.controller.Down() != nil {
		return
	}
	self, err := n.broker(image.Level())
	if b, ok := image.Broker(self.ID); err != nil || ok && sameRegistration(*b, self) || !n.registering.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer n.registering.Store(false)
		if err := n.registerSelf(n.ctx); err != nil && n.ctx.Err() == nil {
			n.logger.Error("this node could not register again", "error", err)
			if errors.Is(err, metadata.ErrOldDisk) {
				n.outdated(err.Error())
			}
		}
	})
}

// refusedAsOld hears of a peer that says this folder is an old copy.
func (n *Node) refusedAsOld(by transport.Peer, reason string) {
	if _, member := n.Image().Broker(by.Node); member || n.Image().ClusterID == "" {
		n.outdated(reason)
	}
}

// refusedAsReplaced hears of a peer that says that another incarnation has this node's
// place, at a change of the metadata. That is later than this one only if the change is
// later than those that are here, the last image among them, which name this one: a peer
// that is behind says the same of a node that has just taken a place. It takes a majority
// of the other brokers to say so: nothing is lost by waiting for them, and one that is
// wrong ends nobody.
func (n *Node) refusedAsReplaced(by transport.Peer, at uint64, reason string) {
	image := n.Image()
	self, named := image.Broker(n.identity.Node)
	if _, member := image.Broker(by.Node); !member || by.Node == n.identity.Node || !named || self.Incarnation != n.identity.Incarnation || at <= image.Index {
		return
	}
	n.aboutMu.Lock()
	n.replacedAt[by.Node] = at
	said := 0
	for node, at := range n.replacedAt {
		if _, member := image.Broker(node); member && at > image.Index {
			said++
		}
	}
	n.aboutMu.Unlock()
	if said > (len(image.Brokers())-1)/2 {
		n.outdated(fmt.Sprintf("node %d says: %s", by.Node, reason))
	}
}

// cancelWhenFailed cancels what waits for the cluster when this node must end.
func (n *Node) cancelWhenFailed(cancel func()) (stop func()) {
	done := make(chan struct{})
	go func() { // ends with stop
		select {
		case <-n.failed:
			cancel()
		case <-done:
		}
	}()
	return func() { close(done) }
}

// drop notes that a topic's deletion was applied here, which an image below feature
// level 2 does not remember.
func (n *Node) drop(topic metadata.TopicID) {
	n.imageMu.Lock()
	defer n.imageMu.Unlock()
	n.dropped[topic] = true
}

// ErrOldDisk ends a node whose data folder turned out to be a copy of one that has
// gone on: a restored backup, or the clone of a disk.
var ErrOldDisk = errors.New("replication: the data folder is an old copy of this node's")

// outdated is called when another node shows that this folder is an old copy. It may
// lack what was acknowledged under its name, and another may be at work under it: so
// it is noted that the next start is that of a new incarnation, as after a lost
// disk, and the node ends.
func (n *Node) outdated(reason string) {
	n.fail(fmt.Errorf("%w: %s; unless the other one is at work, which then has its place, start it again: it comes back as a new incarnation and catches up, and its partitions are set aside; if most nodes were restored, there is nobody to catch up from: see `millrace cluster rescue --help` first", ErrOldDisk, reason),
		func(id *folder.Identity) { id.Outdated = true })
}

// Failed is closed when the node must not go on; Failure says why.
func (n *Node) Failed() <-chan struct{} { return n.failed }

// Failure is why the node must not go on, nil while it may.
func (n *Node) Failure() error {
	n.aboutMu.Lock()
	defer n.aboutMu.Unlock()
	return n.failure
}

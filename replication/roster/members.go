package roster

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/transport"
)

// Members decides whom a node speaks with: the brokers that the image names, by their
// incarnation, and members of the controller group. It hears what each says about itself,
// and what the others say of this node's folder.
//
// That a peer is who it says has been proved by then, or is not asked for yet: see package
// keyring.
type Members struct {
	cfg Config

	mu         sync.Mutex
	controlled time.Time                // when there was a controller last, or the process began
	abouts     map[transport.Peer]About // of the latest handshakes
	oldCopies  map[transport.Peer]bool  // who was refused as an old copy
	copiesSaid bool                     // that they are too many
	replacedAt map[int32]uint64         // by the brokers that say so, see Replaced
}

// A Config says for whom Members decides. Every field must be set.
type Config struct {
	Self     transport.Peer
	Run      string      // random, of this process
	Began    time.Time   // when it did
	Age      *folder.Age // of the data folder
	MaxLevel int32       // the highest feature level that this node reads
	Node     Node
	Logger   *slog.Logger
}

// NewMembers returns what nobody has said anything to yet.
func NewMembers(cfg Config) *Members {
	return &Members{
		cfg: cfg, controlled: cfg.Began,
		abouts:     make(map[transport.Peer]About),
		oldCopies:  make(map[transport.Peer]bool),
		replacedAt: make(map[int32]uint64),
	}
}

// About is what this node says about itself. It implements part of transport.Membership,
// as Judge and Admitted do.
func (m *Members) About() string {
	if m.cfg.MaxLevel < 2 {
		return "" // as the first release
	}
	return About{Low: metadata.MinLevel, High: m.cfg.MaxLevel, Age: m.cfg.Age.Now(), Run: m.cfg.Run}.Encode()
}

// lostAfter is how long a node must have known of no controller before it lets in whom
// its image does not name: it may be the one whose image is old.
const lostAfter = 10 * time.Second

// Controlled notes that there is a controller now.
func (m *Members) Controlled() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.controlled = time.Now()
}

// lost tells whether there has been no controller for a while, as far as this node knows.
func (m *Members) lost() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Since(m.controlled) > lostAfter
}

// Judge decides who opens connections to this node, and to whom it does. A
// node without an image lets everybody in who knows the cluster's id, and so does
// one that has been without a controller for a while.
func (m *Members) Judge(p transport.Peer, text string) error {
	a, err := decodeAbout(text)
	if err != nil {
		return err
	}
	image := m.cfg.Node.Image()
	b, known := image.Broker(p.Node)
	switch {
	case image.ClusterID == "":
	case known && b.Incarnation == p.Incarnation:
		if b.Outran(a.of(p)) {
			return m.oldDisk(p, b.Starts, a.Age)
		}
		if a.High < image.Level() || a.Low > image.Level() {
			return fmt.Errorf("node %d runs a release that reads feature levels %d to %d, the cluster is at %d: upgrade it", p.Node, a.Low, a.High, image.Level())
		}
	case m.isController(p), m.lost():
	case known:
		return &transport.ReplacedError{Peer: p, At: image.Index}
	default:
		return fmt.Errorf("%w: %s", transport.ErrStranger, p)
	}
	if seen := m.Last(p); seen.of(p).Outran(a.of(p)) { // more than is registered
		return m.oldDisk(p, seen.Age, a.Age)
	}
	return nil
}

// isController tells whether a peer is in the controllers' group.
func (m *Members) isController(p transport.Peer) bool {
	for _, s := range m.cfg.Node.Controllers() {
		if s.ID == p.ServerID() {
			return true
		}
	}
	return false
}

// Last is what a peer said about itself last; zero if it said nothing.
func (m *Members) Last(p transport.Peer) About {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.abouts[p]
}

// oldDisk refuses a peer as an old copy.
func (m *Members) oldDisk(p transport.Peer, heard, says uint64) error {
	m.mu.Lock()
	m.oldCopies[p] = true
	m.warnOfCopiesLocked()
	m.mu.Unlock()
	if heard == says {
		return fmt.Errorf("%w: another run of node %s was at age %d already, as this one is", transport.ErrOldDisk, p, says)
	}
	return fmt.Errorf("%w: the folder of node %s had come to age %d, this one is at %d", transport.ErrOldDisk, p, heard, says)
}

// warnOfCopiesLocked says once when too few controllers are left without those that were
// refused as old copies: then nothing goes on by itself any more.
func (m *Members) warnOfCopiesLocked() {
	var voters, sound []raft.ServerID
	for _, s := range m.cfg.Node.Controllers() {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters = append(voters, s.ID)
		if p, err := transport.ParseServerID(s.ID); err != nil || !m.oldCopies[p] {
			sound = append(sound, s.ID)
		}
	}
	if m.copiesSaid || len(voters) == 0 || len(sound) >= len(voters)/2+1 {
		return
	}
	m.copiesSaid = true
	m.cfg.Logger.Error("the data folders of a majority of the controllers are old copies: they are not let in, and without them no controller is elected, nor a leader of partitions that lost a majority, too; what is on this node is not lost: see `millrace cluster rescue --help`",
		"controllers", voters, "sound", sound)
}

// IsCopy tells whether a peer was refused as an old copy, and has not been let in since.
func (m *Members) IsCopy(p transport.Peer) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.oldCopies[p]
}

// Admitted remembers what a peer says about itself, unless it has said more meanwhile.
func (m *Members) Admitted(p transport.Peer, text string) {
	a, err := decodeAbout(text)
	if err != nil {
		return // Judge has refused it
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	seen, known := m.abouts[p]
	switch {
	case !known && len(m.abouts) >= 2*metadata.MaxBrokers:
		return
	case a.Age == 0: // the first release again, which does not count
		a.Age, a.Run = seen.Age, seen.Run
	case a.Age < seen.Age:
		return
	}
	m.abouts[p] = a
	delete(m.oldCopies, p) // a clone of its folder may have called before; this is no copy
}

// NextLevel is the change to the highest feature level that all registered brokers read:
// of those that registered below level 2, and so could not say it, by what the process
// that is connected now says. ok is false if that is no higher than the cluster's.
func (m *Members) NextLevel() (change metadata.SetLevel, ok bool) {
	image := m.cfg.Node.Image()
	level := m.cfg.MaxLevel
	if image.Level() < 2 {
		level = min(level, 2) // where brokers register with what they read; from there it goes on
	}
	for _, b := range image.Brokers() {
		high := max(b.MaxLevel, 1)
		switch {
		case image.Level() >= 2:
		case b.ID == m.cfg.Self.Node:
			high = m.cfg.MaxLevel
		case m.cfg.Node.Live(b.ID):
			high = max(high, m.Last(transport.Peer{Node: b.ID, Incarnation: b.Incarnation}).High)
		}
		level = min(level, high)
	}
	return metadata.SetLevel{Level: level, Judged: image.Index}, image.Level() > 0 && level > image.Level()
}

// Outdated hears of a peer that says this folder is an old copy. It implements part of
// transport.Observer, as Replaced does.
func (m *Members) Outdated(by transport.Peer, reason string) {
	image := m.cfg.Node.Image()
	if _, member := image.Broker(by.Node); member || image.ClusterID == "" {
		m.cfg.Node.Outdated(reason)
	}
}

// Replaced hears of a peer that says that another incarnation has this node's
// place, at a change of the metadata. That is later than this one only if the change is
// later than those that are here, the last image among them, which name this one: a peer
// that is behind says the same of a node that has just taken a place. It takes a majority
// of the other brokers to say so: nothing is lost by waiting for them, and one that is
// wrong ends nobody.
func (m *Members) Replaced(by transport.Peer, at uint64, reason string) {
	image, self := m.cfg.Node.Image(), m.cfg.Self
	b, named := image.Broker(self.Node)
	if _, member := image.Broker(by.Node); !member || by.Node == self.Node || !named || b.Incarnation != self.Incarnation || at <= image.Index {
		return
	}
	m.mu.Lock()
	m.replacedAt[by.Node] = at
	said := 0
	for node, at := range m.replacedAt {
		if _, member := image.Broker(node); member && at > image.Index {
			said++
		}
	}
	m.mu.Unlock()
	if said > (len(image.Brokers())-1)/2 {
		m.cfg.Node.Outdated(fmt.Sprintf("node %d says: %s", by.Node, reason))
	}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
	"millrace/segment"
)

const testCluster = "MkU3OEVBNTcwNTJENDM2Qg"

// A testNode is all that a Controller asks and tells. It hears nobody else.
type testNode struct {
	c       *Controller
	hears   atomic.Bool // the controller, which is itself
	mu      sync.Mutex
	decided []string // what it was told, in order
}

func (n *testNode) StoodDown(uint64)                {}
func (n *testNode) Leads(uint64, uint64)            { n.hears.Store(true) }
func (n *testNode) VotesRecovered(uint64)           {}
func (n *testNode) Controller() (int32, bool)       { return 1, n.hears.Load() }
func (n *testNode) ControllerHearer() (int32, bool) { return 0, false }
func (n *testNode) Dropped(topic metadata.TopicID) {
	n.note(fmt.Sprint("dropped ", topic))
}
func (n *testNode) ImageChanged() {}
func (n *testNode) Decided(_, _ *metadata.Image, c metadata.Change) {
	n.note(fmt.Sprintf("%T", c))
}

func (n *testNode) note(what string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.decided = append(n.decided, what)
}

// alone returns a Controller that founded a cluster of one, leads, and has registered
// itself. What cfg has is kept.
func alone(t *testing.T, cfg Config) *Controller {
	t.Helper()
	self := transport.Peer{Node: 1, Incarnation: "aa"}
	tr := transport.New(transport.Config{Local: self, Cluster: testCluster, Logger: slog.New(slog.DiscardHandler)})
	closing := make(chan struct{})
	c := New()
	n := &testNode{c: c}
	if cfg.Log == "" {
		cfg.Log = filepath.Join(t.TempDir(), "log")
	}
	cfg.FS, cfg.Cluster, cfg.Self, cfg.Founder = segment.OS, testCluster, self, true
	cfg.Port, cfg.Peers, cfg.Elections, cfg.Observer = tr.Group(Group, self.ServerID()), tr, n, n
	cfg.Closing, cfg.Logger, cfg.Limits = closing, slog.New(slog.DiscardHandler), raftgroup.NewLogLimits()
	if err := c.Open(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(closing)
		c.Close()
		tr.Close()
	})
	c.Run()
	if err := c.Port.Elect(); err != nil {
		t.Fatal(err)
	}
	register := metadata.RegisterBroker{ClusterID: testCluster, Broker: metadata.Broker{
		ID: 1, Incarnation: self.Incarnation, Host: "h", Port: 1, MinLevel: metadata.MinLevel, MaxLevel: metadata.MaxLevel,
	}}
	change(t, c, register)
	return c
}

// change commits a change.
func change(t *testing.T, c *Controller, change metadata.Change) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := c.Change(ctx, change); err != nil {
		t.Fatal(err)
	}
}

// create makes a topic of one partition.
func create(t *testing.T, c *Controller, name string) metadata.TopicID {
	t.Helper()
	id := metadata.TopicID{0: 7, 15: byte(len(c.Image().Topics()) + 1)}
	change(t, c, metadata.CreateTopic{ID: id, Name: name, Assignment: [][]int32{{1}}})
	return id
}

// A member that could not start leaves its log to whoever opens it next: the file is
// locked as long as it is open.
func TestAMemberThatDoesNotStartLetsItsLogGo(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "snapshots"), nil, 0o644); err != nil { // where Raft wants a folder
		t.Fatal(err)
	}
	path := filepath.Join(dir, "log")
	c := New()
	err := c.Open(Config{Log: path, Logger: slog.New(slog.DiscardHandler), Limits: raftgroup.NewLogLimits()})
	if err == nil || !strings.Contains(err.Error(), "open snapshots beside") {
		t.Fatalf("the member opened: %v", err)
	}
	db, err := bbolt.Open(path, 0o644, &bbolt.Options{Timeout: time.Millisecond}) // an error, and no wait without end
	if err != nil {
		t.Fatalf("its log is open still: %v", err)
	}
	db.Close()
	c.Close()
}

// The node of the leader is told of each change, and each node that a topic is to be
// dropped before any image is without it: below feature level 2 nothing else says so.
func TestTheNodeIsToldOfWhatIsDecided(t *testing.T) {
	c := alone(t, Config{})
	id := create(t, c, "orders")
	change(t, c, metadata.DeleteTopic{Topic: id})
	create(t, c, "flights") // whose image comes after all that was said of the changes before
	n := c.cfg.Observer.(*testNode)
	n.mu.Lock()
	defer n.mu.Unlock()
	want := []string{"metadata.RegisterBroker", "metadata.CreateTopic", fmt.Sprint("dropped ", id), "metadata.DeleteTopic"}
	if len(n.decided) < len(want) || !slices.Equal(n.decided[:len(want)], want) {
		t.Errorf("the node was told %q, want %q first", n.decided, want)
	}
}

// A node registers itself and nobody else, whichever way its change comes; who passes one
// on has looked at that.
func TestANodeRegistersOnlyItself(t *testing.T) {
	c := alone(t, Config{})
	second := transport.Peer{Node: 2, Incarnation: "bb"}
	data, err := metadata.EncodeChange(metadata.RegisterBroker{ClusterID: testCluster, Broker: metadata.Broker{
		ID: second.Node, Incarnation: second.Incarnation, Host: "h", Port: 2, MinLevel: metadata.MinLevel, MaxLevel: metadata.MaxLevel,
	}})
	if err != nil {
		t.Fatal(err)
	}
	first, onward := append([]byte{0}, data...), append([]byte{1}, data...)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, from := range []transport.Peer{{Node: 3, Incarnation: "bb"}, {Node: 2, Incarnation: "cc"}} {
		if _, err := c.ReceiveChange(ctx, from, data); err == nil {
			t.Errorf("%s registered broker 2", from)
		}
		if _, err := c.ReceiveForward(ctx, from, first); err == nil {
			t.Errorf("%s had broker 2 registered", from)
		}
	}
	if _, known := c.Image().Broker(2); known {
		t.Fatal("broker 2 is registered by who is not")
	}
	if _, err := c.ReceiveForward(ctx, transport.Peer{Node: 3, Incarnation: "cc"}, onward); err != nil {
		t.Fatal(err)
	}
	if _, known := c.Image().Broker(2); !known {
		t.Error("broker 2, whose change was passed on, is not registered")
	}
}

// Each thing that tells a forged image from the next one is enough to refuse it, when
// all else is as it should be.
func TestEachSignOfAForgedImageIsEnough(t *testing.T) {
	c := alone(t, Config{})
	create(t, c, "orders")
	image := c.Image()
	last := max(c.Raft.CommitIndex(), c.Raft.AppliedIndex()) + 10
	req := func() *raft.InstallSnapshotRequest {
		return &raft.InstallSnapshotRequest{Term: c.Raft.CurrentTerm(), LastLogIndex: last}
	}
	text := string(image.Encode())
	with := func(was, is string) []byte {
		t.Helper()
		if strings.Count(text, was) != 1 {
			t.Fatalf("%q is not once in %s", was, text)
		}
		return []byte(strings.Replace(text, was, is, 1))
	}
	index, group := fmt.Sprintf(`"index":%d,`, image.Index), fmt.Sprintf(`"lastGroup":%d,`, image.LastGroup())
	level, version := fmt.Sprintf(`"level":%d,`, image.Level()), fmt.Sprintf(`{"v":%d,"image":{`, image.Level())
	brokers := text[strings.Index(text, `"brokers":[`):]
	brokers = brokers[:strings.Index(brokers, "],")+2]

	if skip, err := c.vet(req(), []byte(text)); skip || err != nil {
		t.Fatalf("the image itself, in a later snapshot: %t, %v", skip, err)
	}
	earlier := req()
	earlier.Term--
	if _, err := c.vet(earlier, []byte(text)); err == nil {
		t.Error("a snapshot of an earlier term was let in")
	}
	for what, forged := range map[string][]byte{
		"of another cluster":               with(image.ClusterID, "another"),
		"of an earlier level":              []byte(`{"v":1,"image":{` + index + `"cluster":"` + image.ClusterID + `","lastBroker":1,` + group + `"nextProducer":0,"brokers":[{"id":1,"incarnation":"i","host":"h","port":1}]}}`),
		"of an earlier change":             with(index, fmt.Sprintf(`"index":%d,`, image.Index-1)),
		"of a change behind the snapshot":  with(index, fmt.Sprintf(`"index":%d,`, last+1)),
		"with more groups than there were": []byte(strings.Replace(string(with(group, fmt.Sprintf(`"lastGroup":%d,`, image.LastGroup()+1))), level, fmt.Sprintf(level+`"deleted":[[%d,%[1]d]],`, image.LastGroup()+1), 1)),
		"without brokers":                  []byte(version + index + `"cluster":"` + image.ClusterID + `","lastBroker":1,` + group + `"nextProducer":0,` + level + `"deleted":[[1,` + fmt.Sprint(image.LastGroup()) + `]]}}`),
		"with fewer groups":                []byte(version + index + `"cluster":"` + image.ClusterID + `","lastBroker":1,"lastGroup":0,"nextProducer":0,` + level + strings.TrimSuffix(brokers, ",") + `}}`),
	} {
		if _, err := c.vet(req(), forged); err == nil || !strings.HasPrefix(err.Error(), "controller: an image") {
			t.Errorf("an image %s: %v", what, err)
		}
	}
	if err := c.Down(); err != nil {
		t.Errorf("the member stopped: %v", err)
	}
}

// What a snapshot holds is committed: a member that has started from one, and has heard
// of no leader yet, lets nobody cut it from its log.
func TestWhatASnapshotHoldsIsNotCut(t *testing.T) {
	c := alone(t, Config{})
	image := c.Image()
	c.store.committed.Store(0)
	if err := c.Restore(io.NopCloser(strings.NewReader(string(image.Encode())))); err != nil {
		t.Fatal(err)
	}
	last, err := c.db.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.store.DeleteRange(image.Index, last); !errors.Is(err, errCommitted) {
		t.Errorf("the entries from %d on were cut: %v", image.Index, err)
	}
}

// An image of a newer release stops the member, too, and is not kept.
func TestUnreadableImageStopsTheMember(t *testing.T) {
	m := alone(t, Config{})
	index := m.Raft.LastIndex() + 1000
	_, err := m.vet(&raft.InstallSnapshotRequest{Term: m.Raft.CurrentTerm(), LastLogIndex: index}, []byte(`{"v":99,"image":{"new":1}}`))
	if !errors.Is(err, metadata.ErrVersion) || !errors.Is(m.Down(), metadata.ErrVersion) {
		t.Errorf("refused with %v, down because of %v", err, m.Down())
	}
	if err := m.Restore(io.NopCloser(strings.NewReader(`{"v":1,"image":{"index":1,"cluster":"another","lastBroker":0,"lastGroup":0,"nextProducer":0}}`))); err == nil {
		t.Error("took another cluster's image")
	}
}

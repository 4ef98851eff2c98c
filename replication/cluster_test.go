package replication

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/identitytest"
	"millrace/internal/memnet"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/transport"
	"millrace/segment"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
	"millrace/testdata/ports"
)

// A testCluster is three nodes with real files, over a network in memory or
// over loopback.
type testCluster struct {
	t     testing.TB
	net   *memnet.Network // nil: loopback
	dir   string
	nodes []*testNode

	settings  map[string]string  // of each node's configuration file
	decode    controller.Decoder // how nodes that start read changes; nil: as this release does
	producers int64              // that append was

	host     string           // of the nodes in the network in memory; "": 127.0.0.1
	maxLevel int32            // the highest feature level of nodes that start; 0: this release's
	dialer   transport.Dialer // of nodes where there is no net; nil: TCP
}

type testNode struct {
	*Node
	c        *testCluster
	id       int32
	addr     string
	join     []string // nil: the first node's address, unless it is the first
	dir      string
	disk     *testDisk
	log      testLog
	listener net.Listener
	adjust   func(*Config) // of the next starts, if not nil
	copied   bool          // it is to find out that its folder is a copy
	late     atomic.Int64  // for how long Raft's notifications of leadership lie there, a time.Duration
}

// dataFolder is the node's, whether it runs or not.
func (n *testNode) dataFolder() folder.Folder { return folder.Folder{FS: segment.OS, Dir: n.dir} }

// A testLog keeps what a node logs at level info and above.
type testLog struct {
	mu       sync.Mutex
	lines    []string
	warnings []string // those of them at level warn and above
}

// A testHandler is a testLog's slog.Handler, which also shows everything where that is
// asked for by MILLRACE_LOG.
type testHandler struct {
	log  *testLog
	show slog.Handler // nil: nowhere
}

func (l *testLog) handler() slog.Handler {
	h := testHandler{log: l}
	if os.Getenv("MILLRACE_LOG") != "" {
		h.show = slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	return h
}

// Enabled implements slog.Handler.
func (h testHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || h.show != nil
}

// Handle implements slog.Handler.
func (h testHandler) Handle(ctx context.Context, r slog.Record) error {
	if h.show != nil {
		h.show.Handle(ctx, r)
	}
	if r.Level < slog.LevelInfo {
		return nil
	}
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	h.log.mu.Lock()
	defer h.log.mu.Unlock()
	h.log.lines = append(h.log.lines, line)
	if r.Level >= slog.LevelWarn {
		h.log.warnings = append(h.log.warnings, line)
	}
	return nil
}

// WithAttrs implements slog.Handler. What a logger carries along is shown, not kept.
func (h testHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if h.show != nil {
		h.show = h.show.WithAttrs(attrs)
	}
	return h
}

// WithGroup implements slog.Handler.
func (h testHandler) WithGroup(string) slog.Handler { return h }

// count counts the lines so far that begin with text.
func (l *testLog) count(text string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, line := range l.lines {
		if strings.HasPrefix(line, text) {
			n++
		}
	}
	return n
}

// startCluster starts n nodes; node 1 founds the cluster.
func startCluster(t testing.TB, n int, w *memnet.Network) *testCluster {
	return startClusterWith(t, n, w, nil)
}

func startClusterWith(t testing.TB, n int, w *memnet.Network, settings map[string]string) *testCluster {
	return startClusterOf(&testCluster{t: t, net: w, dir: t.TempDir(), settings: settings}, n)
}

// startClusterAt starts n nodes of a release that reads feature levels up to level.
func startClusterAt(t testing.TB, n int, w *memnet.Network, level int32) *testCluster {
	return startClusterOf(&testCluster{t: t, net: w, dir: t.TempDir(), maxLevel: level}, n)
}

func startClusterOf(c *testCluster, n int) *testCluster {
	t, w := c.t, c.net
	for i := range n {
		node := &testNode{c: c, id: int32(i + 1), dir: filepath.Join(c.dir, fmt.Sprint("node-", i+1)), disk: newTestDisk()}
		node.addr = net.JoinHostPort(cmp.Or(c.host, "127.0.0.1"), fmt.Sprint(9000+i))
		if w == nil {
			node.addr = ports.Hold(t, 1)[0]
		}
		c.nodes = append(c.nodes, node)
		node.start()
	}
	if w == nil { // in virtual time tests wait by themselves, a minute costs nothing there
		c.settled()
	}
	return c
}

// start opens the node on its folder and waits until it is registered.
func (n *testNode) start() {
	n.c.t.Helper()
	if err := n.tryStart(30 * time.Second); err != nil {
		n.c.t.Fatalf("start node %d: %v", n.id, err)
	}
}

// startAll starts all nodes at once.
func (c *testCluster) startAll() {
	c.t.Helper()
	errs := make(chan error, len(c.nodes))
	for _, n := range c.nodes {
		go func() { errs <- n.tryStart(30 * time.Second) }()
	}
	for range c.nodes {
		if err := <-errs; err != nil {
			c.t.Fatal(err)
		}
	}
}

func (n *testNode) tryStart(limit time.Duration) error {
	if err := n.open(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return n.Start(ctx)
}

// open opens the node on its folder and takes connections for it.
func (n *testNode) open() error {
	cfg := Config{DataDir: n.dir, NodeID: n.id, Advertise: n.addr, Logger: slog.New(n.log.handler()), FS: n.disk, Settings: n.c.settings, maxLevel: n.c.maxLevel}
	if cfg.Join = n.join; n.join == nil && n.id != 1 {
		cfg.Join = []string{n.c.nodes[0].addr}
	}
	if cfg.Dialer = n.c.dialer; n.c.net != nil {
		cfg.Dialer = n.c.net.Dialer(n.addr)
	}
	if n.adjust != nil {
		n.adjust(&cfg)
	}
	node, err := Open(cfg)
	if err != nil {
		return err
	}
	node.cfg.decoder = n.c.decode
	n.Node = node
	n.disk.over(node)
	node.events = lateEvents{node.events, &n.late}
	if n.c.net != nil {
		n.listener, err = n.c.net.Listen(n.addr)
	} else {
		n.listener, err = net.Listen("tcp", n.addr)
	}
	if err != nil {
		return err
	}
	go func(l net.Listener) {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if conn, err := identitytest.Accept(conn, node); err == nil {
					node.serveConn(conn)
				}
			}()
		}
	}(n.listener)
	return nil
}

// lateEvents are a node's events where what Raft says of its leaders is looked at late.
type lateEvents struct {
	partition.Events
	by *atomic.Int64 // a time.Duration
}

// Noticed implements events.
func (e lateEvents) Noticed() {
	time.Sleep(time.Duration(e.by.Load()))
	e.Events.Noticed()
}

// stop ends the node without handing anything over, as close to a crash as
// one process can come: its connections close first.
func (n *testNode) stop() {
	if n.Node == nil {
		return
	}
	if err := n.Failure(); errors.Is(err, ErrOldDisk) && !n.copied {
		n.c.t.Errorf("node %d was told that it is a copy: %v", n.id, err)
	}
	n.copied = false
	if n.c.net != nil {
		n.c.net.Kill(n.addr)
	} else {
		n.listener.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n.Shutdown(ctx)
	n.Node = nil
}

func (c *testCluster) stop() {
	for _, n := range c.nodes {
		n.stop()
	}
}

// create makes a topic and returns the id of its partition 0.
func (c *testCluster) create(name string, partitions, replicas int, config map[string]string) metadata.PartitionID {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	t, err := c.live().CreateTopic(ctx, TopicRequest{Name: name, Partitions: int32(partitions), Replicas: int16(replicas), Config: config})
	if err != nil {
		c.t.Fatalf("create topic %s: %v", name, err)
	}
	return metadata.PartitionID{Topic: t.ID}
}

func (c *testCluster) live() *testNode {
	for _, n := range c.nodes {
		if n.Node != nil {
			return n
		}
	}
	c.t.Fatal("no node is up")
	return nil
}

// leader waits for the partition to be served and returns who serves it.
func (c *testCluster) leader(id metadata.PartitionID) (*testNode, *partition.Partition) {
	c.t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for _, n := range c.nodes {
			if n.Node == nil {
				continue
			}
			if p, err := n.Partition(id); err == nil {
				if _, err := p.Serving(); err == nil {
					return n, p
				}
			}
		}
	}
	c.t.Fatalf("nobody serves %v", id)
	return nil, nil
}

// appendWait appends one batch and waits for the answer.
func appendWait(p *partition.Partition, b record.Batch) (partition.Ack, error) {
	type answer struct {
		ack partition.Ack
		err error
	}
	done := make(chan answer, 1)
	p.Append([]record.Batch{b}, told(func(ack partition.Ack, err error) { done <- answer{ack, err} }))
	a := <-done
	return a.ack, a.err
}

// settled waits until all nodes are members in full: voters of the controller group, so
// that one of three may go, and registered as they run now, so that all know a folder
// that was restored from the node's own. A node's start waits for neither.
func (c *testCluster) settled() {
	c.t.Helper()
	voters := len(c.nodes) - (1 - len(c.nodes)%2) // one that makes their number even gets no vote
	eventually(c.t, "all are voters of the controller group and registered as they run", func() bool {
		for _, n := range c.nodes {
			if len(n.memberOf(controller.Group).Voters()) != voters {
				return false
			}
			for _, other := range c.nodes {
				// The first release does not register runs.
				if b, ok := n.Image().Broker(other.id); !ok || n.Image().Level() > 1 && b.Run != other.registrar.Run() {
					return false
				}
			}
		}
		return true
	})
}

// append has whoever leads the partition take a record, once. That leadership goes
// elsewhere meanwhile, as to the preferred replica, only delays it: the record is sent
// again, by a producer of its own, as clients do.
func (c *testCluster) append(id idOf, value string) *partition.Partition {
	c.t.Helper()
	c.producers++
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		builder := record.Builder{Producer: &record.Producer{ID: 1<<40 + c.producers}}
		builder.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte(value)})
		b, err := builder.Batch()
		if err != nil {
			c.t.Fatal(err)
		}
		_, p := c.leader(id)
		if _, err = appendWait(p, b); err == nil {
			return p
		}
		if !errors.Is(err, partition.ErrNotLeader) && !errors.Is(err, ErrUnknown) || time.Now().After(deadline) {
			c.t.Fatalf("append %.40q: %v", value, err)
		}
	}
}

// values reads the whole partition from its leader.
func (c *testCluster) values(id metadata.PartitionID) []string {
	c.t.Helper()
	_, p := c.leader(id)
	var all []string
	for offset := p.StartOffset(); offset < p.HighWatermark(); {
		v, err := p.Read(offset, 1<<20, false)
		if errors.Is(err, partition.ErrNotLeader) {
			_, p = c.leader(id)
			continue
		}
		if err != nil {
			c.t.Fatalf("read at %d: %v", offset, err)
		}
		for _, piece := range v.Bytes {
			for len(piece) > 0 {
				b, rest, err := record.Split(piece)
				if err != nil {
					c.t.Fatalf("split at %d: %v", offset, err)
				}
				for r, err := range b.Records() {
					if err != nil {
						c.t.Fatal(err)
					}
					if r.Offset != offset {
						c.t.Fatalf("record at offset %d, want %d", r.Offset, offset)
					}
					offset++
					all = append(all, string(r.Value))
				}
				piece = rest
			}
		}
		v.Release()
	}
	return all
}

func TestClusterReplicatesAndReplaysAfterRestart(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, nil)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	_, p := c.leader(id)
	var want []string
	for i := range 100 {
		v := fmt.Sprint("value-", i)
		ack, err := appendWait(p, recordtest.Values(v))
		if err != nil {
			t.Fatalf("append %d: %v", i, err)
		}
		if ack.BaseOffset != int64(i) {
			t.Fatalf("append %d went to offset %d", i, ack.BaseOffset)
		}
		want = append(want, v)
	}
	check := func(when string) {
		t.Helper()
		if got := c.values(id); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("%s: read %d values, want %d", when, len(got), len(want))
		}
	}
	check("after the appends")
	for _, n := range c.nodes {
		n.stop()
	}
	c.startAll()
	check("after a restart of all")
}

func TestClusterSurvivesItsLeader(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, nil)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	var want []string
	for round := range 5 {
		for i := range 10 {
			v := fmt.Sprintf("%d-%d", round, i)
			c.append(id, v)
			want = append(want, v)
		}
		n, _ := c.leader(id)
		n.stop()
		next, _ := c.leader(id)
		if got := c.values(id); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Fatalf("round %d: node %d serves %d values, want %d", round, next.id, len(got), len(want))
		}
		n.start()
	}
}

func TestAppendRetriesAreAnsweredWithTheirFirstOffset(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3, nil)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	n, p := c.leader(id)
	for i := range int32(8) {
		ack, err := appendWait(p, recordtest.Sequenced(9, 0, i, 1, 0))
		if err != nil || ack.BaseOffset != int64(i) {
			t.Fatalf("sequence %d: offset %d, %v", i, ack.BaseOffset, err)
		}
	}
	n.stop()
	_, p = c.leader(id)
	for i := int32(3); i < 8; i++ {
		ack, err := appendWait(p, recordtest.Sequenced(9, 0, i, 1, 0))
		if err != nil || ack.BaseOffset != int64(i) {
			t.Fatalf("sequence %d again, at a new leader: offset %d, %v", i, ack.BaseOffset, err)
		}
	}
	if _, err := appendWait(p, recordtest.Sequenced(9, 0, 9, 1, 0)); !errors.Is(err, partition.ErrSequence) {
		t.Fatalf("a gap was answered with %v", err)
	}
	if ack, err := appendWait(p, recordtest.Sequenced(9, 0, 8, 1, 0)); err != nil || ack.BaseOffset != 8 {
		t.Fatalf("the next sequence: offset %d, %v", ack.BaseOffset, err)
	}
}

// idOf is short for what the tests pass around most.
type idOf = metadata.PartitionID

// entryAt describes one entry of a replica's log.
func entryAt(t testing.TB, r *partition.Replica, index uint64) string {
	t.Helper()
	var l raft.Log
	if err := r.Log().GetLog(index, &l); err != nil {
		t.Fatalf("read entry %d: %v", index, err)
	}
	return fmt.Sprintf("%d %d %v %x", l.Index, l.Term, l.Type, l.Data)
}

// leadsController tells whether the node leads the controller group.
func (n *testNode) leadsController() bool {
	m := n.memberOf(controller.Group)
	return m != nil && m.Raft.State() == raft.Leader
}

// leads tells whether a run serves as the leader.
func leads(r *partition.Replica) bool {
	_, ok := r.LeadsNow()
	return ok
}

// told is a function as a partition.Appender.
type told func(partition.Ack, error)

func (f told) Appended(ack partition.Ack, err error) { f(ack, err) }

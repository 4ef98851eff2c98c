package transport

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"millrace/internal/identitytest"
)

// A network is how the nodes of a test reach each other, by the names of their hosts.
type network interface {
	Listen(host string) (net.Listener, error)
	Dial(ctx context.Context, from, addr string) (net.Conn, error)
	Close() // its listeners too
}

// host is where a node of a test is.
func host(node int32) string { return fmt.Sprint("node", node) }

// loopback is TCP on 127.0.0.1.
type loopback struct{ listeners []net.Listener }

func (l *loopback) Listen(string) (net.Listener, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		l.listeners = append(l.listeners, ln)
	}
	return ln, err
}

func (l *loopback) Dial(ctx context.Context, _, addr string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", addr)
}

func (l *loopback) Close() {
	for _, ln := range l.listeners {
		ln.Close()
	}
}

// A cluster is some nodes, each a Transport, on one network.
type cluster struct {
	tb    testing.TB
	net   network
	wg    sync.WaitGroup // who serves connections
	mu    sync.Mutex
	addrs map[int32]string
	nodes []*node
}

type node struct {
	*Transport
	peer   Peer
	groups []*group

	eventsMu sync.Mutex
	events   []string // "up 2.b", "down 2.b"
}

func (n *node) note(event string) {
	n.eventsMu.Lock()
	defer n.eventsMu.Unlock()
	n.events = append(n.events, event)
}

func (n *node) heard(event string) int {
	n.eventsMu.Lock()
	defer n.eventsMu.Unlock()
	count := 0
	for _, e := range n.events {
		if e == event {
			count++
		}
	}
	return count
}

// A group is one replica of a Raft group.
type group struct {
	port  *Port
	raft  *raft.Raft
	store *raft.InmemStore
	fsm   *fsm
}

// fsm remembers what was applied, in order.
type fsm struct {
	mu      sync.Mutex
	applied []string
	indexes []uint64
}

func (f *fsm) Apply(l *raft.Log) any {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = append(f.applied, string(l.Data))
	f.indexes = append(f.indexes, l.Index)
	return nil
}
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) { return nil, fmt.Errorf("no snapshots here") }
func (f *fsm) Restore(io.ReadCloser) error         { return nil }

func (f *fsm) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.applied...)
}

func newCluster(tb testing.TB, network network, size int, adjust func(*Config)) *cluster {
	c := &cluster{tb: tb, net: network, addrs: make(map[int32]string)}
	for i := range size {
		c.start(Peer{Node: int32(i + 1), Incarnation: string(rune('a' + i))}, adjust)
	}
	return c
}

// listen gives node an address and hands the connections to it to serve.
func (c *cluster) listen(node int32, serve func(net.Conn)) (addr string) {
	l, err := c.net.Listen(host(node))
	if err != nil {
		c.tb.Fatal(err)
	}
	c.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.wg.Go(func() { serve(conn) })
		}
	})
	return l.Addr().String()
}

// start adds a node. One that takes an id again takes its address over.
func (c *cluster) start(p Peer, adjust func(*Config)) *node {
	n := &node{peer: p}
	ready := make(chan struct{})
	addr := c.listen(p.Node, func(conn net.Conn) {
		<-ready
		if nodes, ok := n.cfg.Guard.(identitytest.Nodes); ok {
			var err error
			if conn, err = identitytest.Accept(conn, nodes); err != nil {
				return
			}
		}
		n.Serve(conn)
	})
	h := &hooks{resolve: c.resolve, n: n}
	cfg := Config{
		Local:      p,
		Cluster:    "test",
		Address:    addr,
		Membership: h,
		Observer:   h,
		Dialer:     dialer{c.net, p.Node},
		Logger:     slog.New(slog.NewTextHandler(testWriter{c.tb}, nil)),
	}
	if adjust != nil {
		adjust(&cfg)
	}
	n.Transport = New(cfg)
	close(ready)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes = append(c.nodes, n)
	c.addrs[p.Node] = addr
	return n
}

// hooks implement Membership and Observer with what a test sets, and note whom its node
// has heard.
type hooks struct {
	NopObserver
	resolve  func(node int32) (string, bool)
	about    func() string
	judge    func(p Peer, about string) error
	learned  func(p Peer, addr string)
	outdated func(by Peer, reason string)
	replaced func(by Peer, at uint64, reason string)
	n        *node
}

// hooksOf are the hooks of a cluster's node that is about to start.
func hooksOf(cfg *Config) *hooks { return cfg.Membership.(*hooks) }

func (h *hooks) Resolve(node int32) (string, bool) { return h.resolve(node) }
func (h *hooks) Admitted(Peer, string)             {}

func (h *hooks) About() string {
	if h.about == nil {
		return ""
	}
	return h.about()
}

func (h *hooks) Judge(p Peer, about string) error {
	if h.judge == nil {
		return nil
	}
	return h.judge(p, about)
}

func (h *hooks) PeerUp(p Process)   { h.n.note("up " + p.String()) }
func (h *hooks) PeerDown(p Process) { h.n.note("down " + p.String()) }

func (h *hooks) Learned(p Peer, addr string) {
	if h.learned != nil {
		h.learned(p, addr)
	}
}

func (h *hooks) Outdated(by Peer, reason string) {
	if h.outdated != nil {
		h.outdated(by, reason)
	}
}

func (h *hooks) Replaced(by Peer, at uint64, reason string) {
	if h.replaced != nil {
		h.replaced(by, at, reason)
	}
}

// A handler is a Handler that is one function.
type handler func(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error)

func (h handler) Handle(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error) {
	return h(ctx, from, kind, req)
}

// A member is a Member that does what a test says. To it, every term is near.
type member struct {
	leads   func() bool
	install func(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte)
}

func (m member) CurrentTerm() uint64 { return maxTerm }
func (m member) Leads() bool         { return m.leads != nil && m.leads() }
func (m member) InstallSnapshot(rpc raft.RPC, req *raft.InstallSnapshotRequest, data []byte) {
	m.install(rpc, req, data)
}

// A dialer dials from a node of a test's network.
type dialer struct {
	net  network
	node int32
}

func (d dialer) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	return d.net.Dial(ctx, host(d.node), addr)
}

func (c *cluster) resolve(node int32) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a, ok := c.addrs[node]
	return a, ok
}

type testWriter struct{ tb testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if testing.Verbose() {
		w.tb.Logf("%s", bytes.TrimSpace(p))
	}
	return len(p), nil
}

// raftConfig has the product's long timers, so that nothing but evidence or a
// real silence moves a leader.
func raftConfig(p Peer) *raft.Config {
	cfg := raft.DefaultConfig()
	cfg.LocalID = p.ServerID()
	cfg.HeartbeatTimeout = 3 * time.Second
	cfg.ElectionTimeout = 3 * time.Second
	cfg.LeaderLeaseTimeout = 2 * time.Second
	cfg.CommitTimeout = 100 * time.Millisecond
	cfg.Logger = hclog.NewNullLogger()
	return cfg
}

// open starts group id on every node, all of them voters.
func (c *cluster) open(id uint64) []*group {
	var servers []raft.Server
	for _, n := range c.nodes {
		servers = append(servers, raft.Server{ID: n.peer.ServerID(), Address: raft.ServerAddress(n.peer.ServerID())})
	}
	var groups []*group
	for _, n := range c.nodes {
		g := &group{store: raft.NewInmemStore(), fsm: &fsm{}}
		g.port = n.Group(id, n.peer.ServerID())
		snaps := raft.NewInmemSnapshotStore()
		cfg := raftConfig(n.peer)
		if err := raft.BootstrapCluster(cfg, g.store, g.store, snaps, g.port, raft.Configuration{Servers: servers}); err != nil {
			c.tb.Fatal(err)
		}
		r, err := raft.NewRaft(cfg, g.fsm, g.store, g.store, snaps, g.port)
		if err != nil {
			c.tb.Fatal(err)
		}
		g.raft = r
		n.groups = append(n.groups, g)
		groups = append(groups, g)
	}
	return groups
}

// close shuts every group and node down.
func (c *cluster) close() {
	for _, n := range c.nodes {
		n.shutdown(c.tb)
	}
	c.net.Close()
	c.wg.Wait()
}

func (n *node) shutdown(tb testing.TB) {
	for _, g := range n.groups {
		g.port.Close()
	}
	for _, g := range n.groups {
		if err := g.raft.Shutdown().Error(); err != nil {
			tb.Error(err)
		}
	}
	n.groups = nil
	n.Close()
}

// eventually polls, for a condition that other goroutines bring about. What it
// waits for never depends on how long it takes.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			tb.Fatalf("still not: %s", what)
		}
	}
}

// leaderOf waits until exactly one of groups leads and returns it.
func leaderOf(tb testing.TB, groups []*group) *group {
	tb.Helper()
	var leader *group
	eventually(tb, "one leader", func() bool {
		n := 0
		for _, g := range groups {
			if g.raft.State() == raft.Leader && g.raft.VerifyLeader().Error() == nil {
				leader = g
				n++
			}
		}
		return n == 1
	})
	return leader
}

func TestGroupReplicatesOverTCP(t *testing.T) {
	c := newCluster(t, &loopback{}, 3, nil)
	defer c.close()
	groups := c.open(7)
	if err := groups[0].port.Elect(); err != nil {
		t.Fatal(err)
	}
	leader := leaderOf(t, groups)
	var want []string
	for i := range 200 {
		want = append(want, fmt.Sprint("record ", i))
		if err := leader.raft.Apply([]byte(want[i]), time.Second).Error(); err != nil {
			t.Fatal(err)
		}
	}
	for i, g := range groups {
		eventually(t, fmt.Sprintf("replica %d has all", i), func() bool { return len(g.fsm.list()) == len(want) })
		for j, got := range g.fsm.list() {
			if got != want[j] {
				t.Fatalf("replica %d, record %d: %q, want %q", i, j, got, want[j])
			}
		}
	}
}

package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"millrace/internal/identitytest"
	"millrace/internal/memnet"
	"millrace/replication/identity"
)

// A guard is one node's: it has a certificate, or nothing is proved to it or by it.
type guard struct {
	own      *identity.Credentials // nil: it dials bare, and answers no handshake
	protocol string                // that it dials with; "": by the addresses
	orBare   bool
	bare     error // what it says of those who prove nothing
}

// Dial implements Guard.
func (g guard) Dial(Peer) (*tls.Config, bool) {
	if g.own == nil {
		return nil, false
	}
	cfg := g.own.Client(nil)
	if g.protocol != "" {
		cfg.NextProtos = []string{g.protocol}
	}
	return cfg, g.orBare
}

// Bare implements Guard.
func (g guard) Bare(Peer, bool) error { return g.bare }

// NodeTLS implements identitytest.Nodes.
func (g guard) NodeTLS(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if g.own == nil {
		return nil, errors.New("no certificate here")
	}
	return g.own.Server(hello, nil), nil
}

var errUnproved = errors.New("it has proved nothing")

// A guarded network is one in memory whose listeners shake hands.
type guarded struct {
	t      *testing.T
	net    *memnet.Network
	trust  identity.Authority
	mu     sync.Mutex
	log    bytes.Buffer
	guards map[int32]guard
	nodes  map[int32]*Transport
	calls  chan Origin
}

// Write keeps what is logged.
func (g *guarded) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.log.Write(p)
}

func (g *guarded) said(text string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.Contains(g.log.String(), text)
}

func newGuarded(t *testing.T) *guarded {
	a, err := identity.NewAuthority("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &guarded{t: t, net: memnet.New(), trust: a, guards: make(map[int32]guard), nodes: make(map[int32]*Transport), calls: make(chan Origin, 10)}
}

// credentials of a node by the cluster's authority.
func (g *guarded) credentials(cluster string, node int32, incarnation string) *identity.Credentials {
	g.t.Helper()
	c, err := identity.NewCredentials(identity.Name{Cluster: cluster, Node: node, Incarnation: incarnation}, []identity.Authority{g.trust}, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	return c
}

func (g *guarded) addr(node int32) string { return fmt.Sprintf("127.0.0.1:%d", 100+node) }

// start starts node N.x of cluster "test" behind a guard.
func (g *guarded) start(node int32, guard guard) *Transport {
	g.t.Helper()
	l, err := g.net.Listen(g.addr(node))
	if err != nil {
		g.t.Fatal(err)
	}
	tr := New(Config{
		Local: Peer{node, "x"}, Cluster: "test", Address: g.addr(node), Guard: guard, Dialer: g.net.Dialer(g.addr(node)),
		Membership: places{anyone{}, g}, Logger: slog.New(slog.NewTextHandler(g, nil)),
		Handler: handler(func(ctx context.Context, from Peer, kind uint8, req []byte) ([]byte, error) {
			g.calls <- OriginOf(ctx)
			return req, nil
		}),
		Timers: Timers{DialTimeout: 20 * time.Second},
	})
	g.guards[node], g.nodes[node] = guard, tr
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				if conn, err := identitytest.Accept(conn, guard); err == nil {
					tr.Serve(conn)
				}
			})
		}
	})
	g.t.Cleanup(func() {
		l.Close()
		tr.Close()
		serving.Wait()
	})
	return tr
}

// places is a Membership that knows where nodes are.
type places struct {
	anyone
	g *guarded
}

func (p places) Resolve(node int32) (string, bool) { return p.g.addr(node), true }

// All kinds of connection go over the handshake, sealed or not, and a call knows who makes it.
func TestConnectionsAreProved(t *testing.T) {
	for _, protocol := range []string{identity.Bare, identity.Sealed} {
		t.Run(protocol, func(t *testing.T) {
			g := newGuarded(t)
			a := g.start(1, guard{own: g.credentials("test", 1, "x"), protocol: protocol, bare: errUnproved})
			g.start(2, guard{own: g.credentials("test", 2, "x"), protocol: protocol, bare: errUnproved})
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			large := bytes.Repeat([]byte("large"), 1<<20)
			for _, call := range []func() ([]byte, error){
				func() ([]byte, error) { return a.Call(ctx, 2, 9, large[:1000]) },
				func() ([]byte, error) { return a.CallBulk(ctx, 2, 9, large) },
				func() ([]byte, error) { return a.CallAddr(ctx, g.addr(2), 9, large[:1000]) },
			} {
				got, err := call()
				if err != nil || !bytes.HasPrefix(large, got) || len(got) < 1000 {
					t.Fatalf("%d bytes, %v", len(got), err)
				}
				if o := <-g.calls; o.Proof.Protocol != protocol || o.Proof.Name != (identity.Name{Cluster: "test", Node: 1, Incarnation: "x"}) || !o.Loopback {
					t.Errorf("the call comes from %+v", o)
				}
			}
		})
	}
}

// A right certificate is that of its node alone: in another's name it opens nothing, whichever
// of the two is false, and whoever dials believes no more.
func TestACertificateIsForItsNode(t *testing.T) {
	for _, tt := range []struct{ node, incarnation, cluster string }{{"3", "x", "test"}, {"1", "y", "test"}} {
		g := newGuarded(t)
		var node int32
		fmt.Sscan(tt.node, &node)
		a := g.start(1, guard{own: g.credentials(tt.cluster, node, tt.incarnation), bare: errUnproved})
		b := g.start(2, guard{own: g.credentials("test", 2, "x"), bare: errUnproved})
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		want := "its certificate that it is node " + tt.node + "." + tt.incarnation
		for _, call := range []func() ([]byte, error){
			func() ([]byte, error) { return a.Call(ctx, 2, 9, nil) },
			func() ([]byte, error) { return a.CallBulk(ctx, 2, 9, nil) },
			func() ([]byte, error) { return a.CallAddr(ctx, g.addr(2), 9, nil) },
			func() ([]byte, error) { return b.Call(ctx, 1, 9, nil) }, // it is told the same as a server
		} {
			if _, err := call(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		}
		if !g.said(want) {
			t.Error("the log does not say why")
		}
		if len(g.calls) > 0 {
			t.Error("a call came through")
		}
		if len(b.Connected()) > 0 {
			t.Error("it is taken for there")
		}
	}
}

// Who proves nothing is let in only where the guard says so, and whoever has a certificate
// takes less only where it may.
func TestBareConnections(t *testing.T) {
	for _, tt := range []struct {
		name         string
		dials, takes func(*guarded) guard
		want         string // "": it is let in
	}{
		{"none has a certificate", nothing, nothing, ""},
		{"it must prove", nothing, certified(2, false), "it has proved nothing"},
		{"the other has none", certified(1, false), nothing, "handshake"},
		{"the other has none, and may", certified(1, true), nothing, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGuarded(t)
			a := g.start(1, tt.dials(g))
			g.start(2, tt.takes(g))
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			for _, call := range []func() ([]byte, error){
				func() ([]byte, error) { return a.Call(ctx, 2, 9, nil) },
				func() ([]byte, error) { return a.CallAddr(ctx, g.addr(2), 9, nil) },
			} {
				_, err := call()
				if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
					t.Errorf("%v, want %q", err, tt.want)
				}
			}
		})
	}
}

func nothing(*guarded) guard { return guard{} }

func certified(node int32, orBare bool) func(*guarded) guard {
	return func(g *guarded) guard {
		return guard{own: g.credentials("test", node, "x"), orBare: orBare, bare: errUnproved}
	}
}

// Over a connection to join there is one call, and nothing of a member's.
func TestAConnectionToJoinIsForOneCall(t *testing.T) {
	g := newGuarded(t)
	b := g.start(2, guard{own: g.credentials("test", 2, "x"), bare: errUnproved})
	for kind := kindControl; kind <= kindOnce; kind++ {
		conn, err := g.net.Dialer("127.0.0.1:1").DialContext(context.Background(), "tcp", g.addr(2))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		over, proof, err := identity.Dial(context.Background(), conn, identity.Unpinned(nil))
		if err != nil {
			t.Fatal(err)
		}
		h := hello{kind: kind, low: 1, high: 1, session: 1, from: Peer{1, "x"}, cluster: "test"}
		if _, err := over.Write(h.encode()); err != nil {
			t.Fatal(err)
		}
		v, status, body, err := readHello(over)
		if err != nil {
			t.Fatal(err)
		}
		ack, err := decodeAck(v, status, body)
		if err != nil || (kind == kindOnce) != (ack.status == statusWelcome) || proof.Certified() {
			t.Errorf("kind %d: %+v, %v, %+v", kind, ack, err, proof)
		}
	}
	if len(b.Connected()) > 0 {
		t.Error("somebody is taken for there")
	}
}

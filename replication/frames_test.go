package replication

import (
	"bytes"
	"context"
	"crypto"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/failover"
	"millrace/replication/folder"
	"millrace/replication/identity"
	"millrace/replication/keyring"
	"millrace/security/certificate/certificatetest"
	"millrace/server/mux"
)

// A frame of the protocol between nodes, as somebody sends it who is none.
type frameOf struct {
	name          string
	typ           byte
	head, payload []byte
}

// everyFrame is one of each type that FORMAT.md has, and one of each call, of which each would
// do what its name says if a member's connection brought it: in the name of node as, to group.
func everyFrame(cluster string, as int32, incarnation string, group, term uint64) (all []frameOf) {
	conf := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(fmt.Sprintf("%d.%s", as, incarnation)), Address: "x"}}})
	image := fmt.Sprintf(`{"v":4,"image":{"index":1000000,"cluster":%q,"lastBroker":3,"lastGroup":1000000000,"nextProducer":0,"level":4}}`, cluster)
	snapshot := append(binary.BigEndian.AppendUint32(u64s(group, term, 1000000, term, 1000000), uint32(len(conf))), 1)
	vote := func(transfer byte) []byte {
		return append(u64s(group, term, 1<<40, term-1), transfer, 0, 0, 0, 0, 0, 0, 0)
	}
	noop, nothing := appendFrame(group, term, 0, 0, 0, &raft.Log{Term: term, Type: raft.LogNoop})
	crash, one := appendFrame(group, term, 0, 0, 0, &raft.Log{Term: term, Type: raft.LogCommand, Data: []byte{1}})
	all = []frameOf{
		{"ping", 1, nil, nil}, {"pong", 2, nil, nil},
		{"heartbeats", 3, append(u64s(1<<32, group, term), u64s(0, 0, 0)...), nil},
		{"heartbeat answers", 4, append(u64s(1<<32), make([]byte, 24)...), nil},
		{"append that cuts", 5, noop, nothing}, {"append of a byte", 5, crash, one},
		{"append answer", 6, make([]byte, 24), nil},
		{"vote", 7, vote(1), nil}, {"vote answer", 8, make([]byte, 16), nil},
		{"pre-vote", 9, vote(0), nil}, {"pre-vote answer", 10, make([]byte, 16), nil},
		{"timeout now", 11, u64s(group), nil}, {"timeout now answer", 12, nil, nil},
		{"snapshot", 13, append(snapshot, make([]byte, 19)...), append(bytes.Clone(conf), image...)},
		{"snapshot answer", 14, make([]byte, 16), nil},
		{"call answer", 16, nil, nil}, {"failure", 17, make([]byte, 8), nil},
	}
	register := fmt.Sprintf(`{"v":1,"change":"RegisterBroker","body":{"Broker":{"ID":%d,"Incarnation":%q,"Host":"elsewhere","Port":1,"Rack":""}}}`, as, incarnation)
	join := `{"node":7,"incarnation":"ghost","host":"10.0.0.9","port":1,"minLevel":1,"maxLevel":4,"forwarded":true,"vouched":"certificate","token":"0123456789abcdef","secret":"AAAA"}`
	for _, call := range []struct {
		name string
		kind uint8
		req  []byte
	}{
		{"gossip", failover.CallGossip, []byte{1, 0, 0, 0, 0, 0, 0, 0, 0}}, {"join", admission.CallJoin, []byte(join)},
		{"change", controller.CallChange, []byte(register)}, {"status", callStatus, u64s(group)},
		{"segments", callSegments, u64s(group, 0)}, {"segment", callSegment, append(u64s(group, 1, 0), 0, 0, 1, 0)},
		{"view", failover.CallView, []byte(`{"addresses":[{"node":2,"address":"10.0.0.9:1","epoch":9000000000000000}]}`)},
		{"seek", callSeek, nil}, {"forward", controller.CallForward, append([]byte{1}, register...)},
		{"image", keyring.CallIndex, nil}, {"mint", admission.CallMint, []byte(`{"uses":1,"expires":60000000000}`)},
		{"rotate", keyring.CallRotate, nil}, {"no call", 99, nil},
	} {
		all = append(all, frameOf{"call " + call.name, 15, []byte{call.kind, 0, 0, 0, 0, 0, 0, 0}, call.req})
	}
	return all
}

// A state is what no stranger may change, and elections of the cluster's own may.
type state struct{ term, log, index uint64 }

func (n *testNode) state(group uint64) state {
	m := n.memberOf(group)
	return state{m.Raft.CurrentTerm(), m.Raft.LastIndex(), n.Image().Index}
}

// facts are what nobody but a stranger would change here: who is in the cluster, by what he is
// let in, and where all are.
func (n *testNode) facts() string {
	image := n.Image()
	var b strings.Builder
	for _, known := range image.Brokers() {
		fmt.Fprintln(&b, known.ID, known.Incarnation, known.Host, known.Port)
	}
	for _, a := range image.Authorities() {
		fmt.Fprintln(&b, a.Certificate)
	}
	for _, e := range n.book.Entries() {
		fmt.Fprintln(&b, e.Node, e.Address)
	}
	fmt.Fprintln(&b, len(image.JoinTokens()), len(image.Users()), n.Failure())
	return b.String()
}

// Each type of frame and each kind of call that the code has is among those that are tried.
func TestEveryFrameIsTried(t *testing.T) {
	frames, calls := make(map[int]bool), make(map[int]bool)
	for _, f := range everyFrame("cluster", 2, "x", 1, 2) {
		if frames[int(f.typ)] = true; f.typ == 15 {
			calls[int(f.head[0])] = true
		}
	}
	typ := 0
	for _, s := range constants(t, "transport/frame.go", "type") {
		if typ++; !frames[typ] {
			t.Errorf("frames of type %d (%s) are not tried: add one to everyFrame", typ, s.name)
		}
	}
	if typ != 17 {
		t.Errorf("%d types of frames are found, want 17, or as many as there are by now", typ)
	}
	files, err := filepath.Glob("*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	kinds := make(map[int]bool)
	for _, file := range append(files, top...) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, prefix := range []string{"call", "Call"} {
			for _, s := range constants(t, file, prefix) {
				if s.value == 0 { // of another package, under another name, or no kind
					continue
				}
				if kinds[s.value] = true; !calls[s.value] {
					t.Errorf("calls of kind %d (%s in %s) are not tried: add one to everyFrame", s.value, s.name, file)
				}
			}
		}
	}
	if len(kinds) != 12 {
		t.Errorf("%d kinds of calls are found, want 12, or as many as there are by now: %v", len(kinds), kinds)
	}
}

// A constant of a file; its value is 0 if the source does not say a number.
type constant struct {
	name  string
	value int
}

// constants are those of type uint8 in a file, and those that go on from them, whose names
// begin with a prefix and a capital letter.
func constants(t *testing.T, file, prefix string) (all []constant) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range parsed.Decls {
		g, ok := d.(*ast.GenDecl)
		if !ok || g.Tok != token.CONST {
			continue
		}
		typed := false
		for _, s := range g.Specs {
			spec := s.(*ast.ValueSpec)
			if spec.Type != nil || len(spec.Values) > 0 {
				of, named := spec.Type.(*ast.Ident)
				typed = named && of.Name == "uint8"
			}
			rest, ok := strings.CutPrefix(spec.Names[0].Name, prefix)
			if !typed || !ok || rest == "" || rest[0] < 'A' || rest[0] > 'Z' {
				continue
			}
			c := constant{name: spec.Names[0].Name}
			if len(spec.Values) == 1 {
				if number, ok := spec.Values[0].(*ast.BasicLit); ok {
					c.value, _ = strconv.Atoi(number.Value)
				}
			}
			all = append(all, c)
		}
	}
	return all
}

// A trespass is a way in which somebody comes to a node who has no key of the cluster's, or
// none that he may use.
type trespass struct {
	name  string
	tls   *tls.Config     // that he shakes hands by; nil: he does not
	as    []identity.Name // whom he says that he is; the handshake is refused if there are none
	why   string          // that is
	once  bool            // his hello is taken, for one call
	seeks bool            // and he is told where the nodes are
}

// trespasses are all that we know of, to a node, in the name of a member and in others.
// third is another member, whose certificate and key somebody has.
func (n *testNode) trespasses(t *testing.T, member identity.Name, third *testNode, clients *certificatetest.Authority) []trespass {
	t.Helper()
	authorities, err := keyring.Parse(n.Image().Authorities())
	if err != nil {
		t.Fatal(err)
	}
	ours, now := authorities[0], time.Now()
	nobody := identity.Name{}
	stranger := identity.Name{Cluster: n.ClusterID(), Node: 77, Incarnation: "x"}
	// A node's handshake, for one of its protocols, with whatever certificate.
	shows := func(protocol string, shown ...tls.Certificate) *tls.Config {
		return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{protocol}, ServerName: n.ClusterID() + ".cluster.millrace", Certificates: shown}
	}
	// A certificate that an authority issues, as change says it is wrong.
	issued := func(a identity.Authority, name identity.Name, change func(*x509.Certificate)) tls.Certificate {
		t.Helper()
		key, err := identity.NewKey()
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
			URIs:        []*url.URL{{Scheme: "millrace", Opaque: fmt.Sprintf("%s/%d/%s", name.Cluster, name.Node, name.Incarnation)}},
		}
		change(template)
		der, err := x509.CreateCertificate(cryptorand.Reader, template, a.Certificate, key.Public(), a.Key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der, a.Certificate.Raw}, PrivateKey: key}
	}
	asItIs := func(*x509.Certificate) {}
	imitation, err := identity.NewAuthority(n.ClusterID(), now)
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, err := identity.NewAuthority(folder.NewClusterID(), now)
	if err != nil {
		t.Fatal(err)
	}
	abroad := member
	abroad.Cluster = folder.NewClusterID()
	toClients, err := ours.IssueServer([]string{"127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := clients.Issue(t, "alice", time.Hour)
	alice, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{alice}}
	removed := identity.Name{Cluster: n.ClusterID(), Node: 9, Incarnation: "gone"}
	before := member
	before.Incarnation = "before"

	all := []trespass{
		{name: "bare", as: []identity.Name{member, stranger, nobody}},
		{name: "to join", tls: identity.Unpinned(nil), as: []identity.Name{member, stranger, nobody}, once: true},
		{name: "within a client's TLS", tls: &tls.Config{InsecureSkipVerify: true}, as: []identity.Name{member, nobody}},
		{name: "within the TLS of a client that has logged in by a certificate", tls: client, as: []identity.Name{member, nobody}},
	}
	for _, protocol := range []string{identity.Sealed, identity.Bare} {
		refused := func(name, why string, shown ...tls.Certificate) {
			all = append(all, trespass{name: protocol + " with " + name, why: why, tls: shows(protocol, shown...)})
		}
		refused("nothing", "didn't provide a certificate")
		refused("a client's certificate", "names no node", alice)
		refused("the certificate that brokers show clients", "names no node", toClients)
		refused("a certificate of another authority for this cluster", "unknown authority", issued(imitation, member, asItIs))
		refused("a certificate of another cluster", "unknown authority", issued(elsewhere, abroad, asItIs))
		refused("our authority's certificate for another cluster", "this is cluster", issued(ours, abroad, asItIs))
		refused("a certificate that has ended", " is after ", issued(ours, member, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-48*time.Hour), now.Add(-time.Hour) }))
		refused("a certificate that is not good yet", " is before ", issued(ours, member, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) }))
		refused("a certificate for servers alone", "not for both sides", issued(ours, member, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[:1] }))
		refused("a certificate for clients alone", "not for both sides", issued(ours, member, func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }))
		refused("a certificate for nothing", "not for both sides", issued(ours, member, func(c *x509.Certificate) { c.ExtKeyUsage = nil }))
		refused("a certificate that names two nodes", "names no node, but several", issued(ours, member, func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) }))
		refused("a certificate that a node's key has signed", "unknown authority", issued(third.asAuthority(), member, asItIs))
		all = append(all,
			trespass{name: protocol + " with the certificate of another node", tls: shows(protocol, third.shown()), as: []identity.Name{member, nobody}},
			trespass{name: protocol + " with that of a broker which was removed", tls: shows(protocol, issued(ours, removed, asItIs)), as: []identity.Name{removed}, once: true, seeks: true},
			trespass{name: protocol + " with that of a broker which was removed, as a member", tls: shows(protocol, issued(ours, removed, asItIs)), as: []identity.Name{member}},
			trespass{name: protocol + " with that of an earlier incarnation", tls: shows(protocol, issued(ours, before, asItIs)), as: []identity.Name{before}, once: true, seeks: true},
		)
	}
	return all
}

// shown is what a node shows, with its key, as they lie in its folder.
func (n *testNode) shown() tls.Certificate {
	n.c.t.Helper()
	p, err := os.ReadFile(n.dataFolder().Path(folder.CredentialsName))
	if err != nil {
		n.c.t.Fatal(err)
	}
	shown, err := tls.X509KeyPair(p, p)
	if err != nil {
		n.c.t.Fatal(err)
	}
	return shown
}

// asAuthority is a node that signs with its own key.
func (n *testNode) asAuthority() identity.Authority {
	shown := n.shown()
	return identity.Authority{Certificate: shown.Leaf, Key: shown.PrivateKey.(crypto.Signer)}
}

// doors puts a mux of the program before a node, as its listener has one: with TLS for clients,
// who may show a certificate.
// said returns what it has logged since it was asked last.
func (n *testNode) doors(t *testing.T, clients *certificatetest.Authority) (addr string, said func() string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	certificate, key := clients.Issue(t, "broker", time.Hour)
	own, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	believed := x509.NewCertPool()
	believed.AppendCertsFromPEM([]byte(clients.PEM))
	books := new(unlimited)
	m := mux.New(l, mux.Config{
		Quotas: &mux.Quotas{Broker: books}, Nodes: n.Node,
		TLS: &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: believed, ClientAuth: tls.VerifyClientCertIfGiven},
	})
	served := make(chan error, 1)
	peers := m.Peers()
	go func() { served <- n.Serve(peers) }()
	t.Cleanup(func() {
		m.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String(), books.take
}

// An unlimited broker lets in whoever comes, and keeps what is logged.
type unlimited struct {
	mu   sync.Mutex
	said strings.Builder
}

// Limits implements mux.Broker.
func (*unlimited) Limits(netip.Addr) mux.Limits {
	return mux.Limits{Connections: 1 << 20, PerIP: 1 << 20}
}

// MaxRequest implements mux.Broker.
func (*unlimited) MaxRequest() int { return 1 << 20 }

// Warn implements mux.Broker.
func (u *unlimited) Warn(message string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprintln(&u.said, message, args)
}

func (u *unlimited) take() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.said.Reset()
	return u.said.String()
}

// No frame that a member sends has an effect when somebody sends it who has no key of the
// cluster's, whatever he says that he is and by whichever of the ways that are open to him, nor
// from who has a key that is another's, or is no member any more. He hears a refusal, or
// nothing, and nobody dials where he says that he listens.
func TestFramesOfStrangersHaveNoEffect(t *testing.T) {
	dialled := &dialler{to: make(map[string]bool)}
	c := startClusterOf(&testCluster{t: t, dir: t.TempDir(), dialer: dialled}, 3)
	defer c.stop()
	c.secured()
	id := c.create("orders", 1, 3, nil)
	c.append(id, "kept")
	n, p := c.leader(id)
	clients := certificatetest.NewAuthority(t)
	at, said := n.doors(t, clients)
	member := c.nodes[n.id%3].identity.Name() // another node, whose name and incarnation are known to him
	ways := n.trespasses(t, member, c.nodes[(n.id+1)%3], clients)
	c.settled()
	groups := []uint64{0, p.Group()}
	frames := everyFrame(n.ClusterID(), member.Node, member.Incarnation, groups[0], n.state(groups[0]).term+5)
	for i, f := range everyFrame(n.ClusterID(), member.Node, member.Incarnation, groups[1], n.state(groups[1]).term+5) {
		if !bytes.Equal(f.head, frames[i].head) || !bytes.Equal(f.payload, frames[i].payload) {
			frames = append(frames, f)
		}
	}
	facts := n.facts()
	for _, way := range ways {
		var before, after [2]state
		sent := 0
		// What the cluster does by itself meanwhile, on a busy machine, it does not do each time.
		for try := 0; try < 4 && (try == 0 || before != after); try++ {
			before = [2]state{n.state(groups[0]), n.state(groups[1])}
			for _, f := range frames {
				if len(way.as) == 0 { // of whichever kind: nobody hears which
					if sent++; way.trespass(t, at, member, byte(sent%4+1), f) {
						t.Errorf("%s, %s: the handshake is taken", way.name, f.name)
					}
				}
				for _, as := range way.as {
					for kind := byte(controlConn); kind <= onceConn; kind++ {
						if heard := way.trespass(t, at, as, kind, f); heard != (kind == onceConn && way.once) {
							t.Errorf("%s, %s, as %v, kind %d: it is let in: %v", way.name, f.name, as, kind, heard)
						}
						sent++
					}
				}
			}
			after = [2]state{n.state(groups[0]), n.state(groups[1])}
		}
		if log := ""; len(way.as) == 0 {
			eventually(t, way.name+": all are refused because of "+way.why, func() bool {
				log += said()
				return strings.Count(log, way.why) == sent
			})
		}
		if after != before {
			t.Errorf("%s: groups %d were %+v, and are %+v after %d frames", way.name, groups, before, after, sent)
		}
		if now := n.facts(); now != facts {
			t.Fatalf("%s: the cluster was\n%s\nand is\n%s", way.name, facts, now)
		}
	}
	c.stillWorks(id)
	dialled.check(c)
}

// A dialler keeps which addresses nodes dial.
type dialler struct {
	mu sync.Mutex
	to map[string]bool
}

// DialContext implements transport.Dialer.
func (d *dialler) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	d.mu.Lock()
	d.to[addr] = true
	d.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// check fails the test if an address was dialled that is no node's, such as those that
// strangers say they are at, or if none was.
func (d *dialler) check(c *testCluster) {
	c.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range c.nodes {
		if !d.to[n.addr] {
			c.t.Errorf("node %d is dialled by nobody", n.id)
		}
		delete(d.to, n.addr)
	}
	for addr := range d.to {
		c.t.Errorf("%s is dialled, which is no node's", addr)
	}
}

// trespass goes its way to an address, says hello and sends a frame, whether that was refused
// or not. It reports whether the hello was taken; what is answered to the frame then must be a
// refusal.
func (w trespass) trespass(t *testing.T, addr string, as identity.Name, kind byte, f frameOf) (taken bool) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	over := conn
	switch {
	case w.tls == nil:
	case len(w.tls.NextProtos) == 0 && w.tls.VerifyConnection == nil: // a client's
		secure := tls.Client(conn, w.tls)
		if err := secure.Handshake(); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		over = secure
	default:
		secured, _, err := identity.Dial(context.Background(), conn, w.tls)
		if err == nil {
			over = secured
		} else if len(w.as) > 0 {
			t.Fatalf("%s: %v", w.name, err)
		}
	}
	s, err := trySayHello(t, over, strangerHello{kind: kind, node: as.Node, incarnation: as.Incarnation, cluster: as.Cluster, address: "127.0.0.1:1"})
	if err != nil && len(w.as) > 0 {
		t.Errorf("%s: no answer to a hello: %v", w.name, err)
	}
	welcome := err == nil && s.ack.status == 0
	typ, head, payload, err := s.ask(f.typ, f.head, f.payload)
	switch {
	case !welcome && err == nil:
		t.Errorf("%s: %s behind a hello that was refused is answered: %s", w.name, f.name, describe(typ, head, payload, err))
	case err == nil && typ == 16 && f.name == "call join":
		if !bytes.Contains(payload, []byte("refused")) {
			t.Errorf("%s: %s: %s", w.name, f.name, payload)
		}
	case err == nil && typ == 16 && f.name == "call seek" && w.seeks: // its own folder has as much
	case err == nil && typ != 17:
		t.Errorf("%s: %s is answered: %s", w.name, f.name, describe(typ, head, payload, err))
	case err != nil:
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Errorf("%s: %s: the connection stays open", w.name, f.name)
		}
	}
	return welcome
}

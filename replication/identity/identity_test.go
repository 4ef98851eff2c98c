package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

var start = time.Date(2026, 12, 1, 4, 0, 0, 0, time.UTC)

func at(now time.Time) func() time.Time { return func() time.Time { return now } }

func newAuthority(t testing.TB, cluster string) Authority {
	t.Helper()
	a, err := NewAuthority(cluster, start)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newCredentials(t testing.TB, name Name, authorities ...Authority) *Credentials {
	t.Helper()
	c, err := NewCredentials(name, authorities, start)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An outcome is how one side of a handshake ended.
type outcome struct {
	conn  net.Conn
	proof Proof
	err   error
}

// tcpPair are both ends of a TCP connection on loopback.
func tcpPair(t testing.TB) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	deadline := time.Now().Add(30 * time.Second)
	client.SetDeadline(deadline)
	server.SetDeadline(deadline)
	return client, server
}

// accept is the server's side of a handshake, as package server/mux has it.
func accept(conn net.Conn, c *Credentials, now func() time.Time) outcome {
	records := &Records{Conn: conn}
	secure := tls.Server(records, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return c.Server(hello, now), nil
	}})
	if err := secure.Handshake(); err != nil {
		conn.Close()
		return outcome{err: err}
	}
	over, proof, err := Accept(secure, records)
	return outcome{over, proof, err}
}

// shake has two shake hands, and tells how it ended for both once each has said a word: a
// client hears that its certificate was refused when it reads.
func shake(t testing.TB, client *tls.Config, server *Credentials, now time.Time) (c, s outcome) {
	t.Helper()
	a, b := tcpPair(t)
	done := make(chan outcome, 1)
	go func() {
		o := accept(b, server, at(now))
		if o.err == nil {
			_, o.err = io.WriteString(o.conn, "w")
		}
		done <- o
	}()
	over, proof, err := Dial(context.Background(), a, client)
	c = outcome{over, proof, err}
	if err == nil {
		_, c.err = io.ReadFull(over, make([]byte, 1))
	} else {
		a.Close()
	}
	return c, <-done
}

func TestNamesSurviveACertificate(t *testing.T) {
	a := newAuthority(t, "x-Y_z")
	for _, name := range []Name{{"x-Y_z", 1, "0123abcd"}, {"AAAAAAAAAAAAAAAAAAAAAA", 1<<31 - 1, strings.Repeat("i", 64)}} {
		c := newCredentials(t, name, a)
		if got, err := NameOf(c.own.Leaf); err != nil || got != name {
			t.Errorf("%+v came back as %+v, %v", name, got, err)
		}
	}
	for _, text := range []string{"millrace:x/0/a", "millrace:x/01/a", "millrace:x/1", "millrace:/1/a", "millrace:x/1/", "millrace:x/2147483648/a", "https://x/1/a", "millrace://x/1/a"} {
		der, err := a.issue(&x509.Certificate{URIs: mustURIs(t, text)}, a.Key.Public(), start)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if name, err := NameOf(leaf); !errors.Is(err, ErrNoNode) {
			t.Errorf("%s names %+v, %v", text, name, err)
		}
	}
}

// Each kind of certificate that is not right is refused by whoever it is shown to, with what
// is wrong with it.
func TestWrongCertificatesAreRefused(t *testing.T) {
	ours, others := newAuthority(t, "one"), newAuthority(t, "one")
	self := newCredentials(t, Name{"one", 1, "a"}, ours)
	if c, s := shake(t, newCredentials(t, Name{"one", 2, "b"}, ours).Client(at(start)), self, start); c.err != nil || s.err != nil {
		t.Fatalf("right ones are refused: %v, %v", c.err, s.err)
	}
	foreign := newCredentials(t, Name{"one", 2, "b"}, others)
	elsewhere := newCredentials(t, Name{"two", 2, "b"}, ours)
	served, err := ours.IssueServer([]string{"localhost"}, start)
	if err != nil {
		t.Fatal(err)
	}
	server := *newCredentials(t, Name{"one", 2, "b"}, ours)
	server.own = served
	old := newCredentials(t, Name{"one", 2, "b"}, ours)
	for _, tt := range []struct {
		what  string
		other *Credentials
		at    time.Time
		want  string
	}{
		{"another authority's", foreign, start, "unknown authority"},
		{"another cluster's", elsewhere, start, "is that of node 2.b of cluster two"},
		{"a broker's for clients", &server, start, "names no node"},
		{"one that has ended", old, start.Add(Life + time.Minute), "expired"},
	} {
		self := self
		if tt.at != start {
			if self, err = NewCredentials(self.Name, self.Trusted, tt.at); err != nil {
				t.Fatal(err)
			}
		}
		unasking := tt.other.Client(at(tt.at))
		unasking.VerifyConnection = nil
		if c, s := shake(t, unasking, self, tt.at); s.err == nil || c.err == nil || !strings.Contains(s.err.Error(), tt.want) {
			t.Errorf("%s, shown to a server: %v (the client: %v), want %q", tt.what, s.err, c.err, tt.want)
		}
		if c, _ := shake(t, self.Client(at(tt.at)), tt.other, tt.at); c.err == nil || !strings.Contains(c.err.Error(), tt.want) {
			t.Errorf("%s, shown to a client: %v, want %q", tt.what, c.err, tt.want)
		}
	}
	if c, s := shake(t, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{Sealed}}, self, start); s.err == nil || c.err == nil {
		t.Errorf("no certificate at all: %v, %v", s.err, c.err)
	}
}

// A node whose clock stands before the authority was made is let in, and lets others in.
func TestAClockThatWasNeverSetKeepsNobodyOut(t *testing.T) {
	a := newAuthority(t, "one")
	stopped := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	lost, err := NewCredentials(Name{"one", 1, "a"}, []Authority{a}, stopped)
	if err != nil {
		t.Fatal(err)
	}
	right := newCredentials(t, Name{"one", 2, "b"}, a)
	if c, s := shake(t, lost.Client(at(stopped)), right, start); c.err != nil || s.err != nil {
		t.Errorf("%v, %v", c.err, s.err)
	}
	if c, s := shake(t, right.Client(at(start)), lost, stopped); c.err != nil || s.err != nil {
		t.Errorf("%v, %v", c.err, s.err)
	}
}

// A greedyConn has everything that was sent in one piece, and gives as much as is asked for:
// so a tls.Conn that reads ahead takes what follows its last record.
type greedyConn struct {
	net.Conn
	pending *bytes.Buffer
}

func (g greedyConn) Read(p []byte) (int, error) {
	if g.pending.Len() == 0 {
		buf := make([]byte, 64<<10)
		n, err := g.Conn.Read(buf)
		g.pending.Write(buf[:n])
		if err != nil {
			return 0, err
		}
	}
	return g.pending.Read(p)
}

// Who goes on without TLS has all that was sent behind the handshake, even of another side
// that does not wait for it: the tls.Conn read no byte further.
func TestNothingBehindTheHandshakeIsLost(t *testing.T) {
	a := newAuthority(t, "one")
	self, other := newCredentials(t, Name{"one", 1, "a"}, a), newCredentials(t, Name{"one", 2, "b"}, a)
	for round := range 20 {
		client, server := tcpPair(t)
		early := bytes.Repeat([]byte{byte(round)}, 1000)
		done := make(chan error, 1)
		go func() { // it does not wait for the client, and all it sends comes at once
			held := &holdingConn{Conn: server}
			records := &Records{Conn: held}
			secure := tls.Server(records, self.Server(&tls.ClientHelloInfo{Conn: server, SupportedProtos: []string{Bare}}, at(start)))
			if err := secure.Handshake(); err != nil {
				done <- err
				return
			}
			held.hold = true
			over, _, err := Accept(secure, records)
			if err == nil {
				_, err = over.Write(early)
			}
			if err == nil {
				_, err = server.Write(held.held)
			}
			done <- err
		}()
		greedy := greedyConn{client, new(bytes.Buffer)}
		cfg := other.Client(at(start))
		over, proof, err := Dial(context.Background(), greedy, cfg)
		if err != nil || proof.Protocol != Bare {
			t.Fatal(proof, err)
		}
		if _, ok := over.(greedyConn); !ok {
			t.Fatalf("it goes on over a %T", over)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(early))
		if _, err := io.ReadFull(over, got); err != nil || !bytes.Equal(got, early) {
			t.Fatalf("of what followed the handshake %q came, %v", got, err)
		}
	}
}

// A holdingConn keeps what is written to it, from some time on.
type holdingConn struct {
	net.Conn
	hold bool
	held []byte
}

func (h *holdingConn) Write(p []byte) (int, error) {
	if !h.hold {
		return h.Conn.Write(p)
	}
	h.held = append(h.held, p...)
	return len(p), nil
}

// The server's side of the same: a client that sends its Finished and, unasked, what follows
// it, in one piece.
func TestNothingBehindTheClientsFinishedIsLost(t *testing.T) {
	a := newAuthority(t, "one")
	self, other := newCredentials(t, Name{"one", 1, "a"}, a), newCredentials(t, Name{"one", 2, "b"}, a)
	client, server := tcpPair(t)
	early := bytes.Repeat([]byte("early"), 1000)
	impatient := &trailingConn{Conn: client, early: early}
	go func() {
		cfg := other.Client(at(start))
		cfg.NextProtos = []string{Bare}
		tls.Client(impatient, cfg).Handshake()
	}()
	greedy := greedyConn{server, new(bytes.Buffer)}
	o := accept(greedy, self, at(start))
	if o.err != nil || o.proof.Protocol != Bare {
		t.Fatal(o.proof, o.err)
	}
	got := make([]byte, len(early))
	if _, err := io.ReadFull(o.conn, got); err != nil || !bytes.Equal(got, early) {
		t.Fatalf("of what followed Finished %.20q came, %v", got, err)
	}
}

// A trailingConn sends something more with the second thing that is written: a client's
// second flight, which ends with Finished.
type trailingConn struct {
	net.Conn
	writes int
	early  []byte
}

func (c *trailingConn) Write(p []byte) (int, error) {
	if c.writes++; c.writes != 2 {
		return c.Conn.Write(p)
	}
	if _, err := c.Conn.Write(append(bytes.Clone(p), c.early...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Between addresses that are not both loopback nobody goes on without TLS, whoever asks.
func TestOnlyLoopbackGoesWithoutTLS(t *testing.T) {
	a := newAuthority(t, "one")
	c := newCredentials(t, Name{"one", 1, "a"}, a)
	for _, tt := range []struct {
		local, remote string
		want          bool
	}{
		{"127.0.0.1:1", "127.0.0.1:2", true}, {"127.0.0.1:1", "127.9.9.9:2", true}, {"[::1]:1", "[::1]:2", true}, {"[::ffff:127.0.0.1]:1", "127.0.0.1:2", true},
		{"127.0.0.1:1", "10.0.0.1:2", false}, {"10.0.0.1:1", "127.0.0.1:2", false}, {"10.0.0.1:1", "10.0.0.1:2", false}, {"@", "@", false},
	} {
		conn := addressed{local: tt.local, remote: tt.remote}
		offers := c.Server(&tls.ClientHelloInfo{Conn: conn, SupportedProtos: []string{Bare, Sealed}}, nil).NextProtos
		if got := len(offers) == 2 && offers[0] == Bare; got != tt.want || offers[len(offers)-1] != Sealed {
			t.Errorf("from %s to %s: %v", tt.remote, tt.local, offers)
		}
	}
}

type addressed struct {
	net.Conn
	local, remote string
}

type address string

func (address) Network() string  { return "tcp" }
func (a address) String() string { return string(a) }

func (a addressed) LocalAddr() net.Addr  { return address(a.local) }
func (a addressed) RemoteAddr() net.Addr { return address(a.remote) }

// Credentials come back from a file as they were, and a file that was cut or has another's
// key is refused without a word of what is in it.
func TestCredentialsAreKept(t *testing.T) {
	a, b := newAuthority(t, "one"), newAuthority(t, "one")
	c := newCredentials(t, Name{"one", 3, "c"}, a, b)
	p, err := c.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Count(p, []byte("PRIVATE")) != 2 { // one block: the node's own
		t.Errorf("the file holds more keys than the node's")
	}
	back, err := DecodeCredentials(p)
	if err != nil || back.Name != c.Name || len(back.Trusted) != 2 || !back.Trusted[0].Is(a) || !back.Trusted[1].Is(b) || !back.issuedBy(a) {
		t.Fatalf("%+v, %v", back, err)
	}
	other, err := newCredentials(t, Name{"one", 3, "c"}, a).Encode()
	if err != nil {
		t.Fatal(err)
	}
	end := bytes.Index(p, []byte("-----BEGIN CERT"))
	mixed := append(bytes.Clone(other[:bytes.Index(other, []byte("-----BEGIN CERT"))]), p[end:]...)
	for _, damaged := range [][]byte{nil, p[:100], p[:end], p[:end+50], p[end:], mixed} {
		if _, err := DecodeCredentials(damaged); err == nil || strings.Contains(err.Error(), "MII") {
			t.Errorf("%d bytes: %v", len(damaged), err)
		}
	}
}

// A certificate is renewed while a third of its life is left, under the same key, and at once
// when another authority comes first.
func TestCertificatesAreRenewed(t *testing.T) {
	a, b := newAuthority(t, "one"), newAuthority(t, "one")
	c := newCredentials(t, Name{"one", 1, "a"}, a)
	same, err := c.Renewed([]Authority{a}, start.Add(Life/2))
	if err != nil || same != c {
		t.Errorf("renewed too soon: %v", err)
	}
	later := start.Add(Life*2/3 + time.Minute)
	young, err := c.Renewed([]Authority{a}, later)
	if err != nil || young == c || !young.Ends().Equal(later.Add(Life)) || young.own.PrivateKey != c.own.PrivateKey {
		t.Errorf("not renewed in time: %v", err)
	}
	for _, authorities := range [][]Authority{{a, b}, {b, a}, {b}} {
		c, err = c.Renewed(authorities, start)
		if err != nil || !c.issuedBy(authorities[0]) || len(c.Trusted) != len(authorities) {
			t.Errorf("with %d authorities: %v", len(authorities), err)
		}
	}
	bare := Authority{Certificate: a.Certificate} // without its key nobody issues anything
	if kept, err := c.Renewed([]Authority{bare, b}, start); err != nil || !kept.issuedBy(b) {
		t.Errorf("without a key: %v", err)
	}
}

func TestTokens(t *testing.T) {
	a := newAuthority(t, "one")
	token := NewToken(a, []string{"10.0.0.1:9092", "[::1]:9092", "node-3.example:9092"})
	text := token.Encode()
	back, err := ParseToken(" " + text + "\n")
	if err != nil || back.ID != token.ID || !bytes.Equal(back.Secret, token.Secret) || back.Authority != token.Authority || strings.Join(back.Nodes, " ") != strings.Join(token.Nodes, " ") {
		t.Fatalf("%+v came back as %+v, %v", token, back, err)
	}
	if !IsToken(text) || IsToken("10.0.0.1:9092,10.0.0.2:9092") {
		t.Error("a token is not told from addresses")
	}
	if !SecretIs(back.Secret, HashSecret(token.Secret)) || SecretIs(make([]byte, 32), HashSecret(token.Secret)) || SecretIs(nil, nil) {
		t.Error("secrets are not told apart")
	}
	for end := range len(text) {
		if _, err := ParseToken(text[:end]); !errors.Is(err, ErrToken) || end > 20 && strings.Contains(err.Error(), text[16:end]) {
			t.Fatalf("the first %d of %d characters: %v", end, len(text), err)
		}
	}
}

// Who has a token talks to no node but those of its cluster, under the authority it names.
func TestATokenKnowsItsCluster(t *testing.T) {
	a, b := newAuthority(t, "one"), newAuthority(t, "one")
	token := NewToken(a, []string{"x:1"})
	node := newCredentials(t, Name{"one", 1, "a"}, a, b)
	if c, s := shake(t, token.Client(at(start)), node, start); c.err != nil || s.err != nil || c.proof.Protocol != Join || c.proof.Certified() || s.proof.Certified() {
		t.Errorf("%+v, %+v", c, s)
	}
	changed := newCredentials(t, Name{"one", 1, "a"}, b, a)
	if c, _ := shake(t, token.Client(at(start)), changed, start); c.err == nil || !strings.Contains(c.err.Error(), "a new token") {
		t.Errorf("another authority: %v", c.err)
	}
	// One that shows the right authority's certificate and has none of its own from it.
	impostor := newCredentials(t, Name{"one", 1, "a"}, b)
	impostor.own.Certificate[1] = a.Certificate.Raw
	if c, _ := shake(t, token.Client(at(start)), impostor, start); c.err == nil {
		t.Error("an impostor is believed")
	}
	// One that has what brokers show clients, which is in the hands of whatever ends their TLS.
	served, err := a.IssueServer([]string{"x"}, start)
	if err != nil {
		t.Fatal(err)
	}
	impostor = newCredentials(t, Name{"one", 1, "a"}, a)
	impostor.own = served
	if c, _ := shake(t, token.Client(at(start)), impostor, start); c.err == nil || !strings.Contains(c.err.Error(), "names no node") {
		t.Errorf("a server for clients: %v", c.err)
	}
	// One whose certificate has ended.
	late := start.Add(Life + time.Minute)
	if c, _ := shake(t, token.Client(at(late)), newCredentials(t, Name{"one", 1, "a"}, a), late); c.err == nil || !strings.Contains(c.err.Error(), "expired") {
		t.Errorf("a certificate that has ended: %v", c.err)
	}
	// One that shows the fingerprinted certificate, which is no authority's.
	leaf := newCredentials(t, Name{"one", 1, "a"}, a)
	forged := token
	forged.Authority = Authority{Certificate: leaf.own.Leaf}.Fingerprint()
	if c, _ := shake(t, forged.Client(at(start)), leaf, start); !errors.Is(c.err, ErrOtherAuthority) {
		t.Errorf("a node's certificate in the place of its authority's: %v", c.err)
	}
}

func TestRequestsForCertificates(t *testing.T) {
	a := newAuthority(t, "one")
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	name := Name{"one", 4, "d"}
	granted, err := a.Grant(name, request, start)
	if err != nil {
		t.Fatal(err)
	}
	certificate, _, err := a.PEM()
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewMember(key, granted, [][]byte{certificate}, start)
	if err != nil || c.Name != name {
		t.Fatalf("%+v, %v", c, err)
	}
	other, _ := NewKey()
	if _, err := NewMember(other, granted, [][]byte{certificate}, start); err == nil {
		t.Error("a certificate for another key is taken")
	}
	strange, _, _ := newAuthority(t, "one").PEM()
	if _, err := NewMember(key, granted, [][]byte{strange}, start); err == nil {
		t.Error("a certificate of another authority than it came with is taken")
	}
	for i := range request {
		damaged := bytes.Clone(request)
		damaged[i] ^= 1
		if _, err := a.Grant(name, damaged, start); err == nil {
			t.Errorf("a request with byte %d changed is granted", i)
		}
	}
	var _ [sha256.Size]byte = a.Fingerprint()
}

// FuzzToken and FuzzCredentials: what comes from outside panics nowhere, and what is taken
// is written again as it was.
func FuzzToken(f *testing.F) {
	f.Add(NewToken(newAuthority(f, "one"), []string{"127.0.0.1:9092"}).Encode())
	f.Add(tokenPrefix)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			return
		}
		if again, err := ParseToken(token.Encode()); err != nil || again.ID != token.ID {
			t.Errorf("%q was taken and does not come back: %v", text, err)
		}
	})
}

func FuzzName(f *testing.F) {
	f.Add("millrace:one/1/a")
	f.Fuzz(func(t *testing.T, text string) {
		uris := parseURIs(text)
		name, err := NameOf(&x509.Certificate{URIs: uris})
		if err == nil && name.uri().String() != text && len(uris) == 1 && uris[0].Opaque != name.uri().Opaque {
			t.Errorf("%q names %+v", text, name)
		}
	})
}

// BenchmarkHandshake is a dial and both sides of a handshake, on loopback.
func BenchmarkHandshake(b *testing.B) {
	a := newAuthority(b, "one")
	self, other := newCredentials(b, Name{"one", 1, "a"}, a), newCredentials(b, Name{"one", 2, "b"}, a)
	for _, protocol := range []string{Bare, Sealed} {
		b.Run(protocol, func(b *testing.B) {
			for b.Loop() {
				cfg := other.Client(at(start))
				cfg.NextProtos = []string{protocol}
				c, s := shake(b, cfg, self, start)
				if c.err != nil || s.err != nil {
					b.Fatal(c.err, s.err)
				}
				c.conn.Close()
				s.conn.Close()
			}
		})
	}
}

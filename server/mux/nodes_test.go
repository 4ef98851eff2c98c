package mux

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"millrace/replication/identity"
	"millrace/replication/transport"
)

// A muxNode is a node behind a Mux, and one of its cluster that calls it.
type muxNode struct{ *identity.Credentials }

// NodeTLS implements Nodes.
func (n muxNode) NodeTLS(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	return n.Server(hello, nil), nil
}

// credentialsOf makes those of nodes 1 and up of a new cluster, which believe each other.
func credentialsOf(t *testing.T, cluster string, nodes int) (all []*identity.Credentials) {
	t.Helper()
	a, err := identity.NewAuthority(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	for node := range nodes {
		c, err := identity.NewCredentials(identity.Name{Cluster: cluster, Node: int32(node + 1), Incarnation: "a"}, []identity.Authority{a}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

func (h *hall) dialNode(cfg *tls.Config) (net.Conn, identity.Proof, error) {
	h.t.Helper()
	conn := h.dial("")
	over, proof, err := identity.Dial(context.Background(), conn, cfg)
	if err != nil {
		conn.Close()
	}
	return over, proof, err
}

// A node that shakes hands is a peer whatever it says first, and each side knows the other.
// On loopback they go on without TLS, over the connection as it was accepted.
func TestNodesShakeHands(t *testing.T) {
	nodes := credentialsOf(t, "one", 2)
	h := newHallWith(t, Limits{Connections: 100, PerIP: 100}, Config{Nodes: muxNode{nodes[0]}})
	peers := h.Peers()
	sealed := nodes[1].Client(nil)
	sealed.NextProtos = []string{identity.Sealed}
	for _, tt := range []struct {
		cfg      *tls.Config
		protocol string
	}{{nodes[1].Client(nil), identity.Bare}, {sealed, identity.Sealed}} {
		type accepted struct {
			conn net.Conn
			err  error
		}
		came := make(chan accepted, 1)
		go func() {
			conn, err := peers.Accept()
			came <- accepted{conn, err}
		}()
		client, proof, err := h.dialNode(tt.cfg)
		if err != nil || proof.Protocol != tt.protocol || proof.Name != nodes[0].Name {
			t.Fatalf("the caller has shaken hands with %+v, %v", proof, err)
		}
		served := <-came
		if served.err != nil {
			t.Fatal(served.err)
		}
		t.Cleanup(func() { served.conn.Close() })
		if proof := served.conn.(interface{ Proof() identity.Proof }).Proof(); proof.Protocol != tt.protocol || proof.Name != nodes[1].Name {
			t.Errorf("the node has shaken hands with %+v", proof)
		}
		if _, tcp := served.conn.(*tcpConn); tcp != (tt.protocol == identity.Bare) {
			t.Errorf("%s goes on over a %T", tt.protocol, served.conn)
		}
		sent := bytes.Repeat([]byte("0123456789abcdef"), 100_000)
		for _, way := range [][2]net.Conn{{client, served.conn}, {served.conn, client}} {
			go way[0].Write(sent)
			got := make([]byte, len(sent))
			way[1].SetReadDeadline(time.Now().Add(30 * time.Second))
			if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%s: what was sent did not arrive: %v", tt.protocol, err)
			}
		}
	}
	h.becomes("both to be counted", func(s Stats) bool { return s.Connections == 2 })
}

// Who cannot show whose it is gets nowhere, and the log says why.
func TestNodesThatProveNothingAreRefused(t *testing.T) {
	ours, others := credentialsOf(t, "one", 1), credentialsOf(t, "one", 1) // by another authority of that name
	h := newHallWith(t, Limits{Connections: 100, PerIP: 100}, Config{Nodes: muxNode{ours[0]}})
	h.Peers()
	nobody := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{identity.Sealed}}
	stranger := others[0].Client(nil)
	stranger.VerifyConnection = nil // it takes whoever answers
	for _, cfg := range []*tls.Config{nobody, stranger} {
		conn, _, err := h.dialNode(cfg)
		if err == nil { // with TLS 1.3 a client hears of its certificate with the first read
			closedByOther(t, conn)
		}
	}
	h.becomes("all to be refused", func(s Stats) bool { return s.Refused == 2 })
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, want := range []string{"didn't provide a certificate", "unknown authority"} {
		if !strings.Contains(h.said[i], want) {
			t.Errorf("the log says %q, want %q", h.said[i], want)
		}
	}
}

// A client with a certificate of its own kind is a client, on the same port.
func TestClientsShakeHandsBesideNodes(t *testing.T) {
	a, err := identity.NewAuthority("one", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	own, err := a.IssueServer([]string{"127.0.0.1"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := newHallWith(t, Limits{Connections: 100, PerIP: 100}, Config{TLS: &tls.Config{Certificates: []tls.Certificate{own}}})
	kafka := h.Kafka()
	client := tls.Client(h.dial(""), &tls.Config{InsecureSkipVerify: true})
	go io.WriteString(client, kafkaHello)
	h.accepts(kafka, kafkaHello)
	if _, _, err := h.dialNode(credentialsOf(t, "one", 1)[0].Client(nil)); err == nil {
		t.Error("there is no node, and a handshake with one succeeds")
	}
	h.becomes("the node to be refused", func(s Stats) bool { return s.Refused == 1 })
	h.mu.Lock()
	defer h.mu.Unlock()
	if !strings.Contains(h.said[0], "there is no node here") {
		t.Errorf("the log says %q", h.said[0])
	}
}

// What is in a client's TLS is looked at as what is not in any: a node that begins there has
// proved nothing, and TLS is not begun again.
func TestWhatIsInTLSIsLookedAtAgain(t *testing.T) {
	own, err := credentialsAuthority(t).IssueServer([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := newHallWith(t, Limits{Connections: 100, PerIP: 100}, Config{TLS: &tls.Config{Certificates: []tls.Certificate{own}}, Nodes: muxNode{credentialsOf(t, "one", 1)[0]}})
	kafka, peers := h.Kafka(), h.Peers()
	defer kafka.Close()
	say := func(first string) *tls.Conn {
		client := tls.Client(h.dial(""), &tls.Config{InsecureSkipVerify: true})
		if _, err := io.WriteString(client, first); err != nil {
			t.Fatal(err)
		}
		return client
	}
	say("\x16\x03\x01\x00")
	h.becomes("TLS within TLS to be refused", func(s Stats) bool { return s.Refused == 1 })
	h.mu.Lock()
	if !strings.Contains(h.said[0], "TLS within TLS") {
		t.Errorf("the log says %q", h.said[0])
	}
	h.mu.Unlock()
	say(transport.Magic)
	conn, err := peers.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if proof := conn.(interface{ Proof() identity.Proof }).Proof(); proof != (identity.Proof{}) {
		t.Errorf("a node within a client's TLS has proved %+v", proof)
	}
}

// A client that speaks TLS is told of the end as others are, and can say so in turn: an answer
// that is on its way is not lost to a reset.
func TestOneDirectionEndsOverTLS(t *testing.T) {
	cert, err := credentialsAuthority(t).IssueServer([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := newHallWith(t, Limits{Connections: 100, PerIP: 100}, Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	kafka := h.Kafka()
	client := tls.Client(h.dial(""), &tls.Config{InsecureSkipVerify: true})
	sent := make(chan error, 1)
	go func() {
		_, err := client.Write([]byte("\x00\x00\x00\x64rest"))
		sent <- err
	}()
	served, err := kafka.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	if err := served.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Errorf("end one direction: %v", err)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client reads %v, want EOF", err)
	}
}

// A client whose certificate is refused learns so, whatever it has sent behind it: with TLS
// 1.3 its own handshake is over by then.
func TestARefusedCertificateIsSaidSo(t *testing.T) {
	cert, err := credentialsAuthority(t).IssueServer([]string{"localhost"}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	h := newHallWith(t, Limits{Connections: 100, PerIP: 100}, Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert}})
	h.Kafka()
	client := tls.Client(h.dial(""), &tls.Config{InsecureSkipVerify: true})
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	h.becomes("the client to be refused", func(s Stats) bool { return s.Refused == 1 })
	for range 2 {
		if _, err := client.Write([]byte("\x00\x00\x00\x64request")); err != nil {
			t.Fatalf("the client writes: %v", err)
		}
	}
	if _, err := client.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "certificate required") {
		t.Errorf("the client reads %v", err)
	}
}

func credentialsAuthority(t *testing.T) identity.Authority {
	t.Helper()
	a, err := identity.NewAuthority("one", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

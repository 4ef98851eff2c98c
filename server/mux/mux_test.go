package mux

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"millrace/replication/transport"
)

// A hall is a Mux on loopback, and what it warned of.
type hall struct {
	*Mux
	t      *testing.T
	quotas *Quotas
	limits Limits

	mu   sync.Mutex
	said []string
}

func (h *hall) Limits(netip.Addr) Limits { return h.limits }
func (h *hall) MaxRequest() int          { return 1000 }

func (h *hall) Warn(message string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = append(h.said, message+" "+fmt.Sprint(args...))
}

func newHall(t *testing.T, limits Limits, patience time.Duration) *hall {
	t.Helper()
	return newHallWith(t, limits, Config{Patience: patience})
}

func newHallWith(t *testing.T, limits Limits, cfg Config) *hall {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &hall{t: t, limits: limits}
	h.quotas = &Quotas{Broker: h}
	cfg.Quotas = h.quotas
	h.Mux = New(l, cfg)
	t.Cleanup(func() {
		h.Close()
		h.becomes("the books to be empty", func(s Stats) bool { return s.Connections == 0 })
	})
	return h
}

func (h *hall) dial(hello string) net.Conn {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.outer.Addr().String())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, hello); err != nil {
		h.t.Fatal(err)
	}
	return conn
}

// becomes waits until the books say so.
func (h *hall) becomes(what string, so func(Stats) bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !so(h.quotas.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain for %s: %+v", what, h.quotas.Stats())
		}
	}
}

func (h *hall) accepts(l net.Listener, hello string) net.Conn {
	h.t.Helper()
	conn, err := l.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	got := make([]byte, len(hello))
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != hello {
		h.t.Fatalf("read %q, %v; want %q: nothing is taken off", got, err, hello)
	}
	return conn
}

func closedByOther(t *testing.T, conn net.Conn) {
	t.Helper()
	n, err := conn.Read(make([]byte, 1))
	var timeout net.Error
	if n > 0 || err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("read %d bytes, %v; want a closed connection", n, err)
	}
}

const (
	kafkaHello = "\x00\x00\x00\x10\x00\x12\x00\x00\x00\x00\x00\x01"
	nodeHello  = transport.Magic + "\x01\x01"
)

func TestConnectionsGoWhereTheirFirstBytesSay(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, 0)
	kafka, peers := h.Kafka(), h.Peers()
	h.dial(nodeHello)
	h.dial(kafkaHello)
	node := h.accepts(peers, nodeHello)
	client := h.accepts(kafka, kafkaHello)
	h.becomes("both to be counted", func(s Stats) bool { return s.Connections == 2 && s.Strangers == 2 })
	for _, conn := range []net.Conn{node, client} {
		conn.(interface{ Known() }).Known()
	}
	h.becomes("both to be known", func(s Stats) bool { return s.Connections == 2 && s.Strangers == 0 })
	node.Close()
	node.Close() // counts once
	h.becomes("the node to be off the books", func(s Stats) bool { return s.Connections == 1 })
	client.Close()
}

func TestOthersAreRefused(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, 0)
	h.Kafka()
	h.Peers()
	for hello, why := range map[string]string{
		"SSH-2.0-OpenSSH_9.6\r\n":    "it speaks SSH",
		"\x16\x03\x01\x02\x00\x01":   "no certificate",
		"\x00\x00\x03\xe9\x00\x12":   "no request of at most 1000 bytes",
		"\x00\x00\x00\x07\x00\x12":   "no request of at most 1000 bytes",
		"GET / HTTP/1.1\r\n":         "an HTTP request",
		"MLRX and nothing of a node": "it begins with 4d 4c 52 58",
	} {
		conn := h.dial(hello)
		conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		if strings.HasPrefix(hello, "GET") != strings.HasPrefix(string(answer), "HTTP/1.1 421 ") {
			t.Errorf("%q was answered %q, %v", hello, answer, err)
		}
		h.becomes("it to leave", func(s Stats) bool { return s.Connections == 0 })
		h.mu.Lock()
		if len(h.said) != 1 || !strings.Contains(h.said[0], why) {
			t.Errorf("%q: said %q; want %q", hello, h.said, why)
		}
		h.said = nil
		h.mu.Unlock()
	}
	// Health checks connect and leave.
	conn := h.dial("")
	conn.Close()
	h.becomes("it to be counted and gone", func(s Stats) bool { return s.Accepted == 7 && s.Connections == 0 })
	if s := h.quotas.Stats(); s.Refused != 6 || len(h.said) > 0 {
		t.Errorf("%+v, said %q", s, h.said)
	}
}

// Before a node has started there is nobody to serve clients: they are closed, and come
// again. Other nodes are served.
func TestNobodyIsKeptForAPartThatIsNotOpen(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, 0)
	peers := h.Peers()
	closedByOther(t, h.dial(kafkaHello))
	h.dial(nodeHello)
	h.accepts(peers, nodeHello)
	kafka := h.Kafka()
	h.dial(kafkaHello)
	h.accepts(kafka, kafkaHello)
}

func TestClosingOnePartLeavesTheOther(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, 0)
	kafka, peers := h.Kafka(), h.Peers()
	waiting := h.dial(kafkaHello) // nobody accepts it
	h.becomes("it to come", func(s Stats) bool { return s.Accepted == 1 })
	kafka.Close()
	closedByOther(t, waiting)
	closedByOther(t, h.dial(kafkaHello))
	if _, err := kafka.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept of a closed part: %v", err)
	}
	h.dial(nodeHello)
	h.accepts(peers, nodeHello)
}

func TestCloseLeavesWhatWasAcceptedAndNothingElse(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, time.Hour)
	kafka := h.Kafka()
	other := h.dial(kafkaHello)
	mine := h.accepts(kafka, kafkaHello)
	silent, partial, waiting := h.dial(""), h.dial("\x00\x00"), h.dial(kafkaHello)
	h.becomes("all to come", func(s Stats) bool { return s.Connections == 4 })
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	for _, conn := range []net.Conn{silent, partial, waiting} {
		closedByOther(t, conn)
	}
	if s := h.quotas.Stats(); s.Connections != 1 {
		t.Errorf("%+v; want only the one that was accepted", s)
	}
	if _, err := mine.Write([]byte("x")); err != nil {
		t.Errorf("the one that was accepted: %v", err)
	}
	if n, err := other.Read(make([]byte, 1)); n != 1 {
		t.Errorf("the one that was accepted: %v", err)
	}
	if _, err := kafka.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close: %v", err)
	}
	if _, err := net.Dial("tcp", h.outer.Addr().String()); err == nil {
		t.Error("the listener is open")
	}
}

// Whoever says nothing has so long.
func TestPatienceEnds(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, 50*time.Millisecond)
	h.Kafka()
	for _, hello := range []string{"", "\x00\x00\x00"} {
		closedByOther(t, h.dial(hello))
	}
	h.becomes("them to leave", func(s Stats) bool { return s.Connections == 0 && s.Refused == 2 })
}

// A connection that only says that it is a node's stays a stranger, which has to make
// room, until the node says that it is one.
func TestTheMagicAloneMakesNoNode(t *testing.T) {
	h := newHall(t, Limits{Connections: 2, PerIP: 100}, 0)
	kafka, peers := h.Kafka(), h.Peers()
	for range 2 {
		h.dial(nodeHello)
		h.accepts(peers, nodeHello)
	}
	h.becomes("the strangers to be counted", func(s Stats) bool { return s.Strangers == 2 })
	time.Sleep(strangerTime) // less would only keep them longer
	h.dial(kafkaHello)
	h.accepts(kafka, kafkaHello)
}

// On probation a client is refused for the number of connections, whatever it says, and a
// node is not.
func TestOnlyNodesAreServedOnProbation(t *testing.T) {
	h := newHall(t, Limits{Connections: 1, PerIP: 100}, time.Hour)
	kafka, peers := h.Kafka(), h.Peers()
	h.dial(kafkaHello)
	h.accepts(kafka, kafkaHello).(interface{ Known() }).Known()
	closedByOther(t, h.dial(kafkaHello))
	closedByOther(t, h.dial("")) // after strangerTime
	h.dial(nodeHello)
	h.accepts(peers, nodeHello)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.said) != 2 || !strings.HasPrefix(h.said[0], "too many connections ") || !strings.HasPrefix(h.said[1], "too many connections ") {
		t.Errorf("said %q", h.said)
	}
}

// countingConn counts the writes that a connection is asked for by its exported methods.
type countingConn struct {
	*tcpConn
	writes int
}

func (c *countingConn) Write(p []byte) (int, error) {
	c.writes++
	return c.tcpConn.Write(p)
}

// Records are written to clients in pieces, by one writev.
func TestBuffersAreWrittenAtOnce(t *testing.T) {
	h := newHall(t, Limits{Connections: 100, PerIP: 100}, 0)
	kafka := h.Kafka()
	other := h.dial(kafkaHello)
	conn, ok := h.accepts(kafka, kafkaHello).(*tcpConn)
	if !ok {
		t.Skip("this system cannot look at a connection's first bytes and leave them there")
	}
	if _, ok := net.Conn(conn).(syscall.Conn); !ok {
		t.Error("it does not say that it is a socket")
	}
	counting := &countingConn{tcpConn: conn}
	pieces := net.Buffers{[]byte("one "), []byte("two "), []byte("three")}
	if _, err := pieces.WriteTo(counting); err != nil || counting.writes != 0 {
		t.Errorf("%d writes, %v; want none beside writev", counting.writes, err)
	}
	if p := make([]byte, 13); true {
		if _, err := io.ReadFull(other, p); err != nil || string(p) != "one two three" {
			t.Errorf("read %q, %v", p, err)
		}
	}
}

// A deadlineConn notes the deadlines that are set on it.
type deadlineConn struct {
	net.Conn
	deadlines []time.Time
}

func (c *deadlineConn) SetDeadline(t time.Time) error {
	c.deadlines = append(c.deadlines, t)
	return c.Conn.SetDeadline(t)
}

// The first bytes have a deadline, and what follows them has none: it would end each
// client's writes when it is over.
func TestTheDeadlineEndsWithTheFirstBytes(t *testing.T) {
	h := newHall(t, Limits{}, time.Hour)
	client, served := net.Pipe()
	defer client.Close()
	go io.WriteString(client, "\x00\x00\x00\x20")
	conn := &deadlineConn{Conn: served}
	c, err := h.sniff(conn, time.Hour)
	if err != nil || c.who != callerKafka {
		t.Fatalf("who calls: %v, %v", c.who, err)
	}
	if n := len(conn.deadlines); n != 2 || conn.deadlines[0].IsZero() || !conn.deadlines[1].IsZero() {
		t.Errorf("deadlines %v; want one, and then none", conn.deadlines)
	}
}

// A doomedConn fails when its deadline is taken off, as one does that was closed a moment
// ago.
type doomedConn struct{ net.Conn }

func (c doomedConn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		return net.ErrClosed
	}
	return c.Conn.SetDeadline(t)
}

// A node on probation may be closed for the next just when it has said who it is: it is
// counted, as all are that are closed for their number.
func TestWhoIsExpelledWhileItSpeaksIsCounted(t *testing.T) {
	h := newHall(t, Limits{}, time.Hour)
	h.Peers()
	client, served := net.Pipe()
	defer client.Close()
	go io.WriteString(client, nodeHello)
	conn := doomedConn{served}
	h.sort(conn, h.quotas.admit(conn))
	if s := h.quotas.Stats(); s.Refused != 1 || s.Connections != 0 {
		t.Errorf("%+v; want one refused", s)
	}
}

// A queueListener has connections that wait to be accepted, all of which have left.
type queueListener struct {
	waiting int
	emptied chan struct{} // closed when the last one was accepted
	closed  chan struct{}
}

func (l *queueListener) Accept() (net.Conn, error) {
	if l.waiting == 0 {
		close(l.emptied)
		<-l.closed
		return nil, net.ErrClosed
	}
	l.waiting--
	client, served := net.Pipe()
	client.Close()
	return served, nil
}

func (l *queueListener) Close() error   { close(l.closed); return nil }
func (l *queueListener) Addr() net.Addr { return &net.TCPAddr{} }

// A flood is accepted at its pace: what is beyond a burst waits in the listener's queue.
func TestAFloodWaitsInTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const beyond = 500
		l := &queueListener{waiting: acceptBurst + beyond, emptied: make(chan struct{}), closed: make(chan struct{})}
		began := time.Now()
		m := New(l, Config{Quotas: &Quotas{Broker: &hall{limits: Limits{Connections: 1 << 20, PerIP: 1 << 20}}}})
		<-l.emptied
		if took := time.Since(began); took < (beyond-1)*acceptEvery || took > (beyond+1)*acceptEvery {
			t.Errorf("%d connections beyond a burst were accepted in %v, want one in %v", beyond, took, acceptEvery)
		}
		m.Close()
	})
}

// What comes as a part is closed is left to be closed: the part's owner has no use for it.
func TestAClosedPartAcceptsNothing(t *testing.T) {
	client, served := net.Pipe()
	defer client.Close()
	p := &part{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	p.conns <- served
	p.Close()
	for range 100 { // Go's select would choose either way
		if conn, err := p.Accept(); conn != nil || !errors.Is(err, net.ErrClosed) {
			t.Fatalf("accepted %v, %v", conn, err)
		}
	}
}

// Who asks for a page and does not read it has the connection for some seconds.
func TestAnHTTPClientThatDoesNotReadIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Mux{cfg: Config{Quotas: &Quotas{Broker: new(hall)}}}
		client, served := net.Pipe()
		defer client.Close()
		began := time.Now()
		defer time.AfterFunc(time.Hour, func() { client.Close() }).Stop() // should it be forgotten
		m.refuseHTTP(served, served)
		if took := time.Since(began); took != 5*time.Second {
			t.Errorf("it had the connection for %v", took)
		}
	})
}

// Who goes on sending is listened to for as much as a request may have, and no more.
func TestAnHTTPClientThatSendsWithoutEndIsLeft(t *testing.T) {
	m := &Mux{cfg: Config{Quotas: &Quotas{Broker: new(hall)}}}
	client, served := net.Pipe()
	go io.Copy(io.Discard, client)
	sent := make(chan int)
	go func() {
		n, _ := client.Write(make([]byte, 10<<20))
		sent <- n
	}()
	m.refuseHTTP(served, served)
	served.Close()
	if n := <-sent; n != 64<<10 {
		t.Errorf("%d bytes were taken", n)
	}
}

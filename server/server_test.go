package server

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
)

// A testBroker is one node with its server, for tests that speak to it over TCP.
type testBroker struct {
	t      testing.TB
	node   *replication.Node
	server *Server
	addr   string

	listeners []string // addresses of all its listeners, in a cluster

	peers   *switchboard // of a cluster
	stopped bool
}

// startBroker founds a cluster of one in a temporary folder. settings are the
// node's own, as from its configuration file.
func startBroker(t testing.TB, settings map[string]string) *testBroker {
	t.Helper()
	return startBrokerWith(t, settings, nil)
}

func startBrokerWith(t testing.TB, settings map[string]string, change func(*Server)) *testBroker {
	t.Helper()
	return startBrokerIn(t, t.TempDir(), settings, change)
}

// startBrokerIn starts a node on a folder, in which it may have lived before.
func startBrokerIn(t testing.TB, dir string, settings map[string]string, change func(*Server)) *testBroker {
	t.Helper()
	b := serveBroker(t, dir, settings, change)
	b.start()
	return b
}

// start starts the node of a broker that is served.
func (b *testBroker) start() {
	b.t.Helper()
	if err := b.node.Start(testContext(b.t)); err != nil {
		b.t.Fatal(err)
	}
}

// serveBroker is startBrokerIn without the start of the node: connections are served
// before it knows anything.
func serveBroker(t testing.TB, dir string, settings map[string]string, change func(*Server)) *testBroker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	node, err := replication.Open(replication.Config{
		DataDir: dir, Advertise: l.Addr().String(), Settings: settings, Logger: logger,
	})
	if err != nil {
		t.Fatal(err)
	}
	b := &testBroker{t: t, node: node, addr: l.Addr().String()}
	b.server = &Server{Node: node, DataDir: dir, Logger: logger}
	if change != nil {
		change(b.server)
	}
	m := b.server.Mux(l)
	peers := m.Peers()
	clients := m.Kafka()
	served := make(chan error, 2)
	go func() { served <- b.server.Serve(clients) }()
	go func() { served <- node.Serve(peers) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := b.server.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if err := node.Shutdown(ctx); err != nil {
			t.Errorf("node shutdown: %v", err)
		}
		for range cap(served) {
			if err := <-served; err != ErrClosed && err != nil {
				t.Errorf("Serve returned %v", err)
			}
		}
		if n := b.server.Stats().Panics; n != 0 {
			t.Errorf("%d panics", n)
		}
	})
	return b
}

// testWriter sends a server's diagnostics to the test's log, as long as the
// test runs.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// client returns a franz-go client of the broker.
func (b *testBroker) client(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.addr), kgo.MetadataMinAge(10 * time.Millisecond)}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	return cl
}

// create makes a topic and returns its id.
func (b *testBroker) create(topic string, partitions int32, config map[string]string) kadm.TopicID {
	b.t.Helper()
	adm := kadm.NewClient(b.client())
	values := map[string]*string{}
	for k, v := range config {
		values[k] = &v
	}
	r, err := adm.CreateTopic(testContext(b.t), partitions, 1, values, topic)
	if err != nil {
		b.t.Fatalf("create %s: %v %s", topic, err, r.ErrMessage)
	}
	return r.ID
}

// A wire is a bare connection for requests no client library sends.
type wire struct {
	t    testing.TB
	conn net.Conn
	next int32
}

func (b *testBroker) dial() *wire {
	b.t.Helper()
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	return &wire{t: b.t, conn: conn}
}

// send writes a request in its version and returns its correlation id.
func (w *wire) send(req kmsg.Request) int32 {
	w.t.Helper()
	w.next++
	w.write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, w.next))
	return w.next
}

func (w *wire) write(p []byte) {
	w.t.Helper()
	if _, err := w.conn.Write(p); err != nil {
		w.t.Fatalf("write: %v", err)
	}
}

// read reads one response frame: correlation id and what follows.
func (w *wire) read() (int32, []byte) {
	w.t.Helper()
	id, body, err := readResponse(w.conn)
	if err != nil {
		w.t.Fatalf("read: %v", err)
	}
	return id, body
}

func readResponse(r io.Reader) (int32, []byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return 0, nil, err
	}
	p := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, nil, err
	}
	if len(p) < 4 {
		return 0, nil, fmt.Errorf("a response of %d bytes", len(p))
	}
	return int32(binary.BigEndian.Uint32(p)), p[4:], nil
}

// receive reads the response to req, which must be the next.
func (w *wire) receive(req kmsg.Request, id int32) kmsg.Response {
	w.t.Helper()
	got, body := w.read()
	if got != id {
		w.t.Fatalf("response %d, want %d", got, id)
	}
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if resp.IsFlexible() && req.Key() != int16(kmsg.ApiVersions) {
		if body[0] != 0 {
			w.t.Fatalf("response header has %d tagged fields", body[0])
		}
		body = body[1:]
	}
	if err := resp.ReadFrom(body); err != nil {
		w.t.Fatalf("%s version %d: %v", kmsg.Key(req.Key()).Name(), req.GetVersion(), err)
	}
	// kmsg takes no notice of bytes that are too many; Kafka's clients do.
	if again := resp.AppendTo(nil); len(again) != len(body) {
		w.t.Fatalf("%s version %d: %d bytes, of which %d are the response", kmsg.Key(req.Key()).Name(), req.GetVersion(), len(body), len(again))
	}
	return resp
}

// ask sends a request and reads its response.
func ask[R kmsg.Response](w *wire, req kmsg.Request) R {
	w.t.Helper()
	id := w.send(req)
	return w.receive(req, id).(R)
}

// closed tells that the server closes the connection without an answer.
func (w *wire) closed() {
	w.t.Helper()
	w.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := w.conn.Read(make([]byte, 1)); n > 0 || isTimeout(err) {
		w.t.Fatalf("read %d bytes, %v; want a closed connection", n, err)
	}
}

// leaves ends the client's side, as one does that is told to, and tells that the server ends
// its own.
func (w *wire) leaves() {
	w.t.Helper()
	if err := w.conn.(*net.TCPConn).CloseWrite(); err != nil {
		w.t.Fatal(err)
	}
	w.closed()
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

func TestClientsProduceAndConsumeInOrder(t *testing.T) {
	b := startBroker(t, nil)
	b.create("orders", 3, nil)
	cl := b.client(kgo.DefaultProduceTopic("orders"), kgo.ConsumeTopics("orders"))
	const n = 1000
	ctx := testContext(t)
	for i := range n {
		cl.Produce(ctx, &kgo.Record{Key: []byte{byte(i % 7)}, Value: fmt.Appendf(nil, "%d", i)}, func(r *kgo.Record, err error) {
			if err != nil {
				t.Errorf("produce %s: %v", r.Value, err)
			}
		})
	}
	if err := cl.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	got := 0
	last := map[byte]int{}
	for got < n {
		f := cl.PollFetches(ctx)
		if err := f.Err0(); err != nil {
			t.Fatal(err)
		}
		f.EachError(func(topic string, p int32, err error) { t.Fatalf("%s-%d: %v", topic, p, err) })
		f.EachRecord(func(r *kgo.Record) {
			var i int
			fmt.Sscan(string(r.Value), &i)
			if before, ok := last[r.Key[0]]; ok && i <= before {
				t.Errorf("key %d: %d after %d", r.Key[0], i, before)
			}
			last[r.Key[0]] = i
			got++
		})
	}
}

// pipeEnd is a connection to nowhere, for handlers that ask where they are.
type pipeEnd struct{ net.Conn }

func (pipeEnd) LocalAddr() net.Addr {
	return &net.TCPAddr{IP: net.IPv4(10, 1, 2, 3), Port: 9092}
}

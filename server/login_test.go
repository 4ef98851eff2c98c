package server

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	franz "github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"millrace/security/sasl"
	"millrace/server/protocol"
)

// impatient is a node that tells at once that a log-in failed.
var impatient = map[string]string{"connection.failed.authentication.delay.ms": "0"}

// user gives a user a password, through whoever the options of a client say.
func (b *testBroker) user(name, password string, options ...kgo.Opt) {
	b.t.Helper()
	cl := b.client(options...)
	defer cl.Close()
	var upserts []kadm.UpsertSCRAM
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		upserts = append(upserts, kadm.UpsertSCRAM{User: name, Mechanism: m, Iterations: 4096, Password: password})
	}
	for _, one := range upserts { // Kafka takes one at a time
		answers, err := kadm.NewClient(cl).AlterUserSCRAMs(testContext(b.t), nil, []kadm.UpsertSCRAM{one})
		if err != nil {
			b.t.Fatal(err)
		}
		if err := answers.Error(); err != nil {
			b.t.Fatal(err)
		}
		if len(options) == 0 {
			options = []kgo.Opt{kgo.SASL(scram.Auth{User: name, Pass: password}.AsSha256Mechanism())}
			cl.Close()
			cl = b.client(options...)
		}
	}
}

// as returns what a franz-go client logs in by.
func as(m sasl.Mechanism, name, password string) kgo.Opt {
	var mechanism franz.Mechanism
	switch m {
	case sasl.Plain:
		mechanism = plain.Auth{User: name, Pass: password}.AsMechanism()
	case sasl.SCRAMSHA256:
		mechanism = scram.Auth{User: name, Pass: password}.AsSha256Mechanism()
	case sasl.SCRAMSHA512:
		mechanism = scram.Auth{User: name, Pass: password}.AsSha512Mechanism()
	}
	return kgo.SASL(mechanism)
}

// passwords are the mechanisms that have one.
var passwords = []sasl.Mechanism{sasl.Plain, sasl.SCRAMSHA256, sasl.SCRAMSHA512}

// A cluster is open until it has a user; from then on who asks has to say who it is, and
// whoever was there before is closed.
func TestTheFirstUserClosesTheDoor(t *testing.T) {
	b := startBroker(t, impatient)
	before := b.dial()
	if got := ask[*kmsg.MetadataResponse](before, metadataRequest(9)); len(got.Brokers) != 1 {
		t.Fatalf("%+v", got)
	}
	b.user("alice", "sesame")
	before.send(metadataRequest(9))
	before.closed()
	after := b.dial()
	if got := ask[*kmsg.ApiVersionsResponse](after, kmsg.NewPtrApiVersionsRequest()); got.ErrorCode != 0 {
		t.Errorf("ApiVersions: %+v", got)
	}
	after.send(metadataRequest(9))
	after.closed()

	for _, m := range passwords {
		cl := b.client(as(m, "alice", "sesame"))
		if err := cl.Ping(testContext(t)); err != nil {
			t.Errorf("%s: %v", m, err)
		}
		if _, err := kadm.NewClient(cl).CreateTopic(testContext(t), 1, 1, nil, "of-"+strings.ToLower(string(m))); err != nil {
			t.Errorf("%s: the first user, who is a super user, creates a topic: %v", m, err)
		}
		cl.Close()
		for _, wrong := range []kgo.Opt{as(m, "alice", "Sesame"), as(m, "nobody", "sesame")} {
			cl := b.client(wrong)
			if err := cl.Ping(testContext(t)); !isKafka(err, kerr.SaslAuthenticationFailed) {
				t.Errorf("%s with wrong credentials: %v", m, err)
			}
			cl.Close()
		}
	}

	// A second user may log in, and nothing else before somebody lets it.
	b.user("bob", "lamp", as(sasl.SCRAMSHA512, "alice", "sesame"))
	cl := b.client(as(sasl.SCRAMSHA512, "bob", "lamp"))
	defer cl.Close()
	answers, err := kadm.NewClient(cl).CreateTopics(testContext(t), 1, 1, nil, "bobs")
	if err != nil || !isKafka(answers["bobs"].Err, kerr.ClusterAuthorizationFailed, kerr.TopicAuthorizationFailed) {
		t.Errorf("bob creates a topic: %v, %v", answers["bobs"].Err, err)
	}
}

func isKafka(err error, any ...error) bool {
	return slices.ContainsFunc(any, func(want error) bool { return err != nil && strings.Contains(err.Error(), want.(*kerr.Error).Message) })
}

// handshake sends one, and expects it to be taken.
func (w *wire) handshake(version int16, mechanism sasl.Mechanism) {
	w.t.Helper()
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.SetVersion(version)
	req.Mechanism = string(mechanism)
	if got := ask[*kmsg.SASLHandshakeResponse](w, req); got.ErrorCode != 0 || !slices.Contains(got.SupportedMechanisms, string(mechanism)) {
		w.t.Fatalf("SaslHandshake: %+v", got)
	}
}

func (w *wire) authenticate(version int16, message string) *kmsg.SASLAuthenticateResponse {
	w.t.Helper()
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.SetVersion(version)
	req.SASLAuthBytes = []byte(message)
	return ask[*kmsg.SASLAuthenticateResponse](w, req)
}

// Out of order, twice, or with what follows behind it: an answer that says so where there is
// one, and the end.
func TestLoginOutOfOrder(t *testing.T) {
	b := startBroker(t, impatient)
	b.user("alice", "sesame")
	good := "\x00alice\x00sesame"

	t.Run("nothing but a log-in", func(t *testing.T) {
		for _, key := range []kmsg.Key{kmsg.Produce, kmsg.Fetch, kmsg.Metadata, kmsg.CreateTopics, kmsg.FindCoordinator, kmsg.DescribeCluster, kmsg.AlterUserSCRAMCredentials} {
			w := b.dial()
			req := kmsg.RequestForKey(int16(key))
			req.SetVersion(0)
			for _, a := range new(handlers).table() {
				if a.key == key {
					req.SetVersion(a.max)
				}
			}
			w.send(req)
			w.closed()
		}
	})
	t.Run("authenticate without a handshake", func(t *testing.T) {
		w := b.dial()
		if got := w.authenticate(2, good); got.ErrorCode != int16(protocol.IllegalSASLState) {
			t.Errorf("%+v", got)
		}
		w.leaves()
	})
	t.Run("another request within", func(t *testing.T) {
		w := b.dial()
		w.handshake(1, sasl.SCRAMSHA512)
		w.send(metadataRequest(9))
		w.closed()
	})
	t.Run("two handshakes", func(t *testing.T) {
		w := b.dial()
		w.handshake(1, sasl.Plain)
		req := kmsg.NewPtrSASLHandshakeRequest()
		req.SetVersion(1)
		req.Mechanism = "PLAIN"
		w.send(req)
		w.closed()
	})
	t.Run("a mechanism that there is not", func(t *testing.T) {
		for _, name := range []string{"GSSAPI", "plain", "", "OAUTHBEARER", strings.Repeat("x", 30_000)} {
			w := b.dial()
			req := kmsg.NewPtrSASLHandshakeRequest()
			req.SetVersion(1)
			req.Mechanism = name
			got := ask[*kmsg.SASLHandshakeResponse](w, req)
			if got.ErrorCode != int16(protocol.UnsupportedSASLMechanism) || !slices.Equal(got.SupportedMechanisms, []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"}) {
				t.Errorf("%.20s: %+v", name, got)
			}
			w.leaves()
		}
	})
	t.Run("what is pipelined behind a failure is not served", func(t *testing.T) {
		w := b.dial()
		w.handshake(1, sasl.Plain)
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.SetVersion(2)
		req.SASLAuthBytes = []byte("\x00alice\x00wrong")
		id := w.send(req)
		w.send(metadataRequest(9))
		if got := w.receive(req, id).(*kmsg.SASLAuthenticateResponse); got.ErrorCode != int16(protocol.SASLAuthenticationFailed) || str(got.ErrorMessage) != "Authentication failed: Invalid username or password" {
			t.Errorf("%+v", got)
		}
		w.closed()
	})
	t.Run("what is pipelined behind a success is", func(t *testing.T) {
		w := b.dial()
		w.handshake(1, sasl.Plain)
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.SetVersion(2)
		req.SASLAuthBytes = []byte(good)
		id := w.send(req)
		next := metadataRequest(9)
		second := w.send(next)
		if got := w.receive(req, id).(*kmsg.SASLAuthenticateResponse); got.ErrorCode != 0 || got.SessionLifetimeMillis != 0 {
			t.Errorf("%+v", got)
		}
		if got := w.receive(next, second).(*kmsg.MetadataResponse); len(got.Brokers) != 1 {
			t.Errorf("%+v", got)
		}
		if got := w.authenticate(2, good); got.ErrorCode != int16(protocol.IllegalSASLState) {
			t.Errorf("once more without a handshake: %+v", got)
		}
		w.closed()
	})
	t.Run("more than a log-in takes", func(t *testing.T) {
		conn, err := net.Dial("tcp", b.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		frame := binary.BigEndian.AppendUint32(nil, maxLoginBytes+1)
		conn.Write(append(frame, 0, 36, 0, 2, 0, 0, 0, 1))
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
	t.Run("without requests around it", func(t *testing.T) {
		for message, let := range map[string]bool{good: true, "\x00alice\x00wrong": false} {
			w := b.dial()
			w.handshake(0, sasl.Plain)
			w.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
			if !let {
				w.closed()
				continue
			}
			var answer [4]byte
			if _, err := io.ReadFull(w.conn, answer[:]); err != nil || answer != [4]byte{} {
				t.Fatalf("%v, %v", answer, err)
			}
			if got := ask[*kmsg.MetadataResponse](w, metadataRequest(9)); len(got.Brokers) != 1 {
				t.Errorf("%+v", got)
			}
		}
	})
}

// An expectant reader sends a byte at a time, and keeps how much there was room for.
type expectant struct{ left, room int }

// Read implements io.Reader.
func (e *expectant) Read(b []byte) (int, error) {
	e.room = max(e.room, len(b))
	if e.left == 0 {
		return 0, io.ErrUnexpectedEOF
	}
	e.left--
	return copy(b, "x"), nil
}

// What a client says that it will send to log in takes no memory before it comes.
func TestMessagesOfALoginTakeMemoryAsTheyCome(t *testing.T) {
	e := &expectant{left: 100}
	if p, err := readSlowly(e, maxLoginBytes); err == nil || len(p) != 100 || e.room > 1024 {
		t.Errorf("%d bytes and %v, with room for %d", len(p), err, e.room)
	}
	if p, err := readSlowly(strings.NewReader("message, and more"), 7); err != nil || string(p) != "message" {
		t.Errorf("%q, %v", p, err)
	}
}

// A watched connection tells how it was ended: by both directions at once, or one before.
type watched struct {
	*net.TCPConn
	ended chan string
}

func (w watched) CloseWrite() error {
	w.ended <- "one direction"
	return w.TCPConn.CloseWrite()
}

func (w watched) Close() error {
	w.ended <- "both"
	return w.TCPConn.Close()
}

// A watching listener accepts watched connections.
type watching struct {
	net.Listener
	ended chan string
}

func (w watching) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return watched{conn.(*net.TCPConn), w.ended}, nil
}

// Who is told that its log-in failed ends the connection itself: a client that reads an answer
// and the end at once may drop the answer. Who is not told has nothing else to go by.
func TestWhoIsToldOfAFailedLoginIsLetEnd(t *testing.T) {
	b := startBroker(t, impatient)
	b.user("alice", "sesame")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan string, 10)
	go b.server.Serve(watching{l, ended})
	t.Cleanup(func() { l.Close() })
	b.addr = l.Addr().String()

	w := b.dial()
	w.handshake(1, sasl.Plain)
	if got := w.authenticate(2, "\x00alice\x00wrong"); got.ErrorCode != int16(protocol.SASLAuthenticationFailed) {
		t.Errorf("%+v", got)
	}
	w.conn.Close()
	if how := <-ended; how != "both" {
		t.Errorf("told by an answer, and first ended: %s", how)
	}

	w = b.dial()
	w.handshake(0, sasl.Plain)
	message := "\x00alice\x00wrong"
	w.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...))
	w.closed()
	if how := <-ended; how != "one direction" {
		t.Errorf("told by nothing, and first ended: %s", how)
	}
}

// A log-in that ends has to be made again in time, by the same mechanism, as the same
// principal (KIP-368).
func TestLoginAgain(t *testing.T) {
	b := startBroker(t, map[string]string{"connection.failed.authentication.delay.ms": "0", "connections.max.reauth.ms": "600000"})
	b.user("alice", "sesame")
	b.user("bob", "lamp", as(sasl.SCRAMSHA512, "alice", "sesame"))
	in := func() *wire {
		w := b.dial()
		w.handshake(1, sasl.Plain)
		if got := w.authenticate(2, "\x00alice\x00sesame"); got.ErrorCode != 0 || got.SessionLifetimeMillis < 1 || got.SessionLifetimeMillis > 600_000 {
			t.Fatalf("%+v", got)
		}
		return w
	}
	w := in()
	for range 3 {
		w.handshake(1, sasl.Plain)
		if got := w.authenticate(2, "\x00alice\x00sesame"); got.ErrorCode != 0 {
			t.Fatalf("%+v", got)
		}
		if got := ask[*kmsg.MetadataResponse](w, metadataRequest(9)); len(got.Brokers) != 1 {
			t.Errorf("%+v", got)
		}
	}
	w.handshake(1, sasl.Plain)
	if got := w.authenticate(2, "\x00bob\x00lamp"); got.ErrorCode != int16(protocol.SASLAuthenticationFailed) || !strings.Contains(str(got.ErrorMessage), "Cannot change principals") {
		t.Errorf("as another: %+v", got)
	}
	w.leaves()
	w = in()
	w.handshake(1, sasl.SCRAMSHA512)
	if got := w.authenticate(2, "n,,n=alice,r=x"); got.ErrorCode != int16(protocol.SASLAuthenticationFailed) {
		t.Errorf("by another mechanism: %+v", got)
	}
	w.leaves()

	// One that has ended is good for logging in again, and for nothing else.
	b = startBroker(t, map[string]string{"connections.max.reauth.ms": "1"})
	b.user("alice", "sesame")
	for range 2 {
		w = b.dial()
		w.handshake(1, sasl.Plain)
		if got := w.authenticate(2, "\x00alice\x00sesame"); got.SessionLifetimeMillis != 1 {
			t.Fatalf("%+v", got)
		}
		time.Sleep(2 * time.Millisecond)
		w.handshake(1, sasl.Plain)
		if got := w.authenticate(2, "\x00alice\x00sesame"); got.ErrorCode != 0 {
			t.Fatalf("%+v", got)
		}
		time.Sleep(2 * time.Millisecond)
		w.send(metadataRequest(9))
		w.closed()
	}
}

// What tools ask and change of users, with Kafka's errors.
func TestAlterUsers(t *testing.T) {
	b := startGuarded(t)
	w := b.dial()
	upsert := func(name string, mechanism int8, iterations int32, salted int) kmsg.AlterUserSCRAMCredentialsRequestUpsertion {
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism, u.Iterations, u.Salt, u.SaltedPassword = name, mechanism, iterations, []byte("salt"), make([]byte, salted)
		return u
	}
	remove := func(name string, mechanism int8) kmsg.AlterUserSCRAMCredentialsRequestDeletion {
		d := kmsg.NewAlterUserSCRAMCredentialsRequestDeletion()
		d.Name, d.Mechanism = name, mechanism
		return d
	}
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{remove("gone", 1), remove("", 1), remove("odd", 9), remove("twice", 1)}
	req.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		upsert("a", 1, 4096, 32), upsert("a", 2, 16384, 64), upsert("few", 1, 4095, 32), upsert("many", 2, 1<<31-1, 64), upsert("short", 2, 4096, 32),
		upsert("twice", 1, 4096, 32), upsert("b", 2, 8192, 64), upsert("ANONYMOUS", 2, 4096, 64),
	}
	got := map[string]int16{}
	for _, r := range ask[*kmsg.AlterUserSCRAMCredentialsResponse](w, req).Results {
		got[r.User] = r.ErrorCode
	}
	want := map[string]int16{"gone": 91, "": 93, "odd": 33, "twice": 92, "a": 0, "few": 93, "many": 93, "short": 93, "b": 0, "ANONYMOUS": 93}
	for name, code := range want {
		if got[name] != code {
			t.Errorf("%q: error %d, want %d", name, got[name], code)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%v", got)
	}
}

// Log-ins wait for each other rather than for those who produce, and who waits leaves with
// its connection.
// What costs a processor waits for its turn, and nothing else.
func TestWhatWaitsForItsTurn(t *testing.T) {
	for _, test := range []struct {
		mechanism sasl.Mechanism
		message   string
		waits     bool
	}{
		{sasl.Plain, "\x00alice\x00sesame", true}, {sasl.SCRAMSHA256, "n,,n=alice,r=x", false}, {sasl.SCRAMSHA512, "c=biws,r=x,p=AAAA", false},
		{sasl.SCRAMSHA256, "n,,n=id,r=x,tokenauth=true", true}, {sasl.SCRAMSHA512, "n,,n=id,r=x,e=f,tokenauth=TRUE", true}, {sasl.SCRAMSHA512, "n,,n=id,r=x,tokenauth=false", false},
		{sasl.OAuthBearer, "n,,n=id,r=x,tokenauth=true", false},
	} {
		if got := costly(test.mechanism, []byte(test.message)); got != test.waits {
			t.Errorf("%s, %q: %v", test.mechanism, test.message, got)
		}
	}
}

func TestTurnstile(t *testing.T) {
	s := newTurnstile(1)
	if err := s.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.enter(ctx); err == nil {
		t.Error("two came in")
	}
	s.leave()
	if err := s.enter(t.Context()); err != nil {
		t.Error(err)
	}
}

// Who has shown a certificate, and then logs in with a password, is whom the password says: it
// is the first log-in of the connection, and no other one.
func TestPasswordAfterCertificate(t *testing.T) {
	b := startBroker(t, impatient)
	b.user("alice", "sesame")
	c := b.as("User:CN=laptop")
	handshake := kmsg.NewPtrSASLHandshakeRequest()
	handshake.Version, handshake.Mechanism = 1, "PLAIN"
	if got := ask[*kmsg.SASLHandshakeResponse](c, handshake); got.ErrorCode != 0 {
		t.Fatalf("handshake: %+v", got)
	}
	login := kmsg.NewPtrSASLAuthenticateRequest()
	login.Version, login.SASLAuthBytes = 2, []byte("\x00alice\x00sesame")
	got := ask[*kmsg.SASLAuthenticateResponse](c, login)
	if got.ErrorCode != 0 {
		t.Fatalf("error %d, %s", got.ErrorCode, *got.ErrorMessage)
	}
	if got := ask[*kmsg.MetadataResponse](c, metadataRequest(9)); len(got.Brokers) != 1 {
		t.Errorf("%+v", got)
	}
}

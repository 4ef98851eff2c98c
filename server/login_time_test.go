package server

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/security/sasl"
	"millrace/server/protocol"
)

// makeUser makes a user without a client, so that no log-in is under way. It has a password
// for the given mechanisms.
func (b *testBroker) makeUser(name, password string, mechanisms ...metadata.Mechanism) {
	b.t.Helper()
	u := metadata.User{Name: name}
	for _, m := range mechanisms {
		v := sasl.NewVerifier(sasl.Mechanism(m.String()), []byte(password), sasl.DefaultIterations)
		u.Credentials = append(u.Credentials, metadata.Credential{Mechanism: m, Iterations: int32(v.Iterations), Salt: v.Salt, StoredKey: v.StoredKey, ServerKey: v.ServerKey})
	}
	if err := b.node.Change(testContext(b.t), metadata.AlterUsers{Upsert: []metadata.User{u}}); err != nil {
		b.t.Fatal(err)
	}
}

// A name that nobody has is looked for by the same work as one that somebody has, so that no
// clock tells them apart: what is allocated on the way tells the work.
func TestUnknownUsersAreTheSameWork(t *testing.T) {
	b := startBroker(t, nil)
	b.makeUser("alice", "sesame", metadata.ScramSHA256, metadata.ScramSHA512)
	all := users{&b.server.broker}
	for _, m := range passwords {
		known, is := all.Verifier("alice", m)
		unknown, not := all.Verifier("nobo1", m)
		if !is || not || known.Mechanism != unknown.Mechanism || known.Iterations != unknown.Iterations || len(known.Salt) != len(unknown.Salt) || len(known.StoredKey) != len(unknown.StoredKey) {
			t.Errorf("%s: %v: %d iterations, a salt of %d bytes; of nobody %v: %d and %d", m, is, known.Iterations, len(known.Salt), not, unknown.Iterations, len(unknown.Salt))
		}
		if again, _ := all.Verifier("nobo1", m); !bytes.Equal(again.Salt, unknown.Salt) {
			t.Errorf("%s: nobody's salt is another each time", m)
		}
		if other, _ := all.Verifier("nobo2", m); bytes.Equal(other.Salt, unknown.Salt) {
			t.Errorf("%s: all that are not there have the same salt", m)
		}
		work := func(name string) float64 { return testing.AllocsPerRun(1000, func() { all.Verifier(name, m) }) }
		// The node allocates a little besides; to make a verifier up is three quarters of it all.
		if of, nobodys := work("alice"), work("nobo1"); of < nobodys*3/4 || nobodys < of*3/4 {
			t.Errorf("%s: %v allocations for who is there, %v for who is not", m, of, nobodys)
		}
	}
}

// Who asks for the salt of a name before and after the cluster has another authority learns
// nothing of whether somebody has it.
func TestAnotherAuthorityChangesNoSalt(t *testing.T) {
	b := startBroker(t, nil)
	b.makeUser("alice", "sesame", metadata.ScramSHA256, metadata.ScramSHA512)
	all := users{&b.server.broker}
	before, _ := all.Verifier("nobo1", sasl.SCRAMSHA256)
	was := b.node.Image().Authorities()
	if err := b.node.Change(testContext(t), metadata.SetAuthorities{Authorities: []metadata.Authority{{Certificate: was[0].Certificate, Key: strings.Replace(was[0].Key, "M", "N", 1)}}}); err != nil {
		t.Fatal(err)
	}
	if after, _ := all.Verifier("nobo1", sasl.SCRAMSHA256); !bytes.Equal(before.Salt, after.Salt) {
		t.Errorf("nobody's salt was %x, and is %x with another authority", before.Salt, after.Salt)
	}
}

// A user who is deleted is one no more on connections that are open either; another password
// leaves them.
func TestADeletedUserIsNobody(t *testing.T) {
	b := startBroker(t, impatient)
	for _, name := range []string{"admin", "alice", "bob"} {
		b.makeUser(name, "sesame", metadata.ScramSHA512)
	}
	in := make(map[string]*wire)
	for _, name := range []string{"alice", "bob"} {
		w := b.dial()
		w.handshake(1, sasl.Plain)
		if got := w.authenticate(2, "\x00"+name+"\x00sesame"); got.ErrorCode != 0 {
			t.Fatalf("%+v", got)
		}
		in[name] = w
	}
	if err := b.node.Change(testContext(t), metadata.AlterUsers{Delete: []string{"alice"}}); err != nil {
		t.Fatal(err)
	}
	b.makeUser("bob", "another", metadata.ScramSHA512)
	in["alice"].send(metadataRequest(9))
	in["alice"].closed()
	if got := ask[*kmsg.MetadataResponse](in["bob"], metadataRequest(9)); len(got.Brokers) != 1 {
		t.Errorf("%+v", got)
	}
}

// Whoever does not log in is closed in time, whatever else it asks meanwhile.
func TestALoginHasToComeInTime(t *testing.T) {
	b := startBrokerWith(t, nil, func(s *Server) { s.StallTimeout = time.Second })
	b.makeUser("alice", "sesame", metadata.ScramSHA512)
	w := b.dial()
	began := time.Now()
	for {
		if time.Since(began) > 30*time.Second {
			t.Fatal("it is still there")
		}
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, kmsg.NewPtrApiVersionsRequest(), 1)
		if _, err := w.conn.Write(frame); err != nil {
			break
		}
		w.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := w.conn.Read(make([]byte, 64<<10)); err != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) find(what string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, what) {
			return line
		}
	}
	return ""
}

// A log-in that fails is a line that says by what, as whom and from where, and no secret.
func TestFailedLoginsAreTold(t *testing.T) {
	for _, test := range []struct {
		mechanism sasl.Mechanism
		version   int16
		message   string
		user      string
	}{
		{sasl.Plain, 1, "\x00al\nice\x00opensesame", `user="al\nice"`},
		{sasl.Plain, 0, "\x00" + strings.Repeat("x", 2000) + "\x00opensesame", "user=" + strings.Repeat("x", 64) + "…"},
		{sasl.Plain, 1, "alice\x00opensesame", `user=""`},
	} {
		var log lines
		b := startBrokerWith(t, impatient, func(s *Server) { s.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
		b.makeUser("alice", "sesame", metadata.ScramSHA512)
		w := b.dial()
		w.handshake(test.version, test.mechanism)
		if test.version == 0 {
			w.write(append([]byte{0, 0, byte(len(test.message) >> 8), byte(len(test.message))}, test.message...))
		} else if got := w.authenticate(2, test.message); got.ErrorCode != int16(protocol.SASLAuthenticationFailed) {
			t.Errorf("%+v", got)
		}
		w.leaves()
		line := log.find("a log-in failed")
		if !strings.Contains(line, test.user+" ") || !strings.Contains(line, "mechanism=PLAIN") || !strings.Contains(line, w.conn.LocalAddr().String()) {
			t.Errorf("%.20q: it says %s; want %s", test.message, line, test.user)
		}
		if leak := log.find("opensesame"); leak != "" {
			t.Errorf("it says %s", leak)
		}
		if more := log.find("connection refused"); more != "" {
			t.Errorf("it says besides: %s", more)
		}
	}
}

// Passwords are checked some at a time. Log-ins in which there is none to check do not wait
// for them.
func TestOnlyPasswordsWaitForTheirTurn(t *testing.T) {
	b := startBroker(t, impatient)
	b.makeUser("alice", "sesame", metadata.ScramSHA512)
	for range cap(b.server.shared.logins) {
		if err := b.server.shared.logins.enter(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer b.server.shared.logins.leave()
	}
	cl := b.client(as(sasl.SCRAMSHA512, "alice", "sesame"))
	defer cl.Close()
	if err := cl.Ping(testContext(t)); err != nil {
		t.Errorf("SCRAM: %v", err)
	}
}

// An unknown user and a wrong password take as long, over real connections: medians of
// $MILLRACE_LOGINS tries each, in turn, and as often the one first as the other. There are as
// many names of each kind, so that no name's place in memory decides. It is a measurement,
// which other work on the machine spoils, and not run unless it is asked for.
func TestUnknownUsersTakeAsLong(t *testing.T) {
	tries, err := strconv.Atoi(os.Getenv("MILLRACE_LOGINS"))
	if err != nil {
		t.Skip("set MILLRACE_LOGINS to how many tries")
	}
	b := startBroker(t, impatient)
	const names = 20
	for i := range names {
		b.makeUser(fmt.Sprintf("alice%02d", i), "sesame", metadata.ScramSHA256, metadata.ScramSHA512)
	}
	for _, m := range passwords {
		var known, unknown []time.Duration
		for i := range tries {
			one := func() { known = append(known, timeRefusal(t, b, m, fmt.Sprintf("alice%02d", i/2%names))) }
			other := func() { unknown = append(unknown, timeRefusal(t, b, m, fmt.Sprintf("nobdy%02d", i/2%names))) }
			if i%2 == 1 {
				one, other = other, one
			}
			one()
			other()
		}
		slices.Sort(known)
		slices.Sort(unknown)
		wrong, nobody := known[tries/2], unknown[tries/2]
		t.Logf("%s: a wrong password %v, an unknown user %v, medians of %d: %+.2f %%", m, wrong, nobody, tries, 100*(float64(nobody)/float64(wrong)-1))
		if d := (wrong - nobody).Abs(); d > wrong/50 {
			t.Errorf("%s: they differ by more than 2 %%", m)
		}
	}
}

// timeRefusal returns how long a client waits for answers to messages that do not log it in.
func timeRefusal(t *testing.T, b *testBroker, m sasl.Mechanism, name string) time.Duration {
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	w := &wire{t: t, conn: conn}
	w.handshake(1, m)
	if m == sasl.Plain {
		began := time.Now()
		got := w.authenticate(2, "\x00"+name+"\x00wrong")
		took := time.Since(began)
		if str(got.ErrorMessage) != "Authentication failed: Invalid username or password" {
			t.Fatalf("%+v", got)
		}
		return took
	}
	proof := base64.StdEncoding.EncodeToString(make([]byte, 32))
	if m == sasl.SCRAMSHA512 {
		proof = base64.StdEncoding.EncodeToString(make([]byte, 64))
	}
	began := time.Now()
	first := w.authenticate(2, "n,,n="+name+",r=nonce")
	nonce, _, _ := strings.Cut(strings.TrimPrefix(string(first.SASLAuthBytes), "r="), ",")
	got := w.authenticate(2, "c=biws,r="+nonce+",p="+proof)
	took := time.Since(began)
	if first.ErrorCode != 0 || got.ErrorCode != int16(protocol.SASLAuthenticationFailed) || !strings.HasPrefix(str(got.ErrorMessage), "Authentication failed during authentication due to invalid credentials") {
		t.Fatalf("%+v, %+v", first, got)
	}
	return took
}

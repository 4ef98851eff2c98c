package cli

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace"
	"millrace/brokertest"
	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/testdata/ports"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A patient doctor asks as long as a test may last, so that a slow machine is never taken
// for a fault; the names it knows are these.
func patient(names map[string][]string) *doctor {
	return &doctor{patience: time.Minute, shown: decent{}, names: hosts(names)}
}

// hosts are the names that a patient doctor knows.
type hosts map[string][]string

func (h hosts) LookupHost(_ context.Context, host string) ([]string, error) {
	if ips := h[host]; ips != nil {
		return ips, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
}

// decent sees to what every finding has: a check that its column has room for, and a change
// behind what failed.
type decent struct{}

func (decent) write(f finding) {
	if len(f.Check) > checkWidth || f.Verdict == failed && f.Change == "" {
		panic(fmt.Sprintf("%+v", f))
	}
}

// found returns the findings of one check.
func (d *doctor) found(check string) (all []finding) {
	for _, f := range d.findings {
		if f.Check == check {
			all = append(all, f)
		}
	}
	return all
}

// wants fails a test unless a check has one finding, with a verdict and words of what was
// found and of what to change.
func (d *doctor) wants(t *testing.T, check, verdict, found, change string) {
	t.Helper()
	all := d.found(check)
	if len(all) != 1 || all[0].Verdict != verdict || !strings.Contains(all[0].Subject+": "+all[0].Found, found) || !strings.Contains(all[0].Change, change) {
		t.Errorf("%s: %+v, want one that says %s, %q, %q", check, all, verdict, found, change)
	}
}

func TestDoctorFindsNothingWrongWithAClusterThatServes(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "cluster", "health", "--wait", "30s")
	dir := t.TempDir()
	r := c.Do("", "doctor", "--data-dir", dir, "-o", "json")
	var findings []finding
	if err := json.Unmarshal([]byte(r.Stdout), &findings); err != nil {
		t.Fatalf("%v: %s", err, r.Stdout)
	}
	of := make(map[string]int)
	for _, f := range findings {
		of[f.Check]++
		// How full this machine's disks are, and how slow, and what it allows a process.
		its := []string{"disk", "room", "inodes", "file system", "fsync", "limits", "descriptors", "mappings"}
		if f.Verdict != fine && !(f.Verdict == worrying && slices.Contains(its, f.Check)) {
			t.Errorf("%+v", f)
		}
	}
	for check, n := range map[string]int{
		"connect": 3, "protocol": 3, "cluster": 1, "advertised": 3, "version": 1, "clock": 1, "health": 1, "disk": 3,
		"folder": 1, "fsync": 1,
	} {
		if of[check] != n {
			t.Errorf("%d lines of %s, want %d", of[check], check, n)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	// A line each in a pipe; on a terminal they end where it does.
	piped := c.Do("", "doctor").Stdout
	if !strings.Contains(piped, "ok    clock        broker 1, broker 2, broker 3: within ") || strings.Contains(piped, "\n ") {
		t.Errorf("in a pipe:\n%s", piped)
	}
	for line := range strings.Lines(onTerminal(t, c.Addresses(), 60, "", "doctor")) {
		if n := term.CellWidth(strings.TrimSuffix(line, "\n")); n > 60 && len(strings.Fields(line)) > 1 { // a path alone is not broken
			t.Errorf("a line is %d wide: %s", n, line)
		}
	}
}

// The statuses, and that a folder alone is looked at without brokers.
func TestDoctorEndsAsItFound(t *testing.T) {
	closed := closedPort(t)
	for line, want := range map[string]struct {
		status         int
		stdout, stderr string
	}{
		"doctor -b " + closed: {term.StatusFailed, "fail  connect      " + closed + ": refused, nothing listens there; start a broker with `millrace serve`", ""},
		"doctor me":           {term.StatusUsage, "", "millrace: doctor takes no arguments"},
		"doctor --data-dir " + filepath.Join(t.TempDir(), "a", "b"): {term.StatusDone, ": serve will make it; ", ""},
	} {
		r := clitest.Run(t, nil, "", strings.Fields(line)...)
		if r.Status != want.status || !strings.Contains(r.Stdout, want.stdout) || !strings.HasPrefix(r.Stderr, want.stderr) {
			t.Errorf("millrace %s: status %d\n%s%s", line, r.Status, r.Stdout, r.Stderr)
		}
	}
}

// What has the form of no address is not looked for as a name.
func TestWhatIsNoAddressIsRefused(t *testing.T) {
	for list, want := range map[string]string{
		":::9": "", "::g": "", "1:2:3": "", "[::1]:9:9": "",
		"::1": "[::1]:9092", "[::1]": "[::1]:9092", "[fe80::1%lo]:9": "[fe80::1%lo]:9", "host": "host:9092", "127.0.0.1:9": "127.0.0.1:9",
	} {
		got, err := kafka.ParseBrokers("--brokers", list)
		if want == "" && (term.StatusOf(err) != term.StatusUsage || !strings.Contains(err.Error(), "no HOST:PORT")) || want != "" && (err != nil || got[0] != want) {
			t.Errorf("%s: %q, %v, want %q", list, got, err, want)
		}
	}
}

// closedPort is an address at which nothing listens but what the test starts there.
func closedPort(t *testing.T) string {
	t.Helper()
	return ports.Hold(t, 1)[0]
}

// accepting accepts connections until the test ends, and hands each to serve.
func accepting(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // the acceptor: ends with the listener
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// saying answers whatever comes first with a text.
func saying(text string) func(net.Conn) {
	return func(conn net.Conn) {
		if _, err := conn.Read(make([]byte, 1024)); err == nil {
			io.WriteString(conn, text)
		}
	}
}

func TestDoctorNamesWhatAnswersInsteadOfABroker(t *testing.T) {
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // it complains of whoever does not speak TLS
	secure.StartTLS()
	defer secure.Close()
	for name, c := range map[string]struct{ address, found, change string }{
		"HTTP":     {accepting(t, saying("HTTP/1.1 400 Bad Request\r\n\r\n")), "an HTTP server answers", "name the address of a broker"},
		"HTTPS":    {secure.Listener.Addr().String(), "TLS answers, with a certificate for example.com", "say --tls-ca FILE"},
		"an alert": {accepting(t, saying("\x15\x03\x01\x00\x02\x02\x0a")), "TLS answers", "name the address"},
		"AMQP":     {accepting(t, saying("AMQP\x00\x00\x09\x01")), "an AMQP server answers, such as RabbitMQ", "name the address"},
		"SSH":      {accepting(t, saying("SSH-2.0-OpenSSH_9.2\r\n")), "an SSH server answers", "name the address"},
		"words":    {accepting(t, saying("+OK ready\r\n")), `something else than Kafka answers "+OK ready\r\n"`, "ss -ltnp"},
		"nobody":   {accepting(t, func(net.Conn) {}), "it closes the connection at the first request", "a listener for nodes does so"},
		"a controller": {scriptedBroker(t, func(req kmsg.Request) kmsg.Response {
			return apiVersions(req, kmsg.ApiVersions, kmsg.DescribeQuorum)
		}), "a controller answers", "controller.listener.names"},
		"SASL": {scriptedBroker(t, func(req kmsg.Request) kmsg.Response {
			if r, ok := req.(*kmsg.SASLHandshakeRequest); ok {
				resp := r.ResponseKind().(*kmsg.SASLHandshakeResponse)
				resp.ErrorCode, resp.SupportedMechanisms = 33, []string{"SCRAM-SHA-256", "PLAIN"}
				return resp
			}
			return apiVersions(req, kmsg.ApiVersions, kmsg.Metadata, kmsg.SASLHandshake)
		}), "it wants a client to log in first, by SASL SCRAM-SHA-256, PLAIN", "say --user NAME and --password-file FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			d := patient(nil)
			d.examineBrokers(t.Context(), []string{c.address})
			d.wants(t, "protocol", failed, c.address+": "+c.found, c.change)
		})
	}
	// Who says nothing is waited for as long as patience lasts, however long that is.
	d := patient(nil)
	d.patience = 500 * time.Millisecond // time enough for the connection
	d.examineBrokers(t.Context(), []string{accepting(t, func(conn net.Conn) { io.Copy(io.Discard, conn) })})
	d.wants(t, "protocol", failed, "says nothing for 0.5 s", "paused")
	// An HTTP server that waits for the end of a line tells itself by its answer to a question of its own.
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if address := plain.Listener.Addr().String(); !patient(nil).speaksHTTP(t.Context(), address) {
		t.Error("an HTTP server does not speak HTTP")
	}
}

// Who names another server's port is told that no broker is there, and who says what is.
func TestWhatIsNoBrokerIsSentToTheDoctor(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		address, want string
		patience      time.Duration
	}{
		"AMQP":   {accepting(t, saying("AMQP\x00\x00\x09\x01")), kafka.NoBroker + "; `millrace doctor -b %s` says what it is", time.Minute},
		"HTTP":   {accepting(t, saying("HTTP/1.1 400 Bad Request\r\n\r\n")), kafka.NoBroker + "; `millrace doctor -b %s` says what it is", time.Minute},
		"binary": {accepting(t, saying("\xff\x00\x00\x00\x00")), kafka.NoBroker + "; `millrace doctor -b %s` says what it is", time.Minute},
		// An HTTP server that waits for the end of a line is silent.
		"silence": {accepting(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }), kafka.NoAnswer + "; it hangs, or is no Kafka broker: `millrace doctor -b %s` says more", time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), c.patience)
			defer cancel()
			want := "cannot reach a broker at " + c.address + ": " + fmt.Sprintf(c.want, c.address)
			if client, err := kafka.DialBrokers(ctx, []string{c.address}); err == nil {
				client.Close()
				t.Error("it is taken for a broker")
			} else if err.Error() != want {
				t.Errorf("%v\nwant %s", err, want)
			}
			if _, err := readCluster(ctx, []string{c.address}); err == nil || !strings.HasPrefix(err.Error(), "cannot reach a broker at "+c.address) {
				t.Errorf("the state of its cluster: %v", err)
			}
		})
	}
}

// Whatever answers, the doctor is done soon, takes little memory, and no terminal does what
// the answer says.
func TestDoctorIsNotHarmedByWhatAnswers(t *testing.T) {
	metadata := func(change func(*kmsg.MetadataResponse)) string {
		return scriptedBroker(t, func(req kmsg.Request) kmsg.Response {
			r, ok := req.(*kmsg.MetadataRequest)
			if !ok {
				return apiVersions(req, kmsg.ApiVersions, kmsg.Metadata)
			}
			resp := r.ResponseKind().(*kmsg.MetadataResponse)
			change(resp)
			return resp
		})
	}
	raw := func(answer string) string { // after the length and the number
		return accepting(t, func(conn net.Conn) {
			io.ReadFull(conn, make([]byte, 12))
			conn.Write(binary.BigEndian.AppendUint32(nil, uint32(4+len(answer))))
			io.WriteString(conn, "\x00\x00\x00\x01"+answer)
			io.Copy(io.Discard, conn)
		})
	}
	d := patient(nil)
	d.examineBrokers(t.Context(), []string{metadata(func(r *kmsg.MetadataResponse) {
		r.Brokers = make([]kmsg.MetadataResponseBroker, maxTold+1)
	})})
	d.wants(t, "protocol", failed, "it tells of 2,001 brokers, which no cluster has", "")
	d = patient(nil)
	d.examineBrokers(t.Context(), []string{metadata(func(r *kmsg.MetadataResponse) {
		r.ClusterID = kmsg.StringPtr("\x1b]0;title\a")
	})})
	d.wants(t, "cluster", fine, `: \x1b]0;title\a`, "")
	d = patient(nil)
	d.examineBrokers(t.Context(), []string{raw("\x00\x00\x7f\xff\xff\xff")})
	d.wants(t, "protocol", failed, "gives an answer that cannot be read", "")
	d = patient(nil)
	d.patience = time.Second
	d.examineBrokers(t.Context(), []string{accepting(t, func(conn net.Conn) {
		io.WriteString(conn, "\x03\x00\x00\x00\x00\x00\x00\x01"+strings.Repeat("\x00", 100))
		io.Copy(io.Discard, conn)
	})})
	d.wants(t, "protocol", failed, "something else than Kafka answers", "")
	// A hundred million tagged fields in a few bytes, which take four seconds to read.
	ours, theirs := net.Pipe()
	defer ours.Close()
	go func() {
		theirs.Read(make([]byte, 1000))
		io.WriteString(theirs, "\x00\x00\x00\x09\x00\x00\x00\x01\xff\xff\xff\x3f\x00")
		io.Copy(io.Discard, theirs)
	}()
	began := time.Now()
	_, err := (&talk{conn: ours, patience: 500 * time.Millisecond}).ask(kmsg.NewPtrDescribeClusterRequest(), 0)
	if !errors.Is(err, errUnreadable) || time.Since(began) > 3*time.Second {
		t.Errorf("in %v: %v", time.Since(began), err)
	}
}

func TestDoctorTellsNamesThatLead(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	_, port, _ := net.SplitHostPort(c.Addresses()[0])
	d := patient(nil)
	d.examineBrokers(t.Context(), []string{"nobody:" + port})
	d.wants(t, "name", failed, "nobody: no such host", "/etc/hosts")
	// A name whose first address is not the one that the broker listens at.
	d = patient(map[string][]string{"localhost": {"127.0.0.2", "127.0.0.1"}})
	d.examineBrokers(t.Context(), []string{"localhost:" + port})
	d.wants(t, "name", fine, "localhost: 127.0.0.2, 127.0.0.1", "")
	d.wants(t, "connect", worrying, "localhost is 127.0.0.2 first, where it is refused, nothing listens there, and then 127.0.0.1", "give clients 127.0.0.1:"+port)
	d.wants(t, "advertised", fine, "broker 1: 127.0.0.1:"+port, "")
}

// A broker that sends its clients to where they do not find it is told which of its
// settings does so, and the value that would not.
func TestDoctorFollowsWhatClientsAreTold(t *testing.T) {
	t.Parallel()
	other := clitest.StartCluster(t, 1).Addresses()[0]
	for name, c := range map[string]struct {
		names             map[string][]string
		advertised, found string
	}{
		"a name nobody knows":       {nil, "kafka:9092", "clients are told kafka:9092, which does not resolve here: no such host"},
		"a port that is not mapped": {nil, closedPort(t), "refused, nothing listens there"},
		"this machine's own broker": {nil, other, "where a broker of another cluster answers"},
		"an HTTP server":            {nil, accepting(t, saying("HTTP/1.1 400 Bad Request\r\n\r\n")), "where no broker is: an HTTP server answers"},
		"a name of somebody else":   {map[string][]string{"kafka": {"127.0.0.2"}}, "kafka:" + portOf(closedPort(t)), "refused, nothing listens there"},
	} {
		t.Run(name, func(t *testing.T) {
			address := closedPort(t)
			cmd := clitest.Command(t, nil, "serve", "--ephemeral", "--listen", address, "--advertise", c.advertised, "--ready-file", "ready")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cmd.Process.Signal(syscall.SIGTERM)
			await(t, func() bool { _, err := os.Stat(filepath.Join(cmd.Dir, "ready")); return err == nil })
			d := patient(c.names)
			d.examineBrokers(t.Context(), []string{address})
			d.wants(t, "advertised", failed, c.found, "set advertised.listeners=PLAINTEXT://"+address+" on broker 1 (--advertise "+address+")")
		})
	}
}

func portOf(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return port
}

// await waits for what is to come.
func await(t *testing.T, come func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !come(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
	}
}

// visitAll goes to several addresses and judges nothing.
func (d *doctor) visitAll(ctx context.Context, addresses []string) []*visit {
	all := make([]*visit, len(addresses))
	var gone sync.WaitGroup
	for i, address := range addresses {
		gone.Go(func() { all[i] = d.visit(ctx, address) })
	}
	gone.Wait()
	return all
}

// Two brokers that tell clients the same address, as a copied compose file has them: one
// of them answers there.
func TestDoctorMissesTheBrokerBehindAnAddress(t *testing.T) {
	var first, second string
	var cluster scriptedCluster
	first = scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(1, req) })
	second = scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(2, req) })
	cluster = scriptedCluster{1: first, 2: first}
	d := patient(nil)
	d.examineAdvertised(t.Context(), d.visitAll(t.Context(), []string{first, second}))
	all := d.found("advertised")
	if len(all) != 2 || all[0].Verdict != fine || all[1].Verdict != failed || all[1].Subject != "broker 2" ||
		all[1].Found != "clients are told "+first+", where broker 1 answers" ||
		!strings.Contains(all[1].Change, "set advertised.listeners=INSIDE://kafka2:9093,OUTSIDE://"+second+" on broker 2") {
		t.Errorf("%+v", all)
	}
}

func TestDoctorTellsClustersApart(t *testing.T) {
	t.Parallel()
	one, two := clitest.StartBroker(t).Addresses()[0], clitest.StartBroker(t).Addresses()[0]
	d := patient(nil)
	d.examineBrokers(t.Context(), []string{one, two})
	d.wants(t, "cluster", failed, "-b names 2 clusters: ", "name the brokers of one cluster")
	if f := d.found("cluster")[0]; !strings.Contains(f.Found, " at "+one+"; ") || !strings.HasSuffix(f.Found, " at "+two) {
		t.Errorf("%+v", f)
	}
	// Each has a broker 1.
	d.wants(t, "clock", fine, "broker 1 at "+min(one, two)+", broker 1 at "+max(one, two)+": within ", "")
	for _, check := range []string{"advertised", "version", "health", "disk"} {
		all := d.found(check)
		if len(all) != 2 || all[0].Subject == all[1].Subject || len(all[0].Subject) < 20 {
			t.Errorf("%s: %+v, want one for each cluster", check, all)
		}
	}
}

// A broker whose clock is not this machine's tells it. The broker is one of ours, in this
// process: a process of its own would have this machine's clock.
func TestDoctorComparesClocks(t *testing.T) {
	for _, c := range []struct {
		ahead          time.Duration
		verdict, found string
	}{
		{0, fine, ": broker 1: within "},
		{time.Hour / 2, worrying, "ahead of this machine's"},
		{-time.Hour / 2, worrying, "behind this machine's"},
		{10 * time.Hour / 3, failed, "broker 1: its clock is 3 h ahead of this machine's"},
	} {
		broker := brokertest.Start(t, func(cfg *millrace.Config) {
			cfg.Clock, cfg.Software = &wrongClock{ahead: c.ahead}, "millrace 9"
		})
		d := patient(nil)
		v := d.visit(t.Context(), broker.Addr())
		if off := (v.clock.ahead - c.ahead).Abs(); !v.clock.known || off > v.clock.slack+time.Millisecond {
			t.Errorf("%v ahead: %+v", c.ahead, v.clock)
		}
		d.judgeClocks([]*visit{v})
		d.wants(t, "clock", c.verdict, c.found, "")
		d.judgeVersions([]*visit{v})
		d.wants(t, "version", fine, "millrace 9", "")
	}
}

// A wrongClock goes well, and was set wrong.
type wrongClock struct {
	brokertest.Clock
	ahead time.Duration
}

func (c *wrongClock) Now() time.Time { return c.Clock.Now().Add(c.ahead) }

// Of Kafka's brokers the leader of the controllers tells its time, whoever is asked.
func TestDoctorReadsTheClockOfKafkasController(t *testing.T) {
	cluster := scriptedCluster{1: "", 2: ""}
	address := scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(1, req) })
	d := patient(nil)
	v := d.visit(t.Context(), address)
	d.judgeClocks([]*visit{v})
	d.wants(t, "clock", worrying, "controller 2: its clock is 10 min behind this machine's", "chrony")
}

// Nodes that run different versions are told apart by what they say of themselves, others by
// what they serve.
func TestDoctorTellsVersionsApart(t *testing.T) {
	of := func(node int32, software string, produce int16) *visit {
		return &visit{node: node, software: software, apis: map[int16]int16{0: produce}}
	}
	d := patient(nil)
	d.judgeVersions([]*visit{of(1, "millrace 1", 11), of(2, "millrace 2", 11), of(3, "millrace 1", 11)})
	d.wants(t, "version", worrying, "broker 1, broker 3: millrace 1; broker 2: millrace 2", "finish the upgrade")
	d = patient(nil)
	d.judgeVersions([]*visit{of(1, "", 12), of(2, "", 12), of(3, "", 13)})
	d.wants(t, "version", worrying, "the APIs differ between broker 1, broker 2 and broker 3", "finish the upgrade")
	d = patient(nil)
	d.judgeVersions([]*visit{of(1, "", 12), of(2, "", 12)})
	d.wants(t, "version", fine, "all serve the same versions", "")
}

func TestDoctorExaminesAFolder(t *testing.T) {
	t.Parallel()
	d := patient(nil)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	d.examineFolder(file)
	d.wants(t, "folder", failed, file+": "+file+" is a file", "name a folder")
	d = patient(nil)
	d.examineFolder(filepath.Join(file, "below"))
	d.wants(t, "folder", failed, file+" is a file", "name a folder")
	among := t.TempDir()
	if err := os.Mkdir(filepath.Join(among, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	d = patient(nil)
	d.examineFolder(among)
	d.wants(t, "folder", failed, among+": it holds src", "an empty one")
	if os.Geteuid() != 0 { // whom nothing keeps out
		shut := filepath.Join(t.TempDir(), "shut")
		if err := os.Mkdir(shut, 0); err != nil {
			t.Fatal(err)
		}
		d = patient(nil)
		d.examineFolder(filepath.Join(shut, "new", "node"))
		d.wants(t, "folder", failed, shut+" cannot be entered: permission denied", "let the user that runs the broker enter it")
		d = patient(nil)
		d.examineFolder(shut)
		d.wants(t, "folder", failed, shut+": it cannot be read: permission denied", "let the user that runs the broker read and write there")
	}
	c := clitest.StartCluster(t, 1)
	d = patient(nil)
	d.examineFolder(c.All[0].Data)
	d.wants(t, "folder", fine, "a node's", "")
	d = patient(nil)
	d.examineFolder(filepath.Dir(c.All[0].Data))
	d.wants(t, "folder", fine, "1 node of `millrace up`", "")
}

// A scriptedBroker answers requests as it is told, with nil by closing the connection: for
// what no broker of ours does.
func scriptedBroker(t *testing.T, answer func(kmsg.Request) kmsg.Response) (address string) {
	return accepting(t, func(conn net.Conn) {
		for {
			var length [4]byte
			if _, err := io.ReadFull(conn, length[:]); err != nil {
				return
			}
			frame := make([]byte, binary.BigEndian.Uint32(length[:]))
			if _, err := io.ReadFull(conn, frame); err != nil {
				return
			}
			r := kbin.Reader{Src: frame}
			req := kmsg.RequestForKey(r.Int16())
			req.SetVersion(r.Int16())
			correlation := r.Int32()
			r.NullableString()
			if req.IsFlexible() {
				kmsg.SkipTags(&r)
			}
			if err := errors.Join(r.Complete(), req.ReadFrom(r.Src)); err != nil {
				t.Errorf("a request is not understood: %v", err)
				return
			}
			resp := answer(req)
			if resp == nil {
				return
			}
			resp.SetVersion(req.GetVersion())
			out := binary.BigEndian.AppendUint32(make([]byte, 4), uint32(correlation))
			if resp.IsFlexible() && resp.Key() != int16(kmsg.ApiVersions) {
				out = append(out, 0)
			}
			out = resp.AppendTo(out)
			binary.BigEndian.PutUint32(out, uint32(len(out)-4))
			if _, err := conn.Write(out); err != nil {
				return
			}
		}
	})
}

// apiVersions answers a request for the versions with some APIs, and no other request.
func apiVersions(req kmsg.Request, keys ...kmsg.Key) kmsg.Response {
	r, ok := req.(*kmsg.ApiVersionsRequest)
	if !ok {
		return nil
	}
	resp := r.ResponseKind().(*kmsg.ApiVersionsResponse)
	for _, k := range keys {
		one := kmsg.NewApiVersionsResponseApiKey()
		one.ApiKey, one.MaxVersion = k.Int16(), kmsg.RequestForKey(k.Int16()).MaxVersion()
		resp.ApiKeys = append(resp.ApiKeys, one)
	}
	return resp
}

// A scriptedCluster is brokers and the address clients are told for each. It says of
// itself what Kafka's says; its controllers' leader is 2, whose clock is ten minutes behind.
type scriptedCluster map[int32]string

func (s scriptedCluster) answer(node int32, req kmsg.Request) kmsg.Response {
	switch req := req.(type) {
	case *kmsg.MetadataRequest:
		resp := req.ResponseKind().(*kmsg.MetadataResponse)
		resp.ClusterID = kmsg.StringPtr("scripted")
		for id, address := range s {
			b := kmsg.NewMetadataResponseBroker()
			b.NodeID, b.Host = id, "127.0.0.1"
			port, _ := strconv.Atoi(portOf(address))
			b.Port = int32(port)
			resp.Brokers = append(resp.Brokers, b)
		}
		return resp
	case *kmsg.DescribeConfigsRequest:
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for _, r := range req.Resources {
			one := kmsg.NewDescribeConfigsResponseResource()
			one.ResourceType, one.ResourceName = r.ResourceType, r.ResourceName
			if r.ResourceName == strconv.Itoa(int(node)) {
				c := kmsg.NewDescribeConfigsResponseResourceConfig()
				c.Name = "advertised.listeners"
				c.Value = kmsg.StringPtr(fmt.Sprintf("INSIDE://kafka%d:9093,OUTSIDE://%s", node, s[node]))
				one.Configs = append(one.Configs, c)
			} else {
				one.ErrorCode = 42
			}
			resp.Resources = append(resp.Resources, one)
		}
		return resp
	case *kmsg.DescribeQuorumRequest:
		resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
		voter := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		voter.ReplicaID, voter.LastCaughtUpTimestamp = 2, time.Now().Add(-10*time.Minute-5*time.Second).UnixMilli()
		topic := kmsg.NewDescribeQuorumResponseTopic()
		topic.Topic = "__cluster_metadata"
		topic.Partitions = []kmsg.DescribeQuorumResponseTopicPartition{{LeaderID: 2, CurrentVoters: []kmsg.DescribeQuorumResponseTopicPartitionReplicaState{voter}}}
		resp.Topics = append(resp.Topics, topic)
		return resp
	}
	return apiVersions(req, kmsg.ApiVersions, kmsg.Metadata, kmsg.DescribeConfigs, kmsg.DescribeQuorum)
}

// Of three brokers one answers; what is wrong with the others is not their settings.
func TestDoctorSaysThatABrokerIsDown(t *testing.T) {
	var cluster scriptedCluster
	first := scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(1, req) })
	cluster = scriptedCluster{1: first, 2: closedPort(t), 3: closedPort(t)}
	port := func(node int32) string { return portOf(cluster[node]) }
	for name, c := range map[string]struct {
		named        []string
		told, change string
	}{
		"named":          {[]string{first, cluster[2], cluster[3]}, ", says 1 of 3 addresses; no broker answers at the rest", "start broker 3; if it runs, set its advertised.listeners to the address it listens on"},
		"named by names": {[]string{"localhost:" + port(1), "localhost:" + port(2), "localhost:" + port(3)}, ", says 1 of 3 addresses", "start broker 3; if it runs"},
		"not named":      {[]string{first}, "scripted", "start broker 3, if it is down; else set advertised.listeners of broker 3 to the HOST:PORT by which"},
	} {
		t.Run(name, func(t *testing.T) {
			d := patient(map[string][]string{"localhost": {"127.0.0.1"}})
			d.examineBrokers(t.Context(), c.named)
			d.wants(t, "cluster", fine, c.told, "")
			all := d.found("advertised")
			if len(all) != 3 || all[0].Verdict != fine || all[1].Verdict != failed || all[2].Verdict != failed ||
				all[2].Found != "clients are told "+cluster[3]+", which is refused, nothing listens there" || !strings.HasPrefix(all[2].Change, c.change) {
				t.Errorf("%+v", all)
			}
		})
	}
}

// Somebody who says nothing may be the broker, which hangs, or a stranger.
func TestDoctorKnowsNobodyWhoIsSilent(t *testing.T) {
	a := advertisement{told: told{node: 2, address: "127.0.0.1:9093"}}
	mute := &visit{address: a.address, host: "127.0.0.1", node: -1, doors: []door{{ip: "127.0.0.1"}}, stranger: "it says nothing", remedy: hangs}
	want := hangs + "; if that is not broker 2, set advertised.listeners of broker 2 to the HOST:PORT by which this machine reaches it"
	if got := advertise(a, mute, []*visit{{address: "127.0.0.1:9092", node: 1}}); !strings.HasPrefix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	// Where it was named, it has been checked there, and naming it again leads nowhere.
	want = hangs + "; if that is not broker 2, set its advertised.listeners to the address it listens on"
	if got := advertise(a, mute, []*visit{{address: "127.0.0.1:9092", node: 1}, mute}); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	d := patient(nil)
	d.judgeAdvertised(a, mute, []*visit{{host: "127.0.0.1"}}, nil)
	d.wants(t, "advertised", failed, "broker 2: clients are told 127.0.0.1:9093, which takes the connection and says nothing for 60 s", "paused")
}

// Who answers at another address than the cluster has of it is not to be started.
func TestDoctorBringsBackOnlyWhoIsAway(t *testing.T) {
	s := &clusterState{Brokers: []brokerItem{{Node: 1}, {Node: 2}, {Node: 3, Up: true}, {Node: 4}, {Node: 5, stranger: "another"}}}
	got := strings.Join(s.remedies([]*visit{{node: 2}, {node: 3}}), "; ")
	if want := "bring back broker 1, broker 4; correct the address of broker 2, as advertised says"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// saidTo takes findings to a channel.
type saidTo chan finding

func (s saidTo) write(f finding) { s <- f }

// What is found of one broker is said while another is still waited for, and in the end all
// is told in the order in which the brokers were named.
func TestDoctorSaysAtOnceWhatItFinds(t *testing.T) {
	var cluster scriptedCluster
	answers := scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(1, req) })
	cluster = scriptedCluster{1: answers}
	released := make(chan struct{})
	late := accepting(t, func(conn net.Conn) { <-released })
	d := patient(nil)
	said := make(chan finding, 100)
	d.shown = saidTo(said)
	done := make(chan struct{})
	go func() { // ends with the examination, for which the test waits
		defer close(done)
		d.examineNamed(t.Context(), []string{late, answers})
	}()
	want := map[[2]string]bool{{"connect", late}: true, {"connect", answers}: true, {"protocol", answers}: true}
	for len(want) > 0 {
		f := <-said
		if who := [2]string{f.Check, f.Subject}; !want[who] {
			t.Fatalf("too early: %+v", f)
		} else {
			delete(want, who)
		}
	}
	close(released)
	<-done
	if all := d.found("protocol"); len(all) != 2 || all[0].Subject != late || all[1].Subject != answers {
		t.Errorf("not in the order of -b: %+v", all)
	}
}

// All formats of a line each are written as findings come; a list is written whole.
func TestDoctorWritesItsFindings(t *testing.T) {
	for format, want := range map[string]string{
		"table": "fail  file system  ./d: none; make one\n",
		"":      "fail  file system  ./d: none; make one\n",
		"name":  "fail file-system ./d\n",
		"jsonl": `{"verdict":"fail","check":"file system","subject":"./d","found":"none","change":"make one"}` + "\n",
		"json":  "",
		"yaml":  "",
	} {
		var b strings.Builder
		(&findingWriter{w: &b, format: format}).write(finding{failed, "file system", "./d", "none", "make one"})
		if b.String() != want {
			t.Errorf("-o %s: %q, want %q", format, b.String(), want)
		}
	}
	dir := t.TempDir()
	for line, want := range map[string]struct {
		status int
		text   string
	}{
		"-o name":  {term.StatusDone, "ok folder " + dir + "\n"},
		"-o jsonl": {term.StatusDone, `{"verdict":"ok","check":"folder"`},
		"-o json":  {term.StatusDone, "[\n  {\n    \"verdict\": \"ok\",\n    \"check\": \"folder\""},
		"-o csv":   {term.StatusUsage, `millrace: --output "csv"`},
	} {
		r := clitest.Run(t, nil, "", append([]string{"doctor", "--data-dir", dir}, strings.Fields(line)...)...)
		if r.Status != want.status || !strings.HasPrefix(r.Stdout+r.Stderr, want.text) {
			t.Errorf("doctor %s: status %d\n%s%s", line, r.Status, r.Stdout, r.Stderr)
		}
	}
	if r := clitest.Run(t, nil, "", "doctor", "--data-dir", ""); r.Status != term.StatusUsage || !strings.Contains(r.Stderr, "--data-dir is empty") {
		t.Errorf("an empty folder: status %d\n%s%s", r.Status, r.Stdout, r.Stderr)
	}
}

// Room is judged by what a broker needs, too, and not only by how large a part of the disk it is.
func TestDoctorJudgesRoom(t *testing.T) {
	for _, c := range []struct {
		total, free int64
		full        bool
		verdict     string
		found       string
		change      string
	}{
		{60 << 30, 40 << 30, false, fine, "42.9 GB of 64.4 GB free", ""},
		{60 << 30, 5 << 30, false, worrying, "5.37 GB of 64.4 GB free", "retention"},
		{20 << 20, 20 << 20, false, worrying, "21.0 MB of 21.0 MB free", "choose a larger disk: less than 1 GB is little"},
		{60 << 30, 1 << 20, true, failed, "1.05 MB of 64.4 GB free", "make room"},
		{0, 0, false, failed, "0 B of 0 B free", "choose a folder on a disk"},
	} {
		d := patient(nil)
		d.judgeRoom("room", "./d", "", c.total, c.free, c.full)
		if f := d.findings[0]; f.Verdict != c.verdict || f.Found != c.found || !strings.Contains(f.Change, c.change) {
			t.Errorf("%d of %d: %+v", c.free, c.total, f)
		}
	}
}

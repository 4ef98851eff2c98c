package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"millrace/brokertest"
	"millrace/docs"
	"millrace/replication/metadata/settings"
	"millrace/testdata"
	"millrace/testdata/ports"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// These tests run the real program: they build it once, start nodes as processes
// of their own on free ports of 127.0.0.1, and end only those, by their pid.

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	status := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(status)
}

// program builds the program, once, and returns its path.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("runs processes; left out with -short")
	}
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "millrace-test-"); built.err != nil {
			return
		}
		var out []byte
		if out, built.err = exec.Command("go", "build", "-o", filepath.Join(built.dir, "millrace"), "millrace/cli/millrace").CombinedOutput(); built.err != nil {
			built.err = fmt.Errorf("%w: %s", built.err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "millrace")
}

// A running cluster, and the program to talk to it with.
type testCluster struct {
	*nodes
	t   *testing.T
	dir string
}

// startCluster starts n nodes and stops them when the test ends. A failed test
// shows the ends of their logs.
func startCluster(t *testing.T, n int) *testCluster {
	t.Helper()
	exe := program(t)
	c := &testCluster{nodes: newNodes(t.TempDir(), ports.Hold(t, n), false), t: t}
	c.exe, c.dir = exe, filepath.Dir(c.all[0].data)
	t.Cleanup(func() {
		c.stop()
		if t.Failed() {
			for _, n := range c.all {
				t.Logf("node %d, %s, log:\n%s", n.id, n.address, tail(n.log, 15))
			}
		}
	})
	c.start()
	return c
}

// startBroker starts a cluster of one in this process, for tests of commands that neither
// end it nor look for it among the processes.
func startBroker(t *testing.T) *testCluster {
	t.Helper()
	program(t)
	b := brokertest.Start(t)
	return &testCluster{&nodes{all: []*child{{id: 1, address: b.Addr(), data: b.DataDir()}}}, t, filepath.Dir(b.DataDir())}
}

// start starts all nodes that do not run.
func (c *testCluster) start() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), startTimeout)
	defer cancel()
	if err := c.startAll(ctx); err != nil {
		c.t.Fatal(err)
	}
}

// tail returns the last lines of a file.
func tail(name string, n int) string {
	b, err := os.ReadFile(name)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(b), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

// leader returns the node that leads a partition, once one does.
func (c *testCluster) leader(topic string, partition int32) *child {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 30*time.Second)
	defer cancel()
	client, err := dialBrokers(ctx, c.addresses())
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	for ctx.Err() == nil {
		if d, err := describeTopic(ctx, kadm.NewClient(client), topic); err == nil {
			if id := int(d.Partitions[partition].Leader); id >= 1 && id <= len(c.all) && c.all[id-1].running() {
				return c.all[id-1]
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.t.Fatalf("partition %d of topic %s has no leader", partition, topic)
	return nil
}

// killPID ends a process as kill -9 does.
func killPID(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
}

// A result is how one run of the program ended.
type result struct {
	stdout, stderr string
	status         int
}

// command is the program with some arguments, in a folder of its own, talking to
// the cluster if there is one.
func command(t *testing.T, brokers []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "MILLRACE_BROKERS="+strings.Join(brokers, ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	dieWithParent(cmd.SysProcAttr)
	return cmd
}

// runMillrace runs the program to its end.
func runMillrace(t *testing.T, brokers []string, stdin string, args ...string) result {
	t.Helper()
	cmd := command(t, brokers, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// do runs the program and fails the test unless it ends with status 0.
func (c *testCluster) do(stdin string, args ...string) result {
	c.t.Helper()
	r := runMillrace(c.t, c.addresses(), stdin, args...)
	if r.status != StatusDone {
		c.t.Fatalf("millrace %s: status %d: %s", strings.Join(args, " "), r.status, r.stderr)
	}
	return r
}

// mustBeFlights fails unless the topic holds exactly the flights: each line once,
// unchanged, and those of each airport in their order.
func (c *testCluster) mustBeFlights(topic string) {
	c.t.Helper()
	got := c.do("", "consume", topic, "-o", "start", "-e", "--format", "value").stdout
	if lines := strings.Count(got, "\n"); lines != 20_000 {
		c.t.Errorf("topic %s holds %d records, want 20,000", topic, lines)
	}
	if sorted(got) != sorted(testdata.Flights) {
		c.t.Errorf("topic %s does not hold what was produced", topic)
	}
	if byKey(c.t, got) != byKey(c.t, testdata.Flights) {
		c.t.Errorf("topic %s has the flights of an airport in another order", topic)
	}
}

func sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// byKey sorts flights by airport and leaves those of one in their order.
func byKey(t *testing.T, text string) string {
	lines := slices.Collect(strings.Lines(text))
	keys := make(map[string]string, len(lines))
	for _, line := range lines {
		raw, err := field([]byte(line), "origin")
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		keys[line] = string(raw)
	}
	slices.SortStableFunc(lines, func(a, b string) int { return strings.Compare(keys[a], keys[b]) })
	return strings.Join(lines, "")
}

// A production is a produce process fed piece by piece.
type production struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	acks   chan string // lines of its standard output, as many as there may be
	stderr bytes.Buffer
	lines  map[string]int // acknowledgements awaited, each how often
}

func (c *testCluster) produce(args ...string) *production {
	c.t.Helper()
	p := &production{t: c.t, cmd: command(c.t, c.addresses(), append([]string{"produce"}, args...)...), lines: make(map[string]int)}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		c.t.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	// A process whose output nobody reads stops reading its input.
	p.acks = make(chan string, 100_000)
	go func() { // the reader: ends with the process
		defer close(p.acks)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.acks <- lines.Text()
		}
	}()
	return p
}

// feed writes input without waiting for what becomes of it.
func (p *production) feed(input string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, input); err != nil {
		p.t.Fatalf("%v: %s", err, p.stderr.String())
	}
}

// await reads n acknowledgements.
func (p *production) await(n int) {
	p.t.Helper()
	for range n {
		line, ok := <-p.acks
		if !ok {
			p.cmd.Wait()
			p.t.Fatalf("it ended after %d acknowledgements: %s", len(p.lines), p.stderr.String())
		}
		p.lines[line]++
	}
}

// finish ends the input, waits, and fails unless everything was acknowledged,
// each record at a place of its own.
func (p *production) finish(total int) {
	p.t.Helper()
	p.stdin.Close()
	p.await(total - len(p.lines))
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v: %s", err, p.stderr.String())
	}
	if len(p.lines) != total {
		p.t.Errorf("%d records have a place of their own, want %d", len(p.lines), total)
	}
	if want := number(total) + " records, "; !strings.HasPrefix(p.stderr.String(), want) {
		p.t.Errorf("the last line is %q, want one that begins %q", p.stderr.String(), want)
	}
}

// halves cuts the flights in two.
func halves() (first, second string) {
	lines := strings.SplitAfter(testdata.Flights, "\n")
	return strings.Join(lines[:10_000], ""), strings.Join(lines[10_000:], "")
}

func TestConsumePrintsExactlyWhatWasProduced(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		topic := "quakes-" + codec
		c.do("", "topic", "create", topic, "-p1", "-r3")
		r := c.do(testdata.Earthquakes, "produce", topic, "-q", "-z", codec)
		if r.stdout != "" || r.stderr != "" {
			t.Errorf("produce -q -z %s printed %q, %q", codec, r.stdout, r.stderr)
		}
		if got := c.do("", "consume", topic, "-e", "--format", "value").stdout; got != testdata.Earthquakes {
			t.Errorf("-z %s: %d bytes in, %d out, and not the same", codec, len(testdata.Earthquakes), len(got))
		}
	}
	c.do("", "topic", "create", "flights", "-p3", "-r3")
	c.do(testdata.Flights, "produce", "flights", "--key-field", "origin", "-q")
	c.mustBeFlights("flights")

	// A topic copied as JSON is the same records at the same times.
	quakes := c.do("", "produce", "quakes", "--file", dataFile(t, "earthquakes.jsonl"), "-p0", "--key-field", "net", "--timestamp-field", "time", "-H", "unit=ms")
	if n := strings.Count(quakes.stdout, "\n"); n != 1707 || !strings.HasPrefix(quakes.stdout, "quakes/0@0\nquakes/0@1\n") {
		t.Errorf("%d lines, beginning %.30q", n, quakes.stdout)
	}
	before := c.do("", "consume", "quakes", "-e", "--format", "json").stdout
	c.do(before, "produce", "copies", "--jsonl", "-q", "-p0")
	after := c.do("", "consume", "copies", "-e", "--format", "json").stdout
	if after != strings.ReplaceAll(before, `"topic":"quakes"`, `"topic":"copies"`) {
		t.Error("a copy through --format json and --jsonl differs")
	}
}

// dataFile is the path of a data set of the repository.
func dataFile(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConsumeReadsFromAnywhere(t *testing.T) {
	t.Parallel()
	c := startBroker(t)
	c.do("", "topic", "create", "days", "-p1")
	// A record a day, at noon, from the first of March on.
	var lines strings.Builder
	for day := 1; day <= 20; day++ {
		fmt.Fprintf(&lines, `{"day":%d,"at":"2026-03-%02dT12:00:00Z"}`+"\n", day, day)
	}
	c.do("", "topic", "alter", "days", "-c", "retention.ms=-1")
	c.do(lines.String(), "produce", "days", "-q", "--timestamp-field", "at")
	for _, test := range []struct {
		offset      string
		first, last int // days
	}{
		{"start", 1, 20}, {":end", 1, 20}, {"0", 1, 20}, {"5", 6, 20}, {"5:7", 6, 7}, {":3", 1, 3}, {"+18", 19, 20}, {"-3", 18, 20}, {"-100", 1, 20},
		{"@2026-03-05", 5, 20}, {"@2026-03-05T12:00:00Z", 5, 20}, {"@2026-03-05T12:00:00.001Z", 6, 20}, {"@2026-03-05:2026-03-08", 5, 7},
		{"@2026-03-05:48h", 5, 6}, {"@:2026-03-03", 1, 2}, {"@2026-03-19:end", 19, 20}, {"@2027-01-01", 0, 0}, {"end", 0, 0}, {"5:5", 0, 0},
	} {
		var want []string
		for day := test.first; day >= 1 && day <= test.last; day++ {
			want = append(want, fmt.Sprint(day-1))
		}
		got := c.do("", "consume", "days", "-e", "-o", test.offset, "--format", "%o ").stdout
		if strings.TrimSpace(got) != strings.Join(want, " ") {
			t.Errorf("-o %s: offsets %s, want %s", test.offset, got, strings.Join(want, " "))
		}
	}
	if got := c.do("", "consume", "days", "-n", "3", "--format", "%o ").stdout; got != "0 1 2 " {
		t.Errorf("-n 3: %s", got)
	}
	if got := c.do("", "consume", "-r", "^da", "nothing", "-o", ":end", "-n", "2", "--format", "%t/%o ").stdout; got != "days/0 days/1 " {
		t.Errorf("-r: %s", got)
	}
	for _, test := range []struct {
		args   string
		status int
	}{
		{"consume nowhere -e", StatusNotFound},
		{"consume days -e -p 7", StatusNotFound},
		{"produce days -p 7 x", StatusNotFound},
		{"topic describe nowhere", StatusNotFound},
		{"topic delete nowhere --yes", StatusNotFound},
		{"topic trim nowhere -o 1 --yes", StatusNotFound},
		{"topic alter nowhere -c retention.ms=1", StatusNotFound},
		{"topic delete days", StatusUsage},
		{"topic trim days -o 5", StatusUsage},
		{"topic trim days -o 500 --yes", StatusUsage},
		{"topic create days", StatusFailed},
		{"topic create bad/name", StatusFailed},
		{"topic create settings -c no.such.setting=1", StatusFailed},
		{"produce days --file /no/such/file", StatusNotFound},
	} {
		r := runMillrace(t, c.addresses(), "", strings.Fields(test.args)...)
		if r.status != test.status || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("millrace %s: status %d, want %d, %q", test.args, r.status, test.status, r.stderr)
		}
	}
	c.do("", "topic", "trim", "days", "-o", "5", "--dry-run")
	if got := c.do("", "topic", "trim", "days", "-o", "5", "--yes", "--no-headers").stdout; strings.Join(strings.Fields(got), " ") != "0 0 5 5" {
		t.Errorf("trim printed %q", got)
	}
	if got := c.do("", "consume", "days", "-o", "start", "-e", "--format", "%o ").stdout; !strings.HasPrefix(got, "5 6 ") {
		t.Errorf("after the trim: %s", got)
	}
}

func TestConsumeFollowsAndJoinsNewPartitions(t *testing.T) {
	t.Parallel()
	c := startBroker(t)
	c.do("", "topic", "create", "news", "-p1")
	cmd := command(t, c.addresses(), "consume", "news", "--format", "%p:%v\n")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	expect := func(want string) {
		t.Helper()
		if got, err := lines.ReadString('\n'); got != want || err != nil {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	c.do("", "produce", "news", "one")
	expect("0:one\n")
	c.do("", "topic", "alter", "news", "-p", "2")
	c.do("", "produce", "news", "-p1", "two")
	expect("1:two\n")
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C ends following with %v, want status 0", err)
	}
}

func TestProduceOutlivesTheLeader(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.do("", "topic", "create", "flights", "-p3", "-r3")
	first, second := halves()
	p := c.produce("flights", "--key-field", "origin")
	p.feed(first)
	p.await(10_000)
	victim := c.leader("flights", 0)
	cut := len(second) / 10
	cut += strings.IndexByte(second[cut:], '\n') + 1
	p.feed(second[:cut]) // on its way while the leader dies
	c.kill(victim)
	p.feed(second[cut:])
	p.finish(20_000)
	c.mustBeFlights("flights")
}

func TestProduceOutlivesTheWholeCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.do("", "topic", "create", "flights", "-p3", "-r3")
	first, second := halves()
	p := c.produce("flights", "--key-field", "origin")
	p.feed(first)
	p.await(10_000)
	cut := len(second) / 10
	cut += strings.IndexByte(second[cut:], '\n') + 1
	p.feed(second[:cut])
	c.kill(c.all...)
	c.start()
	p.feed(second[cut:])
	p.finish(20_000)
	c.mustBeFlights("flights")
	c.kill(c.all...)
	c.start()
	c.mustBeFlights("flights")
}

// The examples of every client command's help run, in an order in which each
// finds what it needs.
func TestExamplesRun(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	bin := filepath.Dir(program(t))
	dir := t.TempDir()
	if err := os.Symlink(filepath.Dir(dataFile(t, "flights.jsonl")), filepath.Join(dir, "testdata")); err != nil {
		t.Fatal(err)
	}
	ran := make(map[string]bool)
	for _, words := range []string{
		"topic create", "produce", "consume", "group list", "group describe", "group seek", "group delete", "topic list", "topic describe", "topic config", "topic alter", "topic trim", "topic delete",
		"bench produce", "bench consume", "bench e2e", "bench tutorial",
		"cluster status", "cluster health", "cluster metadata", "cluster config list", "doctor", "version", "completion", "man",
	} {
		ran[words] = true
		if words == "cluster status" {
			c.do("", "cluster", "health", "--wait", "30s") // replicas of the newest topics may still open
		}
		for _, example := range examples(helpText(t, strings.Fields(words))) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // one that waits for ever is named
			cmd := exec.CommandContext(ctx, "sh", "-e", "-c", example)
			cmd.WaitDelay = time.Second
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "MILLRACE_BROKERS="+strings.Join(c.addresses(), ","))
			out, err := cmd.CombinedOutput()
			if cancel(); err != nil {
				t.Errorf("$ %s\n%s%v", example, out, err)
			}
		}
	}
	eachCommand(commands(), nil, func(words, _ []string) {
		switch name := strings.Join(words, " "); name {
		case "serve", "up", "demo", "segment dump", "segment verify", "cluster rescue": // they have tests of their own
		default:
			if !ran[name] {
				t.Errorf("the examples of %s are not run", name)
			}
		}
	})
}

// The README's tour, line by line in one shell, with up on other ports and without what
// has tests of its own. Figures beside the commands are what the commands print.
func TestTheTourOfTheReadmeRuns(t *testing.T) {
	t.Parallel()
	readme, err := docs.Read(filepath.Join("..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(filepath.Dir(dataFile(t, "flights.jsonl")), filepath.Join(dir, "testdata")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	base, other := ports.HoldRow(t, 3), ports.HoldRow(t, 3)
	cmd, pids, _ := upProcess(t, filepath.Join(dir, "millrace-data"), "--restart", "--base-port", fmt.Sprint(base))
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}()
	var moved []string
	for i := range 3 {
		moved = append(moved, fmt.Sprint(":", 9092+i), fmt.Sprint(":", base+i), fmt.Sprint(":", 9192+i), fmt.Sprint(":", other+i))
	}
	const begins = "\x1e"
	var lines []string
	var script strings.Builder
	for _, section := range readme.Sections {
		if section.Heading == "Install" || section.Heading == "Connect" {
			continue
		}
		for _, block := range section.Blocks {
			for line := range strings.Lines(block.Code) {
				line = strings.TrimSpace(line)
				first, _, _ := strings.Cut(line, " ")
				_, lacking := exec.LookPath(first)
				switch {
				case block.Language != "sh", first == "go", strings.HasPrefix(line, "millrace up"), first == "kcat" && lacking != nil:
					continue
				case slices.Contains(lines, line) && strings.HasPrefix(line, "millrace produce"):
					fmt.Fprintf(&script, "kill -9 %d\n", pids[1]) // now break something
				case strings.HasPrefix(line, "millrace topic describe events"): // within seconds
					fmt.Fprintf(&script, `until %s -o json | tr -d ' \n' | grep -q '"replicas":\[[0-9],[0-9],[0-9]\]'; do sleep 0.1; done`+"\n", strings.Split(line, " #")[0])
				}
				lines = append(lines, line)
				fmt.Fprintf(&script, "printf '%s'\n%s\n", begins, line)
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // a line that waits for ever is named
	defer cancel()
	run := exec.CommandContext(ctx, "bash", "-e", "-c", strings.NewReplacer(moved...).Replace(script.String()))
	run.Dir = dir
	run.Env = append(os.Environ(), "PATH="+filepath.Dir(program(t))+":"+os.Getenv("PATH"))
	endsWhole(run)
	run.WaitDelay = 10 * time.Second
	out, err := run.CombinedOutput()
	outputs := strings.Split(string(out), begins)[1:]
	if err != nil {
		run.Cancel() // the nodes that it started
		t.Fatalf("$ %s\n%s%v", lines[len(outputs)-1], outputs[len(outputs)-1], err)
	}
	figure := regexp.MustCompile(`# (?:.*; )?([\d,]+)(?:$|,| records are left)`)
	figures := 0
	for i, line := range lines {
		if printed := outputs[i]; strings.HasPrefix(printed, "millrace: ") || strings.Contains(printed, "\nmillrace: ") {
			t.Errorf("$ %s\n%s", line, printed)
		}
		if m := figure.FindStringSubmatch(line); m != nil {
			figures++
			want := strings.ReplaceAll(m[1], ",", "")
			if !regexp.MustCompile(`(?m)^(TOTAL-LAG +)?` + want + `\b`).MatchString(outputs[i]) {
				t.Errorf("$ %s\nprints\n%s", line, outputs[i])
			}
		}
	}
	if len(lines) < 25 || figures < 3 {
		t.Errorf("the README has %d lines to run, with %d figures", len(lines), figures)
	}
}

func TestHealthFollowsTheCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.do("", "topic", "create", "t", "-p3", "-r3")
	if r := runMillrace(t, c.addresses(), "", "topic", "create", "two", "-p1", "-r2"); r.status != StatusDone || !strings.HasPrefix(r.stderr, "millrace: warning: topic two has two replicas: ") {
		t.Errorf("a topic of two replicas: status %d, %q", r.status, r.stderr)
	}
	c.do("", "topic", "delete", "two", "--yes")
	c.do("", "cluster", "health", "--wait", "30s")
	c.kill(c.all[2])
	// A node that is gone is named: at once by its address, and when the others have
	// missed it, with how long that is.
	want := regexp.MustCompile(`^millrace: unhealthy: broker 3 at ` + regexp.QuoteMeta(c.all[2].address) + ` is down, for \d+ s; `)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		r := runMillrace(t, c.addresses()[:2], "", "cluster", "health")
		if r.status != StatusUnhealthy || !strings.HasPrefix(r.stderr, "millrace: unhealthy: ") {
			t.Fatalf("with a node down: status %d, %q", r.status, r.stderr)
		}
		if want.MatchString(r.stderr) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("with a node down for a while: %q, want %v", r.stderr, want)
		}
	}
	r := runMillrace(t, c.addresses()[:2], "", "cluster", "status")
	row := regexp.MustCompile(`(?m)^3 +` + regexp.QuoteMeta(c.all[2].address) + ` +- +0 +3 +down \d+ s *$`)
	if r.status != StatusDone || !row.MatchString(r.stdout) || !strings.Contains(r.stdout, "3 brokers") {
		t.Errorf("status %d, %q, want a row like %v", r.status, r.stdout, row)
	}
	r = runMillrace(t, c.addresses()[:2], "", "topic", "describe", "t", "-o", "json")
	if n := strings.Count(strings.Join(strings.Fields(r.stdout), ""), `"down":[3]`); n != 3 {
		t.Errorf("%d of 3 partitions have a replica down: %s", n, r.stdout)
	}
	// A topic that nobody can lead is there, and is no success.
	client, err := kgo.NewClient(kgo.SeedBrokers(c.addresses()[:2]...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = "unled", -1, -1
	rt.ReplicaAssignment = []kmsg.CreateTopicsRequestTopicReplicaAssignment{{Partition: 0, Replicas: []int32{3}}}
	req.Topics, req.TimeoutMillis = append(req.Topics, rt), 1000
	if resp, err := req.RequestWith(t.Context(), client); err != nil || resp.Topics[0].ErrorCode != 0 {
		t.Fatalf("%+v, %v", resp, err)
	}
	err = awaitLeaders(t.Context(), kadm.NewClient(client), []string{"unled"}, time.Second)
	if want := "created, but 1 of 1 partition has no leader after 1s: unled/0; "; statusOf(err) != StatusFailed || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("a topic without leaders: %v, want %s", err, want)
	}
	c.start()
	c.do("", "cluster", "health", "--wait", "30s")
}

// A node whose disk is full, or that is gone, or whose controller group has no
// leader, is named with what it is.
func TestHealthNamesWhatIsWrongWithANode(t *testing.T) {
	now := time.Now()
	view := func(leader int32, gone ...registered) *brokerView {
		return &brokerView{index: -1, quorum: true, leader: leader, registered: gone}
	}
	s := &clusterState{Controller: 3, Down: []string{"orders/2 on 1"}, Brokers: []brokerItem{
		{Node: 1, Address: "a:1"}, {Node: 2, Address: "b:1", DiskBytes: 64e6, DiskFree: 3e6, dataDir: "/data"}, {Node: 4, Address: "d:1"}, {Node: 5, Address: "e:1"},
		{Node: 6, Address: "f:1"},
	}}
	views := brokerViews{
		1: view(1, registered{node: 4, missed: now.Add(-200 * time.Second)}),
		2: view(1, registered{node: 4, missed: now.Add(-100 * time.Second)}),
		6: {cluster: "other", index: 7, quorum: true, leader: 9}, // what it says does not count
	}
	views[1].cluster = "this"
	s.Brokers[4].stranger = views.dropStrangers("this")[6]
	s.judge(t.Context(), views)
	want := []string{
		"the disk of broker 2 is full: 2929 KiB are left below /data; delete or trim topics, or make room",
		"broker 4 at d:1 is down, for 100 s",
		"broker 5 at e:1 does not answer",
		"broker 6 is away, and a node of another cluster, other, answers at f:1; if its folder was lost, it starts with an empty one, --node-id 6 and --join",
		"1 replica down, since a disk failed, data is damaged or something ran out, as the broker's log says: orders/2 on 1",
	}
	if got := s.troubles(); !slices.Equal(got, want) || s.Controller != 1 || s.Brokers[2].state() != "down 100 s" {
		t.Errorf("controller %d, %q\nwant %q", s.Controller, got, want)
	}
	// All say that the controllers have no leader: that Metadata names a broker is
	// for clients, which want one.
	s = &clusterState{Controller: 3, Brokers: []brokerItem{{Node: 1}}}
	s.judge(t.Context(), brokerViews{1: view(-1)})
	if got := s.troubles(); !slices.Equal(got, []string{"the controllers have no leader"}) {
		t.Errorf("%q", got)
	}
	// A rescue is for a majority that is gone, not for the second in which one is elected.
	for up, want := range []bool{true, true, false, false} {
		s = &clusterState{Controller: -1}
		for i := range 3 {
			s.Brokers = append(s.Brokers, brokerItem{Node: int32(i + 1), Up: i < up})
		}
		if got := strings.Contains(strings.Join(s.troubles(), "; "), "cluster rescue"); got != want {
			t.Errorf("with %d of 3 brokers up a rescue is spoken of: %v", up, got)
		}
	}
}

// A process that hangs takes connections and answers nothing. Named first, it keeps
// nobody from those named after it.
func TestABrokerThatHangsIsPassedBy(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	hanging, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer hanging.Close()
	brokers := []string{hanging.Addr().String(), c.all[0].address}
	if r := runMillrace(t, brokers, "", "cluster", "status"); r.status != StatusDone {
		t.Errorf("status %d, %s", r.status, r.stderr)
	}
	// Health is about every broker that is named.
	want := "millrace: unhealthy: no broker answers at " + brokers[0] + ", which --brokers names\n"
	if r := runMillrace(t, brokers, "", "cluster", "health"); r.status != StatusUnhealthy || r.stderr != want {
		t.Errorf("status %d, %s, want %s", r.status, r.stderr, want)
	}
	for nodes, status := range map[string]int{"1": StatusDone, "2": StatusUnhealthy, "0": StatusUsage} {
		if r := runMillrace(t, brokers[1:], "", "cluster", "health", "--nodes", nodes); r.status != status || nodes == "2" && r.stderr != "millrace: unhealthy: the cluster has 1 broker, and --nodes asks for 2\n" {
			t.Errorf("--nodes %s: status %d, %s", nodes, r.status, r.stderr)
		}
	}
}

// What one broker tells of the cluster is told when the others take connections and say
// nothing, as paused processes do, and who they are.
func TestOneBrokerTellsOfAClusterThatHangs(t *testing.T) {
	t.Parallel()
	hanging := func() string { return accepting(t, func(conn net.Conn) { io.Copy(io.Discard, conn) }) }
	var cluster scriptedCluster
	first := scriptedBroker(t, func(req kmsg.Request) kmsg.Response { return cluster.answer(1, req) })
	cluster = scriptedCluster{1: first, 2: hanging(), 3: hanging()}
	r := runMillrace(t, []string{cluster[2], cluster[3], first}, "", "cluster", "status")
	if r.status != StatusDone {
		t.Errorf("status %d, %s", r.status, r.stderr)
	}
	for _, want := range []string{
		"broker 2 at " + cluster[2] + " does not answer\n",
		"broker 3 at " + cluster[3] + " does not answer\n",
	} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("%q is not said:\n%s", want, r.stdout)
		}
	}
}

// A script that starts three nodes in the background and waits for health finds three:
// whoever has not joined yet is waited for.
func TestHealthWaitsForEveryBrokerItIsToldOf(t *testing.T) {
	t.Parallel()
	program(t)
	for range 5 {
		dir := t.TempDir()
		base := ports.HoldRow(t, 3)
		cmd := command(t, nil, "up", "3", "--data-dir", filepath.Join(dir, "d"), "--base-port", fmt.Sprint(base))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var brokers []string
		for i := range 3 {
			brokers = append(brokers, fmt.Sprintf("127.0.0.1:%d", base+i))
		}
		health := runMillrace(t, brokers, "", "cluster", "health", "--wait", "30s")
		create := runMillrace(t, brokers, "", "topic", "create", "t", "-p1", "-r3")
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if health.status != StatusDone || create.status != StatusDone {
			t.Fatalf("health: %d, %s; create: %d, %s", health.status, health.stderr, create.status, create.stderr)
		}
	}
}

// A node whose metadata stands still is named, and one that only comes a little
// later is not.
func TestHealthSeesMetadataThatStandsStill(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	client, err := kgo.NewClient(kgo.SeedBrokers(c.addresses()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	index := metadataIndex(t.Context(), client.SeedBrokers()[0])
	if index < 1 {
		t.Fatalf("the node's metadata is at change %d", index)
	}
	if got := behind(t.Context(), c.addresses()[0], index-1, index); got != "" {
		t.Errorf("a node that has caught up by the time it is asked again: %s", got)
	}
	want := fmt.Sprintf("its metadata stands at change %d, others are at %d", index, index+1)
	if got := behind(t.Context(), c.addresses()[0], index, index+1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSegmentsAreReadWithoutABroker(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1)
	c.do("", "topic", "create", "quakes", "-p1")
	c.do(testdata.Earthquakes, "produce", "quakes", "-q", "--key-field", "net", "-z", "zstd")
	c.do("", "produce", "quakes", "after it")
	id := strings.Fields(c.do("", "topic", "describe", "quakes").stdout)[2]
	c.do("", "group", "seek", "readers", "--to", "end", "--topics", "quakes") // makes the internal topic
	c.stop()
	var r result
	if r = runMillrace(t, nil, "", "segment", "verify", c.dir, "-o", "json"); r.status != StatusDone || !regexp.MustCompile(`^51 logs, \d+ kB: no damage\n50 of them, of internal topics, are not listed: -i\n$`).MatchString(r.stderr) {
		t.Fatalf("verify of orderly logs: status %d, %s", r.status, r.stderr)
	}
	if !strings.Contains(r.stdout, `"end_offset": 1708`) || !strings.Contains(r.stdout, `"damaged": 0`) || strings.Count(r.stdout, `"topic": "quakes"`) != 1 || strings.Contains(r.stdout, "__consumer_offsets") {
		t.Errorf("verify says %s", r.stdout)
	}
	if r = runMillrace(t, nil, "", "segment", "verify", c.dir, "-i"); strings.Count(r.stdout, "  __consumer_offsets  ") != 50 || strings.Count(r.stdout, "  quakes ") != 1 {
		t.Errorf("verify -i says %s", r.stdout)
	}
	files, err := filepath.Glob(filepath.Join(c.all[0].data, "partitions", id+"-0", "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("segments %v, %v", files, err)
	}

	// The records are those that were produced.
	dump := runMillrace(t, nil, "", "segment", "dump", "-r", "-o", "jsonl", files[0])
	if dump.status != StatusDone {
		t.Fatalf("dump: status %d, %s", dump.status, dump.stderr)
	}
	var values strings.Builder
	position := int64(-1) // of the first entry with records
	for line := range strings.Lines(dump.stdout) {
		var e entryItem
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		for _, r := range e.Records {
			values.WriteString(string(*r.Value) + "\n")
			if position < 0 {
				position = e.Position
			}
		}
	}
	if values.String() != testdata.Earthquakes+"after it\n" {
		t.Errorf("the dump has %d bytes of values, want %d", values.Len(), len(testdata.Earthquakes)+9)
	}

	// One bit, and it is found, with its place; what follows is dumped all the same.
	b, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	b[position+1000] ^= 4
	if err := os.WriteFile(files[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	where := fmt.Sprintf("millrace: corrupt: %s at %d: found ", files[0], position)
	for _, args := range [][]string{{"verify", c.dir}, {"verify", filepath.Dir(files[0])}, {"verify", files[0]}, {"dump", "-r", files[0]}} {
		r := runMillrace(t, nil, "", append([]string{"segment"}, args...)...)
		damage, verdict, _ := strings.Cut(r.stderr, "\n")
		if r.status != StatusFailed || !strings.HasPrefix(damage, where) || !strings.Contains(damage, ", expected ") {
			t.Errorf("%s: status %d, %q, want a line that begins %q", args[0], r.status, damage, where)
		}
		if args[0] == "verify" && !regexp.MustCompile(`^millrace: 1 of (1 log|51 logs) damaged, in 1 place; [^\n]*\n$`).MatchString(verdict) || args[0] == "dump" && verdict != "" {
			t.Errorf("%s: the verdict is %q", args[0], verdict)
		}
		if args[0] == "dump" && !strings.Contains(r.stdout, "after it") {
			t.Error("what follows the damage is not dumped")
		}
	}
	for _, test := range []struct {
		args   string
		status int
	}{
		{"segment verify " + t.TempDir(), StatusNotFound}, {"segment verify /no/such", StatusNotFound}, {"segment dump /no/such.log", StatusNotFound},
		{"segment dump " + c.all[0].log, StatusFailed}, {"segment dump", StatusUsage}, {"segment verify", StatusUsage},
	} {
		if r := runMillrace(t, nil, "", strings.Fields(test.args)...); r.status != test.status || strings.Count(r.stderr, "\n") != 1 {
			t.Errorf("millrace %s: status %d, want %d, %q", test.args, r.status, test.status, r.stderr)
		}
	}
}

func TestServeIsOrderly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	cmd := command(t, nil, "serve", "--ephemeral", "--listen", "127.0.0.1:0", "--ready-file", ready)
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &child{ready: ready, pid: cmd.Process.Pid}
	for deadline := time.Now().Add(30 * time.Second); !n.serves(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", stderr.String())
		}
	}
	b, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	address := string(mustField(t, b, "address"))
	if r := runMillrace(t, []string{address}, "", "produce", "t", "x"); r.status != StatusDone || r.stdout == "" {
		t.Errorf("produce: status %d, %q %q", r.status, r.stdout, r.stderr)
	}
	// A second one on the same port names the first.
	want := fmt.Sprintf("millrace: cannot listen on %s: address in use by pid %d; choose another with --listen\n", address, cmd.Process.Pid)
	if r := runMillrace(t, nil, "", "serve", "--listen", address); r.status != StatusFailed || r.stderr != want {
		t.Errorf("a second one: status %d, %q, want %q", r.status, r.stderr, want)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM ends it with %v, want status 0: %s", err, stderr.String())
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
}

// DescribeConfigs of a node tells what it is, as the file, a flag or the cluster
// said; librdkafka and consoles look there for the rack.
func TestABrokerIsDescribedAsItIs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ready, file := filepath.Join(dir, "ready"), filepath.Join(dir, "server.properties")
	text := "node.id=0\nlisteners=INTERNAL://127.0.0.1:0\nlistener.security.protocol.map=INTERNAL:PLAINTEXT\nbroker.rack=r1\nlog.retention.hours=3\nlog.retention.hour=4\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, nil, "serve", "--data-dir", filepath.Join(dir, "data"), "--config", file, "--ready-file", ready)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if cmd.Wait(); strings.Count(stderr.String(), "is log.retention.hours meant?") != 1 {
			t.Errorf("the misspelt name is not warned of, once: %s", stderr.String())
		}
	}()
	n := &child{ready: ready, pid: cmd.Process.Pid}
	for deadline := time.Now().Add(30 * time.Second); !n.serves(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", stderr.String())
		}
	}
	b, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	address := string(mustField(t, b, "address"))
	client, err := kgo.NewClient(kgo.SeedBrokers(address))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	resources, err := kadm.NewClient(client).DescribeBrokerConfigs(t.Context(), 1)
	if err != nil || len(resources) != 1 || resources[0].Err != nil {
		t.Fatalf("%+v, %v", resources, err)
	}
	want := map[string]string{
		"node.id": "1", "broker.id": "1", "broker.rack": "r1", "listeners": "INTERNAL://" + address,
		"log.dirs": filepath.Join(dir, "data"), "log.retention.hours": "3",
	}
	for _, c := range resources[0].Configs {
		if value, ok := want[c.Key]; ok && (c.MaybeValue() != value || c.Source != kmsg.ConfigSourceStaticBrokerConfig) {
			t.Errorf("%s=%s from %v, want %s from the node itself", c.Key, c.MaybeValue(), c.Source, value)
		}
		delete(want, c.Key)
	}
	if len(want) > 0 {
		t.Errorf("not described: %v", want)
	}
	// A file that cannot be had as it is written serves nobody.
	if err := os.WriteFile(file, []byte("\nnum.partitions=abc\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := runMillrace(t, nil, "", "serve", "--data-dir", filepath.Join(dir, "other"), "--config", file)
	if line := fmt.Sprintf("millrace: %s:2: num.partitions=abc: it is a whole number, 1 or more\n", file); r.status != StatusUsage || !strings.HasPrefix(r.stderr, line) {
		t.Errorf("status %d, %q, want %q", r.status, r.stderr, line)
	}
}

// The settings in force are listed with all that is needed to change one.
func TestSettingsAreListed(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 2)
	c.do("", "topic", "create", "orders", "-c", "retention.ms=5000")
	if out := c.do("", "cluster", "config", "list", "log.retention.h").stdout; out != "log.retention.hours=168  (default)\n"+
		"   The same in hours, where neither log.retention.ms nor log.retention.minutes\n   is set. A whole number of hours. Fixed while a node runs.\n" {
		t.Errorf("%s", out)
	}
	changed := c.do("", "cluster", "config", "list", "--changed").stdout
	for _, n := range c.all {
		if want := fmt.Sprintf("listeners=PLAINTEXT://%s  (set at the start, node %d)\n", n.address, n.id); !strings.Contains(changed, want) {
			t.Errorf("%s is not in\n%s", want, changed)
		}
	}
	if strings.Contains(changed, "num.partitions") {
		t.Errorf("a default is said to be changed:\n%s", changed)
	}
	if out := c.do("", "topic", "config", "orders", "--changed").stdout; out != "retention.ms=5000  (set for the topic)\n"+
		"   Age at which segments are deleted; -1 is no limit. Default: 604800000. A\n   whole number of milliseconds, -1 or more.\n" {
		t.Errorf("%s", out)
	}
	var list []listedSetting
	if err := json.Unmarshal([]byte(c.do("", "cluster", "config", "list", "-o", "json").stdout), &list); err != nil || len(list) < len(settings.BrokerDefinitions()) {
		t.Errorf("%d settings, %v", len(list), err)
	}
	for _, s := range list {
		if s.Doc == "" || s.Allowed == "" || len(s.Nodes) == 0 {
			t.Errorf("%+v", s)
		}
	}
	if r := runMillrace(t, c.addresses(), "", "topic", "config", "orders", "retetion.ms"); r.status != StatusNotFound || !strings.Contains(r.stderr, "did you mean retention.ms?") {
		t.Errorf("%+v", r)
	}
}

func mustField(t *testing.T, object []byte, name string) []byte {
	t.Helper()
	raw, err := field(object, name)
	if err != nil {
		t.Fatalf("%s: %v", object, err)
	}
	return text(raw)
}

// upProcess runs `up` and returns the lines of its table and what it says later.
func upProcess(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, pids []int, stderr *bufio.Reader) {
	t.Helper()
	cmd = command(t, nil, append([]string{"up", "--data-dir", dir}, args...)...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	header, err := lines.ReadString('\n')
	if err != nil || strings.Join(strings.Fields(header), " ") != "NODE PID ADDRESS DATA" {
		out, _ := io.ReadAll(errs)
		t.Fatalf("%q, %v: %s", header, err, out)
	}
	for i := range 3 {
		line, err := lines.ReadString('\n')
		var node, pid int
		if _, scanErr := fmt.Sscan(line, &node, &pid); err != nil || scanErr != nil || node != i+1 {
			t.Fatalf("%q, %v, %v", line, err, scanErr)
		}
		pids = append(pids, pid)
	}
	stderr = bufio.NewReader(errs)
	stderr.ReadString('\n') // how long it took
	// And what to try next.
	next, _ := stderr.ReadString('\n')
	export, _ := stderr.ReadString('\n')
	then, _ := stderr.ReadString('\n')
	if next != "next, in another terminal:\n" || !strings.HasPrefix(export, "   export MILLRACE_BROKERS=127.0.0.1:") || !strings.HasSuffix(then, " produce greetings hello; "+program(t)+" consume greetings -e\n") {
		t.Errorf("up says next %q, %q, then %q", next, export, then)
	}
	return cmd, pids, stderr
}

func TestUpReportsRestartsAndStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base := ports.HoldRow(t, 3)
	port := fmt.Sprint(base)
	brokers := []string{"127.0.0.1:" + port}

	cmd, pids, said := upProcess(t, dir, "--base-port", port)
	if r := runMillrace(t, brokers, testdata.Flights, "produce", "flights", "-q", "--key-field", "origin"); r.status != StatusDone {
		t.Fatalf("produce: %s", r.stderr)
	}
	// To end one of its nodes would not make room for another.
	twice := runMillrace(t, nil, "", "up", "--data-dir", dir, "--base-port", port)
	if want := fmt.Sprintf("millrace: %s is served already, at %s by a `millrace up`; stop that first: Ctrl-C where it runs, or kill %d\n",
		filepath.Join(dir, "node-1"), brokers[0], cmd.Process.Pid); twice.stderr != want {
		t.Errorf("%q, want %q", twice.stderr, want)
	}
	// Nor is there room at other ports, and to find that changes nothing.
	moved := fmt.Sprint(ports.HoldRow(t, 3))
	before := readyFiles(t, dir)
	twice = runMillrace(t, nil, "", "up", "3", "--data-dir", dir, "--base-port", moved)
	if want := fmt.Sprintf("millrace: %s is served already, by a `millrace up`; stop that first: Ctrl-C where it runs, or kill %d\n",
		filepath.Join(dir, "node-1"), cmd.Process.Pid); twice.stderr != want || twice.status != StatusFailed {
		t.Errorf("status %d, %q, want %q", twice.status, twice.stderr, want)
	}
	if after := readyFiles(t, dir); slices.Contains(before[:], "") || after != before {
		t.Errorf("the ready files of those that run were %q and are %q", before, after)
	}
	killPID(t, pids[1])
	want := fmt.Sprintf("node 2 (pid %d) was killed with -9; 2 of 3 nodes left\n", pids[1])
	if line, _ := said.ReadString('\n'); line != want {
		t.Errorf("%q, want %q", line, want)
	}
	if after := readyFiles(t, dir); after[1] != "" {
		t.Errorf("a node that was killed left %q", after[1])
	}
	// Whoever does as is said then has the node back, as it was.
	hint, _ := said.ReadString('\n')
	words, ok := strings.CutPrefix(strings.TrimSpace(hint), "start it again with: millrace ")
	if !ok {
		t.Fatalf("%q", hint)
	}
	again := command(t, nil, strings.Fields(words)...)
	if err := again.Start(); err != nil {
		t.Fatal(err)
	}
	want = fmt.Sprintf("node 2 is back, pid %d; that was not started here, and Ctrl-C does not stop it\n", again.Process.Pid)
	if line, _ := said.ReadString('\n'); line != want {
		t.Errorf("%q, want %q", line, want)
	}
	again.Process.Signal(syscall.SIGTERM)
	if err := again.Wait(); err != nil {
		t.Errorf("the node that was started by hand: %v", err)
	}
	cmd.Process.Signal(syscall.SIGINT)
	io.Copy(io.Discard, said)
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C ends it with %v, want status 0", err)
	}
	mustBeGone(t, pids)

	// Started again it continues, at other ports too, and with --restart a killed node comes back.
	brokers[0] = "127.0.0.1:" + moved
	cmd, pids, said = upProcess(t, dir, "--base-port", moved, "--restart")
	killPID(t, pids[2])
	said.ReadString('\n')
	line, _ := said.ReadString('\n')
	var pid int
	if _, err := fmt.Sscanf(line, "node 3 started again, pid %d\n", &pid); err != nil || pid == pids[2] {
		t.Errorf("%q, want that node 3 started again", line)
	}
	if r := runMillrace(t, brokers, "", "consume", "flights", "-e", "--format", "value"); sorted(r.stdout) != sorted(testdata.Flights) {
		t.Errorf("the flights are not what they were: %s", r.stderr)
	}

	// Killed with -9 it leaves nobody behind.
	pids[2] = pid
	cmd.Process.Kill()
	cmd.Wait()
	mustBeGone(t, pids)
}

// readyFiles reads those of three nodes in dir, "" for one that is not there.
func readyFiles(t *testing.T, dir string) (all [3]string) {
	t.Helper()
	for i := range all {
		b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("node-%d.ready", i+1)))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		all[i] = string(b)
	}
	return all
}

// mustBeGone waits for processes to end; the kernel needs a moment for it.
func mustBeGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		deadline := time.Now().Add(time.Minute)
		for alive(pid) {
			if time.Now().After(deadline) {
				t.Errorf("pid %d is left behind", pid)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// alive tells whether a process runs; one that has ended and waits for its
// parent does not.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}

// Once `up` says that it serves it does: the first record that is sent is acknowledged, and
// makes its topic. That nobody waits for a timer until then is
// replication.TestANewClusterWaitsForNothing; how long it takes is the machine's.
func TestUpServesOnceItSaysSo(t *testing.T) {
	t.Parallel()
	port := fmt.Sprint(ports.HoldRow(t, 3))
	begin := time.Now()
	cmd, _, _ := upProcess(t, t.TempDir(), "--base-port", port)
	r := runMillrace(t, []string{"127.0.0.1:" + port}, "", "produce", "t", "x", "-q")
	t.Logf("first acknowledgement after %v", time.Since(begin))
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || r.status != StatusDone {
		t.Errorf("produce: status %d, %s; up ends with %v", r.status, r.stderr, err)
	}
}

func TestDemoLosesNothing(t *testing.T) {
	cmd := command(t, nil, "demo")
	dir := t.TempDir()
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	out, err := cmd.CombinedOutput()
	t.Logf("\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("%s is left", left[0].Name())
	}
	if !strings.Contains(string(out), "\nNothing was lost. Next, break it yourself:\n   "+program(t)+" demo --keep ") {
		t.Errorf("it does not end with what to try next")
	}
}

// The script does in a real bash what it should: the words of the line, as they
// are typed, become candidates.
func TestBashCompletesTopicNames(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash here")
	}
	c := startBroker(t)
	c.do("", "topic", "create", "flights", "freight", "orders")
	for _, test := range []struct{ line, want string }{
		{"millrace ", "serve up demo produce consume topic group cluster doctor segment bench version completion man"},
		{"millrace topic d", "describe delete"},
		{"millrace consume f", "flights freight"},
		{"millrace -b " + c.all[0].address + " topic describe fl", "flights"},
		{"millrace consume -o s", "start"},
		{"millrace produce -z ", "none gzip snappy lz4 zstd"},
		{"millrace produce flights --key", "--key --key-field"},
		{"millrace produce --file ", ""},
		{"millrace nonsense ", ""},
	} {
		cmd := exec.Command(bash, "-c", `source <(millrace completion bash)
			COMP_LINE="$1" COMP_POINT=${#1}; _millrace; echo "${COMPREPLY[*]}"`, "bash", test.line)
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program(t))+":"+os.Getenv("PATH"), "MILLRACE_BROKERS="+c.all[0].address)
		out, err := cmd.CombinedOutput()
		if got := strings.TrimSpace(string(out)); err != nil || got != test.want {
			t.Errorf("%q completes to %q, want %q (%v)", test.line, got, test.want, err)
		}
	}
}

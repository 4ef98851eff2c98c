package clitest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/brokertest"
	"millrace/cli/kafka"
	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/internal/testcluster"
	"millrace/testdata"
	"millrace/testdata/ports"

	"github.com/twmb/franz-go/pkg/kadm"
)

// Main runs the tests of a package, and removes what they have built.
func Main(m *testing.M) { testcluster.Main(m) }

// Program builds the program, once, and returns its path.
func Program(t *testing.T) string {
	t.Helper()
	return testcluster.Program(t)
}

// A Cluster is one that runs, and the program to talk to it with.
type Cluster struct {
	*local.Nodes
	T   *testing.T
	Dir string
}

// StartCluster starts n nodes and stops them when the test ends. A failed test
// shows the ends of their logs.
func StartCluster(t *testing.T, n int) *Cluster {
	t.Helper()
	exe := Program(t)
	c := &Cluster{Nodes: local.NewNodes(t.TempDir(), ports.Hold(t, n), false), T: t}
	c.Exe, c.Dir = exe, filepath.Dir(c.All[0].Data)
	t.Cleanup(func() {
		c.Stop()
		if t.Failed() {
			for _, n := range c.All {
				t.Logf("node %d, %s, log:\n%s", n.ID, n.Address, tail(n.Log, 15))
			}
		}
	})
	c.Start()
	return c
}

// StartBroker starts a cluster of one in this process, for tests of commands that neither
// end it nor look for it among the processes.
func StartBroker(t *testing.T) *Cluster {
	t.Helper()
	Program(t)
	b := brokertest.Start(t)
	return &Cluster{&local.Nodes{All: []*local.Child{{ID: 1, Address: b.Addr(), Data: b.DataDir()}}}, t, filepath.Dir(b.DataDir())}
}

// Start starts all nodes that do not run.
func (c *Cluster) Start() {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), local.StartTimeout)
	defer cancel()
	if err := c.StartAll(ctx); err != nil {
		c.T.Fatal(err)
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

// Leader returns the node that leads a partition, once one does.
func (c *Cluster) Leader(topic string, partition int32) *local.Child {
	c.T.Helper()
	ctx, cancel := context.WithTimeout(c.T.Context(), 30*time.Second)
	defer cancel()
	client, err := kafka.DialBrokers(ctx, c.Addresses())
	if err != nil {
		c.T.Fatal(err)
	}
	defer client.Close()
	for ctx.Err() == nil {
		if d, err := kafka.DescribeTopic(ctx, kadm.NewClient(client), topic); err == nil {
			if id := int(d.Partitions[partition].Leader); id >= 1 && id <= len(c.All) && c.All[id-1].Running() {
				return c.All[id-1]
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.T.Fatalf("partition %d of topic %s has no leader", partition, topic)
	return nil
}

// KillPID ends a process as kill -9 does.
func KillPID(t *testing.T, pid int) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
}

// A Result is how one run of the program ended.
type Result struct {
	Stdout, Stderr string
	Status         int
}

// Command is the program with some arguments, in a folder of its own, talking to
// the cluster if there is one.
func Command(t *testing.T, brokers []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), Program(t), args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "MILLRACE_BROKERS="+strings.Join(brokers, ","))
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	local.DieWithParent(cmd.SysProcAttr)
	return cmd
}

// Run runs the program to its end.
func Run(t *testing.T, brokers []string, stdin string, args ...string) Result {
	t.Helper()
	cmd := Command(t, brokers, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return Result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Do runs the program and fails the test unless it ends with status 0.
func (c *Cluster) Do(stdin string, args ...string) Result {
	c.T.Helper()
	r := Run(c.T, c.Addresses(), stdin, args...)
	if r.Status != term.StatusDone {
		c.T.Fatalf("millrace %s: status %d: %s", strings.Join(args, " "), r.Status, r.Stderr)
	}
	return r
}

// MustBeFlights fails unless the topic holds exactly the flights: each line once,
// unchanged, and those of each airport in their order.
func (c *Cluster) MustBeFlights(topic string) {
	c.T.Helper()
	got := c.Do("", "consume", topic, "-o", "start", "-e", "--format", "value").Stdout
	if lines := strings.Count(got, "\n"); lines != 20_000 {
		c.T.Errorf("topic %s holds %d records, want 20,000", topic, lines)
	}
	if Sorted(got) != Sorted(testdata.Flights) {
		c.T.Errorf("topic %s does not hold what was produced", topic)
	}
	if byKey(c.T, got) != byKey(c.T, testdata.Flights) {
		c.T.Errorf("topic %s has the flights of an airport in another order", topic)
	}
}

// Sorted is a text with its lines in order.
func Sorted(text string) string {
	lines := strings.SplitAfter(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// byKey sorts flights by airport and leaves those of one in their order.
func byKey(t *testing.T, text string) string {
	lines := slices.Collect(strings.Lines(text))
	keys := make(map[string]string, len(lines))
	for _, line := range lines {
		var flight struct{ Origin string }
		if err := json.Unmarshal([]byte(line), &flight); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		keys[line] = flight.Origin
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

// Produce begins a produce process with some arguments, which is then fed.
func (c *Cluster) Produce(args ...string) *production {
	c.T.Helper()
	p := &production{t: c.T, cmd: Command(c.T, c.Addresses(), append([]string{"produce"}, args...)...), lines: make(map[string]int)}
	var err error
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		c.T.Fatal(err)
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		c.T.Fatal(err)
	}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		c.T.Fatal(err)
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

// Feed writes input without waiting for what becomes of it.
func (p *production) Feed(input string) {
	p.t.Helper()
	if _, err := io.WriteString(p.stdin, input); err != nil {
		p.t.Fatalf("%v: %s", err, p.stderr.String())
	}
}

// Await reads n acknowledgements.
func (p *production) Await(n int) {
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

// Finish ends the input, waits, and fails unless everything was acknowledged,
// each record at a place of its own.
func (p *production) Finish(total int) {
	p.t.Helper()
	p.stdin.Close()
	p.Await(total - len(p.lines))
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("%v: %s", err, p.stderr.String())
	}
	if len(p.lines) != total {
		p.t.Errorf("%d records have a place of their own, want %d", len(p.lines), total)
	}
	if want := term.Number(total) + " records, "; !strings.HasPrefix(p.stderr.String(), want) {
		p.t.Errorf("the last line is %q, want one that begins %q", p.stderr.String(), want)
	}
}

// Halves cuts the flights in two.
func Halves() (first, second string) {
	lines := strings.SplitAfter(testdata.Flights, "\n")
	return strings.Join(lines[:10_000], ""), strings.Join(lines[10_000:], "")
}

// DataFile is the path of a data set of the repository, in whose folders tests run.
func DataFile(t *testing.T, name string) string {
	t.Helper()
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if _, missing := os.Stat(filepath.Join(dir, "go.mod")); missing == nil {
			return filepath.Join(dir, "testdata", name)
		}
		dir = filepath.Dir(dir)
	}
	t.Fatalf("the tests do not run in the repository: %v", err)
	return ""
}

// MustBeGone waits for processes to end; the kernel needs a moment for it.
func MustBeGone(t *testing.T, pids []int) {
	t.Helper()
	for _, pid := range pids {
		deadline := time.Now().Add(time.Minute)
		for Alive(pid) {
			if time.Now().After(deadline) {
				t.Errorf("pid %d is left behind", pid)
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// Alive reports whether a process runs; one that has ended and waits for its
// parent does not.
func Alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b), ") ")
	return !strings.HasPrefix(state, "Z")
}

// MustField is a field of a JSON object, which must have it: a text, or else as it stands.
func MustField(t *testing.T, object []byte, name string) []byte {
	t.Helper()
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(object, &fields); err != nil || fields[name] == nil {
		t.Fatalf("%s has no %s: %v", object, name, err)
	}
	var text string
	if json.Unmarshal(fields[name], &text) == nil {
		return []byte(text)
	}
	return fields[name]
}

// UpProcess runs `up` and returns the lines of its table and what it says later.
func UpProcess(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, pids []int, stderr *bufio.Reader) {
	t.Helper()
	cmd = Command(t, nil, append([]string{"up", "--data-dir", dir}, args...)...)
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
	if next != "next, in another terminal:\n" || !strings.HasPrefix(export, "   export MILLRACE_BROKERS=127.0.0.1:") || !strings.HasSuffix(then, " produce greetings hello; "+Program(t)+" consume greetings -e\n") {
		t.Errorf("up says next %q, %q, then %q", next, export, then)
	}
	return cmd, pids, stderr
}

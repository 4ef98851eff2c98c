package local_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/term"
	"millrace/testdata"
	"millrace/testdata/ports"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestServeIsOrderly(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ready := filepath.Join(dir, "ready")
	cmd := clitest.Command(t, nil, "serve", "--ephemeral", "--listen", "127.0.0.1:0", "--ready-file", ready)
	cmd.Env = append(cmd.Env, "TMPDIR="+dir)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !isReady(ready, cmd.Process.Pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", stderr.String())
		}
	}
	b, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	address := string(clitest.MustField(t, b, "address"))
	if r := clitest.Run(t, []string{address}, "", "produce", "t", "x"); r.Status != term.StatusDone || r.Stdout == "" {
		t.Errorf("produce: status %d, %q %q", r.Status, r.Stdout, r.Stderr)
	}
	// A second one on the same port names the first.
	want := fmt.Sprintf("millrace: cannot listen on %s: address in use by pid %d; choose another with --listen\n", address, cmd.Process.Pid)
	if r := clitest.Run(t, nil, "", "serve", "--listen", address); r.Status != term.StatusFailed || r.Stderr != want {
		t.Errorf("a second one: status %d, %q, want %q", r.Status, r.Stderr, want)
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
	cmd := clitest.Command(t, nil, "serve", "--data-dir", filepath.Join(dir, "data"), "--config", file, "--ready-file", ready)
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
	for deadline := time.Now().Add(30 * time.Second); !isReady(ready, cmd.Process.Pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", stderr.String())
		}
	}
	b, err := os.ReadFile(ready)
	if err != nil {
		t.Fatal(err)
	}
	address := string(clitest.MustField(t, b, "address"))
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
	r := clitest.Run(t, nil, "", "serve", "--data-dir", filepath.Join(dir, "other"), "--config", file)
	if line := fmt.Sprintf("millrace: %s:2: num.partitions=abc: it is a whole number, 1 or more\n", file); r.Status != term.StatusUsage || !strings.HasPrefix(r.Stderr, line) {
		t.Errorf("status %d, %q, want %q", r.Status, r.Stderr, line)
	}
}

func TestUpReportsRestartsAndStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	base := ports.HoldRow(t, 3)
	port := fmt.Sprint(base)
	brokers := []string{"127.0.0.1:" + port}

	cmd, pids, said := clitest.UpProcess(t, dir, "--base-port", port)
	if r := clitest.Run(t, brokers, testdata.Flights, "produce", "flights", "-q", "--key-field", "origin"); r.Status != term.StatusDone {
		t.Fatalf("produce: %s", r.Stderr)
	}
	// To end one of its nodes would not make room for another.
	twice := clitest.Run(t, nil, "", "up", "--data-dir", dir, "--base-port", port)
	if want := fmt.Sprintf("millrace: %s is served already, at %s by a `millrace up`; stop that first: Ctrl-C where it runs, or kill %d\n",
		filepath.Join(dir, "node-1"), brokers[0], cmd.Process.Pid); twice.Stderr != want {
		t.Errorf("%q, want %q", twice.Stderr, want)
	}
	// Nor is there room at other ports, and to find that changes nothing.
	moved := fmt.Sprint(ports.HoldRow(t, 3))
	before := readyFiles(t, dir)
	twice = clitest.Run(t, nil, "", "up", "3", "--data-dir", dir, "--base-port", moved)
	if want := fmt.Sprintf("millrace: %s is served already, by a `millrace up`; stop that first: Ctrl-C where it runs, or kill %d\n",
		filepath.Join(dir, "node-1"), cmd.Process.Pid); twice.Stderr != want || twice.Status != term.StatusFailed {
		t.Errorf("status %d, %q, want %q", twice.Status, twice.Stderr, want)
	}
	if after := readyFiles(t, dir); slices.Contains(before[:], "") || after != before {
		t.Errorf("the ready files of those that run were %q and are %q", before, after)
	}
	clitest.KillPID(t, pids[1])
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
	again := clitest.Command(t, nil, strings.Fields(words)...)
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
	clitest.MustBeGone(t, pids)

	// Started again it continues, at other ports too, and with --restart a killed node comes back.
	brokers[0] = "127.0.0.1:" + moved
	cmd, pids, said = clitest.UpProcess(t, dir, "--base-port", moved, "--restart")
	clitest.KillPID(t, pids[2])
	said.ReadString('\n')
	line, _ := said.ReadString('\n')
	var pid int
	if _, err := fmt.Sscanf(line, "node 3 started again, pid %d\n", &pid); err != nil || pid == pids[2] {
		t.Errorf("%q, want that node 3 started again", line)
	}
	if r := clitest.Run(t, brokers, "", "consume", "flights", "-e", "--format", "value"); clitest.Sorted(r.Stdout) != clitest.Sorted(testdata.Flights) {
		t.Errorf("the flights are not what they were: %s", r.Stderr)
	}

	// Killed with -9 it leaves nobody behind.
	pids[2] = pid
	cmd.Process.Kill()
	cmd.Wait()
	clitest.MustBeGone(t, pids)
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

// Once `up` says that it serves it does: the first record that is sent is acknowledged, and
// makes its topic. That nobody waits for a timer until then is
// replication.TestANewClusterWaitsForNothing; how long it takes is the machine's.
func TestUpServesOnceItSaysSo(t *testing.T) {
	t.Parallel()
	port := fmt.Sprint(ports.HoldRow(t, 3))
	begin := time.Now()
	cmd, _, _ := clitest.UpProcess(t, t.TempDir(), "--base-port", port)
	r := clitest.Run(t, []string{"127.0.0.1:" + port}, "", "produce", "t", "x", "-q")
	t.Logf("first acknowledgement after %v", time.Since(begin))
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil || r.Status != term.StatusDone {
		t.Errorf("produce: status %d, %s; up ends with %v", r.Status, r.Stderr, err)
	}
}

func TestDemoLosesNothing(t *testing.T) {
	cmd := clitest.Command(t, nil, "demo")
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
	if !strings.Contains(string(out), "\nNothing was lost. Next, break it yourself:\n   "+clitest.Program(t)+" demo --keep ") {
		t.Errorf("it does not end with what to try next")
	}
}

// isReady reports whether a process has said in its ready file that it serves.
func isReady(file string, pid int) bool {
	var said struct{ PID int }
	text, err := os.ReadFile(file)
	return err == nil && json.Unmarshal(text, &said) == nil && said.PID == pid
}

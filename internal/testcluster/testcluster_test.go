//go:build unix

package testcluster_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/internal/testcluster"
)

// endVariable names the variable that tells TestEnd how to end, in a process of its own.
const endVariable = "TESTCLUSTER_END"

// programVariable names the one that holds the program which that process is to start.
const programVariable = "TESTCLUSTER_PROGRAM"

func TestMain(m *testing.M) { testcluster.Main(m) }

// ends are the ways a test of nodes ends that TestNothingIsLeftRunning knows, each with what
// is then said.
var ends = []struct {
	how  string
	says string // of what the process prints
	end  func(t *testing.T, c *testcluster.Cluster)
}{
	{"passes", `^pids=`, func(*testing.T, *testcluster.Cluster) {}},
	{"fails", `(?s)it fails.*node 1 at 127\.0\.0\.1:\d+, the last of \d+ lines of its log:\n.*---- millrace serve.*node 2 at `,
		func(t *testing.T, _ *testcluster.Cluster) { t.Error("it fails") }},
	{"panics", `panic: of a test`, func(*testing.T, *testcluster.Cluster) { panic("of a test") }},
	{"panics elsewhere", `panic: of a goroutine`, func(*testing.T, *testcluster.Cluster) {
		go panic("of a goroutine")
		select {}
	}},
	{"exits", `^pids=`, func(*testing.T, *testcluster.Cluster) { os.Exit(3) }},
	{"node without a configuration", `(?s)node 2 ended instead of starting: exit status \d+; its log is below.*the last of 2 lines of its log:\n.*---- millrace serve .* --config absent\.properties\n.*millrace: .*absent\.properties`,
		func(_ *testing.T, c *testcluster.Cluster) {
			n := c.Nodes[1]
			n.Kill()
			n.Log += ".2"
			n.Start("--config", "absent.properties")
			n.AwaitReady()
		}},
	{"port that is taken", `(?s)node 2 ended instead of starting: exit status \d+; its log is below.*millrace: cannot listen on 127\.0\.0\.1:\d+: address in use by pid`,
		func(t *testing.T, c *testcluster.Cluster) {
			taken, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			n := c.Nodes[1]
			n.Kill()
			n.Address = taken.Addr().String()
			n.Start()
			n.AwaitReady()
		}},
}

// TestEnd is a process of TestNothingIsLeftRunning's: it has two nodes when it ends, one of
// them paused.
func TestEnd(t *testing.T) {
	how := os.Getenv(endVariable)
	if how == "" {
		t.Skip("it is a part of TestNothingIsLeftRunning, in a process of its own")
	}
	c := testcluster.New(t, os.Getenv(programVariable), t.TempDir(), 2, nil)
	c.Start()
	fmt.Printf("pids=%d,%d\n", c.Nodes[0].PID(), c.Nodes[1].PID())
	c.Nodes[0].Pause()
	for _, e := range ends {
		if e.how == how {
			e.end(t, c)
		}
	}
}

// TestNothingIsLeftRunning has a test of nodes end in many ways: a node is gone whatever
// ended the test, and says in its output what it died of.
func TestNothingIsLeftRunning(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends the children of a process that has no time to")
	}
	program := testcluster.Program(t)
	for _, e := range ends {
		t.Run(e.how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run", "^TestEnd$")
			cmd.Env = append(os.Environ(), endVariable+"="+e.how, programVariable+"="+program,
				"TMPDIR="+t.TempDir()) // one that exits does not clear up
			var output bytes.Buffer
			cmd.Stdout, cmd.Stderr = &output, &output
			p, err := testcluster.Start(cmd)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(p.Kill)
			if state := p.Wait(); state.Success() != (e.how == "passes") {
				t.Errorf("it ended with %v", state)
			}
			if !regexp.MustCompile(e.says).Match(output.Bytes()) {
				t.Errorf("it says\n%s, which is not %s", output.Bytes(), e.says)
			}
			pids := regexp.MustCompile(`(?m)^pids=(\d+),(\d+)$`).FindStringSubmatch(output.String())
			if pids == nil {
				t.Fatalf("it started no nodes: %s", output.Bytes())
			}
			for _, pid := range pids[1:] {
				awaitGone(t, pid)
			}
		})
	}
}

// awaitGone waits until a process does not run; the kernel needs a moment for it, and one that
// waits for its parent has ended.
func awaitGone(t *testing.T, pid string) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		_, state, _ := strings.Cut(string(b), ") ")
		if err != nil || strings.HasPrefix(state, "Z") {
			return
		}
		if time.Now().After(deadline) {
			n, _ := strconv.Atoi(pid)
			if left, err := os.FindProcess(n); err == nil {
				left.Kill()
			}
			t.Fatalf("pid %s is left behind", pid)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestNodesAreKilledStoppedAndStartedAgain: a node keeps its address and folder, one that has
// no folder joins those that have, and all stop as they are told to.
func TestNodesAreKilledStoppedAndStartedAgain(t *testing.T) {
	program := testcluster.Program(t)
	t.Setenv("MILLRACE_LISTEN", "nowhere") // is not for nodes: they would not start
	c := testcluster.New(t, program, t.TempDir(), 3, func(n *testcluster.Node) {
		n.Args = append(n.Args, "--log-level", "warn")
	})
	if n := c.Nodes[2]; n.Running() || n.Serves() || n.PID() != 0 || n.Wait() != nil {
		t.Errorf("a node that has not been started: running %v, serves %v, pid %d, %v", n.Running(), n.Serves(), n.PID(), n.Wait())
	}
	one, two, three := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	one.Start("--node-id", "1")
	one.AwaitReady()
	two.Start("--node-id", "2", "--join", one.Address)
	two.AwaitReady()
	c.Start()
	c.AwaitHealthy()
	if found := three.GrepLog(" --node-id 3 --join " + one.Address + "," + two.Address); len(found) != 1 {
		t.Errorf("node 3 did not join the others: %q", three.GrepLog("----"))
	}
	before := one.PID()
	c.Kill(one, three)
	if one.Running() || !two.Running() || three.Running() {
		t.Error("other nodes were killed than those named")
	}
	c.Start()
	c.AwaitHealthy()
	if one.PID() == before || len(one.GrepLog("---- ")) != 2 || len(two.GrepLog("---- ")) != 1 || len(three.GrepLog("---- ")) != 2 {
		t.Errorf("not each of those that did not run was started again, once: pid %d, before %d", one.PID(), before)
	}
	for _, n := range c.Nodes {
		if !n.Serves() {
			t.Errorf("node %d does not serve", n.ID)
		}
	}
	two.Stop()
	two.Start()
	two.AwaitReady()
	c.Stop()
	for _, n := range c.Nodes {
		if n.Running() || !n.Wait().Success() {
			t.Errorf("node %d: running %v, %v", n.ID, n.Running(), n.Wait())
		}
	}
}

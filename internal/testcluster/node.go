package testcluster

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/local"
)

// A Node is one broker: where it is, and the Process that runs it now. Its methods are called
// from the test's goroutine, and fail the test. The fields may be changed while it does not
// run.
type Node struct {
	*Process          // nil before the first
	ID       int32    // from 1
	Address  string   // where it listens
	Data     string   // its data folder
	Log      string   // the file of what its processes have said, one behind the other
	Args     []string // more arguments of `millrace serve`, whenever it is started
	Host     Host     // where its processes run; nil: beside the test

	t       testing.TB
	program string
	ready   string
}

// A Host is where processes of a node run.
type Host interface {
	// Command makes the command of a process there. What it runs has to become the program,
	// as `ip netns exec` does: the node is the process that is started.
	Command(name string, args ...string) *exec.Cmd
}

// beside is where the test itself runs.
type beside struct{}

// Command implements Host.
func (beside) Command(name string, args ...string) *exec.Cmd { return exec.Command(name, args...) }

// Start begins a process of the node, with these arguments of `millrace serve` besides its
// own; AwaitReady says when it serves. It is given this process's environment without what
// would configure it.
func (n *Node) Start(args ...string) {
	n.t.Helper()
	if n.Running() {
		n.t.Fatalf("node %d runs already", n.ID)
	}
	os.Remove(n.ready)
	log, err := os.OpenFile(n.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer log.Close()
	args = slices.Concat([]string{"serve", "--data-dir", n.Data, "--listen", n.Address, "--ready-file", n.ready}, n.Args, args)
	fmt.Fprintf(log, "---- millrace %s\n", strings.Join(args, " "))
	host := n.Host
	if host == nil {
		host = beside{}
	}
	cmd := host.Command(n.program, args...)
	cmd.Env = slices.DeleteFunc(cmd.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "MILLRACE_") || strings.HasPrefix(variable, "KAFKA_")
	})
	cmd.Stdout, cmd.Stderr = log, log
	if n.Process, err = Start(cmd); err != nil {
		n.t.Fatalf("start node %d: %v", n.ID, err)
	}
}

// fresh reports whether the node has no folder of an earlier start.
func (n *Node) fresh() bool {
	_, err := os.Stat(filepath.Join(n.Data, local.NodeFile))
	return err != nil
}

// Serves reports whether the node's present process has said that it is ready.
func (n *Node) Serves() bool {
	b, err := os.ReadFile(n.ready)
	var ready struct{ PID int }
	return err == nil && json.Unmarshal(b, &ready) == nil && ready.PID != 0 && ready.PID == n.PID()
}

// AwaitReady waits until the node serves.
func (n *Node) AwaitReady() {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	for !n.Serves() {
		switch {
		case !n.Running():
			n.t.Fatalf("node %d ended instead of starting: %v; its log is below", n.ID, n.Wait())
		case time.Now().After(deadline):
			n.t.Fatalf("node %d is not ready after %v; its log is below", n.ID, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Stop ends the node as an administrator would, and expects it to say so.
func (n *Node) Stop() {
	n.t.Helper()
	n.Signal(syscall.SIGTERM)
	n.AwaitStopped()
}

// AwaitStopped waits for a node that was told to stop. Told twice, it would end at once.
func (n *Node) AwaitStopped() {
	n.t.Helper()
	if n.Process == nil {
		n.t.Fatalf("node %d has never run", n.ID)
	}
	select {
	case <-n.exited:
	case <-time.After(patience):
		n.t.Fatalf("node %d does not stop", n.ID)
	}
	if state := n.Wait(); !state.Success() {
		n.t.Errorf("node %d ended with %v after SIGTERM, want status 0", n.ID, state)
	}
}

// GrepLog returns the lines of the node's log that contain a text.
func (n *Node) GrepLog(text string) (found []string) {
	b, _ := os.ReadFile(n.Log)
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"millrace/cli/term"
	"millrace/replication/folder"
)

// Nodes is a cluster of `serve` processes on this machine, children of this
// process, one data folder each. Its methods are called from one goroutine.
type Nodes struct {
	All  []*Child
	Exe  string   // the program to run; "" is this one
	env  []string // of the processes
	fork *Forker
	keep bool // children outlive this process
}

// A Child is one node: where it is, and the process that runs it now.
type Child struct {
	ID      int // from 1
	Address string
	Data    string // its data folder
	Log     string
	ready   string

	PID     int
	process *os.Process
	exited  chan struct{} // closed when the process has ended; nil before the first
	state   *os.ProcessState
}

// NewNodes lays out n nodes under dir, at the given addresses. Nothing runs yet.
// With keep, they go on running when this process ends. They are given this process's
// environment without what would configure them.
func NewNodes(dir string, addresses []string, keep bool) *Nodes {
	n := &Nodes{keep: keep, env: withoutSettings(os.Environ())}
	for i, address := range addresses {
		data := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		n.All = append(n.All, &Child{ID: i + 1, Address: address, Data: data, Log: data + ".log", ready: data + ".ready"})
	}
	n.fork = NewForker()
	return n
}

// A Forker starts processes that are to die with this one, from any goroutine. Pdeathsig
// follows the thread that forked, not the process: when that thread ends, its children are
// killed. So one goroutine starts them all and keeps its thread for as long as this process
// lives.
type Forker struct{ calls chan forking }

// A forking is a process to be started, and where to say how that went.
type forking struct {
	cmd  *exec.Cmd
	done chan error
}

// NewForker returns a Forker, whose goroutine lives as long as the process.
func NewForker() *Forker {
	f := &Forker{make(chan forking)}
	go f.run() // the forker
	return f
}

func (f *Forker) run() {
	runtime.LockOSThread()
	for call := range f.calls {
		call.done <- call.cmd.Start()
	}
}

// Start starts a process, as its own Start does.
func (f *Forker) Start(cmd *exec.Cmd) error {
	call := forking{cmd, make(chan error)}
	f.calls <- call
	return <-call.done
}

// fresh reports whether a node's folder has never been served.
func (c *Child) fresh() bool {
	_, err := os.Stat(filepath.Join(c.Data, NodeFile))
	return err != nil
}

// Running reports whether the node's process runs.
func (c *Child) Running() bool {
	if c.exited == nil {
		return false
	}
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// A servedError says that a node's folder is served by a process that is not ours.
type servedError struct {
	data string
	pid  int // 0 if that cannot be told
}

func (e *servedError) Error() string {
	by, stop := "another process", ""
	if e.pid > 0 {
		by, stop = fmt.Sprintf("pid %d", e.pid), fmt.Sprintf(": kill %d", e.pid)
		if up := upOf(e.pid); up > 0 { // which would start a node again, or stand there with one less
			by, stop = "a `millrace up`", fmt.Sprintf(": Ctrl-C where it runs, or kill %d", up)
		}
	}
	return fmt.Sprintf("%s is served already, by %s; stop that first%s", e.data, by, stop)
}

// free is a *servedError if a process has the node's folder open.
func (c *Child) free() error {
	if pid, used := folder.InUse(c.Data); used {
		return &servedError{c.Data, pid}
	}
	return nil
}

// Start begins a node's process; awaitReady says when it serves. If another process serves
// its folder, it is a *servedError, and that one's ready file stays what it is.
func (n *Nodes) Start(c *Child) error {
	if err := c.free(); err != nil {
		return err
	}
	exe, err := n.Exe, error(nil)
	if exe == "" {
		if exe, err = os.Executable(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return err
	}
	os.Remove(c.ready)
	logFile, err := os.OpenFile(c.Log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer logFile.Close()
	args := []string{"serve", "--data-dir", c.Data, "--listen", c.Address, "--ready-file", c.ready}
	if c.fresh() {
		args = append(args, "--node-id", fmt.Sprint(c.ID))
	}
	// One that is a member asks them where its nodes are: all may have moved to other ports.
	if join := n.joins(c); join != "" {
		args = append(args, "--join", join)
	}
	cmd := exec.Command(exe, args...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Env = n.env
	// A group of its own: Ctrl-C at a terminal is for us, who then stop the nodes.
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	Apart(cmd.SysProcAttr)
	if !n.keep {
		DieWithParent(cmd.SysProcAttr)
	}
	err = n.fork.Start(cmd)
	if err != nil {
		return err
	}
	exited := make(chan struct{})
	c.PID, c.process, c.exited = cmd.Process.Pid, cmd.Process, exited
	go func() { // the waiter: ends with the process
		cmd.Wait()
		c.state = cmd.ProcessState
		close(exited)
	}()
	return nil
}

// AwaitReady waits until nodes serve.
func (n *Nodes) AwaitReady(ctx context.Context, children ...*Child) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for _, c := range children {
		for !c.serves() {
			select {
			case <-c.exited:
				if why := c.lastWords(); why != "" {
					return fmt.Errorf("node %d did not start: %s", c.ID, why)
				}
				return fmt.Errorf("node %d did not start: %s; its log is %s", c.ID, c.state, c.Log)
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return term.Fail(term.StatusTimedOut, "node %d does not get ready; its log is %s", c.ID, c.Log)
				}
				return ctx.Err()
			case <-poll.C:
			}
		}
	}
	return nil
}

// serves reports whether the node's present process has said it is ready.
func (c *Child) serves() bool { return c.PID != 0 && c.readyPID() == c.PID }

// readyPID is the process that has said last that it serves the node, 0 if none has.
func (c *Child) readyPID() int {
	b, err := os.ReadFile(c.ready)
	var r ready
	if err != nil || json.Unmarshal(b, &r) != nil {
		return 0
	}
	return r.PID
}

// lastWords is the error with which a node ended, "" when it left none.
func (c *Child) lastWords() string {
	b, err := os.ReadFile(c.Log)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	last := string(lines[len(lines)-1])
	if why, ok := strings.CutPrefix(last, "millrace: "); ok {
		return why
	}
	return ""
}

// joins returns what a node is told to join: the other nodes that belong to the cluster
// already. Where there is none, node 1 founds it and the others join node 1.
func (n *Nodes) joins(c *Child) string {
	var members []string
	for _, other := range n.All {
		if other != c && !other.fresh() {
			members = append(members, other.Address)
		}
	}
	if len(members) == 0 && c != n.All[0] {
		return n.All[0].Address
	}
	return strings.Join(members, ",")
}

// StartAll starts every node that does not run and waits until all serve. Node 1
// founds a new cluster alone, before the others ask to join it; the nodes of an
// old one start at once, because it needs several before any of them can serve.
// A folder that somebody else serves is a *servedError before the first is started.
func (n *Nodes) StartAll(ctx context.Context) error {
	for _, c := range n.All {
		if !c.Running() {
			if err := c.free(); err != nil {
				return err
			}
		}
	}
	if founder := n.All[0]; founder.fresh() && n.joins(founder) == "" && !founder.Running() {
		if err := n.Start(founder); err != nil {
			return err
		}
		if err := n.AwaitReady(ctx, founder); err != nil {
			return err
		}
	}
	for _, c := range n.All {
		if !c.Running() {
			if err := n.Start(c); err != nil {
				return err
			}
		}
	}
	return n.AwaitReady(ctx, n.All...)
}

// Kill ends nodes with SIGKILL and waits until they are gone.
func (n *Nodes) Kill(children ...*Child) {
	for _, c := range children {
		if c.Running() {
			c.process.Kill()
		}
	}
	for _, c := range children {
		if c.exited != nil {
			<-c.exited
		}
	}
}

// Stop ends all nodes with SIGTERM, and those with SIGKILL that do not end in time.
func (n *Nodes) Stop() {
	for _, c := range n.All {
		if c.Running() {
			c.process.Signal(syscall.SIGTERM)
		}
	}
	patience := time.NewTimer(shutdownTimeout + 5*time.Second)
	defer patience.Stop()
	for _, c := range n.All {
		if c.exited == nil {
			continue
		}
		select {
		case <-c.exited:
		case <-patience.C:
			n.Kill(n.All...)
			return
		}
	}
}

// Addresses lists where the nodes are.
func (n *Nodes) Addresses() []string {
	var all []string
	for _, c := range n.All {
		all = append(all, c.Address)
	}
	return all
}

// freeAddresses returns n addresses of 127.0.0.1 that nobody listens on now.
func freeAddresses(n int) ([]string, error) {
	var all []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are chosen, so that they differ
		all = append(all, l.Addr().String())
	}
	return all, nil
}

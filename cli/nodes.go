package cli

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

	"millrace/replication/folder"
)

// nodes is a cluster of `serve` processes on this machine, children of this
// process, one data folder each. Its methods are called from one goroutine.
type nodes struct {
	all  []*child
	exe  string       // the program to run; "" is this one
	env  []string     // of the processes
	fork func(func()) // runs a function on the one thread that starts processes
	keep bool         // children outlive this process
}

// A child is one node: where it is, and the process that runs it now.
type child struct {
	id      int // from 1
	address string
	data    string // its data folder
	log     string
	ready   string

	pid     int
	process *os.Process
	exited  chan struct{} // closed when the process has ended; nil before the first
	state   *os.ProcessState
}

// newNodes lays out n nodes under dir, at the given addresses. Nothing runs yet.
// With keep, they go on running when this process ends. They are given this process's
// environment without what would configure them.
func newNodes(dir string, addresses []string, keep bool) *nodes {
	n := &nodes{keep: keep, env: withoutSettings(os.Environ())}
	for i, address := range addresses {
		data := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		n.all = append(n.all, &child{id: i + 1, address: address, data: data, log: data + ".log", ready: data + ".ready"})
	}
	n.fork = newForker()
	return n
}

// newForker returns what runs functions on the one thread that starts processes which
// are to die with this one. Pdeathsig follows the thread that forked, not the process:
// when that thread ends, its children are killed. So one goroutine starts them all and
// keeps its thread for as long as this process lives.
func newForker() func(func()) {
	calls := make(chan func())
	go func() { // the forker: lives as long as the process
		runtime.LockOSThread()
		for f := range calls {
			f()
		}
	}()
	return func(f func()) {
		done := make(chan struct{})
		calls <- func() { defer close(done); f() }
		<-done
	}
}

// fresh tells whether a node's folder has never been served.
func (c *child) fresh() bool {
	_, err := os.Stat(filepath.Join(c.data, nodeFile))
	return err != nil
}

// running tells whether the node's process runs.
func (c *child) running() bool {
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
func (c *child) free() error {
	if pid, used := folder.InUse(c.data); used {
		return &servedError{c.data, pid}
	}
	return nil
}

// start begins a node's process; awaitReady says when it serves. If another process serves
// its folder, it is a *servedError, and that one's ready file stays what it is.
func (n *nodes) start(c *child) error {
	if err := c.free(); err != nil {
		return err
	}
	exe, err := n.exe, error(nil)
	if exe == "" {
		if exe, err = os.Executable(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.data, 0o755); err != nil {
		return err
	}
	os.Remove(c.ready)
	logFile, err := os.OpenFile(c.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	args := []string{"serve", "--data-dir", c.data, "--listen", c.address, "--ready-file", c.ready}
	if c.fresh() {
		args = append(args, "--node-id", fmt.Sprint(c.id))
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
	apart(cmd.SysProcAttr)
	if !n.keep {
		dieWithParent(cmd.SysProcAttr)
	}
	n.fork(func() { err = cmd.Start() })
	if err != nil {
		return err
	}
	exited := make(chan struct{})
	c.pid, c.process, c.exited = cmd.Process.Pid, cmd.Process, exited
	go func() { // the waiter: ends with the process
		cmd.Wait()
		c.state = cmd.ProcessState
		close(exited)
	}()
	return nil
}

// awaitReady waits until nodes serve.
func (n *nodes) awaitReady(ctx context.Context, children ...*child) error {
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for _, c := range children {
		for !c.serves() {
			select {
			case <-c.exited:
				if why := c.lastWords(); why != "" {
					return fmt.Errorf("node %d did not start: %s", c.id, why)
				}
				return fmt.Errorf("node %d did not start: %s; its log is %s", c.id, c.state, c.log)
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.DeadlineExceeded) {
					return fail(StatusTimedOut, "node %d does not get ready; its log is %s", c.id, c.log)
				}
				return ctx.Err()
			case <-poll.C:
			}
		}
	}
	return nil
}

// serves tells whether the node's present process has said it is ready.
func (c *child) serves() bool { return c.pid != 0 && c.readyPID() == c.pid }

// readyPID is the process that has said last that it serves the node, 0 if none has.
func (c *child) readyPID() int {
	b, err := os.ReadFile(c.ready)
	var r ready
	if err != nil || json.Unmarshal(b, &r) != nil {
		return 0
	}
	return r.PID
}

// lastWords is the error with which a node ended, "" when it left none.
func (c *child) lastWords() string {
	b, err := os.ReadFile(c.log)
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
func (n *nodes) joins(c *child) string {
	var members []string
	for _, other := range n.all {
		if other != c && !other.fresh() {
			members = append(members, other.address)
		}
	}
	if len(members) == 0 && c != n.all[0] {
		return n.all[0].address
	}
	return strings.Join(members, ",")
}

// startAll starts every node that does not run and waits until all serve. Node 1
// founds a new cluster alone, before the others ask to join it; the nodes of an
// old one start at once, because it needs several before any of them can serve.
// A folder that somebody else serves is a *servedError before the first is started.
func (n *nodes) startAll(ctx context.Context) error {
	for _, c := range n.all {
		if !c.running() {
			if err := c.free(); err != nil {
				return err
			}
		}
	}
	if founder := n.all[0]; founder.fresh() && n.joins(founder) == "" && !founder.running() {
		if err := n.start(founder); err != nil {
			return err
		}
		if err := n.awaitReady(ctx, founder); err != nil {
			return err
		}
	}
	for _, c := range n.all {
		if !c.running() {
			if err := n.start(c); err != nil {
				return err
			}
		}
	}
	return n.awaitReady(ctx, n.all...)
}

// kill ends nodes with SIGKILL and waits until they are gone.
func (n *nodes) kill(children ...*child) {
	for _, c := range children {
		if c.running() {
			c.process.Kill()
		}
	}
	for _, c := range children {
		if c.exited != nil {
			<-c.exited
		}
	}
}

// stop ends all nodes with SIGTERM, and those with SIGKILL that do not end in time.
func (n *nodes) stop() {
	for _, c := range n.all {
		if c.running() {
			c.process.Signal(syscall.SIGTERM)
		}
	}
	patience := time.NewTimer(shutdownTimeout + 5*time.Second)
	defer patience.Stop()
	for _, c := range n.all {
		if c.exited == nil {
			continue
		}
		select {
		case <-c.exited:
		case <-patience.C:
			n.kill(n.all...)
			return
		}
	}
}

// addresses lists where the nodes are.
func (n *nodes) addresses() []string {
	var all []string
	for _, c := range n.all {
		all = append(all, c.address)
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

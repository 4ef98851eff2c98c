package testcluster

import (
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"millrace/cli/local"
)

// patience guards against hanging; a slow machine never fails a test by it.
const patience = 60 * time.Second

// forker starts all processes. It is begun by the first.
var forker = sync.OnceValue(local.NewForker)

// A Process runs beside a test. Any goroutine may use it. On Linux the kernel kills it when
// this process ends, be it by a panic or by the tests' own time limit; what ends while this
// process goes on is for the test to end. A nil Process is one that has never run.
type Process struct {
	process *os.Process
	exited  chan struct{}    // closed when the process has ended
	state   *os.ProcessState // set before that
}

// Start starts a command as a Process, in a process group of its own.
func Start(cmd *exec.Cmd) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	local.Apart(cmd.SysProcAttr)
	local.DieWithParent(cmd.SysProcAttr)
	if err := forker().Start(cmd); err != nil {
		return nil, err
	}
	p := &Process{process: cmd.Process, exited: make(chan struct{})}
	go func() { // the waiter: ends with the process
		cmd.Wait()
		p.state = cmd.ProcessState
		close(p.exited)
	}()
	return p, nil
}

// PID is the number of the process, which another may have once this one has ended; 0 for one
// that has never run.
func (p *Process) PID() int {
	if p == nil {
		return 0
	}
	return p.process.Pid
}

// Running reports whether the process runs or is paused.
func (p *Process) Running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Signal sends a signal, to a process that runs.
func (p *Process) Signal(s os.Signal) {
	if p.Running() {
		p.process.Signal(s)
	}
}

// Wait waits until the process has ended and says how; nil for one that has never run.
func (p *Process) Wait() *os.ProcessState {
	if p == nil {
		return nil
	}
	<-p.exited
	return p.state
}

// Kill ends the process as kill -9 does, paused or not, and waits until it is gone.
func (p *Process) Kill() {
	p.Signal(os.Kill)
	p.Wait()
}

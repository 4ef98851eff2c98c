// Package process starts processes that do not outlive this one, and says what
// they use.
package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// A Process is a child of this process, the leader of a process group of its
// own: Ctrl-C at a terminal does not reach it, and what it starts ends with it.
// It is killed by the kernel when this process ends, however that comes about.
// Its methods may be called from several goroutines.
type Process struct {
	PID    int
	cmd    *exec.Cmd
	exited chan struct{} // closed when it has ended
}

// Start starts a command, whose SysProcAttr it sets.
func Start(cmd *exec.Cmd) (*Process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	fork(func() { err = cmd.Start() })
	if err != nil {
		return nil, err
	}
	p := &Process{PID: cmd.Process.Pid, cmd: cmd, exited: make(chan struct{})}
	go func() { // the waiter: ends with the process
		cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

// fork runs a function on the one thread that starts processes. Pdeathsig
// follows the thread that forked, not the process: when that thread ends, its
// children are killed. So one goroutine starts them all and keeps its thread.
var fork = sync.OnceValue(func() func(func()) {
	calls := make(chan func())
	go func() { // the forker: lives as long as this process
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
})()

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Running tells whether the process has not ended yet.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// Kill ends the process and its group with SIGKILL, and waits until it is gone.
func (p *Process) Kill() {
	if p.Running() {
		syscall.Kill(-p.PID, syscall.SIGKILL)
	}
	<-p.exited
}

// State says how the process ended. It has.
func (p *Process) State() *os.ProcessState {
	<-p.exited
	return p.cmd.ProcessState
}

// Run runs a command to its end, or until ctx ends: then it is killed. It
// returns the CPU time the command took, and an error that has the last of what
// it wrote to standard error, unless that goes elsewhere.
func Run(ctx context.Context, cmd *exec.Cmd) (cpu time.Duration, err error) {
	var stderr tail
	if cmd.Stderr == nil {
		cmd.Stderr = &stderr
	}
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	p, err := Start(cmd)
	if err != nil {
		return 0, err
	}
	defer p.Kill()
	select {
	case <-p.Exited():
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	state := p.State()
	cpu = state.UserTime() + state.SystemTime()
	if !state.Success() {
		return cpu, fmt.Errorf("%s: %s: %s", filepath.Base(cmd.Args[0]), state, strings.TrimSpace(string(stderr)))
	}
	return cpu, nil
}

// Output runs a command, as Run does, and returns what it wrote to standard output.
func Output(ctx context.Context, cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout = &out
	_, err := Run(ctx, cmd)
	return strings.TrimSpace(out.String()), err
}

// A tail keeps the last of what is written to it.
type tail []byte

const tailBytes = 4096

func (t *tail) Write(b []byte) (int, error) {
	*t = append(*t, b...)
	if len(*t) > tailBytes {
		*t = append((*t)[:0], (*t)[len(*t)-tailBytes:]...)
	}
	return len(b), nil
}

// Usage says what the process uses now.
func (p *Process) Usage() (Usage, error) {
	if !p.Running() {
		return Usage{}, errors.New("the process has ended")
	}
	return usageOf(p.PID)
}

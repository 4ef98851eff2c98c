package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// fork runs a function on the one thread that starts processes. The kernel ties
// a child's parent-death signal to the thread that made it, so that thread must
// live as long as the program.
var fork = func() func(func()) {
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
}()

// A process is one child of this program, which does not outlive it.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{}
}

// start starts a command whose output goes to the file log.
func start(log string, env []string, name string, args ...string) (*process, error) {
	f, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = f, f
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	fork(func() { err = cmd.Start() })
	if err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, exited: make(chan struct{})}
	go func() { // ends with the process
		cmd.Wait()
		close(p.exited)
	}()
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// kill ends the process with SIGKILL and waits until it is gone.
func (p *process) kill() {
	syscall.Kill(-p.pid(), syscall.SIGKILL)
	<-p.exited
}

// stop ends the process with SIGTERM, and after patience with SIGKILL.
func (p *process) stop(patience time.Duration) {
	syscall.Kill(p.pid(), syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.kill()
	}
}

func (p *process) gone() bool {
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// clockTick is USER_HZ, in which /proc counts; it is 100 on every Linux.
const clockTick = 10 * time.Millisecond

// cpuOf returns the processor time a process has used, 0 when it is gone.
func cpuOf(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return parseStat(b)
}

// parseStat returns utime and stime of the content of /proc/PID/stat. The name of
// the program, in parentheses, may contain anything.
func parseStat(b []byte) time.Duration {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0
	}
	fields := strings.Fields(string(b[i+1:])) // from the third on
	if len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * clockTick
}

// memoryOf returns a line of /proc/PID/status in bytes: VmHWM, the most a process
// has had in memory, or VmRSS, what it has now.
func memoryOf(pid int, line string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return parseStatus(b, line)
}

func parseStatus(b []byte, line string) int64 {
	for l := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(l, line+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

// run runs a command to its end and returns its standard output and the
// processor time it used. It is killed after patience.
func run(patience time.Duration, name string, args ...string) ([]byte, time.Duration, error) {
	var out, errs bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	fork(func() { err = cmd.Start() })
	if err != nil {
		return nil, 0, err
	}
	timer := time.AfterFunc(patience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err = cmd.Wait()
	timer.Stop()
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if err != nil {
		text := strings.TrimSpace(errs.String())
		return nil, cpu, fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, text[max(0, len(text)-500):])
	}
	return out.Bytes(), cpu, nil
}

// diskOf returns the bytes of all files below a folder.
func diskOf(dir string) (bytes int64) {
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if info, err := d.Info(); err == nil {
				if st, ok := info.Sys().(*syscall.Stat_t); ok {
					bytes += st.Blocks * 512
				}
			}
		}
		return nil
	})
	return bytes
}

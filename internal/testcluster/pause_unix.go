//go:build unix

package testcluster

import "syscall"

// Pause stops the process where it is: it keeps its connections and locks and does nothing.
func (p *Process) Pause() { p.Signal(syscall.SIGSTOP) }

// Resume lets a paused process go on.
func (p *Process) Resume() { p.Signal(syscall.SIGCONT) }

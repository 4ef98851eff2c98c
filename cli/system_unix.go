//go:build unix

package cli

import (
	"context"
	"os/exec"
	"syscall"
)

// What the network says, as this system says it.
const (
	errnoRefused      = syscall.ECONNREFUSED
	errnoInUse        = syscall.EADDRINUSE
	errnoNotAvailable = syscall.EADDRNOTAVAIL
	errnoNotAllowed   = syscall.EACCES
	errnoNoHost       = syscall.EHOSTUNREACH
	errnoNoNet        = syscall.ENETUNREACH
)

// keepsLogs is nil where a broker can keep its logs.
func keepsLogs() error { return nil }

// shell is the command that has the system's shell run a line.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// apart keeps a child from the signals of this process's terminal.
func apart(attr *syscall.SysProcAttr) { attr.Setpgid = true }

//go:build unix

package cli

import (
	"context"
	"os/exec"
	"syscall"
)

// shell is the command that has the system's shell run a line.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

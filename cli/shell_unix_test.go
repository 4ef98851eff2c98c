//go:build unix

package cli

import (
	"os/exec"
	"syscall"
)

// endsWhole has a command's context end what the command started, too.
func endsWhole(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	apart(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

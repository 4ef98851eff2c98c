//go:build unix

package cli

import (
	"os/exec"
	"syscall"

	"millrace/cli/local"
)

// endsWhole has a command's context end what the command started, too.
func endsWhole(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	local.Apart(cmd.SysProcAttr)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}

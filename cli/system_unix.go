//go:build unix

package cli

import (
	"context"
	"os"
	"os/exec"
	"syscall"
)

// shell is the command that has the system's shell run a line.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

// foreignFolder tells whose a folder is that root is about to write in and that is another
// user's: what is made there has mode 0600 and is root's.
func foreignFolder(dir string) (user uint32, foreign bool) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return 0, false
	}
	return stat.Uid, stat.Uid != 0
}

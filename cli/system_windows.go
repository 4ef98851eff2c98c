package cli

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"syscall"
)

// shell is the command that has the system's shell run a line.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, cmp.Or(os.Getenv("ComSpec"), "cmd.exe"))
	// cmd.exe has its own rules for quotes: the line is handed over as it is.
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd.exe /S /C "` + line + `"`}
	return cmd
}

// foreignFolder is of systems where files belong to users by number.
func foreignFolder(string) (user uint32, foreign bool) { return 0, false }

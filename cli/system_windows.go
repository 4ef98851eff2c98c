package cli

import (
	"cmp"
	"context"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/windows"
)

// What the network says, as this system says it: package syscall's names are other
// numbers, which Windows never answers with.
const (
	errnoRefused      = windows.WSAECONNREFUSED
	errnoInUse        = windows.WSAEADDRINUSE
	errnoNotAvailable = windows.WSAEADDRNOTAVAIL
	errnoNotAllowed   = windows.WSAEACCES
	errnoNoHost       = windows.WSAEHOSTUNREACH
	errnoNoNet        = windows.WSAENETUNREACH
)

// keepsLogs says that Windows cannot do what a log needs of its files: remove and
// replace them while they are mapped, and sync the names in a folder.
func keepsLogs() error {
	return fail(StatusFailed, "brokers do not run on Windows; run one in WSL or a container, and name it with --brokers")
}

// shell is the command that has the system's shell run a line.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, cmp.Or(os.Getenv("ComSpec"), "cmd.exe"))
	// cmd.exe has its own rules for quotes: the line is handed over as it is.
	cmd.SysProcAttr = &syscall.SysProcAttr{CmdLine: `cmd.exe /S /C "` + line + `"`}
	return cmd
}

// apart keeps a child from the signals of this process's terminal.
func apart(attr *syscall.SysProcAttr) { attr.CreationFlags |= windows.CREATE_NEW_PROCESS_GROUP }

package local

import (
	"syscall"

	"millrace/cli/term"

	"golang.org/x/sys/windows"
)

// keepsLogs says that Windows cannot do what a log needs of its files: remove and
// replace them while they are mapped, and sync the names in a folder.
func keepsLogs() error {
	return term.Fail(term.StatusFailed, "brokers do not run on Windows; run one in WSL or a container, and name it with --brokers")
}

// Apart keeps a child from the signals of this process's terminal.
func Apart(attr *syscall.SysProcAttr) { attr.CreationFlags |= windows.CREATE_NEW_PROCESS_GROUP }

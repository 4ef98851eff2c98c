//go:build unix

package local

import "syscall"

// keepsLogs is nil where a broker can keep its logs.
func keepsLogs() error { return nil }

// Apart keeps a child from the signals of this process's terminal.
func Apart(attr *syscall.SysProcAttr) { attr.Setpgid = true }

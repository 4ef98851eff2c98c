package local

import "syscall"

// DieWithParent has the kernel kill a child when the thread that started it
// ends. SIGKILL and not SIGTERM: a node left behind would keep its port and its
// folder from the next one, and whatever it acknowledged is on disk.
func DieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

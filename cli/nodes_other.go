//go:build !linux

package cli

import "syscall"

// dieWithParent does nothing where the kernel has no such service: a child whose
// parent is killed with -9 stays.
func dieWithParent(*syscall.SysProcAttr) {}

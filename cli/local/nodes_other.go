//go:build !linux

package local

import "syscall"

// DieWithParent does nothing where the kernel has no such service: a child whose
// parent is killed with -9 stays.
func DieWithParent(*syscall.SysProcAttr) {}

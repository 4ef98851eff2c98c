//go:build !linux

package segment

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func fdatasync(fd int) error                  { return unix.Fsync(fd) }
func fallocate(fd int, off, size int64) error { return syscall.EOPNOTSUPP }
func punch(fd int, off, size int64) error     { return nil }
func forget(fd int, off, size int64) error    { return nil }

func stateOf(path string) (fileState, error) { return fileState{}, syscall.EOPNOTSUPP }

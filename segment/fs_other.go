//go:build !linux

package segment

import "syscall"

// What only Linux does is left out where nothing depends on it. Room is what Allocate
// promises, and zeros take it as well.

func fallocate(fd int, off, size int64) error { return syscall.EOPNOTSUPP }
func punch(fd int, off, size int64) error     { return nil }
func dropCache(fd int, off, size int64) error { return nil }

func stateOf(path string) (fileState, error) { return fileState{}, syscall.EOPNOTSUPP }

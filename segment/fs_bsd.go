//go:build unix && !linux && !darwin

package segment

import "golang.org/x/sys/unix"

func fsync(fd int) error { return unix.Fsync(fd) }

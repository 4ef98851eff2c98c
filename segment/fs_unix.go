//go:build unix && !linux

package segment

import "golang.org/x/sys/unix"

// pwritev writes the first of bufs: not every system has the call for several.
func pwritev(fd int, bufs [][]byte, off int64) (int, error) { return unix.Pwrite(fd, bufs[0], off) }

func fdatasync(fd int) error { return fsync(fd) }

package segment

import (
	"errors"

	"golang.org/x/sys/windows"
)

// On Windows logs are read and checked, not kept: a segment is removed while it is
// mapped, its index files are replaced while they are mapped, a mapping is longer than
// its file, and the names in a folder are synced, none of which Windows does. A file
// can be written and synced all the same; that its folder cannot is where a log ends.

func pwritev(fd int, bufs [][]byte, off int64) (int, error) {
	var n uint32
	at := windows.Overlapped{Offset: uint32(off), OffsetHigh: uint32(off >> 32)}
	err := windows.WriteFile(windows.Handle(fd), bufs[0], &n, &at)
	return int(n), err
}

func fdatasync(fd int) error { return windows.FlushFileBuffers(windows.Handle(fd)) }

// fsync is of folders.
func fsync(int) error { return errors.ErrUnsupported }

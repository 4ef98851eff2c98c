package segment

import (
	"errors"

	"golang.org/x/sys/unix"
)

// fsync has the drive itself write what it was given. fsync(2) on macOS ends when the drive has
// the bytes, in a cache that a loss of power empties; fcntl(2) has F_FULLFSYNC for what fsync
// means elsewhere. A file system of the network may not know it, as in os.File.Sync.
func fsync(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0)
	if errors.Is(err, unix.ENOTSUP) {
		err = unix.Fsync(fd)
	}
	return err
}

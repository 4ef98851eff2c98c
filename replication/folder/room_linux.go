package folder

import (
	"errors"
	"os"
	"syscall"
)

// keepSize is FALLOC_FL_KEEP_SIZE, which package syscall has no name for.
const keepSize = 0x1

// takeRoom takes disk room for the first n bytes of a file, whose length stays. Where
// the file system cannot, nobody has promised anything.
func takeRoom(f *os.File, n int64) error {
	for {
		err := syscall.Fallocate(int(f.Fd()), keepSize, 0, n)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.EOPNOTSUPP), errors.Is(err, syscall.ENOSYS):
			return nil
		default:
			return err
		}
	}
}

package segment

import (
	"time"

	"golang.org/x/sys/unix"
)

func pwritev(fd int, bufs [][]byte, off int64) (int, error) { return unix.Pwritev(fd, bufs, off) }

func fdatasync(fd int) error { return unix.Fdatasync(fd) }
func fsync(fd int) error     { return unix.Fsync(fd) }

// fallocate extends the file's length as well: a write below the length then
// changes no inode, which takes a third off a small write with fdatasync
// (171 against 262 µs at 1 KiB on ext4) next to FALLOC_FL_KEEP_SIZE.
func fallocate(fd int, off, size int64) error { return unix.Fallocate(fd, 0, off, size) }

func punch(fd int, off, size int64) error {
	return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, size)
}

func dropCache(fd int, off, size int64) error {
	return unix.Fadvise(fd, off, size, unix.FADV_DONTNEED)
}

// stateOf returns the state of the file at path.
func stateOf(path string) (fileState, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileState{}, err
	}
	return fileState{inode: st.Ino, changed: time.Unix(st.Ctim.Unix())}, nil
}

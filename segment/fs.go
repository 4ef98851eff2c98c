package segment

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
)

// An FS is the file system as a log needs it. OS is the real one; a test double
// may stop at any operation and forget what was not synced. Files are real
// files in either case, since they are mapped.
type FS interface {
	// OpenFile opens name with the flags of package os; new files get mode 0600: what they hold
	// is for who may consume it, and not for whoever has a name on the machine.
	OpenFile(name string, flag int) (File, error)
	// MkdirAll makes a folder and those above it, of mode 0700.
	MkdirAll(name string) error
	// Rename replaces newName if it exists. It is durable once its folder is synced.
	Rename(oldName, newName string) error
	Remove(name string) error
	// ReadDir returns the names in a folder, sorted.
	ReadDir(name string) ([]string, error)
	// OpenDir opens a folder. Who changes a name in it and must know that the change
	// lasts opens it before, so that nothing has changed if that is refused.
	OpenDir(name string) (Dir, error)
}

// A Dir is an open folder.
type Dir interface {
	// Sync makes the names in the folder durable. After an error nobody knows which are.
	Sync() error
	Close() error
}

// A File is one open file. Its methods may be called at the same time.
type File interface {
	io.ReaderAt
	// Pwritev writes all of bufs one after another at off, or fails.
	// bufs is consumed; the bytes are neither changed nor retained.
	Pwritev(bufs [][]byte, off int64) error
	// Sync makes the file's bytes and length durable. Once it has failed, what
	// was written since it last succeeded may be lost whatever a later call says.
	Sync() error
	// Allocate takes room on the disk for bytes from to to, which hold nothing
	// yet and read as zero, and makes the file at least to bytes long.
	Allocate(from, to int64) error
	// DropCache says that bytes from to to, which are synced, will not be read soon: the
	// system may drop them from the page cache.
	DropCache(from, to int64)
	// Punch gives back the disk room of bytes from to to, which read as zero
	// afterwards. The length stays.
	Punch(from, to int64) error
	Size() (int64, error)
	Fd() uintptr
	Close() error
}

// OS is the operating system's file system.
var OS = NewOS(Kernel)

// A System is the calls by which bytes, names and room come to be on the disk: Kernel, or a
// test that counts what it passes on. That a call is made a count shows; what it is worth,
// only a machine that loses power.
type System interface {
	// Pwritev writes some of bufs, one after another from off on, and returns how many bytes.
	Pwritev(fd int, bufs [][]byte, off int64) (int, error)
	// Fdatasync makes a file's bytes and length durable.
	Fdatasync(fd int) error
	// Fsync makes the names in a folder durable.
	Fsync(fd int) error
	// Fallocate takes room for size bytes from off on, and makes the file as long.
	Fallocate(fd int, off, size int64) error
}

// Kernel is the operating system's own calls.
var Kernel System = kernel{}

type kernel struct{}

func (kernel) Pwritev(fd int, bufs [][]byte, off int64) (int, error) { return pwritev(fd, bufs, off) }
func (kernel) Fdatasync(fd int) error                                { return fdatasync(fd) }
func (kernel) Fsync(fd int) error                                    { return fsync(fd) }
func (kernel) Fallocate(fd int, off, size int64) error               { return fallocate(fd, off, size) }

// NewOS returns the operating system's file system over some system calls.
func NewOS(sys System) FS { return osFS{sys} }

// IsNoSpace reports whether err says that the disk or a quota is full.
func IsNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

type osFS struct{ sys System }

func (fs osFS) OpenFile(name string, flag int) (File, error) {
	f, err := os.OpenFile(name, flag, 0o600)
	if err != nil {
		return nil, err
	}
	return &osFile{f, fs.sys}, nil
}

func (osFS) MkdirAll(name string) error           { return os.MkdirAll(name, 0o700) }
func (osFS) Rename(oldName, newName string) error { return os.Rename(oldName, newName) }
func (osFS) Remove(name string) error             { return os.Remove(name) }

func (osFS) ReadDir(name string) ([]string, error) {
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (fs osFS) OpenDir(name string) (Dir, error) {
	d, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return &osDir{osFile{d, fs.sys}}, nil
}

// An osFile keeps the descriptor inside os.File, which waits for calls in
// flight before it closes it.
type osFile struct {
	*os.File
	sys System
}

// An osDir is synced by fsync: what fdatasync leaves out of a folder is not said
// anywhere.
type osDir struct{ osFile }

func (d *osDir) Sync() error { return d.sync("sync folder", d.sys.Fsync) }

func (f *osFile) Pwritev(bufs [][]byte, off int64) error {
	var werr error
	err := f.control(func(fd int) {
		werr = writeAll(func(p [][]byte, off int64) (int, error) { return f.sys.Pwritev(fd, p, off) }, bufs, off)
	})
	return f.wrap("write", errors.Join(err, werr))
}

func (f *osFile) Sync() error { return f.sync("sync", f.sys.Fdatasync) }

func (f *osFile) sync(verb string, call func(fd int) error) error {
	var serr error
	err := f.control(func(fd int) {
		for {
			if serr = call(fd); serr != syscall.EINTR {
				return
			}
		}
	})
	return f.wrap(verb, errors.Join(err, serr))
}

func (f *osFile) Allocate(from, to int64) error {
	var aerr error
	err := f.control(func(fd int) {
		for {
			if aerr = f.sys.Fallocate(fd, from, to-from); aerr != syscall.EINTR {
				return
			}
		}
	})
	if errors.Is(aerr, syscall.EOPNOTSUPP) || errors.Is(aerr, syscall.ENOSYS) {
		aerr = writeZeros(f, from, to) // room is what is promised, so take it the slow way
	}
	return f.wrap("allocate", errors.Join(err, aerr))
}

func (f *osFile) DropCache(from, to int64) {
	_ = f.control(func(fd int) { _ = dropCache(fd, from, to-from) }) // advice: at worst it is not taken
}

func (f *osFile) Punch(from, to int64) error {
	var perr error
	err := f.control(func(fd int) { perr = punch(fd, from, to-from) })
	return f.wrap("punch", errors.Join(err, perr))
}

func (f *osFile) Size() (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

func (f *osFile) control(call func(fd int)) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return c.Control(func(fd uintptr) { call(int(fd)) })
}

func (f *osFile) wrap(verb string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", verb, f.Name(), err)
}

// maxVectors is IOV_MAX of Linux and the BSDs.
const maxVectors = 1024

// writeAll calls write until all of bufs is written: a call may write less than
// it was asked to, be interrupted, or take no more than maxVectors pieces.
func writeAll(write func(bufs [][]byte, off int64) (int, error), bufs [][]byte, off int64) error {
	for {
		for len(bufs) > 0 && len(bufs[0]) == 0 {
			bufs = bufs[1:]
		}
		if len(bufs) == 0 {
			return nil
		}
		n, err := write(bufs[:min(len(bufs), maxVectors)], off)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n <= 0 {
			return io.ErrShortWrite
		}
		off += int64(n)
		for n > 0 {
			k := min(n, len(bufs[0]))
			bufs[0] = bufs[0][k:]
			n -= k
			if len(bufs[0]) == 0 {
				bufs = bufs[1:]
			}
		}
	}
}

func writeZeros(f File, from, to int64) error {
	zeros := make([]byte, min(to-from, 1<<20))
	for from < to {
		n := min(to-from, int64(len(zeros)))
		if err := f.Pwritev([][]byte{zeros[:n]}, from); err != nil {
			return err
		}
		from += n
	}
	return nil
}

// ReadFile returns the bytes of a file of at most limit bytes.
func ReadFile(fs FS, name string, limit int64) ([]byte, error) {
	f, err := fs.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", name, size, limit)
	}
	p := make([]byte, size)
	if _, err := f.ReadAt(p, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return p, nil
}

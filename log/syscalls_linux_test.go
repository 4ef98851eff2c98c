package log

import (
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// countedCalls counts the calls that it passes on.
type countedCalls struct {
	segment.System
	writes, data, folders, room int
}

func (c *countedCalls) Pwritev(fd int, bufs [][]byte, off int64) (int, error) {
	c.writes++
	return c.System.Pwritev(fd, bufs, off)
}

func (c *countedCalls) Fdatasync(fd int) error {
	c.data++
	return c.System.Fdatasync(fd)
}

func (c *countedCalls) Fsync(fd int) error {
	c.folders++
	return c.System.Fsync(fd)
}

func (c *countedCalls) Fallocate(fd int, off, size int64) error {
	c.room++
	return c.System.Fallocate(fd, off, size)
}

func (c *countedCalls) String() string {
	return fmt.Sprintf("pwritev %d, fdatasync %d, fsync %d, fallocate %d", c.writes, c.data, c.folders, c.room)
}

// TestSystemCallsOfEachChange counts the system calls by which things come to be on the
// disk. One too few loses what was acknowledged, when the power goes; one too many
// costs every append.
func TestSystemCallsOfEachChange(t *testing.T) {
	calls := &countedCalls{System: segment.Kernel}
	cfg := Config{FS: segment.NewOS(calls)}
	dir := t.TempDir() + "/p"
	var l *Log
	count := func(what, want string, do func() error) {
		t.Helper()
		*calls = countedCalls{System: segment.Kernel}
		if err := do(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if got := calls.String(); got != want {
			t.Errorf("%s: %s, want %s", what, got, want)
		}
	}
	open := func() (err error) {
		l, err = Open(dir, testID, cfg)
		return err
	}
	store := func() error { return l.StoreLog(command(t, l.NextIndex(), 1, "a")) }
	write := func() error {
		_, err := l.WriteLogs([]*raft.Log{command(t, l.NextIndex(), 1, "a")})
		return err
	}
	// A write is of frames, of a header, of a manifest, or of one of two index files, which
	// are not synced.
	//
	// A new log: its manifest, the names in its folder and in the one above.
	count("create", "pwritev 1, fdatasync 1, fsync 2, fallocate 0", open)
	// Its first segment: the header, and a manifest; the segment's name, and the
	// manifest's. Then the entry.
	count("the first append", "pwritev 3, fdatasync 3, fsync 2, fallocate 1", store)
	count("an append", "pwritev 1, fdatasync 1, fsync 0, fallocate 0", store)
	count("an append that is synced later", "pwritev 1, fdatasync 0, fsync 0, fallocate 0", write)
	count("a flush", "pwritev 0, fdatasync 1, fsync 0, fallocate 0", l.Flush)
	count("a flush of nothing", "pwritev 0, fdatasync 0, fsync 0, fallocate 0", l.Flush)
	count("a roll", "pwritev 4, fdatasync 2, fsync 2, fallocate 1", l.Roll)
	if err := write(); err != nil {
		t.Fatal(err)
	}
	count("a roll of what is not synced", "pwritev 4, fdatasync 3, fsync 2, fallocate 1", l.Roll)
	if err := write(); err != nil {
		t.Fatal(err)
	}
	count("a checkpoint", "pwritev 3, fdatasync 2, fsync 1, fallocate 0", l.Checkpoint)
	if err := write(); err != nil {
		t.Fatal(err)
	}
	count("a trim", "pwritev 1, fdatasync 2, fsync 1, fallocate 0", func() error { _, err := l.Drop(l.EndOffset(), 0); return err })
	count("a cut", "pwritev 3, fdatasync 1, fsync 1, fallocate 0", func() error {
		if err := l.StoreLog(noop(l.NextIndex(), 2)); err != nil {
			return err
		}
		calls.writes, calls.data = 0, 0
		return l.DeleteRange(l.NextIndex()-1, l.NextIndex()-1)
	})
	count("a clean close", "pwritev 0, fdatasync 0, fsync 0, fallocate 0", func() error { return l.Close(true) })
	count("an open", "pwritev 0, fdatasync 0, fsync 1, fallocate 0", open)
	if err := store(); err != nil {
		t.Fatal(err)
	}
	count("an unclean close", "pwritev 0, fdatasync 0, fsync 0, fallocate 0", func() error { return l.Close(false) })
	// What a recovery keeps it writes again, and syncs.
	count("an open after a crash", "pwritev 1, fdatasync 1, fsync 1, fallocate 0", open)
	l.Close(false)
}

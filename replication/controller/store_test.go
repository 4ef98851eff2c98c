package controller

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// A troubledLog is a log whose transactions answer what a test wants.
type troubledLog struct {
	Log
	trouble func() (err error, done bool) // an error, unless nil, with done if it is done all the same
}

func (l *troubledLog) do(do func() error) error {
	if l.trouble == nil {
		return do()
	}
	err, done := l.trouble()
	if err == nil || done {
		return cmp.Or(do(), err)
	}
	return err
}

func (l *troubledLog) StoreLogs(logs []*raft.Log) error {
	return l.do(func() error { return l.Log.StoreLogs(logs) })
}

func (l *troubledLog) DeleteRange(min, max uint64) error {
	return l.do(func() error { return l.Log.DeleteRange(min, max) })
}

// testStore returns a store whose disk may fail, with n entries of term 1.
func testStore(t *testing.T, n uint64) (s *store, disk *troubledLog, path string) {
	path = filepath.Join(t.TempDir(), "log")
	db, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	disk = &troubledLog{Log: db}
	s = &store{Log: disk, logger: slog.New(slog.DiscardHandler), closing: make(chan struct{})}
	s.member = &testUser{}
	s.live.Store(true)
	for i := range n {
		if err := s.StoreLog(metaEntry(i+1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	return s, disk, path
}

// A testUser remembers why the member that it stands for had to stop.
type testUser struct {
	mu      sync.Mutex
	stopped error // nil: it need not
}

func (u *testUser) stop(cause error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.stopped == nil {
		u.stopped = cause
	}
}

func (u *testUser) votesRecovered() {}

// stopped is why the member must not go on, nil if it may.
func (s *store) stopped() error {
	u := s.member.(*testUser)
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.stopped
}

func metaEntry(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: fmt.Append(nil, index, term)}
}

// holds checks that the log ends with these terms, one an entry.
func (s *store) holds(t *testing.T, terms ...uint64) {
	t.Helper()
	last, err := s.LastIndex()
	if err != nil || last != uint64(len(terms)) {
		t.Fatalf("the log ends at entry %d, %v, want %d", last, err, len(terms))
	}
	for i, term := range terms {
		var l raft.Log
		if err := s.GetLog(uint64(i+1), &l); err != nil || l.Term != term {
			t.Fatalf("entry %d is of term %d, %v, want %d", i+1, l.Term, err, term)
		}
	}
}

// A write that failed may have happened. Raft does not know of its entries, and stores
// others in their place: a start that found the rest behind them would take them for
// what follows, and an old term for the log's last.
func TestEntriesThatRaftDoesNotKnowOfGo(t *testing.T) {
	s, disk, _ := testStore(t, 3)
	disk.trouble = func() (error, bool) { return syscall.EIO, true }
	if err := s.StoreLogs([]*raft.Log{metaEntry(4, 1), metaEntry(5, 1), metaEntry(6, 1)}); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	disk.trouble = nil
	s.holds(t, 1, 1, 1, 1, 1, 1) // else the test is of nothing
	if err := s.StoreLogs([]*raft.Log{metaEntry(4, 2)}); err != nil {
		t.Fatal(err)
	}
	s.holds(t, 1, 1, 1, 2)
}

// Raft goes on as if a suffix were there that was cut for one that could not be stored,
// and asks for its entries for ever. So it is not told before that is stored.
func TestACutIsFollowedByWhatReplacesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, disk, _ := testStore(t, 5)
		s.committed.Store(2)
		tries := 0
		disk.trouble = func() (error, bool) {
			tries++
			if tries == 1 { // the cut
				return syscall.EIO, true
			}
			if tries < 6 {
				return syscall.ENOSPC, tries == 4
			}
			return nil, false
		}
		if err := s.DeleteRange(4, 5); err != nil {
			t.Fatalf("what is cut is cut: %v", err)
		}
		if err := s.StoreLogs([]*raft.Log{metaEntry(4, 2)}); err != nil {
			t.Fatal(err)
		}
		s.holds(t, 1, 1, 1, 2)
		// Without a cut, Raft is told: a leader steps down, a follower is sent them again.
		disk.trouble = func() (error, bool) { return syscall.ENOSPC, false }
		if err := s.StoreLogs([]*raft.Log{metaEntry(5, 2)}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		// Nor is it a cut if nothing happened.
		if err := s.DeleteRange(4, 4); !errors.Is(err, syscall.ENOSPC) || s.cut {
			t.Fatal(err, s.cut)
		}
		// A broken disk stops the member, which says so.
		disk.trouble = nil
		if err := s.DeleteRange(4, 4); err != nil {
			t.Fatal(err)
		}
		if err := s.stopped(); err != nil {
			t.Fatal(err)
		}
		disk.trouble = func() (error, bool) { return syscall.EIO, false }
		if err := s.StoreLogs([]*raft.Log{metaEntry(4, 3)}); !errors.Is(err, syscall.EIO) || !errors.Is(s.stopped(), syscall.EIO) {
			t.Fatalf("%v, and the member is stopped by %v", err, s.stopped())
		}
		// Who waits for a full disk ends with the node.
		disk.trouble = func() (error, bool) { return syscall.ENOSPC, false }
		closing := make(chan struct{})
		s.closing = closing
		ended, returned := make(chan struct{}), false
		go func() {
			defer close(ended)
			s.StoreLogs([]*raft.Log{metaEntry(4, 3)})
			returned = true
		}()
		time.Sleep(time.Minute)
		close(closing)
		if <-ended; returned {
			t.Error("Raft was told that entries are stored, or went on without")
		}
	})
}

// The log is read through a mapping. A page that the disk does not give ends the member,
// not the process.
func TestAPageOfTheControllersLogThatCannotBeReadEndsTheMember(t *testing.T) {
	s, _, path := testStore(t, 0)
	for i := range uint64(64) {
		l := metaEntry(i+1, 1)
		l.Data = []byte(strings.Repeat("x", 2000)) // pages of its own
		if err := s.StoreLog(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Truncate(path, 4*int64(os.Getpagesize())); err != nil { // the rest faults
		t.Fatal(err)
	}
	ended, returned := make(chan struct{}), false
	go func() {
		defer close(ended)
		for i := range uint64(64) {
			s.GetLog(i+1, new(raft.Log))
		}
		returned = true
	}()
	if <-ended; returned {
		t.Fatal("everything could be read: the test is of nothing")
	}
	if err := s.stopped(); err == nil || !strings.Contains(err.Error(), "of the controller's log") {
		t.Error(err)
	}
}

package log

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// TestAFaultAtAnyOperationIsSurvived is S20 and S21 operation by operation: one
// call fails, with EIO or ENOSPC, and the disk is well again. With ENOSPC the log
// either goes on as if nothing had been asked, or is failed. Opened again it holds
// what was acknowledged, and what it shows then survives a loss of power, even
// though a sync failed: what the page cache shows may never have been written.
func TestAFaultAtAnyOperationIsSurvived(t *testing.T) {
	for name, st := range faultStories {
		for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
			t.Run(fmt.Sprintf("%s/%v", name, fault), func(t *testing.T) {
				t.Parallel()
				faultEverywhere(t, st.cfg, fault, st.run)
			})
		}
	}
}

var small = [2]int{1, 40}

// faultStories begin with an open log.
var faultStories = map[string]struct {
	cfg Config
	run func(s *story) error
}{
	"append": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
		return errors.Join(s.store(1, [2]int{}), s.store(1, small), s.store(1, [2]int{3, 700}, small), s.store(1, [2]int{1, 1500}), s.store(2, [2]int{}, [2]int{1, 5000}, small))
	}},
	"cut": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
		return errors.Join(s.store(1, [2]int{}, [2]int{1, 2000}), s.store(1, [2]int{1, 1900}), s.store(1, small, small), s.cut(5), s.cut(2), s.store(3, small))
	}},
	"drop": {Config{SegmentBytes: 2 << 10}, func(s *story) error {
		return errors.Join(s.store(1, [2]int{}, [2]int{1, 1000}), s.store(1, [2]int{1, 1000}), s.store(2, [2]int{1, 1000}), s.drop(3), s.store(3, small), s.roll(), s.drop(5))
	}},
	"close": {Config{}, func(s *story) error {
		return errors.Join(s.store(1, [2]int{}, small), s.closeLog(true), s.openLog(), s.store(2, small), s.closeLog(true), s.openLog())
	}},
	"lazy": {Config{SegmentBytes: 4 << 10, FlushMessages: 1 << 40}, func(s *story) error {
		return errors.Join(s.store(1, [2]int{}, small), s.store(1, small), s.store(1, [2]int{1, 3000}), s.store(1, small), s.cut(4), s.store(1, small))
	}},
}

// TestKillsLeaveNothingUnsynced: the process is killed at each operation and the
// machine is not. The next life reads what was never synced from the page cache;
// whatever it shows must survive when the power goes then.
func TestKillsLeaveNothingUnsynced(t *testing.T) {
	for name, st := range faultStories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			killEverywhere(t, st.cfg, st.run)
		})
	}
}

func killEverywhere(t *testing.T, cfg Config, run func(*story) error) {
	for stop := 1; ; stop++ {
		fs := newCrashFS(stop)
		s := &story{t: t, root: filepath.Join(memDir(t), fmt.Sprint(stop)), cfg: cfg}
		s.cfg.FS = fs
		s.now.first = 1
		if err := os.MkdirAll(s.dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		err := s.openLog()
		if err == nil {
			err = run(s)
			s.l.Close(false)
		}
		killed := fs.ops >= stop
		if err != nil && !killed {
			t.Fatal(err)
		}
		where := fmt.Sprintf("killed before operation %d; the last were %v", stop, fs.trace[max(0, len(fs.trace)-6):])
		fs.stop = 0
		got, err := observeAt(s.dir(), fs)
		if err != nil {
			t.Fatalf("%s: %v", where, err)
		}
		if wrong := got.within(s.now, s.next, false); wrong != "" {
			t.Fatalf("%s: %s", where, wrong)
		}
		for name, fate := range fates(uint64(stop)) {
			target := filepath.Join(memDir(t), "image")
			if !fs.powerLoss(t, s.root, target, fate) {
				continue
			}
			after, err := opened(filepath.Join(target, "p"), testID)
			if err != nil {
				t.Fatalf("%s, %s: %v", where, name, err)
			}
			if wrong := after.within(got, got, false); wrong != "" || after.last() != got.last() {
				t.Fatalf("%s, %s: last %d, the life before showed %d; %s", where, name, after.last(), got.last(), wrong)
			}
			os.RemoveAll(target)
		}
		os.RemoveAll(s.root)
		if !killed {
			return
		}
	}
}

func faultEverywhere(t *testing.T, cfg Config, fault error, run func(*story) error) {
	for stop := 1; ; stop++ {
		fs := newCrashFS(0)
		s := &story{t: t, root: filepath.Join(memDir(t), fmt.Sprint(stop)), cfg: cfg, lossy: cfg.FlushMessages > 1}
		s.cfg.FS = fs
		s.now.first = 1
		if err := errors.Join(os.MkdirAll(s.dir(), 0o755), s.openLog()); err != nil {
			t.Fatal(err)
		}
		opened := fs.ops
		fs.stop, fs.once = opened+stop, fault
		err := run(s)
		where := fmt.Sprintf("operation %d of %v", stop, fs.trace[max(0, fs.stop-7):min(len(fs.trace), fs.stop)])
		if fs.ops < fs.stop {
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			return
		}
		if err != nil && !errors.Is(err, fault) {
			t.Fatalf("%s: %v", where, err)
		}
		if err == nil {
			s.next = s.now // the fault cost nothing: an index file, a deletion
		}
		if err != nil && errors.Is(err, ErrNoSpace) && s.l.Err() == nil {
			// Nothing has changed, and the same call works now.
			got, oerr := observe(s.l)
			if oerr != nil {
				t.Fatalf("%s: %v", where, oerr)
			}
			if wrong := got.within(s.now, s.now, false); wrong != "" || got.last() != s.now.last() {
				t.Fatalf("%s: no space, but %s (last %d, want %d)", where, wrong, got.last(), s.now.last())
			}
			e := command(t, s.l.NextIndex(), 50, "again")
			if err := s.l.StoreLog(e); err != nil {
				t.Fatalf("%s: again: %v", where, err)
			}
			s.now.entries = append(s.now.entries, *e)
			s.next = s.now
		} else if err != nil && s.l.Err() == nil {
			t.Fatalf("%s: the log goes on after %v", where, err)
		} else if err != nil && s.l.Err() != ErrClosed {
			if err := s.l.StoreLog(command(t, s.l.NextIndex(), 50, "x")); err == nil {
				t.Fatalf("%s: a failed log took an entry", where)
			}
			if _, err := observe(s.l); err != nil {
				t.Fatalf("%s: a failed log cannot be read: %v", where, err)
			}
		}
		s.l.Close(false)

		cfg := s.cfg
		l, err := Open(s.dir(), testID, cfg)
		if err != nil {
			t.Fatalf("%s: reopen: %v", where, err)
		}
		got, err := observe(l)
		if err != nil {
			t.Fatalf("%s: reopen: %v", where, err)
		}
		if wrong := got.within(s.now, s.next, false); wrong != "" {
			t.Fatalf("%s: reopen: %s", where, wrong)
		}
		l.Close(false)
		for name, fate := range fates(uint64(stop)) {
			target := filepath.Join(memDir(t), "image")
			if !fs.powerLoss(t, s.root, target, fate) {
				continue
			}
			after, err := Open(filepath.Join(target, "p"), testID, Config{FS: fastFS{segment.OS}, SegmentBytes: cfg.SegmentBytes})
			if err != nil {
				t.Fatalf("%s, %s: %v", where, name, err)
			}
			m, err := observe(after)
			if err != nil {
				t.Fatalf("%s, %s: %v", where, name, err)
			}
			if wrong := m.within(got, got, false); wrong != "" || m.last() != got.last() {
				t.Fatalf("%s, %s: the reopened log showed entries up to %d, after the crash up to %d; %s", where, name, got.last(), m.last(), wrong)
			}
			after.Close(false)
			os.RemoveAll(target)
		}
		os.RemoveAll(s.root)
	}
}

// A fullFS has no room when it is full, but for index files.
type fullFS struct {
	segment.FS
	full *bool
}

func (f fullFS) OpenFile(path string, flag int) (segment.File, error) {
	if *f.full && flag&os.O_CREATE != 0 && !strings.Contains(path, "index") {
		if _, err := os.Stat(path); err != nil {
			return nil, &os.PathError{Op: "open", Path: path, Err: syscall.ENOSPC}
		}
	}
	g, err := f.FS.OpenFile(path, flag)
	if err != nil {
		return nil, err
	}
	return fullFile{g, f.full}, nil
}

type fullFile struct {
	segment.File
	full *bool
}

func (f fullFile) Allocate(from, to int64) error {
	if *f.full {
		return syscall.ENOSPC
	}
	return f.File.Allocate(from, to)
}

// Punch makes a little room, as it does on a real disk.
func (f fullFile) Punch(from, to int64) error {
	if to > from {
		*f.full = false
	}
	return f.File.Punch(from, to)
}

// TestAFullDiskRefusesAndHeals is S20: appends are refused without harm, what is
// reserved is kept, deletion works, nothing needs a restart.
func TestAFullDiskRefusesAndHeals(t *testing.T) {
	full := false
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fullFS{fastFS{segment.OS}, &full}, SegmentBytes: 1 << 20})
	if err := l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "a")}); err != nil {
		t.Fatal(err)
	}
	if err := l.Reserve(200 << 10); err != nil {
		t.Fatal(err)
	}
	full = true
	if err := l.Reserve(200 << 10); err != nil {
		t.Fatalf("what was reserved is not there: %v", err)
	}
	if err := l.StoreLog(command(t, 3, 1, strings.Repeat("r", 200<<10))); err != nil {
		t.Fatalf("what was reserved is not there: %v", err)
	}
	if err := l.Reserve(200 << 10); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	big := command(t, 4, 1, strings.Repeat("b", 900<<10))
	if err := l.StoreLog(big); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if err := l.Roll(); !errors.Is(err, ErrNoSpace) {
		t.Fatal(err)
	}
	if m, err := observe(l); err != nil || m.last() != 3 || l.Err() != nil {
		t.Fatalf("last %d, %v, %v", m.last(), err, l.Err())
	}
	if _, err := l.Drop(1, 0); err != nil { // the manifest needs room, which preallocation has
		t.Fatal(err)
	}
	if l.StartOffset() != 1 {
		t.Fatal("the start did not move")
	}
	full = false
	if err := l.StoreLog(big); err != nil {
		t.Fatal(err)
	}
	if err := l.Verify(1); err != nil {
		t.Fatal(err)
	}
	var e raft.Log
	if err := l.GetLog(4, &e); err != nil || !bytes.Equal(e.Data, big.Data) {
		t.Fatal(err)
	}
}

// TestALongSegmentOutlivesARollThatFailed: the roll had written its index files, and
// the segment goes on, so that more of its index goes to a file.
func TestALongSegmentOutlivesARollThatFailed(t *testing.T) {
	full := false
	dir := filepath.Join(t.TempDir(), "p")
	l := mustOpen(t, dir, Config{FS: fullFS{fastFS{segment.OS}, &full}, SegmentBytes: 4 << 20, Cache: NewCache(1)})
	want := map[uint64][]byte{}
	store := func(n int) {
		t.Helper()
		for range n {
			e := command(t, l.NextIndex(), 1, fmt.Sprint(l.NextIndex()))
			if err := l.StoreLog(e); err != nil {
				t.Fatal(err)
			}
			want[e.Index] = e.Data
		}
	}
	check := func() {
		t.Helper()
		for i, data := range want {
			var e raft.Log
			if err := l.GetLog(i, &e); err != nil || !bytes.Equal(e.Data, data) {
				t.Fatalf("entry %d: %v", i, err)
			}
		}
	}
	store(1300)
	check()
	if err := l.Reserve(1 << 20); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		full = true
		if err := l.Roll(); !errors.Is(err, ErrNoSpace) {
			t.Fatal(err)
		}
		full = false
		store(1300)
		check()
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, Config{FS: fastFS{segment.OS}, Cache: NewCache(1)})
	check()
	store(1300)
	check()
}

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

// TestAFaultAtAnyOperationIsSurvived is S20, S21 and S25 operation by operation: one
// call fails, with EIO, ENOSPC or EMFILE, or one file or folder cannot be opened, and
// the system is well again. Either all is as before and the next try succeeds, or the
// log has failed and said so once. Opened again it holds what was acknowledged, and
// what it shows then survives a loss of power, even though a sync failed: what the page
// cache shows may never have been written.
func TestAFaultAtAnyOperationIsSurvived(t *testing.T) {
	faults := map[string]fault{
		"EIO":          {syscall.EIO, false},
		"ENOSPC":       {syscall.ENOSPC, false},
		"EMFILE":       {syscall.EMFILE, false},
		"EMFILE opens": {syscall.EMFILE, true},
	}
	for name, st := range faultStories {
		for kind, f := range faults {
			t.Run(name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				faultEverywhere(t, st.cfg, f, st.run)
			})
		}
	}
}

// An owner notes what its log tells it.
type owner struct{ failures []error }

func (o *owner) LogFailed(err error) { o.failures = append(o.failures, err) }
func (o *owner) LogRolled(uint64)    {}

// A fault is what one operation answers: each that changes something, or each open.
type fault struct {
	err   error
	opens bool
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
	"reserve": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
		return errors.Join(s.closeLog(true), reserveStory(s))
	}},
	"install": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
		source, err := sourceOf(s, 6)
		if err := errors.Join(err, s.store(1, [2]int{}, [2]int{1, 2000}), s.store(1, [2]int{1, 1900})); err != nil {
			return err
		}
		s.again = func() error { return s.install(source) }
		return s.again()
	}},
	"pull": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
		source, err := sourceOf(s, 4)
		if err := errors.Join(err, s.store(1, [2]int{}, [2]int{1, 2000})); err != nil {
			return err
		}
		s.again = func() error { return s.pull(source) }
		return s.again()
	}},
	"append beside a flush": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
		s.fs.beside = s.flushing()
		return errors.Join(s.store(1, [2]int{}), s.storeLater(1, [2]int{2, 900}), s.store(1, [2]int{1, 2000}, [2]int{1, 5000}, small),
			s.checkpoint(), s.rollIfDue(), s.storeLater(2, small), s.cut(s.now.last()), s.store(3, small))
	}},
	"lazy": {Config{SegmentBytes: 4 << 10, FlushMessages: 1 << 40}, func(s *story) error {
		return errors.Join(s.store(1, [2]int{}, small), s.store(1, small), s.store(1, [2]int{1, 3000}), s.store(1, small), s.cut(4), s.store(1, small))
	}},
}

// TestPowerLossAfterAKillLosesNothingShown: the process is killed at each operation and the
// machine is not. The next life reads what was never synced from the page cache;
// whatever it shows must survive when the power goes then.
func TestPowerLossAfterAKillLosesNothingShown(t *testing.T) {
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
		s.cfg.FS, s.fs = fs, fs
		s.now.first = 1
		if err := os.MkdirAll(s.dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		err := s.openLog()
		if err == nil {
			err = run(s)
			fs.beside = nil
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

func faultEverywhere(t *testing.T, cfg Config, fault fault, run func(*story) error) {
	refusals, failures := 0, 0
	for stop := 1; ; stop++ {
		fs := newCrashFS(0)
		fs.opens = fault.opens
		s := &story{t: t, root: filepath.Join(memDir(t), fmt.Sprint(stop)), cfg: cfg, lossy: cfg.FlushMessages > 1}
		owner := new(owner)
		s.cfg.FS, s.cfg.Owner, s.fs = fs, owner, fs
		s.now.first = 1
		if err := errors.Join(os.MkdirAll(s.dir(), 0o755), s.openLog()); err != nil {
			t.Fatal(err)
		}
		opened := fs.ops
		fs.stop, fs.once = opened+stop, fault.err
		err := run(s)
		fs.beside = nil
		where := fmt.Sprintf("operation %d of %v", stop, fs.trace[max(0, fs.stop-7):min(len(fs.trace), fs.stop)])
		if fs.ops < fs.stop {
			if err != nil {
				t.Fatalf("without a fault: %v", err)
			}
			t.Logf("%d operations, %d refused, %d failed the log", stop-1, refusals, failures)
			return
		}
		if err != nil && !errors.Is(err, fault.err) {
			t.Fatalf("%s: %v", where, err)
		}
		if err == nil {
			s.next = s.now // the fault cost nothing: an index file, a deletion
		}
		failed := s.l.failed.Load() != nil
		if want := map[bool]int{true: 1}[failed]; len(owner.failures) != want || failed && !errors.As(owner.failures[0], new(*FailedError)) {
			t.Fatalf("%s: the owner was told %v, the log has failed: %v", where, owner.failures, failed)
		}
		switch {
		case err != nil && failed:
			failures++
			if fault.opens && !strings.Contains(err.Error(), "half of a call is stored") {
				t.Errorf("%s: %v: nothing has changed when a file is not opened", where, err)
			}
			if !errors.As(err, new(*FailedError)) || segment.IsRefused(err) {
				t.Fatalf("%s: the log failed, and the answer is %#v", where, err)
			}
			if err := s.l.StoreLog(command(t, s.l.NextIndex(), 50, "x")); err == nil {
				t.Fatalf("%s: a failed log took an entry", where)
			}
			if _, err := observe(s.l); err != nil && !s.closes {
				t.Fatalf("%s: a failed log cannot be read: %v", where, err)
			}
		case err != nil:
			refusals++
			if !segment.IsRefused(err) && !s.closes {
				t.Fatalf("%s: the log goes on after %v", where, err)
			}
			asBefore(t, s, where)
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
		onlyListedFiles(t, l, where)
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

// asBefore checks that a story's log holds what it did before the step that was
// refused, and that the same steps succeed now. A log that is closed is opened first.
func asBefore(t *testing.T, s *story, where string) {
	t.Helper()
	if s.l.Err() != nil {
		l, err := Open(s.dir(), testID, s.cfg)
		if err != nil {
			t.Fatalf("%s: open again: %v", where, err)
		}
		s.l = l
	}
	got, err := observe(s.l)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if wrong := got.within(s.now, s.now, false); wrong != "" || got.last() != s.now.last() {
		if s.closes && got.within(s.next, s.next, false) == "" && got.last() == s.next.last() {
			s.now = got // an installation that had happened when the fault came
		} else {
			t.Fatalf("%s: refused, but %s (last %d, want %d)", where, wrong, got.last(), s.now.last())
		}
	}
	s.err = nil
	term := uint64(50)
	if err := errors.Join(s.reserve(1, 200), s.store(term, [2]int{1, 200}), s.checkpoint(), s.reserve(1, 3000), s.roll(), s.store(term, [2]int{1, 100})); err != nil {
		t.Fatalf("%s: again: %v", where, err)
	}
	if s.again != nil {
		if err := s.again(); err != nil {
			t.Fatalf("%s: again: %v", where, err)
		}
	}
	s.next = s.now
}

// onlyListedFiles checks that an opened log has left no file that it does not list.
func onlyListedFiles(t *testing.T, l *Log, where string) {
	t.Helper()
	listed := map[string]bool{manifestName: true}
	for _, s := range l.state.Load().segments {
		for _, p := range segment.Paths(s.Path()) {
			listed[filepath.Base(p)] = true
		}
	}
	names, err := segment.OS.ReadDir(l.dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if !listed[n] && n != "staging" {
			t.Fatalf("%s: %s was left behind", where, n)
		}
	}
}

// TestARefusedEntryIsNotStamped: not even the stamps of a call that was not stored stay,
// in which a later entry was wrong, or for which there was no room.
func TestARefusedEntryIsNotStamped(t *testing.T) {
	full := false
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fullFS{fastFS{segment.OS}, &full}, SegmentBytes: 1 << 20})
	if err := l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "a")}); err != nil {
		t.Fatal(err)
	}
	stamped := command(t, 4, 1, "b")
	stampTest(stamped, 77)
	calls := map[string][]*raft.Log{
		"no room":        {command(t, 3, 1, "a"), command(t, 4, 1, strings.Repeat("b", 900<<10))},
		"a wrong offset": {command(t, 3, 1, "a"), stamped},
		"a gap":          {command(t, 3, 1, "a"), command(t, 5, 1, "b")},
		"an old term":    {command(t, 3, 2, "a"), command(t, 4, 1, "b")},
	}
	for name, logs := range calls {
		full = name == "no room"
		var before [][]byte
		for _, e := range logs {
			before = append(before, bytes.Clone(e.Data))
		}
		if err := l.StoreLogs(logs); err == nil || errors.Is(err, ErrNoSpace) != full {
			t.Fatalf("%s: %v", name, err)
		}
		for i, e := range logs {
			if !bytes.Equal(before[i], e.Data) {
				t.Errorf("%s: entry %d has changed", name, i)
			}
		}
	}
	full = false
	if err := l.StoreLogs(calls["no room"]); err != nil {
		t.Fatal(err)
	}
}

// TestDropSyncsBeforeItMovesTheLogStart: the log start may not move beyond entries that a
// loss of power takes, or their offsets would be given twice.
func TestDropSyncsBeforeItMovesTheLogStart(t *testing.T) {
	fs := newCrashFS(0)
	root := t.TempDir()
	l := mustOpen(t, filepath.Join(root, "p"), Config{FS: fs})
	if err := l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "a")}); err != nil {
		t.Fatal(err)
	}
	if due, err := l.WriteLogs([]*raft.Log{command(t, 3, 1, "b", "c")}); err != nil || !due {
		t.Fatal(due, err)
	}
	if _, err := l.Drop(l.EndOffset(), 0); err != nil {
		t.Fatal(err)
	}
	images := 0
	for name, fate := range fates(1) {
		target := filepath.Join(t.TempDir(), "image")
		if !fs.powerLoss(t, root, target, fate) {
			continue
		}
		images++
		after, err := Open(filepath.Join(target, "p"), testID, Config{FS: fastFS{segment.OS}})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if after.StartOffset() != 3 || after.EndOffset() != 3 {
			t.Errorf("%s: [%d,%d), want [3,3)", name, after.StartOffset(), after.EndOffset())
		}
		after.Close(false)
	}
	if images == 0 {
		t.Fatal("no image was looked at")
	}
}

// TestAFailedSyncIsRemembered: the system reports a write-back that failed to one
// caller of fdatasync, and to the next one success.
func TestAFailedSyncIsRemembered(t *testing.T) {
	fs := newCrashFS(0)
	owner := new(owner)
	l := mustOpen(t, filepath.Join(t.TempDir(), "p"), Config{FS: fs, Owner: owner})
	if err := l.StoreLog(noop(1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.WriteLogs([]*raft.Log{command(t, 2, 1, "a")}); err != nil {
		t.Fatal(err)
	}
	fs.stop, fs.once = fs.ops+1, syscall.EIO
	active := l.state.Load().active
	if err := active.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	if err := active.Sync(); !errors.Is(err, syscall.EIO) || active.Synced() {
		t.Errorf("the next caller is told %v; synced: %v", err, active.Synced())
	}
	if err := l.Flush(); !errors.Is(err, syscall.EIO) || len(owner.failures) != 1 {
		t.Errorf("Flush says %v; the owner was told %v", err, owner.failures)
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
	return &fullFile{File: g, full: f.full}, nil
}

type fullFile struct {
	segment.File
	full  *bool
	taken int64
}

func (f *fullFile) Allocate(from, to int64) error {
	if *f.full {
		return syscall.ENOSPC
	}
	f.taken = max(f.taken, to)
	return f.File.Allocate(from, to)
}

// Punch makes a little room, as it does on a real disk, if there was any to give back.
func (f *fullFile) Punch(from, to int64) error {
	if from < f.taken {
		*f.full, f.taken = false, from
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
	if err := l.Reserve(1, 200<<10); err != nil {
		t.Fatal(err)
	}
	full = true
	if err := l.Reserve(1, 200<<10); err != nil {
		t.Fatalf("what was reserved is not there: %v", err)
	}
	if err := l.StoreLog(command(t, 3, 1, strings.Repeat("r", 200<<10))); err != nil {
		t.Fatalf("what was reserved is not there: %v", err)
	}
	if err := l.Reserve(1, 200<<10); !errors.Is(err, ErrNoSpace) {
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

// TestAFullDiskHasRoomForElections: what yields room keeps some, or a partition could
// not say which of its data may go.
func TestAFullDiskHasRoomForElections(t *testing.T) {
	full := false
	dir := t.TempDir() + "/p"
	cfg := Config{FS: fullFS{fastFS{segment.OS}, &full}, SegmentBytes: 1 << 20}
	l := mustOpen(t, dir, cfg)
	for l.Size()%4096 < 4000 { // nearly a page, which is all that would be left
		if err := l.StoreLog(noop(l.NextIndex(), 1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Reserve(1, 100<<10); err != nil {
		t.Fatal(err)
	}
	full = true
	l.ReleaseRoom()
	full = true // somebody else has taken it
	if err := l.Reserve(1, 8<<10); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("nothing was given back: %v", err)
	}
	for i := range uint64(50) {
		e := noop(l.NextIndex(), 2+i)
		if i%2 == 0 {
			trim := TrimEntry(0)
			trim.Index, trim.Term = e.Index, e.Term
			e = &trim
		}
		if err := l.StoreLog(e); err != nil {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
}

// TestASpilledSegmentGoesOnAfterAFailedRoll: the roll had written its index files, and
// the segment goes on, so that more of its index goes to a file.
func TestASpilledSegmentGoesOnAfterAFailedRoll(t *testing.T) {
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
	if err := l.Reserve(1, 1<<20); err != nil {
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

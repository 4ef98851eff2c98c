package log

import (
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// leader makes a log of several sealed segments whose beginning was dropped.
func leader(t *testing.T) *Log {
	t.Helper()
	l := mustOpen(t, filepath.Join(t.TempDir(), "leader"), Config{FS: fastFS{segment.OS}, SegmentBytes: 2 << 10})
	for i := uint64(1); i <= 40; i++ {
		if err := l.StoreLog(command(t, i, 1+i/9, strings.Repeat("p", 300), "q")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.Drop(21, 40); err != nil {
		t.Fatal(err)
	}
	if err := l.Roll(); err != nil {
		t.Fatal(err)
	}
	return l
}

// pull moves at most n pieces from source to s.
func pull(source *Log, s *Staging, n int, r *rand.Rand) error {
	for range n {
		first, at, left, ok := s.Next()
		if !ok {
			return nil
		}
		p := make([]byte, min(left, 1+r.Int64N(900)))
		got, err := source.ReadSegment(first, at, p)
		if err != nil && err != io.EOF {
			return err
		}
		if err := s.Write(first, at, p[:got]); err != nil {
			return err
		}
	}
	return nil
}

// TestAReplicaTooFarBehindTakesTheLeadersSegments, in pieces, over restarts, and goes
// on from there like any other, also one that was empty, had diverged, had a lost
// or damaged manifest, or rotten segments.
func TestAReplicaTooFarBehindTakesTheLeadersSegments(t *testing.T) {
	source := leader(t)
	want, err := observe(source)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{FS: fastFS{segment.OS}, SegmentBytes: 2 << 10}
	for name, before := range map[string]func(t *testing.T, dir string){
		"nothing":        func(*testing.T, string) {},
		"an empty log":   func(t *testing.T, dir string) { mustOpen(t, dir, cfg).Close(true) },
		"another log":    func(t *testing.T, dir string) { filled(t, dir, testID, true) },
		"unclean":        func(t *testing.T, dir string) { filled(t, dir, testID, false) },
		"a rotten file":  func(t *testing.T, dir string) { filled(t, dir, testID, true); rot(t, logFiles(t, dir)[0], 70) },
		"a missing file": func(t *testing.T, dir string) { filled(t, dir, testID, true); os.Remove(logFiles(t, dir)[1]) },
		"a rotten manifest": func(t *testing.T, dir string) {
			filled(t, dir, testID, true)
			rot(t, filepath.Join(dir, manifestName), 20)
		},
		"no manifest": func(t *testing.T, dir string) {
			filled(t, dir, testID, true)
			os.Remove(filepath.Join(dir, manifestName))
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(4, 4))
			dir := filepath.Join(t.TempDir(), "p")
			before(t, dir)
			plan := source.Plan()
			for rounds := 0; ; rounds++ {
				s, err := Stage(dir, testID, plan, cfg) // a restart each time
				if err != nil {
					t.Fatal(err)
				}
				had := s.Arrived()
				if rounds > 0 && had == 0 {
					t.Fatal("what had arrived is pulled again")
				}
				if err := pull(source, s, 7, r); err != nil {
					t.Fatal(err)
				}
				if _, _, _, more := s.Next(); !more {
					if s.Arrived() != plan.Bytes() {
						t.Fatal(s.Arrived(), plan.Bytes())
					}
					break
				}
				if err := Install(dir, testID, s.Dir(), cfg); !segment.IsCorrupt(err) {
					t.Fatalf("half of it was installed: %v", err)
				}
			}
			if err := Install(dir, testID, StagingDir(dir), cfg); err != nil {
				t.Fatal(err)
			}
			l := mustOpen(t, dir, cfg)
			got, err := observe(l)
			if err != nil {
				t.Fatal(err)
			}
			if wrong := got.within(want, want, false); wrong != "" || got.last() != want.last() || got.base != want.base {
				t.Fatalf("last %d, want %d: %s", got.last(), want.last(), wrong)
			}
			a, aerr := source.Digest(want.first, want.last())
			b, berr := l.Digest(want.first, want.last())
			if a != b || aerr != nil || berr != nil {
				t.Fatal(a, b, aerr, berr)
			}
			if e, f := source.Epochs(), l.Epochs(); len(e) != len(f) || e[0] != f[0] || e[len(e)-1] != f[len(f)-1] {
				t.Fatal(e, f)
			}
			if err := l.StoreLog(command(t, l.NextIndex(), 50, "on")); err != nil {
				t.Fatal(err)
			}
			names, _ := os.ReadDir(dir)
			for _, n := range names {
				if n.Name() == "staging" {
					t.Error("the staging folder is left")
				}
			}
			if len(logFiles(t, dir)) != len(l.state.Load().segments) {
				t.Errorf("%d files for %d segments", len(logFiles(t, dir)), len(l.state.Load().segments))
			}
		})
	}
}

func rot(t *testing.T, path string, at int) {
	t.Helper()
	p := mustRead(t, path)
	p[at] ^= 1
	mustWrite(t, path, p)
}

// TestNoByteOfAPulledSegmentIsTrusted flips one on the way.
func TestNoByteOfAPulledSegmentIsTrusted(t *testing.T) {
	source := leader(t)
	plan := source.Plan()
	g := plan.Segments[0]
	whole := make([]byte, g.Bytes)
	if _, err := source.ReadSegment(g.FirstIndex, 0, whole); err != io.EOF {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "p")
	s, err := Stage(dir, testID, plan, Config{FS: fastFS{segment.OS}})
	if err != nil {
		t.Fatal(err)
	}
	for at := range whole {
		p := append([]byte(nil), whole...)
		p[at] ^= 0x08
		if err := s.Write(g.FirstIndex, 0, p); !segment.IsCorrupt(err) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if first, from, _, _ := s.Next(); first != g.FirstIndex || from != 0 {
			t.Fatalf("byte %d: the bad segment was kept", at)
		}
	}
	if err := s.Write(g.FirstIndex, 5, whole[5:]); err == nil {
		t.Error("a gap was taken")
	}
	if err := s.Write(g.FirstIndex, 0, append(whole[:len(whole):len(whole)], 0)); err == nil {
		t.Error("a byte too many was taken")
	}
	if err := s.Write(999, 0, whole); !errors.Is(err, ErrNoSegment) {
		t.Error(err)
	}
	if err := s.Write(g.FirstIndex, 0, whole); err != nil {
		t.Fatal(err)
	}
	if err := s.Discard(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestStageKeepsTheSegmentsOfAnotherPlan: the leader rolled, dropped or changed meanwhile.
func TestStageKeepsTheSegmentsOfAnotherPlan(t *testing.T) {
	source := leader(t)
	r := rand.New(rand.NewPCG(4, 4))
	dir := filepath.Join(t.TempDir(), "p")
	cfg := Config{FS: fastFS{segment.OS}}
	plan := source.Plan()
	s, err := Stage(dir, testID, plan, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := pull(source, s, 9, r); err != nil {
		t.Fatal(err)
	}
	arrived := s.Arrived()
	for i := range uint64(5) {
		if err := source.StoreLog(command(t, 41+i, 9, strings.Repeat("n", 900))); err != nil {
			t.Fatal(err)
		}
	}
	if err := source.Roll(); err != nil {
		t.Fatal(err)
	}
	if s, err = Stage(dir, testID, source.Plan(), cfg); err != nil || s.Arrived() != arrived {
		t.Fatalf("%d of %d bytes kept: %v", s.Arrived(), arrived, err)
	}
	// Another leader has other segments, though of the same entries.
	other := leader(t)
	if s, err = Stage(dir, testID, other.Plan(), cfg); err != nil || s.Arrived() != 0 {
		t.Fatalf("%d bytes of another's segments kept: %v", s.Arrived(), err)
	}
	if err := pull(other, s, 1000, r); err != nil {
		t.Fatal(err)
	}
	id := testID
	id.Partition++
	if err := Install(filepath.Join(t.TempDir(), "q"), id, s.Dir(), cfg); !segment.IsCorrupt(err) {
		t.Errorf("another partition's segments were installed: %v", err)
	}
	if err := Install(dir, testID, s.Dir(), cfg); err != nil {
		t.Fatal(err)
	}
	// A segment that is pulled and then dropped is refused, and nothing else.
	if _, err := other.Drop(40, 40); err != nil {
		t.Fatal(err)
	}
	if _, err := other.ReadSegment(plan.Segments[0].FirstIndex, 0, make([]byte, 10)); !errors.Is(err, ErrNoSegment) {
		t.Error(err)
	}
}

// TestAPlanWithoutSegmentsIsInstalled: everything was dropped; the next entry has
// an index and an offset all the same.
func TestAPlanWithoutSegmentsIsInstalled(t *testing.T) {
	source := leader(t)
	if _, err := source.Drop(source.EndOffset(), 40); err != nil {
		t.Fatal(err)
	}
	plan := source.Plan()
	if len(plan.Segments) != 0 || plan.EndIndex != 41 || plan.EndOffset != 80 {
		t.Fatalf("%+v", plan)
	}
	dir := filepath.Join(t.TempDir(), "p")
	s, err := Stage(dir, testID, plan, Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := Install(dir, testID, s.Dir(), Config{}); err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, dir, Config{})
	if err := l.StoreLog(noop(1, 50)); err == nil {
		t.Error("entry 1 was taken")
	}
	if err := l.StoreLogs([]*raft.Log{noop(41, 50), command(t, 42, 50, "x")}); err != nil {
		t.Fatal(err)
	}
	if l.StartOffset() != 80 || l.EndOffset() != 81 || l.EpochAt(79) >= 0 && l.EpochAt(79) == 50 {
		t.Error(l.StartOffset(), l.EndOffset(), l.EpochAt(79))
	}
	if e, end, ok := l.EpochEnd(5); !ok || end != 80 {
		t.Error(e, end, ok)
	}
	if f, _ := l.FirstIndex(); f != 41 {
		t.Error(f)
	}
}

// A lateFS cannot make names durable once an installation has switched the log in dir,
// by the second manifest that it puts there, for want of room.
type lateFS struct {
	segment.FS
	dir       string
	manifests *int
}

func (f lateFS) Rename(from, to string) error {
	if to == filepath.Join(f.dir, manifestName) {
		*f.manifests++
	}
	return f.FS.Rename(from, to)
}

func (f lateFS) OpenDir(name string) (segment.Dir, error) {
	d, err := f.FS.OpenDir(name)
	return lateDir{d, f.manifests}, err
}

type lateDir struct {
	segment.Dir
	manifests *int
}

func (d lateDir) Sync() error {
	if *d.manifests > 1 {
		return syscall.ENOSPC
	}
	return d.Dir.Sync()
}

// TestInstallIsNotRefusedAfterTheManifestsRename: a refusal says that the old log is still
// there, and after the manifest's rename it is not.
func TestInstallIsNotRefusedAfterTheManifestsRename(t *testing.T) {
	source := leader(t)
	dir := filepath.Join(t.TempDir(), "p")
	filled(t, dir, testID, true)
	s, err := Stage(dir, testID, source.Plan(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pull(source, s, 1000, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	err = Install(dir, testID, s.Dir(), Config{FS: lateFS{segment.OS, dir, new(int)}})
	if !errors.Is(err, syscall.ENOSPC) || segment.IsRefused(err) {
		t.Fatalf("the installation came to %v", err)
	}
	l := mustOpen(t, dir, Config{})
	if got, want := l.NextIndex(), source.NextIndex(); got != want {
		t.Errorf("the log goes on at entry %d, want %d: it was switched", got, want)
	}
}

// TestOpenRefusesAnInstallationCutShort: the manifest that stands in for a lost one
// must not let a replica vote with nothing.
func TestOpenRefusesAnInstallationCutShort(t *testing.T) {
	source := leader(t)
	dir := filepath.Join(t.TempDir(), "p")
	filled(t, dir, testID, true)
	os.Remove(filepath.Join(dir, manifestName))
	s, err := Stage(dir, testID, source.Plan(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := pull(source, s, 1000, rand.New(rand.NewPCG(1, 1))); err != nil {
		t.Fatal(err)
	}
	for stop := 1; ; stop++ {
		fs := newCrashFS(stop).adopt(t, dir)
		err := Install(dir, testID, s.Dir(), Config{FS: fs})
		if err == nil {
			break
		}
		_, oerr := opened(dir, testID)
		if oerr == nil {
			if fs.ops < 3 {
				t.Fatalf("operation %d %v: an empty log", stop, fs.trace)
			}
			m, _ := opened(dir, testID)
			if m.last() != 40 {
				t.Fatalf("operation %d %v: a log up to %d", stop, fs.trace, m.last())
			}
			return
		}
		if !segment.IsCorrupt(oerr) {
			t.Fatalf("operation %d: %v", stop, oerr)
		}
		if s, err = Stage(dir, testID, source.Plan(), Config{}); err != nil {
			t.Fatal(err)
		}
		if err := pull(source, s, 1000, rand.New(rand.NewPCG(1, 1))); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("no operation was stopped after the switch")
}

func TestInspectFindsWhatIsWrongAndChangesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	want := filled(t, dir, testID, true)
	inspect := func() (*Summary, int, []*segment.CorruptError) {
		t.Helper()
		var problems []*segment.CorruptError
		n := 0
		sum, err := Inspect(segment.OS, dir, func(f *segment.Frame) error {
			if e := want.entries[f.Index-1]; string(f.Payload) != string(e.Data) || f.Term != e.Term {
				t.Errorf("entry %d differs", f.Index)
			}
			n++
			return nil
		}, func(e *segment.CorruptError) error {
			problems = append(problems, e)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return sum, n, problems
	}
	sum, n, problems := inspect()
	if n != len(want.entries) || len(problems) > 0 || sum.NextIndex != want.last()+1 || sum.EndOffset != 20 || len(sum.Unlisted) > 0 || sum.Identity != testID {
		t.Fatalf("%+v, %d entries, %v", sum, n, problems)
	}
	paths := logFiles(t, dir)
	// Two entries rotten in one segment, one header in another; a torn tail; a stranger.
	first := mustRead(t, paths[0])
	p := append([]byte(nil), first...)
	p[segment.HeaderSize+20] ^= 1 // header of the first frame
	mustWrite(t, paths[0], p)
	last := paths[len(paths)-1]
	tail := mustRead(t, last)
	copy(tail[len(tail)-100:], "left by a crash")
	mustWrite(t, last, tail)
	mustWrite(t, filepath.Join(dir, "00000000000000000999-00000999.log"), []byte("stranger"))
	sum, n, problems = inspect()
	if len(problems) != 1 || problems[0].Path != paths[0] || problems[0].Position != segment.HeaderSize || n != len(want.entries)-1 {
		t.Errorf("%d entries, %v", n, problems)
	}
	if torn := sum.Segments[len(sum.Segments)-1].Torn; torn < 0 {
		t.Error("the torn tail is not mentioned")
	}
	if len(sum.Unlisted) != 1 {
		t.Error(sum.Unlisted)
	}
	if now := mustRead(t, paths[0]); string(now) != string(p) {
		t.Error("a file was changed")
	}
	// The same problem by the log's own door.
	l := mustOpen(t, dir, Config{FS: fastFS{segment.OS}})
	var c *segment.CorruptError
	if err := l.Verify(1); !errors.As(err, &c) || c.Position != segment.HeaderSize {
		t.Error(err)
	}
	if err := l.Verify(l.Sealed()[0].LastIndex + 1); err != nil {
		t.Error(err)
	}
}

// TestPowerLossAfterAKillDuringCatchUpLosesNothing: the process is killed at each
// operation, the machine is not; the next life finds in the page cache what was
// never synced, and goes on with it. Then the power goes.
func TestPowerLossAfterAKillDuringCatchUpLosesNothing(t *testing.T) {
	source := leader(t)
	plan := source.Plan()
	want, err := observe(source)
	if err != nil {
		t.Fatal(err)
	}
	catchUp := func(fs *crashFS, dir string) error {
		cfg := Config{FS: fs, SegmentBytes: 2 << 10}
		s, err := Stage(dir, testID, plan, cfg)
		if err != nil {
			return err
		}
		if err := pull(source, s, 1000, rand.New(rand.NewPCG(1, 1))); err != nil {
			return err
		}
		return Install(dir, testID, s.Dir(), cfg)
	}
	for stop := 1; ; stop++ {
		root := memDir(t)
		dir := filepath.Join(root, "p")
		filled(t, dir, testID, true)
		fs := newCrashFS(stop).adopt(t, root)
		err := catchUp(fs, dir)
		killed := fs.ops >= stop
		fs.stop = 0
		if err != nil {
			// It may be that the first life got as far as the switch.
			m, oerr := observeAt(dir, fs)
			if oerr != nil {
				t.Fatalf("operation %d of %v: %v", stop, fs.trace, oerr)
			}
			if m.last() != want.last() {
				err = catchUp(fs, dir)
			} else {
				err = nil
			}
		}
		if err != nil {
			t.Fatalf("operation %d: %v", stop, err)
		}
		if _, err := observeAt(dir, fs); err != nil {
			t.Fatalf("operation %d: %v", stop, err)
		}
		for name, fate := range fates(uint64(stop)) {
			target := filepath.Join(memDir(t), "image")
			if !fs.powerLoss(t, root, target, fate) {
				continue
			}
			got, err := opened(filepath.Join(target, "p"), testID)
			if err != nil {
				t.Fatalf("operation %d, %s: %v", stop, name, err)
			}
			if wrong := got.within(want, want, false); wrong != "" || got.last() != want.last() {
				t.Fatalf("operation %d, %s: last %d, %s", stop, name, got.last(), wrong)
			}
			os.RemoveAll(target)
		}
		os.RemoveAll(root)
		if !killed {
			return
		}
	}
}

func observeAt(dir string, fs segment.FS) (model, error) {
	l, err := Open(dir, testID, Config{FS: fs})
	if err != nil {
		return model{}, err
	}
	defer l.Close(false)
	return observe(l)
}

// TestAnInstalledSegmentLosesItsStagedName: once a log is installed no loss of power brings a
// staged segment's old name back, under which the next one who stages would write to it.
func TestAnInstalledSegmentLosesItsStagedName(t *testing.T) {
	fs := newCrashFS(0)
	root := t.TempDir()
	source := mustOpen(t, t.TempDir()+"/source", Config{FS: fastFS{segment.OS}, SegmentBytes: 4 << 10})
	for i := range uint64(6) {
		if err := source.StoreLog(command(t, i+1, 2, strings.Repeat("s", 1500))); err != nil {
			t.Fatal(err)
		}
	}
	s := &story{t: t, root: root, cfg: Config{FS: fs, SegmentBytes: 4 << 10}}
	s.now.first = 1
	if err := errors.Join(os.MkdirAll(s.dir(), 0o755), source.Roll(), s.openLog(), s.store(1, [2]int{}), s.install(source)); err != nil {
		t.Fatal(err)
	}
	s.l.Close(false)
	for name, fate := range fates(3) {
		target := filepath.Join(t.TempDir(), "image")
		if !fs.powerLoss(t, root, target, fate) {
			continue
		}
		if left, _ := filepath.Glob(StagingDir(filepath.Join(target, "p")) + "/*.log"); len(left) > 0 {
			t.Errorf("%s: %v", name, left)
		}
		if n := len(logFiles(t, filepath.Join(target, "p"))); n < 2 {
			t.Errorf("%s: %d segments", name, n)
		}
	}
}

// TestIndexesWithoutASegmentAreDeleted: a compaction that was under way when the log was
// closed may rename its index files into the folder later.
func TestIndexesWithoutASegmentAreDeleted(t *testing.T) {
	dir := t.TempDir() + "/p"
	cfg := Config{FS: fastFS{segment.OS}, SegmentBytes: 4 << 10}
	l := mustOpen(t, dir, cfg)
	for i := range uint64(4) {
		if err := l.StoreLog(command(t, i+1, 1, strings.Repeat("s", 1500))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	kept, err := segment.OS.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	stray := strings.TrimSuffix(name{2, 7}.file(), ".log")
	for _, s := range []string{stray + ".index", stray + ".timeindex"} {
		mustWrite(t, filepath.Join(dir, s), []byte("x"))
	}
	mustWrite(t, filepath.Join(dir, "notes.index"), []byte("somebody's own"))
	mustOpen(t, dir, cfg)
	left, err := segment.OS.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want := append(kept, "notes.index"); strings.Join(left, " ") != strings.Join(want, " ") {
		t.Errorf("left are %v, want %v", left, want)
	}
}

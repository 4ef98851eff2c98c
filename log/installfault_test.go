package log

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// TestAFaultDuringInstallIsRefusalOrFailure: one operation of Install fails, or one
// open is refused. If it says that it was refused, the old log is there and the same call
// succeeds. After anything else there is the old log or the new one, and it can be
// staged and installed again; what is installed then survives a loss of power, though the
// sync that failed was of a staged file, which the page cache shows as if it were
// written.
func TestAFaultDuringInstallIsRefusalOrFailure(t *testing.T) {
	source := mustOpen(t, filepath.Join(memDir(t), "source"), Config{FS: fastFS{segment.OS}, SegmentBytes: 4 << 10})
	for i := range uint64(6) {
		if err := source.StoreLog(command(t, i+1, 2, strings.Repeat("s", 1500))); err != nil {
			t.Fatal(err)
		}
	}
	if err := source.Roll(); err != nil {
		t.Fatal(err)
	}
	want, err := observe(source)
	if err != nil {
		t.Fatal(err)
	}
	stage := func(dir string, cfg Config) error {
		st, err := Stage(dir, testID, source.Plan(), cfg)
		if err != nil {
			return err
		}
		for {
			first, at, n, ok := st.Next()
			if !ok {
				return nil
			}
			p := make([]byte, n)
			if n, err := source.ReadSegment(first, at, p); err != nil && err != io.EOF {
				return err
			} else if err := st.Write(first, at, p[:n]); err != nil {
				return err
			}
		}
	}
	same := func(m, n model) bool { return m.within(n, n, false) == "" && m.last() == n.last() }

	for name, f := range map[string]fault{
		"EIO": {syscall.EIO, false}, "ENOSPC": {syscall.ENOSPC, false}, "EMFILE opens": {syscall.EMFILE, true},
	} {
		t.Run(name, func(t *testing.T) {
			refused, unknown := 0, 0
			for stop := 1; ; stop++ {
				fs := newCrashFS(0)
				fs.opens = f.opens
				cfg := Config{FS: fs, SegmentBytes: 4 << 10}
				root := filepath.Join(memDir(t), fmt.Sprint(stop))
				dir := filepath.Join(root, "p")
				if err := os.MkdirAll(dir, 0o755); err != nil {
					t.Fatal(err)
				}
				l, err := Open(dir, testID, cfg)
				if err == nil {
					err = errors.Join(l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, strings.Repeat("o", 2000)), command(t, 3, 1, strings.Repeat("o", 2500))}), l.Close(true))
				}
				if err == nil {
					err = stage(dir, Config{FS: unsyncedFS{fs}}) // and was killed before it synced
				}
				if err != nil {
					t.Fatal(err)
				}
				look := func() model {
					t.Helper()
					m, err := observeAt(dir, fs)
					if err != nil {
						t.Fatal(err)
					}
					return m
				}
				old := look()
				fs.stop, fs.once = fs.ops+stop, f.err
				err = Install(dir, testID, StagingDir(dir), cfg)
				where := fmt.Sprintf("operation %d of %v", stop, fs.trace[max(0, len(fs.trace)-4):])
				if fs.ops < fs.stop {
					if err != nil {
						t.Fatal(err)
					}
					if t.Logf("%d operations, %d refused, %d unknown", stop-1, refused, unknown); segment.Scarce(f.err) && refused == 0 || !f.opens && unknown == 0 {
						t.Error("the test is of less than it says")
					}
					return
				}
				switch {
				case err == nil: // an index file
				case segment.IsRefused(err):
					refused++
					if err := Install(dir, testID, StagingDir(dir), cfg); err != nil {
						t.Fatalf("%s: refused, and the same call says %v", where, err)
					}
				case segment.IsCorrupt(err) || !errors.Is(err, f.err):
					t.Fatalf("%s: %v", where, err)
				default:
					unknown++
					if m := look(); !same(m, old) && !same(m, want) {
						t.Fatalf("%s: neither the old log nor the new one", where)
					}
					if err := errors.Join(stage(dir, cfg), Install(dir, testID, StagingDir(dir), cfg)); err != nil {
						t.Fatalf("%s: again: %v", where, err)
					}
				}
				for name, fate := range fates(uint64(stop)) {
					target := filepath.Join(memDir(t), "image")
					if !fs.powerLoss(t, root, target, fate) {
						continue
					}
					if m, err := observeAt(filepath.Join(target, "p"), fastFS{segment.OS}); err != nil || !same(m, want) {
						t.Fatalf("%s, %s: not the new log: %v", where, name, err)
					}
					os.RemoveAll(target)
				}
				if m := look(); !same(m, want) {
					t.Fatalf("%s: not the new log", where)
				}
				os.RemoveAll(root)
			}
		})
	}
}

// An unsyncedFS does not sync files.
type unsyncedFS struct{ segment.FS }

func (fs unsyncedFS) OpenFile(name string, flag int) (segment.File, error) {
	f, err := fs.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ segment.File }

func (unsyncedFile) Sync() error { return nil }

// TestStagedBytesSurviveARefusedCheck: a segment that cannot be opened to be
// checked is not a bad one, which would have to be pulled again.
func TestStagedBytesSurviveARefusedCheck(t *testing.T) {
	source := mustOpen(t, filepath.Join(memDir(t), "source"), Config{FS: fastFS{segment.OS}, SegmentBytes: 4 << 10})
	if err := errors.Join(source.StoreLog(command(t, 1, 2, strings.Repeat("s", 1500))), source.Roll()); err != nil {
		t.Fatal(err)
	}
	fs := newCrashFS(0)
	fs.opens = true
	dir := filepath.Join(t.TempDir(), "p")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	st, err := Stage(dir, testID, source.Plan(), Config{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	first, at, n, _ := st.Next()
	p := make([]byte, n)
	if _, err := source.ReadSegment(first, at, p); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	fs.stop, fs.once = fs.ops+2, syscall.EMFILE // behind the open for the write
	if err := st.Write(first, at, p); !segment.IsRefused(err) {
		t.Fatalf("%v, trace %v", err, fs.trace)
	}
	if again, back, _, ok := st.Next(); !ok || again != first || back != at {
		t.Fatalf("next is %d at %d, %v", again, back, ok)
	}
	for stop := 1; ; stop++ { // each open of Stage
		fs.stop = fs.ops + stop
		if st, err = Stage(dir, testID, source.Plan(), Config{FS: fs}); err == nil {
			break
		}
		if !segment.IsRefused(err) {
			t.Fatalf("%v, trace %v", err, fs.trace)
		}
	}
	if got := st.Arrived(); got != n {
		t.Fatalf("%d bytes are there, of %d", got, n)
	}
}

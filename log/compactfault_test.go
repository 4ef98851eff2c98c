package log

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"millrace/segment"
)

// TestAFaultDuringCompactionIsSurvived: one operation fails, or one open is refused.
// Then the log is as it was and compacts at the next try, or has failed and said so
// once; what it holds is right either way, then and when it is opened again.
func TestAFaultDuringCompactionIsSurvived(t *testing.T) { faultDuringCompaction(t, 0) }

// The same while the log is appended to, synced, checkpointed and rolled: the operation that
// fails may be of these as well.
func TestAFaultBesideACompactionIsSurvived(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 3
	}
	faultDuringCompaction(t, every)
}

// faultDuringCompaction has a bystander call after so many operations of a compaction; 0: none.
func faultDuringCompaction(t *testing.T, every int) {
	for name, f := range map[string]fault{
		"EIO": {syscall.EIO, false}, "ENOSPC": {syscall.ENOSPC, false},
		"EMFILE": {syscall.EMFILE, false}, "EMFILE opens": {syscall.EMFILE, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			failures, goesOn := 0, 0
			for stop := 1; ; stop++ {
				fs := newCrashFS(0)
				fs.opens = f.opens
				k := newKeyedLog(t, filepath.Join(memDir(t), fmt.Sprint(stop), "p"), 3, fs)
				owner := new(owner)
				k.cfg.SegmentBytes, k.cfg.Owner = 1500, owner
				if err := errors.Join(os.MkdirAll(k.dir, 0o755), k.open()); err != nil {
					t.Fatal(err)
				}
				for range 14 {
					if err := k.update(6); err != nil {
						t.Fatal(err)
					}
				}
				fs.stop, fs.once = fs.ops+stop, f.err
				b := &bystander{k: k, every: every}
				if every == 0 {
					b.every = math.MaxInt
				}
				err := k.compactBeside(fs, b)
				if fs.ops < fs.stop {
					if err := errors.Join(err, errors.Join(b.errs...)); err != nil {
						t.Fatal(err)
					}
					if every > 0 && b.calls < bystanderCalls {
						t.Errorf("only %d calls beside the compaction", b.calls)
					}
					t.Logf("%d operations, %d failed the log, %d did not", stop-1, failures, goesOn)
					return
				}
				where := fmt.Sprintf("operation %d of %v", stop, fs.trace[max(0, fs.stop-5):])
				failed := k.l.Err() != nil
				if want := map[bool]int{true: 1}[failed]; len(owner.failures) != want {
					t.Fatalf("%s: the owner was told %v, failed: %v", where, owner.failures, failed)
				}
				if failed {
					failures++
					if f.opens {
						t.Errorf("%s: an open that was refused failed the log: %v", where, err)
					}
				} else {
					goesOn++
					if err != nil && !errors.Is(err, f.err) {
						t.Fatalf("%s: %v", where, err)
					}
					for _, err := range b.errs {
						if !segment.IsRefused(err) || !errors.Is(err, f.err) {
							t.Fatalf("%s: beside it, the log goes on after %v", where, err)
						}
					}
					if b.errs = nil; every > 0 {
						for range bystanderCalls {
							b.call()
						}
					}
					if err := errors.Join(b.errs...); err != nil {
						t.Fatalf("%s: again: %v", where, err)
					}
					if _, err := k.compact(); err != nil {
						t.Fatalf("%s: again: %v", where, err)
					}
					if err := k.update(6); err != nil {
						t.Fatalf("%s: again: %v", where, err)
					}
				}
				if err := k.check(k.l); err != nil {
					t.Fatalf("%s: %v", where, err)
				}
				k.l.Close(false)
				k.cfg.FS = fastFS{segment.OS}
				if err := errors.Join(k.open(), k.check(k.l)); err != nil {
					t.Fatalf("%s: opened again: %v", where, err)
				}
				onlyListedFiles(t, k.l, where)
				k.l.Close(false)
				os.RemoveAll(filepath.Dir(k.dir))
			}
		})
	}
}

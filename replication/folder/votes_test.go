package folder

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"millrace/replication/vote"
	"millrace/segment"
)

// A folder that another process has open is refused, by who that is.
func TestFolderInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	votes, err := at(dir).OpenVotes(vote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer votes.Close()
	want := "in use by another process"
	if runtime.GOOS == "linux" {
		want = fmt.Sprintf("in use by pid %d", os.Getpid())
	}
	if again, err := at(dir).OpenVotes(vote.Config{}); again != nil || err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A failing file system fails in one of the steps that it is asked for, the first of which
// is 1.
type failing struct {
	segment.FS
	at    int
	steps []string
}

// step notes a step.
func (f *failing) step(op, name string) error {
	if f.steps = append(f.steps, op+" "+filepath.Base(name)); len(f.steps) == f.at {
		return &os.PathError{Op: op, Path: name, Err: syscall.EIO}
	}
	return nil
}

// OpenDir implements segment.FS.
func (f *failing) OpenDir(name string) (segment.Dir, error) {
	if err := f.step("open", name); err != nil {
		return nil, err
	}
	dir, err := f.FS.OpenDir(name)
	return failingDir{dir, f, name}, err
}

// Rename implements segment.FS.
func (f *failing) Rename(from, to string) error {
	if err := f.step("rename", to); err != nil {
		return err
	}
	return f.FS.Rename(from, to)
}

// A failingDir is an open folder of a failing file system.
type failingDir struct {
	segment.Dir
	fs   *failing
	name string
}

// Sync implements segment.Dir.
func (d failingDir) Sync() error {
	if err := d.fs.step("sync", d.name); err != nil {
		return err
	}
	return d.Dir.Sync()
}

// A first start that is cut short between two steps of making the file leaves none, or a
// whole one, and the next start has votes.
func TestVotesAreMadeWholeOrNotAtAll(t *testing.T) {
	for fail := 1; ; fail++ {
		dir := t.TempDir()
		disk := &failing{FS: segment.OS, at: fail}
		votes, err := Folder{FS: disk, Dir: dir}.OpenVotes(vote.Config{})
		steps := disk.steps
		if len(steps) < fail {
			want := []string{"open " + filepath.Base(dir), "rename " + VotesName, "sync " + filepath.Base(dir)}
			if !slices.Equal(steps, want) || err != nil {
				t.Errorf("%q, want %q; %v", steps, want, err)
			}
			votes.Close()
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("the disk fails in %s: %v", steps[fail-1], err)
		}
		votes, err = at(dir).OpenVotes(vote.Config{})
		if err != nil {
			t.Fatalf("after a disk that failed in %s: %v", steps[fail-1], err)
		}
		if err := votes.Group(1).SetUint64([]byte(vote.CurrentTerm), 1); err != nil {
			t.Error(err)
		}
		if err := votes.Close(); err != nil {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("after a disk that failed in %s: %v, %v", steps[fail-1], left, err)
		}
	}
}

package replication

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

// A folder that another process has open is refused with what to do about it.
func TestFolderInUseIsRefusedWithAWayOut(t *testing.T) {
	dir := t.TempDir()
	votes, err := openVotes(segment.OS, dir, vote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer votes.Close()
	by := "another process"
	if runtime.GOOS == "linux" {
		by = fmt.Sprintf("pid %d", os.Getpid())
	}
	want := fmt.Sprintf("in use by %s; stop it, or choose another folder with --data-dir", by)
	if again, err := openVotes(segment.OS, dir, vote.Config{}); again != nil || err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// A first start that is cut short between two steps of making the file leaves none, or a
// whole one, and the next start has votes.
func TestVotesAreMadeWholeOrNotAtAll(t *testing.T) {
	for fail := 1; ; fail++ {
		dir := t.TempDir()
		disk := newTestDisk()
		var steps []string
		disk.disturb(func(op, name string) (error, bool) {
			if steps = append(steps, op+" "+filepath.Base(name)); len(steps) == fail {
				return syscall.EIO, false
			}
			return nil, false
		})
		votes, err := openVotes(disk, dir, vote.Config{})
		if len(steps) < fail {
			want := []string{"open " + filepath.Base(dir), "rename " + stableName, "sync " + filepath.Base(dir)}
			if !slices.Equal(steps, want) || err != nil {
				t.Errorf("%q, want %q; %v", steps, want, err)
			}
			votes.Close()
			return
		}
		if !errors.Is(err, syscall.EIO) {
			t.Errorf("the disk fails in %s: %v", steps[fail-1], err)
		}
		votes, err = openVotes(segment.OS, dir, vote.Config{})
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

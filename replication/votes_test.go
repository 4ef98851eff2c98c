package replication

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"millrace/replication/vote"
)

// A folder that another process has open is refused with what to do about it.
func TestFolderInUseIsRefusedWithAWayOut(t *testing.T) {
	dir := t.TempDir()
	votes, err := openVotes(dir, vote.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer votes.Close()
	by := "another process"
	if runtime.GOOS == "linux" {
		by = fmt.Sprintf("pid %d", os.Getpid())
	}
	want := fmt.Sprintf("in use by %s; stop it, or choose another folder with --data-dir", by)
	if again, err := openVotes(dir, vote.Config{}); again != nil || err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

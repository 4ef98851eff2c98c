package log

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// fillDisk takes the last block of the file system at dir.
func fillDisk(t *testing.T, dir string, n *int) {
	t.Helper()
	zeros := make([]byte, 1<<20)
	for dry := 0; dry < 3; dry++ {
		*n++
		f, err := os.Create(fmt.Sprintf("%s/ballast-%d", dir, *n))
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			continue // a tmpfs has no room for the name either
		}
		for size := len(zeros); size >= 4096; {
			if k, err := f.Write(zeros[:size]); errors.Is(err, syscall.ENOSPC) {
				size /= 4
			} else if err != nil {
				t.Fatal(err)
			} else if k > 0 {
				dry = 0
			}
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		syscall.Sync()
	}
}

// TestRecoveryTakesRoomForAFileWithHoles: a log that gave its room back to a full disk, or a copy that
// left zeros out, has a file that is longer than what the disk holds of it. Opened
// again, it takes room before it writes, and reads nothing that would take any.
func TestRecoveryTakesRoomForAFileWithHoles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount file systems of its own: not run")
	}
	for _, kind := range []string{"ext4", "tmpfs"} {
		t.Run(kind, func(t *testing.T) {
			mount := filepath.Join(t.TempDir(), "mnt")
			image := mount + ".img"
			if err := errors.Join(os.Mkdir(mount, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, 24<<20)); err != nil {
				t.Fatal(err)
			}
			steps := [][]string{{"mkfs.ext4", "-q", "-F", "-b", "4096", "-m", "0", image}, {"mount", "-o", "loop", image, mount}}
			if kind == "tmpfs" {
				steps = [][]string{{"mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount}}
			}
			for _, s := range steps {
				if out, err := exec.Command(s[0], s[1:]...).CombinedOutput(); err != nil {
					t.Skipf("%v: %v: %s: not run", s, err, out)
				}
			}
			var l *Log
			t.Cleanup(func() {
				if l != nil {
					l.Close(false)
				}
				for range 1000 {
					if exec.Command("umount", mount).Run() == nil {
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
				t.Error("the disk is still in use")
			})
			open := func() {
				t.Helper()
				var err error
				if l, err = Open(mount+"/p", testID, Config{SegmentBytes: 64 << 20}); err != nil {
					t.Fatal(err)
				}
			}
			open()
			if err := errors.Join(l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "a"), command(t, 3, 1, "b")}), l.Reserve(1, 300<<10)); err != nil {
				t.Fatal(err)
			}
			ballast := 0
			fillDisk(t, mount, &ballast)
			if _, err := l.Drop(1, 0); err != nil { // which makes it give back its room
				t.Fatal(err)
			}
			fillDisk(t, mount, &ballast)
			for _, clean := range []bool{false, true} {
				l.Close(clean)
				open()
				big := command(t, l.NextIndex(), 1, strings.Repeat("x", 200<<10))
				if err := l.Reserve(1, len(big.Data)); !errors.Is(err, ErrNoSpace) {
					t.Fatalf("closed clean %v: Reserve says %v", clean, err)
				}
				if err := l.StoreLog(big); !errors.Is(err, ErrNoSpace) || l.Err() != nil {
					t.Fatalf("closed clean %v: StoreLog says %v, the log %v", clean, err, l.Err())
				}
				if err := l.Verify(1); err != nil {
					t.Fatal(err)
				}
			}
			for i := range ballast {
				os.Remove(fmt.Sprintf("%s/ballast-%d", mount, i+1))
			}
			syscall.Sync()
			if err := l.StoreLog(command(t, l.NextIndex(), 1, strings.Repeat("x", 200<<10))); err != nil {
				t.Fatal(err)
			}
		})
	}
}

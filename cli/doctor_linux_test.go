package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A file system without room, or without inodes, is found so. It is a small one in memory,
// which only root may mount.
func TestDoctorFindsADiskThatIsFull(t *testing.T) {
	small := func(t *testing.T, options string) string {
		dir := t.TempDir()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
			t.Skipf("mount a tmpfs: %v", err)
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		return dir
	}
	t.Run("room", func(t *testing.T) {
		dir := small(t, "size=1m")
		err := os.WriteFile(filepath.Join(dir, "ballast"), []byte(strings.Repeat("x", 2<<20)), 0o644)
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v", err)
		}
		d := patient(nil)
		d.examineFolder(dir)
		d.wants(t, "file system", worrying, "tmpfs is memory", "choose a folder on a disk")
		d.wants(t, "room", failed, "0 B of 1.05 MB free below "+dir, "make room")
		d.wants(t, "fsync", failed, "no space left on device", "make room")
	})
	t.Run("inodes", func(t *testing.T) {
		dir := small(t, "size=1m,nr_inodes=4")
		for name := 'a'; ; name++ {
			if err := os.WriteFile(filepath.Join(dir, string(name)), nil, 0o644); errors.Is(err, syscall.ENOSPC) {
				break
			} else if err != nil || name > 'z' {
				t.Skipf("this system does not bound the inodes of a tmpfs: %v", err)
			}
		}
		d := patient(nil)
		d.examineFolder(dir)
		d.wants(t, "inodes", failed, "0 of 4 free", "with more")
	})
}

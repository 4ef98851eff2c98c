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
		d.wants(t, "room", failed, dir+": 0 B of 1.05 MB free", "make room")
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

// A limit is judged in one way, whether a broker has it or would get it, and every one that
// is too low is named.
func TestDoctorJudgesLimitsInOneWay(t *testing.T) {
	for _, c := range []struct {
		used, limit int64
		verdict     string
	}{
		{0, fewFiles, fine}, {0, fewFiles - 1, worrying}, {26, 20_000, worrying},
		{70_000, 80_000, worrying}, {79_000, 80_000, failed}, {19_000, 20_000, failed},
	} {
		if got := judgeLimit(c.used, c.limit, fewFiles); got != c.verdict {
			t.Errorf("%d of %d: %s, want %s", c.used, c.limit, got, c.verdict)
		}
		d := patient(nil)
		d.judgeAllowed("descriptors", c.limit, fewFiles, moreFiles)
		if f := d.findings[0]; c.used == 0 && (f.Verdict != c.verdict || (f.Change == "") != (c.verdict == fine)) {
			t.Errorf("%+v, want %s", f, c.verdict)
		}
	}
}

func TestDoctorJudgesInodes(t *testing.T) {
	for _, c := range []struct {
		inodes, left int64
		verdict      string
	}{
		{1 << 20, 1 << 19, fine}, {1 << 20, 50_000, worrying}, {1 << 20, 5_000, failed},
		{500, 499, worrying}, {12_000, 11_000, fine}, {240, 240, failed},
	} {
		d := patient(nil)
		d.judgeInodes("./d", c.inodes, c.left)
		if f := d.findings[0]; f.Verdict != c.verdict {
			t.Errorf("%d of %d: %+v, want %s", c.left, c.inodes, f, c.verdict)
		}
	}
	d := patient(nil)
	if d.judgeInodes("./d", 0, 0); len(d.findings) != 0 {
		t.Errorf("a file system that makes them as they are needed: %+v", d.findings)
	}
}

//go:build faults

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

// A volume is a file system of a node's own: its data folder lies in it.
type volume struct {
	t      *testing.T
	source string // what is mounted: an image file, or "tmpfs"
	at     string
	opts   string
}

// newVolume mounts a file system for a node and makes it the node's data folder.
// The test skips where this machine does not allow it.
func newVolume(t *testing.T, n *node, source, options string) *volume {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting a file system needs root: not run")
	}
	v := &volume{t: t, source: source, at: n.Data + ".volume", opts: options}
	if err := os.MkdirAll(v.at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := v.tryMount(); err != nil {
		t.Skipf("this machine does not mount %s: %v: not run", source, err)
	}
	t.Cleanup(func() { // runs before the cluster's own, so the node is ended here
		n.Resume()
		n.Kill()
		v.unmount()
	})
	n.Data = filepath.Join(v.at, "data") // a folder of its own: lost+found is not the node's
	return v
}

// newDisk is a loop-mounted ext4 image of a size in MiB.
func newDisk(t *testing.T, n *node, megabytes int) *volume {
	t.Helper()
	image := n.Data + ".img"
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, int64(megabytes)<<20); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", image).CombinedOutput(); err != nil {
		t.Skipf("mkfs.ext4: %v: %s: not run", err, out)
	}
	return newVolume(t, n, image, "loop")
}

// newMemory is a tmpfs of a size in MiB.
func newMemory(t *testing.T, n *node, megabytes int) *volume {
	t.Helper()
	return newVolume(t, n, "tmpfs", fmt.Sprintf("size=%dm", megabytes))
}

func (v *volume) tryMount() error {
	args := []string{"-o", v.opts, v.source, v.at}
	if v.source == "tmpfs" {
		args = append([]string{"-t", "tmpfs"}, args...)
	}
	out, err := exec.Command("mount", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (v *volume) mount() {
	v.t.Helper()
	if err := v.tryMount(); err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) unmount() {
	v.t.Helper()
	var out []byte
	var err error
	for range 1000 { // the kernel may hold it for a moment after the process is gone
		if out, err = exec.Command("umount", v.at).CombinedOutput(); err == nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	v.t.Errorf("umount %s: %v: %s", v.at, err, out)
}

// cutPower makes everything that was not synced be gone: the file system stops
// without writing its journal, as if the machine had lost power.
func (v *volume) cutPower() {
	v.t.Helper()
	const (
		ext4IocShutdown = 0x8004587d
		noLogFlush      = 2
	)
	f, err := os.Open(v.at)
	if err != nil {
		v.t.Fatal(err)
	}
	defer f.Close()
	how := uint32(noLogFlush)
	if _, _, e := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ext4IocShutdown, uintptr(unsafe.Pointer(&how))); e != 0 {
		v.t.Fatalf("shut %s down: %v", v.at, e)
	}
}

// free returns the bytes left.
func (v *volume) free() int64 {
	var s syscall.Statfs_t
	if err := syscall.Statfs(v.at, &s); err != nil {
		v.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill writes a ballast file until only so many bytes are left.
func (v *volume) fill(left int64) {
	v.t.Helper()
	if n := v.free() - left; n > 0 {
		f, err := os.OpenFile(v.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
		if err != nil {
			v.t.Fatal(err)
		}
		defer f.Close()
		chunk := make([]byte, 1<<20)
		for ; n > 0; n -= int64(len(chunk)) {
			if _, err := f.Write(chunk[:min(n, int64(len(chunk)))]); err != nil {
				return // full: what was wanted
			}
		}
	}
}

// makeRoom removes the ballast.
func (v *volume) makeRoom() {
	if err := os.Remove(v.ballast()); err != nil {
		v.t.Fatal(err)
	}
}

func (v *volume) ballast() string { return filepath.Join(v.at, "ballast") }

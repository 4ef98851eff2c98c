//go:build unix

package record

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A page that cannot be read, here one behind the end of a file that was cut
// short, is an error and not the end of the process.
func TestAPageThatCannotBeReadIsAnError(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	page := os.Getpagesize()
	if _, err := f.Write(bytes.Repeat([]byte("x"), 2*page)); err != nil {
		t.Fatal(err)
	}
	mapped, err := syscall.Mmap(int(f.Fd()), 0, 2*page, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(mapped)
	v := NewView([][]byte{mapped[:10], mapped[page:]}, 1, nil)
	if p, err := v.Copy([]byte("a")); err != nil || string(p) != "a"+strings.Repeat("x", 10+page) {
		t.Fatalf("%d bytes, %v", len(p), err)
	}
	if err := f.Truncate(int64(page)); err != nil {
		t.Fatal(err)
	}
	if p, err := v.Copy(nil); err == nil || !strings.Contains(err.Error(), "cannot be read") {
		t.Errorf("%d bytes, %v", len(p), err)
	}
	n := 0
	if err := v.Look(func(p []byte) error { n += int(p[0]); return nil }); err == nil || n != 'x' {
		t.Errorf("%d, %v", n, err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a panic of another kind was swallowed")
		}
	}()
	v.Look(func([]byte) error { panic("other") })
}

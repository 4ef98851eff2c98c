//go:build unix

package segment

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
	v := &View{Bytes: [][]byte{mapped[:10], mapped[page:]}, Next: 1}
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

// A view that is released gives its mapping back, once, and a view of nothing has none.
func TestAViewIsReleased(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("abc"); err != nil {
		t.Fatal(err)
	}
	m, err := newMapping(f.Fd(), 3)
	if err != nil {
		t.Fatal(err)
	}
	v := &View{Bytes: [][]byte{m.data[:2], m.data[2:3]}, Next: 9, m: m}
	if v.Len() != 3 || v.Next != 9 {
		t.Errorf("%d bytes, next %d", v.Len(), v.Next)
	}
	v.Release()
	if m.acquireLive() || v.Bytes != nil || v.Len() != 0 {
		t.Errorf("released, and %d bytes are left, %d references", v.Len(), m.refs.Load())
	}
	new(View).Release()
}

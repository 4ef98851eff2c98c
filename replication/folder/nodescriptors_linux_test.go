package folder

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// An age whose folder cannot be synced, here since that takes a second descriptor, leaves
// its file closed: a start is tried again in the same process.
func TestAnAgeThatCannotBeOpenedKeepsNoDescriptor(t *testing.T) {
	dir := t.TempDir()
	lowest := func() int {
		fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		syscall.Close(fd)
		return fd
	}
	one := lowest()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: uint64(one) + 1, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	a, err := at(dir).OpenAge(0)
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
	if !errors.Is(err, syscall.EMFILE) || a != nil {
		t.Fatalf("with one descriptor: %v, %v", a, err)
	}
	if _, err := os.Stat(filepath.Join(dir, AgeName)); err != nil {
		t.Fatalf("%v: the test is of nothing", err)
	}
	if now := lowest(); now != one {
		t.Errorf("descriptor %d is open", one)
	}
}

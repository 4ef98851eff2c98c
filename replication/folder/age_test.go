package folder

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"millrace/segment"
)

// at is the folder at dir, on the operating system's files.
func at(dir string) Folder { return Folder{FS: segment.OS, Dir: dir} }

// startOnly raises a folder's age as a start does, and returns it.
func startOnly(t *testing.T, dir string) uint64 {
	t.Helper()
	a, err := at(dir).OpenAge(0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	return a.Now()
}

// An age that was torn by a crash is the one before.
func TestTornAgeIsTheOneBefore(t *testing.T) {
	dir := t.TempDir()
	for want := uint64(1); want <= 3; want++ {
		if got := startOnly(t, dir); got != want {
			t.Fatalf("start %d: age %d", want, got)
		}
	}
	path := filepath.Join(dir, AgeName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range ageSlot - 4 { // slot 1 has age 3
		torn := append([]byte(nil), whole...)
		torn[ageSlot+i] ^= 0x55
		if err := os.WriteFile(path, torn, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := startOnly(t, dir); got != 3 {
			t.Errorf("byte %d damaged: age %d, want 3 again", i, got)
		}
	}
}

// What could not be written is not said.
func TestAnAgeIsSaidOnceItIsOnTheDisk(t *testing.T) {
	a, err := at(t.TempDir()).OpenAge(0)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	if err := a.Raise(); err == nil || a.Now() != 1 {
		t.Errorf("age %d on a disk that takes nothing: %v", a.Now(), err)
	}
}

// A file that cannot be read is not one that is not there: a node that said it is of age 1
// would be sent away as a copy of itself, and come back without its partitions.
func TestAnAgeThatCannotBeReadIsNotTheFirst(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no file that opens and cannot be read")
	}
	dir := t.TempDir()
	if err := os.Symlink("/proc/self/mem", filepath.Join(dir, AgeName)); err != nil {
		t.Fatal(err)
	}
	if a, err := at(dir).OpenAge(0); !errors.Is(err, syscall.EIO) {
		t.Errorf("it is %v, %v; want an error of the disk's", a, err)
	}
}

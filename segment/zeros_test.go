//go:build unix

package segment

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestZerosTakeRoomWithoutFallocate is the other half of S24.
func TestZerosTakeRoomWithoutFallocate(t *testing.T) {
	f, err := OS.OpenFile(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := writeZeros(f, 100, 3<<20+5); err != nil {
		t.Fatal(err)
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil || st.Size != 3<<20+5 || st.Blocks*512 < 3<<20-4096 {
		t.Fatalf("size %d, blocks %d: %v", st.Size, st.Blocks, err)
	}
}

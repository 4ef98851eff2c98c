package segment

import (
	"bufio"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
)

// residentBytesOf returns how many bytes of the file at path are in this process's
// memory through mappings.
func residentBytesOf(t *testing.T, path string) (bytes int64) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	within := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		var kb int64
		switch {
		case strings.Contains(line, " "+path):
			within = true
		case strings.HasPrefix(line, "VmFlags:"):
			within = false
		case within:
			if n, _ := fmt.Sscanf(line, "Rss: %d kB", &kb); n == 1 {
				bytes += kb << 10
			}
		}
	}
	return bytes
}

// A reader of a large segment does not make it the process's memory, whichever
// way it reads.
func TestReadersKeepLittleOfASegmentResident(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("what is resident is read from /proc/self/smaps: not run")
	}
	s := newTestSegment(t, 64<<20)
	for range 40 {
		appendTest(t, s, 4, [2]int{1, 1 << 20})
	}
	info := s.Info()
	most := int64(residentBytes + 2<<20) // a frame, and what comes with a fault
	for i := info.FirstIndex; i <= info.LastIndex; i++ {
		if _, err := s.Frame(i); err != nil {
			t.Fatal(err)
		}
		if got := residentBytesOf(t, s.Path()); got > most {
			t.Fatalf("%d bytes resident after reading entry %d", got, i)
		}
	}
	read, sum := 0, uint32(0)
	for offset := info.BaseOffset; offset < info.NextOffset; {
		v, err := s.Read(offset, info.NextOffset, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range v.Bytes {
			sum = crc32.Update(sum, castagnoli, p) // touches every page
		}
		read += v.Len()
		offset = v.Next
		v.Release()
		if got := residentBytesOf(t, s.Path()); got > most {
			t.Fatalf("%d bytes resident after reading up to offset %d", got, offset)
		}
	}
	if read < 40<<20 || sum == 0 {
		t.Errorf("only %d bytes were read, with CRC %08x", read, sum)
	}
	// As Raft replays them after a start.
	read = 0
	err := s.Entries(info.FirstIndex, func(f *Frame) error {
		read += len(f.Payload)
		if got := residentBytesOf(t, s.Path()); got > most {
			return fmt.Errorf("%d bytes resident at entry %d", got, f.Index)
		}
		return nil
	})
	if err != nil || read < 40<<20 {
		t.Errorf("%d bytes of entries: %v", read, err)
	}
	// As a follower pulls a segment.
	p := make([]byte, 1<<20)
	for at := int64(0); at < info.Bytes; {
		n, err := s.ReadAt(p, at)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		at += int64(n)
		if got := residentBytesOf(t, s.Path()); got > most {
			t.Fatalf("%d bytes resident after copying %d", got, at)
		}
	}
}

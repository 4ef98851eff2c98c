package log

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// filled makes a log of a few segments in dir, and closes it.
func filled(t testing.TB, dir string, id segment.Identity, clean bool) model {
	t.Helper()
	l, err := Open(dir, id, Config{SegmentBytes: 1 << 10, FS: fastFS{segment.OS}})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "a", "b")}); err != nil {
		t.Fatal(err)
	}
	for i := uint64(3); i < 12; i++ {
		if err := l.StoreLog(command(t, i, 1+i/4, strings.Repeat("x", 100*int(i%4)), "y")); err != nil {
			t.Fatal(err)
		}
	}
	m, err := observe(l)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(clean); err != nil {
		t.Fatal(err)
	}
	return m
}

func logFiles(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	return paths
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func mustWrite(t testing.TB, path string, p []byte) {
	t.Helper()
	if err := os.WriteFile(path, p, 0o644); err != nil {
		t.Fatal(err)
	}
}

// opened opens the log in dir and reads everything in it.
func opened(dir string, id segment.Identity) (model, error) {
	l, err := Open(dir, id, Config{FS: fastFS{segment.OS}})
	if err != nil {
		return model{}, err
	}
	defer l.Close(false)
	return observe(l)
}

func TestEveryByteOfAManifestIsGuarded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	filled(t, dir, testID, true)
	path := filepath.Join(dir, manifestName)
	whole := mustRead(t, path)
	for at := range whole {
		p := bytes.Clone(whole)
		p[at] ^= 0x20
		mustWrite(t, path, p)
		var c *segment.CorruptError
		if _, err := opened(dir, testID); !errors.As(err, &c) || c.Path != path {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
	for n := range whole {
		mustWrite(t, path, whole[:n])
		if _, err := opened(dir, testID); !segment.IsCorrupt(err) {
			t.Fatalf("cut to %d: %v", n, err)
		}
	}
	os.Remove(path)
	if _, err := opened(dir, testID); !segment.IsCorrupt(err) {
		t.Fatalf("a log without its manifest: %v", err)
	}
	mustWrite(t, path, whole)
	if _, err := opened(dir, testID); err != nil {
		t.Fatal(err)
	}
}

// TestFoldersThatWereSwappedAreRefused is S19.
func TestFoldersThatWereSwappedAreRefused(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	idA, idB := testID, testID
	idA.Replica, idB.Replica = "1.aaaa", "2.bbbb"
	filled(t, a, idA, true)
	filled(t, b, idB, true)
	other := idA
	other.Partition++
	for what, id := range map[string]segment.Identity{"another partition's": other, "another node's": idB} {
		if _, err := opened(a, id); !segment.IsCorrupt(err) {
			t.Errorf("%s folder: %v", what, err)
		}
	}
	if _, err := opened(a, testID); err != nil { // whoever does not say who he is
		t.Error(err)
	}
	// One file of another replica, of the same name: the salt differs.
	for i, path := range logFiles(t, a) {
		whole := mustRead(t, path)
		mustWrite(t, path, mustRead(t, logFiles(t, b)[i]))
		if _, err := opened(a, idA); !segment.IsCorrupt(err) {
			t.Errorf("%s of another replica: %v", filepath.Base(path), err)
		}
		mustWrite(t, path, whole)
		os.Rename(path, path+"x")
		if _, err := opened(a, idA); !segment.IsCorrupt(err) {
			t.Errorf("%s missing: %v", filepath.Base(path), err)
		}
		os.Rename(path+"x", path)
	}
	if _, err := opened(a, idA); err != nil {
		t.Error(err)
	}
}

// TestAnOlderManifestIsRefused: it would make a shorter log of the folder, and the
// replica would have forgotten what it acknowledged.
func TestAnOlderManifestIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	l := mustOpen(t, dir, Config{SegmentBytes: 1 << 10, FS: fastFS{segment.OS}})
	var old []byte
	for i := range uint64(12) {
		if err := l.StoreLog(command(t, i+1, 1, strings.Repeat("x", 300))); err != nil {
			t.Fatal(err)
		}
		if i == 5 {
			old = mustRead(t, filepath.Join(dir, manifestName))
		}
	}
	l.Close(true)
	mustWrite(t, filepath.Join(dir, manifestName), old)
	if _, err := opened(dir, testID); !segment.IsCorrupt(err) {
		t.Fatal(err)
	}
	if n := len(logFiles(t, dir)); n < 4 {
		t.Fatalf("only %d segments are left", n)
	}
}

// TestAFlipInTheLastEntryIsRotAfterACleanStop is S15: after a kill it may be a torn
// write, and nobody was told otherwise.
func TestAFlipInTheLastEntryIsRotAfterACleanStop(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := filepath.Join(t.TempDir(), "p")
		m := filled(t, dir, testID, clean)
		paths := logFiles(t, dir)
		path := paths[len(paths)-1]
		whole := mustRead(t, path)
		last := m.entries[len(m.entries)-1]
		at := bytes.LastIndex(whole, last.Data)
		for _, i := range []int{at - segment.FrameHeaderSize, at - 10, at, at + len(last.Data) - 1} {
			p := bytes.Clone(whole)
			p[i] ^= 1
			mustWrite(t, path, p)
			got, err := opened(dir, testID)
			var c *segment.CorruptError
			if clean && (!errors.As(err, &c) || c.Path != path || c.Position != int64(at-segment.FrameHeaderSize)) {
				t.Errorf("clean, byte %d: %v", i, err)
			}
			if !clean {
				if err != nil || got.last() != m.last()-1 {
					t.Errorf("killed, byte %d: last %d, %v", i, got.last(), err)
				}
				os.RemoveAll(dir)
				filled(t, dir, testID, clean)
				whole = mustRead(t, path)
				at = bytes.LastIndex(whole, last.Data)
			}
		}
	}
}

// TestRotInASealedSegmentIsFoundAndNeverServed is S13 for one log, running and
// stopped: each bit flip is either in bytes nobody reads, or an error with its
// place, and every other entry stays readable.
func TestRotInASealedSegmentIsFoundAndNeverServed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	want := filled(t, dir, testID, true)
	cfg := Config{FS: fastFS{segment.OS}}
	path := logFiles(t, dir)[0]
	whole := mustRead(t, path)
	for at := segment.HeaderSize; at < len(whole); at += 7 {
		for _, running := range []bool{true, false} {
			var l *Log
			var err error
			if running {
				l = mustOpen(t, dir, cfg)
			}
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteAt([]byte{whole[at] ^ 0x40}, int64(at))
			if !running {
				l = mustOpen(t, dir, cfg) // sealed segments are not read at start
			}
			bad := 0
			for i := range want.entries {
				var e raft.Log
				err := l.GetLog(want.entries[i].Index, &e)
				if err == nil && sameEntry(&e, &want.entries[i]) {
					continue
				}
				if !segment.IsCorrupt(err) {
					t.Fatalf("byte %d: entry %d is %+v, %v", at, want.entries[i].Index, e, err)
				}
				bad++
			}
			for o := int64(0); o < l.EndOffset(); o++ {
				v, err := l.Read(o, l.EndOffset(), 1)
				if err != nil {
					if !segment.IsCorrupt(err) {
						t.Fatal(err)
					}
					continue
				}
				if b := batches(v.Bytes[0])[0]; b.Check() != nil || b.BaseOffset() > o || b.NextOffset() <= o {
					t.Fatalf("byte %d: offset %d served bad bytes", at, o)
				}
				v.Release()
			}
			info := l.Sealed()[0]
			if inside := int64(at) < info.Bytes; inside != (bad > 0) || bad > 1 {
				t.Fatalf("byte %d of %d: %d bad entries", at, info.Bytes, bad)
			} else if err := l.Verify(1); inside != segment.IsCorrupt(err) {
				t.Fatalf("byte %d: verify says %v", at, err)
			}
			l.Close(false)
			f.WriteAt(whole[at:at+1], int64(at))
			f.Close()
		}
	}
}

// TestALostIndexBesideRotLosesNoOtherFrame: without its index files a segment is
// walked, and a bad header in the middle ends the walk.
func TestALostIndexBesideRotLosesNoOtherFrame(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	want := filled(t, dir, testID, true)
	paths := logFiles(t, dir)
	for _, p := range segment.Paths(paths[0])[1:] {
		os.Remove(p)
	}
	p := mustRead(t, paths[0])
	p[segment.HeaderSize+17] ^= 1
	mustWrite(t, paths[0], p)
	l := mustOpen(t, dir, Config{})
	sealed := l.Sealed()[0]
	for i := range want.entries {
		var e raft.Log
		err := l.GetLog(want.entries[i].Index, &e)
		if in := want.entries[i].Index <= sealed.LastIndex; in && !segment.IsCorrupt(err) || !in && (err != nil || !sameEntry(&e, &want.entries[i])) {
			t.Errorf("entry %d: %v", want.entries[i].Index, err)
		}
	}
}

// TestATruncatedFileIsAnErrorNotASignal is what SetPanicOnFault is for.
func TestATruncatedFileIsAnErrorNotASignal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	l := mustOpen(t, dir, Config{FS: fastFS{segment.OS}, Cache: NewCache(1)})
	for i := range uint64(50) {
		if err := l.StoreLog(command(t, i+1, 1, strings.Repeat("z", 4000))); err != nil {
			t.Fatal(err)
		}
	}
	var e raft.Log
	if err := l.GetLog(50, &e); err != nil { // the mapping is there
		t.Fatal(err)
	}
	if err := os.Truncate(logFiles(t, dir)[0], 8192); err != nil {
		t.Fatal(err)
	}
	if err := l.GetLog(50, &e); !segment.IsCorrupt(err) {
		t.Errorf("get: %v", err)
	}
	if _, err := l.Read(49, 50, 1<<20); !segment.IsCorrupt(err) {
		t.Errorf("read: %v", err)
	}
	if _, _, _, err := l.OffsetAt(testClock+40_000, 50); !segment.IsCorrupt(err) {
		t.Errorf("offset at: %v", err)
	}
	if err := l.Verify(1); !segment.IsCorrupt(err) {
		t.Errorf("verify: %v", err)
	}
}

// FuzzManifest: what is accepted is what we would write, and opens or is refused
// without a panic.
func FuzzManifest(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "p")
	filled(f, dir, testID, true)
	f.Add(mustRead(f, filepath.Join(dir, manifestName)))
	f.Add((&manifest{nextSerial: 1, end: boundary{index: 1}}).encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) >= manifestHeader { // the CRC is no obstacle to the fuzzer
			binary.BigEndian.PutUint32(p[12:], uint32(len(p)))
			binary.BigEndian.PutUint32(p[16:], manifestCRC(p))
		}
		m, err := parseManifest("x", p)
		if err != nil {
			if !segment.IsCorrupt(err) {
				t.Fatal(err)
			}
			return
		}
		again, err := parseManifest("x", m.encode())
		if err != nil {
			t.Fatalf("accepted, but not what it encodes to: %v", err)
		}
		if fmt.Sprintf("%+v", m) != fmt.Sprintf("%+v", again) {
			t.Fatalf("%+v\n%+v", m, again)
		}
	})
}

// FuzzPlan: a plan comes from a peer. What Stage accepts of it contradicts nothing.
func FuzzPlan(f *testing.F) {
	f.Add(int64(0), uint64(1), uint64(5), int64(0), int64(9), int64(1000), uint64(6), int64(9))
	f.Fuzz(func(t *testing.T, start int64, first, last uint64, base, next, size int64, endIndex uint64, endOffset int64) {
		plan := Plan{StartOffset: start, EndIndex: endIndex, EndOffset: endOffset, EndTerm: 2, Segments: []SegmentInfo{
			{FirstIndex: first, LastIndex: last, BaseOffset: base, NextOffset: next, Bytes: size, LastTerm: 2},
		}}
		s, err := Stage(t.TempDir(), testID, plan, Config{FS: fastFS{segment.OS}})
		if err != nil {
			return
		}
		i, at, n, ok := s.Next()
		if !ok || i != first || at != 0 || n != size || start > endOffset || endOffset != next || endIndex != last+1 {
			t.Fatalf("accepted %+v", plan)
		}
		if err := s.Write(first, 0, make([]byte, min(n, 1<<16))); err == nil && n <= 1<<16 {
			t.Fatal("zeros pass for a segment")
		}
	})
}

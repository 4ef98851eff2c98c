package segment

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"

	"millrace/segment/record"
)

// sealedTest returns a sealed segment of its own with n frames, and the frames.
func sealedTest(t testing.TB, fs FS, n int) (*Reader, []Frame) {
	t.Helper()
	s := newTestSegment(t, 16<<20)
	var frames []Frame
	for range n {
		frames = append(frames, appendTest(t, s, 4, [2]int{1, 30})...)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	info, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	r, err := OpenSealed(fs, s.path, testID, info)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, frames
}

// boundMappings bounds the mappings of a test's segments beside those there are.
func boundMappings(t *testing.T, n int64) (bound int64) {
	before := mapped.bound
	t.Cleanup(func() { mapped.bound = before })
	mapped.bound = mapped.count.Load() + n
	return mapped.bound
}

// However many segments are read, no more than so many mappings are there, save what
// readers hold; and what is read over and over stays mapped.
func TestMappingsStayWithinTheirBound(t *testing.T) {
	const segments, most = 40, 10
	var all []*Reader
	var frames [][]Frame
	for range segments {
		s, f := sealedTest(t, quick, 8)
		all, frames = append(all, s), append(frames, f)
	}
	bound := boundMappings(t, most)
	read := func(i int, r *rand.Rand) error {
		f := frames[i][r.IntN(len(frames[i]))]
		switch r.IntN(3) {
		case 0:
			got, err := all[i].Frame(f.Index)
			if err != nil || !bytes.Equal(got.Payload, f.Payload) {
				return fmt.Errorf("segment %d: %+v, %w", i, got, err)
			}
		case 1:
			offset, _, ok, err := all[i].OffsetAt(f.MaxTimestamp, 0, 1<<40)
			if err != nil || !ok || offset != f.BaseOffset {
				return fmt.Errorf("segment %d: offset %d at %d, %v, %w", i, offset, f.MaxTimestamp, ok, err)
			}
		default:
			v, err := all[i].Read(f.BaseOffset, 1<<40, 1)
			if err != nil || !bytes.Equal(v.Bytes[0], f.Payload) {
				return fmt.Errorf("segment %d: %w", i, err)
			}
			v.Release()
		}
		return nil
	}
	r := rand.New(rand.NewPCG(1, 1))
	if err := read(0, r); err != nil {
		t.Fatal(err)
	}
	hot := all[0].m
	for n := range 4 * segments {
		for _, i := range []int{0, n % segments} {
			if err := read(i, r); err != nil {
				t.Fatal(err)
			}
		}
		if got := mapped.count.Load(); got > bound {
			t.Fatalf("%d mappings, at most %d", got, bound)
		}
		if all[0].m != hot {
			t.Fatalf("after %d reads the segment that is read most was let go", n)
		}
	}
	const readers = 6
	rounds := 2000
	if testing.Short() {
		rounds = 400
	}
	var wg sync.WaitGroup
	for k := range readers {
		wg.Add(1)
		go func() { // a reader: ends with its rounds
			defer wg.Done()
			r := rand.New(rand.NewPCG(uint64(k), 2))
			for range rounds {
				if err := read(r.IntN(segments), r); err != nil {
					t.Error(err)
					return
				}
				// Each reader has at most the two mappings of the segment it reads pinned.
				if got := mapped.count.Load(); got > bound+2*readers {
					t.Errorf("%d mappings, at most %d and %d pinned", got, bound, 2*readers)
					return
				}
			}
		}()
	}
	wg.Wait()
	// What views hold stays, whatever is read beside.
	v, err := all[1].Read(frames[1][0].BaseOffset, 1<<40, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if err := read(i, r); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(v.Bytes[0], frames[1][0].Payload) {
		t.Error("a view's bytes have changed")
	}
	v.Release()
	for _, s := range all {
		s.Close()
	}
	if got := mapped.count.Load(); got != bound-most || len(mapped.ring) != 0 {
		t.Errorf("%d mappings are left of closed segments, and %d in the ring", got-(bound-most), len(mapped.ring))
	}
}

// A hookFS calls hook before it opens a file.
type hookFS struct {
	FS
	hook func(name string)
}

func (h *hookFS) OpenFile(name string, flag int) (File, error) {
	if h.hook != nil {
		h.hook(name)
	}
	return h.FS.OpenFile(name, flag)
}

func rot(t *testing.T, path string, at int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0x77}, n), at); err != nil {
		t.Fatal(err)
	}
}

// The writer is about to spill its tail when a reader finds the mapped index
// rotten, rebuilds the tables, and lets go of the mapping:
//
//	writer: looks at file, tail | opens the index | sees another tail
//	reader:                     | rebuilds        |
func TestSpillBesideARebuild(t *testing.T) {
	fs := &hookFS{FS: quick}
	s := newTestSegment(t, 16<<20)
	s.fs = fs
	var frames []Frame
	for range 600 {
		frames = append(frames, appendTest(t, s, 4, [2]int{1, 30})...)
	}
	if s.entries.spilled() == 0 {
		t.Fatal("nothing was spilled")
	}
	rot(t, indexPath(s.path), 0, 4096)
	met := false
	fs.hook = func(name string) {
		if name == indexPath(s.path) {
			fs.hook, met = nil, true
			if _, err := s.Frame(frames[5].Index); err != nil { // mu is not held
				t.Error(err)
			}
		}
	}
	for range 600 {
		frames = append(frames, appendTest(t, s, 4, [2]int{1, 30})...)
	}
	if !met {
		t.Fatal("nothing was spilled a second time")
	}
	if err := checkFrames(s, frames); err != nil {
		t.Fatal(err)
	}
}

// An index that rots is rebuilt as often as it does.
func TestAnIndexThatRotsTwiceIsRebuiltTwice(t *testing.T) {
	s, frames := sealedTest(t, quick, 600)
	for round := range 3 {
		if _, err := s.Frame(frames[300].Index); err != nil { // loads the index, which is good
			t.Fatal(err)
		}
		rot(t, indexPath(s.path), 64, 4000)
		if err := checkFrames(s, frames); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s.UnmapIdle()
		s.UnmapIdle()
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

// The tables are rebuilt beside: nobody waits who does not need them, and a segment
// that is closed meanwhile has no file written into its folder.
func TestRebuildBlocksNoOtherReader(t *testing.T) {
	for _, closed := range []bool{false, true} {
		fs := &hookFS{FS: quick}
		s, frames := sealedTest(t, fs, 600)
		if err := os.Remove(indexPath(s.path)); err != nil {
			t.Fatal(err)
		}
		met := false
		fs.hook = func(name string) {
			if !strings.HasSuffix(name, ".index.tmp") {
				return
			}
			met = true
			if !s.mu.TryLock() {
				t.Error("the segment is locked while its tables are rebuilt")
				return
			}
			s.mu.Unlock()
			if closed {
				s.Close()
				if err := Remove(quick, s.path); err != nil {
					t.Error(err)
				}
			}
		}
		_, err := s.Frame(frames[300].Index)
		if !met {
			t.Fatal("nothing was rebuilt")
		}
		if !closed {
			if err != nil {
				t.Fatal(err)
			}
			if err := checkFrames(s, frames); err != nil {
				t.Error(err)
			}
			continue
		}
		if err != ErrClosed {
			t.Errorf("a segment closed meanwhile: %v", err)
		}
		for _, path := range Paths(s.path) {
			for _, name := range []string{path, path + ".tmp"} {
				if _, err := os.Stat(name); !os.IsNotExist(err) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
}

// Readers that find a rotten index at the same time all get what is there.
func TestReadersShareTheRebuildOfARottenIndex(t *testing.T) {
	for range 20 {
		s, frames := sealedTest(t, quick, 100)
		if _, err := s.Frame(frames[3].Index); err != nil {
			t.Fatal(err)
		}
		rot(t, indexPath(s.path), 64, 700)
		var wg sync.WaitGroup
		for range 8 {
			wg.Add(1)
			go func() { // a reader: ends with one read
				defer wg.Done()
				if got, err := s.Frame(frames[50].Index); err != nil || !bytes.Equal(got.Payload, frames[50].Payload) {
					t.Error(err)
				}
			}()
		}
		wg.Wait()
	}
}

// A log start behind a record dated far ahead: look-ups by time read the headers
// behind it once, and from then on only those near what they look for.
func TestLookUpsByTimeBehindARecordDatedAhead(t *testing.T) {
	w := newTestSegment(t, 64<<20)
	const frames = 400
	var at []Frame
	add := func(timestamp int64) {
		t.Helper()
		f := testFrame(t, w.Info(), 4, 1, 4000)
		b := record.Batch(f.Payload)
		b.SetAppendTime(timestamp)
		f.MaxTimestamp = timestamp
		if err := w.Append([]Frame{f}, false); err != nil {
			t.Fatal(err)
		}
		at = append(at, f)
	}
	ahead := []int{3, 200} // of the frames
	for i := range frames {
		if i == ahead[0] || i == ahead[1] {
			add(testClock + 1_000_000 - int64(i))
			continue
		}
		add(testClock + int64(i))
	}
	if err := w.Finish(); err != nil {
		t.Fatal(err)
	}
	info, err := w.Seal()
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSealed(quick, w.path, testID, info)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	lookUp := func(timestamp int64, from int) {
		t.Helper()
		want := -1
		for i := from; i < frames && want < 0; i++ {
			if at[i].MaxTimestamp >= timestamp {
				want = i
			}
		}
		offset, found, ok, err := s.OffsetAt(timestamp, at[from].BaseOffset, 1<<40)
		if err != nil || ok != (want >= 0) || ok && (offset != at[want].BaseOffset || found != at[want].MaxTimestamp) {
			t.Fatalf("at %d from frame %d: offset %d, time %d, %v, %v; want frame %d", timestamp-testClock, from, offset, found-testClock, ok, err, want)
		}
	}
	for _, from := range []int{0, 3, 4, 199, 200, 201, 399} {
		for _, timestamp := range []int64{testClock, testClock + 100, testClock + 250, testClock + 399, testClock + 400, testClock + 900_000, testClock + 1_000_000} {
			lookUp(timestamp, from)
		}
	}
	// The log start moves back only in this test: the index begins at 201 by now.
	s.late.Store(nil)
	lookUp(testClock+390, 201)
	late := s.late.Load()
	if late == nil || late.from != 201 {
		t.Fatalf("nothing is remembered: %+v", late)
	}
	// Who reads what lies between finds it rotten.
	data, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	for i := 300; i < 350; i++ {
		if _, err := data.WriteAt([]byte("rotten"), at[i].Position); err != nil {
			t.Fatal(err)
		}
	}
	for _, timestamp := range []int64{testClock + 390, testClock + 399, testClock + 400, testClock + 1_000_000} {
		for _, from := range []int{201, 210} {
			lookUp(timestamp, from)
		}
	}
	if s.late.Load() != late {
		t.Error("the frames behind the log start were read again")
	}
}

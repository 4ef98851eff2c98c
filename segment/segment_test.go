package segment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"millrace/index"
	"millrace/segment/record"
)

var testID = Identity{Cluster: "AAAAAAAAAAAAAAAAAAAAAA", Topic: [16]byte{1, 2, 3}, Partition: 7}

const testClock = 1_700_000_000_000

// quickFS syncs nothing.
type quickFS struct{ FS }

func (q quickFS) OpenFile(name string, flag int) (File, error) {
	f, err := q.FS.OpenFile(name, flag)
	if err != nil {
		return nil, err
	}
	return quickFile{f}, nil
}

type quickFile struct{ File }

func (quickFile) Sync() error { return nil }

var quick FS = quickFS{OS}

func newTestSegment(t testing.TB, capacity int64) *Active {
	t.Helper()
	path := filepath.Join(t.TempDir(), "00000000000000000100-00000001.log")
	s, err := Create(quick, path, Header{Identity: testID, FirstIndex: 10, BaseOffset: 100, PrevTerm: 3, Salt: 0x1234567890abcdef, Created: testClock}, capacity)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// testFrame returns a frame for the end of s: a command of n records of size
// bytes, or a noop if n is 0.
func testFrame(t testing.TB, info Info, term uint64, n, size int) Frame {
	t.Helper()
	f := Frame{Type: Noop, Index: info.LastIndex + 1, Term: term, BaseOffset: info.NextOffset, MaxTimestamp: -1}
	if n == 0 {
		return f
	}
	f.Type, f.Span = Command, uint32(n)
	var bu record.Builder
	for i := range n {
		bu.Append(record.Record{Timestamp: testClock + int64(f.Index)*10 + int64(i), Value: bytes.Repeat([]byte{byte('a' + f.Index%26)}, size)})
	}
	b, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	b.Assign(f.BaseOffset, int32(term))
	f.Payload, f.MaxTimestamp = b, b.MaxTimestamp()
	return f
}

// appendTest appends frames given by number of records and their size in one
// write.
func appendTest(t testing.TB, s *Active, term uint64, shapes ...[2]int) []Frame {
	t.Helper()
	info := s.Info()
	var frames []Frame
	for _, sh := range shapes {
		f := testFrame(t, info, term, sh[0], sh[1])
		info.LastIndex, info.NextOffset = f.Index, f.NextOffset()
		frames = append(frames, f)
	}
	if err := s.Append(frames, true); err != nil {
		t.Fatal(err)
	}
	return frames
}

func known(s interface{ Header() Header }) Info {
	h := s.Header()
	return Info{FirstIndex: h.FirstIndex, LastIndex: h.FirstIndex - 1, BaseOffset: h.BaseOffset, NextOffset: h.BaseOffset, PrevTerm: h.PrevTerm, LastTerm: h.PrevTerm, MaxTimestamp: -1, Salt: h.Salt, Created: h.Created}
}

// framed is a Reader, or an Active.
type framed interface {
	Info() Info
	Frame(uint64) (Frame, error)
}

// checkFrames compares what the segment gives back with what went in.
func checkFrames(s framed, want []Frame) error {
	if n := s.Info().Frames(); n != len(want) {
		return fmt.Errorf("%d frames, want %d", n, len(want))
	}
	for i := range want {
		got, err := s.Frame(want[i].Index)
		if err != nil {
			return err
		}
		if got.Index != want[i].Index || got.Term != want[i].Term || got.Type != want[i].Type || got.BaseOffset != want[i].BaseOffset || !bytes.Equal(got.Payload, want[i].Payload) {
			return fmt.Errorf("frame %+v, want %+v", got, want[i])
		}
	}
	return nil
}

// TestTornTailIsCutAndRotIsNot is S11: the tail damaged from every byte of the
// last three entries on (cut off, zeros, garbage), at every single byte, and by
// sectors. What was written last is cut at the first bad frame; but if a later
// frame proves that the bad bytes had been synced, it is corruption.
func TestTornTailIsCutAndRotIsNot(t *testing.T) {
	for name, writes := range map[string][][][2]int{
		"three writes":  {{{0, 0}, {1, 300}}, {{2, 50}}, {{1, 700}}, {{1, 20}}},
		"one write":     {{{0, 0}, {1, 300}}, {{2, 50}, {1, 700}, {1, 20}}},
		"two and one":   {{{0, 0}, {1, 300}}, {{2, 50}, {0, 0}}, {{1, 600}}},
		"nothing first": {{{1, 30}, {1, 700}, {0, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestSegment(t, 1<<20)
			var frames []Frame
			var flagged []bool
			for _, w := range writes {
				for i, f := range appendTest(t, s, 4, w...) {
					frames, flagged = append(frames, f), append(flagged, i == 0)
				}
			}
			whole, err := os.ReadFile(s.Path())
			if err != nil {
				t.Fatal(err)
			}
			end := s.Info().Bytes
			from := frames[len(frames)-3].Position
			dir := t.TempDir()
			try := 0
			check := func(what string, p []byte) {
				t.Helper()
				try++
				checkTorn(t, filepath.Join(dir, fmt.Sprintf("%08d.log", try)), what, whole, p, known(s), frames, flagged)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for at := from; at <= end; at++ {
				check(fmt.Sprintf("cut at %d", at), whole[:at])
				p := bytes.Clone(whole)
				clear(p[at:])
				check(fmt.Sprintf("zeros from %d", at), p)
				for i := at; i < end+300; i++ {
					p[i] = byte(r.Uint32())
				}
				check(fmt.Sprintf("garbage from %d", at), p)
				p = bytes.Clone(whole)
				p[at] ^= 1 << r.IntN(8)
				check(fmt.Sprintf("a bit at %d", at), p)
			}
			first, last := from/512, (end+511)/512
			for subset := range 1 << (last - first) {
				for _, fill := range []byte{0, 0xa5} {
					p := bytes.Clone(whole)
					for i := range last - first {
						if subset>>i&1 == 1 {
							for at := max(from, (first+i)*512); at < (first+i+1)*512; at++ {
								p[at] = fill
							}
						}
					}
					check(fmt.Sprintf("sectors %b filled with %#x", subset, fill), p)
				}
			}
		})
	}
}

func checkTorn(t *testing.T, path, what string, whole, p []byte, info Info, frames []Frame, flagged []bool) {
	t.Helper()
	same := func(from, to int64) bool {
		return to <= int64(len(p)) && bytes.Equal(p[from:to], whole[from:to])
	}
	good := len(frames)
	for i := range frames {
		if !same(frames[i].Position, frames[i].Position+frames[i].size()) {
			good = i
			break
		}
	}
	proof := false
	for i := good + 1; i < len(frames); i++ {
		proof = proof || flagged[i] && same(frames[i].Position, frames[i].Position+FrameHeaderSize)
	}

	if err := os.WriteFile(path, p, 0o644); err != nil {
		t.Fatal(err)
	}
	defer Remove(OS, path)
	s, torn, err := Recover(quick, path, testID, info, 1<<20)
	if err == nil {
		defer s.Close()
	}
	if proof {
		if err == nil {
			err = s.Check()
		}
		if !IsCorrupt(err) {
			t.Fatalf("%s: frame %d is bad and had been synced: %v", what, good, err)
		}
		now, rerr := os.ReadFile(path)
		if rerr != nil || !bytes.Equal(now, p) {
			t.Fatalf("%s: a corrupt segment was changed", what)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if err := checkFrames(s, frames[:good]); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if dirty := !allZero(p[min(int64(len(p)), s.Info().Bytes):]); torn != dirty {
		t.Fatalf("%s: torn %t, dirty %t", what, torn, dirty)
	}
}

// TestEveryByteOfASealedSegmentIsGuarded damages each byte in turn, by name.
func TestEveryByteOfASealedSegmentIsGuarded(t *testing.T) {
	s := newTestSegment(t, 1<<20)
	frames := appendTest(t, s, 4, [2]int{0, 0}, [2]int{2, 30})
	frames = append(frames, appendTest(t, s, 5, [2]int{1, 11})...)
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	info, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	fields := []struct {
		name string
		at   int64
	}{
		{"segment magic", 0}, {"version", 8}, {"headerLen", 12}, {"cluster", 16}, {"topic", 40}, {"partition", 56}, {"reserved", 60},
		{"firstIndex", 64}, {"baseOffset", 72}, {"prevTerm", 80}, {"salt", 88}, {"created", 96}, {"reserved", 104}, {"headerCRC", 124},
	}
	for _, f := range frames {
		for _, g := range []struct {
			name string
			at   int64
		}{
			{"magic", 0}, {"version", 2}, {"type", 3}, {"flags", 4}, {"reserved", 5}, {"payloadLen", 8}, {"span", 12}, {"index", 16},
			{"term", 24}, {"baseOffset", 32}, {"maxTimestamp", 40}, {"payloadCRC", 48}, {"headerCRC", 52}, {"payload", 56},
		} {
			if f.Position+g.at < info.Bytes {
				fields = append(fields, struct {
					name string
					at   int64
				}{fmt.Sprintf("frame %d %s", f.Index, g.name), f.Position + g.at})
			}
		}
		if pad := padding(len(f.Payload)); pad > 0 {
			fields = append(fields, struct {
				name string
				at   int64
			}{fmt.Sprintf("frame %d padding", f.Index), f.Position + f.size() - pad})
		}
	}
	fields = append(fields, struct {
		name string
		at   int64
	}{"end", info.Bytes})
	dir := t.TempDir()
	for i, f := range fields[:len(fields)-1] {
		for at := f.at; at < fields[i+1].at; at++ {
			p := bytes.Clone(whole)
			p[at] ^= 0x10
			path := filepath.Join(dir, "s.log")
			if err := os.WriteFile(path, p, 0o644); err != nil {
				t.Fatal(err)
			}
			bad, err := OpenSealed(OS, path, testID, info)
			if err == nil {
				err = bad.Check()
				// Reading it entry by entry finds it too, with index files and without.
				read := 0
				for _, f := range frames {
					got, rerr := bad.Frame(f.Index)
					if rerr == nil && bytes.Equal(got.Payload, f.Payload) && got.Term == f.Term && got.Type == f.Type {
						read++
					} else if !IsCorrupt(rerr) {
						t.Fatalf("byte %d: entry %d read as %+v, %v", at, f.Index, got, rerr)
					}
				}
				if read == len(frames) {
					t.Errorf("byte %d: every entry is read", at)
				}
				bad.Close()
			}
			var c *CorruptError
			if !errors.As(err, &c) {
				t.Errorf("%s (byte %d): %v", f.name, at, err)
				continue
			}
			if c.Path != path || c.Found == "" || c.Expected == "" {
				t.Errorf("%s (byte %d): error without path, found or expected: %+v", f.name, at, c)
			}
			Remove(OS, path)
		}
	}
}

// TestIndexFilesAreDerived is S16.
func TestIndexFilesAreDerived(t *testing.T) {
	s := newTestSegment(t, 4<<20)
	var frames []Frame
	for i := range 700 { // more than a spill
		frames = append(frames, appendTest(t, s, 4, [2]int{1 + i%3, 200})...)
	}
	if err := checkFrames(s, frames); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	info, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	other := newTestSegment(t, 4<<20)
	other.h.Salt++ // another segment that looks the same
	for i := range 700 {
		appendTest(t, other, 4, [2]int{1 + i%2, 100})
	}
	if err := other.Finish(); err != nil {
		t.Fatal(err)
	}
	good := map[string][]byte{}
	for _, p := range []string{indexPath(s.path), timePath(s.path)} {
		if good[p], err = os.ReadFile(p); err != nil {
			t.Fatal(err)
		}
	}
	check := func(what string) {
		t.Helper()
		r, err := OpenSealed(OS, s.path, testID, info)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		defer r.Close()
		if err := checkFrames(r, frames[len(frames)-3:]); err == nil || !strings.Contains(err.Error(), "want 3") {
			t.Fatalf("%s: %v", what, err)
		}
		for _, i := range []int{0, 1, 350, 511, 512, 699} {
			f := frames[i]
			got, err := r.Frame(f.Index)
			if err != nil || !bytes.Equal(got.Payload, f.Payload) {
				t.Fatalf("%s: entry %d: %v", what, f.Index, err)
			}
			v, err := r.Read(f.BaseOffset, info.NextOffset, 1)
			if err != nil || !bytes.Equal(v.Bytes[0], f.Payload) {
				t.Fatalf("%s: offset %d: %v", what, f.BaseOffset, err)
			}
			v.Release()
			o, _, ok, err := r.OffsetAt(f.MaxTimestamp, 0, info.NextOffset)
			if err != nil || !ok || o != f.NextOffset()-1 {
				t.Fatalf("%s: timestamp of %d: %d, %t, %v", what, f.BaseOffset, o, ok, err)
			}
		}
		for p, want := range good {
			got, err := os.ReadFile(p)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: %s was not restored: %v", what, filepath.Base(p), err)
			}
		}
	}
	check("untouched")
	foreign := map[string]string{indexPath(s.path): indexPath(other.path), timePath(s.path): timePath(other.path)}
	for path, whole := range good {
		kind := filepath.Ext(path)
		damage := func(what string, p []byte) {
			t.Helper()
			if err := os.WriteFile(path, p, 0o644); err != nil {
				t.Fatal(err)
			}
			check(kind + " " + what)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		check(kind + " missing")
		p, err := os.ReadFile(foreign[path])
		if err != nil {
			t.Fatal(err)
		}
		damage("of another segment", p)
		damage("empty", nil)
		damage("zeros", make([]byte, len(whole)))
		damage("garbage", bytes.Repeat([]byte("garbage!"), len(whole)/8))
		damage("longer", append(bytes.Clone(whole), make([]byte, 100)...)[:len(whole)]) // the same length: still good
		for _, n := range []int{1, index.HeaderSize - 1, index.HeaderSize, len(whole) / 2, len(whole) - 1} {
			damage(fmt.Sprintf("cut to %d", n), whole[:n])
		}
		for at := range index.HeaderSize + 3 {
			p := bytes.Clone(whole)
			p[at] ^= 0x04
			damage(fmt.Sprintf("byte %d", at), p)
		}
	}
}

// TestShortWritesAreContinued is S24: short writes and interruptions.
func TestShortWritesAreContinued(t *testing.T) {
	var pieces [][]byte
	var want []byte
	for i := range 3000 {
		p := bytes.Repeat([]byte{byte(i)}, i%17)
		pieces = append(pieces, p)
		want = append(want, p...)
	}
	r := rand.New(rand.NewPCG(3, 4))
	got := make([]byte, len(want))
	calls := 0
	write := func(bufs [][]byte, off int64) (int, error) {
		if calls++; calls%3 == 0 {
			return -1, syscall.EINTR
		}
		if len(bufs) > maxVectors {
			return -1, syscall.EINVAL
		}
		p := bytes.Join(bufs, nil)
		n := copy(got[off:], p[:1+r.IntN(len(p))])
		return n, nil
	}
	if err := writeAll(write, pieces, 0); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("wrote something else: %v", err)
	}
	if err := writeAll(func([][]byte, int64) (int, error) { return 0, nil }, [][]byte{{1}}, 0); err == nil {
		t.Fatal("no progress is no error")
	}
	if err := writeAll(func([][]byte, int64) (int, error) { return 0, syscall.EIO }, [][]byte{{1}}, 0); err != syscall.EIO {
		t.Fatal(err)
	}
}

// TestAForeignSegmentIsRefused is S19 for single files.
func TestAForeignSegmentIsRefused(t *testing.T) {
	s := newTestSegment(t, 1<<20)
	appendTest(t, s, 4, [2]int{1, 10})
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	info, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	for what, change := range map[string]func(*Identity, *Info){
		"another cluster":     func(id *Identity, _ *Info) { id.Cluster = "BBBBBBBBBBBBBBBBBBBBBB" },
		"another topic":       func(id *Identity, _ *Info) { id.Topic[15]++ },
		"another partition":   func(id *Identity, _ *Info) { id.Partition++ },
		"another first index": func(_ *Identity, i *Info) { i.FirstIndex++ },
		"another base offset": func(_ *Identity, i *Info) { i.BaseOffset++ },
		"another term before": func(_ *Identity, i *Info) { i.PrevTerm++ },
		"another salt":        func(_ *Identity, i *Info) { i.Salt++ },
		"more bytes":          func(_ *Identity, i *Info) { i.Bytes += 1 << 20 },
	} {
		id, want := testID, info
		change(&id, &want)
		if _, err := OpenSealed(OS, s.path, id, want); !IsCorrupt(err) {
			t.Errorf("%s: %v", what, err)
		}
		if _, _, err := Recover(OS, s.path, id, want, 1<<20); !IsCorrupt(err) {
			t.Errorf("recover, %s: %v", what, err)
		}
	}
}

// TestAForgedFrameInARecordIsNotFound: a client that knew our format could put a frame
// into a record, to be found after a crash. It does not know the salt, and the
// position would have to be right.
func TestAForgedFrameInARecordIsNotFound(t *testing.T) {
	s := newTestSegment(t, 1<<20)
	fake := Frame{Type: Noop, Index: 999, Term: 9, BaseOffset: 999, MaxTimestamp: -1}
	evil := appendFrameHeader(nil, &fake, 0, 0, true)
	f := testFrame(t, s.Info(), 4, 1, 10)
	var bu record.Builder
	bu.Append(record.Record{Timestamp: testClock, Value: bytes.Repeat(evil, 20)})
	b, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	b.Assign(f.BaseOffset, 4)
	f.Payload, f.MaxTimestamp = b, b.MaxTimestamp()
	if err := s.Append([]Frame{f}, true); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	whole[HeaderSize+20] ^= 1 // the frame itself is torn
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, whole, 0o644); err != nil {
		t.Fatal(err)
	}
	r, torn, err := Recover(quick, path, testID, known(s), 1<<20)
	if err != nil || !torn || r.Info().Frames() != 0 {
		t.Fatalf("torn %t: %v", torn, err)
	}
	r.Close()
	// Not even a real frame of this segment, copied elsewhere.
	real := whole[:0:0]
	real = append(real, evilCopy(s, &fake)...)
	if _, wrong := parseFrameHeader(real, s.h.Salt, HeaderSize+8); wrong == nil {
		t.Fatal("a frame passes at another position")
	}
}

func evilCopy(s *Active, f *Frame) []byte {
	return appendFrameHeader(nil, f, s.h.Salt, HeaderSize, true)
}

// TestReadLeavesOutARottenFrameThatDoesNotFit: a frame that has rotted costs those nothing who get
// only what lies before it, and is never served to who comes to it, whatever of it
// has rotted.
func TestReadLeavesOutARottenFrameThatDoesNotFit(t *testing.T) {
	for what, at := range map[string]int64{"its values": 100, "its length": 8, "its magic": 16} {
		s := newTestSegment(t, 1<<20)
		frames := appendTest(t, s, 4, [2]int{1, 500}, [2]int{1, 500})
		position := s.Info().Bytes - int64(len(frames[1].Payload)) - int64(padding(len(frames[1].Payload)))
		if err := s.f.Pwritev([][]byte{{0x7f}}, position+at); err != nil {
			t.Fatal(err)
		}
		first, second := frames[0].BaseOffset, frames[1].BaseOffset
		rooms := []int{1, len(frames[0].Payload)}
		if what == "its values" { // its length tells that it does not fit
			rooms = append(rooms, len(frames[0].Payload)+200)
		}
		for _, room := range rooms {
			v, err := s.Read(first, second+1, room)
			if err != nil {
				t.Errorf("%s: %d bytes of room: %v", what, room, err)
				continue
			}
			if v.Next != second || v.Len() != len(frames[0].Payload) {
				t.Errorf("%s: %d bytes of room: %d bytes up to %d", what, room, v.Len(), v.Next)
			}
			v.Release()
		}
		var c *CorruptError
		if _, err := s.Read(second, second+1, 1); !errors.As(err, &c) {
			t.Errorf("%s was served: %v", what, err)
		}
		if _, err := s.Read(first, second+1, 1<<20); !errors.As(err, &c) {
			t.Errorf("%s was served after what is before it: %v", what, err)
		}
	}
}

// TestAFrameOutOfSequenceIsCorruption: its CRC holds, so no crash explains it.
func TestAFrameOutOfSequenceIsCorruption(t *testing.T) {
	for what, change := range map[string]func(*Frame){
		"index skipped":   func(f *Frame) { f.Index++ },
		"index repeated":  func(f *Frame) { f.Index-- },
		"offset skipped":  func(f *Frame) { f.BaseOffset++ },
		"offset repeated": func(f *Frame) { f.BaseOffset-- },
		"term went back":  func(f *Frame) { f.Term = 1 },
	} {
		s := newTestSegment(t, 1<<20)
		appendTest(t, s, 4, [2]int{1, 10}, [2]int{0, 0})
		info := s.Info()
		f := testFrame(t, info, 4, 0, 0)
		change(&f)
		if err := s.f.Pwritev([][]byte{appendFrameHeader(nil, &f, s.h.Salt, info.Bytes, false)}, info.Bytes); err != nil {
			t.Fatal(err)
		}
		var c *CorruptError
		if _, _, err := Recover(quick, s.path, testID, known(s), 1<<20); !errors.As(err, &c) || c.Position != info.Bytes {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestASpilledIndexThatRotsUnderTheWriterIsRebuilt: the writer goes on meanwhile.
func TestASpilledIndexThatRotsUnderTheWriterIsRebuilt(t *testing.T) {
	s := newTestSegment(t, 16<<20)
	var frames []Frame
	for range 2000 {
		frames = append(frames, appendTest(t, s, 4, [2]int{1, 30})...)
	}
	p, err := os.ReadFile(indexPath(s.path))
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(indexPath(s.path), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.WriteAt(bytes.Repeat([]byte{0x77}, len(p)), 0)
	// Looked up by offset first, it must not lead past a record.
	for _, i := range []int{700, 0, 1, 1999} {
		v, err := s.Read(frames[i].BaseOffset, 1<<40, 1)
		if err != nil || !bytes.Equal(v.Bytes[0], frames[i].Payload) {
			t.Fatalf("offset %d: %v", frames[i].BaseOffset, err)
		}
		v.Release()
		f.WriteAt(bytes.Repeat([]byte{0x77}, len(p)), 0)
	}
	done := make(chan error)
	go func() {
		for i := range frames {
			got, err := s.Frame(frames[len(frames)-1-i].Index)
			if err != nil || !bytes.Equal(got.Payload, frames[len(frames)-1-i].Payload) {
				done <- fmt.Errorf("frame %d: %v", len(frames)-1-i, err)
				return
			}
		}
		done <- nil
	}()
	var more []Frame
	for range 2000 {
		more = append(more, appendTest(t, s, 4, [2]int{1, 30})...)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := checkFrames(s, append(frames, more...)); err != nil {
		t.Fatal(err)
	}
	if err := s.Finish(); err != nil {
		t.Fatal(err)
	}
	info, err := s.Seal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenSealed(quick, s.path, testID, info)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if err := checkFrames(again, append(frames, more...)); err != nil {
		t.Fatal(err)
	}
}

// TestAddCRCIsCRC32C of eight bytes, in any place of a sum.
func TestAddCRCIsCRC32C(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		sum, x := r.Uint32(), r.Uint64()
		if got, want := addCRC(sum, x), crc32.Update(sum, castagnoli, binary.BigEndian.AppendUint64(nil, x)); got != want {
			t.Fatalf("%#x added to %#x is %#x, want %#x", x, sum, got, want)
		}
	}
}

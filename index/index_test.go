package index

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"testing"
)

func TestAtAndFindAgreeWithASlice(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	const base = 1 << 40
	x, err := New(make([]byte, 1000*EntrySize), 0, base)
	if err != nil {
		t.Fatal(err)
	}
	var want []Entry
	e := Entry{base, 128}
	for range 1000 {
		want = append(want, e)
		if err := x.Append(e); err != nil {
			t.Fatal(err)
		}
		e.Offset += r.Int64N(3) // entries without records share an offset
		e.Position += 8 * (1 + r.Int64N(100))
	}
	if err := x.Append(e); err != ErrFull {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		for i := range want[:x.Len()] {
			if got := x.At(i); got != want[i] {
				t.Fatalf("entry %d: %+v, want %+v", i, got, want[i])
			}
		}
		for o := base - int64(2); o < e.Offset+2; o++ {
			last, ok := -1, false
			for i := range want[:x.Len()] {
				if want[i].Offset <= o {
					last, ok = i, true
				}
			}
			if i, found := x.Find(o); found != ok || ok && i != last {
				t.Fatalf("offset %d: %d %t, want %d %t", o, i, found, last, ok)
			}
		}
	}
	check()
	x.Truncate(400)
	check()
	again, err := New(x.Bytes(), 400, base)
	if err != nil {
		t.Fatal(err)
	}
	*x = *again
	check()
}

func TestEntriesBeyondTheBaseAreRefused(t *testing.T) {
	for _, c := range []struct {
		e    Entry
		want error
	}{
		{Entry{100, 0}, nil},
		{Entry{100 + math.MaxUint32, MaxPosition}, nil},
		{Entry{99, 0}, ErrRange},
		{Entry{101 + math.MaxUint32, 0}, ErrRange},
		{Entry{100, MaxPosition + 8}, ErrRange},
		{Entry{100, 7}, ErrRange},
		{Entry{100, -8}, ErrRange},
	} {
		x, _ := New(make([]byte, EntrySize), 0, 100)
		if err := x.Append(c.e); err != c.want {
			t.Errorf("%+v: %v, want %v", c.e, err, c.want)
		} else if err == nil && x.At(0) != c.e {
			t.Errorf("%+v came back as %+v", c.e, x.At(0))
		}
	}
	if _, err := New(make([]byte, 15), 2, 0); err == nil {
		t.Error("two entries in 15 bytes")
	}
}

func TestTimeIndexBoundsALookUp(t *testing.T) {
	x, err := NewTime(make([]byte, 4*TimeEntrySize), 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []TimeEntry{{10, 3}, {10, 5}, {30, 9}, {31, 12}} {
		if err := x.Append(e); err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range []TimeEntry{{32, 13}} {
		if err := x.Append(e); err != ErrFull {
			t.Fatal(err)
		}
	}
	y, _ := NewTime(x.Bytes(), 2)
	if y.Append(TimeEntry{9, 7}) != ErrRange || y.Append(TimeEntry{11, 5}) != ErrRange {
		t.Fatal("time or frame went back")
	}
	for _, c := range []struct {
		t     int64
		first uint32
	}{{-1, 0}, {10, 0}, {11, 6}, {30, 6}, {31, 10}, {32, 13}} {
		if got := x.First(c.t); got != c.first {
			t.Errorf("first frame at %d: %d, want %d", c.t, got, c.first)
		}
	}
	for _, c := range []struct {
		frame uint32
		want  TimeEntry
		ok    bool
	}{{0, TimeEntry{}, false}, {3, TimeEntry{}, false}, {4, TimeEntry{10, 3}, true}, {9, TimeEntry{10, 5}, true}, {99, TimeEntry{31, 12}, true}} {
		if got, ok := x.Below(c.frame); got != c.want || ok != c.ok {
			t.Errorf("below frame %d: %+v %t, want %+v", c.frame, got, ok, c.want)
		}
	}
}

func TestParseRefusesADamagedFile(t *testing.T) {
	h := Header{Kind: KindEntries, Salt: 7, FirstIndex: 3, BaseOffset: 9, Frames: 2}
	x, _ := New(make([]byte, 3*EntrySize), 0, 9)
	for i := range int64(3) {
		x.Append(Entry{9 + i, 128 + 64*i})
	}
	h.Frames = 3
	file := append(h.Encode(x.Bytes()), x.Bytes()...)
	h.Frames = 2 // a segment that was cut since
	if p, n, err := h.Parse(file); err != nil || n != 3 || !bytes.Equal(p, x.Bytes()) {
		t.Fatal(n, err)
	}
	for at := range file {
		p := bytes.Clone(file)
		p[at] ^= 1
		if _, _, err := h.Parse(p); !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d: %v", at, err)
		}
	}
	for n := range file {
		if _, _, err := h.Parse(file[:n]); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d: %v", n, err)
		}
	}
	for what, o := range map[string]Header{
		"kind": {KindTimes, 7, 3, 9, 2}, "salt": {KindEntries, 8, 3, 9, 2}, "first index": {KindEntries, 7, 4, 9, 2},
		"base offset": {KindEntries, 7, 3, 8, 2}, "frames": {KindEntries, 7, 3, 9, 4},
	} {
		if _, _, err := o.Parse(file); !errors.Is(err, ErrDamaged) {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

// FuzzParse: what is accepted can be read from end to end.
func FuzzParse(f *testing.F) {
	h := Header{Kind: KindEntries, Frames: 1}
	f.Add(append(h.Encode(make([]byte, 8)), make([]byte, 8)...), false)
	h.Kind = KindTimes
	f.Add(append(h.Encode(make([]byte, 12)), make([]byte, 12)...), true)
	f.Fuzz(func(t *testing.T, p []byte, times bool) {
		h := Header{Kind: KindEntries}
		if times {
			h.Kind = KindTimes
		}
		if len(p) >= HeaderSize { // the CRCs are no obstacle to the fuzzer
			n := binary.BigEndian.Uint64(p[32:])
			if n <= uint64(len(p)) {
				if end := HeaderSize + int(n)*h.entrySize(); end <= len(p) {
					binary.BigEndian.PutUint32(p[48:], crc32.Checksum(p[HeaderSize:end], castagnoli))
				}
			}
			binary.BigEndian.PutUint32(p[60:], crc32.Checksum(p[:60], castagnoli))
		}
		entries, n, err := h.Parse(p)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatal(err)
			}
			return
		}
		if times {
			x, err := NewTime(entries, len(entries)/TimeEntrySize)
			if err != nil {
				t.Fatal(err)
			}
			x.First(5)
			x.Below(5)
			return
		}
		x, err := New(entries, n, 0)
		if err != nil {
			t.Fatal(err)
		}
		for i := range x.Len() {
			x.At(i)
		}
		x.Find(77)
	})
}

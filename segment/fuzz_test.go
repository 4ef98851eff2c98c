package segment

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"
)

// FuzzFrame: a header that is accepted is exactly one that we would write.
func FuzzFrame(f *testing.F) {
	for _, fr := range []Frame{
		{Type: Noop, Index: 1, Term: 1, MaxTimestamp: -1},
		{Type: Command, Index: 7, Term: 2, BaseOffset: 5, Span: 3, MaxTimestamp: testClock, Payload: []byte("payload")},
	} {
		p := appendFrameHeader(nil, &fr, 77, 128, true)
		f.Add(append(p, fr.Payload...), uint64(77), int64(128))
	}
	f.Fuzz(func(t *testing.T, p []byte, salt uint64, position int64) {
		if len(p) >= FrameHeaderSize { // the CRC is no obstacle to the fuzzer
			binary.BigEndian.PutUint32(p[52:], headerCRC(p, salt, position))
		}
		fr, wrong := parseFrameHeader(p, salt, position)
		if wrong != nil {
			return
		}
		if fr.size() < FrameHeaderSize || fr.size()%8 != 0 || fr.NextOffset() < fr.BaseOffset {
			t.Fatalf("accepted %+v", fr)
		}
		again := bytes.Clone(p[:FrameHeaderSize])
		out := appendFrameHeader(nil, &fr, salt, position, fr.Synced)
		binary.BigEndian.PutUint32(out[8:], fr.payloadLen) // there is no payload here
		binary.BigEndian.PutUint32(out[48:], fr.PayloadCRC)
		binary.BigEndian.PutUint32(out[52:], headerCRC(out, salt, position))
		if !bytes.Equal(out, again) {
			t.Fatalf("read % x\nwrote % x", again, out)
		}
	})
}

// FuzzHeader: the same for a segment's header.
func FuzzHeader(f *testing.F) {
	f.Add(Header{Identity: testID, FirstIndex: 1, Salt: 5}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) >= HeaderSize {
			binary.BigEndian.PutUint32(p[124:], crc32.Checksum(p[:124], castagnoli))
		}
		h, err := parseHeader("x", p)
		if err == nil && (h.FirstIndex == 0 || h.BaseOffset < 0 || len(h.Identity.Cluster) > MaxCluster) {
			t.Fatalf("accepted %+v", h)
		}
		if err != nil && !IsCorrupt(err) {
			t.Fatal(err)
		}
	})
}

// FuzzRecover: whatever lies behind a good segment's frames, recovery keeps the
// frames or calls it corruption, and keeps nothing else.
func FuzzRecover(f *testing.F) {
	f.Add([]byte{}, uint16(0), byte(0))
	f.Add([]byte{1, 2, 3}, uint16(200), byte(1))
	f.Add(bytes.Repeat([]byte{0x4d, 0x46, 1, 1, 1, 0, 0, 0}, 30), uint16(400), byte(0xff))
	s := newTestSegment(f, 1<<20)
	var frames []Frame
	for i := range 4 {
		frames = append(frames, appendTest(f, s, 4, [2]int{i, 40})...)
	}
	whole, err := os.ReadFile(s.path)
	if err != nil {
		f.Fatal(err)
	}
	whole = whole[:s.Info().Bytes]
	path := filepath.Join(f.TempDir(), "x.log")
	f.Fuzz(func(t *testing.T, tail []byte, at uint16, flip byte) {
		p := append(bytes.Clone(whole), tail...)
		if int(at) >= HeaderSize && int(at) < len(p) {
			p[at] ^= flip
		}
		if err := os.WriteFile(path, p, 0o644); err != nil {
			t.Fatal(err)
		}
		r, _, err := Recover(quick, path, testID, known(s), 1<<20)
		if err != nil {
			if !IsCorrupt(err) {
				t.Fatal(err)
			}
			return
		}
		defer r.Close()
		n := r.Info().Frames()
		if n > len(frames) {
			t.Fatalf("%d frames of %d", n, len(frames))
		}
		for _, want := range frames[:n] {
			got, err := r.Frame(want.Index)
			if err != nil && !IsCorrupt(err) || err == nil && !bytes.Equal(got.Payload, want.Payload) {
				t.Fatalf("%+v, %v", got, err)
			}
		}
	})
}

// FuzzWalk: a damaged file is walked to its end, and frames that are shown are ours.
func FuzzWalk(f *testing.F) {
	f.Add(uint16(200), uint16(10), byte(1), false)
	f.Add(uint16(130), uint16(300), byte(7), true)
	s := newTestSegment(f, 1<<20)
	var frames []Frame
	for i := range 6 {
		frames = append(frames, appendTest(f, s, 4, [2]int{i, 40})...)
	}
	whole, err := os.ReadFile(s.path)
	if err != nil {
		f.Fatal(err)
	}
	end := s.Info().Bytes
	path := filepath.Join(f.TempDir(), "x.log")
	f.Fuzz(func(t *testing.T, from, n uint16, xor byte, cut bool) {
		p := bytes.Clone(whole[:end])
		for i := int(from); i < int(from)+int(n) && i < len(p); i++ {
			p[i] ^= xor
		}
		if cut && int(from) < len(p) {
			p = p[:from]
		}
		if err := os.WriteFile(path, p, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, limit := range []int64{0, end} {
			shown, problems := 0, 0
			found, err := Walk(quick, path, limit, func(f *Frame) error {
				if want := frames[f.Index-10]; !bytes.Equal(f.Payload, want.Payload) || f.Term != want.Term {
					t.Fatalf("frame %+v", f)
				}
				shown++
				return nil
			}, func(*CorruptError) error {
				problems++
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if shown < len(frames) && problems == 0 && found.Torn < 0 && !(limit == 0 && allZero(p[min(int64(len(p)), found.End):])) {
				t.Fatalf("%d of %d frames and nothing wrong: %+v", shown, len(frames), found)
			}
		}
	})
}

package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// allocated returns the bytes that f allocates, freed or not. It first empties
// the pools, so that what a decoder costs is counted.
func allocated(f func()) uint64 {
	runtime.GC()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// zeros is a value of n zero bytes in a record, read as often as a test needs.
func zeros(n int, offset int64) io.Reader {
	head := fields(nil, []byte{0}, v(0), v(offset), v(-1), nil, v(int64(n)), nil, nil, nil)
	body := head[1:] // fields has written a length of one byte, of a body without its value
	length := binary.AppendVarint(nil, int64(len(body)+n+1))
	return io.MultiReader(bytes.NewReader(append(length, body...)), io.LimitReader(zero{}, int64(n)+1)) // and no headers
}

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// squeeze compresses a stream as tightly as the codec can.
func squeeze(t testing.TB, c Codec, r io.Reader) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	switch c {
	case Gzip:
		w, _ = gzip.NewWriterLevel(&out, gzip.BestCompression)
	case LZ4:
		w = lz4.NewWriter(&out)
	case Zstd:
		w, _ = zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	case Snappy:
		all, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out, err := deflate(nil, Snappy, all)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if _, err := io.Copy(struct{ io.Writer }{w}, r); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The most that a gate check may allocate for a small batch: the window, the
// decoder and its own window.
const gateMemory = 24 << 20

func TestBombsAreTooLargeAndCostNoMemory(t *testing.T) {
	for _, c := range codecs[1:] {
		// gzip and zstd expand so far that 4 MiB is their limit; lz4 at 255:1
		// and snappy at 21:1 have 64 MiB.
		mib := map[Codec]int{Gzip: 16, Zstd: 16, LZ4: 80, Snappy: 80}[c]
		one := squeeze(t, c, zeros(mib<<20, 0))
		var readers []io.Reader
		for i := range mib {
			readers = append(readers, zeros(1<<20, int64(i)))
		}
		many := squeeze(t, c, io.MultiReader(readers...))
		for _, tt := range []struct {
			name string
			b    Batch
			want error
		}{
			{"one record", wrap(c, 1, one), ErrTooLarge},
			{"records of 1 MiB", wrap(c, int32(mib), many), ErrTooLarge},
			{"zeros after a record", wrap(c, 1, squeeze(t, c, io.MultiReader(zeros(1, 0), io.LimitReader(zero{}, int64(mib)<<20)))), ErrInvalid},
			{"2^31-1 records", wrap(c, math.MaxInt32, many), ErrTooLarge},
		} {
			t.Run(fmt.Sprint(c, "/", tt.name), func(t *testing.T) {
				b := tt.b
				var err error
				n := allocated(func() { _, err = Validate(b, -1) })
				if !errors.Is(err, tt.want) {
					t.Errorf("%d bytes: %v", len(b), err)
				}
				if n > gateMemory {
					t.Errorf("allocated %d bytes for %d", n, len(b))
				}
				n = allocated(func() {
					for _, err = range b.Records() {
					}
				})
				// Below the gate there is no such batch. Records reads it all the same, through
				// its window.
				if (err == nil) != (tt.name == "one record" || tt.name == "records of 1 MiB") {
					t.Errorf("Records: %v", err)
				}
				if limit := 4*uint64(mib)<<20 + gateMemory; n > limit {
					t.Errorf("Records allocated %d bytes for %d", n, len(b))
				}
			})
		}
	}
}

func TestWideZstdWindowsAreBoundedLikeOthers(t *testing.T) {
	wide := func(r io.Reader) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, zstd.WithWindowSize(128<<20), zstd.WithEncoderConcurrency(1))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(struct{ io.Writer }{w}, r); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		var h zstd.Header
		if err := h.Decode(out.Bytes()); err != nil || h.WindowSize != 128<<20 || h.HasFCS {
			t.Fatalf("%+v, %v", h, err)
		}
		return out.Bytes()
	}
	two := func() io.Reader { return io.MultiReader(zeros(1<<20, 0), zeros(1<<20, 1)) }
	cut := wide(two())
	for _, tt := range []struct {
		name string
		b    Batch
		want error
	}{
		{"2 MiB", wrap(Zstd, 2, wide(two())), nil},
		{"16 MiB", wrap(Zstd, 1, wide(zeros(16<<20, 0))), ErrTooLarge},
		{"cut", wrap(Zstd, 2, cut[:len(cut)-5]), ErrInvalid},
	} {
		for range 3 { // a place not given back would block the next
			var err error
			if n := allocated(func() { _, err = Validate(tt.b, -1) }); n > gateMemory {
				t.Errorf("%s: Validate allocated %d bytes", tt.name, n)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: Validate: %v", tt.name, err)
			}
			for _, err = range tt.b.Records() {
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: Records: %v", tt.name, err)
			}
		}
	}
}

func TestHonestBatchMayExpandFarther(t *testing.T) {
	for _, c := range codecs[1:] {
		b := wrap(c, 3, squeeze(t, c, io.MultiReader(zeros(1<<20, 0), zeros(1<<20, 1), zeros(1<<20, 2))))
		if _, err := Validate(b, -1); err != nil {
			t.Errorf("%v: 3 MiB in %d bytes: %v", c, len(b), err)
		}
		if got := collect(t, b); len(got) != 3 || len(got[2].Value) != 1<<20 {
			t.Errorf("%v: %d records", c, len(got))
		}
	}
}

func TestDeclaredSizesAllocateNothing(t *testing.T) {
	zstdFrame := func(descriptor byte, more ...byte) []byte {
		// One raw block of a byte follows the header.
		return append(append([]byte{0x28, 0xb5, 0x2f, 0xfd, descriptor}, more...), 0x09, 0, 0, 'x')
	}
	for _, tt := range []struct {
		name  string
		codec Codec
		bytes []byte
		want  error
	}{
		{"zstd window of 2 GiB", Zstd, zstdFrame(0, 21<<3), ErrInvalid},
		{"zstd window of 3.75 TiB", Zstd, zstdFrame(0, 0xff), ErrInvalid},
		{"zstd window of 128 MiB", Zstd, zstdFrame(0, 17<<3), ErrInvalid}, // and a byte that is no record
		{"zstd content of 2^63", Zstd, zstdFrame(0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80), ErrTooLarge},
		{"zstd content of 100 MiB", Zstd, zstdFrame(0xa0, 0, 0, 0x40, 0x06), ErrTooLarge},
		{"zstd dictionary", Zstd, zstdFrame(0x01, 0, 7), ErrInvalid},
		{"zstd skippable frame of 4 GiB", Zstd, []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0xff, 0}, ErrInvalid},
		{"raw snappy of 4 GiB", Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}, ErrInvalid},
		{"raw snappy of 2^63", Snappy, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0}, ErrInvalid},
		{"snappy block of 2 GiB", Snappy, []byte(xerialHeader + "\x7f\xff\xff\xff\x01\x00a"), ErrInvalid},
		{"snappy block of -1", Snappy, []byte(xerialHeader + "\xff\xff\xff\xff\x01\x00a"), ErrInvalid},
		{"snappy block expanding to 1 GiB", Snappy, []byte(xerialHeader + "\x00\x00\x00\x06\x80\x80\x80\x80\x04\x00"), ErrInvalid},
		{"lz4 block of 2 GiB", LZ4, []byte{0x04, 0x22, 0x4d, 0x18, 0x60, 0x70, 0x73, 0xff, 0xff, 0xff, 0x7f, 0}, ErrInvalid},
		{"lz4 content of 2^63", LZ4, []byte{0x04, 0x22, 0x4d, 0x18, 0x68, 0x40, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0, 0, 0, 0}, ErrInvalid},
		{"gzip name without end", Gzip, append([]byte{0x1f, 0x8b, 8, 8, 0, 0, 0, 0, 0, 0}, bytes.Repeat([]byte("x"), 1<<20)...), ErrInvalid},
		{"gzip extra of 64 KiB", Gzip, []byte{0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := wrap(tt.codec, 1, tt.bytes)
			var err error
			if n := allocated(func() { _, err = Validate(b, -1) }); n > gateMemory {
				t.Errorf("Validate allocated %d bytes", n)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("Validate: %v", err)
			}
			if n := allocated(func() {
				for _, err = range b.Records() {
				}
			}); n > gateMemory {
				t.Errorf("Records allocated %d bytes", n)
			}
			if err == nil {
				t.Error("Records finds nothing wrong")
			}
		})
	}
}

func TestBytesAroundACompressedFrameAreRefused(t *testing.T) {
	records := mustBuild(t, None, kib(40)...)[HeaderSize:]
	lz := func(p []byte, options ...lz4.Option) []byte {
		var out bytes.Buffer
		w := lz4.NewWriter(&out)
		if err := w.Apply(options...); err != nil {
			t.Fatal(err)
		}
		w.Write(p)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	pack := func(c Codec, p []byte) []byte {
		out, err := deflate(nil, c, p)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	full := lz(records, lz4.BlockSizeOption(lz4.Block4Mb), lz4.ChecksumOption(true), lz4.BlockChecksumOption(true), lz4.SizeOption(uint64(len(records))))
	flip := func(p []byte, at int) []byte { p = bytes.Clone(p); p[(at+len(p))%len(p)] ^= 1; return p }
	half := len(records) / 2
	for _, tt := range []struct {
		name  string
		codec Codec
		bytes []byte
		ok    bool
	}{
		// What the Java client reads, judged by kafka-clients 4.4.0.
		{"lz4 with every option", LZ4, full, true},
		{"lz4 of two frames", LZ4, append(lz(records[:half]), lz(records[half:])...), false},
		{"lz4 dependent blocks", LZ4, flip(full, 4), false},
		{"snappy of two streams", Snappy, append(pack(Snappy, records[:half]), pack(Snappy, records[half:])...), true},
		{"snappy of a stream and a header", Snappy, append(pack(Snappy, records), xerialHeader...), true},
		{"snappy raw", Snappy, s2.EncodeSnappy(nil, records), true},
		{"snappy as S2", Snappy, s2.EncodeBetter(nil, records), false},
		{"zstd of two frames", Zstd, append(pack(Zstd, records[:half]), pack(Zstd, records[half:])...), true},
		{"zstd after a skippable frame", Zstd, append([]byte{0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 8, 9}, pack(Zstd, records)...), true},
		{"gzip of two members", Gzip, append(pack(Gzip, records[:half]), pack(Gzip, records[half:])...), true},
		// What it reads as well, and no client writes.
		{"lz4 and a byte", LZ4, append(lz(records), 0), false},
		{"lz4 content checksum", LZ4, flip(full, -1), false},
		{"lz4 without end", LZ4, lz(records)[:len(lz(records))-8], false},
		{"lz4 legacy", LZ4, lz(records, lz4.LegacyOption(true)), false},
		{"gzip and a byte", Gzip, append(pack(Gzip, records), 0), false},
		{"gzip checksum", Gzip, flip(pack(Gzip, records), -5), false},
		{"gzip length", Gzip, flip(pack(Gzip, records), -1), false},
		{"zstd and a byte", Zstd, append(pack(Zstd, records), 0), false},
		{"zstd checksum", Zstd, flip(pack(Zstd, records), -1), false},
		{"snappy and a byte", Snappy, append(pack(Snappy, records), 0), false},
		{"snappy header alone", Snappy, []byte(xerialHeader), false},
		{"snappy header cut", Snappy, []byte(xerialHeader[:12]), false},
		{"snappy second header cut", Snappy, append(pack(Snappy, records), xerialHeader[:12]...), false},
		{"snappy of nothing", Snappy, nil, false},
		{"gzip of nothing", Gzip, nil, false},
		{"lz4 of nothing", LZ4, nil, false},
		{"zstd of nothing", Zstd, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := wrap(tt.codec, 40, tt.bytes)
			b.setTimes(1700000000000)
			got, err := Validate(b, -1)
			if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrInvalid) {
				t.Fatalf("got %v", err)
			}
			if tt.ok && !bytes.Equal(collect(t, got)[39].Value, kib(40)[39].Value) {
				t.Error("other records")
			}
			if tt.ok && bytes.Count(got, []byte(xerialMagic)) > 1 {
				t.Error("two streams are left, of which few clients read the second")
			}
		})
	}
}

func (b Batch) setTimes(base int64) { put64(b, 27, base); put64(b, 35, base); b.seal() }

// A decoder that met a bad or unfinished batch goes back to its pool and must
// serve the next one as if new.
func TestDecodersRecoverFromWhatTheyRefused(t *testing.T) {
	for _, c := range codecs[1:] {
		good := mustBuild(t, c, kib(100)...)
		for i := HeaderSize; i < len(good); i += 211 {
			bad := Batch(bytes.Clone(good))
			bad[i] ^= 0x55
			bad.seal()
			Validate(bad, -1)
			for range bad.Records() {
			}
			for range good.Records() {
				break
			}
			if _, err := Validate(good, -1); err != nil {
				t.Fatalf("%v: after byte %d: %v", c, i, err)
			}
			if n := len(collect(t, good)); n != 100 {
				t.Fatalf("%v: after byte %d: %d records", c, i, n)
			}
		}
	}
}

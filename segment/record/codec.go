package record

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// A Codec is how the records of a batch are compressed.
type Codec int8

// The codecs of the Kafka protocol, as numbered in a batch's attributes.
const (
	None   Codec = 0
	Gzip   Codec = 1
	Snappy Codec = 2 // raw, or framed as snappy-java frames it
	LZ4    Codec = 3 // the LZ4 frame format, independent blocks
	Zstd   Codec = 4 // KIP-110
)

var codecNames = [...]string{"none", "gzip", "snappy", "lz4", "zstd"}

// String returns the name that Kafka's compression.type setting uses.
func (c Codec) String() string {
	if c < 0 || int(c) >= len(codecNames) {
		return fmt.Sprintf("codec %d", int8(c))
	}
	return codecNames[c]
}

// ParseCodec returns the codec with the name that Kafka's compression.type
// setting uses: none, gzip, snappy, lz4 or zstd. "uncompressed" is none too. Any
// other name is an ErrCodec.
func ParseCodec(name string) (Codec, error) {
	if name == "uncompressed" {
		return None, nil
	}
	for i, n := range codecNames {
		if n == name {
			return Codec(i), nil
		}
	}
	return None, fmt.Errorf("%w: %q", ErrCodec, name)
}

// What a compressed batch may cost its reader. A gzip bomb expands a
// thousandfold and a zstd bomb without bound, so the expanded length is limited
// and never held at once: the gate reads it through a window.
const (
	// Any batch may expand to 4 MiB, a longer one to 256 times its length up to
	// 64 MiB, and one of more than 4 MiB to 16 times its length. Text
	// compresses 3:1 to 10:1. At the lowest limit a bomb keeps a core busy for
	// 0.5 ms (zstd) to 1.3 ms (gzip), about the sync of an honest batch; at most a
	// megabyte of the worst takes 80 ms. Only the Java client packs batches by
	// what they have compressed to before, and it splits them when told that
	// they are too large.
	minExpanded  = 4 << 20
	maxExpanded  = 64 << 20
	expandRatio  = 256
	alwaysExpand = 16

	// streamWindow is the largest zstd window that is decoded as a stream: 8 MiB,
	// which RFC 8878 asks every decoder to support, and enough for levels up to
	// 19. The decoder allocates it whole, however little the frame holds.
	streamWindow = 8 << 20

	// maxZstdWindow is the largest zstd window accepted: that of level 22, and
	// the most that the reference decoder accepts unasked. Frames between the two
	// are decoded in memory, which costs what they expand to, one at a time.
	maxZstdWindow = 128 << 20

	// insideLimit bounds what a batch that has passed the gate expands to: no entry
	// is longer than 1 GiB. It only ends what would never end; a window holds 64 KiB
	// of it and the current record.
	insideLimit = alwaysExpand << 30

	// snappyRatio bounds what a raw snappy block can honestly expand to: 3 bytes
	// copy 64 at most. The decoder allocates what the block declares.
	snappyRatio = 22

	// windowSize is the length of the pooled buffer through which the gate reads.
	// A decoder adds its own: gzip 40 KiB, snappy its block, lz4 twice the block
	// size its frame declares, at most 8 MiB, zstd its window.
	windowSize = 64 << 10
)

// expandLimit returns how many bytes n compressed bytes may expand to at the gate.
func expandLimit(n int) int64 {
	return max(minExpanded, min(expandRatio*int64(n), maxExpanded), alwaysExpand*int64(n))
}

// An inflater is a window on the expanded records of a compressed batch. Each
// belongs to one codec's pool; get one from inflate and give it back with close.
type inflater struct {
	window
	codec Codec
	stage []byte // windowSize bytes for a window that does not keep
	src   bytes.Reader

	// The decoder of the codec; the others are zero.
	gz *gzip.Reader
	sn snappyReader
	lz *lz4.Reader
	zs *zstd.Decoder

	wide bool // holds the place in wideZstd
}

// wideZstd has one place, for the batch with a window above streamWindow that is
// being expanded in memory. A place is held for at most the time of a gate
// check or a recompression, never while a caller looks at records.
var wideZstd = make(chan struct{}, 1)

// inflaters caches idle decoders, which are expensive to make (zstd: tens of
// microseconds and as many KiB) and cheap to reset.
var inflaters [len(codecNames)]sync.Pool

// inflate returns an inflater on src, compressed by c, which is not None, that
// yields at most room bytes: expandLimit at the gate, insideLimit elsewhere. With
// keep, bytes that have been read stay as they are for good, else until more are
// read. Whatever is wrong with src shows when the window is read.
func inflate(c Codec, src []byte, keep bool, room int64) *inflater {
	f, _ := inflaters[c].Get().(*inflater)
	if f == nil {
		f = &inflater{codec: c}
	}
	f.window = window{room: room, keep: keep}
	if keep {
		f.buf = make([]byte, 0, min(windowSize, max(1<<10, 4*len(src)))) // most expand to less, and fit
	} else {
		if f.stage == nil {
			f.stage = make([]byte, windowSize)
		}
		f.buf = f.stage[:0]
	}
	f.src.Reset(src)
	r, err := f.reader(src)
	if errors.Is(err, ErrTooLarge) {
		f.fail(err)
		return f
	}
	if err != nil {
		f.fail(fmt.Errorf("%w: %s: %w", ErrInvalid, c, err))
		return f
	}
	if r != nil {
		f.r = r
	}
	return f
}

// reader starts the decoder.
func (f *inflater) reader(src []byte) (r io.Reader, err error) {
	switch f.codec {
	case Gzip:
		if f.gz == nil {
			f.gz = new(gzip.Reader)
		}
		return f.gz, f.gz.Reset(&f.src)
	case Snappy:
		return &f.sn, f.sn.reset(src)
	case LZ4:
		if err := checkLZ4(src); err != nil {
			return nil, err
		}
		if f.lz == nil {
			f.lz = lz4.NewReader(&f.src)
		} else {
			f.lz.Reset(&f.src)
		}
		return f.lz, nil
	case Zstd:
		var h zstd.Header
		if err := h.Decode(src); err != nil {
			return nil, err
		}
		window := h.WindowSize
		if h.SingleSegment {
			window = h.FrameContentSize
		}
		switch {
		case h.HasFCS && h.FrameContentSize > uint64(f.room):
			return nil, errExpands
		case window > streamWindow && window <= maxZstdWindow:
			return nil, f.widen(src, h)
		}
		if f.zs == nil {
			// One goroutine, the caller's: nothing to stop when the pool
			// drops the decoder.
			f.zs, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(streamWindow), zstd.WithDecodeBuffersBelow(0))
			if err != nil {
				return nil, err
			}
		}
		return f.zs, f.zs.Reset(&f.src)
	}
	panic(fmt.Sprintf("record: inflate %v", f.codec))
}

// widen expands zstd in memory: instead of a window of up to 128 MiB that takes
// what the frame says it holds, else the most that it may hold.
func (f *inflater) widen(src []byte, h zstd.Header) error {
	wideZstd <- struct{}{}
	f.wide = true
	defer func() {
		if f.buf == nil || f.keep { // failed, or the caller's from here on
			f.narrow()
		}
	}()
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return err
	}
	// Only producers choose such windows, so what lies here is as long as it was at
	// the gate, and expands no farther.
	size := min(f.room, expandLimit(len(src)))
	if h.HasFCS && h.FrameContentSize > uint64(size) {
		return errExpands
	}
	if h.HasFCS {
		size = int64(h.FrameContentSize)
	}
	f.buf = nil
	p, err := d.DecodeAll(src, make([]byte, 0, size))
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		err = errExpands
	}
	if err != nil {
		return err
	}
	if f.keep {
		p = bytes.Clone(p) // the caller may keep it, so no more than is there
	}
	f.buf = p
	return nil
}

// narrow gives the place in wideZstd back, if f holds it.
func (f *inflater) narrow() {
	if f.wide {
		f.wide = false
		<-wideZstd
	}
}

// close gives f back to its pool.
func (f *inflater) close() {
	f.narrow()
	f.window = window{}
	f.src.Reset(nil)
	f.sn.src, f.sn.out = nil, nil
	if cap(f.sn.block) > 1<<20 {
		f.sn.block = nil
	}
	inflaters[f.codec].Put(f)
}

// checkLZ4 refuses what pierrec/lz4 reads and Kafka's own consumers do not: the
// legacy and skippable formats, blocks that depend on each other, and more than
// one frame, of which they would return the first alone. It walks from block to
// block; checksums and contents are the decoder's.
//
//	magic int32, little-endian
//	flags: version 01, block independence, block checksums, content size, content checksum, 0, dictionary
//	block size code, [content size int64], header checksum
//	blocks: length int32 with the highest bit for "stored", content, [checksum]; a length 0 ends them
//	[content checksum int32]
func checkLZ4(src []byte) error {
	const (
		independent, blockSums, contentSize, contentSum, dictionary = 0x20, 0x10, 0x08, 0x04, 0x01
	)
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != 0x184D2204 {
		return errors.New("no frame")
	}
	flags := src[4]
	switch {
	case flags&independent == 0:
		return errors.New("blocks depend on each other")
	case flags&dictionary != 0:
		return errors.New("dictionary")
	}
	at, after := 7, 0
	if flags&contentSize != 0 {
		at += 8
	}
	if flags&blockSums != 0 {
		after = 4
	}
	for {
		if len(src)-at < 4 {
			return errors.New("no end mark")
		}
		n := int(binary.LittleEndian.Uint32(src[at:]) & 0x7fffffff)
		at += 4
		if n == 0 {
			break
		}
		if n+after > len(src)-at {
			return fmt.Errorf("block of %d bytes, %d left", n, len(src)-at)
		}
		at += n + after
	}
	if flags&contentSum != 0 {
		at += 4
	}
	if at != len(src) {
		return fmt.Errorf("frame of %d bytes in %d", at, len(src))
	}
	return nil
}

// xerialMagic opens the framing of snappy-java: it, two int32 versions, and then
// blocks, each an int32 length and as many bytes of raw snappy.
const (
	xerialMagic  = "\x82SNAPPY\x00"
	xerialHeader = xerialMagic + "\x00\x00\x00\x01\x00\x00\x00\x01"
	xerialBlock  = 32 << 10 // bytes before compression, snappy-java's default
)

// A snappyReader expands snappy, framed or raw, a block at a time.
type snappyReader struct {
	src    []byte // what has not been expanded
	framed bool
	joined bool   // another stream has begun behind the first
	block  []byte // the current block's room
	out    []byte // what has not been read of it
}

func (s *snappyReader) reset(src []byte) error {
	s.src, s.framed, s.joined, s.out = src, false, false, nil
	if bytes.HasPrefix(src, []byte(xerialMagic)) {
		if len(src) < len(xerialHeader) {
			return fmt.Errorf("header of %d bytes", len(src))
		}
		s.src, s.framed = src[len(xerialHeader):], true
	} else if len(src) == 0 {
		return errors.New("no block")
	}
	return nil
}

// Read implements io.Reader.
func (s *snappyReader) Read(p []byte) (int, error) {
	for len(s.out) == 0 {
		if len(s.src) == 0 {
			return 0, io.EOF
		}
		if err := s.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.out)
	s.out = s.out[n:]
	return n, nil
}

// next expands the next block.
func (s *snappyReader) next() error {
	block := s.src
	if s.framed {
		if len(s.src) < 4 {
			return fmt.Errorf("%d bytes after the last block", len(s.src))
		}
		if s.src[0] == xerialMagic[0] && len(s.src) >= len(xerialHeader) && bytes.HasPrefix(s.src, []byte(xerialMagic)) {
			s.src, s.joined = s.src[len(xerialHeader):], true
			return nil
		}
		n := int(int32(binary.BigEndian.Uint32(s.src)))
		if n <= 0 || n > len(s.src)-4 {
			return fmt.Errorf("block of %d bytes, %d left", n, len(s.src)-4)
		}
		block = s.src[4 : 4+n]
		s.src = s.src[4+n:]
	} else {
		s.src = nil
	}
	n, err := s2.DecodedLen(block)
	if err != nil {
		return err
	}
	if n > snappyRatio*len(block) {
		return fmt.Errorf("block of %d bytes declares %d", len(block), n)
	}
	if usesS2(block) {
		return errors.New("block is S2, not snappy")
	}
	if cap(s.block) < n {
		s.block = make([]byte, n)
	}
	s.out, err = s2.Decode(s.block[:n], block)
	return err
}

// usesS2 reports whether a raw block has a repeat, which is a copy with offset 0:
// klauspost/compress reads it as its own extension of the format, and nobody's
// snappy does. A malformed block may report anything; decoding it fails.
func usesS2(block []byte) bool {
	i := 0
	for i < len(block) && block[i] >= 0x80 { // the decoded length
		i++
	}
	for i++; i < len(block); {
		tag := block[i]
		switch tag & 3 {
		case 0: // literal: its length less 1, or how many bytes that takes
			n := int(tag >> 2)
			i++
			if n >= 60 {
				size := n - 59
				if len(block)-i < size {
					return false
				}
				n = 0
				for k := size - 1; k >= 0; k-- {
					n = n<<8 | int(block[i+k])
				}
				i += size
			}
			i += n + 1
		case 1:
			if i+1 < len(block) && tag&0xe0 == 0 && block[i+1] == 0 {
				return true
			}
			i += 2
		case 2:
			i += 3
		case 3:
			i += 5
		}
	}
	return false
}

// DefaultLevel asks a codec for its own level.
const DefaultLevel = math.MinInt

// A deflater compresses what is written to it, in the codec and at the level of
// the pool it comes from; get one from newDeflater and give it back with close.
type deflater struct {
	pool *sync.Pool
	out  limited

	// The encoder of the codec; the others are zero.
	gz *gzip.Writer
	sn xerialWriter
	lz *lz4.Writer
	zs *zstd.Encoder
}

// limited collects bytes up to a limit. Once something did not fit, nothing does.
type limited struct {
	p    []byte
	max  int
	full bool
}

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.full = l.full || len(p) > l.max-len(l.p); l.full {
		return 0, fmt.Errorf("%w: more than %d bytes once compressed", ErrTooLarge, l.max)
	}
	l.p = append(l.p, p...)
	return len(p), nil
}

// deflaters caches idle encoders by codec and by the place of their level. There
// is one place more than gzip and lz4 have levels.
var deflaters [len(codecNames)][11]sync.Pool

// place finds the level an encoder is made for, of those it tells apart: gzip
// has nine; lz4 the fast one and nine of more effort, where Kafka counts to 17;
// zstd four, of 22.
func (c Codec) place(level int) int {
	switch {
	case level == DefaultLevel:
	case c == Gzip && level >= 1:
		return min(level, 9)
	case c == LZ4 && level != lz4Default:
		return min(max(level, 1), 9)
	case c == Zstd:
		return int(zstd.EncoderLevelFromZstd(level))
	}
	return 0
}

// lz4Default is the level of Kafka's default, which means the fast compressor
// and not one of the levels around it.
const lz4Default = 9

var lz4Levels = [...]lz4.CompressionLevel{
	lz4.Fast, lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9,
}

// newDeflater returns a deflater that appends to dst until it has max bytes. c
// is a known codec.
func newDeflater(dst []byte, max int, c Codec, level int) (*deflater, error) {
	place := c.place(level)
	pool := &deflaters[c][place]
	d, _ := pool.Get().(*deflater)
	if d == nil {
		d = &deflater{pool: pool}
		var err error
		switch c {
		case Gzip:
			if place == 0 {
				place = gzip.DefaultCompression
			}
			d.gz, err = gzip.NewWriterLevel(&d.out, place)
		case LZ4:
			d.lz = lz4.NewWriter(&d.out)
			// As Kafka's producer writes: 64 KiB blocks, no content checksum.
			err = d.lz.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.CompressionLevelOption(lz4Levels[place]))
		case Zstd:
			if place == 0 {
				place = int(zstd.SpeedDefault)
			}
			// A window of 512 KiB keeps an idle encoder and every consumer's
			// decoder small; batches are seldom longer.
			d.zs, err = zstd.NewWriter(&d.out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(512<<10), zstd.WithZeroFrames(true), zstd.WithEncoderLevel(zstd.EncoderLevel(place)))
		}
		if err != nil {
			return nil, err
		}
	}
	d.out = limited{p: dst, max: max}
	switch c {
	case Gzip:
		d.gz.Reset(&d.out)
	case Snappy:
		d.sn.begin(&d.out)
	case LZ4:
		d.lz.Reset(&d.out)
	case Zstd:
		d.zs.Reset(&d.out)
	}
	return d, nil
}

// Write implements io.Writer.
func (d *deflater) Write(p []byte) (int, error) {
	switch {
	case d.gz != nil:
		return d.gz.Write(p)
	case d.lz != nil:
		return d.lz.Write(p)
	case d.zs != nil:
		return d.zs.Write(p)
	case d.sn.out != nil:
		return d.sn.Write(p)
	}
	return d.out.Write(p)
}

// finish ends the stream and returns all that was appended to.
func (d *deflater) finish() ([]byte, error) {
	var err error
	switch {
	case d.gz != nil:
		err = d.gz.Close()
	case d.lz != nil:
		err = d.lz.Close()
	case d.zs != nil:
		err = d.zs.Close()
	case d.sn.out != nil:
		err = d.sn.flush()
	}
	return d.out.p, err
}

// close gives d back to its pool.
func (d *deflater) close() {
	d.out = limited{}
	d.sn.out = nil
	d.pool.Put(d)
}

// deflate appends src, compressed by c at its own level, to dst.
func deflate(dst []byte, c Codec, src []byte) ([]byte, error) {
	if c < 0 || int(c) >= len(codecNames) {
		return nil, fmt.Errorf("%w %d", ErrCodec, int8(c))
	}
	if c == None {
		return append(dst, src...), nil
	}
	if c == Zstd { // in one piece it says how long it is, and readers like that
		d, err := newDeflater(nil, 0, c, DefaultLevel)
		if err != nil {
			return nil, err
		}
		defer d.close()
		return d.zs.EncodeAll(src, dst), nil
	}
	d, err := newDeflater(dst, math.MaxInt, c, DefaultLevel)
	if err != nil {
		return nil, err
	}
	defer d.close()
	if _, err := d.Write(src); err != nil {
		return nil, err
	}
	return d.finish()
}

// A xerialWriter frames snappy as snappy-java does, which every client reads.
type xerialWriter struct {
	out   *limited
	block []byte // up to xerialBlock bytes that wait
	room  []byte // a block compressed
}

func (w *xerialWriter) begin(out *limited) {
	if w.room == nil {
		w.block = make([]byte, 0, xerialBlock)
		w.room = make([]byte, s2.MaxEncodedLen(xerialBlock))
	}
	w.out, w.block = out, w.block[:0]
	out.Write([]byte(xerialHeader)) // where it does not fit, the first block fails too
}

// Write implements io.Writer.
func (w *xerialWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		some := p[:min(len(p), xerialBlock-len(w.block))]
		w.block = append(w.block, some...)
		p = p[len(some):]
		if len(w.block) == xerialBlock {
			if err := w.flush(); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

// flush writes what waits as a block.
func (w *xerialWriter) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	block := s2.EncodeSnappy(w.room, w.block)
	w.block = w.block[:0]
	var length [4]byte
	binary.BigEndian.PutUint32(length[:], uint32(len(block)))
	w.out.Write(length[:])
	_, err := w.out.Write(block)
	return err
}

package record

import (
	"encoding/binary"
	"fmt"
	"math"
)

// Build returns a batch of the records, which are numbered from offset 0: their
// Offset is not looked at. At least one is needed. It is for internal topics, the
// command line and tests; what clients produce is never built here.
func Build(codec Codec, records ...Record) (Batch, error) {
	bu := Builder{Codec: codec}
	for _, r := range records {
		bu.Append(r)
	}
	return bu.Batch()
}

// A Producer is an idempotent producer's part of a batch (KIP-98).
type Producer struct {
	ID       int64
	Epoch    int16
	Sequence int32 // of the batch's first record
}

// A Builder collects records and makes a batch of them. The zero value is ready
// and makes a plain batch without a producer. It is not safe for concurrent use.
type Builder struct {
	Codec         Codec
	Producer      *Producer // nil: none
	Transactional bool
	Control       bool

	records   []byte // encoded
	count     int32
	base, max int64 // timestamps
}

// Append adds a record, numbered by its place. Its Offset is not looked at, and
// nothing of it is retained.
func (bu *Builder) Append(r Record) {
	if bu.count == 0 {
		bu.base, bu.max = r.Timestamp, r.Timestamp
	}
	bu.max = max(bu.max, r.Timestamp)
	bu.records = appendRecord(bu.records, r, r.Timestamp-bu.base, bu.count)
	bu.count++
}

// Len returns the number of records appended.
func (bu *Builder) Len() int { return int(bu.count) }

// Size returns the length in bytes of the batch, were it not compressed.
func (bu *Builder) Size() int { return HeaderSize + len(bu.records) }

// Reset drops the records and keeps the rest.
func (bu *Builder) Reset() { bu.records, bu.count = bu.records[:0], 0 }

// Batch returns the batch, with base offset 0 and leader epoch -1 until Assign. It
// is the caller's: later Appends do not change it. It fails without records, with
// an unknown codec, and with more than 2 GiB.
func (bu *Builder) Batch() (Batch, error) {
	if bu.count == 0 {
		return nil, fmt.Errorf("%w: no records", ErrInvalid)
	}
	if len(bu.records) > math.MaxInt32-HeaderSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(bu.records))
	}
	attributes := int16(bu.Codec)
	if bu.Transactional {
		attributes |= transactBit
	}
	if bu.Control {
		attributes |= controlBit
	}
	p := Producer{ID: -1, Epoch: -1, Sequence: -1}
	if bu.Producer != nil {
		p = *bu.Producer
	}
	b := make([]byte, HeaderSize, HeaderSize+len(bu.records))
	b, err := deflate(b, bu.Codec, bu.records)
	if err != nil {
		return nil, fmt.Errorf("record: compress: %w", err)
	}
	return finish(b, header{
		epoch: -1, attributes: attributes, last: bu.count - 1, base: bu.base, max: bu.max, producer: p, count: bu.count,
	}), nil
}

// Rewrite returns a batch with the records of b that keep wants (nil: all of
// them), compressed by codec. Each keeps its offset, and the batch keeps its range
// of offsets, epoch, producer and attributes, as compaction and compression.type
// need. If none is left, Count is 0 and MaxTimestamp -1, and the batch still says
// what offsets and sequences it had. The result is the caller's and does not alias b.
func (b Batch) Rewrite(codec Codec, keep func(Record) bool) (Batch, error) {
	return b.rewrite(codec, keep, b.BaseTimestamp(), b.Attributes())
}

// RewriteUntil is Rewrite, and sets the batch's delete horizon, milliseconds since
// 1970: when compaction may drop its tombstones (KIP-534).
func (b Batch) RewriteUntil(horizon int64, codec Codec, keep func(Record) bool) (Batch, error) {
	return b.rewrite(codec, keep, horizon, b.Attributes()|horizonBit)
}

func (b Batch) rewrite(codec Codec, keep func(Record) bool, base int64, attributes int16) (Batch, error) {
	records := make([]byte, 0, len(b)-HeaderSize)
	offset := b.BaseOffset()
	latest, count := int64(-1), int32(0)
	for r, err := range b.Records() {
		if err != nil {
			return nil, err
		}
		if keep != nil && !keep(r) {
			continue
		}
		if latest = max(latest, r.Timestamp); count == 0 {
			latest = r.Timestamp
		}
		delta := r.Timestamp - base
		if b.AppendTime() {
			delta = 0 // the header holds the time of them all
		}
		records = appendRecord(records, r, delta, int32(r.Offset-offset))
		count++
	}
	if count == 0 {
		codec = None
	}
	p, err := deflate(make([]byte, HeaderSize, HeaderSize+len(records)), codec, records)
	if err != nil {
		return nil, fmt.Errorf("record: compress: %w", err)
	}
	if len(p) > math.MaxInt32 {
		return nil, fmt.Errorf("%w: %d bytes", ErrTooLarge, len(p))
	}
	return finish(p, header{
		offset: offset, epoch: b.Epoch(), attributes: attributes&^codecMask | int16(codec),
		last: b.LastOffsetDelta(), base: base, max: latest, count: count,
		producer: Producer{ID: b.ProducerID(), Epoch: b.ProducerEpoch(), Sequence: b.BaseSequence()},
	}), nil
}

// Recompress returns a batch with the records of b, which Validate has let
// through, compressed by another codec at a level (DefaultLevel: the codec's
// own), as compression.type asks. All else stays: offsets, timestamps, producer,
// sequence and attributes. The result is the caller's and does not alias b, unless
// it is b: where the codec compresses so well that the result would expand beyond
// what a gate allows, the producer's codec stays, or another cluster would refuse
// what this one has acknowledged.
//
// The records go from one codec into the other without being looked at, through
// a window of 64 KiB, so it takes no memory but the result's; with that longer
// than maxBytes (negative: no limit) it stops, and the error is ErrTooLarge.
func (b Batch) Recompress(codec Codec, level, maxBytes int) (Batch, error) {
	if codec < 0 || int(codec) >= len(codecNames) {
		return nil, fmt.Errorf("%w %d", ErrCodec, int8(codec))
	}
	if maxBytes < 0 {
		maxBytes = math.MaxInt32
	}
	p := make([]byte, HeaderSize, min(len(b), max(maxBytes, HeaderSize)))
	copy(p, b)
	d, err := newDeflater(p, maxBytes, codec, level)
	if err != nil {
		return nil, fmt.Errorf("record: compress: %w", err)
	}
	defer d.close()
	expanded := int64(len(b) - HeaderSize)
	if b.Codec() == None {
		_, err = d.Write(b[HeaderSize:])
	} else {
		expanded, err = b.expandTo(d)
	}
	if err == nil {
		p, err = d.finish()
	}
	if err != nil {
		return nil, fmt.Errorf("record: recompress: %w", err)
	}
	if codec != None && expanded > expandLimit(len(p)-HeaderSize) {
		return b, nil
	}
	e := binary.BigEndian
	e.PutUint32(p[8:], uint32(len(p)-12))
	e.PutUint16(p[21:], uint16(b.Attributes()&^codecMask|int16(codec)))
	Batch(p).seal()
	return p, nil
}

// expandTo writes the records of a compressed batch, expanded, and counts their
// bytes.
func (b Batch) expandTo(d *deflater) (n int64, err error) {
	f := inflate(b.Codec(), b[HeaderSize:], false, insideLimit)
	defer f.close()
	for f.more(1) {
		if _, err := d.Write(f.buf[f.i:]); err != nil {
			return 0, err
		}
		n += int64(len(f.buf) - f.i)
		f.i = len(f.buf)
	}
	return n, f.err
}

// Emptied returns the batch without its records, which it does not look at: what
// is left says which offsets and sequences there were, as Rewrite leaves it.
func (b Batch) Emptied() Batch {
	return finish(make([]byte, HeaderSize), header{
		offset: b.BaseOffset(), epoch: b.Epoch(), attributes: b.Attributes() &^ codecMask,
		last: b.LastOffsetDelta(), base: b.BaseTimestamp(), max: -1,
		producer: Producer{ID: b.ProducerID(), Epoch: b.ProducerEpoch(), Sequence: b.BaseSequence()},
	})
}

// A header is what finish writes.
type header struct {
	offset     int64
	epoch      int32
	attributes int16
	last       int32
	base, max  int64
	producer   Producer
	count      int32
}

// finish writes h over the first HeaderSize bytes of b, whose records are there.
func finish(b []byte, h header) Batch {
	e := binary.BigEndian
	e.PutUint64(b, uint64(h.offset))
	e.PutUint32(b[8:], uint32(len(b)-12))
	e.PutUint32(b[12:], uint32(h.epoch))
	b[16] = magic
	e.PutUint16(b[21:], uint16(h.attributes))
	e.PutUint32(b[23:], uint32(h.last))
	e.PutUint64(b[27:], uint64(h.base))
	e.PutUint64(b[35:], uint64(h.max))
	e.PutUint64(b[43:], uint64(h.producer.ID))
	e.PutUint16(b[51:], uint16(h.producer.Epoch))
	e.PutUint32(b[53:], uint32(h.producer.Sequence))
	e.PutUint32(b[57:], uint32(h.count))
	Batch(b).seal()
	return b
}

// appendRecord appends r as next reads it.
func appendRecord(dst []byte, r Record, timestampDelta int64, offsetDelta int32) []byte {
	length := 1 + varintLen(timestampDelta) + varintLen(int64(offsetDelta)) +
		fieldLen(r.Key, r.Key == nil) + fieldLen(r.Value, r.Value == nil) + varintLen(int64(len(r.Headers)))
	for _, h := range r.Headers {
		length += fieldLen(h.Key, false) + fieldLen(h.Value, h.Value == nil)
	}
	dst = binary.AppendVarint(dst, int64(length))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, timestampDelta)
	dst = binary.AppendVarint(dst, int64(offsetDelta))
	dst = appendField(dst, r.Key, r.Key == nil)
	dst = appendField(dst, r.Value, r.Value == nil)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for _, h := range r.Headers {
		dst = appendField(dst, h.Key, false)
		dst = appendField(dst, h.Value, h.Value == nil)
	}
	return dst
}

func appendField[T string | []byte](dst []byte, p T, null bool) []byte {
	if null {
		return binary.AppendVarint(dst, -1)
	}
	return append(binary.AppendVarint(dst, int64(len(p))), p...)
}

func fieldLen[T string | []byte](p T, null bool) int {
	if null {
		return 1
	}
	return varintLen(int64(len(p))) + len(p)
}

// varintLen returns the length of x as a zigzag varint.
func varintLen(x int64) int {
	u := uint64(x)<<1 ^ uint64(x>>63)
	n := 1
	for ; u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

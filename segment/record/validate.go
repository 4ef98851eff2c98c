package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// The magic of the format this package knows, and the length a batch without
// records declares in its length field.
const (
	magic     = 2
	minLength = HeaderSize - 12
)

// Split returns the first batch in p and what follows it. It trusts nothing, and
// checks only what a later Split needs: that the magic is 2 and that as many
// bytes are there as the batch declares. Both results alias p. The error is
// ErrShort, ErrCorrupt or ErrMagic; an empty p is ErrShort.
func Split(p []byte) (first Batch, rest []byte, err error) {
	if len(p) < 12 {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrShort, len(p))
	}
	length := int32(binary.BigEndian.Uint32(p[8:]))
	if length < 0 {
		return nil, nil, fmt.Errorf("%w: length %d", ErrCorrupt, length)
	}
	if len(p) < 17 {
		return nil, nil, fmt.Errorf("%w: %d bytes", ErrShort, len(p))
	}
	switch m := int8(p[16]); {
	case m == 0 || m == 1:
		return nil, nil, fmt.Errorf("%w: magic %d", ErrMagic, m)
	case m != magic:
		return nil, nil, fmt.Errorf("%w: magic %d", ErrCorrupt, m)
	case length < minLength:
		return nil, nil, fmt.Errorf("%w: length %d", ErrCorrupt, length)
	}
	size := 12 + int(length)
	if size > len(p) {
		return nil, nil, fmt.Errorf("%w: %d of %d bytes", ErrShort, len(p), size)
	}
	return Batch(p[:size:size]), p[size:], nil
}

// Validate is the gate: it checks what a client produced to one partition, and
// below it code may assume what it promises. p must be one whole batch of at most
// maxBytes bytes (negative: no limit), which the result aliases.
//
// It promises: length, magic and checksum are right; the codec is known; the
// count is at least 1 and equals the records there are; offset deltas count from
// 0 to LastOffsetDelta; base offset is 0; every length in every record fits, and
// nothing lies between or after the records; MaxTimestamp is the largest there
// is; producer id, epoch and base sequence belong together; and the batch is no
// control batch. Compressed records are expanded to check this, through a window
// of 64 KiB, for a batch that cannot be read stops every consumer that reaches it.
// A batch may expand to 4 MiB, or 256 times its length up to 64 MiB, or 16 times
// its length, whichever is most; beyond that it is too large.
//
// The price, for 16 records of 1 KiB of JSON on one core at 2.6 GHz, is 0.9 us
// plain (of which 0.55 us is the CRC-32C), 3 us LZ4, 6 us snappy, 13 us zstd and
// 30 us gzip; a plain record of any length takes about 25 ns, and a plain batch
// allocates nothing. See BenchmarkValidate.
//
// p is changed in one case: a client that does not fill in the max timestamp
// (Sarama did not before 1.31) has it filled in, and the CRC with it, as Kafka
// does.
//
// Errors are those listed beside ErrCorrupt, never ErrShort. With
// ErrTransactional the batch is returned as well.
func Validate(p []byte, maxBytes int) (Batch, error) {
	if len(p) == 0 {
		return nil, fmt.Errorf("%w: no batch", ErrInvalid)
	}
	b, rest, err := Split(p)
	if errors.Is(err, ErrShort) {
		return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: %d bytes after the batch", ErrInvalid, len(rest))
	}
	if maxBytes >= 0 && len(b) > maxBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(b), maxBytes)
	}
	if err := b.Check(); err != nil {
		return nil, err
	}
	if err := b.checkHeader(); err != nil {
		return nil, err
	}
	latest, err := b.walk()
	if err != nil {
		return nil, err
	}
	if latest != b.MaxTimestamp() {
		binary.BigEndian.PutUint64(b[35:], uint64(latest))
		b.seal()
	}
	if b.IsTransactional() {
		return b, ErrTransactional
	}
	return b, nil
}

// checkHeader checks what a produced batch's header says on its own.
func (b Batch) checkHeader() error {
	switch attributes := uint16(b.Attributes()); {
	case int(b.Codec()) >= len(codecNames):
		return fmt.Errorf("%w %d", ErrCodec, b.Codec())
	case attributes&controlBit != 0:
		return ErrControl
	case attributes&appendTimeBit != 0:
		return ErrTimestamp
	case attributes&^(codecMask|transactBit) != 0:
		return fmt.Errorf("%w: attributes %#x", ErrInvalid, attributes)
	}
	count := b.Count()
	switch {
	case count <= 0:
		return fmt.Errorf("%w: %d records", ErrInvalid, count)
	case b.LastOffsetDelta() != count-1:
		return fmt.Errorf("%w: last offset delta %d of %d records", ErrInvalid, b.LastOffsetDelta(), count)
	case b.BaseOffset() != 0:
		return fmt.Errorf("%w: base offset %d", ErrInvalid, b.BaseOffset())
	}
	id, epoch, sequence := b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	switch {
	case id < -1, id >= 0 && (epoch < 0 || sequence < 0):
		return fmt.Errorf("%w: producer id %d, epoch %d, base sequence %d", ErrInvalid, id, epoch, sequence)
	case id == -1 && (epoch != -1 && epoch != 0 || sequence != -1 && sequence != 0):
		// Sarama sends zeros beside the id -1, and Kafka does not look.
		return fmt.Errorf("%w: epoch %d, base sequence %d without a producer id", ErrInvalid, epoch, sequence)
	case id == -1 && b.IsTransactional():
		return fmt.Errorf("%w: transactional without a producer id", ErrInvalid)
	}
	return nil
}

// walk checks the records of a batch that has passed checkHeader and returns the
// largest timestamp.
func (b Batch) walk() (latest int64, err error) {
	if b.Codec() == None {
		w := window{buf: b[HeaderSize:]}
		return w.walk(b)
	}
	f := inflate(b.Codec(), b[HeaderSize:], false)
	defer f.close()
	return f.walk(b)
}

func (w *window) walk(b Batch) (latest int64, err error) {
	latest = math.MinInt64
	base := b.BaseTimestamp()
	for i := range b.Count() {
		timestamp, offset := w.next(nil)
		if w.err != nil {
			return 0, w.failure(int(i))
		}
		if offset != i {
			return 0, &RecordError{Index: int(i), Reason: fmt.Sprintf("offset delta %d", offset)}
		}
		timestamp, ok := addTimestamp(base, timestamp)
		if !ok {
			return 0, &RecordError{Index: int(i), Reason: "timestamp out of range"}
		}
		latest = max(latest, timestamp)
	}
	return latest, w.finish()
}

// addTimestamp returns base+delta, unless that overflows.
func addTimestamp(base, delta int64) (int64, bool) {
	sum := base + delta
	return sum, (sum > base) == (delta > 0)
}

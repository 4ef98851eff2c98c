package record

import (
	"fmt"
	"iter"
)

// A Record is one key and value with what belongs to it. A nil Key or Value is
// null, which is not the same as empty.
type Record struct {
	Offset    int64
	Timestamp int64 // milliseconds since 1970; -1: none
	Key       []byte
	Value     []byte
	Headers   []Header
}

// A Header is one of a record's headers, whose keys may repeat (KIP-82). A nil
// Value is null.
type Header struct {
	Key   string
	Value []byte
}

// Records returns the records in order. It trusts no byte: the first thing that
// is wrong with the batch is yielded as an error, an ErrInvalid, ErrTooLarge or
// ErrCodec, and ends the sequence. Keys and values alias b if it is plain, so they
// live as long as b's bytes do (see segment.View), and else memory of their own, which
// they pin in pieces of 64 KiB. Neither may be written to.
//
// Compacted batches are fine: offsets increase and may have gaps. The records of
// a control batch are yielded like others; see Marker. Timestamps are the base's and
// the delta's sum, which wraps around as in Java: that is how a record of a time long
// ago comes through a base of another time, a delete horizon for example.
//
// How far a batch may expand is the gate's to judge, by the length it came in.
// Compaction leaves fewer bytes of it, and another codec others, so Records goes by
// one limit for all, which nothing that has passed the gate exceeds.
func (b Batch) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		c := b.Codec()
		switch {
		case int(c) >= len(codecNames):
			yield(Record{}, fmt.Errorf("%w %d", ErrCodec, c))
		case b.Count() < 0:
			yield(Record{}, fmt.Errorf("%w: %d records", ErrInvalid, b.Count()))
		case c == None:
			w := window{buf: b[HeaderSize:], keep: true}
			w.records(b, yield)
		case b.Count() > 0: // compaction leaves empty batches with nothing to expand
			f := inflate(c, b[HeaderSize:], true, insideLimit)
			defer f.close()
			f.records(b, yield)
		}
	}
}

func (w *window) records(b Batch, yield func(Record, error) bool) {
	base, last, previous := b.BaseOffset(), b.LastOffsetDelta(), int32(-1)
	for i := range b.Count() {
		var r Record
		timestamp, offset := w.next(&r)
		var err error
		if r.Timestamp = b.MaxTimestamp(); !b.AppendTime() {
			r.Timestamp = b.BaseTimestamp() + timestamp
		}
		switch {
		case w.err != nil:
			err = w.failure(int(i))
		case offset <= previous || offset > last:
			err = &RecordError{Index: int(i), Reason: fmt.Sprintf("offset delta %d after %d, last %d", offset, previous, last)}
		}
		if err != nil {
			yield(Record{}, err)
			return
		}
		previous = offset
		r.Offset = base + int64(offset)
		if !yield(r, nil) {
			return
		}
	}
	if err := w.finish(); err != nil {
		yield(Record{}, err)
	}
}

// FirstAt returns the offset and the timestamp of the first record whose
// timestamp is at least timestamp; ok is false if there is none. It expands the
// batch only if MaxTimestamp says that there is one.
func (b Batch) FirstAt(timestamp int64) (offset, found int64, ok bool, err error) {
	if b.MaxTimestamp() < timestamp || b.Count() == 0 {
		return 0, 0, false, nil
	}
	for r, err := range b.Records() {
		if err != nil {
			return 0, 0, false, err
		}
		if r.Timestamp >= timestamp {
			return r.Offset, r.Timestamp, true, nil
		}
	}
	return 0, 0, false, nil
}

// NullKeys returns the indices, from 0, of the records without a key, which a
// compacted topic refuses (INVALID_RECORD, with the indices as RecordErrors). It
// expands the batch, so it is for compacted topics only.
func (b Batch) NullKeys() (indices []int, err error) {
	i := 0
	for r, err := range b.Records() {
		if err != nil {
			return nil, err
		}
		if r.Key == nil {
			indices = append(indices, i)
		}
		i++
	}
	return indices, nil
}

// MaxRecord returns the offset and the timestamp of the first record with the
// largest timestamp; -1 and -1 if compaction has left no record.
func (b Batch) MaxRecord() (offset, timestamp int64, err error) {
	offset, timestamp = -1, -1
	for r, err := range b.Records() {
		if err != nil {
			return -1, -1, err
		}
		if offset < 0 || r.Timestamp > timestamp {
			offset, timestamp = r.Offset, r.Timestamp
		}
		if timestamp == b.MaxTimestamp() {
			break
		}
	}
	return offset, timestamp, nil
}

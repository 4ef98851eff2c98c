package record

import (
	"errors"
	"fmt"
	"io"
	"math"
)

// A window reads the records of a batch front to back, either from the bytes of
// a plain batch or from a decoder, of whose output it sees one piece at a time.
//
// Its error is sticky: after the first failure every read yields zero, so a
// record is read straight through and err looked at once at its end.
//
//	       i                      end
//	buf |--+------------|          |
//	    past                        of the current record: counted from the
//	    counted from the first      first record's first byte as well
//	    record's first byte
type window struct {
	buf  []byte
	i    int       // buf[i:] has not been read
	past int64     // bytes of the stream that lay before buf
	end  int64     // where the current record ends
	r    io.Reader // gives more; nil: buf holds all there is
	room int64     // bytes r may still give
	keep bool      // records alias buf: never write again where bytes have been
	err  error
}

// errExpands means more bytes than expandLimit allows.
var errExpands = fmt.Errorf("%w: expands beyond its limit", ErrTooLarge)

// errEnd means that the bytes end within a record.
var errEnd = errors.New("bytes end within the record")

func (w *window) fail(err error) {
	if w.err == nil {
		w.err = err
	}
	// Nothing more is read: not from r, not from buf.
	w.r, w.buf, w.i = nil, nil, 0
}

func (w *window) pos() int64 { return w.past + int64(w.i) }

// more makes at least n bytes lie in buf[i:]. Without keep, n is at most the
// capacity of buf. It reports false at the end of the stream and after a failure.
func (w *window) more(n int) bool {
	for empty := 0; len(w.buf)-w.i < n; {
		if w.r == nil {
			return false
		}
		if len(w.buf) == cap(w.buf) || (!w.keep && w.i == len(w.buf)) {
			left := w.buf[w.i:]
			w.past += int64(w.i)
			w.i = 0
			if w.keep {
				// Double what has really arrived, so that a declared length
				// alone allocates nothing.
				w.buf = append(make([]byte, 0, max(min(n, 2*len(left)), min(windowSize, 2*cap(w.buf)))), left...)
			} else {
				w.buf = append(w.buf[:0], left...)
			}
		}
		got, err := w.r.Read(w.buf[len(w.buf):cap(w.buf)])
		w.buf = w.buf[:len(w.buf)+got]
		if w.room -= int64(got); w.room < 0 {
			w.fail(errExpands)
			return false
		}
		if got > 0 {
			empty = 0
		} else if empty++; err == nil && empty == 100 {
			err = io.ErrNoProgress
		}
		if err == io.EOF {
			w.r = nil
		} else if err != nil {
			w.fail(fmt.Errorf("%w: expand: %w", ErrInvalid, err))
			return false
		}
	}
	return true
}

// uvarint reads a base-128 number of at most size bytes, 5 or 10.
func (w *window) uvarint(size int) uint64 {
	if p := w.buf[w.i:]; len(p) >= 2 { // nearly all are of one or two bytes
		if p[0] < 0x80 {
			w.i++
			return uint64(p[0])
		}
		if p[1] < 0x80 {
			w.i += 2
			return uint64(p[0]&0x7f) | uint64(p[1])<<7
		}
	}
	return w.longUvarint(size)
}

// longUvarint reads what uvarint reads, of any length and across pieces.
func (w *window) longUvarint(size int) uint64 {
	var x uint64
	for shift := 0; shift < 7*size; shift += 7 {
		if w.i == len(w.buf) && !w.more(1) {
			w.fail(errEnd)
			return 0
		}
		c := w.buf[w.i]
		w.i++
		x |= uint64(c&0x7f) << shift
		if c < 0x80 {
			if (size == 5 && x > math.MaxUint32) || (shift == 63 && c > 1) {
				break
			}
			return x
		}
	}
	w.fail(errors.New("number too long"))
	return 0
}

// int32 reads a zigzag varint of 32 bits, int64 one of 64.
func (w *window) int32() int32 {
	x := uint32(w.uvarint(5))
	return int32(x>>1) ^ -int32(x&1)
}

func (w *window) int64() int64 {
	x := w.uvarint(10)
	return int64(x>>1) ^ -int64(x&1)
}

// bytes passes over n bytes of the current record and, if the window keeps,
// returns them; more has made them one piece.
func (w *window) bytes(n int) []byte {
	if int64(n) > w.end-w.pos() {
		w.fail(fmt.Errorf("length %d with %d bytes left", n, w.end-w.pos()))
		return nil
	}
	if w.keep {
		p := w.buf[w.i : w.i+n : w.i+n]
		w.i += n
		return p
	}
	for n > len(w.buf)-w.i {
		n -= len(w.buf) - w.i
		w.i = len(w.buf)
		if !w.more(1) {
			w.fail(errEnd)
			return nil
		}
	}
	w.i += n
	return nil
}

// The shortest record: attributes, two deltas, two lengths and a count.
const minRecord = 6

// next reads one record:
//
//	length          varint   of what follows
//	attributes      int8     unused
//	timestampDelta  varlong
//	offsetDelta     varint
//	keyLength       varint   -1: null
//	key
//	valueLength     varint   -1: null
//	value
//	headerCount     varint
//	headers         keyLength varint, key, valueLength varint, value
//
// If the window keeps, r receives the key, value and headers; else r is nil.
// Failures are in w.err.
func (w *window) next(r *Record) (timestampDelta int64, offsetDelta int32) {
	length := int(w.int32())
	if w.err != nil {
		return 0, 0
	}
	if length < minRecord {
		w.fail(fmt.Errorf("length %d", length))
		return 0, 0
	}
	w.end = w.pos() + int64(length)
	if w.r == nil && length > len(w.buf)-w.i {
		w.fail(fmt.Errorf("length %d with %d bytes left", length, len(w.buf)-w.i))
		return 0, 0
	}
	if int64(length) > int64(len(w.buf)-w.i)+w.room {
		w.fail(fmt.Errorf("%w: record of %d bytes", ErrTooLarge, length))
		return 0, 0
	}
	if w.keep && !w.more(length) {
		w.fail(errEnd)
		return 0, 0
	}
	w.bytes(1)
	timestampDelta = w.int64()
	offsetDelta = w.int32()
	key := w.field("key", -1)
	value := w.field("value", -1)
	n := int(w.int32())
	if n < 0 || int64(n) > w.end-w.pos() { // a header is two bytes at least
		w.fail(fmt.Errorf("%d headers with %d bytes left", n, w.end-w.pos()))
		return 0, 0
	}
	if r != nil {
		r.Key, r.Value = key, value
		if n > 0 {
			r.Headers = make([]Header, 0, min(n, 16))
		}
	}
	for range n {
		key := w.field("header key", 0)
		value := w.field("header value", -1)
		if w.err != nil {
			return 0, 0
		}
		if r != nil {
			r.Headers = append(r.Headers, Header{Key: string(key), Value: value})
		}
	}
	if w.err == nil && w.pos() != w.end {
		w.fail(fmt.Errorf("content ends %d bytes off its length", w.pos()-w.end))
	}
	return timestampDelta, offsetDelta
}

// field passes over a length, least at the lowest, and as many bytes, which it
// returns if the window keeps. nil is null.
func (w *window) field(name string, least int32) []byte {
	n := w.int32()
	switch {
	case n < least:
		w.fail(fmt.Errorf("%s length %d", name, n))
		return nil
	case n < 0:
		return nil
	}
	return w.bytes(int(n))
}

// finish checks that nothing follows the last record; it also makes the decoder
// reach its end and check what it has to check there.
func (w *window) finish() error {
	if w.err == nil && w.more(1) {
		w.fail(fmt.Errorf("%w: bytes after the last record", ErrInvalid))
	}
	return w.err
}

// failure returns what went wrong in the record with the given index.
func (w *window) failure(index int) error {
	if errors.Is(w.err, ErrInvalid) || errors.Is(w.err, ErrTooLarge) {
		return w.err
	}
	return &RecordError{Index: index, Reason: w.err.Error()}
}

// Package index answers where things are in a segment: which bytes hold an
// entry, which entry holds an offset, which entries may hold a timestamp. It
// works on bytes it is handed, heap or mapped file; it does no I/O.
//
// Both tables are derived from the frames they describe. Whoever finds one
// damaged throws it away and rebuilds it.
package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sort"
)

// Errors a caller can act on.
var (
	// ErrFull says that the bytes handed to New have no room for another entry.
	ErrFull = errors.New("index: full")
	// ErrRange says that an entry cannot be expressed relative to the base: its
	// offset lies 2³² or more above it, or its position beyond 32 GiB. The
	// segment that wanted to append it has to end before it.
	ErrRange = errors.New("index: entry out of range of the base")
)

// EntrySize is the length in bytes of one entry of an Index.
const EntrySize = 8

// MaxPosition is the largest position an entry can hold: positions are
// multiples of 8, kept in 32 bits.
const MaxPosition = int64(math.MaxUint32) * 8

// An Entry says where a frame begins: its base offset and its position in the
// segment file, a multiple of 8.
type Entry struct{ Offset, Position int64 }

// An Index is a dense table: its i-th entry describes the i-th frame of a
// segment. An entry takes 8 bytes, big-endian:
//
//	0  relative offset  uint32  base offset of the frame less that of the segment
//	4  position         uint32  divided by 8
//
// An Index is not safe for concurrent use with Append or Truncate.
type Index struct {
	p    []byte
	n    int
	base int64
}

// New returns an Index over p, which holds n entries and has room for
// len(p)/EntrySize. base is the segment's base offset. p is retained.
func New(p []byte, n int, base int64) (*Index, error) {
	if n < 0 || n > len(p)/EntrySize {
		return nil, fmt.Errorf("index: %d entries do not fit %d bytes", n, len(p))
	}
	return &Index{p: p, n: n, base: base}, nil
}

// Len returns the number of entries.
func (x *Index) Len() int { return x.n }

// Bytes returns the entries as they are stored; valid until the next Append or
// Truncate.
func (x *Index) Bytes() []byte { return x.p[:x.n*EntrySize] }

// Check tells whether e can be appended to an index with this base. ErrRange.
func Check(base int64, e Entry) error {
	if r := e.Offset - base; r < 0 || r > math.MaxUint32 {
		return ErrRange
	}
	if e.Position < 0 || e.Position > MaxPosition || e.Position%8 != 0 {
		return ErrRange
	}
	return nil
}

// Append adds e. ErrFull, ErrRange.
func (x *Index) Append(e Entry) error {
	if err := Check(x.base, e); err != nil {
		return err
	}
	at := x.n * EntrySize
	if at+EntrySize > len(x.p) {
		return ErrFull
	}
	binary.BigEndian.PutUint32(x.p[at:], uint32(e.Offset-x.base))
	binary.BigEndian.PutUint32(x.p[at+4:], uint32(e.Position/8))
	x.n++
	return nil
}

// At returns entry i, 0 <= i < Len. i is the raft index less the segment's
// first index.
func (x *Index) At(i int) Entry {
	if i < 0 || i >= x.n {
		panic(fmt.Sprintf("index: entry %d of %d", i, x.n))
	}
	p := x.p[i*EntrySize:]
	return Entry{
		Offset:   x.base + int64(binary.BigEndian.Uint32(p)),
		Position: int64(binary.BigEndian.Uint32(p[4:])) * 8,
	}
}

// Find returns the last entry whose offset is at or below offset; false when
// there is none.
func (x *Index) Find(offset int64) (i int, ok bool) {
	r := offset - x.base
	if r < 0 {
		return 0, false
	}
	i = sort.Search(x.n, func(i int) bool {
		return int64(binary.BigEndian.Uint32(x.p[i*EntrySize:])) > r
	})
	return i - 1, i > 0
}

// Truncate forgets all but the first n entries.
func (x *Index) Truncate(n int) {
	if n < 0 || n > x.n {
		panic(fmt.Sprintf("index: truncate %d entries to %d", x.n, n))
	}
	x.n = n
}

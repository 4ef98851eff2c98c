package index

import (
	"encoding/binary"
	"fmt"
	"sort"
)

// TimeEntrySize is the length in bytes of one entry of a TimeIndex.
const TimeEntrySize = 12

// A TimeEntry says that Max is the largest timestamp, in milliseconds since
// 1970, of the frames 0 to Frame of a segment, Frame included.
type TimeEntry struct {
	Max   int64
	Frame uint32
}

// A TimeIndex is a sparse table of the largest timestamp so far, an entry every
// so many bytes of frames, however the timestamps run: to find the first of all
// frames that reaches a timestamp takes that many bytes, even when producers send
// them out of order. Of the frames behind the newest it says nothing: who looks
// among those alone needs an index that begins there. Max and Frame never fall.
// An entry takes 12 bytes, big-endian:
//
//	0  max    int64
//	8  frame  uint32
//
// A TimeIndex is not safe for concurrent use with Append.
type TimeIndex struct {
	p []byte
	n int
}

// NewTime returns a TimeIndex over p, which holds n entries and has room for
// len(p)/TimeEntrySize. p is retained.
func NewTime(p []byte, n int) (*TimeIndex, error) {
	if n < 0 || n > len(p)/TimeEntrySize {
		return nil, fmt.Errorf("index: %d time entries do not fit %d bytes", n, len(p))
	}
	return &TimeIndex{p: p, n: n}, nil
}

// Len returns the number of entries.
func (x *TimeIndex) Len() int { return x.n }

// Bytes returns the entries as they are stored; valid until the next Append.
func (x *TimeIndex) Bytes() []byte { return x.p[:x.n*TimeEntrySize] }

// Append adds e. ErrFull; ErrRange when Max falls or Frame does not rise.
func (x *TimeIndex) Append(e TimeEntry) error {
	if x.n > 0 {
		if last := x.At(x.n - 1); e.Max < last.Max || e.Frame <= last.Frame {
			return ErrRange
		}
	}
	at := x.n * TimeEntrySize
	if at+TimeEntrySize > len(x.p) {
		return ErrFull
	}
	binary.BigEndian.PutUint64(x.p[at:], uint64(e.Max))
	binary.BigEndian.PutUint32(x.p[at+8:], e.Frame)
	x.n++
	return nil
}

// At returns entry i, 0 <= i < Len.
func (x *TimeIndex) At(i int) TimeEntry {
	if i < 0 || i >= x.n {
		panic(fmt.Sprintf("index: time entry %d of %d", i, x.n))
	}
	p := x.p[i*TimeEntrySize:]
	return TimeEntry{
		Max:   int64(binary.BigEndian.Uint64(p)),
		Frame: binary.BigEndian.Uint32(p[8:]),
	}
}

// First returns the first frame that may hold a timestamp at or after t: no
// frame before it does.
func (x *TimeIndex) First(t int64) (frame uint32) {
	i := sort.Search(x.n, func(i int) bool { return x.At(i).Max >= t })
	if i == 0 {
		return 0
	}
	return x.At(i-1).Frame + 1
}

// Below returns the last entry whose frame lies below frame; false when there
// is none.
func (x *TimeIndex) Below(frame uint32) (TimeEntry, bool) {
	i := sort.Search(x.n, func(i int) bool { return x.At(i).Frame >= frame })
	if i == 0 {
		return TimeEntry{}, false
	}
	return x.At(i - 1), true
}

package log

import (
	"slices"
	"sort"

	"millrace/segment"
)

// A state is what readers see: an immutable list of segments, whose last one may grow. It is
// replaced when the list changes.
//
//	segments  |=======|=======|-----|-----|--...     by offset: Kafka's door
//	tail                      |-----|-----|--...     by index: Raft's
//	active                                |--...
//
// What lies before the tail was compacted: it has offsets, and no entries.
type state struct {
	segments []*segment.Reader
	tail     []*segment.Reader // the end of segments
	active   *segment.Active   // the last of the tail; nil if all have ended
	origin   boundary          // the end, if there is no tail
	start    int64             // the log start offset
	epochs   []Epoch
}

// list makes the segments those of base, which are compacted, and of tail.
func (st *state) list(base, tail []*segment.Reader) {
	st.segments = slices.Concat(base, tail)
	st.tail = st.segments[len(base):]
}

// base returns the segments that are compacted.
func (st *state) base() []*segment.Reader { return st.segments[:len(st.segments)-len(st.tail)] }

// end returns where the next entry will be.
func (st *state) end() boundary {
	if n := len(st.tail); n > 0 {
		return endOf(st.tail[n-1].Info())
	}
	return st.origin
}

// bounds returns the first and the last index, 0 and 0 if there is no entry.
func (st *state) bounds() (first, last uint64) {
	if len(st.tail) == 0 {
		return 0, 0
	}
	first, last = st.tail[0].Header().FirstIndex, st.end().index-1
	if last < first {
		return 0, 0
	}
	return first, last
}

// sealed returns the segments that have ended.
func (st *state) sealed() []*segment.Reader {
	if st.active != nil {
		return st.segments[:len(st.segments)-1]
	}
	return st.segments
}

// isActive reports whether s is the segment that can be appended to.
func (st *state) isActive(s *segment.Reader) bool { return st.active != nil && s == &st.active.Reader }

// byIndex returns the segment that holds the entry, or nil.
func (st *state) byIndex(index uint64) *segment.Reader {
	i := sort.Search(len(st.tail), func(i int) bool { return st.tail[i].Header().FirstIndex > index })
	if i == 0 {
		return nil
	}
	return st.tail[i-1]
}

// byFirst returns the segment whose first entry, or frame, has this number, or nil. Segments
// are told apart by it, compacted ones as well: their frames have fewer numbers than the
// entries that were there.
func (st *state) byFirst(first uint64) *segment.Reader {
	i, ok := sort.Find(len(st.segments), func(i int) int {
		switch have := st.segments[i].Header().FirstIndex; {
		case first < have:
			return -1
		case first > have:
			return 1
		}
		return 0
	})
	if !ok {
		return nil
	}
	return st.segments[i]
}

// byOffset returns the number of the segment that holds the record, or would
// hold the next; -1 if none.
func (st *state) byOffset(offset int64) int {
	return sort.Search(len(st.segments), func(i int) bool { return st.segments[i].Header().BaseOffset > offset }) - 1
}

package log

import (
	"sort"

	"millrace/segment"
)

// A state is what readers see: an immutable list of segments, whose last one may
// grow. It is replaced when the list changes.
type state struct {
	segments []*segment.Reader
	active   *segment.Active // the last of them; nil if all have ended
	origin   boundary        // the end, if there are no segments or all are compacted
	start    int64           // the log start offset
	epochs   []Epoch
}

// end returns where the next entry will be.
func (st *state) end() boundary {
	if n := len(st.segments); n > 0 {
		if info := st.segments[n-1].Info(); !info.Compacted {
			return endOf(info)
		}
	}
	return st.origin
}

// bounds returns the first and the last index, 0 and 0 if there is no entry.
func (st *state) bounds() (first, last uint64) {
	n := st.compacted()
	if n == len(st.segments) {
		return 0, 0
	}
	first, last = st.segments[n].Header().FirstIndex, st.end().index-1
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

// byIndex returns the segment that holds the entry, or nil. What was compacted
// holds no entries.
func (st *state) byIndex(index uint64) *segment.Reader {
	if s := st.byNumber(index); s != nil && !s.Compacted() {
		return s
	}
	return nil
}

// byNumber returns the segment that holds the frame with this number, or nil.
func (st *state) byNumber(index uint64) *segment.Reader {
	i := sort.Search(len(st.segments), func(i int) bool { return st.segments[i].Header().FirstIndex > index })
	if i == 0 {
		return nil
	}
	return st.segments[i-1]
}

// compacted returns how many segments are: the first ones.
func (st *state) compacted() (n int) {
	for n < len(st.segments) && st.segments[n].Compacted() {
		n++
	}
	return n
}

// byOffset returns the number of the segment that holds the record, or would
// hold the next; -1 if none.
func (st *state) byOffset(offset int64) int {
	return sort.Search(len(st.segments), func(i int) bool { return st.segments[i].Header().BaseOffset > offset }) - 1
}

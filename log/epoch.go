package log

import "sort"

// An Epoch is one leadership that left entries in the log: Start is the offset
// of its first record, or the one it would have had.
type Epoch struct {
	Epoch int32
	Start int64
}

// addEpoch appends an epoch that begins at start, and returns epochs itself when
// it is there already. Epochs that began there without leaving a record vanish,
// as they do in Kafka's leader epoch cache. epochs is not changed.
func addEpoch(epochs []Epoch, term uint64, start int64) []Epoch {
	n := len(epochs)
	if term == 0 || n > 0 && epochs[n-1].Epoch >= int32(term) {
		return epochs
	}
	for n > 0 && epochs[n-1].Start >= start {
		n--
	}
	return append(append(make([]Epoch, 0, n+1), epochs[:n]...), Epoch{int32(term), start})
}

// cutEpochs returns what addEpoch would have made of the entries before end. An
// epoch that vanished because a later one began at the same offset comes back.
func cutEpochs(epochs []Epoch, end boundary) []Epoch {
	n := sort.Search(len(epochs), func(i int) bool {
		return int64(epochs[i].Epoch) > int64(end.term) || epochs[i].Start > end.offset
	})
	return addEpoch(epochs[:n:n], end.term, end.offset)
}

// trimEpochs drops the epochs that ended at or before start. The first of the
// others then begins at start, if it had begun before, as in Kafka.
func trimEpochs(epochs []Epoch, start int64) []Epoch {
	n := sort.Search(len(epochs), func(i int) bool { return epochs[i].Start > start })
	if n == 0 {
		return epochs
	}
	kept := append([]Epoch(nil), epochs[n-1:]...)
	kept[0].Start = start
	return kept
}

// EpochEnd answers OffsetForLeaderEpoch (KIP-320): the largest epoch in the log
// at or below epoch, and the offset at which it ended. An epoch below all of them
// is answered with itself and the start of the first. ok is false for one above
// all of them, and when there are none.
func (l *contents) EpochEnd(epoch int32) (e int32, end int64, ok bool) {
	st := l.state.Load()
	epochs := st.epochs
	n := len(epochs)
	if n == 0 || epoch > epochs[n-1].Epoch || epoch < 0 {
		return -1, -1, false
	}
	next := sort.Search(n, func(i int) bool { return epochs[i].Epoch > epoch })
	switch next {
	case 0:
		return epoch, epochs[0].Start, true
	case n:
		return epochs[n-1].Epoch, st.end().offset, true
	}
	return epochs[next-1].Epoch, epochs[next].Start, true
}

// EpochAt returns the leader epoch of the record at offset, or the one it would
// have; -1 when the log knows of none.
func (l *contents) EpochAt(offset int64) int32 {
	epochs := l.state.Load().epochs
	n := sort.Search(len(epochs), func(i int) bool { return epochs[i].Start > offset })
	if n == 0 {
		return -1
	}
	return epochs[n-1].Epoch
}

// Epochs returns the leaderships that the log knows of, oldest first.
func (l *contents) Epochs() []Epoch { return append([]Epoch(nil), l.state.Load().epochs...) }

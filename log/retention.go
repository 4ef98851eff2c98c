package log

import (
	"fmt"
	"time"
)

// Drop moves the log start offset up to before, durably, and deletes the sealed
// segments that lie wholly below it and hold no entry above maxIndex, which is
// the index of the newest snapshot: Raft needs what follows. It is the only thing
// that deletes committed data. removed is the number of segments deleted. A before
// below the start only deletes; one above EndOffset is ErrOutOfRange. *RefusedError.
func (l *Log) Drop(before int64, maxIndex uint64) (removed int, err error) {
	if err := l.begin(); err != nil {
		return 0, err
	}
	defer l.finish()
	st := l.state.Load()
	if end := st.end().offset; before > end {
		return 0, fmt.Errorf("%w: log start %d beyond the end %d", ErrOutOfRange, before, end)
	}
	start := max(st.start, before)
	if a := st.active; a != nil && start > st.start {
		// A start beyond what a crash leaves would give offsets twice.
		if err := a.Sync(); err != nil {
			return 0, l.fail(err)
		}
	}
	n := 0
	for _, s := range st.sealed() {
		if info := s.Info(); info.NextOffset > start || info.LastIndex > maxIndex {
			break
		}
		n++
	}
	if n == 0 && start == st.start {
		return 0, nil
	}
	err = l.changeLocked(func(m *manifest) {
		m.startOffset, m.end, m.epochs = start, st.end(), trimEpochs(st.epochs, start)
		m.removeFirst(n)
	}, func(m *manifest) *state {
		next := &state{active: st.active, origin: m.end, start: start, epochs: m.epochs}
		base := st.base()
		next.list(base[min(n, len(base)):], st.tail[max(0, n-len(base)):])
		return next
	})
	if err != nil {
		return 0, err
	}
	return n, nil
}

// NextRetention returns what RetentionOffset will move the log start to next, if nothing
// is written, and when: now if it would already. ok is false if it never will, or has
// nothing to delete.
func (l *contents) NextRetention(now time.Time, maxAge time.Duration, maxBytes int64, limit int64) (offset int64, at time.Time, ok bool) {
	st := l.state.Load()
	if offset = l.RetentionOffset(now, maxAge, maxBytes, limit); offset > st.start {
		return offset, now, true
	}
	for _, s := range st.segments {
		info := s.Info()
		if info.NextOffset <= st.start {
			continue
		}
		if maxAge < 0 || info.NextOffset > limit {
			return 0, time.Time{}, false
		}
		return info.NextOffset, time.UnixMilli(ageFrom(info)).Add(maxAge), true
	}
	return 0, time.Time{}, false
}

// ageFrom is when a segment's age begins: with its newest record, or with itself if its
// records have no time.
func ageFrom(info SegmentInfo) int64 {
	if info.MaxTimestamp < 0 {
		return info.Created
	}
	return info.MaxTimestamp
}

// RetentionOffset returns where a leader would move the log start, by Kafka's
// rules: whole segments from the oldest on, as long as their newest record is
// older than maxAge, or the log without them still has maxBytes, and all their
// records lie below limit. A negative maxAge or maxBytes is no limit. The last
// segment counts too: once all of it has expired the caller should Roll, so that
// Drop can delete it.
func (l *contents) RetentionOffset(now time.Time, maxAge time.Duration, maxBytes int64, limit int64) int64 {
	st := l.state.Load()
	start := st.start
	var size int64
	infos := make([]SegmentInfo, 0, len(st.segments))
	for _, s := range st.segments {
		if info := s.Info(); info.NextOffset > start { // the others are deleted as soon as a snapshot allows it
			infos = append(infos, info)
			size += info.Bytes
		}
	}
	for _, info := range infos {
		expired := maxAge >= 0 && now.UnixMilli()-ageFrom(info) > maxAge.Milliseconds()
		surplus := maxBytes >= 0 && size-info.Bytes >= maxBytes
		if info.NextOffset > limit || !expired && !surplus {
			break
		}
		start = info.NextOffset
		size -= info.Bytes
	}
	return start
}

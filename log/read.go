package log

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// Contents are what a log shows to who reads: by offset, Kafka's door, and by index, Raft's.
// Its methods take no lock of the log. Each works on one state, and on a newer one if a
// segment that it needs was closed because the list changed.
type contents struct {
	dir    string
	now    func() time.Time
	state  atomic.Pointer[state]
	closed atomic.Bool
	cached cacheRun // what was stored last
}

// Dir returns the folder.
func (c *contents) Dir() string { return c.dir }

// StartOffset returns the log start offset: nothing below it is readable.
func (l *contents) StartOffset() int64 { return l.state.Load().start }

// EndOffset returns the offset that the next record will get.
func (l *contents) EndOffset() int64 { return l.state.Load().end().offset }

// Read returns whole batches from the one that holds offset on, all below limit: as many
// as fit maxBytes, the first one always. A view may end early, where a segment does. It is
// empty at limit, and when the batch at offset reaches beyond limit. Of a compacted log
// the first batch may begin beyond offset.
//
// The batches are mapped pages, valid until the view is released, and checked against
// their CRC, now or up to ten seconds ago.
//
// ErrOutOfRange below StartOffset, above EndOffset and above limit; a
// *segment.CorruptError instead of bad bytes.
func (l *contents) Read(offset, limit int64, maxBytes int) (*segment.View, error) {
	var found *segment.View
	err := l.read(func(st *state) error {
		end := st.end().offset
		if offset < st.start || offset > end || offset > limit {
			return fmt.Errorf("%w: %d is not in [%d,%d]", ErrOutOfRange, offset, st.start, min(end, limit))
		}
		if offset == end || offset == limit {
			found = &segment.View{Next: offset}
			return nil
		}
		i := st.byOffset(offset)
		if i < 0 {
			return fmt.Errorf("%w: %d", ErrOutOfRange, offset)
		}
		v, err := st.segments[i].Read(offset, limit, maxBytes)
		// Compaction may have left nothing between offset and the segment's end.
		for i++; err == nil && v.Len() == 0 && i < len(st.segments) && st.segments[i].Header().BaseOffset < limit; i++ {
			v.Release()
			v, err = st.segments[i].Read(st.segments[i].Header().BaseOffset, limit, maxBytes)
		}
		found = v
		return err
	})
	return found, err
}

// read calls f with the state, and again with a newer one if a segment was closed
// meanwhile because the list changed.
func (l *contents) read(f func(st *state) error) error {
	for {
		if l.closed.Load() {
			return ErrClosed
		}
		st := l.state.Load()
		err := f(st)
		if errors.Is(err, segment.ErrClosed) {
			if st != l.state.Load() {
				continue
			}
			return l.closedError()
		}
		return err
	}
}

// OffsetAt returns the first record with a timestamp of at least timestamp,
// milliseconds since 1970, and an offset below limit; ok is false when there is
// none.
func (l *contents) OffsetAt(timestamp, limit int64) (offset, found int64, ok bool, err error) {
	err = l.read(func(st *state) error {
		for i := max(0, st.byOffset(st.start)); i < len(st.segments) && !ok; i++ {
			offset, found, ok, err = st.segments[i].OffsetAt(timestamp, st.start, limit)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return offset, found, ok, err
}

// MaxTimestamp returns the first record with the largest timestamp, milliseconds
// since 1970, among those below limit; -1 and -1 when there are none.
func (l *contents) MaxTimestamp(limit int64) (offset, timestamp int64, err error) {
	err = l.read(func(st *state) error {
		offset, timestamp = -1, -1
		for i := max(0, st.byOffset(st.start)); i < len(st.segments); i++ {
			s := st.segments[i]
			if offset >= 0 && s.Info().MaxTimestamp <= timestamp {
				continue
			}
			o, t, ok, err := s.MaxTimestamp(st.start, limit)
			if err != nil {
				return err
			}
			if ok && (offset < 0 || t > timestamp) {
				offset, timestamp = o, t
			}
		}
		return nil
	})
	return offset, timestamp, err
}

// OffsetOf returns the offset that follows the entry with this index, which may
// also be the one before the first. ErrOutOfRange.
func (l *contents) OffsetOf(index uint64) (next int64, err error) {
	err = l.read(func(st *state) error {
		end := st.end()
		if index+1 == end.index {
			next = end.offset
			return nil
		}
		s := st.byIndex(index + 1)
		if s == nil || index >= end.index {
			return fmt.Errorf("%w: entry %d", ErrOutOfRange, index)
		}
		f, err := s.Entry(index + 1)
		if errors.Is(err, segment.ErrRange) {
			return fmt.Errorf("%w: entry %d", ErrOutOfRange, index)
		}
		next = f.BaseOffset
		return err
	})
	return next, err
}

// Size returns the bytes of all segments' headers and frames.
func (l *contents) Size() int64 {
	var n int64
	for _, s := range l.state.Load().segments {
		n += s.Info().Bytes
	}
	return n
}

// UnmapIdle unmaps the segments that have not been read since the last UnmapIdle. Called
// now and then, from any goroutine, it keeps the number of a process's mappings bounded by
// what is read.
func (l *contents) UnmapIdle() {
	for _, s := range l.state.Load().segments {
		s.UnmapIdle()
	}
}

// Sealed returns what the segments that have ended hold, oldest first.
func (l *contents) Sealed() []SegmentInfo {
	var infos []SegmentInfo
	for _, s := range l.state.Load().sealed() {
		infos = append(infos, s.Info())
	}
	return infos
}

// ReadSegment copies bytes of the sealed segment that begins at firstIndex, from
// position at on, for a peer that pulls it; io.EOF at its end, also beside the
// last bytes. The bytes are as they lie on disk: the peer checks them.
// ErrNoSegment when it is not there, or not any more.
func (l *contents) ReadSegment(firstIndex uint64, at int64, p []byte) (n int, err error) {
	err = l.read(func(st *state) error {
		s := st.byFirst(firstIndex)
		if s == nil || st.isActive(s) {
			return fmt.Errorf("%w: at entry %d", ErrNoSegment, firstIndex)
		}
		n, err = s.ReadAt(p, at)
		return err
	})
	return n, err
}

// Verify reads every entry from index from on, and returns the first thing that
// is wrong, a *segment.CorruptError: a frame, a payload, or a batch whose stamps
// are not those of its entry.
func (l *contents) Verify(from uint64) error {
	return l.read(func(st *state) error {
		for _, s := range st.segments {
			info := s.Info()
			if info.LastIndex < from || info.Frames() == 0 {
				continue
			}
			err := s.Entries(max(from, info.FirstIndex), func(f *segment.Frame) error {
				if wrong := segment.CheckBatches(f); wrong != "" {
					return &segment.CorruptError{Path: s.Path(), Position: f.Position, Found: wrong, Expected: "whole batches stamped with the entry's offsets and term"}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// FirstIndex returns the first index, 0 if the log is empty.
func (l *contents) FirstIndex() (uint64, error) {
	if l.closed.Load() {
		return 0, ErrClosed
	}
	first, _ := l.state.Load().bounds()
	return first, nil
}

// LastIndex returns the last index, 0 if the log is empty.
func (l *contents) LastIndex() (uint64, error) {
	if l.closed.Load() {
		return 0, ErrClosed
	}
	_, last := l.state.Load().bounds()
	return last, nil
}

// NextIndex returns the index that the next entry must have, also for an empty
// log.
func (l *contents) NextIndex() uint64 { return l.state.Load().end().index }

// GetLog reads the entry with this index. Its Data must not be changed: recent
// entries share it with the cache. raft.ErrLogNotFound; a *segment.CorruptError
// instead of bytes that are not those stored.
func (l *contents) GetLog(index uint64, out *raft.Log) error {
	if l.cached.get(index, out) && !IsHeadersOnly(out) {
		return nil
	}
	for {
		if l.closed.Load() {
			return ErrClosed
		}
		st := l.state.Load()
		s := st.byIndex(index)
		if s == nil {
			return raft.ErrLogNotFound
		}
		f, err := s.Frame(index)
		switch {
		case errors.Is(err, segment.ErrClosed) && st != l.state.Load():
			continue // the list of segments changed meanwhile
		case errors.Is(err, segment.ErrClosed):
			return l.closedError()
		case errors.Is(err, segment.ErrRange):
			return raft.ErrLogNotFound
		case err != nil:
			return err
		}
		*out = raft.Log{Index: f.Index, Term: f.Term, Type: raftTypes[f.Type], Data: f.Payload}
		if f.Type == segment.Trim {
			out.Extensions = trimExtension
		}
		return nil
	}
}

// closedError is returned when a segment was closed and the list has not changed: the log
// is closing.
func (l *contents) closedError() error {
	return fmt.Errorf("log %s: %w", l.dir, ErrClosed)
}

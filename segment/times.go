package segment

import (
	"bytes"
	"math"

	"millrace/index"
	"millrace/segment/record"
)

// OffsetAt returns the first record with a timestamp of at least timestamp and
// an offset in [from, limit); ok is false when there is none.
//
// The time index says where the largest timestamp so far passes timestamp, so a
// look-up reads the headers of the frames of timeInterval bytes and one payload;
// unless that place lies before from, as when the log start has moved beyond a
// record dated far ahead, for then every frame from there on may be the one. Of a
// sealed segment their headers are read once, and what is found is remembered
// (see lateTimes); of the one that is written to, at each such look-up.
func (s *Reader) OffsetAt(timestamp, from, limit int64) (offset, found int64, ok bool, err error) {
	info := s.Info()
	if info.MaxTimestamp < timestamp || info.NextOffset <= max(from, info.BaseOffset) || info.BaseOffset >= limit {
		return 0, 0, false, nil
	}
	p, err := s.pin()
	if err != nil {
		return 0, 0, false, err
	}
	defer p.release(0)
	start, err := p.find(max(from, info.BaseOffset))
	if err != nil {
		return 0, 0, false, err
	}
	skip, err := s.firstAt(timestamp)
	if err != nil {
		return 0, 0, false, err
	}
	walked := int64(-1) // the position of the first frame
	for i := max(start, skip); i < info.Frames(); i++ {
		f, err := p.frame(i)
		if err != nil {
			return 0, 0, false, err
		}
		if f.BaseOffset >= limit {
			break
		}
		switch {
		case walked < 0:
			walked = f.Position
		case skip <= start && walked < math.MaxInt64 && f.Position-walked >= lateAfter && s.isSealed():
			late, err := p.firstAfter(start, i, timestamp)
			if err != nil {
				return 0, 0, false, err
			}
			if walked = math.MaxInt64; late > i {
				i = late - 1
				continue
			}
		}
		if f.Type != Command || f.MaxTimestamp < timestamp || f.NextOffset() <= from {
			continue
		}
		payload, err := p.payload(&f)
		if err != nil {
			return 0, 0, false, err
		}
		offset, found, ok, err := s.firstRecord(&f, payload, from, limit, func(t int64) bool { return t >= timestamp })
		if err != nil || ok {
			return offset, found, ok, err
		}
	}
	return 0, 0, false, nil
}

// lateAfter is how many bytes of frames a look-up walks before it asks lateTimes.
const lateAfter = 4 * timeInterval

// A lateTimes is a time index of a sealed segment's frames from one on, as if it
// began there: of up to 12 bytes for each timeInterval. Few segments need one.
type lateTimes struct {
	from  int
	times *index.TimeIndex
}

// firstAfter returns the first frame at or after i that may hold a timestamp of at
// least t, of a sealed segment whose frames between start and i do not.
func (s pinned) firstAfter(start, i int, t int64) (int, error) {
	if l := s.late.Load(); l != nil && l.from <= start {
		// Were what is found before i, it would be before start: the log start has
		// moved on beyond it, and the index has to begin behind it.
		if first := l.first(t); first > i {
			return first, nil
		}
	}
	l := &lateTimes{from: start}
	newest, timed := int64(-1), int64(-1)
	for k := start; k < s.Info().Frames(); k++ {
		f, err := s.frame(k)
		if err != nil {
			return 0, err
		}
		if timed < 0 {
			timed = f.Position
		}
		newest = max(newest, f.MaxTimestamp)
		if end := f.Position + f.size(); end-timed >= timeInterval {
			l.times = appendTime(l.times, index.TimeEntry{Max: newest, Frame: uint32(k)})
			timed = end
		}
	}
	resident.add(s.m, int(s.written.Load()-HeaderSize))
	s.late.Store(l)
	return max(i, l.first(t)), nil
}

// first returns the first frame that may hold a timestamp of at least t.
func (l *lateTimes) first(t int64) int {
	if l.times == nil {
		return l.from
	}
	return max(l.from, int(l.times.First(t)))
}

// firstAt returns the first frame that may hold a timestamp of at least t.
func (s *Reader) firstAt(t int64) (int, error) {
	if err := s.rlockTables(); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	if s.times == nil {
		return 0, nil
	}
	return int(s.times.First(t)), nil
}

// payload copies a frame's payload: decoders may read it on goroutines of their
// own, where a fault in mapped memory would end the process.
func (s pinned) payload(f *Frame) ([]byte, error) {
	var p []byte
	err := guard(s.path, func() error {
		p = bytes.Clone(f.body(s.m.data))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if wrong := f.checkPayload(p); wrong != nil {
		return nil, s.corrupt(f, wrong)
	}
	return p[:f.payloadLen], nil
}

// firstRecord returns the first record of p in [from, limit) whose timestamp is
// wanted. Where a batch cannot be read, its header speaks for the records that are
// left of it: a reader who begins there misses nothing.
func (s *Reader) firstRecord(f *Frame, p []byte, from, limit int64, want func(timestamp int64) bool) (offset, timestamp int64, ok bool, err error) {
	for len(p) > 0 {
		b, rest, err := record.Split(p)
		if err != nil {
			return 0, 0, false, s.corrupt(f, &mismatch{err.Error(), "whole batches"})
		}
		p = rest
		if b.NextOffset() <= from {
			continue
		}
		next := b.BaseOffset()
		for r, err := range b.Records() {
			if err != nil {
				r = record.Record{Offset: max(next, from), Timestamp: b.MaxTimestamp()}
			}
			if r.Offset >= limit {
				return 0, 0, false, nil
			}
			if r.Offset >= from && want(r.Timestamp) {
				return r.Offset, r.Timestamp, true, nil
			}
			next = r.Offset + 1
		}
	}
	return 0, 0, false, nil
}

// MaxTimestamp returns the first record with the largest timestamp among those
// with an offset in [from, limit); ok is false when there is none.
func (s *Reader) MaxTimestamp(from, limit int64) (offset, timestamp int64, ok bool, err error) {
	info := s.Info()
	from, limit = max(from, info.BaseOffset), min(limit, info.NextOffset)
	if from >= limit {
		return 0, 0, false, nil
	}
	p, err := s.pin()
	if err != nil {
		return 0, 0, false, err
	}
	defer p.release(0)
	first, err := p.find(from)
	if err != nil {
		return 0, 0, false, err
	}
	last, err := p.find(limit - 1)
	if err != nil {
		return 0, 0, false, err
	}
	// Frames from first+1 to last-1 lie within the range whole, so their headers
	// and the time index speak for them. The two at the ends are read.
	timestamp = -1
	if first == 0 && last > 0 {
		if timestamp, err = p.maxTimestamp(last); err != nil {
			return 0, 0, false, err
		}
		if f, ferr := p.frame(0); ferr != nil {
			return 0, 0, false, ferr
		} else if f.BaseOffset < from && f.MaxTimestamp == timestamp {
			timestamp = -1 // it may be of a record below from
		}
	}
	if timestamp < 0 {
		for i := first + 1; i < last; i++ {
			f, err := p.frame(i)
			if err != nil {
				return 0, 0, false, err
			}
			if f.Type == Command {
				timestamp = max(timestamp, f.MaxTimestamp)
			}
		}
	}
	for _, i := range []int{first, last} {
		f, err := p.frame(i)
		if err != nil {
			return 0, 0, false, err
		}
		if f.Type != Command || f.MaxTimestamp <= timestamp {
			continue
		}
		payload, err := p.payload(&f)
		if err != nil {
			return 0, 0, false, err
		}
		_, _, _, err = s.firstRecord(&f, payload, from, limit, func(t int64) bool {
			timestamp = max(timestamp, t)
			return false
		})
		if err != nil {
			return 0, 0, false, err
		}
	}
	return s.OffsetAt(timestamp, from, limit)
}

// maxTimestamp returns the largest timestamp of the first n frames.
func (s pinned) maxTimestamp(n int) (t int64, err error) {
	if err := s.rlockTables(); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	err = guard(s.path, func() error {
		t, err = s.tables.maxTimestamp(s.m.data, n)
		return err
	})
	return t, err
}

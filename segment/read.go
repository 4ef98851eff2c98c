package segment

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"os"
	"sort"

	"millrace/index"
	"millrace/segment/record"
)

// pin makes the segment ready to read and returns its mapping with a reference
// for the caller. ErrClosed.
func (s *Segment) pin() (*mapping, error) {
	s.mu.RLock()
	if !s.closed && s.m != nil && s.loaded {
		s.used.Store(true)
		m := s.m
		m.acquire()
		s.mu.RUnlock()
		return m, nil
	}
	s.mu.RUnlock()

	m, loaded, err := s.load()
	if err == nil && !loaded {
		if err = s.rebuild(m); err != nil {
			m.release()
			m = nil
		}
	}
	return m, err
}

// load maps what is not mapped and returns the mapping with a reference for the
// caller. loaded is false when the index files have to be rebuilt.
func (s *Segment) load() (m *mapping, loaded bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, false, ErrClosed
	}
	if s.m == nil {
		if s.m, err = s.mapData(); err != nil {
			return nil, false, err
		}
		mapped.add(s)
	}
	s.used.Store(true)
	s.m.acquire()
	return s.m, s.loaded || s.loadIndexesLocked(), nil
}

// rlockTables takes mu for reading once the tables are in memory, which they may not be
// any more though the segment is pinned, see UnmapIdle. The caller unlocks, unless there
// is an error.
func (s *Segment) rlockTables() error {
	for {
		s.mu.RLock()
		if !s.closed && s.loaded {
			return nil
		}
		s.mu.RUnlock()
		m, err := s.pin()
		if err != nil {
			return err
		}
		m.release()
	}
}

// UnmapIdle unmaps a segment that has not been read since the last UnmapIdle; the next
// reader maps it again. Views keep their mappings.
func (s *Segment) UnmapIdle() {
	if s.used.Swap(false) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unmapLocked()
}

// unmapLocked unmaps the data, and drops the tables of a sealed segment.
func (s *Segment) unmapLocked() {
	s.crcs.Store(nil)
	if s.m != nil {
		mapped.remove(s)
		s.m.release()
		s.m = nil
	}
	if s.sealed.Load() && s.loaded {
		s.entries.release()
		s.times, s.loaded = nil, false
	}
}

// mapData maps the data file, *RefusedError if the system has no descriptor or mapping
// to spare, with mu held: an active segment at its full capacity, since the
// mapping stays while the file grows.
func (s *Segment) mapData() (*mapping, error) {
	f := s.f
	if s.sealed.Load() {
		var err error
		if f, err = openData(s.fs, s.path, os.O_RDONLY); err != nil {
			return nil, err
		}
		defer f.Close()
		// A file that somebody cut short after the log was opened.
		switch size, err := f.Size(); {
		case err != nil:
			return nil, Refused(err)
		case size < s.info.Bytes:
			return nil, &CorruptError{Path: s.path, Position: size, Found: fmt.Sprintf("a file of %d bytes", size), Expected: fmt.Sprintf("at least %d", s.info.Bytes)}
		}
	}
	m, err := newMapping(f.Fd(), s.capacity)
	if err != nil {
		return nil, Refused(fmt.Errorf("%s: %w", s.path, err))
	}
	return m, nil
}

// rebuild fills the tables from the frames in m, which is pinned, and replaces the
// index files, unless another reader has just done that. It reads the header of every
// frame of up to a gigabyte into tables of its own, without mu, so that neither readers
// nor the writer wait. mu is held at the end, to add the frames that the writer has
// appended meanwhile and to put the tables in their place. A *CorruptError when the
// frames are bad.
func (s *Segment) rebuild(m *mapping) error {
	s.rebuilding.Lock()
	defer s.rebuilding.Unlock()
	s.mu.RLock()
	known, done, closed := s.info, s.loaded && s.rebuilt, s.closed
	s.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	if done {
		return nil
	}
	r := newSegment(s.fs, s.path, s.h, s.capacity)
	if err := guard(s.path, func() error { return r.rescanLocked(m, known) }); err != nil {
		s.mu.Lock()
		s.rebuilt = true
		s.mu.Unlock()
		return err
	}
	sealed := s.sealed.Load()
	var aside error
	if sealed {
		aside = r.asideIndexesRLocked() // nobody else has r, so no lock is needed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		aside = ErrClosed // the files may have been deleted: leave none behind
	}
	if sealed {
		_ = s.publishIndexes(aside) // without them the next one rebuilds again
	}
	if s.closed {
		return ErrClosed
	}
	if err := guard(s.path, func() error { return r.scanLocked(m, s.info) }); err != nil {
		return err
	}
	s.entries.release()
	s.entries, s.times, s.timed = r.entries, r.times, r.timed
	s.entries.detached = !s.sealed.Load() // its file is not to be trusted with more
	s.loaded, s.rebuilt = true, true
	return nil
}

// parseRLocked reads the header of frame i from p, the file's bytes, and compares
// it with what the index says.
func (s *Segment) parseRLocked(p []byte, i int) (Frame, *mismatch) {
	e := s.entries.at(i)
	limit := min(int64(len(p)), s.info.Bytes)
	if e.Position < HeaderSize || e.Position > limit {
		return Frame{Position: e.Position}, &mismatch{fmt.Sprintf("index position %d", e.Position), fmt.Sprintf("at most %d", limit)}
	}
	c := cursor{position: e.Position, index: s.h.FirstIndex + uint64(i), offset: e.Offset}
	f, wrong, _ := c.next(p[:limit], s.h.Salt)
	f.Position = e.Position
	return f, wrong
}

// frame returns frame i without its payload. m is pinned. A *CorruptError when
// it is bad and no index could lead elsewhere.
func (s *Segment) frame(m *mapping, i int) (Frame, error) {
	if err := s.rlockTables(); err != nil {
		return Frame{}, err
	}
	f, wrong, rebuilt, err := s.frameRLocked(m, i)
	s.mu.RUnlock()
	if err != nil || wrong == nil {
		return f, err
	}
	if !rebuilt {
		switch err := s.rebuild(m); {
		case err == nil:
			return s.frame(m, i)
		case err == ErrClosed:
			return f, err
		}
	}
	return f, &CorruptError{Path: s.path, Position: f.Position, Found: wrong.found, Expected: wrong.expected}
}

func (s *Segment) frameRLocked(m *mapping, i int) (f Frame, wrong *mismatch, rebuilt bool, err error) {
	err = guard(s.path, func() error {
		f, wrong = s.parseRLocked(m.data, i)
		return nil
	})
	return f, wrong, s.rebuilt, err
}

// Frame returns the entry with this index. Its payload is a copy of the
// caller's own, checked against its CRC. ErrRange, ErrClosed, *CorruptError.
func (s *Segment) Frame(i uint64) (Frame, error) {
	f, err := s.Entry(i)
	if err != nil {
		return f, err
	}
	m, err := s.pin()
	if err != nil {
		return f, err
	}
	body := make([]byte, f.size()-FrameHeaderSize)
	defer m.releaseRead(len(body))
	err = guard(s.path, func() error {
		copy(body, f.body(m.data))
		return nil
	})
	if err != nil {
		return f, err
	}
	if wrong := f.checkPayload(body); wrong != nil {
		return f, s.corrupt(&f, wrong)
	}
	f.Payload = body[:f.payloadLen:f.payloadLen]
	return f, nil
}

// Entry returns the entry with this index without its payload. ErrRange,
// ErrClosed, *CorruptError.
func (s *Segment) Entry(i uint64) (Frame, error) {
	info := s.Info()
	if i < info.FirstIndex || i > info.LastIndex {
		return Frame{}, ErrRange
	}
	m, err := s.pin()
	if err != nil {
		return Frame{}, err
	}
	defer m.releaseRead(FrameHeaderSize)
	return s.frame(m, int(i-info.FirstIndex))
}

func (s *Segment) corrupt(f *Frame, wrong *mismatch) error {
	return &CorruptError{
		Path: s.path, Position: f.Position,
		Found: fmt.Sprintf("%s in the %s of index %d", wrong.found, f.Type, f.Index), Expected: wrong.expected,
	}
}

// find returns the last frame whose base offset is at or below offset. If the index has
// rotted since it was loaded it may be an earlier frame: the caller walks further, and
// skips no record.
func (s *Segment) find(m *mapping, offset int64) (i int, err error) {
	for range 2 {
		if i, err = s.search(offset); err != nil {
			return 0, err
		}
		f, err := s.frame(m, i) // mends an index that does not lead to frames
		if err != nil {
			return 0, err
		}
		if f.BaseOffset <= offset {
			return i, nil
		}
	}
	return 0, nil
}

func (s *Segment) search(offset int64) (i int, err error) {
	if err := s.rlockTables(); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	err = guard(s.path, func() error {
		i, _ = s.entries.find(offset)
		return nil
	})
	return max(i, 0), err
}

// Read returns whole batches from the one that holds offset on, as long as they
// lie below limit and within maxBytes together; the first one always. They are mapped
// pages, checked against their CRC, now or within checkedFor. The view is empty when no
// batch qualifies. offset must not lie below the segment's base offset.
func (s *Segment) Read(offset, limit int64, maxBytes int) (*record.View, error) {
	info := s.Info()
	if offset >= info.NextOffset || offset >= limit {
		return record.NewView(nil, offset, nil), nil
	}
	m, err := s.pin()
	if err != nil {
		return nil, err
	}
	r := reader{s: s, m: m, offset: offset, limit: limit, left: maxBytes, next: offset}
	r.askCache(info.Frames(), maxBytes)
	if err := r.read(info.Frames()); err != nil {
		m.release()
		return nil, err
	}
	if len(r.pieces) == 0 {
		m.release()
		return record.NewView(nil, offset, nil), nil
	}
	n := maxBytes - r.left
	return record.NewView(r.pieces, r.next, func() { m.releaseRead(n) }), nil
}

// A reader gathers the pieces of one view.
type reader struct {
	s             *Segment
	m             *mapping
	offset, limit int64
	left          int
	pieces        [][]byte
	next          int64
	crcs          *crcCache // nil: every frame is checked
	cached        int64     // crcs may be asked of frames that end here or before
}

// ahead is how many frames a reader looks up in the index at a time: locks and
// guards cost as much as a small frame.
const ahead = 64

func (r *reader) read(frames int) error {
	i, err := r.s.find(r.m, r.offset)
	if err != nil {
		return err
	}
	var at [ahead]index.Entry
	for more := true; more && i < frames; {
		n, err := r.s.entriesFrom(at[:min(ahead, frames-i)], i)
		if err != nil {
			return err
		}
		err = guard(r.s.path, func() error {
			for k := 0; more && k < n; k++ {
				if more, err = r.frame(i+k, at[k]); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// entriesFrom copies the index entries of the frames from i on.
func (s *Segment) entriesFrom(at []index.Entry, i int) (n int, err error) {
	if err := s.rlockTables(); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	err = guard(s.path, func() error {
		for ; n < len(at); n++ {
			at[n] = s.entries.at(i + n)
		}
		return nil
	})
	return n, err
}

// frame adds frame i, which the index says lies at e.
func (r *reader) frame(i int, e index.Entry) (more bool, err error) {
	c := cursor{position: e.Position, index: r.s.h.FirstIndex + uint64(i), offset: e.Offset}
	f, wrong, _ := c.next(r.m.data[:min(int64(len(r.m.data)), r.s.written.Load())], r.s.h.Salt)
	if wrong != nil {
		if f, err = r.s.frame(r.m, i); err != nil { // the slow way, which mends a bad index
			return false, err
		}
	}
	if f.Type != Command || f.NextOffset() <= r.offset {
		return true, nil
	}
	if f.BaseOffset >= r.limit || len(r.pieces) > 0 && r.left < record.HeaderSize {
		return false, nil
	}
	body := f.body(r.m.data)
	if len(r.pieces) > 0 {
		// What will not fit is left to the next read, unread. If its length has rotted,
		// that is found there.
		if b, _, err := record.Split(body[:f.payloadLen]); err == nil && len(b) > r.left {
			return false, nil
		}
	}
	if wrong := r.check(&f, body); wrong != nil {
		return false, r.s.corrupt(&f, wrong)
	}
	return r.take(&f, body[:f.payloadLen:f.payloadLen])
}

// take adds the batches of one frame; neighbours become one piece. more is
// false when the view is complete.
func (r *reader) take(f *Frame, p []byte) (more bool, err error) {
	from, at := 0, 0 // the piece is p[from:at]
	flush := func() {
		if at > from {
			r.pieces = append(r.pieces, p[from:at:at])
		}
	}
	for at < len(p) {
		b, _, err := record.Split(p[at:])
		if err != nil || b.LastOffsetDelta() < 0 {
			return false, r.s.corrupt(f, &mismatch{fmt.Sprintf("payload that is no batch at byte %d (%v)", at, err), "whole batches"})
		}
		next := b.NextOffset()
		switch {
		case next <= r.offset:
			at += len(b)
			from = at
			continue
		case next > r.limit, len(b) > r.left && (len(r.pieces) > 0 || at > from):
			flush()
			return false, nil
		}
		at += len(b)
		r.left -= len(b)
		r.next = next
	}
	flush()
	return true, nil
}

// OffsetAt returns the first record with a timestamp of at least timestamp and
// an offset in [from, limit); ok is false when there is none.
//
// The time index says where the largest timestamp so far passes timestamp, so a
// look-up reads the headers of the frames of timeInterval bytes and one payload;
// unless that place lies before from, as when the log start has moved beyond a
// record dated far ahead, for then every frame from there on may be the one. Of a
// sealed segment their headers are read once, and what is found is remembered
// (see lateTimes); of the one that is written to, at each such look-up.
func (s *Segment) OffsetAt(timestamp, from, limit int64) (offset, found int64, ok bool, err error) {
	info := s.Info()
	if info.MaxTimestamp < timestamp || info.NextOffset <= max(from, info.BaseOffset) || info.BaseOffset >= limit {
		return 0, 0, false, nil
	}
	m, err := s.pin()
	if err != nil {
		return 0, 0, false, err
	}
	defer m.release()
	start, err := s.find(m, max(from, info.BaseOffset))
	if err != nil {
		return 0, 0, false, err
	}
	skip, err := s.firstAt(timestamp)
	if err != nil {
		return 0, 0, false, err
	}
	walked := int64(-1) // the position of the first frame
	for i := max(start, skip); i < info.Frames(); i++ {
		f, err := s.frame(m, i)
		if err != nil {
			return 0, 0, false, err
		}
		if f.BaseOffset >= limit {
			break
		}
		switch {
		case walked < 0:
			walked = f.Position
		case skip <= start && walked < math.MaxInt64 && f.Position-walked >= lateAfter && s.sealed.Load():
			late, err := s.firstAfter(m, start, i, timestamp)
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
		p, err := s.payload(m, &f)
		if err != nil {
			return 0, 0, false, err
		}
		offset, found, ok, err := s.firstRecord(&f, p, from, limit, func(t int64) bool { return t >= timestamp })
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
func (s *Segment) firstAfter(m *mapping, start, i int, t int64) (int, error) {
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
		f, err := s.frame(m, k)
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
	resident.add(m, int(s.written.Load()-HeaderSize))
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
func (s *Segment) firstAt(t int64) (int, error) {
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
func (s *Segment) payload(m *mapping, f *Frame) ([]byte, error) {
	var p []byte
	err := guard(s.path, func() error {
		p = bytes.Clone(f.body(m.data))
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
func (s *Segment) firstRecord(f *Frame, p []byte, from, limit int64, want func(timestamp int64) bool) (offset, timestamp int64, ok bool, err error) {
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
func (s *Segment) MaxTimestamp(from, limit int64) (offset, timestamp int64, ok bool, err error) {
	info := s.Info()
	from, limit = max(from, info.BaseOffset), min(limit, info.NextOffset)
	if from >= limit {
		return 0, 0, false, nil
	}
	m, err := s.pin()
	if err != nil {
		return 0, 0, false, err
	}
	defer m.release()
	first, err := s.find(m, from)
	if err != nil {
		return 0, 0, false, err
	}
	last, err := s.find(m, limit-1)
	if err != nil {
		return 0, 0, false, err
	}
	// Frames from first+1 to last-1 lie within the range whole, so their headers
	// and the time index speak for them. The two at the ends are read.
	timestamp = -1
	if first == 0 && last > 0 {
		if timestamp, err = s.maxTimestamp(m, last); err != nil {
			return 0, 0, false, err
		}
		if f, ferr := s.frame(m, 0); ferr != nil {
			return 0, 0, false, ferr
		} else if f.BaseOffset < from && f.MaxTimestamp == timestamp {
			timestamp = -1 // it may be of a record below from
		}
	}
	if timestamp < 0 {
		for i := first + 1; i < last; i++ {
			f, err := s.frame(m, i)
			if err != nil {
				return 0, 0, false, err
			}
			if f.Type == Command {
				timestamp = max(timestamp, f.MaxTimestamp)
			}
		}
	}
	for _, i := range []int{first, last} {
		f, err := s.frame(m, i)
		if err != nil {
			return 0, 0, false, err
		}
		if f.Type != Command || f.MaxTimestamp <= timestamp {
			continue
		}
		p, err := s.payload(m, &f)
		if err != nil {
			return 0, 0, false, err
		}
		_, _, _, err = s.firstRecord(&f, p, from, limit, func(t int64) bool {
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
func (s *Segment) maxTimestamp(m *mapping, n int) (t int64, err error) {
	if err := s.rlockTables(); err != nil {
		return 0, err
	}
	defer s.mu.RUnlock()
	err = guard(s.path, func() error {
		t, err = s.maxTimestampRLocked(m.data, n)
		return err
	})
	return t, err
}

// maxTimestampRLocked is maxTimestamp over p, the file's bytes.
func (s *Segment) maxTimestampRLocked(p []byte, n int) (int64, error) {
	newest, i := int64(-1), 0
	if s.times != nil {
		if e, ok := s.times.Below(uint32(n)); ok {
			newest, i = e.Max, int(e.Frame)+1
		}
	}
	for ; i < n; i++ {
		f, wrong := s.parseRLocked(p, i)
		if wrong != nil {
			return 0, &CorruptError{Path: s.path, Position: f.Position, Found: wrong.found, Expected: wrong.expected}
		}
		newest = max(newest, f.MaxTimestamp)
	}
	return newest, nil
}

// truncateTimesLocked forgets what the time index says of frames from n on.
func (s *Segment) truncateTimesLocked(n int) {
	s.timed = HeaderSize
	if s.times == nil {
		return
	}
	count := sort.Search(s.times.Len(), func(i int) bool { return int(s.times.At(i).Frame) >= n })
	p := s.times.Bytes()[:count*index.TimeEntrySize]
	if s.times = nil; count > 0 {
		s.times, _ = index.NewTime(p, count)
		s.timed = s.positionRLocked(int(s.times.At(count-1).Frame) + 1)
	}
}

// Prefix says what the segment would hold if it ended before the entry with
// this index, FirstIndex <= before <= LastIndex+1. *CorruptError, ErrClosed.
func (s *Segment) Prefix(before uint64) (Info, error) {
	info := s.Info()
	if before < info.FirstIndex || before > info.LastIndex+1 {
		return Info{}, ErrRange
	}
	if before == info.LastIndex+1 {
		return info, nil
	}
	cut, err := s.Entry(before)
	if err != nil {
		return Info{}, err
	}
	info.LastIndex, info.NextOffset, info.Bytes = before-1, cut.BaseOffset, cut.Position
	info.LastTerm = info.PrevTerm
	if before > info.FirstIndex {
		last, err := s.Entry(before - 1)
		if err != nil {
			return Info{}, err
		}
		info.LastTerm = last.Term
	}
	m, err := s.pin()
	if err != nil {
		return Info{}, err
	}
	defer m.release()
	info.MaxTimestamp, err = s.maxTimestamp(m, info.Frames())
	return info, err
}

// ReadAt copies the file's bytes at position at, up to the segment's end, to
// whoever pulls the segment. io.EOF at the end. The bytes are not checked here:
// the receiver does.
func (s *Segment) ReadAt(p []byte, at int64) (n int, err error) {
	end := s.Info().Bytes
	if at < 0 || at >= end {
		return 0, io.EOF
	}
	m, err := s.pin()
	if err != nil {
		return 0, err
	}
	defer func() { m.releaseRead(n) }()
	err = guard(s.path, func() error {
		n = copy(p, m.data[at:end])
		return nil
	})
	if err == nil && at+int64(n) == end {
		err = io.EOF
	}
	return n, err
}

// Entries calls f for each entry from the one with index from on, with its
// payload checked and aliasing mapped memory, valid during the call. It stops at
// the first error, its own or f's.
func (s *Segment) Entries(from uint64, f func(*Frame) error) error {
	info := s.Info()
	if from < info.FirstIndex {
		return ErrRange
	}
	m, err := s.pin()
	if err != nil {
		return err
	}
	defer m.release()
	for i := int(from - info.FirstIndex); i < info.Frames(); i++ {
		e, err := s.frame(m, i)
		if err != nil {
			return err
		}
		resident.add(m, int(e.size()))
		err = guard(s.path, func() error {
			body := e.body(m.data)
			if wrong := e.checkPayload(body); wrong != nil {
				return s.corrupt(&e, wrong)
			}
			e.Payload = body[:e.payloadLen:e.payloadLen]
			return f(&e)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

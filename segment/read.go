package segment

import (
	"fmt"
	"io"

	"millrace/index"
	"millrace/segment/record"
)

// parseRLocked reads the header of frame i from p, the file's bytes, and compares
// it with what the index says.
func (s *Reader) parseRLocked(p []byte, i int) (Frame, *mismatch) {
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
func (s *Reader) frame(m *mapping, i int) (Frame, error) {
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

func (s *Reader) frameRLocked(m *mapping, i int) (f Frame, wrong *mismatch, rebuilt bool, err error) {
	err = guard(s.path, func() error {
		f, wrong = s.parseRLocked(m.data, i)
		return nil
	})
	return f, wrong, s.rebuilt, err
}

// Frame returns the entry with this index. Its payload is a copy of the
// caller's own, checked against its CRC. ErrRange, ErrClosed, *CorruptError.
func (s *Reader) Frame(i uint64) (Frame, error) {
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
func (s *Reader) Entry(i uint64) (Frame, error) {
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

func (s *Reader) corrupt(f *Frame, wrong *mismatch) error {
	return &CorruptError{
		Path: s.path, Position: f.Position,
		Found: fmt.Sprintf("%s in the %s of index %d", wrong.found, f.Type, f.Index), Expected: wrong.expected,
	}
}

// find returns the last frame whose base offset is at or below offset. If the index has
// rotted since it was loaded it may be an earlier frame: the caller walks further, and
// skips no record.
func (s *Reader) find(m *mapping, offset int64) (i int, err error) {
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

func (s *Reader) search(offset int64) (i int, err error) {
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
func (s *Reader) Read(offset, limit int64, maxBytes int) (*View, error) {
	info := s.Info()
	if offset >= info.NextOffset || offset >= limit {
		return &View{Next: offset}, nil
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
		return &View{Next: offset}, nil
	}
	return &View{Bytes: r.pieces, Next: r.next, m: m}, nil
}

// A reader gathers the pieces of one view.
type reader struct {
	s             *Reader
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
func (s *Reader) entriesFrom(at []index.Entry, i int) (n int, err error) {
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

// Prefix says what the segment would hold if it ended before the entry with
// this index, FirstIndex <= before <= LastIndex+1. *CorruptError, ErrClosed.
func (s *Reader) Prefix(before uint64) (Info, error) {
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
func (s *Reader) ReadAt(p []byte, at int64) (n int, err error) {
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
func (s *Reader) Entries(from uint64, f func(*Frame) error) error {
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

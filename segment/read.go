package segment

import (
	"fmt"
	"io"

	"millrace/index"
	"millrace/segment/record"
)

// frame returns frame i without its payload. A *CorruptError when it is bad and no index
// could lead elsewhere.
func (s pinned) frame(i int) (Frame, error) {
	if err := s.rlockTables(); err != nil {
		return Frame{}, err
	}
	f, wrong, rebuilt, err := s.frameRLocked(i)
	s.mu.RUnlock()
	if err != nil || wrong == nil {
		return f, err
	}
	if !rebuilt {
		switch err := s.rebuild(); {
		case err == nil:
			return s.frame(i)
		case err == ErrClosed:
			return f, err
		}
	}
	return f, wrong.corrupt(s.path, f.Position)
}

func (s pinned) frameRLocked(i int) (f Frame, wrong *mismatch, rebuilt bool, err error) {
	err = guard(s.path, func() error {
		f, wrong = s.tables.parse(s.m.data, i)
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
	p, err := s.pin()
	if err != nil {
		return f, err
	}
	body := make([]byte, f.size()-FrameHeaderSize)
	defer p.release(len(body))
	err = guard(s.path, func() error {
		copy(body, f.body(p.m.data))
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
	p, err := s.pin()
	if err != nil {
		return Frame{}, err
	}
	defer p.release(FrameHeaderSize)
	return p.frame(int(i - info.FirstIndex))
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
func (s pinned) find(offset int64) (i int, err error) {
	for range 2 {
		if i, err = s.search(offset); err != nil {
			return 0, err
		}
		f, err := s.frame(i) // mends an index that does not lead to frames
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
	p, err := s.pin()
	if err != nil {
		return nil, err
	}
	g := gathering{pinned: p, offset: offset, limit: limit, left: maxBytes, next: offset}
	g.askCache(info.Frames(), maxBytes)
	if err := g.read(info.Frames()); err != nil {
		p.release(0)
		return nil, err
	}
	if len(g.pieces) == 0 {
		p.release(0)
		return &View{Next: offset}, nil
	}
	return &View{Bytes: g.pieces, Next: g.next, m: p.m}, nil
}

// A gathering is one Read: of the pieces of one view.
type gathering struct {
	pinned
	offset, limit int64
	left          int
	pieces        [][]byte
	next          int64
	checked       *crcCache // nil: every frame is checked
	cached        int64     // checked may be asked of frames that end here or before
}

// ahead is how many frames a gathering looks up in the index at a time: locks and
// guards cost as much as a small frame.
const ahead = 64

func (g *gathering) read(frames int) error {
	i, err := g.find(g.offset)
	if err != nil {
		return err
	}
	var at [ahead]index.Entry
	for more := true; more && i < frames; {
		n, err := g.entriesFrom(at[:min(ahead, frames-i)], i)
		if err != nil {
			return err
		}
		err = guard(g.path, func() error {
			for k := 0; more && k < n; k++ {
				if more, err = g.add(i+k, at[k]); err != nil {
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

// add adds frame i, which the index says lies at e.
func (g *gathering) add(i int, e index.Entry) (more bool, err error) {
	c := cursor{position: e.Position, index: g.h.FirstIndex + uint64(i), offset: e.Offset}
	f, wrong, _ := c.next(g.m.data[:min(int64(len(g.m.data)), g.written.Load())], g.h.Salt)
	if wrong != nil {
		if f, err = g.pinned.frame(i); err != nil { // the slow way, which mends a bad index
			return false, err
		}
	}
	if f.Type != Command || f.NextOffset() <= g.offset {
		return true, nil
	}
	if f.BaseOffset >= g.limit || len(g.pieces) > 0 && g.left < record.HeaderSize {
		return false, nil
	}
	body := f.body(g.m.data)
	if len(g.pieces) > 0 {
		// What will not fit is left to the next read, unread. If its length has rotted,
		// that is found there.
		if b, _, err := record.Split(body[:f.payloadLen]); err == nil && len(b) > g.left {
			return false, nil
		}
	}
	if wrong := g.check(&f, body); wrong != nil {
		return false, g.corrupt(&f, wrong)
	}
	return g.take(&f, body[:f.payloadLen:f.payloadLen])
}

// take adds the batches of one frame; neighbours become one piece. more is
// false when the view is complete.
func (g *gathering) take(f *Frame, p []byte) (more bool, err error) {
	from, at := 0, 0 // the piece is p[from:at]
	flush := func() {
		if at > from {
			g.pieces = append(g.pieces, p[from:at:at])
		}
	}
	for at < len(p) {
		b, _, err := record.Split(p[at:])
		if err != nil || b.LastOffsetDelta() < 0 {
			return false, g.corrupt(f, &mismatch{fmt.Sprintf("payload that is no batch at byte %d (%v)", at, err), "whole batches"})
		}
		next := b.NextOffset()
		switch {
		case next <= g.offset:
			at += len(b)
			from = at
			continue
		case next > g.limit, len(b) > g.left && (len(g.pieces) > 0 || at > from):
			flush()
			return false, nil
		}
		at += len(b)
		g.left -= len(b)
		g.next = next
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
	p, err := s.pin()
	if err != nil {
		return Info{}, err
	}
	defer p.release(0)
	info.MaxTimestamp, err = p.maxTimestamp(info.Frames())
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
	pin, err := s.pin()
	if err != nil {
		return 0, err
	}
	defer func() { pin.release(n) }()
	err = guard(s.path, func() error {
		n = copy(p, pin.m.data[at:end])
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
	p, err := s.pin()
	if err != nil {
		return err
	}
	defer p.release(0)
	for i := int(from - info.FirstIndex); i < info.Frames(); i++ {
		e, err := p.frame(i)
		if err != nil {
			return err
		}
		resident.add(p.m, int(e.size()))
		err = guard(s.path, func() error {
			body := e.body(p.m.data)
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

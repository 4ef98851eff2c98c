package segment

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
)

// CheckStart returns nil if f, a file at path that may be incomplete, begins like the
// segment that info describes.
func CheckStart(f File, path string, id Identity, info Info) error {
	h, _, err := readHeader(f, path)
	if err != nil {
		return err
	}
	return CheckHeader(path, h, id, info)
}

// Check reads the whole segment, without its index files: every frame has to
// follow the one before, every payload and every batch has to be right, and all
// together have to be what Info says. The first *CorruptError is returned.
func (s *Reader) Check() error {
	info := s.Info()
	end := s.h.cursor()
	newest := int64(-1)
	found, err := Walk(s.fs, s.path, info.Bytes, func(f *Frame) error {
		end.advance(f)
		newest = max(newest, f.MaxTimestamp)
		return nil
	}, func(e *CorruptError) error { return e })
	if err != nil {
		return err
	}
	if found.Torn >= 0 || end.position != info.Bytes || end.index != info.LastIndex+1 || end.offset != info.NextOffset || end.term != info.LastTerm || newest != info.MaxTimestamp {
		return &CorruptError{
			Path: s.path, Position: end.position,
			Found:    fmt.Sprintf("entries up to index %d, offset %d, term %d, timestamp %d in %d bytes", end.index-1, end.offset, end.term, newest, end.position),
			Expected: fmt.Sprintf("%d, %d, %d, %d in %d", info.LastIndex, info.NextOffset, info.LastTerm, info.MaxTimestamp, info.Bytes),
		}
	}
	return nil
}

// A Found says what Walk met.
type Found struct {
	Header Header
	Size   int64 // of the file
	End    int64 // behind the last good frame
	Frames int
	// Torn is the position of bytes behind the last frame that are neither frames
	// nor zeros, as a crash leaves them; -1 without any. The log cuts such a tail
	// when it is opened.
	Torn int64
}

// Walk reads the segment file at path, which may be damaged, without changing
// it. frame is called for each good frame, in order, its payload aliasing mapped
// memory and valid during the call. problem is called for everything that is
// wrong, between the frames; after it Walk goes on with the next frame it can
// find. Either ends the walk by returning an error, which Walk returns. limit is
// the length that the log knows the segment to have, 0 if it does not: then bad bytes
// count as torn, unless a flagged frame behind them proves that they had been synced.
func Walk(fs FS, path string, limit int64, frame func(*Frame) error, problem func(*CorruptError) error) (Found, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return Found{}, Refused(err)
	}
	defer f.Close()
	found := Found{Torn: -1}
	h, size, err := readHeader(f, path)
	found.Size = size
	if err != nil {
		var c *CorruptError
		if errors.As(err, &c) {
			err = problem(c)
		}
		return found, err // without the salt no frame can be read
	}
	found.Header, found.End = h, HeaderSize
	known := limit > 0
	if !known {
		limit = size
	}
	if size < limit {
		if err := problem(&CorruptError{Path: path, Position: size, Found: fmt.Sprintf("a file of %d bytes", size), Expected: fmt.Sprintf("at least %d", limit)}); err != nil {
			return found, err
		}
		limit = size
	}
	m, err := newMapping(f.Fd(), limit)
	if err != nil {
		return found, Refused(fmt.Errorf("%s: %w", path, err))
	}
	defer m.release()
	w := walker{path: path, salt: h.Salt, p: m.data, known: known, frame: frame, problem: problem, found: &found}
	err = guard(path, func() error { return w.walk(h.cursor()) })
	return found, err
}

type walker struct {
	path    string
	salt    uint64
	p       []byte
	known   bool
	frame   func(*Frame) error
	problem func(*CorruptError) error
	found   *Found
}

func (w *walker) walk(c cursor) error {
	for c.position < int64(len(w.p)) {
		f, wrong, misplaced := c.next(w.p, w.salt)
		if wrong != nil && !misplaced {
			next, ok := findFrame(w.p, w.salt, c.position+8, func(Frame) bool { return true })
			if !ok {
				return w.end(c.position, wrong)
			}
			if _, proof := findFrame(w.p, w.salt, c.position+8, func(f Frame) bool { return f.Synced }); !proof && !w.known {
				return w.end(c.position, wrong)
			}
			if err := w.report(c.position, wrong); err != nil {
				return err
			}
			c = cursor{position: next.Position, index: next.Index, offset: next.BaseOffset, term: max(c.term, next.Term)}
			continue
		}
		if misplaced {
			if err := w.report(c.position, wrong); err != nil {
				return err
			}
			c.index, c.offset, c.term = f.Index, f.BaseOffset, f.Term
		}
		if err := w.take(&f); err != nil {
			return err
		}
		c.advance(&f)
	}
	return nil
}

func (w *walker) take(f *Frame) error {
	if f.Position+f.size() > int64(len(w.p)) {
		return w.end(f.Position, &mismatch{fmt.Sprintf("a frame that ends at %d", f.Position+f.size()), fmt.Sprintf("at most %d", len(w.p))})
	}
	body := f.body(w.p)
	if wrong := f.checkPayload(body); wrong != nil {
		if _, proof := findFrame(w.p, w.salt, f.Position+f.size(), func(f Frame) bool { return f.Synced }); !proof && !w.known {
			if w.found.Torn < 0 {
				w.found.Torn = f.Position
			}
			return nil
		}
		wrong.found += fmt.Sprintf(" in the %s of index %d", f.Type, f.Index)
		return w.report(f.Position, wrong)
	}
	f.Payload = body[:f.payloadLen:f.payloadLen]
	if wrong := CheckBatches(f); wrong != "" {
		return w.report(f.Position, &mismatch{wrong, "whole batches stamped with the entry's offsets and term"})
	}
	w.found.End = f.Position + f.size()
	w.found.Frames++
	return w.frame(f)
}

// end judges what lies behind the last frame.
func (w *walker) end(position int64, wrong *mismatch) error {
	if w.known {
		return w.report(position, wrong)
	}
	if !allZero(w.p[position:]) && w.found.Torn < 0 {
		w.found.Torn = position
	}
	return nil
}

func (w *walker) report(position int64, wrong *mismatch) error {
	return w.problem(&CorruptError{Path: w.path, Position: position, Found: wrong.found, Expected: wrong.expected})
}

// A Digest sums up entries, so that replicas can be compared: equal sums mean
// equal indexes, terms, types, offsets and payloads. The zero value is ready.
type Digest struct {
	h     hash.Hash
	First uint64 // index of the first entry added; 0: none
	Last  uint64
}

// Add adds one entry; its PayloadCRC stands for the payload.
func (d *Digest) Add(f *Frame) {
	if d.h == nil {
		d.h, d.First = sha256.New(), f.Index
	}
	d.Last = f.Index
	var p [37]byte
	binary.BigEndian.PutUint64(p[:], f.Index)
	binary.BigEndian.PutUint64(p[8:], f.Term)
	binary.BigEndian.PutUint64(p[16:], uint64(f.BaseOffset))
	binary.BigEndian.PutUint32(p[24:], f.Span)
	binary.BigEndian.PutUint32(p[28:], f.PayloadCRC)
	binary.BigEndian.PutUint32(p[32:], uint32(f.PayloadLen()))
	p[36] = byte(f.Type)
	d.h.Write(p[:])
}

// Sum returns the digest in hexadecimal.
func (d *Digest) Sum() string {
	if d.h == nil {
		return hex.EncodeToString(sha256.New().Sum(nil))
	}
	return hex.EncodeToString(d.h.Sum(nil))
}

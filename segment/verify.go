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
	w := walker{salt: h.Salt, p: m.data, known: known, at: h.cursor(), found: &found}
	err = guard(path, func() error { // what frame touches is mapped as well
		for {
			f, position, wrong := w.next()
			switch {
			case f != nil:
				err = frame(f)
			case wrong != nil:
				err = problem(wrong.corrupt(path, position))
			default:
				return nil
			}
			if err != nil {
				return err
			}
		}
	})
	return found, err
}

// A walker goes over the bytes of a segment file, good or bad.
type walker struct {
	salt  uint64
	p     []byte // the file's, up to where the log knows it to end, if it does
	known bool   // it does
	at    cursor // where the next frame has to be
	found *Found
}

// next returns the next good frame, or else what is wrong before it and where; neither at
// the end. What a crash may have left is not wrong: found.Torn says where it begins.
func (w *walker) next() (f *Frame, position int64, wrong *mismatch) {
	for w.at.position < int64(len(w.p)) {
		position = w.at.position
		f, wrong, misplaced := w.at.next(w.p, w.salt)
		switch {
		case misplaced:
			// The frame is there, if not the one that has to be: it comes next.
			w.at.index, w.at.offset, w.at.term = f.Index, f.BaseOffset, f.Term
			return nil, position, wrong
		case wrong != nil:
			return nil, position, w.skip(wrong)
		}
		w.at.advance(&f)
		body := f.body(w.p)
		if wrong := f.checkPayload(body); wrong != nil {
			if !w.proven(w.at.position) {
				w.tornAt(position)
				continue
			}
			wrong.found += fmt.Sprintf(" in the %s of index %d", f.Type, f.Index)
			return nil, position, wrong
		}
		f.Payload = body[:f.payloadLen:f.payloadLen]
		if wrong := CheckBatches(&f); wrong != "" {
			return nil, position, &mismatch{wrong, "whole batches stamped with the entry's offsets and term"}
		}
		w.found.End = w.at.position
		w.found.Frames++
		return &f, position, nil
	}
	return nil, position, nil
}

// skip goes from a place where no frame is to the next frame, or to the end. It returns
// wrong, what is there instead, unless a crash may have left it.
func (w *walker) skip(wrong *mismatch) *mismatch {
	position := w.at.position
	next, ok := findFrame(w.p, w.salt, position+8, func(Frame) bool { return true })
	if ok && w.proven(position+8) {
		w.at = cursor{position: next.Position, index: next.Index, offset: next.BaseOffset, term: max(w.at.term, next.Term)}
		return wrong
	}
	w.at.position = int64(len(w.p))
	if w.known {
		return wrong
	}
	if !allZero(w.p[position:]) {
		w.tornAt(position)
	}
	return nil
}

// proven reports whether the bytes before position had been synced: the log says so, or a
// flagged frame from position on.
func (w *walker) proven(position int64) bool {
	if w.known {
		return true
	}
	_, ok := findFrame(w.p, w.salt, position, func(f Frame) bool { return f.Synced })
	return ok
}

func (w *walker) tornAt(position int64) {
	if w.found.Torn < 0 {
		w.found.Torn = position
	}
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

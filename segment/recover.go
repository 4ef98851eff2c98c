package segment

import (
	"bytes"
	"fmt"
	"os"
)

// Recover opens the last segment of a log for appending. id, and the
// FirstIndex, BaseOffset, PrevTerm and Salt of known, say which segment it has
// to be. If known.Bytes is not zero, the segment was synced and whole at
// that length, with all that known says, and only what follows is scanned;
// anything bad below is corruption.
//
// torn is set when bytes behind the last entry are neither frames nor zeros: the
// caller must seal the segment as it is and append to another. All entries that
// Recover keeps are durable when it returns.
//
// The file's length says nothing about room on the disk: PunchTail, and a copy by a
// program that leaves zeros out, keep the length and leave a hole behind the last frame.
// So Recover counts on no room there, and does not read there through the mapping: on a
// tmpfs a hole takes room when a mapping touches it, and a fault ends the read when there
// is none.
//
// A *CorruptError says that bytes which had been safe are bad; nothing was
// changed. Nor was anything that counts after any other error: Recover can be called
// again.
func Recover(fs FS, path string, id Identity, known Info, capacity int64) (s *Active, torn bool, err error) {
	f, err := openData(fs, path, os.O_RDWR)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			if s != nil {
				s.Close()
			} else {
				f.Close()
			}
			s = nil
		}
	}()
	h, size, err := readHeader(f, path)
	if err != nil {
		return nil, false, err
	}
	if err := CheckHeader(path, h, id, known); err != nil {
		return nil, false, err
	}
	if size < known.Bytes {
		return nil, false, &CorruptError{Path: path, Position: size, Found: fmt.Sprintf("a file of %d bytes", size), Expected: fmt.Sprintf("at least %d", known.Bytes)}
	}
	end, err := dataEnd(f, max(known.Bytes, HeaderSize), size)
	if err != nil {
		return nil, false, fmt.Errorf("read %s: %w", path, err)
	}
	s = newActive(fs, path, h, max(capacity, size), f)
	s.length, s.allocated, s.fileSize = size, size, size
	if s.m, err = newMapping(f.Fd(), s.capacity); err != nil {
		return s, false, Refused(fmt.Errorf("%s: %w", path, err))
	}
	var proven int64
	err = guard(path, func() error {
		proven, torn, err = s.tables.recover(s.m, size, end, known)
		return err
	})
	if err != nil {
		return s, false, err
	}
	if err = s.writeTailAgain(proven); err != nil {
		return s, false, err
	}
	s.m.release() // most partitions idle; the first reader maps it again
	s.m = nil
	s.loaded = true
	s.written.Store(s.info.Bytes)
	s.synced.Store(s.info.Bytes)
	s.allocated = min(pageUp(s.info.Bytes), size)
	s.room.Store(s.allocated - s.info.Bytes)
	return s, torn, nil
}

// dataEnd returns the end of the last page below size that is not all zeros, at least
// from. It reads backwards, so that it stops at the last frame.
func dataEnd(f File, from, size int64) (int64, error) {
	buf := make([]byte, 64<<10)
	for end := size; end > from; {
		at := max(from, (end-1)&^(int64(len(buf))-1))
		p := buf[:end-at]
		if _, err := f.ReadAt(p, at); err != nil {
			return 0, err
		}
		if n := int64(len(bytes.TrimRight(p, "\x00"))); n > 0 {
			return min(pageUp(at+n), size), nil
		}
		end = at
	}
	return from, nil
}

// recover fills the tables from m, of which size bytes are the file's and those from end on
// zeros. Bytes below proven had been synced.
func (t *tables) recover(m *mapping, size, end int64, known Info) (proven int64, torn bool, err error) {
	p := m.data[:size]
	if known.Bytes > 0 {
		if err := t.resume(m, size, known); err != nil {
			return 0, false, err
		}
		proven = known.Bytes
	} else {
		t.reset()
		proven = HeaderSize
	}

	// Walk the headers. Frames before a flagged one had been synced, so only
	// those from the last flagged one on can be torn.
	doubtful := t.end()
	var wrong *mismatch
	for c := t.end(); ; {
		if c.position >= end {
			wrong = &mismatch{"zeros", "a frame"}
			break
		}
		f, w, misplaced := c.next(p, t.h.Salt)
		if misplaced {
			return 0, false, &CorruptError{Path: t.path, Position: c.position, Found: w.found, Expected: w.expected}
		}
		if f.Synced {
			// Also the header of a frame whose end is missing proves what is before.
			doubtful = c
			proven = c.position
		}
		if wrong = w; w != nil {
			break
		}
		if err := t.fits(&f); err != nil {
			return 0, false, err
		}
		t.add(&f)
		c.advance(&f)
		resident.add(m, int(f.size()))
	}
	last := t.end()
	if proof, ok := findFrame(p[:max(end, last.position)], t.h.Salt, last.position+8, func(f Frame) bool { return f.Synced }); ok {
		return 0, false, &CorruptError{
			Path: t.path, Position: last.position, Found: wrong.found,
			Expected: fmt.Sprintf("%s, since the frame of index %d at %d was written after all before it was synced", wrong.expected, proof.Index, proof.Position),
		}
	}

	for c := doubtful; c.position < last.position; {
		f, w, _ := c.next(p, t.h.Salt)
		if w == nil {
			w = f.checkPayload(f.body(p))
		}
		if w != nil {
			return min(proven, c.position), true, t.cut(p, c)
		}
		c.advance(&f)
	}
	return proven, last.position < end && !allZero(p[last.position:end]), nil
}

// resume takes up a segment at the length that is known of it, from its
// index files if they are good.
func (t *tables) resume(m *mapping, size int64, known Info) error {
	p := m.data[:size]
	t.info = known
	if t.readIndexes() != nil || !t.lastFits(p) {
		t.entries.release()
		if err := t.rescan(m, known); err != nil {
			return err
		}
	}
	if known.Frames() == 0 {
		return nil
	}
	// The last entry is read for good measure: were it bad and the replica
	// started, Raft would find out by panicking.
	f, wrong := t.parse(p, known.Frames()-1)
	if wrong == nil {
		wrong = f.checkPayload(f.body(p))
	}
	if wrong != nil {
		return wrong.corrupt(t.path, f.Position)
	}
	return nil
}

// lastFits reports whether the last entry of the index leads to a frame that ends
// where the segment does.
func (t *tables) lastFits(p []byte) bool {
	n := t.info.Frames()
	if n == 0 {
		return t.info.Bytes == HeaderSize
	}
	f, wrong := t.parse(p, n-1)
	return wrong == nil && f.Position+f.size() == t.info.Bytes && f.NextOffset() == t.info.NextOffset && f.Term == t.info.LastTerm
}

// writeTailAgain writes the bytes from proven to the end once more and syncs them, so
// that they reach the disk even if a sync of an earlier life failed and left
// them in the page cache as clean.
func (s *Active) writeTailAgain(proven int64) error {
	if proven >= s.info.Bytes {
		return nil
	}
	p := make([]byte, min(s.info.Bytes-proven, 1<<20))
	for at := proven; at < s.info.Bytes; {
		n := min(s.info.Bytes-at, int64(len(p)))
		if _, err := s.file.ReadAt(p[:n], at); err != nil {
			return fmt.Errorf("read %s: %w", s.path, err)
		}
		if err := s.file.Pwritev([][]byte{p[:n]}, at); err != nil {
			return fmt.Errorf("rewrite the tail of %s: %w", s.path, err)
		}
		at += n
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("rewrite the tail of %s: %w", s.path, err)
	}
	return nil
}

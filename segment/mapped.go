package segment

import (
	"fmt"
	"os"
)

// pin makes the segment ready to read and returns its mapping with a reference
// for the caller. ErrClosed.
func (s *Reader) pin() (*mapping, error) {
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
func (s *Reader) load() (m *mapping, loaded bool, err error) {
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
func (s *Reader) rlockTables() error {
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
func (s *Reader) UnmapIdle() {
	if s.used.Swap(false) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unmapLocked()
}

// unmapLocked unmaps the data, and drops the tables of a sealed segment.
func (s *Reader) unmapLocked() {
	s.crcs.Store(nil)
	if s.m != nil {
		mapped.remove(s)
		s.m.release()
		s.m = nil
	}
	if s.f == nil && s.loaded {
		s.entries.release()
		s.times, s.loaded = nil, false
	}
}

// mapData maps the data file, *RefusedError if the system has no descriptor or mapping
// to spare, with mu held: an active segment at its full capacity, since the
// mapping stays while the file grows.
func (s *Reader) mapData() (*mapping, error) {
	f := s.f
	if f == nil {
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
func (s *Reader) rebuild(m *mapping) error {
	s.rebuilding.Lock()
	defer s.rebuilding.Unlock()
	s.mu.RLock()
	known, done, closed, sealed := s.info, s.loaded && s.rebuilt, s.closed, s.f == nil
	s.mu.RUnlock()
	if closed {
		return ErrClosed
	}
	if done {
		return nil
	}
	r := newReader(s.fs, s.path, s.h, s.capacity)
	if err := guard(s.path, func() error { return r.rescanLocked(m, known) }); err != nil {
		s.mu.Lock()
		s.rebuilt = true
		s.mu.Unlock()
		return err
	}
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
	s.entries.detached = s.f != nil // its file is not to be trusted with more
	s.loaded, s.rebuilt = true, true
	return nil
}

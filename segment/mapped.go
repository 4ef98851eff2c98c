package segment

import (
	"fmt"
	"os"
)

// A pinned is a Reader whose data are mapped and stay so until release, whatever becomes of
// the segment. What it reads is the file's, and a page that cannot be read is an error.
type pinned struct {
	*Reader
	m *mapping // with a reference of the pinned's own
}

// release gives the mapping back, through which n bytes were read; 0 if somebody else
// counts them.
func (s pinned) release(n int) {
	if n == 0 {
		s.m.release()
		return
	}
	s.m.releaseRead(n)
}

// pin makes the segment ready to read: its data mapped and its tables in memory, which they
// may not be any more by the time that they are looked at, see rlockTables. ErrClosed.
func (s *Reader) pin() (pinned, error) {
	s.mu.RLock()
	if !s.closed && s.m != nil && s.loaded {
		s.used.Store(true)
		p := pinned{s, s.m}
		p.m.acquire()
		s.mu.RUnlock()
		return p, nil
	}
	s.mu.RUnlock()

	p, loaded, err := s.load()
	if err == nil && !loaded {
		if err = p.rebuild(); err != nil {
			p.release(0)
		}
	}
	return p, err
}

// load maps what is not mapped. loaded is false when the index files have to be rebuilt.
func (s *Reader) load() (p pinned, loaded bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return p, false, ErrClosed
	}
	if s.m == nil {
		if s.m, err = s.mapDataRLocked(); err != nil {
			return p, false, err
		}
		mapped.add(s)
	}
	s.used.Store(true)
	s.m.acquire()
	if !s.loaded && s.readIndexes() == nil {
		s.loaded, s.rebuilt = true, false // what rots from here on has not been tried yet
	}
	return pinned{s, s.m}, s.loaded, nil
}

// rlockTables takes mu for reading once the tables are in memory. That the segment is pinned
// keeps its data mapped, and not its tables, see UnmapIdle. The caller unlocks, unless there
// is an error.
func (s *Reader) rlockTables() error {
	for {
		s.mu.RLock()
		if !s.closed && s.loaded {
			return nil
		}
		s.mu.RUnlock()
		p, err := s.pin()
		if err != nil {
			return err
		}
		p.release(0)
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

// mapDataRLocked maps the data file, an active segment's at its full capacity, since the
// mapping stays while the file grows. *RefusedError: the system has no descriptor or mapping
// to spare.
func (s *Reader) mapDataRLocked() (*mapping, error) {
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

// rebuild fills the tables from the frames, and replaces the index files, unless another
// reader has just done that. A *CorruptError when the frames are bad.
//
// It reads the header of every frame of up to a gigabyte, into tables of its own and without
// mu, so that neither readers nor the writer wait. mu is held at the end, to add the frames
// that the writer has appended meanwhile and to put the tables in their place.
func (s pinned) rebuild() error {
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
	fresh := newTables(s.origin)
	if err := guard(s.path, func() error { return fresh.rescan(s.m, known) }); err != nil {
		s.mu.Lock()
		s.rebuilt = true
		s.mu.Unlock()
		return err
	}
	var aside error
	if sealed {
		aside = fresh.writeAside()
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
	if err := guard(s.path, func() error { return fresh.scan(s.m, s.info) }); err != nil {
		return err
	}
	s.entries.release()
	s.entries, s.times, s.timed = fresh.entries, fresh.times, fresh.timed
	s.entries.detached = s.f != nil // its file is not to be trusted with more
	s.loaded, s.rebuilt = true, true
	return nil
}

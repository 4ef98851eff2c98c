package segment

import (
	"errors"
	"fmt"
	"os"

	"millrace/index"
)

const (
	// A tail this long goes to the index file: one page.
	spillEntries = 512
	tailEntries  = 32 // what an idle partition pays for: 256 bytes
)

// A table is a segment's index of entries: the first inFile lie in the mapped
// index file, the others in memory. Memory stays small however long the segment
// gets, and an idle segment needs no index file.
type table struct {
	base   int64
	file   *mapping // nil while inFile is 0
	inFile int
	tail   *index.Index // nil while empty
	// detached says that the file under the index's name is not the mapped one any
	// more, so that nothing can be spilled to it.
	detached bool
}

func (t *table) len() int {
	if t.tail == nil {
		return t.inFile
	}
	return t.inFile + t.tail.Len()
}

func (t *table) at(i int) index.Entry {
	if i < t.inFile {
		return t.mapped().At(i)
	}
	return t.tail.At(i - t.inFile)
}

// mapped returns the part in the file. It touches nothing by itself.
func (t *table) mapped() *index.Index {
	x, err := index.New(t.file.data[index.HeaderSize:], t.inFile, t.base)
	if err != nil {
		panic(err) // inFile entries were written to or found in it
	}
	return x
}

// find returns the last entry whose offset is at or below offset.
func (t *table) find(offset int64) (int, bool) {
	if t.tail != nil {
		if i, ok := t.tail.Find(offset); ok {
			return t.inFile + i, true
		}
	}
	if t.inFile == 0 {
		return 0, false
	}
	return t.mapped().Find(offset)
}

// append adds e to the tail. The caller has checked that it fits the base.
func (t *table) append(e index.Entry) {
	if t.tail == nil {
		t.tail = newTail(nil, tailEntries, t.base)
	}
	err := t.tail.Append(e)
	if errors.Is(err, index.ErrFull) {
		t.tail = newTail(t.tail.Bytes(), 2*t.tail.Len(), t.base)
		err = t.tail.Append(e)
	}
	if err != nil {
		panic(fmt.Sprintf("segment: index entry %+v, base %d: %v", e, t.base, err))
	}
}

func newTail(old []byte, entries int, base int64) *index.Index {
	p := make([]byte, entries*index.EntrySize)
	x, err := index.New(p, copy(p, old)/index.EntrySize, base)
	if err != nil {
		panic(err)
	}
	return x
}

// truncate forgets all but the first n entries, in memory.
func (t *table) truncate(n int) {
	if n < t.inFile {
		t.inFile = n
		t.tail = nil
	} else if t.tail != nil {
		t.tail.Truncate(n - t.inFile)
	}
}

func (t *table) release() {
	if t.file != nil {
		t.file.release()
	}
	*t = table{base: t.base}
}

// bytes copies all entries.
func (t *table) bytes() []byte {
	var p []byte
	if t.inFile > 0 {
		p = append(p, t.mapped().Bytes()...)
	}
	if t.tail != nil {
		p = append(p, t.tail.Bytes()...)
	}
	return p
}

// appendTime adds an entry to the time index, which grows.
func appendTime(x *index.TimeIndex, e index.TimeEntry) *index.TimeIndex {
	if x == nil {
		x, _ = index.NewTime(make([]byte, 8*index.TimeEntrySize), 0)
	}
	err := x.Append(e)
	if errors.Is(err, index.ErrFull) {
		p := make([]byte, 2*len(x.Bytes()))
		x, _ = index.NewTime(p, copy(p, x.Bytes())/index.TimeEntrySize)
		err = x.Append(e)
	}
	if err != nil {
		panic(fmt.Sprintf("segment: time index entry %+v: %v", e, err))
	}
	return x
}

func (s *Reader) indexHeader(kind string, frames int) index.Header {
	return index.Header{Kind: kind, Salt: s.h.Salt, FirstIndex: s.h.FirstIndex, BaseOffset: s.h.BaseOffset, Frames: frames}
}

// spill moves the tail to the index file when it is long. A failure costs
// memory, not safety: the tail stays, and the next append tries again.
func (s *Active) spill() error {
	s.mu.RLock()
	tail, inFile, file, detached := s.entries.tail, s.entries.inFile, s.entries.file, s.entries.detached
	s.mu.RUnlock()
	if tail == nil || tail.Len() < spillEntries || detached {
		return nil
	}
	flag := os.O_RDWR | os.O_CREATE
	if file == nil {
		flag |= os.O_TRUNC // what an earlier life left has nothing to say
	}
	f, err := s.fs.OpenFile(indexPath(s.path), flag)
	if err != nil {
		return err
	}
	defer f.Close()
	p := tail.Bytes()
	if err := f.Pwritev([][]byte{p}, int64(index.HeaderSize+inFile*index.EntrySize)); err != nil {
		return err
	}
	fresh := file == nil
	if fresh {
		if file, err = newMapping(f.Fd(), s.indexCapacity()); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries.tail != tail { // a reader found the tables wrong and rebuilt them
		if fresh { // else it was the tables', and went with them
			file.release()
		}
		return nil
	}
	s.entries.file = file
	s.entries.inFile += len(p) / index.EntrySize
	s.entries.tail = nil
	return nil
}

// indexCapacity is the length of an index file of as many frames as fit the
// segment.
func (s *Reader) indexCapacity() int64 {
	return index.HeaderSize + (s.capacity/FrameHeaderSize+1)*index.EntrySize
}

// writeIndexes writes whole index files aside and renames them, so that a
// reader who maps the old ones sees no change. They are not synced: a crash may
// cost them, and they are rebuilt. Called while nothing is appended; if more is
// appended later, the table goes on in the new file.
func (s *Active) writeIndexes() error {
	s.mu.RLock()
	err := s.publishIndexes(guard(s.path, s.asideIndexesRLocked))
	s.mu.RUnlock()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.entries.file == nil || s.closed {
		return err
	}
	s.entries.detached = true // until the new file is mapped
	n := s.entries.len()
	f, ferr := s.fs.OpenFile(indexPath(s.path), os.O_RDONLY)
	if err != nil || ferr != nil {
		return errors.Join(err, ferr)
	}
	defer f.Close()
	file, err := newMapping(f.Fd(), s.indexCapacity())
	if err != nil {
		return err
	}
	s.entries.release()
	s.entries.file, s.entries.inFile = file, n
	return nil
}

// asideIndexesRLocked writes the index files aside.
func (s *Reader) asideIndexesRLocked() error {
	n := s.info.Frames()
	entries := s.entries.bytes()
	var times []byte
	if s.times != nil {
		times = s.times.Bytes()
	}
	if len(entries) != n*index.EntrySize {
		panic(fmt.Sprintf("segment: %d bytes of index for %d frames", len(entries), n))
	}
	aside := func(path string, h index.Header, entries []byte) error {
		return writeAside(s.fs, path+asideSuffix, false, h.Encode(entries), entries)
	}
	err := aside(indexPath(s.path), s.indexHeader(index.KindEntries, n), entries)
	return errors.Join(err, aside(timePath(s.path), s.indexHeader(index.KindTimes, n), times))
}

// publishIndexes puts the index files written aside in their place, or removes them
// if there was an error, which it returns.
func (s *Reader) publishIndexes(err error) error {
	for _, path := range []string{indexPath(s.path), timePath(s.path)} {
		if err == nil {
			err = s.fs.Rename(path+asideSuffix, path)
		}
		if err != nil {
			s.fs.Remove(path + asideSuffix)
		}
	}
	return err
}

// loadIndexesLocked reads the index files, for info.Frames frames; false when
// they are missing, damaged or foreign.
func (s *Reader) loadIndexesLocked() bool {
	err := guard(indexPath(s.path), s.tryIndexesLocked)
	if err != nil {
		s.entries.release()
		s.times = nil
	}
	if s.loaded = err == nil; s.loaded {
		s.rebuilt = false // what rots from here on has not been tried yet
	}
	return s.loaded
}

func (s *Reader) tryIndexesLocked() error {
	n := s.info.Frames()
	f, err := s.fs.OpenFile(indexPath(s.path), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if size < index.HeaderSize {
		return index.ErrDamaged
	}
	p, err := ReadFile(s.fs, timePath(s.path), index.HeaderSize+(s.fileSize/timeInterval+2)*index.TimeEntrySize)
	if err != nil {
		return err
	}
	raw, _, err := s.indexHeader(index.KindTimes, n).Parse(p)
	if err != nil {
		return err
	}
	count := 0
	for x, _ := index.NewTime(raw, len(raw)/index.TimeEntrySize); count < x.Len() && int(x.At(count).Frame) < n; count++ {
	}
	// An active segment's mapping has to hold what is still to come.
	m, err := newMapping(f.Fd(), max(size, s.indexCapacity()))
	if err != nil {
		return err
	}
	s.entries.release()
	s.entries.file = m
	entries, covered, err := s.indexHeader(index.KindEntries, n).Parse(m.data[:size])
	if err != nil {
		return err
	}
	if covered < n || len(entries)/index.EntrySize < n {
		return index.ErrDamaged
	}
	s.entries.inFile = n
	s.times, s.timed = nil, HeaderSize
	if count > 0 {
		s.times, _ = index.NewTime(append([]byte(nil), raw[:count*index.TimeEntrySize]...), count)
		s.timed = s.positionRLocked(int(s.times.At(count-1).Frame) + 1)
	}
	return nil
}

// positionRLocked returns where frame i begins, or would.
func (s *Reader) positionRLocked(i int) int64 {
	if i == s.info.Frames() {
		return s.info.Bytes
	}
	return s.entries.at(i).Position
}

// addLocked counts f, which lies at the segment's end, in info and both tables.
func (s *Reader) addLocked(f *Frame) {
	i := s.info.Frames()
	s.entries.append(index.Entry{Offset: f.BaseOffset, Position: f.Position})
	s.info.LastIndex = f.Index
	s.info.NextOffset = f.NextOffset()
	s.info.LastTerm = f.Term
	s.info.MaxTimestamp = max(s.info.MaxTimestamp, f.MaxTimestamp)
	s.info.Bytes = f.Position + f.size()
	if s.info.Bytes-s.timed >= timeInterval {
		s.times = appendTime(s.times, index.TimeEntry{Max: s.info.MaxTimestamp, Frame: uint32(i)})
		s.timed = s.info.Bytes
	}
}

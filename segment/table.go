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

// A table is a segment's index of entries: the first lie in the mapped index file, the
// others in memory. Memory stays small however long the segment gets, and an idle segment
// needs no index file.
type table struct {
	base   int64
	file   *mapping     // nil: none is mapped
	inFile *index.Index // what lies in file; nil: nothing
	tail   *index.Index // nil while empty
	// detached says that the file under the index's name is not the mapped one any
	// more, so that nothing can be spilled to it.
	detached bool
}

// setFile makes the first n entries those of the mapped index file, which has them.
func (t *table) setFile(file *mapping, n int) {
	x, err := index.New(file.data[index.HeaderSize:], n, t.base)
	if err != nil {
		panic(err)
	}
	t.file, t.inFile = file, x
}

// spilled returns how many entries are in the file.
func (t *table) spilled() int {
	if t.inFile == nil {
		return 0
	}
	return t.inFile.Len()
}

func (t *table) at(i int) index.Entry {
	n := t.spilled()
	if i < n {
		return t.inFile.At(i)
	}
	return t.tail.At(i - n)
}

func (t *table) len() int {
	if t.tail == nil {
		return t.spilled()
	}
	return t.spilled() + t.tail.Len()
}

// find returns the last entry whose offset is at or below offset.
func (t *table) find(offset int64) (int, bool) {
	if t.tail != nil {
		if i, ok := t.tail.Find(offset); ok {
			return t.spilled() + i, true
		}
	}
	if t.spilled() == 0 {
		return 0, false
	}
	return t.inFile.Find(offset)
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
	if n < t.spilled() {
		t.setFile(t.file, n)
		t.tail = nil
	} else if t.tail != nil {
		t.tail.Truncate(n - t.spilled())
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
	if t.inFile != nil {
		p = append(p, t.inFile.Bytes()...)
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

// spill moves the tail to the index file when it is long. A failure costs
// memory, not safety: the tail stays, and the next append tries again.
func (s *Active) spill() error {
	s.mu.RLock()
	tail, inFile, file, detached := s.entries.tail, s.entries.spilled(), s.entries.file, s.entries.detached
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
	s.entries.setFile(file, inFile+len(p)/index.EntrySize)
	s.entries.tail = nil
	return nil
}

// writeIndexes writes whole index files aside and renames them, so that a
// reader who maps the old ones sees no change. They are not synced: a crash may
// cost them, and they are rebuilt. Called while nothing is appended; if more is
// appended later, the table goes on in the new file.
func (s *Active) writeIndexes() error {
	s.mu.RLock()
	err := s.publishIndexes(guard(s.path, s.tables.writeAside))
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
	s.entries.setFile(file, n)
	return nil
}

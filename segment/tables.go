package segment

import (
	"errors"
	"fmt"
	"os"
	"sort"

	"millrace/index"
)

// An origin is what never changes of a segment: where it lies and how it begins.
type origin struct {
	fs   FS
	path string
	h    Header
	// capacity bounds the file's length, and is what is mapped of it.
	capacity int64
}

// Tables are what is known of a segment's frames: what they hold together, and where each of
// them lies. They are a value without a lock: those of a Reader are under its mu; those that
// a recovery or a rebuild is making nobody else has.
//
// They are filled frame by frame (add), or from the index files (readIndexes).
type tables struct {
	origin
	fileSize int64 // the file's length when it was opened or sealed
	info     Info
	entries  table
	times    *index.TimeIndex
	timed    int64 // position up to which times covers
}

func newTables(o origin) tables { return tables{origin: o, entries: table{base: o.h.BaseOffset}} }

// reset makes the tables those of a segment without frames. The caller has released the
// mapping of their entries, or kept it.
func (t *tables) reset() {
	t.entries = table{base: t.h.BaseOffset}
	t.times = nil
	t.timed = HeaderSize
	t.info = Info{
		FirstIndex: t.h.FirstIndex, LastIndex: t.h.FirstIndex - 1,
		BaseOffset: t.h.BaseOffset, NextOffset: t.h.BaseOffset,
		PrevTerm: t.h.PrevTerm, LastTerm: t.h.PrevTerm,
		MaxTimestamp: -1, Bytes: HeaderSize, Salt: t.h.Salt, Created: t.h.Created,
	}
}

// add counts f, which lies at the segment's end.
func (t *tables) add(f *Frame) {
	i := t.info.Frames()
	t.entries.append(index.Entry{Offset: f.BaseOffset, Position: f.Position})
	t.info.LastIndex = f.Index
	t.info.NextOffset = f.NextOffset()
	t.info.LastTerm = f.Term
	t.info.MaxTimestamp = max(t.info.MaxTimestamp, f.MaxTimestamp)
	t.info.Bytes = f.Position + f.size()
	if t.info.Bytes-t.timed >= timeInterval {
		t.times = appendTime(t.times, index.TimeEntry{Max: t.info.MaxTimestamp, Frame: uint32(i)})
		t.timed = t.info.Bytes
	}
}

// end returns the place behind the last frame counted.
func (t *tables) end() cursor {
	return cursor{position: t.info.Bytes, index: t.info.LastIndex + 1, offset: t.info.NextOffset, term: t.info.LastTerm}
}

// position returns where frame i begins, or would.
func (t *tables) position(i int) int64 {
	if i == t.info.Frames() {
		return t.info.Bytes
	}
	return t.entries.at(i).Position
}

// parse reads the header of frame i from p, the file's bytes, and compares it with what the
// index says.
func (t *tables) parse(p []byte, i int) (Frame, *mismatch) {
	e := t.entries.at(i)
	limit := min(int64(len(p)), t.info.Bytes)
	if e.Position < HeaderSize || e.Position > limit {
		return Frame{Position: e.Position}, &mismatch{fmt.Sprintf("index position %d", e.Position), fmt.Sprintf("at most %d", limit)}
	}
	c := cursor{position: e.Position, index: t.h.FirstIndex + uint64(i), offset: e.Offset}
	f, wrong, _ := c.next(p[:limit], t.h.Salt)
	f.Position = e.Position
	return f, wrong
}

// maxTimestamp returns the largest timestamp of the first n frames, whose headers are read
// from p, the file's bytes, where the time index does not speak for them.
func (t *tables) maxTimestamp(p []byte, n int) (int64, error) {
	newest, i := int64(-1), 0
	if t.times != nil {
		if e, ok := t.times.Below(uint32(n)); ok {
			newest, i = e.Max, int(e.Frame)+1
		}
	}
	for ; i < n; i++ {
		f, wrong := t.parse(p, i)
		if wrong != nil {
			return 0, wrong.corrupt(t.path, f.Position)
		}
		newest = max(newest, f.MaxTimestamp)
	}
	return newest, nil
}

// cut forgets the frames from c on, of which the file's bytes, p, may still have some.
func (t *tables) cut(p []byte, c cursor) error {
	n := int(c.index - t.h.FirstIndex)
	newest, err := t.maxTimestamp(p, n)
	if err != nil {
		return err
	}
	t.info.LastIndex = c.index - 1
	t.info.NextOffset = c.offset
	t.info.LastTerm = c.term
	t.info.Bytes = c.position
	t.info.MaxTimestamp = newest
	t.entries.truncate(n)
	t.cutTimes(n)
	return nil
}

// cutTimes forgets what the time index says of frames from n on.
func (t *tables) cutTimes(n int) {
	t.timed = HeaderSize
	if t.times == nil {
		return
	}
	count := sort.Search(t.times.Len(), func(i int) bool { return int(t.times.At(i).Frame) >= n })
	p := t.times.Bytes()[:count*index.TimeEntrySize]
	if t.times = nil; count > 0 {
		t.times, _ = index.NewTime(p, count)
		t.timed = t.position(int(t.times.At(count-1).Frame) + 1)
	}
}

// rescan fills the tables from the frames in m, which have to be exactly those that known
// counts.
func (t *tables) rescan(m *mapping, known Info) error {
	t.reset()
	t.info.Compacted = known.Compacted // only the manifest knows
	return t.scan(m, known)
}

// scan adds the frames in m behind those that are there, up to those that known counts.
func (t *tables) scan(m *mapping, known Info) error {
	for c := t.end(); c.position < known.Bytes; {
		f, wrong, _ := c.next(m.data[:known.Bytes], t.h.Salt)
		if wrong != nil {
			return wrong.corrupt(t.path, c.position)
		}
		if err := t.fits(&f); err != nil {
			return err
		}
		t.add(&f)
		c.advance(&f)
		resident.add(m, int(f.size()))
	}
	if t.info != known {
		return &CorruptError{Path: t.path, Position: known.Bytes, Found: fmt.Sprintf("%+v", t.info), Expected: fmt.Sprintf("%+v", known)}
	}
	return nil
}

// fits refuses a frame that an entry of the index cannot point to: nobody wrote it here.
func (t *tables) fits(f *Frame) error {
	if index.Check(t.h.BaseOffset, index.Entry{Offset: f.BaseOffset, Position: f.Position}) == nil {
		return nil
	}
	return &CorruptError{Path: t.path, Position: f.Position, Found: fmt.Sprintf("offset %d", f.BaseOffset), Expected: fmt.Sprintf("less than 2^32 above %d", t.h.BaseOffset)}
}

func (t *tables) indexHeader(kind string, frames int) index.Header {
	return index.Header{Kind: kind, Salt: t.h.Salt, FirstIndex: t.h.FirstIndex, BaseOffset: t.h.BaseOffset, Frames: frames}
}

// indexCapacity is the length of an index file of as many frames as fit the segment.
func (o *origin) indexCapacity() int64 {
	return index.HeaderSize + (o.capacity/FrameHeaderSize+1)*index.EntrySize
}

// writeAside writes the index files under other names. It changes nothing of the tables.
func (t *tables) writeAside() error {
	n := t.info.Frames()
	entries := t.entries.bytes()
	var times []byte
	if t.times != nil {
		times = t.times.Bytes()
	}
	if len(entries) != n*index.EntrySize {
		panic(fmt.Sprintf("segment: %d bytes of index for %d frames", len(entries), n))
	}
	aside := func(path string, h index.Header, entries []byte) error {
		return writeAside(t.fs, path+AsideSuffix, false, h.Encode(entries), entries)
	}
	err := aside(indexPath(t.path), t.indexHeader(index.KindEntries, n), entries)
	return errors.Join(err, aside(timePath(t.path), t.indexHeader(index.KindTimes, n), times))
}

// publishIndexes puts the index files written aside in their place, or removes them
// if there was an error, which it returns.
func (o *origin) publishIndexes(err error) error {
	for _, path := range []string{indexPath(o.path), timePath(o.path)} {
		if err == nil {
			err = o.fs.Rename(path+AsideSuffix, path)
		}
		if err != nil {
			o.fs.Remove(path + AsideSuffix)
		}
	}
	return err
}

// readIndexes fills the tables from the index files, for info.Frames frames. After an error,
// when the files are missing, damaged or foreign, there are no entries and no times.
func (t *tables) readIndexes() error {
	err := guard(indexPath(t.path), t.tryIndexes)
	if err != nil {
		t.entries.release()
		t.times = nil
	}
	return err
}

func (t *tables) tryIndexes() error {
	n := t.info.Frames()
	f, err := t.fs.OpenFile(indexPath(t.path), os.O_RDONLY)
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
	p, err := ReadFile(t.fs, timePath(t.path), index.HeaderSize+(t.fileSize/timeInterval+2)*index.TimeEntrySize)
	if err != nil {
		return err
	}
	raw, _, err := t.indexHeader(index.KindTimes, n).Parse(p)
	if err != nil {
		return err
	}
	count := 0
	for x, _ := index.NewTime(raw, len(raw)/index.TimeEntrySize); count < x.Len() && int(x.At(count).Frame) < n; count++ {
	}
	// An active segment's mapping has to hold what is still to come.
	m, err := newMapping(f.Fd(), max(size, t.indexCapacity()))
	if err != nil {
		return err
	}
	t.entries.release()
	t.entries.file = m
	entries, covered, err := t.indexHeader(index.KindEntries, n).Parse(m.data[:size])
	if err != nil {
		return err
	}
	if covered < n || len(entries)/index.EntrySize < n {
		return index.ErrDamaged
	}
	t.entries.setFile(m, n)
	t.times, t.timed = nil, HeaderSize
	if count > 0 {
		t.times, _ = index.NewTime(append([]byte(nil), raw[:count*index.TimeEntrySize]...), count)
		t.timed = t.position(int(t.times.At(count-1).Frame) + 1)
	}
	return nil
}

package segment

import (
	"encoding/binary"
	"fmt"
	"sync"

	"millrace/index"
)

// scratch holds frame headers and the vector of one write; reused, since a
// broker writes thousands a second and idle partitions should hold none.
type scratch struct {
	headers []byte
	vector  [][]byte
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// Size returns the bytes that frames take in a file.
func Size(frames []Frame) int64 {
	var n int64
	for i := range frames {
		n += FrameSize(len(frames[i].Payload))
	}
	return n
}

// Fits reports whether frames can be appended to this segment.
func (s *Active) Fits(frames []Frame) bool {
	return s.fits(frames, Size(frames))
}

func (s *Active) fits(frames []Frame, size int64) bool {
	end := s.written.Load()
	if end+size > s.capacity {
		return false
	}
	last := &frames[len(frames)-1]
	at := end + size - FrameSize(len(last.Payload))
	return index.Check(s.h.BaseOffset, index.Entry{Offset: last.BaseOffset, Position: at}) == nil
}

// Append writes frames, one or more, at the segment's end with one system call,
// makes them durable if sync is set, and then shows them to readers. They must
// follow what is there: index by index and offset by offset, terms not falling.
// It fills in their Position and PayloadCRC. Payloads are neither changed nor
// retained.
//
// ErrFull and a *RefusedError leave everything as it was. After any other error the
// file may hold all, some or none of the frames: the segment must be closed and
// recovered.
func (s *Active) Append(frames []Frame, sync bool) error {
	size := Size(frames)
	if !s.fits(frames, size) {
		return ErrFull
	}
	s.check(frames)
	if err := s.Allocate(size); err != nil {
		return err
	}
	start := s.written.Load()
	if err := s.write(frames, start); err != nil {
		return fmt.Errorf("append to %s: %w", s.path, err)
	}
	if sync {
		if err := s.sync(start + size); err != nil {
			return err
		}
	}
	s.mu.Lock()
	for i := range frames {
		s.tables.add(&frames[i])
	}
	s.written.Store(s.info.Bytes)
	s.mu.Unlock()
	s.room.Store(s.allocated - start - size)
	_ = s.spill() // costs memory until it succeeds, nothing else
	return nil
}

// check panics when frames do not continue the segment: only a mistake of the
// caller's can be the cause.
func (s *Active) check(frames []Frame) {
	at := cursor{index: s.info.LastIndex + 1, offset: s.info.NextOffset, term: s.info.LastTerm}
	for i := range frames {
		f := &frames[i]
		if f.Index != at.index || f.BaseOffset != at.offset || f.Term < at.term || !f.Type.known() ||
			(f.Type == Command) != (f.Span > 0) || len(f.Payload) > MaxPayload {
			panic(fmt.Sprintf("segment %s: append %s index %d offset [%d,+%d) term %d, %d bytes, after %+v",
				s.path, f.Type, f.Index, f.BaseOffset, f.Span, f.Term, len(f.Payload), at))
		}
		at.advance(f)
	}
}

// write writes frames at position start. Two pieces a frame: a header, behind
// the padding of the frame before, and a payload as it is.
func (s *Active) write(frames []Frame, start int64) error {
	w := scratches.Get().(*scratch)
	defer scratches.Put(w)
	most := len(frames)*(FrameHeaderSize+7) + 7
	if cap(w.headers) < most {
		w.headers = make([]byte, 0, most)
	}
	h, v := w.headers[:0], w.vector[:0]
	defer func() { clear(v); w.vector = v[:0] }() // hold no payload
	from, at := 0, start
	for i := range frames {
		f := &frames[i]
		f.Position = at
		h = appendFrameHeader(h, f, s.h.Salt, at, i == 0 && s.synced.Load() == start)
		f.PayloadCRC, f.Summed = binary.BigEndian.Uint32(h[len(h)-8:]), false
		v = append(v, h[from:len(h):len(h)])
		if len(f.Payload) > 0 {
			v = append(v, f.Payload)
		}
		from = len(h)
		h = append(h, zeros[:padding(len(f.Payload))]...)
		at += f.size()
	}
	if from < len(h) {
		v = append(v, h[from:])
	}
	return s.file.Pwritev(v, start)
}

// Allocate makes sure that the next Append of n bytes, as Size counts them, has
// room on the disk. It does not go beyond the segment's capacity. *RefusedError;
// frames are as they were after any error.
func (s *Active) Allocate(n int64) error {
	need := min(s.written.Load()+n, s.capacity)
	if need <= s.allocated {
		return nil
	}
	size := s.allocated
	for size < need {
		size += min(max(size, minAllocate), maxAllocate)
	}
	size = min(size, s.capacity)
	err := s.allocate(size)
	if IsNoSpace(err) && size > need {
		size = need // a full disk may still have what is needed, if not what is convenient
		err = s.allocate(size)
	}
	if err != nil {
		return Refused(fmt.Errorf("allocate %d bytes for %s: %w", size, s.path, err))
	}
	return nil
}

// allocate takes room up to size. A call that finds too little may have taken what
// there was, and made the file longer: that is given back.
func (s *Active) allocate(size int64) error {
	err := s.file.Allocate(s.allocated, size)
	if err != nil {
		if n, serr := s.file.Size(); serr == nil {
			s.length = max(s.length, n)
		}
		if from := pageUp(s.allocated); IsNoSpace(err) && from < size {
			_ = s.file.Punch(from, size) // at worst it stays taken until the segment is sealed
		}
		return err
	}
	s.length, s.allocated = max(s.length, size), size
	s.room.Store(size - s.written.Load())
	return nil
}

// punchKeeps is the room that PunchTail leaves: for some 60 entries without records, as
// an election and a trim need them. Without that a partition on a full disk could not
// commit the trim that frees room.
const punchKeeps = 4 << 10

// PunchTail gives back the disk room behind the last frame, but for punchKeeps, on a
// full disk on which something has to be written that will free more. The next Append of
// more allocates anew. The file keeps its length. Only the writer may call it.
func (s *Active) PunchTail() {
	end := pageUp(s.written.Load() + punchKeeps)
	if end >= s.length || s.file.Punch(end, s.length) != nil {
		return
	}
	s.allocated = min(s.allocated, end)
	s.room.Store(s.allocated - s.written.Load())
}

const page = 4096

func pageUp(n int64) int64 { return (n + page - 1) &^ (page - 1) }

// Room returns the bytes that can be appended without allocating; any goroutine
// may ask.
func (s *Active) Room() int64 { return s.room.Load() }

// Synced reports whether all that was appended is durable.
func (s *Active) Synced() bool { return s.synced.Load() == s.written.Load() }

// Sync makes durable what was appended before the call. It may run beside
// Append; a failure is final: the segment must be closed and recovered.
func (s *Active) Sync() error {
	end := s.written.Load()
	if s.synced.Load() >= end {
		return nil
	}
	return s.sync(end)
}

// sync makes the bytes below end durable. One at a time: the system reports a
// failed write-back to one caller of fdatasync only, and the others must not
// take their success for granted.
func (s *Active) sync(end int64) error {
	s.closing.Lock()
	defer s.closing.Unlock()
	if s.broken != nil {
		return s.broken
	}
	if s.synced.Load() >= end {
		return nil
	}
	if s.isClosed() {
		return ErrClosed
	}
	if err := s.file.Sync(); err != nil {
		s.broken = fmt.Errorf("sync %s: %w", s.path, err)
		return s.broken
	}
	s.synced.Store(end)
	return nil
}

func (s *Active) isClosed() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.closed
}

// dropStep is how much is synced before it is dropped from the page cache: a call costs
// as much as a small write.
const dropStep = 1 << 20

// largestFolio is the most memory in which the system caches a file as one piece. It
// drops whole pieces only, so one that reaches beyond a step is named again with the next.
const largestFolio = 4 << 20

// DropCache drops what is synced from the page cache (POSIX_FADV_DONTNEED). It is for
// replicas that follow: their records are read by nobody, and the memory serves the
// partitions that this node leads. Only the writer may call it.
func (s *Active) DropCache() {
	end := s.synced.Load() &^ (page - 1)
	if end-s.dropped < dropStep {
		return
	}
	s.file.DropCache(max(0, s.dropped-largestFolio), end)
	s.dropped = end
}

// Finish prepares the segment for its end, by sealing or by a clean close: it
// syncs, and writes the index files, whose failure costs only time later. The
// segment can still be appended to.
func (s *Active) Finish() error {
	if err := s.Sync(); err != nil {
		return err
	}
	if s.info.Frames() > 0 {
		_ = s.writeIndexes()
	}
	return nil
}

// Seal ends a finished segment: it gives back the disk room behind the last frame and says
// what the segment holds. Nothing may be appended any more. Its Reader goes on until
// Close; OpenSealed opens another, for less memory.
func (s *Active) Seal() (Info, error) {
	if !s.Synced() {
		panic("segment: sealed before it was synced")
	}
	if from := pageUp(s.info.Bytes); from < s.length {
		_ = s.file.Punch(from, s.length) // room, not safety
	}
	s.closing.Lock()
	defer s.closing.Unlock()
	s.mu.Lock() // a reader may be about to map f
	defer s.mu.Unlock()
	s.f, s.fileSize = nil, s.length
	return s.info, s.file.Close()
}

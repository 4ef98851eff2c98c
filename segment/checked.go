package segment

import (
	"sync/atomic"
	"time"

	"millrace/index"
)

// To compare a frame with its CRC takes longer than to send it: the bytes come
// from memory that is in no cache of the processor. Ten consumers that read the
// same gigabyte got a third more of it without. So what Read has compared is not
// compared again for checkedFor, as long as
//
//   - the file has not been changed since, which its inode tells: the time of its
//     last change, which nobody can set;
//   - everything that Read may touch is in memory before it touches it. If a page
//     is not, all that is remembered of the file is forgotten: what the system reads
//     from the disk, it reads ahead.
//
// What is left are pages that the system dropped and that something else than
// Read had read again, within checkedFor, from a disk that had begun to rot.
const (
	// checkedFor is how long a comparison is relied on. A consumer that takes its
	// answer slowly gets bytes that were compared longer ago.
	checkedFor = 10 * time.Second
	// checkedBlock is the shortest frame that is remembered. No two of them begin in
	// the same block of the file, so there is one stamp a block: 256 KiB for 1 GiB.
	checkedBlock = 16 << 10
	// settledAfter is how long ago a file's last change must be. A clock of files
	// that ticks every few milliseconds may give two changes the same time.
	settledAfter = time.Second
)

// A checkedFrames remembers which frames of a file were found good, and when. It
// is for one state of the file, and safe for concurrent use.
type checkedFrames struct {
	file   fileState
	began  time.Time
	stamps []atomic.Uint32 // by block: the second, counted from began and from 1; 0: never
}

// A fileState is the same as long as a file was not changed.
type fileState struct {
	inode   uint64
	changed time.Time // of the inode, by the file system's clock
}

// checkedFrames returns what is remembered of the file as it is now; nil when
// nothing can be.
func (s *Segment) checkedFrames() *checkedFrames {
	file, err := stateOf(s.path)
	if err != nil || time.Since(file.changed) < settledAfter {
		return nil
	}
	c := s.checked.Load()
	if c == nil || c.file != file {
		// Two readers may both do this: what one of them remembers is lost.
		c = &checkedFrames{file: file, began: time.Now(), stamps: make([]atomic.Uint32, s.written.Load()/checkedBlock+1)}
		s.checked.Store(c)
	}
	return c
}

// recall finds out what is remembered, before r, which may return maxBytes of
// batches of the first frames, touches anything of the file.
func (r *reader) recall(frames, maxBytes int) {
	i, err := r.s.search(r.offset)
	if err != nil || i >= frames {
		return
	}
	var at [2]index.Entry // of the first frame, and of the one behind it
	n, err := r.s.lookup(at[:min(len(at), frames-i)], i)
	if err != nil || n == 0 {
		return
	}
	from, to := at[0].Position, r.s.written.Load()
	if n == 2 {
		headers := int64(maxBytes/checkedBlock+1) * FrameSize(7) // of long frames, with their padding
		to = min(to, max(at[1].Position, from+int64(maxBytes)+headers))
	}
	if from < HeaderSize || from >= to {
		return // a rotten index
	}
	if to-from < checkedBlock && r.s.checked.Load() == nil {
		return // nothing to rely on, and nothing to forget
	}
	c := r.s.checkedFrames()
	switch {
	case c == nil:
		return
	case !r.m.resident(from, to):
		r.s.checked.Store(nil)
		c = r.s.checkedFrames()
	case r.s.checked.Load() != c:
		return // another reader has just found a page missing, and may have had these read
	}
	if c != nil {
		r.checked, r.recalled = c, min(to, int64(len(c.stamps))*checkedBlock)
	}
}

// check compares a frame, whose bytes with padding are body, with its CRC, unless
// that was done of late.
func (r *reader) check(f *Frame, body []byte) *mismatch {
	if r.checked == nil || len(body) < checkedBlock || f.Position+f.size() > r.recalled {
		return f.checkPayload(body)
	}
	if r.checked.good(f) {
		return nil
	}
	wrong := f.checkPayload(body)
	if wrong == nil {
		r.checked.found(f)
	}
	return wrong
}

func (c *checkedFrames) second() uint32 { return uint32(time.Since(c.began)/time.Second) + 1 }

// good tells whether the frame was found good of late.
func (c *checkedFrames) good(f *Frame) bool {
	stamp := c.stamps[f.Position/checkedBlock].Load()
	return stamp != 0 && c.second()-stamp < uint32(checkedFor/time.Second)
}

// found notes that the frame was found good.
func (c *checkedFrames) found(f *Frame) { c.stamps[f.Position/checkedBlock].Store(c.second()) }

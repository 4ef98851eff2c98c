package segment

import (
	"sync/atomic"
	"time"

	"millrace/index"
)

// Read checks a long frame's CRC once, and not again for checkedFor: to check a frame
// takes longer than to send it, since its bytes are in no cache of the processor. Ten
// consumers of the same gigabyte got a third more of it this way. It holds as long as
//
//   - the file is unchanged, by the change time of its inode, which nobody can set;
//   - every page that Read may touch is in memory before it touches it. If one is not,
//     the cache of the whole file is emptied, since the system reads ahead: other pages
//     may have come from the disk as well since they were checked.
//
// One case is left. The system drops a page of a checked frame, something other than
// Read has it read again within checkedFor, and the disk has begun to rot there: then
// rotten bytes are served.
const (
	// checkedFor is how long a check is relied on. A consumer that takes its answer
	// slowly gets bytes that were checked longer ago.
	checkedFor = 10 * time.Second
	// checkedBlock is the shortest frame that is cached. No two of them begin in the
	// same block of the file, so there is one stamp a block: 256 KiB for 1 GiB.
	checkedBlock = 16 << 10
	// settledAfter is how long ago a file's last change must be. A clock of files
	// that ticks every few milliseconds may give two changes the same time.
	settledAfter = time.Second
)

// A crcCache holds when each long frame of a file was last checked and found good. It is
// for one state of the file, and safe for concurrent use.
type crcCache struct {
	file   fileState
	began  time.Time
	stamps []atomic.Uint32 // by block: the second, counted from began and from 1; 0: never
}

// A fileState is the same as long as a file was not changed.
type fileState struct {
	inode   uint64
	changed time.Time // of the inode, by the file system's clock
}

// crcCache returns the cache of the file as it is now; nil when there can be none.
func (s *Reader) crcCache() *crcCache {
	file, err := stateOf(s.path)
	if err != nil || time.Since(file.changed) < settledAfter {
		return nil
	}
	c := s.crcs.Load()
	if c == nil || c.file != file {
		// Two readers may both do this: what one of them notes is lost.
		c = &crcCache{file: file, began: time.Now(), stamps: make([]atomic.Uint32, s.written.Load()/checkedBlock+1)}
		s.crcs.Store(c)
	}
	return c
}

// askCache decides which frames g may take from the cache. It comes before g, which may
// return maxBytes of batches of the first frames, touches anything of the file.
func (g *gathering) askCache(frames, maxBytes int) {
	i, err := g.search(g.offset)
	if err != nil || i >= frames {
		return
	}
	var at [2]index.Entry // of the first frame, and of the one behind it
	n, err := g.entriesFrom(at[:min(len(at), frames-i)], i)
	if err != nil || n == 0 {
		return
	}
	from, to := at[0].Position, g.written.Load()
	if n == 2 {
		headers := int64(maxBytes/checkedBlock+1) * FrameSize(7) // of long frames, with their padding
		to = min(to, max(at[1].Position, from+int64(maxBytes)+headers))
	}
	if from < HeaderSize || from >= to {
		return // a rotten index
	}
	if to-from < checkedBlock && g.crcs.Load() == nil {
		return // nothing is cached, and nothing will be
	}
	c := g.crcCache()
	switch {
	case c == nil:
		return
	case !g.m.inMemory(from, to):
		g.crcs.Store(nil)
		c = g.crcCache()
	case g.crcs.Load() != c:
		return // another reader has just found a page missing, and may have had these read
	}
	if c != nil {
		g.checked, g.cached = c, min(to, int64(len(c.stamps))*checkedBlock)
	}
}

// check compares a frame, whose bytes with padding are body, with its CRC, unless the
// cache has it.
func (g *gathering) check(f *Frame, body []byte) *mismatch {
	if g.checked == nil || len(body) < checkedBlock || f.Position+f.size() > g.cached {
		return f.checkPayload(body)
	}
	if g.checked.has(f) {
		return nil
	}
	wrong := f.checkPayload(body)
	if wrong == nil {
		g.checked.note(f)
	}
	return wrong
}

func (c *crcCache) second() uint32 { return uint32(time.Since(c.began)/time.Second) + 1 }

// has reports whether the frame's CRC was found right within checkedFor.
func (c *crcCache) has(f *Frame) bool {
	stamp := c.stamps[f.Position/checkedBlock].Load()
	return stamp != 0 && c.second()-stamp < uint32(checkedFor/time.Second)
}

// note records that the frame's CRC has just been found right.
func (c *crcCache) note(f *Frame) { c.stamps[f.Position/checkedBlock].Store(c.second()) }

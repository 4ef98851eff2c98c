package log

import (
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

var _ raft.LogStore = (*Log)(nil)

// StoreLog stores one entry; see StoreLogs.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs appends entries, which must follow the last one without a gap, and
// makes them durable as FlushMessages says.
//
// A command's Data is one or more whole batches. Each is stamped in place with
// its offset and with the term as its leader epoch, unless its epoch says already
// that a leader of this term stamped it: then the offset must be the right one,
// or the answer is a *MismatchError. A leader passes new batches with another
// epoch than its term; clients send -1. The batches' own CRCs must hold, as
// record.Validate found: the frame's is made of them. Data belongs to the log from
// here on: it must not change any more. Only if all batches of the call had their
// leader's stamp already, nothing of it is kept.
//
// After a *RefusedError, and errors about the entries themselves, nothing was stored
// and the entries are as they were. After any other error anything may have been
// stored, and the log is failed.
func (l *Log) StoreLogs(logs []*raft.Log) error {
	_, err := l.write(logs, true)
	return err
}

// WriteLogs is StoreLogs without the wait for the disk. due says that FlushMessages wants
// the entries durable, which they are not yet: the caller calls Flush, and acknowledges
// none of them before it has returned. Readers see them at once.
func (l *Log) WriteLogs(logs []*raft.Log) (due bool, err error) { return l.write(logs, false) }

// write appends entries. due says that FlushMessages wants them durable at once; if sync
// is set they are.
func (l *Log) write(logs []*raft.Log, sync bool) (due bool, err error) {
	if len(logs) == 0 {
		return false, nil
	}
	if err := l.begin(); err != nil {
		return false, err
	}
	defer l.finish()
	st := l.state.Load()
	frames, err := framesOf(logs, st.end(), l.dir)
	if err != nil {
		return false, err
	}
	n, err := l.makeRoomLocked(frames)
	if err != nil {
		return false, err
	}
	own := stamp(logs, frames)
	records := l.unflushed
	for i := range frames {
		records += int64(frames[i].Span)
		due = due || frames[i].Type != segment.Command
	}
	due = due || records >= l.cfg.FlushMessages
	sync = sync && due

	for rest := frames; ; {
		if err := l.state.Load().active.Append(rest[:n], sync); err != nil {
			return false, l.fail(err) // also a disk that got full in spite of the room made
		}
		l.extendEpochsLocked(rest[:n]) // before the next roll, which writes them down
		if l.began == 0 {
			l.began = l.now().UnixMilli()
		}
		if rest = rest[n:]; len(rest) == 0 {
			break
		}
		if n, err = l.makeRoomLocked(rest); err != nil {
			return false, l.fail(fmt.Errorf("half of a call is stored: %w", unrefused(err)))
		}
	}
	if l.unflushed = records; due {
		l.unflushed = 0
	}
	l.isFollower.Store(!own)
	if sync && !own {
		// Clients read from the leader, so the page cache is better spent on the
		// partitions that this node leads.
		l.state.Load().active.DropCache()
	}
	l.cache.put(&l.cached, logs, !own)
	return due, nil
}

// makeRoomLocked sees to it that the active segment, after a roll if need be, has room
// on the disk for the first n frames: as many as belong into one segment. All of
// them, nearly always: a call is not split for the sake of filling a segment to the
// brim, only if it is larger than a segment. *RefusedError; any other error has
// failed the log.
func (l *Log) makeRoomLocked(frames []segment.Frame) (n int, err error) {
	active := l.state.Load().active
	n = len(frames)
	if active == nil || !active.Fits(frames) || active.Info().Bytes+segment.Size(frames) > l.cfg.SegmentBytes && active.Info().Frames() > 0 {
		least := segment.HeaderSize + segment.Size(frames[:1])
		if err := l.rollLocked(max(l.cfg.SegmentBytes, least)); err != nil {
			return 0, err
		}
		active = l.state.Load().active
		for n > 1 && !active.Fits(frames[:n]) {
			n--
		}
	}
	if err := active.Allocate(segment.Size(frames[:n])); err != nil {
		return 0, l.failUnlessRefused(err)
	}
	return n, nil
}

func (l *Log) extendEpochsLocked(frames []segment.Frame) {
	st := l.state.Load()
	epochs := st.epochs
	for i := range frames {
		epochs = addEpoch(epochs, frames[i].Term, frames[i].BaseOffset)
	}
	if len(epochs) > 0 && (len(st.epochs) == 0 || epochs[len(epochs)-1] != st.epochs[len(st.epochs)-1]) {
		c := *st
		c.epochs = epochs
		l.state.Store(&c)
	}
}

// Reserve makes sure that the next StoreLogs, of this many entries with so many bytes
// of data in all, has room on the disk, up to a segment's size. A leader calls it
// before it hands an entry to Raft, with all entries on their way, since Raft takes a
// full disk for a lost leadership. Room for some entries without data is left beside
// them, for those that Raft makes itself. It is cheap when there is room.
// *RefusedError; any other error has failed the log.
func (l *Log) Reserve(entries, bytes int) error {
	const perEntry = segment.FrameHeaderSize + 8 // and padding
	headers := int64(entries+64) * perEntry
	need := int64(bytes) + headers
	if a := l.state.Load().active; a != nil && a.Room() >= need && l.Err() == nil {
		return nil
	}
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	a := l.state.Load().active
	size := l.cfg.SegmentBytes
	need = int64(bytes) + min(headers, int64(entries)*perEntry+size/64) // small segments need not end early for it
	if a == nil || a.Info().Bytes+need > max(size, a.Capacity()) || a.Info().Frames() > 0 && a.Info().Bytes+need > size {
		if err := l.rollLocked(max(size, segment.HeaderSize+need)); err != nil {
			return err
		}
		a = l.state.Load().active
	}
	if err := a.Allocate(need); err != nil {
		return l.failUnlessRefused(err)
	}
	return nil
}

// SetCommitted says that the entries up to index are committed and applied. From then on
// a DeleteRange that would cut one of them off the end is refused, whatever Raft wants.
// On a follower they leave the cache.
func (l *Log) SetCommitted(index uint64) {
	if l.isFollower.Load() {
		l.cache.evict(&l.cached, index)
	}
	for {
		old := l.committed.Load()
		if index <= old || l.committed.CompareAndSwap(old, index) {
			return
		}
	}
}

// Evict drops the entries up to index from the cache: they will not be read soon.
func (l *Log) Evict(index uint64) { l.cache.evict(&l.cached, index) }

// DeleteRange deletes the entries from min to max, both included, as far as the
// log has them. *RefusedError. Raft has three reasons to ask:
//
//	   first              last
//	     |==================|
//	                min-----max    a suffix lost an election: it is cut, durably
//	min-----max                    raft is done with a prefix: only FirstIndex moves;
//	                               the data goes when Drop says so
//	min---------------------max    the whole log lost an election, and is cut; or, after
//	                               a snapshot was installed, which must not happen
//	                               through Raft: SetCommitted refuses it
//	        min-----max            never: it would leave a hole
func (l *Log) DeleteRange(min, max uint64) error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	first, last := l.state.Load().bounds()
	switch {
	case last == 0, max < first, min > last, min > max:
		return nil
	case max < last && min <= first:
		return nil
	case max < last:
		return fmt.Errorf("log %s: delete entries %d to %d of %d to %d: it would leave a hole", l.dir, min, max, first, last)
	}
	if min < first {
		min = first
	}
	if c := l.committed.Load(); min <= c {
		return fmt.Errorf("%w: log %s: delete entries %d to %d, committed up to %d", ErrCommitted, l.dir, min, max, c)
	}
	return l.cutLocked(min)
}

// cutLocked deletes the entries from index on, which the log has.
func (l *Log) cutLocked(index uint64) error {
	st := l.state.Load()
	k := len(st.tail) - 1
	for st.tail[k].Header().FirstIndex > index {
		k--
	}
	s := st.tail[k]
	if st.isActive(s) {
		if err := st.active.Finish(); err != nil {
			return l.fail(err)
		}
	}
	info, err := s.Prefix(index)
	if err != nil {
		return l.failUnlessRefused(err)
	}
	if info.NextOffset < st.start {
		return fmt.Errorf("%w: log %s: delete entries from %d at offset %d, the log starts at %d", ErrCommitted, l.dir, index, info.NextOffset, st.start)
	}
	tail := slices.Clone(st.tail[:k])
	if info.Frames() > 0 {
		// The file keeps its bytes; what comes next goes to another one.
		sealed, err := segment.OpenSealed(l.folder.fs, s.Path(), l.folder.manifest.identity, info)
		if err != nil {
			return l.failUnlessRefused(err)
		}
		tail = append(tail, sealed)
	}
	err = l.changeLocked(func(m *manifest) {
		m.end = endOf(info)
		m.epochs = cutEpochs(st.epochs, m.end)
		m.removeFrom(len(tail))
		if len(tail) > k {
			m.tail[k].sealed, m.tail[k].info = true, info
		}
	}, func(m *manifest) *state {
		l.cache.cut(&l.cached, index)
		next := &state{origin: m.end, start: st.start, epochs: m.epochs}
		next.list(st.base(), tail)
		return next
	})
	if err != nil {
		if len(tail) > k {
			tail[k].Close()
		}
		return err
	}
	l.unflushed = 0
	return nil
}

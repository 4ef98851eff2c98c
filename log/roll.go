package log

import (
	crand "crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"millrace/segment"
)

// rollLocked ends the last segment, if it has entries, and begins a new one with
// room for capacity bytes. *RefusedError: the new one is gone, and the last one goes
// on.
func (l *Log) rollLocked(capacity int64) error {
	st := l.state.Load()
	end := st.end()
	active := st.active
	if active != nil {
		if err := active.Finish(); err != nil {
			return l.fail(err)
		}
	}
	n := name{l.folder.manifest.nextSerial, end.offset}
	h := segment.Header{
		Identity: l.folder.manifest.identity, FirstIndex: end.index, BaseOffset: end.offset, PrevTerm: end.term,
		Salt: newSalt(), Created: l.now().UnixMilli(),
	}
	abandon := func() {
		if segment.Remove(l.folder.fs, l.folder.path(n.file())) != nil {
			// That name is taken, until the manifest that comes next has it deleted.
			l.folder.manifest.nextSerial++
			l.folder.manifest.removed = append(l.folder.manifest.removed, n)
		}
	}
	seg, err := segment.Create(l.folder.fs, l.folder.path(n.file()), h, capacity)
	if err != nil {
		abandon()
		return l.failUnlessRefused(err)
	}
	if err := segment.SyncDir(l.folder.fs, l.dir); err != nil {
		seg.Close()
		abandon()
		return l.failUnlessRefused(fmt.Errorf("begin a segment of log %s: %w", l.dir, err))
	}
	last := len(st.tail) - 1
	empty := active != nil && active.Info().Frames() == 0
	err = l.changeLocked(func(m *manifest) {
		m.nextSerial++
		m.epochs = st.epochs
		switch {
		case empty:
			m.removeFrom(last)
		case active != nil:
			m.tail[last].sealed, m.tail[last].info = true, active.Info()
		}
		info := seg.Info()
		info.Bytes = 0
		m.tail = append(m.tail, manifestSegment{n, false, info})
	}, func(m *manifest) *state {
		tail := slices.Clone(st.tail)
		switch {
		case empty:
			tail = tail[:last]
		case active != nil:
			tail[last] = l.sealLocked(active)
		}
		next := &state{active: seg, start: st.start, epochs: st.epochs}
		next.list(st.base(), append(tail, &seg.Reader))
		return next
	})
	if err != nil {
		seg.Close()
		if segment.IsRefused(err) { // else only the disk knows whether it is listed
			abandon()
		}
		return err
	}
	l.unflushed, l.began = 0, 0
	return nil
}

// sealLocked seals a segment that the manifest calls sealed, and opens it again for
// readers: that takes next to no memory. If it fails the segment is read as it is.
func (l *Log) sealLocked(active *segment.Active) *segment.Reader {
	info, err := active.Seal()
	if err != nil {
		l.logger.Warn("a sealed segment could not be closed", "segment", active.Path(), "error", err)
	}
	l.rolled = info.LastIndex
	sealed, err := segment.OpenSealed(l.folder.fs, active.Path(), l.folder.manifest.identity, info)
	if err != nil {
		return &active.Reader
	}
	return sealed
}

func newSalt() uint64 {
	var p [8]byte
	crand.Read(p[:]) // never fails
	return binary.BigEndian.Uint64(p[:])
}

// Roll ends the last segment, if it has any entry. *RefusedError.
func (l *Log) Roll() error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	if a := l.state.Load().active; a == nil || a.Info().Frames() == 0 {
		return nil
	}
	return l.rollLocked(l.cfg.SegmentBytes)
}

// RollIfDue ends the last segment if its first entry is older than SegmentAge, and says
// whether it did. *RefusedError.
//
// An entry's age is the time for which it has been here: one that comes to a segment
// which has long lain empty does not end it. After a restart it is taken for as old as
// its segment, the only time that the disk has. A clock that was set back makes it no
// younger than just stored, so a segment waits for SegmentAge once more at most, and not
// until the clock is where it was.
func (l *Log) RollIfDue(now time.Time) (rolled bool, err error) {
	if err := l.begin(); err != nil {
		return false, err
	}
	defer l.finish()
	a := l.state.Load().active
	if a == nil || a.Info().Frames() == 0 {
		return false, nil
	}
	l.began = min(l.began, now.UnixMilli())
	if now.UnixMilli()-l.began < l.cfg.SegmentAge.Milliseconds() {
		return false, nil
	}
	if err := l.rollLocked(l.cfg.SegmentBytes); err != nil {
		return false, err
	}
	return true, nil
}

// Checkpoint syncs and records how far the log is whole, as a clean Close does:
// the next Open reads what follows, and not the whole of a segment that may be
// large. StoreLogs waits meanwhile, but not for what there is to sync. *RefusedError.
func (l *Log) Checkpoint() error {
	if err := l.Flush(); err != nil {
		return err
	}
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	return l.checkpointLocked()
}

// checkpointLocked records in the manifest what the last segment holds.
func (l *Log) checkpointLocked() error {
	st := l.state.Load()
	a := st.active
	if a == nil || a.Info() == l.folder.manifest.tail[len(st.tail)-1].info {
		return nil
	}
	if err := a.Finish(); err != nil {
		return l.fail(err)
	}
	m := l.folder.manifest.clone()
	m.tail[len(st.tail)-1].info = a.Info()
	m.epochs = st.epochs
	return l.commitLocked(m)
}

package log

import (
	"errors"
	"fmt"
	"slices"

	"millrace/segment"
)

// begin starts a change; finish, which must follow, ends it and tells the owner of a roll.
func (l *Log) begin() error {
	l.changing.Lock()
	if err := l.Err(); err != nil {
		l.changing.Unlock()
		return err
	}
	return nil
}

func (l *Log) finish() {
	rolled := l.rolled
	l.rolled = 0
	l.changing.Unlock()
	if rolled > 0 {
		l.owner.LogRolled(rolled)
	}
}

// Err returns why the log takes no more changes, or nil: a *FailedError, or
// ErrClosed.
func (l *Log) Err() error {
	if l.closed.Load() {
		return ErrClosed
	}
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail makes err the log's answer to every later change, and tells its owner.
func (l *Log) fail(err error) error {
	err = &FailedError{Dir: l.dir, Err: unrefused(err)}
	if l.failed.CompareAndSwap(nil, &err) {
		l.logger.Error("log failed and has to be reopened", "error", err)
		l.owner.LogFailed(err)
	}
	return *l.failed.Load()
}

// unrefused returns what the system said, where something has changed all the same.
func unrefused(err error) error {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Err
	}
	return err
}

// failUnlessRefused is for a step before which nothing has changed.
func (l *Log) failUnlessRefused(err error) error {
	if segment.IsRefused(err) {
		return err
	}
	return l.fail(err)
}

// commitLocked replaces the manifest by m. *RefusedError; any other error fails the
// log.
func (l *Log) commitLocked(m *manifest) error {
	renamed, err := l.folder.commit(m)
	if !renamed && segment.IsNoSpace(err) {
		l.releaseRoomLocked(m.removed) // even a full disk takes the change that frees it
		_, err = l.folder.commit(m)
	}
	if err != nil {
		return l.failUnlessRefused(fmt.Errorf("write the manifest of log %s: %w", l.dir, err))
	}
	return nil
}

// changeLocked is the one way in which an open log's list of segments changes:
//
//  1. The caller has made the files that the new list needs and synced them and their
//     names. It has changed nothing else.
//  2. edit changes a copy of the manifest, which is put in the manifest's place. A crash
//     leaves the old list or the new one. A *RefusedError leaves the old one; any other
//     error fails the log.
//  3. Readers see the state that next makes of the new manifest.
//  4. Segments that are no longer in the list are closed. Who reads one of them gets
//     segment.ErrClosed, finds that the state has changed, and reads again.
//  5. The files that the manifest calls removed are deleted. What cannot be deleted stays
//     among them, for the next change or Open.
//
// After an error the caller closes what it opened for the new list.
func (l *Log) changeLocked(edit func(m *manifest), next func(m *manifest) *state) error {
	m := l.folder.manifest.clone()
	edit(m)
	if err := l.commitLocked(m); err != nil {
		return err
	}
	old, now := l.state.Load(), next(m)
	l.state.Store(now)
	for _, s := range without(old.segments, now.segments) {
		if err := s.Close(); err != nil {
			l.logger.Warn("a segment could not be closed", "segment", s.Path(), "error", err)
		}
	}
	l.folder.removeFiles(m)
	return nil
}

// without returns the segments of old that are not in now. Lists may be long, and differ in
// few places.
func without(old, now []*segment.Reader) (gone []*segment.Reader) {
	for len(old) > 0 && len(now) > 0 && old[0] == now[0] {
		old, now = old[1:], now[1:]
	}
	for len(old) > 0 && len(now) > 0 && old[len(old)-1] == now[len(now)-1] {
		old, now = old[:len(old)-1], now[:len(now)-1]
	}
	for _, s := range old {
		if !slices.Contains(now, s) {
			gone = append(gone, s)
		}
	}
	return gone
}

// ReleaseRoom gives back disk room that the log can take again later, at the cost of time:
// for a full disk on which something has to be written that will free more.
func (l *Log) ReleaseRoom() {
	if l.begin() != nil {
		return
	}
	defer l.finish()
	l.releaseRoomLocked(nil)
}

// releaseRoomLocked is ReleaseRoom of a log that is about to lose the segments named. It
// gives back what was preallocated, and index files: those of the segments that go, and of
// the oldest, which is read least. Readers keep what they have mapped, and the next one
// rebuilds them.
func (l *Log) releaseRoomLocked(going []name) {
	st := l.state.Load()
	if a := st.active; a != nil {
		a.PunchTail()
	}
	for _, n := range going {
		if !l.folder.writing[n] {
			_ = segment.RemoveIndexes(l.folder.fs, l.folder.path(n.file()))
		}
	}
	if sealed := st.sealed(); len(sealed) > 0 {
		_ = segment.RemoveIndexes(l.folder.fs, sealed[0].Path())
	}
}

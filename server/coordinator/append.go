package coordinator

import "millrace/segment/record"

// An Appender is who has records appended, and is told what became of them.
type Appender interface {
	// AppendedLocked is called once for each append, with the shard's lock held, in the
	// order of the appends and never before the call that appends has returned. nil says
	// that a quorum has the records. Where Lost holds for the error, the shard has been
	// unloaded.
	AppendedLocked(err error)
}

// A pendingAppend is one whose outcome has not been told yet.
type pendingAppend struct {
	by     Appender
	replay []record.Record // to be replayed first, when a quorum has them
	known  bool            // the journal has said what became of it: err
	err    error
}

func (a *pendingAppend) tell(err error) {
	if a.by != nil {
		a.by.AppendedLocked(err)
	}
}

// AppendLocked appends records to the journal, and tells by what became of it. Nil:
// nobody is told.
func (s *Shard) AppendLocked(records []record.Record, by Appender) {
	s.appendLocked(records, &pendingAppend{by: by})
}

// WriteLocked appends records and, when a quorum has them, replays them before it tells
// by: the way in which a state machine changes what is to survive.
func (s *Shard) WriteLocked(records []record.Record, by Appender) {
	s.appendLocked(records, &pendingAppend{by: by, replay: records})
}

func (s *Shard) appendLocked(records []record.Record, a *pendingAppend) {
	s.pendingMu.Lock()
	s.pending = append(s.pending, a)
	s.pendingMu.Unlock()
	if s.unloaded {
		// Whoever loads the partition next, in this very epoch perhaps, must not find
		// what this shard wrote after it was told to stop.
		s.outcome(a, ErrUnloaded)
		return
	}
	s.cfg.Journal.Append(s.Partition, s.Epoch, records, func(err error) { s.outcome(a, err) })
}

// outcome is what the journal calls.
func (s *Shard) outcome(a *pendingAppend, err error) {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	a.known, a.err = true, err
	if !s.completes {
		s.completes = true
		go s.complete()
	}
}

// takePending removes the appends at the head of the queue whose outcome is known, or
// all. complete ends when it gets none.
func (s *Shard) takePending(all bool) []*pendingAppend {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	n := 0
	for n < len(s.pending) && (all || s.pending[n].known) {
		n++
	}
	taken := s.pending[:n:n]
	s.pending = s.pending[n:]
	if n == 0 && !all {
		s.completes = false
	}
	return taken
}

// complete is the goroutine that tells the state machine what came of its appends.
// The journal's callback starts it; it ends when the outcome of the first in the queue
// is not known.
func (s *Shard) complete() {
	lost := false
	for s.completeSome(&lost) {
	}
	if lost {
		s.lost()
	}
}

// completeSome tells those outcomes that are known; false: there were none.
func (s *Shard) completeSome(lost *bool) (some bool) {
	// The lock comes first: an unload may take the same appends.
	s.mu.Lock()
	defer s.Unlock()
	s.completing = s.takePending(false)
	some = len(s.completing) > 0 // and after a panic too: complete ends only when none is left
	for len(s.completing) > 0 {
		a := s.completing[0]
		if Lost(a.err) && !s.unloaded {
			s.Log.Warn("unloading "+s.cfg.Things+": the journal cannot tell what became of an append", "error", a.err)
			*lost = true
			s.unloadLocked() // with this append and all that follow
			break
		}
		s.completing = s.completing[1:]
		if s.unloaded {
			a.err = ErrUnloaded // what it would change is gone
		}
		if a.err == nil {
			for _, r := range a.replay {
				s.replayLocked(r)
			}
		}
		a.tell(a.err)
	}
	return some
}

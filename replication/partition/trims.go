package partition

import (
	"fmt"
	"sync"

	"millrace/segment"
)

// trims are how a run's log start moves, by an entry of Raft's or by a snapshot's doing.
type trims struct {
	r *Replica

	mu      sync.Mutex // held while the log start moves
	pending int64      // the log start that a full disk did not allow yet; 0: none
}

// moveTo moves the log start, and drops what the newest snapshot allows. If the
// system refuses (a full disk) it is left pending: upkeep tries again, and a bounce would not
// help.
func (t *trims) moveTo(start int64) {
	r := t.r
	t.mu.Lock()
	defer t.mu.Unlock()
	start = max(start, t.pending)
	if _, err := r.store.Drop(start, r.snapshots.index()); segment.IsRefused(err) {
		t.pending = start
		r.p.logger.Warn("the log start was not moved, trying again later", "to", start, "error", err)
		return
	} else if err != nil {
		r.p.bounce(r, fmt.Errorf("drop below offset %d: %w", start, err))
		return
	}
	t.pending = 0
	r.p.start.Store(r.store.StartOffset())
}

// settle moves the log start to where a full disk did not allow it yet.
func (t *trims) settle() {
	t.mu.Lock()
	start := t.pending
	t.mu.Unlock()
	if start > 0 {
		t.moveTo(start)
	}
}

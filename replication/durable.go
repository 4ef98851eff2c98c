package replication

import (
	"sync"
	"sync/atomic"
)

// A durable knows how far a log is as durable as its topic asks, while a leader's
// own entries are synced beside Raft: one sync at a time. All methods may be called
// by any goroutine.
type durable struct {
	index atomic.Uint64 // everything up to it is

	mu      sync.Mutex
	changed sync.Cond
	syncing bool
	err     error // of a sync; final
}

func newDurable(index uint64) *durable {
	d := &durable{}
	d.changed.L = &d.mu
	d.index.Store(index)
	return d
}

// reach says that everything up to index is durable, and no more is there.
func (d *durable) reach(index uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.index.Store(index)
	d.changed.Broadcast()
}

// begin says that a sync is under way. None may be.
func (d *durable) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncing = true
}

// end says that the sync ended, after which everything up to index is durable
// unless it failed.
func (d *durable) end(index uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncing = false
	if d.err = err; err == nil {
		d.index.Store(index)
	}
	d.changed.Broadcast()
}

// settle waits until no sync is under way, and returns the error of one that
// failed.
func (d *durable) settle() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.syncing {
		d.changed.Wait()
	}
	return d.err
}

// await waits until everything up to index is durable. An error is that of a sync:
// it never will be.
func (d *durable) await(index uint64) error {
	if d.index.Load() >= index {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.index.Load() < index && d.err == nil {
		d.changed.Wait()
	}
	return d.err
}

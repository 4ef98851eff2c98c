package partition

import (
	"math"
	"sync"
	"sync/atomic"
)

// A pendingSync is the sync of a leader's own entries that runs beside Raft, if one
// does: one at a time. Whatever else is in the log is as durable as its topic asks.
// All methods may be called by any goroutine.
type pendingSync struct {
	bound atomic.Uint64 // entries above it wait for a sync, or for one that failed; math.MaxUint64: none do

	mu    sync.Mutex
	ended sync.Cond
	err   error // of a sync; final
}

func newPendingSync() *pendingSync {
	s := &pendingSync{}
	s.ended.L = &s.mu
	s.bound.Store(math.MaxUint64)
	return s
}

// begin says that the entries above bound are being synced. None may be.
func (s *pendingSync) begin(bound uint64) { s.bound.Store(bound) }

// end says that the sync ended.
func (s *pendingSync) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err = err; err == nil {
		s.bound.Store(math.MaxUint64)
	}
	s.ended.Broadcast()
}

// durable returns up to which entry the log is durable at least; math.MaxUint64: all
// of it.
func (s *pendingSync) durable() uint64 { return s.bound.Load() }

// await waits until all entries up to index are durable that are there. An error is
// that of a sync: they never will be.
func (s *pendingSync) await(index uint64) error {
	if s.bound.Load() >= index {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bound.Load() < index && s.err == nil {
		s.ended.Wait()
	}
	return s.err
}

// settle waits until no sync is under way.
func (s *pendingSync) settle() error { return s.await(math.MaxUint64) }

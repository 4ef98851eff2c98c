package coordinator

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/heap"
	"millrace/segment/record"
)

// A Shard serves one partition in one epoch, by one state machine. It never serves
// another: an epoch that ends takes its shard with it. Methods that end in Locked are
// called with its lock held, the others without.
type Shard struct {
	Partition, Epoch int32        // not to be changed
	Log              *slog.Logger // says which partition and epoch it is about

	cfg     *Config
	host    interface{ remove(*Shard) } // its Runtime
	machine StateMachine
	loading atomic.Bool

	mu         sync.Mutex
	unloaded   bool
	completing []*pendingAppend // that completeSome is about to tell
	alarms     heap.Heap[*Alarm, byTime]
	timer      Timer
	wakeAt     time.Time // when timer goes off; zero: it does not
	waking     bool      // wake runs, and arms the timer when it ends

	// Appends wait here for their outcome, in order. The journal's callbacks take
	// only pendingMu, which nobody holds for long, so they do not block.
	pendingMu sync.Mutex
	pending   []*pendingAppend
	completes bool // complete runs
}

// Now is the time by the runtime's clock.
func (s *Shard) Now() time.Time { return s.cfg.Clock.Now() }

// Loading reports whether the journal is still being replayed.
func (s *Shard) Loading() bool { return s.loading.Load() }

// EndedLocked reports whether the shard has been unloaded, or is about to be:
// nothing that it knows counts any more.
func (s *Shard) EndedLocked() bool { return s.unloaded }

// Confirm returns nil if this node led the partition, in the shard's epoch, at some
// moment after the call. What is read of the shard after that is no older than what
// was acknowledged, by whichever node, before it.
func (s *Shard) Confirm(ctx context.Context) error {
	return s.cfg.Journal.Confirm(ctx, s.Partition, s.Epoch)
}

// Lock takes the shard's lock. Defer Unlock at once.
func (s *Shard) Lock() { s.mu.Lock() }

// Unlock releases the shard's lock, and is deferred right after it was taken. A panic
// in between ends what the shard knows, not the process and not its lock: memory is
// suspect from then on, the journal is not, and memory is nothing but what the journal
// says. So the shard is unloaded, as after an append of unknown outcome, and is to be
// loaded again. Where a request brings about the panic each time, its partition is
// loaded again and again, which is seen in the log and keeps no other partition from
// being served.
func (s *Shard) Unlock() {
	p := recover()
	if p == nil {
		s.mu.Unlock()
		return
	}
	s.Log.Error("unloading "+s.cfg.Things+": a panic", "panic", p, "stack", string(debug.Stack()))
	lost := !s.unloaded
	s.unloadLocked()
	s.mu.Unlock()
	if lost {
		s.lost()
	}
}

// Do runs f with the lock held, which it releases. It returns false if f panicked, and
// the shard is unloaded.
func (s *Shard) Do(f func()) bool {
	defer s.Unlock()
	f()
	return true
}

// Catch runs f, for a goroutine that no caller recovers for, and returns its panic as
// an error.
func Catch(f func()) (failed error) {
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	f()
	return nil
}

// load replays records and begins to serve. The lock is free between two records: an
// Unload does not wait for the whole journal.
func (s *Shard) load(records iter.Seq2[record.Record, error]) error {
	began := s.Now()
	n := 0
	for r, err := range records {
		if err != nil {
			return fmt.Errorf("load %s of partition %d: %w", s.cfg.Things, s.Partition, err)
		}
		s.mu.Lock()
		unloaded := s.unloaded
		if !unloaded {
			s.replayLocked(r)
		}
		s.mu.Unlock()
		if unloaded {
			return ErrUnloaded
		}
		n++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unloaded {
		return ErrUnloaded
	}
	known := 0
	if err := Catch(func() { known = s.machine.LoadedLocked() }); err != nil {
		return fmt.Errorf("load %s of partition %d: %w", s.cfg.Things, s.Partition, err)
	}
	s.loading.Store(false)
	level := slog.LevelInfo
	if known == 0 {
		level = slog.LevelDebug // of fifty partitions most hold nothing, and all are loaded at each failover
	}
	s.Log.Log(context.Background(), level, "loaded "+s.cfg.Things, s.cfg.Things, known, "records", n, "took", s.Now().Sub(began))
	return nil
}

// replayLocked gives one record to the state machine.
func (s *Shard) replayLocked(r record.Record) {
	if s.unloaded {
		return
	}
	defer func() {
		if p := recover(); p != nil { // each load would meet it again
			s.Log.Error("skipping a record of the journal of "+s.cfg.Things+": a panic", "offset", r.Offset, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := s.machine.ReplayLocked(r); err != nil {
		s.Log.Warn("skipping a record of the journal of "+s.cfg.Things, "offset", r.Offset, "error", err)
	}
}

// unload answers whoever waits and drops everything. It may be called twice.
func (s *Shard) unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unloadLocked()
}

// unloadLocked gives pending appends their outcome, in their order, and then tells the
// state machine. It may follow a panic, when nothing in memory can be relied on: who
// cannot be told is skipped.
func (s *Shard) unloadLocked() {
	if s.unloaded {
		return
	}
	s.unloaded = true
	s.loading.Store(false)
	s.forgetAlarmsLocked()
	waiting := append(s.completing, s.takePending(true)...)
	s.completing = nil
	for _, a := range waiting {
		s.try(func() { a.tell(ErrUnloaded) })
	}
	s.try(s.machine.UnloadedLocked)
}

// try runs a part of an unload.
func (s *Shard) try(f func()) {
	if err := Catch(f); err != nil {
		s.Log.Error("while unloading "+s.cfg.Things, "error", err)
	}
}

// lost says that the shard has unloaded itself.
func (s *Shard) lost() {
	s.host.remove(s)
	s.cfg.Journal.Lost(s.Partition, s.Epoch)
}

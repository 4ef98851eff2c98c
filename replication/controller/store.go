package controller

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// A Log is what a store stands over: raft-boltdb, the group's log and votes in one file.
type Log interface {
	raft.LogStore
	raft.StableStore
}

// A store stands between Raft and the group's log, as a partition's does:
//
//   - raft-boltdb deletes what it is told to. What is committed stays.
//   - Raft panics over a committed entry that it cannot read. The goroutine ends instead,
//     and with it the member.
//   - raft-boltdb reads its file through a mapping. A page that the disk does not give is
//     an error, and does not end the process.
//   - A write that failed may have happened all the same, and Raft does not know: what is
//     there then is deleted before anything is stored in its place. A later start would
//     take it for entries that follow.
//   - When a suffix was deleted and what replaces it cannot be stored, Raft goes on as if
//     the suffix were there, and can neither take nor give another entry. So the store
//     does not return before what replaces it is stored.
//
// Its LogStore's writes are called by Raft's main goroutine, but for the deletion of
// a prefix.
type store struct {
	Log
	member storeUser
	// committed is the last entry known to be committed. After a restart it is the
	// newest snapshot's until the group's leader has said more.
	committed atomic.Uint64
	// live is set once NewRaft has returned: from then on damage ends the goroutine.
	live atomic.Bool

	logger  *slog.Logger
	closing <-chan struct{} // of the node

	cut   bool // a suffix was deleted, and nothing stored since; Raft's main goroutine's
	doubt bool // a write failed, and nothing was stored since; the same
}

// A storeUser is the member of the controller group that a store is of. Neither
// method may block.
type storeUser interface {
	stop(cause error) // there is no going on
	votesRecovered()  // votes are saved again that could not be
}

// errCommitted refuses to delete what was committed.
var errCommitted = errors.New("controller: entries are committed")

// StoreLogs implements raft.LogStore.
func (s *store) StoreLogs(logs []*raft.Log) error {
	err := s.store(logs)
	if err == nil || !s.cut {
		return err // Raft steps down, or is sent the entries again
	}
	if !segment.Scarce(err) {
		s.member.stop(fmt.Errorf("store entries of the controller's log in the place of others: %w", err))
		return err
	}
	retryForEver(s.logger, "the controller's log cannot be written", s.closing, func() error { return s.store(logs) })
	return nil
}

// StoreLog implements raft.LogStore.
func (s *store) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// store makes one attempt.
func (s *store) store(logs []*raft.Log) error {
	err := segment.Guard(func() error {
		if s.doubt {
			last, err := s.Log.LastIndex()
			if first := logs[0].Index; err == nil && last >= first {
				err = s.Log.DeleteRange(first, last)
			}
			if err != nil {
				return err
			}
		}
		return s.Log.StoreLogs(logs)
	})
	s.doubt = err != nil
	s.cut = s.cut && err != nil
	return err
}

// DeleteRange implements raft.LogStore. Raft deletes a prefix, up to a snapshot, or a
// suffix that lost an election, which no committed entry is part of: whoever asks for
// one is no leader of this group.
//
//	first         committed        last
//	  |===============|=============|
//	                      min-----max     a suffix that was never committed
//	         min------------------max     refused
//	min---max                             a prefix that a snapshot covers
func (s *store) DeleteRange(min, max uint64) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	suffix := max >= last
	if committed := s.committed.Load(); suffix && min <= committed {
		return fmt.Errorf("delete entries %d to %d of the controller's log: %w, up to %d", min, max, errCommitted, committed)
	}
	err = segment.Guard(func() error { return s.Log.DeleteRange(min, max) })
	if !suffix {
		return err
	}
	if err != nil {
		// It is one transaction: all are there, or none is.
		if now, lerr := s.LastIndex(); lerr != nil || now >= min {
			return err
		}
	}
	s.cut = true
	return nil
}

// GetLog implements raft.LogStore.
func (s *store) GetLog(index uint64, l *raft.Log) error {
	err := segment.Guard(func() error { return s.Log.GetLog(index, l) })
	if err == nil || !s.live.Load() {
		return err
	}
	if errors.Is(err, raft.ErrLogNotFound) {
		first, errFirst := s.FirstIndex()
		last, errLast := s.LastIndex()
		if err := errors.Join(errFirst, errLast); err == nil && (index < first || index > last) {
			return raft.ErrLogNotFound
		}
	}
	s.member.stop(fmt.Errorf("read entry %d of the controller's log: %w", index, err))
	runtime.Goexit() // Raft would panic if the entry is committed
	return err
}

// FirstIndex implements raft.LogStore.
func (s *store) FirstIndex() (index uint64, err error) {
	err = segment.Guard(func() error { index, err = s.Log.FirstIndex(); return err })
	return index, err
}

// LastIndex implements raft.LogStore.
func (s *store) LastIndex() (index uint64, err error) {
	err = segment.Guard(func() error { index, err = s.Log.LastIndex(); return err })
	return index, err
}

// Set implements raft.StableStore. It keeps writing until it succeeds: Raft panics when
// it cannot save its term, which a full disk must not cause. While the write waits this
// member neither votes nor leads, which is what a broken disk should do. When the node
// closes the waiting goroutine ends.
func (s *store) Set(key, value []byte) error {
	return s.save(func() error { return s.Log.Set(key, value) })
}

// SetUint64 implements raft.StableStore; see Set.
func (s *store) SetUint64(key []byte, value uint64) error {
	return s.save(func() error { return s.Log.SetUint64(key, value) })
}

func (s *store) save(write func() error) error {
	if retryForEver(s.logger, "the controller's vote cannot be saved", s.closing, func() error { return segment.Guard(write) }) {
		s.member.votesRecovered()
	}
	return nil
}

// A write that failed is tried again after retryFirst, then after twice as long each
// time. While it fails, one line in retryLogEvery says so.
const (
	retryFirst    = 10 * time.Millisecond
	retryMost     = time.Second
	retryLogEvery = 10 * time.Second
)

// retryForEver tries until it succeeds, and tells whether it failed before. If closing is closed
// first, the goroutine ends.
func retryForEver(logger *slog.Logger, trouble string, closing <-chan struct{}, try func() error) (failed bool) {
	var said time.Time
	for wait := retryFirst; ; wait = min(2*wait, retryMost) {
		err := try()
		if err == nil {
			return failed
		}
		failed = true
		if now := time.Now(); said.IsZero() || now.Sub(said) >= retryLogEvery {
			said = now
			logger.Error(trouble+", trying again; make room or replace the disk", "error", err)
		}
		select {
		case <-closing:
			runtime.Goexit()
		case <-time.After(wait):
		}
	}
}

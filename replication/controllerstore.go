package replication

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// A controllerStore stands between Raft and the controller group's log, as store does
// for a partition's: raft-boltdb deletes what it is told to, and Raft panics over a
// committed entry that it cannot read.
type controllerStore struct {
	*raftboltdb.BoltStore
	// fault is told what makes this member stop. It must not block.
	fault func(error)
	// committed is the last entry known to be committed. After a restart it is the
	// newest snapshot's until the group's leader has said more.
	committed atomic.Uint64
	// live is set once NewRaft has returned: from then on damage ends the goroutine.
	live atomic.Bool
}

// errCommitted refuses to delete what was committed.
var errCommitted = errors.New("replication: entries are committed")

// DeleteRange implements raft.LogStore. Raft deletes a prefix, up to a snapshot, or a
// suffix that lost an election, which no committed entry is part of: whoever asks for
// one is no leader of this group.
//
//	first         committed        last
//	  |===============|=============|
//	                      min-----max     a suffix that was never committed
//	         min------------------max     refused
//	min---max                             a prefix that a snapshot covers
func (s *controllerStore) DeleteRange(min, max uint64) error {
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	if committed := s.committed.Load(); max >= last && min <= committed {
		return fmt.Errorf("delete entries %d to %d of the controller's log: %w, up to %d", min, max, errCommitted, committed)
	}
	return s.BoltStore.DeleteRange(min, max)
}

// GetLog implements raft.LogStore.
func (s *controllerStore) GetLog(index uint64, l *raft.Log) error {
	err := s.BoltStore.GetLog(index, l)
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
	s.fault(fmt.Errorf("read entry %d of the controller's log: %w", index, err))
	runtime.Goexit() // Raft would panic if the entry is committed
	return err
}

package partition

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/segment"
	"millrace/segment/record"
)

// A logStore stands between Raft and the partition's log. It keeps Raft from
// ever acting on what the log did not do:
//
//   - An entry of our own that does not follow the one the appender sent before
//     it, or whose leadership ended, is refused before anything is written;
//     Raft then steps down.
//   - After a write that may have happened in part, or a read of damaged bytes,
//     Raft's memory and the disk disagree: Replica.Bounce ends that run. The log calls that
//     too when it fails in what Raft did not ask for (a roll, a checkpoint).
//   - What the system refuses for want of descriptors or memory is no such thing. A
//     write has not happened then; a read waits, since Raft takes no such answer.
//   - Raft panics when it cannot read a committed entry. One partition's data
//     never ends the process, so the goroutine that read damage ends instead
//     (runtime.Goexit runs Raft's deferred clean-up), and Replica.Bounce ends the rest.
type logStore struct {
	*log.Log
	r *Replica // which it belongs to

	// next is the number the next entry of our own must carry.
	next atomic.Uint64
	// stored counts the payload bytes of our own entries that reached the log.
	stored atomic.Int64
	// writes counts the writes to the log that may have stored something.
	writes atomic.Uint64
	// opening is the last noop that was stored.
	opening atomic.Pointer[opening]
	// began is when the write under way began, in Unix nanoseconds, until it is
	// synced; 0: none is.
	began atomic.Int64
	// pending is the sync that Raft does not wait for; see StoreLogs.
	pending *pendingSync
	// concurrentSyncs counts such syncs of all groups of the node.
	concurrentSyncs *atomic.Int64
	// live is set once NewRaft returned: from then on damage ends the goroutine.
	live atomic.Bool
	// refused is why NewRaft could not read an entry, if the system refused to.
	refused error
	// cut is set between a suffix cut and the next successful write. Raft's
	// last index is wrong in between, so even a clean failure must bounce.
	// Only Raft's main goroutine touches it.
	cut bool
}

// errStale refuses an entry whose turn has passed: its leadership ended, or an
// entry sent before it was refused.
var errStale = errors.New("partition: entry is out of turn")

// assignNumber marks the entry in data as the n-th of its leadership's term. The
// mark lies in the base offset and epoch of the first batch, which the log
// stamps over; n counts from 0.
func assignNumber(data []byte, n uint64, term uint64) {
	record.Batch(data).Assign(-1-int64(n), int32(term))
}

// maxConcurrentSyncs of a node run beside Raft, or one or two more of groups that ask at
// the same moment. With as many the disk is busy, and what gathers while Raft waits
// saves writes.
const maxConcurrentSyncs = 2

// StoreLogs implements raft.LogStore. It returns when the entries are durable, with
// one exception: a leader's own commands may be synced while they are on their way to
// the followers, which sync them too. Raft then counts this replica too early, and
// may take for committed what a crash would take back. So nobody else learns of it
// while the sync is pending:
//
//   - the state machine, and with it clients: see fsm.ApplyBatch;
//   - followers, which are told of commits up to there: see raftgroup.Log;
//   - a later leader that counts us, having sent an entry that we have already:
//     see GetLog.
//
// A second call waits for the sync of the first, so as much is gathered for a sync
// as if each call waited for its own. Entries of other types are waited for: Raft
// itself acts on a configuration that it takes for committed.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	defer raftgroup.Contain("store entries", s.r.Bounce)
	if err := s.pending.settle(); err != nil {
		return err // which Bounce was called with
	}
	s.began.Store(time.Now().UnixNano())
	s.r.beforeWrite()
	due, err := s.write(logs)
	if err != nil || !due {
		s.began.Store(0)
		return err
	}
	s.pending.begin(logs[0].Index - 1)
	s.concurrentSyncs.Add(1)
	go s.sync(logs[len(logs)-1].Index)
	return nil
}

// sync makes durable what was written, up to the entry last.
func (s *logStore) sync(last uint64) {
	err := s.Log.Flush()
	s.concurrentSyncs.Add(-1)
	s.began.Store(0)
	if err != nil && !errors.Is(err, log.ErrClosed) {
		s.r.Bounce(fmt.Errorf("sync entries up to %d: %w", last, err))
	}
	s.pending.end(err)
}

// write stores entries; due tells that they are still to be synced.
func (s *logStore) write(logs []*raft.Log) (due bool, err error) {
	var own []*raft.Log
	next := s.next.Load()
	for _, l := range logs {
		if _, trims := log.ParseTrim(l); trims || l.Type != raft.LogCommand {
			continue
		}
		first, _, err := record.Split(l.Data)
		if err != nil {
			return false, fmt.Errorf("partition: entry %d: %w", l.Index, err)
		}
		if first.BaseOffset() >= 0 { // replicated to us, offsets and all
			if err := checkStamps(l); err != nil {
				return false, err
			}
			continue
		}
		if n := uint64(-1 - first.BaseOffset()); n != next || first.Epoch() != int32(l.Term) {
			return false, fmt.Errorf("%w: number %d of term %d, expected %d of term %d", errStale, n, first.Epoch(), next, l.Term)
		}
		next++
		own = append(own, l)
		for p := l.Data; len(p) > 0; {
			b, rest, err := record.Split(p)
			if err != nil {
				return false, fmt.Errorf("partition: entry %d: %w", l.Index, err)
			}
			b.Assign(0, -1)
			p = rest
		}
	}
	if logs[0].Index == 1 {
		if err := s.r.votes.Set(storedKey, []byte{1}); err != nil {
			s.r.Bounce(fmt.Errorf("note that entries are stored: %w", err))
			return false, err
		}
	}
	s.writes.Add(1)
	if len(own) == len(logs) && s.concurrentSyncs.Load() < maxConcurrentSyncs {
		due, err = s.Log.WriteLogs(logs)
	} else {
		err = s.Log.StoreLogs(logs)
	}
	if err != nil {
		if !segment.IsRefused(err) || s.cut {
			s.r.Bounce(fmt.Errorf("store entries: %w", err))
		}
		return false, err
	}
	s.cut = false
	s.next.Store(next)
	for _, l := range own {
		s.r.stored(l.Data, l.Index)
		s.stored.Add(int64(len(l.Data)))
	}
	if first := logs[0]; first.Type == raft.LogNoop {
		s.opening.Store(&opening{term: first.Term, index: first.Index, next: s.Log.EndOffset()})
	}
	return due, nil
}

// checkStamps refuses an entry from elsewhere with a batch that no leader has
// stamped: the log would do it, and keep memory that is not its own.
func checkStamps(l *raft.Log) error {
	for p := l.Data; len(p) > 0; {
		b, rest, err := record.Split(p)
		if err != nil {
			return fmt.Errorf("partition: entry %d: %w", l.Index, err)
		}
		if b.Epoch() != int32(l.Term) {
			return fmt.Errorf("partition: entry %d of term %d has a batch of epoch %d", l.Index, l.Term, b.Epoch())
		}
		p = rest
	}
	return nil
}

// An opening is the entry with which a leader begins its term, and where the
// log ended in front of it.
type opening struct {
	term, index uint64
	next        int64
}

// StoreLog implements raft.LogStore.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// DeleteRange implements raft.LogStore. Raft has read the first of the entries before,
// which has waited for the sync under way (see GetLog); that it waits here, too, costs
// nothing and relies on nothing that Raft does.
func (s *logStore) DeleteRange(min, max uint64) error {
	defer raftgroup.Contain("delete entries", s.r.Bounce)
	if err := s.pending.settle(); err != nil {
		return err
	}
	if err := s.Log.DeleteRange(min, max); err != nil {
		if segment.IsRefused(err) {
			return err // Raft answers the leader with a failure, and is sent the entries again
		}
		s.r.Bounce(fmt.Errorf("delete entries %d to %d: %w", min, max, err))
		return err
	}
	s.cut = true
	return nil
}

// GetLog implements raft.LogStore. A replica that follows is given headers-only entries where
// there are some: Raft applies them, and compares terms. An entry that a leader sent
// and that we had already is one that we answer for, so it must be durable.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	if s.live.Load() && s.r.isFollower() {
		if s.pending.await(index) != nil {
			runtime.Goexit() // Bounce was called
		}
		if s.HeadersOnly(index, l) {
			return nil
		}
	}
	err := s.Log.GetLog(index, l)
	if err != nil && segment.IsRefused(err) {
		if !s.live.Load() {
			s.refused = err
			return err
		}
		err = s.retryGetLog(index, l, err)
	}
	if err == nil || errors.Is(err, raft.ErrLogNotFound) {
		return err
	}
	s.r.Bounce(fmt.Errorf("read entry %d: %w", index, err))
	if s.live.Load() {
		runtime.Goexit()
	}
	return err
}

// A read that the system refused is tried again after readAgainFirst, then after twice
// as long each time.
const (
	readAgainFirst = 5 * time.Millisecond
	readAgainMost  = time.Second
)

// retryGetLog reads an entry until the system lets it. Raft panics without an entry that it
// applies, and lets a follower wait for half a minute without one that it sends; who
// waits here is one follower's goroutine, or a state machine whose log is far behind.
// If this run ends first, so does the goroutine.
func (s *logStore) retryGetLog(index uint64, l *raft.Log, err error) error {
	for wait := readAgainFirst; segment.IsRefused(err); wait = min(2*wait, readAgainMost) {
		select {
		case <-s.r.closing:
			runtime.Goexit()
		case <-time.After(wait):
		}
		err = s.Log.GetLog(index, l)
	}
	return err
}

// Durable implements raftgroup.Log.
func (s *logStore) Durable() uint64 { return s.pending.durable() }

// stalled returns how long the write under way has taken so far.
func (s *logStore) stalled(now time.Time) time.Duration {
	began := s.began.Load()
	if began == 0 {
		return 0
	}
	return now.Sub(time.Unix(0, began))
}

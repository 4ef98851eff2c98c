package partition

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
)

// snapshotBytes is how many applied bytes call for a new snapshot. A restart
// verifies and applies again what lies above the last one: 32 MiB is about
// 10 ms of checksums, and so much to read of each partition.
const snapshotBytes = 32 << 20

// An fsm is the state machine of one run of a replica. It stores nothing:
// the data is in the log already. It moves the high watermark, remembers
// producers, and hands trims to the log.
type fsm struct {
	r *Replica // whose entries are applied

	mu        sync.Mutex
	producers producers
	next      int64  // follows the last applied record
	applied   int64  // bytes since the last snapshot
	lastGiven uint64 // index of the last entry of this run

	forgotten int       // producers since forgotAt, before their time
	forgotAt  time.Time // when that was last said
}

// ApplyBatch implements raft.BatchingFSM. If an entry does not become durable it ends
// the goroutine, so that nothing later is applied, nor a snapshot taken.
//
// Entries of different terms are applied one term after the other, since what a leader
// of the first has committed is acknowledged, and what it lost to the second is not.
// Terms do not fall along a log, so mostly one comparison says that they are the same.
func (f *fsm) ApplyBatch(logs []*raft.Log) []interface{} {
	defer raftgroup.Contain("apply entries", f.r.Bounce)
	if f.r.store.pending.await(logs[len(logs)-1].Index) != nil {
		runtime.Goexit()
	}
	for rest := logs; len(rest) > 0; {
		n := len(rest)
		if term := rest[0].Term; rest[n-1].Term != term {
			n = slices.IndexFunc(rest, func(l *raft.Log) bool { return l.Term != term })
		}
		f.applyTerm(rest[:n])
		rest = rest[n:]
	}
	return make([]interface{}, len(logs))
}

// applyTerm applies entries of one term.
func (f *fsm) applyTerm(logs []*raft.Log) {
	f.r.outlived(logs[0].Term) // before anybody can see anything of this term
	next, due := f.take(logs)
	if next >= 0 {
		// The watermark first: a new leader serves as soon as next says that all
		// is applied, and may then not show less than was acknowledged.
		f.r.p.watermark.raise(next)
		f.mu.Lock()
		f.next = next
		f.mu.Unlock()
	}
	f.r.applied(logs[len(logs)-1].Index, logs[0].Term)
	if due {
		f.r.wantSnapshot()
	}
}

// take reads what entries say. next is the offset that follows their last record,
// -1 without one; due tells that a snapshot is.
func (f *fsm) take(logs []*raft.Log) (next int64, due bool) {
	now := f.r.p.env.Now().UnixMilli()
	f.mu.Lock()
	defer f.mu.Unlock()
	next = -1
	for _, l := range logs {
		if start, trims := log.ParseTrim(l); trims {
			f.r.trims.moveTo(start)
		}
		for b := range log.Headers(l) {
			if n := f.producers.apply(b, l.Index, now, f.r.p.env.Budget.maxProducers()); n > 0 {
				f.forgotLocked(n)
			}
			next = b.NextOffset()
			f.applied += int64(b.Size())
		}
	}
	f.lastGiven = logs[len(logs)-1].Index
	f.r.store.SetCommitted(f.lastGiven)
	return next, f.applied >= snapshotBytes
}

// forgotLocked says that a partition forgot idempotent producers before their time, at
// most once a minute. It does not block.
func (f *fsm) forgotLocked(n int) {
	f.forgotten += n
	if now := f.r.p.env.Now(); now.Sub(f.forgotAt) >= time.Minute {
		f.r.p.logger.Warn("idempotent producers were forgotten before producer.id.expiration.ms, since there are too many: what they send again is stored again",
			"forgotten", f.forgotten, "remembered", f.r.p.env.Budget.maxProducers())
		f.forgotAt, f.forgotten = now, 0
	}
}

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) interface{} { return f.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied = 0
	return raftgroup.State(f.producers.encode(nil)), nil
}

// Restore implements raft.FSM. Catch-up never takes this way: the transport
// keeps InstallSnapshot from Raft.
func (f *fsm) Restore(r io.ReadCloser) error {
	r.Close()
	return errors.New("partition: a partition is not restored through Raft")
}

// given returns the index of the last entry it was given, 0 if there was
// none in this run.
func (f *fsm) given() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lastGiven
}

// reached tells whether all records below next are applied.
func (f *fsm) reached(next int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.next >= next
}

// producer returns a copy of what is committed of a producer id, or nil.
func (f *fsm) producer(id int64) *producer {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.producers[id]; p != nil {
		return p.clone()
	}
	return nil
}

// expire forgets the producers that have written nothing since before, and returns
// how many, and how many are left.
func (f *fsm) expire(before time.Time) (forgot, left int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	forgot = f.producers.expire(before.UnixMilli())
	return forgot, len(f.producers)
}

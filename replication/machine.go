package replication

import (
	"errors"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
)

// snapshotBytes is how many applied bytes call for a new snapshot. A restart
// verifies and applies again what lies above the last one: 32 MiB is about
// 10 ms of checksums, and so much to read of each partition.
const snapshotBytes = 32 << 20

// A machine is the state machine of one life of a replica. It stores nothing:
// the data is in the log already. It moves the high watermark, remembers
// producers, and hands trims to the log.
type machine struct {
	r *replica // whose entries are applied

	mu        sync.Mutex
	producers producers
	next      int64  // follows the last applied record
	applied   int64  // bytes since the last snapshot
	lastGiven uint64 // index of the last entry of this life
}

// ApplyBatch implements raft.BatchingFSM. If an entry does not become durable it ends
// the goroutine, so that nothing later is applied, nor a snapshot taken.
//
// Entries of different terms are applied one term after the other, since what a leader
// of the first has committed is acknowledged, and what it lost to the second is not.
// Terms do not fall along a log, so mostly one comparison says that they are the same.
func (m *machine) ApplyBatch(logs []*raft.Log) []interface{} {
	defer contain("apply entries", m.r.fault)
	if m.r.store.pending.await(logs[len(logs)-1].Index) != nil {
		runtime.Goexit()
	}
	for rest := logs; len(rest) > 0; {
		n := len(rest)
		if term := rest[0].Term; rest[n-1].Term != term {
			n = slices.IndexFunc(rest, func(l *raft.Log) bool { return l.Term != term })
		}
		m.applyTerm(rest[:n])
		rest = rest[n:]
	}
	return make([]interface{}, len(logs))
}

// applyTerm applies entries of one term.
func (m *machine) applyTerm(logs []*raft.Log) {
	m.r.outlived(logs[0].Term) // before anybody can see anything of this term
	next, due := m.take(logs)
	if next >= 0 {
		// The watermark first: a new leader serves as soon as next says that all
		// is applied, and may then not show less than was acknowledged.
		m.r.p.raiseWatermark(next)
		m.mu.Lock()
		m.next = next
		m.mu.Unlock()
	}
	m.r.applied(logs[len(logs)-1].Index, logs[0].Term)
	if due {
		m.r.p.node.wantSnapshot(m.r)
	}
}

// take reads what entries say. next is the offset that follows their last record,
// -1 without one; due tells that a snapshot is.
func (m *machine) take(logs []*raft.Log) (next int64, due bool) {
	now := m.r.p.node.now().UnixMilli()
	m.mu.Lock()
	defer m.mu.Unlock()
	next = -1
	for _, l := range logs {
		if start, trims := log.ParseTrim(l); trims {
			m.r.trimmed(start)
		}
		for b := range log.Headers(l) {
			if n := m.producers.apply(b, l.Index, now, m.r.p.node.maxProducers()); n > 0 {
				m.r.forgot(n)
			}
			next = b.NextOffset()
			m.applied += int64(b.Size())
		}
	}
	m.lastGiven = logs[len(logs)-1].Index
	m.r.store.SetCommitted(m.lastGiven)
	return next, m.applied >= snapshotBytes
}

// Apply implements raft.FSM.
func (m *machine) Apply(l *raft.Log) interface{} { return m.ApplyBatch([]*raft.Log{l})[0] }

// Snapshot implements raft.FSM.
func (m *machine) Snapshot() (raft.FSMSnapshot, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.applied = 0
	return machineSnapshot(m.producers.encode(nil)), nil
}

// Restore implements raft.FSM. Catch-up never takes this way: the transport
// keeps InstallSnapshot from Raft.
func (m *machine) Restore(r io.ReadCloser) error {
	r.Close()
	return errors.New("replication: a partition is not restored through Raft")
}

// given returns the index of the last entry the machine was given, 0 if there was
// none in this life.
func (m *machine) given() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.lastGiven
}

// reached tells whether all records below next are applied.
func (m *machine) reached(next int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next >= next
}

// producer returns a copy of what is committed of a producer id, or nil.
func (m *machine) producer(id int64) *producer {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.producers[id]; p != nil {
		return p.clone()
	}
	return nil
}

// expire forgets the producers that have written nothing since before, and returns
// how many, and how many are left.
func (m *machine) expire(before time.Time) (forgot, left int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	forgot = m.producers.expire(before.UnixMilli())
	return forgot, len(m.producers)
}

// A machineSnapshot is encoded producer state.
type machineSnapshot []byte

func (s machineSnapshot) Persist(sink raft.SnapshotSink) error {
	if _, err := sink.Write(s); err != nil {
		sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s machineSnapshot) Release() {}

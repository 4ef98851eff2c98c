package partition

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/metadata"
	"millrace/segment"
	"millrace/segment/record/recordtest"
)

// A replica that no longer leads is asked for entries to answer for them: a later
// leader sent them and counts this replica. That waits for the disk, as does whatever
// changes the log.
func TestFormerLeaderAnswersForNothingItHasNotSynced(t *testing.T) {
	s, disk := testStore(t)
	disk.set(true, nil)
	defer disk.set(false, nil)
	if err := s.StoreLogs([]*raft.Log{ownEntry(2, 0)}); err != nil {
		t.Fatal(err)
	}
	if got := s.pending.durable(); got != 1 {
		t.Fatalf("durable up to entry %d, want 1", got)
	}
	var e raft.Log
	if err := s.GetLog(2, &e); err != nil { // the leader sends it
		t.Fatal(err)
	}
	s.r.Raft = new(raft.Raft) // which follows, and is asked from here on
	s.live.Store(true)
	if err := s.GetLog(1, &e); err != nil { // which waits for nothing
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"read":          func() error { return s.GetLog(2, new(raft.Log)) },
		"store":         func() error { return s.StoreLogs([]*raft.Log{ownEntry(3, 1)}) },
		"state machine": func() error { return s.pending.await(2) },
	} {
		done := make(chan error, 1)
		go func() { done <- f() }()
		select {
		case err := <-done:
			t.Fatalf("%s: did not wait: %v", name, err)
		case <-time.After(20 * time.Millisecond):
		}
		defer func() {
			if err := <-done; err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}()
	}
	disk.set(false, nil)
	if err := s.GetLog(9, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that is not there: %v", err)
	}
}

// While maxConcurrentSyncs run beside Raft, further ones are waited for.
func TestBusyDiskIsWaitedFor(t *testing.T) {
	s, disk := testStore(t)
	disk.set(true, nil)
	defer disk.set(false, nil)
	s.concurrentSyncs.Store(maxConcurrentSyncs)
	done := make(chan error, 1)
	go func() { done <- s.StoreLogs([]*raft.Log{ownEntry(2, 0)}) }()
	select {
	case err := <-done:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	disk.set(false, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := s.pending.durable(); got < 2 {
		t.Errorf("durable up to entry %d, want 2", got)
	}
}

// testStore returns the store of a leader in term 1, with one entry. The test fails if the
// replica is ended.
func testStore(t *testing.T) (*logStore, *testDisk) {
	t.Helper()
	s, disk := testStoreThatMayFail(t)
	t.Cleanup(func() {
		if cause := s.r.ended(); cause != nil {
			t.Errorf("the replica was ended: %v", cause)
		}
	})
	return s, disk
}

// testReplica returns a replica over a log, as far as its store and its fsm need one:
// there is no Raft.
func testReplica(t *testing.T, l *log.Log) *Replica {
	env := newTestEnvOver(t, &testNode{image: new(metadata.Image), disk: newTestDisk()})
	p := &Partition{site: site{env: env, logger: env.Logger}}
	r := &Replica{p: p, votes: raft.NewInmemStore(), snapshots: new(snapshotStore), closing: make(chan struct{})}
	r.Upkeep.r, r.trims.r = r, r
	r.Port = env.Transport.Group(7, "1.a")
	r.store = &logStore{Log: l, r: r, pending: newPendingSync(), concurrentSyncs: new(atomic.Int64)}
	r.fsm = &fsm{r: r, producers: producers{}}
	return r
}

// ended is why somebody has asked to end the replica, nil if nobody has.
func (r *Replica) ended() error {
	if cause := r.cause.Load(); cause != nil {
		return *cause
	}
	return nil
}

func testStoreThatMayFail(t *testing.T) (*logStore, *testDisk) {
	disk := newTestDisk()
	l, err := log.Open(t.TempDir()+"/p", segment.Identity{Cluster: "c"}, log.Config{FS: disk})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(false) })
	s := testReplica(t, l).store
	// What is there when Raft starts did not come through the store: see bootstrap.
	if err := l.StoreLog(&raft.Log{Index: 1, Term: 1, Type: raft.LogNoop}); err != nil {
		t.Fatal(err)
	}
	return s, disk
}

// ownEntry is the n-th entry that the leader of term 1 has for Raft.
func ownEntry(index, n uint64) *raft.Log {
	b := recordtest.Values("value")
	assignNumber(b, n, 1)
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: b}
}

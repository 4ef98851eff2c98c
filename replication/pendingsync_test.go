package replication

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/failover"
	"millrace/replication/transport"
	"millrace/segment"
	"millrace/segment/record"
)

// appendSoon appends a batch and returns where its answer will be.
func appendSoon(p *Partition, value string) chan error {
	done := make(chan error, 1)
	p.Append([]record.Batch{batchOf(value)}, func(_ Ack, err error) { done <- err })
	return done
}

// A leader sends entries to its followers while it syncs them. Raft then takes them
// for committed before this replica has them for good; nobody else may.
func TestNobodyHearsOfACommitThatTheLeaderHasNotSynced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, batchOf("first")); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes { // two of three would do for the answer
			eventually(t, "all have the first record", func() bool { return mustPartition(t, n, id).EndOffset() == 1 })
		}
		r := p.current.Load()
		leader.disk.set(true, nil)
		defer leader.disk.set(false, nil)
		done := appendSoon(p, "second")
		time.Sleep(stallTime / 3)
		last := r.Raft.LastIndex()
		if got := r.Raft.CommitIndex(); got != last {
			t.Fatalf("Raft has committed up to entry %d, not the %d that two followers have: this tests nothing", got, last)
		}
		select {
		case err := <-done:
			t.Fatalf("answered before it was synced: %v", err)
		default:
		}
		if got := p.HighWatermark(); got != 1 {
			t.Errorf("the high watermark is %d, want 1", got)
		}
		var second raft.Log
		if err := r.store.GetLog(last, &second); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			if n == leader {
				continue
			}
			// It is sent again, with Raft's opinion of what is committed.
			var resp raft.AppendEntriesResponse
			args := raft.AppendEntriesRequest{
				RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.serverID()), Addr: []byte(leader.serverID())},
				Term:      r.Raft.CurrentTerm(), PrevLogEntry: last - 1, PrevLogTerm: r.Raft.CurrentTerm(),
				Entries: []*raft.Log{&second}, LeaderCommitIndex: last,
			}
			if err := r.Transport(r.store).AppendEntries(n.serverID(), raft.ServerAddress(n.serverID()), &args, &resp); err != nil || !resp.Success {
				t.Fatalf("node %d: %v, success %t", n.id, err, resp.Success)
			}
			if follower := mustPartition(t, n, id).current.Load(); follower.Raft.CommitIndex() >= last {
				t.Errorf("node %d was told that entry %d is committed", n.id, last)
			}
		}
		leader.disk.set(false, nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := p.HighWatermark(); got != 2 {
			t.Errorf("the high watermark is %d, want 2", got)
		}
		c.check("after the sync", id, []string{"first", "second"})
	})
}

// What a leader could not sync it does not acknowledge, though both followers have
// it, and it leads no more.
func TestSyncThatFailsIsNotAcknowledged(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, batchOf("first")); err != nil {
			t.Fatal(err)
		}
		leader.disk.set(false, syscall.EIO)
		if err := <-appendSoon(p, "second"); err == nil {
			t.Fatal("acknowledged")
		}
		if got := p.HighWatermark(); got != 1 {
			t.Errorf("the high watermark is %d, want 1", got)
		}
		for begin := time.Now(); p.current.Load() != nil; time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatal("the replica goes on")
			}
		}
		next, q := c.leader(id)
		if next == leader {
			t.Fatal("it leads again")
		}
		if _, err := appendWait(q, batchOf("third")); err != nil {
			t.Fatal(err)
		}
	})
}

// A leader whose disk hangs makes room for another. If there is none it goes on, and
// serves again when the disk does: nobody else would have it lead, nor tell it that it
// does not.
func TestLeaderWithoutAnHeirOutlivesAStall(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 1, newNetwork())
		defer func() {
			c.stop()
			time.Sleep(time.Minute)
		}()
		id := c.create("orders", 1, 1, nil)
		leader, p := c.leader(id)
		leader.disk.set(true, nil)
		done := appendSoon(p, "before")
		time.Sleep(2 * stallTime)
		leader.disk.set(false, nil)
		if err := <-done; err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("what was in flight: %v", err)
		}
		time.Sleep(10 * time.Second)
		if _, err := appendWait(p, batchOf("after")); err != nil {
			t.Fatalf("ten seconds after the disk was back: %v", err)
		}
	})
}

// The same for a leader whose heir does not take over: it leads anew, in a later term,
// since what it had in flight is unknown in this one.
func TestLeaderWhoseHeirDoesNotTakeOverOutlivesAStall(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, batchOf("before")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // it may be handed over by now
		r := p.current.Load()
		term := r.Raft.CurrentTerm()
		for _, n := range c.nodes { // they do not hear what they are told, and nothing else either
			if n != leader {
				r := n.replicaOf(p.group)
				r.Port.Attach(deaf{r})
			}
		}
		leader.disk.set(true, nil)
		done := appendSoon(p, "in flight")
		time.Sleep(stallTime + time.Second)
		leader.disk.set(false, nil)
		if err := <-done; err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("what was in flight: %v", err)
		}
		time.Sleep(10 * time.Second)
		_, q := c.leader(id)
		ack, err := appendWait(q, batchOf("after"))
		if err != nil || uint64(ack.Epoch) <= term {
			t.Fatalf("ten seconds after the disk was back: %v, in term %d after %d", err, ack.Epoch, term)
		}
	})
}

// A sync that failed once has failed for good: the page cache may show what the disk
// does not have, and what it shows must not count for a quorum. That the next sync works
// does not bring the replica back.
func TestReplicaStaysDownAfterASyncThatFailed(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, batchOf("first")); err != nil {
			t.Fatal(err)
		}
		leader.disk.set(false, syscall.EIO)
		if err := <-appendSoon(p, "second"); err == nil {
			t.Fatal("acknowledged")
		}
		leader.disk.set(false, nil)
		time.Sleep(5 * time.Minute)
		if err := p.Down(); !errors.Is(err, ErrQuarantined) {
			t.Errorf("the replica is down for %v", err)
		}
		if p.current.Load() != nil {
			t.Error("the replica votes and acknowledges again")
		}
		next, _ := c.leader(id)
		if next == leader {
			t.Error("it leads again")
		}
	})
}

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
func testReplica(t *testing.T, l *log.Log) *replica {
	tr := transport.New(transport.Config{
		Local: transport.Peer{Node: 1, Incarnation: "a"}, Cluster: "c", Entries: gate{},
	})
	t.Cleanup(func() { tr.Close() })
	n := &Node{now: time.Now, snapshots: make(chan *replica, 1)}
	n.failover = failover.New(failover.Config{Node: groups{n}, Observer: groups{n}})
	n.events = n.failover
	p := &Partition{env: n.newEnv(), logger: slog.New(slog.DiscardHandler)}
	r := &replica{p: p, votes: raft.NewInmemStore(), snapshots: new(snapshotStore), closing: make(chan struct{})}
	r.Port = tr.Group(7, "1.a")
	r.store = &logStore{Log: l, r: r, pending: newPendingSync(), concurrentSyncs: new(atomic.Int64)}
	r.fsm = &fsm{r: r, producers: producers{}}
	return r
}

// ended is why somebody has asked to end the replica, nil if nobody has.
func (r *replica) ended() error {
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
	b := batchOf("value")
	assignNumber(b, n, 1)
	return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: b}
}

// A deaf replica stands for no election that it is told to: it says that it leads.
type deaf struct{ *replica }

func (deaf) Leads() bool { return true }

package replication

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/memnet"
	"millrace/log"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// appendSoon appends a batch and returns where its answer will be.
func appendSoon(p *partition.Partition, value string) chan error {
	done := make(chan error, 1)
	p.Append([]record.Batch{recordtest.Values(value)}, told(func(_ partition.Ack, err error) { done <- err }))
	return done
}

// A leader sends entries to its followers while it syncs them. Raft then takes them
// for committed before this replica has them for good; nobody else may.
func TestNobodyHearsOfACommitThatTheLeaderHasNotSynced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("first")); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes { // two of three would do for the answer
			eventually(t, "all have the first record", func() bool { return mustPartition(t, n, id).EndOffset() == 1 })
		}
		r := p.Replica()
		leader.disk.set(true, nil)
		defer leader.disk.set(false, nil)
		done := appendSoon(p, "second")
		time.Sleep(partition.StallTime / 3)
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
		if err := r.Log().GetLog(last, &second); err != nil {
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
			if err := r.Transport(sentLog{r.Log(), r}).AppendEntries(n.serverID(), raft.ServerAddress(n.serverID()), &args, &resp); err != nil || !resp.Success {
				t.Fatalf("node %d: %v, success %t", n.id, err, resp.Success)
			}
			if follower := mustPartition(t, n, id).Replica(); follower.Raft.CommitIndex() >= last {
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
		if _, err := appendWait(p, recordtest.Values("first")); err != nil {
			t.Fatal(err)
		}
		leader.disk.set(false, syscall.EIO)
		if err := <-appendSoon(p, "second"); err == nil {
			t.Fatal("acknowledged")
		}
		if got := p.HighWatermark(); got != 1 {
			t.Errorf("the high watermark is %d, want 1", got)
		}
		for begin := time.Now(); p.Replica() != nil; time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatal("the replica goes on")
			}
		}
		next, q := c.leader(id)
		if next == leader {
			t.Fatal("it leads again")
		}
		if _, err := appendWait(q, recordtest.Values("third")); err != nil {
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
		c := startCluster(t, 1, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute)
		}()
		id := c.create("orders", 1, 1, nil)
		leader, p := c.leader(id)
		leader.disk.set(true, nil)
		done := appendSoon(p, "before")
		time.Sleep(2 * partition.StallTime)
		leader.disk.set(false, nil)
		if err := <-done; err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("what was in flight: %v", err)
		}
		time.Sleep(10 * time.Second)
		if _, err := appendWait(p, recordtest.Values("after")); err != nil {
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
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Second) // it may be handed over by now
		r := p.Replica()
		term := r.Raft.CurrentTerm()
		for _, n := range c.nodes { // they do not hear what they are told, and nothing else either
			if n != leader {
				r := n.replicaOf(p.Group())
				r.Port.Attach(deaf{r})
			}
		}
		leader.disk.set(true, nil)
		done := appendSoon(p, "in flight")
		time.Sleep(partition.StallTime + time.Second)
		leader.disk.set(false, nil)
		if err := <-done; err != nil && !errors.Is(err, ErrUnknown) {
			t.Errorf("what was in flight: %v", err)
		}
		time.Sleep(10 * time.Second)
		_, q := c.leader(id)
		ack, err := appendWait(q, recordtest.Values("after"))
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
		if _, err := appendWait(p, recordtest.Values("first")); err != nil {
			t.Fatal(err)
		}
		leader.disk.set(false, syscall.EIO)
		if err := <-appendSoon(p, "second"); err == nil {
			t.Fatal("acknowledged")
		}
		leader.disk.set(false, nil)
		time.Sleep(5 * time.Minute)
		if err := p.Down(); !errors.Is(err, partition.ErrQuarantined) {
			t.Errorf("the replica is down for %v", err)
		}
		if p.Replica() != nil {
			t.Error("the replica votes and acknowledges again")
		}
		next, _ := c.leader(id)
		if next == leader {
			t.Error("it leads again")
		}
	})
}

// A sentLog is a replica's log, as its transport has it.
type sentLog struct {
	*log.Log
	r *partition.Replica
}

func (l sentLog) Durable() uint64 { return l.r.Durable() }

// A deaf replica stands for no election that it is told to: it says that it leads.
type deaf struct{ *partition.Replica }

func (deaf) Leads() bool { return true }

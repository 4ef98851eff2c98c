package replication

import (
	"context"
	"errors"
	"testing"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

func TestConfirmWhileAQuorumFollows(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		epoch, _ := p.Serving()
		if got, err := p.Confirm(context.Background()); err != nil || got != epoch {
			t.Fatalf("epoch %d, %v; want %d", got, err, epoch)
		}
		for _, n := range c.nodes {
			if n != leader {
				if _, err := mustPartition(t, n, id).Confirm(context.Background()); !errors.Is(err, partition.ErrNotLeader) {
					t.Errorf("a follower answered %v", err)
				}
			}
		}
		// One of three may be away.
		for _, n := range c.nodes {
			if n != leader {
				n.stop()
				break
			}
		}
		leader, p = c.leader(id)
		if _, err := p.Confirm(context.Background()); err != nil {
			t.Fatalf("with one follower gone: %v", err)
		}
		c.separate(leader)
		begin := time.Now()
		if _, err := p.Confirm(context.Background()); !errors.Is(err, partition.ErrNotLeader) {
			t.Fatalf("alone: %v", err)
		}
		if took := time.Since(begin); took > 2*partition.ConfirmTime {
			t.Errorf("refused after %v", took)
		}
	})
}

// I8: a leader that was deposed while it slept confirms nothing, neither by
// answers that were on their way when it fell asleep nor by those that come when
// it wakes; not even while it still believes in itself.
func TestDeposedLeaderDoesNotConfirm(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		old, p := c.leader(id)
		epoch, _ := p.Serving()
		var heir *testNode
		for _, n := range c.nodes {
			if n != old {
				heir = n
			}
		}
		// One that lacks an entry would not be elected before the old leader's lease ends.
		for {
			if r := heir.replicaOf(p.Group()); r != nil && r.Log().NextIndex() >= old.replicaOf(p.Group()).Log().NextIndex() {
				break
			}
			time.Sleep(time.Millisecond)
		}
		answers := make(chan error, 3)
		confirm := func() {
			_, err := p.Confirm(context.Background())
			answers <- err
		}
		// The voters answer this one while it leads; it does not hear them.
		c.net.Set("", old.addr, memnet.Stalled)
		early := make(chan error, 1)
		go func() {
			_, err := p.Confirm(context.Background())
			early <- err
		}()
		time.Sleep(10 * time.Millisecond)
		if err := heir.replicaOf(p.Group()).Port.Elect(); err != nil {
			t.Fatal(err)
		}
		next := mustPartition(t, heir, id)
		for {
			if _, err := next.Serving(); err == nil {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if ack, err := appendWait(next, recordtest.Values("new")); err != nil || ack.Epoch <= epoch {
			t.Fatalf("the new leader: epoch %d, %v", ack.Epoch, err)
		}
		if got, err := next.Confirm(context.Background()); err != nil || got <= epoch {
			t.Fatalf("the new leader: epoch %d, %v", got, err)
		}
		if got, err := p.Serving(); err != nil || got != epoch {
			t.Fatalf("the old leader knows already (%d, %v): the test shows nothing", got, err)
		}
		go confirm()
		time.Sleep(10 * time.Millisecond)
		go confirm()
		c.net.Set("", old.addr, memnet.Open)
		go confirm()
		for range 3 {
			if err := <-answers; !errors.Is(err, partition.ErrNotLeader) {
				t.Errorf("the deposed leader confirmed: %v", err)
			}
		}
		<-early // it led after that call; either answer is true
	})
}

// An append that was concluded from one leadership is refused under the next.
func TestAppendInOneEpochOnly(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	_, p := c.leader(id)
	epoch, _ := p.Serving()
	done := make(chan error, 1)
	answer := func(_ partition.Ack, err error) { done <- err }
	for _, wrong := range []int32{epoch - 1, epoch + 1} {
		if err := p.AppendIn(wrong, []record.Batch{recordtest.Values("no")}, told(answer)); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("epoch %d: %v", wrong, err)
		}
	}
	if err := p.AppendIn(epoch, []record.Batch{recordtest.Values("yes")}, told(answer)); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	c.check("in the end", id, []string{"yes"})
}

// How long a read barrier takes over loopback, three nodes in one process.
func BenchmarkConfirm(b *testing.B) {
	c := startCluster(b, 3, nil)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	_, p := c.leader(id)
	for b.Loop() {
		if _, err := p.Confirm(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

package replication

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// inVirtualTime runs a cluster of three in a bubble: hours pass in
// milliseconds, and every goroutine must have ended when the cluster has.
func inVirtualTime(t *testing.T, f func(t *testing.T, c *testCluster)) {
	t.Helper()
	inVirtualTimeOf(t, 3, f)
}

// inVirtualTimeOf is inVirtualTime with a cluster of n. The test runs beside others: its
// clock stands still while its goroutines wait for a processor.
func inVirtualTimeOf(t *testing.T, n int, f func(t *testing.T, c *testCluster)) {
	t.Helper()
	if !testing.Short() {
		t.Parallel()
	}
	aloneInVirtualTime(t, n, f)
}

// aloneInVirtualTime is inVirtualTimeOf of a test that changes the process.
func aloneInVirtualTime(t *testing.T, n int, f func(t *testing.T, c *testCluster)) {
	t.Helper()
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, n, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute) // what waits for a timer ends too
		}()
		f(t, c)
	})
}

// separate cuts a node off from all others.
func (c *testCluster) separate(n *testNode) {
	for _, other := range c.nodes {
		if other != n {
			c.net.Set(n.addr, other.addr, memnet.Severed)
		}
	}
}

// check fails the test unless the partition holds exactly want.
func (c *testCluster) check(what string, id idOf, want []string) {
	c.t.Helper()
	if got := c.values(id); strings.Join(got, " ") != strings.Join(want, " ") {
		c.t.Fatalf("%s: %d values, want %d:\n got %.300s\nwant %.300s", what, len(got), len(want), got, want)
	}
}

// A cluster that starts, of three, makes a topic and takes a record without waiting for a
// timer of somebody's: what it takes until then is work, and passes in no virtual time.
func TestANewClusterWaitsForNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		c := startCluster(t, 3, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute)
		}()
		c.append(c.create("orders", 1, 3, nil), "first")
		if took := time.Since(begin); took > time.Second {
			t.Errorf("the first record is acknowledged after %v of waiting", took)
		}
	})
}

// An isolated leader may acknowledge nothing, and what it appended in the
// meantime goes when it comes back.
func TestIsolatedLeaderAcknowledgesNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		old, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		c.separate(old)
		stale := make(chan error, 100)
		for i := range 100 {
			p.Append([]record.Batch{recordtest.Values(fmt.Sprint("stale-", i))}, told(func(_ partition.Ack, err error) { stale <- err }))
		}
		for range 100 {
			if err := <-stale; err == nil {
				t.Fatal("an isolated leader acknowledged a record")
			}
		}
		want := []string{"before"}
		_, p = c.leader(id)
		for i := range 10 {
			v := fmt.Sprint("after-", i)
			if _, err := appendWait(p, recordtest.Values(v)); err != nil {
				t.Fatal(err)
			}
			want = append(want, v)
		}
		c.net.Heal()
		time.Sleep(time.Minute)
		c.check("after the healing", id, want)
		c.sameEverywhere(id)
	})
}

// S39: a long uncommitted suffix, then retention past the divergence. The
// returning node's log has nothing in common with the leader's any more, so it
// catches up by segments.
func TestDivergedSuffixAndRetentionPastIt(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, map[string]string{"segment.bytes": "1048576"})
		old, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		c.separate(old)
		done := make(chan error, 500)
		for i := range 500 {
			p.Append([]record.Batch{recordtest.Values(fmt.Sprint("stale-", i))}, told(func(_ partition.Ack, err error) { done <- err }))
		}
		for range 500 {
			if err := <-done; err == nil {
				t.Fatal("an isolated leader acknowledged a record")
			}
		}
		leader, p := c.leader(id)
		big := strings.Repeat("x", 200<<10)
		for i := range 40 { // some segments' worth
			if _, err := appendWait(p, recordtest.Values(fmt.Sprint(big, i))); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Minute) // snapshots follow the rolls
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if _, err := p.Trim(ctx, 35); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		first, err := leader.replicaOf(p.Group()).Log().FirstIndex()
		if err != nil || first < 10 {
			t.Fatalf("the leader's log still begins at entry %d (%v): the test does not reach past the divergence", first, err)
		}
		c.net.Heal()
		time.Sleep(5 * time.Minute)
		leader, p = c.leader(id)
		if _, err := appendWait(p, recordtest.Values("last")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.sameEverywhere(id)
		r := old.replicaOf(p.Group())
		if r == nil {
			t.Fatalf("the returning replica is down: %v", mustPartition(t, old, id).Down())
		}
		if at := r.Raft.AppliedIndex(); at < leader.replicaOf(p.Group()).Raft.AppliedIndex() {
			t.Fatalf("the returning replica has applied %d, the leader more", at)
		}
	})
}

// mustPartition waits until the node has the partition open, which a leader that two
// of three elected does not wait for.
func mustPartition(t *testing.T, n *testNode, id idOf) *partition.Partition {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		p, err := n.Partition(id)
		if err == nil {
			return p
		}
		if time.Since(begin) > time.Minute {
			t.Fatal(err)
		}
	}
}

// An hour without traffic changes nothing: no elections, no new terms.
func TestIdleHourKeepsItsLeader(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 3, 3, nil)
		time.Sleep(30 * time.Second) // preferred leaders settle
		before := map[int32]int32{}
		for i := range int32(3) {
			id.Index = i
			_, p := c.leader(id)
			before[i], _ = p.Serving()
		}
		time.Sleep(time.Hour)
		for i := range int32(3) {
			id.Index = i
			_, p := c.leader(id)
			if epoch, _ := p.Serving(); epoch != before[i] {
				t.Errorf("partition %d: epoch %d became %d without a cause", i, before[i], epoch)
			}
		}
	})
}

// A link that flaps for five minutes under load loses nothing that was acknowledged.
func TestFlappingLinksLoseNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		acked := map[string]int64{}
		for round := range 20 {
			n, p := c.leader(id)
			for i := range 5 {
				v := fmt.Sprintf("%d-%d", round, i)
				if ack, err := appendWait(p, recordtest.Values(v)); err == nil {
					acked[v] = ack.BaseOffset
				}
			}
			if round%2 == 0 {
				c.separate(n)
			}
			time.Sleep(15 * time.Second)
			c.net.Heal()
		}
		time.Sleep(time.Minute)
		got := c.values(id)
		for v, offset := range acked {
			if offset >= int64(len(got)) || got[offset] != v {
				t.Errorf("%s was acknowledged at offset %d and is not there", v, offset)
			}
		}
		if len(acked) < 50 {
			t.Errorf("only %d of 100 appends were acknowledged", len(acked))
		}
		c.sameEverywhere(id)
	})
}

// sameEverywhere compares the committed entries of all replicas (I9).
func (c *testCluster) sameEverywhere(id idOf) {
	c.t.Helper()
	leader, p := c.leader(id)
	lead := leader.replicaOf(p.Group())
	last := lead.Raft.CommitIndex()
	for _, n := range c.nodes {
		if n.Node == nil || n == leader {
			continue
		}
		r := n.replicaOf(p.Group())
		if r == nil {
			c.t.Errorf("node %d has no live replica: %v", n.id, mustPartition(c.t.(*testing.T), n, id).Down())
			continue
		}
		a, _ := lead.Log().FirstIndex()
		b, _ := r.Log().FirstIndex()
		compared := 0
		for i := max(a, b); i <= min(last, r.Raft.CommitIndex()); i++ {
			if x, y := entryAt(c.t, lead, i), entryAt(c.t, r, i); x != y {
				c.t.Fatalf("entry %d differs between nodes %d and %d:\n%.100s\n%.100s", i, leader.id, n.id, x, y)
			}
			compared++
		}
		if compared == 0 {
			c.t.Errorf("nothing to compare between nodes %d and %d", leader.id, n.id)
		}
	}
}

// others returns the nodes but one, in order.
func (c *testCluster) others(one *testNode) (others []*testNode) {
	for _, n := range c.nodes {
		if n != one {
			others = append(others, n)
		}
	}
	return others
}

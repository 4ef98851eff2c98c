package replication

import (
	"testing"
	"time"

	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/segment/record/recordtest"
)

// A follower that comes back to a group in which nothing happens gets what it
// lacks at once, and then nothing more.
func TestWhoComesBackIsNudged(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Values("before")); err != nil {
			t.Fatal(err)
		}
		var away *testNode
		for _, n := range c.nodes {
			if n != leader {
				away = n
			}
		}
		for i := range int64(3) { // Raft alone may be lucky once
			away.stop()
			if _, err := appendWait(p, recordtest.Values("meanwhile")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * raftgroup.CommitTimeout)
			away.start()
			begin := time.Now()
			for back := (*partition.Partition)(nil); back == nil || back.EndOffset() < 2+i; time.Sleep(10 * time.Millisecond) {
				back, _ = away.Partition(id)
				if time.Since(begin) > raftgroup.CommitTimeout/10 {
					t.Fatal("it was left to Raft's own time")
				}
			}
		}
		time.Sleep(2 * time.Minute)
		last := p.Replica().Raft.LastIndex()
		time.Sleep(time.Hour)
		if now := p.Replica().Raft.LastIndex(); now != last {
			t.Errorf("%d entries were added to an idle group in an hour", now-last)
		}
	})
}

package replication

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// After 40,000 other producers wrote, the first one's retry is still recognised.
func TestManyProducersDoNotCrowdOneOut(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	_, p := c.leader(id)
	first, err := appendWait(p, recordtest.Sequenced(7, 0, 0, 1, 0))
	if err != nil {
		t.Fatal(err)
	}
	const others = 40_000
	answers := make(chan error, others)
	for begun, ended := 0, 0; ended < others; ended++ {
		for ; begun < others && begun-ended < 1000; begun++ {
			p.Append([]record.Batch{recordtest.Sequenced(int64(1000+begun), 0, 0, 1, 0)}, told(func(_ partition.Ack, err error) { answers <- err }))
		}
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
	again, err := appendWait(p, recordtest.Sequenced(7, 0, 0, 1, 0))
	if err != nil || again.BaseOffset != first.BaseOffset {
		t.Errorf("sent again it is at %d, %v; it was at %d", again.BaseOffset, err, first.BaseOffset)
	}
}

// producer.id.expiration.ms: afterwards a producer may go on with any
// sequence number, at the leader that remembered it too. Until then it may not.
func TestIdleProducersAreForgottenEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := startClusterWith(t, 3, memnet.New(), map[string]string{"producer.id.expiration.ms": "600000"})
		defer func() {
			c.stop()
			time.Sleep(time.Minute) // what waits for a timer ends too
		}()
		id := c.create("orders", 1, 3, nil)
		_, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Sequenced(7, 0, 0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(9 * time.Minute)
		if _, err := appendWait(p, recordtest.Sequenced(7, 0, 5, 1, 0)); !errors.Is(err, partition.ErrSequence) {
			t.Fatalf("a gap after 9 minutes: %v", err)
		}
		time.Sleep(3 * time.Minute) // a follower may hear of the commit a minute later, and counts from then
		for _, n := range c.nodes {
			p, err := n.Partition(id)
			if err != nil {
				t.Fatal(err)
			}
			if list := p.Producers(); len(list) != 0 {
				t.Errorf("%s remembers %+v", n.addr, list)
			}
		}
		_, p = c.leader(id)
		if _, err := appendWait(p, recordtest.Sequenced(7, 0, 5, 1, 0)); err != nil {
			t.Errorf("a gap after 12 minutes: %v", err)
		}
	})
}

package replication

import (
	"fmt"
	"millrace/segment/record/recordtest"
	"testing"
	"time"
)

// A follower that was away for a minute, under load, has what there is within half a
// second of its return, and so has a member of the controller group: whatever its leader
// tried in vain meanwhile.
func TestWhoReturnsIsInSyncSoon(t *testing.T) {
	const soon = 500 * time.Millisecond
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		time.Sleep(time.Minute) // all three vote for the controller
		lead, p := c.leader(id)
		controller := c.controllerWithin(0)
		var away *testNode
		for _, n := range c.nodes {
			if n != lead && n != controller {
				away = n
			}
		}
		load := func(d time.Duration) {
			for begin := time.Now(); time.Since(begin) < d; time.Sleep(50 * time.Millisecond) {
				if _, err := appendWait(p, recordtest.Values("x")); err != nil {
					t.Fatal(err)
				}
			}
		}
		c.separate(away)
		for i := range 6 {
			load(10 * time.Second)
			if err := controller.changes(fmt.Sprint("topic-", i), 5*time.Second); err != nil {
				t.Fatal(err)
			}
		}
		c.net.Heal()
		returned := time.Now()
		for !away.Live(lead.id) || !away.Live(controller.id) {
			time.Sleep(10 * time.Millisecond)
		}
		heard := time.Now()
		target, changes := p.HighWatermark(), controller.Image().Index
		behind := func() string {
			if at := mustPartition(t, away, id).EndOffset(); at < target {
				return fmt.Sprintf("it has records up to %d of %d", at, target)
			}
			if at := away.Image().Index; at < changes {
				return fmt.Sprintf("it has metadata up to change %d of %d", at, changes)
			}
			return ""
		}
		for behind() != "" && time.Since(heard) < time.Minute {
			load(100 * time.Millisecond)
		}
		if took := time.Since(heard); took > soon {
			t.Errorf("a follower is in sync %v after its return, want %v", took, soon)
		}
		t.Logf("heard of %v after the heal, in sync %v later", heard.Sub(returned), time.Since(heard))
	})
}

package replication

import (
	"fmt"
	"millrace/segment/record/recordtest"
	"testing"
	"time"
)

// Two of three nodes die and come back. The one that survived neither keeps the others
// from being elected nor waits for Raft's own timers: all groups are led as soon as
// after the death of all three.
func TestASurvivorCostsNothing(t *testing.T) {
	for dead := 2; dead <= 3; dead++ {
		for away := range 3 {
			if dead == 3 && away > 0 {
				continue
			}
			t.Run(fmt.Sprintf("%d of 3 killed, from node %d", dead, away+1), func(t *testing.T) {
				inVirtualTime(t, func(t *testing.T, c *testCluster) {
					ids := c.spread(30)
					l := &load{c: c, ids: ids}
					l.run(time.Second)
					var killed []*testNode
					for i := range dead {
						killed = append(killed, c.nodes[(away+i)%3])
					}
					for _, n := range killed {
						n.stop()
					}
					for _, n := range c.nodes { // what it cannot commit makes its logs longer
						if n.Node == nil {
							continue
						}
						for _, id := range ids {
							if p, err := n.Partition(id); err == nil {
								appendWaitFor(p, recordtest.Values("alone"), time.Millisecond)
							}
						}
					}
					time.Sleep(8 * time.Second)
					begin := time.Now()
					for _, n := range killed {
						if err := n.open(); err != nil {
							t.Fatal(err)
						}
						started := n.startNow()
						defer func() { <-started }()
					}
					var slowest time.Duration
					for _, id := range ids {
						for n, _ := c.serving(id); n == nil; n, _ = c.serving(id) {
							if time.Since(begin) > time.Minute {
								t.Fatalf("nobody serves partition %d", id.Index)
							}
							time.Sleep(5 * time.Millisecond)
						}
						slowest = time.Since(begin)
					}
					t.Logf("partitions led after %v", slowest)
					for _, id := range ids {
						for {
							if n, p := c.serving(id); n != nil {
								if _, err := appendWaitFor(p, recordtest.Values("again"), time.Second); err == nil {
									break
								}
							}
							time.Sleep(5 * time.Millisecond)
						}
						slowest = time.Since(begin)
					}
					for c.controllerLead() == nil {
						time.Sleep(5 * time.Millisecond)
					}
					t.Logf("partitions took a record after %v, all led with the controllers after %v", slowest, time.Since(begin))
					if took := time.Since(begin); took > 2*time.Second {
						t.Errorf("all groups were led after %v, want 2s", took)
					}
				})
			})
		}
	}
}

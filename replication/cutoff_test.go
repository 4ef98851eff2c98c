package replication

import (
	"testing"
	"time"

	"millrace/internal/memnet"
)

// A leader that is cut off without a word, or whose followers' processes end, wakes who
// waits for records within 5 s. Nobody is cut off any more once a majority of the voters
// is back, and one follower that is gone changes nothing.
func TestALeaderThatIsCutOffSendsAwayWhoWaits(t *testing.T) {
	for name, part := range map[string]func(c *testCluster, lead, other *testNode){
		"silence": func(c *testCluster, lead, other *testNode) {
			c.net.Set(lead.addr, other.addr, memnet.Lost)
			c.net.Set(other.addr, lead.addr, memnet.Lost)
		},
		"ended": func(c *testCluster, lead, other *testNode) { c.net.Set(lead.addr, other.addr, memnet.Severed) },
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				id := c.create("orders", 1, 3, nil)
				lead, p := c.leader(id)
				others := c.others(lead)
				wake := make(chan struct{}, 1)
				cancel := p.Notify(p.HighWatermark(), wake)
				defer cancel()

				part(c, lead, others[0])
				time.Sleep(5 * time.Second)
				if p.CutOff() || len(wake) > 0 {
					t.Fatal("with one follower of two, it says that it is cut off")
				}
				c.net.Heal()
				time.Sleep(5 * time.Second)

				for _, other := range others {
					part(c, lead, other)
				}
				begin := time.Now()
				time.Sleep(2 * time.Second)
				if p.CutOff() {
					t.Fatal("it says so after 2 s: a restart of its followers takes longer")
				}
				select {
				case <-wake:
				case <-time.After(time.Minute):
				}
				took := time.Since(begin)
				if _, err := p.Serving(); err != nil || !p.CutOff() || took > 5*time.Second {
					t.Fatalf("who waited was woken after %v (serving: %v, cut off: %v), want within 5 s", took, err, p.CutOff())
				}
				if _, _, ok := lead.Leader(id); ok {
					t.Error("its metadata says that somebody leads")
				}
				late := make(chan struct{}, 1)
				defer p.Notify(p.HighWatermark(), late)()
				if len(late) == 0 {
					t.Error("who comes to wait is not told")
				}
				c.net.Heal()
				time.Sleep(5 * time.Second)
				for _, n := range c.nodes {
					if mustPartition(t, n, id).CutOff() {
						t.Errorf("node %d is cut off though it hears everybody", n.id)
					}
				}
			})
		})
	}
}

package replication

import (
	"fmt"
	"math/rand/v2"
	"millrace/segment/record/recordtest"
	"os"
	"strconv"
	"testing"
	"time"

	"millrace/internal/memnet"
)

// A storm of nodes that take nothing in for seconds, as on a machine that has no time for
// them, and of links that break, at moments that nobody thought of. When it is over,
// every partition is served soon, every node knows by whom, and what is appended there
// is acknowledged. STORM is the first seed, STORMS how many follow.
func TestAfterAStormNothingIsDeaf(t *testing.T) {
	first, storms := 1, 4
	if n, err := strconv.Atoi(os.Getenv("STORM")); err == nil {
		first = n
	}
	if n, err := strconv.Atoi(os.Getenv("STORMS")); err == nil {
		storms = n
	}
	for seed := first; seed < first+storms; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				ids := c.spread(6)
				random := rand.New(rand.NewPCG(uint64(seed), 0))
				stop := make(chan struct{})
				for _, id := range ids {
					go func() { // a producer: it goes to who says it serves
						for i := 0; ; i++ {
							select {
							case <-stop:
								return
							case <-time.After(100 * time.Millisecond):
							}
							if n, p := c.serving(id); n != nil {
								appendWaitFor(p, recordtest.Values(fmt.Sprint("value-", i)), time.Second)
							}
						}
					}()
				}
				for began := time.Now(); time.Since(began) < 2*time.Minute; {
					for range 1 + random.IntN(2) {
						n, other := c.nodes[random.IntN(3)], c.nodes[random.IntN(3)]
						switch random.IntN(10) {
						case 0:
							if n != other {
								c.net.Set(n.addr, other.addr, memnet.Severed)
							}
						case 1:
							if n != other {
								c.net.Set(n.addr, other.addr, memnet.Lost)
							}
						case 2:
							n.late.Store(int64(random.IntN(500)) * int64(time.Millisecond))
						default:
							c.net.Set("", n.addr, memnet.Stalled)
						}
					}
					time.Sleep(time.Duration(random.IntN(6000)) * time.Millisecond)
					for _, n := range c.nodes {
						n.late.Store(0)
					}
					c.net.Heal()
					time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
				}
				began := time.Now()
				for _, id := range ids {
					for {
						err := c.heard(id)
						if err == nil {
							break
						}
						if time.Since(began) > 10*time.Second {
							t.Fatalf("partition %d, 10 s after the storm: %v", id.Index, err)
						}
						time.Sleep(100 * time.Millisecond)
					}
				}
				t.Logf("all is served again after %v", time.Since(began))
				close(stop)
				time.Sleep(2 * time.Second)
			})
		})
	}
}

// heard tells what is wrong with a partition: nobody serves it, a node does not know who
// does, or what is appended is not acknowledged.
func (c *testCluster) heard(id idOf) error {
	lead, p := c.serving(id)
	if lead == nil {
		return fmt.Errorf("nobody serves it")
	}
	epoch, _ := p.Serving()
	for _, n := range c.nodes {
		if broker, at, ok := n.Leader(id); !ok || broker != lead.id || at != epoch || !n.Present(broker) {
			return fmt.Errorf("node %d says that it is led by %d in epoch %d (%v), it is by %d in %d", n.id, broker, at, ok, lead.id, epoch)
		}
	}
	if _, err := appendWaitFor(p, recordtest.Values("after"), time.Second); err != nil {
		return fmt.Errorf("append at %d: %w", lead.id, err)
	}
	return nil
}

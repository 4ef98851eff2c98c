package replication

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
)

// A leader that no other voter hears is replaced within seconds, as long as a majority of
// voters hear each other: that a broker without a replica hears it keeps nobody waiting.
func TestABystanderKeepsNoLeader(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 4, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute) // what waits for a timer ends too
		}()
		id := c.create("orders", 1, 3, nil)
		c.leader(id)
		time.Sleep(time.Minute) // it stays there
		old, p := c.leader(id)
		epoch, _ := p.Serving()
		_, part, _ := old.Image().Partition(id)
		for _, other := range c.nodes {
			if other != old && slices.Contains(part.Replicas, other.id) {
				c.net.Set(old.addr, other.addr, memnet.Severed)
			}
		}
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			if n, q := c.serving(id); n != nil && n != old {
				if now, err := q.Serving(); err == nil && now > epoch {
					return
				}
			}
			if took := time.Since(began); took > 5*time.Second {
				t.Fatalf("no other voter leads after %v", took)
			}
		}
	})
}

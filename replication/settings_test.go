package replication

import (
	"context"
	"testing"
	"time"

	"millrace/replication/metadata"
)

// auto.leader.rebalance.enable=false: leadership stays where it went, until it is
// switched on again.
func TestLeadersAreBroughtBackOnlyWhereThatIsWanted(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		preferred, _ := c.leader(id)
		set := func(value string) {
			t.Helper()
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			change := metadata.SetBrokerConfig{Set: map[string]string{"auto.leader.rebalance.enable": value}}
			if err := c.live().Change(ctx, change); err != nil {
				t.Fatal(err)
			}
		}
		set("false")
		preferred.stop()
		other, _ := c.leader(id)
		preferred.start()
		time.Sleep(10 * time.Minute)
		if now, _ := c.leader(id); now != other {
			t.Errorf("node %d led when node %d came back, and does no more", other.id, preferred.id)
		}
		set("true")
		time.Sleep(10 * time.Minute)
		if now, _ := c.leader(id); now != preferred {
			t.Errorf("node %d leads, and node %d is preferred", now.id, preferred.id)
		}
	})
}

package replication

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A node that is away is said to be when it goes, and now and then while it stays away,
// by each of the others, however many groups they share; and a topic's creation says
// nothing of nodes that open its groups some milliseconds later.
func TestLogsAreCalmWhileANodeIsAway(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute)
		said := func(n *testNode) int { return n.log.count("raft: ") + n.log.count("transport: ") }
		before := make(map[int32]int) // while they were started one after the other
		for _, n := range c.nodes {
			before[n.id] = said(n)
		}
		for i := range 5 {
			c.create(fmt.Sprint("topic-", i), 4, 3, nil)
		}
		for _, n := range c.nodes {
			if got := said(n) - before[n.id]; got > 0 {
				t.Errorf("node %d said %d lines about Raft or connections while nothing was wrong:\n%s", n.id, got, strings.Join(n.log.lines, "\n"))
			}
		}
		time.Sleep(time.Minute)
		gone := c.nodes[2]
		gone.stop()
		time.Sleep(20 * time.Minute)
		for _, n := range c.others(gone) {
			// Who is stopped here loses its connections first, and may make them again
			// before it ends: down once for each time that it was up.
			if up, down := n.log.count(fmt.Sprint("peer is up node=", gone.id)), n.log.count("peer is down"); down != up || down > 2 {
				t.Errorf("node %d said %d times that a peer is down, %d that it is up:\n%s", n.id, down, up, strings.Join(n.log.lines, "\n"))
			}
			// That it is not connected, after 10 s, a minute, six minutes and ten; of Raft nothing.
			if got := said(n) - before[n.id]; got < 3 || got > 4 {
				t.Errorf("node %d said %d lines about Raft and connections:\n%s", n.id, got, strings.Join(n.log.lines, "\n"))
			}
		}
	})
}

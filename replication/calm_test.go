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
		from := len(c.nodes[0].log.lines)
		for i := range 5 {
			c.create(fmt.Sprint("topic-", i), 4, 3, nil)
		}
		for _, n := range c.nodes {
			for _, text := range []string{"raft: ", "transport: "} {
				if got := n.log.count(text); got > 0 {
					t.Errorf("node %d said %d lines about %q while nothing was wrong:\n%s", n.id, got, text, strings.Join(n.log.lines[min(from, len(n.log.lines)):], "\n"))
				}
			}
		}
		time.Sleep(time.Minute)
		gone := c.nodes[2]
		gone.stop()
		time.Sleep(20 * time.Minute)
		for _, n := range c.others(gone) {
			if got := n.log.count("peer is down"); got != 1 {
				t.Errorf("node %d said %d times that a peer is down", n.id, got)
			}
			// After 10 s, a minute, six minutes and ten.
			if got := n.log.count("transport: no connection to a peer"); got < 3 || got > 4 {
				t.Errorf("node %d said %d times that it is not connected", n.id, got)
			}
			if got := n.log.count("raft: "); got > 0 {
				t.Errorf("node %d: raft said %d lines:\n%s", n.id, got, strings.Join(n.log.lines, "\n"))
			}
		}
	})
}

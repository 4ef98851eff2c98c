package replication

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"millrace/replication/folder"
)

// A node whose metadata log is gone comes back as a new incarnation, and its
// replicas catch up from the others.
func TestLostMetadataLogRejoins(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.settled()
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		n := c.nodes[2]
		n.stop()
		for _, other := range c.nodes[:2] { // which would refuse one under the name of a node that is there
			for other.Live(n.id) {
				time.Sleep(time.Millisecond)
			}
		}
		if err := os.Remove(filepath.Join(n.dir, folder.MetaName, folder.LogName)); err != nil {
			t.Fatal(err)
		}
		n.start()
		c.append(id, "after")
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			back, err := n.Partition(id)
			if err == nil && back.HighWatermark() == 2 {
				return
			}
			if err == nil && back.Down() != nil {
				t.Fatal(back.Down())
			}
			if time.Now().After(deadline) {
				t.Fatalf("the replica did not catch up: %v", err)
			}
		}
	})
}

// Who tells a node to join whose folder has a cluster is told that it is not done again.
func TestJoiningAgainIsSaidToBeNothing(t *testing.T) {
	c := startCluster(t, 2, nil)
	defer c.stop()
	const said = "the folder belongs to a cluster already"
	n := c.nodes[1]
	if got := n.log.count(said); got != 0 {
		t.Errorf("it was said %d times at the first start", got)
	}
	n.stop()
	n.start()
	if got := n.log.count(said); got != 1 {
		t.Errorf("it was said %d times at the second", got)
	}
}

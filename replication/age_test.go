package replication

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"millrace/replication/folder"
	"millrace/replication/transport"
	"millrace/segment/record/recordtest"
)

// heardAge is the greatest age of n's folder that another node has heard of.
func (n *testNode) heardAge(of *testNode) uint64 {
	return n.members.Last(of.identity.Peer()).Age
}

// copyOfALivingNode copies node 3 of a cluster of three while it runs, which acknowledges
// more in the same run after that. Both others have heard of that.
func copyOfALivingNode(t *testing.T, c *testCluster) (id idOf, copied string) {
	t.Helper()
	c.settled()
	id = c.create("orders", 1, 3, nil)
	n := c.nodes[2]
	c.append(id, "before")
	eventually(t, "node 3 has the first record", func() bool { return mustPartition(t, n, id).EndOffset() == 1 })
	eventually(t, "nothing is written any more", func() bool {
		before := n.upkeep.written()
		time.Sleep(2*ageEvery + 2*stallEvery)
		return n.upkeep.written() == before && n.upkeep.aging.Idle()
	})
	copied = filepath.Join(c.dir, "copy")
	if err := os.CopyFS(copied, os.DirFS(n.dir)); err != nil {
		t.Fatal(err)
	}
	age := n.upkeep.aging.Age.Now()
	c.append(id, "after")
	eventually(t, "node 3 has the second record", func() bool { return mustPartition(t, n, id).EndOffset() == 2 })
	for _, other := range c.nodes[:2] {
		eventually(t, "the others hear that the folder has grown older", func() bool { return other.heardAge(n) > age })
	}
	return id, copied
}

// startsAsACopy puts a copy where n's folder was, and has n end at its start for it.
func (n *testNode) startsAsACopy(copied string) {
	n.c.t.Helper()
	if err := os.Rename(copied, n.dir); err != nil {
		n.c.t.Fatal(err)
	}
	if err := n.startUntilFailed(); !errors.Is(err, ErrOldDisk) {
		n.c.t.Fatalf("a copy of the last run started: %v", err)
	}
	n.stop()
}

// A copy of a running node, put in its place when it has ended, lacks what the node
// acknowledged in the same run. It was started as often as the node was.
func TestACopyOfTheLastRunComesBackAsANewIncarnation(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, copied := copyOfALivingNode(t, c)
		n := c.nodes[2]
		before := n.identity.Incarnation
		n.stop()
		if err := os.RemoveAll(n.dir); err != nil {
			t.Fatal(err)
		}
		n.startsAsACopy(copied)
		n.start()
		if n.identity.Incarnation == before {
			t.Error("it came back under its old name")
		}
		eventually(t, "the new incarnation has caught up", func() bool {
			return n.replicaOf(1) != nil && mustPartition(t, n, id).HighWatermark() == 2
		})
	})
}

// The same copy, started beside the node: the copy ends, and the node does not.
func TestACloneBesideTheNodeEnds(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, copied := copyOfALivingNode(t, c)
		n := c.nodes[2]
		clone := &testNode{c: c, id: n.id, addr: "127.0.0.1:9100", dir: copied, disk: newTestDisk()}
		defer clone.stop()
		if err := clone.startUntilFailed(); !errors.Is(err, ErrOldDisk) {
			t.Fatalf("both run: %v", err)
		}
		c.append(id, "and on")
		eventually(t, "the node follows", func() bool { return mustPartition(t, n, id).EndOffset() == 3 })
		eventually(t, "nobody takes the node for a copy", func() bool {
			return !slices.ContainsFunc(c.others(n), func(o *testNode) bool { return o.members.IsCopy(n.identity.Peer()) })
		})
	})
}

// A node that writes nothing leaves its disk alone.
func TestAnIdleFolderGrowsNoOlder(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		_, p := c.leader(id)
		time.Sleep(time.Minute)
		n := c.nodes[2]
		before := n.upkeep.aging.Age.Now()
		time.Sleep(time.Hour)
		if idle := n.upkeep.aging.Age.Now(); idle > before+10 {
			t.Errorf("in an hour without traffic the age went from %d to %d", before, idle)
		}
		before = n.upkeep.aging.Age.Now()
		if _, err := appendWait(p, recordtest.Values("x")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		if after := n.upkeep.aging.Age.Now(); after == before || after > before+3 {
			t.Errorf("after one record the age went from %d to %d", before, after)
		}
	})
}

// The file of the age is lost, and nothing else: nobody else knows better, and the folder
// itself knows at which age it was registered.
func TestAFolderWithoutItsAgeIsNoCopy(t *testing.T) {
	inVirtualTimeOf(t, 1, func(t *testing.T, c *testCluster) {
		n := c.nodes[0]
		n.stop()
		n.start()
		eventually(t, "its start is on record, in its folder", func() bool { return n.registeredAge() > 1 })
		was := n.identity.Incarnation
		n.stop()
		if err := os.Truncate(filepath.Join(n.dir, folder.AgeName), 0); err != nil {
			t.Fatal(err)
		}
		n.start()
		eventually(t, "it is registered again", func() bool {
			b, ok := n.Image().Broker(1)
			return ok && b.Run == n.registrar.Run()
		})
		select {
		case <-n.Failed():
			t.Fatal(n.Failure())
		default:
		}
		if n.identity.Incarnation != was {
			t.Error("it came back as another")
		}
	})
}

// The folder whose copy took its place learns that it was replaced, and ends; one whose
// peers are behind does not.
func TestTheOriginalOfACopyThatReplacedItEnds(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, copied := copyOfALivingNode(t, c)
		n := c.nodes[2]
		n.stop()
		original := n.dir + "-original"
		if err := os.Rename(n.dir, original); err != nil {
			t.Fatal(err)
		}
		n.startsAsACopy(copied)
		n.start() // as a new incarnation
		eventually(t, "the new incarnation has caught up", func() bool {
			return n.replicaOf(1) != nil && mustPartition(t, n, id).HighWatermark() == 2
		})
		n.stop() // or the original would say hello in the name of one that is alive

		o := &testNode{c: c, id: n.id, addr: n.addr, dir: original, disk: newTestDisk()}
		defer o.stop()
		err := o.startUntilFailed()
		if !errors.Is(err, ErrOldDisk) || !strings.Contains(err.Error(), "another incarnation took the peer's place") {
			t.Errorf("the original goes on: %v", err)
		}
		o.stop()
		n.start()
		// A peer's image from before says nothing of one that is named in a later one; nor does
		// one peer alone, however often it says so, or a stranger.
		later := n.Image().Index + 1<<20
		n.members.Replaced(transport.Peer{Node: 1}, n.Image().Index, "behind")
		n.members.Replaced(transport.Peer{Node: 2}, later, "a liar")
		n.members.Replaced(transport.Peer{Node: 2}, later+1, "a liar")
		n.members.Replaced(transport.Peer{Node: 3}, later, "this one itself")
		n.members.Replaced(transport.Peer{Node: 77}, later, "a stranger")
		if err := n.Failure(); err != nil {
			t.Error(err)
		}
		n.copied = true // is believed from here on
		n.members.Replaced(transport.Peer{Node: 1}, later, "a majority of the others")
		if err := n.Failure(); !errors.Is(err, ErrOldDisk) {
			t.Errorf("a majority says that it was replaced: %v", err)
		}
	})
}

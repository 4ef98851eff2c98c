package replication

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/segment"
	"millrace/testdata/ports"
)

// eventually polls until done, for at most a minute.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// startUntilFailed starts a node that is to find out that it must not go on.
func (n *testNode) startUntilFailed() error {
	n.copied = true
	if err := n.tryStart(20 * time.Second); err != nil {
		return err
	}
	select {
	case <-n.Failed():
		return n.Failure()
	case <-time.After(30 * time.Second):
		return nil
	}
}

// A cluster is upgraded node by node. Nothing is written that the nodes of the first
// release cannot read while there is one; then everything is, and no such node comes
// in again.
func TestFeatureLevelFollowsTheLastNodeThatIsUpgraded(t *testing.T) {
	t.Parallel()
	c := startClusterAt(t, 3, nil, 1)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	if level := c.nodes[0].Image().Level(); level != 1 {
		t.Fatalf("a cluster of the first release is at level %d", level)
	}
	c.maxLevel = 0
	for _, n := range c.nodes[:2] {
		n.stop()
		n.start()
	}
	// The last one as it was. It may lead the controllers by now, and who leads raises the
	// level: an upgraded one is to, so it comes back when one does.
	c.nodes[2].stop()
	eventually(t, "an upgraded node is the controller", func() bool {
		return c.nodes[0].leadsController() || c.nodes[1].leadsController()
	})
	c.maxLevel = 1
	c.nodes[2].start()
	c.maxLevel = 0
	for _, n := range c.nodes[:2] {
		eventually(t, "the upgraded nodes know of each other", func() bool { return len(n.transport.Connected()) == 2 })
		if change, ok := n.members.NextLevel(); ok || change.Judged != n.Image().Index {
			t.Fatalf("node %d would raise the level to %d, as judged at change %d of %d", n.id, change.Level, change.Judged, n.Image().Index)
		}
		n.registrar.raiseLevel()
		eventually(t, "it has proposed what it would", func() bool { return !n.registrar.raising.Load() })
		if level := n.Image().Level(); level != 1 {
			t.Fatalf("node %d: level %d with a node of the first release", n.id, level)
		}
	}
	for _, n := range c.nodes {
		if id, _, err := n.dataFolder().Load(); err != nil || id.Level != 0 {
			t.Errorf("node %d cannot go back: level %d is noted, %v", n.id, id.Level, err)
		}
	}
	c.nodes[2].stop()
	c.nodes[2].start()
	for _, n := range c.nodes {
		eventually(t, "the level is noted in the folder", func() bool {
			id, _, err := n.dataFolder().Load()
			return err == nil && id.Level == metadata.MaxLevel
		})
		eventually(t, "all nodes are at the highest level and registered so", func() bool {
			image := n.Image()
			for _, b := range image.Brokers() {
				if b.MaxLevel != metadata.MaxLevel || b.Starts == 0 || b.Run != c.nodes[b.ID-1].registrar.Run() {
					return false
				}
			}
			return image.Level() == metadata.MaxLevel
		})
	}
	c.append(id, "kept")
	// The first release again: it would skip what it cannot read.
	old := c.nodes[2]
	old.stop()
	c.maxLevel = 1
	for _, n := range c.nodes[:2] {
		eventually(t, "its end is noticed", func() bool { return !n.Live(old.id) })
	}
	refused := c.nodes[0].transport.Stats().Refused
	old.tryStart(2 * time.Second) // it opens what it has
	eventually(t, "it is refused", func() bool { return c.nodes[0].transport.Stats().Refused > refused })
	for _, n := range c.nodes[:2] {
		if n.Live(old.id) {
			t.Errorf("node %d has a connection to a node of the first release", n.id)
		}
	}
}

// A restored backup lacks what was acknowledged since, under a name that answered for
// it. The others know of starts that it does not, and it comes back as who lost its
// disk.
func TestRestoredBackupComesBackAsANewIncarnation(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.settled()
		id := c.create("orders", 1, 3, nil)
		n := c.nodes[2]
		eventually(t, "node 3 has its replica", func() bool { return n.replicaOf(1) != nil })
		n.stop()
		backup := filepath.Join(c.dir, "backup")
		if err := os.CopyFS(backup, os.DirFS(n.dir)); err != nil {
			t.Fatal(err)
		}
		n.start()
		c.settled()
		before := n.identity.Incarnation
		c.append(id, "after the backup")
		n.stop()
		if err := os.RemoveAll(n.dir); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(n.dir, os.DirFS(backup)); err != nil {
			t.Fatal(err)
		}
		err := n.startUntilFailed()
		if !errors.Is(err, ErrOldDisk) || !strings.Contains(err.Error(), "new incarnation") {
			t.Fatalf("a restored backup started: %v", err)
		}
		for _, other := range c.nodes[:2] {
			// One may have lost the run before only just, and dialled this one.
			eventually(t, "nobody is connected to the old copy", func() bool { return !other.connected(n.serverID()) })
		}
		n.stop()
		n.start()
		if n.identity.Incarnation == before {
			t.Error("it came back under its old name")
		}
		if aside, _ := filepath.Glob(filepath.Join(n.dir, "partitions-"+before, "*")); len(aside) != 1 {
			t.Errorf("%d partitions were set aside, want 1", len(aside))
		}
		eventually(t, "the new incarnation has caught up", func() bool {
			r := n.replicaOf(1)
			return r != nil && mustPartition(t, n, id).HighWatermark() == 1
		})
	})
}

// Two copies of one disk are started: one of them is the node, the other is told.
func TestTwoLiveClonesAreToldApart(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	c.create("orders", 1, 3, nil)
	n := c.nodes[2]
	n.stop()
	clone := &testNode{c: c, id: n.id, addr: ports.Hold(t, 1)[0], dir: filepath.Join(c.dir, "clone"), disk: newTestDisk()}
	if err := os.CopyFS(clone.dir, os.DirFS(n.dir)); err != nil {
		t.Fatal(err)
	}
	defer clone.stop()
	n.start()
	// Of two copies that start at the same moment each may be the first that one of the
	// others hears, and then both must end.
	c.settled()
	err := clone.startUntilFailed()
	if !errors.Is(err, ErrOldDisk) {
		t.Fatalf("both run: %v", err)
	}
	if err := n.Failure(); err != nil {
		t.Errorf("the first one must end, too: %v", err)
	}
}

// A restart, a crash in the middle of one, and a node alone, restored or not, find
// nobody who knows better.
func TestStartsLockNobodyOut(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	n := c.nodes[1]
	for range 3 {
		n.stop()
		for range 2 { // it came as far as counting, and no further
			startOnly(t, n.dir)
		}
		n.start()
	}
	if age := n.upkeep.aging.Age.Now(); age < 10 {
		t.Errorf("it was started 10 times, and the folder's age is %d", age)
	}

	alone := startCluster(t, 1, nil)
	defer alone.stop()
	one := alone.nodes[0]
	one.stop()
	backup := filepath.Join(alone.dir, "backup")
	if err := os.CopyFS(backup, os.DirFS(one.dir)); err != nil {
		t.Fatal(err)
	}
	one.start()
	one.stop()
	if err := os.RemoveAll(one.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(one.dir, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	one.start() // its metadata is as old as its starts
}

// startOnly raises a folder's age as a start does, and returns it.
func startOnly(t *testing.T, dir string) uint64 {
	t.Helper()
	a, err := folder.Folder{FS: segment.OS, Dir: dir}.OpenAge(0)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	return a.Now()
}

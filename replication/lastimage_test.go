package replication

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/segment/record/recordtest"
)

// All nodes of a cluster of five died, and two come back: too few for a controller,
// but enough for the partitions that have two of their three replicas there. These
// are opened from the last image, elect their leaders, and serve.
func TestPartitionsOpenWithoutAController(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 5, memnet.New())
		defer func() {
			c.stop()
			time.Sleep(time.Minute)
		}()
		time.Sleep(time.Minute) // all five vote
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		_, part, _ := c.live().Image().Partition(id)
		replicas := slices.Clone(part.Replicas)
		time.Sleep(5 * time.Second)
		for _, n := range c.nodes {
			n.stop()
		}
		two := []*testNode{c.nodes[replicas[0]-1], c.nodes[replicas[1]-1]}
		begin := time.Now()
		for _, n := range two {
			n.start() // returns, though no controller is there
		}
		_, p := c.leader(id)
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("the partition was led %v after the start", took)
		}
		if _, err := appendWait(p, recordtest.Values("meanwhile")); err != nil {
			t.Fatal(err)
		}
		c.check("without a controller", id, []string{"before", "meanwhile"})
		if n := c.controllerLead(); n != nil {
			t.Fatalf("node %d leads the controller group, with two of five: the test shows nothing", n.id)
		}
		for _, n := range c.nodes {
			if !slices.Contains(two, n) {
				n.start()
			}
		}
		c.controllerWithin(2 * time.Second)
		after := c.create("after", 1, 3, nil)
		c.append(after, "x")
		time.Sleep(10 * time.Second)
		want := string(c.nodes[0].Image().Encode())
		for _, n := range c.nodes {
			if string(n.Image().Encode()) != want {
				t.Errorf("node %d has another image than node 1", n.id)
			}
		}
	})
}

// A last image that is damaged is not used: the node waits for the controller, as
// without one.
func TestADamagedLastImageIsNotUsed(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.append(id, "before")
		time.Sleep(5 * time.Second)
		n := c.nodes[2]
		n.stop()
		path := filepath.Join(n.dir, folder.MetaName, controller.ImageName)
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)-1] ^= 1
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		n.start()
		if n.log.count("the last image is not used") != 1 {
			t.Error("the log does not say that the last image is not used")
		}
		time.Sleep(10 * time.Second)
		c.append(id, "after")
		time.Sleep(time.Minute)
		c.sameEverywhere(id)
	})
}

// A node whose last image is from before a topic was created says that it has not caught
// up, until it has the topic; one whose image has all that its log has, at once.
func TestANodeKnowsWhatItsLastImageLacks(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		c.create("orders", 1, 3, nil)
		time.Sleep(5 * time.Second) // it is saved
		n := c.nodes[0]
		path := filepath.Join(n.dir, folder.MetaName, controller.ImageName)
		old, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		flights := c.create("flights", 1, 3, nil)
		time.Sleep(5 * time.Second)
		replayed := func() bool {
			select {
			case <-n.Replayed():
				return true
			default:
				return false
			}
		}
		for _, n := range c.nodes {
			n.stop()
		}
		n.start()
		if _, known := n.Image().TopicByID(flights.Topic); !known || !replayed() {
			t.Fatalf("with the image that it had: it knows of the topic: %v, and has caught up: %v", known, replayed())
		}
		n.stop()
		if err := os.WriteFile(path, old, 0o644); err != nil {
			t.Fatal(err)
		}
		n.start()
		time.Sleep(time.Minute) // alone it has no controller
		if _, known := n.Image().TopicByID(flights.Topic); known || replayed() {
			t.Fatalf("with an older image: it knows of the topic: %v, and has caught up: %v", known, replayed())
		}
		c.nodes[1].start()
		<-n.Replayed()
		if _, known := n.Image().TopicByID(flights.Topic); !known {
			t.Error("it has caught up, and does not know of the topic")
		}
		c.nodes[2].start()
	})
}

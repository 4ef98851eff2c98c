package replication

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/folder"
	"millrace/replication/metadata"
	"millrace/segment"
)

// All nodes of a cluster of five died, and two come back: too few for a controller,
// but enough for the partitions that have two of their three replicas there. These
// are opened from the last image, elect their leaders, and serve.
func TestPartitionsOpenWithoutAController(t *testing.T) {
	if testing.Short() {
		t.Skip("whole clusters take a second or two each; run without -short")
	}
	synctest.Test(t, func(t *testing.T) {
		c := startCluster(t, 5, newNetwork())
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
		if _, err := appendWait(p, batchOf("meanwhile")); err != nil {
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

// A snapshot of the controller group stands where Raft is, so none is taken while the
// image is ahead of that.
func TestNoSnapshotWhileChangesAreAppliedAgain(t *testing.T) {
	c := &controller{loaded: 7, saveNow: make(chan struct{}, 1)}
	c.image.Store(&metadata.Image{Index: 7})
	for index := uint64(5); index <= 7; index++ {
		if _, err := c.Snapshot(); !errors.Is(err, errReplays) {
			t.Errorf("before change %d: a snapshot was taken (%v)", index, err)
		}
		if !c.applied(index) {
			t.Errorf("change %d is applied twice", index)
		}
	}
	if _, err := c.Snapshot(); err != nil {
		t.Error(err)
	}
	if c.applied(8) {
		t.Error("change 8 is not applied")
	}
}

func TestLastImageIsReadOrRefused(t *testing.T) {
	image := &metadata.Image{}
	for i, change := range []metadata.Change{
		metadata.RegisterBroker{Broker: metadata.Broker{ID: 1, Incarnation: "0123abcd", Host: "a", Port: 1}, ClusterID: "0123456789abcdefghijkl"},
	} {
		next, err := image.Apply(uint64(i+1), change)
		if err != nil {
			t.Fatal(err)
		}
		image = next
	}
	p := encodeLastImage(image)
	back, err := decodeLastImage(p)
	if err != nil || string(back.Encode()) != string(image.Encode()) {
		t.Fatalf("read back: %v", err)
	}
	for i := range p {
		damaged := slices.Clone(p)
		damaged[i] ^= 1
		if _, err := decodeLastImage(damaged); !errors.Is(err, errImageDamaged) {
			t.Errorf("byte %d damaged: %v", i, err)
		}
	}
	for n := range p {
		if _, err := decodeLastImage(p[:n]); !errors.Is(err, errImageDamaged) {
			t.Errorf("cut at byte %d: %v", n, err)
		}
	}
}

// An image that the log does not reach is of a log that was lost: what follows in the
// one that is there is not what made it.
func TestALastImageBeyondTheLogIsNotUsed(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	n := c.nodes[0]
	image := n.Image()
	if _, err := segment.WriteFile(segment.OS, filepath.Join(n.dir, folder.MetaName, imageName), encodeLastImage(image)); err != nil {
		t.Fatal(err)
	}
	for last, used := range map[uint64]bool{image.Index - 1: false, image.Index: true, image.Index + 1: true} {
		fresh := &controller{n: n.Node}
		fresh.image.Store(&metadata.Image{})
		fresh.loadImage(last, raft.NewInmemSnapshotStore())
		if got := fresh.image.Load().Index == image.Index; got != used {
			t.Errorf("an image at change %d, a log that ends at %d: used %t", image.Index, last, got)
		}
	}
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
		path := filepath.Join(n.dir, folder.MetaName, imageName)
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
		path := filepath.Join(n.dir, folder.MetaName, imageName)
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

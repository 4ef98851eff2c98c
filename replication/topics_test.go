package replication

import (
	"slices"
	"testing"
	"time"
)

// A new topic of fewer replicas than there are brokers gets none on a broker that is
// down: with two of them, one there, it would never have a leader.
func TestNewReplicasAreWhereBrokersAre(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		time.Sleep(time.Minute) // all three vote
		down := c.nodes[2]
		down.stop()
		time.Sleep(10 * time.Second)
		topic := c.create("orders", 6, 2, nil).Topic
		image := c.nodes[0].Image()
		created, ok := image.TopicByID(topic)
		if !ok {
			t.Fatal("the topic is not in the image")
		}
		for i, p := range created.Partitions {
			if slices.Contains(p.Replicas, down.id) {
				t.Errorf("partition %d has replicas %v, and %d is down", i, p.Replicas, down.id)
			}
		}
		// Three replicas go on being three, one of them to be filled later.
		all := c.create("payments", 1, 3, nil).Topic
		if created, ok = c.nodes[0].Image().TopicByID(all); !ok || len(created.Partitions[0].Replicas) != 3 {
			t.Errorf("a topic of three replicas has %v", created)
		}
	})
}

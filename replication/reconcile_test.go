package replication

import (
	"fmt"
	"os"
	"testing"

	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/partition"
)

// A node that comes back may be told of a topic and of its deletion at once.
// A replica that was still waiting to be opened leaves no folder behind.
func TestReplicaDeletedBeforeItOpensLeavesNothing(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	n := c.nodes[0]
	follower := newReconciler(n.Node)
	follower.limit = make(chan struct{}, 1)
	for i := range int32(50) {
		id := metadata.PartitionID{Topic: metadata.TopicID{1}, Index: i}
		part := &metadata.Partition{Group: 1<<40 + uint64(i)}
		follower.host(id, &metadata.Topic{ID: id.Topic, Name: "gone"}, part, settings.Topic{})
		p := mustPartition(t, n, id)
		n.remove(id, p)
		p.Remove()
		follower.limit <- struct{}{} // until the opening is over
		<-follower.limit
		eventually(t, fmt.Sprint("deleted replica ", i, " and its folder are gone"), func() bool {
			_, err := os.Stat(p.Dir())
			return p.Replica() == nil && os.IsNotExist(err)
		})
	}
}

// A step between two images is followed by what it touched: a topic's setting by that
// topic, the cluster's by all that have none of their own.
func TestSettingsReachWhatTheyAreFor(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	n := c.nodes[0]
	of := func(name string, config map[string]string) *partition.Partition {
		p, err := n.Partition(c.create(name, 1, 1, config))
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	orders, flights := of("orders", nil), of("flights", map[string]string{"retention.ms": "5"})
	change := func(change metadata.Change) {
		if err := n.Change(t.Context(), change); err != nil {
			t.Fatal(err)
		}
	}
	retains := func(p *partition.Partition, want int64) {
		t.Helper()
		eventually(t, fmt.Sprint("records are kept for ", want, " ms"), func() bool { return p.Settings().RetentionMillis == want })
	}
	change(metadata.SetBrokerConfig{Set: map[string]string{"log.retention.ms": "7"}})
	retains(orders, 7)
	retains(flights, 5)
	change(metadata.SetTopicConfig{Topic: flights.ID().Topic, Delete: []string{"retention.ms"}})
	retains(flights, 7)
	change(metadata.SetBrokerConfig{Broker: n.ID(), Set: map[string]string{"log.retention.ms": "9"}})
	retains(orders, 9)
	retains(flights, 9)
}

// Who leads a group that was deleted is not remembered.
func TestNothingIsKeptOfADeletedGroup(t *testing.T) {
	c := startCluster(t, 3, nil)
	defer c.stop()
	id := c.create("orders", 1, 3, nil)
	n, p := c.leader(id)
	other := c.others(n)[0]
	heard := func() bool { _, _, ok := other.failover.Leader(p.Group()); return ok }
	eventually(t, "another node hears who leads", heard)
	if err := n.Change(t.Context(), metadata.DeleteTopic{Topic: id.Topic}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the group is forgotten", func() bool { return !heard() })
}

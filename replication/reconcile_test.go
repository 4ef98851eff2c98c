package replication

import (
	"os"
	"testing"

	"millrace/replication/metadata"
)

// A node that comes back may be told of a topic and of its deletion at once.
// A replica that was still waiting to be opened leaves no folder behind.
func TestReplicaDeletedBeforeItOpensLeavesNothing(t *testing.T) {
	c := startCluster(t, 1, nil)
	n := c.nodes[0]
	limit := make(chan struct{}, 1)
	for i := range int32(50) {
		id := metadata.PartitionID{Topic: metadata.TopicID{1}, Index: i}
		part := &metadata.Partition{Group: 1<<40 + uint64(i)}
		n.host(id, &metadata.Topic{ID: id.Topic, Name: "gone"}, part, metadata.TopicSettings{}, limit)
		n.partitionMu.Lock()
		p := n.partitions[id]
		delete(n.partitions, id)
		delete(n.byGroup, p.group)
		n.partitionMu.Unlock()
		if err := p.remove(); err != nil {
			t.Fatal(err)
		}
		limit <- struct{}{} // until the opening is over
		<-limit
		if p.current.Load() != nil {
			t.Errorf("replica %d lives after its deletion", i)
		}
		if _, err := os.Stat(p.dir); !os.IsNotExist(err) {
			t.Errorf("the folder of deleted replica %d is there: %v", i, err)
		}
	}
}

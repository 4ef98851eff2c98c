package replication

import (
	"log/slog"
	"path/filepath"
	"testing"

	"millrace/replication/metadata"
)

// A replica that joins its group knows the term before it has an entry. Started
// again in between it goes on; once it has stored something, its log must be there.
func TestJoiningReplicaMayBeEmptyUntilItStores(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	_, p := c.leader(id)
	// The same node, for a group that it was not created with.
	p = &Partition{node: p.node, group: 1 << 20, dir: t.TempDir(), logger: slog.New(slog.DiscardHandler)}
	p.id = metadata.PartitionID{Topic: id.Topic, Index: 7}
	snapshots := &snapshotStore{path: filepath.Join(p.dir, snapshotName)}
	stable := p.node.stable.Group(p.group)
	if err := stable.SetUint64([]byte(currentTermKey), 5); err != nil {
		t.Fatal(err)
	}
	if err := p.bootstrap(nil, stable, snapshots, 0); err != nil {
		t.Fatalf("with a term and no entry: %v", err)
	}
	if err := p.bootstrap(nil, stable, snapshots, 3); err != nil {
		t.Fatalf("with entries: %v", err)
	}
	if err := p.bootstrap(nil, stable, snapshots, 0); err == nil {
		t.Fatal("a replica whose log was lost would vote again")
	}
}

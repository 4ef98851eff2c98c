package replication

import (
	"fmt"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/metadata"
	"millrace/replication/partition"
)

// gate is what the transport knows of entries (transport.Entries). It has no state.
type gate struct{}

// Sum implements transport.Entries.
func (gate) Sum(sum uint32, l *raft.Log) uint32 { return partition.SumEntry(sum, l) }

// Check refuses an entry of another node that lacks what is read of it: see
// partition.CheckEntry.
func (gate) Check(group uint64, l *raft.Log) error {
	if l.Type != raft.LogCommand {
		return nil // the transport has looked
	}
	if group == controller.Group {
		if len(l.Extensions) > 0 {
			return fmt.Errorf("a metadata change with %d bytes of extensions", len(l.Extensions))
		}
		return metadata.CheckChange(l.Data)
	}
	return partition.CheckEntry(l)
}

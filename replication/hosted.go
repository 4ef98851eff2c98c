package replication

import (
	"maps"
	"slices"
	"sync"

	"millrace/replication/metadata"
	"millrace/replication/partition"
)

// hosted are the partitions that have a replica on a node. Any goroutine may use it; who
// calls for each sees those of one moment.
type hosted struct {
	mu         sync.RWMutex
	partitions map[metadata.PartitionID]*partition.Partition
	byGroup    map[uint64]*partition.Partition
}

func newHosted() *hosted {
	return &hosted{partitions: make(map[metadata.PartitionID]*partition.Partition), byGroup: make(map[uint64]*partition.Partition)}
}

// add has a partition from now on.
func (h *hosted) add(id metadata.PartitionID, p *partition.Partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.partitions[id] = p
	h.byGroup[p.Group()] = p
}

// remove has it no more.
func (h *hosted) remove(id metadata.PartitionID, p *partition.Partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.partitions, id)
	delete(h.byGroup, p.Group())
}

// all are those that there are now, by id.
func (h *hosted) all() map[metadata.PartitionID]*partition.Partition {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return maps.Clone(h.partitions)
}

// ofGroup returns the partition of a group, nil if it is not here.
func (h *hosted) ofGroup(group uint64) *partition.Partition {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return h.byGroup[group]
}

// list are all, in no order.
func (h *hosted) list() []*partition.Partition {
	h.mu.RLock()
	defer h.mu.RUnlock()
	return slices.AppendSeq(make([]*partition.Partition, 0, len(h.partitions)), maps.Values(h.partitions))
}

// partitionName is the name of a group's partition for the log; "" if it is not here.
func (h *hosted) partitionName(group uint64) string {
	if p := h.ofGroup(group); p != nil {
		return p.Name()
	}
	return ""
}

// replicaOf returns the current run of a group's replica here, or nil.
func (h *hosted) replicaOf(group uint64) *partition.Replica {
	if p := h.ofGroup(group); p != nil {
		return p.Replica()
	}
	return nil
}

// eachReplica calls f for every replica that is alive here.
func (h *hosted) eachReplica(f func(*partition.Replica)) {
	for _, p := range h.list() {
		if r := p.Replica(); r != nil {
			f(r)
		}
	}
}

// Partition returns the replica of a partition on this node. ErrNotHosted.
func (h *hosted) Partition(id metadata.PartitionID) (*partition.Partition, error) {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if p := h.partitions[id]; p != nil {
		return p, nil
	}
	return nil, ErrNotHosted
}

// Partitions calls f for every replica on this node, in no order.
func (h *hosted) Partitions(f func(*partition.Partition)) {
	for _, p := range h.list() {
		f(p)
	}
}

// closePartitions closes all, some at a time.
func (h *hosted) closePartitions() {
	var wait sync.WaitGroup
	limit := make(chan struct{}, 16)
	for _, p := range h.list() {
		wait.Go(func() {
			limit <- struct{}{}
			defer func() { <-limit }()
			p.Close(true)
		})
	}
	wait.Wait()
}

package controller

import (
	"context"
	"errors"
	"sync"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
)

// producerBlock is how many producer ids a node takes at a time (KIP-730).
const producerBlock = 1000

// producerIDs are those that this node may give away.
type producerIDs struct {
	mu        sync.Mutex
	next, end int64
}

// NewProducerID returns a producer id that no other call in the cluster's life
// has returned.
func (c *Controller) NewProducerID(ctx context.Context) (int64, error) {
	ids, self := &c.producerIDs, c.cfg.Self.Node
	ids.mu.Lock()
	defer ids.mu.Unlock()
	for ids.next >= ids.end {
		err := c.Change(ctx, metadata.AllocateProducerIDs{Broker: self, Count: producerBlock})
		if errors.Is(err, raftgroup.ErrUnknown) && ctx.Err() == nil {
			continue // a block may be lost; there are enough
		}
		if err != nil {
			return -1, err
		}
		if b, ok := c.Image().ProducerBlock(self); ok {
			ids.next, ids.end = b.Start, b.Start+int64(b.Count)
		}
	}
	id := ids.next
	ids.next++
	return id, nil
}

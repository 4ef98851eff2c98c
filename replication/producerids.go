package replication

import (
	"context"
	"errors"
	"sync"

	"millrace/replication/metadata"
)

// producerBlock is how many producer ids a node takes at a time (KIP-730).
const producerBlock = 1000

// producerIDs has the producer ids that this node may give away.
type producerIDs struct {
	mu        sync.Mutex
	next, end int64
}

// NewProducerID returns a producer id that no other call in the cluster's life
// has returned.
func (n *Node) NewProducerID(ctx context.Context) (int64, error) {
	ids := &n.producerIDs
	ids.mu.Lock()
	defer ids.mu.Unlock()
	for ids.next >= ids.end {
		err := n.Change(ctx, metadata.AllocateProducerIDs{Broker: n.identity.Node, Count: producerBlock})
		if errors.Is(err, ErrUnknown) && ctx.Err() == nil {
			continue // a block may be lost; there are enough
		}
		if err != nil {
			return -1, err
		}
		if b, ok := n.Image().ProducerBlock(n.identity.Node); ok {
			ids.next, ids.end = b.Start, b.Start+int64(b.Count)
		}
	}
	id := ids.next
	ids.next++
	return id, nil
}

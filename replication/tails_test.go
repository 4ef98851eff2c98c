package replication

import (
	"testing"

	"millrace/segment/record"
)

// The tails may be full in the middle of an entry: what its first calls left
// there must not be forgotten before it is in flight.
func TestFullTailsKeepTheEntryBeingMade(t *testing.T) {
	c := startCluster(t, 1, nil)
	defer c.stop()
	id := c.create("orders", 1, 1, nil)
	_, p := c.leader(id)
	l := p.current.Load().leadership.Load()
	for i := range int64(maxTails - 1) {
		l.tails[1000+i] = &producer{}
	}
	var queue []waiting
	answers := make(chan Ack, 3)
	for _, b := range []record.Batch{
		sequencedBatch(9, 0, 0, 1, 0), sequencedBatch(8, 0, 0, 1, 0), sequencedBatch(9, 0, 0, 1, 0),
	} {
		queue = append(queue, waiting{batches: []record.Batch{b}, bytes: len(b), done: func(ack Ack, err error) {
			if err != nil {
				t.Error(err)
			}
			answers <- ack
		}})
	}
	l.tails[9] = &producer{} // known: the next one that is not makes room
	for len(queue) > 0 {
		queue = l.appendSome(queue)
	}
	first, _, again := <-answers, <-answers, <-answers
	if first.BaseOffset != 0 || again.BaseOffset != 0 {
		t.Fatalf("a batch is at offset %d, sent again at %d", first.BaseOffset, again.BaseOffset)
	}
}

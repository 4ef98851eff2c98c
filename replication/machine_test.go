package replication

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A new leader serves as soon as the machine says that all is applied. What was
// acknowledged must be below its high watermark then.
func TestWatermarkRisesBeforeTheMachineSaysWhatItReached(t *testing.T) {
	var m *machine
	committed := int64(-1)
	m = &machine{
		durable: func(uint64) error { return nil }, producers: producers{}, protect: func(uint64) {}, wantSnapshot: func() {},
		now: time.Now, limit: func() int { return maxProducers }, forgot: func(int) {}, begins: func(uint64) {}, landed: func(uint64, uint64) {},
		committed: func(next int64) {
			if m.reached(next) {
				t.Errorf("offset %d is said to be reached, and is above the high watermark", next)
			}
			committed = next
		},
	}
	b := batchOf("a", "b")
	b.Assign(5, 3)
	m.ApplyBatch([]*raft.Log{{Index: 9, Term: 3, Type: raft.LogCommand, Data: b}})
	if committed != 7 || !m.reached(7) || m.reached(8) {
		t.Errorf("the high watermark is %d, reached: 7 %t, 8 %t", committed, m.reached(7), m.reached(8))
	}
}

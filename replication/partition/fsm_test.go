package partition

import (
	"millrace/segment/record/recordtest"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A new leader serves as soon as the fsm says that all is applied. What was
// acknowledged must be below its high watermark then.
func TestWatermarkRisesBeforeTheFSMSaysWhatItReached(t *testing.T) {
	s, _ := testStore(t)
	p, m := s.r.p, s.r.fsm
	defer p.Notify(6, make(chan struct{}, 1))()
	p.watermark.mu.Lock() // so that it stays where it raises the high watermark
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		b := recordtest.Values("a", "b")
		b.Assign(5, 3)
		m.ApplyBatch([]*raft.Log{{Index: 9, Term: 3, Type: raft.LogCommand, Data: b}})
	}()
	for p.HighWatermark() != 7 {
		time.Sleep(time.Millisecond)
	}
	if m.reached(7) {
		t.Error("offset 7 is said to be reached before it is below the high watermark for everybody")
	}
	p.watermark.mu.Unlock()
	<-ended
	if high := p.HighWatermark(); high != 7 || !m.reached(7) || m.reached(8) {
		t.Errorf("the high watermark is %d, reached: 7 %t, 8 %t", high, m.reached(7), m.reached(8))
	}
}

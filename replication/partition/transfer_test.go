package partition

import (
	"context"
	"testing"
	"time"

	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// A transfer that fails leaves the leadership as it was: what was in flight is
// acknowledged, and sent again it is recognised.
func TestFailedTransferKeepsTheLeadership(t *testing.T) {
	p, _ := alone(t)
	if _, err := appendWait(p, recordtest.Sequenced(9, 0, 0, 1, 0)); err != nil {
		t.Fatal(err)
	}
	r := p.current.Load()
	l := r.leadership.Load()

	r.fsm.mu.Lock() // nothing is applied meanwhile
	answer := make(chan error, 1)
	p.Append([]record.Batch{recordtest.Sequenced(9, 0, 1, 1, 0)}, told(func(_ Ack, err error) { answer <- err }))
	for r.store.EndOffset() < 2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := r.TransferTo(ctx, "9.00000000")
	r.fsm.mu.Unlock()
	if err == nil {
		t.Fatal("leadership went to a server that is not there")
	}
	if err := <-answer; err != nil {
		t.Fatalf("the batch in flight was answered with %v", err)
	}
	if now := r.leadership.Load(); now != l {
		t.Fatal("the leadership is another one, of the same term")
	}
	ack, err := appendWait(p, recordtest.Sequenced(9, 0, 1, 1, 0))
	if err != nil || ack.BaseOffset != 1 {
		t.Fatalf("sent again: offset %d, %v", ack.BaseOffset, err)
	}
}

// I18: what a burst of calls has in flight is bounded, however many of them the
// appender finds at once.
func TestBurstWaitsForWhatIsInFlight(t *testing.T) {
	p, _ := alone(t)
	r := p.current.Load()
	l := r.leadership.Load()
	const calls, size = 40, 1 << 20

	r.fsm.mu.Lock() // nothing is applied, so nothing is acknowledged
	answers := make(chan error, calls)
	l.mu.Lock() // as if the appender had been busy while they came
	for range calls {
		b := recordtest.Values(string(make([]byte, size)))
		l.queue = append(l.queue, appendCall{[]record.Batch{b}, len(b), told(func(_ Ack, err error) { answers <- err })})
		l.queued += len(b)
	}
	l.appending = true
	l.mu.Unlock()
	go l.appendQueued()
	inFlight, queued := 0, 0
	deadline := time.Now().Add(20 * time.Second)
	for inFlight <= maxInflightBytes && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
		l.mu.Lock()
		inFlight, queued = l.inflightBytes, l.queued
		l.mu.Unlock()
	}
	r.fsm.mu.Unlock()
	if inFlight <= maxInflightBytes || inFlight > 2*maxInflightBytes+2*size || queued == 0 {
		t.Errorf("%d bytes in flight and %d waiting of %d, want about %d in flight", inFlight, queued, calls*size, 2*maxInflightBytes)
	}
	for range calls {
		if err := <-answers; err != nil {
			t.Fatal(err)
		}
	}
}

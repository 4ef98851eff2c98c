package load

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// A Receiver brings records back. It is called once, by a goroutine of its own.
type Receiver interface {
	// Receive reads and tells m of what it gets: Meter.Got for many at once,
	// Meter.GotRecord where each has a latency. It returns nil when there is nothing
	// left to read, or when ctx has ended; any other error counts as one.
	Receive(ctx context.Context, m *Meter) error
}

// A ReceiverFunc is a function as a Receiver.
type ReceiverFunc func(ctx context.Context, m *Meter) error

// Receive calls f.
func (f ReceiverFunc) Receive(ctx context.Context, m *Meter) error { return f(ctx, m) }

// Consume lets receivers read, all at the same time, and returns how fast they
// were. It ends when all of them have returned; they are told to when the plan's
// duration is over or ctx ends. Of the plan only WarmUp and Duration are used;
// the rest is said in the Result.
func Consume(ctx context.Context, plan Plan, receivers []Receiver, progress func(Progress)) (*Result, error) {
	if len(receivers) == 0 {
		return nil, fmt.Errorf("load: no receiver")
	}
	plan.Consumers = len(receivers)
	r := newRun("consume", plan)
	r.begin(time.Now(), progress)
	until := ctx
	if plan.Duration > 0 {
		var cancel context.CancelFunc
		until, cancel = context.WithDeadline(ctx, r.collector.start.Add(plan.Duration))
		defer cancel()
	}
	var reading sync.WaitGroup
	for _, receiver := range receivers {
		m := r.collector.meter()
		reading.Go(func() { receive(until, receiver, m) })
	}
	reading.Wait()
	r.interrupted = ctx.Err() != nil
	return r.end(), nil
}

// receive runs a receiver and counts what it failed with.
func receive(ctx context.Context, receiver Receiver, m *Meter) bool {
	err := receiver.Receive(ctx, m)
	if err == nil || ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return true
	}
	m.Failed(err)
	return false
}

// silence is how long an end-to-end run waits for another record before it takes
// the missing ones for lost.
const silence = 30 * time.Second

// EndToEnd makes the load of a plan, as Produce does, while receivers read it,
// and returns two results: that of the receivers (kind e2e), whose latencies run
// from the moment a record was to be sent to GotRecord, and that of the
// producers. Whether each acknowledged record was received is held record by
// record: Lost and Duplicates of the first Result are counted, not estimated.
//
// The receivers must be in place: what is sent from now on reaches them. They
// are told to return when everything acknowledged was received, or when nothing
// has come for 30 s.
//
// The records bear stamps and so have MinStamped bytes at least.
func EndToEnd(ctx context.Context, plan Plan, senders []Sender, receivers []Receiver, progress func(Progress)) (received, sent *Result, err error) {
	if plan, err = plan.complete(); err != nil {
		return nil, nil, err
	}
	switch {
	case plan.RecordBytes < MinStamped:
		return nil, nil, fmt.Errorf("load: records of %d bytes: the stamp that tells them apart needs %d", plan.RecordBytes, MinStamped)
	case len(senders) == 0 || len(receivers) == 0:
		return nil, nil, fmt.Errorf("load: no sender or no receiver")
	}
	plan.Consumers = len(receivers)
	values := newPayloads(plan)
	out := newRun("produce", plan)
	out.acked = newLedger(plan.Producers)
	in := newRun("e2e", plan)
	in.progress.acked = out.acked
	taken := newLedger(plan.Producers)

	now := time.Now()
	out.begin(now, nil)
	in.begin(now, progress)
	reading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var all sync.WaitGroup
	broken := make(chan struct{}, len(receivers)) // a receiver has failed, or left
	for _, receiver := range receivers {
		m := in.collector.meter()
		m.run, m.ledger = plan.Run, taken
		all.Go(func() {
			receive(reading, receiver, m)
			broken <- struct{}{}
		})
	}
	out.send(ctx, senders, values)
	in.await(ctx, out.acked, taken, broken)
	stop()
	all.Wait()

	in.interrupted = ctx.Err() != nil
	received, sent = in.end(), out.end()
	received.Lost = out.acked.missing(taken)
	received.Duplicates = taken.Duplicates()
	received.Unsent, received.Unacknowledged = sent.Unsent, sent.Unacknowledged
	received.Errors += sent.Errors
	if received.FirstError == "" {
		received.FirstError = sent.FirstError
	}
	return received, sent, nil
}

// await waits until everything acknowledged is taken, all receivers have left,
// nothing comes any more, or it is time to go.
func (r *run) await(ctx context.Context, acked, taken *Ledger, left <-chan struct{}) {
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	last, since := taken.Taken(), time.Now()
	end := ctx.Done()
	var goodbye <-chan time.Time
	// Counting first: going through the ledgers of a long run takes its time.
	for n := 0; taken.Taken() < acked.Taken() || acked.missing(taken) > 0; {
		select {
		case <-left:
			if n++; n == r.plan.Consumers {
				return
			}
		case <-end:
			end, goodbye = nil, time.After(grace)
		case <-goodbye:
			return
		case now := <-look.C:
			if t := taken.Taken(); t != last {
				last, since = t, now
			} else if now.Sub(since) > silence {
				return
			}
		}
	}
}

// A Ledger remembers which records of a run it has seen, a bit for each. It is
// safe for concurrent use.
type Ledger struct {
	taken, duplicates atomic.Int64
	seen              []tally // by producer
}

type tally struct {
	mu   sync.Mutex
	bits []uint64 // by sequence
}

func newLedger(producers int) *Ledger { return &Ledger{seen: make([]tally, producers)} }

// Take enters a record, and reports whether that was the first time.
func (l *Ledger) Take(s Stamp) bool {
	if s.Producer >= len(l.seen) {
		return false
	}
	t := &l.seen[s.Producer]
	word, bit := int(s.Sequence/64), uint64(1)<<(s.Sequence%64)
	t.mu.Lock()
	for word >= len(t.bits) {
		t.bits = append(t.bits, 0)
	}
	first := t.bits[word]&bit == 0
	t.bits[word] |= bit
	t.mu.Unlock()
	if first {
		l.taken.Add(1)
	} else {
		l.duplicates.Add(1)
	}
	return first
}

// Taken is how many records were entered, each counted once.
func (l *Ledger) Taken() int64 { return l.taken.Load() }

// Duplicates is how often a record was entered that had been before.
func (l *Ledger) Duplicates() int64 { return l.duplicates.Load() }

// missing counts the records that are in l and not in other.
func (l *Ledger) missing(other *Ledger) (n int64) {
	for i := range l.seen {
		mine, theirs := &l.seen[i], &other.seen[i]
		mine.mu.Lock()
		theirs.mu.Lock()
		for word, set := range mine.bits {
			if word < len(theirs.bits) {
				set &^= theirs.bits[word]
			}
			n += int64(bits.OnesCount64(set))
		}
		theirs.mu.Unlock()
		mine.mu.Unlock()
	}
	return n
}

// Package load makes load and measures what becomes of it. It does not know
// what carries the records: a Sender does, a Receiver brings them back. So a
// broker is measured by the same clock, with the same records at the same
// moments, as any other.
//
//	result, err := load.Produce(ctx, load.Plan{Producers: 5, Rate: 1000, Duration: time.Minute}, senders, nil)
//
// # Latency
//
// With a rate, every record has a moment at which it is to be sent, and its
// latency runs from then, whether the sender was ready or not. A sender that
// falls behind does not shift the moments of what follows, so a stall of a
// second is seen by every record of that second, as users would see it, and not
// only by the one that happened to be on its way (coordinated omission). Without
// a rate a record's latency runs from the call of Send.
//
// Latencies are kept in HDR histograms from 1 µs to 10 min, with three
// significant digits; what lies outside counts as the nearest of the two.
//
// # Results
//
// A Result written as JSON has these keys, and keeps them. Those marked with *
// are left out where they would be empty.
//
//	kind                 produce, consume, e2e
//	topic                where the records went or came from
//	partitions           of the topic
//	records              acknowledged or received after the warm-up, without failures
//	bytes                of their keys and values
//	seconds              from the end of the warm-up to the last of them
//	errors               records that were refused
//	first_error *        what the first of them failed with
//	unsent *             records the plan had a moment for, and time did not suffice to send
//	unacknowledged *     records of which nobody knows what became, at the end
//	lost *               (e2e) records acknowledged and not received
//	duplicates *         (e2e) records received more than once, each time after the first
//	interrupted *        true: ended before the plan did
//	records_per_second   records / seconds
//	mib_per_second       bytes / seconds, in MiB (1,048,576 bytes)
//	latency_millis *     {p50, p90, p99, p99_9, max, mean}, in ms
//	series               [{second, records, bytes, errors, p50_millis *, p99_millis *, max_millis *}]: a point a
//	                     second, from 0 at the end of the warm-up; the last may be of less than a second
//	percentiles *        [{percentile, millis}]: the curve, from 0 to 100
//	plan                 what was asked: {producers *, consumers *, records *, record_bytes *, keys *, distribution *,
//	                     rate *, duration_seconds *, warm_up_seconds *, in_flight *, seed *, settings *}
//
// The warm-up is in none of them.
package load

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// The limits of a Plan.
const (
	MaxRecordBytes = 64 << 20
	MaxProducers   = 9_999
	MaxKeys        = 100_000_000
	maxRate        = 1e9 // records a second
)

// A Plan says what load to make. The zero Plan is one producer that sends
// records of 1 KiB without a key, as fast as it can, until its context ends.
type Plan struct {
	Producers    int           // goroutines that send; 0: 1
	Records      int64         // to send after the warm-up, by all producers together; 0: no limit
	RecordBytes  int           // the size of a value; 0: 1024
	Keys         int           // how many keys there are; 0: records have none
	Distribution Distribution  // how often each key comes; "": Uniform
	Rate         float64       // records a second of all producers together; 0: as fast as possible
	Duration     time.Duration // how long to send, after the warm-up; 0: no limit
	WarmUp       time.Duration // how long to send before anything counts
	InFlight     int           // records a producer has sent and not heard of, at most; 0: what fits into 32 MiB, at most 100,000
	Seed         uint64        // of payloads and keys: the same seed, the same records
	Run          uint32        // marks the records of this run (Stamp); 0: a random number

	// Said about the run in its Result; the load is made without them.
	Topic      string
	Partitions int
	Consumers  int
	Settings   map[string]string // of the carrier: acks, compression, …
}

// complete returns the plan with its defaults, or says what is wrong with it.
func (p Plan) complete() (Plan, error) {
	if p.Producers == 0 {
		p.Producers = 1
	}
	if p.RecordBytes == 0 {
		p.RecordBytes = 1024
	}
	if p.Keys > 0 && p.Distribution == "" {
		p.Distribution = Uniform
	}
	if p.InFlight == 0 {
		p.InFlight = max(1, min(100_000, 32<<20/p.RecordBytes))
	}
	for p.Run == 0 {
		p.Run = randomRun()
	}
	switch {
	case p.Producers < 0 || p.Producers > MaxProducers:
		return p, fmt.Errorf("load: %d producers: from 1 to %d", p.Producers, MaxProducers)
	case p.RecordBytes < 1 || p.RecordBytes > MaxRecordBytes:
		return p, fmt.Errorf("load: records of %d bytes: from 1 to %d", p.RecordBytes, MaxRecordBytes)
	case p.Keys < 0 || p.Keys > MaxKeys:
		return p, fmt.Errorf("load: %d keys: from 0 to %d", p.Keys, MaxKeys)
	case p.Records < 0, p.Duration < 0, p.WarmUp < 0, p.InFlight < 0:
		return p, fmt.Errorf("load: a plan's numbers are 0 or more")
	case !(p.Rate >= 0 && p.Rate <= maxRate):
		return p, fmt.Errorf("load: a rate of %v records a second: from 0 to %v", p.Rate, maxRate)
	}
	switch p.Distribution {
	case "", Uniform, RoundRobin, Zipf:
	default:
		return p, fmt.Errorf("load: distribution %q: one of %s, %s, %s", p.Distribution, Uniform, RoundRobin, Zipf)
	}
	return p, nil
}

// A Sender carries records away. It is called by the goroutines of the producers
// it was given to, several at once if there are several.
type Sender interface {
	// Send begins to send r and returns; the sender calls r.Done once, from any
	// goroutine, when it knows what became of it. Send may block for a moment, but
	// the bound on what is in flight is the plan's (Plan.InFlight). ctx ends when the
	// run is interrupted: what was sent before that is still wanted.
	Send(ctx context.Context, r *Record)

	// Flush hurries what was sent, and waits until Done has been called for all of
	// it or ctx ends.
	Flush(ctx context.Context) error
}

// A Record is one record to send. Key and Value belong to the sender until it
// calls Done; then the record is used again.
type Record struct {
	Key   []byte // nil: none
	Value []byte

	// Carrier is the sender's own. It stays with the record when that is used
	// again, so that a sender need not allocate for each one.
	Carrier any

	from     *producer
	sequence int64
	at       time.Time // its latency runs from here
	measured bool      // not of the warm-up
}

// Done tells what became of the record: nil, it is stored. It does not block.
// The record must not be touched after it.
func (r *Record) Done(err error) { r.from.done(r, err) }

// Due is the moment at which the record is to be sent, from which its latency runs.
func (r *Record) Due() time.Time { return r.at }

// Bytes is the size of the record's key and value.
func (r *Record) Bytes() int64 { return int64(len(r.Key) + len(r.Value)) }

// grace is how long after an interruption the end of what is in flight is awaited.
const grace = 5 * time.Second

// Produce makes the load of a plan and returns what became of it. Producer i
// sends by senders[i%len(senders)]. It ends when the plan does and everything
// sent is done, or soon after ctx: then with what was measured so far.
//
// progress, unless nil, is called a few times a second, always from the same
// goroutine. The error is that of an impossible plan; failures of records are in
// the Result.
func Produce(ctx context.Context, plan Plan, senders []Sender, progress func(Progress)) (*Result, error) {
	plan, err := plan.complete()
	if err != nil {
		return nil, err
	}
	if len(senders) == 0 {
		return nil, fmt.Errorf("load: no sender")
	}
	r := newRun("produce", plan)
	values := newPayloads(plan)
	r.begin(time.Now(), progress)
	r.send(ctx, senders, values)
	return r.end(), nil
}

// A run is a plan being carried out.
type run struct {
	kind      string
	plan      Plan
	collector *collector
	progress  *reporter

	acked       *Ledger // records acknowledged; nil: nobody asks
	producers   []*producer
	unsent      atomic.Int64
	flushed     error
	interrupted bool
}

func newRun(kind string, plan Plan) *run {
	r := &run{kind: kind, plan: plan, collector: new(collector)}
	r.progress = newReporter(r.collector)
	return r
}

// begin sets the clock: the warm-up begins now. tell is called with how far the run is.
func (r *run) begin(now time.Time, tell func(Progress)) {
	// A whole microsecond, as stamps are: so both sides agree on which record is
	// the first that counts.
	now = now.Add(-time.Duration(now.Nanosecond() % 1000))
	r.collector.start = now.Add(r.plan.WarmUp)
	r.progress.begin(tell)
}

// send makes the load and waits for its end.
func (r *run) send(ctx context.Context, senders []Sender, values *payloads) {
	var sending sync.WaitGroup
	for i := range r.plan.Producers {
		p := &producer{
			run:    r,
			index:  i,
			sender: senders[i%len(senders)],
			meter:  r.collector.meter(),
			values: values.source(i),
			keys:   newKeyer(r.plan, i),
			room:   make(chan struct{}, 1),
		}
		r.producers = append(r.producers, p)
		sending.Go(func() { p.produce(ctx) })
	}
	sending.Wait()
	r.interrupted = ctx.Err() != nil

	// What is in flight is worth waiting for, even when it is time to go.
	patience, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })()
	seen := make(map[Sender]bool)
	for _, s := range senders {
		if !seen[s] {
			seen[s] = true
			if err := s.Flush(patience); err != nil && r.flushed == nil {
				r.flushed = err
			}
		}
	}
}

// end sums up.
func (r *run) end() *Result {
	r.progress.end()
	result := r.collector.result(r.kind, r.plan)
	result.Interrupted = r.interrupted
	result.Unsent = r.unsent.Load()
	for _, p := range r.producers {
		result.Unacknowledged += p.sent - p.finished.Load()
	}
	if result.Unacknowledged > 0 && result.FirstError == "" && r.flushed != nil {
		result.FirstError = r.flushed.Error()
	}
	return result
}

// A producer sends its share of a plan's records at their moments.
type producer struct {
	run    *run
	index  int
	sender Sender
	meter  *Meter
	values *source
	keys   *keyer

	// The producer's goroutine alone.
	sent int64
	free []*Record // to be used again

	finished atomic.Int64  // of sent, those that are done
	blocked  atomic.Bool   // the producer waits for room
	room     chan struct{} // one of them is done; capacity 1

	mu   sync.Mutex
	back []*Record // done, on their way to free
}

// share is how many of n things this one of all producers gets.
func (p *producer) share(n int64) int64 {
	all := int64(p.run.plan.Producers)
	share := n / all
	if int64(p.index) < n%all {
		share++
	}
	return share
}

// produce sends the producer's share, and ends with it, with the plan's duration
// or with ctx.
func (p *producer) produce(ctx context.Context) {
	plan := p.run.plan
	warm := p.run.collector.start
	begin := warm.Add(-plan.WarmUp)
	limit := int64(math.MaxInt64)
	if plan.Records > 0 {
		limit = p.share(plan.Records)
	}
	until := ctx
	if plan.Duration > 0 {
		var cancel context.CancelFunc
		until, cancel = context.WithDeadline(ctx, warm.Add(plan.Duration))
		defer cancel()
	}
	pace := newPacer(begin, plan, p.index)
	measured := int64(0)
	for n := int64(0); measured < limit; n++ {
		at, ok := pace.next(until, n)
		if !ok || !p.await(until) {
			if ctx.Err() == nil {
				// What is left of the schedule is what there was no time for.
				p.run.unsent.Add(min(limit-measured, pace.due(n)))
			}
			break
		}
		now := time.Now()
		if at.IsZero() {
			at = now
		}
		r := p.record()
		r.sequence, r.at, r.measured = n, at, !at.Before(warm)
		if r.measured {
			measured++
		}
		p.values.fill(r.Value, at, n)
		r.Key = p.keys.fill(r.Key, n)
		p.sent++
		p.sender.Send(ctx, r)
	}
}

// await waits until the producer may have another record in flight.
func (p *producer) await(ctx context.Context) bool {
	limit := int64(p.run.plan.InFlight)
	for p.sent-p.finished.Load() >= limit {
		p.blocked.Store(true)
		if p.sent-p.finished.Load() < limit { // it became so before blocked was seen
			break
		}
		select {
		case <-p.room:
		case <-ctx.Done():
			return false
		}
	}
	p.blocked.Store(false)
	return ctx.Err() == nil
}

// record returns a record to fill: one that was used before, if there is one.
func (p *producer) record() *Record {
	if len(p.free) == 0 {
		p.mu.Lock()
		p.free, p.back = p.back, p.free
		p.mu.Unlock()
	}
	if n := len(p.free); n > 0 {
		r := p.free[n-1]
		p.free = p.free[:n-1]
		return r
	}
	return &Record{from: p, Value: make([]byte, p.run.plan.RecordBytes)}
}

// done takes a record back, with what became of it.
func (p *producer) done(r *Record, err error) {
	if err == nil && p.run.acked != nil {
		p.run.acked.Take(Stamp{Producer: p.index, Sequence: r.sequence})
	}
	if r.measured {
		now := time.Now()
		if err != nil {
			p.meter.failed(now, err)
		} else {
			p.meter.add(now, 1, r.Bytes(), now.Sub(r.at))
		}
	}
	p.mu.Lock()
	p.back = append(p.back, r)
	p.mu.Unlock()
	p.finished.Add(1)
	if p.blocked.Load() {
		select {
		case p.room <- struct{}{}:
		default:
		}
	}
}

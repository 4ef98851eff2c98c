//go:build faults

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A ledger knows everything that was sent to a topic, what became of it, and
// every value that was ever read. It is safe for concurrent use.
type ledger struct {
	t          *testing.T
	c          *cluster
	topic      string
	partitions int32
	valueBytes int
	began      time.Time // record timestamps count from here, a millisecond a sequence number

	mu        sync.Mutex
	producers [][][]sent           // by producer, partition, sequence number
	seen      map[place]uint64     // hash of what was read there
	marks     map[int32]*ackWaiter // by partition
	failures  map[string]int       // errors that producers got
	troubles  []string             // what readers found wrong
}

// sent is one record's fate.
type sent struct {
	at     time.Time
	offset int64 // where it was acknowledged, or one of:
}

const (
	unknown = -1 // not acknowledged, but may be there
	refused = -2 // certainly not there
)

// rawProducer marks records that no ledger keeps account of (produceRaw).
const rawProducer = 1 << 20

type place struct {
	partition int32
	offset    int64
}

// An ackWaiter waits for the acknowledgement of anything sent after a moment.
type ackWaiter struct {
	since time.Time
	acked chan time.Time
}

func newLedger(c *cluster, topic string, partitions int32) *ledger {
	return &ledger{
		t: c.t, c: c, topic: topic, partitions: partitions, valueBytes: 200, began: time.Now().Truncate(time.Millisecond),
		seen: make(map[place]uint64), marks: make(map[int32]*ackWaiter), failures: make(map[string]int),
	}
}

// value is what a producer sends as number seq to a partition: recognisable, and
// known without being stored.
func (l *ledger) value(producer int, partition int32, seq int) []byte {
	head := fmt.Sprintf("%d/%d/%d ", producer, partition, seq)
	h := fnv.New64a()
	h.Write([]byte(head))
	state := h.Sum64()
	b := append(make([]byte, 0, l.valueBytes), head...)
	for len(b) < l.valueBytes { // pseudo-random, so that codecs and checksums have work
		state ^= state << 13
		state ^= state >> 7
		state ^= state << 17
		b = append(b, 'a'+byte(state%26))
	}
	return b
}

func (l *ledger) key(seq int) string { return fmt.Sprintf("key-%d", seq%100) }

// load is a producer at work.
type load struct {
	l      *ledger
	id     int
	client *kgo.Client
	pulse  pulse // of acknowledgements
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once
}

// produce starts an idempotent producer that sends one record to every partition
// each interval, and less while much is unacknowledged. It ends with finish or
// the test.
func (l *ledger) produce(interval time.Duration, options ...kgo.Opt) *load {
	l.t.Helper()
	const unacknowledged = 20_000
	p := &load{l: l, stop: make(chan struct{}), done: make(chan struct{})}
	p.client = l.c.client(append([]kgo.Opt{
		kgo.DefaultProduceTopic(l.topic),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.MaxBufferedRecords(unacknowledged),
		kgo.ProducerLinger(0),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProduceRequestTimeout(5 * time.Second),
	}, options...)...)
	l.mu.Lock()
	p.id = len(l.producers)
	l.producers = append(l.producers, make([][]sent, l.partitions))
	l.mu.Unlock()
	go func() { // the producer: ends with finish
		defer close(p.done)
		tick := time.NewTicker(interval)
		defer tick.Stop()
		for {
			select {
			case <-p.stop:
				return
			case <-tick.C:
			}
			for i := range l.partitions {
				if p.client.BufferedProduceRecords() < unacknowledged/2 {
					p.send(i)
				}
			}
		}
	}()
	l.t.Cleanup(func() { p.once.Do(func() { close(p.stop) }) })
	return p
}

func (p *load) send(partition int32) {
	l := p.l
	now := time.Now()
	l.mu.Lock()
	seq := len(l.producers[p.id][partition])
	l.producers[p.id][partition] = append(l.producers[p.id][partition], sent{now, unknown})
	l.mu.Unlock()
	r := &kgo.Record{
		Partition: partition, Key: []byte(l.key(seq)), Value: l.value(p.id, partition, seq),
		Timestamp: l.began.Add(time.Duration(seq) * time.Millisecond),
	}
	p.client.Produce(context.Background(), r, func(r *kgo.Record, err error) {
		l.mu.Lock()
		defer l.mu.Unlock()
		s := &l.producers[p.id][partition][seq]
		if err != nil {
			l.failures[err.Error()]++
			if errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.InvalidRecord) {
				s.offset = refused
			}
			return
		}
		s.offset = r.Offset
		p.pulse.beat(partition)
		if w := l.marks[partition]; w != nil && s.at.After(w.since) {
			w.acked <- time.Now()
			delete(l.marks, partition)
		}
	})
}

// finish stops sending and waits until everything sent has been acknowledged or
// has failed.
func (p *load) finish() {
	p.l.t.Helper()
	p.once.Do(func() { close(p.stop) })
	<-p.done
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	if err := p.client.Flush(ctx); err != nil {
		p.l.t.Fatalf("producer %d: %d records are still not acknowledged: %v", p.id, p.client.BufferedProduceRecords(), err)
	}
}

// mark arranges to be told when a record sent to a partition from now on is acknowledged.
func (l *ledger) mark(partition int32) *ackWaiter {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := &ackWaiter{time.Now(), make(chan time.Time, 1)}
	l.marks[partition] = w
	return w
}

// wait returns how long after the mark the acknowledgement came.
func (w *ackWaiter) wait(t *testing.T, what string) time.Duration {
	t.Helper()
	select {
	case at := <-w.acked:
		return at.Sub(w.since)
	case <-time.After(patience):
		t.Fatalf("%s: nothing was acknowledged for %v", what, patience)
		return 0
	}
}

// awaitAck waits until a record sent to a partition from now on is acknowledged.
func (l *ledger) awaitAck(partition int32, what string) time.Duration {
	l.t.Helper()
	return l.mark(partition).wait(l.t, what)
}

// acknowledged counts the records acknowledged so far.
func (l *ledger) acknowledged() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, partitions := range l.producers {
		for _, all := range partitions {
			for _, s := range all {
				if s.offset >= 0 {
					n++
				}
			}
		}
	}
	return n
}

// awaitAcknowledged waits until n more records are acknowledged.
func (l *ledger) awaitAcknowledged(n int) {
	l.t.Helper()
	want := l.acknowledged() + n
	eventually(l.t, patience, fmt.Sprintf("%d more acknowledged records", n), func() error {
		if have := l.acknowledged(); have < want {
			return fmt.Errorf("%d are missing", want-have)
		}
		return nil
	})
}

// trouble keeps what a reader found wrong; the first few are enough.
func (l *ledger) troubleLocked(format string, args ...any) {
	if len(l.troubles) < 20 {
		l.troubles = append(l.troubles, fmt.Sprintf(format, args...))
	}
}

// sawLocked checks one record read: an offset has one value for ever (I2), and
// it is a value that was sent there (I5).
func (l *ledger) sawLocked(r *kgo.Record) (producer, seq int, ok bool) {
	h := fnv.New64a()
	h.Write(r.Key)
	h.Write([]byte{0})
	h.Write(r.Value)
	fmt.Fprint(h, r.Timestamp.UnixMilli())
	at := place{r.Partition, r.Offset}
	if before, ok := l.seen[at]; ok && before != h.Sum64() {
		l.troubleLocked("I2 %s/%d@%d has two values; now %.40q", l.topic, r.Partition, r.Offset, r.Value)
	}
	l.seen[at] = h.Sum64()
	var partition int32
	if bytes.HasPrefix(r.Value, fmt.Appendf(nil, "%d/", rawProducer)) {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(string(r.Value[:min(len(r.Value), 40)]), "%d/%d/%d ", &producer, &partition, &seq); err != nil ||
		producer >= len(l.producers) || partition != r.Partition || seq >= len(l.producers[producer][partition]) ||
		string(r.Value) != string(l.value(producer, partition, seq)) || string(r.Key) != l.key(seq) {
		l.troubleLocked("I5 %s/%d@%d was never sent there: %.40q", l.topic, r.Partition, r.Offset, r.Value)
		return 0, 0, false
	}
	if l.producers[producer][partition][seq].offset == refused {
		l.troubleLocked("I5 %s/%d@%d was refused, and is there: %.40q", l.topic, r.Partition, r.Offset, r.Value)
	}
	return producer, seq, true
}

// tally is what a comparison of the ledger with a topic found.
type tally struct {
	sent, acknowledged, read     int
	lost, duplicated, outOfOrder int
	unacknowledgedRead           int
}

func (y tally) String() string {
	return fmt.Sprintf("%d sent, %d acknowledged, %d read: %d lost, %d duplicated, %d out of order",
		y.sent, y.acknowledged, y.read, y.lost, y.duplicated, y.outOfOrder)
}

// check reads the whole topic with a new client and compares: I1 to I6. What is
// acknowledged while it reads may lie behind the end it reads to, and is left to
// the next check.
func (l *ledger) check() tally {
	l.t.Helper()
	l.mu.Lock()
	promised := make([][][]sent, len(l.producers))
	for producer, partitions := range l.producers {
		for _, all := range partitions {
			promised[producer] = append(promised[producer], slices.Clone(all))
		}
	}
	l.mu.Unlock()
	return l.compare(promised, l.readAll())
}

// compare holds the records of a topic, in the order of their offsets a
// partition, against what had been sent and acknowledged.
func (l *ledger) compare(promised [][][]sent, all map[int32][]*kgo.Record) tally {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var y tally
	type number struct{ producer, seq int }
	for partition := range l.partitions {
		found := make(map[number]int64)
		last := make(map[int]int)
		var start, next int64 = 0, -1
		for i, r := range all[partition] {
			if i == 0 {
				start, next = r.Offset, r.Offset
			}
			if r.Offset != next {
				l.troubleLocked("I6 %s/%d: offset %d follows %d", l.topic, partition, r.Offset, next-1)
			}
			next = r.Offset + 1
			y.read++
			producer, seq, ok := l.sawLocked(r)
			if !ok {
				continue
			}
			if before, twice := found[number{producer, seq}]; twice {
				y.duplicated++
				l.troubleLocked("I4 %s/%d: %d/%d is at %d and at %d", l.topic, partition, producer, seq, before, r.Offset)
				continue
			}
			found[number{producer, seq}] = r.Offset
			if before, ok := last[producer]; ok && before > seq {
				y.outOfOrder++
				l.troubleLocked("I3 %s/%d@%d: %d/%d comes after %d/%d", l.topic, partition, r.Offset, producer, seq, producer, before)
			}
			last[producer] = max(last[producer], seq)
		}
		for producer, partitions := range promised {
			for seq, s := range partitions[partition] {
				y.sent++
				at, ok := found[number{producer, seq}]
				switch {
				case s.offset < 0 && ok:
					y.unacknowledgedRead++
				case s.offset < 0:
				case s.offset < start:
					y.acknowledged++ // retention took it
				default:
					y.acknowledged++
					if !ok {
						y.lost++
						l.troubleLocked("I1 %s/%d@%d: %d/%d was acknowledged and is lost", l.topic, partition, s.offset, producer, seq)
					} else if at != s.offset {
						y.lost++
						l.troubleLocked("I1 %s/%d: %d/%d was acknowledged at %d and is at %d", l.topic, partition, producer, seq, s.offset, at)
					}
				}
			}
		}
	}
	for _, s := range l.troubles {
		l.t.Error(s)
	}
	l.troubles = nil
	for err, n := range l.failures {
		l.t.Logf("%d records failed: %s", n, err)
	}
	return y
}

// offsets returns where a topic's partitions begin and end now.
func (l *ledger) offsets(admin *kadm.Client) (starts, ends kadm.ListedOffsets) {
	l.t.Helper()
	eventually(l.t, patience, "offsets of "+l.topic, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		var err error
		if starts, err = admin.ListStartOffsets(ctx, l.topic); err != nil {
			return err
		}
		if err = starts.Error(); err != nil {
			return err
		}
		if ends, err = admin.ListEndOffsets(ctx, l.topic); err != nil {
			return err
		}
		return ends.Error()
	})
	return starts, ends
}

// readAll reads a topic from its start to its present end with a new client.
func (l *ledger) readAll() map[int32][]*kgo.Record {
	l.t.Helper()
	client := l.c.client()
	defer client.Close()
	starts, ends := l.offsets(kadm.NewClient(client))
	from := make(map[int32]kgo.Offset)
	left := make(map[int32]int64)
	for partition, o := range ends[l.topic] {
		start := starts[l.topic][partition].Offset
		if start < o.Offset {
			from[partition], left[partition] = kgo.NewOffset().At(start), o.Offset
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{l.topic: from})
	all := make(map[int32][]*kgo.Record)
	var trouble error
	for progress := time.Now(); len(left) > 0; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		fetches := client.PollFetches(ctx)
		cancel()
		fetches.EachError(func(_ string, partition int32, err error) {
			if !errors.Is(err, context.DeadlineExceeded) {
				trouble = fmt.Errorf("partition %d: %w", partition, err)
			}
			var lost *kgo.ErrDataLoss
			if errors.As(err, &lost) {
				l.t.Errorf("I7 a reader of %s was told that data is gone: %v", l.topic, err)
			}
		})
		fetches.EachRecord(func(r *kgo.Record) {
			progress = time.Now()
			end, wanted := left[r.Partition]
			if !wanted || r.Offset >= end {
				return
			}
			all[r.Partition] = append(all[r.Partition], r)
			if r.Offset == end-1 {
				delete(left, r.Partition)
			}
		})
		if time.Since(progress) > patience {
			for partition, end := range left {
				l.t.Errorf("%s/%d cannot be read to its end %d: %d records read", l.topic, partition, end, len(all[partition]))
			}
			l.t.Fatalf("no record for %v (%v)", patience, trouble)
		}
	}
	return all
}

// tail reads a topic as it grows until the test ends or stop is called: a
// consumer skips nothing and sees no value change (I2, I5, I6).
func (l *ledger) tail() (stop func() (read int)) { return l.tailWith(new(pulse)) }

// tailWith is tail with a pulse of what is read.
func (l *ledger) tailWith(p *pulse) (stop func() (read int)) {
	client := l.c.client(
		kgo.ConsumeTopics(l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxWait(500*time.Millisecond),
	)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	read := 0
	go func() { // the tail: ends with stop
		defer close(done)
		next := make(map[int32]int64)
		for ctx.Err() == nil {
			fetches := client.PollFetches(ctx)
			l.mu.Lock()
			fetches.EachError(func(_ string, partition int32, err error) {
				var lost *kgo.ErrDataLoss
				if errors.As(err, &lost) {
					l.troubleLocked("I7 the consumer of %s/%d was told that data is gone: %v", l.topic, partition, err)
				}
			})
			fetches.EachRecord(func(r *kgo.Record) {
				if want, ok := next[r.Partition]; ok && r.Offset != want {
					l.troubleLocked("I6 %s/%d: a consumer got offset %d after %d", l.topic, r.Partition, r.Offset, want-1)
				}
				next[r.Partition] = r.Offset + 1
				l.sawLocked(r)
				p.beat(r.Partition)
				read++
			})
			l.mu.Unlock()
		}
	}()
	end := func() int {
		cancel()
		<-done
		return read
	}
	l.t.Cleanup(func() { end() })
	return end
}

// percentile returns the p-th percentile of durations.
func percentile(all []time.Duration, p int) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// oneLine makes a program's output fit a message.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

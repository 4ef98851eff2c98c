// Package natsload carries the plans of millrace/cli/load by NATS JetStream: the
// same records at the same moments, told by the same clock.
//
// A topic of n partitions is n streams of three replicas in files, each with a
// subject of its own, and a producer is a connection that publishes
// asynchronously to one of them after the other.
package natsload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"millrace/cli/load"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// InFlight is how many records a producer has published and not heard of, at
	// most: five of them over six streams stay well below the 10,000 a stream's
	// leader buffers before it refuses more (max_buffered_msgs).
	InFlight = 4000 // nats.go's own default

	replicas     = 3
	flushTimeout = 30 * time.Second // until what is still not acknowledged counts as such
	tellEvery    = 64               // messages a reader counts at once
)

// A Topic is a set of streams. The caller closes it, which does not delete them.
type Topic struct {
	servers []string
	name    string
	streams []string // each is its own subject too

	mu    sync.Mutex
	conns []*nats.Conn
}

// Open makes a topic of so many partitions, or finds it.
func Open(ctx context.Context, servers []string, name string, partitions int) (*Topic, error) {
	t := &Topic{servers: servers, name: name}
	for i := range partitions {
		t.streams = append(t.streams, fmt.Sprintf("%s-%d", name, i))
	}
	js, err := t.connect(0)
	if err != nil {
		return nil, err
	}
	for _, s := range t.streams {
		_, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: s, Subjects: []string{s}, Replicas: replicas, Storage: jetstream.FileStorage})
		if err != nil {
			t.Close()
			return nil, fmt.Errorf("stream %s: %w", s, err)
		}
	}
	return t, nil
}

// connect returns a new connection, to one server after another.
func (t *Topic) connect(i int, options ...jetstream.JetStreamOpt) (jetstream.JetStream, error) {
	conn, err := nats.Connect(t.servers[i%len(t.servers)], nats.Name("millrace-peers"))
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.conns = append(t.conns, conn)
	t.mu.Unlock()
	return jetstream.New(conn, options...)
}

// Close closes all connections.
func (t *Topic) Close() {
	for _, c := range t.conns {
		c.Close()
	}
}

// Delete deletes the streams.
func (t *Topic) Delete(ctx context.Context) error {
	js, err := t.connect(0)
	if err != nil {
		return err
	}
	for _, s := range t.streams {
		if e := js.DeleteStream(ctx, s); e != nil && err == nil {
			err = fmt.Errorf("stream %s: %w", s, e)
		}
	}
	return err
}

// Senders returns n senders, a connection each.
func (t *Topic) Senders(n, inFlight int) (all []load.Sender, err error) {
	for i := range n {
		s := &sender{streams: t.streams, next: i}
		// Room for one more than the plan lets be in flight: publishing never stalls.
		s.js, err = t.connect(i,
			jetstream.WithPublishAsyncMaxPending(inFlight+1),
			jetstream.WithPublishAsyncAckHandler(func(_ jetstream.JetStream, m *nats.Msg, _ *jetstream.PubAck) { s.done(m, nil) }),
			jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, m *nats.Msg, err error) { s.done(m, err) }))
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// A sender is one producer's connection, as a load.Sender.
type sender struct {
	js      jetstream.JetStream
	streams []string
	next    int      // the stream of the next record; one goroutine sends
	records sync.Map // *nats.Msg → *load.Record: both are used again, together
}

// Send publishes a record.
func (s *sender) Send(_ context.Context, r *load.Record) {
	m, _ := r.Carrier.(*nats.Msg)
	if m == nil {
		m = new(nats.Msg)
		r.Carrier = m
		s.records.Store(m, r)
	}
	m.Subject, m.Data = s.streams[s.next%len(s.streams)], r.Value
	s.next++
	if _, err := s.js.PublishMsgAsync(m); err != nil {
		r.Done(err)
	}
}

func (s *sender) done(m *nats.Msg, err error) {
	if r, ok := s.records.Load(m); ok {
		r.(*load.Record).Done(err)
	}
}

// Flush waits for what is in flight.
func (s *sender) Flush(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	select {
	case <-s.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%d messages not acknowledged: %w", s.js.PublishAsyncPending(), ctx.Err())
	}
}

// Readers returns n receivers that each read the whole topic by ordered
// consumers, over and over until they are told to stop.
func (t *Topic) Readers(n int) (all []load.Receiver, err error) {
	for i := range n {
		js, err := t.connect(i)
		if err != nil {
			return nil, err
		}
		all = append(all, load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error {
			return t.each(func(stream string) error {
				for ctx.Err() == nil {
					if err := readAll(ctx, js, stream, m); err != nil {
						return err
					}
				}
				return nil
			})
		}))
	}
	return all, nil
}

// each runs f for all streams at once and returns its first error.
func (t *Topic) each(f func(stream string) error) error {
	errs := make(chan error, len(t.streams))
	for _, s := range t.streams {
		go func() { errs <- f(s) }() // ends with f
	}
	var first error
	for range t.streams {
		if err := <-errs; err != nil && first == nil {
			first = err
		}
	}
	return first
}

// readAll reads a stream from its first message to the one that is its last now.
func readAll(ctx context.Context, js jetstream.JetStream, stream string, m *load.Meter) error {
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return err
	}
	last := s.CachedInfo().State.LastSeq
	if last == 0 {
		return fmt.Errorf("stream %s is empty", stream)
	}
	consumer, err := js.OrderedConsumer(ctx, stream, jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverAllPolicy})
	if err != nil {
		return err
	}
	done := make(chan struct{})
	var records, bytes int64
	var left atomic.Bool
	reading, err := consumer.Consume(func(msg jetstream.Msg) {
		if left.Load() {
			return
		}
		records++
		bytes += int64(len(msg.Data()))
		at, err := msg.Metadata()
		end := err != nil || at.Sequence.Stream >= last
		if end || records == tellEvery {
			m.Got(records, bytes)
			records, bytes = 0, 0
		}
		if end {
			left.Store(true)
			close(done)
		}
	})
	if err != nil {
		return err
	}
	defer reading.Stop()
	select {
	case <-done:
	case <-ctx.Done():
		left.Store(true)
	}
	return nil
}

// Follower returns a receiver of what is published from now on, in place when
// it is returned.
func (t *Topic) Follower(ctx context.Context) (load.Receiver, error) {
	js, err := t.connect(1)
	if err != nil {
		return nil, err
	}
	var consumers []jetstream.Consumer
	for _, s := range t.streams {
		// By sequence: an ordered consumer is made when it is first read.
		stream, err := js.Stream(ctx, s)
		if err != nil {
			return nil, err
		}
		consumer, err := js.OrderedConsumer(ctx, s, jetstream.OrderedConsumerConfig{
			DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: stream.CachedInfo().State.LastSeq + 1})
		if err != nil {
			return nil, err
		}
		consumers = append(consumers, consumer)
	}
	return load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error {
		for _, c := range consumers {
			reading, err := c.Consume(func(msg jetstream.Msg) { m.GotRecord(nil, msg.Data()) })
			if err != nil {
				return err
			}
			defer reading.Stop()
		}
		<-ctx.Done()
		return nil
	}), nil
}

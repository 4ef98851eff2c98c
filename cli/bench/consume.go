package bench

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func benchConsumeCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "consume",
		Usage: "how fast a topic is read",
		Description: `   Reads a topic from its start to where it ends at the beginning of the run. Each consumer
   reads everything, and what all of them read is counted; with --group they share it, once the
   group has divided the partitions (some seconds: the broker waits for members). A topic that
   does not exist is made, filled with -n records as bench produce would, read and deleted.

   --raw measures the broker rather than a client: it sends fetch requests to the leaders
   itself, and counts records by the headers of their batches without decoding them. bytes are
   then those of the batches, as they are stored, compressed or not.

   -o json has the keys of bench produce, without latencies; the series says how it went, second
   by second.

EXAMPLES:
   $ millrace bench consume -n 5000
   $ millrace bench consume -n 5000 --raw --rounds 3 -z lz4
   $ millrace bench consume -t flights-bench --consumers 2 -o json`,
		Flags: kafka.Flags(benchTopicFlags(), []urfave.Flag{
			&urfave.IntFlag{Name: "consumers", Value: 1, DefaultText: "1", Usage: "clients that read at the same time, `N`"},
			&urfave.BoolFlag{Name: "group", Usage: "they are members of a group, made for the run, and share the partitions"},
			&urfave.BoolFlag{Name: "raw", Usage: "fetch without decoding"},
			&urfave.IntFlag{Name: "rounds", Value: 1, DefaultText: "1", Usage: "read it so often, `N`"},
			&urfave.DurationFlag{Name: "duration", Usage: "stop after this time, `DURATION`", DefaultText: "when all is read"},
			&urfave.IntFlag{Name: "fetch-bytes", Value: 50 << 20, DefaultText: "50 MiB", Usage: "largest answer to a fetch, `BYTES`"},
			&urfave.IntFlag{Name: "partition-bytes", Value: 1 << 20, DefaultText: "1 MiB", Usage: "of one partition in it, `BYTES`"},
			&urfave.Int64Flag{Name: "records", Aliases: []string{"n"}, Value: 100_000, DefaultText: "100000", Usage: "to fill a topic with that is made, `N`"},
			&urfave.IntFlag{Name: "size", Value: 1024, DefaultText: "1024", Usage: "of their values, `BYTES`"},
			&urfave.Uint64Flag{Name: "seed", Value: 1, DefaultText: "1", Usage: "`N`: the same seed, the same payloads"},
		}, benchClientFlags(), benchOutputFlags()),
		Action: benchConsume,
	}
}

func benchConsume(c *urfave.Context) error {
	for _, f := range []string{"consumers", "rounds", "fetch-bytes", "partition-bytes", "size", "batch-size"} {
		if c.Int(f) < 1 {
			return term.Usage("--%s %d: it is 1 or more", f, c.Int(f))
		}
	}
	switch {
	case c.Int64("records") < 1:
		return term.Usage("-n %d: it is 1 or more", c.Int64("records"))
	case c.Duration("duration") < 0 || c.Duration("linger") < 0 || c.Int("in-flight") < 0:
		return term.Usage("--duration, --linger and --in-flight are 0 or more")
	case c.Bool("raw") && c.Bool("group"):
		return term.Usage("--raw and --group exclude each other: members of a group do not choose what they fetch")
	case c.Int("rounds") > 1 && c.Bool("group"):
		return term.Usage("--rounds and --group exclude each other: a group reads a topic once")
	}
	if _, err := kafka.ProducerOptions(c); err != nil {
		return err
	}
	b, err := openBench(c)
	if err != nil {
		return err
	}
	defer b.close()
	switch {
	case b.made:
		if err := b.fill(); err != nil {
			return err
		}
	case c.IsSet("records"):
		return term.Usage("topic %q exists already, and -n is for one that is made", b.topic)
	}
	what, err := b.extent(c.Context)
	if err != nil {
		return err
	}
	if what.records == 0 {
		return term.Fail(term.StatusFailed, "topic %q is empty: there is nothing to read", b.topic)
	}
	if c.Bool("group") && c.Int("consumers") > b.partitions {
		return term.Usage("--consumers %d: a group of more members than the topic has partitions, %d, leaves some without any", c.Int("consumers"), b.partitions)
	}
	plan := load.Plan{Duration: c.Duration("duration"), Topic: b.topic, Partitions: b.partitions, Records: what.records, Settings: map[string]string{
		"fetch.bytes": fmt.Sprint(c.Int("fetch-bytes")), "partition.bytes": fmt.Sprint(c.Int("partition-bytes")), "rounds": fmt.Sprint(c.Int("rounds")),
		"how": "everybody reads everything",
	}}
	receivers := make([]load.Receiver, c.Int("consumers"))
	switch {
	case c.Bool("raw"):
		plan.Settings["how"] = "everybody fetches everything, not decoded"
		for i := range receivers {
			receivers[i] = load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error { return b.fetchAll(ctx, what, m) })
		}
	case c.Bool("group"):
		plan.Settings["how"] = "a group"
		group, err := b.gather(len(receivers), what)
		if err != nil {
			return err
		}
		defer group.leave()
		for i := range receivers {
			receivers[i] = load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error { return group.read(ctx, group.members[i], m) })
		}
	default:
		for i := range receivers {
			receivers[i] = load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error { return b.readAll(ctx, what, m) })
		}
	}
	result, err := load.Consume(c.Context, plan, receivers, b.tell)
	if err != nil {
		return err
	}
	columns := benchColumns(false, term.Column[*load.Result]{Header: "CONSUMERS", Cell: func(r *load.Result) string { return term.Number(r.Plan.Consumers) }})
	if err := b.print(result, columns); err != nil {
		return err
	}
	return b.verdict(result)
}

// fill writes what is then to be read.
func (b *bench) fill() error {
	plan := load.Plan{Records: b.c.Int64("records"), RecordBytes: b.c.Int("size"), Seed: b.c.Uint64("seed"), InFlight: b.c.Int("in-flight"), Producers: 1}
	senders, closeAll, err := b.senders(plan)
	if err != nil {
		return err
	}
	defer closeAll()
	result, err := load.Produce(b.c.Context, plan, senders, func(p load.Progress) {
		b.progress.Show(func() string { return "filling the topic: " + term.Count(p.Records, "record") })
	})
	b.progress.Clear()
	if err != nil {
		return term.Usage("%v", err)
	}
	return b.verdict(result)
}

// reader returns a client that consumes.
func (b *bench) reader(options ...kgo.Opt) (*kgo.Client, error) {
	return kafka.DialBrokers(b.c.Context, b.brokers, append([]kgo.Opt{
		kgo.ClientID("millrace-bench"),
		kgo.FetchMaxBytes(int32(min(b.c.Int("fetch-bytes"), 1<<30))),
		kgo.FetchMaxPartitionBytes(int32(min(b.c.Int("partition-bytes"), 1<<30))),
		kgo.KeepControlRecords(), // the end of a partition may be one
	}, options...)...)
}

// readAll reads everything, as often as there are rounds, as a consumer of its own.
func (b *bench) readAll(ctx context.Context, what extent, m *load.Meter) error {
	for range b.c.Int("rounds") {
		from := make(map[int32]kgo.Offset)
		for p, start := range what.from {
			from[p] = kgo.NewOffset().At(start)
		}
		client, err := b.reader(kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{b.topic: from}))
		if err != nil {
			return err
		}
		left := maps.Clone(what.to)
		for len(left) > 0 && ctx.Err() == nil && err == nil {
			fetches := client.PollFetches(ctx)
			fetches.EachPartition(func(f kgo.FetchTopicPartition) {
				end, wanted := left[f.Partition]
				if !wanted || len(f.Records) == 0 {
					return
				}
				tallyRecords(m, f.Records, 0, end)
				if f.Records[len(f.Records)-1].Offset+1 >= end {
					delete(left, f.Partition)
					client.PauseFetchPartitions(map[string][]int32{b.topic: {f.Partition}})
				}
			})
			err = kafka.CheckFetches(b.c, fetches)
		}
		client.Close()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
	return nil
}

// tallyRecords counts records from offset from up to before to.
func tallyRecords(m *load.Meter, records []*kgo.Record, from, to int64) {
	n, bytes := int64(0), int64(0)
	for _, r := range records {
		if r.Offset >= from && r.Offset < to && !r.Attrs.IsControl() {
			n++
			bytes += int64(len(r.Key) + len(r.Value))
		}
	}
	m.Got(n, bytes)
}

// A sharing is a topic read by the members of a group: how far all of them
// together are. It is safe for concurrent use.
type sharing struct {
	b       *bench
	group   string
	members []*kgo.Client
	done    chan struct{} // closed when everything has been read

	mu       sync.Mutex
	assigned []int           // partitions, by member
	settled  chan struct{}   // closed when they are divided evenly; nil after that
	next     map[int32]int64 // by partition; those read to their end are left out
	to       map[int32]int64
}

// gather makes a group of n members and waits until it has divided the
// partitions: how long that takes is not how fast a topic is read.
func (b *bench) gather(n int, what extent) (*sharing, error) {
	s := &sharing{
		b: b, group: fmt.Sprintf("%s-%x", b.topic, time.Now().UnixNano()), done: make(chan struct{}),
		assigned: make([]int, n), settled: make(chan struct{}), next: maps.Clone(what.from), to: what.to,
	}
	settled := s.settled
	for i := range n {
		changed := func(sign int) func(context.Context, *kgo.Client, map[string][]int32) {
			return func(_ context.Context, _ *kgo.Client, topics map[string][]int32) {
				s.change(i, sign*len(topics[b.topic]))
			}
		}
		client, err := b.reader(
			kgo.ConsumerGroup(s.group), kgo.ConsumeTopics(b.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
			kgo.HeartbeatInterval(250*time.Millisecond), // a member learns of the next one's coming by it
			kgo.OnPartitionsAssigned(changed(1)), kgo.OnPartitionsRevoked(changed(-1)), kgo.OnPartitionsLost(changed(-1)))
		if err != nil {
			s.leave()
			return nil, err
		}
		client.PauseFetchTopics(b.topic)
		s.members = append(s.members, client)
	}
	b.progress.Show(func() string { return "waiting for the group to divide the partitions" })
	ctx, cancel := context.WithTimeout(b.c.Context, time.Minute)
	defer cancel()
	// A member takes part in rebalances while it polls.
	var polling sync.WaitGroup
	poll, stop := context.WithCancel(ctx)
	for _, client := range s.members {
		polling.Go(func() {
			for poll.Err() == nil {
				client.PollFetches(poll)
			}
		})
	}
	select {
	case <-settled:
	case <-ctx.Done():
	}
	stop()
	polling.Wait()
	if err := ctx.Err(); err != nil {
		s.leave()
		return nil, fmt.Errorf("group %s does not divide its partitions: %w", s.group, err)
	}
	return s, nil
}

// change notes that a member has got so many partitions, or lost them.
func (s *sharing) change(member, partitions int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.assigned[member] += partitions
	all := 0
	for _, n := range s.assigned {
		if n < s.b.partitions/len(s.assigned) {
			return
		}
		all += n
	}
	if all == s.b.partitions && s.settled != nil {
		close(s.settled)
		s.settled = nil
	}
}

// leave ends the group. One that is left behind expires by itself.
func (s *sharing) leave() {
	for _, client := range s.members {
		client.Close()
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.b.c.Context), kafka.SettleTimeout)
	defer cancel()
	s.b.admin.DeleteGroups(ctx, s.group)
}

// read reads as one of the members, until they have read everything.
func (s *sharing) read(ctx context.Context, client *kgo.Client, m *load.Meter) error {
	poll, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // the watcher: ends with the reading
		select {
		case <-s.done:
			cancel()
		case <-poll.Done():
		}
	}()
	client.ResumeFetchTopics(s.b.topic)
	for poll.Err() == nil {
		fetches := client.PollFetches(poll)
		fetches.EachPartition(func(f kgo.FetchTopicPartition) { s.take(m, f.Partition, f.Records) })
		if err := kafka.CheckFetches(s.b.c, fetches); err != nil {
			return err
		}
	}
	return nil
}

// take counts what is new of a partition's records. Another member may have read
// some of them before a rebalance.
func (s *sharing) take(m *load.Meter, partition int32, records []*kgo.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, wanted := s.next[partition]
	if !wanted || len(records) == 0 {
		return
	}
	tallyRecords(m, records, from, s.to[partition])
	s.next[partition] = max(from, records[len(records)-1].Offset+1)
	if s.next[partition] >= s.to[partition] {
		if delete(s.next, partition); len(s.next) == 0 {
			close(s.done)
		}
	}
}

// fetchAll reads everything by requests of its own, as often as there are rounds.
func (b *bench) fetchAll(ctx context.Context, what extent, m *load.Meter) error {
	for range b.c.Int("rounds") {
		if ctx.Err() != nil {
			break
		}
		f := &fetching{b: b, meter: m, next: maps.Clone(what.from), to: what.to}
		if err := f.run(ctx); err != nil {
			return err
		}
	}
	return nil
}

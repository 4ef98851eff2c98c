//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// An ability is something applications do with a client.
type ability struct {
	name    string
	prepare func(*cell) // before the program runs; nil: makes nothing
	verify  func(*cell) // after it has succeeded; nil: its word is enough
}

// abilities are the lines of the matrix, in its order. The program's half of
// each is in test/conformance/clients/README.md.
var abilities = slices.Concat([]ability{
	{"produce-plain", (*cell).topic, func(x *cell) { x.expect(numbered(produced, short)) }},
	{"produce-idempotent", (*cell).topic, func(x *cell) {
		for _, r := range x.expect(numbered(produced, short)) {
			if r.ProducerID < 0 {
				x.Fatalf("offset %d of partition %d has no producer id", r.Offset, r.Partition)
			}
		}
	}},
	{"codec-gzip", (*cell).topic, func(x *cell) { x.expectCodec(1) }},
	{"codec-snappy", (*cell).topic, func(x *cell) { x.expectCodec(2) }},
	{"codec-lz4", (*cell).topic, func(x *cell) { x.expectCodec(3) }},
	{"codec-zstd", (*cell).topic, func(x *cell) { x.expectCodec(4) }},
	{"headers", (*cell).topic, func(x *cell) { x.expect(withHeaders()) }},
	{"nulls", (*cell).topic, func(x *cell) { x.expect(nulls()) }},
	{"large", func(x *cell) { x.create(x.prefix, "max.message.bytes=8388608") }, func(x *cell) { x.expect(large()) }},
	{"consume-assign", (*cell).filled, nil},
	{"seek-by-time", (*cell).filled, nil},
	{"admin-create", nil, (*cell).expectCreated},
	{"admin-alter", func(x *cell) { x.create(x.prefix, "max.message.bytes=2000000", "segment.bytes=2097152") }, (*cell).expectAltered},
	{"admin-describe", func(x *cell) { x.create(x.prefix, "retention.ms=86400000") }, nil},
	{"admin-delete", func(x *cell) { x.topic(); x.create(x.prefix + "-gone") }, (*cell).expectGone},
	{"delete-records", (*cell).filled, (*cell).expectTrimmed},
	{"consume-subscribe", (*cell).filled, nil},
	{"commit-resume", (*cell).filled, func(x *cell) { x.expectCommitted(perPartition) }},
	{"rebalance-three-members", (*cell).filled, nil},
	{"member-killed", (*cell).filled, nil},
	{"roll-eager", (*cell).filled, nil},
	{"roll-cooperative", (*cell).filled, nil},
	{"next-protocol", (*cell).filled, (*cell).expectNextProtocol},
	{"admin-groups", (*cell).grouped, (*cell).expectNoGroup},
}, logins())

const (
	partitions   = 3
	produced     = 99  // records that programs produce
	consumed     = 300 // records that programs find
	perPartition = consumed / partitions
	firstTime    = 1_700_000_000_000 // timestamp of record 0 of those, a second more for each next
)

// short is the value of record i, and long the one that every codec makes smaller.
func short(i int) string { return fmt.Sprintf("v%d", i) }
func long(i int) string  { return short(i) + strings.Repeat("x", 500) }

// numbered returns records 0 to n-1: record i is in partition i modulo 3, with
// the key k<i>.
func numbered(n int, value func(int) string) []*kgo.Record {
	var all []*kgo.Record
	for i := range n {
		all = append(all, &kgo.Record{
			Partition: int32(i % partitions), Offset: int64(i / partitions),
			Key: fmt.Appendf(nil, "k%d", i), Value: []byte(value(i)),
		})
	}
	return all
}

// withHeaders returns ten records with headers that repeat a name, have an empty
// value, and are not ASCII.
func withHeaders() []*kgo.Record {
	all := numbered(10, short)
	for i, r := range all {
		r.Headers = []kgo.RecordHeader{
			{Key: "color", Value: fmt.Appendf(nil, "blue%d", i)},
			{Key: "empty", Value: []byte{}},
			{Key: "color", Value: []byte("again")},
			{Key: "größe", Value: []byte("déjà")},
		}
	}
	return all
}

// nulls returns three records in partition 0, in which null and empty differ.
func nulls() []*kgo.Record {
	return []*kgo.Record{
		{Offset: 0, Key: nil, Value: []byte("nokey")},
		{Offset: 1, Key: []byte("novalue"), Value: nil},
		{Offset: 2, Key: []byte{}, Value: []byte{}},
	}
}

// large returns one record of 5 MiB, in which byte i is 'a' + i modulo 23.
func large() []*kgo.Record {
	value := make([]byte, 5<<20)
	for i := range value {
		value[i] = 'a' + byte(i%23)
	}
	return []*kgo.Record{{Key: []byte("k0"), Value: value}}
}

func (x *cell) topic() { x.create(x.prefix) }

// create makes a topic of three partitions. settings are KEY=VALUE.
func (x *cell) create(name string, settings ...string) {
	x.Helper()
	configs := map[string]*string{}
	for _, s := range append(settings, "retention.ms=-1") {
		k, v, _ := strings.Cut(s, "=")
		if configs[k] == nil {
			configs[k] = &v
		}
	}
	if _, err := x.admin.CreateTopic(x.Context(), partitions, replication, configs, name); err != nil {
		x.Fatalf("create topic %s: %v", name, err)
	}
	// Other brokers hear of it a moment later, as with Kafka: what a client makes
	// of that is not what is asked here.
	x.eventually(func() error {
		for _, b := range x.own.DiscoveredBrokers() {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = []kmsg.MetadataRequestTopic{{Topic: &name}}
			answer, err := b.RetriableRequest(x.Context(), req)
			if err != nil {
				return err
			}
			t := answer.(*kmsg.MetadataResponse).Topics[0]
			if t.ErrorCode != 0 || len(t.Partitions) != partitions {
				return fmt.Errorf("a node knows %d partitions of %s, error %d", len(t.Partitions), name, t.ErrorCode)
			}
			for _, p := range t.Partitions {
				if p.ErrorCode != 0 || p.Leader < 0 {
					return fmt.Errorf("a node knows leader %d of %s-%d, error %d", p.Leader, name, p.Partition, p.ErrorCode)
				}
			}
		}
		return nil
	})
}

// eventually waits for what nodes come to know in their own time; how long that
// may take only guards against hanging.
func (x *cell) eventually(holds func() error) {
	x.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			x.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// filled makes a topic with 300 numbered records, a second apart from 2023-11-14.
func (x *cell) filled() {
	x.Helper()
	x.topic()
	all := numbered(consumed, short)
	for i, r := range all {
		r.Topic, r.Timestamp = x.prefix, time.UnixMilli(firstTime+int64(i)*1000)
	}
	if err := x.own.ProduceSync(x.Context(), all...).FirstErr(); err != nil {
		x.Fatal(err)
	}
}

// ends returns where the topic's partitions end. A broker that is asked may hear a
// moment later than others who leads, and says so: clients ask again.
func (x *cell) ends(name string) kadm.ListedOffsets {
	x.Helper()
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		ends, err := x.admin.ListEndOffsets(x.Context(), name)
		if err == nil {
			err = ends.Error()
		}
		var shards *kadm.ShardErrors
		again := kerr.IsRetriable(err) || errors.As(err, &shards) && kerr.IsRetriable(shards.Errs[0].Err)
		switch {
		case err == nil:
			return ends
		case !again || time.Since(begin) > patience:
			x.Fatalf("ends of %s: %v", name, err)
		}
	}
}

// read returns all records of the cell's topic, by partition and offset.
func (x *cell) read(name string) []*kgo.Record {
	x.Helper()
	ends := x.ends(name)
	missing := map[int32]int64{}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			missing[o.Partition], from[o.Partition] = o.Offset, kgo.NewOffset().AtStart()
		}
	})
	reader, err := kgo.NewClient(slices.Concat(x.own.Opts(), []kgo.Opt{kgo.FetchMaxPartitionBytes(16 << 20),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{name: from})})...)
	if err != nil {
		x.Fatal(err)
	}
	defer reader.Close()
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	var all []*kgo.Record
	for len(missing) > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			x.Fatalf("read %s, up to %v: %v", name, missing, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			all = append(all, r)
			if r.Offset+1 == missing[r.Partition] {
				delete(missing, r.Partition)
			}
		})
	}
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return 1000*int(a.Partition-b.Partition) + int(a.Offset-b.Offset)
	})
	return all
}

// expect reads what the program wrote and compares it; order within a
// partition counts, order between partitions does not.
func (x *cell) expect(want []*kgo.Record) []*kgo.Record {
	x.Helper()
	got := x.read(x.prefix)
	if len(got) != len(want) {
		x.Fatalf("%d records in the topic, want %d", len(got), len(want))
	}
	slices.SortStableFunc(want, func(a, b *kgo.Record) int { return int(a.Partition - b.Partition) })
	for i, g := range got {
		w := want[i]
		if g.Partition != w.Partition || g.Offset != w.Offset {
			x.Fatalf("record at %d/%d, want one at %d/%d", g.Partition, g.Offset, w.Partition, w.Offset)
		}
		if !same(g.Key, w.Key) || !same(g.Value, w.Value) {
			x.Fatalf("at %d/%d key %s, value %s; want key %s, value %s", g.Partition, g.Offset,
				shown(g.Key), shown(g.Value), shown(w.Key), shown(w.Value))
		}
		if !slices.EqualFunc(g.Headers, w.Headers, func(a, b kgo.RecordHeader) bool { return a.Key == b.Key && same(a.Value, b.Value) }) {
			x.Fatalf("at %d/%d headers %q, want %q", g.Partition, g.Offset, g.Headers, w.Headers)
		}
	}
	return got
}

func (x *cell) expectCodec(codec uint8) {
	x.Helper()
	for _, r := range x.expect(numbered(produced, long)) {
		if got := r.Attrs.CompressionType(); got != codec {
			x.Fatalf("offset %d of partition %d is compressed with codec %d, want %d", r.Offset, r.Partition, got, codec)
		}
	}
}

// same tells whether a and b are the same, where null is not empty.
func same(a, b []byte) bool { return bytes.Equal(a, b) && (a == nil) == (b == nil) }

func shown(b []byte) string {
	switch {
	case b == nil:
		return "null"
	case len(b) > 60:
		return fmt.Sprintf("%q… (%d bytes)", b[:60], len(b))
	}
	return fmt.Sprintf("%q", b)
}

// expectTopic compares a topic's number of partitions and some of its settings.
func (x *cell) expectTopic(name string, partitions int, settings map[string]string) {
	x.Helper()
	x.eventually(func() error {
		topics, err := x.admin.ListTopics(x.Context(), name)
		if err != nil {
			return err
		}
		if d := topics[name]; d.Err != nil || len(d.Partitions) != partitions {
			return fmt.Errorf("%s has %d partitions (%v), want %d", name, len(d.Partitions), d.Err, partitions)
		}
		described, err := x.admin.DescribeTopicConfigs(x.Context(), name)
		if err != nil {
			return err
		}
		r, err := described.On(name, func(r *kadm.ResourceConfig) error { return r.Err })
		if err != nil {
			return err
		}
		seen := map[string]string{}
		for _, c := range r.Configs {
			seen[c.Key] = c.MaybeValue()
		}
		for _, k := range slices.Sorted(maps.Keys(settings)) {
			if seen[k] != settings[k] {
				return fmt.Errorf("%s of %s is %q, want %q", k, name, seen[k], settings[k])
			}
		}
		return nil
	})
}

func (x *cell) expectCreated() {
	x.expectTopic(x.prefix+"-made", 4, map[string]string{"retention.ms": "123456789", "cleanup.policy": "compact"})
}

// expectAltered: one setting set, one back to its default, one left alone.
func (x *cell) expectAltered() {
	x.expectTopic(x.prefix, 5, map[string]string{"retention.ms": "7777777", "segment.bytes": "1073741824", "max.message.bytes": "2000000"})
}

func (x *cell) expectGone() {
	x.eventually(func() error {
		topics, err := x.admin.ListTopics(x.Context())
		if err == nil && topics.Has(x.prefix+"-gone") {
			err = fmt.Errorf("%s-gone is still there", x.prefix)
		}
		return err
	})
}

func (x *cell) expectTrimmed() {
	starts, err := x.admin.ListStartOffsets(x.Context(), x.prefix)
	if err != nil {
		x.Fatal(err)
	}
	for partition, want := range []int64{40, 0, perPartition} {
		if o, _ := starts.Lookup(x.prefix, int32(partition)); o.Err != nil || o.Offset != want {
			x.Errorf("partition %d starts at %d (%v), want %d", partition, o.Offset, o.Err, want)
		}
	}
}

func (x *cell) group() string { return x.prefix + "-group" }

// grouped makes a group without members that has committed 10, 20 and 30.
func (x *cell) grouped() {
	x.Helper()
	x.filled()
	offsets := kadm.Offsets{}
	for p := range int32(partitions) {
		offsets.AddOffset(x.prefix, p, int64(p+1)*10, -1)
	}
	if err := x.admin.CommitAllOffsets(x.Context(), x.group(), offsets); err != nil {
		x.Fatalf("commit offsets: %v", err)
	}
}

func (x *cell) expectNoGroup() {
	x.Helper()
	groups, err := x.admin.ListGroups(x.Context())
	if err != nil {
		x.Fatal(err)
	}
	if _, ok := groups[x.group()]; ok {
		x.Errorf("group %s is still there", x.group())
	}
}

// expectNextProtocol looks at what the cell's group was: clients fall back to the
// classic protocol where brokers do not have KIP-848, and say nothing.
func (x *cell) expectNextProtocol() {
	x.Helper()
	groups, err := x.admin.ListGroupsByType(x.Context(), []string{"consumer"})
	if err != nil {
		x.Fatal(err)
	}
	if _, ok := groups[x.group()]; !ok {
		x.Errorf("%s is not among the groups of type consumer: %v", x.group(), groups.Groups())
	}
}

// expectCommitted compares what the cell's group has committed for each partition.
func (x *cell) expectCommitted(want int64) {
	x.Helper()
	offsets, err := x.admin.FetchOffsets(x.Context(), x.group())
	if err != nil {
		x.Fatal(err)
	}
	for p := range int32(partitions) {
		if o, ok := offsets.Lookup(x.prefix, p); !ok || o.Err != nil || o.At != want {
			x.Errorf("partition %d: committed %d (%v), want %d", p, o.At, o.Err, want)
		}
	}
}

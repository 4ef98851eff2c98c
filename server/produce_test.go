package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// batchOf builds a batch of one record for each value.
func batchOf(t testing.TB, codec record.Codec, p *record.Producer, values ...string) record.Batch {
	t.Helper()
	bu := record.Builder{Codec: codec, Producer: p}
	for _, v := range values {
		bu.Append(record.Record{Timestamp: time.Now().UnixMilli(), Key: []byte("k"), Value: []byte(v)})
	}
	b, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// produceRequest sends each batch to the partition of its place.
func produceRequest(version int16, topic string, id [16]byte, batches ...record.Batch) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.SetVersion(version)
	req.Acks, req.TimeoutMillis = -1, 20_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	for i, b := range batches {
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Partition, rp.Records = int32(i), slices.Clone(b)
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	return req
}

func producedPartition(t testing.TB, resp *kmsg.ProduceResponse) kmsg.ProduceResponseTopicPartition {
	t.Helper()
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("answer %+v, want one partition", resp)
	}
	return resp.Topics[0].Partitions[0]
}

func TestProduceInEveryVersion(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 2, nil)
	w := b.dial()
	for version := int16(0); version <= 13; version++ {
		req := produceRequest(version, "t", id, batchOf(t, record.None, nil, "a", "b"), batchOf(t, record.LZ4, nil, "c"))
		resp := ask[*kmsg.ProduceResponse](w, req)
		for i, p := range resp.Topics[0].Partitions {
			if version < 3 {
				if p.ErrorCode != int16(protocol.UnsupportedVersion) {
					t.Errorf("version %d: error %d", version, p.ErrorCode)
				}
				continue
			}
			want := int64(version-3) * int64(2-i)
			if p.ErrorCode != 0 || p.BaseOffset != want || p.LogAppendTime != -1 || p.LogStartOffset > 0 || int(p.Partition) != i {
				t.Errorf("version %d, partition %d: %+v, want offset %d", version, i, p, want)
			}
		}
	}
}

// Responses come strictly in the order of the requests, and batches are
// appended in it, however many are in flight.
func TestPipelinedProduceKeepsItsOrder(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	const n = 300 // more than maxFlight
	go func() {
		var out []byte
		f := kmsg.NewRequestFormatter()
		for i := range n {
			out = f.AppendRequest(nil, produceRequest(13, "t", id, batchOf(t, record.None, nil, fmt.Sprint(i))), int32(i))
			if _, err := w.conn.Write(out); err != nil {
				t.Error(err)
				return
			}
		}
		// Any other request waits for them.
		w.conn.Write(f.AppendRequest(nil, listRequest(10, "t", 0, latestOffset), n))
	}()
	req := produceRequest(13, "t", id)
	for i := range int32(n) {
		p := producedPartition(t, w.receive(req, i).(*kmsg.ProduceResponse))
		if p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Fatalf("request %d: error %d, offset %d", i, p.ErrorCode, p.BaseOffset)
		}
	}
	list := w.receive(listRequest(10, "t", 0, latestOffset), n).(*kmsg.ListOffsetsResponse)
	if got := list.Topics[0].Partitions[0].Offset; got != n {
		t.Errorf("the high watermark after %d records is %d", n, got)
	}
}

func TestNoAcksNoResponse(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	req := produceRequest(11, "t", id, batchOf(t, record.None, nil, "a"))
	req.Acks = 0
	w.send(req)
	w.send(req)
	// The next response is that of the next request that has one.
	req.Acks = 1
	if p := producedPartition(t, ask[*kmsg.ProduceResponse](w, req)); p.BaseOffset != 2 {
		t.Errorf("offset %d, want 2", p.BaseOffset)
	}
	// An error cannot be told, so the connection is closed.
	req = produceRequest(11, "nobody", id, batchOf(t, record.None, nil, "a"))
	req.Acks = 0
	w.send(req)
	w.closed()
}

func TestProduceRefusals(t *testing.T) {
	b := startBroker(t, map[string]string{"auto.create.topics.enable": "false"})
	id := b.create("t", 1, nil)
	good := batchOf(t, record.None, nil, "a", "b")
	transactional := func() record.Batch {
		bu := record.Builder{Producer: &record.Producer{ID: 1, Epoch: 0, Sequence: 0}, Transactional: true}
		bu.Append(record.Record{Value: []byte("x")})
		p, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}()
	// damaged changes a good batch; sealed also makes its checksum right again.
	damaged := func(change func(p []byte)) record.Batch {
		p := slices.Clone(good)
		change(p)
		return p
	}
	sealed := func(change func(p []byte)) record.Batch {
		return damaged(func(p []byte) {
			change(p)
			binary.BigEndian.PutUint32(p[17:], crc32.Checksum(p[21:], crc32.MakeTable(crc32.Castagnoli)))
		})
	}
	put32 := func(at int, v uint32) func([]byte) {
		return func(p []byte) { binary.BigEndian.PutUint32(p[at:], v) }
	}
	put16 := func(at int, v uint16) func([]byte) {
		return func(p []byte) { binary.BigEndian.PutUint16(p[at:], v) }
	}
	w := b.dial()
	for _, c := range []struct {
		name    string
		version int16
		batch   record.Batch
		change  func(*kmsg.ProduceRequest)
		want    protocol.Code
	}{
		{"an unknown topic", 12, good, func(r *kmsg.ProduceRequest) { r.Topics[0].Topic = "nobody" }, protocol.UnknownTopicOrPartition},
		{"an illegal name", 12, good, func(r *kmsg.ProduceRequest) { r.Topics[0].Topic = "../x" }, protocol.UnknownTopicOrPartition},
		{"an unknown id", 13, good, func(r *kmsg.ProduceRequest) { r.Topics[0].TopicID = [16]byte{9} }, protocol.UnknownTopicID},
		{"an unknown partition", 13, good, func(r *kmsg.ProduceRequest) { r.Topics[0].Partitions[0].Partition = 1 }, protocol.UnknownTopicOrPartition},
		{"partition −1", 13, good, func(r *kmsg.ProduceRequest) { r.Topics[0].Partitions[0].Partition = -1 }, protocol.UnknownTopicOrPartition},
		{"acks of 2", 13, good, func(r *kmsg.ProduceRequest) { r.Acks = 2 }, protocol.InvalidRequiredAcks},
		{"acks of −2", 13, good, func(r *kmsg.ProduceRequest) { r.Acks = -2 }, protocol.InvalidRequiredAcks},
		{"a transactional id", 13, good, func(r *kmsg.ProduceRequest) { r.TransactionID = kmsg.StringPtr("tx") }, protocol.InvalidTxnState},
		{"a transactional batch", 13, transactional, nil, protocol.TransactionalIDAuthorizationFailed},
		{"null records", 13, nil, func(r *kmsg.ProduceRequest) { r.Topics[0].Partitions[0].Records = nil }, protocol.InvalidRecord},
		{"no records", 13, record.Batch{}, nil, protocol.InvalidRecord},
		{"two batches", 13, append(slices.Clone(good), good...), nil, protocol.InvalidRecord},
		{"half a batch", 13, good[:len(good)/2], nil, protocol.CorruptMessage},
		{"magic 1", 13, damaged(func(p []byte) { p[16] = 1 }), nil, protocol.UnsupportedForFormat},
		{"magic 3", 13, damaged(func(p []byte) { p[16] = 3 }), nil, protocol.CorruptMessage},
		{"a wrong checksum", 13, damaged(func(p []byte) { p[len(p)-2] ^= 1 }), nil, protocol.CorruptMessage},
		{"length −1", 13, damaged(put32(8, 0xffffffff)), nil, protocol.CorruptMessage},
		{"length 2³¹−1", 13, damaged(put32(8, 0x7fffffff)), nil, protocol.CorruptMessage},
		{"count −1", 13, sealed(put32(57, 0xffffffff)), nil, protocol.InvalidRecord},
		{"count 0", 13, sealed(put32(57, 0)), nil, protocol.InvalidRecord},
		{"count 2³¹−1", 13, sealed(func(p []byte) { put32(57, 0x7fffffff)(p); put32(23, 0x7ffffffe)(p) }), nil, protocol.InvalidRecord},
		{"one record more than there is", 13, sealed(func(p []byte) { put32(57, 3)(p); put32(23, 2)(p) }), nil, protocol.InvalidRecord},
		{"a wrong last offset delta", 13, sealed(put32(23, 7)), nil, protocol.InvalidRecord},
		{"an unknown codec", 13, sealed(put16(21, 7)), nil, protocol.UnsupportedCompression},
		{"gzip that is none", 13, sealed(put16(21, 1)), nil, protocol.InvalidRecord},
		{"the control bit", 13, sealed(put16(21, 0x20)), nil, protocol.InvalidRecord},
		{"a negative key length", 13, sealed(func(p []byte) { p[record.HeaderSize+4] = 0x05 }), nil, protocol.InvalidRecord},
		{"zstd before version 7 (KIP-110)", 6, batchOf(t, record.Zstd, nil, "a"), nil, protocol.UnsupportedCompression},
		{"more than max.message.bytes", 13, batchOf(t, record.None, nil, string(make([]byte, 2<<20))), nil, protocol.MessageTooLarge},
		{"a time a day ahead (KIP-937)", 13, sealed(func(p []byte) {
			binary.BigEndian.PutUint64(p[27:], uint64(time.Now().Add(24*time.Hour).UnixMilli()))
			binary.BigEndian.PutUint64(p[35:], uint64(time.Now().Add(24*time.Hour).UnixMilli()))
		}), nil, protocol.InvalidTimestamp},
	} {
		req := produceRequest(c.version, "t", id, c.batch)
		if c.change != nil {
			c.change(req)
		}
		p := producedPartition(t, ask[*kmsg.ProduceResponse](w, req))
		if p.ErrorCode != int16(c.want) {
			t.Errorf("%s: error %d (%s), want %d", c.name, p.ErrorCode, str(p.ErrorMessage), c.want)
		}
		if p.BaseOffset != -1 {
			t.Errorf("%s: offset %d", c.name, p.BaseOffset)
		}
	}
	// Nothing of it was appended.
	if p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "t", id, good))); p.BaseOffset != 0 || p.ErrorCode != 0 {
		t.Errorf("afterwards: %+v", p)
	}
}

func str(s *string) string {
	if s == nil {
		return "null"
	}
	return *s
}

// KIP-467: which record of a batch is at fault.
func TestCompactedTopicWantsKeys(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"cleanup.policy": "compact"})
	bu := record.Builder{}
	now := time.Now().UnixMilli()
	for i, key := range [][]byte{[]byte("k"), nil, {}, nil} {
		bu.Append(record.Record{Timestamp: now, Key: key, Value: []byte{byte(i)}})
	}
	batch, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, "t", id, batch)))
	if p.ErrorCode != int16(protocol.InvalidRecord) || p.ErrorMessage == nil {
		t.Errorf("error %d, message %s", p.ErrorCode, str(p.ErrorMessage))
	}
	var at []int32
	for _, e := range p.ErrorRecords {
		at = append(at, e.RelativeOffset)
	}
	if !slices.Equal(at, []int32{1, 3}) {
		t.Errorf("records at fault: %v, want 1 and 3", at)
	}
	if want := "One or more records have been rejected due to 2 record errors in total, and only showing the first three errors at most: [RecordError(batchIndex=1,"; !strings.HasPrefix(str(p.ErrorMessage), want) {
		t.Errorf("message %q, want %q …", str(p.ErrorMessage), want)
	}
}

// KIP-937: every record is looked at, also those that the header does not show.
func TestTimestampsOutOfRangeAreRefused(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"message.timestamp.before.max.ms": "60000", "message.timestamp.after.max.ms": "60000"})
	w := b.dial()
	now := time.Now().UnixMilli()
	for _, codec := range []record.Codec{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
		for what, c := range map[string]struct {
			times []int64
			bad   []int32
		}{
			"all near":          {[]int64{now, now - 30_000, now + 30_000, -1}, nil},
			"one too old":       {[]int64{now, now - 3_600_000, now}, []int32{1}},
			"one of the future": {[]int64{now, now, now + 3_600_000}, []int32{2}},
			"both":              {[]int64{5, now + 3_600_000}, []int32{0, 1}},
		} {
			bu := record.Builder{Codec: codec}
			for _, ms := range c.times {
				bu.Append(record.Record{Timestamp: ms, Value: []byte("x")})
			}
			batch, err := bu.Batch()
			if err != nil {
				t.Fatal(err)
			}
			p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batch)))
			want, text := protocol.None, "null"
			if c.bad != nil {
				want, text = protocol.InvalidTimestamp, "One or more records have been rejected due to invalid timestamp"
			}
			var at []int32
			for _, e := range p.ErrorRecords {
				at = append(at, e.RelativeOffset)
			}
			if p.ErrorCode != int16(want) || str(p.ErrorMessage) != text || !slices.Equal(at, c.bad) {
				t.Errorf("%v, %s: error %d %q at %v, want %d at %v", codec, what, p.ErrorCode, str(p.ErrorMessage), at, want, c.bad)
			}
		}
	}
}

func TestAppendTimeIsReturned(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	bu := record.Builder{}
	bu.Append(record.Record{Timestamp: 5, Value: []byte("x")})
	batch, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now().UnixMilli()
	p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, "t", id, batch)))
	if p.ErrorCode != 0 || p.LogAppendTime < before || p.LogAppendTime > time.Now().UnixMilli() {
		t.Errorf("%+v", p)
	}
	cl := b.client(kgo.ConsumeTopics("t"))
	r := cl.PollRecords(testContext(t), 1).Records()[0]
	if r.Timestamp.UnixMilli() != p.LogAppendTime || r.Attrs.TimestampType() != 1 {
		t.Errorf("consumed with time %d of type %d, want %d of type 1", r.Timestamp.UnixMilli(), r.Attrs.TimestampType(), p.LogAppendTime)
	}
}

// A client that claims append time is refused where the broker stamps, and taken
// where it does not, with the producer's times, as by Kafka.
func TestAppendTimeClaimedByAClient(t *testing.T) {
	b := startBroker(t, nil)
	for kind, want := range map[string]protocol.Code{"CreateTime": protocol.None, "LogAppendTime": protocol.InvalidTimestamp} {
		id := b.create(kind, 1, map[string]string{"message.timestamp.type": kind})
		bu := record.Builder{}
		bu.Append(record.Record{Timestamp: 5, Value: []byte("x")})
		batch, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		batch.SetAppendTime(1234)
		p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, kind, id, batch)))
		if p.ErrorCode != int16(want) {
			t.Errorf("%s: error %d, want %d", kind, p.ErrorCode, want)
		}
	}
	r := b.client(kgo.ConsumeTopics("CreateTime")).PollRecords(testContext(t), 1).Records()[0]
	if r.Timestamp.UnixMilli() != 5 || r.Attrs.TimestampType() != 0 {
		t.Errorf("consumed with time %d of type %d", r.Timestamp.UnixMilli(), r.Attrs.TimestampType())
	}
}

func TestTopicsCodecIsApplied(t *testing.T) {
	b := startBroker(t, nil)
	value := string(bytes.Repeat([]byte("x"), 1000))
	for name, codec := range map[string]record.Codec{"gzip": record.Gzip, "snappy": record.Snappy, "lz4": record.LZ4, "zstd": record.Zstd, "uncompressed": record.None} {
		id := b.create(name, 1, map[string]string{"compression.type": name})
		w := b.dial()
		for i, from := range []record.Codec{record.None, record.Zstd} {
			producer := &record.Producer{ID: 77, Epoch: 0, Sequence: int32(i)}
			p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batchOf(t, from, producer, value))))
			if p.ErrorCode != 0 {
				t.Fatalf("%s: error %d %s", name, p.ErrorCode, str(p.ErrorMessage))
			}
		}
		stored := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(13, "", id, 0, 0))).RecordBatches
		for len(stored) > 0 {
			batch, rest, err := record.Split(stored)
			if err != nil {
				t.Fatal(err)
			}
			stored = rest
			if batch.Codec() != codec || batch.ProducerID() != 77 || batch.BaseSequence() != int32(batch.BaseOffset()) {
				t.Errorf("%s: stored with %v, producer %d", name, batch.Codec(), batch.ProducerID())
			}
			for r, err := range batch.Records() {
				if err != nil || string(r.Value) != value || string(r.Key) != "k" {
					t.Errorf("%s: %v %q", name, err, r.Key)
				}
			}
		}
	}
}

// What a batch becomes may be longer than what came, and is bounded like it.
func TestRecompressedBatchesObeyMaxMessageBytes(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"compression.type": "uncompressed", "max.message.bytes": "10000"})
	zeros := batchOf(t, record.Zstd, nil, string(make([]byte, 1<<20)))
	p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, "", id, zeros)))
	if p.ErrorCode != int16(protocol.MessageTooLarge) {
		t.Errorf("error %d, want %d", p.ErrorCode, protocol.MessageTooLarge)
	}
	waitFor(t, "nothing to be held any more", func() bool { return b.server.shared.budget.holds() == 0 })
}

// KIP-98, KIP-360: the last five batches of a producer are recognised.
func TestIdempotence(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	init := kmsg.NewPtrInitProducerIDRequest()
	init.SetVersion(5)
	init.ProducerID, init.ProducerEpoch = -1, -1
	got := ask[*kmsg.InitProducerIDResponse](w, init)
	if got.ErrorCode != 0 || got.ProducerID < 0 || got.ProducerEpoch != 0 {
		t.Fatalf("%+v", got)
	}
	send := func(epoch int16, sequence int32, values ...string) kmsg.ProduceResponseTopicPartition {
		p := &record.Producer{ID: got.ProducerID, Epoch: epoch, Sequence: sequence}
		return producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "t", id, batchOf(t, record.None, p, values...))))
	}
	offset := int64(0)
	for i := range int32(8) {
		if p := send(0, 2*i, "a", "b"); p.ErrorCode != 0 || p.BaseOffset != offset {
			t.Fatalf("batch %d: %+v", i, p)
		}
		offset += 2
	}
	for i := int32(3); i < 8; i++ {
		if p := send(0, 2*i, "a", "b"); p.ErrorCode != 0 || p.BaseOffset != 2*int64(i) {
			t.Errorf("batch %d again: error %d, offset %d; want 0, %d", i, p.ErrorCode, p.BaseOffset, 2*i)
		}
	}
	if p := send(0, 4, "a", "b"); p.ErrorCode != int16(protocol.OutOfOrderSequence) && p.ErrorCode != int16(protocol.DuplicateSequence) {
		t.Errorf("the sixth last: error %d", p.ErrorCode)
	}
	if p := send(0, 18, "a"); p.ErrorCode != int16(protocol.OutOfOrderSequence) {
		t.Errorf("a gap: error %d, want %d", p.ErrorCode, protocol.OutOfOrderSequence)
	}
	if p := send(1, 5, "a"); p.ErrorCode != int16(protocol.OutOfOrderSequence) {
		t.Errorf("a new epoch that does not begin at 0: error %d, want %d", p.ErrorCode, protocol.OutOfOrderSequence)
	}
	if p := send(1, 0, "a"); p.ErrorCode != 0 || p.BaseOffset != offset {
		t.Errorf("a new epoch: %+v", p)
	}
	if p := send(0, 16, "a"); p.ErrorCode != int16(protocol.InvalidProducerEpoch) {
		t.Errorf("an old epoch: error %d, want %d", p.ErrorCode, protocol.InvalidProducerEpoch)
	}
	desc := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = "t", []int32{0, 1}
	desc.Topics = append(desc.Topics, rt)
	ps := ask[*kmsg.DescribeProducersResponse](w, desc).Topics[0].Partitions
	if a := ps[0].ActiveProducers; len(a) != 1 || a[0].ProducerID != got.ProducerID || a[0].ProducerEpoch != 1 || a[0].LastSequence != 0 {
		t.Errorf("producers %+v", a)
	}
	if ps[1].ErrorCode != int16(protocol.UnknownTopicOrPartition) {
		t.Errorf("partition 1: error %d", ps[1].ErrorCode)
	}
}

// The connection is cut with five batches in flight, and the client sends
// them again over another.
func TestRetriesAfterACutAppearOnce(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	init := kmsg.NewPtrInitProducerIDRequest()
	init.SetVersion(4)
	producer := ask[*kmsg.InitProducerIDResponse](b.dial(), init).ProducerID
	next := int32(0)
	for range 20 {
		var batches []record.Batch
		for i := range int32(5) {
			p := &record.Producer{ID: producer, Sequence: next + i}
			batches = append(batches, batchOf(t, record.None, p, fmt.Sprint(next+i)))
		}
		w := b.dial()
		for _, batch := range batches {
			w.send(produceRequest(13, "t", id, batch))
		}
		w.conn.Close()
		w = b.dial()
		for i, batch := range batches {
			for {
				// The cut connection's may still be under way, or may have come after these.
				p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "t", id, batch)))
				if p.ErrorCode == 0 {
					break
				}
				t.Fatalf("batch %d: error %d %s", i, p.ErrorCode, str(p.ErrorMessage))
			}
		}
		next += 5
	}
	cl := b.client(kgo.ConsumeTopics("t"))
	for i := range next {
		r := cl.PollRecords(testContext(t), 1).Records()[0]
		if string(r.Value) != fmt.Sprint(i) || r.Offset != int64(i) {
			t.Fatalf("record %d is %q at %d", i, r.Value, r.Offset)
		}
	}
}

// One partition ten thousand times in one request.
func TestOnePartitionManyTimes(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	req := produceRequest(13, "t", id, batchOf(t, record.None, nil, "x"))
	one := req.Topics[0].Partitions[0]
	for range 9999 {
		one.Records = slices.Clone(one.Records)
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, one)
	}
	resp := ask[*kmsg.ProduceResponse](b.dial(), req)
	for i, p := range resp.Topics[0].Partitions {
		if p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Fatalf("place %d: error %d, offset %d", i, p.ErrorCode, p.BaseOffset)
		}
	}
}

func TestTransactionalProducersAreRefusedForGood(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for version := int16(0); version <= 5; version++ {
		init := kmsg.NewPtrInitProducerIDRequest()
		init.SetVersion(version)
		init.TransactionalID = kmsg.StringPtr("tx")
		if resp := ask[*kmsg.InitProducerIDResponse](w, init); resp.ErrorCode != int16(protocol.UnsupportedVersion) || resp.ProducerID != -1 {
			t.Errorf("version %d: %+v", version, resp)
		}
	}
}

// What a client is told in words is Kafka's, and nothing of ours: the partition's
// refusals have none. Where it was the partition that refused, its log start is told.
func TestProduceRefusalsInWords(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"cleanup.policy": "compact"})
	w := b.dial()
	send := func(batch record.Batch) kmsg.ProduceResponseTopicPartition {
		t.Helper()
		return producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "t", id, batch)))
	}
	numbered := func(sequence int32) record.Batch {
		bu := record.Builder{Producer: &record.Producer{ID: 5, Sequence: sequence}}
		bu.Append(record.Record{Key: []byte("k"), Value: []byte("v")})
		batch, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		return batch
	}
	if p := send(numbered(0)); p.ErrorCode != 0 {
		t.Fatalf("error %d", p.ErrorCode)
	}
	if p := send(numbered(7)); p.ErrorCode != int16(protocol.OutOfOrderSequence) || p.ErrorMessage != nil || p.LogStartOffset != 0 {
		t.Errorf("a gap: error %d, message %s, log start %d", p.ErrorCode, str(p.ErrorMessage), p.LogStartOffset)
	}
	bu := record.Builder{}
	bu.Append(record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte("no key")})
	batch, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	p := send(batch)
	if p.ErrorCode != int16(protocol.InvalidRecord) || p.LogStartOffset != 0 || len(p.ErrorRecords) != 1 ||
		str(p.ErrorRecords[0].ErrorMessage) != "Compacted topic cannot accept message without key in topic partition t-0" {
		t.Errorf("no key: %+v", p)
	}
}

// A timeout of 0 is no reason to say that it timed out.
func TestProduceWithTimeoutZero(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	for i := range int64(20) {
		req := produceRequest(13, "t", id, batchOf(t, record.None, nil, "x"))
		req.TimeoutMillis = 0
		if p := producedPartition(t, ask[*kmsg.ProduceResponse](w, req)); p.ErrorCode != 0 || p.BaseOffset != i {
			t.Fatalf("error %d, offset %d", p.ErrorCode, p.BaseOffset)
		}
	}
}

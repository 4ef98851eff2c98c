package server

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/segment"
	"millrace/segment/record"
	"millrace/server/protocol"
)

// The encoder of fetch.go must write what kmsg would, byte for byte.
func TestFetchIsEncodedAsKmsgEncodesIt(t *testing.T) {
	b := startBroker(t, nil)
	for version := int16(4); version <= 18; version++ {
		for seed := range uint64(100) {
			r := rand.New(rand.NewPCG(seed, uint64(version)))
			f := randomFetching(r, b.server, version)
			c := &connection{server: b.server, conn: pipeEnd{}, origin: origin{local: pipeEnd{}.LocalAddr()}}
			h := protocol.Header{Key: kmsg.Fetch, Version: version, Correlation: int32(seed)}
			f.encode(c, h)
			got := bytes.Join(f.pieces, nil)
			body := got[8:]
			if version >= 12 {
				body = got[9:]
			}
			resp := kmsg.NewPtrFetchResponse()
			resp.SetVersion(version)
			if err := resp.ReadFrom(body); err != nil {
				t.Fatalf("version %d, seed %d: %v", version, seed, err)
			}
			want := protocol.AppendHeader(nil, h)
			want = resp.AppendTo(want)
			protocol.Finish(want, 0)
			if !bytes.Equal(got, want) {
				t.Fatalf("version %d, seed %d:\n got %x\nwant %x", version, seed, got, want)
			}
			compareFetch(t, f, resp)
		}
	}
}

// randomFetching returns a fetch that has gathered something.
func randomFetching(r *rand.Rand, s *Server, version int16) *fetching {
	f := &fetching{in: &s.handlers.fetches, version: version, full: r.IntN(2) == 0, committed: r.IntN(2) == 0}
	if version >= 7 {
		f.code, f.sessionID = protocol.Code(r.IntN(3)), r.Int32()
	}
	for range r.IntN(4) {
		key := partitionKey{name: fmt.Sprint("topic-", r.IntN(1000))}
		if version >= 13 {
			key = partitionKey{topic: metadata.TopicID{byte(r.IntN(256)), 15: 1}}
		}
		for i := range r.IntN(4) {
			key.index = int32(i)
			w := &wanted{partitionKey: key, include: f.full || r.IntN(2) == 0, high: r.Int64(), stable: r.Int64(), start: r.Int64(), leader: -1, newEpoch: -1}
			switch r.IntN(4) {
			case 0:
				w.code = protocol.NotLeaderOrFollower
				if version >= 16 {
					w.leader, w.newEpoch = 1, r.Int32N(100)
				}
			case 1:
				var pieces [][]byte
				for range 1 + r.IntN(3) {
					pieces = append(pieces, make([]byte, 1+r.IntN(300)))
				}
				w.view = &segment.View{Bytes: pieces, Next: 9}
			case 2:
				w.diverging, w.divergingEpoch, w.divergingOffset = version >= 12, 5, r.Int64N(100)
			}
			f.parts = append(f.parts, w)
		}
	}
	return f
}

func compareFetch(t *testing.T, f *fetching, resp *kmsg.FetchResponse) {
	t.Helper()
	if f.version >= 7 && (resp.ErrorCode != int16(f.code) || resp.SessionID != f.sessionID) {
		t.Fatalf("code %d, session %d; want %d, %d", resp.ErrorCode, resp.SessionID, f.code, f.sessionID)
	}
	var got []kmsg.FetchResponseTopicPartition
	for _, rt := range resp.Topics {
		got = append(got, rt.Partitions...)
	}
	i := 0
	for _, w := range f.parts {
		if !w.include {
			continue
		}
		p := got[i]
		i++
		size := 0
		if w.view != nil {
			size = w.view.Len()
		}
		if p.Partition != w.index || p.ErrorCode != int16(w.code) || p.HighWatermark != w.high || p.LastStableOffset != w.stable ||
			len(p.RecordBatches) != size || (p.AbortedTransactions != nil) != (f.committed && w.code == protocol.None) {
			t.Fatalf("version %d: %+v\nof %+v", f.version, p, w)
		}
		if w.diverging && (p.DivergingEpoch.Epoch != w.divergingEpoch || p.DivergingEpoch.EndOffset != w.divergingOffset) {
			t.Fatalf("diverging %+v", p.DivergingEpoch)
		}
		if p.CurrentLeader.LeaderID != w.leader {
			t.Fatalf("leader %+v, want %d", p.CurrentLeader, w.leader)
		}
	}
	if i != len(got) {
		t.Fatalf("%d partitions, want %d", len(got), i)
	}
}

// produce appends records of the given values, one batch each, and returns
// their offsets.
func (b *testBroker) produce(topic string, partition int32, values ...string) []int64 {
	b.t.Helper()
	cl := b.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0), kgo.MaxBufferedRecords(1))
	var offsets []int64
	for _, v := range values {
		r := &kgo.Record{Topic: topic, Partition: partition, Value: []byte(v)}
		if err := cl.ProduceSync(testContext(b.t), r).FirstErr(); err != nil {
			b.t.Fatal(err)
		}
		offsets = append(offsets, r.Offset)
	}
	return offsets
}

// fetchRequest asks for partitions of a topic from an offset on.
func fetchRequest(version int16, name string, id [16]byte, offset int64, partitions ...int32) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.SetVersion(version)
	req.MaxWaitMillis, req.SessionEpoch = 0, initialEpoch
	req.MinBytes = 1
	req.MaxBytes = 1 << 20
	if len(partitions) > 0 {
		rt := kmsg.NewFetchRequestTopic()
		rt.Topic, rt.TopicID = name, id
		for _, p := range partitions {
			rp := kmsg.NewFetchRequestTopicPartition()
			rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes = p, offset, 1<<20
			rp.CurrentLeaderEpoch, rp.LastFetchedEpoch = -1, -1
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func fetchedPartition(t *testing.T, resp *kmsg.FetchResponse) kmsg.FetchResponseTopicPartition {
	t.Helper()
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		t.Fatalf("answer %+v, want one partition", resp)
	}
	return resp.Topics[0].Partitions[0]
}

// KIP-74, KIP-320, KIP-516.
func TestFetchAnswersByOffset(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	cl := b.client(kgo.DefaultProduceTopic("t"), kgo.ProducerLinger(50*time.Millisecond))
	// One batch of three, then one of one.
	if err := cl.ProduceSync(testContext(t), &kgo.Record{Value: []byte("a")}, &kgo.Record{Value: []byte("b")}, &kgo.Record{Value: []byte("c")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	b.produce("t", 0, "d")
	w := b.dial()
	for version := int16(4); version <= 18; version++ {
		for _, c := range []struct {
			name   string
			change func(*kmsg.FetchRequest)
			offset int64
			code   protocol.Code
			bases  []int64
		}{
			{"the start", nil, 0, protocol.None, []int64{0, 3}},
			{"the middle of a batch", nil, 1, protocol.None, []int64{0, 3}},
			{"the last batch", nil, 3, protocol.None, []int64{3}},
			{"the high watermark", nil, 4, protocol.None, nil},
			{"beyond", nil, 5, protocol.OffsetOutOfRange, nil},
			{"-1", nil, -1, protocol.OffsetOutOfRange, nil},
			{"2⁶³−1", nil, 1<<63 - 1, protocol.OffsetOutOfRange, nil},
			{"one byte", func(r *kmsg.FetchRequest) { r.MaxBytes = 1 }, 0, protocol.None, []int64{0}},
			{"no bytes", func(r *kmsg.FetchRequest) { r.MaxBytes = 0 }, 0, protocol.None, []int64{0}},
			{"-1 bytes", func(r *kmsg.FetchRequest) { r.MaxBytes = -1 }, 0, protocol.None, []int64{0}},
			{"one byte of the partition", func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].PartitionMaxBytes = 1 }, 0, protocol.None, []int64{0}},
			{"read committed", func(r *kmsg.FetchRequest) { r.IsolationLevel = 1 }, 0, protocol.None, []int64{0, 3}},
			{"an unknown isolation level", func(r *kmsg.FetchRequest) { r.IsolationLevel = 7 }, 0, protocol.InvalidRequest, nil},
			{"a replica", func(r *kmsg.FetchRequest) { r.ReplicaID, r.ReplicaState.ID = 2, 2 }, 0, protocol.ClusterAuthorizationFailed, nil},
			{"another partition", func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].Partition = 1 }, 0, protocol.UnknownTopicOrPartition, nil},
			{"partition −1", func(r *kmsg.FetchRequest) { r.Topics[0].Partitions[0].Partition = -1 }, 0, protocol.UnknownTopicOrPartition, nil},
		} {
			req := fetchRequest(version, "t", id, c.offset, 0)
			req.SessionEpoch = finalEpoch
			if c.change != nil {
				c.change(req)
			}
			p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, req))
			if p.ErrorCode != int16(c.code) {
				t.Errorf("version %d, %s: error %d, want %d", version, c.name, p.ErrorCode, c.code)
			}
			if got := bases(t, p.RecordBatches); !slices.Equal(got, c.bases) {
				t.Errorf("version %d, %s: batches at %v, want %v", version, c.name, got, c.bases)
			}
			if c.code == protocol.None && (p.HighWatermark != 4 || p.LastStableOffset != 4) {
				t.Errorf("version %d, %s: high watermark %d, stable %d", version, c.name, p.HighWatermark, p.LastStableOffset)
			}
		}
	}
}

func bases(t *testing.T, p []byte) (offsets []int64) {
	t.Helper()
	for len(p) > 0 {
		b, rest, err := record.Split(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		offsets = append(offsets, b.BaseOffset())
		p = rest
	}
	return offsets
}

func TestFetchKnowsTopicsByNameOrID(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	w := b.dial()
	for version := int16(4); version <= 18; version++ {
		want := protocol.UnknownTopicOrPartition
		if version >= 13 {
			want = protocol.UnknownTopicID
		}
		p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(version, "nobody", [16]byte{1}, 0, 0)))
		if p.ErrorCode != int16(want) {
			t.Errorf("version %d: error %d, want %d", version, p.ErrorCode, want)
		}
	}
}

// KIP-320: a client that has heard of another epoch than the leader's.
// KIP-110: who asks in an old version cannot read zstd.
func TestOldFetchesAreRefusedZstd(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	for _, codec := range []record.Codec{record.LZ4, record.Zstd} {
		p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batchOf(t, codec, nil, "x"))))
		if p.ErrorCode != 0 {
			t.Fatal(p.ErrorCode)
		}
	}
	for version := int16(4); version <= 18; version++ {
		p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(version, "t", id, 0, 0)))
		want := protocol.None
		if version < 10 {
			want = protocol.UnsupportedCompression
		}
		if p.ErrorCode != int16(want) || len(p.RecordBatches) > 0 != (want == protocol.None) {
			t.Errorf("version %d: error %d with %d bytes, want error %d", version, p.ErrorCode, len(p.RecordBatches), want)
		}
	}
}

func TestFetchIsFencedByEpoch(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(12)
	epoch := ask[*kmsg.MetadataResponse](w, req).Topics[0].Partitions[0].LeaderEpoch
	for _, c := range []struct {
		known int32
		want  protocol.Code
	}{{-1, protocol.None}, {epoch, protocol.None}, {epoch - 1, protocol.FencedLeaderEpoch}, {epoch + 1, protocol.UnknownLeaderEpoch}, {1<<31 - 1, protocol.UnknownLeaderEpoch}} {
		req := fetchRequest(16, "", id, 0, 0)
		req.Topics[0].Partitions[0].CurrentLeaderEpoch = c.known
		p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, req))
		if p.ErrorCode != int16(c.want) {
			t.Errorf("epoch %d: error %d, want %d", c.known, p.ErrorCode, c.want)
		}
		if c.want == protocol.FencedLeaderEpoch && (p.CurrentLeader.LeaderID != 1 || p.CurrentLeader.LeaderEpoch != epoch) {
			t.Errorf("KIP-951: current leader %+v", p.CurrentLeader)
		}
	}
}

func TestFetchWaitsForRecords(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	req := fetchRequest(13, "", id, 0, 0)
	req.MaxWaitMillis = 60_000
	sent := w.send(req)
	b.produce("t", 0, "late")
	resp := w.receive(req, sent).(*kmsg.FetchResponse)
	if got := bases(t, fetchedPartition(t, resp).RecordBatches); !slices.Equal(got, []int64{0}) {
		t.Errorf("batches at %v", got)
	}
	// MinBytes above what there is: it waits for more.
	req = fetchRequest(13, "", id, 0, 0)
	req.MaxWaitMillis, req.MinBytes = 60_000, int32(len(fetchedPartition(t, resp).RecordBatches))+1
	sent = w.send(req)
	b.produce("t", 0, "later")
	resp = w.receive(req, sent).(*kmsg.FetchResponse)
	if got := bases(t, fetchedPartition(t, resp).RecordBatches); !slices.Equal(got, []int64{0, 1}) {
		t.Errorf("batches at %v", got)
	}
	// Nothing comes: MaxWait ends it.
	req = fetchRequest(13, "", id, 2, 0)
	req.MaxWaitMillis = 1
	if p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, req)); p.ErrorCode != 0 || len(p.RecordBatches) > 0 {
		t.Errorf("answer %+v", p)
	}
}

func TestWaitingFetchHearsOfDeletion(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	req := fetchRequest(13, "", id, 0, 0)
	req.MaxWaitMillis = 60_000
	sent := w.send(req)
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.SetVersion(6)
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.TopicID = id
	del.Topics = append(del.Topics, rt)
	ask[*kmsg.DeleteTopicsResponse](b.dial(), del)
	p := fetchedPartition(t, w.receive(req, sent).(*kmsg.FetchResponse))
	if c := protocol.Code(p.ErrorCode); c != protocol.UnknownTopicID && c != protocol.NotLeaderOrFollower {
		t.Errorf("error %d", p.ErrorCode)
	}
}

// The limit of the response holds over all partitions, and one that was left
// out comes first next time.
func TestFetchLimitHoldsOverAllPartitions(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 4, nil)
	value := string(make([]byte, 1000))
	for p := range int32(4) {
		b.produce("t", p, value, value)
	}
	w := b.dial()
	req := fetchRequest(13, "", id, 0, 0, 1, 2, 3)
	req.MaxBytes = 2500
	req.SessionEpoch = initialEpoch
	seen := map[int32]bool{}
	for epoch := int32(1); len(seen) < 4; epoch++ {
		resp := ask[*kmsg.FetchResponse](w, req)
		total := 0
		for _, rt := range resp.Topics {
			for _, p := range rt.Partitions {
				total += len(p.RecordBatches)
				if len(p.RecordBatches) > 0 {
					seen[p.Partition] = true
				}
			}
		}
		if total == 0 || total > 2500 {
			t.Fatalf("%d bytes of records", total)
		}
		if epoch > 4 {
			t.Fatalf("after %d fetches only %v came", epoch, seen)
		}
		req = fetchRequest(13, "", id, 0)
		req.MaxBytes = 2500
		req.SessionID, req.SessionEpoch = resp.SessionID, epoch
	}
}

// KIP-227.
func TestFetchSessionTellsOnlyNews(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for _, version := range []int16{7, 12, 13, 18} {
		topic := fmt.Sprint("t", version)
		id := b.create(topic, 3, nil)
		first := ask[*kmsg.FetchResponse](w, fetchRequest(version, topic, id, 0, 0, 1, 2))
		if first.SessionID == 0 || len(first.Topics) != 1 || len(first.Topics[0].Partitions) != 3 {
			t.Fatalf("version %d: full fetch answered %+v", version, first)
		}
		epoch := int32(0)
		more := func(change func(*kmsg.FetchRequest)) *kmsg.FetchResponse {
			epoch++
			req := fetchRequest(version, topic, id, 0)
			req.SessionID, req.SessionEpoch = first.SessionID, epoch
			if change != nil {
				change(req)
			}
			resp := ask[*kmsg.FetchResponse](w, req)
			if resp.ErrorCode != 0 || resp.SessionID != first.SessionID {
				t.Fatalf("version %d: error %d, session %d", version, resp.ErrorCode, resp.SessionID)
			}
			return resp
		}
		if resp := more(nil); len(resp.Topics) != 0 {
			t.Errorf("version %d: nothing new, but %+v", version, resp.Topics)
		}
		offset := b.produce(topic, 1, "x")[0]
		if p := fetchedPartition(t, more(nil)); p.Partition != 1 || len(p.RecordBatches) == 0 {
			t.Errorf("version %d: %+v", version, p)
		}
		// The client has not moved on: the records come again.
		if p := fetchedPartition(t, more(nil)); p.Partition != 1 || len(p.RecordBatches) == 0 {
			t.Errorf("version %d: %+v", version, p)
		}
		moved := func(r *kmsg.FetchRequest) {
			r.Topics = fetchRequest(version, topic, id, offset+1, 1).Topics
		}
		if resp := more(moved); len(resp.Topics) != 0 {
			t.Errorf("version %d: nothing new, but %+v", version, resp.Topics)
		}
		// A partition in error is told every time, and once more when it is well.
		wrong := func(r *kmsg.FetchRequest) { r.Topics = fetchRequest(version, topic, id, 1<<40, 2).Topics }
		for range 2 {
			if p := fetchedPartition(t, more(wrong)); p.ErrorCode != int16(protocol.OffsetOutOfRange) {
				t.Errorf("version %d: %+v", version, p)
			}
		}
		right := func(r *kmsg.FetchRequest) { r.Topics = fetchRequest(version, topic, id, 0, 2).Topics }
		if p := fetchedPartition(t, more(right)); p.ErrorCode != 0 || p.Partition != 2 {
			t.Errorf("version %d: %+v", version, p)
		}
		// Forgotten partitions are told no more.
		forget := func(r *kmsg.FetchRequest) {
			f := kmsg.NewFetchRequestForgottenTopic()
			f.Topic, f.TopicID, f.Partitions = topic, id, []int32{1}
			r.ForgottenTopics = append(r.ForgottenTopics, f)
		}
		more(forget)
		b.produce(topic, 1, "y")
		if resp := more(nil); len(resp.Topics) != 0 {
			t.Errorf("version %d: a forgotten partition came back: %+v", version, resp.Topics)
		}
		if n := b.server.Stats().Sessions; n != 1 {
			t.Errorf("version %d: %d sessions", version, n)
		}
	}
	if n := b.server.handlers.fetches.sessions.partitions.Load(); n != 2 {
		t.Errorf("%d partitions in sessions, want 2", n)
	}
}

// KIP-227: what may go wrong with a session, and that nobody reaches
// another connection's.
func TestFetchSessionsBelongToTheirConnection(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	mine, theirs := b.dial(), b.dial()
	session := ask[*kmsg.FetchResponse](mine, fetchRequest(13, "", id, 0, 0)).SessionID
	try := func(w *wire, version int16, session, epoch int32) protocol.Code {
		req := fetchRequest(version, "t", id, 0)
		req.SessionID, req.SessionEpoch = session, epoch
		resp := ask[*kmsg.FetchResponse](w, req)
		if resp.ErrorCode != 0 && (len(resp.Topics) > 0 || resp.SessionID != 0) {
			t.Errorf("an error with %+v", resp)
		}
		return protocol.Code(resp.ErrorCode)
	}
	for _, c := range []struct {
		name    string
		w       *wire
		version int16
		session int32
		epoch   int32
		want    protocol.Code
	}{
		{"another's session", theirs, 13, session, 1, protocol.FetchSessionNotFound},
		{"no session", theirs, 13, 0, 1, protocol.FetchSessionNotFound},
		{"an unknown session", mine, 13, session ^ 1, 1, protocol.FetchSessionNotFound},
		{"a later epoch", mine, 13, session, 2, protocol.InvalidFetchSessionEpoch},
		{"epoch −2", mine, 13, session, -2, protocol.InvalidFetchSessionEpoch},
		{"epoch 2³¹−1", mine, 13, session, 1<<31 - 1, protocol.InvalidFetchSessionEpoch},
		{"names in a session of ids", mine, 12, session, 1, protocol.FetchSessionTopicIDError},
		{"closing another's session", theirs, 13, session, finalEpoch, protocol.None},
		{"replacing another's session", theirs, 13, session, initialEpoch, protocol.None},
		{"the right epoch still", mine, 13, session, 1, protocol.None},
		{"the same epoch again", mine, 13, session, 1, protocol.InvalidFetchSessionEpoch},
		{"closing it", mine, 13, session, finalEpoch, protocol.None},
		{"after its end", mine, 13, session, 2, protocol.FetchSessionNotFound},
	} {
		if got := try(c.w, c.version, c.session, c.epoch); got != c.want {
			t.Errorf("%s: error %d, want %d", c.name, got, c.want)
		}
	}
	mine.conn.Close()
	theirs.conn.Close()
}

func TestSessionsThatDoNotFitAreNotBegun(t *testing.T) {
	b := startBrokerWith(t, nil, func(s *Server) { s.MaxSessionPartitions = 6 })
	id := b.create("t", 10, nil)
	w, other := b.dial(), b.dial()
	first := ask[*kmsg.FetchResponse](w, fetchRequest(13, "", id, 0, 0, 1, 2))
	if first.SessionID == 0 {
		t.Fatal("no session")
	}
	// Another client's does not fit; it is served without.
	resp := ask[*kmsg.FetchResponse](other, fetchRequest(13, "", id, 0, 0, 1, 2))
	if resp.SessionID != 0 || resp.ErrorCode != 0 || len(resp.Topics[0].Partitions) != 3 {
		t.Errorf("answer %+v", resp)
	}
	// The first grows too large: the client is told to begin anew.
	req := fetchRequest(13, "", id, 0, 3, 4, 5)
	req.SessionID, req.SessionEpoch = first.SessionID, 1
	if resp := ask[*kmsg.FetchResponse](w, req); resp.ErrorCode != int16(protocol.FetchSessionNotFound) {
		t.Errorf("error %d", resp.ErrorCode)
	}
	if n := b.server.handlers.fetches.sessions.partitions.Load(); n != 0 {
		t.Errorf("%d partitions left over", n)
	}
	if resp := ask[*kmsg.FetchResponse](other, fetchRequest(13, "", id, 0, 0, 1, 2)); resp.SessionID == 0 {
		t.Error("no room after the first session's end")
	}
}

// retained is what a connection keeps for its next Fetch, in bytes.
func (c *connection) retained() int {
	f := &c.fetching
	n := cap(c.frame) + cap(c.out) + cap(f.head) + cap(f.own)*int(unsafe.Sizeof(wanted{})) +
		8*cap(f.ownPtr) + 8*cap(f.cuts) + 24*cap(f.pieces)
	if c.proto != nil {
		n += cap(c.proto.Topics) * int(unsafe.Sizeof(kmsg.FetchRequestTopic{}))
		for i := range c.proto.Topics {
			n += cap(c.proto.Topics[i].Partitions) * int(unsafe.Sizeof(kmsg.FetchRequestTopicPartition{}))
		}
	}
	return n
}

// An idle connection keeps little, however much it asked for once: partitions of
// one topic, as many topics, or a session that was given up.
func TestAnIdleConnectionKeepsLittle(t *testing.T) {
	b := startBroker(t, nil)
	const n = 20_000
	several := func(version int16, topics, partitions int) *kmsg.FetchRequest {
		req := fetchRequest(version, "", [16]byte{}, 0)
		for i := range topics {
			rt := kmsg.NewFetchRequestTopic()
			rt.Topic = fmt.Sprint("nope-", i)
			rt.TopicID = [16]byte{1, byte(i), byte(i >> 8)}
			rt.Partitions = make([]kmsg.FetchRequestTopicPartition, partitions)
			for j := range rt.Partitions {
				rt.Partitions[j].Default()
				rt.Partitions[j].Partition = int32(j)
			}
			req.Topics = append(req.Topics, rt)
		}
		return req
	}
	for name, req := range map[string]*kmsg.FetchRequest{
		"partitions":             several(4, 1, n),
		"topics":                 several(4, n, 1),
		"a session's partitions": several(13, 1, n),
		"a session's topics":     several(12, n, 1),
	} {
		t.Run(name, func(t *testing.T) {
			c := newConnection(b.server, nowhere{})
			defer c.close()
			h := protocol.Header{Key: kmsg.Fetch, Version: req.Version}
			if err := b.server.handlers.fetches.fetch(&call{Header: h, ctx: context.Background(), conn: c, body: req.AppendTo(nil)}); err != nil {
				t.Fatal(err)
			}
			if c.session != nil {
				forget := fetchRequest(req.Version, "", [16]byte{}, 0)
				forget.SessionID, forget.SessionEpoch = c.session.id, 1
				for i := range req.Topics {
					rt := kmsg.NewFetchRequestForgottenTopic()
					rt.Topic, rt.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
					for j := range req.Topics[i].Partitions {
						rt.Partitions = append(rt.Partitions, int32(j))
					}
					forget.ForgottenTopics = append(forget.ForgottenTopics, rt)
				}
				old := c.session.byKey
				if err := b.server.handlers.fetches.fetch(&call{Header: h, ctx: context.Background(), conn: c, body: forget.AppendTo(nil)}); err != nil {
					t.Fatal(err)
				}
				if c.session == nil || len(c.session.byKey) != 0 || cap(c.session.parts) > maxKeptParts || reflect.ValueOf(old).Pointer() == reflect.ValueOf(c.session.byKey).Pointer() {
					t.Errorf("the session keeps room for %d partitions", cap(c.session.parts))
				}
			} else if req.Version >= 7 {
				t.Error("no session")
			}
			if n := c.retained(); n > 64<<10 {
				t.Errorf("%d bytes are kept", n)
			}
		})
	}
}

// max.incremental.fetch.session.cache.slots
func TestSessionsAreCounted(t *testing.T) {
	b := startBroker(t, map[string]string{"max.incremental.fetch.session.cache.slots": "1"})
	id := b.create("t", 1, nil)
	first, second := b.dial(), b.dial()
	if r := ask[*kmsg.FetchResponse](first, fetchRequest(13, "", id, 0, 0)); r.SessionID == 0 {
		t.Fatal("no session")
	}
	if r := ask[*kmsg.FetchResponse](second, fetchRequest(13, "", id, 0, 0)); r.SessionID != 0 || r.ErrorCode != 0 || len(r.Topics) != 1 {
		t.Errorf("answer %+v", r)
	}
	first.conn.Close()
	waitFor(t, "the session's end", func() bool { return b.server.Stats().Sessions == 0 })
	if r := ask[*kmsg.FetchResponse](second, fetchRequest(13, "", id, 0, 0)); r.SessionID == 0 {
		t.Error("no room after the first session's end")
	}
}

// A partition that is named twice is answered once, where it stood first with what
// it said last: Kafka's request is a map.
func TestAPartitionFetchedTwiceIsAnsweredOnce(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 3, nil)
	w := b.dial()
	req := fetchRequest(13, "", id, 0, 1, 0, 1, 2, 1)
	req.SessionEpoch = finalEpoch
	req.Topics[0].Partitions[4].FetchOffset = 99
	req.Topics = append(req.Topics, req.Topics[0])
	var got []string
	for _, rt := range ask[*kmsg.FetchResponse](w, req).Topics {
		for _, p := range rt.Partitions {
			got = append(got, fmt.Sprintf("%d:%d", p.Partition, p.ErrorCode))
		}
	}
	if want := "1:1 0:0 2:0"; strings.Join(got, " ") != want {
		t.Errorf("partitions and errors %s, want %s", got, want)
	}
}

func TestFetchesThatAskForTheImpossible(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	for name, c := range map[string]struct {
		change func(*kmsg.FetchRequestTopicPartition)
		want   protocol.Code
	}{
		"a limit of -1":                 {func(p *kmsg.FetchRequestTopicPartition) { p.PartitionMaxBytes = -1 }, protocol.InvalidRequest},
		"an epoch that is yet to come":  {func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch = 1 << 30 }, protocol.OffsetOutOfRange},
		"an old epoch, below the start": {func(p *kmsg.FetchRequestTopicPartition) { p.LastFetchedEpoch, p.FetchOffset = 0, -5 }, protocol.OffsetOutOfRange},
		"nothing special":               {func(p *kmsg.FetchRequestTopicPartition) {}, protocol.None},
	} {
		req := fetchRequest(13, "", id, 0, 0)
		c.change(&req.Topics[0].Partitions[0])
		if p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, req)); p.ErrorCode != int16(c.want) || len(p.RecordBatches) != 0 {
			t.Errorf("%s: error %d, want %d", name, p.ErrorCode, c.want)
		}
	}
}

package server

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/protocol"
)

func listRequest(version int16, topic string, partition int32, timestamp int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.SetVersion(version)
	req.ReplicaID = -1
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewListOffsetsRequestTopicPartition()
	rp.Partition, rp.Timestamp, rp.CurrentLeaderEpoch = partition, timestamp, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// KIP-79, KIP-734, KIP-405, KIP-1005.
func TestListOffsets(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	start := time.Now().Add(-time.Hour).UnixMilli()
	for _, delta := range []int64{0, 10, 5, 30, 20} {
		bu := record.Builder{}
		bu.Append(record.Record{Timestamp: start + delta, Value: []byte("x")})
		bu.Append(record.Record{Timestamp: start + delta + 1, Value: []byte("y")})
		batch, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		if p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "t", id, batch))); p.ErrorCode != 0 {
			t.Fatal(p.ErrorCode)
		}
	}
	for version := int16(1); version <= 10; version++ {
		for _, c := range []struct {
			name       string
			timestamp  int64
			since      int16
			offset, at int64
			noEpoch    bool
		}{
			{"latest", latestOffset, 1, 10, -1, false},
			{"earliest", earliestOffset, 1, 0, -1, false},
			{"max timestamp", maxTimestamp, 7, 7, start + 31, false},
			{"earliest local", earliestLocal, 8, 0, -1, false},
			{"latest tiered", latestTiered, 9, -1, -1, true},
			{"-6", -6, 11, -1, -1, true},
			{"-2⁶³", -1 << 63, 11, -1, -1, true},
			{"0", 0, 1, 0, start, false},
			{"the first record's", start, 1, 0, start, false},
			{"the second record's", start + 1, 1, 1, start + 1, false},
			{"between batches", start + 2, 1, 2, start + 10, false},
			{"in a later batch", start + 12, 1, 6, start + 30, false},
			{"after the last", start + 32, 1, -1, -1, true},
			{"2⁶³−1", 1<<63 - 1, 1, -1, -1, true},
		} {
			p := ask[*kmsg.ListOffsetsResponse](w, listRequest(version, "t", 0, c.timestamp)).Topics[0].Partitions[0]
			if version < c.since {
				if p.ErrorCode != int16(protocol.UnsupportedVersion) {
					t.Errorf("version %d, %s: error %d, want %d", version, c.name, p.ErrorCode, protocol.UnsupportedVersion)
				}
				continue
			}
			if p.ErrorCode != 0 || p.Offset != c.offset || p.Timestamp != c.at {
				t.Errorf("version %d, %s: error %d, offset %d, time %d; want %d, %d", version, c.name, p.ErrorCode, p.Offset, p.Timestamp, c.offset, c.at)
			}
			if version >= 4 && (p.LeaderEpoch < 0) != c.noEpoch {
				t.Errorf("version %d, %s: leader epoch %d", version, c.name, p.LeaderEpoch)
			}
		}
	}
}

func TestListOffsetsRefusals(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	w := b.dial()
	epoch := ask[*kmsg.ListOffsetsResponse](w, listRequest(10, "t", 0, latestOffset)).Topics[0].Partitions[0].LeaderEpoch
	for _, c := range []struct {
		name   string
		change func(*kmsg.ListOffsetsRequest)
		want   protocol.Code
	}{
		{"an unknown topic", func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Topic = "nobody" }, protocol.UnknownTopicOrPartition},
		{"an unknown partition", func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].Partition = 1 }, protocol.UnknownTopicOrPartition},
		{"partition −1", func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].Partition = -1 }, protocol.UnknownTopicOrPartition},
		{"the same partition twice", func(r *kmsg.ListOffsetsRequest) {
			r.Topics[0].Partitions = append(r.Topics[0].Partitions, r.Topics[0].Partitions[0])
		}, protocol.InvalidRequest},
		{"a replica, as kafka-python 3.0 calls itself", func(r *kmsg.ListOffsetsRequest) { r.ReplicaID = 0 }, protocol.None},
		{"a replica", func(r *kmsg.ListOffsetsRequest) { r.ReplicaID = 2 }, protocol.None},
		{"an old epoch (KIP-320)", func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch - 1 }, protocol.FencedLeaderEpoch},
		{"the epoch", func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch }, protocol.None},
		{"a coming epoch", func(r *kmsg.ListOffsetsRequest) { r.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch + 1 }, protocol.UnknownLeaderEpoch},
	} {
		req := listRequest(10, "t", 0, latestOffset)
		c.change(req)
		for _, p := range ask[*kmsg.ListOffsetsResponse](w, req).Topics[0].Partitions {
			if p.ErrorCode != int16(c.want) || c.want != protocol.None && (p.Offset != -1 || p.LeaderEpoch != -1) {
				t.Errorf("%s: %+v, want error %d", c.name, p, c.want)
			}
		}
	}
}

// KIP-320: an epoch that passed without a record ended where the log began. -1
// would tell the consumers of an empty topic that it was truncated.
func TestEpochsWithoutRecordsHaveAnEnd(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	w := b.dial()
	epoch := ask[*kmsg.ListOffsetsResponse](w, listRequest(10, "t", 0, latestOffset)).Topics[0].Partitions[0].LeaderEpoch
	if epoch < 1 {
		t.Fatalf("epoch %d, and there is none before it", epoch)
	}
	for replica := range int32(2) { // Kafka answers whoever asks, also one that says it is a replica
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.SetVersion(4)
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.LeaderEpoch = epoch - 1
		rt.Partitions = append(rt.Partitions, rp)
		req.ReplicaID = replica - 1
		req.Topics = append(req.Topics, rt)
		p := ask[*kmsg.OffsetForLeaderEpochResponse](w, req).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.LeaderEpoch != epoch-1 || p.EndOffset != 0 {
			t.Errorf("%+v, want epoch %d to end at 0", p, epoch-1)
		}
		b.produce("t", 0, "a", "b") // and the same once there are records
	}
}

// KIP-320.
func TestOffsetForLeaderEpoch(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	b.produce("t", 0, "a", "b", "c")
	w := b.dial()
	epoch := ask[*kmsg.ListOffsetsResponse](w, listRequest(10, "t", 0, latestOffset)).Topics[0].Partitions[0].LeaderEpoch
	for version := int16(2); version <= 4; version++ {
		for _, c := range []struct {
			asked, known int32
			want         protocol.Code
			epoch        int32
			end          int64
		}{
			{epoch, -1, protocol.None, epoch, 3},
			{epoch, epoch, protocol.None, epoch, 3},
			{epoch + 1, -1, protocol.None, -1, -1},
			{-1, -1, protocol.None, -1, -1},
			{1<<31 - 1, -1, protocol.None, -1, -1},
			{epoch, epoch - 1, protocol.FencedLeaderEpoch, -1, -1},
			{epoch, epoch + 1, protocol.UnknownLeaderEpoch, -1, -1},
		} {
			req := kmsg.NewPtrOffsetForLeaderEpochRequest()
			req.SetVersion(version)
			req.ReplicaID = -1
			rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
			rt.Topic = "t"
			rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			rp.CurrentLeaderEpoch, rp.LeaderEpoch = c.known, c.asked
			rt.Partitions = append(rt.Partitions, rp)
			req.Topics = append(req.Topics, rt)
			p := ask[*kmsg.OffsetForLeaderEpochResponse](w, req).Topics[0].Partitions[0]
			if p.ErrorCode != int16(c.want) || p.LeaderEpoch != c.epoch || p.EndOffset != c.end {
				t.Errorf("version %d, epoch %d known %d: %+v", version, c.asked, c.known, p)
			}
		}
	}
}

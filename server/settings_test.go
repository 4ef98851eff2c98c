package server

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
)

// offsets.topic.compression.codec, as a batch's attributes number it.
func TestCommittedOffsetsAreStoredWithTheirCodec(t *testing.T) {
	b := startBroker(t, map[string]string{"offsets.topic.compression.codec": "4", "offsets.topic.num.partitions": "1"})
	b.create("t", 1, nil)
	b.coordinates("g")
	w := b.dial()
	commit := kmsg.NewPtrOffsetCommitRequest()
	commit.SetVersion(8)
	commit.Group, commit.Generation = "g", -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = "t"
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset = 7
	rt.Partitions = append(rt.Partitions, rp)
	commit.Topics = append(commit.Topics, rt)
	if got := ask[*kmsg.OffsetCommitResponse](w, commit).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	top, _ := b.node.Image().Topic(offsetsTopic)
	p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(13, "", top.ID, 0, 0)))
	if batch := record.Batch(p.RecordBatches); len(batch) < 61 || batch.Codec() != record.Zstd {
		t.Errorf("%d bytes, codec %v", len(batch), batch.Codec())
	}
}

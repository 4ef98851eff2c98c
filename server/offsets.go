package server

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/partition"
	"millrace/server/protocol"
)

// A positions answers what is asked of offsets in a partition: where a time, an end or
// an epoch's end is.
type positions struct{ *broker }

// Timestamps with a meaning of their own in ListOffsets.
const (
	latestOffset   = -1
	earliestOffset = -2
	maxTimestamp   = -3 // version 7 on (KIP-734)
	earliestLocal  = -4 // version 8 on (KIP-405)
	latestTiered   = -5 // version 9 on (KIP-1005)
)

// sinceVersion is the first version that knows each of them, by its negative.
var sinceVersion = [...]int16{-latestOffset: 1, -earliestOffset: 1, -maxTimestamp: 7, -earliestLocal: 8, -latestTiered: 9}

// ListOffsets, versions 1–10.
//
//   - Latest is the high watermark, or the last stable offset for read_committed.
//   - Nothing is tiered: the earliest local offset is the earliest, the latest
//     tiered one -1.
//   - A time finds the first record at or after it, or -1 with time -1.
//   - A negative timestamp that the version does not know is UNSUPPORTED_VERSION.
//   - A partition named twice is INVALID_REQUEST.
//   - A quorum confirms that the answer is a leader's, NOT_LEADER_OR_FOLLOWER else: a
//     deposed leader's end of the log would lie before what consumers have read.
//   - A replica's id is not looked at: kafka-python 3.0 sends 0, and Kafka
//     answers such a client as any other where it asks for what consumers may see.
//
// v2 adds the isolation level, v4 leader epochs both ways (KIP-207, KIP-320), v6
// tagged fields, v10 a timeout.
func (h *positions) listOffsets(c *call, req *kmsg.ListOffsetsRequest) *kmsg.ListOffsetsResponse {
	resp := kmsg.NewPtrListOffsetsResponse()
	image := h.node.Image()
	count := countPartitions{}
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			c.step()
			count.add(req.Topics[i].Topic, req.Topics[i].Partitions[j].Partition)
		}
	}
	var claims []claim
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		rt, st := &req.Topics[i], &resp.Topics[i]
		st.Default()
		st.Topic = rt.Topic
		topic, code := c.findTopic(image, rt.Topic)
		st.Partitions = make([]kmsg.ListOffsetsResponseTopicPartition, len(rt.Partitions))
		for j := range rt.Partitions {
			c.step()
			rp, sp := &rt.Partitions[j], &st.Partitions[j]
			sp.Default()
			sp.Partition = rp.Partition
			sp.Timestamp, sp.Offset, sp.LeaderEpoch = -1, -1, -1
			switch {
			case code != protocol.None:
				sp.ErrorCode = int16(code)
			case count.repeated(rt.Topic, rp.Partition):
				sp.ErrorCode = int16(protocol.InvalidRequest)
			default:
				p, epoch, code := h.leading(topic, rp.Partition, rp.CurrentLeaderEpoch)
				if code == protocol.None {
					code = listOffset(p, epoch, c.Version, req.IsolationLevel == 1, rp.Timestamp, sp)
				}
				if sp.ErrorCode = int16(code); code == protocol.None {
					claims = append(claims, claim{p, epoch, (*listedOffset)(sp)})
				}
			}
		}
	}
	confirm(c.ctx, claims)
	return resp
}

// A listedOffset is deniable.
type listedOffset kmsg.ListOffsetsResponseTopicPartition

func (sp *listedOffset) deny(code protocol.Code) {
	sp.ErrorCode, sp.Timestamp, sp.Offset, sp.LeaderEpoch = int16(code), -1, -1, -1
}

func listOffset(p *partition.Partition, epoch int32, version int16, committed bool, timestamp int64, sp *kmsg.ListOffsetsResponseTopicPartition) protocol.Code {
	if timestamp < latestTiered || timestamp < 0 && version < sinceVersion[-timestamp] {
		return protocol.UnsupportedVersion
	}
	switch timestamp {
	case latestOffset:
		sp.Offset, sp.LeaderEpoch = p.HighWatermark(), epoch
		if committed {
			sp.Offset = p.StableOffset()
		}
		return protocol.None
	case earliestOffset, earliestLocal:
		sp.Offset = p.StartOffset()
		if sp.LeaderEpoch = p.EpochAt(sp.Offset); sp.LeaderEpoch < 0 {
			sp.LeaderEpoch = epoch
		}
		return protocol.None
	case latestTiered:
		return protocol.None
	case maxTimestamp:
		offset, found, err := p.MaxTimestamp()
		if err != nil {
			return codeOf(err)
		}
		if offset >= 0 {
			sp.Offset, sp.Timestamp, sp.LeaderEpoch = offset, found, p.EpochAt(offset)
		}
		return protocol.None
	}
	offset, found, ok, err := p.OffsetAt(timestamp)
	if err != nil {
		return codeOf(err)
	}
	if ok {
		sp.Offset, sp.Timestamp, sp.LeaderEpoch = offset, found, p.EpochAt(offset)
	}
	return protocol.None
}

// countPartitions finds partitions named more than once in a request.
type countPartitions map[namedPartition]int

type namedPartition struct {
	topic string
	index int32
}

func (c countPartitions) add(topic string, index int32) { c[namedPartition{topic, index}]++ }

func (c countPartitions) repeated(topic string, index int32) bool {
	return c[namedPartition{topic, index}] > 1
}

// OffsetForLeaderEpoch, versions 2–4 (KIP-320).
//
//   - The largest epoch at or below the one asked for, and where it ended; the
//     current epoch ends at the high watermark, so that the answer is never
//     below what a consumer has seen.
//   - -1 and -1 for an epoch we know nothing at or below of, or one to come.
//   - A quorum confirms that the answer is a leader's, as in ListOffsets.
//   - Epochs are Raft's terms. Term 1 is that of the configuration a group begins
//     with, so the first leader has 2 where Kafka's has 0; clients only compare.
//
// v3 adds the replica's id, which changes nothing here: no node asks another in
// this way, so whoever gives one is answered as a consumer is. v4 adds tagged
// fields.
func (h *positions) offsetForLeaderEpoch(c *call, req *kmsg.OffsetForLeaderEpochRequest) *kmsg.OffsetForLeaderEpochResponse {
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	image := h.node.Image()
	var claims []claim
	resp.Topics = make([]kmsg.OffsetForLeaderEpochResponseTopic, len(req.Topics))
	for i := range req.Topics {
		rt, st := &req.Topics[i], &resp.Topics[i]
		st.Default()
		st.Topic = rt.Topic
		topic, code := c.findTopic(image, rt.Topic)
		st.Partitions = make([]kmsg.OffsetForLeaderEpochResponseTopicPartition, len(rt.Partitions))
		for j := range rt.Partitions {
			c.step()
			rp, sp := &rt.Partitions[j], &st.Partitions[j]
			sp.Default()
			sp.Partition = rp.Partition
			sp.LeaderEpoch, sp.EndOffset = -1, -1
			if code != protocol.None {
				sp.ErrorCode = int16(code)
				continue
			}
			p, epoch, code := h.leading(topic, rp.Partition, rp.CurrentLeaderEpoch)
			if code == protocol.None && rp.LeaderEpoch >= 0 {
				sp.LeaderEpoch, sp.EndOffset = p.EpochEnd(rp.LeaderEpoch)
				claims = append(claims, claim{p, epoch, (*epochEnd)(sp)})
			}
			sp.ErrorCode = int16(code)
		}
	}
	confirm(c.ctx, claims)
	return resp
}

// An epochEnd is deniable.
type epochEnd kmsg.OffsetForLeaderEpochResponseTopicPartition

func (sp *epochEnd) deny(code protocol.Code) {
	sp.ErrorCode, sp.LeaderEpoch, sp.EndOffset = int16(code), -1, -1
}

package server

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/internal/bufpool"
	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// A producers answers producers, and what is asked of them: in produce.go what appends.
type producers struct {
	*broker
	buffers *bufpool.Pool // that frames come from
}

// InitProducerId, versions 0–5.
//
//   - Without a transactional id: a producer id of its own and epoch 0, whatever
//     the client had before (KIP-98, KIP-360).
//   - With one: UNSUPPORTED_VERSION, which no client retries; transactions are
//     not there.
//
// v2 adds tagged fields, v3 the producer's id and epoch.
func (h *producers) initProducerID(c *call, req *kmsg.InitProducerIDRequest) *kmsg.InitProducerIDResponse {
	resp := kmsg.NewPtrInitProducerIDResponse()
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil && !c.may(acl.TransactionalID, *req.TransactionalID):
		resp.ErrorCode = int16(protocol.TransactionalIDAuthorizationFailed)
		return resp
	case req.TransactionalID == nil && !c.mayHaveProducerID():
		resp.ErrorCode = int16(protocol.ClusterAuthorizationFailed)
		return resp
	case req.TransactionalID != nil:
		resp.ErrorCode = int16(protocol.UnsupportedVersion)
		return resp
	}
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	id, err := h.node.NewProducerID(ctx)
	if err != nil {
		resp.ErrorCode = int16(coordinatorCodeOf(err))
		return resp
	}
	resp.ProducerID, resp.ProducerEpoch = id, 0
	return resp
}

// DescribeProducers, version 0 (KIP-664).
//
//   - What the replica here remembers of each idempotent producer on the
//     partition, whether it leads or not: kafka-transactions find-hanging asks
//     the broker it was given. A follower knows what it knows to be committed,
//     which without further records takes up to a minute. Without a replica here it is NOT_LEADER_OR_FOLLOWER.
func (h *producers) describeProducers(c *call, req *kmsg.DescribeProducersRequest) *kmsg.DescribeProducersResponse {
	resp := kmsg.NewPtrDescribeProducersResponse()
	image := h.node.Image()
	resp.Topics = make([]kmsg.DescribeProducersResponseTopic, len(req.Topics))
	count := countPartitions{}
	for i := range req.Topics {
		for _, index := range req.Topics[i].Partitions {
			c.step()
			count.add(req.Topics[i].Topic, index)
		}
	}
	for i := range req.Topics {
		rt, st := &req.Topics[i], &resp.Topics[i]
		st.Default()
		st.Topic = rt.Topic
		topic, code := c.findTopic(image, rt.Topic)
		if metadata.ValidateTopicName(rt.Topic) != nil {
			code = protocol.InvalidTopic
		}
		st.Partitions = make([]kmsg.DescribeProducersResponseTopicPartition, len(rt.Partitions))
		for j, index := range rt.Partitions {
			c.step()
			sp := &st.Partitions[j]
			sp.Default()
			sp.Partition, sp.ErrorCode = index, int16(code)
			if code != protocol.None {
				continue
			}
			if count.repeated(rt.Topic, index) {
				sp.ErrorCode = int16(protocol.InvalidRequest)
				continue
			}
			if index < 0 || int(index) >= len(topic.Partitions) {
				sp.ErrorCode = int16(protocol.UnknownTopicOrPartition)
				continue
			}
			p, err := h.node.Partition(metadata.PartitionID{Topic: topic.ID, Index: index})
			if err != nil {
				sp.ErrorCode = int16(codeOf(err))
				continue
			}
			for _, info := range p.Producers() {
				ap := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
				ap.ProducerID, ap.ProducerEpoch = info.ID, int32(info.Epoch)
				ap.LastSequence, ap.LastTimestamp = info.LastSequence, info.LastTimestamp
				ap.CoordinatorEpoch, ap.CurrentTxnStartOffset = -1, -1
				sp.ActiveProducers = append(sp.ActiveProducers, ap)
			}
			if !c.fits(sp) {
				sp.ActiveProducers, sp.ErrorCode, sp.ErrorMessage = nil, int16(protocol.MessageTooLarge), message(errNoPlace)
			}
		}
	}
	return resp
}

package server

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// Metadata, versions 0–13.
//
//   - No topics is none, null is all; in version 0 none is all.
//   - A topic that is not there is created where the client and
//     auto.create.topics.enable allow it, implied below version 4. The answer
//     that creates it says UNKNOWN_TOPIC_OR_PARTITION, as that of Kafka with
//     KRaft does; the next one has it. An illegal name is INVALID_TOPIC_EXCEPTION.
//   - A partition without a known, living leader has leader -1 and
//     LEADER_NOT_AVAILABLE.
//   - Of all topics those are told that the client may know of; one by name that it may
//     not is TOPIC_AUTHORIZATION_FAILED, there or not, and so is one that it may not create.
//   - Living brokers are listed: those that this one hears, or hears of from one
//     that it does. Without a majority of them it cannot tell, and lists all, so that
//     a client of a broker that is cut off asks another. The controller named is one
//     of those; any broker serves what Kafka would have its controller serve.
//   - Brokers are where the listener that the client came in by has them: each
//     registers an address for each of its listeners. One without an advertised
//     address is where the client came in.
//
// v1 adds the controller, racks and internal topics, v2 the cluster's id, v5
// offline replicas, v7 leader epochs, v8 authorized operations (KIP-430), v9
// tagged fields, v10 topic ids (KIP-516), by which v12 may ask, v13 a top-level
// error.
func (h *cluster) metadata(c *call, req *kmsg.MetadataRequest) *kmsg.MetadataResponse {
	resp := kmsg.NewPtrMetadataResponse()
	image := h.node.Image()
	missing := map[string]protocol.Code{}
	if (c.Version < 4 || req.AllowAutoTopicCreation) && h.settings().broker.Topics.AutoCreate {
		missing = h.autoCreate(c, image, req.Topics)
		image = h.node.Image()
	}
	live := h.live(image)
	for _, b := range image.Brokers() {
		if !live[b.ID] {
			continue
		}
		e := h.address(&c.conn.origin, b)
		rb := kmsg.NewMetadataResponseBroker()
		rb.NodeID, rb.Host, rb.Port, rb.Rack = e.id, e.host, e.port, e.rack
		resp.Brokers = append(resp.Brokers, rb)
	}
	id := h.node.ClusterID()
	resp.ClusterID = &id
	resp.ControllerID = h.controller()
	if c.Version >= 8 && c.Version <= 10 && req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = c.clusterOperations()
	}
	describe := func(t *metadata.Topic) {
		rt := h.metadataTopic(t, live)
		if req.IncludeTopicAuthorizedOperations {
			rt.AuthorizedOperations = c.operations(acl.Topic, t.Name)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	if req.Topics == nil || c.Version == 0 && len(req.Topics) == 0 {
		for _, t := range image.Topics() {
			if c.sees(acl.Topic, t.Name) {
				describe(t)
			}
		}
		return resp
	}
	type name struct {
		name string
		id   metadata.TopicID
	}
	seen := make(map[name]struct{}, len(req.Topics))
	resp.Topics = make([]kmsg.MetadataResponseTopic, 0, len(req.Topics))
	for i := range req.Topics {
		c.step()
		rt := &req.Topics[i]
		n := name{id: rt.TopicID}
		if rt.Topic != nil {
			n.name = *rt.Topic
		}
		if _, ok := seen[n]; ok {
			continue
		}
		seen[n] = struct{}{}
		// Kafka's Admin asks by id with an empty name, not with none.
		byID := rt.Topic == nil || c.Version >= 12 && rt.TopicID != (metadata.TopicID{})
		var t *metadata.Topic
		var code protocol.Code
		switch {
		case byID && c.Version < 12:
			code = protocol.InvalidRequest
		case byID:
			if t, code = findTopic(image, "", n.id, true); t != nil && !c.may(acl.Topic, t.Name) {
				t, code = nil, protocol.TopicAuthorizationFailed
			}
		default:
			t, code = c.findTopic(image, n.name)
		}
		why, asked := missing[n.name]
		asked = asked && !byID
		if t != nil && !asked {
			describe(t)
			continue
		}
		if asked {
			code = why
		} else if !byID && code == protocol.UnknownTopicOrPartition && metadata.ValidateTopicName(n.name) != nil {
			code = protocol.InvalidTopic
		}
		e := kmsg.NewMetadataResponseTopic()
		if req.IncludeTopicAuthorizedOperations && !byID && code != protocol.TopicAuthorizationFailed {
			e.AuthorizedOperations = c.operations(acl.Topic, n.name)
		}
		e.ErrorCode, e.Topic, e.TopicID = int16(code), rt.Topic, rt.TopicID
		switch {
		case c.Version < 12 && e.Topic == nil:
			e.Topic = new(string)
		case byID && c.Version >= 12:
			e.Topic = nil
		}
		resp.Topics = append(resp.Topics, e)
	}
	return resp
}

// autoCreate creates the topics that are not there, the cluster's own among
// them, and says of each what the client is told: UNKNOWN_TOPIC_OR_PARTITION,
// upon which it asks again, or why the topic cannot be. Kafka does not wait for
// the controller and so never says why; a client that is told stops asking.
// Clients know a topic that answers at once as one that was there;
// segmentio/kafka-go's tests tell a deleted topic by it.
func (h *cluster) autoCreate(c *call, image *metadata.Image, topics []kmsg.MetadataRequestTopic) map[string]protocol.Code {
	missing := map[string]protocol.Code{}
	var names []string
	for i := range topics {
		c.step()
		n := topics[i].Topic
		if n == nil {
			continue
		}
		if _, ok := image.Topic(*n); ok || metadata.ValidateTopicName(*n) != nil || *n == metadataTopic {
			continue
		}
		if _, ok := missing[*n]; !ok {
			if c.guarded() {
				if c.hidden(acl.Describe, acl.Topic, *n) {
					continue // which is what it is told
				}
				if !c.onCluster(acl.Create) && !c.allowed(acl.Create, acl.Topic, *n) {
					missing[*n] = protocol.TopicAuthorizationFailed
					continue
				}
			}
			missing[*n] = protocol.UnknownTopicOrPartition
			if len(names) < maxAutoCreate {
				names = append(names, *n)
			}
		}
	}
	if len(names) == 0 {
		return missing
	}
	ctx, cancel := context.WithTimeout(c.ctx, 3*time.Second)
	defer cancel()
	results := make([]protocol.Code, len(names))
	together(len(names), func(i int) {
		want, own := h.ownTopic(names[i])
		if !own {
			want = replication.TopicRequest{Name: names[i], Partitions: -1, Replicas: -1}
		}
		_, err := h.node.CreateTopic(ctx, want)
		switch code := codeOf(err); code {
		case protocol.None, protocol.TopicAlreadyExists, protocol.RequestTimedOut, protocol.NotLeaderOrFollower:
			results[i] = protocol.UnknownTopicOrPartition
		default:
			results[i] = code
			h.warn("topic not created on demand", "topic", names[i], "error", err)
		}
	})
	for i, n := range names {
		missing[n] = results[i]
	}
	return missing
}

// maxAutoCreate bounds the topics that one request may create by asking for them.
const maxAutoCreate = 100

func (h *cluster) metadataTopic(t *metadata.Topic, live map[int32]bool) kmsg.MetadataResponseTopic {
	rt := kmsg.NewMetadataResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal = &t.Name, t.ID, t.Internal
	rt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		st := h.partitionState(t, i, live)
		rp := &rt.Partitions[i]
		rp.Default()
		rp.Partition = int32(i)
		rp.ErrorCode = int16(st.code)
		rp.Leader, rp.LeaderEpoch = st.leader, st.epoch
		rp.Replicas, rp.ISR, rp.OfflineReplicas = st.replicas, st.inSync, st.offline
	}
	return rt
}

// live says which brokers are there, as far as is known here, once for a whole answer.
func (h *cluster) live(image *metadata.Image) map[int32]bool {
	live := make(map[int32]bool, len(image.Brokers()))
	for _, b := range image.Brokers() {
		live[b.ID] = h.node.Present(b.ID)
	}
	return live
}

// A partitionState is what clients are told about a partition.
type partitionState struct {
	code            protocol.Code
	leader, epoch   int32 // -1: not known
	replicas        []int32
	inSync, offline []int32
}

func (h *cluster) partitionState(t *metadata.Topic, index int, live map[int32]bool) partitionState {
	id := metadata.PartitionID{Topic: t.ID, Index: int32(index)}
	st := partitionState{leader: -1, epoch: -1, replicas: t.Partitions[index].Replicas}
	leader, epoch, ok := h.node.Leader(id)
	if ok {
		st.epoch = epoch
	}
	if ok && live[leader] {
		st.leader = leader
	} else {
		st.code = protocol.LeaderNotAvailable
	}
	down := false // here: the disk failed, the data is damaged, or something ran out
	if p, err := h.node.Partition(id); err == nil {
		down = p.Down() != nil
	}
	for _, r := range st.replicas {
		if !live[r] || down && r == h.node.ID() {
			st.offline = append(st.offline, r)
		}
	}
	st.inSync = h.node.InSync(id)
	return st
}

// controller names a living broker for what clients believe must be asked of
// the controller. A broker that is cut off names another: it could do nothing of
// that itself, and a client that took it for the controller would go on asking it.
func (h *cluster) controller() int32 {
	if id, ok := h.node.Controller(); ok && h.node.Present(id) {
		if _, registered := h.node.Image().Broker(id); registered {
			return id
		}
	}
	if h.node.Isolated() {
		for _, b := range h.node.Image().Brokers() {
			if b.ID != h.node.ID() {
				return b.ID
			}
		}
	}
	return h.node.ID()
}

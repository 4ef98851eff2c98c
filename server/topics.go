package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// A topics answers what changes topics: creates, grows and deletes them, and deletes
// their records.
type topics struct{ *broker }

// changeTimeout bounds a change of metadata for which the client set no limit.
const changeTimeout = 30 * time.Second

// maxLeaderWait bounds how long CreateTopics waits for the leaders of what it
// has created; electing them takes some 10 ms each under load.
const maxLeaderWait = 5 * time.Second

// maxCreate bounds the partitions that one CreateTopics or CreatePartitions may
// make, as Kafka's controller does (MAX_PARTITIONS_PER_BATCH).
const maxCreate = 10_000

const (
	errTooManyPartitions = sentence("Excessively large number of partitions per request: at most 10,000.")
	errUnknownTopic      = sentence("This server does not host this topic-partition.")
	errDuplicateTopic    = sentence("Duplicate topic name.")
	errReservedName      = sentence("The name is reserved for a topic of the cluster itself.")
	errFixedPartitions   = sentence("The number of partitions of a topic of the cluster itself cannot be changed: it says which of them holds what.")
	errMetadataTopic     = sentence("Creation of internal topic " + metadataTopic + " is prohibited.")
)

// together calls do for 0 to n-1, several at once, and returns when all have
// returned. Changes of metadata wait for a quorum, which then writes them
// together. The goroutines are called "change"; a panic becomes the caller's.
func together(n int, do func(i int)) {
	const most = 16
	if n == 1 {
		do(0)
		return
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var panicked any
	next := 0
	for range min(n, most) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer func() {
				if r := recover(); r != nil {
					mu.Lock()
					panicked = fmt.Sprintf("%v\n%s", r, stack())
					mu.Unlock()
				}
			}()
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= n || panicked != nil
				mu.Unlock()
				if stop {
					return
				}
				do(i)
			}
		}()
	}
	wg.Wait()
	if panicked != nil {
		panic(panicked)
	}
}

// CreateTopics, versions 2–7.
//
//   - Each topic is created or refused by itself; a name given twice is refused.
//   - -1 partitions or replicas mean the broker's default (KIP-464); with an
//     assignment both must be -1.
//   - More than 10,000 partitions in one request are POLICY_VIOLATION.
//   - It returns when the topic's partitions have leaders, or after half the
//     timeout, five seconds at most: Kafka does not wait for them at all, and a
//     client has no more patience than what it says. A topic that is there by
//     then is no error.
//   - The cluster's own topics may be created by hand, as migrations do, all but
//     __cluster_metadata; what is not given for them is what the cluster would give.
//   - Two replicas are created with a warning in the log: when either is down,
//     the other is no majority.
//   - Validate-only says what would be created.
//   - Who may create a topic and not see its settings is not told these, nor its
//     partitions and replicas.
//
// v5 adds the resulting partitions, replication and settings (KIP-525) and
// tagged fields, v7 the topic's id.
func (h *topics) createTopics(c *call, req *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsResponse {
	resp := kmsg.NewPtrCreateTopicsResponse()
	ctx, cancel := context.WithTimeout(c.ctx, clamp(req.TimeoutMillis))
	defer cancel()

	named := map[string]int{}
	total := 0
	for i := range req.Topics {
		c.step()
		rt := &req.Topics[i]
		named[rt.Topic]++
		total += max(len(rt.ReplicaAssignment), int(min(rt.NumPartitions, maxCreate+1)), 1)
	}
	var todo []int // of req.Topics, into resp.Topics of the same place
	resp.Topics = make([]kmsg.CreateTopicsResponseTopic, 0, len(named))
	for i := range req.Topics {
		c.step()
		rt := &req.Topics[i]
		st := kmsg.NewCreateTopicsResponseTopic()
		st.Topic = rt.Topic
		st.NumPartitions, st.ReplicationFactor = -1, -1
		var err error
		switch n := named[rt.Topic]; {
		case n == 0:
			continue // answered with the first of the name
		case n > 1:
			st.ErrorCode, err = int16(protocol.InvalidRequest), errDuplicateTopic
			named[rt.Topic] = 0
		case rt.Topic != metadataTopic && !c.may(acl.Topic, rt.Topic):
			st.ErrorCode, err = int16(protocol.TopicAuthorizationFailed), errTopicDenied
		case total > maxCreate:
			st.ErrorCode, err = int16(protocol.PolicyViolation), errTooManyPartitions
		case rt.Topic == metadataTopic:
			st.ErrorCode, err = int16(protocol.InvalidRequest), errMetadataTopic
		case !req.ValidateOnly && !c.mutate(h.partitionsOf(rt), 6):
			st.ErrorCode, err = int16(protocol.ThrottlingQuotaExceeded), errMutations
		default:
			todo = append(todo, i)
		}
		st.ErrorMessage = message(err)
		resp.Topics = append(resp.Topics, st)
	}
	at := make(map[string]*kmsg.CreateTopicsResponseTopic, len(todo))
	for i := range resp.Topics {
		c.step()
		at[resp.Topics[i].Topic] = &resp.Topics[i]
	}
	together(len(todo), func(i int) {
		rt := &req.Topics[todo[i]]
		h.createTopic(ctx, c, req, rt, at[rt.Topic])
	})
	return resp
}

// partitionsOf is how many partitions a topic is to get.
func (h *topics) partitionsOf(rt *kmsg.CreateTopicsRequestTopic) int {
	switch {
	case len(rt.ReplicaAssignment) > 0:
		return len(rt.ReplicaAssignment)
	case rt.NumPartitions > 0:
		return int(rt.NumPartitions)
	}
	return int(h.settings().broker.Topics.Partitions)
}

func (h *topics) createTopic(ctx context.Context, cl *call, req *kmsg.CreateTopicsRequest, rt *kmsg.CreateTopicsRequestTopic, st *kmsg.CreateTopicsResponseTopic) {
	refuse := func(c protocol.Code, err error) {
		st.ErrorCode, st.ErrorMessage = int16(c), message(err)
	}
	want, c, err := topicRequest(rt)
	if c != protocol.None {
		refuse(c, err)
		return
	}
	want.ValidateOnly = req.ValidateOnly
	want.LeaderWait = min(clamp(req.TimeoutMillis)/2, maxLeaderWait)
	if own, ok := h.ownTopic(rt.Topic); ok {
		want = completed(want, own)
	}
	topic, err := h.node.CreateTopic(ctx, want)
	if errors.Is(err, metadata.ErrTopicCollision) && cl.guarded() {
		// Whose name it is like is not told to who may not know of it, nor to who may.
		refuse(adminCodeOf(err), sentencef("Topic '%s' collides with an existing topic: '.' and '_' are one in the names of metrics.", rt.Topic))
		return
	}
	if err != nil {
		refuse(adminCodeOf(err), err)
		return
	}
	if len(topic.Partitions[0].Replicas) == 2 && !req.ValidateOnly {
		h.logger.Warn("a topic of two replicas stands still while either of them is down: both are needed for a majority; three replicas bear the loss of one",
			"topic", topic.Name)
	}
	if !req.ValidateOnly {
		st.TopicID = topic.ID
	}
	if cl.Version < 5 {
		return
	}
	if cl.hidden(acl.DescribeConfigs, acl.Topic, rt.Topic) {
		st.ConfigErrorCode = int16(protocol.TopicAuthorizationFailed)
		return
	}
	st.NumPartitions = int32(len(topic.Partitions))
	if len(topic.Partitions) > 0 {
		st.ReplicationFactor = int16(len(topic.Partitions[0].Replicas))
	}
	for _, v := range h.settings().layers.DescribeTopic(topic.Config) {
		rc := kmsg.NewCreateTopicsResponseTopicConfig()
		rc.Name, rc.Source, rc.IsSensitive = v.Name, int8(v.Source), v.Sensitive()
		if !v.Null && !v.Sensitive() {
			rc.Value = &v.Value
		}
		st.Configs = append(st.Configs, rc)
	}
}

// topicRequest translates what a client asks for, and refuses what the layers
// below could not be asked.
func topicRequest(rt *kmsg.CreateTopicsRequestTopic) (replication.TopicRequest, protocol.Code, error) {
	want := replication.TopicRequest{Name: rt.Topic, Partitions: rt.NumPartitions, Replicas: rt.ReplicationFactor}
	if len(rt.Configs) > 0 {
		want.Config = make(map[string]string, len(rt.Configs))
	}
	for _, rc := range rt.Configs {
		if rc.Value == nil {
			return want, protocol.InvalidConfig, sentencef("Null value not supported for topic configs: %s", rc.Name)
		}
		want.Config[rc.Name] = *rc.Value
	}
	if len(rt.ReplicaAssignment) == 0 {
		switch {
		case rt.NumPartitions == 0 || rt.NumPartitions < -1:
			return want, protocol.InvalidPartitions, sentence("Number of partitions was set to an invalid non-positive value.")
		case rt.ReplicationFactor == 0 || rt.ReplicationFactor < -1:
			return want, protocol.InvalidReplicationFactor, sentence("Replication factor was set to an invalid non-positive value.")
		}
		return want, protocol.None, nil
	}
	switch {
	case rt.NumPartitions != -1:
		return want, protocol.InvalidRequest, sentence("A manual partition assignment was specified, but numPartitions was not set to -1.")
	case rt.ReplicationFactor != -1:
		return want, protocol.InvalidRequest, sentence("A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	want.Assignment = make([][]int32, len(rt.ReplicaAssignment))
	for _, ra := range rt.ReplicaAssignment {
		if ra.Partition < 0 || int(ra.Partition) >= len(want.Assignment) || want.Assignment[ra.Partition] != nil {
			return want, protocol.InvalidReplicaAssignment, sentence("partitions should be a consecutive 0-based integer sequence")
		}
		want.Assignment[ra.Partition] = append([]int32{}, ra.Replicas...)
	}
	return want, protocol.None, nil
}

// DeleteTopics, versions 1–6.
//
//   - delete.topic.enable=false refuses all of them.
//   - The cluster's own topics cannot be deleted.
//   - By name, or from version 6 on by id (KIP-516), one of the two.
//   - A topic named more than once is refused and stays: once by itself, and
//     where its id stands beside its name.
//   - Who may not know of a topic is answered the same whether it is there or not, and
//     learns no name by an id. Answers stand in the order of the request, which tells
//     nothing either.
//
// v4 adds tagged fields, v5 an error message.
func (h *topics) deleteTopics(c *call, req *kmsg.DeleteTopicsRequest) *kmsg.DeleteTopicsResponse {
	resp := kmsg.NewPtrDeleteTopicsResponse()
	ctx, cancel := context.WithTimeout(c.ctx, clamp(req.TimeoutMillis))
	defer cancel()
	asked := slices.Grow(req.Topics, len(req.TopicNames))
	for _, n := range req.TopicNames {
		c.step()
		rt := kmsg.NewDeleteTopicsRequestTopic()
		rt.Topic = &n
		asked = append(asked, rt)
	}
	image := h.node.Image()
	enabled := h.settings().broker.Topics.MayDelete
	names, ids := map[string]int{}, map[metadata.TopicID]int{}
	for i := range asked {
		c.step()
		switch rt := &asked[i]; {
		case rt.Topic == nil:
			ids[rt.TopicID]++
		case metadata.TopicID(rt.TopicID).IsZero():
			names[*rt.Topic]++
		}
	}
	var todo []int
	var gone []metadata.TopicID
	resp.Topics = make([]kmsg.DeleteTopicsResponseTopic, 0, len(names)+len(ids))
	for i := range asked {
		c.step()
		rt := &asked[i]
		st := kmsg.NewDeleteTopicsResponseTopic()
		st.Topic, st.TopicID = rt.Topic, rt.TopicID
		var name string
		if rt.Topic != nil {
			name = *rt.Topic
		}
		named, hasID := rt.Topic != nil, !metadata.TopicID(rt.TopicID).IsZero()
		topic, code := findTopic(image, name, rt.TopicID, !named)
		if !named && topic != nil {
			name = topic.Name
		}
		var err error
		switch {
		case !enabled && c.Version < 3:
			code, err = protocol.InvalidRequest, sentence("Topic deletion is disabled.")
		case !enabled:
			code, err = protocol.TopicDeletionDisabled, sentence("Topic deletion is disabled.")
		case named && hasID:
			code, err = protocol.InvalidRequest, sentence("You may not specify both topic name and topic id.")
		case !named && !hasID:
			code, err = protocol.InvalidRequest, sentence("Neither topic name nor id were specified.")
		case named && names[name] > 1:
			code, err = protocol.InvalidRequest, errDuplicateTopic
			names[name] = 0
		case named && names[name] == 0, !named && ids[rt.TopicID] == 0:
			continue // answered with the first of the name
		case !named && ids[rt.TopicID] > 1:
			code, err = protocol.InvalidRequest, sentence("Duplicate topic id.")
			ids[rt.TopicID] = 0
		case code == protocol.UnknownTopicID:
			err = sentence("This server does not host this topic ID.")
		case c.conceals(name):
			// Whether it is there, or what its name is, is not told.
			code, err = protocol.TopicAuthorizationFailed, errTopicDenied
		case code == protocol.UnknownTopicOrPartition:
			err = errUnknownTopic
		case !c.may(acl.Topic, name):
			code, err = protocol.TopicAuthorizationFailed, errTopicDenied
			st.Topic = &name
		case named && ids[topic.ID] > 0:
			code, err = protocol.InvalidRequest, sentence("The provided topic name maps to an ID that was already supplied.")
		case !named && names[topic.Name] > 0:
			continue // answered with the name
		case topic.Internal:
			code, err = protocol.InvalidRequest, errReservedName
		case !c.mutate(len(topic.Partitions), 5):
			code, err = protocol.ThrottlingQuotaExceeded, errMutations
		default:
			if !named {
				st.Topic = &topic.Name
			}
			st.TopicID = topic.ID
			todo = append(todo, len(resp.Topics))
			gone = append(gone, topic.ID)
		}
		st.ErrorCode, st.ErrorMessage = int16(code), message(err)
		resp.Topics = append(resp.Topics, st)
	}
	together(len(todo), func(i int) {
		err := h.node.Change(ctx, metadata.DeleteTopic{Topic: gone[i]})
		st := &resp.Topics[todo[i]]
		st.ErrorCode, st.ErrorMessage = int16(adminCodeOf(err)), message(err)
	})
	return resp
}

// CreatePartitions, versions 0–3.
//
//   - Every topic is answered; a name given twice is refused.
//   - The count is the total afterwards and must grow.
//   - Topics of the cluster itself keep theirs: a group's offsets lie in the partition
//     that its name and the count tell. Kafka takes it, and forgets the groups.
//   - With an assignment there is one list of replicas for each new partition.
//
// v2 adds tagged fields.
func (h *topics) createPartitions(c *call, req *kmsg.CreatePartitionsRequest) *kmsg.CreatePartitionsResponse {
	resp := kmsg.NewPtrCreatePartitionsResponse()
	ctx, cancel := context.WithTimeout(c.ctx, clamp(req.TimeoutMillis))
	defer cancel()
	image := h.node.Image()
	named := map[string]int{}
	total := 0
	for i := range req.Topics {
		c.step()
		rt := &req.Topics[i]
		named[rt.Topic]++
		if t, ok := image.Topic(rt.Topic); ok {
			total += max(int(min(rt.Count, 10*maxCreate))-len(t.Partitions), 0)
		}
	}
	var todo, place []int
	resp.Topics = make([]kmsg.CreatePartitionsResponseTopic, 0, len(named))
	for i := range req.Topics {
		c.step()
		rt := &req.Topics[i]
		st := kmsg.NewCreatePartitionsResponseTopic()
		st.Topic = rt.Topic
		t, code := findTopic(image, rt.Topic, metadata.TopicID{}, false)
		var err error
		switch n := named[rt.Topic]; {
		case n == 0:
			continue
		case n > 1:
			code, err = protocol.InvalidRequest, errDuplicateTopic
			named[rt.Topic] = 0
		case !c.may(acl.Topic, rt.Topic):
			code, err = protocol.TopicAuthorizationFailed, errTopicDenied
		case code != protocol.None:
			err = errUnknownTopic
		case t.Internal:
			code, err = protocol.InvalidRequest, errFixedPartitions
		case int(rt.Count) == len(t.Partitions):
			code, err = protocol.InvalidPartitions, sentencef("Topic already has %d partition(s).", rt.Count)
		case int(rt.Count) < len(t.Partitions):
			code, err = protocol.InvalidPartitions, sentencef("The topic %s currently has %d partition(s); %d would not be an increase.", rt.Topic, len(t.Partitions), rt.Count)
		case total > maxCreate:
			code, err = protocol.PolicyViolation, errTooManyPartitions
		case rt.Assignment != nil && len(rt.Assignment) != int(rt.Count)-len(t.Partitions):
			code, err = protocol.InvalidReplicaAssignment, sentencef("Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", int(rt.Count)-len(t.Partitions), len(rt.Assignment))
		case !req.ValidateOnly && !c.mutate(int(rt.Count)-len(t.Partitions), 3):
			code, err = protocol.ThrottlingQuotaExceeded, errMutations
		default:
			todo = append(todo, i)
			place = append(place, len(resp.Topics))
		}
		st.ErrorCode, st.ErrorMessage = int16(code), message(err)
		resp.Topics = append(resp.Topics, st)
	}
	together(len(todo), func(i int) {
		rt := &req.Topics[todo[i]]
		var assignment [][]int32
		for _, a := range rt.Assignment {
			assignment = append(assignment, a.Replicas)
		}
		err := h.node.AddPartitions(ctx, rt.Topic, rt.Count, assignment, req.ValidateOnly)
		st := &resp.Topics[place[i]]
		st.ErrorCode, st.ErrorMessage = int16(adminCodeOf(err)), message(err)
	})
	return resp
}

// DeleteRecords, versions 0–2 (KIP-107).
//
//   - Moves the log start offset of each partition, on all its replicas; -1 is
//     the high watermark. Beyond that is OFFSET_OUT_OF_RANGE.
//   - A topic that is only compacted is POLICY_VIOLATION.
//
// v2 adds tagged fields.
func (h *topics) deleteRecords(c *call, req *kmsg.DeleteRecordsRequest) *kmsg.DeleteRecordsResponse {
	resp := kmsg.NewPtrDeleteRecordsResponse()
	ctx, cancel := context.WithTimeout(c.ctx, clamp(req.TimeoutMillis))
	defer cancel()
	set := h.settings()
	type one struct {
		topic   *metadata.Topic
		offset  int64
		answer  *kmsg.DeleteRecordsResponseTopicPartition
		deleted int64
	}
	var todo []one
	resp.Topics = make([]kmsg.DeleteRecordsResponseTopic, len(req.Topics))
	for i := range req.Topics {
		rt, st := &req.Topics[i], &resp.Topics[i]
		st.Default()
		st.Topic = rt.Topic
		topic, code := c.findTopic(set.image, rt.Topic)
		if code == protocol.None {
			if ts := set.topic(topic); topic.Internal {
				code = protocol.InvalidTopic
			} else if ts.CleanupCompact && !ts.CleanupDelete {
				code = protocol.PolicyViolation
			}
		}
		st.Partitions = make([]kmsg.DeleteRecordsResponseTopicPartition, len(rt.Partitions))
		for j := range rt.Partitions {
			c.step()
			sp := &st.Partitions[j]
			sp.Default()
			sp.Partition, sp.LowWatermark, sp.ErrorCode = rt.Partitions[j].Partition, -1, int16(code)
			if code == protocol.None {
				todo = append(todo, one{topic: topic, offset: rt.Partitions[j].Offset, answer: sp})
			}
		}
	}
	together(len(todo), func(i int) {
		t := &todo[i]
		p, _, code := h.leading(t.topic, t.answer.Partition, -1)
		if code == protocol.None {
			before := p.StartOffset()
			start, err := p.Trim(ctx, t.offset)
			if code = codeOf(err); code == protocol.None {
				t.answer.LowWatermark, t.deleted = start, start-before
			}
		}
		t.answer.ErrorCode = int16(code)
	})
	for first := 0; first < len(todo); { // a line a topic, however many partitions
		topic, partitions, records := todo[first].topic, 0, int64(0)
		for ; first < len(todo) && todo[first].topic == topic; first++ {
			if todo[first].deleted > 0 {
				partitions++
				records += todo[first].deleted
			}
		}
		if records > 0 {
			h.logger.Info("records deleted by a client", "topic", topic.Name, "partitions", partitions, "records", records)
		}
	}
	return resp
}

package server

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/replication/removal"
	"millrace/security/acl"
	"millrace/server/protocol"
)

// A cluster answers what is asked of the cluster as a whole, its brokers, and where its
// topics' partitions are: in metadata.go what clients ask before all else, here what
// tools ask.
type cluster struct {
	*broker
	dataDir  string // Server.DataDir
	software string // Server.Software
}

// DescribeCluster, versions 0–2 (KIP-700).
//
//   - Asked for controllers (KIP-919), it answers MISMATCHED_ENDPOINT_TYPE: this
//     is a broker.
//   - Brokers that are not there now are fenced, and listed if asked for. Since
//     when this node has missed each of them is told in a tagged field of our own,
//     which other clients pass over.
//   - So are this node's clock and its program, for who looks for what is wrong.
//
// v1 adds the endpoint type, v2 fenced brokers (KIP-1073).
func (h *cluster) describeCluster(c *call, req *kmsg.DescribeClusterRequest) *kmsg.DescribeClusterResponse {
	resp := kmsg.NewPtrDescribeClusterResponse()
	resp.EndpointType = 1
	resp.ControllerID = -1
	if c.Version >= 1 && req.EndpointType != 1 {
		code, err := protocol.UnsupportedEndpointType, sentence("Unsupported endpoint type")
		if req.EndpointType == 2 {
			code, err = protocol.MismatchedEndpointType, sentence("The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER")
		}
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(err)
		return resp
	}
	resp.ClusterID = h.node.ClusterID()
	resp.ControllerID = h.controller()
	for _, b := range h.node.Image().Brokers() {
		live := h.node.Present(b.ID)
		if !live && !req.IncludeFencedBrokers {
			continue
		}
		e := h.address(&c.conn.origin, b)
		rb := kmsg.NewDescribeClusterResponseBroker()
		rb.NodeID, rb.Host, rb.Port, rb.Rack, rb.IsFenced = e.id, e.host, e.port, e.rack, !live
		if since := h.node.DownSince(b.ID); rb.IsFenced && !since.IsZero() {
			rb.UnknownTags.Set(DownTag, binary.BigEndian.AppendUint64(nil, uint64(since.UnixMilli())))
		}
		resp.Brokers = append(resp.Brokers, rb)
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = c.clusterOperations()
	}
	resp.UnknownTags.Set(ClockTag, binary.BigEndian.AppendUint64(nil, uint64(h.clock.Now().UnixMilli())))
	if h.software != "" {
		resp.UnknownTags.Set(SoftwareTag, []byte(h.software))
	}
	return resp
}

// DownTag is the tagged field of a broker in DescribeCluster's answers that says
// since when a broker has been missed: 8 bytes, milliseconds since 1970. Kafka's own
// tags count from 0 on.
const DownTag = 10_000

// ClockTag and SoftwareTag are tagged fields of DescribeCluster's answers: the time at the
// broker that answers, in 8 bytes, milliseconds since 1970, and Server.Software.
const (
	ClockTag    = 10_001
	SoftwareTag = 10_002
)

// DescribeLogDirs, versions 1–4.
//
//   - There is one folder. No topics is none, null is all, of the replicas here.
//   - A replica that is quarantined is a folder of its own, with its partition and
//     KAFKA_STORAGE_ERROR, which is how Kafka shows a disk that has failed.
//   - A replica's lag is what it has not yet committed.
//
// v2 adds tagged fields, v3 a top-level error, v4 the size and the space left of
// the file system (KIP-827).
func (h *cluster) describeLogDirs(c *call, req *kmsg.DescribeLogDirsRequest) *kmsg.DescribeLogDirsResponse {
	resp := kmsg.NewPtrDescribeLogDirsResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode = int16(code) // before v3 there is no place for it
		return resp
	}
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = h.dataDir
	dir.TotalBytes, dir.UsableBytes = -1, -1
	if total, usable, err := volume(h.dataDir); err == nil {
		dir.TotalBytes, dir.UsableBytes = total, usable
	}
	image := h.node.Image()
	describe := func(t *metadata.Topic, indexes []int32) {
		st := kmsg.NewDescribeLogDirsResponseDirTopic()
		st.Topic = t.Name
		for _, i := range indexes {
			p, err := h.node.Partition(metadata.PartitionID{Topic: t.ID, Index: i})
			if err != nil {
				continue
			}
			sp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			if p.Down() != nil {
				sp.Partition = i
				failed := kmsg.NewDescribeLogDirsResponseDir()
				failed.Dir, failed.ErrorCode = p.Dir(), int16(protocol.KafkaStorageError)
				failed.TotalBytes, failed.UsableBytes = -1, -1
				failed.Topics = []kmsg.DescribeLogDirsResponseDirTopic{{Topic: t.Name, Partitions: []kmsg.DescribeLogDirsResponseDirTopicPartition{sp}}}
				resp.Dirs = append(resp.Dirs, failed)
				continue
			}
			sp.Partition, sp.Size = i, p.Size()
			sp.OffsetLag = max(p.EndOffset()-p.HighWatermark(), 0)
			st.Partitions = append(st.Partitions, sp)
		}
		if len(st.Partitions) > 0 {
			dir.Topics = append(dir.Topics, st)
		}
	}
	if req.Topics == nil {
		for _, t := range image.Topics() {
			all := make([]int32, len(t.Partitions))
			for i := range all {
				all[i] = int32(i)
			}
			describe(t, all)
		}
	}
	asked := map[*metadata.Topic][]int32{}
	for i := range req.Topics {
		c.step()
		if t, ok := image.Topic(req.Topics[i].Topic); ok {
			asked[t] = append(asked[t], req.Topics[i].Partitions...)
		}
	}
	for t, indexes := range asked {
		slices.Sort(indexes)
		describe(t, slices.Compact(indexes))
	}
	resp.Dirs = slices.Insert(resp.Dirs, 0, dir)
	return resp
}

// DescribeTopicPartitions, version 0 (KIP-966).
//
//   - Topics by name; an empty list is all of them. Unknown ones are answered
//     where they would stand.
//   - At most ResponsePartitionLimit partitions, 2,000 at the very most; then a
//     cursor says where to go on, and is where the next request begins. If
//     topics are named, the cursor's is one of them, else all are INVALID_REQUEST.
//   - What may be done with a topic is always told.
//   - There are no eligible leader replicas: Raft elects.
func (h *cluster) describeTopicPartitions(c *call, req *kmsg.DescribeTopicPartitionsRequest) *kmsg.DescribeTopicPartitionsResponse {
	resp := kmsg.NewPtrDescribeTopicPartitionsResponse()
	image := h.node.Image()
	names := make([]string, 0, len(req.Topics))
	for _, t := range req.Topics {
		c.step()
		names = append(names, t.Topic)
	}
	if len(req.Topics) == 0 {
		for _, t := range image.Topics() {
			c.step()
			if c.sees(acl.Topic, t.Name) {
				names = append(names, t.Name)
			}
		}
	}
	slices.SortFunc(names, func(a, b string) int { c.step(); return strings.Compare(a, b) })
	names = slices.Compact(names)
	first := int32(0)
	if req.Cursor != nil {
		at, _ := slices.BinarySearch(names, req.Cursor.Topic)
		names = names[at:]
		if len(names) > 0 && names[0] == req.Cursor.Topic {
			first = max(req.Cursor.Partition, 0)
		}
	}
	left := int(min(max(req.ResponsePartitionLimit, 1), 2000))
	resp.Topics = make([]kmsg.DescribeTopicPartitionsResponseTopic, 0, max(len(req.Topics), min(left, len(names))))
	if req.Cursor != nil && len(req.Topics) > 0 && (len(names) == 0 || names[0] != req.Cursor.Topic) {
		for i := range req.Topics { // there is no error for the whole answer
			c.step()
			st := kmsg.NewDescribeTopicPartitionsResponseTopic()
			st.Topic, st.ErrorCode = &req.Topics[i].Topic, int16(protocol.InvalidRequest)
			resp.Topics = append(resp.Topics, st)
		}
		return resp
	}
	live := h.live(image)
	for _, name := range names {
		c.step()
		if left == 0 {
			cursor := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
			cursor.Topic, cursor.Partition = name, first
			resp.NextCursor = &cursor
			break
		}
		st := kmsg.NewDescribeTopicPartitionsResponseTopic()
		st.Topic = &name
		if len(req.Topics) > 0 && !c.may(acl.Topic, name) {
			st.ErrorCode = int16(protocol.TopicAuthorizationFailed)
			resp.Topics = append(resp.Topics, st)
			first = 0
			continue
		}
		st.AuthorizedOperations = c.operations(acl.Topic, name)
		t, code := findTopic(image, name, metadata.TopicID{}, false)
		if code != protocol.None {
			if metadata.ValidateTopicName(name) != nil {
				code = protocol.InvalidTopic
			}
			st.ErrorCode = int16(code)
			resp.Topics = append(resp.Topics, st)
			first = 0
			continue
		}
		st.TopicID, st.IsInternal = t.ID, t.Internal
		i := int(first)
		for ; i < len(t.Partitions) && left > 0; i++ {
			ps := h.partitionState(t, i, live)
			sp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
			sp.Partition, sp.ErrorCode = int32(i), int16(ps.code)
			sp.LeaderID, sp.LeaderEpoch = ps.leader, ps.epoch
			sp.Replicas, sp.ISR, sp.OfflineReplicas = ps.replicas, ps.inSync, ps.offline
			// Null is allowed, and a null pointer in Java's client.
			sp.EligibleLeaderReplicas, sp.LastKnownELR = []int32{}, []int32{}
			st.Partitions = append(st.Partitions, sp)
			left--
		}
		first = 0
		resp.Topics = append(resp.Topics, st)
		if i < len(t.Partitions) {
			cursor := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
			cursor.Topic, cursor.Partition = name, int32(i)
			resp.NextCursor = &cursor
			break
		}
	}
	return resp
}

// ElectLeaders, versions 0–2 (KIP-183, KIP-460).
//
//   - Leaders are elected, and go back to their preferred replica, by themselves:
//     ELECTION_NOT_NEEDED wherever one leads that may. With null for the topics
//     such partitions are left out, as Kafka leaves them out.
//   - A preferred replica that does not lead is PREFERRED_LEADER_NOT_AVAILABLE:
//     it is away, or has not caught up; then nothing here could make it lead.
//   - Unclean, a partition without a leader is ELIGIBLE_LEADERS_NOT_AVAILABLE:
//     a replica that lacks acknowledged records never leads.
//
// v1 adds the type of election, v2 tagged fields.
func (h *cluster) electLeaders(c *call, req *kmsg.ElectLeadersRequest) *kmsg.ElectLeadersResponse {
	resp := kmsg.NewPtrElectLeadersResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode = int16(code)
		for i := range req.Topics { // v0 has no other place for it
			st := kmsg.NewElectLeadersResponseTopic()
			st.Topic = req.Topics[i].Topic
			for _, index := range req.Topics[i].Partitions {
				c.step()
				sp := kmsg.NewElectLeadersResponseTopicPartition()
				sp.Partition, sp.ErrorCode = index, int16(code)
				st.Partitions = append(st.Partitions, sp)
			}
			resp.Topics = append(resp.Topics, st)
		}
		return resp
	}
	if c.Version >= 1 && req.ElectionType != 0 && req.ElectionType != 1 {
		resp.ErrorCode = int16(protocol.InvalidRequest)
		return resp
	}
	unclean := c.Version >= 1 && req.ElectionType == 1
	image := h.node.Image()
	elect := func(t *metadata.Topic, index int32) (protocol.Code, error) {
		if t == nil || index < 0 || int(index) >= len(t.Partitions) {
			return protocol.UnknownTopicOrPartition, nil // without a text: a request may name half a million
		}
		leader, _, ok := h.node.Leader(metadata.PartitionID{Topic: t.ID, Index: index})
		switch preferred := t.Partitions[index].Replicas[0]; {
		case unclean && ok, !unclean && ok && leader == preferred:
			return protocol.ElectionNotNeeded, sentence("Leader election not needed for topic partition.")
		case unclean:
			return protocol.EligibleNotAvailable, sentence("No replica that has all acknowledged records is there; one that lacks some is never elected.")
		default:
			return protocol.PreferredNotAvailable, sentencef("Broker %d is not there or has not caught up; it leads again by itself when it has.", preferred)
		}
	}
	one := func(st *kmsg.ElectLeadersResponseTopic, index int32, code protocol.Code, err error) {
		sp := kmsg.NewElectLeadersResponseTopicPartition()
		sp.Partition, sp.ErrorCode, sp.ErrorMessage = index, int16(code), message(err)
		st.Partitions = append(st.Partitions, sp)
	}
	if req.Topics == nil {
		for _, t := range image.Topics() {
			st := kmsg.NewElectLeadersResponseTopic()
			st.Topic = t.Name
			for i := range t.Partitions {
				if code, err := elect(t, int32(i)); code != protocol.ElectionNotNeeded {
					one(&st, int32(i), code, err)
				}
			}
			if len(st.Partitions) > 0 {
				resp.Topics = append(resp.Topics, st)
			}
		}
		return resp
	}
	resp.Topics = make([]kmsg.ElectLeadersResponseTopic, 0, len(req.Topics))
	for i := range req.Topics {
		rt := &req.Topics[i]
		t, _ := image.Topic(rt.Topic)
		st := kmsg.NewElectLeadersResponseTopic()
		st.Topic, st.Partitions = rt.Topic, make([]kmsg.ElectLeadersResponseTopicPartition, 0, len(rt.Partitions))
		for _, index := range rt.Partitions {
			c.step()
			code, err := elect(t, index)
			one(&st, index, code, err)
		}
		resp.Topics = append(resp.Topics, st)
	}
	return resp
}

// DescribeQuorum, versions 0–2 (KIP-595, KIP-836).
//
//   - The controller group, under the name of Kafka's topic for it, as this node
//     sees it: of other members it knows that they are there, and not how far they
//     have come. Kafka's brokers ask their controller.
//   - Without a leader it is LEADER_NOT_AVAILABLE, and the leader -1.
//
// v1 adds times, v2 error messages, folders and addresses (KIP-853).
func (h *cluster) describeQuorum(c *call, req *kmsg.DescribeQuorumRequest) *kmsg.DescribeQuorumResponse {
	resp := kmsg.NewPtrDescribeQuorumResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(errClusterDenied)
		return resp
	}
	q := h.node.Quorum()
	members := func(list []replication.QuorumMember) []kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
		states := make([]kmsg.DescribeQuorumResponseTopicPartitionReplicaState, len(list))
		for i, m := range list {
			states[i].Default()
			states[i].ReplicaID, states[i].LogEndOffset = m.Node, m.Last
		}
		return states
	}
	resp.Topics = make([]kmsg.DescribeQuorumResponseTopic, 0, len(req.Topics))
	for i := range req.Topics {
		rt := &req.Topics[i]
		st := kmsg.NewDescribeQuorumResponseTopic()
		st.Topic, st.Partitions = rt.Topic, make([]kmsg.DescribeQuorumResponseTopicPartition, 0, len(rt.Partitions))
		for _, rp := range rt.Partitions {
			c.step()
			sp := kmsg.NewDescribeQuorumResponseTopicPartition()
			sp.Partition, sp.LeaderID, sp.LeaderEpoch, sp.HighWatermark = rp.Partition, -1, -1, -1
			switch {
			case rt.Topic != metadataTopic || rp.Partition != 0:
				sp.ErrorCode = int16(protocol.UnknownTopicOrPartition) // without a text, like ElectLeaders
			default:
				sp.LeaderID, sp.LeaderEpoch, sp.HighWatermark = q.Leader, int32(q.Term), int64(q.Committed)
				sp.CurrentVoters, sp.Observers = members(q.Voters), members(q.Learners)
				if q.Leader < 0 {
					sp.ErrorCode, sp.ErrorMessage = int16(protocol.LeaderNotAvailable), message(sentence("The controller has no leader that this broker knows of."))
				}
			}
			st.Partitions = append(st.Partitions, sp)
		}
		resp.Topics = append(resp.Topics, st)
	}
	for _, m := range q.Voters {
		b, ok := h.node.Image().Broker(m.Node)
		if !ok {
			continue
		}
		e := h.address(&c.conn.origin, b)
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		l.Name, l.Host, l.Port = "PLAINTEXT", e.host, uint16(e.port)
		if c.conn.origin.listener != nil {
			l.Name = c.conn.origin.listener.Name
		}
		n := kmsg.NewDescribeQuorumResponseNode()
		n.NodeID, n.Listeners = m.Node, []kmsg.DescribeQuorumResponseNodeListener{l}
		resp.Nodes = append(resp.Nodes, n)
	}
	return resp
}

// UnregisterBroker, version 0 (KIP-500).
//
//   - The cluster forgets a broker. One that holds replicas is INVALID_REQUEST,
//     unlike in Kafka: its partitions would count on it for ever. RemovalTag asks for
//     its replicas to be moved as well.
//   - One that is there is INVALID_REQUEST as well: stop it first. Kafka fences it.
func (h *cluster) unregisterBroker(c *call, req *kmsg.UnregisterBrokerRequest) *kmsg.UnregisterBrokerResponse {
	resp := kmsg.NewPtrUnregisterBrokerResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(errClusterDenied)
		return resp
	}
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	id, how, asked := removalAsked(req)
	_, registered := h.node.Image().Broker(req.BrokerID)
	var err error
	switch {
	case asked:
		var means removal.Meaning
		if how == RemovalLeft {
			means.Left = removal.Leaving(replication.Remaining{Node: h.node}, id)
		} else {
			means, err = removal.Remove(ctx, replication.Remaining{Node: h.node}, id, how == RemovalForeseen)
		}
		if p, failed := json.Marshal(means); failed == nil {
			resp.UnknownTags.Set(RemovalTag, p)
		}
	case registered && h.node.Live(req.BrokerID):
		id, err = req.BrokerID, removal.ErrAlive
	default:
		err = h.node.Change(ctx, metadata.UnregisterBroker{ID: req.BrokerID})
	}
	resp.ErrorCode, resp.ErrorMessage = int16(adminCodeOf(err)), message(err)
	if errors.Is(err, removal.ErrAlive) {
		err = sentencef("Broker %d is there; stop it before the cluster forgets it.", id)
		resp.ErrorCode, resp.ErrorMessage = int16(protocol.InvalidRequest), message(err)
	}
	return resp
}

// RemovalTag is a tagged field of UnregisterBroker. In a request it is which broker is to
// be removed with its replicas, 4 bytes, and how, one; BrokerID is -1 then, so that who
// does not know the field removes nobody. In the answer it is what that means, as JSON: see
// removal.Meaning.
const RemovalTag = 10_000

// How a broker is removed by RemovalTag: it is only said what that would mean; or done; or
// said which groups it has still to leave that the broker leads which is asked.
const (
	RemovalForeseen = 0
	RemovalDone     = 1
	RemovalLeft     = 2
)

func removalAsked(req *kmsg.UnregisterBrokerRequest) (id int32, how byte, asked bool) {
	req.UnknownTags.Each(func(key uint32, p []byte) {
		if key == RemovalTag && len(p) == 5 && req.BrokerID == -1 && p[4] <= RemovalLeft {
			id, how, asked = int32(binary.BigEndian.Uint32(p)), p[4], true
		}
	})
	return id, how, asked
}

// ListPartitionReassignments, version 0 (KIP-455).
//
//   - Always empty: a change of replicas is committed at once, and the groups
//     follow by themselves.
func (h *cluster) listPartitionReassignments(c *call, req *kmsg.ListPartitionReassignmentsRequest) *kmsg.ListPartitionReassignmentsResponse {
	resp := kmsg.NewPtrListPartitionReassignmentsResponse()
	if code := c.admit(); code != protocol.None {
		resp.ErrorCode, resp.ErrorMessage = int16(code), message(errClusterDenied)
	}
	return resp
}

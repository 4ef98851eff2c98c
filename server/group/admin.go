package group

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// Describe is DescribeGroups, versions 0–6. A group that is not there is dead, the one
// without a name too; from v6 it also gets GROUP_ID_NOT_FOUND (KIP-1043), as does one
// of the other type. One that is named twice is answered once. Who asks about many at
// once bounds the answer: what is in it is the groups' own memory, until it is encoded.
func (c *Coordinator) Describe(_ context.Context, req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := kmsg.NewPtrDescribeGroupsResponse()
	resp.Version = req.Version
	for _, id := range once(req.Groups) {
		resp.Groups = append(resp.Groups, c.describe(req.Version, id))
	}
	return resp
}

func (c *Coordinator) describe(version int16, id string) kmsg.DescribeGroupsResponseGroup {
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.Group = id
	s, code := c.shardOf(id)
	if code != protocol.None {
		d.ErrorCode = int16(code)
		return d
	}
	defer s.Unlock()
	g := s.groupLocked(id)
	var cg *classicGroup
	if g != nil {
		cg, _ = g.members.(*classicGroup)
	}
	if cg == nil {
		d.State = "Dead"
		if version >= 6 {
			why := "Group " + id + " not found."
			if g != nil {
				why = "Group " + id + " is not a classic group."
			}
			d.ErrorCode, d.ErrorMessage = int16(protocol.GroupIDNotFound), &why
		}
		return d
	}
	d.State, d.ProtocolType = cg.state(), cg.kindOf
	if cg.phase == stable {
		d.Protocol = cg.protocol
	}
	for _, m := range cg.inOrder() {
		dm := kmsg.NewDescribeGroupsResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.ClientID, dm.ClientHost = m.id, m.instanceID, m.client.ID, m.client.Host
		if cg.phase == stable {
			dm.ProtocolMetadata, dm.MemberAssignment = m.metadata(cg.protocol), m.assignment
		}
		d.Members = append(d.Members, dm)
	}
	return d
}

// ConsumerDescribe is ConsumerGroupDescribe, versions 0–1. Each group is answered
// on its own; one that is not there, or not of this type, gets GROUP_ID_NOT_FOUND.
//
// v1 adds the type of members: 0 classic, 1 consumer.
func (c *Coordinator) ConsumerDescribe(_ context.Context, req *kmsg.ConsumerGroupDescribeRequest) *kmsg.ConsumerGroupDescribeResponse {
	resp := kmsg.NewPtrConsumerGroupDescribeResponse()
	resp.Version = req.Version
	for _, id := range once(req.Groups) {
		resp.Groups = append(resp.Groups, c.consumerDescribe(id))
	}
	return resp
}

func (c *Coordinator) consumerDescribe(id string) kmsg.ConsumerGroupDescribeResponseGroup {
	d := kmsg.NewConsumerGroupDescribeResponseGroup()
	d.Group = id
	if id == "" {
		d.ErrorCode = int16(protocol.InvalidGroupID)
		return d
	}
	s, code := c.shardOf(id)
	if code != protocol.None {
		d.ErrorCode = int16(code)
		return d
	}
	defer s.Unlock()
	var cg *consumerGroup
	if g := s.groupLocked(id); g != nil {
		cg, _ = g.members.(*consumerGroup)
	}
	if cg == nil {
		why := "Group " + id + " not found."
		if s.groupLocked(id) != nil {
			why = "Group " + id + " is not a consumer group."
		}
		d.ErrorCode, d.ErrorMessage = int16(protocol.GroupIDNotFound), &why
		return d
	}
	d.State, d.Epoch, d.AssignmentEpoch, d.AssignorName = cg.state(), cg.epoch, cg.targetEpoch, cg.preferred(&cg.consumerState)
	for memberID, m := range cg.members {
		dm := kmsg.NewConsumerGroupDescribeResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.RackID, dm.MemberEpoch = memberID, m.instanceID, m.rackID, m.epoch
		dm.ClientID, dm.ClientHost, dm.SubscribedTopics, dm.SubscribedTopicRegex = m.client.ID, m.client.Host, m.topics, m.regex
		dm.Assignment.TopicPartitions = cg.named(m.assigned)
		dm.TargetAssignment.TopicPartitions = cg.named(cg.targets[memberID])
		dm.MemberType = 1
		if m.classic != nil {
			dm.MemberType = 0
		}
		d.Members = append(d.Members, dm)
	}
	slices.SortFunc(d.Members, func(a, b kmsg.ConsumerGroupDescribeResponseGroupMember) int {
		return strings.Compare(a.MemberID, b.MemberID)
	})
	return d
}

// named is an assignment as it is described. Deleted topics have no name.
func (c *consumerGroup) named(a assignment) (out []kmsg.AssignmentTopicPartition) {
	for _, topic := range a.topics() {
		if c.shard.c.cfg.Topics == nil {
			break
		}
		if name, _, ok := c.shard.c.cfg.Topics.TopicByID(topic); ok {
			out = append(out, kmsg.AssignmentTopicPartition{TopicID: topic, Topic: name, Partitions: a[topic]})
		}
	}
	return out
}

// List is ListGroups, versions 0–5: the groups of all partitions that are served
// here. v4 filters by state (KIP-518), v5 by type (KIP-848); letter case does not
// count. While some partition is being loaded, the answer also says so.
func (c *Coordinator) List(_ context.Context, req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	resp := kmsg.NewPtrListGroupsResponse()
	resp.Version = req.Version
	passes := func(filter []string, value string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, value) })
	}
	shards, loading := c.shards.Loaded()
	if loading {
		resp.ErrorCode = int16(protocol.CoordinatorLoadInProgress)
	}
	for _, s := range shards {
		s.each(1000, func(g *group) {
			if !passes(req.StatesFilter, g.members.state()) || !passes(req.TypesFilter, g.members.kind()) {
				return
			}
			rg := kmsg.NewListGroupsResponseGroup()
			rg.Group, rg.ProtocolType, rg.GroupState, rg.GroupType = g.id, g.members.protocolType(), g.members.state(), g.members.kind()
			resp.Groups = append(resp.Groups, rg)
		})
	}
	slices.SortFunc(resp.Groups, func(a, b kmsg.ListGroupsResponseGroup) int { return strings.Compare(a.Group, b.Group) })
	return resp
}

// Delete is DeleteGroups, versions 0–2: groups without members go, with their
// offsets. Each is answered on its own: GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP, or
// none once the journal knows.
func (c *Coordinator) Delete(ctx context.Context, req *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	resp := kmsg.NewPtrDeleteGroupsResponse()
	resp.Version = req.Version
	groups := once(req.Groups)
	codes := make([]chan protocol.Code, len(groups))
	for i, id := range groups {
		codes[i] = make(chan protocol.Code, 2) // two: it may be answered before a panic
		if s, code := c.shardOf(id); code != protocol.None {
			codes[i] <- code
		} else {
			if !s.Do(func() { s.deleteLocked(id, codes[i]) }) {
				codes[i] <- protocol.NotCoordinator
			}
		}
	}
	for i, id := range groups {
		rg := kmsg.NewDeleteGroupsResponseGroup()
		rg.Group = id
		rg.ErrorCode = int16(await(ctx, codes[i], func() protocol.Code { return protocol.CoordinatorNotAvailable }))
		resp.Groups = append(resp.Groups, rg)
	}
	return resp
}

func (s *shard) deleteLocked(id string, code chan<- protocol.Code) {
	g := s.groupLocked(id)
	switch {
	case g == nil:
		code <- protocol.GroupIDNotFound
	case g.dead:
		code <- protocol.CoordinatorNotAvailable
	case !g.members.empty():
		code <- protocol.NonEmptyGroup
	default:
		// Commits on their way stand before the tombstones, so these end them too.
		places := make(map[place]bool)
		for topic, of := range g.offsets {
			for partition := range of {
				places[place{topic, partition}] = true
			}
		}
		for p := range g.pending {
			places[p] = true
		}
		now := s.Now()
		var records []record.Record
		for p := range places {
			records = append(records, offsetTombstone(now, id, p))
		}
		s.endLocked(g, records, deletion{code})
	}
}

// A deletion is who waits for a group to be deleted.
type deletion struct{ code chan<- protocol.Code }

// AppendedLocked implements coordinator.Appender.
func (d deletion) AppendedLocked(err error) { d.code <- codeOf(err) }

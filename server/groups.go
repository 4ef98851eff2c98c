package server

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
	"millrace/server/group"
	"millrace/server/protocol"
)

// The handlers of consumer groups. What they mean is package group's business;
// here is which versions there are, who asks, and how long an answer may take.
// A group that this node does not coordinate is answered NOT_COORDINATOR, one
// that is being loaded COORDINATOR_LOAD_IN_PROGRESS; clients ask again.

// from says who asks, as groups remember it.
func (c *call) from() group.Client {
	return group.Client{ID: c.Client, Host: "/" + c.conn.origin.host}
}

// JoinGroup, versions 0–9.
//
//   - Waits until the rebalance is complete, minutes if members are slow; a
//     client that hangs up meanwhile is noticed.
//   - A first join without a member id gets MEMBER_ID_REQUIRED and its id
//     (KIP-394); static members keep their place (KIP-345).
//
// v1 adds the rebalance timeout, v2 the throttle time, v4 the required id, v5 the
// instance id, v6 tagged fields, v7 the protocol's type and a null protocol, v8
// the reason (KIP-800), v9 that the leader may skip the assignment (KIP-814).
func (h *groups) joinGroup(c *call, req *kmsg.JoinGroupRequest) (resp *kmsg.JoinGroupResponse) {
	if !c.may(acl.Group, req.Group) {
		resp := kmsg.NewPtrJoinGroupResponse()
		resp.Generation = -1
		resp.ErrorCode = int16(protocol.GroupAuthorizationFailed)
		return resp
	}
	c.waiting(func(ctx context.Context) { resp = h.coordinator.Join(ctx, c.from(), req) })
	c.conn.speaks(req.Group, resp.MemberID)
	return resp
}

// SyncGroup, versions 0–5.
//
//   - Waits for the leader's assignment; a client that hangs up is noticed.
//   - The answer is durable: the generation is in the journal before it is sent.
//
// v1 adds the throttle time, v3 the instance id (KIP-345), v4 tagged fields, v5
// the protocol's type and name (KIP-559).
func (h *groups) syncGroup(c *call, req *kmsg.SyncGroupRequest) (resp *kmsg.SyncGroupResponse) {
	if !c.may(acl.Group, req.Group) {
		resp := kmsg.NewPtrSyncGroupResponse()
		resp.ErrorCode = int16(protocol.GroupAuthorizationFailed)
		return resp
	}
	c.conn.speaks(req.Group, req.MemberID)
	c.waiting(func(ctx context.Context) { resp = h.coordinator.Sync(ctx, req) })
	return resp
}

// Heartbeat, versions 0–4.
//
//   - REBALANCE_IN_PROGRESS tells a member to join again.
//
// v1 adds the throttle time, v3 the instance id (KIP-345), v4 tagged fields.
func (h *groups) heartbeat(c *call, req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	if !c.may(acl.Group, req.Group) {
		resp := kmsg.NewPtrHeartbeatResponse()
		resp.ErrorCode = int16(protocol.GroupAuthorizationFailed)
		return resp
	}
	c.conn.speaks(req.Group, req.MemberID)
	return h.coordinator.Heartbeat(c.ctx, req)
}

// LeaveGroup, versions 0–5.
//
// v1 adds the throttle time, v3 several members, static ones among them
// (KIP-345), v4 tagged fields, v5 the reason (KIP-800).
func (h *groups) leaveGroup(c *call, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	if !c.may(acl.Group, req.Group) {
		resp := kmsg.NewPtrLeaveGroupResponse()
		resp.ErrorCode = int16(protocol.GroupAuthorizationFailed)
		return resp
	}
	return h.coordinator.Leave(c.ctx, req)
}

// OffsetCommit, versions 2–9.
//
//   - Answered when a quorum has the offsets, and visible only then; after
//     offsets.commit.timeout.ms the client is told to ask again.
//   - Generation -1 and no member: a client that assigns partitions to itself,
//     or a tool; the group must be empty.
//
// v5 drops the retention time (KIP-211), v6 adds the leader's epoch (KIP-320), v7
// the instance id (KIP-345), v8 tagged fields, v9 members of KIP-848.
func (h *groups) offsetCommit(c *call, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	ctx, cancel := context.WithTimeout(c.ctx, millis(h.settings().broker.Offsets.CommitTimeoutMillis))
	defer cancel()
	if !c.guarded() {
		return h.coordinator.OffsetCommit(ctx, req)
	}
	all := req.Topics
	codes := make([]protocol.Code, len(all)) // of whole topics
	mayGroup := c.may(acl.Group, req.Group)
	req.Topics = nil
	for i := range all {
		c.step()
		switch {
		case !mayGroup:
			codes[i] = protocol.GroupAuthorizationFailed
		case !c.may(acl.Topic, all[i].Topic):
			codes[i] = protocol.TopicAuthorizationFailed
		default:
			req.Topics = append(req.Topics, all[i])
		}
	}
	resp := kmsg.NewPtrOffsetCommitResponse()
	if len(req.Topics) > 0 {
		resp = h.coordinator.OffsetCommit(ctx, req)
	}
	committed := resp.Topics
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(all))
	for i := range all {
		if codes[i] == protocol.None {
			resp.Topics[i], committed = committed[0], committed[1:]
			continue
		}
		st := &resp.Topics[i]
		st.Default()
		st.Topic, st.TopicID = all[i].Topic, all[i].TopicID
		for _, p := range all[i].Partitions {
			c.step()
			st.Partitions = append(st.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: int16(codes[i])})
		}
	}
	return resp
}

// OffsetFetch, versions 1–9.
//
//   - Answered after a quorum said that this node still coordinates the group.
//   - An unknown group or partition is no error: its offset is -1.
//   - Null topics are all topics, from version 2 on.
//   - What is named twice is answered once, as far as there is place: see maxAnswer.
//
// v2 adds a top-level error, v3 the throttle time, v5 the leader's epoch
// (KIP-320), v6 tagged fields, v7 requires stable offsets (KIP-447), v8 several
// groups (KIP-709), v9 members of KIP-848.
func (h *groups) offsetFetch(c *call, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	askOnce(req)
	resp := h.fetchOffsets(ctx, c, req)
	for i := range resp.Groups {
		if g := &resp.Groups[i]; !c.fits(g) {
			g.Topics, g.ErrorCode = nil, int16(protocol.MessageTooLarge)
		}
	}
	if c.fits(&resp.Topics) {
		return resp
	}
	if resp.ErrorCode = int16(protocol.MessageTooLarge); c.Version >= 2 {
		resp.Topics = nil
		return resp
	}
	// v1 has no other place for it; without metadata an answer is about as long as its request.
	for i := range resp.Topics {
		for j := range resp.Topics[i].Partitions {
			p := &resp.Topics[i].Partitions[j]
			p.Offset, p.Metadata, p.ErrorCode = -1, new(string), int16(protocol.MessageTooLarge)
		}
	}
	return resp
}

// fetchOffsets fetches what the client may know of.
func (h *groups) fetchOffsets(ctx context.Context, c *call, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	if !c.guarded() {
		return h.coordinator.OffsetFetch(ctx, req)
	}
	if c.Version < 8 {
		return h.fetchOneGroup(ctx, c, req)
	}
	all := req.Groups
	req.Groups = nil
	answers := make([]kmsg.OffsetFetchResponseGroup, len(all))
	kept := make([]bool, len(all))
	for i := range all {
		a, g := &answers[i], all[i]
		a.Default()
		a.Group = g.Group
		if kept[i] = c.may(acl.Group, g.Group); !kept[i] {
			a.ErrorCode = int16(protocol.GroupAuthorizationFailed)
			continue
		}
		if g.Topics == nil {
			req.Groups = append(req.Groups, g)
			continue
		}
		topics := make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(g.Topics)) // none is not null, which is all
		for _, t := range g.Topics {
			c.step()
			if c.may(acl.Topic, t.Topic) {
				topics = append(topics, t)
				continue
			}
			st := kmsg.NewOffsetFetchResponseGroupTopic()
			st.Topic, st.TopicID = t.Topic, t.TopicID
			for _, index := range t.Partitions {
				st.Partitions = append(st.Partitions, kmsg.OffsetFetchResponseGroupTopicPartition{
					Partition: index, Offset: -1, LeaderEpoch: -1, Metadata: new(string), ErrorCode: int16(protocol.TopicAuthorizationFailed),
				})
			}
			a.Topics = append(a.Topics, st)
		}
		g.Topics = topics
		req.Groups = append(req.Groups, g)
	}
	resp := h.coordinator.OffsetFetch(ctx, req)
	for i, at := 0, 0; i < len(all); i++ {
		if !kept[i] {
			continue
		}
		got := resp.Groups[at]
		at++
		if all[i].Topics == nil {
			got.Topics = slices.DeleteFunc(got.Topics, func(t kmsg.OffsetFetchResponseGroupTopic) bool {
				c.step()
				return !c.sees(acl.Topic, t.Topic)
			})
		}
		if got.ErrorCode == int16(protocol.None) {
			got.Topics = append(got.Topics, answers[i].Topics...)
		}
		answers[i] = got
	}
	resp.Groups = answers
	return resp
}

// fetchOneGroup is fetchOffsets up to v7, where there is one group with an answer of its own.
func (h *groups) fetchOneGroup(ctx context.Context, c *call, req *kmsg.OffsetFetchRequest) *kmsg.OffsetFetchResponse {
	all := req.Topics
	mayGroup := c.may(acl.Group, req.Group)
	denied := make([]kmsg.OffsetFetchResponseTopic, 0, len(all))
	deny := func(t *kmsg.OffsetFetchRequestTopic, code protocol.Code) {
		st := kmsg.NewOffsetFetchResponseTopic()
		st.Topic = t.Topic
		for _, index := range t.Partitions {
			st.Partitions = append(st.Partitions, kmsg.OffsetFetchResponseTopicPartition{
				Partition: index, Offset: -1, LeaderEpoch: -1, Metadata: new(string), ErrorCode: int16(code),
			})
		}
		denied = append(denied, st)
	}
	if !mayGroup {
		resp := kmsg.NewPtrOffsetFetchResponse()
		resp.ErrorCode = int16(protocol.GroupAuthorizationFailed)
		for i := range all {
			c.step()
			if c.Version < 2 { // it has no other place for it
				deny(&all[i], protocol.GroupAuthorizationFailed)
			}
		}
		resp.Topics = denied
		return resp
	}
	if all != nil {
		req.Topics = make([]kmsg.OffsetFetchRequestTopic, 0, len(all)) // none is not null, which is all
	}
	for i := range all {
		c.step()
		if c.may(acl.Topic, all[i].Topic) {
			req.Topics = append(req.Topics, all[i])
		} else {
			deny(&all[i], protocol.TopicAuthorizationFailed)
		}
	}
	resp := h.coordinator.OffsetFetch(ctx, req)
	if all == nil && c.Version >= 2 {
		resp.Topics = slices.DeleteFunc(resp.Topics, func(t kmsg.OffsetFetchResponseTopic) bool {
			c.step()
			return !c.sees(acl.Topic, t.Topic)
		})
	}
	if resp.ErrorCode == int16(protocol.None) || c.Version < 2 {
		resp.Topics = append(resp.Topics, denied...)
	}
	return resp
}

// askOnce takes out of req what it names twice: with each of a group's offsets
// come up to 4 KB of metadata, for the four bytes of a partition.
func askOnce(req *kmsg.OffsetFetchRequest) {
	seen := map[string]struct{}{}
	req.Groups = slices.DeleteFunc(req.Groups, func(g kmsg.OffsetFetchRequestGroup) bool {
		_, again := seen[g.Group]
		seen[g.Group] = struct{}{}
		return again
	})
	type partition struct {
		topic string
		id    [16]byte
		index int32
	}
	parts := map[partition]struct{}{}
	again := func(p partition) bool {
		_, ok := parts[p]
		parts[p] = struct{}{}
		return ok
	}
	for i := range req.Groups {
		clear(parts)
		for j := range req.Groups[i].Topics {
			t := &req.Groups[i].Topics[j]
			t.Partitions = slices.DeleteFunc(t.Partitions, func(index int32) bool {
				return again(partition{t.Topic, t.TopicID, index})
			})
		}
	}
	clear(parts)
	for j := range req.Topics {
		t := &req.Topics[j]
		t.Partitions = slices.DeleteFunc(t.Partitions, func(index int32) bool {
			return again(partition{topic: t.Topic, index: index})
		})
	}
}

// OffsetDelete, version 0 (KIP-496).
//
//   - Offsets of topics that the group's members read are kept:
//     GROUP_SUBSCRIBED_TO_TOPIC.
func (h *groups) offsetDelete(c *call, req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	if !c.guarded() {
		return h.coordinator.OffsetDelete(ctx, req)
	}
	if !c.may(acl.Group, req.Group) {
		resp := kmsg.NewPtrOffsetDeleteResponse()
		resp.ErrorCode = int16(protocol.GroupAuthorizationFailed)
		return resp
	}
	var denied []kmsg.OffsetDeleteResponseTopic
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.OffsetDeleteRequestTopic) bool {
		c.step()
		if c.may(acl.Topic, t.Topic) {
			return false
		}
		st := kmsg.NewOffsetDeleteResponseTopic()
		st.Topic = t.Topic
		for _, p := range t.Partitions {
			st.Partitions = append(st.Partitions, kmsg.OffsetDeleteResponseTopicPartition{Partition: p.Partition, ErrorCode: int16(protocol.TopicAuthorizationFailed)})
		}
		denied = append(denied, st)
		return true
	})
	if len(req.Topics) == 0 && denied != nil {
		resp := kmsg.NewPtrOffsetDeleteResponse()
		resp.Topics = denied
		return resp
	}
	resp := h.coordinator.OffsetDelete(ctx, req)
	if resp.ErrorCode == int16(protocol.None) {
		resp.Topics = append(resp.Topics, denied...)
	}
	return resp
}

// DescribeGroups, versions 0–6.
//
//   - A group that is not there is dead; from version 6 on GROUP_ID_NOT_FOUND
//     (KIP-1043).
//   - A group that is named twice is answered once, and one that has no place in
//     the answer beside the others is MESSAGE_TOO_LARGE: see maxAnswer.
//
// v1 adds the throttle time, v3 authorized operations (KIP-430), v4 the instance
// id (KIP-345), v5 tagged fields, v6 an error message.
func (h *groups) describeGroups(c *call, req *kmsg.DescribeGroupsRequest) *kmsg.DescribeGroupsResponse {
	resp := kmsg.NewPtrDescribeGroupsResponse()
	one := *req
	groups := distinct(c, req.Groups)
	resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, 0, len(groups))
	for i := range groups {
		c.step()
		if !c.may(acl.Group, groups[i]) {
			g := kmsg.NewDescribeGroupsResponseGroup()
			g.Group, g.ErrorCode = groups[i], int16(protocol.GroupAuthorizationFailed)
			resp.Groups = append(resp.Groups, g)
			continue
		}
		one.Groups = groups[i : i+1]
		g := h.coordinator.Describe(c.ctx, &one).Groups[0]
		if !c.fits(&g) {
			g.Members, g.ErrorCode = nil, int16(protocol.MessageTooLarge)
			g.ErrorMessage = message(errNoPlace)
		}
		resp.Groups = append(resp.Groups, g)
	}
	if req.IncludeAuthorizedOperations {
		for i := range resp.Groups {
			if resp.Groups[i].ErrorCode == int16(protocol.None) {
				resp.Groups[i].AuthorizedOperations = c.operations(acl.Group, resp.Groups[i].Group)
			}
		}
	}
	return resp
}

// ListGroups, versions 0–5.
//
//   - The groups that this node coordinates; clients ask every broker.
//   - Those that the client may not know of are left out.
//
// v1 adds the throttle time, v3 tagged fields, v4 states (KIP-518), v5 types
// (KIP-848).
func (h *groups) listGroups(c *call, req *kmsg.ListGroupsRequest) *kmsg.ListGroupsResponse {
	resp := h.coordinator.List(c.ctx, req)
	if c.guarded() {
		resp.Groups = slices.DeleteFunc(resp.Groups, func(g kmsg.ListGroupsResponseGroup) bool {
			c.step()
			return !c.sees(acl.Group, g.Group)
		})
	}
	return resp
}

// DeleteGroups, versions 0–2 (KIP-229).
//
//   - Each group by itself: NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND.
//
// v1 adds the throttle time, v2 tagged fields.
func (h *groups) deleteGroups(c *call, req *kmsg.DeleteGroupsRequest) *kmsg.DeleteGroupsResponse {
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	var denied []kmsg.DeleteGroupsResponseGroup
	if c.guarded() {
		req.Groups = slices.DeleteFunc(distinct(c, req.Groups), func(name string) bool {
			c.step()
			if c.may(acl.Group, name) {
				return false
			}
			g := kmsg.NewDeleteGroupsResponseGroup()
			g.Group, g.ErrorCode = name, int16(protocol.GroupAuthorizationFailed)
			denied = append(denied, g)
			return true
		})
	}
	resp := h.coordinator.Delete(ctx, req)
	resp.Groups = append(resp.Groups, denied...)
	return resp
}

// waiting calls do, which may wait for minutes, with a context that also ends
// when the client hangs up. Nothing else reads from the connection meanwhile, so
// a goroutine, "listener", may: it waits for the first byte of the next request,
// and the client's end of the connection. A client that has sent its next request
// already is not listened to; the group's own timers bound it.
func (c *call) waiting(do func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(c.ctx)
	defer cancel()
	conn := c.conn
	conn.endTurn()
	conn.letGo()                           // what a member brings is counted by the groups while it waits
	conn.conn.SetReadDeadline(time.Time{}) // this client is not idle, it waits
	if c.ctx.Err() != nil {
		cancel() // Shutdown's deadline may have been lifted just now
	}
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		if _, err := conn.r.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			cancel()
		}
	}()
	defer func() {
		conn.conn.SetReadDeadline(time.Unix(1, 0)) // wakes the listener
		<-listened
	}()
	do(ctx)
}

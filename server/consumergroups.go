package server

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
	"millrace/server/protocol"
)

// ConsumerGroupHeartbeat, versions 0–1 (KIP-848).
//
//   - Joins, stays in and leaves a group whose assignment is made here.
//   - A subscription by names of which the client may not know one is
//     TOPIC_AUTHORIZATION_FAILED; an expression matches what it may know of.
//   - UNSUPPORTED_VERSION where group.coordinator.rebalance.protocols leaves
//     "consumer" out.
//
// v1 adds a subscription by a regular expression, and member ids that clients
// make up themselves (KIP-1082).
func (h *groups) consumerGroupHeartbeat(c *call, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	if !h.servesConsumerGroups() {
		resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
		resp.ErrorCode = int16(protocol.UnsupportedVersion)
		return resp
	}
	code := protocol.None
	if !c.may(acl.Group, req.Group) {
		code = protocol.GroupAuthorizationFailed
	}
	for i := 0; i < len(req.SubscribedTopicNames) && code == protocol.None; i++ {
		c.step()
		if !c.may(acl.Topic, req.SubscribedTopicNames[i]) {
			code = protocol.TopicAuthorizationFailed
		}
	}
	if code != protocol.None {
		resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
		resp.ErrorCode = int16(code)
		return resp
	}
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	return h.coordinator.ConsumerHeartbeat(ctx, c.from(), c.conn.standing(), req)
}

// ConsumerGroupDescribe, versions 0–1 (KIP-848).
//
//   - A classic group is GROUP_ID_NOT_FOUND here.
//   - A group whose members are assigned a topic that the client may not know of is
//     TOPIC_AUTHORIZATION_FAILED.
//   - What is named twice is answered once, as far as there is place: see maxAnswer.
//
// v1 adds a member's type.
func (h *groups) consumerGroupDescribe(c *call, req *kmsg.ConsumerGroupDescribeRequest) *kmsg.ConsumerGroupDescribeResponse {
	if !h.servesConsumerGroups() {
		resp := kmsg.NewPtrConsumerGroupDescribeResponse()
		resp.Groups = make([]kmsg.ConsumerGroupDescribeResponseGroup, 0, len(req.Groups))
		for _, name := range req.Groups {
			c.step()
			g := kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group, g.ErrorCode = name, int16(protocol.UnsupportedVersion)
			resp.Groups = append(resp.Groups, g)
		}
		return resp
	}
	resp := kmsg.NewPtrConsumerGroupDescribeResponse()
	one := *req
	groups := distinct(c, req.Groups)
	resp.Groups = make([]kmsg.ConsumerGroupDescribeResponseGroup, 0, len(groups))
	for i := range groups {
		c.step()
		if !c.may(acl.Group, groups[i]) {
			g := kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group, g.ErrorCode = groups[i], int16(protocol.GroupAuthorizationFailed)
			resp.Groups = append(resp.Groups, g)
			continue
		}
		one.Groups = groups[i : i+1]
		g := h.coordinator.ConsumerDescribe(c.ctx, &one).Groups[0]
		if c.guarded() && !c.mayAssigned(g.Members) {
			g = kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group, g.ErrorCode = groups[i], int16(protocol.TopicAuthorizationFailed)
			g.ErrorMessage = message(sentence("The group has described topic(s) that the client is not authorized to describe."))
		}
		if !c.fits(&g) {
			g.Members, g.ErrorCode, g.ErrorMessage = nil, int16(protocol.MessageTooLarge), message(errNoPlace)
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

// mayAssigned decides whether who asks may know of all topics that members are assigned.
func (c *call) mayAssigned(members []kmsg.ConsumerGroupDescribeResponseGroupMember) bool {
	seen := map[string]struct{}{}
	for i := range members {
		m := &members[i]
		for _, list := range [...][]kmsg.AssignmentTopicPartition{m.Assignment.TopicPartitions, m.TargetAssignment.TopicPartitions} {
			for j := range list {
				c.step()
				name := list[j].Topic
				if _, again := seen[name]; again {
					continue
				}
				seen[name] = struct{}{}
				if !c.may(acl.Topic, name) {
					return false
				}
			}
		}
	}
	return true
}

func (h *groups) servesConsumerGroups() bool {
	return slices.Contains(h.settings().broker.Groups.Protocols, "consumer")
}

package server

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// ConsumerGroupHeartbeat, versions 0–1 (KIP-848).
//
//   - Joins, stays in and leaves a group whose assignment is made here.
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
	ctx, cancel := context.WithTimeout(c.ctx, changeTimeout)
	defer cancel()
	return h.coordinator.ConsumerHeartbeat(ctx, c.from(), req)
}

// ConsumerGroupDescribe, versions 0–1 (KIP-848).
//
//   - A classic group is GROUP_ID_NOT_FOUND here.
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
		one.Groups = groups[i : i+1]
		g := h.coordinator.ConsumerDescribe(c.ctx, &one).Groups[0]
		if !c.fits(&g) {
			g.Members, g.ErrorCode, g.ErrorMessage = nil, int16(protocol.MessageTooLarge), message(errNoPlace)
		}
		resp.Groups = append(resp.Groups, g)
	}
	if req.IncludeAuthorizedOperations {
		for i := range resp.Groups {
			if resp.Groups[i].ErrorCode == int16(protocol.None) {
				resp.Groups[i].AuthorizedOperations = groupOperations
			}
		}
	}
	return resp
}

func (h *groups) servesConsumerGroups() bool {
	return slices.Contains(h.settings().broker.Groups.Protocols, "consumer")
}

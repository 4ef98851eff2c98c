package group

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A syncCall is a SyncGroup request that waits.
type syncCall struct {
	req    *kmsg.SyncGroupRequest
	answer chan<- *kmsg.SyncGroupResponse // has room for one
}

// Sync is SyncGroup, versions 0–5. The leader brings everybody's assignment; all
// get their own when the journal has them.
//
//   - Members that do not sync within the rebalance timeout are out.
//   - v5+: a protocol type or name that is not the group's: INCONSISTENT_GROUP_PROTOCOL.
//
// v3 adds the instance id (KIP-345).
func (c *Coordinator) Sync(ctx context.Context, req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	if req.Group == "" || tooLong(req.Group) {
		return syncFailure(req, protocol.InvalidGroupID)
	}
	s, code := c.shardOf(req.Group)
	if code != protocol.None {
		return syncFailure(req, code)
	}
	answer := make(chan *kmsg.SyncGroupResponse, 1)
	if !s.Do(func() {
		if g, other, code := s.classicLocked(req.Group); code != protocol.None {
			answer <- syncFailure(req, code)
		} else if other != nil {
			answer <- other.syncLocked(req)
		} else {
			g.syncLocked(&syncCall{req, answer})
		}
	}) {
		return syncFailure(req, protocol.NotCoordinator)
	}
	return await(ctx, answer, func() *kmsg.SyncGroupResponse { return syncFailure(req, protocol.CoordinatorNotAvailable) })
}

func syncFailure(req *kmsg.SyncGroupRequest, code protocol.Code) *kmsg.SyncGroupResponse {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.Version, resp.ErrorCode = req.Version, int16(code)
	return resp
}

func (c *classicGroup) syncLocked(call *syncCall) {
	req := call.req
	fail := func(code protocol.Code) { call.answer <- syncFailure(req, code) }
	if code := c.check(req.MemberID, req.InstanceID); code != protocol.None {
		fail(code)
		return
	}
	m := c.members[req.MemberID]
	switch {
	case req.Generation != c.generation:
		fail(protocol.IllegalGeneration)
	case req.ProtocolType != nil && *req.ProtocolType != c.kindOf, req.Protocol != nil && *req.Protocol != c.protocol:
		fail(protocol.InconsistentGroupProtocol)
	case c.phase == preparing:
		fail(protocol.RebalanceInProgress)
	case c.phase == stable:
		c.syncedLocked(m)
		call.answer <- c.syncResponse(req, m)
		c.touchLocked(m)
	case c.phase == completing:
		c.answerSync(m, protocol.RebalanceInProgress) // the client asks again, over another connection
		m.sync = call
		c.syncedLocked(m)
		if m.id == c.leader && !c.assigning {
			c.assignLocked(req)
		}
	}
}

func (c *classicGroup) syncResponse(req *kmsg.SyncGroupRequest, m *member) *kmsg.SyncGroupResponse {
	resp := syncFailure(req, protocol.None)
	protocolType, protocol := c.kindOf, c.protocol
	resp.ProtocolType, resp.Protocol, resp.MemberAssignment = &protocolType, &protocol, m.assignment
	return resp
}

package group

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// Heartbeat, versions 0–4: a sign of life. REBALANCE_IN_PROGRESS asks the member
// to join again.
//
// v3 adds the instance id (KIP-345).
func (c *Coordinator) Heartbeat(_ context.Context, req *kmsg.HeartbeatRequest) *kmsg.HeartbeatResponse {
	resp := kmsg.NewPtrHeartbeatResponse()
	resp.Version = req.Version
	if req.Group == "" {
		resp.ErrorCode = int16(protocol.InvalidGroupID)
		return resp
	}
	s, code := c.shardOf(req.Group)
	if code == protocol.None {
		code = protocol.NotCoordinator
		s.Do(func() {
			g, other, why := s.classicLocked(req.Group)
			switch {
			case why != protocol.None:
				code = why
			case other != nil:
				code = other.heartbeatLocked(req)
			default:
				code = g.heartbeatLocked(req)
			}
		})
	}
	resp.ErrorCode = int16(code)
	return resp
}

func (c *classicGroup) heartbeatLocked(req *kmsg.HeartbeatRequest) protocol.Code {
	if code := c.check(req.MemberID, req.InstanceID); code != protocol.None {
		return code
	}
	if req.Generation != c.generation {
		return protocol.IllegalGeneration
	}
	c.touchLocked(c.members[req.MemberID])
	if c.phase == preparing {
		return protocol.RebalanceInProgress
	}
	return protocol.None
}

// Disconnected says that the connection over which a member spoke last has ended
// without the member's leaving. A process that dies closes its connections at
// once, so a member that has died is found out by this evidence rather than by
// patience: half its session is left to it. One that lives sends a heartbeat over
// another connection before that, as clients do three times a session, and
// nothing has happened.
func (c *Coordinator) Disconnected(groupID, memberID string) {
	s, code := c.shardOf(groupID)
	if code != protocol.None {
		return
	}
	defer s.Unlock()
	g := s.groups[groupID]
	if g == nil {
		return
	}
	g.members.disconnectedLocked(memberID)
}

func (c *classicGroup) disconnectedLocked(memberID string) {
	m := c.members[memberID]
	if m == nil || m.join != nil || m.sync != nil || m.instanceID != nil {
		// Who waits for an answer has a connection; a static member may take its
		// session to come back.
		return
	}
	c.shard.halveLocked(&m.expiry, m.session)
}

// classicLocked returns a group that a member of the classic protocol may speak
// to, as what it is, or a code.
func (s *shard) classicLocked(id string) (*classicGroup, *consumerGroup, protocol.Code) {
	g := s.groupLocked(id)
	if g == nil {
		return nil, nil, protocol.UnknownMemberID
	}
	if g.dead {
		return nil, nil, protocol.CoordinatorNotAvailable
	}
	switch m := g.members.(type) {
	case *classicGroup:
		return m, nil, protocol.None
	case *consumerGroup:
		return nil, m, protocol.None
	}
	return nil, nil, protocol.UnknownMemberID
}

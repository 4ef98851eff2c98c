package group

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
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
	if m, ok := g.members.(interface{ disconnectedLocked(memberID string) }); ok {
		m.disconnectedLocked(memberID)
	}
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

// Leave is LeaveGroup, versions 0–5. v3+ names several members, by member id or,
// without one, by instance id, as an operator does to remove static members.
//
// The last one to leave is answered when the journal knows that the group is
// empty, so that no failover brings it back. v5 adds a reason.
func (c *Coordinator) Leave(ctx context.Context, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	fail := func(code protocol.Code) *kmsg.LeaveGroupResponse { return leaveFailure(req, code) }
	if req.Group == "" || tooLong(req.Group) {
		return fail(protocol.InvalidGroupID)
	}
	s, code := c.shardOf(req.Group)
	if code != protocol.None {
		return fail(code)
	}
	answer := make(chan *kmsg.LeaveGroupResponse, 1)
	members := req.Members
	if req.Version < 3 {
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID = req.MemberID
		members = []kmsg.LeaveGroupRequestMember{m}
	}
	if !s.Do(func() { s.leaveLocked(&leaveCall{s, req, members, answer}) }) {
		return fail(protocol.NotCoordinator)
	}
	return await(ctx, answer, func() *kmsg.LeaveGroupResponse { return fail(protocol.CoordinatorNotAvailable) })
}

// A leaveCall is a LeaveGroup request that is being answered.
type leaveCall struct {
	s       *shard
	req     *kmsg.LeaveGroupRequest
	members []kmsg.LeaveGroupRequestMember
	answer  chan<- *kmsg.LeaveGroupResponse // has room for one
}

// againLocked implements step.
func (l *leaveCall) againLocked() { l.s.leaveLocked(l) }

// fail implements step: none of the members has left.
func (l *leaveCall) fail(code protocol.Code) {
	codes, ids := make([]protocol.Code, len(l.members)), make([]string, len(l.members))
	for i, m := range l.members {
		codes[i], ids[i] = code, m.MemberID
	}
	l.answer <- leaveResponse(l.req, l.members, codes, ids)
}

func leaveFailure(req *kmsg.LeaveGroupRequest, code protocol.Code) *kmsg.LeaveGroupResponse {
	resp := kmsg.NewPtrLeaveGroupResponse()
	resp.Version, resp.ErrorCode = req.Version, int16(code)
	return resp
}

// leaveResponse tells each member its code, and under which id it went.
func leaveResponse(req *kmsg.LeaveGroupRequest, members []kmsg.LeaveGroupRequestMember, codes []protocol.Code, ids []string) *kmsg.LeaveGroupResponse {
	resp := leaveFailure(req, protocol.None)
	for i, m := range members {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ErrorCode = ids[i], m.InstanceID, int16(codes[i])
		if req.Version < 3 {
			resp.ErrorCode = rm.ErrorCode
		} else {
			resp.Members = append(resp.Members, rm)
		}
	}
	return resp
}

func (s *shard) leaveLocked(l *leaveCall) {
	if s.EndedLocked() {
		l.answer <- leaveFailure(l.req, protocol.NotCoordinator)
		return
	}
	g, other, code := s.classicLocked(l.req.Group)
	switch {
	case code == protocol.CoordinatorNotAvailable:
		l.answer <- leaveFailure(l.req, code)
	case code != protocol.None:
		l.fail(code)
	case other != nil:
		other.stepLocked(&classicLeave{l, other})
	default:
		g.leaveLocked(l)
	}
}

// leaveLocked takes members out. The last to go is answered when the journal knows.
func (c *classicGroup) leaveLocked(l *leaveCall) {
	codes, ids := make([]protocol.Code, len(l.members)), make([]string, len(l.members))
	went := false
	for i, m := range l.members {
		codes[i], ids[i] = c.leaveOneLocked(m), m.MemberID
		went = went || codes[i] == protocol.None
	}
	resp := leaveResponse(l.req, l.members, codes, ids)
	if went {
		c.leftLocked()
	}
	if went && c.phase == empty && c.storing > 0 {
		c.onStored = append(c.onStored, func(err error) {
			if coordinator.Lost(err) {
				resp = leaveFailure(l.req, protocol.NotCoordinator) // whether it has left is for the next coordinator to say
			}
			l.answer <- resp
		})
		return
	}
	l.answer <- resp
}

// leaveOneLocked takes one member out.
func (c *classicGroup) leaveOneLocked(m kmsg.LeaveGroupRequestMember) protocol.Code {
	id := m.MemberID
	if id == "" {
		if m.InstanceID == nil || c.static[*m.InstanceID] == "" {
			return protocol.UnknownMemberID
		}
		id = c.static[*m.InstanceID]
	}
	if u, ok := c.pending.find(id); ok {
		c.pending.dropLocked(u)
		c.gone = c.gone || c.phase == preparing || c.phase == empty
		return protocol.None
	}
	if code := c.check(id, m.InstanceID); code != protocol.None {
		return code
	}
	c.removeLocked(c.members[id], protocol.UnknownMemberID)
	c.gone = true
	return protocol.None
}

// leftLocked does what follows when members have left.
func (c *classicGroup) leftLocked() {
	if c.gone {
		c.gone = false
		c.settleLocked("members left")
	}
}

package group

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

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
	went, moved := false, false
	for i, m := range l.members {
		code, moves := c.leaveOneLocked(m)
		codes[i], ids[i] = code, m.MemberID
		went, moved = went || code == protocol.None, moved || moves
	}
	resp := leaveResponse(l.req, l.members, codes, ids)
	if moved {
		c.settleLocked("members left")
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

// leaveOneLocked takes one member out. moves says that the group is to be settled.
func (c *classicGroup) leaveOneLocked(m kmsg.LeaveGroupRequestMember) (code protocol.Code, moves bool) {
	id := m.MemberID
	if id == "" {
		if m.InstanceID == nil || c.static[*m.InstanceID] == "" {
			return protocol.UnknownMemberID, false
		}
		id = c.static[*m.InstanceID]
	}
	if u, ok := c.pending.find(id); ok {
		c.pending.dropLocked(u)
		return protocol.None, c.phase == preparing || c.phase == empty
	}
	if code := c.check(id, m.InstanceID); code != protocol.None {
		return code, false
	}
	c.removeLocked(c.members[id], protocol.UnknownMemberID)
	return protocol.None, true
}

package group

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// newMemberTimeout is how long a new member's JoinGroup may wait. Its client knows
// no member id yet, so it can neither send heartbeats nor be told apart from one
// that gave up.
const newMemberTimeout = 5 * time.Minute

// A joinCall is a JoinGroup request that waits.
type joinCall struct {
	req    *kmsg.JoinGroupRequest
	client Client
	member string                         // the id made up for it, if it came without
	answer chan<- *kmsg.JoinGroupResponse // has room for one
}

func (j *joinCall) fail(code protocol.Code, memberID string) {
	j.answer <- joinFailure(j, code, memberID)
}

// Join is JoinGroup, versions 0–9. It waits until the group's members are known.
//
//   - v4+ without a member id: MEMBER_ID_REQUIRED with one, `<client.id>-<uuid>`
//     (KIP-394). Static members (v5+, KIP-345) need no such round trip.
//   - A group without members waits group.initial.rebalance.delay.ms for more, again and
//     again while some come, at most the rebalance timeout.
//   - Members that do not rejoin within the largest rebalance timeout are out.
//   - A static member that comes back under its instance id with the same subscription
//     takes its old place; the group stays as it is. In v9 a leader that comes back so
//     is told to skip the assignment (KIP-814).
//   - If ctx ends while a client that was given no member id waits, its member goes too.
//
// v1 adds the rebalance timeout, v5 instance ids, v7 the protocol type, v8 a reason.
func (c *Coordinator) Join(ctx context.Context, client Client, req *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	answer := make(chan *kmsg.JoinGroupResponse, 1)
	call := &joinCall{req: req, client: client, answer: answer}
	if req.Group == "" || tooLong(req.Group) {
		return joinFailure(call, protocol.InvalidGroupID, req.MemberID)
	}
	switch {
	case tooLong(req.MemberID):
		return joinFailure(call, protocol.UnknownMemberID, "")
	case req.InstanceID != nil && tooLong(*req.InstanceID):
		return joinFailure(call, protocol.InvalidRequest, "")
	case tooLong(req.ProtocolType), slices.ContainsFunc(req.Protocols, func(p kmsg.JoinGroupRequestProtocol) bool { return tooLong(p.Name) }):
		return joinFailure(call, protocol.InconsistentGroupProtocol, req.MemberID)
	}
	set := c.settings()
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	if session < set.MinSessionTimeout || session > set.MaxSessionTimeout {
		return joinFailure(call, protocol.InvalidSessionTimeout, req.MemberID)
	}
	s, code := c.shardOf(req.Group)
	if code != protocol.None {
		return joinFailure(call, code, req.MemberID)
	}
	if !s.Do(func() { s.joinLocked(call) }) {
		return joinFailure(call, protocol.NotCoordinator, req.MemberID)
	}
	return await(ctx, answer, func() *kmsg.JoinGroupResponse {
		s.Lock()
		s.Do(func() { s.abandonLocked(call) })
		return joinFailure(call, protocol.CoordinatorNotAvailable, req.MemberID)
	})
}

func joinFailure(call *joinCall, code protocol.Code, memberID string) *kmsg.JoinGroupResponse {
	resp := kmsg.NewPtrJoinGroupResponse()
	if call != nil {
		resp.Version = call.req.Version
	}
	resp.ErrorCode, resp.MemberID = int16(code), memberID
	return resp
}

// joinResponse is what m learns of its generation.
func (c *classicGroup) joinResponse(call *joinCall, m *member, leader string, skip bool) *kmsg.JoinGroupResponse {
	resp := joinFailure(call, protocol.None, m.id)
	if call == nil {
		return resp // nobody will see it
	}
	protocolType, protocol := c.kindOf, c.protocol
	resp.Generation, resp.ProtocolType, resp.Protocol = c.generation, &protocolType, &protocol
	resp.LeaderID, resp.SkipAssignment = leader, skip
	if m.id != leader {
		return resp
	}
	for _, other := range c.inOrder() {
		rm := kmsg.NewJoinGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = other.id, other.instanceID, other.metadata(c.protocol)
		resp.Members = append(resp.Members, rm)
	}
	return resp
}

// abandonLocked forgets that a client waits which has hung up. A member that nobody
// can name any more goes. Any other has not joined: it has half its session to come
// back over another connection, and does not enter the next generation before.
func (s *shard) abandonLocked(call *joinCall) {
	g := s.groupLocked(call.req.Group)
	if g == nil {
		return
	}
	c, ok := g.members.(*classicGroup)
	if !ok {
		return
	}
	m := c.members[call.member]
	switch {
	case m == nil || m.join != call:
	case call.req.MemberID == "" && call.req.InstanceID == nil:
		c.removeLocked(m, protocol.UnknownMemberID)
		c.settleLocked("a client hung up while it joined")
	default:
		m.join = nil
		c.waiting--
		left := m.session
		if m.instanceID == nil {
			left /= 2
		}
		s.SetLocked(&m.expiry, s.Now().Add(left))
	}
}

func (s *shard) joinLocked(call *joinCall) {
	req := call.req
	g := s.groupLocked(req.Group)
	switch {
	case g != nil && g.dead:
		call.fail(protocol.CoordinatorNotAvailable, req.MemberID)
		return
	case g == nil && req.MemberID != "":
		call.fail(protocol.UnknownMemberID, req.MemberID)
		return
	case g == nil:
		g = s.createLocked(req.Group)
	}
	defer s.dropIfNothingLocked(g)
	c, ok := g.members.(*classicGroup)
	if !ok {
		if !g.members.empty() {
			g.members.(*consumerGroup).joinLocked(call)
			return
		}
		if req.MemberID != "" {
			call.fail(protocol.UnknownMemberID, req.MemberID)
			return
		}
		c = s.toClassicLocked(g)
	}

	switch {
	case !c.admits(req.MemberID):
		if m := c.members[req.MemberID]; m != nil {
			c.removeLocked(m, protocol.GroupMaxSizeReached)
			c.settleLocked("the group is full")
		}
		if u, ok := c.pending.find(req.MemberID); ok {
			c.pending.dropLocked(u)
		}
		call.fail(protocol.GroupMaxSizeReached, "")
	case !c.supports(req.ProtocolType, req.Protocols):
		call.fail(protocol.InconsistentGroupProtocol, req.MemberID)
	case req.MemberID == "":
		c.joinNewLocked(call)
	default:
		if _, ok := c.pending.find(req.MemberID); ok && req.InstanceID == nil {
			c.addNewLocked(call, req.MemberID)
			return
		}
		if code := c.check(req.MemberID, req.InstanceID); code != protocol.None {
			call.fail(code, req.MemberID)
			return
		}
		c.rejoinLocked(call, c.members[req.MemberID])
	}
}

// toClassicLocked makes an empty group of the other type a classic one.
func (s *shard) toClassicLocked(g *group) *classicGroup {
	records := g.members.tombstones(s.Now())
	g.members.stopLocked(protocol.CoordinatorNotAvailable)
	c := newClassic(g)
	g.members = c
	if len(records) > 0 {
		// If they are refused, the classic group's own record will take their place.
		s.AppendLocked(records, nil)
	}
	return c
}

// admits reports whether there is room for a member. While a group prepares, those
// count who wait, so that the last to rejoin are those who are too many.
func (c *classicGroup) admits(memberID string) bool {
	size := c.shard.c.settings().MaxSize
	m := c.members[memberID]
	switch c.phase {
	case empty:
		return true
	case preparing:
		return m != nil && m.join != nil || c.waiting < size
	default:
		return m != nil || len(c.members) < size
	}
}

func (c *classicGroup) joinNewLocked(call *joinCall) {
	req := call.req
	id := memberID(call.client, req.InstanceID)
	if req.InstanceID != nil {
		if old := c.members[c.static[*req.InstanceID]]; old != nil {
			c.replaceLocked(call, old, id)
		} else {
			c.addNewLocked(call, id)
		}
		return
	}
	if req.Version < 4 {
		c.addNewLocked(call, id)
		return
	}
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	c.pending.addLocked(id, min(session, newMemberTimeout))
	call.fail(protocol.MemberIDRequired, id)
}

// takeLocked makes call the one that m waits with, and m what call says it is. It
// returns false if that is too much, and answers call then.
func (c *classicGroup) takeLocked(call *joinCall, m *member) bool {
	req := call.req
	protocols := protocolsOf(req.Protocols)
	next := *m
	next.protocols = protocols
	if !c.fitsLocked(call.client.Host, next.cost()-m.bytes) {
		call.fail(protocol.GroupMaxSizeReached, "")
		return false
	}
	c.answerJoin(m, joinFailure(m.join, protocol.RebalanceInProgress, m.id)) // the client asks again, over another connection
	c.unsupport(m)
	c.support(m, protocols)
	m.session, m.timeout = timeoutsOf(req)
	m.join = call
	call.member = m.id
	c.waiting++
	c.recostLocked(m)
	return true
}

func timeoutsOf(req *kmsg.JoinGroupRequest) (session, rebalance time.Duration) {
	session = time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	rebalance = time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond
	if req.Version < 1 || rebalance <= 0 {
		rebalance = session
	}
	return session, min(rebalance, math.MaxInt32*time.Millisecond)
}

func (c *classicGroup) addNewLocked(call *joinCall, id string) {
	req := call.req
	call.member = id
	m := &member{id: id, instanceID: req.InstanceID, client: call.client, protocols: protocolsOf(req.Protocols), isNew: true, join: call}
	m.session, m.timeout = timeoutsOf(req)
	if u, ok := c.pending.find(id); ok {
		c.pending.dropLocked(u)
	}
	if !c.fitsLocked(call.client.Host, m.cost()) {
		call.fail(protocol.GroupMaxSizeReached, "")
		c.settlePendingLocked()
		return
	}
	if len(c.members) == 0 {
		c.kindOf = req.ProtocolType
		c.topics = nil
	}
	c.extend = true
	c.addLocked(m)
	c.shard.SetLocked(&m.expiry, c.shard.Now().Add(newMemberTimeout))
	c.changedLocked("member " + id + " joins")
}

// changedLocked does what follows when a member has joined or changed.
func (c *classicGroup) changedLocked(reason string) {
	if c.phase == preparing {
		c.tryCompleteLocked()
	} else {
		c.prepareLocked(reason)
	}
}

func (c *classicGroup) rejoinLocked(call *joinCall, m *member) {
	same := sameProtocols(m.protocols, protocolsOf(call.req.Protocols))
	switch {
	case c.phase == completing && same, // it may not have got our answer
		c.phase == stable && same && m.id != c.leader: // likewise, or it fell out of step
		call.answer <- c.joinResponse(call, m, c.leader, false)
	default:
		// A leader may join for reasons of its own, such as new partitions.
		if c.takeLocked(call, m) {
			c.changedLocked("member " + m.id + " rejoins")
		}
	}
}

// replaceLocked gives the place of a static member to a new member id: the client has
// restarted.
func (c *classicGroup) replaceLocked(call *joinCall, old *member, id string) {
	m := &member{
		id: id, instanceID: old.instanceID, client: call.client, joined: old.joined,
		session: old.session, timeout: old.timeout, protocols: old.protocols, assignment: old.assignment,
	}
	next := *m
	next.protocols = protocolsOf(call.req.Protocols)
	if !c.fitsLocked(call.client.Host, next.cost()-old.bytes) {
		call.fail(protocol.GroupMaxSizeReached, "")
		return
	}
	formerLeader, formerMetadata := c.leader, old.metadata(c.protocol)
	c.swapLocked(old, m)
	c.takeLocked(call, m)
	c.touchLocked(m)
	switch {
	case c.phase == preparing:
		c.tryCompleteLocked()
	case c.phase != stable || c.selectProtocol() != c.protocol || !sameSubscription(c.kindOf, formerMetadata, m.metadata(c.protocol)):
		// If the leader is at work, it knows only the old member id.
		c.prepareLocked("static member " + *m.instanceID + " is back and changed")
	default:
		c.restoreLocked(call, m, formerLeader)
	}
}

// swapLocked puts m in the place of a member that is gone.
func (c *classicGroup) swapLocked(old, m *member) {
	leads, unsynced := c.leader == old.id, c.unsynced[old.id]
	c.removeLocked(old, protocol.FencedInstanceID)
	joined := c.nextJoined
	c.addLocked(m)
	m.joined, c.nextJoined = old.joined, joined
	if unsynced {
		c.unsynced[m.id] = true
	}
	if leads {
		c.leader = m.id
	}
}

// restoreLocked has the journal keep that m is in the place of a static member, with its
// assignment, and then tells it so. If the journal refuses, the client tries again; the
// old id stays fenced. Before v9 a leader would assign anew if it were told that it leads.
func (c *classicGroup) restoreLocked(call *joinCall, m *member, formerLeader string) {
	r := &restored{m: m, call: call, generation: c.generation, leader: formerLeader}
	if call.req.Version >= 9 {
		r.leader, r.skip = c.leader, c.leader == m.id
	}
	c.storeLocked(c.generation, c.valueLocked(nil), r)
}

// A restored is a static member that is back as it was, as the journal is being told.
type restored struct {
	m          *member
	call       *joinCall
	generation int32
	leader     string // as it is told
	skip       bool   // it is to skip the assignment (KIP-814)
}

// AppendedLocked implements coordinator.Appender.
func (r *restored) AppendedLocked(err error) {
	c, m := r.m.of, r.m
	if m.join != r.call || c.shard.EndedLocked() {
		return // another rebalance has taken it along, or it went
	}
	switch {
	case err != nil:
		c.answerJoin(m, joinFailure(r.call, codeOf(err), ""))
	case c.phase == stable && c.generation == r.generation:
		c.answerJoin(m, c.joinResponse(r.call, m, r.leader, r.skip))
		c.touchLocked(m)
	}
}

// sameSubscription reports whether a member's metadata means the same for the
// assignment. A consumer's also says what it owned, which a restart changes.
func sameSubscription(protocolType string, a, b []byte) bool {
	if protocolType != consumerProtocol {
		return string(a) == string(b)
	}
	x, okX := subscription(a)
	y, okY := subscription(b)
	if !okX || !okY {
		return string(a) == string(b)
	}
	in := func(topics, of []string) bool {
		has := make(map[string]bool)
		for _, t := range of {
			has[t] = true
		}
		for _, t := range topics {
			if !has[t] {
				return false
			}
		}
		return true
	}
	return in(x, y) && in(y, x)
}

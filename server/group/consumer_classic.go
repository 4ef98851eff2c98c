package group

import (
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// Members that speak the classic protocol within a consumer group, while it rolls
// from one to the other (KIP-848, "online migration"). The coordinator assigns to
// them as to all others, and tells them in their own words:
//
//	JoinGroup   what they subscribe to and still own; the answer's generation is their epoch
//	SyncGroup   what they are assigned, as a leader would have encoded it
//	Heartbeat   REBALANCE_IN_PROGRESS when they are to join again: to give back, or to get more
//
// Nobody of them leads. One that assigns eagerly owns nothing when it joins, one that
// does so cooperatively says what it owns; both are so within the rules of
// consumerGroup, where a partition has one owner.

// A classicJoin is what a JoinGroup says, in the consumer protocol's terms, and the step
// that it is of its group.
type classicJoin struct {
	call *joinCall
	c    *consumerGroup
	id   string
	said subscribed
	took bool // the place of a consumer
}

// fail implements step.
func (j *classicJoin) fail(code protocol.Code) { j.call.fail(code, j.call.req.MemberID) }

// againLocked implements step.
func (j *classicJoin) againLocked() {
	if !j.c.currentLocked() || j.c.empty() {
		j.c.shard.joinLocked(j.call) // of another type meanwhile, or about to be
		return
	}
	j.c.stepLocked(j)
}

// refusal is what follows a step that answers the join with an error.
func (j *classicJoin) refusal(code protocol.Code, id string) func(error) {
	return func(error) { j.call.fail(code, id) }
}

// subscribed is a consumer's embedded metadata (ConsumerProtocolSubscription).
type subscribed struct {
	version int16
	topics  []string // ascending
	owned   []kmsg.ConsumerMemberMetadataOwnedPartition
	rack    *string
}

// readSubscription reads the metadata of a protocol. Later versions only add.
func readSubscription(metadata []byte) (subscribed, bool) {
	r := kbin.Reader{Src: metadata}
	s := subscribed{version: r.Int16()}
	for n := r.ArrayLen(); n > 0 && r.Ok(); n-- {
		s.topics = append(s.topics, r.String())
	}
	r.NullableBytes()
	if s.version >= 1 {
		for n := r.ArrayLen(); n > 0 && r.Ok(); n-- {
			o := kmsg.NewConsumerMemberMetadataOwnedPartition()
			o.Topic = r.String()
			for k := r.ArrayLen(); k > 0 && r.Ok(); k-- {
				o.Partitions = append(o.Partitions, r.Int32())
			}
			s.owned = append(s.owned, o)
		}
	}
	if s.version >= 2 {
		r.Int32() // the generation in which it owned them
	}
	if s.version >= 3 {
		s.rack = r.NullableString()
	}
	slices.Sort(s.topics)
	s.topics = slices.Compact(s.topics)
	return s, r.Ok() && len(metadata) >= 2
}

// owns returns what a subscription says it owns, by topics' ids.
func (s *shard) owns(said subscribed) assignment {
	a := make(assignment)
	for _, o := range said.owned {
		if id, ok := s.topicID(o.Topic); ok {
			a.add(id, o.Partitions)
		}
	}
	return a.made()
}

func (s *shard) topicID(name string) (id uuid, ok bool) {
	if s.c.cfg.Topics == nil {
		return id, false
	}
	id, _, ok = s.c.cfg.Topics.Topic(name)
	return id, ok
}

// encodeAssignment is what a leader would have sent (ConsumerProtocolAssignment), in
// the version of the member's own metadata. Topics that are gone are left out.
func (s *shard) encodeAssignment(a assignment, version int16) []byte {
	v := kmsg.NewConsumerMemberAssignment()
	v.Version = min(max(version, 0), 3)
	for _, topic := range a.topics() {
		if s.c.cfg.Topics == nil {
			break
		}
		if name, _, ok := s.c.cfg.Topics.TopicByID(topic); ok {
			v.Topics = append(v.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: name, Partitions: a[topic]})
		}
	}
	return v.AppendTo(nil)
}

// decodeAssignment reads what a leader sent; false: it cannot be read.
func (s *shard) decodeAssignment(p []byte) (assignment, bool) {
	a := make(assignment)
	if len(p) == 0 {
		return a, true
	}
	r := kbin.Reader{Src: p}
	r.Int16()
	for n := r.ArrayLen(); n > 0 && r.Ok(); n-- {
		name := r.String()
		var parts []int32
		for k := r.ArrayLen(); k > 0 && r.Ok(); k-- {
			parts = append(parts, r.Int32())
		}
		if id, ok := s.topicID(name); ok {
			a.add(id, parts)
		}
	}
	return a.made(), r.Ok()
}

// joinLocked is a JoinGroup into a consumer group that has members.
func (c *consumerGroup) joinLocked(call *joinCall) {
	req := call.req
	j := &classicJoin{call: call, c: c, id: req.MemberID}
	ok := false
	if len(req.Protocols) > 0 {
		j.said, ok = readSubscription(req.Protocols[0].Metadata)
	}
	if req.ProtocolType != consumerProtocol || !ok {
		j.fail(protocol.InconsistentGroupProtocol)
		return
	}
	if req.MemberID == "" {
		j.id = memberID(call.client, req.InstanceID)
		if req.InstanceID == nil && req.Version >= 4 {
			// Nothing is kept of it: in such a group any id may join.
			call.fail(protocol.MemberIDRequired, j.id)
			return
		}
	}
	j.againLocked()
}

// on implements step.
func (j *classicJoin) on(d *draft) (after func(error)) {
	c, req := d.c, j.call.req
	m, replaced, code := j.identify(d)
	if code != protocol.None {
		return j.refusal(code, req.MemberID)
	}
	was := m
	if was == nil {
		was = replaced
	}
	if !j.supported(d, was) {
		return j.refusal(protocol.InconsistentGroupProtocol, req.MemberID)
	}
	v := j.value()
	grow := (&consumerMember{id: j.id, memberValue: v}).cost()
	if m != nil {
		grow -= m.cost()
	}
	if was == nil && d.size >= c.shard.c.settings().Consumer.MaxSize || !c.fitsLocked(j.call.client.Host, grow) {
		return j.refusal(protocol.GroupMaxSizeReached, "")
	}

	var before []string
	expression := ""
	if was != nil {
		before, expression = was.topics, text(was.regex)
	}
	d.settle(j.id, v, m, replaced, false)
	d.advance(was == nil || replaced != nil && c.planning || !slices.Equal(before, v.topics) || expression != "")
	j.took = j.took || replaced != nil && replaced.classic == nil
	c.touchLocked(j.id)
	if d.epoch > d.targetEpoch { // a generation is worth waiting for
		return j.awaits(d.epoch)
	}
	return d.classicPlace(j)
}

// identify finds the member that joins; nil: it is new. replaced is the static member
// whose place it takes.
func (j *classicJoin) identify(d *draft) (m, replaced *consumerMember, code protocol.Code) {
	req := j.call.req
	if req.InstanceID == nil {
		m = d.member(j.id)
	} else if other := d.member(d.staticMember(*req.InstanceID)); other != nil && other.id == j.id {
		m = other
	} else if req.MemberID != "" {
		if other == nil {
			return nil, nil, protocol.UnknownMemberID
		}
		return nil, nil, protocol.FencedInstanceID
	} else {
		replaced = other
	}
	if m != nil && m.classic == nil {
		return nil, nil, protocol.UnknownMemberID
	}
	return m, replaced, protocol.None
}

// supported reports whether all members of the classic protocol support one that j
// supports. was is the member itself as it was before; nil: it is new.
func (j *classicJoin) supported(d *draft, was *consumerMember) bool {
	others := d.classics
	var own []memberProtocol
	if was != nil && was.classic != nil {
		others--
		own = was.classic.protocols
	}
	return slices.ContainsFunc(j.call.req.Protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		n := d.supporters(p.Name)
		if slices.ContainsFunc(own, func(o memberProtocol) bool { return o.name == p.Name }) {
			n--
		}
		return n == others
	})
}

// value is what the member says of itself, as the journal keeps it.
func (j *classicJoin) value() memberValue {
	req := j.call.req
	session, timeout := timeoutsOf(req)
	return memberValue{
		instanceID: req.InstanceID, rackID: j.said.rack, client: j.call.client, topics: j.said.topics,
		timeout: int32(min(timeout.Milliseconds(), math.MaxInt32)),
		classic: &classicValue{session: int32(session.Milliseconds()), protocols: protocolsOf(req.Protocols)},
	}
}

// awaits is what follows a step whose member is to wait for the target of an epoch.
func (j *classicJoin) awaits(epoch int32) func(error) {
	return func(err error) {
		if err != nil {
			j.fail(codeOf(err))
			return
		}
		j.c.touchLocked(j.id)
		j.c.parkLocked(epoch, &classicPlacing{j})
	}
}

// A classicPlacing is the second step of a JoinGroup that had to wait for a target.
type classicPlacing struct{ *classicJoin }

// againLocked implements step.
func (p *classicPlacing) againLocked() {
	if !p.c.currentLocked() {
		p.c.shard.joinLocked(p.call)
		return
	}
	p.c.stepLocked(p)
}

// on implements step.
func (p *classicPlacing) on(d *draft) func(error) {
	if d.member(p.id) == nil {
		return p.refusal(protocol.UnknownMemberID, "")
	}
	return d.classicPlace(p.classicJoin)
}

// classicPlace brings a member that joins nearer to its target, and answers it.
func (d *draft) classicPlace(j *classicJoin) func(error) {
	c := d.c
	if j.took {
		if after := d.downgradeFor(j); after != nil {
			return after
		}
	}
	if m := d.member(j.id); m.epoch != d.targetEpoch || m.state != memberStable {
		d.reconcile(j.id, c.shard.owns(j.said))
	}
	now := d.member(j.id)
	return func(err error) {
		if err != nil {
			j.fail(codeOf(err))
			return
		}
		if c.members[j.id] != nil {
			c.touchLocked(j.id)
			c.revokeLocked(j.id) // by then it has to sync
		}
		resp := joinFailure(j.call, protocol.None, j.id)
		protocolType, protocol := consumerProtocol, j.call.req.Protocols[0].Name
		resp.Generation, resp.ProtocolType, resp.Protocol = now.epoch, &protocolType, &protocol
		j.call.answer <- resp
		c.afterStep(nil)
	}
}

// classicMember returns a member that speaks the classic protocol, in its present
// generation, or a code.
func (c *consumerGroup) classicMember(id string, instanceID *string, generation int32) (*consumerMember, protocol.Code) {
	m, code := c.find(id, instanceID)
	switch {
	case code != protocol.None:
		return nil, code
	case m.classic == nil:
		return nil, protocol.UnknownMemberID
	case m.epoch != generation:
		return nil, protocol.IllegalGeneration
	}
	return m, protocol.None
}

// syncLocked is a SyncGroup within a consumer group: the member's assignment, unless
// it has to join again first.
func (c *consumerGroup) syncLocked(req *kmsg.SyncGroupRequest) *kmsg.SyncGroupResponse {
	m, code := c.classicMember(req.MemberID, req.InstanceID, req.Generation)
	if code != protocol.None {
		return syncFailure(req, code)
	}
	if len(m.classic.protocols) == 0 { // a record that we did not write
		return syncFailure(req, protocol.InconsistentGroupProtocol)
	}
	first := m.classic.protocols[0]
	if req.ProtocolType != nil && *req.ProtocolType != consumerProtocol || req.Protocol != nil && *req.Protocol != first.name {
		return syncFailure(req, protocol.InconsistentGroupProtocol)
	}
	c.touchLocked(m.id)
	if c.epoch > m.epoch && m.state != memberUnrevoked {
		c.rejoinLocked(m.id)
		return syncFailure(req, protocol.RebalanceInProgress)
	}
	c.shard.StopLocked(&c.seats[m.id].revoke.Alarm)
	resp := syncFailure(req, protocol.None)
	protocolType, protocol := consumerProtocol, first.name
	resp.ProtocolType, resp.Protocol = &protocolType, &protocol
	said, _ := readSubscription(first.metadata)
	resp.MemberAssignment = c.shard.encodeAssignment(m.assigned, said.version)
	return resp
}

// heartbeatLocked is a Heartbeat within a consumer group.
func (c *consumerGroup) heartbeatLocked(req *kmsg.HeartbeatRequest) protocol.Code {
	m, code := c.classicMember(req.MemberID, req.InstanceID, req.Generation)
	if code != protocol.None {
		return code
	}
	c.touchLocked(m.id)
	c.noticeLocked()
	if m.epoch < c.epoch || m.state == memberUnrevoked || m.state == memberUnreleased && c.releasedFor(m) {
		c.rejoinLocked(m.id)
		return protocol.RebalanceInProgress
	}
	return protocol.None
}

// rejoinLocked gives a member its rebalance timeout to join again, from when it was
// first told so.
func (c *consumerGroup) rejoinLocked(id string) {
	if !c.seats[id].revoke.IsSet() {
		c.revokeLocked(id)
	}
}

// releasedFor reports whether m would get more if it joined now.
func (c *consumerGroup) releasedFor(m *consumerMember) bool {
	for topic, parts := range c.target(m.id) {
		for _, p := range parts {
			if !m.assigned.has(topic, p) && c.ownersOf(topic, p) == 0 {
				return true
			}
		}
	}
	return false
}

// noticeLocked begins a new epoch if topics have changed. Members of the consumer
// protocol do so as they beat; a group may have none.
func (c *consumerGroup) noticeLocked() {
	if c.size > c.classics || !c.topicsChangedLocked() {
		return
	}
	c.stepLocked(notice{c})
}

// A notice is the step that begins an epoch because topics have changed.
type notice struct{ c *consumerGroup }

// againLocked implements step: where there were others, the next heartbeat looks again.
func (n notice) againLocked() { n.c.changed = nil }

func (notice) fail(protocol.Code) {}

func (n notice) on(d *draft) func(error) {
	if d.topicHash() != d.hash {
		d.bump()
		d.replan()
	}
	return n.c.afterStep
}

// A classicLeave is the step of a LeaveGroup from a consumer group: members of the classic
// protocol go, by member id or by instance id.
type classicLeave struct {
	*leaveCall
	c *consumerGroup
}

// on implements step.
func (l *classicLeave) on(d *draft) func(error) {
	codes, ids := make([]protocol.Code, len(l.members)), make([]string, len(l.members))
	went := false
	for i, m := range l.members {
		codes[i], ids[i] = d.leave(m)
		went = went || codes[i] == protocol.None
	}
	if went {
		d.bump()
		d.replan()
	}
	return func(err error) {
		if err != nil {
			l.answer <- leaveFailure(l.req, codeOf(err))
		} else {
			l.answer <- leaveResponse(l.req, l.members, codes, ids)
		}
		l.c.afterStep(err)
	}
}

// leave takes a member of the classic protocol out, and returns under which id it went.
func (d *draft) leave(l kmsg.LeaveGroupRequestMember) (code protocol.Code, id string) {
	id = l.MemberID
	if id == "" && l.InstanceID != nil {
		id = d.staticMember(*l.InstanceID)
	}
	m, code := d.find(id, l.InstanceID)
	switch {
	case code != protocol.None:
		return code, id
	case m.classic == nil:
		return protocol.UnknownMemberID, id
	}
	d.remove(id)
	return protocol.None, id
}

// disconnectedLocked leaves a member of the classic protocol half its session.
func (c *consumerGroup) disconnectedLocked(memberID string) {
	m, seat := c.members[memberID], c.seats[memberID]
	if m == nil || seat == nil || m.classic == nil || m.instanceID != nil {
		return
	}
	c.shard.halveLocked(&seat.expiry.Alarm, time.Duration(m.classic.session)*time.Millisecond)
}

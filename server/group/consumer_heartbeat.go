package group

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A beat is a ConsumerGroupHeartbeat request that is being answered, and the step that it
// is of its group.
type beat struct {
	req    *kmsg.ConsumerGroupHeartbeatRequest
	client Client
	answer chan<- *kmsg.ConsumerGroupHeartbeatResponse // has room for one
	shard  *shard                                      // that it came to
	sight  Sight                                       // what the client may know of; nil: all

	matches []string                             // the topics that its expression matches, ascending
	matched bool                                 // they were looked for: the group had not resolved it
	was     assignment                           // what its member had before
	resp    *kmsg.ConsumerGroupHeartbeatResponse // what it gets when the journal has it
}

func (b *beat) refuse(code protocol.Code, why string) {
	resp := kmsg.NewPtrConsumerGroupHeartbeatResponse()
	resp.Version, resp.ErrorCode = b.req.Version, int16(code)
	if why != "" {
		resp.ErrorMessage = &why
	}
	b.answer <- resp
}

// fail implements step.
func (b *beat) fail(code protocol.Code) { b.refuse(code, "") }

// againLocked implements step.
func (b *beat) againLocked() { b.shard.beatLocked(b) }

// done follows a step that has the beat's answer.
func (b *beat) done(err error) {
	if err != nil {
		b.fail(codeOf(err))
		return
	}
	b.answer <- b.resp
}

// The member epochs that are no epochs.
const (
	epochJoin        int32 = 0
	epochLeave       int32 = -1
	epochLeaveStatic int32 = -2
)

// ConsumerHeartbeat is ConsumerGroupHeartbeat, versions 0–1 (KIP-848): joining,
// living and leaving in one request. The answer waits until the journal has what
// it says.
//
//   - Epoch 0 joins, with everything said and nothing owned; -1 leaves; -2 leaves a
//     static member's place to be taken within the session.
//   - What a member has owns counts from topics, when it says them: partitions go to
//     another only when no member has or owns them.
//   - An epoch that is not the member's gets FENCED_MEMBER_EPOCH: give all up and join
//     again. The one before counts while what it owns is within its assignment, since
//     our answer may be lost.
//   - A classic group becomes a consumer group when nobody is in it, or where
//     group.consumer.migration.policy lets it while its members are.
//
// What an expression matches is what the client may know of, by sight, that brought it, and
// later what one may whose heartbeat has it matched again; nil sees all.
//
// v1 adds regular expressions and member ids that clients make up.
func (c *Coordinator) ConsumerHeartbeat(ctx context.Context, client Client, sight Sight, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	answer := make(chan *kmsg.ConsumerGroupHeartbeatResponse, 1)
	b := &beat{req: req, client: client, sight: sight, answer: answer}
	if tooLong(req.Group) {
		b.refuse(protocol.InvalidGroupID, "GroupId has at most 32767 bytes.")
		return <-answer
	}
	if why := b.invalid(); why != "" {
		b.refuse(protocol.InvalidRequest, why)
		return <-answer
	}
	if set := c.settings().Consumer; req.ServerAssignor != nil &&
		(c.assignors[*req.ServerAssignor] == nil || !slices.Contains(set.Assignors, *req.ServerAssignor)) {
		b.refuse(protocol.UnsupportedAssignor, "ServerAssignor "+*req.ServerAssignor+" is not supported. Supported assignors: "+strings.Join(set.Assignors, ", ")+".")
		return <-answer
	}
	if req.MemberEpoch >= 0 && req.SubscribedTopicRegex != nil && *req.SubscribedTopicRegex != "" {
		// Outside the lock: what an expression costs, who sends it pays.
		known, code := c.resolved(req.Group, *req.SubscribedTopicRegex)
		if code == protocol.None && !known {
			var err error
			b.matches, err = c.resolve(ctx, client.Host, sight, *req.SubscribedTopicRegex)
			switch {
			case errors.Is(err, errNotIn):
				code = protocol.CoordinatorNotAvailable
			case err != nil:
				b.refuse(protocol.InvalidRegularExpression, "SubscribedTopicRegex is not valid: "+err.Error())
				return <-answer
			}
			b.matched = true
		}
		if code != protocol.None {
			b.fail(code)
			return <-answer
		}
	}
	if req.MemberID == "" { // v0 lets the coordinator make it up
		var u [16]byte
		rand.Read(u[:])
		req.MemberID = base64.RawURLEncoding.EncodeToString(u[:])
	}
	s, code := c.shardOf(req.Group)
	if code != protocol.None {
		b.fail(code)
		return <-answer
	}
	if !s.Do(func() { s.beatLocked(b) }) {
		late := make(chan *kmsg.ConsumerGroupHeartbeatResponse, 1)
		(&beat{req: req, client: client, answer: late}).fail(protocol.NotCoordinator)
		return <-late
	}
	return await(ctx, answer, func() *kmsg.ConsumerGroupHeartbeatResponse {
		late := make(chan *kmsg.ConsumerGroupHeartbeatResponse, 1)
		(&beat{req: req, client: client, answer: late}).fail(protocol.CoordinatorNotAvailable)
		return <-late
	})
}

// invalid returns what is wrong with a request whatever the group is.
func (b *beat) invalid() string {
	req := b.req
	blank := func(s *string) bool { return s != nil && strings.TrimSpace(*s) == "" }
	switch {
	case strings.TrimSpace(req.Group) == "":
		return "GroupId can't be empty."
	case blank(req.InstanceID):
		return "InstanceId can't be empty."
	case blank(req.RackID):
		return "RackId can't be empty."
	case blank(req.ServerAssignor):
		return "ServerAssignor can't be empty."
	case req.MemberID == "" && (req.Version > 0 || req.MemberEpoch != epochJoin):
		return "MemberId can't be empty."
	case req.MemberEpoch < epochLeaveStatic:
		return "MemberEpoch is invalid."
	case req.MemberEpoch == epochLeaveStatic && req.InstanceID == nil:
		return "InstanceId can't be null."
	case tooLong(req.MemberID), req.InstanceID != nil && tooLong(*req.InstanceID), req.RackID != nil && tooLong(*req.RackID):
		return "Ids of members, instances and racks have at most 32767 bytes."
	case req.MemberEpoch != epochJoin:
		return ""
	case req.RebalanceTimeoutMillis == -1:
		return "RebalanceTimeoutMs must be provided in first request."
	case req.Topics == nil || len(req.Topics) > 0:
		return "TopicPartitions must be empty when (re-)joining."
	case req.SubscribedTopicNames == nil && req.SubscribedTopicRegex == nil:
		// Empty is not null: Java's consumer with a pattern that matches nothing yet
		// joins with an empty list.
		return "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining."
	}
	return ""
}

// holds returns what the client says it owns; nil: it does not say.
func (b *beat) holds() assignment {
	if b.req.Topics == nil {
		return nil
	}
	a := make(assignment)
	for _, t := range b.req.Topics {
		a.add(t.TopicID, t.Partitions)
	}
	return a.made()
}

func (s *shard) beatLocked(b *beat) {
	b.shard = s
	if s.EndedLocked() {
		b.fail(protocol.NotCoordinator)
		return
	}
	req := b.req
	g := s.groupLocked(req.Group)
	if g == nil && req.MemberEpoch != epochJoin {
		b.refuse(protocol.GroupIDNotFound, "Group "+req.Group+" not found.")
		return
	}
	if g == nil {
		g = s.createLocked(req.Group)
	}
	defer s.dropIfNothingLocked(g)
	if g.dead {
		b.fail(protocol.CoordinatorNotAvailable)
		return
	}
	c, ok := g.members.(*consumerGroup)
	if !ok {
		if req.MemberEpoch != epochJoin {
			b.refuse(protocol.GroupIDNotFound, "Group "+req.Group+" is not a consumer group.")
			return
		}
		old := g.members.(*classicGroup)
		if !old.nothing() && (!old.empty() || old.persisted || old.pending.any()) {
			s.upgradeLocked(old, b)
			return
		}
		c = newConsumer(g)
		g.members.stopLocked(protocol.CoordinatorNotAvailable)
		g.members = c
	}
	c.stepLocked(b)
}

// on implements step: what the member says of itself, then the group's epoch and its
// target, then what the member gets.
func (b *beat) on(d *draft) (after func(error)) {
	b.respond()
	if b.req.MemberEpoch < 0 {
		return d.leaves(b)
	}
	m, replaced, refused := d.identify(b)
	if refused != nil {
		return refused
	}
	before := memberValue{timeout: -1}
	if m != nil {
		before = m.memberValue
		b.was = m.assigned
	} else if replaced != nil {
		before = replaced.memberValue
	}
	isNew := m == nil && replaced == nil
	said := b.said(before)
	if refused := d.refuses(b, isNew, before, said); refused != nil {
		return refused
	}
	back := m != nil && b.req.MemberEpoch == epochJoin && m.epoch != epochJoin && m.previous != epochJoin
	d.settle(b.req.MemberID, said, m, replaced, back)
	d.learn(b, said)

	moved := isNew || replaced != nil && d.c.planning || !slices.Equal(before.topics, said.topics) ||
		text(before.regex) != text(said.regex) || text(before.assignor) != text(said.assignor)
	d.advance(moved)
	d.c.touchLocked(b.req.MemberID) // it lives, however long the journal takes
	if (moved || b.req.MemberEpoch == epochJoin) && d.epoch > d.targetEpoch {
		return b.awaits(d.c, d.epoch) // whoever has changed the target waits for it
	}
	return d.place(b)
}

// respond begins the answer that b gets when its step's records are durable.
func (b *beat) respond() {
	b.resp = kmsg.NewPtrConsumerGroupHeartbeatResponse()
	b.resp.Version, b.resp.MemberID, b.resp.MemberEpoch = b.req.Version, &b.req.MemberID, b.req.MemberEpoch
}

// refusal is what follows a step that answers b with an error, whatever becomes of the
// records of others in the draft.
func (b *beat) refusal(code protocol.Code, why string) func(error) {
	return func(error) { b.refuse(code, why) }
}

// leaves is the step of a member that leaves, for good or, if it is static, for a while.
func (d *draft) leaves(b *beat) func(error) {
	m, code := d.find(b.req.MemberID, b.req.InstanceID)
	if code != protocol.None {
		return b.refusal(code, "")
	}
	if b.req.MemberEpoch == epochLeaveStatic {
		next := m.currentValue
		next.epoch, next.previous = epochLeaveStatic, m.epoch
		// What it was to give back it has given back now: it is gone.
		next.state, next.revoking = memberStable, nil
		d.setCurrent(m, next)
		return b.done
	}
	after := d.take(m.id)
	return func(err error) {
		after(err)
		b.done(err)
	}
}

// identify finds the member that beats; nil: it is new. replaced is the static member
// whose place it takes. It checks the epoch that the member believes to be in.
func (d *draft) identify(b *beat) (m, replaced *consumerMember, refused func(error)) {
	req := b.req
	m = d.member(req.MemberID)
	switch {
	case req.InstanceID != nil:
		other := d.member(d.staticMember(*req.InstanceID))
		switch {
		case other != nil && other.id == req.MemberID:
		case req.MemberEpoch != epochJoin && other == nil:
			return nil, nil, b.refusal(protocol.UnknownMemberID, "Instance id "+*req.InstanceID+" is unknown.")
		case req.MemberEpoch != epochJoin:
			return nil, nil, b.refusal(protocol.FencedInstanceID, "Instance id "+*req.InstanceID+" belongs to another member.")
		case other != nil && other.epoch != epochLeaveStatic && other.classic == nil:
			return nil, nil, b.refusal(protocol.UnreleasedInstanceID, "Instance id "+*req.InstanceID+" is in use by "+other.id+".")
		case other != nil:
			replaced = other
		}
	case m == nil && req.MemberEpoch != epochJoin:
		return nil, nil, b.refusal(protocol.UnknownMemberID, "Member "+req.MemberID+" is not a member of group "+req.Group+".")
	}
	if m != nil && req.MemberEpoch != m.epoch && req.MemberEpoch != epochJoin {
		if req.MemberEpoch != m.previous || req.Topics == nil || len(b.holds().without(m.assigned)) > 0 || m.epoch < 0 {
			return nil, nil, b.refusal(protocol.FencedMemberEpoch, "The member's epoch is not the one the coordinator knows. It must give up all its partitions and join again.")
		}
	}
	return m, replaced, nil
}

// said returns what the member says of itself: what it does not say is as before.
func (b *beat) said(before memberValue) memberValue {
	req, v := b.req, before
	v.client, v.classic = b.client, nil
	if req.InstanceID != nil {
		v.instanceID = req.InstanceID
	}
	if req.RackID != nil {
		v.rackID = req.RackID
	}
	if req.RebalanceTimeoutMillis != -1 {
		v.timeout = req.RebalanceTimeoutMillis
	}
	if req.ServerAssignor != nil {
		v.assignor = req.ServerAssignor
	}
	if req.SubscribedTopicNames != nil {
		v.topics = slices.Clone(req.SubscribedTopicNames)
		slices.Sort(v.topics)
		v.topics = slices.Compact(v.topics)
	}
	if req.SubscribedTopicRegex != nil {
		v.regex = req.SubscribedTopicRegex
	}
	return v
}

// refuses returns what follows where the group has no room for a member as it says it
// is, or does not know its expression any more; nil: it has.
func (d *draft) refuses(b *beat, isNew bool, before, said memberValue) func(error) {
	set := d.c.shard.c.settings()
	if isNew && d.size >= set.Consumer.MaxSize {
		return b.refusal(protocol.GroupMaxSizeReached, "The group is full.")
	}
	grow := (&consumerMember{id: b.req.MemberID, memberValue: said}).cost()
	if !isNew { // it may come from elsewhere, under another name
		before.client = said.client
		grow -= (&consumerMember{id: b.req.MemberID, memberValue: before}).cost()
	}
	if !d.c.fitsLocked(b.client.Host, grow) {
		return b.refusal(protocol.GroupMaxSizeReached, "The members of the group take too much room.")
	}
	if b.req.SubscribedTopicRegex != nil && *said.regex != "" && !b.matched && d.regex(*said.regex) == nil {
		return b.refusal(protocol.CoordinatorNotAvailable, "") // the last member that had it went just now; the client asks again
	}
	return nil
}

// learn puts what a member's expression matches, unless the group knows it.
func (d *draft) learn(b *beat, said memberValue) {
	if said.regex != nil && *said.regex != "" && d.regex(*said.regex) == nil {
		d.put(regexKey, *said.regex, regexValue{topics: b.matches, version: millis(d.now), at: millis(d.now)}.append(nil))
	}
}

// advance begins an epoch if a member moved the group, or topics have changed, and
// plans for it if that is done at once.
func (d *draft) advance(moved bool) {
	if changed := d.c.topicsChangedLocked(); moved || changed && d.topicHash() != d.hash {
		d.bump()
	}
	d.replan()
}

// awaits is what follows a step whose member is to wait for the target of an epoch.
func (b *beat) awaits(c *consumerGroup, epoch int32) func(error) {
	return func(err error) {
		if err != nil {
			b.fail(codeOf(err))
			return
		}
		c.touchLocked(b.req.MemberID)
		c.parkLocked(epoch, &placing{b, c})
	}
}

// settle puts what a member says of itself, and what it has: as before, or what the
// member had that it replaces, whose process is gone. One that is back without what
// it had owns nothing, whatever it had.
func (d *draft) settle(id string, v memberValue, m, replaced *consumerMember, back bool) {
	var current currentValue
	var target assignment
	switch {
	case replaced != nil:
		current = currentValue{assigned: replaced.assigned}
		target = d.target(replaced.id)
		d.remove(replaced.id)
	case back:
		current = currentValue{assigned: m.assigned}
	case m != nil:
		current = m.currentValue
	}
	if m == nil || string(v.append(nil)) != string(m.memberValue.append(nil)) {
		d.put(memberKey, id, v.append(nil))
	}
	d.setCurrent(d.member(id), current)
	if target != nil {
		d.put(targetKey, id, appendTarget(nil, target))
	}
}

// A placing is the second step of a beat that had to wait for a target.
type placing struct {
	*beat
	c *consumerGroup
}

// againLocked implements step.
func (p *placing) againLocked() {
	if !p.c.currentLocked() {
		p.beat.againLocked() // of another type meanwhile
		return
	}
	p.c.stepLocked(p)
}

// on implements step.
func (p *placing) on(d *draft) func(error) {
	if d.member(p.req.MemberID) == nil {
		return p.refusal(protocol.UnknownMemberID, "The member left while it joined.")
	}
	p.respond()
	return d.place(p.beat)
}

// place brings the member that beats nearer to its target, and fills its answer.
func (d *draft) place(b *beat) func(error) {
	req, resp, c := b.req, b.resp, d.c
	if m := d.member(req.MemberID); m.epoch != d.targetEpoch || m.state != memberStable {
		d.reconcile(req.MemberID, b.holds())
	}
	now := d.member(req.MemberID)
	resp.MemberEpoch = now.epoch
	resp.HeartbeatIntervalMillis = int32(c.shard.c.groupSettings(c.group.id).HeartbeatInterval / time.Millisecond)
	full := req.RebalanceTimeoutMillis != -1 && (req.SubscribedTopicNames != nil || req.SubscribedTopicRegex != nil) && req.Topics != nil
	if req.MemberEpoch == epochJoin || full || !b.was.equal(now.assigned) {
		resp.Assignment = &kmsg.ConsumerGroupHeartbeatResponseAssignment{Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{}}
		for _, topic := range now.assigned.topics() {
			resp.Assignment.Topics = append(resp.Assignment.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{TopicID: topic, Partitions: now.assigned[topic]})
		}
	}
	return func(err error) {
		if err == nil {
			c.touchLocked(req.MemberID)
			c.afterStep(nil)
			if m := c.members[req.MemberID]; m != nil && text(m.regex) != "" {
				c.resolveLocked(b.sight)
			}
		}
		b.done(err)
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

package group

import (
	"maps"
	"slices"
	"strings"
	"time"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// Groups change their type while members are in them, as far as
// group.consumer.migration.policy lets them (KIP-848):
//
//	a consumer joins a classic group of consumers     the group becomes a consumer group;
//	                                                  who was in it goes on by the classic protocol
//	the last consumer leaves a consumer group         it becomes a classic one, whose members
//	and members of the classic protocol stay          are asked to join again
//
// Either is one batch of records: the old type's end, the new one's beginning, and
// the step that brought it about. A coordinator that takes over finds one or the other.

// upgradeLocked makes a classic group a consumer group and lets b join it.
func (s *shard) upgradeLocked(old *classicGroup, b *beat) {
	g := old.group
	if old.empty() {
		s.retypeLocked(old, b)
		return
	}
	if old.storing > 0 {
		// Its leader's assignment may be about to be shown.
		old.onStored = append(old.onStored, func(error) { s.beatLocked(b) })
		return
	}
	set := s.c.settings().Consumer
	c := newConsumer(g)
	switch {
	case !set.upgrades():
		s.Log.Info("the group stays classic: its migration is disabled", "group", g.id, "policy", set.MigrationPolicy)
	case old.kindOf != consumerProtocol:
		s.Log.Info("the group stays classic: its members are no consumers", "group", g.id, "type", old.kindOf)
	case len(old.members) > set.MaxSize:
		s.Log.Info("the group stays classic: it is larger than a consumer group may be", "group", g.id, "members", len(old.members))
	case !c.adopt(old):
		s.Log.Info("the group stays classic: the metadata of a member cannot be read", "group", g.id)
	default:
		c.beginLocked(old, b)
		return
	}
	b.refuse(protocol.GroupIDNotFound, "Group "+g.id+" is not a consumer group.")
}

// retypeLocked makes a classic group that nobody is in a consumer group and lets b
// join it.
func (s *shard) retypeLocked(old *classicGroup, b *beat) {
	old.group.dead = true
	s.AppendLocked([]record.Record{classicTombstone(s.Now(), old.group.id)}, &retyping{old, b})
}

// A retyping is a classic group whose end is on its way to the journal, and the beat that
// is the first of the consumer group that follows it.
type retyping struct {
	old *classicGroup
	b   *beat
}

// AppendedLocked implements coordinator.Appender.
func (r *retyping) AppendedLocked(err error) {
	g := r.old.group
	g.dead = false
	if err != nil {
		r.b.fail(codeOf(err))
		return
	}
	r.old.stopLocked(protocol.CoordinatorNotAvailable)
	g.members = newConsumer(g)
	r.b.againLocked()
}

// adopt takes over the members of a classic group as it is: its generation is the
// epoch of all, what they have is what the leader gave them. One that has yet to get
// its first generation is left out; it joins again and is new. False: some member
// cannot be read.
//
// While a generation is being made, what a member has is not known to be given by
// anybody: then it is what it says it still owns.
func (c *consumerGroup) adopt(old *classicGroup) bool {
	c.epoch, c.targetEpoch, c.known = old.generation, old.generation, true
	for _, m := range old.inOrder() {
		if m.isNew {
			continue
		}
		metadata := m.metadata(old.protocol)
		if metadata == nil && len(m.protocols) > 0 {
			metadata = m.protocols[0].metadata
		}
		said, ok := readSubscription(metadata)
		if !ok {
			return false
		}
		has, ok := c.shard.decodeAssignment(m.assignment)
		if !ok {
			return false
		}
		if old.phase != stable {
			has = has.plus(c.shard.owns(said))
		}
		v := memberValue{
			instanceID: m.instanceID, rackID: said.rack, client: m.client, topics: said.topics,
			timeout: int32(m.timeout.Milliseconds()),
			classic: &classicValue{session: int32(m.session.Milliseconds()), protocols: inFront(m.protocols, old.protocol)},
		}
		c.setMember(m.id, &consumerMember{id: m.id, memberValue: v, set: c.setOf(v.topics),
			currentValue: currentValue{epoch: c.epoch, previous: c.epoch, assigned: has}})
		if v.instanceID != nil {
			c.setStatic(*v.instanceID, m.id)
		}
		c.setTarget(m.id, has)
	}
	return true
}

// inFront returns protocols with one in front: what a member speaks in a consumer
// group is its first.
func inFront(protocols []memberProtocol, name string) []memberProtocol {
	i := slices.IndexFunc(protocols, func(p memberProtocol) bool { return p.name == name })
	if i <= 0 {
		return protocols
	}
	return append([]memberProtocol{protocols[i]}, slices.Delete(slices.Clone(protocols), i, i+1)...)
}

// beginLocked has the journal keep what adopt took over, and b's step with it. From
// now on members speak to c, whose state says nothing that is not so already; if the
// journal refuses, the old group goes on.
func (c *consumerGroup) beginLocked(old *classicGroup, b *beat) {
	s, g := c.shard, c.group
	d := c.draft()
	d.records = append(d.records, classicTombstone(d.now, g.id))
	members := slices.Sorted(maps.Keys(c.members))
	for _, id := range members {
		d.record(memberKey, id, c.members[id].memberValue.append(nil))
	}
	d.record(groupEpochKey, "", groupEpochValue{epoch: c.epoch}.append(nil))
	for _, id := range members {
		d.record(targetKey, id, appendTarget(nil, c.target(id)))
	}
	d.record(targetEpochKey, "", targetEpochValue(c.targetEpoch).append(nil))
	for _, id := range members {
		d.record(currentKey, id, c.members[id].currentValue.append(nil))
	}
	own := len(d.records)

	g.members = c
	c.open = d
	c.stepLocked(b)
	c.open = nil
	if len(d.records) == own { // b was refused: nothing begins
		g.members = old
		for _, after := range d.afters {
			after(nil)
		}
		return
	}
	s.Log.Info("the group becomes a consumer group", "group", g.id, "generation", old.generation, "members", len(members))
	old.stopLocked(protocol.RebalanceInProgress)
	for id, m := range c.members {
		c.chargeLocked(m.client.Host, m.cost())
		c.touchLocked(id)
		if old.phase != stable {
			c.rejoinLocked(id)
		}
	}
	// The first to hear of it: whoever speaks to c while it is not sure to be goes back
	// to the old group with it.
	d.afters = append([]func(error){func(err error) {
		if err == nil || s.EndedLocked() || !c.currentLocked() {
			return
		}
		c.retireLocked()
		g.members = old
		old.resumeLocked()
	}}, d.afters...)
	c.flushLocked(d)
}

// resumeLocked lets a group go on that was stopped.
func (c *classicGroup) resumeLocked() {
	for _, m := range c.inOrder() {
		m.bytes = 0
		if m.isNew {
			c.removeLocked(m, protocol.UnknownMemberID)
			continue
		}
		c.recostLocked(m)
		c.touchLocked(m)
	}
	if c.phase != empty {
		c.phase = stable
		c.prepareLocked("the group could not change its type")
	}
}

// downgrade makes the group a classic one if id, which goes, is its last consumer
// and others stay. It returns nil if that is not so, or not to be.
func (d *draft) downgrade(id string) (after func(error)) {
	m := d.member(id)
	if m.classic != nil || d.size < 2 || d.classics != d.size-1 || !d.mayDowngrade(d.size-1) {
		return nil
	}
	d.remove(id)
	old := d.toClassic()
	return func(err error) {
		if err != nil || d.c.shard.EndedLocked() || !d.c.currentLocked() {
			return
		}
		d.c.becomeLocked(old)
		old.prepareLocked("the last consumer left, the group is classic again")
	}
}

// downgradeFor makes the group a classic one if the static member that j replaced
// was its last consumer. The group is stable then, j's member has what that had.
func (d *draft) downgradeFor(j *classicJoin) (after func(error)) {
	if d.classics != d.size || !d.mayDowngrade(d.size) {
		return nil
	}
	old := d.toClassic()
	return func(err error) {
		if err != nil {
			j.fail(codeOf(err))
			return
		}
		if d.c.shard.EndedLocked() || !d.c.currentLocked() {
			j.fail(protocol.NotCoordinator)
			return
		}
		d.c.becomeLocked(old)
		j.call.req.MemberID = j.id // it is in already
		old.prepareLocked("the last consumer became classic")
		old.rejoinLocked(j.call, old.members[j.id])
	}
}

func (d *draft) mayDowngrade(members int) bool {
	set := d.c.shard.c.settings()
	switch {
	case !set.Consumer.downgrades():
		d.c.shard.Log.Info("the group stays a consumer group: its migration is disabled", "group", d.c.group.id, "policy", set.Consumer.MigrationPolicy)
	case members > set.MaxSize:
		d.c.shard.Log.Info("the group stays a consumer group: it is larger than a classic one may be", "group", d.c.group.id, "members", members)
	default:
		return true
	}
	return false
}

// toClassic ends the draft's group and returns the classic one that follows it, of
// the members that are left, all of the classic protocol. Its generation is the
// group's epoch. The journal is told the next: whoever loads it before all have
// joined again must not take them for a group that has nothing to do.
func (d *draft) toClassic() *classicGroup {
	s := d.c.shard
	old := newClassic(d.c.group)
	old.kindOf, old.generation, old.phase = consumerProtocol, d.epoch, stable
	old.persisted, old.stored = true, d.epoch+1
	var members []*consumerMember
	d.each(func(m *consumerMember) { members = append(members, m) })
	slices.SortFunc(members, func(a, b *consumerMember) int { return strings.Compare(a.id, b.id) })
	assignments := make(map[string][]byte)
	for _, m := range members {
		version := int16(0)
		if len(m.classic.protocols) > 0 {
			said, _ := readSubscription(m.classic.protocols[0].metadata)
			version = said.version
		}
		assignments[m.id] = s.encodeAssignment(d.target(m.id), version)
		cm := &member{
			id: m.id, instanceID: m.instanceID, client: m.client, protocols: m.classic.protocols, assignment: assignments[m.id],
			session: time.Duration(m.classic.session) * time.Millisecond, timeout: time.Duration(m.timeout) * time.Millisecond,
		}
		if cm.timeout <= 0 {
			cm.timeout = cm.session
		}
		old.enlistLocked(cm)
	}
	old.protocol = old.selectProtocol()
	old.topics = old.subscribedTopics()
	d.end()
	old.generation++
	d.records = append(d.records, old.valueLocked(assignments))
	old.generation--
	d.closed = true
	return old
}

// becomeLocked puts a classic group in the place of c.
func (c *consumerGroup) becomeLocked(old *classicGroup) {
	c.shard.Log.Info("the group becomes a classic group", "group", c.group.id, "generation", old.generation, "members", len(old.members))
	c.group.members = old
	old.since = c.shard.Now()
	c.retireLocked()
	for _, m := range old.inOrder() {
		old.recostLocked(m)
		old.touchLocked(m)
	}
}

// retireLocked gives up what a group has that is no more. Steps that wait try again,
// from the top.
func (c *consumerGroup) retireLocked() {
	queue := c.queue
	for _, p := range c.parked {
		queue = append(queue, p.step)
	}
	c.queue, c.parked = nil, nil
	c.stopLocked(protocol.CoordinatorNotAvailable)
	c.queue = queue
}

package group

import (
	"slices"
	"time"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// A consumerGroup is the membership of the consumer protocol (KIP-848): members
// say what they subscribe to, the coordinator assigns.
//
// There are three epochs. The group's grows whenever members, subscriptions or
// topics change. The target assignment's follows when the target is computed for
// it. A member's follows when it has given back what the target does not give it.
//
//	stable ──target moved──► unrevoked ──gave back──► unreleased ──others gave back──► stable
//
// A partition goes to a member only when no other has it, assigned or yet to be
// given back: that is the whole of the safety.
//
// State is what the journal's records say and nothing else: a step works on a
// draft, writes records into it, and the draft becomes the state when a quorum has
// them. The target is computed outside the shard's lock (planner), so that a large group
// keeps no other waiting.
type consumerGroup struct {
	base
	consumerState // what the journal says
	steps         // what is being made of it
	planner       // who computes the target
	resolver      // who matches expressions again

	seats   map[string]*seat // by member id
	since   time.Time        // when it became empty, or was loaded
	changed <-chan struct{}  // of Topics, from before the last look at them; nil: not looked yet
}

func newConsumer(g *group) *consumerGroup {
	c := &consumerGroup{
		base: base{group: g, shard: g.shard}, consumerState: newConsumerState(), seats: make(map[string]*seat), since: g.shard.Now(),
	}
	c.steps.of, c.planner.of, c.resolver.of = c, c, c
	return c
}

// currentLocked reports whether the group is still this one, and not of another type.
func (c *consumerGroup) currentLocked() bool { return c.group.members == membership(c) }

func (c *consumerGroup) kind() string         { return "consumer" }
func (c *consumerGroup) protocolType() string { return consumerProtocol }
func (c *consumerGroup) empty() bool {
	return c.size == 0 && !c.busy && (c.open == nil || len(c.open.records) == 0)
}

func (c *consumerGroup) nothing() bool {
	return c.size == 0 && !c.known && !c.busy && len(c.queue) == 0
}

func (c *consumerGroup) state() string {
	switch {
	case c.size == 0:
		return "Empty"
	case c.epoch > c.targetEpoch:
		return "Assigning"
	}
	for _, m := range c.members {
		if m.state != memberStable || m.epoch != c.targetEpoch {
			return "Reconciling"
		}
	}
	return "Stable"
}

func (c *consumerGroup) mayCommit(memberID string, instanceID *string, epoch int32) protocol.Code {
	if epoch < 0 && c.size == 0 && !c.busy {
		return protocol.None
	}
	m, code := c.find(memberID, instanceID)
	switch {
	case code != protocol.None:
		return code
	case m.epoch == epoch:
		if m.classic != nil {
			c.touchLocked(memberID)
		}
		return protocol.None
	case m.classic != nil:
		return protocol.IllegalGeneration
	default:
		return protocol.StaleMemberEpoch
	}
}

func (c *consumerGroup) mayFetch(memberID *string, epoch int32) protocol.Code {
	if memberID == nil {
		return protocol.None // before v9, or an operator
	}
	m := c.members[*memberID]
	switch {
	case m == nil:
		return protocol.UnknownMemberID
	case m.epoch == epoch:
		return protocol.None
	case m.classic != nil:
		return protocol.IllegalGeneration
	default:
		return protocol.StaleMemberEpoch
	}
}

func (c *consumerGroup) subscribed(topic string) bool {
	if c.names[topic] > 0 {
		return true
	}
	for regex, v := range c.regexes {
		if _, ok := slices.BinarySearch(v.topics, topic); ok && c.patterns[regex] > 0 {
			return true
		}
	}
	return false
}

func (c *consumerGroup) idleSince(o committed) (int64, bool) {
	if c.size == 0 {
		return max(millis(c.since), o.committedAt), true
	}
	return o.committedAt, true // asked only about topics nobody subscribes to
}

func (c *consumerGroup) tombstones(time.Time) []record.Record {
	if !c.known {
		return nil
	}
	d := c.draft()
	d.end()
	return d.records
}

func (c *consumerGroup) startLocked() {
	for id, m := range c.members {
		c.chargeLocked(m.client.Host, m.cost())
		c.touchLocked(id)
		if m.state == memberUnrevoked && m.classic == nil {
			c.revokeLocked(id)
		}
	}
	c.since = c.shard.Now()
}

func (c *consumerGroup) stopLocked(code protocol.Code) {
	for _, seat := range c.seats {
		seat.stopLocked(c.shard)
	}
	clear(c.seats)
	queue, wait := c.queue, c.parked
	c.queue, c.parked = nil, nil
	for _, w := range queue {
		w.fail(code)
	}
	for _, p := range wait {
		p.fail(code)
	}
	for _, m := range c.members {
		if c.bytes > 0 { // not while it loads
			c.chargeLocked(m.client.Host, -m.cost())
		}
	}
}

// applyConsumerLocked replays one record of a consumer group.
func (s *shard) applyConsumerLocked(k key, value []byte) error {
	id, name, err := parseConsumerKey(k.version, k.rest)
	if err != nil {
		return err
	}
	g := s.groupLocked(id)
	if g == nil {
		if value == nil {
			return nil
		}
		g = s.createLocked(id)
	}
	c, ok := g.members.(*consumerGroup)
	if !ok {
		if value == nil {
			return nil
		}
		g.members.stopLocked(protocol.NotCoordinator)
		c = newConsumer(g)
		g.members = c
	}
	if err := c.apply(k.version, name, value); err != nil {
		return err
	}
	if k.version == groupEpochKey && value == nil {
		fresh := newClassic(g) // a name, until somebody joins by either protocol
		c.stopLocked(protocol.CoordinatorNotAvailable)
		g.members = fresh
		if s.Loading() {
			s.dropIfNothingLocked(g)
		}
	}
	return nil
}

func (m *consumerMember) cost() int {
	n := memberOverhead + 2*len(m.id) + len(m.client.ID) + len(m.client.Host)
	for _, t := range m.topics {
		n += 16 + len(t)
	}
	if m.regex != nil {
		n += len(*m.regex)
	}
	if m.classic != nil {
		for _, p := range m.classic.protocols {
			n += 64 + len(p.name) + len(p.metadata)
		}
	}
	return n + 4*(m.assigned.count()+m.revoking.count())
}

func (c *consumerGroup) topic(name string) (uuid, int32, bool) {
	if c.shard.c.cfg.Topics == nil {
		return uuid{}, 0, false
	}
	return c.shard.c.cfg.Topics.Topic(name)
}

// topicsChangedLocked reports whether there may be newer topics than at the last
// look. The channel is taken before the look, so that no change is missed.
func (c *consumerGroup) topicsChangedLocked() bool {
	if c.shard.c.cfg.Topics == nil {
		return false
	}
	if !over(c.changed) {
		return false
	}
	c.changed = c.shard.c.cfg.Topics.Changed()
	return true
}

// over reports whether a channel is closed, or is none.
func over(c <-chan struct{}) bool {
	if c == nil {
		return true
	}
	select {
	case <-c:
		return true
	default:
		return false
	}
}

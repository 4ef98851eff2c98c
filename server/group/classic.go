package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// A classicGroup is the membership of the classic protocol: clients join, one of them,
// the leader, assigns.
//
// The journal has a record of the group for each stable generation, written before any
// member learns its assignment, and one when the group becomes empty.
type classicGroup struct {
	base
	roster      // who is in it
	generations // which generation it is in, and what the journal has
	rebalance   // how it gets to the next

	pending  pendingMembers  // who is about to join
	kindOf   string          // the protocol type; "": nobody has ever joined
	protocol string          // what the generation's members agreed on; "": nothing
	leader   string          // of the generation, by member id
	topics   map[string]bool // what members subscribe to; nil: not known
}

func newClassic(g *group) *classicGroup {
	c := &classicGroup{base: base{group: g, shard: g.shard}, roster: newRoster()}
	c.generations.of = c
	c.pending = pendingMembers{of: c, byID: make(map[[16]byte]*pendingMember)}
	c.rebalance = rebalance{of: c, phase: empty, since: g.shard.Now(), unsynced: make(map[string]bool)}
	c.syncs.Ringer = syncsEnd{&c.rebalance}
	return c
}

func (c *classicGroup) kind() string         { return "classic" }
func (c *classicGroup) state() string        { return string(c.phase) }
func (c *classicGroup) protocolType() string { return c.kindOf }
func (c *classicGroup) empty() bool          { return c.phase == empty }

func (c *classicGroup) nothing() bool {
	return c.phase == empty && !c.pending.any() && !c.persisted && c.storing == 0
}

func (c *classicGroup) mayCommit(memberID string, instanceID *string, generation int32) protocol.Code {
	switch {
	case generation < 0 && c.phase == empty:
		return protocol.None
	case generation < 0 && memberID == "" && instanceID == nil:
		return protocol.UnknownMemberID
	}
	if code := c.check(memberID, instanceID); code != protocol.None {
		return code
	}
	if generation != c.generation {
		return protocol.IllegalGeneration
	}
	if c.phase == completing {
		return protocol.RebalanceInProgress
	}
	c.touchLocked(c.members[memberID])
	return protocol.None
}

func (c *classicGroup) mayFetch(*string, int32) protocol.Code { return protocol.None }

func (c *classicGroup) subscribed(topic string) bool {
	if c.topics == nil {
		return c.kindOf == consumerProtocol
	}
	return c.topics[topic]
}

func (c *classicGroup) idleSince(o committed) (int64, bool) {
	switch {
	case c.kindOf == "": // offsets only: from the commit
		return o.committedAt, true
	case c.phase == empty: // from when the last member went (KIP-211)
		return max(millis(c.since), o.committedAt), true
	case c.phase == stable && c.kindOf == consumerProtocol && c.topics != nil:
		return o.committedAt, true // asked only about topics nobody subscribes to
	default:
		return 0, false
	}
}

func (c *classicGroup) tombstones(now time.Time) []record.Record {
	if !c.persisted {
		return nil
	}
	return []record.Record{classicTombstone(now, c.group.id)}
}

func (c *classicGroup) startLocked() {
	for _, m := range c.members {
		c.touchLocked(m)
	}
	if c.phase == stable && len(c.members) > c.shard.c.settings().MaxSize {
		c.prepareLocked("the loaded group is over its size")
	}
}

func (c *classicGroup) stopLocked(code protocol.Code) {
	for _, m := range c.members {
		c.shard.StopLocked(&m.expiry)
		c.answerJoin(m, joinFailure(m.join, code, m.id))
		c.answerSync(m, code)
	}
	c.pending.dropAllLocked()
	c.shard.StopLocked(&c.joins)
	c.shard.StopLocked(&c.syncs)
	for _, m := range c.members {
		c.chargeLocked(m.client.Host, -m.bytes)
		m.bytes = 0
	}
}

// applyClassicLocked replays one metadata record.
func (s *shard) applyClassicLocked(id string, value []byte) error {
	if value == nil {
		g := s.groupLocked(id)
		if g == nil {
			return nil
		}
		if c, ok := g.members.(*classicGroup); ok {
			c.stopLocked(protocol.CoordinatorNotAvailable)
			g.members = newClassic(g)
		}
		if s.Loading() {
			s.dropIfNothingLocked(g)
		}
		return nil
	}
	v, err := parseClassic(value)
	if err != nil {
		return err
	}
	g := s.createLocked(id)
	g.members.stopLocked(protocol.NotCoordinator)
	c := newClassic(g)
	g.members = c
	c.loaded, c.persisted, c.stored = true, true, v.Generation
	c.generation, c.kindOf = v.Generation, v.ProtocolType
	if v.CurrentStateTimestamp > 0 {
		c.since = time.UnixMilli(v.CurrentStateTimestamp)
	}
	if len(v.Members) == 0 {
		if c.kindOf == consumerProtocol {
			c.topics = make(map[string]bool)
		}
		return nil
	}
	c.phase = stable
	if v.Protocol != nil {
		c.protocol = *v.Protocol
	}
	if v.Leader != nil {
		c.leader = *v.Leader
	}
	for _, vm := range v.Members {
		m := &member{
			id: vm.MemberID, instanceID: vm.InstanceID, client: Client{vm.ClientID, vm.ClientHost},
			session:    time.Duration(vm.SessionTimeoutMillis) * time.Millisecond,
			timeout:    time.Duration(vm.RebalanceTimeoutMillis) * time.Millisecond,
			protocols:  []memberProtocol{{c.protocol, slices.Clone(vm.Subscription)}},
			assignment: slices.Clone(vm.Assignment),
		}
		if v.Version < 1 {
			m.timeout = m.session
		}
		if c.members[m.id] == nil {
			c.addLocked(m)
		}
	}
	c.topics = c.subscribedTopics()
	return nil
}

// valueLocked is the group as the journal keeps it. assignments, if not nil, are
// those the members are about to get.
func (c *classicGroup) valueLocked(assignments map[string][]byte) record.Record {
	now := c.shard.Now()
	v := kmsg.NewGroupMetadataValue()
	v.Version = 3
	v.ProtocolType, v.Generation, v.CurrentStateTimestamp = c.kindOf, c.generation, millis(c.since)
	if c.protocol != "" {
		v.Protocol = &c.protocol
	}
	if c.leader != "" {
		v.Leader = &c.leader
	}
	for _, m := range c.inOrder() {
		vm := kmsg.NewGroupMetadataValueMember()
		vm.MemberID, vm.InstanceID, vm.ClientID, vm.ClientHost = m.id, m.instanceID, m.client.ID, m.client.Host
		vm.SessionTimeoutMillis = int32(m.session.Milliseconds())
		vm.RebalanceTimeoutMillis = int32(m.timeout.Milliseconds())
		vm.Subscription, vm.Assignment = m.metadata(c.protocol), m.assignment
		if assignments != nil {
			vm.Assignment = assignments[m.id]
		}
		v.Members = append(v.Members, vm)
	}
	return record.Record{Timestamp: millis(now), Key: classicKey(c.group.id), Value: v.AppendTo(nil)}
}

// addLocked takes a member in.
func (c *classicGroup) addLocked(m *member) {
	c.enlistLocked(m)
	c.recostLocked(m)
}

// enlistLocked takes a member in that is not charged for yet.
func (c *classicGroup) enlistLocked(m *member) {
	m.of, m.expiry.Ringer = c, m
	c.enlist(m)
}

// removeLocked takes a member out and tells it so if it waits. What that means
// for the group is settleLocked's business.
func (c *classicGroup) removeLocked(m *member, code protocol.Code) {
	c.answerJoin(m, joinFailure(m.join, code, ""))
	c.answerSync(m, code)
	c.shard.StopLocked(&m.expiry)
	c.strike(m)
	delete(c.unsynced, m.id)
	c.chargeLocked(m.client.Host, -m.bytes)
}

// recostLocked charges what m holds now.
func (c *classicGroup) recostLocked(m *member) {
	n := m.cost()
	c.chargeLocked(m.client.Host, n-m.bytes)
	m.bytes = n
}

// touchLocked begins a member's session anew.
func (c *classicGroup) touchLocked(m *member) {
	c.shard.SetLocked(&m.expiry, c.shard.Now().Add(m.session))
}

// RingLocked is the end of a member's session. One that waits for an answer of ours is
// alive, unless it is new: then we cannot know, and it may have given up long ago.
func (m *member) RingLocked(time.Time) {
	if !m.isNew && (m.join != nil || m.sync != nil) {
		return // its answer begins a session
	}
	c := m.of
	c.shard.Log.Info("member is gone", "group", c.group.id, "member", m.id, "session", m.session)
	c.removeLocked(m, protocol.UnknownMemberID)
	c.settleLocked("a member's session expired")
}

// supports reports whether a client that speaks these protocols may join.
func (c *classicGroup) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if c.phase == empty || len(c.members) == 0 {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == c.kindOf && c.supportsOneOf(protocols)
}

// subscribedTopics returns the topics that members read; nil if that cannot be known.
func (c *classicGroup) subscribedTopics() map[string]bool {
	if c.kindOf != consumerProtocol {
		return nil
	}
	return c.subscriptions(c.protocol)
}

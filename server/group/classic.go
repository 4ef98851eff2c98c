package group

import (
	"cmp"
	"container/list"
	"crypto/rand"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// consumerProtocol is the protocol type of consumers, whose subscriptions we can
// read. Others (Connect's, Schema Registry's) are opaque.
const consumerProtocol = "consumer"

// A phase is where a classic group is in its life. Its text is what ListGroups
// and DescribeGroups say.
type phase string

const (
	empty      phase = "Empty"               // nobody; perhaps offsets
	preparing  phase = "PreparingRebalance"  // members are (re)joining
	completing phase = "CompletingRebalance" // all have joined; the leader computes
	stable     phase = "Stable"              // all may fetch their assignment
)

// A classicGroup is the membership of the classic protocol: clients join, one of
// them, the leader, assigns.
//
//	         join              all joined or time is up          leader syncs, journal has it
//	empty ──────────► preparing ──────────────► completing ──────────────────► stable
//	  ▲                 │  ▲                        │   join, leave, expiry       │
//	  └─────────────────┘  └────────────────────────┴─────────────────────────────┘
//	  nobody is left
//
// The journal has a record of the group for each stable generation, written before
// any member learns its assignment, and one when the group becomes empty.
//
// # Generations
//
// A generation is handed out by JoinGroup before the journal knows of it. A
// coordinator that takes over must not hand out the number again: two different
// memberships could then share generation and member id, and a late SyncGroup of
// the first would be taken for one of the second. So a coordinator hands out no
// generation beyond the journal's plus stride, and one that loads a group writes a
// generation beyond that down, and waits for it, before it hands out its first.
// Cost: generations jump by stride after a failover, the first rebalance then waits
// for one more append, and so does, in the background, every fiftieth of a group
// that never becomes stable. Groups the journal does not know need none of it:
// their member ids die with the coordinator that made them up.
type classicGroup struct {
	group  *group
	shard  *shard
	phase  phase
	since  time.Time // when phase began, by the wall clock after a load
	kindOf string    // the protocol type; "": nobody has ever joined

	generation int32
	loaded     bool  // generation is the journal's; later ones may have been handed out
	held       bool  // all have joined, but the journal has to know of the generation first
	marking    bool  // it is being told
	persisted  bool  // the journal has, or will have, a record of the group
	stored     int32 // the newest generation the journal has
	storing    int   // records on their way
	onStored   []func(error)

	protocol   string // what the generation's members agreed on; "": nothing
	leader     string
	members    map[string]*member
	static     map[string]string           // instance id to member id
	supported  map[string]int              // protocol to how many members support it
	waiting    int                         // members with a join call
	unsynced   map[string]bool             // members of this generation that have yet to sync
	pending    map[[16]byte]*pendingMember // by what was made up of the id
	line       list.List                   // pending, oldest first
	place      int                         // in the shard's pendings, from 1; 0: not there
	topics     map[string]bool             // what members subscribe to; nil: not known
	initial    bool                        // preparing began empty
	assigning  bool                        // the leader's assignment is on its way to the journal
	gone       bool                        // members have left, and settleLocked is to be called
	extend     bool                        // somebody came since the initial delay began
	delayLeft  time.Duration               // how much longer the initial delay may get
	rebalance  coordinator.Alarm           // ends preparing
	sync       coordinator.Alarm           // ends the wait for syncs
	bytes      int                         // what members hold
	nextJoined uint64
}

// stride bounds how far handed out generations run ahead of the journal.
const stride = 100

// A member is one client in a classic group.
type member struct {
	id         string
	instanceID *string // static membership (KIP-345); nil: dynamic
	client     Client
	joined     uint64 // the order in which members came; the first leads
	session    time.Duration
	timeout    time.Duration    // for a rebalance
	protocols  []memberProtocol // in the order of preference
	assignment []byte
	isNew      bool // has not got an answer to a join yet
	join       *joinCall
	sync       *syncCall
	expiry     coordinator.Alarm
	bytes      int // what was charged for it
}

// A memberProtocol is one that a member speaks, with what it says in it.
type memberProtocol struct {
	name     string
	metadata []byte
}

// memberOverhead is about what a member takes besides its bytes.
const memberOverhead = 512

func (m *member) cost() int {
	n := memberOverhead + 2*len(m.id) + len(m.client.ID) + len(m.client.Host) + len(m.assignment)
	if m.instanceID != nil {
		n += 2 * len(*m.instanceID)
	}
	for _, p := range m.protocols {
		n += 64 + len(p.name) + len(p.metadata)
	}
	return n
}

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.name == protocol {
			return p.metadata
		}
	}
	return nil
}

// protocolsOf copies a request's protocols; of two with one name the first counts.
func protocolsOf(in []kmsg.JoinGroupRequestProtocol) []memberProtocol {
	seen := make(map[string]bool, len(in))
	out := make([]memberProtocol, 0, len(in))
	for _, p := range in {
		if !seen[p.Name] {
			seen[p.Name] = true
			out = append(out, memberProtocol{p.Name, slices.Clone(p.Metadata)})
		}
	}
	return out
}

func sameProtocols(a, b []memberProtocol) bool {
	return slices.EqualFunc(a, b, func(x, y memberProtocol) bool {
		return x.name == y.name && string(x.metadata) == string(y.metadata)
	})
}

func newClassic(g *group) *classicGroup {
	c := &classicGroup{
		group: g, shard: g.shard, phase: empty, since: g.shard.Now(),
		members: make(map[string]*member), static: make(map[string]string), supported: make(map[string]int),
		unsynced: make(map[string]bool), pending: make(map[[16]byte]*pendingMember),
	}
	c.sync.Ring = c.expireSyncsLocked
	return c
}

// ---- membership

func (c *classicGroup) kind() string         { return "classic" }
func (c *classicGroup) state() string        { return string(c.phase) }
func (c *classicGroup) protocolType() string { return c.kindOf }
func (c *classicGroup) empty() bool          { return c.phase == empty }

func (c *classicGroup) nothing() bool {
	return c.phase == empty && len(c.pending) == 0 && !c.persisted && c.storing == 0
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
		c.answerJoinLocked(m, joinFailure(m.join, code, m.id))
		c.answerSyncLocked(m, code)
	}
	for id := range c.pending {
		c.dropPendingLocked(id)
	}
	c.shard.StopLocked(&c.rebalance)
	c.shard.StopLocked(&c.sync)
	for _, m := range c.members {
		c.chargeLocked(m, -m.bytes)
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
	c.topics = c.subscriptions()
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

// storeLocked appends a record of the group in a generation.
func (c *classicGroup) storeLocked(generation int32, r record.Record, then func(error)) {
	was := c.persisted
	c.persisted = true // whatever becomes of it, a tombstone does no harm
	c.storing++
	c.shard.AppendLocked([]record.Record{r}, func(err error) {
		c.storing--
		if err == nil {
			c.stored = max(c.stored, generation)
		} else if !was && c.storing == 0 && c.stored == 0 {
			c.persisted = false
		}
		then(err)
		if c.storing == 0 {
			waiting := c.onStored
			c.onStored = nil
			for _, f := range waiting {
				f(err)
			}
		}
	})
}

// ---- members

// check is what every request of a member is held against.
func (c *classicGroup) check(memberID string, instanceID *string) protocol.Code {
	if instanceID != nil {
		known, ok := c.static[*instanceID]
		if !ok {
			return protocol.UnknownMemberID
		}
		if known != memberID {
			return protocol.FencedInstanceID
		}
	}
	if c.members[memberID] == nil {
		return protocol.UnknownMemberID
	}
	return protocol.None
}

// inOrder returns the members in the order in which they came.
func (c *classicGroup) inOrder() []*member {
	return slices.SortedFunc(maps.Values(c.members), func(a, b *member) int { return cmp.Compare(a.joined, b.joined) })
}

func (c *classicGroup) chargeLocked(m *member, n int) {
	c.bytes += n
	c.shard.chargeLocked(m.client.Host, n)
}

// fitsLocked tells whether a client's members may hold n more bytes.
func (c *classicGroup) fitsLocked(client Client, n int) bool {
	set := c.shard.c.settings()
	return n <= 0 || c.bytes+n <= set.MaxGroupBytes && c.shard.c.memory.fits(client.Host, n, set.MaxBytes)
}

// recostLocked charges what m holds now.
func (c *classicGroup) recostLocked(m *member) {
	n := m.cost()
	c.chargeLocked(m, n-m.bytes)
	m.bytes = n
}

func (c *classicGroup) addLocked(m *member) {
	c.enlist(m)
	c.recostLocked(m)
}

// enlist adds a member whose bytes are not charged yet.
func (c *classicGroup) enlist(m *member) {
	m.joined = c.nextJoined
	c.nextJoined++
	m.expiry.Ring = func(time.Time) { c.expireMemberLocked(m) }
	c.members[m.id] = m
	if m.instanceID != nil {
		c.static[*m.instanceID] = m.id
	}
	for _, p := range m.protocols {
		c.supported[p.name]++
	}
	if m.join != nil {
		c.waiting++
	}
}

// removeLocked takes a member out and tells it so if it waits. What that means
// for the group is settleLocked's business.
func (c *classicGroup) removeLocked(m *member, code protocol.Code) {
	c.answerJoinLocked(m, joinFailure(m.join, code, ""))
	c.answerSyncLocked(m, code)
	c.shard.StopLocked(&m.expiry)
	delete(c.members, m.id)
	delete(c.unsynced, m.id)
	if m.instanceID != nil && c.static[*m.instanceID] == m.id {
		delete(c.static, *m.instanceID)
	}
	c.unsupportLocked(m)
	c.chargeLocked(m, -m.bytes)
}

func (c *classicGroup) unsupportLocked(m *member) {
	for _, p := range m.protocols {
		if c.supported[p.name]--; c.supported[p.name] == 0 {
			delete(c.supported, p.name)
		}
	}
}

// touchLocked begins a member's session anew.
func (c *classicGroup) touchLocked(m *member) {
	c.shard.SetLocked(&m.expiry, c.shard.Now().Add(m.session))
}

// expireMemberLocked is the alarm of a member's session. One that waits for an
// answer of ours is alive, unless it is new: then we cannot know, and it may have
// given up long ago.
func (c *classicGroup) expireMemberLocked(m *member) {
	if !m.isNew && (m.join != nil || m.sync != nil) {
		return // its answer begins a session
	}
	c.shard.Log.Info("member is gone", "group", c.group.id, "member", m.id, "session", m.session)
	c.removeLocked(m, protocol.UnknownMemberID)
	c.settleLocked("a member's session expired")
}

// settleLocked does what follows when members or pending members went.
func (c *classicGroup) settleLocked(reason string) {
	switch c.phase {
	case stable, completing:
		c.prepareLocked(reason)
	case preparing:
		c.tryCompleteLocked()
	case empty:
		c.shard.dropIfNothingLocked(c.group)
	}
}

// rebalanceTimeout is the longest any member asks for.
func (c *classicGroup) rebalanceTimeout() time.Duration {
	var t time.Duration
	for _, m := range c.members {
		t = max(t, m.timeout)
	}
	return t
}

func (c *classicGroup) moveLocked(to phase) {
	c.phase, c.since = to, c.shard.Now()
}

// prepareLocked begins a rebalance.
func (c *classicGroup) prepareLocked(reason string) {
	c.shard.Log.Info("rebalancing", "group", c.group.id, "generation", c.generation, "members", len(c.members), "reason", reason)
	if c.phase == completing {
		c.propagateLocked(protocol.RebalanceInProgress)
	}
	c.shard.StopLocked(&c.sync)
	clear(c.unsynced)
	c.initial = c.phase == empty
	c.moveLocked(preparing)
	if !c.initial {
		c.rebalance.Ring = func(time.Time) { c.completeJoinLocked() }
		c.shard.SetLocked(&c.rebalance, c.shard.Now().Add(c.rebalanceTimeout()))
		c.tryCompleteLocked()
		return
	}
	// More members will come in a moment, most likely.
	limit := c.rebalanceTimeout()
	delay := min(c.shard.c.settings().InitialRebalanceDelay, limit)
	c.extend, c.delayLeft = false, limit-delay
	c.rebalance.Ring = func(now time.Time) {
		if !c.extend || c.delayLeft <= 0 {
			c.completeJoinLocked()
			return
		}
		more := min(c.shard.c.settings().InitialRebalanceDelay, c.delayLeft)
		c.extend, c.delayLeft = false, c.delayLeft-more
		c.shard.SetLocked(&c.rebalance, now.Add(more))
	}
	c.shard.SetLocked(&c.rebalance, c.shard.Now().Add(delay))
}

// tryCompleteLocked ends preparing if nobody is missing.
func (c *classicGroup) tryCompleteLocked() {
	switch {
	case c.phase != preparing || len(c.pending) > 0 && len(c.members) > 0:
	case len(c.members) == 0, !c.initial && c.waiting == len(c.members):
		c.completeJoinLocked()
	}
}

// completeJoinLocked ends preparing: whoever has not rejoined is out, unless it is
// static and its session goes on; the others learn the next generation.
func (c *classicGroup) completeJoinLocked() {
	c.shard.StopLocked(&c.rebalance)
	for _, m := range c.inOrder() {
		if m.join == nil && m.instanceID == nil {
			c.removeLocked(m, protocol.UnknownMemberID)
		}
	}
	members := c.inOrder()
	if len(members) > 0 && c.waiting == 0 {
		// Only static members, and none has come back: there is no leader. Wait
		// until one does or their sessions end.
		c.shard.SetLocked(&c.rebalance, c.shard.Now().Add(max(c.rebalanceTimeout(), time.Second)))
		return
	}
	c.held = len(members) > 0 && !c.nextGenerationLocked()
	if c.held {
		c.rebalance.Ring = func(time.Time) { c.completeJoinLocked() }
		c.shard.SetLocked(&c.rebalance, c.shard.Now().Add(time.Second))
		return
	}
	c.initial = false
	if len(members) == 0 {
		// Nobody learns this generation, so it may be handed out any number of times.
		c.generation++
		c.protocol, c.leader = "", ""
		c.topics = c.subscriptions()
		c.moveLocked(empty)
		if !c.persisted {
			c.shard.dropIfNothingLocked(c.group)
			return
		}
		// If this is refused, a coordinator that takes over finds the last members,
		// and their sessions end there.
		c.storeLocked(c.generation, c.valueLocked(nil), func(error) {})
		return
	}

	if l := c.members[c.leader]; l == nil || l.join == nil {
		for _, m := range members {
			if m.join != nil {
				c.leader = m.id
				break
			}
		}
	}
	c.protocol = c.selectProtocol()
	c.topics = c.subscriptions()
	c.moveLocked(completing)
	c.assigning = false
	for _, m := range members {
		m.assignment = nil
		c.recostLocked(m)
		c.unsynced[m.id] = true
		c.answerJoinLocked(m, c.joinResponse(m.join, m, c.leader, false))
		m.isNew = false
		c.touchLocked(m)
	}
	c.shard.SetLocked(&c.sync, c.shard.Now().Add(c.rebalanceTimeout()))
}

// nextGenerationLocked counts the generation up, if it may be handed out now. If
// not, the journal is being told how far we are, and completeJoinLocked is called
// again.
func (c *classicGroup) nextGenerationLocked() bool {
	switch {
	case c.generation >= math.MaxInt32-2*stride:
		c.generation, c.stored = 0, 0 // two thousand million rebalances ago
	case c.loaded:
		c.markLocked(c.generation + 1 + stride)
		return false
	case c.persisted && c.generation+1 > c.stored+stride:
		c.markLocked(c.generation + 1)
		return false
	case c.persisted && c.generation+1 == c.stored+stride/2:
		c.markLocked(c.generation + 1)
	}
	c.generation++
	return true
}

// markLocked writes a generation down without members: whoever loads it has them
// join again. A rebalance that waits for it goes on when a quorum has it, and tries
// again in a second if it was refused.
func (c *classicGroup) markLocked(generation int32) {
	if c.marking {
		return
	}
	c.marking = true
	now := c.shard.Now()
	v := kmsg.NewGroupMetadataValue()
	v.Version = 3
	v.ProtocolType, v.Generation, v.CurrentStateTimestamp = c.kindOf, generation, millis(now)
	r := record.Record{Timestamp: millis(now), Key: classicKey(c.group.id), Value: v.AppendTo(nil)}
	c.storeLocked(generation, r, func(err error) {
		c.marking = false
		if err != nil || c.shard.EndedLocked() {
			return
		}
		if c.generation < generation {
			c.generation, c.loaded = generation, false
		}
		if c.phase == preparing && c.held {
			c.completeJoinLocked()
		}
	})
}

// selectProtocol returns what most members like best of what all support. Members
// exist, and support something in common: a join that would end that is refused.
func (c *classicGroup) selectProtocol() string {
	votes := make(map[string]int)
	best := ""
	for _, m := range c.inOrder() {
		for _, p := range m.protocols {
			if c.supported[p.name] == len(c.members) {
				votes[p.name]++
				if best == "" || votes[p.name] > votes[best] {
					best = p.name
				}
				break
			}
		}
	}
	return best
}

// supports tells whether a client that speaks these protocols may join.
func (c *classicGroup) supports(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if c.phase == empty || len(c.members) == 0 {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == c.kindOf && slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return c.supported[p.Name] == len(c.members)
	})
}

// subscriptions returns the topics all members together subscribe to; nil if that
// cannot be known.
func (c *classicGroup) subscriptions() map[string]bool {
	if c.kindOf != consumerProtocol {
		return nil
	}
	topics := make(map[string]bool)
	for _, m := range c.members {
		own, ok := subscription(m.metadata(c.protocol))
		if !ok {
			return nil
		}
		for _, t := range own {
			topics[t] = true
		}
	}
	return topics
}

// subscription reads the topics out of a consumer's metadata. All versions of it
// begin alike.
func subscription(metadata []byte) (topics []string, ok bool) {
	r := kbin.Reader{Src: metadata}
	r.Int16()
	for n := r.ArrayLen(); n > 0 && r.Ok(); n-- {
		topics = append(topics, r.String())
	}
	return topics, r.Ok()
}

// maxIDName is how much of a client's name goes into its member id, which has to
// have room in a record's key.
const maxIDName = 1 << 10

// memberID makes up a member id nobody has.
func memberID(client Client, instanceID *string) string {
	name := client.ID
	if instanceID != nil {
		name = *instanceID
	}
	name = name[:min(len(name), maxIDName)]
	var u [16]byte
	rand.Read(u[:])
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80
	return fmt.Sprintf("%s-%x-%x-%x-%x-%x", name, u[:4], u[4:6], u[6:8], u[8:10], u[10:])
}

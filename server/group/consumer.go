package group

import (
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"millrace/segment/record"
	"millrace/server/coordinator"
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
// them. Meanwhile the group is busy, and further steps wait; all that wait make
// up the next draft together. Cost: one append at a time for each group, whatever
// the number of steps in it.
//
// The target is computed outside the shard's lock (plan.go), so that a large group
// keeps no other waiting.
type consumerGroup struct {
	group *group
	shard *shard
	consumerState
	since time.Time // when it became empty, or was loaded

	busy  bool
	open  *draft // that steps are being added to
	queue []waiting
	seats map[string]*seat
	bytes int

	planning bool     // the planner runs
	parked   []parked // steps that wait for a target

	changed <-chan struct{} // of Topics, from before the last look at them; nil: not looked yet

	resolving  bool            // the resolver runs
	resolvedAt time.Time       // when all expressions were resolved; zero: not here
	resolvedBy <-chan struct{} // of Topics, from before that
}

// A waiting step is tried again when the group is not busy any more, from the top:
// the group may be of another type by then.
type waiting struct {
	again func()
	fail  func(code protocol.Code)
}

// A parked step waits for the target of an epoch.
type parked struct {
	epoch int32
	waiting
}

// maxStep is about the most records of one draft. 2,000 joins wait for 10 appends.
const maxStep = 1000

// A seat is what a member has in memory only.
type seat struct {
	expiry coordinator.Alarm // its session
	revoke coordinator.Alarm // set while it is to give partitions back, or to join or sync by the classic protocol
}

// ---- membership

func newConsumer(g *group) *consumerGroup {
	return &consumerGroup{group: g, shard: g.shard, consumerState: newConsumerState(), since: g.shard.Now(), seats: make(map[string]*seat)}
}

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

// end puts what ends the group, with all its members.
func (d *draft) end() {
	var ids []string
	d.each(func(m *consumerMember) { ids = append(ids, m.id) })
	for _, id := range ids {
		d.remove(id)
	}
	for _, id := range d.allTargets() {
		d.put(targetKey, id, nil)
	}
	for _, regex := range d.allRegexes() {
		d.put(regexKey, regex, nil)
	}
	d.put(targetEpochKey, "", nil)
	if d.oldTopics {
		d.put(topicsKey, "", nil)
	}
	d.put(groupEpochKey, "", nil)
}

func (c *consumerGroup) startLocked() {
	for id, m := range c.members {
		c.chargeLocked(m, m.cost())
		c.touchLocked(id)
		if m.state == memberUnrevoked && m.classic == nil {
			c.revokeLocked(id)
		}
	}
	c.since = c.shard.Now()
}

func (c *consumerGroup) stopLocked(code protocol.Code) {
	for _, seat := range c.seats {
		c.shard.StopLocked(&seat.expiry)
		c.shard.StopLocked(&seat.revoke)
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
			c.chargeLocked(m, -m.cost())
		}
	}
}

// chargeLocked counts what a member takes.
func (c *consumerGroup) chargeLocked(m *consumerMember, n int) {
	c.bytes += n
	c.shard.chargeLocked(m.client.Host, n)
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

// ---- steps

// A draft is the state that steps make of the group's, with the records that say so.
type draft struct {
	consumerState
	c       *consumerGroup
	now     time.Time
	records []record.Record
	afters  []func(error) // what follows when the records are durable, or were refused
	closed  bool          // it ends the group as it is: no further steps
}

func (c *consumerGroup) draft() *draft {
	return &draft{consumerState: c.consumerState.over(), c: c, now: c.shard.Now()}
}

// put writes one record into the draft. value nil is a tombstone.
func (d *draft) put(version int16, name string, value []byte) {
	d.record(version, name, value)
	if err := d.apply(version, name, value); err != nil {
		panic(fmt.Sprintf("group: wrote record %d %q %x that cannot be read: %v", version, name, value, err))
	}
}

// record adds one record that says what the draft says already.
func (d *draft) record(version int16, name string, value []byte) {
	var rest []string
	if version != groupEpochKey && version != topicsKey && version != targetEpochKey {
		rest = []string{name}
	}
	d.records = append(d.records, record.Record{Timestamp: millis(d.now), Key: consumerKey(version, d.c.group.id, rest...), Value: value})
}

// remove takes a member out.
func (d *draft) remove(id string) {
	d.put(currentKey, id, nil)
	d.put(targetKey, id, nil)
	d.put(memberKey, id, nil)
}

// bump begins a new epoch of the group.
func (d *draft) bump() {
	if d.oldTopics {
		d.put(topicsKey, "", nil)
	}
	for _, regex := range d.allRegexes() {
		if d.usersOf(regex) == 0 {
			d.put(regexKey, regex, nil)
		}
	}
	d.put(groupEpochKey, "", groupEpochValue{d.epoch + 1, d.topicHash()}.append(nil))
}

// stepLocked runs step on a draft. after runs when the draft's records, if any,
// are durable or were refused; then the next steps may go.
func (c *consumerGroup) stepLocked(w waiting, step func(d *draft) (after func(error))) {
	d := c.open
	if c.busy || d != nil && d.closed {
		c.queue = append(c.queue, w)
		return
	}
	if d != nil {
		d.afters = append(d.afters, step(d))
		return
	}
	d = c.draft()
	d.afters = append(d.afters, step(d))
	c.flushLocked(d)
}

// flushLocked appends what is in d.
func (c *consumerGroup) flushLocked(d *draft) {
	if len(d.records) == 0 {
		c.overLocked(d, nil)
		return
	}
	c.busy = true
	c.shard.AppendLocked(d.records, func(err error) {
		c.busy = false
		if err != nil {
			c.changed = nil // topics are to be looked at again
		}
		if err == nil && c.group.members == membership(c) {
			c.mergeLocked(d)
		}
		c.overLocked(d, err)
	})
}

// overLocked tells the steps of d what came of it, and lets go who waits.
func (c *consumerGroup) overLocked(d *draft, err error) {
	for _, after := range d.afters {
		after(err)
	}
	for len(c.queue) > 0 && !c.busy && c.open == nil && !c.shard.EndedLocked() {
		queue := c.queue
		c.queue = nil
		if c.group.members != membership(c) {
			for _, w := range queue {
				w.again()
			}
			return
		}
		next := c.draft()
		c.open = next
		for i, w := range queue {
			if next.closed || len(next.records) >= maxStep {
				c.queue = append(c.queue, queue[i:]...)
				break
			}
			w.again()
		}
		c.open = nil
		c.flushLocked(next)
	}
}

// mergeLocked makes the draft the state, and brings seats in line with members.
func (c *consumerGroup) mergeLocked(d *draft) {
	for id, m := range d.members {
		if old := c.members[id]; old != nil {
			c.chargeLocked(old, -old.cost())
		}
		if m != nil {
			c.chargeLocked(m, m.cost())
		}
	}
	c.consumerState.merge(&d.consumerState)
	for id, m := range d.members {
		seat := c.seats[id]
		switch {
		case m == nil && seat != nil:
			c.shard.StopLocked(&seat.expiry)
			c.shard.StopLocked(&seat.revoke)
			delete(c.seats, id)
			continue
		case m == nil:
			continue
		case seat == nil:
			c.touchLocked(id)
			seat = c.seats[id]
		}
		switch {
		case m.classic != nil: // its joins and syncs set it
		case m.state != memberUnrevoked:
			c.shard.StopLocked(&seat.revoke)
		case !seat.revoke.IsSet():
			c.revokeLocked(id)
		}
	}
	if c.size == 0 {
		c.since = c.shard.Now()
	}
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

// touchLocked begins a member's session anew.
func (c *consumerGroup) touchLocked(id string) {
	m := c.members[id]
	if m == nil {
		return
	}
	seat := c.seats[id]
	if seat == nil {
		seat = newSeat(c, id)
		c.seats[id] = seat
	}
	session := c.shard.c.groupSettings(c.group.id).SessionTimeout
	if m.classic != nil {
		session = time.Duration(m.classic.session) * time.Millisecond
	}
	c.shard.SetLocked(&seat.expiry, c.shard.Now().Add(session))
}

func newSeat(c *consumerGroup, id string) *seat {
	s := new(seat)
	s.expiry.Ring = func(time.Time) { c.fenceLocked(id, &s.expiry, "its session expired") }
	s.revoke.Ring = func(time.Time) { c.fenceLocked(id, &s.revoke, "it did not do its part of a rebalance in time") }
	return s
}

// revokeLocked gives a member its rebalance timeout to do what it has to.
func (c *consumerGroup) revokeLocked(id string) {
	timeout := time.Duration(c.members[id].timeout) * time.Millisecond
	if timeout <= 0 {
		timeout = 5 * time.Minute
	}
	c.shard.SetLocked(&c.seats[id].revoke, c.shard.Now().Add(timeout))
}

// fenceLocked takes a member out whose alarm rang.
func (c *consumerGroup) fenceLocked(id string, rang *coordinator.Alarm, reason string) {
	if c.members[id] == nil || rang.IsSet() || c.group.members != membership(c) {
		return // it went, or came back in time after all
	}
	again := func() { c.fenceLocked(id, rang, reason) }
	c.stepLocked(waiting{again, func(protocol.Code) {}}, func(d *draft) func(error) {
		if d.member(id) == nil {
			return func(error) {}
		}
		c.shard.Log.Info("member is out", "group", c.group.id, "member", id, "reason", reason)
		after := d.take(id)
		return func(err error) {
			if err != nil && c.seats[id] != nil {
				c.shard.SetLocked(rang, c.shard.Now().Add(time.Second))
			}
			after(err)
		}
	})
}

// take takes one member out, which may make the group a classic one.
func (d *draft) take(id string) (after func(error)) {
	if after := d.downgrade(id); after != nil {
		return after
	}
	d.remove(id)
	d.bump()
	d.replan()
	return d.c.planAfter
}

// ---- topics

// topicHash returns a hash of the topics that the group reads. Topics that are not
// known do not count; the order does not matter.
func (d *draft) topicHash() int64 {
	var sum int64
	d.eachTopic(func(name string) {
		if id, parts, ok := d.c.topic(name); ok {
			h := fnv.New64a()
			h.Write([]byte(name))
			h.Write(id[:])
			h.Write([]byte{byte(parts >> 24), byte(parts >> 16), byte(parts >> 8), byte(parts)})
			sum += int64(h.Sum64())
		}
	})
	return sum
}

func (c *consumerGroup) topic(name string) (uuid, int32, bool) {
	if c.shard.c.cfg.Topics == nil {
		return uuid{}, 0, false
	}
	return c.shard.c.cfg.Topics.Topic(name)
}

// topicsChangedLocked tells whether there may be newer topics than at the last
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

// over tells whether a channel is closed, or is none.
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

package group

import (
	"fmt"
	"hash/fnv"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"millrace/segment/record"
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
// draft, writes records into it, and the draft becomes the state when they have
// landed. Meanwhile the group is busy, and further steps wait their turn. Cost:
// one append at a time for each group.
type consumerGroup struct {
	group *group
	shard *shard
	consumerState
	since time.Time // when it became empty, or was loaded

	busy  bool
	queue []waiting
	seats map[string]*seat
	bytes int

	changed <-chan struct{} // of Topics, from before the last look at them; nil: not looked yet
}

// A waiting step is tried again when the group is not busy any more, from the top:
// the group may be of another type by then.
type waiting struct {
	again func()
	fail  func(code int16)
}

// A seat is what a member has in memory only.
type seat struct {
	expiry alarm // its session
	revoke alarm // set while it is to give partitions back, or to join or sync by the classic protocol
}

// A consumerMember is one member, as the journal knows it. It is never changed.
type consumerMember struct {
	id string
	memberValue
	currentValue
}

// consumerState is what the records of a group say.
type consumerState struct {
	epoch       int32
	hash        int64
	targetEpoch int32
	members     map[string]*consumerMember
	static      map[string]string // instance id to member id
	targets     map[string]assignment
	regexes     map[string]regexValue
	oldTopics   bool // the journal has a topicsKey record, of an older Kafka
	known       bool // the journal has any record
}

func newConsumerState() consumerState {
	return consumerState{
		members: make(map[string]*consumerMember), static: make(map[string]string),
		targets: make(map[string]assignment), regexes: make(map[string]regexValue),
	}
}

func (st consumerState) clone() consumerState {
	st.members, st.static = maps.Clone(st.members), maps.Clone(st.static)
	st.targets, st.regexes = maps.Clone(st.targets), maps.Clone(st.regexes)
	return st
}

// apply replays one record. value nil ends what the key names.
func (st *consumerState) apply(version int16, name string, value []byte) error {
	if value != nil {
		st.known = true
	}
	switch version {
	case groupEpochKey:
		if value == nil {
			st.epoch, st.hash, st.known = 0, 0, false
			return nil
		}
		v, err := parseGroupEpoch(value)
		if err == nil {
			st.epoch, st.hash = v.epoch, v.hash
		}
		return err
	case topicsKey:
		st.oldTopics = value != nil
		return nil
	case targetEpochKey:
		if value == nil {
			st.targetEpoch = 0
			return nil
		}
		v, err := parseTargetEpoch(value)
		if err == nil {
			st.targetEpoch = int32(v)
		}
		return err
	case targetKey:
		if value == nil {
			delete(st.targets, name)
			return nil
		}
		a, err := parseTarget(value)
		if err == nil {
			st.targets[name] = a
		}
		return err
	case regexKey:
		if value == nil {
			delete(st.regexes, name)
			return nil
		}
		v, err := parseRegex(value)
		if err == nil {
			st.regexes[name] = v
		}
		return err
	case memberKey:
		old := st.members[name]
		if value == nil {
			if old != nil {
				if old.instanceID != nil && st.static[*old.instanceID] == name {
					delete(st.static, *old.instanceID)
				}
				delete(st.members, name)
			}
			return nil
		}
		v, err := parseMember(value)
		if err != nil {
			return err
		}
		m := consumerMember{id: name, memberValue: v}
		if old != nil {
			m.currentValue = old.currentValue
		}
		st.members[name] = &m
		if v.instanceID != nil {
			st.static[*v.instanceID] = name
		}
		return nil
	case currentKey:
		old := st.members[name]
		if old == nil {
			return nil // a tombstone behind the member's own
		}
		m := *old
		m.currentValue = currentValue{}
		if value != nil {
			v, err := parseCurrent(value)
			if err != nil {
				return err
			}
			m.currentValue = v
		}
		st.members[name] = &m
		return nil
	}
	return fmt.Errorf("unknown key version %d", version)
}

// owned returns every partition that some member has or has yet to give back.
func (st *consumerState) owned() assignment {
	out := make(assignment)
	for _, m := range st.members {
		for _, a := range []assignment{m.assigned, m.revoking} {
			for topic, parts := range a {
				out[topic] = append(out[topic], parts...)
			}
		}
	}
	for _, parts := range out {
		slices.Sort(parts)
	}
	return out
}

// names returns the topics a member subscribes to, by name or expression.
func (st *consumerState) names(m *consumerMember) []string {
	if m.regex == nil || *m.regex == "" {
		return m.topics
	}
	return append(slices.Clone(m.topics), st.regexes[*m.regex].topics...)
}

// ---- membership

func newConsumer(g *group) *consumerGroup {
	return &consumerGroup{group: g, shard: g.shard, consumerState: newConsumerState(), since: g.shard.now(), seats: make(map[string]*seat)}
}

func (c *consumerGroup) kind() string         { return "consumer" }
func (c *consumerGroup) protocolType() string { return consumerProtocol }
func (c *consumerGroup) empty() bool          { return len(c.members) == 0 && !c.busy }
func (c *consumerGroup) nothing() bool {
	return len(c.members) == 0 && !c.known && !c.busy && len(c.queue) == 0
}

func (c *consumerGroup) state() string {
	switch {
	case len(c.members) == 0:
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

func (c *consumerGroup) mayCommit(memberID string, instanceID *string, epoch int32) int16 {
	if epoch < 0 && len(c.members) == 0 && !c.busy {
		return none
	}
	m, code := c.find(memberID, instanceID)
	switch {
	case code != none:
		return code
	case m.epoch == epoch:
		if m.classic != nil {
			c.touchLocked(memberID)
		}
		return none
	case m.classic != nil:
		return illegalGeneration
	default:
		return staleMemberEpoch
	}
}

func (c *consumerGroup) mayFetch(memberID *string, epoch int32) int16 {
	if memberID == nil {
		return none // before v9, or an operator
	}
	if c.members[*memberID] == nil {
		return unknownMemberID
	}
	if c.members[*memberID].epoch != epoch {
		return staleMemberEpoch
	}
	return none
}

// find returns a member that is who it says it is, or a code.
func (c *consumerState) find(id string, instanceID *string) (*consumerMember, int16) {
	if instanceID != nil {
		known, ok := c.static[*instanceID]
		if !ok {
			return nil, unknownMemberID
		}
		if known != id {
			return nil, fencedInstanceID
		}
	}
	if m := c.members[id]; m != nil {
		return m, none
	}
	return nil, unknownMemberID
}

func (c *consumerGroup) subscribed(topic string) bool {
	for _, m := range c.members {
		if slices.Contains(c.names(m), topic) {
			return true
		}
	}
	return false
}

func (c *consumerGroup) idleSince(o committed) (int64, bool) {
	if len(c.members) == 0 {
		return max(millis(c.since), o.committedAt), true
	}
	return o.committedAt, true // asked only about topics nobody subscribes to
}

func (c *consumerGroup) tombstones(now time.Time) []record.Record {
	if !c.known {
		return nil
	}
	d := c.draft()
	for id := range c.members {
		d.remove(id)
	}
	for id := range d.targets {
		d.put(targetKey, id, nil)
	}
	d.end()
	return d.records
}

// end puts what ends the group itself.
func (d *draft) end() {
	for regex := range d.regexes {
		d.put(regexKey, regex, nil)
	}
	d.put(targetEpochKey, "", nil)
	if d.oldTopics {
		d.put(topicsKey, "", nil)
	}
	d.put(groupEpochKey, "", nil)
}

func (c *consumerGroup) startLocked() {
	for id := range c.members {
		c.touchLocked(id)
	}
	c.landedLocked()
}

func (c *consumerGroup) stopLocked(code int16) {
	for _, seat := range c.seats {
		c.shard.stopLocked(&seat.expiry)
		c.shard.stopLocked(&seat.revoke)
	}
	queue := c.queue
	c.queue = nil
	for _, w := range queue {
		w.fail(code)
	}
	c.shard.c.bytes.Add(int64(-c.bytes))
	c.bytes = 0
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
		g.members.stopLocked(notCoordinator)
		c = newConsumer(g)
		g.members = c
	}
	if err := c.apply(k.version, name, value); err != nil {
		return err
	}
	if k.version == groupEpochKey && value == nil {
		fresh := newClassic(g) // a name, until somebody joins by either protocol
		c.stopLocked(coordinatorNotAvailable)
		g.members = fresh
		if s.loading.Load() {
			s.dropIfNothingLocked(g)
		}
	}
	return nil
}

// ---- steps

// A draft is the state a step makes of the group's, with the records that say so.
type draft struct {
	consumerState
	c       *consumerGroup
	now     time.Time
	records []record.Record
	own     bool
}

func (c *consumerGroup) draft() *draft {
	return &draft{consumerState: c.consumerState, c: c, now: c.shard.now()}
}

// put writes one record into the draft. value nil is a tombstone.
func (d *draft) put(version int16, name string, value []byte) {
	if !d.own {
		d.consumerState, d.own = d.consumerState.clone(), true
	}
	var rest []string
	if name != "" {
		rest = []string{name}
	}
	d.records = append(d.records, record.Record{Timestamp: millis(d.now), Key: consumerKey(version, d.c.group.id, rest...), Value: value})
	if err := d.apply(version, name, value); err != nil {
		panic(fmt.Sprintf("group: wrote record %d %q %x that cannot be read: %v", version, name, value, err))
	}
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
	d.put(groupEpochKey, "", groupEpochValue{d.epoch + 1, d.refresh()}.append(nil))
}

// stepLocked runs step on a draft. after runs when the draft's records, if any,
// have landed or were refused; then the next step may go.
func (c *consumerGroup) stepLocked(w waiting, step func(d *draft) (after func(error))) {
	if c.busy {
		c.queue = append(c.queue, w)
		return
	}
	d := c.draft()
	after := step(d)
	if len(d.records) == 0 {
		after(nil)
		return
	}
	c.busy = true
	c.shard.appendLocked(d.records, func(err error) {
		c.busy = false
		if err == nil && c.group.members == membership(c) {
			c.consumerState = d.consumerState
			c.landedLocked()
		}
		after(err)
		if c.shard.unloaded {
			return
		}
		queue := c.queue
		c.queue = nil
		for _, w := range queue {
			w.again()
		}
	})
}

// landedLocked brings seats in line with members.
func (c *consumerGroup) landedLocked() {
	for id, seat := range c.seats {
		if c.members[id] == nil {
			c.shard.stopLocked(&seat.expiry)
			c.shard.stopLocked(&seat.revoke)
			delete(c.seats, id)
		}
	}
	if len(c.members) == 0 {
		c.since = c.shard.now()
	}
	bytes := 0
	for id, m := range c.members {
		bytes += m.cost()
		seat := c.seats[id]
		if seat == nil {
			c.touchLocked(id)
			seat = c.seats[id]
		}
		switch {
		case m.state != memberUnrevoked && m.classic == nil:
			c.shard.stopLocked(&seat.revoke)
		case m.state == memberUnrevoked && seat.revoke.place == 0:
			c.revokeLocked(id, m)
		}
	}
	c.shard.c.bytes.Add(int64(bytes - c.bytes))
	c.bytes = bytes
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
	c.shard.setLocked(&seat.expiry, c.shard.now().Add(session))
}

func newSeat(c *consumerGroup, id string) *seat {
	s := new(seat)
	s.expiry.ring = func(time.Time) { c.fenceLocked(id, &s.expiry, "its session expired") }
	s.revoke.ring = func(time.Time) { c.fenceLocked(id, &s.revoke, "it did not give its partitions back in time") }
	return s
}

// revokeLocked gives a member its rebalance timeout to do what it has to.
func (c *consumerGroup) revokeLocked(id string, m *consumerMember) {
	timeout := time.Duration(m.timeout) * time.Millisecond
	if m.timeout <= 0 {
		timeout = 5 * time.Minute
	}
	c.shard.setLocked(&c.seats[id].revoke, c.shard.now().Add(timeout))
}

// fenceLocked takes a member out whose alarm rang.
func (c *consumerGroup) fenceLocked(id string, rang *alarm, reason string) {
	if c.members[id] == nil || rang.place != 0 || c.group.members != membership(c) {
		return // it went, or came back in time after all
	}
	again := func() { c.fenceLocked(id, rang, reason) }
	c.stepLocked(waiting{again, func(int16) {}}, func(d *draft) func(error) {
		c.shard.log.Info("member is out", "group", c.group.id, "member", id, "reason", reason)
		d.remove(id)
		d.bump()
		return func(err error) {
			if err != nil && c.seats[id] != nil {
				c.shard.setLocked(rang, c.shard.now().Add(time.Second))
			}
		}
	})
}

// ---- topics

// refresh resolves the expressions of the group and returns the hash of what it
// reads. Topics that are not known do not count.
func (d *draft) refresh() int64 {
	topics := d.c.shard.c.cfg.Topics
	used := make(map[string]bool)
	for _, m := range d.members {
		if m.regex != nil && *m.regex != "" {
			used[*m.regex] = true
		}
	}
	for regex := range d.regexes {
		if !used[regex] {
			d.put(regexKey, regex, nil)
		}
	}
	for regex := range used {
		re, err := compile(regex)
		var matches []string
		if err == nil && topics != nil {
			for _, name := range topics.Names() {
				if re.MatchString(name) {
					matches = append(matches, name)
				}
			}
		}
		slices.SortFunc(matches, strings.Compare)
		if old, ok := d.regexes[regex]; !ok || !slices.Equal(old.topics, matches) {
			d.put(regexKey, regex, regexValue{topics: matches, version: millis(d.now), at: millis(d.now)}.append(nil))
		}
	}
	all := make(map[string]bool)
	for _, m := range d.members {
		for _, t := range d.names(m) {
			all[t] = true
		}
	}
	h := fnv.New64a()
	n := 0
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if id, parts, ok := d.c.topic(name); ok {
			fmt.Fprintf(h, "%q %x %d\n", name, id, parts)
			n++
		}
	}
	if n == 0 {
		return 0
	}
	return int64(h.Sum64())
}

// compile returns an expression that matches whole names. RE2's syntax is Go's.
func compile(regex string) (*regexp.Regexp, error) { return regexp.Compile("^(?:" + regex + ")$") }

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
	if c.changed != nil {
		select {
		case <-c.changed:
		default:
			return false
		}
	}
	c.changed = c.shard.c.cfg.Topics.Changed()
	return true
}

// ---- target and reconciliation

// retarget computes the target assignment for the group's epoch, and puts what of
// it is new.
func (d *draft) retarget() {
	if d.epoch <= d.targetEpoch {
		return
	}
	partitions := make(map[uuid]int32)
	var members []reading
	for _, id := range slices.Sorted(maps.Keys(d.members)) {
		m := d.members[id]
		r := reading{id: id, topics: make(map[uuid]bool), owned: d.targets[id]}
		if m.instanceID != nil {
			r.instance = *m.instanceID
		}
		for _, name := range d.names(m) {
			if topic, n, ok := d.c.topic(name); ok {
				r.topics[topic], partitions[topic] = true, n
			}
		}
		members = append(members, r)
	}
	plan := assignors[d.assignorName()](members, partitions)
	for id, a := range plan {
		if old, ok := d.targets[id]; !ok || !old.equal(a) {
			d.put(targetKey, id, appendTarget(nil, a))
		}
	}
	d.put(targetEpochKey, "", targetEpochValue(d.epoch).append(nil))
}

// preferred is the assignor that most members prefer, or the first configured.
func (st *consumerState) preferred(configured []string) string {
	best, most := "", 0
	votes := make(map[string]int)
	for _, id := range slices.Sorted(maps.Keys(st.members)) {
		if a := st.members[id].assignor; a != nil && slices.Contains(configured, *a) {
			if votes[*a]++; votes[*a] > most {
				best, most = *a, votes[*a]
			}
		}
	}
	if best == "" {
		best = configured[0]
	}
	return best
}

func (d *draft) assignorName() string { return d.preferred(d.c.assignors()) }

// assignors returns the configured ones that there are.
func (c *consumerGroup) assignors() []string {
	var out []string
	for _, name := range c.shard.c.settings().Consumer.Assignors {
		if assignors[name] != nil {
			out = append(out, name)
		}
	}
	if len(out) == 0 {
		return []string{"uniform"}
	}
	return out
}

// reconcile brings a member nearer to its target. holds is what it says it owns;
// nil: it does not say.
func (d *draft) reconcile(id string, holds assignment) {
	m := d.members[id]
	next := m.currentValue
	switch m.state {
	case memberStable:
		if m.epoch == d.targetEpoch {
			return
		}
	case memberUnrevoked:
		if holds == nil || len(holds.common(m.revoking)) > 0 {
			return
		}
	}
	target := d.targets[id]
	keep := m.assigned.common(target)
	revoke := m.assigned.without(target)
	// What is taken counts without what this member has just given back.
	missing := target.without(keep)
	free := missing.without(d.owned())
	unreleased := free.count() < missing.count()

	next.assigned, next.revoking, next.state = keep, nil, memberStable
	if len(revoke) > 0 && (holds == nil || len(holds.common(revoke)) > 0) {
		next.state, next.revoking = memberUnrevoked, revoke
	} else {
		next.assigned = keep.plus(free)
		if unreleased {
			next.state = memberUnreleased
		}
		if m.epoch != d.targetEpoch {
			next.previous, next.epoch = m.epoch, d.targetEpoch
		}
	}
	d.setCurrent(m, next)
}

// setCurrent puts a member's current assignment if it is new.
func (d *draft) setCurrent(m *consumerMember, next currentValue) {
	old := m.currentValue
	if old.epoch != next.epoch || old.previous != next.previous || old.state != next.state ||
		!old.assigned.equal(next.assigned) || !old.revoking.equal(next.revoking) {
		d.put(currentKey, m.id, next.append(nil))
	}
}

package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A phase is where a classic group is in its life. Its text is what ListGroups
// and DescribeGroups say.
type phase string

const (
	empty      phase = "Empty"               // nobody; perhaps offsets
	preparing  phase = "PreparingRebalance"  // members are (re)joining
	completing phase = "CompletingRebalance" // all have joined; the leader computes
	stable     phase = "Stable"              // all may fetch their assignment
)

// A rebalance is the way of a classic group from one generation to the next.
//
//	         join              all joined or time is up          leader syncs, journal has it
//	empty ──────────► preparing ──────────────► completing ──────────────────► stable
//	  ▲                 │  ▲                        │   join, leave, expiry       │
//	  └─────────────────┘  └────────────────────────┴─────────────────────────────┘
//	  nobody is left
type rebalance struct {
	of    *classicGroup
	phase phase
	since time.Time // when phase began, by the wall clock after a load

	// While it prepares.
	joins     coordinator.Alarm // ends it
	held      bool              // all have joined, but the journal has to know of the generation first
	initial   bool              // it began empty: more members will come in a moment
	extend    bool              // somebody came since the initial delay began
	delayLeft time.Duration     // how much longer the initial delay may get

	// While it completes, and some members sync late.
	syncs     coordinator.Alarm // ends the wait for syncs
	unsynced  map[string]bool   // members of this generation that have yet to sync
	assigning bool              // the leader's assignment is on its way to the journal
}

// The alarms of a rebalance.
type (
	joinsEnd     struct{ *rebalance }
	initialDelay struct{ *rebalance }
	syncsEnd     struct{ *rebalance }
)

// RingLocked ends preparing.
func (r joinsEnd) RingLocked(time.Time) { r.completeJoinLocked() }

// RingLocked ends preparing, unless somebody came during the initial delay.
func (r initialDelay) RingLocked(now time.Time) {
	if !r.extend || r.delayLeft <= 0 {
		r.completeJoinLocked()
		return
	}
	s := r.of.shard
	more := min(s.c.settings().InitialRebalanceDelay, r.delayLeft)
	r.extend, r.delayLeft = false, r.delayLeft-more
	s.SetLocked(&r.joins, now.Add(more))
}

// RingLocked takes those out that have joined but never synced.
func (r syncsEnd) RingLocked(time.Time) {
	c := r.of
	if r.phase != completing && r.phase != stable || len(r.unsynced) == 0 {
		return
	}
	for _, m := range c.inOrder() {
		if r.unsynced[m.id] {
			c.shard.Log.Info("member is out: it has joined but never synced", "group", c.group.id, "member", m.id)
			c.removeLocked(m, protocol.UnknownMemberID)
		}
	}
	r.prepareLocked("members did not sync in time")
}

func (r *rebalance) moveLocked(to phase) {
	r.phase, r.since = to, r.of.shard.Now()
}

// settleLocked does what follows when members or pending members went.
func (r *rebalance) settleLocked(reason string) {
	switch r.phase {
	case stable, completing:
		r.prepareLocked(reason)
	case preparing:
		r.tryCompleteLocked()
	case empty:
		r.of.shard.dropIfNothingLocked(r.of.group)
	}
}

// prepareLocked begins a rebalance.
func (r *rebalance) prepareLocked(reason string) {
	c, s := r.of, r.of.shard
	s.Log.Info("rebalancing", "group", c.group.id, "generation", c.generation, "members", len(c.members), "reason", reason)
	if r.phase == completing {
		r.propagateLocked(protocol.RebalanceInProgress)
	}
	s.StopLocked(&r.syncs)
	clear(r.unsynced)
	r.initial = r.phase == empty
	r.moveLocked(preparing)
	if !r.initial {
		r.joins.Ringer = joinsEnd{r}
		s.SetLocked(&r.joins, s.Now().Add(c.rebalanceTimeout()))
		r.tryCompleteLocked()
		return
	}
	// More members will come in a moment, most likely.
	limit := c.rebalanceTimeout()
	delay := min(s.c.settings().InitialRebalanceDelay, limit)
	r.extend, r.delayLeft = false, limit-delay
	r.joins.Ringer = initialDelay{r}
	s.SetLocked(&r.joins, s.Now().Add(delay))
}

// tryCompleteLocked ends preparing if nobody is missing.
func (r *rebalance) tryCompleteLocked() {
	c := r.of
	switch {
	case r.phase != preparing || c.pending.any() && len(c.members) > 0:
	case len(c.members) == 0, !r.initial && c.waiting == len(c.members):
		r.completeJoinLocked()
	}
}

// completeJoinLocked ends preparing: whoever has not rejoined is out, unless it is
// static and its session goes on; the others learn the next generation.
func (r *rebalance) completeJoinLocked() {
	c, s := r.of, r.of.shard
	s.StopLocked(&r.joins)
	for _, m := range c.inOrder() {
		if m.join == nil && m.instanceID == nil {
			c.removeLocked(m, protocol.UnknownMemberID)
		}
	}
	if len(c.members) == 0 {
		r.emptiedLocked()
		return
	}
	if c.waiting == 0 {
		// Only static members, and none has come back: there is no leader. Wait
		// until one does or their sessions end.
		s.SetLocked(&r.joins, s.Now().Add(max(c.rebalanceTimeout(), time.Second)))
		return
	}
	if r.held = !c.nextLocked(); r.held {
		r.joins.Ringer = joinsEnd{r}
		s.SetLocked(&r.joins, s.Now().Add(time.Second))
		return
	}
	r.joinedLocked()
}

// emptiedLocked ends preparing where nobody is left.
func (r *rebalance) emptiedLocked() {
	c := r.of
	r.held, r.initial = false, false
	// Nobody learns this generation, so it may be handed out any number of times.
	c.generation++
	c.protocol, c.leader = "", ""
	c.topics = c.subscribedTopics()
	r.moveLocked(empty)
	if !c.persisted {
		c.shard.dropIfNothingLocked(c.group)
		return
	}
	// If this is refused, a coordinator that takes over finds the last members, and
	// their sessions end there.
	c.storeLocked(c.generation, c.valueLocked(nil), nil)
}

// joinedLocked tells all who have joined their generation, and waits for their syncs.
func (r *rebalance) joinedLocked() {
	c := r.of
	members := c.inOrder()
	r.initial = false
	if l := c.members[c.leader]; l == nil || l.join == nil {
		i := slices.IndexFunc(members, func(m *member) bool { return m.join != nil })
		c.leader = members[i].id
	}
	c.protocol = c.selectProtocol()
	c.topics = c.subscribedTopics()
	r.moveLocked(completing)
	r.assigning = false
	for _, m := range members {
		m.assignment = nil
		c.recostLocked(m)
		r.unsynced[m.id] = true
		c.answerJoin(m, c.joinResponse(m.join, m, c.leader, false))
		m.isNew = false
		c.touchLocked(m)
	}
	c.shard.SetLocked(&r.syncs, c.shard.Now().Add(c.rebalanceTimeout()))
}

// syncedLocked counts m among those that have synced.
func (r *rebalance) syncedLocked(m *member) {
	delete(r.unsynced, m.id)
	if len(r.unsynced) == 0 {
		r.of.shard.StopLocked(&r.syncs)
	}
}

// assignLocked has the journal keep the leader's assignment, and then shows it.
func (r *rebalance) assignLocked(req *kmsg.SyncGroupRequest) {
	c := r.of
	a := &assigned{of: r, generation: c.generation, assignments: make(map[string][]byte)}
	for _, ra := range req.GroupAssignment {
		if c.members[ra.MemberID] != nil {
			a.assignments[ra.MemberID] = slices.Clone(ra.MemberAssignment)
		}
	}
	more := 0
	for _, of := range a.assignments {
		more += len(of)
	}
	if !c.fitsLocked(c.members[req.MemberID].client.Host, more) {
		r.propagateLocked(protocol.UnknownServerError) // as Kafka, for a record that is too large
		r.prepareLocked("the assignment is too large")
		return
	}
	r.assigning = true
	c.storeLocked(a.generation, c.valueLocked(a.assignments), a)
}

// An assigned is a leader's assignment, by member, on its way to the journal.
type assigned struct {
	of          *rebalance
	generation  int32
	assignments map[string][]byte
}

// AppendedLocked implements coordinator.Appender.
func (a *assigned) AppendedLocked(err error) {
	r, c := a.of, a.of.of
	if r.phase != completing || c.generation != a.generation || c.shard.EndedLocked() {
		return // the group has moved on
	}
	r.assigning = false
	if err != nil {
		r.propagateLocked(codeOf(err))
		r.prepareLocked("the journal refused the assignment")
		return
	}
	for _, m := range c.members {
		m.assignment = a.assignments[m.id]
		c.recostLocked(m)
	}
	r.moveLocked(stable)
	c.shard.Log.Info("stable", "group", c.group.id, "generation", c.generation, "members", len(c.members))
	r.propagateLocked(protocol.None)
}

// propagateLocked answers all who wait for their assignment.
func (r *rebalance) propagateLocked(code protocol.Code) {
	for _, m := range r.of.members {
		if m.sync != nil {
			r.answerSync(m, code)
			r.of.touchLocked(m)
		}
	}
}

// answerSync answers m's SyncGroup, if it waits for one.
func (r *rebalance) answerSync(m *member, code protocol.Code) {
	if m.sync == nil {
		return
	}
	if code == protocol.None {
		m.sync.answer <- r.of.syncResponse(m.sync.req, m)
	} else {
		m.sync.answer <- syncFailure(m.sync.req, code)
	}
	m.sync = nil
}

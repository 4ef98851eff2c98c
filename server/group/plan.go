package group

import (
	"maps"
	"slices"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A question is what a plan answers: who is in the group in an epoch, and what
// there is to read. It is a copy, to be looked at without the lock; ask makes it, and
// resolve completes it.
type question struct {
	epoch      int32
	assignor   assignor
	members    []reading
	reads      []wants // of members, until they are resolved
	partitions map[uuid]int32
}

// Wants are what a member reads, by name: what it names, and what its
// expression matches.
type wants struct {
	set   *nameSet
	regex *regexValue // nil: it has none, or that has not been resolved
}

// planAtOnce is how many members, names and partitions together are planned for
// within the step that asks: less than a tenth of a millisecond of the shard's lock,
// and two appends fewer for the member that waits.
const planAtOnce = 500

// ask asks for the epoch of st. It looks at members, not at what each subscribes to: a
// thousand members that name two hundred topics each are to be resolved without the lock.
func (c *consumerGroup) ask(st *consumerState) *question {
	q := &question{epoch: st.epoch, assignor: c.shard.c.assignors[c.preferred(st)]}
	q.members, q.reads = make([]reading, 0, st.size), make([]wants, 0, st.size)
	st.each(func(m *consumerMember) {
		r := reading{id: m.id, owned: st.target(m.id)}
		if m.instanceID != nil {
			r.instance = *m.instanceID
		}
		sub := wants{set: m.set}
		if m.regex != nil && *m.regex != "" {
			sub.regex = st.regex(*m.regex)
		}
		q.members, q.reads = append(q.members, r), append(q.reads, sub)
	})
	return q
}

// names is how many names there are to resolve.
func (q *question) names() (n int) {
	seen := make(map[wants]bool, 1)
	for _, sub := range q.reads {
		if seen[sub] {
			continue
		}
		seen[sub] = true
		n += len(sub.set.names)
		if sub.regex != nil {
			n += len(sub.regex.topics)
		}
	}
	return n
}

// resolve finds the topics that members read, each name and each subscription once.
// Topics that have come or gone since the epoch began are the next epoch's: whoever
// beats next sees that there are others, and begins it.
func (q *question) resolve(topic func(name string) (uuid, int32, bool)) {
	type found struct {
		id uuid
		ok bool
	}
	q.partitions = make(map[uuid]int32)
	known := make(map[string]found)
	done := make(map[wants][]uuid)
	for i, sub := range q.reads {
		topics, ok := done[sub]
		if !ok {
			topics = make([]uuid, 0, len(sub.set.names))
			add := func(names []string) {
				for _, name := range names {
					f, ok := known[name]
					if !ok {
						var n int32
						if f.id, n, f.ok = topic(name); f.ok {
							q.partitions[f.id] = n
						}
						known[name] = f
					}
					if f.ok {
						topics = append(topics, f.id)
					}
				}
			}
			add(sub.set.names)
			if sub.regex != nil {
				add(sub.regex.topics)
			}
			slices.SortFunc(topics, compareUUID)
			topics = slices.Compact(topics)
			done[sub] = topics
		}
		q.members[i].topics = topics
	}
	q.reads = nil
}

// size is how much there is to plan.
func (q *question) size() int {
	n := len(q.members)
	for _, parts := range q.partitions {
		n += int(parts)
	}
	return n
}

// answer puts a plan, with its epoch.
func (d *draft) answer(epoch int32, plan map[string]assignment) {
	for id, a := range plan {
		if d.member(id) == nil {
			continue // it went meanwhile, and a newer epoch has begun
		}
		if old := d.target(id); old == nil || !old.equal(a) {
			d.put(targetKey, id, appendTarget(nil, a))
		}
	}
	d.put(targetEpochKey, "", targetEpochValue(epoch).append(nil))
}

// replan answers the draft's own question, if that is done at once.
func (d *draft) replan() {
	most := d.c.shard.c.planAtOnce
	if d.epoch <= d.targetEpoch || d.c.planning || d.size > most {
		return
	}
	q := d.c.ask(&d.consumerState)
	if len(q.members)+q.names() > most {
		return
	}
	if q.resolve(d.c.topic); q.size() <= most {
		d.answer(q.epoch, q.assignor.assign(q.members, q.partitions))
	}
}

// A planner has the target of a consumer group computed, and lets go who waits for it.
type planner struct {
	of       *consumerGroup
	planning bool     // the goroutine "planner" runs, or its plan is on its way to the journal
	parked   []parked // steps that wait for a target
}

// A parked step waits for the target of an epoch.
type parked struct {
	epoch int32
	step
}

// parkLocked lets a step wait for the target of an epoch, and sees to it that there
// will be one.
func (p *planner) parkLocked(epoch int32, w step) {
	p.parked = append(p.parked, parked{epoch, w})
	p.planLocked()
}

// afterStep is what follows a step that may have begun an epoch.
func (p *planner) afterStep(err error) {
	if err == nil && p.of.currentLocked() {
		p.planLocked()
	}
}

// planLocked starts the planner, unless it runs or there is nothing to plan.
func (p *planner) planLocked() {
	c := p.of
	if p.planning || c.epoch <= c.targetEpoch || c.shard.EndedLocked() {
		return
	}
	p.planning = true
	q := c.ask(&c.consumerState)
	c.shard.c.workers.Go(func() { p.plan(q) })
}

// plan is the goroutine "planner": it answers a question without the lock, and puts
// the answer if the group is still there. Who joined, left or changed meanwhile has
// begun a newer epoch, and the next plan is for that.
func (p *planner) plan(q *question) {
	c, s := p.of, p.of.shard
	release, ok := s.c.work()
	if !ok {
		return // the coordinator closes
	}
	made := &planned{c: c, epoch: q.epoch}
	failed := coordinator.Catch(func() {
		defer release()
		q.resolve(c.topic)
		made.plan = q.assignor.assign(q.members, q.partitions)
	})
	s.Lock()
	defer s.Unlock()
	if failed != nil {
		panic(failed) // what was asked is the shard's memory
	}
	made.againLocked()
}

// A planned is the step that puts the target of an epoch, by member.
type planned struct {
	c     *consumerGroup
	epoch int32
	plan  map[string]assignment
}

// againLocked implements step.
func (t *planned) againLocked() {
	if !t.c.shard.EndedLocked() && t.c.currentLocked() {
		t.c.stepLocked(t)
	}
}

func (t *planned) fail(protocol.Code) {}

func (t *planned) on(d *draft) func(error) {
	if t.epoch > d.targetEpoch {
		d.answer(t.epoch, t.plan)
	}
	return t.c.plannedLocked
}

// plannedLocked follows a plan that was put, or refused.
func (p *planner) plannedLocked(err error) {
	p.planning = false
	if err != nil {
		parked := p.parked
		p.parked = nil
		for _, w := range parked {
			w.fail(codeOf(err))
		}
		return // whoever comes next asks again
	}
	p.wakeLocked()
	p.planLocked()
}

// wakeLocked lets those parked steps go whose target there is. They go together, if they
// may: they make up one draft.
func (p *planner) wakeLocked() {
	var rest []parked
	for _, w := range p.parked {
		if w.epoch <= p.of.targetEpoch {
			p.of.queue = append(p.of.queue, w.step)
		} else {
			rest = append(rest, w)
		}
	}
	p.parked = rest
}

// preferred is the assignor that most members prefer, or the first configured.
func (c *consumerGroup) preferred(st *consumerState) string {
	configured := c.assignors()
	votes := make(map[string]int)
	st.each(func(m *consumerMember) {
		if m.assignor != nil {
			votes[*m.assignor]++
		}
	})
	best := configured[0]
	for _, name := range slices.Sorted(maps.Keys(votes)) {
		if slices.Contains(configured, name) && votes[name] > votes[best] {
			best = name
		}
	}
	return best
}

// assignors returns the configured ones that there are.
func (c *consumerGroup) assignors() []string {
	var out []string
	for _, name := range c.shard.c.settings().Consumer.Assignors {
		if c.shard.c.assignors[name] != nil {
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
	m := d.member(id)
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
	target := d.target(id)
	keep := m.assigned.common(target)
	revoke := m.assigned.without(target)
	// What is taken counts without what this member has just given back.
	missing := target.without(keep)
	free := missing.only(func(topic uuid, p int32) bool {
		others := d.ownersOf(topic, p)
		if m.assigned.has(topic, p) || m.revoking.has(topic, p) {
			others--
		}
		return others == 0
	})
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

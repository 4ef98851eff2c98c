package group

import (
	"fmt"
	"hash/fnv"
	"time"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// A step is what somebody wants of a consumer group: a heartbeat, a join, a leave, a
// plan that is ready. It waits while the group is busy with earlier ones.
type step interface {
	// on does the step on a draft, and returns what follows when the draft's records, if
	// any, are durable or were refused.
	on(d *draft) (after func(error))

	// againLocked tries a step that has waited from the top: the group may be of another
	// type by then.
	againLocked()

	// fail ends a step that waits in a group that is stopped.
	fail(code protocol.Code)
}

// steps is the order in which the steps of a consumer group are taken: one draft after
// the other, and all that wait meanwhile on the next together. Cost: one append at a time
// for each group, whatever the number of steps in it.
type steps struct {
	of    *consumerGroup
	busy  bool   // a draft is on its way to the journal
	open  *draft // that steps are being added to
	queue []step // that wait
}

// maxStep is about the most records of one draft. 2,000 joins wait for 10 appends.
const maxStep = 1000

// stepLocked takes a step, now or when the group is not busy any more.
func (s *steps) stepLocked(w step) {
	d := s.open
	if s.busy || d != nil && d.closed {
		s.queue = append(s.queue, w)
		return
	}
	if d != nil {
		d.afters = append(d.afters, w.on(d))
		return
	}
	d = s.of.draft()
	d.afters = append(d.afters, w.on(d))
	s.flushLocked(d)
}

// flushLocked appends what is in d.
func (s *steps) flushLocked(d *draft) {
	if len(d.records) == 0 {
		s.overLocked(d, nil)
		return
	}
	s.busy = true
	s.of.shard.AppendLocked(d.records, d)
}

// AppendedLocked implements coordinator.Appender: the draft becomes the state, if a
// quorum has its records and the group is still what it was.
func (d *draft) AppendedLocked(err error) {
	c := d.c
	c.busy = false
	if err != nil {
		c.changed = nil // topics are to be looked at again
	}
	if err == nil && c.currentLocked() {
		c.mergeLocked(d)
	}
	c.overLocked(d, err)
}

// overLocked tells the steps of d what came of it, and lets go who waits.
func (s *steps) overLocked(d *draft, err error) {
	c := s.of
	for _, after := range d.afters {
		after(err)
	}
	for len(s.queue) > 0 && !s.busy && s.open == nil && !c.shard.EndedLocked() {
		queue := s.queue
		s.queue = nil
		if !c.currentLocked() {
			for _, w := range queue {
				w.againLocked()
			}
			return
		}
		next := c.draft()
		s.open = next
		for i, w := range queue {
			if next.closed || len(next.records) >= maxStep {
				s.queue = append(s.queue, queue[i:]...)
				break
			}
			w.againLocked()
		}
		s.open = nil
		s.flushLocked(next)
	}
}

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

// take takes one member out, which may make the group a classic one.
func (d *draft) take(id string) (after func(error)) {
	if after := d.downgrade(id); after != nil {
		return after
	}
	d.remove(id)
	d.bump()
	d.replan()
	return d.c.afterStep
}

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

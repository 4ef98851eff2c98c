package group

import (
	"maps"
	"slices"
	"time"

	"millrace/segment/record"
	"millrace/server/coordinator"
)

// How committed offsets end: their retention is over (KIP-211), or their topic has been
// deleted.

// sweepAtOnce is about how many groups and committed offsets a sweep looks at before it
// lets others have the lock: a millisecond's work.
const sweepAtOnce = 10_000

// A sweep is a shard's look for offsets that expired and for groups that are no more. It
// looks at a piece of the groups each time its alarm rings, and begins anew each
// offsets.retention.check.interval.ms.
type sweep struct {
	of    *shard
	alarm coordinator.Alarm
	left  []string // groups that it has yet to look at
}

// startLocked begins the wait for the first sweep.
func (w *sweep) startLocked() {
	w.alarm.Ringer = w
	w.of.SetLocked(&w.alarm, w.of.Now().Add(w.of.c.settings().RetentionCheckInterval))
}

// RingLocked implements coordinator.Ringer: it looks at the next piece.
func (w *sweep) RingLocked(now time.Time) {
	s, settings := w.of, w.of.c.settings()
	if len(w.left) == 0 {
		w.left = slices.Collect(maps.Keys(s.groups))
	}
	for most := s.c.sweepAtOnce; most > 0 && len(w.left) > 0; {
		last := len(w.left) - 1
		g := s.groups[w.left[last]]
		w.left = w.left[:last]
		if most--; g != nil {
			for _, of := range g.offsets {
				most -= len(of)
			}
			s.expireLocked(g, now, settings.OffsetRetention)
		}
	}
	if len(w.left) > 0 {
		s.SetLocked(&w.alarm, now)
		return
	}
	w.left = nil
	s.SetLocked(&w.alarm, now.Add(settings.RetentionCheckInterval))
}

// maxTombstones bounds the records that a sweep appends at once.
const maxTombstones = 1000

// expireLocked appends tombstones for the offsets of g whose retention is over
// (KIP-211), and one for g if nothing of it is left.
func (s *shard) expireLocked(g *group, now time.Time, retention time.Duration) {
	if g.dead {
		return
	}
	var places []place
	left := len(g.pending) > 0
	for topic, of := range g.offsets {
		subscribed := g.members.subscribed(topic)
		for partition, o := range of {
			p := place{topic, partition}
			if subscribed || g.pending[p] > 0 || !expired(g, o, millis(now), retention) {
				left = true
			} else {
				places = append(places, p)
			}
		}
	}
	s.deleteOffsetsLocked(g, places)
	if !left && g.members.empty() {
		s.endLocked(g, nil, nil)
	}
}

func expired(g *group, o committed, now int64, retention time.Duration) bool {
	if o.expiresAt != never {
		return now >= o.expiresAt
	}
	since, ok := g.members.idleSince(o)
	return ok && now-since >= retention.Milliseconds()
}

// deleteOffsetsLocked appends tombstones for offsets, a bounded number at a time.
func (s *shard) deleteOffsetsLocked(g *group, places []place) {
	now := s.Now()
	for len(places) > 0 {
		n := min(len(places), maxTombstones)
		var records []record.Record
		for _, p := range places[:n] {
			records = append(records, offsetTombstone(now, g.id, p))
		}
		places = places[n:]
		s.WriteLocked(records, nil) // where they are refused, the next sweep tries again
	}
}

// endLocked ends an empty group: records and its own tombstones are appended, and
// until they are durable the group is dead. If they are refused it lives on. then, if
// any, is told.
func (s *shard) endLocked(g *group, records []record.Record, then coordinator.Appender) {
	e := &ending{g, then}
	records = append(records, g.members.tombstones(s.Now())...)
	if len(records) == 0 {
		e.AppendedLocked(nil)
		return
	}
	g.dead = true
	s.WriteLocked(records, e)
}

// An ending is a group whose tombstones are on their way.
type ending struct {
	g    *group
	then coordinator.Appender
}

// AppendedLocked implements coordinator.Appender.
func (e *ending) AppendedLocked(err error) {
	e.g.dead = false
	if err == nil {
		e.g.shard.dropIfNothingLocked(e.g)
	}
	if e.then != nil {
		e.then.AppendedLocked(err)
	}
}

// watchTopics is the goroutine that deletes the offsets of deleted topics. New
// starts it, Close ends it.
//
// A topic counts as deleted when it was in one image and is gone from a newer one.
// That it is not mentioned is not enough: a node that starts does not yet know
// topics whose offsets are in its journal. Offsets of topics that were deleted
// while nobody looked wait for their retention.
func (c *Coordinator) watchTopics() {
	known := make(map[string][16]byte)
	for {
		changed := c.cfg.Topics.Changed()
		seen := make(map[string][16]byte)
		for _, name := range c.cfg.Topics.Names() {
			if id, _, ok := c.cfg.Topics.Topic(name); ok {
				seen[name] = id
			}
		}
		gone := make(map[string][16]byte)
		for name, id := range known {
			if seen[name] != id {
				gone[name] = id
			}
		}
		known = seen
		if len(gone) > 0 {
			shards, _ := c.shards.Loaded()
			for _, s := range shards {
				s.deleteTopics(gone)
			}
		}
		select {
		case <-changed:
		case <-c.done:
			return
		}
	}
}

// deleteTopics deletes the offsets that were committed for those topics. It looks at
// about ten thousand pairs of a group and a topic before it lets others have the lock.
func (s *shard) deleteTopics(gone map[string][16]byte) {
	s.each(max(1, 10_000/len(gone)), func(g *group) {
		var places []place
		for name, id := range gone {
			for partition, o := range g.offsets[name] {
				p := place{name, partition}
				if o.topicID == id && g.pending[p] == 0 && !g.dead {
					places = append(places, p)
				}
			}
		}
		s.deleteOffsetsLocked(g, places)
	})
}

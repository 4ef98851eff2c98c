package group

import "millrace/segment/record"

// upgradeLocked makes a classic group that nobody is in a consumer group and lets b
// join it. While members of the classic protocol are in it, consumers are refused.
func (s *shard) upgradeLocked(old *classicGroup, b *beat) {
	g := old.group
	if !old.empty() || len(old.pending) > 0 {
		b.fail(groupIDNotFound, "Group "+g.id+" has members of the classic protocol.")
		return
	}
	now := s.now()
	records := []record.Record{classicTombstone(now, g.id)}
	g.dead = true
	s.appendLocked(records, func(err error) {
		g.dead = false
		if err != nil {
			b.fail(codeOf(err), "")
			return
		}
		old.stopLocked(coordinatorNotAvailable)
		g.members = newConsumer(g)
		s.beatLocked(b)
	})
}

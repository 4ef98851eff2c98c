package group

import (
	"math"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/coordinator"
)

// stride bounds how far handed out generations run ahead of the journal.
const stride = 100

// generations says which generation a classic group is in, which may follow, and what
// the journal has of it.
//
// A generation is handed out by JoinGroup before the journal knows of it. A coordinator
// that takes over must not hand out the number again: two different memberships could
// then share generation and member id, and a late SyncGroup of the first would be taken
// for one of the second. So a coordinator hands out no generation beyond the journal's
// plus stride, and one that loads a group writes a generation beyond that down, and waits
// for it, before it hands out its first. Cost: generations jump by stride after a
// failover, the first rebalance then waits for one more append, and so does, in the
// background, every fiftieth of a group that never becomes stable. Groups the journal
// does not know need none of it: their member ids die with the coordinator that made
// them up.
type generations struct {
	of         *classicGroup
	generation int32
	loaded     bool          // generation is the journal's; later ones may have been handed out
	marking    bool          // the journal is being told of a later one
	persisted  bool          // the journal has, or will have, a record of the group
	stored     int32         // the newest generation the journal has
	storing    int           // records on their way
	onStored   []func(error) // called when none is, in this order
}

// storeLocked appends a record of the group in a generation. then, if any, is told what
// became of it.
func (g *generations) storeLocked(generation int32, r record.Record, then coordinator.Appender) {
	s := &storing{of: g, generation: generation, was: g.persisted, then: then}
	g.persisted = true // whatever becomes of it, a tombstone does no harm
	g.storing++
	g.of.shard.AppendLocked([]record.Record{r}, s)
}

// A storing is a record of a classic group that is on its way to the journal.
type storing struct {
	of         *generations
	generation int32
	was        bool // there was a record of the group before
	then       coordinator.Appender
}

// AppendedLocked implements coordinator.Appender.
func (s *storing) AppendedLocked(err error) {
	g := s.of
	g.storing--
	if err == nil {
		g.stored = max(g.stored, s.generation)
	} else if !s.was && g.storing == 0 && g.stored == 0 {
		g.persisted = false
	}
	if s.then != nil {
		s.then.AppendedLocked(err)
	}
	if g.storing == 0 {
		waiting := g.onStored
		g.onStored = nil
		for _, f := range waiting {
			f(err)
		}
	}
}

// nextLocked counts the generation up, if the next may be handed out now. If not, the
// journal is being told how far we are, and completeJoinLocked is called again.
func (g *generations) nextLocked() bool {
	switch {
	case g.generation >= math.MaxInt32-2*stride:
		g.generation, g.stored = 0, 0 // two thousand million rebalances ago
	case g.loaded:
		g.markLocked(g.generation + 1 + stride)
		return false
	case g.persisted && g.generation+1 > g.stored+stride:
		g.markLocked(g.generation + 1)
		return false
	case g.persisted && g.generation+1 == g.stored+stride/2:
		g.markLocked(g.generation + 1)
	}
	g.generation++
	return true
}

// markLocked writes a generation down without members: whoever loads it has them join
// again. A rebalance that waits for it goes on when a quorum has it, and tries again in a
// second if it was refused.
func (g *generations) markLocked(generation int32) {
	if g.marking {
		return
	}
	g.marking = true
	now := g.of.shard.Now()
	v := kmsg.NewGroupMetadataValue()
	v.Version = 3
	v.ProtocolType, v.Generation, v.CurrentStateTimestamp = g.of.kindOf, generation, millis(now)
	r := record.Record{Timestamp: millis(now), Key: classicKey(g.of.group.id), Value: v.AppendTo(nil)}
	g.storeLocked(generation, r, &mark{g, generation})
}

// A mark is a generation that is being written down.
type mark struct {
	of         *generations
	generation int32
}

// AppendedLocked implements coordinator.Appender.
func (m *mark) AppendedLocked(err error) {
	g, c := m.of, m.of.of
	g.marking = false
	if err != nil || c.shard.EndedLocked() {
		return
	}
	if g.generation < m.generation {
		g.generation, g.loaded = m.generation, false
	}
	if c.phase == preparing && c.held {
		c.completeJoinLocked()
	}
}

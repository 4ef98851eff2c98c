package group

import (
	"fmt"
	"maps"
	"slices"

	"millrace/internal/heap"
	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A shard is the groups of one partition of __consumer_offsets in one epoch: the state
// machine of a coordinator.Shard, whose lock guards all of it.
type shard struct {
	*coordinator.Shard
	c *Coordinator

	groups   map[string]*group
	held     map[string]int64                      // by host, what its members hold here
	idle     int                                   // what those about to join hold here
	pendings heap.Heap[*pendingMembers, byPending] // groups that somebody is about to join
	pended   uint64                                // member ids handed out
	sweep    sweep
}

// shards makes them.
type shards struct{ c *Coordinator }

// New implements coordinator.Machines.
func (m shards) New(of *coordinator.Shard) *shard {
	s := &shard{Shard: of, c: m.c, groups: make(map[string]*group), held: make(map[string]int64)}
	s.sweep.of = s
	return s
}

// LoadedLocked begins the sessions of members.
func (s *shard) LoadedLocked() int {
	for _, g := range s.groups {
		g.members.startLocked()
	}
	s.sweep.startLocked()
	return len(s.groups)
}

// UnloadedLocked answers whoever waits and gives back what the shard holds. After a
// panic a group may be in no state to be stopped; the others are.
func (s *shard) UnloadedLocked() {
	for id, g := range s.groups {
		if err := coordinator.Catch(func() { g.members.stopLocked(protocol.NotCoordinator) }); err != nil {
			s.Log.Error("while unloading a group", "group", id, "error", err)
		}
	}
	for host, n := range s.held {
		s.c.memory.add(host, -n)
	}
	s.c.pending.Add(-int64(s.idle))
	s.pendings.Clear()
	s.groups, s.held, s.idle = nil, make(map[string]int64), 0
}

// groupLocked returns a group, or nil.
func (s *shard) groupLocked(id string) *group { return s.groups[id] }

// createLocked returns a group, made as an empty classic one if it is not there.
func (s *shard) createLocked(id string) *group {
	g := s.groups[id]
	if g == nil {
		g = &group{id: id, shard: s}
		g.members = newClassic(g)
		s.groups[id] = g
	}
	return g
}

// dropLocked forgets a group.
func (s *shard) dropLocked(g *group) {
	g.members.stopLocked(protocol.CoordinatorNotAvailable)
	if s.groups[g.id] == g {
		delete(s.groups, g.id)
	}
}

// dropIfNothingLocked forgets a group of which the journal knows nothing and
// nobody is a member.
func (s *shard) dropIfNothingLocked(g *group) {
	if !g.dead && len(g.offsets) == 0 && len(g.pending) == 0 && g.members.nothing() {
		s.dropLocked(g)
	}
}

// ReplayLocked is dispatched by the version of the record's key.
func (s *shard) ReplayLocked(r record.Record) error {
	k, err := parseKey(r.Key)
	if err != nil {
		return err
	}
	switch k.version {
	case 0, 1:
		return s.applyOffsetLocked(k, r.Value)
	case 2:
		return s.applyClassicLocked(k.group, r.Value)
	case groupEpochKey, topicsKey, memberKey, targetEpochKey, targetKey, currentKey, regexKey:
		return s.applyConsumerLocked(k, r.Value)
	default:
		return fmt.Errorf("unknown key version %d", k.version)
	}
}

// each calls f for every group, with the lock held for at most n of them: whoever waits
// for it does not wait for all. A group that comes meanwhile is left out.
func (s *shard) each(n int, f func(g *group)) {
	var ids []string
	s.Lock()
	if !s.Do(func() { ids = slices.Collect(maps.Keys(s.groups)) }) {
		return
	}
	for piece := range slices.Chunk(ids, n) {
		s.Lock()
		if !s.Do(func() {
			for _, id := range piece {
				if g := s.groups[id]; g != nil {
					f(g)
				}
			}
		}) {
			return
		}
	}
}

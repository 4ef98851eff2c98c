package group

import (
	"container/list"
	"encoding/hex"
	"strings"

	"millrace/server/coordinator"
)

// What the member ids that were handed out and have not come back may take: in one
// shard, and in any however many there are elsewhere; and about when others are many.
// Beyond it the group that has most of them loses its oldest, whose client is told
// UNKNOWN_MEMBER_ID and asks for another. So who asks for ids by the thousand takes
// them from itself. Of groups that have as many, the one with the oldest id loses it.
const (
	maxPending    = 8 << 20
	minPending    = 1 << 20
	maxAllPending = 32 << 20
)

// pendingOverhead is about what a pending member takes, and the group that may have
// been made for it, besides the group's id.
const pendingOverhead = 1024

// A pendingMember is a member id that was handed out with MEMBER_ID_REQUIRED and
// has not come back.
type pendingMember struct {
	id     [16]byte // what was made up of it: a client id may have 32 KB
	since  uint64   // the order in which ids were handed out
	expiry coordinator.Alarm
	bytes  int
	at     *list.Element // in its group's line
}

// byPending orders the groups that have pending members: first the one that is to lose
// its oldest, so that nobody looks at eight thousand groups to hand out one id.
type byPending struct{}

func (byPending) Less(a, b *classicGroup) bool {
	if len(a.pending) != len(b.pending) {
		return len(a.pending) > len(b.pending)
	}
	return a.oldest().since < b.oldest().since
}

func (byPending) Place(c *classicGroup) *int { return &c.place }

// oldest is the pending member whose id was handed out first.
func (c *classicGroup) oldest() *pendingMember { return c.line.Front().Value.(*pendingMember) }

// pendingOf returns what is known of a member id that was handed out and has not
// come back. It is found by the part that was made up.
func (c *classicGroup) pendingOf(id string) (u [16]byte, ok bool) {
	if len(id) < 36 {
		return u, false
	}
	if n, err := hex.Decode(u[:], []byte(strings.ReplaceAll(id[len(id)-36:], "-", ""))); err != nil || n != 16 {
		return u, false
	}
	return u, c.pending[u] != nil
}

// pendLocked remembers a member id that is handed out.
func (c *classicGroup) pendLocked(p *pendingMember) {
	c.shard.pended++
	p.since = c.shard.pended
	c.pending[p.id] = p
	p.at = c.line.PushBack(p)
	c.rankLocked(p.bytes)
	c.shard.makeRoomLocked(c)
}

func (c *classicGroup) dropPendingLocked(u [16]byte) {
	if p := c.pending[u]; p != nil {
		c.shard.StopLocked(&p.expiry)
		delete(c.pending, u)
		c.line.Remove(p.at)
		c.rankLocked(-p.bytes)
	}
}

// rankLocked counts n bytes of those about to join, and gives the group its place
// among those that have some.
func (c *classicGroup) rankLocked(n int) {
	s := c.shard
	if s.EndedLocked() {
		return
	}
	s.idle += n
	s.c.pending.Add(int64(n))
	if len(c.pending) == 0 {
		s.pendings.Remove(c)
	} else {
		s.pendings.Set(c)
	}
}

// makeRoomLocked takes member ids back that were handed out, until they take no more
// than they may. The newest, which is last's, stays.
func (s *shard) makeRoomLocked(last *classicGroup) {
	most := maxPending
	if s.c.pending.Load() > maxAllPending {
		most = minPending
	}
	for s.idle > most {
		from := s.pendings.First()
		if from == last && len(from.pending) == 1 {
			return // it is the only one: the newest of all comes last
		}
		from.dropPendingLocked(from.oldest().id)
		from.settlePendingLocked()
	}
}

// settlePendingLocked does what follows when a pending member went: a rebalance may
// have waited for it, but none begins.
func (c *classicGroup) settlePendingLocked() {
	if c.phase == preparing || c.phase == empty {
		c.settleLocked("a pending member went")
	}
}

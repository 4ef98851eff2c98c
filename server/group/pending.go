package group

import (
	"container/list"
	"encoding/hex"
	"strings"
	"time"

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

// pendingMembers are those of one group, by what was made up of their ids.
type pendingMembers struct {
	of    *classicGroup
	byID  map[[16]byte]*pendingMember
	line  list.List // the same, oldest first
	place int       // in the shard's pendings
}

// A pendingMember is a member id that was handed out with MEMBER_ID_REQUIRED and
// has not come back.
type pendingMember struct {
	of     *pendingMembers
	id     [16]byte // what was made up of it: a client id may have 32 KB
	since  uint64   // the order in which ids were handed out
	expiry coordinator.Alarm
	bytes  int
	at     *list.Element // in its group's line
}

// byPending orders the groups that have pending members: first the one that is to lose
// its oldest, so that nobody looks at eight thousand groups to hand out one id.
type byPending struct{}

func (byPending) Less(a, b *pendingMembers) bool {
	if len(a.byID) != len(b.byID) {
		return len(a.byID) > len(b.byID)
	}
	return a.oldest().since < b.oldest().since
}

func (byPending) Place(p *pendingMembers) *int { return &p.place }

// oldest is the pending member whose id was handed out first.
func (p *pendingMembers) oldest() *pendingMember { return p.line.Front().Value.(*pendingMember) }

// any reports whether there are some.
func (p *pendingMembers) any() bool { return len(p.byID) > 0 }

// find returns what is known of a member id that was handed out and has not come back.
// It is found by the part that was made up.
func (p *pendingMembers) find(id string) (u [16]byte, ok bool) {
	u, ok = madeUp(id)
	return u, ok && p.byID[u] != nil
}

// madeUp returns what memberID has made up of an id; false: it has not made it up.
func madeUp(id string) (u [16]byte, ok bool) {
	if len(id) < 36 {
		return u, false
	}
	n, err := hex.Decode(u[:], []byte(strings.ReplaceAll(id[len(id)-36:], "-", "")))
	return u, err == nil && n == 16
}

// addLocked remembers a member id that is handed out, for as long as patience.
func (p *pendingMembers) addLocked(id string, patience time.Duration) {
	s := p.of.shard
	u, _ := madeUp(id)
	s.pended++
	m := &pendingMember{of: p, id: u, since: s.pended, bytes: pendingOverhead + len(p.of.group.id)}
	m.expiry.Ringer = m
	p.byID[u] = m
	m.at = p.line.PushBack(m)
	p.rankLocked(m.bytes)
	s.makeRoomLocked(p)
	s.SetLocked(&m.expiry, s.Now().Add(patience))
}

// RingLocked is the end of patience with a client that does not come back.
func (m *pendingMember) RingLocked(time.Time) {
	m.of.dropLocked(m.id)
	m.of.of.settlePendingLocked()
}

func (p *pendingMembers) dropLocked(u [16]byte) {
	if m := p.byID[u]; m != nil {
		p.of.shard.StopLocked(&m.expiry)
		delete(p.byID, u)
		p.line.Remove(m.at)
		p.rankLocked(-m.bytes)
	}
}

func (p *pendingMembers) dropAllLocked() {
	for id := range p.byID {
		p.dropLocked(id)
	}
}

// rankLocked counts n bytes of those about to join, and gives the group its place
// among those that have some.
func (p *pendingMembers) rankLocked(n int) {
	s := p.of.shard
	if s.EndedLocked() {
		return
	}
	s.idle += n
	s.c.pending.Add(int64(n))
	if p.any() {
		s.pendings.Set(p)
	} else {
		s.pendings.Remove(p)
	}
}

// makeRoomLocked takes member ids back that were handed out, until they take no more
// than they may. The newest, which is last's, stays.
func (s *shard) makeRoomLocked(last *pendingMembers) {
	most := maxPending
	if s.c.pending.Load() > maxAllPending {
		most = minPending
	}
	for s.idle > most {
		from := s.pendings.First()
		if from == last && len(from.byID) == 1 {
			return // it is the only one: the newest of all comes last
		}
		from.dropLocked(from.oldest().id)
		from.of.settlePendingLocked()
	}
}

// settlePendingLocked does what follows when a pending member went: a rebalance may
// have waited for it, but none begins.
func (c *classicGroup) settlePendingLocked() {
	if c.phase == preparing || c.phase == empty {
		c.settleLocked("a pending member went")
	}
}

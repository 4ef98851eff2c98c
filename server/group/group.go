package group

import (
	"time"

	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A group is a name with committed offsets and a membership. All of it is under
// its shard's lock.
type group struct {
	id      string
	shard   *shard
	members membership
	offsets map[string]map[int32]committed

	// pending counts the commits on their way, by where they go. An offset that is
	// about to be overwritten must not be expired: the tombstone would come on top.
	pending map[place]int

	// dead: the tombstones that end the group are on their way. Whoever would change
	// it gets COORDINATOR_NOT_AVAILABLE and tries again.
	dead bool
}

// A membership is who is in a group, by one of two protocols. Its methods run
// with the shard's lock held.
type membership interface {
	kind() string // "classic" or "consumer": GroupType of ListGroups
	state() string
	protocolType() string

	// empty: nobody is in the group. nothing: neither is anybody about to be, nor
	// has the journal a record of the membership.
	empty() bool
	nothing() bool

	// mayCommit returns the code for a commit of offsets with this identity, and
	// counts it as a sign of life of that member.
	mayCommit(memberID string, instanceID *string, generation int32) protocol.Code
	// mayFetch returns the code for a fetch of offsets with this identity (v9+).
	mayFetch(memberID *string, epoch int32) protocol.Code
	// subscribed reports whether members may read the topic, so that its offsets are
	// neither deleted nor expired.
	subscribed(topic string) bool
	// idleSince returns the time, in milliseconds, from which the retention of a
	// committed offset counts; false: it does not expire now.
	idleSince(o committed) (int64, bool)

	// tombstones are the records that end the membership in the journal; none if it
	// has no record of it.
	tombstones(now time.Time) []record.Record

	// disconnectedLocked is evidence that a member of the classic protocol has died.
	disconnectedLocked(memberID string)

	// startLocked is called once, when all records are replayed: sessions begin.
	startLocked()
	// stopLocked stops all alarms and answers with code whoever waits.
	stopLocked(code protocol.Code)
}

// A place is one partition of a topic.
type place struct {
	topic     string
	partition int32
}

// A base is what a membership of either kind stands on: its group, its group's shard, and
// what its members take of the memory that all groups share.
type base struct {
	group *group
	shard *shard
	bytes int
}

// chargeLocked counts n bytes that members of a host take, or give back.
func (b *base) chargeLocked(host string, n int) {
	b.bytes += n
	b.shard.chargeLocked(host, n)
}

// fitsLocked reports whether members of a host may take n more bytes.
func (b *base) fitsLocked(host string, n int) bool {
	set := b.shard.c.settings()
	return n <= 0 || b.bytes+n <= set.MaxGroupBytes && b.shard.c.memory.fits(host, n, set.MaxBytes)
}

// isItself returns the code for a member that says it has an instance id which known has
// ("": nobody).
func isItself(memberID, known string) protocol.Code {
	switch known {
	case "":
		return protocol.UnknownMemberID
	case memberID:
		return protocol.None
	}
	return protocol.FencedInstanceID
}

// halveLocked leaves a member half its session from now, if it had more.
func (s *shard) halveLocked(expiry *coordinator.Alarm, session time.Duration) {
	if at := s.Now().Add(session / 2); expiry.IsSet() && at.Before(expiry.At()) {
		s.SetLocked(expiry, at)
	}
}

package partition

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// A group's members follow the image, one change at a time: a new server joins
// without a vote, catches up, votes; a server that is no longer wanted leaves
// when those that stay can do without it. A node's new incarnation takes the
// old one's place in the same way, except that the old one, which can never
// vote again, leaves first.

// membershipChange is one step from what is to what is wanted.
type membershipChange struct {
	remove, add, promote raft.ServerID
}

// words says what the change does, and to whom.
func (c *membershipChange) words() (what, who string) {
	switch {
	case c.remove != "":
		return "removed", string(c.remove)
	case c.add != "":
		return "added", string(c.add)
	}
	return "promoted", string(c.promote)
}

// nextMember decides the next step for a group whose members are current and
// shall be wanted, nil when there is none.
func nextMember(current []raft.Server, wanted []raft.ServerID) *membershipChange {
	wants := func(id raft.ServerID) bool { return slices.Contains(wanted, id) }
	sameNode := func(a, b raft.ServerID) bool {
		x, errX := transport.ParseServerID(a)
		y, errY := transport.ParseServerID(b)
		return errX == nil && errY == nil && x.Node == y.Node
	}
	var learners []raft.ServerID
	for _, s := range current {
		if wants(s.ID) {
			if s.Suffrage != raft.Voter {
				learners = append(learners, s.ID)
			}
			continue
		}
		for _, id := range wanted {
			if sameNode(s.ID, id) { // an old incarnation
				return &membershipChange{remove: s.ID}
			}
		}
	}
	for _, id := range wanted {
		if !slices.ContainsFunc(current, func(s raft.Server) bool { return s.ID == id }) {
			return &membershipChange{add: id}
		}
	}
	if len(learners) > 0 {
		return &membershipChange{promote: learners[0]}
	}
	for _, s := range current {
		if !wants(s.ID) {
			return &membershipChange{remove: s.ID}
		}
	}
	return nil
}

// TendMembers takes the next step for the group, if this node leads it, and tells whether
// more are to be taken even if nothing happens. moves is how many more groups may be handed
// back to their preferred leaders, and is lowered by one that is; nil: leadership stays where
// it is. It is called by one goroutine.
func (u *Upkeep) TendMembers(now time.Time, moves *int) (more bool) {
	if u.r.Raft.State() != raft.Leader {
		return false
	}
	servers := u.r.Raft.GetConfiguration().Configuration().Servers
	lacks := u.nudge(servers, now)
	l := u.r.leadership.Load()
	if l == nil { // it begins once a quorum has its first entry, which may have to be sent again
		return true
	}
	changes := u.reconcileMembers(servers)
	away := u.balance(l, moves)
	return changes || lacks || away
}

// nudge makes Raft look after a replica that is there and lacks entries, of a group
// in which nothing happens: what did not arrive is sent again with the next entry,
// so it appends one that changes nothing. For a replica that does not catch up by
// that it is done again: see nudges.
func (u *Upkeep) nudge(servers []raft.Server, now time.Time) (lacks bool) {
	env, last := u.r.p.env, u.r.Raft.LastIndex()
	lacks = slices.ContainsFunc(servers, func(s raft.Server) bool {
		return s.ID != env.Self && u.r.MatchIndex(s.ID) < last && env.Host.HasOpen(s.ID, u.r.p.group)
	})
	if !lacks {
		u.nudges = nudges{}
		return false
	}
	if u.r.Port.Active() || !u.nudges.due(now, u.r.Raft.CurrentTerm(), u.r.leadership.Load() != nil) {
		return true
	}
	u.r.Raft.ApplyLog(log.TrimEntry(u.r.p.StartOffset()), time.Millisecond) // who calls does not wait for a disk
	return true
}

// nudgeEvery is how often that is done for an entry that everybody waits for.
const nudgeEvery = time.Second

// nudges are when a leader last had Raft look after replicas that lack entries.
type nudges struct {
	at    time.Time
	term  uint64
	times int // while it served, in that term
}

// due tells whether it is time to do so again, and takes it for done then. A leader that
// serves does it after 1 s, 2 s, and so on, up to a minute: the others are there without
// the one that does not catch up. One that does not serve yet is waiting for a quorum to
// have its first entry, and everybody for it: it does so each second, however long
// somebody lacked something in a leadership before.
func (g *nudges) due(now time.Time, term uint64, serves bool) bool {
	if term != g.term || !serves {
		g.term, g.times = term, 0
	}
	if now.Sub(g.at) < min(nudgeEvery<<g.times, time.Minute) {
		return false
	}
	g.at, g.times = now, min(g.times+1, 10)
	return true
}

// reconcileMembers takes the group's next step to the members that it shall have, and
// tells whether there is one.
func (u *Upkeep) reconcileMembers(servers []raft.Server) (changes bool) {
	_, part, ok := u.r.p.lookup()
	if !ok {
		return false
	}
	var wanted []raft.ServerID
	for _, node := range part.Replicas {
		id, ok := u.r.p.serverOf(node)
		if !ok {
			return false // the image is about to say more
		}
		wanted = append(wanted, id)
	}
	change := nextMember(servers, wanted)
	if change == nil || !u.changing.CompareAndSwap(false, true) {
		return change != nil
	}
	u.r.p.env.Host.GoTracked(func() {
		defer u.changing.Store(false)
		u.changeMember(change)
	})
	return true
}

// changeMember takes one step and waits for it.
func (u *Upkeep) changeMember(change *membershipChange) {
	env := u.r.p.env
	var f raft.Future
	switch {
	case change.remove == env.Self:
		if id, ok := u.r.Successor(); ok {
			ctx, cancel := context.WithTimeout(env.Ctx, callTimeout)
			defer cancel()
			u.r.TransferTo(ctx, id)
		}
		return
	case change.remove != "":
		f = u.r.Raft.RemoveServer(change.remove, 0, callTimeout)
	case change.add != "":
		f = u.r.Raft.AddNonvoter(change.add, raft.ServerAddress(change.add), 0, callTimeout)
	default:
		if !u.r.MayVote(change.promote) {
			return
		}
		f = u.r.Raft.AddVoter(change.promote, raft.ServerAddress(change.promote), 0, callTimeout)
	}
	what, who := change.words()
	if err := raftgroup.Await(env.Ctx, env.Closing, f); err != nil {
		// Raft may now hold a configuration that the log does not (a trap of
		// the library): only a new run knows what the disk says.
		u.r.p.logger.Warn("membership change failed", what, who, "error", err)
		if u.r.Raft.State() != raft.Leader {
			return
		}
		u.r.p.bounce(u.r, err)
		return
	}
	u.r.p.logger.Debug("membership changed", what, who)
	env.Host.MembersChanged(u.r.p.group, what, who)
}

// balance hands leadership back to the preferred replica if that is another and can
// take it, and tells whether it is another.
func (u *Upkeep) balance(l *leadership, moves *int) (away bool) {
	env := u.r.p.env
	id, ok := u.r.p.preferred()
	if !ok || id == env.Self || moves == nil {
		return false
	}
	if *moves <= 0 || !l.settled() || !env.Host.Connected(id) || !u.r.MayVote(id) || !slices.Contains(u.r.Voters(), id) {
		return true
	}
	*moves--
	env.Host.GoTracked(func() {
		ctx, cancel := context.WithTimeout(env.Ctx, callTimeout)
		defer cancel()
		if err := u.r.TransferTo(ctx, id); err != nil {
			u.r.p.logger.Debug("leadership was not handed back", "to", id, "error", err)
		}
	})
	return true
}

package replication

import (
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/bulletin"
	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// Membership follows the image, one change at a time: a new server joins
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

// tendMembers takes the next step for each group that this node leads, and tells
// whether more are to be taken even if nothing happens.
func (n *Node) tendMembers(now time.Time) (more bool) {
	n.growTopics()
	moved := 0
	n.eachReplica(func(r *replica) {
		if r.Raft.State() != raft.Leader {
			return
		}
		servers := r.Raft.GetConfiguration().Configuration().Servers
		lacks := n.nudge(r, servers, now)
		l := r.leadership.Load()
		if l == nil { // it begins once a quorum has its first entry, which may have to be sent again
			more = true
			return
		}
		changes := n.reconcileMembers(r, servers)
		away := n.balance(r, l, &moved)
		more = more || changes || lacks || away
	})
	return more
}

// nudge makes Raft look after a replica that is there and lacks entries, of a group
// in which nothing happens: what did not arrive is sent again with the next entry,
// so it appends one that changes nothing. For a replica that does not catch up by
// that it is done again: see nudges.
func (n *Node) nudge(r *replica, servers []raft.Server, now time.Time) (lacks bool) {
	last := r.Raft.LastIndex()
	lacks = slices.ContainsFunc(servers, func(s raft.Server) bool {
		return s.ID != n.serverID() && r.MatchIndex(s.ID) < last && n.failover.HasOpen(s.ID, r.p.group)
	})
	if !lacks {
		r.nudges = nudges{}
		return false
	}
	if r.Port.Active() || !r.nudges.due(now, r.Raft.CurrentTerm(), r.leadership.Load() != nil) {
		return true
	}
	r.Raft.ApplyLog(log.TrimEntry(r.p.StartOffset()), time.Millisecond) // upkeepLoop does not wait for a disk
	return true
}

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
	if now.Sub(g.at) < min(memberEvery<<g.times, time.Minute) {
		return false
	}
	g.at, g.times = now, min(g.times+1, 10)
	return true
}

// reconcileMembers takes a group's next step to the members that it shall have, and
// tells whether there is one.
func (n *Node) reconcileMembers(r *replica, servers []raft.Server) (changes bool) {
	_, part, ok := r.p.lookup()
	if !ok {
		return false
	}
	var wanted []raft.ServerID
	for _, node := range part.Replicas {
		id, ok := n.serverOf(node)
		if !ok {
			return false // the image is about to say more
		}
		wanted = append(wanted, id)
	}
	change := nextMember(servers, wanted)
	if change == nil || !r.changing.CompareAndSwap(false, true) {
		return change != nil
	}
	n.goTracked(func() {
		defer r.changing.Store(false)
		n.changeMember(r, change)
	})
	return true
}

// changeMember takes one step and waits for it.
func (n *Node) changeMember(r *replica, change *membershipChange) {
	var f raft.Future
	switch {
	case change.remove == n.serverID():
		if id, ok := r.successor(); ok {
			ctx, cancel := n.callContext()
			defer cancel()
			r.transferTo(ctx, id)
		}
		return
	case change.remove != "":
		f = r.Raft.RemoveServer(change.remove, 0, callTimeout)
	case change.add != "":
		f = r.Raft.AddNonvoter(change.add, raft.ServerAddress(change.add), 0, callTimeout)
	default:
		if !r.MayVote(change.promote) {
			return
		}
		f = r.Raft.AddVoter(change.promote, raft.ServerAddress(change.promote), 0, callTimeout)
	}
	if err := n.await(n.ctx, f); err != nil {
		// Raft may now hold a configuration that the log does not (a trap of
		// the library): only a new run knows what the disk says.
		what, who := change.words()
		r.p.logger.Warn("membership change failed", what, who, "error", err)
		if r.Raft.State() != raft.Leader {
			return
		}
		r.p.bounce(r, err)
		return
	}
	what, who := change.words()
	r.p.logger.Debug("membership changed", what, who)
	n.groupNews.Add(bulletin.Headline{Text: "membership of partitions changed", What: what, Who: who}, r.p.group)
}

// reconcileControllers keeps the controller group's members in step with the
// registered brokers, on its leader: all of them follow, an odd number votes.
func (n *Node) reconcileControllers() {
	m := n.memberOf(controllerGroup)
	if m == nil || m.Raft.State() != raft.Leader || !n.controlling.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer n.controlling.Store(false)
		n.changeController(m)
	})
}

// changeController takes the next step, if there is one, and waits for it.
func (n *Node) changeController(m *raftgroup.Member) {
	registered := make(map[raft.ServerID]bool)
	for _, b := range n.Image().Brokers() {
		registered[raft.ServerID(b.ServerID())] = true
	}
	voters, learners := 0, []raft.ServerID(nil)
	for _, s := range m.Raft.GetConfiguration().Configuration().Servers {
		switch {
		case !registered[s.ID] && s.ID != n.serverID():
			if err := n.await(n.ctx, m.Raft.RemoveServer(s.ID, 0, callTimeout)); err != nil {
				n.logger.Warn("a departed controller was not removed", "server", s.ID, "error", err)
			}
			return
		case s.Suffrage == raft.Voter:
			voters++
		default:
			if n.connected(s.ID) && m.MayVote(s.ID) {
				learners = append(learners, s.ID)
			}
		}
		delete(registered, s.ID)
	}
	for id := range registered {
		if err := n.await(n.ctx, m.Raft.AddNonvoter(id, raft.ServerAddress(id), 0, callTimeout)); err != nil {
			n.logger.Warn("a broker was not added to the controller group", "server", id, "error", err)
		}
		return
	}
	// An even number of voters is only passed through.
	if voters >= maxVoters || len(learners) == 0 || voters%2 == 1 && len(learners) < 2 {
		return
	}
	id := learners[0]
	if err := n.await(n.ctx, m.Raft.AddVoter(id, raft.ServerAddress(id), 0, callTimeout)); err != nil {
		n.logger.Warn("a controller did not get its vote", "server", id, "error", err)
	}
}

// growTopics gives topics that were created with the default replication
// factor the replicas they lack, once there are brokers for them.
func (n *Node) growTopics() {
	m := n.memberOf(controllerGroup)
	if m == nil || m.Raft.State() != raft.Leader || !n.growing.CompareAndSwap(false, true) {
		return
	}
	n.goTracked(func() {
		defer n.growing.Store(false)
		n.growNow()
	})
}

func (n *Node) growNow() {
	image := n.Image()
	want := min(defaultReplicas, len(image.Brokers()))
	for _, t := range image.Topics() {
		if !t.Grow {
			continue
		}
		placed, err := metadata.PlaceMore(image.Brokers(), t.Partitions, want, 0)
		if err != nil {
			n.logger.Warn("a topic did not grow", "topic", t.Name, "error", err)
			continue
		}
		for i, replicas := range placed {
			if len(replicas) == len(t.Partitions[i].Replicas) {
				continue
			}
			ctx, cancel := n.callContext()
			err := n.Change(ctx, metadata.SetReplicas{
				Partition: metadata.PartitionID{Topic: t.ID, Index: int32(i)}, Replicas: replicas,
			})
			cancel()
			if err != nil {
				n.logger.Warn("a topic did not grow", "topic", t.Name, "partition", i, "error", err)
				return
			}
		}
	}
}

// balance hands leadership back to the preferred replica if that is another and can
// take it, and tells whether it is another. moved counts the groups of one pass: no
// more than 32, so that the others go on serving.
func (n *Node) balance(r *replica, l *leadership, moved *int) (away bool) {
	id, ok := r.p.preferred()
	if !ok || id == n.serverID() || !n.settings().Leaders.Rebalance {
		return false
	}
	if *moved >= 32 || !l.settled() || !n.connected(id) || !r.MayVote(id) || !slices.Contains(r.Voters(), id) {
		return true
	}
	*moved++
	n.goTracked(func() {
		ctx, cancel := n.callContext()
		defer cancel()
		if err := r.transferTo(ctx, id); err != nil {
			r.p.logger.Debug("leadership was not handed back", "to", id, "error", err)
		}
	})
	return true
}

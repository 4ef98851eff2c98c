package replication

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// Failover by evidence, not by patience. Raft's own timers of seconds remain
// for failures that leave no trace; two kinds of evidence act at once:
//
//   - A peer's process died: its connections closed. For each group it led, the
//     first surviving voter in the group's order starts an election by a
//     TimeoutNow to itself; the next follows a stagger later if there is still
//     no leader, and so on. Survivors count, not members.
//   - A group has no leader because it is new, or because the cluster just
//     started. Nodes tell each other which groups they have open and which they
//     lead. Once a quorum has the group open and nobody leads it, the first of
//     those voters asks for votes, with Raft's pre-vote, which disturbs nobody if
//     a leader turns out to exist.
const (
	electionStagger = 150 * time.Millisecond
	// introduction is how long after the last peer came up nodes are given to
	// say which groups they lead.
	introduction = 100 * time.Millisecond
	// hair is by how much the election timeout exceeds the heartbeat timeout,
	// for lookForLeader.
	hair = time.Millisecond
)

// A claim is what a node said of a group: who leads it, under which term.
type claim struct {
	node int32
	term uint64
}

// peerDown is evidence that a process died, or cannot be reached.
func (n *Node) peerDown(peer transport.Peer) {
	n.logger.Warn("peer is down", "node", peer.Node)
	n.gossipMu.Lock()
	delete(n.openAt, peer.Node)
	for group, c := range n.claims {
		if c.node == peer.Node {
			delete(n.claims, group)
		}
	}
	n.gossipMu.Unlock()

	id := peer.ServerID()
	if m := n.memberOf(controllerGroup); m != nil && m.leader() == id {
		n.succeed(id, m, func() bool { return false })
	}
	n.eachReplica(func(r *replica) {
		if r.leader() == id {
			n.succeed(id, &r.member, r.stalls)
		}
	})
}

// succeed starts an election in the place that this node has among the
// survivors of a leader.
func (n *Node) succeed(dead raft.ServerID, m *member, stalls func() bool) {
	rank := n.rank(m.voters(), func(id raft.ServerID) bool { return id != dead && n.connected(id) })
	if rank < 0 {
		return
	}
	elect := func() {
		if l := m.leader(); (l == "" || l == dead) && !stalls() {
			if err := m.port.Elect(); err != nil {
				n.logger.Debug("election not started", "error", err)
			}
		}
	}
	if rank == 0 {
		elect()
		return
	}
	time.AfterFunc(time.Duration(rank)*electionStagger, elect)
}

// rank returns this node's place among the voters that are there, -1 if it has none.
func (n *Node) rank(voters []raft.ServerID, there func(raft.ServerID) bool) int {
	rank := 0
	for _, id := range voters {
		switch {
		case id == n.serverID():
			return rank
		case there(id):
			rank++
		}
	}
	return -1
}

// stalls tells whether the replica's disk keeps it from leading.
func (r *replica) stalls() bool { return r.store.stalled(time.Now()) > leaseTimeout/2 }

// peerUp introduces this node: what it has open, what it leads.
func (n *Node) peerUp(peer transport.Peer) {
	n.logger.Info("peer is up", "node", peer.Node)
	n.gossipMu.Lock()
	n.lastPeerUp = time.Now()
	n.gossipMu.Unlock()
	n.goTracked(func() { n.introduce(peer.Node) })
}

// introduce sends a node everything that gossip says of this one.
func (n *Node) introduce(node int32) {
	g := gossip{first: true}
	if m := n.memberOf(controllerGroup); m != nil {
		g.open = append(g.open, controllerGroup)
		if m.raft.State() == raft.Leader {
			g.leads = append(g.leads, groupTerm{controllerGroup, m.raft.CurrentTerm()})
		}
	}
	n.eachReplica(func(r *replica) {
		g.open = append(g.open, r.p.group)
		if l := r.leadership.Load(); l != nil {
			g.leads = append(g.leads, groupTerm{r.p.group, l.term})
		}
	})
	n.tell(node, g)
}

// leads notes and spreads that this node leads a group.
func (n *Node) leads(group, term uint64) {
	n.gossipMu.Lock()
	n.claims[group] = claim{n.identity.Node, term}
	n.news.leads = append(n.news.leads, groupTerm{group, term})
	n.gossipMu.Unlock()
	n.spread()
}

// opened notes and spreads that a group is open here.
func (n *Node) opened(group uint64) {
	n.gossipMu.Lock()
	n.leaderless[group] = time.Now()
	n.news.open = append(n.news.open, group)
	n.gossipMu.Unlock()
	n.spread()
}

// shut notes that a group is no longer open here.
func (n *Node) shut(group uint64) {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	delete(n.leaderless, group)
}

// spread wakes the gossip goroutine.
func (n *Node) spread() {
	select {
	case n.gossipWake <- struct{}{}:
	default:
	}
}

// gossipLoop sends news to all peers, a few milliseconds' worth at a time.
func (n *Node) gossipLoop() {
	for {
		select {
		case <-n.closing:
			return
		case <-n.gossipWake:
		}
		time.Sleep(5 * time.Millisecond)
		n.gossipMu.Lock()
		g := n.news
		n.news = gossip{}
		n.gossipMu.Unlock()
		for _, node := range n.transport.Connected() {
			n.tell(node, g)
		}
	}
}

// tell sends gossip to one node. What gets lost is told again when the
// connection comes back; Raft's own messages carry the leader as well.
func (n *Node) tell(node int32, g gossip) {
	ctx, cancel := n.callContext()
	defer cancel()
	if _, err := n.transport.Call(ctx, node, callGossip, g.encode()); err != nil {
		n.logger.Debug("gossip not delivered", "node", node, "error", err)
	}
}

// heard takes in a node's gossip.
func (n *Node) heard(from int32, g gossip) {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	if n.openAt[from] == nil || g.first {
		n.openAt[from] = make(map[uint64]bool)
	}
	for _, group := range g.open {
		n.openAt[from][group] = true
	}
	for _, gt := range g.leads {
		if c, ok := n.claims[gt.group]; !ok || gt.term >= c.term {
			n.claims[gt.group] = claim{from, gt.term}
		}
	}
}

// claimed returns who leads a group by gossip.
func (n *Node) claimed(group uint64) (claim, bool) {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	c, ok := n.claims[group]
	return c, ok
}

// electLoop asks for votes in groups that have had no leader since they were
// opened here.
func (n *Node) electLoop() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-n.closing:
			return
		case <-tick.C:
			n.electLeaderless(time.Now())
		}
	}
}

func (n *Node) electLeaderless(now time.Time) {
	n.gossipMu.Lock()
	if len(n.leaderless) == 0 || now.Sub(n.lastPeerUp) < introduction {
		n.gossipMu.Unlock()
		return
	}
	groups := make([]uint64, 0, len(n.leaderless))
	for group := range n.leaderless {
		groups = append(groups, group)
	}
	n.gossipMu.Unlock()
	slices.Sort(groups)
	for _, group := range groups {
		if n.electOne(group, now) {
			n.gossipMu.Lock()
			delete(n.leaderless, group)
			n.gossipMu.Unlock()
		}
	}
}

// electOne looks after one group; done means it needs no more looking after.
func (n *Node) electOne(group uint64, now time.Time) (done bool) {
	m := n.memberOf(group)
	if m == nil {
		return true
	}
	if _, led := n.claimed(group); led || m.leader() != "" {
		return true
	}
	voters := m.voters()
	if len(voters) == 0 {
		return false // joins a group; its leader will find it
	}
	open := func(id raft.ServerID) bool {
		if id == n.serverID() {
			return true
		}
		peer, err := transport.ParseServerID(id)
		if err != nil {
			return false
		}
		n.gossipMu.Lock()
		defer n.gossipMu.Unlock()
		return n.openAt[peer.Node][group]
	}
	there := 0
	for _, id := range voters {
		if open(id) {
			there++
		}
	}
	rank := n.rank(voters, open)
	if rank < 0 {
		return true // not a voter
	}
	n.gossipMu.Lock()
	if there < len(voters)/2+1 {
		n.leaderless[group] = now // the stagger counts from the quorum
		n.gossipMu.Unlock()
		return false
	}
	since, ok := n.leaderless[group]
	n.gossipMu.Unlock()
	if !ok || now.Sub(since) < time.Duration(rank)*electionStagger {
		return !ok
	}
	if err := m.lookForLeader(); err != nil {
		n.logger.Warn("election not started", "group", group, "error", err)
	}
	return true
}

// lookForLeader makes a follower that has not heard from a leader within its
// heartbeat timeout notice at once, and ask for pre-votes. Raft looks when the
// timeout is lowered, so it is raised by a hair and lowered again.
func (m *member) lookForLeader() error {
	c := m.raft.ReloadableConfig()
	timeout := c.HeartbeatTimeout
	for _, c.HeartbeatTimeout = range []time.Duration{timeout + hair, timeout} {
		if err := m.raft.ReloadConfig(c); err != nil {
			return err
		}
	}
	return nil
}

// A groupTerm is a group that is led, and the leader's term.
type groupTerm struct{ group, term uint64 }

// A gossip is what one node tells another about itself.
type gossip struct {
	first bool // everything; forget what was said before
	open  []uint64
	leads []groupTerm
}

// encode: first u8 · opens u32 · group u64 … · leads u32 · group u64, term u64 …
func (g gossip) encode() []byte {
	p := make([]byte, 0, 9+8*len(g.open)+16*len(g.leads))
	if g.first {
		p = append(p, 1)
	} else {
		p = append(p, 0)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(len(g.open)))
	for _, group := range g.open {
		p = binary.BigEndian.AppendUint64(p, group)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(len(g.leads)))
	for _, gt := range g.leads {
		p = binary.BigEndian.AppendUint64(p, gt.group)
		p = binary.BigEndian.AppendUint64(p, gt.term)
	}
	return p
}

func decodeGossip(p []byte) (g gossip, err error) {
	d := &decoder{p: p}
	g.first = d.byte() == 1
	for range d.count(8) {
		g.open = append(g.open, d.uint64())
	}
	for range d.count(16) {
		g.leads = append(g.leads, groupTerm{d.uint64(), d.uint64()})
	}
	return g, d.end()
}

package replication

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
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
//     no leader, and so on, and then the first again. Survivors count, not
//     members.
//   - A group has no leader because it is new, or because the cluster just
//     started. Nodes tell each other which groups they have open and which they
//     lead. Once a quorum has the group open and nobody leads it, the first voter
//     that is connected asks for votes, with Raft's pre-vote, which disturbs nobody
//     if a leader turns out to exist; the next follow a stagger later each.

// A leaderEntry is what a process said of a group: that it leads it, under which term. It
// holds until a later one, or until the process says that it leads other groups only:
// that it is not heard here any more says nothing of those who hear it.
type leaderEntry struct {
	process
	term uint64
}

// noteLeaderLocked takes an entry into the leaders table, with gossipMu held.
func (n *Node) noteLeaderLocked(group uint64, c leaderEntry) {
	before, ok := n.leaders[group]
	if ok && c.term < before.term {
		return
	}
	n.leaders[group] = c
	if group == controllerGroup && c != before && c.process != n.transport.Self() {
		n.logger.Info("another node is the controller now", "controller", c.Node, "term", c.term)
	}
}

// peerDown is evidence that a process died, or cannot be reached from here.
func (n *Node) peerDown(peer process) {
	n.lostAt.Store(peer.Node, time.Now())
	n.comings.say(n, peer.Node, false)
	n.membershipHints.Add(1)
	// What the process has open it still has, and what it hears it still hears, if it is
	// there after all: it may have heard this node all the while, and then says nothing
	// again. See hasOpen, and heard.
	n.sendViews()
	n.isolated(time.Now()) // from now on, it may be

	// A group that knows no leader may have lost this one too: a survivor that was
	// quicker has asked for votes, and Raft forgets its leader when it is asked.
	// That survivor is given its chance.
	id := peer.ServerID()
	look := func(group uint64, leader raft.ServerID) {
		switch leader {
		case id:
			n.leaderLost(group, peer, false, 0)
		case "":
			n.leaderLost(group, peer, false, electionStagger)
		}
	}
	n.eachMember(func(m *member) { look(m.group, m.leader()) })
	n.electLeaderless(time.Now())
}

// A leaderlessGroup is a group open here that has no leader that this node knows of.
type leaderlessGroup struct {
	since         time.Time     // when it was found so, or a quorum for it
	dead          raft.ServerID // the leader it lost; "": it has had none since it was opened
	lost          process       // and which run of it
	stoodDown     bool          // the leader said itself that it leads no more
	term          uint64        // when it lost it: the dead leader may come back and lead in a later one
	campaigns     int           // how often this node campaigned
	jitter        time.Duration // by what its next campaign comes later, see campaignDelay
	shortened     bool          // Raft's timers are short until a leader is found
	campaignAgain bool          // its candidacy was abandoned: it campaigns anew once it follows

	from   time.Time // when this node first knew of no leader; none since
	lacked bool      // which lasts for so long that it was logged
	given  bool      // the others were told that this node, which led it, does so no more
}

// A lack is what is to be logged of groups without a leader, and of those that have
// one again. electMu guards it.
type lack struct {
	logged      time.Time
	lost, found []uint64
}

// log logs what there is, now or after a while.
func (l *lack) log(n *Node, now time.Time, flush bool) {
	if !flush && now.Sub(l.logged) < lackEvery {
		return
	}
	say := func(level slog.Level, groups []uint64, text string, args ...any) {
		if len(groups) == 0 {
			return
		}
		names := make([]string, 0, 4)
		for _, g := range groups[:min(len(groups), 3)] {
			names = append(names, n.groupName(g))
		}
		if len(groups) > 3 {
			names = append(names, "…")
		}
		n.logger.Log(context.Background(), level, text, append(args, "count", len(groups), "groups", names)...)
		l.logged = now
	}
	if len(l.lost) > 0 {
		say(slog.LevelWarn, l.lost, fmt.Sprintf("no leader for more than %v", lackTime), "reason", n.whyLeaderless(l.lost[0]))
	}
	say(slog.LevelInfo, l.found, "there is a leader again")
	l.lost, l.found = nil, nil
}

// whyLeaderless says what a group lacks to elect a leader, as far as is known here.
func (n *Node) whyLeaderless(group uint64) string {
	m := n.memberOf(group)
	if m == nil {
		return "it is not open here"
	}
	voters := m.voters()
	var away []string
	for _, id := range voters {
		if p, err := transport.ParseServerID(id); err == nil && id != n.serverID() && !n.hasOpen(id, group, process{}) {
			away = append(away, fmt.Sprint(p.Node))
		}
	}
	switch {
	case len(voters) == 0:
		return "it knows of no voters yet"
	case len(voters)-len(away) < len(voters)/2+1:
		return fmt.Sprintf("%d of its %d voters are here, too few to elect one: without node %s", len(voters)-len(away), len(voters), strings.Join(away, ", "))
	}
	return "enough of its voters are here, and none has been elected"
}

// groupName names a group for the log.
func (n *Node) groupName(group uint64) string {
	if m := n.memberOf(group); m != nil {
		return m.role.name()
	}
	return fmt.Sprint(group)
}

// leaderLost notes that a group lost its leader. The election loop looks after it
// from then on, after a while that gives a leader the time to show. said tells that the
// leader itself says that it leads no more.
func (n *Node) leaderLost(group uint64, lost process, said bool, while time.Duration) {
	m := n.memberOf(group)
	if m == nil {
		return
	}
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	now := time.Now()
	o := &leaderlessGroup{since: now.Add(while), dead: lost.ServerID(), lost: lost, stoodDown: said, term: m.raft.CurrentTerm(), from: now}
	if before := n.leaderless[group]; before != nil {
		o.shortened = before.shortened // whose timers are to be made long again
		o.from, o.lacked = before.from, before.lacked
	}
	n.tendLocked(group, o)
}

// electionRank returns a voter's place among those that may campaign, or -1
// if it has no vote, how many these are, and how many of them have the group
// open. Who is about to open it keeps its place: the first voter is the one that
// should lead, and nodes open a new group some milliseconds apart.
func electionRank(voters []raft.ServerID, self raft.ServerID, open, coming func(raft.ServerID) bool) (rank, line, present int) {
	rank = -1
	for _, id := range voters {
		here := id == self || open(id)
		if id == self {
			rank = line
		}
		if here {
			present++
		}
		if here || coming(id) {
			line++
		}
	}
	return rank, line, present
}

// peerUp introduces this node: what it has open, what it leads.
func (n *Node) peerUp(peer process) {
	n.comings.say(n, peer.Node, true)
	n.membershipHints.Add(1)
	n.gossipMu.Lock()
	n.lastPeerUp = time.Now()
	n.gossipMu.Unlock()
	a := n.gossipPeer(peer.Node)
	a.mu.Lock()
	a.missed = true
	a.mu.Unlock()
	n.goTracked(func() { n.sendGossip(peer.Node, gossip{}) })
	n.sendViews()
	n.isolated(time.Now()) // not any more
}

// fullState is all that gossip says of this node.
func (n *Node) fullState() gossip {
	g := gossip{first: true}
	n.eachMember(func(m *member) {
		g.open = append(g.open, m.group)
		if term, ok := m.role.leadsNow(); ok {
			g.leads = append(g.leads, groupTerm{m.group, term})
		}
	})
	return g
}

// stillSo returns what of a delta holds when it is sent, which is milliseconds
// after it was gathered. A replica that was opened, or elected, and quarantined in
// between has been told to be shut by then, see notOpen: nobody may hear after that
// that it is open, or leads.
func (n *Node) stillSo(g gossip) gossip {
	var still gossip
	for _, group := range g.open {
		if n.memberOf(group) != nil {
			still.open = append(still.open, group)
		}
	}
	for _, l := range g.leads {
		if m := n.memberOf(l.group); m != nil && m.role.stillLeads(l.term) {
			still.leads = append(still.leads, l)
		}
	}
	return still
}

// leads notes and spreads that this node leads a group.
func (n *Node) leads(group, term uint64) {
	n.gossipMu.Lock()
	n.noteLeaderLocked(group, leaderEntry{n.transport.Self(), term})
	n.delta.leads = append(n.delta.leads, groupTerm{group, term})
	n.gossipMu.Unlock()
	if group == controllerGroup {
		n.logger.Info("this node is the controller now", "term", term)
	}
	n.membershipHints.Add(1)
	n.spread()
}

// opened notes and spreads that a group is open here.
func (n *Node) opened(group uint64) {
	n.gossipMu.Lock()
	now := time.Now()
	n.tendLocked(group, &leaderlessGroup{since: now, from: now})
	n.delta.open = append(n.delta.open, group)
	n.gossipMu.Unlock()
	n.spread()
}

// votesRecovered is told that votes of a group can be saved here again. For as long as they
// could not, this node answered too late, and the others campaigned in vain: if the group
// has no leader, their campaigns are minutes apart by then. It does not block.
func (n *Node) votesRecovered(group uint64) {
	n.gossipMu.Lock()
	n.delta.open = append(n.delta.open, group)
	n.gossipMu.Unlock()
	n.spread()
	n.campaignAnew([]uint64{group})
}

// campaignAnew has the campaigns of groups without a leader begin anew, where they have led
// nowhere: a voter is there that was not, or did not answer.
func (n *Node) campaignAnew(groups []uint64) {
	n.gossipMu.Lock()
	groups = slices.DeleteFunc(groups, func(group uint64) bool { return n.leaderless[group] == nil })
	n.gossipMu.Unlock()
	if len(groups) == 0 {
		return
	}
	n.goTracked(func() { // electMu is held while Raft is asked, which may be who calls
		n.electMu.Lock()
		defer n.electMu.Unlock()
		n.gossipMu.Lock()
		defer n.gossipMu.Unlock()
		for _, group := range groups {
			if o := n.leaderless[group]; o != nil && o.campaigns > 1 {
				o.since, o.campaigns, o.jitter = time.Now(), 0, 0
			}
		}
	})
}

// shut notes that a group is no longer open here.
func (n *Node) shut(group uint64) {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	delete(n.leaderless, group)
}

// notOpen has every peer sent the full state, since a delta only tells what is
// added. It is for a group that stays shut, or was led here until now: others that
// bounce are open again before it matters.
func (n *Node) notOpen() {
	select {
	case <-n.ready:
	default:
		return // nobody has been told anything
	}
	for _, node := range n.transport.Connected() {
		a := n.gossipPeer(node)
		a.mu.Lock()
		a.missed = true
		a.mu.Unlock()
		n.goTracked(func() { n.sendGossip(node, gossip{}) })
	}
}

// spread wakes the gossip goroutine.
func (n *Node) spread() {
	select {
	case n.gossipWake <- struct{}{}:
	default:
	}
}

// gossipLoop sends what is new to all peers, a few milliseconds' worth at a time.
func (n *Node) gossipLoop() {
	for {
		select {
		case <-n.closing:
			return
		case <-n.gossipWake:
		}
		time.Sleep(5 * time.Millisecond)
		n.gossipMu.Lock()
		g := n.delta
		n.delta = gossip{}
		n.gossipMu.Unlock()
		for _, node := range n.transport.Connected() {
			n.goTracked(func() { n.sendGossip(node, g) })
		}
	}
}

// A gossipPeer is how far a node has been told what this one is.
type gossipPeer struct {
	mu     sync.Mutex
	busy   bool // a goroutine is sending it something
	missed bool // it lacks something that was sent until now

	sendingView bool // a goroutine is sending it this node's view
	viewStale   bool // which has changed since
}

func (n *Node) gossipPeer(node int32) *gossipPeer {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	a := n.gossipPeers[node]
	if a == nil {
		a = &gossipPeer{missed: true}
		n.gossipPeers[node] = a
	}
	return a
}

// sendGossip sends what is new to one node, or the full state if it has missed something, until
// it arrives or the node is gone. A peer that came up by its own connection may
// not be reached by ours for a moment, and a node that has not been told which
// groups are open here takes no part in electing their leaders.
func (n *Node) sendGossip(node int32, g gossip) {
	a := n.gossipPeer(node)
	a.mu.Lock()
	if a.busy {
		a.missed = true
		a.mu.Unlock()
		return
	}
	a.busy = true
	for {
		if a.missed {
			a.missed = false
			a.mu.Unlock()
			g = n.fullState()
		} else {
			a.mu.Unlock()
			g = n.stillSo(g)
		}
		if n.Image().Level() >= 2 { // whoever is earlier reads neither
			g.number, g.about = n.gossipSent.Add(1), n.about()
		}
		ctx, cancel := n.callContext()
		_, err := n.transport.Call(ctx, node, callGossip, g.encode())
		cancel()
		if err != nil {
			n.logger.Debug("gossip not delivered", "node", node, "error", err)
			select {
			case <-time.After(resendEvery):
			case <-n.closing:
			}
		}
		a.mu.Lock()
		a.missed = a.missed || err != nil
		if !a.missed || n.ctx.Err() != nil || !n.Live(node) {
			break
		}
	}
	a.busy = false
	a.mu.Unlock()
}

// receiveGossip takes in a node's gossip.
//
// Two nodes do not lose each other at the same moment, nor need both of them. One that
// was paused finds new connections beside the old ones, and sees no end; the other had
// given it up. So what could not be taken in is refused, and said again.
//
// What was not answered in time is said again too, as everything there is, and may
// have been on its way all the while, over a connection that has ended. It must not
// undo what overtook it: nobody would say that again.
func (n *Node) receiveGossip(from transport.Peer, g gossip) error {
	by, ok := n.transport.Hears(from)
	if !ok {
		return fmt.Errorf("%w: its connection has just ended, or is not known yet", transport.ErrUnreachable)
	}
	if g.about != "" {
		n.admitted(from, g.about)
	}
	if g.first || len(g.open)+len(g.leads) > 0 { // else it only says how old it is
		defer n.membershipHints.Add(1)
	}
	var given []uint64 // groups that it says it leads no more
	n.gossipMu.Lock()
	if g.number > 0 {
		if g.number <= n.numbers[by] {
			n.gossipMu.Unlock()
			return nil
		}
		maps.DeleteFunc(n.numbers, func(p process, _ uint64) bool { return p.Node == by.Node && p != by })
		n.numbers[by] = g.number
	}
	if n.openAt[by] == nil || g.first {
		maps.DeleteFunc(n.openAt, func(p process, _ map[uint64]bool) bool { return p.Node == by.Node }) // of its former processes, too
		n.openAt[by] = make(map[uint64]bool)
	}
	for _, group := range g.open {
		n.openAt[by][group] = true
	}
	if g.first {
		maps.DeleteFunc(n.leaders, func(group uint64, c leaderEntry) bool {
			if c.Node != by.Node || slices.ContainsFunc(g.leads, func(gt groupTerm) bool { return gt.group == group }) {
				return false
			}
			if c.process == by {
				given = append(given, group)
			}
			return true
		})
	}
	for _, gt := range g.leads {
		n.noteLeaderLocked(gt.group, leaderEntry{by, gt.term})
	}
	n.gossipMu.Unlock()
	if !g.first {
		n.campaignAnew(slices.Clone(g.open))
	}
	if len(g.leads) > 0 {
		n.relay(by)
	}
	if g.first {
		// It may have been shut before it was heard of as the leader, but to Raft.
		known := make(map[uint64]bool, len(g.open)+len(given))
		for _, group := range slices.Concat(g.open, given) {
			known[group] = true
		}
		n.eachMember(func(m *member) {
			if !known[m.group] && m.group != controllerGroup && n.lostLeader(m, by) {
				given = append(given, m.group)
			}
		})
	}
	for _, group := range given {
		// It had another voter campaign if it knew of one that could, or it opens the group
		// again and campaigns itself: both are given a while.
		if m := n.memberOf(group); m != nil && n.lostLeader(m, by) {
			n.leaderLost(group, by, true, 2*electionStagger)
		}
	}
	return nil
}

// lostLeader tells whether a group here, which a process leads no more, followed it until
// now; or knows no leader and nobody looks for one: a voter that could not win has asked
// for votes since, and Raft forgets its leader when it is asked.
func (n *Node) lostLeader(m *member, former process) bool {
	switch m.leader() {
	case former.ServerID():
		return true
	case "":
		n.gossipMu.Lock()
		defer n.gossipMu.Unlock()
		return n.leaderless[m.group] == nil
	}
	return false
}

// leaderOf returns who leads a group by gossip.
func (n *Node) leaderOf(group uint64) (leaderEntry, bool) {
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	c, ok := n.leaders[group]
	return c, ok
}

// electLoop looks after groups without a leader, and sleeps while there are none.
func (n *Node) electLoop() {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-n.closing:
			return
		case <-tick.C:
		}
		if n.electLeaderless(time.Now()) > 0 {
			continue
		}
		select {
		case <-n.closing:
			return
		case <-n.leaderlessWake:
		}
	}
}

// tendLocked puts a group into the care of electLoop, with gossipMu held.
func (n *Node) tendLocked(group uint64, o *leaderlessGroup) {
	n.leaderless[group] = o
	select {
	case n.leaderlessWake <- struct{}{}:
	default:
	}
}

// electLeaderless looks after each of these groups once, and returns how many are left.
func (n *Node) electLeaderless(now time.Time) (left int) {
	n.gossipMu.Lock()
	groups := slices.Sorted(maps.Keys(n.leaderless))
	introduced := now.Sub(n.lastPeerUp) >= introduction
	n.gossipMu.Unlock()
	for _, group := range groups {
		n.gossipMu.Lock()
		o := n.leaderless[group]
		n.gossipMu.Unlock()
		if o != nil && n.electOne(group, o, now, introduced) {
			n.gossipMu.Lock()
			if n.leaderless[group] == o {
				delete(n.leaderless, group)
			}
			n.gossipMu.Unlock()
		}
	}
	n.gossipMu.Lock()
	left = len(n.leaderless)
	n.gossipMu.Unlock()
	n.electMu.Lock()
	n.lack.log(n, now, left == 0)
	given := n.given
	n.given = false
	n.electMu.Unlock()
	if given {
		n.notOpen()
	}
	return left
}

// electOne looks after one group; done means that it has a leader, or that it
// is none of this node's business. A group is touched by one goroutine at a
// time: electMu is held.
func (n *Node) electOne(group uint64, o *leaderlessGroup, now time.Time, introduced bool) (done bool) {
	n.electMu.Lock()
	defer n.electMu.Unlock()
	m := n.memberOf(group)
	if m == nil {
		return true
	}
	leader := m.leader()
	if leader != "" && (leader != o.dead || m.raft.CurrentTerm() > o.term) {
		return n.settle(m, o, group)
	}
	if c, led := n.leaderOf(group); led && c.Node != n.identity.Node && c.term >= m.raft.CurrentTerm() {
		switch {
		case n.hears(c.process):
			// Raft will hear from it; the leader of an earlier term will lead no more.
			// Or has all along: this one was out of hearing for a while, and is back.
			return leader == c.ServerID() && n.settle(m, o, group)
		case n.anyHears(func(p process) bool { return p == c.process }) && !n.lost(c.process, m.voters()):
			return false // others hear it, and may follow it: a broker that has no vote does not
		}
	}
	if o.stoodDown && !o.given && o.lost == n.transport.Self() && now.Sub(o.from) >= giveAfter {
		// It has campaigned, and may not be the one that can win. The others follow it
		// until it says that it leads no more, or Raft's own time is over.
		o.given, n.given = true, true
	}
	if !o.lacked && now.Sub(o.from) > lackTime {
		o.lacked = true
		n.lack.lost = append(n.lack.lost, group)
	}
	voters := m.voters()
	if len(voters) == 0 {
		return false // joins a group; its leader will find it
	}
	open := func(id raft.ServerID) bool { return n.hasOpen(id, group, o.lost) }
	coming := func(id raft.ServerID) bool { return o.dead == "" && n.connected(id) }
	rank, line, present := electionRank(voters, n.serverID(), open, coming)
	switch {
	case rank < 0:
		return true // no vote here
	case present < len(voters)/2+1:
		o.since = now // the stagger counts from the quorum
		return false
	case o.dead == "" && !introduced:
		return false
	}
	again := o.campaignAgain && m.raft.State() == raft.Follower
	if again || now.Sub(o.since) >= campaignDelay(rank, line, o.campaigns)+o.jitter {
		if !again { // which belongs to the campaign before
			o.countCampaign(line)
		}
		if err := n.campaign(group, m, o); err != nil {
			n.logger.Debug("election not started", "group", group, "error", err)
		}
	}
	if !o.shortened && now.Sub(o.since) > shortenAfter {
		o.shortened = true
		m.setTimeouts(shortTimeout)
	}
	return false
}

// settle ends what was done for a group that has a leader now.
func (n *Node) settle(m *member, o *leaderlessGroup, group uint64) (done bool) {
	if o.shortened {
		m.setTimeouts(heartbeatTimeout)
	}
	if o.lacked {
		n.lack.found = append(n.lack.found, group)
	}
	return true
}

// campaignDelay returns how long after a group lost its leader the voter of a rank
// campaigns for the next time, of so many in line: in order, then all again after
// one round, two, four, and each up to a round later, by chance. The first in line may lack
// entries that others have; it stays a candidate for seconds then, while they refuse it.
//
// Two nodes do not lose a leader at the same moment: up to a ping's interval apart, and so
// they may campaign at the same one.
//
//	     lost                   rank 1
//	A ────┼───────────────────────┼ campaigns ─ ─ ─ ─ ─ ┼ again ─ ─ ─ ─ ─ ┼
//	          150 ms later, lost, rank 0
//	B ────────────────────────────┼ campaigns ─ ─ ─ ─ ─ ┼ again ─ ─ ─ ─ ─ ┼
//
// Each votes for itself. Without jitter they would meet at all further campaigns, too.
func campaignDelay(rank, line, tries int) time.Duration {
	rounds := 1<<min(tries, 10) - 1
	return time.Duration(rank+line*rounds) * electionStagger
}

// countCampaign counts a campaign, and draws the jitter of the next.
func (o *leaderlessGroup) countCampaign(line int) {
	o.campaigns++
	o.jitter = rand.N(time.Duration(line) * electionStagger)
}

// campaign asks for votes: at once if the leader is known to lead no more, since it says so
// or a majority of the voters lost it, else with a pre-vote, to which those who hear
// their leader say no. Asked at once they would have to say yes, and a link that is cut
// between two nodes would depose leaders for as long as it is. A candidate that has
// asked a whole round ago begins anew: others may have campaigned in the same term, and Raft
// would wait for its election timeout.
func (n *Node) campaign(group uint64, m *member, o *leaderlessGroup) error {
	dead := o.dead != "" && (o.stoodDown || n.lost(o.lost, m.voters()))
	if dead && m.role.stalls() {
		return nil
	}
	o.campaignAgain = false
	if m.raft.State() == raft.Candidate {
		if o.campaigns < 2 {
			return nil
		}
		if err := m.port.AbandonCandidacy(m.raft.CurrentTerm() + 1); err != nil {
			return err
		}
		if !dead { // a pre-vote is a follower's
			o.campaignAgain = true
			return nil
		}
	}
	if !dead {
		return m.pokeElectionTimer()
	}
	return m.port.Elect()
}

// hasOpen tells whether a server's process, which is not lost, said that it has the
// group open.
func (n *Node) hasOpen(id raft.ServerID, group uint64, lost process) bool {
	peer, err := transport.ParseServerID(id)
	if err != nil {
		return false
	}
	p, ok := n.transport.Hears(peer)
	if !ok || p == lost {
		return false
	}
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	return n.openAt[p][group]
}

// setTimeouts sets Raft's heartbeat and election timeouts. A candidate that
// waits for its next try takes a shorter one into use at once.
func (m *member) setTimeouts(timeout time.Duration) {
	c := m.raft.ReloadableConfig()
	c.HeartbeatTimeout, c.ElectionTimeout = timeout, timeout+timeoutStep
	if err := m.raft.ReloadConfig(c); err != nil {
		panic(fmt.Sprintf("raft refuses timeouts of %v: %v", timeout, err))
	}
}

// pokeElectionTimer makes a follower that has not heard from a leader within its
// heartbeat timeout notice at once, and ask for pre-votes. Raft looks when the
// timeout is lowered, so it is raised by timeoutStep and lowered again.
func (m *member) pokeElectionTimer() error {
	c := m.raft.ReloadableConfig()
	timeout := c.HeartbeatTimeout
	for _, c.HeartbeatTimeout = range []time.Duration{timeout + timeoutStep, timeout} {
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
	first  bool // everything; forget what was said before
	open   []uint64
	leads  []groupTerm
	number uint64 // of what this process told anybody; 0: not said
	about  string // see about; "": not said
}

// encode returns the message:
//
//	flags u8 · opens u32 · group u64 … · leads u32 · group u64, term u64 … · number u64 · about, the rest
//
// Flags are 1 for first, 2 for a number and 4 for about, which are not there without.
func (g gossip) encode() []byte {
	p := make([]byte, 0, 17+8*len(g.open)+16*len(g.leads)+len(g.about))
	flags := byte(0)
	if g.first {
		flags |= 1
	}
	if g.number > 0 {
		flags |= 2
	}
	if g.about != "" {
		flags |= 4
	}
	p = append(p, flags)
	p = binary.BigEndian.AppendUint32(p, uint32(len(g.open)))
	for _, group := range g.open {
		p = binary.BigEndian.AppendUint64(p, group)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(len(g.leads)))
	for _, gt := range g.leads {
		p = binary.BigEndian.AppendUint64(p, gt.group)
		p = binary.BigEndian.AppendUint64(p, gt.term)
	}
	if g.number > 0 {
		p = binary.BigEndian.AppendUint64(p, g.number)
	}
	return append(p, g.about...)
}

func decodeGossip(p []byte) (g gossip, err error) {
	d := &decoder{p: p}
	flags := d.byte()
	g.first = flags&1 != 0
	for range d.count(8) {
		g.open = append(g.open, d.uint64())
	}
	for range d.count(16) {
		g.leads = append(g.leads, groupTerm{d.uint64(), d.uint64()})
	}
	if flags&2 != 0 {
		if g.number = d.uint64(); g.number == 0 {
			return g, errShortMessage
		}
	}
	if flags&4 != 0 {
		if g.about = d.rest(); g.about == "" {
			return g, errShortMessage
		}
	}
	return g, d.end()
}

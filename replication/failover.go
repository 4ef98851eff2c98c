package replication

import (
	"time"

	"millrace/replication/bulletin"
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
//
// It is three types. The gossiper spreads which groups are open where and who leads them,
// and has the leaders table. The evidence is whom this node hears, and whom the others do.
// The elector looks after groups without a leader. Each guards what it has with a mutex of
// its own; evidence.mu may be held when gossiper.mu is taken, and no other two together,
// but for elector.tending, which is taken first.
type failover struct {
	n         *Node
	gossip    gossiper
	evidence  evidence
	elections elector
}

func newFailover(n *Node) *failover {
	f := &failover{n: n}
	f.gossip = gossiper{
		f: f, leaders: make(map[uint64]leaderEntry), openAt: make(map[process]map[uint64]bool), numbers: make(map[process]uint64),
		peers: make(map[int32]*gossipPeer), wake: make(chan struct{}, 1),
	}
	f.evidence = evidence{f: f, views: make(map[process]seen), peers: make(map[int32]*viewPeer)}
	f.elections = elector{f: f, leaderless: make(map[uint64]*leaderlessGroup), wake: make(chan struct{}, 1)}
	return f
}

// peerUp introduces this node: what it has open, what it leads.
func (f *failover) peerUp(peer process) {
	f.n.peerNews.Say(f.n.logger, peer.Node, true, f.n.leaving.Load())
	f.n.membershipHints.Add(1)
	f.elections.peerUp(time.Now())
	f.gossip.introduce(peer.Node)
	f.evidence.sendViews()
	f.evidence.isolated(time.Now()) // not any more
}

// peerDown is evidence that a process died, or cannot be reached from here. What it has
// open it still has, and what it hears it still hears, if it is there after all: it may have
// heard this node all the while, and then says nothing again. See gossiper.hasOpen, and
// receiveGossip.
func (f *failover) peerDown(peer process) {
	f.evidence.lostAt.Store(peer.Node, time.Now())
	f.n.peerNews.Say(f.n.logger, peer.Node, false, f.n.leaving.Load())
	f.n.membershipHints.Add(1)
	f.evidence.sendViews()
	f.evidence.isolated(time.Now()) // from now on, it may be
	f.elections.peerDown(peer)
}

// leads notes and spreads that this node leads a group.
func (f *failover) leads(group, term uint64) {
	f.gossip.leads(group, term)
	if group == controllerGroup {
		f.n.logger.Info("this node is the controller now", "term", term)
	} else {
		f.n.groupNews.Add(bulletin.Headline{Text: "this node leads more partitions"}, group)
	}
	f.n.membershipHints.Add(1)
	f.gossip.spread()
}

// ended implements events. Others learn of it when another leads.
func (f *failover) ended(group uint64) {
	f.n.groupNews.Add(bulletin.Headline{Text: "this node leads fewer partitions"}, group)
}

// notOpen implements events.
func (f *failover) notOpen() { f.gossip.notOpen() }

// noticed implements events.
func (f *failover) noticed() {
	if f.n.holdNotice != nil {
		f.n.holdNotice()
	}
}

// elected implements events.
func (f *failover) elected() { f.n.membershipHints.Add(1) }

// LeaderLost implements raftgroup.Elections.
func (f *failover) LeaderLost(group uint64, leader process, said bool, while time.Duration) {
	f.elections.leaderLost(group, leader, said, while)
}

// opened notes and spreads that a group is open here.
func (f *failover) opened(group uint64) {
	f.elections.opened(group)
	f.gossip.opened(group)
}

// closed notes that a group is no longer open here. Nobody is told: others that bounce are
// open again before it matters. Of one that stays shut notOpen tells.
func (f *failover) closed(group uint64) { f.elections.closed(group) }

// VotesRecovered is told that votes of a group can be saved here again. For as long as they
// could not, this node answered too late, and the others campaigned in vain: if the group
// has no leader, their campaigns are minutes apart by then. It does not block.
func (f *failover) VotesRecovered(group uint64) {
	f.gossip.opened(group)
	f.elections.campaignAnew([]uint64{group})
}

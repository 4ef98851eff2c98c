// Package failover has the groups of a node led by somebody who is there: by evidence, not
// by patience. It knows whom this node hears and whom the others do, which groups are open
// where and who leads them, and has voters campaign where nobody does. Raft decides who
// wins; this package decides who asks, and when.
//
// # What acts at once
//
//   - A process died: its connections ended. Each survivor tells the others whom it hears
//     (a view), and once a majority of a group's voters has lost its leader, the first
//     surviving voter in the group's order campaigns, and is voted for by those too that
//     Raft still has following. The next campaigns a stagger later if there is still no
//     leader, and so on, and then the first again. Survivors count, not members.
//   - A leader says itself that it leads no more: Raft had it step down, or its replica was
//     shut. That is as good as a majority's loss.
//   - A group has no leader because it is new, or because the cluster just started. Nodes
//     tell each other which groups they have open and which they lead (gossip). Once a quorum
//     has the group open and nobody leads it, the first voter that is connected asks for
//     pre-votes, which disturb nobody if a leader turns out to exist; the next follow a
//     stagger later each. A node that came up a moment ago is given the time to say what it
//     leads.
//   - A voter is there that was not, or can save its votes again: campaigns that have led
//     nowhere, and are minutes apart by then, begin anew.
//
// What acts at once is not believed at once. Where this node alone has lost a leader, it asks
// for pre-votes only, to which those who hear the leader say no: a broken link between two
// nodes deposes nobody, in one direction or in both.
//
// # What patience remains
//
// What leaves no trace is left to a clock. A peer that says nothing for raftgroup.PeerTimeout
// (3 s) is taken for dead by the transport, and is evidence from then on. A leader that
// stepped down and cannot be elected again says so after giveAfter (600 ms), and until then
// the others follow it. A group that has no leader for shortenAfter (1 s) has Raft's own
// election timeout shortened from 36 s to the leader's lease, 14 s, in case all of this
// fails; after lackTime (5 s) the log says what the group lacks. For clients, a node that has
// lost the majority goes on naming the leaders it knew for isolatedAfter (3 s). How these
// relate to each other is a table in TestTimesGoTogether.
//
// # Whose word counts for what
//
//	who hears whom       each process of itself, in views; of two views the one that counts
//	                     higher. Who has shown none is taken to hear what this node does
//	what is open where   each process of itself, in gossip. A group that is shut is told by
//	                     saying everything anew; of a process that is gone what it said is
//	                     forgotten when the next one of that node speaks
//	who leads            a process of itself, in gossip, or another's in its name, in a view,
//	                     to those who do not hear it. The later term holds. That it is not
//	                     heard here says nothing of those who hear it
//	whether it still
//	leads                itself, by what it leaves out when it says everything; Raft here, by
//	                     a leader of a later term; a majority of the voters, by their views
//	who campaigns next   the order of the group's voters, of whom those count that have said
//	                     they have it open, or are connected and about to
//
// What cannot be taken in, because its sender is not heard here yet, is refused, so that it
// is said again: two nodes do not lose or find each other at the same moment.
//
// # How to read it
//
// testdata/failover has stories of all of this, in virtual time: who asks, who wins, and
// after how long. A Failover works for a Node, tells an Observer, and sees a group as a
// Member, which are interfaces of few methods; package replication has one adapter for all,
// in groups.go.
package failover

package replication

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// A leader that is deposed before it said that it leads campaigns again, whatever
// its node heard of who led before.
func TestFormerLeadersHinderNoElection(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		var other *testNode
		for _, n := range c.nodes {
			if n != leader {
				other = n
			}
		}
		r := p.current.Load()
		term := r.Raft.CurrentTerm()
		leader.failover.gossip.mu.Lock()
		leader.failover.gossip.leaders[p.group] = leaderEntry{other.transport.Self(), term - 1}
		leader.failover.gossip.mu.Unlock()
		// A candidate that the leader hands over to, and that nobody can vote for.
		name := []byte(other.serverID())
		err := mustPartition(t, other, id).current.Load().Port.RequestVote(leader.serverID(), "", &raft.RequestVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: name, Addr: name},
			Term:      term + 1, LeadershipTransfer: true,
		}, &raft.RequestVoteResponse{})
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		for r.Raft.CurrentTerm() == term || r.Leader() == "" {
			if time.Since(begin) > raftgroup.HeartbeatTimeout/10 {
				t.Fatal("it was left to Raft's own time")
			}
			time.Sleep(10 * time.Millisecond)
		}
	})
}

// Of two that say that they lead a group the one of the later term does, whichever is heard
// last: what a former leader said may have been under way for long.
func TestALateWordOfAFormerLeaderIsNotBelieved(t *testing.T) {
	heard := &newFailover(&Node{}).gossip
	by := func(node int32) process { return process{Peer: transport.Peer{Node: node, Incarnation: "a"}} }
	for _, said := range []struct {
		entry leaderEntry
		want  int32
	}{{leaderEntry{by(1), 4}, 1}, {leaderEntry{by(2), 6}, 2}, {leaderEntry{by(1), 5}, 2}, {leaderEntry{by(3), 7}, 3}, {leaderEntry{by(2), 6}, 3}} {
		heard.noteLeader(7, said.entry)
		if got, ok := heard.leaderOf(7); !ok || got.Node != said.want {
			t.Errorf("after node %d said that it leads in term %d, node %d is believed, want %d", said.entry.Node, said.entry.term, got.Node, said.want)
		}
	}
}

// What a candidate tells itself, to give up or to campaign, may reach Raft when it has won.
func TestWinnerIsNotDeposedByWhatItToldItselfBefore(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		r := p.current.Load()
		l := r.leadership.Load()
		for _, port := range []*transport.Port{r.Port, c.nodes[0].controller.Port} {
			if err := port.AbandonCandidacy(l.term + 1000); err != nil {
				t.Fatal(err)
			}
			if err := port.Elect(); err != nil {
				t.Fatal(err)
			}
		}
		term := c.nodes[0].controller.Raft.CurrentTerm()
		time.Sleep(time.Minute)
		if r.leadership.Load() != l || r.Raft.CurrentTerm() != l.term {
			t.Errorf("node %d led in term %d, and is in term %d now", leader.id, l.term, r.Raft.CurrentTerm())
		}
		if now := c.nodes[0].controller.Raft.CurrentTerm(); now != term || c.nodes[0].controller.Raft.State() != raft.Leader {
			t.Errorf("the controller led in term %d, and is in term %d now", term, now)
		}
	})
}

func TestElectionRank(t *testing.T) {
	voters := []raft.ServerID{"a", "b", "c"}
	for _, c := range []struct {
		name                string
		self                raft.ServerID
		open, coming        []raft.ServerID
		rank, line, present int
	}{
		{"all have it open", "b", voters, voters, 1, 3, 3},
		{"the first is about to open it", "b", []raft.ServerID{"b", "c"}, voters, 1, 3, 2},
		{"the first is away", "b", []raft.ServerID{"b", "c"}, []raft.ServerID{"b", "c"}, 0, 2, 2},
		{"the first died with it open", "c", []raft.ServerID{"b", "c"}, nil, 1, 2, 2},
		{"the first opens it as the last", "a", []raft.ServerID{"b", "c"}, voters, 0, 3, 3},
		{"alone", "c", nil, nil, 0, 1, 1},
		{"no voter", "d", voters, voters, -1, 3, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := func(ids []raft.ServerID) func(raft.ServerID) bool {
				return func(id raft.ServerID) bool { return slices.Contains(ids, id) }
			}
			rank, line, present := electionRank(voters, c.self, in(c.open), in(c.coming))
			if rank != c.rank || line != c.line || present != c.present {
				t.Errorf("rank %d, line %d, present %d; want %d, %d, %d", rank, line, present, c.rank, c.line, c.present)
			}
		})
	}
}

// Two nodes need not lose each other at the same time. One that was paused finds new
// connections beside the old ones and has heard the other all the while, so it says
// nothing again; the other had given it up, and must still know what it has open, else it
// would never find a quorum for a group.
func TestNodeThatWasGivenUpAndCameBackStillHasItsGroupsOpen(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		_, p := c.leader(id)
		time.Sleep(time.Second)
		a, b := c.nodes[0], c.nodes[1]
		lost, ok := a.transport.Hears(b.transport.Self().Peer)
		if !ok || !a.failover.gossip.hasOpen(b.serverID(), p.group, process{}) {
			t.Fatal("the nodes do not know each other: the test shows nothing")
		}
		a.failover.peerDown(lost)
		a.failover.peerUp(lost)
		time.Sleep(time.Minute)
		if !a.failover.gossip.hasOpen(b.serverID(), p.group, process{}) {
			t.Error("it is not known to have the group open")
		}
		a.failover.evidence.mu.Lock()
		_, shown := a.failover.evidence.views[lost]
		a.failover.evidence.mu.Unlock()
		if !shown {
			t.Error("it is not known whom it hears")
		}
		// What is heard from nobody who is there is refused, so that it is said again.
		if err := a.failover.gossip.receiveGossip(transport.Peer{Node: b.id, Incarnation: "00000000"}, gossip{open: []uint64{p.group}}); err == nil {
			t.Error("news of a node that is not heard are taken for told")
		}
		// A new process has nothing open until it says so.
		b.stop()
		b.start()
		b = c.nodes[1]
		for begin := time.Now(); !a.failover.gossip.hasOpen(b.serverID(), p.group, process{}); time.Sleep(10 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatal("it says nothing")
			}
		}
		time.Sleep(time.Second)
		a.failover.evidence.mu.Lock()
		defer a.failover.evidence.mu.Unlock()
		a.failover.gossip.mu.Lock()
		defer a.failover.gossip.mu.Unlock()
		if _, stale := a.failover.evidence.views[lost]; stale || len(a.failover.evidence.views) != 2 {
			t.Errorf("of two other nodes the views of %d processes are remembered, of one that is gone: %v", len(a.failover.evidence.views), stale)
		}
		if len(a.failover.gossip.openAt) != 2 || a.failover.gossip.openAt[lost] != nil {
			t.Errorf("of two other nodes %d processes are remembered, among them one that is gone", len(a.failover.gossip.openAt))
		}
	})
}

// replaced waits until another node than old leads, which must be soon.
func (c *testCluster) replaced(id idOf, old *testNode) {
	c.t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if n, _ := c.serving(id); n != nil && n != old {
			return
		}
		if took := time.Since(began); took > 2*time.Second {
			c.t.Fatalf("nobody else leads after %v", took)
		}
	}
}

// withoutSuccessor creates a topic and returns its leader, after a while in which it
// stays that, as if nobody had answered in its term: it can hand over to nobody.
func (c *testCluster) withoutSuccessor() (id idOf, leader *testNode, p *Partition, r *replica) {
	c.t.Helper()
	id = c.create("orders", 1, 3, nil)
	c.leader(id)
	time.Sleep(time.Minute)
	leader, p = c.leader(id)
	r = p.current.Load()
	// As of a term to come, after which nothing is known of this one.
	r.Progress.Answered("9.a", r.Raft.CurrentTerm()+1, 0, 0)
	return id, leader, p, r
}

// A leader whose disk failed says that it leads no more. That is enough for the others to
// elect another, also when it could hand leadership to nobody.
func TestALeaderThatCouldHandOverToNobodyIsReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, old, p, r := c.withoutSuccessor()
		p.bounce(r, &log.FailedError{Dir: p.dir, Err: syscall.EIO})
		c.replaced(id, old)
	})
}

// News are told some milliseconds after they were gathered. A leader whose disk fails
// within that time has said by then that it leads no more, and must not say after that
// that it does: the others would follow it until Raft's own time is over.
func TestALeaderThatFailsBeforeItIsHeardOfIsReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id, old, p, r := c.withoutSuccessor()
		old.failover.leads(p.group, r.leadership.Load().term) // news from here on
		p.bounce(r, &log.FailedError{Dir: p.dir, Err: syscall.EIO})
		c.replaced(id, old)
	})
}

// A leader may be shut before anybody has heard that it leads, but by Raft: that it does
// not say that the group is open there is enough. And by then followers may know of no
// leader at all, since one that cannot win has asked them for votes.
func TestALeaderThatNobodyHeardOfIsReplaced(t *testing.T) {
	for _, asked := range []bool{false, true} {
		t.Run(fmt.Sprintf("asked for a vote %v", asked), func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				id, old, p, r := c.withoutSuccessor()
				others := c.others(old)
				for i, n := range others {
					n.failover.gossip.mu.Lock()
					delete(n.failover.gossip.leaders, p.group)
					n.failover.gossip.mu.Unlock()
					if asked {
						port := mustPartition(t, others[1-i], id).current.Load().Port
						err := port.RequestVote(n.serverID(), "", &raft.RequestVoteRequest{
							RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(others[1-i].serverID()), Addr: []byte(others[1-i].serverID())},
							Term:      r.Raft.CurrentTerm() + 1, LeadershipTransfer: true,
						}, &raft.RequestVoteResponse{})
						if err != nil {
							t.Fatal(err)
						}
					}
				}
				p.bounce(r, &log.FailedError{Dir: p.dir, Err: syscall.EIO})
				c.replaced(id, old)
			})
		})
	}
}

// A leader that steps down and lives, and cannot be elected again, here for its disk: the
// others follow it, and would until Raft's own time is over, unless it says that it leads
// no more.
func TestALeaderThatStepsDownAndCannotCampaignIsReplaced(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		c.leader(id)
		time.Sleep(time.Minute) // it stays there
		old, p := c.leader(id)
		r := p.current.Load()
		slow := func() { r.store.began.Store(time.Now().Add(-stallTime * 3 / 4).UnixNano()) }
		slow()
		if err := r.Port.StepDown(r.Raft.CurrentTerm() + 1); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			slow()
			if n, _ := c.serving(id); n != nil && n != old {
				return
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Fatalf("nobody else leads after %v", took)
			}
		}
	})
}

// Two survivors that lost a leader as far apart as their places in the line campaign at the
// same moment, and neither wins. They must not meet again and again: votes take some
// milliseconds, and looks at who is due come every 20 ms.
func TestWhoCampaignedTogetherDoesNotDoSoAgain(t *testing.T) {
	const line, pairs, close = 2, 1000, 25 * time.Millisecond
	var again [5]int // pairs that met at all campaigns up to this one
	for range pairs {
		var first, second leaderlessGroup // which has rank 1 and lost the leader before the other, of rank 0
		for i := range again {
			first.countCampaign(line)
			second.countCampaign(line)
			a := campaignDelay(1, line, first.campaigns) + first.jitter
			b := raftgroup.ElectionStagger + campaignDelay(0, line, second.campaigns) + second.jitter
			if (a - b).Abs() > close {
				break
			}
			again[i]++
		}
	}
	if again[0] > pairs/3 || again[2] > pairs/20 {
		t.Errorf("of %d pairs that campaigned together, so many did it at each further time: %v", pairs, again)
	}
}

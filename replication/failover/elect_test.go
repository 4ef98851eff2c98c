package failover

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

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

// Two survivors that lost a leader as far apart as their places in the line campaign at the
// same moment, and neither wins. They must not meet again and again: votes take some
// milliseconds, and looks at who is due come every 20 ms.
func TestWhoCampaignedTogetherDoesNotDoSoAgain(t *testing.T) {
	const line, pairs, close = 2, 1000, 25 * time.Millisecond
	jitter := rand.New(rand.NewPCG(1, 2))
	var again [5]int // pairs that met at all campaigns up to this one
	for range pairs {
		var first, second leaderlessGroup // which has rank 1 and lost the leader before the other, of rank 0
		for i := range again {
			first.countCampaign(line, jitter)
			second.countCampaign(line, jitter)
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

// Of two that say that they lead a group the one of the later term does, whichever is heard
// last: what a former leader said may have been under way for long.
func TestALateWordOfAFormerLeaderIsNotBelieved(t *testing.T) {
	heard := &newWorld(t, 1).nodes[1].f.gossip
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

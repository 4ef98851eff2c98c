package replication

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestNextMemberTakesOneStepAtATime(t *testing.T) {
	voter := func(id raft.ServerID) raft.Server { return raft.Server{ID: id, Suffrage: raft.Voter} }
	learner := func(id raft.ServerID) raft.Server { return raft.Server{ID: id, Suffrage: raft.Nonvoter} }
	tests := []struct {
		name    string
		current []raft.Server
		wanted  []raft.ServerID
		want    *membershipChange
	}{
		{"nothing to do", []raft.Server{voter("1.a"), voter("2.b")}, []raft.ServerID{"2.b", "1.a"}, nil},
		{"a new server joins without a vote", []raft.Server{voter("1.a")}, []raft.ServerID{"1.a", "2.b"}, &membershipChange{add: "2.b"}},
		{"it gets its vote before the next one joins or leaves", []raft.Server{voter("1.a"), learner("2.b"), voter("3.c")},
			[]raft.ServerID{"1.a", "2.b"}, &membershipChange{promote: "2.b"}},
		{"a server that is not wanted leaves last", []raft.Server{voter("1.a"), voter("2.b"), voter("3.c")},
			[]raft.ServerID{"1.a", "2.b"}, &membershipChange{remove: "3.c"}},
		{"an old incarnation leaves first", []raft.Server{voter("1.a"), voter("2.old"), voter("3.c")},
			[]raft.ServerID{"1.a", "2.new", "3.c"}, &membershipChange{remove: "2.old"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := nextMember(tt.current, tt.wanted)
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Fatalf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestGossipSurvivesItsEncoding(t *testing.T) {
	g := gossip{first: true, open: []uint64{0, 7}, leads: []groupTerm{{7, 3}}}
	p := g.encode()
	got, err := decodeGossip(p)
	if err != nil || !got.first || len(got.open) != 2 || got.open[1] != 7 || len(got.leads) != 1 || got.leads[0] != g.leads[0] {
		t.Fatalf("got %+v, %v", got, err)
	}
	g.number = 9
	numbered := g.encode()
	if got, err := decodeGossip(numbered); err != nil || !got.first || got.number != 9 || len(got.leads) != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	g.about = "what a node says about itself"
	old := g.encode()
	if got, err := decodeGossip(old); err != nil || got.number != 9 || got.about != g.about {
		t.Fatalf("got %+v, %v", got, err)
	}
	for _, p := range [][]byte{p, numbered, old[:len(old)-len(g.about)+1]} { // about is the rest
		for n := range p {
			if _, err := decodeGossip(p[:n]); err == nil {
				t.Fatalf("the first %d of %d bytes were taken for whole", n, len(p))
			}
		}
	}
}

// What was on its way while it was said again, with more, changes nothing.
func TestOvertakenGossipChangesNothing(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		time.Sleep(time.Minute)
		lead, p := c.leader(id)
		other := c.others(lead)[0]
		g := lead.failover.gossip.fullState()
		g.number = 1 << 40
		if err := other.failover.gossip.receiveGossip(lead.transport.Self().Peer, g); err != nil {
			t.Fatal(err)
		}
		for _, early := range []gossip{{first: true, number: 1<<40 - 1}, {first: true, number: 1}} {
			if err := other.failover.gossip.receiveGossip(lead.transport.Self().Peer, early); err != nil {
				t.Fatal(err)
			}
		}
		if broker, _, ok := other.Leader(id); !ok || broker != lead.id {
			t.Errorf("it is said that %d leads the partition (%v), want %d", broker, ok, lead.id)
		}
		if !other.failover.gossip.hasOpen(lead.serverID(), p.group, process{}) {
			t.Error("the leader is said not to have it open")
		}
		other.failover.gossip.mu.Lock()
		defer other.failover.gossip.mu.Unlock()
		for by, number := range other.failover.gossip.numbers {
			if number == 0 {
				t.Errorf("%s does not count what it says", by)
			}
		}
		if len(other.failover.gossip.numbers) != 2 {
			t.Errorf("%d processes count what they say, want 2", len(other.failover.gossip.numbers))
		}
	})
}

func FuzzGossip(f *testing.F) {
	f.Add(gossip{open: []uint64{1}, leads: []groupTerm{{1, 2}}}.encode())
	f.Add(gossip{first: true, number: 3, about: "what a node says about itself"}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		g, err := decodeGossip(p)
		if err == nil && len(g.encode()) != len(p) {
			t.Fatal("gossip that was read has another length when written")
		}
	})
}

// A leader that serves does less and less for a replica that does not catch up. What it
// waits must not be what the next leadership waits, which nobody can write to until a
// quorum has its first entry.
func TestNudgesHurryUntilTheLeaderServes(t *testing.T) {
	var g nudges
	now := time.Now()
	count := func(term uint64, serves bool, within time.Duration) (n int) {
		for end := now.Add(within); now.Before(end); now = now.Add(stallEvery) {
			if g.due(now, term, serves) {
				n++
			}
		}
		return n
	}
	if n := count(3, true, 10*time.Minute); n < 12 || n > 16 {
		t.Errorf("a leader that serves did so %d times in ten minutes, want 1 s, 2 s … 1 min apart", n)
	}
	if n := count(5, false, 10*time.Second); n < 9 {
		t.Errorf("a leader that does not serve yet did so %d times in 10 s", n)
	}
	if n := count(5, true, 10*time.Second); n < 3 || n > 5 {
		t.Errorf("the same leader, serving, did so %d times in 10 s", n)
	}
}

package transport

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A heartbeat is not sent while there is no doubt of its answer; everything that
// could make it another answer has it sent again.
func TestHeartbeatsAreAnsweredHereWithoutDoubtOnly(t *testing.T) {
	const hold = 20 * time.Second
	adjust := func(c *Config) { c.Standing = hold }
	heartbeat := &raft.AppendEntriesRequest{Term: 3}
	// sent tells whether a heartbeat goes to the follower, which says yes to everything.
	sent := func(t *testing.T, c *cluster, from, to *Port, req *raft.AppendEntriesRequest) bool {
		t.Helper()
		before := c.nodes[0].Stats()
		resp := new(raft.AppendEntriesResponse)
		err := from.AppendEntries(to.local, "", req, resp)
		after := c.nodes[0].Stats()
		if after.Unsent > before.Unsent {
			if err != nil || !resp.Success || resp.Term != req.Term || string(resp.ID) != string(to.local) {
				t.Errorf("answered here with %+v, %v", resp, err)
			}
			return false
		}
		return true
	}
	confirm := func(t *testing.T, from, to *Port) {
		t.Helper()
		if err := from.AppendEntries(to.local, "", appendOf(5, 0, 0), new(raft.AppendEntriesResponse)); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name string
		want bool // sent
		then func(t *testing.T, c *cluster, n *pipenet, from, to *Port)
	}{
		{"nothing has changed", false, func(*testing.T, *cluster, *pipenet, *Port, *Port) {}},
		{"the follower pings for a while", false, func(*testing.T, *cluster, *pipenet, *Port, *Port) { time.Sleep(hold / 2) }},
		{"its word is old", true, func(*testing.T, *cluster, *pipenet, *Port, *Port) { time.Sleep(hold + time.Second) }},
		{"the leader stalls", true, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) { from.Stall(true) }},
		{"nothing is heard of the follower", true, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) {
			n.vanish(c.nodes[1].peer.Node)
			time.Sleep(2 * heardTime)
		}},
		{"the follower has died", true, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) {
			n.kill(c.nodes[1].peer.Node)
			time.Sleep(10 * time.Millisecond)
		}},
		{"an append was refused since", true, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) {
			done := make(chan error, 1)
			go func() {
				done <- from.AppendEntries(to.local, "", appendOf(6, 1, 10), new(raft.AppendEntriesResponse))
			}()
			rpc := consume(t, to)
			rpc.Respond(&raft.AppendEntriesResponse{Term: 9}, nil)
			<-done
		}},
		{"an append is under way", true, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) {
			go from.AppendEntries(to.local, "", appendOf(6, 1, 10), new(raft.AppendEntriesResponse))
			consume(t, to) // and never answered
		}},
		{"a connection to somebody else ended", true, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) {
			c.nodes[0].ends.Add(1)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			duo(t, adjust, func(t *testing.T, c *cluster, n *pipenet, from, to *Port) {
				stop := answerer(to)
				if !sent(t, c, from, to, heartbeat) {
					t.Error("the first heartbeat of all is not sent")
				}
				confirm(t, from, to)
				if sent(t, c, from, to, heartbeat) {
					t.Error("a heartbeat is sent right after an append")
				}
				if !sent(t, c, from, to, &raft.AppendEntriesRequest{Term: 4}) {
					t.Error("a heartbeat of another term is not sent")
				}
				stop()
				tt.then(t, c, n, from, to)
				stop = answerer(to)
				defer stop()
				if got := sent(t, c, from, to, heartbeat); got != tt.want {
					t.Errorf("sent: %v, want %v", got, tt.want)
				}
			})
		})
	}
}

package failover

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// A hinted observer counts what may call for another leader or member.
type hinted struct {
	host
	hints int
}

func (h *hinted) Changed() { h.hints++ }

// Whoever looks after leaders and members looks sooner once one of them came, went, or
// leads: without a word it would only at the next of its rare rounds.
func TestWhatCallsForALookIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 2)
		h := &hinted{host: host{w, 1}}
		f := New(Config{Node: h, Observer: h})
		f.peers, f.ctx, f.logger = h, t.Context(), slog.New(slog.DiscardHandler)
		other := w.nodes[2].process()
		for _, c := range []struct {
			name string
			tell func()
		}{
			{"a peer is up", func() { f.PeerUp(other) }},
			{"a peer is down", func() { f.PeerDown(other) }},
			{"a leadership began or ended in Raft", f.Noticed},
			{"this node leads a partition", func() { f.Leads(1, 7) }},
			{"this node is the controller", func() { f.Leads(controllerGroup, 7) }},
		} {
			before := h.hints
			if c.tell(); h.hints != before+1 {
				t.Errorf("%s: %d hints, want 1", c.name, h.hints-before)
			}
		}
	})
}

// A voter whose votes can be saved again campaigns as if for the first time: what it did
// while none could be, and nobody saw, does not put it behind the others.
func TestAVoterWhoseVotesAreSavedAgainCampaignsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1)
		h := host{w, 1}
		f := New(Config{Node: h, Observer: h})
		f.peers, f.ctx = h, t.Context()
		o := &leaderlessGroup{campaigns: 5, jitter: time.Second}
		f.elections.leaderless[1] = o
		f.VotesRecovered(1)
		f.Wait()
		if o.campaigns != 0 || o.jitter != 0 {
			t.Errorf("it counts %d campaigns and waits %v", o.campaigns, o.jitter)
		}
	})
}

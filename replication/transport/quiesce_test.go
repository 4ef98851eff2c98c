package transport

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/memnet"
)

// An append without entries is held while there is no doubt of its answer; everything
// that could make it another answer has it sent.
func TestAppendsWithoutEntriesRestUntilTheyAreDue(t *testing.T) {
	const interval = 4 * time.Second
	adjust := func(c *Config) { c.Timers.Quiesce = interval }
	heartbeat := &raft.AppendEntriesRequest{Term: 3}
	// took is how long an append was away, which the follower says yes to at once.
	took := func(t *testing.T, from, to *Port, req *raft.AppendEntriesRequest) time.Duration {
		t.Helper()
		begin := time.Now()
		resp := new(raft.AppendEntriesResponse)
		if err := from.AppendEntries(to.local, "", req, resp); err == nil && (!resp.Success || resp.Term != req.Term) {
			t.Errorf("answered with %+v", resp)
		}
		return time.Since(begin)
	}
	held := func(d time.Duration) bool { return d > time.Second }
	type nodes struct {
		c        *cluster
		n        *memnet.Network
		from, to *Port
	}
	for _, tt := range []struct {
		name string
		want bool // it is held
		then func(t *testing.T, x nodes)
	}{
		{"nothing has changed", true, func(*testing.T, nodes) {}},
		{"the answer is not so old", true, func(*testing.T, nodes) { time.Sleep(interval / 2) }},
		{"it is due", false, func(*testing.T, nodes) { time.Sleep(interval) }},
		{"the follower has died", false, func(t *testing.T, x nodes) {
			x.n.Kill(host(x.c.nodes[1].peer.Node))
			time.Sleep(10 * time.Millisecond)
		}},
		{"an append was refused since", false, func(t *testing.T, x nodes) {
			done := make(chan error, 1)
			go func() {
				done <- x.from.AppendEntries(x.to.local, "", appendOf(6, 1, 10), new(raft.AppendEntriesResponse))
			}()
			rpc := consume(t, x.to)
			rpc.Respond(&raft.AppendEntriesResponse{Term: 9}, nil)
			<-done
		}},
		{"a connection to somebody else ended", false, func(t *testing.T, x nodes) { x.c.nodes[0].quiesced.ends.Add(1) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			duo(t, adjust, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
				stop := answerer(to)
				if d := took(t, from, to, heartbeat); held(d) {
					t.Errorf("the first heartbeat of all was held for %v", d)
				}
				if d := took(t, from, to, heartbeat); d < interval/2 || d > interval {
					t.Errorf("the second was held for %v", d)
				}
				if d := took(t, from, to, appendOf(5, 1, 10)); held(d) {
					t.Errorf("an append with entries was held for %v", d)
				}
				if d := took(t, from, to, &raft.AppendEntriesRequest{Term: 4}); held(d) {
					t.Errorf("a heartbeat of another term was held for %v", d)
				}
				took(t, from, to, heartbeat)
				stop()
				tt.then(t, nodes{c, n, from, to})
				stop = answerer(to)
				defer stop()
				if d := took(t, from, to, heartbeat); held(d) != tt.want {
					t.Errorf("was held for %v", d)
				}
			})
		})
	}
}

// What is held is woken by what could make its answer news, and by new entries.
func TestQuiescedAppendsGoEarly(t *testing.T) {
	adjust := func(c *Config) { c.Timers.Quiesce = time.Minute }
	heartbeat := &raft.AppendEntriesRequest{Term: 3}
	empty := appendOf(5, 0, 0)
	for _, tt := range []struct {
		name      string
		heartbeat bool // goes too
		then      func(c *cluster, n *memnet.Network, from, to *Port)
	}{
		{"new entries", false, func(c *cluster, n *memnet.Network, from, to *Port) { from.Expedite() }},
		{"a connection ended", true, func(c *cluster, n *memnet.Network, from, to *Port) { n.Kill(host(c.nodes[1].peer.Node)) }},
		{"the group ended", true, func(c *cluster, n *memnet.Network, from, to *Port) { from.Close() }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			duo(t, adjust, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
				defer answerer(to)()
				if err := from.AppendEntries(to.local, "", heartbeat, new(raft.AppendEntriesResponse)); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * activeFor)
				beat, sent := make(chan struct{}), make(chan struct{})
				go func() {
					from.AppendEntries(to.local, "", heartbeat, new(raft.AppendEntriesResponse))
					close(beat)
				}()
				go func() { from.AppendEntries(to.local, "", empty, new(raft.AppendEntriesResponse)); close(sent) }()
				over := func(ch chan struct{}) bool {
					select {
					case <-ch:
						return true
					default:
						return false
					}
				}
				time.Sleep(10 * time.Second)
				if over(beat) || over(sent) || c.nodes[0].Stats().Quiesced != 2 {
					t.Fatalf("held: %d", c.nodes[0].Stats().Quiesced)
				}
				tt.then(c, n, from, to)
				time.Sleep(5 * time.Second)
				from.quiet.mu.Lock()
				still := len(from.quiet.hurried) // one whose peer is gone waits for that
				from.quiet.mu.Unlock()
				if over(beat) != tt.heartbeat || still != 0 {
					t.Errorf("the heartbeat is over: %v, %d appends are held", over(beat), still)
				}
				from.Close()
				<-beat
				<-sent
			})
		})
	}
}

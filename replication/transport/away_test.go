package transport

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/memnet"
)

// An append waits for a server that is away, without its entries, and goes when it is
// back; a heartbeat does not. It gives up after reachFor, and with its port.
func TestAnAppendWaitsForWhoIsAway(t *testing.T) {
	for _, tt := range []struct {
		name string
		then func(n *memnet.Network, from *Port) // half a minute later
		soon time.Duration                       // within which it ends then
		want error
	}{
		{"back", func(n *memnet.Network, _ *Port) { n.SetBoth(host(2), "", memnet.Open) }, 3 * longestBackoff, nil},
		{"closed", func(_ *memnet.Network, from *Port) { from.Close() }, time.Millisecond, ErrClosed},
		{"stalled and back", func(n *memnet.Network, from *Port) { from.Stall(true); n.SetBoth(host(2), "", memnet.Open) }, 3 * longestBackoff, ErrStalled},
		{"for good", func(*memnet.Network, *Port) {}, reachFor, ErrUnreachable},
	} {
		t.Run(tt.name, func(t *testing.T) {
			duo(t, nil, func(t *testing.T, c *cluster, n *memnet.Network, from, to *Port) {
				defer answerer(to)()
				if err := from.AppendEntries(to.local, "", appendOf(5, 1, 10), new(raft.AppendEntriesResponse)); err != nil {
					t.Fatal(err)
				}
				n.SetBoth(host(2), "", memnet.Held)
				time.Sleep(2 * c.nodes[0].cfg.Timers.PeerTimeout) // it is given up
				if _, heard := c.nodes[0].Hears(c.nodes[1].peer); heard {
					t.Fatal("the node is cut off and not given up")
				}
				req := appendOf(6, 1, 10)
				resp, done := async(from, to, req)
				time.Sleep(reachFor / 2)
				if len(done) > 0 {
					t.Fatalf("it did not wait: %v", <-done)
				}
				synctest.Wait()
				if len(req.Entries) > 0 {
					t.Error("it keeps its entries while it waits")
				}
				begin := time.Now()
				if err := from.AppendEntries(to.local, "", &raft.AppendEntriesRequest{Term: 3}, new(raft.AppendEntriesResponse)); !errors.Is(err, ErrUnreachable) || time.Since(begin) > c.nodes[0].cfg.Timers.DialTimeout {
					t.Errorf("a heartbeat to who is away: %v after %v", err, time.Since(begin))
				}
				begin = time.Now()
				tt.then(n, from)
				err := <-done
				if took := time.Since(begin); !errors.Is(err, tt.want) || took > tt.soon {
					t.Fatalf("it ended with %v after %v, want %v within %v", err, took, tt.want, tt.soon)
				}
				if tt.want == nil && (!resp.Success || resp.LastLog != 6) {
					t.Errorf("answered %+v, want that the follower has what was before", resp)
				}
			})
		})
	}
}

package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"millrace/internal/memnet"
)

// bubble runs f in virtual time with a cluster on a network in memory and closes it.
func bubble(t *testing.T, size int, adjust func(*Config), f func(t *testing.T, c *cluster, n *memnet.Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		c := newCluster(t, n, size, adjust)
		defer c.close()
		f(t, c, n)
	})
}

// A disturbance says after what delays a message of the protocol arrives. Handshakes arrive
// at once.
type disturbance func(from, to string, message []byte) []time.Duration

// Carry implements memnet.Carrier.
func (d disturbance) Carry(from, to string, offset int64, b []byte) (int, []time.Duration) {
	n := messageLen(b, offset == 0)
	switch {
	case n == 0 || n > len(b):
		return 0, nil
	case offset == 0:
		return n, []time.Duration{0}
	}
	return n, d(from, to, b[:n])
}

// messageLen is the length of the message that b begins with, 0 if it takes more
// of it to know.
func messageLen(b []byte, handshake bool) int {
	switch {
	case handshake && len(b) >= helloFixed:
		return helloFixed + int(binary.BigEndian.Uint16(b[6:]))
	case !handshake && len(b) >= headerSize:
		return headerSize + int(binary.BigEndian.Uint32(b)) + int(binary.BigEndian.Uint32(b[4:]))
	}
	return 0
}

// writer appends to a group through whoever leads it and remembers what was
// acknowledged.
type groupWriter struct {
	groups       []*group
	acknowledged []string
	sent         int
}

func (w *groupWriter) try() bool {
	for _, g := range w.groups {
		if g.raft.State() != raft.Leader {
			continue
		}
		w.sent++
		record := fmt.Sprint("record ", w.sent)
		if g.raft.Apply([]byte(record), 0).Error() == nil {
			w.acknowledged = append(w.acknowledged, record)
			return true
		}
	}
	return false
}

// must succeeds within 20 s of virtual time.
func (w *groupWriter) must(t *testing.T) {
	t.Helper()
	for range 200 {
		if w.try() {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatal("no acknowledgement in 20 s")
}

// check holds at any time: no two replicas disagree about what was committed. With
// atRest it also holds that all are equal and nothing acknowledged is missing.
func (w *groupWriter) check(t *testing.T, atRest bool) {
	t.Helper()
	var longest []string
	lists := make([][]string, len(w.groups)) // taken once: they go on growing
	for i, g := range w.groups {
		lists[i] = g.fsm.list()
		if len(lists[i]) > len(longest) {
			longest = lists[i]
		}
	}
	for i, l := range lists {
		for j := range l {
			if l[j] != longest[j] {
				t.Fatalf("replica %d applied %q as number %d, another %q", i, l[j], j, longest[j])
			}
		}
		if atRest && len(l) != len(longest) {
			t.Fatalf("replica %d applied %d, another %d", i, len(l), len(longest))
		}
	}
	if !atRest {
		return
	}
	have := make(map[string]int)
	for _, r := range longest {
		have[r]++
	}
	for _, r := range w.acknowledged {
		if have[r] != 1 {
			t.Fatalf("%q was acknowledged and is there %d times", r, have[r])
		}
	}
}

// leaders returns the replicas that believe to lead, by term: more than one in a
// term is the end of Raft.
func checkLeaders(t *testing.T, groups []*group, byTerm map[uint64]*group) {
	t.Helper()
	for _, g := range groups {
		term := g.raft.CurrentTerm()
		if g.raft.State() != raft.Leader || g.raft.CurrentTerm() != term {
			continue
		}
		if other := byTerm[term]; other != nil && other != g {
			t.Fatalf("two leaders in term %d: %s and %s", term, other.port.local, g.port.local)
		}
		byTerm[term] = g
	}
}

// The leader's node is cut off while clients write (S26), one direction at a time
// as well (S27), and mended again.
func TestGroupsSurviveAnIsolatedLeader(t *testing.T) {
	for _, count := range []int{1, 100} {
		for _, way := range []string{"both ways", "from it", "to it"} {
			t.Run(fmt.Sprint(count, " groups, ", way), func(t *testing.T) {
				bubble(t, 3, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
					var writers []*groupWriter
					for id := range uint64(count) {
						w := &groupWriter{groups: c.open(id + 1)}
						w.groups[int(id)%3].port.Elect()
						writers = append(writers, w)
					}
					for range 10 {
						for _, w := range writers {
							w.must(t)
						}
					}
					if way != "to it" {
						n.Set(host(1), "", memnet.Held)
					}
					if way != "from it" {
						n.Set("", host(1), memnet.Held)
					}
					time.Sleep(20 * time.Second)
					for i, w := range writers {
						// Node 1 must have given up; the others go on.
						if w.groups[0].raft.State() == raft.Leader {
							t.Fatalf("group %d: still led by the isolated node", i+1)
						}
						w.must(t)
						w.check(t, false)
					}
					n.Heal()
					time.Sleep(10 * time.Second)
					for _, w := range writers {
						w.must(t)
					}
					time.Sleep(5 * time.Second)
					for _, w := range writers {
						w.check(t, true)
					}
				})
			})
		}
	}
}

// Node 2 reaches 1 and 3, which do not reach each other (S28).
func TestGroupSurvivesABridge(t *testing.T) {
	bubble(t, 3, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		w := &groupWriter{groups: c.open(1)}
		w.groups[0].port.Elect()
		w.must(t)
		n.SetBoth(host(1), host(3), memnet.Held)
		for range 300 {
			time.Sleep(100 * time.Millisecond)
			w.try()
		}
		w.must(t)
		w.check(t, false)
		n.SetBoth(host(1), host(3), memnet.Open)
		time.Sleep(10 * time.Second)
		w.must(t)
		time.Sleep(2 * time.Second)
		w.check(t, true)
	})
}

// Messages of every kind are repeated, overtaken, and arrive up to 30 s late
// (S32), while the leader's cable flaps (S29). Connections themselves live on: it
// is what a message from before a partition meets after it.
func TestNothingIsLostToLateAndRepeatedMessages(t *testing.T) {
	seeds := int64(10)
	if testing.Short() {
		seeds = 2
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := memnet.New()
				random := rand.New(rand.NewSource(seed))
				disturber := rand.New(rand.NewSource(seed + 1000))
				var mu sync.Mutex
				quiet, late, repeated := false, 0, 0
				n.Carrier = disturbance(func(_, _ string, m []byte) []time.Duration {
					mu.Lock()
					defer mu.Unlock()
					if quiet || m[8] == typePing || m[8] == typePong {
						return []time.Duration{0}
					}
					var delays []time.Duration
					for range 1 + disturber.Intn(4)/3 {
						switch r := disturber.Intn(100); {
						case r < 70:
							delays = append(delays, 0)
						case r < 95:
							delays = append(delays, time.Duration(disturber.Intn(300))*time.Millisecond)
						default:
							delays = append(delays, time.Duration(disturber.Intn(30))*time.Second)
							late++
						}
					}
					if len(delays) > 1 {
						repeated++
					}
					return delays
				})
				c := newCluster(t, n, 3, nil)
				defer c.close()
				w := &groupWriter{groups: c.open(1)}
				w.groups[0].port.Elect()
				byTerm := make(map[uint64]*group)
				for range 600 { // five minutes
					time.Sleep(time.Duration(random.Intn(1000)) * time.Millisecond)
					if random.Intn(40) == 0 {
						node := int32(1 + random.Intn(3))
						n.SetBoth(host(node), "", memnet.Held)
						time.AfterFunc(time.Duration(random.Intn(8000))*time.Millisecond, func() { n.SetBoth(host(node), "", memnet.Open) })
					}
					for _, g := range w.groups {
						if g.raft.State() != raft.Leader {
							continue
						}
						w.sent++
						record := fmt.Sprint("record ", w.sent)
						future := g.raft.Apply([]byte(record), 0)
						done := make(chan bool, 1)
						go func() { done <- future.Error() == nil }()
						select {
						case ok := <-done:
							if ok {
								w.acknowledged = append(w.acknowledged, record)
							}
						case <-time.After(time.Second):
						}
					}
					checkLeaders(t, w.groups, byTerm)
					w.check(t, false)
				}
				mu.Lock()
				quiet = true
				mu.Unlock()
				n.Heal()
				time.Sleep(60 * time.Second)
				w.must(t)
				time.Sleep(5 * time.Second)
				w.check(t, true)
				mu.Lock()
				defer mu.Unlock()
				if len(w.acknowledged) < 50 || late < 100 || repeated < 100 {
					t.Fatalf("too little happened: %d acknowledged, %d late, %d repeated", len(w.acknowledged), late, repeated)
				}
				t.Logf("%d of %d acknowledged, %d messages late, %d repeated, %d terms led", len(w.acknowledged), w.sent, late, repeated, len(byTerm))
			})
		})
	}
}

// When a process dies its peers know at once, once, and with PeerDown's help a new
// leader is there before any timer of Raft has run.
func TestDeathIsKnownAtOnceAndOnce(t *testing.T) {
	bubble(t, 3, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		for _, node := range c.nodes {
			node.SetPeers([]int32{1, 2, 3})
		}
		groups := c.open(1)
		groups[0].port.Elect()
		w := &groupWriter{groups: groups}
		w.must(t)
		time.Sleep(time.Second) // the third has it too, and may be elected
		began := time.Now()
		n.Kill(host(1))
		synctest.Wait()
		if took := time.Since(began); took != 0 {
			t.Fatalf("it took %v", took)
		}
		for _, node := range c.nodes[1:] {
			if up, down := node.heard("up 1.a"), node.heard("down 1.a"); up != 1 || down != 1 {
				t.Fatalf("node %d heard of up %d times and of down %d times, want once each", node.peer.Node, up, down)
			}
			if got := node.Connected(); len(got) != 1 {
				t.Fatalf("node %d is connected to %v", node.peer.Node, got)
			}
		}
		groups[1].port.Elect()
		time.Sleep(50 * time.Millisecond)
		if groups[1].raft.State() != raft.Leader {
			t.Fatal("no leader 50 ms after the election began")
		}
		time.Sleep(time.Minute)
		for _, node := range c.nodes[1:] {
			if down := node.heard("down 1.a"); down != 1 {
				t.Fatalf("node %d heard of the death %d times", node.peer.Node, down)
			}
		}
	})
}

// A peer whose packets stop, without a word of farewell, is down after PeerTimeout
// and up again when the cable is mended (S31).
func TestSilenceIsDeathUntilItEnds(t *testing.T) {
	for _, way := range []string{"both ways", "one way"} {
		t.Run(way, func(t *testing.T) {
			bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
				a, b := c.nodes[0], c.nodes[1]
				a.SetPeers([]int32{2})
				b.SetPeers([]int32{1})
				time.Sleep(time.Minute)
				if up, down := a.heard("up 2.b"), a.heard("down 2.b"); up != 1 || down != 0 {
					t.Fatalf("before: up %d, down %d", up, down)
				}
				n.Set(host(2), host(1), memnet.Held)
				if way == "both ways" {
					n.Set(host(1), host(2), memnet.Held)
				}
				time.Sleep(2900 * time.Millisecond)
				if a.heard("down 2.b") != 0 {
					t.Fatal("down before 3 s of silence")
				}
				time.Sleep(1200 * time.Millisecond)
				if a.heard("down 2.b") != 1 {
					t.Fatal("not down after 4 s of silence")
				}
				time.Sleep(time.Minute)
				if up, down := a.heard("up 2.b"), a.heard("down 2.b"); up != 1 || down != 1 {
					t.Fatalf("a minute later: up %d, down %d", up, down)
				}
				n.Heal()
				time.Sleep(5 * time.Second)
				if up, down := a.heard("up 2.b"), a.heard("down 2.b"); up != 2 || down != 1 {
					t.Fatalf("after healing: up %d, down %d", up, down)
				}
				if up, down := b.heard("up 1.a"), b.heard("down 1.a"); up != down+1 {
					t.Fatalf("the other side: up %d, down %d", up, down)
				}
			})
		})
	}
}

// Anybody can say hello in a peer's name. While that peer speaks its connections stay, and
// nobody is told that it went down and came back.
func TestHandshakeInTheNameOfALivingPeerReplacesNothing(t *testing.T) {
	bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		a, b := c.nodes[0], c.nodes[1]
		a.SetPeers([]int32{2})
		b.SetPeers([]int32{1})
		time.Sleep(time.Second)
		for range 20 {
			conn, err := a.cfg.Dialer.DialContext(context.Background(), "tcp", a.cfg.Address)
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(hello{kind: kindControl, low: 1, high: 1, session: 99, from: b.peer, cluster: "test"}.encode())
			v, status, body, err := readHello(conn)
			if err != nil {
				t.Fatal(err)
			}
			if refusal, err := decodeAck(v, status, body); err != nil || refusal.status != statusNode || !strings.Contains(refusal.reason, "is alive") {
				t.Fatalf("answered %+v, %v", refusal, err)
			}
			conn.Close()
		}
		if up, down := a.heard("up 2.b"), a.heard("down 2.b"); up != 1 || down != 0 {
			t.Fatalf("up %d, down %d, want 1 and 0", up, down)
		}
	})
}

// A node loses power and is back before anybody noticed: no connection was closed,
// the new ones tell.
func TestRestartIsEvidenceToo(t *testing.T) {
	bubble(t, 2, nil, func(t *testing.T, c *cluster, n *memnet.Network) {
		a, b := c.nodes[0], c.nodes[1]
		a.SetPeers([]int32{2})
		b.SetPeers([]int32{1})
		time.Sleep(time.Second)
		n.Vanish(host(2))
		b.Close()
		time.Sleep(10 * time.Millisecond)
		fresh := c.start(b.peer, nil)
		fresh.SetPeers([]int32{1})
		time.Sleep(2 * time.Second) // the old session is given two pings' time to say that it lives
		if up, down := a.heard("up 2.b"), a.heard("down 2.b"); up != 2 || down != 1 {
			t.Fatalf("up %d, down %d, want 2 and 1", up, down)
		}
	})
}

// answerer stands for Raft: it says yes to everything.
func answerer(p *Port) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case rpc := <-p.Consumer():
				switch r := rpc.Command.(type) {
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Term: r.Term, Success: true, LastLog: r.PrevLogEntry + uint64(len(r.Entries))}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Term: r.Term, Granted: true}, nil)
				case *raft.RequestPreVoteRequest:
					rpc.Respond(&raft.RequestPreVoteResponse{Term: r.Term, Granted: true}, nil)
				case *raft.TimeoutNowRequest:
					rpc.Respond(&raft.TimeoutNowResponse{}, nil)
				}
			case <-done:
				return
			}
		}
	})
	return func() { close(done); wg.Wait() }
}

// pair opens a group on two nodes, the second of which answers.
func pair(tb testing.TB, adjust func(*Config)) (c *cluster, from *Port, to raft.ServerID) {
	c = newCluster(tb, &loopback{}, 2, adjust)
	from = c.nodes[0].Group(1, c.nodes[0].peer.ServerID())
	stop := answerer(c.nodes[1].Group(1, c.nodes[1].peer.ServerID()))
	tb.Cleanup(func() { c.close(); stop() })
	return c, from, c.nodes[1].peer.ServerID()
}

func appendOf(prev uint64, entries, size int) *raft.AppendEntriesRequest {
	req := &raft.AppendEntriesRequest{Term: 3, PrevLogEntry: prev, PrevLogTerm: min(prev, 2)}
	for i := range entries {
		req.Entries = append(req.Entries, &raft.Log{Index: prev + 1 + uint64(i), Term: 3, Data: make([]byte, size)})
	}
	return req
}

package replication

import (
	"context"
	"fmt"
	"testing"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// A load appends to partitions, through whoever leads each, and counts who did.
type load struct {
	c       *testCluster
	ids     []idOf
	changes []int           // of leader or of epoch, by partition
	longest []time.Duration // without an acknowledgement
}

// run appends to every partition in turn for a while.
func (l *load) run(d time.Duration) {
	l.changes, l.longest = make([]int, len(l.ids)), make([]time.Duration, len(l.ids))
	epochs, last := make([]int32, len(l.ids)), make([]time.Time, len(l.ids))
	for i := range l.ids {
		last[i] = time.Now()
		_, p := l.c.leader(l.ids[i])
		epochs[i], _ = p.Serving()
	}
	for begin := time.Now(); time.Since(begin) < d; time.Sleep(100 * time.Millisecond) {
		for i, id := range l.ids {
			n, p := l.c.serving(id)
			if n == nil {
				continue
			}
			if epoch, err := p.Serving(); err == nil && epoch != epochs[i] {
				l.changes[i]++
				epochs[i] = epoch
			}
			if _, err := appendWaitFor(p, recordtest.Values("x"), 20*time.Millisecond); err == nil {
				l.longest[i] = max(l.longest[i], time.Since(last[i]))
				last[i] = time.Now()
			}
		}
	}
	for i := range l.ids {
		l.longest[i] = max(l.longest[i], time.Since(last[i]))
	}
}

// serving returns who serves a partition now, by the latest epoch; nil: nobody.
func (c *testCluster) serving(id idOf) (lead *testNode, at *partition.Partition) {
	latest := int32(-1)
	for _, n := range c.nodes {
		if n.Node == nil {
			continue
		}
		if p, err := n.Partition(id); err == nil {
			if epoch, err := p.Serving(); err == nil && epoch > latest {
				lead, at, latest = n, p, epoch
			}
		}
	}
	return lead, at
}

// appendWaitFor is appendWait with a limit.
func appendWaitFor(p *partition.Partition, b record.Batch, limit time.Duration) (partition.Ack, error) {
	type answer struct {
		ack partition.Ack
		err error
	}
	done := make(chan answer, 1)
	p.Append([]record.Batch{b}, told(func(ack partition.Ack, err error) { done <- answer{ack, err} }))
	select {
	case a := <-done:
		return a.ack, a.err
	case <-time.After(limit):
		return partition.Ack{}, context.DeadlineExceeded
	}
}

// spread makes partitions whose leaders are all over the cluster.
func (c *testCluster) spread(partitions int) (ids []idOf) {
	id := c.create("orders", partitions, 3, nil)
	for i := range partitions {
		id.Index = int32(i)
		ids = append(ids, id)
	}
	time.Sleep(time.Minute) // each is led by its first replica, and all controllers vote
	return ids
}

// A link between two of three is broken, in both directions or in one. Both hear the
// third, so nobody has to be deposed who leads, and whoever is deposed all the same is
// once only.
func TestABrokenLinkDeposesNoLeader(t *testing.T) {
	for name, way := range map[string]memnet.Way{"cut": memnet.Severed, "dropped": memnet.Lost} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				l := &load{c: c, ids: c.spread(6)}
				c.net.Set(c.nodes[0].addr, c.nodes[2].addr, way)
				l.run(time.Minute)
				c.net.Heal()
				for i := range l.ids {
					t.Logf("partition %d: %d elections, %v without an acknowledgement", i, l.changes[i], l.longest[i])
					if l.changes[i] > 1 {
						t.Errorf("partition %d held %d elections", i, l.changes[i])
					}
				}
				time.Sleep(time.Minute)
				for i := range l.ids {
					c.sameEverywhere(l.ids[i])
				}
			})
		})
	}
}

// A node that dies, and one that nothing comes from or arrives at, have their partitions led by others as soon as
// that is known.
func TestTheDeadAreReplacedAtOnce(t *testing.T) {
	for name, limit := range map[string]time.Duration{
		"killed":   50 * time.Millisecond,
		"isolated": 50 * time.Millisecond,
		"silent":   4 * time.Second,
		"deaf":     4 * time.Second,
	} {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				ids := c.spread(6)
				n, _ := c.leader(ids[0])
				var its []idOf
				for _, id := range ids {
					if lead, _ := c.leader(id); lead == n {
						its = append(its, id)
					}
				}
				begin := time.Now()
				switch name {
				case "killed":
					n.stop()
				case "isolated":
					c.separate(n)
				default:
					for _, other := range c.others(n) {
						c.net.Set(other.addr, n.addr, memnet.Lost)
						if name == "silent" {
							c.net.Set(n.addr, other.addr, memnet.Lost)
						}
					}
				}
				for _, id := range its {
					for {
						if lead, _ := c.serving(id); lead != nil && lead != n {
							break
						}
						if time.Since(begin) > 40*time.Second {
							t.Fatalf("nobody else leads partition %d", id.Index)
						}
						time.Sleep(time.Millisecond)
					}
				}
				t.Logf("%d partitions led by others after %v", len(its), time.Since(begin))
				if took := time.Since(begin); took > limit {
					t.Errorf("%d partitions were led by others after %v, want %v", len(its), took, limit)
				}
			})
		})
	}
}

// Clients of a node that is cut off are to find the others: it lists every broker, and
// who leads stays who did, until what it knows is too old. The others miss the node.
func TestWhoIsCutOffHidesNobody(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		ids := c.spread(6)
		alone := c.nodes[0]
		before := make(map[idOf]int32)
		for _, id := range ids {
			broker, _, ok := alone.Leader(id)
			if !ok {
				t.Fatalf("nobody leads partition %d", id.Index)
			}
			before[id] = broker
		}
		c.separate(alone)
		time.Sleep(time.Second)
		for _, id := range ids {
			if broker, _, ok := alone.Leader(id); !ok || broker != before[id] {
				t.Errorf("a second after the cut, partition %d is led by %d (%v), want %d", id.Index, broker, ok, before[id])
			}
		}
		time.Sleep(4 * time.Second)
		for _, id := range ids {
			if broker, _, ok := alone.Leader(id); ok {
				t.Errorf("5 s after the cut, it says that %d leads partition %d", broker, id.Index)
			}
			if broker, _, ok := c.nodes[1].Leader(id); !ok || broker == alone.id {
				t.Errorf("5 s after the cut, another says that %d (%v) leads partition %d", broker, ok, id.Index)
			}
		}
		for _, n := range c.nodes {
			if !alone.Present(n.id) {
				t.Errorf("who is cut off hides node %d", n.id)
			}
			if present := c.nodes[1].Present(n.id); present != (n != alone) {
				t.Errorf("to the others, node %d is there: %v", n.id, present)
			}
		}
		c.net.Heal()
		time.Sleep(5 * time.Second)
		for _, id := range ids {
			_, _, ok := alone.Leader(id)
			if !ok || alone.Isolated() {
				t.Errorf("after the healing nobody leads partition %d", id.Index)
			}
		}
	})
}

// Two that do not hear each other know what the other leads all the same, and what it
// has come to lead meanwhile, from the third.
func TestLeadersAreKnownAcrossABrokenLink(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		ids := c.spread(6)
		near, bridge, far := c.nodes[0], c.nodes[1], c.nodes[2]
		c.net.Set(near.addr, far.addr, memnet.Severed)
		time.Sleep(5 * time.Second)
		check := func(when string) {
			t.Helper()
			for _, id := range ids {
				lead, p := c.leader(id)
				want, _ := p.Serving()
				for _, n := range c.nodes {
					if broker, epoch, ok := n.Leader(id); !ok || broker != lead.id || epoch != want {
						t.Errorf("%s, node %d says that %d (%v) leads partition %d in epoch %d; it is %d in epoch %d",
							when, n.id, broker, ok, id.Index, epoch, lead.id, want)
					}
				}
			}
			for _, n := range c.nodes {
				if !near.Present(n.id) {
					t.Errorf("%s, node %d is not there for node %d", when, n.id, near.id)
				}
			}
		}
		check("after the cut")
		// Hand what the bridge leads to the far one.
		moved := 0
		for _, id := range ids {
			lead, p := c.leader(id)
			if lead != bridge {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			if err := p.Replica().TransferTo(ctx, far.serverID()); err != nil {
				t.Fatal(fmt.Errorf("hand partition %d over: %w", id.Index, err))
			}
			cancel()
			moved++
		}
		if moved == 0 {
			t.Fatal("the bridge leads nothing")
		}
		time.Sleep(time.Second)
		check("after a change of leaders")
	})
}

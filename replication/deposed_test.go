package replication

import (
	"errors"
	"slices"
	"testing"
	"time"

	"millrace/internal/memnet"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// lateNotices are how late a leader may look at the notification that it is deposed.
// Raft does not wait for that: it cuts the log, stores what the heir sends, and applies
// it, within a millisecond or two.
var lateNotices = []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond}

// An answer is what came of an append.
type answer struct {
	ack partition.Ack
	err error
}

// appendLater appends a batch and returns where its answer will be.
func appendLater(p *partition.Partition, b record.Batch) chan answer {
	done := make(chan answer, 1)
	p.Append([]record.Batch{b}, told(func(ack partition.Ack, err error) { done <- answer{ack, err} }))
	return done
}

// heir waits until another node than old serves the partition.
func (c *testCluster) heir(old *testNode, id idOf) *partition.Partition {
	c.t.Helper()
	for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
		for _, n := range c.nodes {
			if n == old {
				continue
			}
			if p, err := n.Partition(id); err == nil {
				if _, err := p.Serving(); err == nil {
					return p
				}
			}
		}
	}
	c.t.Fatal("nobody takes over")
	return nil
}

// I1: what a leader had in flight when it was deposed, and its heir has replaced, is
// unknown, however late the old leader looks at the news. What its followers had, and
// the heir has committed, is acknowledged if the old leader finds it applied before it
// looks, and else unknown.
func TestDeposedLeaderAcknowledgesOnlyWhatItsHeirCommitted(t *testing.T) {
	for _, late := range lateNotices {
		t.Run(late.String(), func(t *testing.T) {
			inVirtualTime(t, func(t *testing.T, c *testCluster) {
				id := c.create("orders", 1, 3, nil)
				old, p := c.leader(id)
				if _, err := appendWait(p, recordtest.Values("before")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // no request is unanswered, so the next entry goes to both at once
				i := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n != old })
				heir := c.nodes[i].replicaOf(p.Group())
				last := p.Replica().Raft.LastIndex()
				old.late.Store(int64(late))
				c.net.Set("", old.addr, memnet.Stalled) // its followers' answers lie there, and what the heir will send
				kept := appendLater(p, recordtest.Values("kept"))
				for begin := time.Now(); heir.Raft.LastIndex() <= last; time.Sleep(time.Millisecond) {
					if time.Since(begin) > time.Minute {
						t.Fatal("the follower does not get the entry")
					}
				}
				// These are not sent before there is an answer for the first.
				lost := appendLater(p, recordtest.Values("lost"))
				time.Sleep(time.Millisecond)
				more := appendLater(p, recordtest.Values("lost, too"))
				time.Sleep(time.Millisecond)
				if err := heir.Port.Elect(); err != nil {
					t.Fatal(err)
				}
				next := c.heir(old, id)
				for _, v := range []string{"x", "y", "z"} {
					if _, err := appendWait(next, recordtest.Values(v)); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := p.Serving(); err != nil {
					t.Fatalf("the old leader knows already (%v): the test shows nothing", err)
				}
				c.net.Set("", old.addr, memnet.Open)
				a := <-kept
				switch {
				case a.err == nil && a.ack.BaseOffset != 1:
					t.Errorf("acknowledged at offset %d, want 1", a.ack.BaseOffset)
				case a.err != nil && !errors.Is(a.err, ErrUnknown):
					t.Errorf("answered with %v", a.err)
				case a.err != nil && late > 100*time.Millisecond:
					t.Errorf("it was applied long before the news was looked at, and answered with %v", a.err)
				}
				for _, done := range []chan answer{lost, more} {
					if a := <-done; !errors.Is(a.err, ErrUnknown) {
						t.Errorf("a lost record is acknowledged: offset %d, %v", a.ack.BaseOffset, a.err)
					}
				}
				old.late.Store(0)
				time.Sleep(time.Minute)
				c.check("in the end", id, []string{"before", "kept", "x", "y", "z"})
				c.sameEverywhere(id)
			})
		})
	}
}

// A deposed leader does not know what a producer has sent to its heir. That a batch
// follows nothing it has seen is for a leader to say.
func TestDeposedLeaderDoesNotJudgeSequences(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		old, p := c.leader(id)
		if _, err := appendWait(p, recordtest.Sequenced(9, 0, 0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := appendWait(p, recordtest.Sequenced(9, 0, 5, 1, 0)); !errors.Is(err, partition.ErrSequence) {
			t.Fatalf("a gap: %v", err)
		}
		c.separate(old)
		next := c.heir(old, id)
		for i := range int32(4) {
			if _, err := appendWait(next, recordtest.Sequenced(9, 0, 1+i, 1, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Serving(); err != nil {
			t.Fatalf("the old leader knows already (%v): the test shows nothing", err)
		}
		if _, err := appendWait(p, recordtest.Sequenced(9, 0, 5, 1, 0)); !errors.Is(err, partition.ErrNotLeader) {
			t.Errorf("what follows at the heir is refused by the old leader with %v", err)
		}
	})
}

// A notification that is looked at when its term is long over, and another has begun
// here, ends nothing: a second leadership of that term would append again what
// producers send again, and the first has in flight.
func TestLateNoticeEndsNoLaterLeadership(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 3, nil)
		leader, p := c.leader(id)
		time.Sleep(time.Minute) // whatever the start has queued is done
		r := p.Replica()
		term, ok := r.LeadsNow()
		if !ok {
			t.Fatalf("node %d leads no more", leader.id)
		}
		leader.disk.set(true, nil)
		defer leader.disk.set(false, nil)
		first := appendLater(p, recordtest.Sequenced(9, 0, 0, 1, 0))
		time.Sleep(10 * time.Millisecond)
		r.LeadershipChanged(false)
		r.LeadershipChanged(true)
		time.Sleep(10 * time.Millisecond)
		if now, ok := r.LeadsNow(); !ok || now != term {
			t.Fatalf("the leadership of term %d is over", term)
		}
		again := appendLater(p, recordtest.Sequenced(9, 0, 0, 1, 0))
		leader.disk.set(false, nil)
		a, b := <-first, <-again
		if a.err != nil || b.err != nil || a.ack.BaseOffset != b.ack.BaseOffset {
			t.Fatalf("a batch that was sent twice is at %+v and %+v", a, b)
		}
		if end := p.HighWatermark(); end != 1 {
			t.Errorf("the high watermark is %d, want 1", end)
		}
	})
}

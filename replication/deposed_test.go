package replication

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment/record"
)

// lateNotices are how late a leader may look at the notification that it is deposed.
// Raft does not wait for that: it cuts the log, stores what the heir sends, and applies
// it, within a millisecond or two.
var lateNotices = []time.Duration{0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond, 300 * time.Millisecond}

// An answer is what came of an append.
type answer struct {
	ack Ack
	err error
}

// appendLater appends a batch and returns where its answer will be.
func appendLater(p *Partition, b record.Batch) chan answer {
	done := make(chan answer, 1)
	p.Append([]record.Batch{b}, func(ack Ack, err error) { done <- answer{ack, err} })
	return done
}

// heir waits until another node than old serves the partition.
func (c *testCluster) heir(old *testNode, id idOf) *Partition {
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
				if _, err := appendWait(p, batchOf("before")); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // no request is unanswered, so the next entry goes to both at once
				i := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n != old })
				heir := c.nodes[i].replicaOf(p.group)
				last := p.current.Load().Raft.LastIndex()
				old.late.Store(int64(late))
				c.net.freeze(old.addr) // its followers' answers lie there, and what the heir will send
				kept := appendLater(p, batchOf("kept"))
				for begin := time.Now(); heir.Raft.LastIndex() <= last; time.Sleep(time.Millisecond) {
					if time.Since(begin) > time.Minute {
						t.Fatal("the follower does not get the entry")
					}
				}
				// These are not sent before there is an answer for the first.
				lost := appendLater(p, batchOf("lost"))
				time.Sleep(time.Millisecond)
				more := appendLater(p, batchOf("lost, too"))
				time.Sleep(time.Millisecond)
				if err := heir.Port.Elect(); err != nil {
					t.Fatal(err)
				}
				next := c.heir(old, id)
				for _, v := range []string{"x", "y", "z"} {
					if _, err := appendWait(next, batchOf(v)); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := p.Serving(); err != nil {
					t.Fatalf("the old leader knows already (%v): the test shows nothing", err)
				}
				c.net.thaw(old.addr)
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
		if _, err := appendWait(p, sequencedBatch(9, 0, 0, 1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, err := appendWait(p, sequencedBatch(9, 0, 5, 1, 0)); !errors.Is(err, ErrSequence) {
			t.Fatalf("a gap: %v", err)
		}
		c.separate(old)
		next := c.heir(old, id)
		for i := range int32(4) {
			if _, err := appendWait(next, sequencedBatch(9, 0, 1+i, 1, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := p.Serving(); err != nil {
			t.Fatalf("the old leader knows already (%v): the test shows nothing", err)
		}
		if _, err := appendWait(p, sequencedBatch(9, 0, 5, 1, 0)); !errors.Is(err, ErrNotLeader) {
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
		r := p.current.Load()
		l := r.leadership.Load()
		if l == nil {
			t.Fatalf("node %d leads no more", leader.id)
		}
		leader.disk.set(true, nil)
		defer leader.disk.set(false, nil)
		first := appendLater(p, sequencedBatch(9, 0, 0, 1, 0))
		time.Sleep(10 * time.Millisecond)
		r.LeadershipChanged(false)
		r.LeadershipChanged(true)
		time.Sleep(10 * time.Millisecond)
		if now := r.leadership.Load(); now != l {
			t.Fatalf("the leadership of term %d was replaced", l.term)
		}
		again := appendLater(p, sequencedBatch(9, 0, 0, 1, 0))
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

// What is applied in one go may be of several terms. What the leader committed in its
// own is acknowledged, the rest unknown, and the leadership over before anybody sees
// a record of the next.
func TestAppliedEntriesAreAcknowledgedInTheirOwnTermOnly(t *testing.T) {
	s, _ := testStore(t)
	r := s.r
	l := &leadership{r: r, term: 3}
	l.freed.L = &l.mu
	r.leadership.Store(l)
	answers := make([]error, 3)
	var seen []string
	for i := range answers {
		answers[i] = errors.New("none")
		e := &entry{data: batchOf("v"), index: uint64(7 + i)}
		record.Batch(e.data).Assign(int64(20+i), 3)
		e.parts = []entryPart{{appendCall: appendCall{done: func(_ Ack, err error) {
			answers[i] = err
			seen = append(seen, fmt.Sprintf("%d when %d is readable", 20+i, r.p.HighWatermark()))
		}}}}
		l.inflight = append(l.inflight, e)
	}
	log := func(index, term uint64, offset int64) *raft.Log {
		b := batchOf("v")
		b.Assign(offset, int32(term))
		return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: b}
	}
	r.fsm.ApplyBatch([]*raft.Log{log(6, 2, 19), log(7, 3, 20), log(8, 3, 21), log(10, 4, 22)})
	if answers[0] != nil || answers[1] != nil || !errors.Is(answers[2], ErrUnknown) {
		t.Errorf("answers: %v", answers)
	}
	e := &entry{data: batchOf("v"), index: 9, parts: []entryPart{{appendCall: appendCall{done: func(_ Ack, err error) { answers[0] = err }}}}}
	alone := &leadership{r: r, term: 3, inflight: []*entry{e}}
	alone.freed.L = &alone.mu
	alone.applied(9, 4) // it answers for itself, whoever else has been told
	if !errors.Is(answers[0], ErrUnknown) {
		t.Errorf("an entry in the place of which another was applied: %v", answers[0])
	}
	if want := []string{"20 when 22 is readable", "21 when 22 is readable", "22 when 22 is readable"}; !slices.Equal(seen, want) {
		t.Errorf("answered: %q, want %q", seen, want)
	}
	if r.leadership.Load() != nil || r.p.HighWatermark() != 23 {
		t.Errorf("it serves: %t, up to %d, want 23", r.leadership.Load() != nil, r.p.HighWatermark())
	}
}

// What waits to be stored has no index yet, and is not what was applied, whatever that is.
// It is acknowledged once it is, and what repeats something with what is before it.
func TestAnEntryThatIsNotStoredIsNotAcknowledged(t *testing.T) {
	s, _ := testStore(t)
	l := &leadership{r: &replica{p: &Partition{}, store: s}, term: 3}
	l.freed.L = &l.mu
	var answered []string
	track := func(name string, data record.Batch, index uint64, repeats *sequenced) {
		e := &entry{data: data, index: index}
		e.parts = []entryPart{{repeats: repeats, appendCall: appendCall{done: func(_ Ack, err error) { answered = append(answered, fmt.Sprint(name, " ", err)) }}}}
		l.inflight = append(l.inflight, e)
		l.inflightBytes += len(data)
	}
	stamped := func(offset int64) record.Batch {
		b := batchOf("v")
		b.Assign(offset, 3)
		return b
	}
	track("stored", stamped(20), 7, nil)
	track("repeat", nil, 0, &sequenced{offset: 20})
	waits := stamped(-1)
	track("waits", waits, 0, nil)
	track("repeat behind", nil, 0, &sequenced{offset: 20})
	expect := func(when string, want ...string) {
		t.Helper()
		if !slices.Equal(answered, want) {
			t.Fatalf("%s: answered %q, want %q", when, answered, want)
		}
	}
	l.applied(6, 3)
	expect("before anything is applied")
	l.applied(7, 3)
	expect("when the first is applied", "stored <nil>", "repeat <nil>")
	l.stored(waits, 9)
	l.applied(8, 3)
	expect("when what is before the second is", "stored <nil>", "repeat <nil>")
	l.applied(9, 3)
	expect("when all is", "stored <nil>", "repeat <nil>", "waits <nil>", "repeat behind <nil>")
	if len(l.inflight) > 0 || l.inflightBytes != 0 {
		t.Errorf("%d entries and %d bytes are in flight when all are answered", len(l.inflight), l.inflightBytes)
	}
	answered = nil
	track("repeat of nothing", nil, 0, &sequenced{offset: -1, pending: &pendingOffset{offset: -1}})
	l.applied(9, 3)
	expect("what repeats an entry that was lost", fmt.Sprint("repeat of nothing ", ErrUnknown))
}

// An entry that is made as the leadership ends is refused: nobody would answer it.
func TestNothingIsInFlightWhenTheLeadershipIsOver(t *testing.T) {
	l := &leadership{r: &replica{}, term: 3}
	l.freed.L = &l.mu
	l.end()
	var answered error
	e := &entry{data: batchOf("v"), parts: []entryPart{{appendCall: appendCall{done: func(_ Ack, err error) { answered = err }}}}}
	if l.track(e) || !errors.Is(answered, ErrNotLeader) || len(l.inflight) > 0 {
		t.Errorf("answered with %v, %d entries are in flight", answered, len(l.inflight))
	}
}

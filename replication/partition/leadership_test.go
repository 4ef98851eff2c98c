package partition

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/replication/raftgroup"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

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
		e := &entry{data: recordtest.Values("v"), index: uint64(7 + i)}
		record.Batch(e.data).Assign(int64(20+i), 3)
		e.parts = []entryPart{{appendCall: appendCall{caller: told(func(_ Ack, err error) {
			answers[i] = err
			seen = append(seen, fmt.Sprintf("%d when %d is readable", 20+i, r.p.HighWatermark()))
		})}}}
		l.inflight = append(l.inflight, e)
	}
	log := func(index, term uint64, offset int64) *raft.Log {
		b := recordtest.Values("v")
		b.Assign(offset, int32(term))
		return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: b}
	}
	r.fsm.ApplyBatch([]*raft.Log{log(6, 2, 19), log(7, 3, 20), log(8, 3, 21), log(10, 4, 22)})
	if answers[0] != nil || answers[1] != nil || !errors.Is(answers[2], raftgroup.ErrUnknown) {
		t.Errorf("answers: %v", answers)
	}
	e := &entry{data: recordtest.Values("v"), index: 9, parts: []entryPart{{appendCall: appendCall{caller: told(func(_ Ack, err error) { answers[0] = err })}}}}
	alone := &leadership{r: r, term: 3, inflight: []*entry{e}}
	alone.freed.L = &alone.mu
	alone.applied(9, 4) // it answers for itself, whoever else has been told
	if !errors.Is(answers[0], raftgroup.ErrUnknown) {
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
	l := &leadership{r: &Replica{p: &Partition{}, store: s}, term: 3}
	l.freed.L = &l.mu
	var answered []string
	track := func(name string, data record.Batch, index uint64, repeats *sequenced) {
		e := &entry{data: data, index: index}
		e.parts = []entryPart{{repeats: repeats, appendCall: appendCall{caller: told(func(_ Ack, err error) { answered = append(answered, fmt.Sprint(name, " ", err)) })}}}
		l.inflight = append(l.inflight, e)
		l.inflightBytes += len(data)
	}
	stamped := func(offset int64) record.Batch {
		b := recordtest.Values("v")
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
	expect("what repeats an entry that was lost", fmt.Sprint("repeat of nothing ", raftgroup.ErrUnknown))
}

// An entry that is made as the leadership ends is refused: nobody would answer it.
func TestNothingIsInFlightWhenTheLeadershipIsOver(t *testing.T) {
	l := &leadership{r: &Replica{}, term: 3}
	l.freed.L = &l.mu
	l.end()
	var answered error
	e := &entry{data: recordtest.Values("v"), parts: []entryPart{{appendCall: appendCall{caller: told(func(_ Ack, err error) { answered = err })}}}}
	if l.track(e) || !errors.Is(answered, ErrNotLeader) || len(l.inflight) > 0 {
		t.Errorf("answered with %v, %d entries are in flight", answered, len(l.inflight))
	}
}

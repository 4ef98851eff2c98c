package partition

import (
	"errors"
	"testing"
	"testing/synctest"

	"millrace/replication/raftgroup"
	"millrace/segment/record"
	"millrace/segment/record/recordtest"
)

// The tails may be full in the middle of an entry: what its first calls left
// there must not be forgotten before it is in flight.
func TestFullTailsKeepTheEntryBeingMade(t *testing.T) {
	p, _ := alone(t)
	l := p.current.Load().leadership.Load()
	for i := range int64(maxTails - 1) {
		l.tails[1000+i] = &producer{}
	}
	var queue []appendCall
	answers := make(chan Ack, 3)
	for _, b := range []record.Batch{
		recordtest.Sequenced(9, 0, 0, 1, 0), recordtest.Sequenced(8, 0, 0, 1, 0), recordtest.Sequenced(9, 0, 0, 1, 0),
	} {
		queue = append(queue, appendCall{batches: []record.Batch{b}, bytes: len(b), caller: told(func(ack Ack, err error) {
			if err != nil {
				t.Error(err)
			}
			answers <- ack
		})})
	}
	l.tails[9] = &producer{} // known: the next one that is not makes room
	for len(queue) > 0 {
		queue = l.appendSome(queue)
	}
	first, _, again := <-answers, <-answers, <-answers
	if first.BaseOffset != 0 || again.BaseOffset != 0 {
		t.Fatalf("a batch is at offset %d, sent again at %d", first.BaseOffset, again.BaseOffset)
	}
}

// What is in flight is only in tails: they are forgotten, because the disk refused an entry
// that they count or because there are too many, once nothing is in flight, and no sooner.
// A batch behind it would be taken for a gap, and one that is sent again be stored again.
func TestTailsAreForgottenOnceNothingIsInFlight(t *testing.T) {
	refused := errors.New("refused")
	for name, forget := range map[string]func(l *leadership, e *entry){
		"refused":  func(l *leadership, e *entry) { l.refuse(e, refused) },
		"too many": func(l *leadership, e *entry) { l.outdated.Store(true); l.makeRoom() },
	} {
		for _, ends := range []bool{false, true} {
			s, _ := testStore(t)
			synctest.Test(t, func(t *testing.T) {
				l := &leadership{r: &Replica{p: &Partition{}, store: s}, term: 3, tails: map[int64]*producer{9: {}}}
				l.freed.L = &l.mu
				acknowledged, answered, over := false, false, false
				first := recordtest.Values("v")
				first.Assign(20, 3)
				l.inflight = []*entry{{data: first, index: 7, parts: []entryPart{{appendCall: appendCall{caller: told(func(Ack, error) { acknowledged = true })}}}}}
				go func() {
					forget(l, &entry{parts: []entryPart{{appendCall: appendCall{caller: told(func(_ Ack, err error) { answered = errors.Is(err, raftgroup.ErrUnknown) })}}}})
					over = true
				}()
				synctest.Wait()
				if over || answered || len(l.tails) != 1 {
					t.Fatalf("%s: %d tails are left, and it is over: %v, while an entry is in flight", name, len(l.tails), over)
				}
				if ends {
					l.end() // which nothing of it outlives
				} else {
					l.applied(7, 3)
				}
				synctest.Wait()
				if !acknowledged || !over || answered != (name == "refused") || len(l.tails) != 0 {
					t.Errorf("%s: acknowledged %v, over %v, answered %v, %d tails are left", name, acknowledged, over, answered, len(l.tails))
				}
			})
		}
	}
}

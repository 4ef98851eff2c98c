package raftgroup

import (
	"testing"
	"testing/synctest"
	"time"
)

// What a follower has is what it said in the present term: since an earlier one it may
// have lost entries, or its disk. In sync it is while it has all that there was a while ago.
func TestProgressIsWhatFollowersSaidInThisTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last, term := uint64(100), uint64(3)
		var p Progress
		check := func(when string, index uint64, inSync bool) {
			t.Helper()
			f, known := p.of("2.a", term)
			if f.index != index {
				t.Errorf("%s: it has entries up to %d, want %d", when, f.index, index)
			}
			if got := known && f.inSync(last, time.Now()); got != inSync {
				t.Errorf("%s: in sync %t, want %t", when, got, inSync)
			}
		}
		check("never heard of", 0, false)
		p.Answered("2.a", 3, 1, last)
		check("its first entry", 1, false)
		for i := uint64(10); i < 100; i += 10 { // a long way, and the log goes on
			last += 5
			p.Answered("2.a", 3, i, last)
		}
		check("on its way", 90, false)
		p.Answered("2.a", 3, last, last)
		check("with all there is", last, true)

		// Under load it never has the last entry, and always what there was before.
		for range 100 {
			time.Sleep(LagTime / 10)
			had := last
			last += 10
			p.Answered("2.a", 3, had, last)
			check("under load", had, true)
		}
		// It stops.
		time.Sleep(2 * LagTime)
		had := p.match["2.a"].index
		check("silent", had, false)
		p.Answered("2.a", 3, 0, last) // a heartbeat: it is there, and has no more than before
		check("there again", had, false)
		p.Answered("2.a", 3, last, last)
		check("with all there is, again", last, true)

		if all, ok := p.Answered("3.b", 3, 50, last); !ok || all != 50 {
			t.Errorf("all have everything up to %d, %t; want 50", all, ok)
		}
		term = 4
		check("in a new term", 0, false)
		p.Answered("2.a", 4, 7, last)
		check("when it has said something", 7, false)
		if _, ok := p.Answered("2.a", 3, last, last); ok {
			t.Error("an answer to an earlier leadership counts")
		}
		check("after an answer to an earlier leadership", 7, false)
		if all, _ := p.Answered("2.a", 4, last, last); all != last {
			t.Errorf("all of this term have everything up to %d, want %d", all, last)
		}
	})
}

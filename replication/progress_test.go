package replication

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"millrace/replication/metadata"
)

// What a follower has is what it said in the present term: since an earlier one it may
// have lost entries, or its disk. In sync it is while it has all that there was a while ago.
func TestProgressIsWhatFollowersSaidInThisTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		last, term := uint64(100), uint64(3)
		var p progress
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
		p.answered("2.a", 3, 1, last)
		check("its first entry", 1, false)
		for i := uint64(10); i < 100; i += 10 { // a long way, and the log goes on
			last += 5
			p.answered("2.a", 3, i, last)
		}
		check("on its way", 90, false)
		p.answered("2.a", 3, last, last)
		check("with all there is", last, true)

		// Under load it never has the last entry, and always what there was before.
		for range 100 {
			time.Sleep(lagTime / 10)
			had := last
			last += 10
			p.answered("2.a", 3, had, last)
			check("under load", had, true)
		}
		// It stops.
		time.Sleep(2 * lagTime)
		had := p.match["2.a"].index
		check("silent", had, false)
		p.answered("2.a", 3, 0, last) // a heartbeat: it is there, and has no more than before
		check("there again", had, false)
		p.answered("2.a", 3, last, last)
		check("with all there is, again", last, true)

		if all, ok := p.answered("3.b", 3, 50, last); !ok || all != 50 {
			t.Errorf("all have everything up to %d, %t; want 50", all, ok)
		}
		term = 4
		check("in a new term", 0, false)
		p.answered("2.a", 4, 7, last)
		check("when it has said something", 7, false)
		if _, ok := p.answered("2.a", 3, last, last); ok {
			t.Error("an answer to an earlier leadership counts")
		}
		check("after an answer to an earlier leadership", 7, false)
		if all, _ := p.answered("2.a", 4, last, last); all != last {
			t.Errorf("all of this term have everything up to %d, want %d", all, last)
		}
	})
}

// A replica that has not been heard of has nothing, however short the log: with a vote
// it would be missed at once.
func TestReplicaThatWasNeverHeardOfGetsNoVote(t *testing.T) {
	inVirtualTime(t, func(t *testing.T, c *testCluster) {
		id := c.create("orders", 1, 1, nil)
		leader, p := c.leader(id)
		if _, err := appendWait(p, batchOf("before")); err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(c.nodes, func(n *testNode) bool { return n != leader && n.id != 1 })
		absent := c.nodes[i]
		c.separate(absent)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err := leader.Change(ctx, metadata.SetReplicas{Partition: id, Replicas: []int32{leader.id, absent.id}})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		r := p.current.Load()
		if got := r.raft.GetConfiguration().Configuration().Servers; len(got) != 2 || len(r.voters()) != 1 {
			t.Fatalf("the members are %v, and %v vote; want two members and one voter", got, r.voters())
		}
		if _, err := appendWait(p, batchOf("meanwhile")); err != nil {
			t.Fatalf("without the absent replica: %v", err)
		}
		c.net.heal()
		time.Sleep(time.Minute)
		if got := p.current.Load().voters(); len(got) != 2 {
			t.Errorf("it is back, and %v vote", got)
		}
		c.check("in the end", id, []string{"before", "meanwhile"})
	})
}

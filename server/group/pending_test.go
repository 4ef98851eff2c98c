package group

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"millrace/server/protocol"
)

// Member ids that are handed out and never used are taken back by one rule, held here
// against the rule itself: of the group that has most the oldest, and of groups that
// have as many that with the oldest.
func TestTheGroupWithMostIDsLosesItsOldest(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		type given struct {
			group int
			id    string
		}
		var all []given // oldest first
		held := 0
		long := strings.Repeat("g", 30_000)
		name := func(group int) string { return fmt.Sprintf("%s%03d", long, group) }
		const cost = pendingOverhead + 30_003
		r := rand.New(rand.NewPCG(5, 8))
		drops := 0
		for range 3000 {
			group := r.IntN(400) // few have two
			if r.IntN(4) == 0 {
				group = r.IntN(5) // some have many
			}
			if len(all) > 0 && r.IntN(10) == 0 { // one of them leaves again
				at := r.IntN(len(all))
				reader := newReader(c, name(all[at].group))
				reader.id = all[at].id
				wantCode(t, "leave", reader.leave(), protocol.None)
				held -= cost
				all = slices.Delete(all, at, at+1)
			}
			resp := c.Join(t.Context(), Client{"c", "/"}, newReader(c, name(group)).joinRequest())
			wantCode(t, "join", resp.ErrorCode, protocol.MemberIDRequired)
			all = append(all, given{group, resp.MemberID})
			held += cost
			for held > maxPending {
				count, oldest := make(map[int]int), make(map[int]int)
				for at, g := range slices.Backward(all) {
					count[g.group]++
					oldest[g.group] = at
				}
				from := -1
				for group, n := range count {
					if from < 0 || n > count[from] || n == count[from] && oldest[group] < oldest[from] {
						from = group
					}
				}
				at := oldest[from]
				held -= cost
				all = slices.Delete(all, at, at+1)
				drops++
			}
		}
		s, code := c.shardOf("g")
		wantCode(t, "shard", code, protocol.None)
		defer s.Unlock()
		n := 0
		for _, g := range s.groups {
			n += len(g.members.(*classicGroup).pending.byID)
		}
		if n != len(all) || s.idle != held || drops < 100 {
			t.Errorf("%d ids of %d bytes are left, want %d of %d; %d were taken back", n, s.idle, len(all), held, drops)
		}
		for _, g := range all {
			gr := s.groupLocked(name(g.group))
			if gr == nil {
				t.Fatalf("a group of %s is gone", g.id)
			}
			if _, ok := gr.members.(*classicGroup).pending.find(g.id); !ok {
				t.Errorf("the id %s was taken back", g.id)
			}
		}
	})
}

// Handing out one more id while all places are taken, by as many groups.
func BenchmarkHandOutIDs(b *testing.B) {
	p := &journal{}
	c := p.takeOver(b, Config{})
	defer c.Close()
	i := 0
	join := func() {
		i++
		c.Join(b.Context(), Client{"c", "/"}, newReader(c, fmt.Sprint("g", i)).joinRequest())
	}
	for range 2 * maxPending / pendingOverhead {
		join()
	}
	for b.Loop() {
		join()
	}
}

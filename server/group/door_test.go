package group

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"millrace/server/protocol"
)

// Whoever comes with a hundred waits behind themselves: another host's turn is next,
// and within a host it goes by who came first. Who gives up leaves no hole.
func TestHostsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var line door
		if err := line.take(t.Context(), nil, "greedy"); err != nil {
			t.Fatal(err)
		}
		var order []string
		wait := func(ctx context.Context, host, name string) {
			go func() {
				if line.take(ctx, nil, host) == nil {
					order = append(order, name)
					line.leave()
				}
			}()
			synctest.Wait()
		}
		wait(t.Context(), "greedy", "g1")
		ctx, giveUp := context.WithCancel(t.Context())
		wait(ctx, "greedy", "gives up")
		wait(t.Context(), "greedy", "g2")
		wait(t.Context(), "greedy", "g3")
		wait(ctx, "gives up", "gives up")
		wait(t.Context(), "a", "a1")
		wait(t.Context(), "b", "b1")
		wait(t.Context(), "a", "a2")
		giveUp()
		synctest.Wait()
		line.leave()
		synctest.Wait()
		if want := []string{"g1", "a1", "b1", "g2", "a2", "g3"}; !slices.Equal(order, want) {
			t.Errorf("the turns were %v, want %v", order, want)
		}
		if line.taken || len(line.hosts) > 0 || len(line.lines) > 0 {
			t.Errorf("left over: %v, %v, %v", line.taken, line.hosts, line.lines)
		}
	})
}

// searchedTopics counts how often all names are gone through.
type searchedTopics struct {
	*shelf
	searches atomic.Int64
}

func (c *searchedTopics) Names() []string {
	c.searches.Add(1)
	return c.shelf.Names()
}

// An expression that a group has is not matched again for who joins with it, or says it
// with each heartbeat; for another group it is, and for one that has lost it.
func TestAGroupMatchesAnExpressionOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, topics := &journal{}, &searchedTopics{shelf: newShelf(map[string]int32{"logs-a": 2, "logs-b": 2, "other": 2})}
		c := p.takeOver(t, Config{Topics: topics})
		defer c.Close()
		synctest.Wait()
		topics.searches.Store(0) // the coordinator has had its first look
		all := "logs-.*"
		member := func(group, id string) *beater {
			b := newBeater(c, id)
			b.group, b.regex = group, &all
			return b
		}
		a, b, other := member("g", "a"), member("g", "b"), member("h", "a")
		settle(t, a)
		settle(t, a, b)
		if n := topics.searches.Load(); n != 1 || total(a, b) != 4 {
			t.Errorf("%d searches for two members, who own %d", n, total(a, b))
		}
		settle(t, other)
		if n := topics.searches.Load(); n != 2 || total(other) != 4 {
			t.Errorf("%d searches for two groups; the second owns %d", n, total(other))
		}
		wantCode(t, "leave", a.leave(), protocol.None)
		wantCode(t, "leave", b.leave(), protocol.None)
		settle(t, member("g", "c"))
		if n := topics.searches.Load(); n != 3 {
			t.Errorf("%d searches after a group has lost its expression, want 3", n)
		}
	})
}

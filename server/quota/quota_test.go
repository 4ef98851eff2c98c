package quota

import (
	"fmt"
	"math"
	"testing"
	"time"
)

var windows = &Windows{Size: time.Second, MutationSize: time.Second, MutationWindows: 11}

// of is a quota, "-" for what is not part of its entity.
func of(user, client string, kind Kind, rate float64) Quota {
	q := Quota{Values: map[string]float64{keys[kind]: rate}}
	if user != "-" {
		q.User = &user
	}
	if client != "-" {
		q.ClientID = &client
	}
	return q
}

// Of all that fit, the most specific is in force (ClientQuotaManager's eight levels), and
// says who shares it.
func TestTheMoreSpecificWins(t *testing.T) {
	levels := []struct {
		user, client string
		shared       share
	}{
		{"alice", "app", share{entity{Client{"alice", "app"}, user | client}, Produce}},
		{"alice", "", share{entity{Client{"alice", "app"}, user | client}, Produce}},
		{"alice", "-", share{entity{Client{"alice", ""}, user}, Produce}},
		{"", "app", share{entity{Client{"alice", "app"}, user | client}, Produce}},
		{"", "", share{entity{Client{"alice", "app"}, user | client}, Produce}},
		{"", "-", share{entity{Client{"alice", ""}, user}, Produce}},
		{"-", "app", share{entity{Client{"", "app"}, client}, Produce}},
		{"-", "", share{entity{Client{"", "app"}, client}, Produce}},
	}
	for first := range levels {
		var quotas []Quota
		for i := first; i < len(levels); i++ {
			quotas = append(quotas, of(levels[i].user, levels[i].client, Produce, float64(i+1)))
		}
		// Those for others, and of another kind, say nothing.
		quotas = append(quotas, of("bob", "app", Produce, 99), of("alice", "other", Produce, 99), of("alice", "app", Consume, 99))
		table := NewTable(quotas)
		rate, s, ok := table.find(Produce, Client{"alice", "app"})
		if !ok || rate != float64(first+1) || s != levels[first].shared {
			t.Errorf("with levels %d to 8: %v of %+v, %v", first+1, rate, s, ok)
		}
	}
	table := NewTable([]Quota{of("alice", "app", Produce, 1), of("bob", "-", Produce, 1)})
	if table.Limited(Produce, Client{"alice", "other"}) || table.Limited(Consume, Client{"alice", "app"}) {
		t.Error("a quota for another holds")
	}
	// A client without an id has the defaults for one.
	if rate, _, ok := NewTable([]Quota{of("-", "", Produce, 5)}).find(Produce, Client{"alice", ""}); !ok || rate != 5 {
		t.Errorf("without a client id: %v, %v", rate, ok)
	}
	if NewTable(nil) != nil || NewTable([]Quota{{Values: map[string]float64{"connection_creation_rate": 1}}}) != nil {
		t.Error("a table of nothing")
	}
}

// A producer and a consumer that go as fast as they can, over several connections, are
// held to their quota within 5 % over 30 seconds, and wait exactly as long as they are told.
func TestHeldOverThirtySeconds(t *testing.T) {
	for _, held := range []struct {
		kind Kind
		rate float64
	}{{Produce, 10 << 20}, {Consume, 20 << 20}} {
		for name, quotas := range map[string][]Quota{
			"user":      {of("alice", "-", held.kind, held.rate), of("-", "app", held.kind, 1), of("", "-", held.kind, 1)},
			"client id": {of("-", "app", held.kind, held.rate), of("-", "", held.kind, 1)},
			"both":      {of("alice", "app", held.kind, held.rate), of("alice", "-", held.kind, 1), of("-", "app", held.kind, 1)},
		} {
			for _, size := range []float64{64 << 10, 1 << 20, 8 << 20} {
				for _, connections := range []int{1, 7} {
					if connections > 1 && size > 1<<20 {
						continue // what is owed at the end is more than 5 %, and is paid later
					}
					t.Run(fmt.Sprint(keys[held.kind], " by ", name, " in ", size, " over ", connections), func(t *testing.T) {
						total := flood(NewTable(quotas), held.kind, size, connections, 30*time.Second)
						if off := total/(30*held.rate) - 1; math.Abs(off) > 0.05 {
							t.Errorf("%.2f MiB/s, which is %+.1f %%", total/30/(1<<20), 100*off)
						}
					})
				}
			}
		}
	}
}

// flood has connections send as fast as they are let, one millisecond a request, and
// returns how much went in so long.
func flood(table *Table, kind Kind, size float64, connections int, long time.Duration) (total float64) {
	var u Usage
	start := time.Unix(1e9, 0)
	free := make([]time.Time, connections)
	for now := start; now.Before(start.Add(long)); now = now.Add(time.Millisecond) {
		for i := range free {
			if now.Before(free[i]) {
				continue
			}
			if kind == Consume {
				wait, ok := u.TakeIfFree(table, windows, now, kind, Client{"alice", "app"}, size)
				if ok {
					total += size
				}
				free[i] = now.Add(wait)
				continue
			}
			free[i] = now.Add(u.Take(table, windows, now, kind, Client{"alice", "app"}, size))
			total += size
		}
	}
	return total
}

// A wait is over exactly when nothing is owed any more.
func TestTheWaitIsWhatIsOwed(t *testing.T) {
	table := NewTable([]Quota{of("alice", "-", Produce, 1000)})
	var u Usage
	now := time.Unix(1e9, 0)
	alice := Client{"alice", "any"}
	if wait := u.Take(table, windows, now, Produce, alice, 500); wait != 0 {
		t.Errorf("a burst of half a window: %v", wait)
	}
	if wait := u.Take(table, windows, now, Produce, alice, 2500); wait != 2500*time.Millisecond {
		t.Errorf("beyond it: %v", wait)
	}
	if wait, ok := u.TakeIfFree(table, windows, now.Add(2499*time.Millisecond), Produce, alice, 1); ok || wait != time.Millisecond {
		t.Errorf("just before it is over: %v, %v", wait, ok)
	}
	if wait, ok := u.TakeIfFree(table, windows, now.Add(2500*time.Millisecond), Produce, alice, 1); !ok || wait != time.Millisecond {
		t.Errorf("when it is over: %v, %v", wait, ok)
	}
	// A quota that is changed holds at once, for what was used before as well.
	faster := NewTable([]Quota{of("alice", "-", Produce, 10_000)})
	if wait := u.Take(faster, windows, now.Add(2500*time.Millisecond), Produce, alice, 0); wait != 0 {
		t.Errorf("under a larger quota: %v", wait)
	}
	if wait := u.Take(table, windows, now.Add(time.Hour), Produce, alice, 1e9); wait != MaxThrottle {
		t.Errorf("a very long one: %v", wait)
	}
	if wait := u.Take(NewTable([]Quota{of("alice", "-", Request, 1)}), windows, now, Request, alice, 1e9); wait != time.Second {
		t.Errorf("time, which is bounded by a window: %v", wait)
	}
}

// KIP-599: mutations are let through until something is owed, in bursts of all windows.
func TestMutations(t *testing.T) {
	table := NewTable([]Quota{of("alice", "-", Mutation, 5)})
	var u Usage
	now := time.Unix(1e9, 0)
	alice := Client{User: "alice"}
	if wait, ok := u.TakeIfFree(table, windows, now, Mutation, alice, 55); !ok || wait != 0 {
		t.Errorf("a burst: %v, %v", wait, ok)
	}
	if wait, ok := u.TakeIfFree(table, windows, now, Mutation, alice, 60); !ok || wait != 12*time.Second {
		t.Errorf("the last that begins within: %v, %v", wait, ok)
	}
	if wait, ok := u.TakeIfFree(table, windows, now.Add(2*time.Second), Mutation, alice, 1); ok || wait != 10*time.Second {
		t.Errorf("one more: %v, %v", wait, ok)
	}
	if _, ok := u.TakeIfFree(table, windows, now.Add(12*time.Second), Mutation, alice, 1); !ok {
		t.Error("refused when nothing is owed")
	}
}

// However many client ids there are, those that are quiet are forgotten, and those that
// are not share what is beyond the bound.
func TestManyClientsAreBounded(t *testing.T) {
	table := NewTable([]Quota{of("-", "", Produce, 1000)})
	var u Usage
	now := time.Unix(1e9, 0)
	most := 0
	for i := range 200_000 {
		u.Take(table, windows, now, Produce, Client{"alice", fmt.Sprint(i)}, 10)
		now = now.Add(time.Millisecond) // each drains in 10 ms
		most = max(most, u.Shares())
	}
	if most > firstSweep {
		t.Errorf("%d shares of quiet clients", most)
	}
	for i := range 2 * MaxShares {
		u.Take(table, windows, now, Produce, Client{"alice", fmt.Sprint(i)}, 5000)
	}
	if n := u.Shares(); n > MaxShares+1 {
		t.Errorf("%d shares", n)
	}
	if wait := u.Take(table, windows, now, Produce, Client{"alice", "another"}, 1); wait != MaxThrottle {
		t.Errorf("one more waits for %v", wait)
	}
}

// What nobody is held to costs no memory.
func TestWithoutQuotas(t *testing.T) {
	var u Usage
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { u.Take(nil, windows, now, Produce, Client{"alice", "app"}, 1e9) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	table := NewTable([]Quota{of("alice", "-", Produce, 1e9)})
	u.Take(table, windows, now, Produce, Client{"alice", "app"}, 1)
	if n := testing.AllocsPerRun(100, func() { u.Take(table, windows, now, Produce, Client{"alice", "app"}, 1) }); n != 0 {
		t.Errorf("%v allocations with one", n)
	}
}

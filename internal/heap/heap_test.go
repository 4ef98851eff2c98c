package heap

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

type number struct{ n, place int }

type ascending struct{}

func (ascending) Less(a, b *number) bool { return a.n < b.n }
func (ascending) Place(e *number) *int   { return &e.place }

// Whatever is added, moved and taken out, the first is the smallest of those that are
// there, and each knows whether it is there.
func TestTheFirstIsTheSmallestOfThoseThatAreThere(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var h Heap[*number, ascending]
	all := make([]*number, 50)
	for i := range all {
		all[i] = &number{n: random.IntN(100)}
	}
	there := make(map[*number]bool)
	for range 5000 {
		e := all[random.IntN(len(all))]
		switch random.IntN(3) {
		case 0, 1:
			e.n = random.IntN(100)
			h.Set(e)
			there[e] = true
		default:
			h.Remove(e)
			delete(there, e)
		}
		var want []*number
		for _, e := range all {
			if (e.place != 0) != there[e] {
				t.Fatalf("%d has place %d, and is there: %v", e.n, e.place, there[e])
			}
			if there[e] {
				want = append(want, e)
			}
		}
		if h.Len() != len(want) {
			t.Fatalf("%d elements, want %d", h.Len(), len(want))
		}
		if len(want) > 0 {
			if least := slices.MinFunc(want, func(a, b *number) int { return cmp.Compare(a.n, b.n) }); h.First().n != least.n {
				t.Fatalf("the first is %d, want %d", h.First().n, least.n)
			}
		}
	}
	h.Clear()
	if h.Len() != 0 || slices.ContainsFunc(all, func(e *number) bool { return e.place != 0 }) {
		t.Error("something is left")
	}
	h.Set(all[0])
	if h.First() != all[0] {
		t.Error("a heap that was cleared takes nothing")
	}
}

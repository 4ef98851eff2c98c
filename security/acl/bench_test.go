package acl

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// shapes are n entries each, of the shapes that are hardest to find one's way in, and
// the request that is worst in each.
func shapes(n int) map[string]shape {
	long := strings.Repeat("a", 249)
	ask := Request{"User:alice", "10.0.0.1", Write, Topic, long}
	shapes := make(map[string]shape)
	add := func(name string, entry func(i int) Entry) {
		entries := make([]Entry, n)
		for i := range entries {
			entries[i] = entry(i)
		}
		slices.SortFunc(entries, Compare)
		shapes[name] = shape{slices.Compact(entries), ask}
	}
	where := func(i int) (principal, host string) {
		return [...]string{"User:alice", AnyPrincipal}[i&1], [...]string{"10.0.0.1", AnyHost}[i>>1&1]
	}
	add("prefixes of each other, in all four places", func(i int) Entry {
		p, h := where(i)
		if i < 4*249 {
			return Entry{Topic, long[:i/4+1], Prefixed, p, h, Read, Allow}
		}
		return Entry{Topic, long[:i%249+1] + fmt.Sprintf("b%06d", i), Prefixed, p, h, Write, Allow}
	})
	add("long names that differ at the end", func(i int) Entry {
		p, h := where(i)
		return Entry{Topic, long[:243] + fmt.Sprintf("%06d", i), Literal, p, h, Write, Allow}
	})
	add("one name, many hosts", func(i int) Entry {
		return Entry{Topic, long, Literal, "User:alice", fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Write, Allow}
	})
	add("one name, many principals", func(i int) Entry {
		return Entry{Topic, long, Literal, fmt.Sprintf("User:alice%s%d", long, i), AnyHost, Write, Allow}
	})
	add("a hundred users, a thousand topics each", func(i int) Entry {
		return Entry{Topic, fmt.Sprintf("topic-%d", i/100), Literal, fmt.Sprintf("User:%d", i%100), AnyHost, Write, Allow}
	})
	return shapes
}

type shape struct {
	entries []Entry
	ask     Request
}

func BenchmarkDecide(b *testing.B) {
	for name, s := range shapes(100_000) {
		b.Run(name, func(b *testing.B) {
			r := Rules{Entries: new(Set).With(s.entries)}
			b.ReportAllocs()
			for b.Loop() {
				r.Decide(s.ask)
			}
		})
	}
}

// One entry more among 100,000, and one less.
func BenchmarkWith(b *testing.B) {
	for name, s := range shapes(100_000) {
		b.Run(name, func(b *testing.B) {
			set := new(Set).With(s.entries)
			e := s.entries[len(s.entries)/10]
			e.Name, e.Pattern = "a", Prefixed
			at, _ := slices.BinarySearchFunc(s.entries, e, Compare)
			more := slices.Insert(slices.Clone(s.entries), at, e)
			for b.Loop() {
				set.With(more).With(s.entries)
			}
		})
	}
}

func BenchmarkNewSet(b *testing.B) {
	for name, s := range shapes(100_000) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				new(Set).With(s.entries)
			}
		})
	}
}

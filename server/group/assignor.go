package group

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// A reading is one member to an assignor.
type reading struct {
	id       string
	instance string        // static members keep their place under it; "": dynamic
	topics   map[uuid]bool // subscribed, known topics
	owned    assignment    // its target so far
}

// An assignor says who reads what: pure, and the same answer for the same
// question. Every partition of a subscribed topic goes to exactly one subscriber.
type assignor func(members []reading, partitions map[uuid]int32) map[string]assignment

// assignors are the server-side assignors by name (KIP-848).
var assignors = map[string]assignor{"uniform": assignUniform, "range": assignRange}

// assignRange gives each subscriber of a topic a contiguous range of it, the same
// range in all topics of the same size and subscribers, so that joins of topics
// find both sides at one member. Ranges differ by one partition at most.
func assignRange(members []reading, partitions map[uuid]int32) map[string]assignment {
	members = slices.SortedFunc(slices.Values(members), func(a, b reading) int {
		return cmp.Or(strings.Compare(cmp.Or(a.instance, a.id), cmp.Or(b.instance, b.id)), strings.Compare(a.id, b.id))
	})
	out := make(map[string]assignment, len(members))
	for _, m := range members {
		out[m.id] = make(assignment)
	}
	for topic, n := range partitions {
		var readers []reading
		for _, m := range members {
			if m.topics[topic] {
				readers = append(readers, m)
			}
		}
		next := int32(0)
		for i, m := range readers {
			size := n / int32(len(readers))
			if int32(i) < n%int32(len(readers)) {
				size++
			}
			for range size {
				out[m.id][topic] = append(out[m.id][topic], next)
				next++
			}
		}
	}
	return out
}

// assignUniform spreads all partitions as evenly as subscriptions allow, and moves
// as few as that takes. Members keep what they own up to their share; what nobody
// owns goes to whoever has least. Where subscriptions differ a partition may have
// to go round corners: from a to b and another from b to c, if a and c have no
// topic in common. Such chains are searched until none makes it more even, which
// is when the sum of the squares of the loads is least (semi-matching).
func assignUniform(members []reading, partitions map[uuid]int32) map[string]assignment {
	members = slices.SortedFunc(slices.Values(members), func(a, b reading) int { return strings.Compare(a.id, b.id) })
	u := &uniform{members: members, held: make([]map[uuid][]int32, len(members)), load: make([]int, len(members)), readers: make(map[uuid][]int)}
	order := slices.Collect(maps.Keys(partitions))
	slices.SortFunc(order, func(a, b uuid) int { return strings.Compare(string(a[:]), string(b[:])) })
	total := 0
	same := true
	for i, m := range members {
		u.held[i] = make(map[uuid][]int32)
		same = same && maps.Equal(m.topics, members[0].topics)
		for _, t := range order {
			if m.topics[t] {
				u.readers[t] = append(u.readers[t], i)
			}
		}
	}
	for _, t := range order {
		if len(u.readers[t]) > 0 {
			total += int(partitions[t])
		}
	}

	// What they own stays; among equals, only up to the share.
	taken := make(map[uuid]map[int32]bool)
	quota := func(int) int { return total }
	if same && len(members) > 0 {
		share, extra := total/len(members), total%len(members)
		quota = func(own int) int {
			if own > share && extra > 0 {
				extra--
				return share + 1
			}
			return share
		}
	}
	for i, m := range members {
		keep := quota(m.owned.count())
		for _, t := range order {
			for _, p := range m.owned[t] {
				if m.topics[t] && p < partitions[t] && !taken[t][p] && keep > 0 {
					if taken[t] == nil {
						taken[t] = make(map[int32]bool)
					}
					taken[t][p] = true
					u.held[i][t] = append(u.held[i][t], p)
					u.load[i]++
					keep--
				}
			}
		}
	}
	for _, t := range order {
		readers := u.readers[t]
		for p := int32(0); p < partitions[t] && len(readers) > 0; p++ {
			if taken[t][p] {
				continue
			}
			to := slices.MinFunc(readers, func(a, b int) int { return cmp.Compare(u.load[a], u.load[b]) })
			u.held[to][t] = append(u.held[to][t], p)
			u.load[to]++
		}
	}
	if !same {
		u.even()
	}
	out := make(map[string]assignment, len(members))
	for i, m := range members {
		a := make(assignment)
		for t, parts := range u.held[i] {
			if len(parts) > 0 {
				slices.Sort(parts)
				a[t] = parts
			}
		}
		out[m.id] = a
	}
	return out
}

// uniform is an assignment in the making. Members go by their place in the list.
type uniform struct {
	members []reading
	held    []map[uuid][]int32
	load    []int
	readers map[uuid][]int
}

// even moves partitions along chains from fuller members to emptier ones, the
// fullest first, the shortest chain first, until none is left.
func (u *uniform) even() {
	order := make([]int, len(u.members))
	for i := range order {
		order[i] = i
	}
	for moved := true; moved; {
		moved = false
		slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(u.load[b], u.load[a]) })
		for _, from := range order {
			if u.chain(from) {
				moved = true
				break
			}
		}
	}
}

// chain moves one partition's worth of load from a member to one that has at least
// two fewer, if it can.
func (u *uniform) chain(from int) bool {
	type step struct {
		from  int
		topic uuid
	}
	came := map[int]step{from: {from: -1}}
	asked := make(map[uuid]bool)
	level := []int{from}
	for len(level) > 0 {
		var next []int
		best := -1
		for _, at := range level {
			for _, t := range slices.SortedFunc(maps.Keys(u.held[at]), func(a, b uuid) int { return strings.Compare(string(a[:]), string(b[:])) }) {
				if len(u.held[at][t]) == 0 || asked[t] {
					continue
				}
				asked[t] = true // whoever reads t is within reach now
				for _, to := range u.readers[t] {
					if _, ok := came[to]; ok {
						continue
					}
					came[to] = step{at, t}
					next = append(next, to)
					if u.load[to] <= u.load[from]-2 && (best < 0 || u.load[to] < u.load[best]) {
						best = to
					}
				}
			}
		}
		if best >= 0 {
			u.load[best]++
			u.load[from]--
			for at := best; at != from; {
				s := came[at]
				parts := u.held[s.from][s.topic]
				last := len(parts) - 1
				u.held[at][s.topic] = append(u.held[at][s.topic], parts[last])
				u.held[s.from][s.topic] = parts[:last]
				at = s.from
			}
			return true
		}
		level = next
	}
	return false
}

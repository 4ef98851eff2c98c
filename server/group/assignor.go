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
	instance string     // static members keep their place under it; "": dynamic
	topics   []uuid     // subscribed, known topics, ascending; shared, not written to
	owned    assignment // its target so far
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
	readers := make(map[uuid][]string, len(partitions))
	for _, m := range members {
		out[m.id] = make(assignment)
		for _, topic := range m.topics {
			readers[topic] = append(readers[topic], m.id)
		}
	}
	for topic, n := range partitions {
		next := int32(0)
		for i, id := range readers[topic] {
			size := n / int32(len(readers[topic]))
			if int32(i) < n%int32(len(readers[topic])) {
				size++
			}
			if size == 0 {
				break
			}
			parts := make([]int32, size)
			for k := range parts {
				parts[k] = next
				next++
			}
			out[id][topic] = parts
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
	plan, _ := spread(members, partitions)
	return plan
}

// maxSteps bounds the search for chains: half a second of one core. An assignment
// that is not as even as can be is better than a core that is gone.
const maxSteps = 50_000_000

// spread is assignUniform, and tells how many steps it took: looks at a partition, a
// subscription or a load.
func spread(members []reading, partitions map[uuid]int32) (map[string]assignment, int) {
	members = slices.SortedFunc(slices.Values(members), func(a, b reading) int { return strings.Compare(a.id, b.id) })
	if len(members) == 0 {
		return map[string]assignment{}, 0
	}
	u := newUniform(members, partitions)
	if u.same {
		u.fill()
	} else {
		u.greedy()
		u.even()
	}
	return u.plan(), u.steps
}

// uniform is an assignment in the making. Members and topics go by their place in
// a list, partitions by their place among those of all topics.
type uniform struct {
	members []reading
	same    bool // all read the same
	topics  []uuid
	sizes   []int32   // of topics, in partitions
	first   []int     // of a topic, its partition 0 among all
	reads   [][]int32 // by member: topics
	readers [][]int32 // by topic; nil if all read the same
	owner   []int32   // by partition; -1: nobody
	load    []int
	kept    []int // of its load, what a member had before
	total   int
	steps   int
}

func newUniform(members []reading, partitions map[uuid]int32) *uniform {
	n := len(members)
	u := &uniform{members: members, same: true, load: make([]int, n), kept: make([]int, n)}
	for _, m := range members {
		u.same = u.same && sameTopics(m.topics, members[0].topics)
	}
	read := func(t uuid) bool { // by somebody
		_, ok := partitions[t]
		return ok
	}
	if u.same {
		for _, t := range members[0].topics {
			if read(t) {
				u.topics = append(u.topics, t)
			}
		}
	} else {
		all := make(map[uuid]bool)
		for i, m := range members {
			if i > 0 && sameTopics(m.topics, members[i-1].topics) {
				continue
			}
			for _, t := range m.topics {
				all[t] = read(t)
			}
		}
		maps.DeleteFunc(all, func(_ uuid, there bool) bool { return !there })
		u.topics = slices.SortedFunc(maps.Keys(all), compareUUID)
	}
	place := make(map[uuid]int32, len(u.topics))
	for i, t := range u.topics {
		place[t] = int32(i)
		u.first = append(u.first, u.total)
		u.sizes = append(u.sizes, max(partitions[t], 0))
		u.total += int(u.sizes[i])
	}
	u.owner = make([]int32, u.total)
	for i := range u.owner {
		u.owner[i] = -1
	}
	if !u.same {
		u.reads, u.readers = make([][]int32, n), make([][]int32, len(u.topics))
		for i, m := range members {
			for _, t := range m.topics {
				if p, ok := place[t]; ok {
					u.reads[i] = append(u.reads[i], p)
					u.readers[p] = append(u.readers[p], int32(i))
				}
			}
		}
	}
	u.keep(place)
	return u
}

func sameTopics(a, b []uuid) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// keep leaves members what they own, up to their share of it all. Where
// subscriptions differ, a share is what a member would have if each topic were
// spread evenly over its readers, or the average if that is more; what that is
// wrong by, even sets right.
func (u *uniform) keep(place map[uuid]int32) {
	n := len(u.members)
	share, extra := u.total/n, u.total%n
	for i, m := range u.members {
		quota := share
		if u.same {
			if extra > 0 && m.owned.count() > share {
				extra--
				quota++
			}
		} else {
			fair := 0.0
			for _, t := range u.reads[i] {
				fair += float64(u.sizes[t]) / float64(len(u.readers[t]))
			}
			quota = max(share, int(fair)) + 1
		}
		take := func(topic uuid, parts []int32) {
			t, ok := place[topic]
			if ok && !u.same {
				_, ok = slices.BinarySearch(u.readers[t], int32(i))
			}
			if !ok {
				return
			}
			for _, p := range parts {
				u.steps++
				if quota == 0 {
					return
				}
				if p >= 0 && p < u.sizes[t] && u.owner[u.first[t]+int(p)] < 0 {
					u.owner[u.first[t]+int(p)] = int32(i)
					u.load[i]++
					quota--
				}
			}
		}
		if m.owned.count() <= quota { // all of it, in whatever order
			for topic, parts := range m.owned {
				take(topic, parts)
			}
		} else {
			for _, topic := range m.owned.topics() {
				take(topic, m.owned[topic])
			}
		}
		u.kept[i] = u.load[i]
	}
}

// fill gives what nobody owns to members that have less than their share, where all
// read the same: first up to the share, then what is left over, one each.
func (u *uniform) fill() {
	n := len(u.members)
	share := u.total / n
	to, level := 0, share
	for p := range u.owner {
		if u.owner[p] >= 0 {
			u.steps++
			continue
		}
		for u.load[to] >= level {
			u.steps++
			if to++; to == n {
				to, level = 0, share+1
			}
		}
		u.owner[p] = int32(to)
		u.load[to]++
	}
}

// greedy gives what nobody owns to the reader that has least, the topics with the
// fewest readers first.
func (u *uniform) greedy() {
	order := make([]int, len(u.topics))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(u.readers[a]), len(u.readers[b])) })
	for _, t := range order {
		readers := u.readers[t]
		if len(readers) == 0 {
			continue
		}
		for p := range u.owner[u.first[t] : u.first[t]+int(u.sizes[t])] {
			at := u.first[t] + p
			if u.owner[at] >= 0 {
				continue
			}
			to := readers[0]
			for _, r := range readers[1:] {
				if u.load[r] < u.load[to] {
					to = r
				}
			}
			u.steps += len(readers)
			u.owner[at] = to
			u.load[to]++
		}
	}
}

// plan is the assignment as it has become.
func (u *uniform) plan() map[string]assignment {
	out := make(map[string]assignment, len(u.members))
	fresh := make([]assignment, len(u.members))
	for i, m := range u.members {
		if u.same && m.owned != nil && u.kept[i] == u.load[i] && u.load[i] == m.owned.count() {
			out[m.id] = m.owned // as it was
		} else {
			fresh[i] = make(assignment)
			out[m.id] = fresh[i]
		}
	}
	for t, topic := range u.topics {
		for p, owner := range u.owner[u.first[t] : u.first[t]+int(u.sizes[t])] {
			if owner >= 0 && fresh[owner] != nil {
				fresh[owner][topic] = append(fresh[owner][topic], int32(p))
			}
		}
	}
	return out
}

// even moves partitions along chains from fuller members to emptier ones. It goes
// by levels, the fullest members first: once no chain leads from a member of load l
// to one of l-2 or less, none ever will again, because a chain of a lower level that
// touched what is within reach from there would itself have been within reach.
//
// Within a level it goes in phases, as Hopcroft and Karp do: a search in breadth
// from all members of the level at once finds how long the shortest chain is, then
// all chains of that length are taken that do not get in each other's way.
func (u *uniform) even() {
	e := &evening{
		uniform: u, held: make([]map[int32][]int32, len(u.members)), has: make([][]int32, len(u.members)),
		depth: make([]int, len(u.members)), dead: make([]bool, len(u.members)),
		asked: make([]int, len(u.topics)), next: make([]int, len(u.topics)),
	}
	for i := range e.held {
		e.held[i] = make(map[int32][]int32)
	}
	for t := range u.topics {
		for p, owner := range u.owner[u.first[t] : u.first[t]+int(u.sizes[t])] {
			if owner >= 0 {
				e.give(owner, int32(t), int32(p))
			}
		}
	}
	for level := slices.Max(u.load); level >= 2 && level-2 >= slices.Min(u.load); level-- {
		for e.phase(level) && u.steps < maxSteps {
		}
	}
}

type evening struct {
	*uniform
	held  []map[int32][]int32 // by member: its partitions of each topic
	has   [][]int32           // by member: topics it has, or had, partitions of
	depth []int               // of a member in this phase's search, from 1; 0: not found
	dead  []bool              // no chain goes on from here
	asked []int               // of a topic: the depth from which it was asked; 0: not
	next  []int               // of a topic: its readers before are dead
}

func (e *evening) give(to, topic, p int32) {
	if _, ok := e.held[to][topic]; !ok {
		e.has[to] = append(e.has[to], topic)
	}
	e.held[to][topic] = append(e.held[to][topic], p)
	e.owner[e.first[topic]+int(p)] = to
}

// move moves one partition of a topic.
func (e *evening) move(from, to, topic int32) {
	parts := e.held[from][topic]
	last := len(parts) - 1
	e.held[from][topic] = parts[:last]
	e.give(to, topic, parts[last])
}

// phase takes chains from members of a level; false: there are none.
func (e *evening) phase(level int) bool {
	clear(e.depth)
	clear(e.dead)
	clear(e.asked)
	clear(e.next)
	var sources []int32
	for i, n := range e.load {
		if n == level {
			sources = append(sources, int32(i))
			e.depth[i] = 1
		}
	}
	found := false
	for layer := sources; len(layer) > 0 && !found; {
		var following []int32
		for _, at := range layer {
			for _, t := range e.has[at] {
				e.steps++
				if len(e.held[at][t]) == 0 || e.asked[t] != 0 {
					continue
				}
				e.asked[t] = e.depth[at] // whoever reads t is within reach now
				for _, to := range e.readers[t] {
					e.steps++
					if e.depth[to] == 0 {
						e.depth[to] = e.depth[at] + 1
						following = append(following, to)
						found = found || e.load[to] <= level-2
					}
				}
			}
		}
		layer = following
	}
	if !found {
		return false
	}
	moved := false
	for _, from := range sources {
		if e.chain(from, level) {
			e.load[from]--
			moved = true
		}
	}
	return moved
}

// chain moves one partition's worth of load from a member, along the search, to one
// that has room for it.
func (e *evening) chain(from int32, level int) bool {
	for _, t := range e.has[from] {
		e.steps++
		if e.asked[t] != e.depth[from] || len(e.held[from][t]) == 0 {
			continue
		}
		for readers := e.readers[t]; e.next[t] < len(readers); e.next[t]++ {
			to := readers[e.next[t]]
			e.steps++
			if e.dead[to] || e.depth[to] != e.depth[from]+1 {
				continue
			}
			if e.load[to] <= level-2 {
				e.load[to]++
				e.move(from, to, t)
				return true
			}
			if e.chain(to, level) {
				e.move(from, to, t)
				return true
			}
			e.dead[to] = true
		}
	}
	return false
}

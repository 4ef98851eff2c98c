package group

import (
	"cmp"
	"maps"
	"math"
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
type assignor interface {
	assign(members []reading, partitions map[uuid]int32) map[string]assignment
}

// A rangeAssignor gives each subscriber of a topic a contiguous range of it, the same
// range in all topics of the same size and subscribers, so that joins of topics
// find both sides at one member. Ranges differ by one partition at most.
type rangeAssignor struct{}

func (rangeAssignor) assign(members []reading, partitions map[uuid]int32) map[string]assignment {
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

// A uniformAssignor spreads all partitions as evenly as subscriptions allow, and moves
// as few as that takes. Members keep what they own up to their share; what nobody
// owns goes to whoever has least. Where subscriptions differ a partition may have
// to go round corners: from a to b and another from b to c, if a and c have no
// topic in common. Such chains are searched until none makes it more even, which
// is when the sum of the squares of the loads is least (semi-matching).
type uniformAssignor struct{}

func (uniformAssignor) assign(members []reading, partitions map[uuid]int32) map[string]assignment {
	plan, _ := spread(members, partitions)
	return plan
}

// maxSteps bounds the search for chains: half a second of one core. An assignment
// that is not as even as can be is better than a core that is gone.
const maxSteps = 50_000_000

// spread is what a uniformAssignor does, and how many steps it took: looks at a partition, a
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
		u.settle()
	}
	return u.plan(), u.steps
}

// uniform is an assignment in the making. Members and topics go by their place in
// a list, partitions by their place among those of all topics.
//
// Where subscriptions differ, a link is one topic that one member reads. Who gets how
// many partitions of which topic is worked out on links alone, by counting; which
// partitions those are is said at the end, so that only what a member gives up moves.
type uniform struct {
	members []reading
	same    bool // all read the same
	topics  []uuid
	sizes   []int32 // of topics, in partitions
	first   []int   // of a topic, its partition 0 among all
	owner   []int32 // by partition; -1: nobody
	load    []int
	kept    []int // of its load, what a member had before
	total   int
	steps   int

	// Empty if all read the same.
	links   []link  // by member, and each member's by topic
	begin   []int32 // of a member, its first link; one more than members
	readers [][]int32
	free    []int // by topic: partitions that nobody owns yet
}

// A link is one topic that one member reads, and how many partitions of it the
// member has.
type link struct{ member, topic, has int32 }

func (u *uniform) linksOf(member int32) []link {
	return u.links[u.begin[member]:u.begin[member+1]]
}

func newUniform(members []reading, partitions map[uuid]int32) *uniform {
	n := len(members)
	u := &uniform{members: members, same: true, load: make([]int, n), kept: make([]int, n)}
	links := 0
	for _, m := range members {
		u.same = u.same && sameTopics(m.topics, members[0].topics)
		links += len(m.topics)
	}
	if u.same {
		for _, t := range members[0].topics {
			if _, ok := partitions[t]; ok {
				u.topics = append(u.topics, t)
			}
		}
	} else {
		u.topics = slices.SortedFunc(maps.Keys(partitions), compareUUID)
	}
	place := make(map[uuid]int32, len(u.topics))
	for i, t := range u.topics {
		place[t] = int32(i)
	}
	if !u.same {
		u.link(place, links)
	}
	for i, t := range u.topics {
		size := max(partitions[t], 0)
		if !u.same && len(u.readers[i]) == 0 {
			size = 0
		}
		u.first = append(u.first, u.total)
		u.sizes = append(u.sizes, size)
		u.total += int(size)
	}
	u.owner = make([]int32, u.total)
	for i := range u.owner {
		u.owner[i] = -1
	}
	u.keep(place)
	return u
}

// link makes the links, of which there are so many at most.
func (u *uniform) link(place map[uuid]int32, most int) {
	u.links, u.begin = make([]link, 0, most), make([]int32, 0, len(u.members)+1)
	count := make([]int32, len(u.topics))
	for i, m := range u.members {
		u.begin = append(u.begin, int32(len(u.links)))
		for _, t := range m.topics {
			if p, ok := place[t]; ok {
				u.links = append(u.links, link{member: int32(i), topic: p})
				count[p]++
			}
		}
	}
	u.begin = append(u.begin, int32(len(u.links)))
	u.readers, u.free = make([][]int32, len(u.topics)), make([]int, len(u.topics))
	all := make([]int32, len(u.links))
	for t, n := range count {
		u.readers[t], all = all[:0:n], all[n:]
	}
	for i := range u.links {
		t := u.links[i].topic
		u.readers[t] = append(u.readers[t], int32(i))
	}
	u.steps += 2 * len(u.links)
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
			for _, l := range u.linksOf(int32(i)) {
				fair += float64(u.sizes[l.topic]) / float64(len(u.readers[l.topic]))
			}
			quota = max(share, int(fair)) + 1
		}
		take := func(topic uuid, parts []int32) {
			t, ok := place[topic]
			var l *link
			if ok && !u.same {
				links := u.linksOf(int32(i))
				var at int
				if at, ok = slices.BinarySearchFunc(links, t, func(l link, t int32) int { return cmp.Compare(l.topic, t) }); ok {
					l = &links[at]
				}
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
					if l != nil {
						l.has++
					}
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

// greedy gives what nobody owns to the readers that have least, the topics with the
// fewest readers first. The readers of a topic fill up as vessels do that water is
// poured into: to one level, and what is left over one each.
func (u *uniform) greedy() {
	order := make([]int, len(u.topics))
	for t := range order {
		order[t] = t
		for _, owner := range u.ownersOf(t) {
			if owner < 0 {
				u.free[t]++
			}
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(u.readers[a]), len(u.readers[b])) })
	var at []int // by height above the lowest: readers that stand there
	for _, t := range order {
		readers, free := u.readers[t], u.free[t]
		if free == 0 {
			continue
		}
		lowest := math.MaxInt
		for _, r := range readers {
			lowest = min(lowest, u.load[u.links[r].member])
		}
		at = slices.Grow(at[:0], free+1)[:free+1]
		clear(at)
		for _, r := range readers {
			if above := u.load[u.links[r].member] - lowest; above <= free {
				at[above]++
			}
		}
		level, below := lowest, at[0] // those at the level or below it
		for free >= below {
			free -= below
			level++
			below += at[level-lowest]
		}
		for _, r := range readers {
			l := &u.links[r]
			load := u.load[l.member]
			to := max(load, level)
			if to == level && free > 0 {
				free--
				to++
			}
			l.has += int32(to - load)
			u.load[l.member] = to
		}
		u.steps += 3*len(readers) + u.free[t]
	}
}

// ownersOf is who owns each partition of a topic.
func (u *uniform) ownersOf(topic int) []int32 {
	return u.owner[u.first[topic] : u.first[topic]+int(u.sizes[topic])]
}

// settle makes the owners of partitions what the links say. A member that has more of
// a topic than that gives up some of it, and nothing else moves.
func (u *uniform) settle() {
	left := make([]int32, len(u.members)) // of a topic, by member
	for t, readers := range u.readers {
		owners := u.ownersOf(t)
		if len(owners) == 0 {
			continue
		}
		for _, r := range readers {
			left[u.links[r].member] = u.links[r].has
		}
		for p, owner := range owners {
			switch {
			case owner >= 0 && left[owner] > 0:
				left[owner]--
			default:
				owners[p] = -1
			}
		}
		next := 0 // the reader that gets what is free
		for p, owner := range owners {
			if owner >= 0 {
				continue
			}
			for left[u.links[readers[next]].member] == 0 {
				next++
			}
			owners[p] = u.links[readers[next]].member
			left[owners[p]]--
		}
		u.steps += 2 * (len(readers) + len(owners))
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
		for p, owner := range u.ownersOf(t) {
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
// touched what is within reach from there would itself have been within reach. So
// whatever the last search of a level came by is done, and looked at no more: all
// those searches together go over each link once.
//
// Within a level it goes in phases, as Hopcroft and Karp do: a search in breadth
// from all members of the level at once finds how long the shortest chain is, then
// all chains of that length are taken that do not get in each other's way.
func (u *uniform) even() {
	n := len(u.members)
	e := &evening{
		uniform: u, depth: make([]int32, n), next: make([]int32, n), dead: make([]bool, n),
		asked: make([]int32, len(u.topics)), reader: make([]int32, len(u.topics)),
	}
	for u.steps < maxSteps {
		level, least := 0, math.MaxInt
		for i, load := range u.load {
			if e.depth[i] == 0 {
				level, least = max(level, load), min(least, load)
			}
		}
		u.steps += n
		if level-2 < least {
			return
		}
		for e.phase(level) && u.steps < maxSteps {
		}
	}
}

type evening struct {
	*uniform

	// Of a member.
	depth []int32 // in this phase's search, from 1; 0: not found; -1: done, no chain will ever touch it
	next  []int32 // its links before lead nowhere in this phase
	dead  []bool  // no chain goes on from here in this phase

	// Of a topic.
	asked  []int32 // the depth from which it was asked; 0: not; -1: done
	reader []int32 // its readers before are dead

	found  []int32 // members of this phase's search, by depth
	topics []int32 // topics of it
}

// move moves one partition from one reader of a topic to another.
func (e *evening) move(from, to *link) {
	from.has--
	to.has++
}

// phase takes chains from members of a level; false: there are none.
func (e *evening) phase(level int) bool {
	e.found, e.topics = e.found[:0], e.topics[:0]
	for i, n := range e.load {
		if n == level && e.depth[i] == 0 {
			e.found = append(e.found, int32(i))
			e.depth[i] = 1
		}
	}
	e.steps += len(e.load)
	sources := len(e.found)
	short := int32(math.MaxInt32) // the depth of the nearest members that have room
	for at := 0; at < len(e.found) && e.depth[e.found[at]] < short; at++ {
		member := e.found[at]
		depth := e.depth[member]
		links := e.linksOf(member)
		e.steps += len(links)
		for i := range links {
			t := links[i].topic
			if links[i].has == 0 || e.asked[t] != 0 {
				continue
			}
			e.asked[t] = depth // whoever reads t is within reach now
			e.topics = append(e.topics, t)
			e.steps += len(e.readers[t])
			for _, r := range e.readers[t] {
				to := e.links[r].member
				if e.depth[to] == 0 {
					e.depth[to] = depth + 1
					e.found = append(e.found, to)
					if e.load[to] <= level-2 {
						short = depth + 1
					}
				}
			}
		}
	}
	if short == math.MaxInt32 {
		e.markAs(-1)
		return false
	}
	for _, member := range e.found {
		e.next[member], e.dead[member] = e.begin[member], false
	}
	for _, t := range e.topics {
		e.reader[t] = 0
	}
	for _, from := range e.found[:sources] {
		if e.chain(from, level) {
			e.load[from]--
		}
	}
	e.markAs(0)
	return true
}

// markAs ends a search: what it came by is not found, or done.
func (e *evening) markAs(what int32) {
	for _, member := range e.found {
		e.depth[member] = what
	}
	for _, t := range e.topics {
		e.asked[t] = what
	}
}

// chain moves one partition's worth of load from a member, along the search, to one
// that has room for it.
func (e *evening) chain(from int32, level int) bool {
	for ; e.next[from] < e.begin[from+1]; e.next[from]++ {
		l := &e.links[e.next[from]]
		e.steps++
		if l.has == 0 || e.asked[l.topic] != e.depth[from] {
			continue
		}
		for readers := e.readers[l.topic]; int(e.reader[l.topic]) < len(readers); e.reader[l.topic]++ {
			to := &e.links[readers[e.reader[l.topic]]]
			e.steps++
			if e.dead[to.member] || e.depth[to.member] != e.depth[from]+1 {
				continue
			}
			if e.load[to.member] <= level-2 {
				e.load[to.member]++
				e.move(l, to)
				return true
			}
			if e.chain(to.member, level) {
				e.move(l, to)
				return true
			}
			e.dead[to.member] = true
		}
	}
	return false
}

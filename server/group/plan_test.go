package group

import (
	"context"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// crowd is the members of a large group. each: how many topics each reads of all;
// had: a member that owned everything.
func crowd(members, topics, size, each int, had bool) ([]reading, map[uuid]int32) {
	r := rand.New(rand.NewPCG(1, 2))
	parts := make(map[uuid]int32)
	var all []uuid
	for i := range topics {
		id := idOf(fmt.Sprintf("%08d", i))
		parts[id] = int32(size)
		all = append(all, id)
	}
	var out []reading
	for i := range members {
		m := reading{id: fmt.Sprintf("%08d", i), topics: all}
		if each < topics {
			m.topics = nil
			for _, k := range r.Perm(topics)[:each] {
				m.topics = append(m.topics, all[k])
			}
			slices.SortFunc(m.topics, compareUUID)
		}
		out = append(out, m)
	}
	if had {
		out[0].topics = all
		out[0].owned = make(assignment)
		for _, t := range all {
			for p := range int32(size) {
				out[0].owned[t] = append(out[0].owned[t], p)
			}
		}
	}
	return out, parts
}

var crowds = []struct {
	members, topics, size, each int
	had                         bool
	steps                       int // at most
}{
	{1000, 1, 4000, 1, false, 20_000},
	{1000, 400, 10, 400, false, 20_000},
	{1000, 400, 10, 400, true, 20_000},
	{200, 100, 40, 10, false, 1_000_000},
	{400, 200, 20, 20, false, 1_000_000},
	{1000, 400, 10, 20, false, 1_000_000},
	{200, 100, 40, 10, true, 1_000_000},
	{400, 200, 20, 20, true, 1_000_000},
	{1000, 400, 10, 20, true, 1_000_000},
	{1000, 400, 10, 200, true, 2_500_000},
}

// Uniform assignment of large groups takes few steps and little memory, some for each
// member and each topic of a member's but none for each link between them, assigns
// everything, as evenly as can be, and what is assigned stays so.
func TestUniformStaysCheap(t *testing.T) {
	for _, c := range crowds {
		name := fmt.Sprintf("%dx%dx%d each %d had %v", c.members, c.topics, c.size, c.each, c.had)
		members, parts := crowd(c.members, c.topics, c.size, c.each, c.had)
		plan, steps := spread(members, parts)
		if steps > c.steps {
			t.Errorf("%s: %d steps, want at most %d", name, steps, c.steps)
		}
		count, least, most := 0, 1<<30, 0
		for _, a := range plan {
			n := a.count()
			count, least, most = count+n, min(least, n), max(most, n)
		}
		if count != c.topics*c.size {
			t.Errorf("%s: %d partitions are assigned", name, count)
		}
		if most-least > 1 {
			t.Errorf("%s: loads from %d to %d", name, least, most)
		}
		for i := range members {
			members[i].owned = plan[members[i].id]
		}
		again, _ := spread(members, parts)
		for id := range plan {
			if !again[id].equal(plan[id]) {
				t.Errorf("%s: %s moved without need", name, id)
				break
			}
		}
		members, parts = crowd(c.members, c.topics, c.size, c.each, c.had)
		allocs := testing.AllocsPerRun(1, func() { spread(members, parts) })
		if most := 2*float64(c.members+c.topics*c.size) + 200; allocs > most {
			t.Errorf("%s: %.0f allocations, want at most %.0f", name, allocs, most)
		}
		t.Logf("%s: %d steps, %.0f allocations", name, steps, allocs)
	}
}

// Chains end where no assignment is more even: compared with all there are, small.
func TestUnequalSubscriptionsAreAsEvenAsCanBe(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 3))
		n, topics := 1+r.IntN(4), 1+r.IntN(4)
		parts := make(map[uuid]int32)
		members := make([]reading, n)
		for i := range members {
			members[i].id = fmt.Sprint(i)
		}
		var readers [][]int
		for k := range topics {
			id := idOf(fmt.Sprint(k))
			parts[id] = int32(r.IntN(3))
			var of []int
			for i := range members {
				if r.IntN(2) == 0 {
					members[i].topics = append(members[i].topics, id)
					of = append(of, i)
				}
			}
			for p := range parts[id] {
				readers = append(readers, of)
				if len(of) > 0 && r.IntN(2) == 0 {
					m := &members[of[r.IntN(len(of))]]
					if m.owned == nil {
						m.owned = make(assignment)
					}
					m.owned[id] = append(m.owned[id], p)
				}
			}
		}
		best := 1 << 30
		load := make([]int, n)
		var try func(i int)
		try = func(i int) {
			if i == len(readers) {
				sum := 0
				for _, l := range load {
					sum += l * l
				}
				best = min(best, sum)
				return
			}
			if len(readers[i]) == 0 {
				try(i + 1)
			}
			for _, m := range readers[i] {
				load[m]++
				try(i + 1)
				load[m]--
			}
		}
		try(0)
		sum, owners := 0, make(map[string]bool)
		for i, m := range members {
			got := (uniformAssignor{}).assign(members, parts)[fmt.Sprint(i)]
			sum += got.count() * got.count()
			for topic, ps := range got {
				if _, ok := slices.BinarySearchFunc(m.topics, topic, compareUUID); !ok {
					t.Fatalf("seed %d: %d has a topic it does not read", seed, i)
				}
				for _, p := range ps {
					k := fmt.Sprint(topic, p)
					if owners[k] {
						t.Fatalf("seed %d: %s twice", seed, k)
					}
					owners[k] = true
				}
			}
		}
		if sum != best {
			t.Fatalf("seed %d: squares of loads sum up to %d, can be %d", seed, sum, best)
		}
	}
}

func BenchmarkUniform(b *testing.B) {
	for _, c := range crowds {
		b.Run(fmt.Sprintf("members=%d/topics=%d/size=%d/each=%d/had=%v", c.members, c.topics, c.size, c.each, c.had), func(b *testing.B) {
			members, parts := crowd(c.members, c.topics, c.size, c.each, c.had)
			b.ReportAllocs()
			for b.Loop() {
				(uniformAssignor{}).assign(members, parts)
			}
		})
	}
}

// countedTopics counts how often topics are looked up.
type countedTopics struct {
	*shelf
	lookups atomic.Int64
}

func (c *countedTopics) Topic(name string) (uuid, int32, bool) {
	c.lookups.Add(1)
	return c.shelf.Topic(name)
}

// Many members that join one group cost a bounded number of appends, records and
// looks at topics each, and end with every partition assigned once.
func TestManyConsumersJoinAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1000
		p, topics := &journal{}, &countedTopics{shelf: newShelf(map[string]int32{"t": 2000})}
		c := p.takeOver(t, Config{Topics: topics})
		defer c.Close()
		all := make([]*beater, n)
		var wg sync.WaitGroup
		for i := range all {
			all[i] = newBeater(c, fmt.Sprintf("m%04d", i), "t")
			wg.Go(func() { all[i].beat() })
		}
		wg.Wait()
		for round := 0; total(all...) != 2000; round++ {
			if round == 20 {
				t.Fatalf("after %d rounds %d partitions are owned", round, total(all...))
			}
			for _, b := range all {
				wg.Go(func() { b.beat() })
			}
			wg.Wait()
			alone(t, all...)
		}
		appends, records := p.Appends(), p.Len()
		t.Logf("%d members: %d appends, %d records, %d lookups", n, appends, records, topics.lookups.Load())
		if records > 30*n || topics.lookups.Load() > 20*n {
			t.Errorf("%d records and %d lookups for %d members", records, topics.lookups.Load(), n)
		}
	})
}

// Members that name twenty topics each, each of them others, look up each topic once
// a plan and not each name of each member's, and none of it in the step that asks.
func TestAPlanLooksUpEachTopicOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, of, each = 100, 100, 20
		shelf := newShelf(map[string]int32{})
		for i := range of {
			shelf.parts[fmt.Sprintf("t%02d", i)] = 2
		}
		p, topics := &journal{}, &countedTopics{shelf: shelf}
		c := p.takeOver(t, Config{Topics: topics})
		defer c.Close()
		r := rand.New(rand.NewPCG(7, 7))
		var all []*beater
		for i := range n {
			b := newBeater(c, fmt.Sprintf("m%03d", i))
			for _, k := range r.Perm(of)[:each] {
				b.topics = append(b.topics, fmt.Sprintf("t%02d", k))
			}
			slices.Sort(b.topics)
			wantCode(t, "join", b.beat(), protocol.None)
			all = append(all, b)
		}
		// One look for the hash of each epoch, one for its plan, and as many again for
		// whatever else there is.
		if got, most := topics.lookups.Load(), int64(4*n*of); got > most {
			t.Errorf("%d members looked up topics %d times, want at most %d", n, got, most)
		}
		settle(t, all...)
		if total(all...) != 2*of {
			t.Errorf("%d partitions are owned, want %d", total(all...), 2*of)
		}
		s, code := c.shardOf("g")
		wantCode(t, "shard", code, protocol.None)
		defer s.Unlock()
		cg := s.groupLocked("g").members.(*consumerGroup)
		before := topics.lookups.Load()
		q := cg.ask(&cg.consumerState)
		if got := topics.lookups.Load() - before; got != 0 || q.names() != n*each {
			t.Errorf("%d lookups under the lock, %d names are left to resolve", got, q.names())
		}
		q.resolve(cg.topic)
		if got := topics.lookups.Load() - before; got != of {
			t.Errorf("%d lookups for %d topics", got, of)
		}
	})
}

// BenchmarkConsumersJoin lets members join one group, one after the other and then
// each beating once: what a broker does for a group that starts.
func BenchmarkConsumersJoin(b *testing.B) {
	for _, n := range []int{500, 2000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			for b.Loop() {
				p := &journal{}
				c := p.takeOver(b, Config{Topics: newShelf(map[string]int32{"t": 4000})})
				for i := range n {
					m := newBeater(c, fmt.Sprintf("m%05d", i), "t")
					if code := m.beat(); code != protocol.None {
						b.Fatal(code)
					}
				}
				c.Close()
			}
		})
	}
}

// A large group is planned without the shard's lock: while its assignor works, a
// heartbeat of another group of the shard is answered, and one of its own.
func TestAPlanKeepsNobodyWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		working, goOn := make(chan struct{}), make(chan struct{})
		p := &journal{tune: func(c *Coordinator) {
			c.assignors["uniform"] = plans(func(members []reading, parts map[uuid]int32) map[string]assignment {
				if len(members) == 1 && members[0].id == "large" {
					close(working)
					<-goOn
				}
				return uniformAssignor{}.assign(members, parts)
			})
		}}
		c := p.takeOver(t, Config{Topics: newShelf(map[string]int32{"t": 4000, "u": 2})})
		defer c.Close()
		large := newBeater(c, "large", "t")
		done := make(chan protocol.Code)
		go func() { done <- large.beat() }()
		<-working
		other := newBeater(c, "other", "u")
		other.group = "h"
		wantCode(t, "a heartbeat of another group", other.beat(), protocol.None)
		if other.owned.count() != 2 {
			t.Errorf("the other owns %v", other.owned)
		}
		second := newBeater(c, "second", "u")
		joined := make(chan protocol.Code)
		go func() { joined <- second.beat() }()
		synctest.Wait() // it waits for the next plan
		wantCode(t, "a commit", commit(c, "g", "large", nil, 0, "t", 0, 5), protocol.None)
		close(goOn)
		wantCode(t, "large", <-done, protocol.None)
		wantCode(t, "second", <-joined, protocol.None)
		settle(t, large, second)
		if large.owned.count() != 4000 || second.owned.count() != 2 {
			t.Errorf("%d and %d partitions", large.owned.count(), second.owned.count())
		}
	})
}

// An expression costs what its program and the names make it cost, and is refused
// before it costs more.
func TestExpressionsAreBounded(t *testing.T) {
	for _, bad := range []string{
		`(?:` + strings.Repeat(`.?`, 1000) + `){0,1000}`,
		`((a{100}){100}){100}`,
		`(?:x{1000}){20}`,
		strings.Repeat("a|", 20_000) + "a",
		strings.Repeat("x", 40_000),
		`a)|(?:b`, `(`, `a{1001}`, `\C`,
	} {
		if _, err := compile(bad); err == nil {
			t.Errorf("%.40q… compiles", bad)
		}
	}
	names := make([]string, 3000)
	for i := range names {
		names[i] = fmt.Sprintf("logs-%05d-%s", i, strings.Repeat("a", 200))
	}
	prog, err := compile(`(?:` + strings.Repeat(`.?`, 1000) + `)*b`)
	if err != nil {
		t.Fatal(err)
	}
	m, refused := newMatcher(prog), false
	for _, name := range names {
		if _, err := m.match(name, stepsOf(len(names))); err != nil {
			refused = true
			break
		}
	}
	if limit := stepsOf(len(names)); !refused || m.steps > limit+limit/10 {
		t.Errorf("%d steps, limit %d, refused %v", m.steps, limit, refused)
	}
}

// An expression whose turn does not come, because its client hangs up or the coordinator
// closes, is not called invalid: a client would give up for good.
func TestAnExpressionWithoutATurnIsNotInvalid(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		if err := c.matching.take(t.Context(), nil, "/"); err != nil { // another is being matched
			t.Fatal(err)
		}
		all := ".*"
		codes := make(chan protocol.Code)
		join := func(ctx context.Context) {
			req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			req.Version, req.Group, req.MemberID, req.RebalanceTimeoutMillis = 1, "g", "b", 60_000
			req.SubscribedTopicRegex, req.Topics = &all, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			codes <- protocol.Code(c.ConsumerHeartbeat(ctx, Client{"c", "/"}, nil, req).ErrorCode)
		}
		ctx, hangUp := context.WithCancel(t.Context())
		go join(ctx)
		synctest.Wait()
		hangUp()
		wantCode(t, "who hangs up", <-codes, protocol.CoordinatorNotAvailable)
		go join(t.Context())
		synctest.Wait()
		c.Close()
		wantCode(t, "who waits at the end", <-codes, protocol.CoordinatorNotAvailable)
	})
}

func TestExpressionsMatchWholeNames(t *testing.T) {
	for _, c := range []struct {
		expression, name string
		want             bool
	}{
		{`logs-.*`, "logs-a", true}, {`logs-.*`, "logs-", true}, {`logs-.*`, "my-logs-a", false}, {`a`, "ab", false},
		{`a|b`, "b", true}, {`a|b`, "ab", false}, {`(?i)ABC`, "abc", true}, {`[a-c]{2,3}`, "abc", true},
		{`[a-c]{2,3}`, "abcd", false}, {`a\b.*`, "a.b", true}, {`a\b.*`, "ab", false}, {`(a+)+b`, "aaab", true},
		{`\Aa\z`, "a", true}, {`^a$`, "a", true}, {`.`, "é", true}, {`\pL+`, "éa", true}, {`(?:)`, "", true},
		{`a*?b`, "aab", true}, {`[^.]+`, "a.b", false}, {`__.*|x`, "__consumer_offsets", true},
	} {
		prog, err := compile(c.expression)
		if err != nil {
			t.Fatal(c.expression, err)
		}
		if got, err := newMatcher(prog).match(c.name, 1<<20); err != nil || got != c.want {
			t.Errorf("%s on %q: %v %v", c.expression, c.name, got, err)
		}
	}
}

// FuzzExpressions: what compiles matches as package regexp does, within the steps.
func FuzzExpressions(f *testing.F) {
	f.Add(`logs-.*|[a-c]{2,5}\b`, "logs-1")
	f.Add(`(?i)(a+)+$`, "aAaA")
	f.Fuzz(func(t *testing.T, expression, name string) {
		prog, err := compile(expression)
		if err != nil {
			return
		}
		got, err := newMatcher(prog).match(name, 1<<22)
		if err != nil {
			return
		}
		if want := matchesByRegexp(expression, name); got != want {
			t.Errorf("%q on %q: %v, package regexp says %v", expression, name, got, want)
		}
	})
}

func matchesByRegexp(expression, name string) bool {
	return regexp.MustCompile(`\A(?:` + expression + `)\z`).MatchString(name)
}

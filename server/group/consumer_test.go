package group

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

// A shelf is topics in memory.
type shelf struct {
	mu      sync.Mutex
	parts   map[string]int32
	changed chan struct{}
}

func newShelf(parts map[string]int32) *shelf {
	return &shelf{parts: parts, changed: make(chan struct{})}
}

func idOf(name string) (id uuid) { copy(id[:], name); return id }

func (s *shelf) Topic(name string) (uuid, int32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.parts[name]
	return idOf(name), n, ok
}

func (s *shelf) TopicByID(id uuid) (string, int32, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, n := range s.parts {
		if idOf(name) == id {
			return name, n, true
		}
	}
	return "", 0, false
}

func (s *shelf) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.parts))
}

func (s *shelf) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// set changes the partitions of a topic; 0 deletes it.
func (s *shelf) set(name string, n int32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parts[name] = n; n == 0 {
		delete(s.parts, name)
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// A beater is a client of the consumer protocol. It owns what it was assigned and
// has not given back.
type beater struct {
	c        *Coordinator
	group    string
	id       string
	instance *string
	topics   []string
	regex    *string
	assignor *string
	epoch    int32
	owned    assignment    // what it reads
	told     assignment    // what it was last told to read
	slow     bool          // gives nothing back
	last     protocol.Code // of its last beat, in a story
	sight    Sight
}

func newBeater(c *Coordinator, id string, topics ...string) *beater {
	return &beater{c: c, group: "g", id: id, topics: topics, owned: assignment{}}
}

func (b *beater) beat() protocol.Code {
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.MemberEpoch, req.InstanceID = 1, b.group, b.id, b.epoch, b.instance
	req.ServerAssignor = b.assignor
	req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	if b.epoch >= 0 {
		req.RebalanceTimeoutMillis, req.SubscribedTopicNames, req.SubscribedTopicRegex = 60_000, b.topics, b.regex
	}
	for t, parts := range b.owned {
		req.Topics = append(req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t, Partitions: parts})
	}
	resp := b.c.ConsumerHeartbeat(context.Background(), Client{"app", "/127.0.0.1"}, b.sight, req)
	if resp.ErrorCode != int16(protocol.None) {
		if resp.ErrorCode == int16(protocol.FencedMemberEpoch) || resp.ErrorCode == int16(protocol.UnknownMemberID) {
			b.epoch, b.owned, b.told = 0, assignment{}, nil
		}
		return protocol.Code(resp.ErrorCode)
	}
	b.epoch = resp.MemberEpoch
	if resp.Assignment != nil {
		b.told = assignment{}
		for _, t := range resp.Assignment.Topics {
			b.told[t.TopicID] = t.Partitions
		}
	}
	if b.told != nil {
		if b.slow {
			b.owned = b.owned.plus(b.told)
		} else {
			b.owned = b.told
		}
	}
	return protocol.None
}

func (b *beater) leave() protocol.Code {
	b.epoch, b.owned = -1, assignment{}
	return b.beat()
}

// settle beats all until nothing moves.
func settle(t testing.TB, all ...*beater) {
	t.Helper()
	for range 20 {
		for _, b := range all {
			if code := b.beat(); code != protocol.None && code != protocol.FencedMemberEpoch && code != protocol.UnknownMemberID {
				t.Fatalf("%s: code %d", b.id, code)
			}
			alone(t, all...)
		}
	}
}

// alone fails if two members own one partition.
func alone(t testing.TB, all ...*beater) {
	t.Helper()
	owner := make(map[string]string)
	for _, b := range all {
		for topic, parts := range b.owned {
			for _, p := range parts {
				k := fmt.Sprintf("%x-%d", topic, p)
				if o, ok := owner[k]; ok {
					t.Fatalf("%s and %s both own %s", o, b.id, k)
				}
				owner[k] = b.id
			}
		}
	}
}

func total(all ...*beater) (n int) {
	for _, b := range all {
		n += b.owned.count()
	}
	return n
}

func consumerStory(t *testing.T, parts map[string]int32, f func(t *testing.T, c *Coordinator, p *journal, s *shelf)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p, s := &journal{}, newShelf(parts)
		c := p.takeOver(t, Config{Topics: s})
		defer c.Close()
		f(t, c, p, s)
	})
}

func describe(c *Coordinator) kmsg.ConsumerGroupDescribeResponseGroup {
	req := kmsg.NewPtrConsumerGroupDescribeRequest()
	req.Groups = []string{"g"}
	return c.ConsumerDescribe(context.Background(), req).Groups[0]
}

func TestThreeConsumersShareATopic(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 9}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x, y, z := newBeater(c, "x", "t"), newBeater(c, "y", "t"), newBeater(c, "z", "t")
		settle(t, x)
		settle(t, x, y)
		settle(t, x, y, z)
		for _, b := range []*beater{x, y, z} {
			if b.owned.count() != 3 {
				t.Errorf("%s owns %v", b.id, b.owned)
			}
		}
		if d := describe(c); d.State != "Stable" || len(d.Members) != 3 || d.AssignorName != "uniform" {
			t.Errorf("described as %+v", d)
		}
		wantCode(t, "leave", z.leave(), protocol.None)
		settle(t, x, y)
		if total(x, y) != 9 {
			t.Errorf("%v %v", x.owned, y.owned)
		}
		// y falls silent
		for range 10 {
			time.Sleep(5 * time.Second)
			x.beat()
		}
		y.owned = assignment{} // its client has noticed
		settle(t, x)
		if x.owned.count() != 9 {
			t.Errorf("x owns %v", x.owned)
		}
		wantCode(t, "the silent one", y.beat(), protocol.UnknownMemberID)
	})
}

func TestASlowConsumerKeepsItsPartitionsUntilItIsOut(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 4}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x, y := newBeater(c, "x", "t"), newBeater(c, "y", "t")
		settle(t, x)
		x.slow = true
		settle(t, x, y)
		if y.owned.count() != 0 || x.owned.count() != 4 {
			t.Fatalf("x owns %v, y %v", x.owned, y.owned)
		}
		for range 13 {
			time.Sleep(5*time.Second + time.Millisecond) // never at the moment of the timeout
			y.beat()
			if y.owned.count() == 0 {
				x.beat()
			}
		}
		wantCode(t, "x after its rebalance timeout", x.beat(), protocol.UnknownMemberID)
		x.slow = false
		settle(t, x, y)
		if x.owned.count() != 2 || y.owned.count() != 2 {
			t.Errorf("x owns %v, y %v", x.owned, y.owned)
		}
	})
}

func TestAFailoverLosesNoAssignment(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 6, "u": 3}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x, y := newBeater(c, "x", "t"), newBeater(c, "y", "t", "u")
		for range 30 { // a takeover between any two steps
			for _, b := range []*beater{x, y} {
				wantCode(t, b.id, b.beat(), protocol.None)
				alone(t, x, y)
				next := p.takeOver(t, Config{Topics: s})
				b.c.Close()
				x.c, y.c = next, next
			}
		}
		epoch := x.epoch
		settle(t, x, y)
		if total(x, y) != 9 || x.epoch != epoch {
			t.Errorf("x owns %v, y %v, epochs %d and %d", x.owned, y.owned, epoch, x.epoch)
		}
	})
}

func TestNewPartitionsAndExpressions(t *testing.T) {
	consumerStory(t, map[string]int32{"logs-a": 2, "other": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x := newBeater(c, "x")
		bad := "("
		x.regex = &bad
		wantCode(t, "a bad expression", x.beat(), protocol.InvalidRegularExpression)
		good := "logs-.*"
		x.regex = &good
		settle(t, x)
		if x.owned.count() != 2 {
			t.Errorf("x owns %v", x.owned)
		}
		s.set("logs-b", 3)
		s.set("logs-a", 4)
		settle(t, x)
		if x.owned.count() != 4 {
			t.Errorf("after new partitions x owns %v, want those of the topic it had", x.owned)
		}
		for range 121 { // group.consumer.regex.refresh.interval.ms, and a heartbeat
			time.Sleep(5 * time.Second)
			wantCode(t, "heartbeat", x.beat(), protocol.None)
		}
		synctest.Wait()
		settle(t, x)
		if x.owned.count() != 7 {
			t.Errorf("ten minutes after a new topic x owns %v", x.owned)
		}
		// One that takes over knows when they were resolved.
		next := p.takeOver(t, Config{Topics: s})
		c.Close()
		x.c = next
		s.set("logs-c", 1)
		settle(t, x)
		if x.owned.count() != 7 {
			t.Errorf("right after a failover x owns %v", x.owned)
		}
		for range 122 {
			time.Sleep(5 * time.Second)
			wantCode(t, "heartbeat", x.beat(), protocol.None)
		}
		synctest.Wait()
		settle(t, x)
		if x.owned.count() != 8 {
			t.Errorf("ten minutes after a failover x owns %v", x.owned)
		}
	})
}

// A blind member sees all topics but these.
type blind map[string]bool

// Sees implements Sight.
func (b blind) Sees(topic string) bool { return !b[topic] }

// Topics that a member may not know of are none of its expression's, nor later, when the
// expression is matched again.
func TestAnExpressionMatchesWhatItsMemberSees(t *testing.T) {
	consumerStory(t, map[string]int32{"logs-a": 2, "logs-secret": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x := newBeater(c, "x")
		logs := "logs-.*"
		x.regex, x.sight = &logs, blind{"logs-secret": true, "logs-hidden": true}
		settle(t, x)
		if x.owned.count() != 2 {
			t.Errorf("x owns %v", x.owned)
		}
		again := func() {
			for range 122 { // group.consumer.regex.refresh.interval.ms, and a heartbeat
				time.Sleep(5 * time.Second)
				wantCode(t, "heartbeat", x.beat(), protocol.None)
			}
			synctest.Wait()
			settle(t, x)
		}
		s.set("logs-b", 3)
		s.set("logs-hidden", 4)
		again()
		if x.owned.count() != 5 {
			t.Errorf("after new topics x owns %v", x.owned)
		}
		x.sight = blind{"logs-hidden": true}
		s.set("other", 1) // rights are metadata as well
		again()
		if x.owned.count() != 6 {
			t.Errorf("with more rights x owns %v", x.owned)
		}
	})
}

func TestAStaticConsumerIsReplaced(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 4}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		i := "i"
		x, y := newBeater(c, "x", "t"), newBeater(c, "y", "t")
		x.instance = &i
		settle(t, x, y)
		had, epoch := x.owned, y.epoch
		z := newBeater(c, "z", "t")
		z.instance = &i
		wantCode(t, "while x is there", z.beat(), protocol.UnreleasedInstanceID)
		x.epoch, x.owned = -2, assignment{}
		wantCode(t, "leave for a while", x.beat(), protocol.None)
		settle(t, z, y)
		if !z.owned.equal(had) || y.epoch != epoch {
			t.Errorf("z owns %v, x had %v; epoch %d, was %d", z.owned, had, y.epoch, epoch)
		}
		x.epoch = epoch
		wantCode(t, "the old one", x.beat(), protocol.FencedInstanceID)
	})
}

func TestCommitsNeedTheMembersEpoch(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x := newBeater(c, "x", "t")
		settle(t, x)
		wantCode(t, "commit", commit(c, "g", "x", nil, x.epoch, "t", 0, 5), protocol.None)
		wantCode(t, "stale", commit(c, "g", "x", nil, x.epoch-1, "t", 0, 4), protocol.StaleMemberEpoch)
		wantCode(t, "nobody", commit(c, "g", "q", nil, x.epoch, "t", 0, 4), protocol.UnknownMemberID)
		if got := fetched(t, c, "g", "t"); got != 5 {
			t.Errorf("offset %d", got)
		}
		wantCode(t, "delete", deleteGroup(c, "g"), protocol.NonEmptyGroup)
		wantCode(t, "leave", x.leave(), protocol.None)
		wantCode(t, "delete", deleteGroup(c, "g"), protocol.None)
		next := p.takeOver(t, Config{Topics: s})
		if d := describe(next); d.ErrorCode != int16(protocol.GroupIDNotFound) {
			t.Errorf("after deletion: %+v", d)
		}
	})
}

func TestAnEmptyGroupChangesItsTypeAndKeepsItsOffsets(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 2}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		r := newReader(c, "g")
		together(t, r)
		wantCode(t, "commit", r.commit(3), protocol.None)
		x := newBeater(c, "x", "t")
		wantCode(t, "a consumer while a classic member is in", x.beat(), protocol.GroupIDNotFound)
		wantCode(t, "leave", r.leave(), protocol.None)
		settle(t, x)
		again := newReader(c, "g")
		wantCode(t, "a classic member while a consumer is in", again.join().ErrorCode, protocol.InconsistentGroupProtocol)
		c2 := p.takeOver(t, Config{Topics: s})
		c.Close()
		x.c, again.c = c2, c2
		settle(t, x)
		if x.owned.count() != 2 {
			t.Errorf("x owns %v", x.owned)
		}
		wantCode(t, "leave", x.leave(), protocol.None)
		together(t, again)
		c3 := p.takeOver(t, Config{Topics: s})
		c2.Close()
		again.c = c3
		wantCode(t, "the classic member after a failover", again.heartbeat(), protocol.None)
		if got := fetched(t, c3, "g", "t"); got != 3 {
			t.Errorf("offset %d", got)
		}
	})
}

// TestNoPartitionHasTwoOwners lets members come, go, fall silent, be slow and the
// coordinator move, and holds at each step that no partition is owned twice, and at
// the end that all are owned.
func TestNoPartitionHasTwoOwners(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 1))
		consumerStory(t, map[string]int32{"a": 7, "b": 3, "c": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
			p.tune = func(c *Coordinator) { c.planAtOnce = []int{planAtOnce, 0}[seed%2] } // within the step, or by the planner
			p.tune(c)
			var all []*beater
			n := 0
			for range 150 {
				switch k := r.IntN(20); {
				case k == 0 && len(all) < 5:
					n++
					b := newBeater(c, fmt.Sprint("m", n), []string{"a", "b", "c"}[:1+r.IntN(3)]...)
					b.assignor = &[]string{"uniform", "range"}[r.IntN(2)]
					all = append(all, b)
				case k == 1 && len(all) > 1:
					i := r.IntN(len(all))
					all[i].leave()
					all = slices.Delete(all, i, i+1)
				case k == 2:
					next := p.takeOver(t, Config{Topics: s})
					c.Close()
					c = next
					for _, b := range all {
						b.c = c
					}
				case k == 3:
					s.set("c", 1+int32(r.IntN(3)))
				case k == 4 && len(all) > 0:
					b := all[r.IntN(len(all))]
					b.topics = []string{"a", "b", "c"}[:1+r.IntN(3)]
				case k == 5 && len(all) > 0:
					b := all[r.IntN(len(all))]
					b.slow = !b.slow
				default:
					if len(all) > 0 {
						all[r.IntN(len(all))].beat()
					}
				}
				alone(t, all...)
			}
			if len(all) == 0 {
				return
			}
			for _, b := range all {
				b.slow = false
			}
			all[0].topics = []string{"a", "b", "c"}
			settle(t, all...)
			_, cs, _ := s.Topic("c")
			if total(all...) != 10+int(cs) {
				t.Errorf("seed %d: %d partitions are owned, want %d", seed, total(all...), 10+cs)
			}
			c.Close()
		})
	}
}

func TestUniformIsEvenAndMovesTheMinimum(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		parts := map[uuid]int32{idOf("a"): int32(r.IntN(20)), idOf("b"): int32(r.IntN(20))}
		topics := []uuid{idOf("a"), idOf("b")}
		all := int(parts[idOf("a")] + parts[idOf("b")])
		var members []reading
		for i := range 1 + r.IntN(6) {
			members = append(members, reading{id: fmt.Sprint(i), topics: topics})
		}
		plan := (uniformAssignor{}).assign(members, parts)
		for range 5 {
			if r.IntN(2) == 0 || len(members) == 1 {
				members = append(members, reading{id: fmt.Sprint("n", r.Uint32()), topics: topics})
			} else {
				members = slices.Delete(members, 0, 1)
			}
			most := 0 // that could stay
			share, extra := all/len(members), all%len(members)
			for i := range members {
				members[i].owned = plan[members[i].id]
				own := members[i].owned.count()
				if own > share && extra > 0 {
					extra--
					own = min(own, share+1)
				} else {
					own = min(own, share)
				}
				most += own
			}
			plan = (uniformAssignor{}).assign(members, parts)
			stayed, count := 0, 0
			for _, m := range members {
				got := plan[m.id]
				stayed += got.common(m.owned).count()
				count += got.count()
				if n := got.count(); n < share || n > share+1 {
					t.Fatalf("seed %d: a load of %d, share %d", seed, n, share)
				}
			}
			if stayed != most || count != all {
				t.Fatalf("seed %d: %d stayed, %d could; %d of %d assigned", seed, stayed, most, count, all)
			}
		}
	}
}

func TestUnequalSubscriptionsAreBalancedByChains(t *testing.T) {
	a, b := idOf("a"), idOf("b")
	members := []reading{
		{id: "x", topics: []uuid{a}, owned: assignment{a: {0, 1}}},
		{id: "y", topics: []uuid{a, b}, owned: assignment{b: {0}}},
		{id: "z", topics: []uuid{b}},
	}
	for id, got := range (uniformAssignor{}).assign(members, map[uuid]int32{a: 2, b: 1}) {
		if got.count() != 1 {
			t.Errorf("%s has %v", id, got)
		}
	}
}

func TestConsumerRecordsAreReadAsWritten(t *testing.T) {
	inst, re := "i", "r.*"
	v := memberValue{instanceID: &inst, client: Client{"c", "/h"}, topics: []string{"a", "b"}, regex: &re, timeout: 7,
		classic: &classicValue{9, []memberProtocol{{"range", []byte("x")}}}}
	got, err := parseMember(v.append(nil))
	if err != nil || fmt.Sprintf("%x", got.append(nil)) != fmt.Sprintf("%x", v.append(nil)) {
		t.Errorf("%+v %v", got, err)
	}
	e, err := parseGroupEpoch(groupEpochValue{3, -4}.append(nil))
	if err != nil || e != (groupEpochValue{3, -4}) {
		t.Errorf("%+v %v", e, err)
	}
	if got := fmt.Sprintf("%x", groupEpochValue{epoch: 3}.append(nil)); got != "00000000000300" {
		t.Errorf("group epoch %s", got)
	}
	if got := fmt.Sprintf("%x", consumerKey(memberKey, "g", "m")); got != "0005000167"+"00016d" {
		t.Errorf("member key %s", got)
	}
}

func FuzzConsumerRecords(f *testing.F) {
	f.Add(memberValue{classic: &classicValue{}}.append(nil))
	f.Add(currentValue{epoch: 1, assigned: assignment{{1}: {1, 2}}}.append(nil))
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, v := range []int16{3, 4, 5, 6, 7, 8, 16} {
			st := newConsumerState()
			st.apply(v, "n", p)
		}
	})
}

// Java's consumer with a pattern that matches nothing yet says an empty list of
// names; only a client that says neither names nor an expression is wrong.
func TestASubscriptionToNothingIsOne(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 2}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		x := newBeater(c, "x")
		wantCode(t, "neither names nor an expression", x.beat(), protocol.InvalidRequest)
		x.topics = []string{}
		wantCode(t, "an empty list", x.beat(), protocol.None)
		if x.epoch != 1 || x.owned.count() != 0 {
			t.Errorf("epoch %d, owns %v", x.epoch, x.owned)
		}
		y, expression := newBeater(c, "y"), ""
		y.regex = &expression
		wantCode(t, "an empty expression", y.beat(), protocol.None)
		x.topics = []string{"t"}
		settle(t, x, y)
		if x.owned.count() != 2 || y.owned.count() != 0 {
			t.Errorf("x owns %v, y %v", x.owned, y.owned)
		}
	})
}

// An ofG is what is set for the group g alone.
type ofG struct{ own *GroupSettings }

func (ofG) Settings() Settings { return Settings{} }
func (o ofG) OfGroup(id string) GroupSettings {
	if id != "g" {
		return GroupSettings{}
	}
	return *o.own
}

// What is set for one group holds for it, within the broker's bounds, and for no
// other group.
func TestAGroupHasSettingsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, s := &journal{}, newShelf(map[string]int32{"t": 2})
		own := GroupSettings{SessionTimeout: 50 * time.Second, HeartbeatInterval: 9 * time.Second}
		c := p.takeOver(t, Config{Topics: s, Settings: ofG{&own}})
		defer c.Close()
		beat := func(group string) *kmsg.ConsumerGroupHeartbeatResponse {
			req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
			req.Version, req.Group, req.MemberID, req.RebalanceTimeoutMillis = 1, group, "x", 60_000
			req.SubscribedTopicNames, req.Topics = []string{"t"}, []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			return c.ConsumerHeartbeat(t.Context(), Client{"app", "/127.0.0.1"}, nil, req)
		}
		for group, want := range map[string]int32{"g": 9000, "h": 5000} {
			if got := beat(group).HeartbeatIntervalMillis; got != want {
				t.Errorf("group %s: a heartbeat each %d ms, want %d", group, got, want)
			}
		}
		time.Sleep(47 * time.Second) // beyond the default, within g's own
		if d := describe(c); len(d.Members) != 1 {
			t.Errorf("after 47 s g has %d members, want 1", len(d.Members))
		}
		time.Sleep(4 * time.Second)
		if d := describe(c); len(d.Members) != 0 {
			t.Errorf("after 51 s g has %d members, want none", len(d.Members))
		}
		own = GroupSettings{SessionTimeout: time.Hour, HeartbeatInterval: time.Millisecond}
		if got := beat("g").HeartbeatIntervalMillis; got != 5000 {
			t.Errorf("a heartbeat each %d ms, want the least, 5000", got)
		}
		time.Sleep(61 * time.Second)
		if d := describe(c); len(d.Members) != 0 {
			t.Errorf("a session lasts longer than the most there may be")
		}
	})
}

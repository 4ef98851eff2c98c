package group

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// A rider is a consumer that speaks the classic protocol, as real ones do: eager,
// which gives everything back before it joins, or cooperative, which says what it
// owns, gives back what it is not told and joins again.
type rider struct {
	c           *Coordinator
	name        string
	id          string
	instance    *string
	topics      []string
	cooperative bool
	generation  int32
	joined      bool // as far as it knows
	rejoin      bool
	owned       assignment
	call        chan *kmsg.JoinGroupResponse // a JoinGroup that waits
	sync        chan *kmsg.SyncGroupResponse
	last        protocol.Code // the last code that was not none
}

func newRider(c *Coordinator, cooperative bool, topics ...string) *rider {
	return &rider{c: c, name: "rider", cooperative: cooperative, topics: topics, owned: assignment{}}
}

func (r *rider) protocol() string {
	if r.cooperative {
		return "cooperative-sticky"
	}
	return "range"
}

func (r *rider) metadata() []byte {
	m := kmsg.NewConsumerMemberMetadata()
	m.Version, m.Topics, m.Generation = 3, r.topics, r.generation
	if r.cooperative {
		for t, parts := range r.owned {
			m.OwnedPartitions = append(m.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: nameOf(t), Partitions: parts})
		}
	}
	return m.AppendTo(nil)
}

func nameOf(id uuid) string {
	n := 0
	for n < len(id) && id[n] != 0 {
		n++
	}
	return string(id[:n])
}

// step does what is next, and does not wait: a request that does goes on between
// steps. It runs in a bubble.
func (r *rider) step() {
	defer synctest.Wait()
	switch {
	case r.call != nil:
		select {
		case resp := <-r.call:
			r.call = nil
			r.afterJoin(resp)
		default:
		}
	case r.sync != nil:
		select {
		case resp := <-r.sync:
			r.sync = nil
			r.afterSync(resp)
		default:
		}
	case !r.joined || r.rejoin:
		r.join()
	default:
		req := kmsg.NewPtrHeartbeatRequest()
		req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 4, "g", r.id, r.instance, r.generation
		r.refused(protocol.Code(r.c.Heartbeat(context.Background(), req).ErrorCode))
	}
}

func (r *rider) join() {
	if !r.cooperative {
		r.owned = assignment{}
	}
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID = 9, "g", r.id, r.instance
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis, req.ProtocolType = 30_000, 60_000, consumerProtocol
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: r.protocol(), Metadata: r.metadata()}}
	call, c, client := make(chan *kmsg.JoinGroupResponse, 1), r.c, Client{r.name, "/127.0.0.1"}
	r.call, r.rejoin = call, false
	go func() { call <- c.Join(context.Background(), client, req) }()
}

// refused does what a code asks for; false: there is none.
func (r *rider) refused(code protocol.Code) bool {
	switch code {
	case protocol.None:
		return false
	case protocol.RebalanceInProgress:
		r.rejoin = true
	case protocol.UnknownMemberID, protocol.FencedInstanceID:
		r.joined, r.id, r.generation, r.owned = false, "", -1, assignment{}
	case protocol.IllegalGeneration:
		r.joined, r.generation, r.owned = false, -1, assignment{}
	case protocol.NotCoordinator, protocol.CoordinatorNotAvailable, protocol.CoordinatorLoadInProgress:
	default:
		r.joined, r.owned = false, assignment{}
	}
	if code != protocol.RebalanceInProgress {
		r.last = code
	}
	return true
}

func (r *rider) afterJoin(resp *kmsg.JoinGroupResponse) {
	if resp.ErrorCode == int16(protocol.MemberIDRequired) {
		r.id = resp.MemberID
		r.join()
		return
	}
	if r.refused(protocol.Code(resp.ErrorCode)) {
		r.rejoin = true
		return
	}
	r.id, r.generation, r.joined = resp.MemberID, resp.Generation, true
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 5, "g", r.id, r.instance, r.generation
	req.ProtocolType, req.Protocol = resp.ProtocolType, resp.Protocol
	if resp.LeaderID == r.id && !resp.SkipAssignment {
		req.GroupAssignment = r.lead(resp.Members)
	}
	sync, c := make(chan *kmsg.SyncGroupResponse, 1), r.c
	r.sync = sync
	go func() { sync <- c.Sync(context.Background(), req) }()
}

// lead assigns partitions in turn; what a cooperative member says it owns goes to
// nobody else in this round.
func (r *rider) lead(members []kmsg.JoinGroupResponseMember) []kmsg.SyncGroupRequestGroupAssignment {
	parts := make(map[string]int32)
	ids := make(map[string]uuid)
	owner := make(map[place]string)
	reads := make(map[string][]string)
	for _, m := range members {
		var md kmsg.ConsumerMemberMetadata
		if err := md.ReadFrom(m.ProtocolMetadata); err != nil {
			panic(err)
		}
		reads[m.MemberID] = md.Topics
		for _, t := range md.Topics {
			ids[t], parts[t], _ = r.c.cfg.Topics.Topic(t)
		}
		for _, o := range md.OwnedPartitions {
			for _, p := range o.Partitions {
				owner[place{o.Topic, p}] = m.MemberID
			}
		}
	}
	plan := make(map[string]assignment)
	for t, n := range parts {
		var readers []string
		for _, m := range members {
			if slices.Contains(reads[m.MemberID], t) {
				readers = append(readers, m.MemberID)
			}
		}
		for p := range n {
			to := readers[int(p)%len(readers)]
			if o := owner[place{t, p}]; o != "" && o != to {
				continue // first it has to be given back
			}
			plan[to] = plan[to].plus(assignment{ids[t]: {p}})
		}
	}
	var out []kmsg.SyncGroupRequestGroupAssignment
	s := &shard{c: r.c}
	for _, m := range members {
		out = append(out, kmsg.SyncGroupRequestGroupAssignment{MemberID: m.MemberID, MemberAssignment: s.encodeAssignment(plan[m.MemberID], 3)})
	}
	return out
}

func (r *rider) afterSync(resp *kmsg.SyncGroupResponse) {
	if r.refused(protocol.Code(resp.ErrorCode)) {
		r.rejoin = true
		return
	}
	s := &shard{c: r.c}
	told, ok := s.decodeAssignment(resp.MemberAssignment)
	if !ok {
		panic("an assignment that cannot be read")
	}
	if r.cooperative && len(r.owned.without(told)) > 0 {
		r.rejoin = true // it has given something back
	}
	r.owned = told
}

func (r *rider) leave() protocol.Code {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group = 5, "g"
	req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: r.id}}
	r.owned, r.joined = assignment{}, false
	resp := r.c.Leave(context.Background(), req)
	if resp.ErrorCode != int16(protocol.None) {
		return protocol.Code(resp.ErrorCode)
	}
	return protocol.Code(resp.Members[0].ErrorCode)
}

// mixed is a group of both kinds.
type mixed struct {
	riders  []*rider
	beaters []*beater
}

// alone fails if a partition is owned twice; it returns how many are owned.
func (m *mixed) alone(t testing.TB) int {
	t.Helper()
	owner, n := make(map[string]string), 0
	own := func(who string, a assignment) {
		for topic, parts := range a {
			for _, p := range parts {
				k := fmt.Sprintf("%s-%d", nameOf(topic), p)
				if o, ok := owner[k]; ok {
					t.Fatalf("%s and %s both own %s", o, who, k)
				}
				owner[k] = who
				n++
			}
		}
	}
	for i, r := range m.riders {
		own(fmt.Sprint("rider ", i, " ", r.id), r.owned)
	}
	for _, b := range m.beaters {
		own(b.id, b.owned)
	}
	return n
}

// settle lets all of them go on for a while, in virtual time.
func (m *mixed) settle(t testing.TB, rounds int) int {
	t.Helper()
	n := 0
	for range rounds {
		time.Sleep(time.Second)
		for _, r := range m.riders {
			r.step()
			m.alone(t)
		}
		for _, b := range m.beaters {
			b.beat()
			m.alone(t)
		}
		n = m.alone(t)
	}
	return n
}

func (m *mixed) move(c *Coordinator) {
	for _, r := range m.riders {
		r.c = c
	}
	for _, b := range m.beaters {
		b.c = c
	}
}

func migrationStory(t *testing.T, policy string, f func(t *testing.T, c *Coordinator, takeOver func() *Coordinator)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		cfg := Config{Topics: newShelf(map[string]int32{"t": 12}), Settings: set{Consumer: ConsumerSettings{MigrationPolicy: policy}}}
		current := p.takeOver(t, cfg)
		f(t, current, func() *Coordinator {
			next := p.takeOver(t, cfg)
			current.Close()
			current = next
			return next
		})
		current.Close()
		time.Sleep(time.Minute) // whoever waits is answered
	})
}

func kindOf(c *Coordinator) string {
	for _, g := range c.List(context.Background(), kmsg.NewPtrListGroupsRequest()).Groups {
		if g.Group == "g" {
			return g.GroupType
		}
	}
	return ""
}

// A group rolls from the classic protocol to the consumer protocol and back, one
// member at a time. Nobody is refused, no partition is owned twice, and after each
// member all are owned.
func TestAGroupRollsBothWays(t *testing.T) {
	for _, cooperative := range []bool{false, true} {
		for _, failover := range []bool{false, true} {
			migrationStory(t, "bidirectional", func(t *testing.T, c *Coordinator, takeOver func() *Coordinator) {
				var m mixed
				full := func(when string) {
					t.Helper()
					if failover {
						c = takeOver()
						m.move(c)
					}
					if n := m.settle(t, 60); n != 12 {
						t.Fatalf("cooperative %v, failover %v, %s: %d partitions are owned, want 12; %+v", cooperative, failover, when, n, describe(c))
					}
				}
				for range 3 {
					m.riders = append(m.riders, newRider(c, cooperative, "t"))
				}
				full("three classic members")
				for i := range 3 {
					if i == 0 && kindOf(c) != "classic" {
						t.Fatalf("the group is %q", kindOf(c))
					}
					b := newBeater(c, fmt.Sprint("c", i), "t")
					wantCode(t, "a consumer", b.beat(), protocol.None)
					m.beaters = append(m.beaters, b)
					if kindOf(c) != "consumer" {
						t.Fatalf("the group is %q", kindOf(c))
					}
					full("with another consumer")
					wantCode(t, "a classic member leaves", m.riders[0].leave(), protocol.None)
					m.riders = m.riders[1:]
					full("with a classic member less")
				}
				for i := range 3 {
					m.riders = append(m.riders, newRider(c, cooperative, "t"))
					full("with another classic member")
					wantCode(t, "a consumer leaves", m.beaters[0].leave(), protocol.None)
					m.beaters = m.beaters[1:]
					if want := []string{"consumer", "consumer", "classic"}[i]; kindOf(c) != want {
						t.Fatalf("the group is %q, want %q", kindOf(c), want)
					}
					full("with a consumer less")
				}
				for _, r := range m.riders {
					if r.last != protocol.None && !failover {
						t.Errorf("a classic member got code %d", r.last)
					}
				}
			})
		}
	}
}

func TestThePolicyDecidesWhichGroupsMigrate(t *testing.T) {
	for policy, can := range map[string][2]bool{
		"disabled": {}, "upgrade": {true, false}, "downgrade": {false, true}, "BiDirectional": {true, true},
	} {
		migrationStory(t, policy, func(t *testing.T, c *Coordinator, _ func() *Coordinator) {
			m := mixed{riders: []*rider{newRider(c, true, "t")}}
			m.settle(t, 20)
			b := newBeater(c, "b", "t")
			if code := b.beat(); (code == protocol.None) != can[0] || code != protocol.None && code != protocol.GroupIDNotFound {
				t.Errorf("%s: a consumer into a classic group: code %d", policy, code)
			}
		})
		migrationStory(t, policy, func(t *testing.T, c *Coordinator, _ func() *Coordinator) {
			m := mixed{beaters: []*beater{newBeater(c, "b", "t")}}
			m.settle(t, 2)
			m.riders = []*rider{newRider(c, true, "t")}
			if n := m.settle(t, 40); n != 12 || m.riders[0].owned.count() != 6 {
				t.Fatalf("%s: %d partitions are owned, %d by the classic member", policy, n, m.riders[0].owned.count())
			}
			wantCode(t, "leave", m.beaters[0].leave(), protocol.None)
			m.beaters = nil
			if want := map[bool]string{true: "classic", false: "consumer"}[can[1]]; kindOf(c) != want {
				t.Errorf("%s: without its consumer the group is %q, want %q", policy, kindOf(c), want)
			}
			if n := m.settle(t, 40); n != 12 {
				t.Errorf("%s: %d partitions are owned by who is left", policy, n)
			}
		})
	}
}

// A static member changes its protocol and keeps its place, both ways; the last
// consumer that does so makes the group classic.
func TestAStaticMemberChangesItsProtocol(t *testing.T) {
	migrationStory(t, "bidirectional", func(t *testing.T, c *Coordinator, _ func() *Coordinator) {
		i := "i"
		m := mixed{riders: []*rider{newRider(c, true, "t"), newRider(c, true, "t")}}
		m.riders[0].instance = &i
		if n := m.settle(t, 60); n != 12 {
			t.Fatalf("%d partitions", n)
		}
		b := newBeater(c, "b", "t")
		b.instance = &i
		m.riders = m.riders[1:]
		wantCode(t, "the static member as a consumer", b.beat(), protocol.None)
		m.beaters = []*beater{b}
		if n := m.settle(t, 60); n != 12 || kindOf(c) != "consumer" {
			t.Fatalf("%d partitions, the group is %q", n, kindOf(c))
		}
		m.beaters = nil
		back := newRider(c, true, "t")
		back.instance = &i
		m.riders = append(m.riders, back)
		if n := m.settle(t, 60); n != 12 || kindOf(c) != "classic" {
			t.Fatalf("%d partitions, the group is %q", n, kindOf(c))
		}
	})
}

// What a classic member may do in a consumer group, and what it is told.
func TestClassicMembersInAConsumerGroup(t *testing.T) {
	migrationStory(t, "bidirectional", func(t *testing.T, c *Coordinator, _ func() *Coordinator) {
		m := mixed{beaters: []*beater{newBeater(c, "b", "t")}}
		m.settle(t, 2)
		r := newRider(c, true, "t")
		m.riders = []*rider{r}
		if n := m.settle(t, 40); n != 12 {
			t.Fatalf("%d partitions", n)
		}
		wantCode(t, "commit", commit(c, "g", r.id, nil, r.generation, "t", 0, 7), protocol.None)
		wantCode(t, "commit of another generation", commit(c, "g", r.id, nil, r.generation-1, "t", 0, 7), protocol.IllegalGeneration)
		wantCode(t, "commit of nobody", commit(c, "g", "nobody", nil, r.generation, "t", 0, 7), protocol.UnknownMemberID)
		join := func(protocolType, name string, metadata []byte) protocol.Code {
			req := kmsg.NewPtrJoinGroupRequest()
			req.Version, req.Group, req.MemberID, req.ProtocolType = 9, "g", "x", protocolType
			req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 30_000, 60_000
			req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: name, Metadata: metadata}}
			return protocol.Code(c.Join(t.Context(), Client{"x", "/"}, req).ErrorCode)
		}
		wantCode(t, "another type", join("connect", "cooperative-sticky", r.metadata()), protocol.InconsistentGroupProtocol)
		wantCode(t, "a protocol the others do not speak", join("consumer", "range", r.metadata()), protocol.InconsistentGroupProtocol)
		wantCode(t, "metadata that cannot be read", join("consumer", "cooperative-sticky", []byte{0, 1, 0, 0}), protocol.InconsistentGroupProtocol)
		sync := kmsg.NewPtrSyncGroupRequest()
		sync.Version, sync.Group, sync.MemberID, sync.Generation = 5, "g", r.id, r.generation+1
		wantCode(t, "sync of another generation", c.Sync(t.Context(), sync).ErrorCode, protocol.IllegalGeneration)
		sync.Generation, sync.Protocol = r.generation, &sync.Group
		wantCode(t, "sync of another protocol", c.Sync(t.Context(), sync).ErrorCode, protocol.InconsistentGroupProtocol)
		sync.MemberID = "b"
		wantCode(t, "sync of a consumer", c.Sync(t.Context(), sync).ErrorCode, protocol.UnknownMemberID)
		if d := describe(c); len(d.Members) != 2 || d.Members[0].MemberType != 1 || d.Members[1].MemberType != 0 {
			t.Errorf("described as %+v", d)
		}
		// One that falls silent, by its own session of 30 s.
		m.riders = nil
		if n := m.settle(t, 29); n != 6 {
			t.Errorf("within its session: %d partitions are the other's", n)
		}
		if n := m.settle(t, 20); n != 12 {
			t.Errorf("after its session: %d partitions are the other's", n)
		}
		// One that is told to join again and only beats, by its rebalance timeout.
		r = newRider(c, true, "t")
		m.riders = []*rider{r}
		m.settle(t, 40)
		m.beaters = append(m.beaters, newBeater(c, "b2", "t"))
		m.riders = nil
		for range 70 {
			m.settle(t, 1)
			req := kmsg.NewPtrHeartbeatRequest()
			req.Version, req.Group, req.MemberID, req.Generation = 4, "g", r.id, r.generation
			if code := c.Heartbeat(t.Context(), req).ErrorCode; code == int16(protocol.UnknownMemberID) {
				break
			}
		}
		if n := m.settle(t, 10); n != 12 {
			t.Errorf("after its rebalance timeout: %d partitions are the others'", n)
		}
	})
}

// TestMixedGroupsShareNothingWhateverHappens: members of both protocols come, go,
// fall silent, change what they read, while the coordinator moves and the journal
// refuses; no partition is owned twice, and in the end all are.
func TestMixedGroupsShareNothingWhateverHappens(t *testing.T) {
	classic, consumer, both := 0, 0, 0
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 9))
		synctest.Test(t, func(t *testing.T) {
			p := &journal{tune: func(c *Coordinator) { c.planAtOnce = []int{planAtOnce, 0}[seed%2] }}
			cfg := Config{Topics: newShelf(map[string]int32{"a": 5, "b": 3}), Settings: set{Consumer: ConsumerSettings{MigrationPolicy: "bidirectional"}}}
			c := p.takeOver(t, cfg)
			failing := rand.New(rand.NewPCG(seed, 10)) // under the journal's lock
			p.FailBy(fates(func() error {
				switch failing.IntN(80) {
				case 0, 1, 2:
					return fmt.Errorf("refused")
				case 3:
					return coordinator.ErrUnknownOutcome
				}
				return nil
			}))
			var m mixed
			next := 0
			topics := func() []string { return [][]string{{"a"}, {"b"}, {"a", "b"}}[random.IntN(3)] }
			for range 400 {
				time.Sleep(time.Duration(random.IntN(1500)) * time.Millisecond)
				s, code := c.shardOf("g")
				if code != protocol.None { // an append of unknown outcome
					c.Close()
					c = p.takeOver(t, cfg)
					m.move(c)
				} else {
					s.Unlock()
				}
				switch k := random.IntN(40); {
				case k == 0 && len(m.riders) < 3:
					m.riders = append(m.riders, newRider(c, random.IntN(3) > 0, topics()...))
				case k == 1 && len(m.beaters) < 3:
					next++
					m.beaters = append(m.beaters, newBeater(c, fmt.Sprint("c", next), topics()...))
				case k == 2 && len(m.riders) > 0:
					i := random.IntN(len(m.riders))
					if m.riders[i].id != "" && m.riders[i].call == nil && m.riders[i].sync == nil {
						m.riders[i].leave()
						m.riders = slices.Delete(m.riders, i, i+1)
					}
				case k == 3 && len(m.beaters) > 0:
					i := random.IntN(len(m.beaters))
					m.beaters[i].leave()
					m.beaters = slices.Delete(m.beaters, i, i+1)
				case k == 4:
					c.Close()
					c = p.takeOver(t, cfg)
					m.move(c)
				case k == 5 && len(m.riders) > 0:
					m.riders = m.riders[1:] // silent for ever
				case k == 6 && len(m.beaters) > 0:
					m.beaters = m.beaters[1:]
				case k == 7 && len(m.beaters) > 0:
					m.beaters[random.IntN(len(m.beaters))].topics = topics()
				default:
					for _, r := range m.riders {
						r.step()
					}
					for _, b := range m.beaters {
						b.beat()
					}
				}
				if len(m.riders) > 0 && len(m.beaters) > 0 {
					both++
				}
				if kindOf(c) == "classic" {
					classic++
				} else {
					consumer++
				}
				m.alone(t)
			}
			p.Fail(nil)
			if _, code := c.shardOf("g"); code != protocol.None {
				c.Close()
				c = p.takeOver(t, cfg)
				m.move(c)
			} else {
				s, _ := c.shards.Loaded()
				s[0].Unlock()
			}
			next++
			m.beaters = append(m.beaters, newBeater(c, fmt.Sprint("c", next), "a", "b"))
			if n := m.settle(t, 200); n != 8 {
				t.Fatalf("seed %d: %d partitions are owned, want 8; %+v", seed, n, describe(c))
			}
			c.Close()
			time.Sleep(10 * time.Minute)
		})
	}
	if classic < 500 || consumer < 500 || both < 500 {
		t.Errorf("classic %d times, consumer %d, both kinds of members %d: the test does not test", classic, consumer, both)
	}
}

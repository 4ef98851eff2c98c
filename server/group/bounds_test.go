package group

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// What has no room in the journal's keys is refused where it comes in, by each
// request that would write it; nothing is acknowledged that cannot be read back.
func TestWhatCannotBeReadBackIsRefused(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		long, fits := strings.Repeat("x", 1<<15), strings.Repeat("y", 1<<15-1)
		wantCode(t, "commit", simpleCommit(c, long, 5), protocol.InvalidGroupID)
		wantCode(t, "commit", simpleCommit(c, fits, 5), protocol.None)
		join := func(change func(*kmsg.JoinGroupRequest)) protocol.Code {
			req := newReader(c, "g").joinRequest()
			change(req)
			return protocol.Code(c.Join(t.Context(), Client{"app", "/"}, req).ErrorCode)
		}
		wantCode(t, "join", join(func(r *kmsg.JoinGroupRequest) { r.Group = long }), protocol.InvalidGroupID)
		wantCode(t, "join", join(func(r *kmsg.JoinGroupRequest) { r.MemberID = long }), protocol.UnknownMemberID)
		wantCode(t, "join", join(func(r *kmsg.JoinGroupRequest) { r.InstanceID = &long }), protocol.InvalidRequest)
		wantCode(t, "join", join(func(r *kmsg.JoinGroupRequest) { r.ProtocolType = long }), protocol.InconsistentGroupProtocol)
		wantCode(t, "join", join(func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Name = long }), protocol.InconsistentGroupProtocol)
		wantCode(t, "sync", c.Sync(t.Context(), &kmsg.SyncGroupRequest{Group: long}).ErrorCode, protocol.InvalidGroupID)
		wantCode(t, "leave", c.Leave(t.Context(), &kmsg.LeaveGroupRequest{Group: long}).ErrorCode, protocol.InvalidGroupID)
		wantCode(t, "offset delete", c.OffsetDelete(t.Context(), &kmsg.OffsetDeleteRequest{Group: long}).ErrorCode, protocol.InvalidGroupID)
		b := newBeater(c, long, "t")
		wantCode(t, "member id", b.beat(), protocol.InvalidRequest)
		b = newBeater(c, "b", "t")
		b.instance = &long
		wantCode(t, "instance id", b.beat(), protocol.InvalidRequest)
		b.instance, b.regex = nil, &long
		wantCode(t, "expression", b.beat(), protocol.InvalidRegularExpression)
		b.regex, b.group = nil, long
		wantCode(t, "group", b.beat(), protocol.InvalidGroupID)

		// As long as can be, client ids included, and read back by the next coordinator.
		static := newReader(c, "classic")
		static.instance = &fits
		together(t, static)
		r := newReader(c, "named")
		for i := 0; ; i++ {
			resp := c.Join(t.Context(), Client{fits, "/"}, r.joinRequest())
			if r.id, r.generation = resp.MemberID, resp.Generation; resp.ErrorCode != int16(protocol.MemberIDRequired) || i > 1 {
				wantCode(t, "join", resp.ErrorCode, protocol.None)
				break
			}
		}
		wantCode(t, "sync", r.sync(map[string][]byte{r.id: []byte("a")}).ErrorCode, protocol.None)
		b = newBeater(c, fits, "t")
		b.instance = &fits
		wantCode(t, "beat", b.beat(), protocol.None)
		next := p.takeOver(t, Config{Topics: s})
		defer next.Close()
		if got := fetched(t, next, fits, "t"); got != 5 {
			t.Errorf("offset %d, want 5", got)
		}
		static.c, r.c, b.c = next, next, next
		wantCode(t, "heartbeat", static.heartbeat(), protocol.None)
		wantCode(t, "heartbeat", r.heartbeat(), protocol.None)
		wantCode(t, "heartbeat", b.beat(), protocol.None)
		if b.owned.count() != 1 {
			t.Errorf("b owns %v", b.owned)
		}
	})
}

// A group is answered once, however often it is named, and an answer about many
// groups' offsets ends where it becomes too large; clients ask for the rest again.
func TestAnswersAreBounded(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		long := strings.Repeat("m", 4000)
		many := kmsg.NewPtrOffsetFetchRequest()
		many.Version = 8
		for i := range 6 {
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Version, req.Group, req.Generation = 9, fmt.Sprint("g", i), -1
			var parts []kmsg.OffsetCommitRequestTopicPartition
			for k := range int32(1800) {
				parts = append(parts, kmsg.OffsetCommitRequestTopicPartition{Partition: k, LeaderEpoch: -1, Metadata: &long})
			}
			req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: parts}}
			wantCode(t, "commit", c.OffsetCommit(t.Context(), req).Topics[0].Partitions[0].ErrorCode, protocol.None)
			many.Groups = append(many.Groups, kmsg.OffsetFetchRequestGroup{Group: req.Group, MemberEpoch: -1})
		}
		bytes, later := 0, 0
		for _, g := range c.OffsetFetch(t.Context(), many).Groups {
			if g.ErrorCode == int16(protocol.CoordinatorLoadInProgress) {
				later++
			}
			for _, rt := range g.Topics {
				for _, rp := range rt.Partitions {
					bytes += len(*rp.Metadata)
				}
			}
		}
		if bytes > maxAnswer+8<<20 || later == 0 || later == 6 {
			t.Errorf("%d bytes, %d groups are to be asked again", bytes, later)
		}
		if n := len(c.Describe(t.Context(), &kmsg.DescribeGroupsRequest{Groups: []string{"x", "g0", "x", "g0"}}).Groups); n != 2 {
			t.Errorf("%d descriptions, want 2", n)
		}

		wantCode(t, "commit", simpleCommit(c, "o", 1), protocol.None)
		fetch := kmsg.NewPtrOffsetFetchRequest()
		fetch.Version = 8
		for range 100 {
			fetch.Groups = append(fetch.Groups, kmsg.OffsetFetchRequestGroup{Group: "o", Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "t", Partitions: []int32{0, 0, 0}}}})
		}
		offsets := c.OffsetFetch(t.Context(), fetch).Groups
		if len(offsets) != 1 || len(offsets[0].Topics[0].Partitions) != 1 {
			t.Errorf("%d answers", len(offsets))
		}
		if n := len(c.Delete(t.Context(), &kmsg.DeleteGroupsRequest{Groups: []string{"x", "x", "o", "o"}}).Groups); n != 2 {
			t.Errorf("%d deletions are answered, want 2", n)
		}
		if n := len(c.ConsumerDescribe(t.Context(), &kmsg.ConsumerGroupDescribeRequest{Groups: []string{"x", "x"}}).Groups); n != 1 {
			t.Errorf("%d descriptions, want 1", n)
		}
	})
}

func TestWhatIsNotThereIsSaidAsKafkaSaysIt(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 1}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		if d := stateOf(c, ""); d.ErrorCode != int16(protocol.None) || d.State != "Dead" {
			t.Errorf("the group without a name: %+v", d)
		}
		if d := describe(c); d.ErrorCode != int16(protocol.GroupIDNotFound) || *d.ErrorMessage != "Group g not found." {
			t.Errorf("a group that is not there: %d %q", d.ErrorCode, *d.ErrorMessage)
		}
		wantCode(t, "commit", simpleCommit(c, "g", 1), protocol.None)
		if d := describe(c); d.ErrorCode != int16(protocol.GroupIDNotFound) || *d.ErrorMessage != "Group g is not a consumer group." {
			t.Errorf("a classic group: %d %q", d.ErrorCode, *d.ErrorMessage)
		}
		req := kmsg.NewPtrOffsetDeleteRequest()
		req.Group = "g"
		for _, topic := range []string{"t", "nowhere"} {
			req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}})
		}
		got := c.OffsetDelete(t.Context(), req).Topics
		wantCode(t, "an offset", got[0].Partitions[0].ErrorCode, protocol.None)
		wantCode(t, "a topic that is not there", got[1].Partitions[0].ErrorCode, protocol.UnknownTopicOrPartition)
	})
}

// A member whose client hangs up while it waits in JoinGroup has not joined: the
// next generation is without it, half its session later.
func TestWhoHangsUpWhileJoiningIsNotInTheGeneration(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a, b := newReader(c, "g"), newReader(c, "g")
		together(t, a, b)
		third := newReader(c, "g")
		third.id = c.Join(t.Context(), Client{"c", "/"}, third.joinRequest()).MemberID
		began := time.Now()
		for _, r := range []*reader{third, b} {
			ctx, hangUp := context.WithCancel(t.Context())
			gone := make(chan bool)
			go func() { c.Join(ctx, Client{"c", "/"}, r.joinRequest()); gone <- true }()
			synctest.Wait()
			hangUp()
			<-gone
		}
		j := a.join()
		if took := time.Since(began); took > 6*time.Second {
			t.Errorf("the rebalance took %v, want half a session of 10 s", took)
		}
		if len(j.Members) != 1 || j.Members[0].MemberID != a.id {
			t.Errorf("in the generation are %+v", j.Members)
		}
	})
}

// A panic under a shard's lock costs the shard what it knows in memory, and neither
// the lock nor the process: whoever waits is answered, and after the next load all
// is as the journal says.
func TestAPanicDropsTheShardAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		cfg := Config{}
		for _, how := range []string{"request", "alarm", "outcome"} {
			c := p.takeOver(t, cfg)
			wantCode(t, "commit", simpleCommit(c, "g", 7), protocol.None)
			waiting := make(chan protocol.Code)
			go func() { waiting <- protocol.Code(newReader(c, "waits").join().ErrorCode) }()
			synctest.Wait()
			s, code := c.shardOf("g")
			wantCode(t, "shard", code, protocol.None)
			switch how {
			case "request":
				s.groups["bad"] = &group{id: "bad", shard: s} // with no membership at all
				s.Unlock()
				wantCode(t, "join", c.Join(t.Context(), Client{}, newReader(c, "bad").joinRequest()).ErrorCode, protocol.NotCoordinator)
			case "alarm":
				s.SetLocked(&coordinator.Alarm{Ringer: bell(func(time.Time) { panic("alarm") })}, time.Now().Add(time.Second))
				s.Unlock()
				time.Sleep(2 * time.Second)
			case "outcome":
				answered := false
				s.AppendLocked(nil, outcome(func(error) { panic("outcome") }))
				s.AppendLocked(nil, outcome(func(err error) { answered = err != nil }))
				s.Unlock()
				synctest.Wait()
				if !answered {
					t.Error("an append behind the panic has no outcome")
				}
			}
			if code := <-waiting; code != protocol.NotCoordinator {
				t.Errorf("%s: who waits gets code %d", how, code)
			}
			wantCode(t, how, simpleCommit(c, "g", 8), protocol.NotCoordinator)
			if n := c.memory.held() + c.pending.Load(); n != 0 {
				t.Errorf("%s: %d bytes are still charged", how, n)
			}
			next := p.takeOver(t, cfg)
			if got := fetched(t, next, "g", "t"); got != 7 {
				t.Errorf("%s: after the next load the offset is %d, want 7", how, got)
			}
			next.Close()
			c.Close()
		}
		if lost := p.LostEpochs(); len(lost) != 3 {
			t.Errorf("told of lost shards: %v", lost)
		}
	})
}

// A panic of an assignor, in the planner's own goroutine, is no worse than one under
// the lock: who waits for the plan is answered, and the next load goes on.
func TestAPanicOfThePlannerDropsTheShardAndNothingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{tune: func(c *Coordinator) { c.planAtOnce = 0 }}
		cfg := Config{Topics: newShelf(map[string]int32{"t": 4})}
		c := p.takeOver(t, cfg)
		c.assignors["uniform"] = plans(func([]reading, map[uuid]int32) map[string]assignment { panic("assignor") })
		wantCode(t, "join", newBeater(c, "b", "t").beat(), protocol.NotCoordinator)
		synctest.Wait()
		if n := c.memory.held(); n != 0 || len(p.LostEpochs()) != 1 {
			t.Errorf("%d bytes are still charged, %d shards were lost, want 1", n, len(p.LostEpochs()))
		}
		next := p.takeOver(t, cfg)
		b := newBeater(next, "b", "t")
		settle(t, b)
		if b.owned.count() != 4 {
			t.Errorf("after the next load %v is owned", b.owned)
		}
		c.Close()
		next.Close()
	})
}

// A member that is in may not grow beyond what it might have joined with; it stays,
// as it was, and what costs nothing more is always taken.
func TestAMemberDoesNotGrowBeyondTheBounds(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 4}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		b := newBeater(c, "b", "t")
		settle(t, b)
		held := c.memory.held()
		b.topics = []string{"t"}
		for i := range 300 {
			b.topics = append(b.topics, fmt.Sprint(strings.Repeat("x", 32<<10), i)) // 9 MiB
		}
		wantCode(t, "grow", b.beat(), protocol.GroupMaxSizeReached)
		if n := c.memory.held(); n != held {
			t.Errorf("%d bytes are charged, want %d", n, held)
		}
		b.topics = []string{"t"}
		wantCode(t, "go on", b.beat(), protocol.None)
		b.topics = []string{"t", "u"}
		wantCode(t, "grow a little", b.beat(), protocol.None)
		if b.owned.count() != 4 {
			t.Errorf("%v is owned", b.owned)
		}
	})
}

// A group becomes a consumer group after all have joined again, with what they own,
// and before anybody has synced: what they own is theirs until they give it back.
func TestUpgradeWhileAGenerationIsMade(t *testing.T) {
	migrationStory(t, "upgrade", func(t *testing.T, c *Coordinator, _ func() *Coordinator) {
		m := mixed{riders: []*rider{newRider(c, true, "t"), newRider(c, true, "t")}}
		if n := m.settle(t, 60); n != 12 {
			t.Fatalf("%d partitions", n)
		}
		for _, r := range m.riders {
			r.topics = []string{"t", "u"}
			r.join()
			synctest.Wait()
		}
		if s := stateOf(c, "g").State; s != "CompletingRebalance" {
			t.Fatalf("the group is %s", s)
		}
		b := newBeater(c, "b", "t")
		m.beaters = []*beater{b}
		for range 10 {
			wantCode(t, "a consumer", b.beat(), protocol.None)
			m.alone(t)
		}
		if n := m.settle(t, 60); n != 12 || b.owned.count() != 4 {
			t.Errorf("%d partitions are owned, %d by the consumer", n, b.owned.count())
		}
	})
}

// A static member is replaced while a plan is made that knows only the former one:
// no partition stays in two targets.
func TestAStaticMemberIsReplacedWhileAPlanIsMade(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 4}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		c.planAtOnce = 0
		i := "i"
		// x is to give one up for z: of those that have two, the first keeps them.
		x, y := newBeater(c, "x", "t"), newBeater(c, "a", "t")
		x.instance = &i
		settle(t, x, y)
		working, goOn := make(chan struct{}), make(chan struct{})
		held := false
		c.assignors["uniform"] = plans(func(members []reading, parts map[uuid]int32) map[string]assignment {
			plan := uniformAssignor{}.assign(members, parts)
			if len(members) == 3 && !held {
				held = true
				close(working)
				<-goOn
			}
			return plan
		})
		z := newBeater(c, "z", "t")
		joined := make(chan protocol.Code)
		go func() { joined <- z.beat() }()
		<-working
		x.epoch, x.owned = -2, assignment{}
		wantCode(t, "leave for a while", x.beat(), protocol.None)
		back := newBeater(c, "back", "t")
		back.instance = &i
		returned := make(chan protocol.Code)
		go func() { returned <- back.beat() }()
		synctest.Wait()
		close(goOn)
		wantCode(t, "z", <-joined, protocol.None)
		wantCode(t, "back", <-returned, protocol.None)
		settle(t, y, z, back)
		if total(y, z, back) != 4 {
			t.Errorf("%v %v %v", y.owned, z.owned, back.owned)
		}
		taken := make(map[string]bool)
		for _, m := range describe(c).Members {
			for _, tp := range m.TargetAssignment.TopicPartitions {
				for _, part := range tp.Partitions {
					if k := fmt.Sprint(tp.Topic, part); taken[k] {
						t.Errorf("%s is in two targets", k)
					} else {
						taken[k] = true
					}
				}
			}
		}
	})
}

// An append of unknown outcome unloads the shard; what stands behind it changes
// nothing any more, and nothing stays charged.
func TestNothingIsChargedAfterAnUnload(t *testing.T) {
	consumerStory(t, map[string]int32{"t": 4}, func(t *testing.T, c *Coordinator, p *journal, s *shelf) {
		p.Hold()
		appends := 0
		p.FailBy(fates(func() error {
			if appends++; appends == 1 {
				return coordinator.ErrUnknownOutcome
			}
			return nil
		}))
		codes := make(chan protocol.Code, 2)
		for _, group := range []string{"g", "h"} {
			b := newBeater(c, "b", "t")
			b.group = group
			go func() { codes <- b.beat() }()
			synctest.Wait()
		}
		p.Release()
		wantCode(t, "one", <-codes, protocol.NotCoordinator)
		wantCode(t, "the other", <-codes, protocol.NotCoordinator)
		if n := c.memory.held(); n != 0 {
			t.Errorf("%d bytes are charged", n)
		}
	})
}

// What a list of topics costs grows as the list does, wherever it comes from: most are
// read under the shard's lock, and clients may make them as long as they like.
func TestAssignmentsAreReadInOnePass(t *testing.T) {
	const topics = 4000
	parts := make(map[string]int32)
	beat := &beat{req: kmsg.NewPtrConsumerGroupHeartbeatRequest()}
	said := kmsg.NewConsumerMemberMetadata()
	said.Version = 1
	given := kmsg.NewConsumerMemberAssignment()
	want := make(assignment)
	for i := range topics {
		name := fmt.Sprintf("%08d", i)
		parts[name] = 3
		want[idOf(name)] = []int32{0, 1, 2}
		for _, list := range [][]int32{{2, 0}, {1, 2}, {}} { // one topic may come several times
			beat.req.Topics = append(beat.req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: idOf(name), Partitions: list})
			said.OwnedPartitions = append(said.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: name, Partitions: list})
			given.Topics = append(given.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: name, Partitions: list})
		}
	}
	beat.req.Topics = append(beat.req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: idOf("none of it")})
	s := shards{New(Config{})}.New(nil)
	s.c.cfg.Topics = newShelf(parts)
	read, ok := readSubscription(said.AppendTo(nil))
	if !ok {
		t.Fatal("the subscription cannot be read")
	}
	sent, record := given.AppendTo(nil), appendAssignment(nil, want)
	for what, f := range map[string]func() assignment{
		"a heartbeat's":    beat.holds,
		"a subscription's": func() assignment { return s.owns(read) },
		"a leader's":       func() assignment { a, _ := s.decodeAssignment(sent); return a },
		"the journal's":    func() assignment { return readAssignment(&kbin.Reader{Src: record}) },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		got := f()
		runtime.ReadMemStats(&after)
		if !got.equal(want) {
			t.Errorf("%s: not what was written", what)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > topics*2<<10 {
			t.Errorf("%s: it took %d bytes for each topic", what, n/topics)
		}
	}
}

// What looks at all groups of a shard does so in pieces, and lets others have the lock
// between two.
func TestAllGroupsAreLookedAtInPieces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &journal{tune: func(c *Coordinator) { c.sweepAtOnce = 4 }} // two groups, with one offset each
		c := p.takeOver(t, Config{Settings: set{OffsetRetention: time.Hour}})
		for i := range 10 {
			wantCode(t, "commit", simpleCommit(c, fmt.Sprint("g", i), 1), protocol.None)
		}
		s, code := c.shardOf("g0")
		wantCode(t, "shard", code, protocol.None)
		s.sweep.RingLocked(time.Now())
		if n := len(s.sweep.left); n != 8 || s.sweep.alarm.At().After(time.Now()) {
			t.Errorf("%d groups are left after the first piece of a sweep, want 8, and the next at %v", n, s.sweep.alarm.At())
		}
		s.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		s.Lock()
		if len(s.sweep.left) != 0 || !s.sweep.alarm.At().After(time.Now()) || len(s.groups) != 10 {
			t.Errorf("%d groups are left of 10, %d to sweep, the next at %v", len(s.groups), len(s.sweep.left), s.sweep.alarm.At())
		}
		s.Unlock()

		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if groups := c.List(t.Context(), kmsg.NewPtrListGroupsRequest()).Groups; len(groups) != 0 {
			t.Errorf("%d groups are left after the retention", len(groups))
		}
	})
}

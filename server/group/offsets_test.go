package group

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator"
	"millrace/server/protocol"
)

func TestAnOffsetIsSeenOnlyWhenTheJournalHasIt(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		wantCode(t, "commit", simpleCommit(c, "s", 1), protocol.None)
		p.Hold()
		codes := make(chan protocol.Code, 2)
		go func() { codes <- simpleCommit(c, "s", 2) }()
		synctest.Wait()
		if got := fetched(t, c, "s", "t"); got != 1 || len(codes) != 0 {
			t.Errorf("offset %d is seen, %d answers", got, len(codes))
		}
		p.Release()
		wantCode(t, "commit", <-codes, protocol.None)
		if got := fetched(t, c, "s", "t"); got != 2 {
			t.Errorf("offset %d, want 2", got)
		}
		p.Fail(errors.New("disk full"))
		wantCode(t, "refused commit", simpleCommit(c, "s", 3), protocol.CoordinatorNotAvailable)
		wantCode(t, "refused commit of a new group", simpleCommit(c, "new", 3), protocol.CoordinatorNotAvailable)
		p.Fail(fmt.Errorf("%w: 9 MB", coordinator.ErrTooLarge))
		wantCode(t, "too large a commit", simpleCommit(c, "s", 3), protocol.InvalidCommitOffsetSize)
		if got := fetched(t, c, "s", "t"); got != 2 {
			t.Errorf("offset %d after refusals, want 2", got)
		}
		if stateOf(c, "new").State != "Dead" {
			t.Error("a refused commit left a group behind")
		}
	})
}

func TestWhatWasCommittedComesBackAsItWas(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		req := kmsg.NewPtrOffsetCommitRequest()
		req.Version, req.Group, req.Generation = 9, "s", -1
		long, odd := strings.Repeat("x", 4097), "zażółć \x00"
		req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{
			{Partition: 0, Offset: math.MaxInt64, LeaderEpoch: math.MaxInt32, Metadata: &odd},
			{Partition: 1, Offset: 0, LeaderEpoch: -1},
			{Partition: 2, Offset: -1, LeaderEpoch: -5},
			{Partition: 3, Offset: 1, Metadata: &long},
			{Partition: -1, Offset: 1},
		}}}
		var codes []protocol.Code
		for _, rp := range c.OffsetCommit(t.Context(), req).Topics[0].Partitions {
			codes = append(codes, protocol.Code(rp.ErrorCode))
		}
		if fmt.Sprint(codes) != "[0 0 0 12 3]" {
			t.Errorf("codes %v", codes)
		}
		for range 2 {
			fetch := kmsg.NewPtrOffsetFetchRequest()
			fetch.Version, fetch.Group = 7, "s"
			resp := c.OffsetFetch(t.Context(), fetch) // all topics
			if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 3 {
				t.Fatalf("fetched %+v", resp)
			}
			for _, got := range resp.Topics[0].Partitions {
				want := []string{
					fmt.Sprint(int64(math.MaxInt64), int32(math.MaxInt32), odd), fmt.Sprint(0, -1, ""), fmt.Sprint(-1, -1, ""),
				}[got.Partition]
				if fmt.Sprint(got.Offset, got.LeaderEpoch, *got.Metadata) != want {
					t.Errorf("partition %d: %d, %d, %q; want %s", got.Partition, got.Offset, got.LeaderEpoch, *got.Metadata, want)
				}
			}
			c = p.takeOver(t, Config{})
		}
	})
}

func TestFetchingWhatIsNotThereIsNoError(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		wantCode(t, "commit", simpleCommit(c, "s", 1), protocol.None)
		for _, version := range []int16{1, 2, 5, 7} {
			for _, group := range []string{"s", "nobody"} {
				req := kmsg.NewPtrOffsetFetchRequest()
				req.Version, req.Group = version, group
				req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "other", Partitions: []int32{0, -1, math.MaxInt32}}}
				resp := c.OffsetFetch(t.Context(), req)
				for _, got := range resp.Topics[0].Partitions {
					if got.Offset != -1 || got.ErrorCode != int16(protocol.None) || resp.ErrorCode != int16(protocol.None) {
						t.Errorf("v%d of %s: %+v", version, group, got)
					}
				}
				req.Topics = nil
				resp = c.OffsetFetch(t.Context(), req)
				if want := version >= 2 && group == "s"; (len(resp.Topics) == 1) != want {
					t.Errorf("v%d of %s without topics: %+v", version, group, resp.Topics)
				}
			}
		}
		c.Unload(0)
		req := kmsg.NewPtrOffsetFetchRequest()
		req.Version, req.Group = 1, "s"
		req.Topics = []kmsg.OffsetFetchRequestTopic{{Topic: "t", Partitions: []int32{0}}}
		wantCode(t, "v1 elsewhere", c.OffsetFetch(t.Context(), req).Topics[0].Partitions[0].ErrorCode, protocol.NotCoordinator)
		req.Version = 2
		wantCode(t, "v2 elsewhere", c.OffsetFetch(t.Context(), req).ErrorCode, protocol.NotCoordinator)
	})
}

func TestOnlyMembersCommitWhereThereAreMembers(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		wantCode(t, "with a generation, no group", commit(c, "g", "x", nil, 3, "t", 0, 1), protocol.IllegalGeneration)
		wantCode(t, "without", simpleCommit(c, "g", 1), protocol.None)
		a := newReader(c, "g")
		together(t, a)
		wantCode(t, "without, beside members", simpleCommit(c, "g", 2), protocol.UnknownMemberID)
		wantCode(t, "a stranger", commit(c, "g", "x", nil, a.generation, "t", 0, 2), protocol.UnknownMemberID)
		wantCode(t, "a member", a.commit(3), protocol.None)
		wantCode(t, "join", a.join().ErrorCode, protocol.None) // the leader: a new generation
		wantCode(t, "before the sync", a.commit(4), protocol.RebalanceInProgress)
		wantCode(t, "leave", a.leave(), protocol.None)
		wantCode(t, "after all left", simpleCommit(c, "g", 5), protocol.None)
	})
}

func TestOffsetsExpireFromWhenTheGroupBecameEmpty(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		const day = 24 * time.Hour
		a := newReader(c, "g")
		together(t, a)
		wantCode(t, "commit", a.commit(1), protocol.None)
		wantCode(t, "commit of a topic nobody reads", a.commitTo("other", 0, 1), protocol.None)
		wantCode(t, "simple commit", simpleCommit(c, "s", 1), protocol.None)
		for range 8 * 24 * 720 { // eight days of heartbeats, five seconds apart
			time.Sleep(5 * time.Second)
			a.heartbeat()
		}
		if got := fetched(t, c, "g", "t"); got != 1 {
			t.Errorf("the offset of a live group expired: %d", got)
		}
		if got := fetched(t, c, "g", "other"); got != -1 {
			t.Errorf("the offset of a topic nobody reads did not: %d", got)
		}
		if got := fetched(t, c, "s", "t"); got != -1 {
			t.Errorf("the offset of a simple group did not: %d", got)
		}
		wantCode(t, "leave", a.leave(), protocol.None)
		time.Sleep(5 * day)
		c = p.takeOver(t, Config{})
		time.Sleep(day)
		if got := fetched(t, c, "g", "t"); got != 1 {
			t.Errorf("the offset expired early: %d", got)
		}
		time.Sleep(day + time.Hour)
		if got := fetched(t, c, "g", "t"); got != -1 {
			t.Errorf("the offset did not expire: %d", got)
		}
		time.Sleep(time.Hour)
		if stateOf(c, "g").State != "Dead" {
			t.Error("a group without members or offsets is still there")
		}
		c = p.takeOver(t, Config{})
		if n := len(c.List(t.Context(), kmsg.NewPtrListGroupsRequest()).Groups); n != 0 {
			t.Errorf("%d groups come back from the journal", n)
		}
	})
}

func TestAClientsOwnRetentionCounts(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		for group, ms := range map[string]int64{"short": 3600_000, "long": math.MaxInt64, "default": -1} {
			req := kmsg.NewPtrOffsetCommitRequest()
			req.Version, req.Group, req.Generation, req.RetentionTimeMillis = 3, group, -1, ms
			req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 9}}}}
			wantCode(t, group, c.OffsetCommit(t.Context(), req).Topics[0].Partitions[0].ErrorCode, protocol.None)
		}
		c = p.takeOver(t, Config{})
		time.Sleep(2 * time.Hour)
		for group, want := range map[string]int64{"short": -1, "long": 9, "default": 9} {
			if got := fetched(t, c, group, "t"); got != want {
				t.Errorf("%s: offset %d, want %d", group, got, want)
			}
		}
		time.Sleep(8 * 24 * time.Hour)
		if got := fetched(t, c, "long", "t"); got != 9 {
			t.Errorf("long: offset %d, want 9", got)
		}
	})
}

func TestDeletedGroupsAreGoneForGood(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		wantCode(t, "commit", a.commit(1), protocol.None)
		wantCode(t, "delete of a live group", deleteGroup(c, "g"), protocol.NonEmptyGroup)
		wantCode(t, "delete of none", deleteGroup(c, "h"), protocol.GroupIDNotFound)
		wantCode(t, "leave", a.leave(), protocol.None)

		p.Hold()
		codes := make(chan protocol.Code, 2)
		go func() { codes <- simpleCommit(c, "g", 2) }() // stands before the tombstones
		synctest.Wait()
		go func() { codes <- deleteGroup(c, "g") }()
		synctest.Wait()
		wantCode(t, "join of a dying group", newReader(c, "g").join().ErrorCode, protocol.CoordinatorNotAvailable)
		wantCode(t, "commit to a dying group", simpleCommit(c, "g", 3), protocol.CoordinatorNotAvailable)
		p.Release()
		wantCode(t, "commit", <-codes, protocol.None)
		wantCode(t, "delete", <-codes, protocol.None)
		for range 2 {
			if stateOf(c, "g").State != "Dead" {
				t.Error("the group is still there")
			}
			c = p.takeOver(t, Config{})
		}
		if got := fetched(t, c, "g", "t"); got != -1 {
			t.Errorf("offset %d is back", got)
		}
	})
}

func TestARefusedDeletionLeavesTheGroup(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		wantCode(t, "commit", a.commit(1), protocol.None)
		wantCode(t, "leave", a.leave(), protocol.None)
		p.Fail(errors.New("disk full"))
		wantCode(t, "delete", deleteGroup(c, "g"), protocol.CoordinatorNotAvailable)
		p.Fail(nil)
		if got := fetched(t, c, "g", "t"); got != 1 {
			t.Errorf("offset %d, want 1", got)
		}
		together(t, newReader(c, "g"))
	})
}

func TestOffsetsOfSubscribedTopicsAreNotDeleted(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		a := newReader(c, "g")
		together(t, a)
		a.commit(1)
		a.commitTo("other", 0, 2)
		remove := func(topic string) protocol.Code {
			req := kmsg.NewPtrOffsetDeleteRequest()
			req.Group = "g"
			req.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
			resp := c.OffsetDelete(t.Context(), req)
			wantCode(t, "group", resp.ErrorCode, protocol.None)
			return protocol.Code(resp.Topics[0].Partitions[0].ErrorCode)
		}
		wantCode(t, "subscribed", remove("t"), protocol.GroupSubscribedToTopic)
		wantCode(t, "not subscribed", remove("other"), protocol.None)
		wantCode(t, "not there", remove("nothing"), protocol.None)
		if got := fetched(t, c, "g", "other"); got != -1 {
			t.Errorf("offset %d, want none", got)
		}
		wantCode(t, "leave", a.leave(), protocol.None)
		wantCode(t, "after all left", remove("t"), protocol.None)
		if got := fetched(t, p.takeOver(t, Config{}), "g", "t"); got != -1 {
			t.Errorf("offset %d, want none", got)
		}
	})
}

// image is a Topics that a test changes.
type image struct {
	mu      sync.Mutex
	ids     map[string]byte // every topic has four partitions
	changed chan struct{}
}

func (i *image) set(ids map[string]byte) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ids = ids
	if i.changed != nil {
		close(i.changed)
	}
	i.changed = make(chan struct{})
}

func (i *image) Topic(name string) (id [16]byte, partitions int32, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	b, ok := i.ids[name]
	id[0] = b
	return id, 4, ok
}

func (i *image) TopicByID(id [16]byte) (string, int32, bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for name, b := range i.ids {
		if b == id[0] {
			return name, 4, true
		}
	}
	return "", 0, false
}

func (i *image) Names() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var names []string
	for name := range i.ids {
		names = append(names, name)
	}
	return names
}

func (i *image) Changed() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.changed
}

func TestOffsetsGoWithTheirTopicAndNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topics := &image{}
		topics.set(map[string]byte{"t": 1, "u": 2})
		p := &journal{}
		c := p.takeOver(t, Config{Topics: topics})
		for _, topic := range []string{"t", "u"} {
			wantCode(t, topic, commit(c, "g", "", nil, -1, topic, 0, 5), protocol.None)
		}
		wantCode(t, "no such topic", commit(c, "g", "", nil, -1, "v", 0, 5), protocol.UnknownTopicOrPartition)
		wantCode(t, "no such partition", commit(c, "g", "", nil, -1, "t", 4, 5), protocol.UnknownTopicOrPartition)
		c.Close()

		// A node that starts knows no topics yet. That deletes nothing.
		topics.set(nil)
		c = p.takeOver(t, Config{Topics: topics})
		synctest.Wait()
		topics.set(map[string]byte{"t": 1})
		synctest.Wait()
		topics.set(map[string]byte{"t": 1, "u": 2})
		synctest.Wait()
		if t1, u := fetched(t, c, "g", "t"), fetched(t, c, "g", "u"); t1 != 5 || u != 5 {
			t.Errorf("offsets %d and %d, want 5 and 5", t1, u)
		}

		// t is created anew, and someone commits to it at once.
		topics.mu.Lock()
		topics.ids = map[string]byte{"t": 3, "u": 2}
		topics.mu.Unlock()
		wantCode(t, "commit to the new topic", commit(c, "g", "", nil, -1, "t", 1, 7), protocol.None)
		topics.set(map[string]byte{"t": 3, "u": 2})
		synctest.Wait()
		for _, c := range []*Coordinator{c, p.takeOver(t, Config{Topics: topics})} {
			s, code := c.shardOf("g")
			wantCode(t, "shard", code, protocol.None)
			g := s.groupLocked("g")
			_, old := g.visibleLocked(place{"t", 0})
			now, _ := g.visibleLocked(place{"t", 1})
			other, _ := g.visibleLocked(place{"u", 0})
			s.Unlock()
			if old || now.offset != 7 || other.offset != 5 {
				t.Errorf("offset of the deleted topic there: %v; new %d, other %d", old, now.offset, other.offset)
			}
		}
	})
}

func TestListFiltersByStateAndType(t *testing.T) {
	story(t, func(t *testing.T, c *Coordinator, p *journal) {
		together(t, newReader(c, "live"))
		simpleCommit(c, "simple", 1)
		for _, test := range []struct {
			states, types []string
			want          string
		}{
			{nil, nil, "live simple"},
			{[]string{"stable"}, nil, "live"},
			{[]string{"Empty", "Dead"}, []string{"Classic"}, "simple"},
			{nil, []string{"consumer"}, ""},
			{[]string{"nonsense"}, nil, ""},
		} {
			req := kmsg.NewPtrListGroupsRequest()
			req.StatesFilter, req.TypesFilter = test.states, test.types
			var got []string
			for _, g := range c.List(t.Context(), req).Groups {
				got = append(got, g.Group)
			}
			if strings.Join(got, " ") != test.want {
				t.Errorf("%v %v: %v, want %s", test.states, test.types, got, test.want)
			}
		}
	})
}

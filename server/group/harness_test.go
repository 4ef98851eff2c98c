package group

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/coordinator/coordinatortest"
	"millrace/server/protocol"
)

// A journal is one in memory, of one partition, that changes hands. tune, if set, changes
// each coordinator before it is loaded.
type journal struct {
	coordinatortest.Journal
	tune func(*Coordinator)
}

// Functions that stand for what has one method.
type (
	outcome func(error)                                                              // a coordinator.Appender
	bell    func(time.Time)                                                          // a coordinator.Ringer
	fates   func() error                                                             // coordinatortest.Fates
	plans   func(members []reading, partitions map[uuid]int32) map[string]assignment // an assignor
)

func (f outcome) AppendedLocked(err error) { f(err) }
func (f bell) RingLocked(now time.Time)    { f(now) }
func (f fates) Next() error                { return f() }
func (f plans) assign(members []reading, partitions map[uuid]int32) map[string]assignment {
	return f(members, partitions)
}

// A set is what is set for all groups.
type set Settings

func (s set) Settings() Settings         { return Settings(s) }
func (set) OfGroup(string) GroupSettings { return GroupSettings{} }

// takeOver returns a coordinator of the next epoch, loaded with all the journal has.
func (p *journal) takeOver(t testing.TB, cfg Config) *Coordinator {
	t.Helper()
	epoch := p.NewEpoch()
	cfg.Journal = p
	c := New(cfg)
	if p.tune != nil {
		p.tune(c)
	}
	t.Cleanup(c.Close)
	if err := c.Load(0, epoch, p.Records()); err != nil {
		t.Fatal(err)
	}
	return c
}

// story runs f in virtual time with a fresh journal and the coordinator of its first
// epoch.
func story(t *testing.T, f func(t *testing.T, c *Coordinator, p *journal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := &journal{}
		f(t, p.takeOver(t, Config{}), p)
	})
}

// metadataOf is what a consumer says when it joins.
func metadataOf(topics ...string) []byte {
	b := kbin.AppendInt16(nil, 1)
	b = kbin.AppendArrayLen(b, len(topics))
	for _, s := range topics {
		b = kbin.AppendString(b, s)
	}
	return kbin.AppendNullableBytes(b, nil)
}

// A reader is a client of a group as simple as can be: it joins, the leader gives
// each member its own id as an assignment.
type reader struct {
	c          *Coordinator
	group      string
	id         string
	instance   *string
	generation int32
	assignment []byte
	topics     []string
	version    int16
	timeout    time.Duration // of a rebalance
}

func newReader(c *Coordinator, group string) *reader {
	return &reader{c: c, group: group, topics: []string{"t"}, version: 9, timeout: time.Minute}
}

func (r *reader) joinRequest() *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID = r.version, r.group, r.id, r.instance
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, int32(r.timeout.Milliseconds())
	req.ProtocolType = consumerProtocol
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: metadataOf(r.topics...)}}
	return req
}

// join joins, with the round trip for a member id, and waits for the answer.
func (r *reader) join() *kmsg.JoinGroupResponse {
	for {
		resp := r.c.Join(context.Background(), Client{"app", "/127.0.0.1"}, r.joinRequest())
		if resp.ErrorCode == int16(protocol.MemberIDRequired) {
			r.id = resp.MemberID
			continue
		}
		if resp.ErrorCode == int16(protocol.None) {
			r.id, r.generation = resp.MemberID, resp.Generation
		}
		return resp
	}
}

func (r *reader) sync(plan map[string][]byte) *kmsg.SyncGroupResponse {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 5, r.group, r.id, r.instance, r.generation
	for id, a := range plan {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{MemberID: id, MemberAssignment: a})
	}
	resp := r.c.Sync(context.Background(), req)
	if resp.ErrorCode == int16(protocol.None) {
		r.assignment = resp.MemberAssignment
	}
	return resp
}

// enter joins and syncs.
func (r *reader) enter() (joined *kmsg.JoinGroupResponse, code protocol.Code) {
	j := r.join()
	if j.ErrorCode != int16(protocol.None) {
		return j, protocol.Code(j.ErrorCode)
	}
	var plan map[string][]byte
	if j.LeaderID == r.id && !j.SkipAssignment {
		plan = make(map[string][]byte)
		for _, m := range j.Members {
			plan[m.MemberID] = []byte("of " + m.MemberID)
		}
	}
	return j, protocol.Code(r.sync(plan).ErrorCode)
}

func (r *reader) heartbeat() protocol.Code {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 4, r.group, r.id, r.instance, r.generation
	return protocol.Code(r.c.Heartbeat(context.Background(), req).ErrorCode)
}

func (r *reader) leave() protocol.Code {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group = 5, r.group
	req.Members = []kmsg.LeaveGroupRequestMember{{MemberID: r.id, InstanceID: r.instance}}
	resp := r.c.Leave(context.Background(), req)
	if resp.ErrorCode != int16(protocol.None) {
		return protocol.Code(resp.ErrorCode)
	}
	return protocol.Code(resp.Members[0].ErrorCode)
}

func (r *reader) commit(offset int64) protocol.Code { return r.commitTo("t", 0, offset) }

func (r *reader) commitTo(topic string, partition int32, offset int64) protocol.Code {
	return commit(r.c, r.group, r.id, r.instance, r.generation, topic, partition, offset)
}

func commit(c *Coordinator, group, id string, instance *string, generation int32, topic string, partition int32, offset int64) protocol.Code {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 9, group, id, instance, generation
	meta := "m"
	req.Topics = []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{
		{Partition: partition, Offset: offset, LeaderEpoch: 7, Metadata: &meta}}}}
	return protocol.Code(c.OffsetCommit(context.Background(), req).Topics[0].Partitions[0].ErrorCode)
}

// simpleCommit is a commit without a membership.
func simpleCommit(c *Coordinator, group string, offset int64) protocol.Code {
	return commit(c, group, "", nil, -1, "t", 0, offset)
}

// fetched returns the committed offset of partition 0 of a topic, -1 for none.
func fetched(t testing.TB, c *Coordinator, group, topic string) int64 {
	t.Helper()
	offset, code := fetch(c, group, topic)
	if code != protocol.None {
		t.Fatalf("fetching an offset: code %d", code)
	}
	return offset
}

func fetch(c *Coordinator, group, topic string) (int64, protocol.Code) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Version = 8
	req.Groups = []kmsg.OffsetFetchRequestGroup{{Group: group, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{0}}}}}
	g := c.OffsetFetch(context.Background(), req).Groups[0]
	if g.ErrorCode != int16(protocol.None) {
		return 0, protocol.Code(g.ErrorCode)
	}
	return g.Topics[0].Partitions[0].Offset, protocol.Code(g.Topics[0].Partitions[0].ErrorCode)
}

func stateOf(c *Coordinator, group string) kmsg.DescribeGroupsResponseGroup {
	req := kmsg.NewPtrDescribeGroupsRequest()
	req.Version, req.Groups = 5, []string{group}
	return c.Describe(context.Background(), req).Groups[0]
}

func deleteGroup(c *Coordinator, group string) protocol.Code {
	req := kmsg.NewPtrDeleteGroupsRequest()
	req.Version, req.Groups = 2, []string{group}
	return protocol.Code(c.Delete(context.Background(), req).Groups[0].ErrorCode)
}

func wantCode[C ~int16](t testing.TB, what string, got C, want protocol.Code) {
	t.Helper()
	if protocol.Code(got) != want {
		t.Fatalf("%s: code %d, want %d", what, got, want)
	}
}

// together lets readers enter at once and returns when all are in.
func together(t testing.TB, readers ...*reader) {
	t.Helper()
	var wg sync.WaitGroup
	codes := make([]protocol.Code, len(readers))
	for i, r := range readers {
		wg.Go(func() {
			for {
				_, codes[i] = r.enter()
				if codes[i] != protocol.RebalanceInProgress {
					return
				}
			}
		})
	}
	wg.Wait()
	for i, code := range codes {
		if code != protocol.None {
			t.Fatalf("reader %d could not enter: code %d", i, code)
		}
	}
}

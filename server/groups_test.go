package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/server/protocol"
)

// quickGroups make groups quick: no waiting for further members.
var quickGroups = map[string]string{"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "5"}

func commitRequest(version int16, name, topic string, partition int32, offset int64) *kmsg.OffsetCommitRequest {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.SetVersion(version)
	req.Group, req.Generation = name, -1
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch = partition, offset, 3
	rp.Metadata = kmsg.StringPtr("note")
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic, rt.Partitions = topic, append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// fetchCommitted asks for all offsets of a group in version 8.
func fetchCommitted(w *wire, name string) kmsg.OffsetFetchResponseGroup {
	w.t.Helper()
	req := kmsg.NewPtrOffsetFetchRequest()
	req.SetVersion(8)
	rg := kmsg.NewOffsetFetchRequestGroup()
	rg.Group = name
	req.Groups = append(req.Groups, rg)
	return ask[*kmsg.OffsetFetchResponse](w, req).Groups[0]
}

func findRequest(version int16, kind int8, keys ...string) *kmsg.FindCoordinatorRequest {
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.SetVersion(version)
	req.CoordinatorType = kind
	if version < 4 {
		req.CoordinatorKey = keys[0]
	} else {
		req.CoordinatorKeys = keys
	}
	return req
}

// coordinates asks until the broker coordinates the group and has it loaded, and every
// other group with it: the topic's partitions are led, and loaded, one after the other.
func (b *testBroker) coordinates(name string) {
	b.t.Helper()
	w := b.dial()
	all := kmsg.NewPtrOffsetFetchRequest()
	all.SetVersion(8)
	for i := range 1000 { // which leave no partition of 50 out
		g := kmsg.NewOffsetFetchRequestGroup()
		if g.Group = name; i > 0 {
			g.Group = fmt.Sprint(name, i)
		}
		all.Groups = append(all.Groups, g)
	}
	waitFor(b.t, "a coordinator of "+name+" and all others", func() bool {
		return ask[*kmsg.FindCoordinatorResponse](w, findRequest(4, 0, name)).Coordinators[0].ErrorCode == 0 &&
			!slices.ContainsFunc(ask[*kmsg.OffsetFetchResponse](w, all).Groups, func(g kmsg.OffsetFetchResponseGroup) bool { return g.ErrorCode != 0 })
	})
}

func TestFindCoordinatorInEveryVersion(t *testing.T) {
	b := startBroker(t, quickGroups)
	w := b.dial()
	for version := int16(0); version <= 6; version++ {
		resp := ask[*kmsg.FindCoordinatorResponse](w, findRequest(version, 0, "g"))
		all := resp.Coordinators
		if version < 4 {
			all = []kmsg.FindCoordinatorResponseCoordinator{{Key: "g", NodeID: resp.NodeID, Host: resp.Host, Port: resp.Port, ErrorCode: resp.ErrorCode}}
		}
		if len(all) != 1 || all[0].ErrorCode != 0 || all[0].Key != "g" || all[0].NodeID != 1 || fmt.Sprintf("%s:%d", all[0].Host, all[0].Port) != b.addr {
			t.Errorf("version %d: %+v", version, resp)
		}
	}
	resp := ask[*kmsg.FindCoordinatorResponse](w, findRequest(6, 0, "a", "", "c"))
	for i, key := range []string{"a", "", "c"} {
		if got := resp.Coordinators[i]; got.Key != key || got.ErrorCode != 0 || got.NodeID != 1 {
			t.Errorf("key %q: %+v", key, got)
		}
	}
	for kind, want := range map[int8]protocol.Code{1: protocol.UnsupportedVersion, 2: protocol.InvalidRequest, -1: protocol.InvalidRequest, 127: protocol.InvalidRequest} {
		for _, version := range []int16{1, 2, 3, 6} {
			want := want
			if kind == 1 && version < 3 {
				want = protocol.TransactionalIDAuthorizationFailed // final to librdkafka, which asks again for ever otherwise
			}
			resp := ask[*kmsg.FindCoordinatorResponse](w, findRequest(version, kind, "x"))
			got, message := resp.ErrorCode, resp.ErrorMessage
			if version >= 4 {
				got, message = resp.Coordinators[0].ErrorCode, resp.Coordinators[0].ErrorMessage
			}
			if got != int16(want) || message == nil {
				t.Errorf("type %d, version %d: error %d", kind, version, got)
			}
		}
	}
}

// The topic of committed offsets is as Kafka's, is the cluster's own, and is
// read by whoever wants to.
func TestTopicOfCommittedOffsets(t *testing.T) {
	b := startBroker(t, map[string]string{"auto.create.topics.enable": "true"})
	w := b.dial()
	if got := ask[*kmsg.MetadataResponse](w, metadataRequest(12, offsetsTopic)).Topics[0]; got.ErrorCode != int16(protocol.UnknownTopicOrPartition) {
		t.Fatalf("before anybody needed it: %+v", got)
	}
	b.create("t", 1, nil)
	b.coordinates("g")
	got := ask[*kmsg.MetadataResponse](w, metadataRequest(12, offsetsTopic)).Topics[0]
	if got.ErrorCode != 0 || len(got.Partitions) != 50 || !got.IsInternal {
		t.Fatalf("error %d, %d partitions, internal %v", got.ErrorCode, len(got.Partitions), got.IsInternal)
	}
	topic, _ := b.node.Image().Topic(offsetsTopic)
	for name, want := range map[string]string{"cleanup.policy": "compact", "compression.type": "producer", "segment.bytes": "104857600"} {
		if topic.Config[name] != want {
			t.Errorf("%s is %q, want %q", name, topic.Config[name], want)
		}
	}
	if p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(9, offsetsTopic, topic.ID, batchOf(t, 0, nil, "x")))); p.ErrorCode != int16(protocol.InvalidTopic) {
		t.Errorf("a client produced to it: error %d", p.ErrorCode)
	}
	if got := ask[*kmsg.OffsetCommitResponse](w, commitRequest(8, "g", "t", 0, 7)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("commit: error %d", got.ErrorCode)
	}
	cl := b.client(kgo.ConsumeTopics(offsetsTopic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx := testContext(t)
	for {
		f := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatal("the commit is not in the topic")
		}
		found := false
		f.EachRecord(func(r *kgo.Record) {
			k, v := kmsg.NewOffsetCommitKey(), kmsg.NewOffsetCommitValue()
			if k.ReadFrom(r.Key) == nil && v.ReadFrom(r.Value) == nil && k.Group == "g" && k.Topic == "t" && v.Offset == 7 && v.Metadata == "note" && v.LeaderEpoch == 3 {
				found = true
				if time.Since(r.Timestamp) > time.Minute {
					t.Errorf("its record is of %v", r.Timestamp)
				}
			}
		})
		if found {
			break
		}
	}
}

func TestOffsetsInEveryVersion(t *testing.T) {
	b := startBroker(t, quickGroups)
	b.create("t", 3, nil)
	b.coordinates("g")
	w := b.dial()
	for version := int16(2); version <= 9; version++ {
		got := ask[*kmsg.OffsetCommitResponse](w, commitRequest(version, "g", "t", 1, int64(version))).Topics[0]
		if got.Topic != "t" || got.Partitions[0].Partition != 1 || got.Partitions[0].ErrorCode != 0 {
			t.Fatalf("commit version %d: %+v", version, got)
		}
		for fetch := int16(1); fetch <= 9; fetch++ {
			req := kmsg.NewPtrOffsetFetchRequest()
			req.SetVersion(fetch)
			if fetch < 8 {
				rt := kmsg.NewOffsetFetchRequestTopic()
				rt.Topic, rt.Partitions = "t", []int32{1, 2}
				req.Group, req.Topics = "g", append(req.Topics, rt)
			} else {
				rt := kmsg.NewOffsetFetchRequestGroupTopic()
				rt.Topic, rt.Partitions = "t", []int32{1, 2}
				rg := kmsg.NewOffsetFetchRequestGroup()
				rg.Group, rg.Topics = "g", append(rg.Topics, rt)
				req.Groups = append(req.Groups, rg)
			}
			resp := ask[*kmsg.OffsetFetchResponse](w, req)
			var offsets []int64
			if fetch < 8 {
				for _, p := range resp.Topics[0].Partitions {
					offsets = append(offsets, p.Offset)
				}
			} else {
				for _, p := range resp.Groups[0].Topics[0].Partitions {
					offsets = append(offsets, p.Offset)
				}
			}
			if !slices.Equal(offsets, []int64{int64(version), -1}) {
				t.Fatalf("commit version %d, fetch version %d: offsets %v", version, fetch, offsets)
			}
		}
	}
}

// What was committed is there after the restart of a whole cluster.
func TestOffsetsSurviveARestart(t *testing.T) {
	dir := t.TempDir()
	for life := range int64(3) {
		t.Run(fmt.Sprint("life ", life), func(t *testing.T) {
			b := startBrokerIn(t, dir, quickGroups, nil)
			if life == 0 {
				b.create("t", 1, nil)
			}
			b.coordinates("g")
			w := b.dial()
			if life > 0 {
				got := fetchCommitted(w, "g")
				if len(got.Topics) != 1 || got.Topics[0].Partitions[0].Offset != life-1 {
					t.Fatalf("%+v", got)
				}
			}
			for i := range 20 { // several partitions of the topic have something to load
				name := "g"
				if i > 0 {
					name = fmt.Sprint("other-", i)
				}
				if got := ask[*kmsg.OffsetCommitResponse](w, commitRequest(8, name, "t", 0, life)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
					t.Fatalf("commit of %s: error %d", name, got.ErrorCode)
				}
			}
		})
	}
}

// What Kafka's tools do with groups, in one life: join, commit, lag, describe,
// list, delete.
func TestGroupsLiveAndDie(t *testing.T) {
	t.Parallel()
	b := startBroker(t, quickGroups)
	b.create("orders", 4, nil)
	ctx := testContext(t)
	const n = 400
	p := b.client(kgo.DefaultProduceTopic("orders"))
	for i := range n {
		p.Produce(ctx, kgo.KeyStringRecord(fmt.Sprint(i), fmt.Sprint(i)), nil)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	member := func() *kgo.Client {
		return b.client(kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(), kgo.ClientID("reader"))
	}
	one := member()
	seen := 0
	for seen < n {
		f := one.PollFetches(ctx)
		if err := f.Err0(); err != nil {
			t.Fatal(err)
		}
		seen += f.NumRecords()
	}
	if err := one.CommitUncommittedOffsets(ctx); err != nil {
		t.Fatal(err)
	}
	adm := kadm.NewClient(b.client())
	described, err := adm.DescribeGroups(ctx, "g")
	if err != nil || len(described["g"].Members) != 1 || described["g"].State != "Stable" {
		t.Fatalf("%+v, %v", described, err)
	}
	if m := described["g"].Members[0]; m.ClientID != "reader" || m.ClientHost != "/127.0.0.1" || !strings.HasPrefix(m.MemberID, "reader-") {
		t.Errorf("member %+v", m)
	}
	lag, err := adm.Lag(ctx, "g")
	if err != nil || lag["g"].Lag.Total() != 0 {
		t.Errorf("lag %+v, %v", lag, err)
	}
	if listed, err := adm.ListGroups(ctx); err != nil || len(listed) != 1 || listed["g"].State != "Stable" || listed["g"].ProtocolType != "consumer" {
		t.Errorf("listed %+v, %v", listed, err)
	}
	if deleted, err := adm.DeleteGroups(ctx, "g"); err != nil || codeOfKafka(deleted["g"].Err) != 68 {
		t.Errorf("a group with members: %+v, %v", deleted, err)
	}

	// A second member takes a share, and leaves it.
	two := member()
	waitFor(t, "two members with partitions", func() bool {
		poll, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		one.PollFetches(poll)
		two.PollFetches(poll)
		d, err := adm.DescribeGroups(ctx, "g")
		if err != nil || len(d["g"].Members) != 2 || d["g"].State != "Stable" {
			return false
		}
		for _, m := range d["g"].Members {
			a, ok := m.Assigned.AsConsumer()
			if !ok || len(a.Topics) != 1 || len(a.Topics[0].Partitions) != 2 {
				return false
			}
		}
		return true
	})
	two.LeaveGroup()
	one.LeaveGroup()
	if deleted, err := adm.DeleteGroups(ctx, "g", "nobody"); err != nil || deleted["g"].Err != nil || codeOfKafka(deleted["nobody"].Err) != 69 {
		t.Errorf("an empty group: %+v, %v", deleted, err)
	}
	if got := fetchCommitted(b.dial(), "g"); len(got.Topics) != 0 {
		t.Errorf("a deleted group has offsets: %+v", got)
	}
}

// A member that waits in JoinGroup and hangs up ends the connection's goroutine
// long before the rebalance does.
func TestHangingUpWhileJoiningIsNoticed(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"group.initial.rebalance.delay.ms": "600000", "offsets.topic.num.partitions": "5"})
	b.coordinates("g")
	before := b.server.Stats().Connections
	w := b.dial()
	join := kmsg.NewPtrJoinGroupRequest()
	join.SetVersion(3)
	join.Group, join.ProtocolType = "g", "consumer"
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 1_800_000, 1_800_000
	jp := kmsg.NewJoinGroupRequestProtocol()
	jp.Name = "range"
	join.Protocols = append(join.Protocols, jp)
	w.send(join)
	waitFor(t, "the connection", func() bool { return b.server.Stats().Connections == before+1 })
	w.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := w.conn.Read(make([]byte, 1)); !isTimeout(err) {
		t.Fatalf("read %d bytes, %v: it does not wait", n, err)
	}
	w.conn.Close()
	waitFor(t, "the connection's end", func() bool { return b.server.Stats().Connections == before })
}

// A connection that waits in JoinGroup for longer than connections.max.idle.ms
// is not idle, and takes the next request after the answer.
func TestJoiningIsNotIdling(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"group.initial.rebalance.delay.ms": "2500", "connections.max.idle.ms": "1000", "offsets.topic.num.partitions": "5"})
	b.coordinates("g")
	w := b.dial()
	join := kmsg.NewPtrJoinGroupRequest()
	join.SetVersion(3)
	join.Group, join.ProtocolType = "g", "consumer"
	join.SessionTimeoutMillis, join.RebalanceTimeoutMillis = 60_000, 60_000
	jp := kmsg.NewJoinGroupRequestProtocol()
	jp.Name = "range"
	join.Protocols = append(join.Protocols, jp)
	joined := w.send(join)
	version := kmsg.NewPtrApiVersionsRequest()
	version.SetVersion(0)
	next := w.send(version) // sent ahead: it must not be lost
	if resp := w.receive(join, joined).(*kmsg.JoinGroupResponse); resp.ErrorCode != 0 || resp.LeaderID != resp.MemberID {
		t.Fatalf("%+v", resp)
	}
	if resp := w.receive(version, next).(*kmsg.ApiVersionsResponse); resp.ErrorCode != 0 {
		t.Fatalf("%+v", resp)
	}
}

// codeOfKafka returns the code of an error from franz-go.
func codeOfKafka(err error) int16 {
	var e *kerr.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code
}

// coordinatorAmong returns who coordinates a group, and somebody who does not.
func coordinatorAmong(t *testing.T, all []*testBroker, name string) (coordinator, other *testBroker) {
	t.Helper()
	waitFor(t, "a coordinator", func() bool {
		for _, b := range all {
			if b.stopped {
				continue
			}
			got := ask[*kmsg.FindCoordinatorResponse](b.dial(), findRequest(4, 0, name)).Coordinators[0]
			if got.ErrorCode != 0 {
				return false
			}
			coordinator, other = nil, nil
			for _, o := range all {
				if o.node.ID() == got.NodeID && !o.stopped {
					coordinator = o
				} else if !o.stopped {
					other = o
				}
			}
			return coordinator != nil && fetchCommitted(coordinator.dial(), name).ErrorCode == 0
		}
		return false
	})
	return coordinator, other
}

// The coordinator hands over and leaves; members carry on under the same
// generation with the partitions they have.
func TestGroupOutlivesItsCoordinator(t *testing.T) {
	t.Parallel()
	all := startClusterWith(t, 3, quickGroups)
	ctx := testContext(t)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("orders", 6, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	seeds := kgo.SeedBrokers(all[0].addr, all[1].addr, all[2].addr)
	var mu sync.Mutex
	var owned [3]int // partitions, as each member was told
	moves := 0
	moved := func(member, partitions int) {
		mu.Lock()
		defer mu.Unlock()
		owned[member] += partitions
		moves++
	}
	var members []*kgo.Client
	for i := range 3 {
		cl := all[0].client(seeds, kgo.ConsumerGroup("g"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit(),
			kgo.HeartbeatInterval(100*time.Millisecond), kgo.Balancers(kgo.RangeBalancer()),
			kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) { moved(i, len(got["orders"])) }),
			kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { moved(i, -len(lost["orders"])) }),
			kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { moved(i, -len(lost["orders"])) }))
		members = append(members, cl)
	}
	adm := kadm.NewClient(all[0].client(seeds))
	describe := func() kadm.DescribedGroup {
		d, err := adm.DescribeGroups(ctx, "g")
		if err != nil {
			return kadm.DescribedGroup{}
		}
		return d["g"]
	}
	stable := func() bool {
		g := describe()
		if g.State != "Stable" || len(g.Members) != 3 {
			return false
		}
		for _, m := range g.Members {
			if a, ok := m.Assigned.AsConsumer(); !ok || len(a.Topics) != 1 || len(a.Topics[0].Partitions) != 2 {
				return false
			}
		}
		mu.Lock()
		defer mu.Unlock()
		return owned == [3]int{2, 2, 2}
	}
	waitFor(t, "three members with two partitions each", stable)
	assigned := func() string {
		var list []string
		for _, m := range describe().Members {
			a, _ := m.Assigned.AsConsumer()
			list = append(list, fmt.Sprint(m.MemberID, a))
		}
		slices.Sort(list)
		return strings.Join(list, "\n")
	}
	before := assigned()
	mu.Lock()
	settled := moves
	mu.Unlock()
	old, other := coordinatorAmong(t, all, "g")
	generation := members[0]
	id, gen := generation.GroupMetadata()

	stop, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	old.stopped = true
	if err := old.node.Shutdown(stop); err != nil {
		t.Fatal(err)
	}
	if err := old.server.Shutdown(stop); err != nil {
		t.Fatal(err)
	}
	adm = kadm.NewClient(other.client())
	waitFor(t, "the group elsewhere", stable)
	if now, _ := coordinatorAmong(t, all, "g"); now == old {
		t.Fatal("the coordinator is the one that left")
	}
	if after := assigned(); after != before {
		t.Errorf("assignments before:\n%s\nafter:\n%s", before, after)
	}
	// Members go on: they commit, under the same generation.
	for i, cl := range members {
		offsets := map[string]map[int32]kgo.EpochOffset{"orders": {int32(i): {Epoch: -1, Offset: int64(100 + i)}}}
		var err error
		cl.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, e error) {
			if err = e; e == nil && resp.Topics[0].Partitions[0].ErrorCode != 0 {
				err = fmt.Errorf("error %d", resp.Topics[0].Partitions[0].ErrorCode)
			}
		})
		if err != nil {
			t.Errorf("member %d: %v", i, err)
		}
	}
	if i, g := generation.GroupMetadata(); i != id || g != gen {
		t.Errorf("member %s of generation %d became %s of %d", id, gen, i, g)
	}
	mu.Lock()
	defer mu.Unlock()
	if moves != settled {
		t.Errorf("%d times partitions were taken or given", moves-settled)
	}
}

// A coordinator that is cut off answers no question for committed offsets.
func TestDeposedCoordinatorTellsNoOffsets(t *testing.T) {
	all := startClusterWith(t, 3, quickGroups)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("t", 1, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	old, _ := coordinatorAmong(t, all, "g")
	w := old.dial()
	if got := ask[*kmsg.OffsetCommitResponse](w, commitRequest(8, "g", "t", 0, 1)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("commit: error %d", got.ErrorCode)
	}
	if got := fetchCommitted(w, "g"); got.ErrorCode != 0 || got.Topics[0].Partitions[0].Offset != 1 {
		t.Fatalf("%+v", got)
	}
	old.peers.isolate(old.addr)
	defer old.peers.heal()
	// From here on somebody else may have moved the offset on, whatever the old
	// coordinator believes.
	got := fetchCommitted(w, "g")
	if got.ErrorCode != int16(protocol.NotCoordinator) && got.ErrorCode != int16(protocol.CoordinatorNotAvailable) {
		t.Fatalf("alone it answered %+v", got)
	}
	var rest []*testBroker
	for _, b := range all {
		if b != old {
			rest = append(rest, b)
		}
	}
	next, _ := coordinatorAmong(t, rest, "g")
	if got := ask[*kmsg.OffsetCommitResponse](next.dial(), commitRequest(8, "g", "t", 0, 2)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
		t.Fatalf("commit at the new coordinator: error %d", got.ErrorCode)
	}
	for range 20 {
		if got := fetchCommitted(w, "g"); got.ErrorCode == 0 {
			t.Fatalf("deposed it answered %+v", got)
		}
	}
}

// Every replica of the cluster's own topic appears as brokers do, and several
// nodes that need it at once make one.
func TestOffsetsTopicIsMadeOnceAndGrows(t *testing.T) {
	t.Parallel()
	all := startClusterWith(t, 1, quickGroups)
	all[0].coordinates("g")
	topic, _ := all[0].node.Image().Topic(offsetsTopic)
	if len(topic.Partitions[0].Replicas) != 1 || !topic.Grow || !topic.Internal {
		t.Fatalf("%+v", topic)
	}

	three := startClusterWith(t, 3, quickGroups)
	codes := make(chan int16, 30)
	for i := range 30 {
		w := three[i%3].dial()
		go func() {
			for {
				c := ask[*kmsg.FindCoordinatorResponse](w, findRequest(4, 0, fmt.Sprint("g", i))).Coordinators[0].ErrorCode
				if c != int16(protocol.CoordinatorNotAvailable) {
					codes <- c
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
	}
	for range 30 {
		if c := <-codes; c != 0 {
			t.Errorf("error %d", c)
		}
	}
	topic, _ = three[0].node.Image().Topic(offsetsTopic)
	for i, p := range topic.Partitions {
		if len(p.Replicas) != 3 {
			t.Errorf("partition %d has %d replicas", i, len(p.Replicas))
		}
	}
}

// What cannot be read in the topic of committed offsets is left out, and costs
// nobody else an offset: strange records, and a batch that rots after its first.
func TestLoadingLeavesOutWhatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	settings := map[string]string{"offsets.topic.num.partitions": "1"}
	commit := func(b *testBroker, name string, offset int64) {
		t.Helper()
		if got := ask[*kmsg.OffsetCommitResponse](b.dial(), commitRequest(8, name, "t", 0, offset)).Topics[0].Partitions[0]; got.ErrorCode != 0 {
			t.Fatalf("commit: error %d", got.ErrorCode)
		}
	}
	t.Run("written", func(t *testing.T) {
		b := startBrokerIn(t, dir, settings, nil)
		b.create("t", 1, nil)
		b.coordinates("g")
		commit(b, "g", 1)
		topic, _ := b.node.Image().Topic(offsetsTopic)
		p, err := b.node.Partition(metadata.PartitionID{Topic: topic.ID})
		if err != nil {
			t.Fatal(err)
		}
		epoch, _ := p.Serving()
		key, value := kmsg.NewOffsetCommitKey(), kmsg.NewOffsetCommitValue()
		key.Version, key.Group, key.Topic = 1, "zipped", "t"
		value.Version, value.Offset = 3, 5
		whole := record.Record{Timestamp: 1, Key: key.AppendTo(nil), Value: value.AppendTo(nil)}
		strange := []record.Record{
			{Timestamp: 1, Key: []byte("no key of ours"), Value: []byte("x")},
			{Timestamp: 1, Key: nil, Value: nil},
			{Timestamp: 1, Key: []byte{0, 1}, Value: []byte{0}},
			{Timestamp: 1, Key: key.AppendTo(nil)[:9], Value: value.AppendTo(nil)},
			{Timestamp: 1, Key: []byte{0x7f, 0xff, 1}, Value: []byte{1}},
		}
		plain, err := record.Build(record.None, strange...)
		if err != nil {
			t.Fatal(err)
		}
		zipped, err := record.Build(record.Zstd, whole)
		if err != nil {
			t.Fatal(err)
		}
		rotten, err := record.Build(record.Gzip, whole)
		if err != nil {
			t.Fatal(err)
		}
		for i := record.HeaderSize; i < len(rotten); i++ {
			rotten[i] ^= 0x55
		}
		binary.BigEndian.PutUint32(rotten[17:], crc32.Checksum(rotten[21:], crc32.MakeTable(crc32.Castagnoli)))
		for _, batch := range []record.Batch{plain, rotten, zipped} {
			done := make(chan error, 1)
			if err := p.AppendIn(epoch, []record.Batch{batch}, told(func(_ partition.Ack, err error) { done <- err })); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		commit(b, "later", 2)
	})
	t.Run("loaded", func(t *testing.T) {
		b := startBrokerIn(t, dir, settings, nil)
		b.coordinates("g")
		for name, want := range map[string]int64{"g": 1, "zipped": 5, "later": 2} {
			got := fetchCommitted(b.dial(), name)
			if got.ErrorCode != 0 || len(got.Topics) != 1 || got.Topics[0].Partitions[0].Offset != want {
				t.Errorf("%s: %+v", name, got)
			}
		}
	})
}

// told is a function as a partition.Appender.
type told func(partition.Ack, error)

func (f told) Appended(ack partition.Ack, err error) { f(ack, err) }

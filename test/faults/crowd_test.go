//go:build faults

package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// crowdMemory is how far a broker's memory may grow under a crowd of members.
const crowdMemory = 256 << 20

// startPromptCluster starts three nodes whose groups do not wait for more members.
func startPromptCluster(t *testing.T) *cluster {
	return startConfigured(t, "group.initial.rebalance.delay.ms=0")
}

// startConfigured starts three nodes with settings, KEY=VALUE each.
func startConfigured(t *testing.T, settings ...string) *cluster {
	return startCluster(t, 3, func(n *node) {
		config := n.Data + ".properties"
		n.Args = append(n.Args, "--config", config)
		if err := os.WriteFile(config, []byte(strings.Join(settings, "\n")+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	})
}

// A bystander is a group of two that consumes while others misbehave. It must
// not notice: no rebalance, no failed commit.
type bystander struct {
	rebalances atomic.Int64 // after the first assignments
	settled    atomic.Bool
	read       atomic.Int64
	mu         sync.Mutex
	troubles   []string
	longest    time.Duration // between two records
	stop       func()
}

func (b *bystander) trouble(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.troubles) < 10 {
		b.troubles = append(b.troubles, fmt.Sprintf(format, args...))
	}
}

// watch starts a bystander on a topic that is being written.
func (c *cluster) watch(topic, group string) *bystander {
	b := &bystander{}
	ctx, cancel := context.WithCancel(context.Background())
	var members sync.WaitGroup
	moved := func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
		if b.settled.Load() && len(partitions) > 0 {
			b.rebalances.Add(1)
		}
	}
	for range 2 {
		client := c.client(
			kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.DisableAutoCommit(),
			kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond),
			kgo.OnPartitionsRevoked(moved), kgo.OnPartitionsLost(moved),
		)
		members.Add(1)
		go func() { // a member of the bystander: ends with stop
			defer members.Done()
			last := time.Now()
			for ctx.Err() == nil {
				fetches := client.PollFetches(ctx)
				if ctx.Err() != nil {
					return
				}
				fetches.EachError(func(t string, p int32, err error) { b.trouble("fetch %s/%d: %v", t, p, err) })
				n := fetches.NumRecords()
				if n == 0 {
					continue
				}
				b.read.Add(int64(n))
				if b.settled.Load() {
					b.mu.Lock()
					b.longest = max(b.longest, time.Since(last))
					b.mu.Unlock()
				}
				last = time.Now()
				if err := client.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
					b.trouble("commit: %v", err)
				}
			}
		}()
	}
	b.stop = sync.OnceFunc(func() {
		b.settled.Store(false)
		cancel()
		members.Wait()
	})
	c.t.Cleanup(b.stop)
	eventually(c.t, patience, "the bystander's members have their partitions", func() error {
		d, err := c.admin().DescribeGroups(context.Background(), group)
		if err != nil {
			return err
		}
		topics, err := c.admin().ListTopics(context.Background(), topic)
		if err != nil {
			return err
		}
		// A cooperative group is stable once before the second member has its share:
		// in the generation in which the first gives it up.
		all := len(topics[topic].Partitions)
		g := d[group]
		if n := len(g.AssignedPartitions()[topic]); g.State != "Stable" || len(g.Members) != 2 || n != all || b.read.Load() == 0 {
			return fmt.Errorf("state %s, %d members with %d of %d partitions, %d records read", g.State, len(g.Members), n, all, b.read.Load())
		}
		return nil
	})
	b.settled.Store(true)
	return b
}

// check ends the bystander and tells what it noticed.
func (b *bystander) check(t *testing.T) {
	t.Helper()
	rebalances := b.rebalances.Load()
	b.stop()
	for _, s := range b.troubles {
		t.Errorf("the bystander: %s", s)
	}
	if rebalances > 0 {
		t.Errorf("the bystander lost partitions %d times to a crowd in other groups", rebalances)
	}
}

// grown returns how much more memory the fattest node uses than before.
func (c *cluster) grown(before map[int32]int64) (most int64) {
	c.each(func(n *node) { most = max(most, n.usage().rss-before[n.ID]) })
	return most
}

func (c *cluster) memory() map[int32]int64 {
	m := make(map[int32]int64)
	c.each(func(n *node) { m[n.ID] = n.usage().rss })
	return m
}

// joinRequest is a consumer's JoinGroup.
func joinRequest(group, member string, metadata []byte) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID = group, member
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 10_000, 2_000
	req.ProtocolType = "consumer"
	protocol := kmsg.NewJoinGroupRequestProtocol()
	protocol.Name, protocol.Metadata = "range", metadata
	req.Protocols = append(req.Protocols, protocol)
	return req
}

// Five thousand members join and leave, ten to a group, as fast as they can.
// Memory stays bounded and another group does not notice.
func TestJoinsAndLeavesDisturbNobody(t *testing.T) {
	joins := setting("FAULTS_JOINS", 5000)
	c := startPromptCluster(t)
	c.createTopic("crowd", 6)
	l := newLedger(c, "crowd", 6)
	p := l.produce(10 * time.Millisecond)
	l.awaitAcknowledged(100)
	b := c.watch("crowd", "bystander")

	const workers = 50
	before := c.memory()
	began := time.Now()
	var left, refused atomic.Int64
	var next atomic.Int64
	var wg sync.WaitGroup
	codes := make(chan error, workers)
	for w := range workers {
		client := c.client()
		wg.Add(1)
		go func() { // a worker: ends when all joins are done
			defer wg.Done()
			for next.Add(1) <= int64(joins) {
				done, err := joinAndLeave(client, fmt.Sprintf("storm-%d", w%5))
				if err != nil {
					codes <- err
					return
				}
				if done {
					left.Add(1)
				} else {
					refused.Add(1) // a rebalance or a timeout came between: the member left all the same
				}
			}
		}()
	}
	wg.Wait()
	took := time.Since(began)
	close(codes)
	for err := range codes {
		t.Errorf("a member of the storm: %v", err)
	}
	growth := c.grown(before)
	figure(t, "%d joins and leaves of %d members at a time in %.1f s, %d of them through a whole generation; memory of a broker grew by at most %d MiB; the bystander's longest pause %s",
		joins, workers, took.Seconds(), left.Load(), growth>>20, millis(b.longest))
	if left.Load() == 0 {
		t.Error("no member of the storm ever saw a generation through")
	}
	if growth > crowdMemory {
		t.Errorf("memory grew by %d MiB", growth>>20)
	}
	b.check(t)
	p.finish()
	l.check()
	eventually(t, patience, "the storm's groups are empty", func() error {
		for g := range 5 {
			name := fmt.Sprintf("storm-%d", g)
			d, err := c.admin().DescribeGroups(context.Background(), name)
			if err != nil {
				return err
			}
			if n := len(d[name].Members); n > 0 {
				return fmt.Errorf("%s has %d members", name, n)
			}
		}
		return nil
	})
}

// joinAndLeave is one member's short life. done is false if it met a rebalance
// before it saw its generation through.
func joinAndLeave(client *kgo.Client, group string) (done bool, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	joined, err := joinRequest(group, "", []byte("metadata")).RequestWith(ctx, client)
	if err != nil {
		return false, err
	}
	member := joined.MemberID
	if joined.ErrorCode == kerr.MemberIDRequired.Code {
		if joined, err = joinRequest(group, member, []byte("metadata")).RequestWith(ctx, client); err != nil {
			return false, err
		}
	}
	defer func() {
		leave := kmsg.NewPtrLeaveGroupRequest()
		leave.Group = group
		m := kmsg.NewLeaveGroupRequestMember()
		m.MemberID = member
		leave.Members = append(leave.Members, m)
		if _, e := leave.RequestWith(ctx, client); e != nil && err == nil {
			err = e
		}
	}()
	expected := func(code int16) (bool, error) {
		switch e := kerr.ErrorForCode(code); {
		case e == nil:
			return true, nil
		case errors.Is(e, kerr.RebalanceInProgress), errors.Is(e, kerr.UnknownMemberID), errors.Is(e, kerr.IllegalGeneration):
			return false, nil
		default:
			return false, e
		}
	}
	if ok, err := expected(joined.ErrorCode); !ok {
		return false, err
	}
	sync := kmsg.NewPtrSyncGroupRequest()
	sync.Group, sync.MemberID, sync.Generation = group, member, joined.Generation
	for _, m := range joined.Members {
		a := kmsg.NewSyncGroupRequestGroupAssignment()
		a.MemberID, a.MemberAssignment = m.MemberID, []byte(m.MemberID)
		sync.GroupAssignment = append(sync.GroupAssignment, a)
	}
	synced, err := sync.RequestWith(ctx, client)
	if err != nil {
		return false, err
	}
	if ok, err := expected(synced.ErrorCode); !ok {
		return false, err
	}
	if string(synced.MemberAssignment) != member {
		return false, fmt.Errorf("member %s got the assignment %q", member, synced.MemberAssignment)
	}
	beat := kmsg.NewPtrHeartbeatRequest()
	beat.Group, beat.MemberID, beat.Generation = group, member, joined.Generation
	beaten, err := beat.RequestWith(ctx, client)
	if err != nil {
		return false, err
	}
	return expected(beaten.ErrorCode)
}

// B26. A hundred thousand members that never come back, members with a megabyte
// of metadata, timeouts of 0 and 2³¹−1.
func TestHostileMembersAreBounded(t *testing.T) {
	crowd := setting("FAULTS_CROWD", 100_000)
	c := startPromptCluster(t)
	c.createTopic("crowd", 2)
	l := newLedger(c, "crowd", 2)
	p := l.produce(10 * time.Millisecond)
	l.awaitAcknowledged(100)
	b := c.watch("crowd", "bystander")
	before := c.memory()

	// Member ids are handed out and never used.
	var wg sync.WaitGroup
	var given, refused atomic.Int64
	const workers = 32
	for w := range workers {
		client := c.client()
		wg.Add(1)
		go func() { // a worker: ends when its share is done
			defer wg.Done()
			for i := w; i < crowd; i += workers {
				resp, err := joinRequest("ghosts", "", []byte("metadata")).RequestWith(context.Background(), client)
				switch {
				case err != nil:
					t.Errorf("join: %v", err)
					return
				case resp.ErrorCode == kerr.MemberIDRequired.Code && resp.MemberID != "":
					given.Add(1)
				case resp.ErrorCode == kerr.GroupMaxSizeReached.Code:
					refused.Add(1)
				default:
					t.Errorf("join without a member id: %v", kerr.ErrorForCode(resp.ErrorCode))
					return
				}
			}
		}()
	}
	wg.Wait()
	ghosts := c.grown(before)

	// Members of one group with a megabyte of metadata each. Version 3 needs no
	// member id, and a join waits for the others: a connection each.
	const fat = 300
	megabyte := bytes.Repeat([]byte("m"), 1<<20)
	three := kversion.V2_1_0()
	three.SetMaxKeyVersion(int16(kmsg.JoinGroup), 3)
	codes := make(map[string]int)
	var mu sync.Mutex
	atOnce := make(chan struct{}, 50) // what is on its way is bounded by the sockets, not by the group
	for range fat {
		atOnce <- struct{}{}
		client := c.client(kgo.MaxVersions(three))
		wg.Add(1)
		go func() { // a fat member: ends with its answer
			defer func() { <-atOnce; wg.Done() }()
			defer client.Close()
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			resp, err := joinRequest("fat", "", megabyte).RequestWith(ctx, client)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				codes["no answer"]++
			case resp.ErrorCode == 0:
				codes["joined"]++
			default:
				codes[kerr.ErrorForCode(resp.ErrorCode).(*kerr.Error).Message]++
			}
		}()
	}
	wg.Wait()
	fattened := c.grown(before)
	figure(t, "%d member ids handed out and %d refused: at most %d MiB more a broker; %d members of a MiB each: %v, at most %d MiB more",
		given.Load(), refused.Load(), ghosts>>20, fat, codes, fattened>>20)
	for what, growth := range map[string]int64{"member ids": ghosts, "metadata": fattened} {
		if growth > crowdMemory {
			t.Errorf("%s: memory grew by %d MiB", what, growth>>20)
		}
	}
	if codes["no answer"] > 0 {
		t.Errorf("%d members got no answer", codes["no answer"])
	}

	client := c.client()
	for _, timeout := range []int32{0, -1, 1, math.MaxInt32, math.MinInt32} {
		req := joinRequest("timeouts", "", nil)
		req.SessionTimeoutMillis = timeout
		resp, err := req.RequestWith(context.Background(), client)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ErrorCode != kerr.InvalidSessionTimeout.Code {
			t.Errorf("a session timeout of %d ms: %v", timeout, kerr.ErrorForCode(resp.ErrorCode))
		}
	}
	for _, timeout := range []int32{0, -1, math.MinInt32, math.MaxInt32} {
		req := joinRequest(fmt.Sprintf("rebalance-%d", timeout), "", nil)
		req.RebalanceTimeoutMillis = timeout
		resp, err := req.RequestWith(context.Background(), client)
		if err != nil {
			t.Fatal(err)
		}
		if resp.ErrorCode != kerr.MemberIDRequired.Code {
			t.Errorf("a rebalance timeout of %d ms: %v", timeout, kerr.ErrorForCode(resp.ErrorCode))
			continue
		}
		// Alone in its group it is through at once, however long others might take.
		req.MemberID = resp.MemberID
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if resp, err = req.RequestWith(ctx, client); err != nil || resp.ErrorCode != 0 {
			t.Errorf("a rebalance timeout of %d ms: %v, %v", timeout, err, kerr.ErrorForCode(resp.ErrorCode))
		}
		cancel()
	}
	b.check(t)
	p.finish()
	l.check()
}

// B27. Offsets and epochs from the ends of their ranges come back as they went
// in, or are refused; none of them stops a later commit.
func TestOffsetsFromTheEndsOfTheirRange(t *testing.T) {
	c := startPromptCluster(t)
	c.createTopic("b27", 1)
	client := c.client()
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	commit := func(group string, offset int64, epoch int32) error {
		var o kadm.Offsets
		o.AddOffset("b27", 0, offset, epoch)
		r, err := admin.CommitOffsets(ctx, group, o)
		if err != nil {
			return err
		}
		return r.Error()
	}
	for i, tt := range []struct {
		offset int64
		epoch  int32
	}{
		{0, -1}, {0, 0}, {math.MaxInt64, math.MaxInt32}, {1, -1}, {-1, -1}, {math.MinInt64, math.MinInt32}, {5, 7},
	} {
		group := fmt.Sprintf("b27-%d", i)
		if err := commit(group, 42, 3); err != nil {
			t.Fatalf("commit: %v", err)
		}
		err := commit(group, tt.offset, tt.epoch)
		got, fetchErr := admin.FetchOffsets(ctx, group)
		if fetchErr != nil {
			t.Fatalf("fetch: %v", fetchErr)
		}
		want := kadm.Offset{At: tt.offset, LeaderEpoch: tt.epoch}
		if err != nil {
			want = kadm.Offset{At: 42, LeaderEpoch: 3} // a refused commit changes nothing
		}
		if o, ok := got.Lookup("b27", 0); !ok || o.At != want.At || max(o.LeaderEpoch, -1) != max(want.LeaderEpoch, -1) {
			t.Errorf("committed %d in epoch %d (error %v): fetched %d in epoch %d", tt.offset, tt.epoch, err, o.At, o.LeaderEpoch)
		}
		if tt.offset >= 0 && err != nil {
			t.Errorf("offset %d, epoch %d: %v", tt.offset, tt.epoch, err)
		}
		if err := commit(group, 43, 4); err != nil {
			t.Errorf("after offset %d: %v", tt.offset, err)
		}
	}

	// Isolation levels that are none.
	for _, level := range []int8{-1, 2, math.MaxInt8} {
		list := kmsg.NewPtrListOffsetsRequest()
		list.ReplicaID, list.IsolationLevel = -1, level
		topic := kmsg.NewListOffsetsRequestTopic()
		topic.Topic = "b27"
		partition := kmsg.NewListOffsetsRequestTopicPartition()
		partition.Timestamp = -1
		topic.Partitions = append(topic.Partitions, partition)
		list.Topics = append(list.Topics, topic)
		_, err := c.client().Broker(int(c.leader("b27", 0).ID)).Request(ctx, list)
		// Closed or answered with an error: what matters is that the broker goes on.
		t.Logf("isolation level %d: %v", level, err)
		if err := commit("b27-after", 1, 1); err != nil {
			t.Errorf("after isolation level %d: %v", level, err)
		}
	}
}

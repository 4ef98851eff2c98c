//go:build faults

package faults

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A busyGroup is many members of one group that read, commit every 100 ms, and
// check what they get:
//
//   - I6: a member gets every offset of an assignment, in order; the first is no
//     further than where anybody has read to.
//   - I8: neither the first offset of an assignment nor any committed offset that
//     is asked for lies before one whose commit was acknowledged earlier.
type busyGroup struct {
	l     *ledger
	name  string
	admin *kadm.Client

	mu        sync.Mutex
	read      map[int32]int64 // the offset after the last that anybody has read
	tried     map[int32]int64 // the highest that anybody tried to commit
	committed map[int32]int64 // the highest that was acknowledged
	commits   int
	failures  map[string]int
	assigned  int // partitions, over all assignments
	killed    time.Time
	commit    chan time.Duration // the first commit after the kill; nil: nobody waits
	resumed   map[int32]bool     // partitions of which a record sent after the kill was read
	all       chan time.Duration // told when that is all of them
}

// A reader is a member of a busyGroup. Its maps are under the group's mu.
type reader struct {
	g      *busyGroup
	client *kgo.Client
	next   map[int32]int64 // of the partitions of which it has read something
	floor  map[int32]int64 // of those assigned: what had been committed by then
}

func newBusyGroup(l *ledger, name string) *busyGroup {
	return &busyGroup{
		l: l, name: name, admin: l.c.admin(),
		read: map[int32]int64{}, tried: map[int32]int64{}, committed: map[int32]int64{}, failures: map[string]int{},
	}
}

// join adds a member, which works until ctx ends.
func (g *busyGroup) join(ctx context.Context, wait *sync.WaitGroup) {
	r := &reader{g: g, next: map[int32]int64{}, floor: map[int32]int64{}}
	gone := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, p := range lost[g.l.topic] {
			delete(r.next, p)
			delete(r.floor, p)
		}
	}
	r.client = g.l.c.client(
		kgo.ConsumerGroup(g.name), kgo.ConsumeTopics(g.l.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.HeartbeatInterval(500*time.Millisecond),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			g.mu.Lock()
			defer g.mu.Unlock()
			for _, p := range got[g.l.topic] {
				r.floor[p] = g.committed[p]
				g.assigned++
			}
		}),
		kgo.OnPartitionsRevoked(gone), kgo.OnPartitionsLost(gone),
	)
	wait.Go(func() { // the member: ends with ctx
		due := time.Now()
		for ctx.Err() == nil {
			poll, cancel := context.WithDeadline(ctx, due)
			fetches := r.client.PollFetches(poll)
			cancel()
			fetches.EachRecord(r.got)
			if time.Now().After(due) {
				r.commit(ctx)
				due = time.Now().Add(100 * time.Millisecond)
			}
			r.client.AllowRebalance()
		}
		r.client.CloseAllowingRebalance()
	})
}

// got checks a record's place in its assignment.
func (r *reader) got(rec *kgo.Record) {
	g, p := r.g, rec.Partition
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	next, again := r.next[p]
	switch {
	case again && rec.Offset != next:
		g.l.troubleLocked("I6 %s/%d: a member got offset %d after %d", g.l.topic, p, rec.Offset, next-1)
	case !again && rec.Offset > g.read[p]:
		g.l.troubleLocked("I6 %s/%d: an assignment began at offset %d, and nobody has read past %d", g.l.topic, p, rec.Offset, g.read[p])
	case !again && rec.Offset < r.floor[p]:
		g.l.troubleLocked("I8 %s/%d: an assignment began at offset %d, and %d was committed before", g.l.topic, p, rec.Offset, r.floor[p])
	}
	r.next[p] = rec.Offset + 1
	g.read[p] = max(g.read[p], rec.Offset+1)
	if producer, seq, ok := g.l.sawLocked(rec); ok && g.resumed != nil && g.l.producers[producer][p][seq].at.After(g.killed) {
		g.resumed[p] = true
		if len(g.resumed) == int(g.l.partitions) {
			g.all <- time.Since(g.killed)
			g.resumed = nil
		}
	}
}

// commit commits what the member has read, and waits for the answer.
func (r *reader) commit(ctx context.Context) {
	g := r.g
	began := time.Now()
	offsets := map[int32]kgo.EpochOffset{}
	g.mu.Lock()
	for p, next := range r.next {
		if next > 0 {
			offsets[p] = kgo.EpochOffset{Epoch: -1, Offset: next}
			g.tried[p] = max(g.tried[p], next)
		}
	}
	g.mu.Unlock()
	if len(offsets) == 0 {
		return
	}
	r.client.CommitOffsetsSync(ctx, map[string]map[int32]kgo.EpochOffset{g.l.topic: offsets}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if err != nil {
			g.failures[err.Error()]++
			return
		}
		for _, rt := range resp.Topics {
			for _, rp := range rt.Partitions {
				if rp.ErrorCode != 0 {
					g.failures[kerr.ErrorForCode(rp.ErrorCode).Error()]++
					continue
				}
				g.committed[rp.Partition] = max(g.committed[rp.Partition], offsets[rp.Partition].Offset)
				g.commits++
				if g.commit != nil && began.After(g.killed) {
					g.commit <- time.Since(g.killed)
					g.commit = nil
				}
			}
		}
	})
}

// watch asks for the committed offsets again and again until ctx ends: they
// never go back, and show every commit that was acknowledged before the question.
func (g *busyGroup) watch(ctx context.Context, wait *sync.WaitGroup) (asked func() int) {
	n := 0
	wait.Go(func() { // the watcher: ends with ctx
		last := map[int32]int64{}
		for ctx.Err() == nil {
			g.mu.Lock()
			before := maps.Clone(g.committed)
			g.mu.Unlock()
			ask, cancel := context.WithTimeout(ctx, 5*time.Second)
			got, err := g.admin.FetchOffsets(ask, g.name)
			cancel()
			if err == nil {
				n++
				g.l.mu.Lock()
				g.mu.Lock()
				for p := range g.l.partitions {
					o, ok := got.Lookup(g.l.topic, p)
					at := o.At
					if !ok || o.Err != nil {
						at = -1
					}
					acknowledged, was := before[p]
					earlier, seen := last[p]
					switch {
					case ok && o.Err != nil: // nothing was said of it
						continue
					case was && at < acknowledged:
						g.l.troubleLocked("I8 %s/%d: committed offset %d was read after %d was acknowledged", g.l.topic, p, at, acknowledged)
					case seen && at < earlier:
						g.l.troubleLocked("I8 %s/%d: committed offset %d was read after %d", g.l.topic, p, at, earlier)
					case at > g.tried[p]:
						g.l.troubleLocked("I8 %s/%d: committed offset %d was read, and nobody committed more than %d", g.l.topic, p, at, g.tried[p])
					}
					last[p] = at
				}
				g.mu.Unlock()
				g.l.mu.Unlock()
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	return func() int { return n }
}

// coordinator returns the node that coordinates the group.
func (g *busyGroup) coordinator() *node {
	g.l.t.Helper()
	var id int32
	eventually(g.l.t, patience, "coordinator of "+g.name, func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c := g.admin.FindGroupCoordinators(ctx, g.name)[g.name]
		id = c.NodeID
		return c.Err
	})
	return g.l.c.node(id)
}

// await waits for one of the times that kill promised.
func (g *busyGroup) await(what string, took <-chan time.Duration) time.Duration {
	g.l.t.Helper()
	select {
	case d := <-took:
		return d
	case <-time.After(2 * patience):
		g.l.t.Fatalf("%s: not within %v", what, 2*patience)
		return 0
	}
}

// kill kills the coordinator, and returns when a commit was acknowledged again,
// and when every partition was read again.
func (g *busyGroup) kill() (victim *node, commit, all time.Duration) {
	g.l.t.Helper()
	victim = g.coordinator()
	commits, reads := make(chan time.Duration, 1), make(chan time.Duration, 1)
	g.mu.Lock()
	g.killed, g.commit, g.resumed, g.all = time.Now(), commits, map[int32]bool{}, reads
	g.mu.Unlock()
	victim.Kill()
	commit = g.await("a commit after the coordinator was killed", commits)
	return victim, commit, g.await("reading every partition after the coordinator was killed", reads)
}

// S43. The coordinator of a group of 20 members that commit every 100 ms is
// killed again and again.
func TestBusyGroupSurvivesItsCoordinator(t *testing.T) {
	rounds := setting("FAULTS_GROUP_ROUNDS", 20)
	const members, partitions = 20, 30
	c := startCluster(t, 3, nil)
	c.createTopic("busy", partitions)
	l := newLedger(c, "busy", partitions)
	p := l.produce(20 * time.Millisecond)
	g := newBusyGroup(l, "busy")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wait sync.WaitGroup
	for range members {
		g.join(ctx, &wait)
	}
	asked := g.watch(ctx, &wait)
	eventually(t, patience, "every partition's offsets committed", func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if len(g.committed) < partitions {
			return fmt.Errorf("of %d partitions", len(g.committed))
		}
		return nil
	})
	c.awaitInSync("__consumer_offsets")
	g.mu.Lock()
	settled := g.assigned
	g.mu.Unlock()

	var commits, reads []time.Duration
	for round := range rounds {
		victim, commit, all := g.kill()
		commits, reads = append(commits, commit), append(reads, all)
		if commit > time.Second || all > time.Second {
			t.Logf("round %d: from the kill of node %d at %s to the next commit %s, to reading all partitions %s",
				round, victim.ID, g.killed.Format("15:04:05.000"), millis(commit), millis(all))
		}
		c.restart(victim)
		c.awaitInSync("busy")
		c.awaitInSync("__consumer_offsets")
	}
	g.mu.Lock()
	moved := g.assigned - settled
	g.mu.Unlock()
	p.finish()
	cancel()
	wait.Wait()
	y := l.check()
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "%d kills of the coordinator of %d members over %d partitions: %v; %d partitions identical", rounds, members, partitions, y, compared)
	figure(t, "kill to next commit: p50 %s, max %s; to a new record of every partition: p50 %s, max %s",
		millis(percentile(commits, 50)), millis(percentile(commits, 100)), millis(percentile(reads, 50)), millis(percentile(reads, 100)))
	figure(t, "%d offsets committed, failures %v; committed offsets asked for %d times; %d partitions moved between members meanwhile",
		g.commits, g.failures, asked(), moved)
	if asked() == 0 || g.commits == 0 {
		t.Error("nothing was checked")
	}
}

// The topic of committed offsets has 50 partitions of three replicas in every
// cluster, most of them without a record.
func TestIdleGroupsCostLittle(t *testing.T) {
	c := startCluster(t, 3, nil)
	watched := time.Duration(setting("FAULTS_IDLE_SECONDS", 20)) * time.Second
	use := func() (cpu time.Duration, rss int64) {
		var before time.Duration
		c.each(func(n *node) { before += n.usage().cpu })
		time.Sleep(watched)
		c.each(func(n *node) {
			u := n.usage()
			cpu += u.cpu
			rss = max(rss, u.rss)
		})
		return cpu - before, rss
	}
	time.Sleep(5 * time.Second)
	without, small := use()
	began := time.Now()
	admin := c.admin()
	eventually(t, patience, "a coordinator", func() error {
		return admin.FindGroupCoordinators(context.Background(), "g")["g"].Err
	})
	took := time.Since(began)
	c.awaitInSync("__consumer_offsets")
	time.Sleep(10 * time.Second) // preferred leaders settle
	with, large := use()
	figure(t, "three idle nodes together: %.1f %% of a core, with 50 partitions of committed offsets %.1f %%; largest %d and %d MiB; first coordinator after %s",
		100*without.Seconds()/watched.Seconds(), 100*with.Seconds()/watched.Seconds(), small>>20, large>>20, millis(took))
}

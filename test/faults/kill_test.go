//go:build faults

package faults

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// S1. Each round kills the leader of a partition with -9 while two idempotent
// producers send to all, waits for the next acknowledgement in that partition,
// and starts the node again.
func TestLeaderKilledAgainAndAgainLosesNothing(t *testing.T) {
	rounds := setting("FAULTS_ROUNDS", 100)
	const partitions = 3
	c := startCluster(t, 3, nil)
	c.createTopic("s1", partitions)
	l := newLedger(c, "s1", partitions)
	stopTail := l.tail()
	producers := []*load{l.produce(5 * time.Millisecond), l.produce(5 * time.Millisecond)}
	for i := range int32(partitions) {
		l.awaitAck(i, "before the first kill")
	}

	began := time.Now()
	var recovery, start []time.Duration
	for round := range rounds {
		partition := int32(round % partitions)
		leader := c.leader("s1", partition)
		leader.Signal(os.Kill)
		next := l.mark(partition)
		leader.Kill()
		took := next.wait(t, "after a kill of the leader")
		recovery = append(recovery, took)
		if took > time.Second {
			t.Logf("round %d: %s from the kill of node %d, leader of s1/%d, at %s to the next acknowledgement",
				round, millis(took), leader.ID, partition, next.since.Format("15:04:05.000"))
		}
		restarted := time.Now()
		c.restart(leader)
		start = append(start, time.Since(restarted))
		c.awaitInSync("s1")
	}
	elapsed := time.Since(began)
	for _, p := range producers {
		p.finish()
	}
	y := l.check()
	tailed := stopTail()
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "%d rounds of kill -9 of the leader in %.0f s: %v", rounds, elapsed.Seconds(), y)
	figure(t, "kill to next acknowledgement: p50 %s, p95 %s, max %s", millis(percentile(recovery, 50)), millis(percentile(recovery, 95)), millis(percentile(recovery, 100)))
	figure(t, "restart to ready: p50 %s, max %s; a consumer alongside read %d; %d partitions identical on three nodes",
		millis(percentile(start, 50)), millis(percentile(start, 100)), tailed, compared)
}

// S2. A follower's death costs nothing; it catches up.
func TestFollowerKilledLosesNothing(t *testing.T) {
	rounds := setting("FAULTS_FOLLOWER_ROUNDS", 5)
	c := startCluster(t, 3, nil)
	c.createTopic("s2", 1)
	l := newLedger(c, "s2", 1)
	p := l.produce(2 * time.Millisecond)
	l.awaitAcknowledged(100)
	var recovery []time.Duration
	for range rounds {
		leader := c.leader("s2", 0)
		follower := c.node(leader.ID%3 + 1)
		next := l.mark(0)
		follower.Kill()
		recovery = append(recovery, next.wait(t, "after a kill of a follower"))
		l.awaitAcknowledged(200)
		c.restart(follower)
		c.awaitInSync("s2")
	}
	p.finish()
	y := l.check()
	c.Stop()
	c.checkAtRest()
	figure(t, "%d rounds of kill -9 of a follower: %v; to the next acknowledgement p50 %s, max %s",
		rounds, y, millis(percentile(recovery, 50)), millis(percentile(recovery, 100)))
}

// S3. All three die at once during a produce, and start again in any order.
func TestAllKilledAtOnceLosesNothing(t *testing.T) {
	rounds := setting("FAULTS_ALL_ROUNDS", 5)
	const partitions = 3
	c := startCluster(t, 3, nil)
	c.createTopic("s3", partitions)
	l := newLedger(c, "s3", partitions)
	p := l.produce(2 * time.Millisecond)
	var recovery []time.Duration
	for range rounds {
		l.awaitAcknowledged(500)
		c.KillAll()
		began := time.Now()
		order := rand.Perm(len(c.nodes))
		t.Logf("restart in the order %v", order)
		next := l.mark(0)
		for _, i := range order {
			c.nodes[i].Start()
			time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		}
		c.each((*node).AwaitReady)
		next.wait(t, "after the restart of all")
		recovery = append(recovery, time.Since(began))
		l.check()
	}
	p.finish()
	y := l.check()
	replay(t, c, l)
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "%d rounds of kill -9 of all three: %v; %d partitions identical; kill to next acknowledgement p50 %s, max %s",
		rounds, y, compared, millis(percentile(recovery, 50)), millis(percentile(recovery, 100)))
}

//go:build faults

package faults

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"
)

// S33. A follower loses its disk and comes back empty under its old name.
func TestWipedFollowerCatchesUp(t *testing.T) {
	const partitions = 2
	c := startCluster(t, 3, nil)
	c.createTopic("s33", partitions, "segment.bytes=1048576")
	l := newLedger(c, "s33", partitions)
	l.valueBytes = 4000
	p := l.produce(2 * time.Millisecond)
	l.awaitAcknowledged(2000)
	leader := c.leader("s33", 0)
	victim := c.node(leader.ID%3 + 1)
	victim.Kill()
	l.awaitAcknowledged(300)
	if err := os.RemoveAll(victim.Data); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	victim.Start("--node-id", fmt.Sprint(victim.ID), "--join", leader.Address)
	victim.AwaitReady()
	c.awaitInSync("s33")
	took := time.Since(began)
	l.awaitAcknowledged(300)
	p.finish()
	c.awaitInSync("s33")

	// Its copy counts: with another node gone, the wiped one is needed for a quorum.
	leader.Kill()
	q := l.produce(5 * time.Millisecond)
	l.awaitAcknowledged(100)
	q.finish()
	y := l.check()
	c.restart(leader)
	c.awaitInSync("s33")
	c.Stop()
	compared := c.checkAtRest()
	logged(t, victim, "caught up by segments")
	figure(t, "node %d wiped: in sync after %s (%d catch-ups by segments); %v; %d partitions identical",
		victim.ID, millis(took), len(victim.GrepLog("caught up by segments")), y, compared)
}

// S7. A follower is away until retention has taken what it lacks.
func TestFollowerPastRetentionCatchesUpBySegments(t *testing.T) {
	c := startConfigured(t, "log.retention.check.interval.ms=1000")
	c.createTopic("s7", 1, "segment.bytes=1048576", "retention.bytes=2097152")
	l := newLedger(c, "s7", 1)
	l.valueBytes = 50_000 // more than the leader keeps in memory: the entries are really gone
	p := l.produce(2 * time.Millisecond)
	l.awaitAcknowledged(200)
	leader := c.leader("s7", 0)
	victim := c.node(leader.ID%3 + 1)
	victim.Kill()
	admin := c.admin()
	_, ends := l.offsets(admin)
	had := ends["s7"][0].Offset
	l.awaitAcknowledged(2000)
	var start int64
	eventually(t, patience, "retention passes the absent follower", func() error {
		starts, err := admin.ListStartOffsets(context.Background(), "s7")
		if err != nil {
			return err
		}
		start = starts["s7"][0].Offset
		if start <= had {
			return fmt.Errorf("start %d, follower has up to %d", start, had)
		}
		return nil
	})
	began := time.Now()
	c.restart(victim)
	c.awaitInSync("s7")
	took := time.Since(began)
	l.awaitAcknowledged(100)
	p.finish()
	c.awaitInSync("s7")
	leader.Kill()
	q := l.produce(5 * time.Millisecond)
	l.awaitAcknowledged(100)
	q.finish()
	y := l.check()
	c.restart(leader)
	c.awaitInSync("s7")
	c.Stop()
	c.checkAtRest()
	logged(t, victim, "caught up by segments")
	if len(victim.GrepLog("caught up by segments")) == 0 {
		t.Error("the follower never pulled a segment")
	}
	figure(t, "the follower had up to offset %d, the log began at %d: in sync after %s, %d catch-ups by segments; %v",
		had, start, millis(took), len(victim.GrepLog("caught up by segments")), y)
}

// logged prints the lines of a node's log that hold a text.
func logged(t *testing.T, n *node, text string) {
	for _, line := range n.GrepLog(text) {
		t.Log(line)
	}
}

// S37. A topic is deleted and made again under the same name while a node is
// away: the node comes back to the new one, and the old one's data is gone.
func TestTopicMadeAnewWhileANodeIsAway(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.createTopic("s37", 2)
	first := newLedger(c, "s37", 2)
	p := first.produce(2 * time.Millisecond)
	first.awaitAcknowledged(500)
	p.finish()
	first.check()
	old := c.topicID("s37")
	victim := c.nodes[2]
	victim.Kill()
	admin := c.admin()
	eventually(t, patience, "the topic is deleted", func() error {
		r, err := admin.DeleteTopic(context.Background(), "s37")
		if err != nil {
			return err
		}
		return r.Err
	})
	c.createTopic("s37", 2)
	id := c.topicID("s37")
	if id == old {
		t.Errorf("the new topic has the old one's id %s", id)
	}
	second := newLedger(c, "s37", 2)
	p = second.produce(2 * time.Millisecond)
	second.awaitAcknowledged(300)
	c.restart(victim)
	c.awaitInSync("s37")
	second.awaitAcknowledged(300)
	p.finish()
	// The node that was away must count, and must serve the new topic only.
	c.nodes[0].Kill()
	y := second.check()
	c.restart(c.nodes[0])
	c.awaitInSync("s37")
	eventually(t, patience, "the old topic's folders are gone", func() error {
		for _, n := range c.nodes {
			for i := range int32(2) {
				if _, err := os.Stat(n.folder(old, i)); err == nil {
					return fmt.Errorf("node %d still has %s-%d", n.ID, old, i)
				}
			}
		}
		return nil
	})
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "deleted and made anew while node %d was away: %v; %d partitions identical", victim.ID, y, compared)
}

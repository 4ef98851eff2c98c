//go:build faults

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// S48. A thousand partitions, three replicas each, on one machine.
func TestThousandPartitionsIdleCheaply(t *testing.T) {
	partitions := setting("FAULTS_PARTITIONS", 1000)
	c := startCluster(t, 3, nil)
	admin := c.admin()
	admin.SetTimeoutMillis(120_000)
	var cpu time.Duration
	c.each(func(n *node) {
		figure(t, "before: node %d uses %d MiB", n.ID, n.usage().rss>>20)
		cpu -= n.usage().cpu
	})

	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	if _, err := admin.CreateTopic(ctx, int32(partitions), 3, map[string]*string{"retention.ms": ptr("-1")}, "many"); err != nil {
		t.Fatalf("create topic: %v", err)
	}
	created := time.Since(began)
	c.awaitAll(admin, "many", -1)
	c.each(func(n *node) { cpu += n.usage().cpu })
	figure(t, "%d partitions x 3 replicas: created in %s, all led after %s; %.1f s of CPU on all nodes",
		partitions, millis(created), millis(time.Since(began)), cpu.Seconds())
	c.awaitInSync("many")
	figure(t, "all in sync after %s", millis(time.Since(began)))

	// Idle: what do nothing but heartbeats cost?
	time.Sleep(5 * time.Second)
	idle := func(when string) {
		const span = 10 * time.Second
		before := make(map[int32]usage)
		c.each(func(n *node) { before[n.ID] = n.usage() })
		time.Sleep(span)
		c.each(func(n *node) {
			u := n.usage()
			percent := 100 * float64(u.cpu-before[n.ID].cpu) / float64(span)
			figure(t, "%s: node %d uses %.1f %% of a core, %d MiB of memory, %d MiB of disk", when, n.ID, percent, u.rss>>20, diskUsed(n.Data)>>20)
			if percent >= 50 {
				t.Errorf("an idle node uses %.1f %% of a core", percent)
			}
		})
	}
	idle("idle")

	l := newLedger(c, "many", 20) // the first twenty are enough to see that it works
	p := l.produce(50 * time.Millisecond)
	l.awaitAcknowledged(200)
	victim := c.nodes[1]
	killed := time.Now()
	victim.Kill()
	c.awaitAll(admin, "many", victim.ID)
	figure(t, "node %d killed: all partitions led by others after %s", victim.ID, millis(time.Since(killed)))
	restarted := time.Now()
	c.restart(victim)
	figure(t, "node %d serves %s after its restart", victim.ID, millis(time.Since(restarted)))
	c.awaitInSync("many")
	figure(t, "all replicas in sync %s after the restart", millis(time.Since(restarted)))
	p.finish()
	y := l.check()

	c.KillAll()
	restarted = time.Now()
	c.restart(c.nodes...)
	c.awaitAll(admin, "many", -1)
	figure(t, "all killed: all partitions led again %s after the restart; %v", millis(time.Since(restarted)), y)
	c.awaitInSync("many")
	l.check()
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "%d partitions identical at rest", compared)
}

// awaitAll waits until all partitions of a topic are led, and none by the node given.
func (c *cluster) awaitAll(admin *kadm.Client, topic string, not int32) {
	c.t.Helper()
	eventually(c.t, 2*patience, "leaders of "+topic, func() error {
		d, err := c.describe(admin, topic)
		if err != nil {
			return err
		}
		without := 0
		for _, p := range d.Partitions {
			if p.Err != nil || p.Leader < 0 || p.Leader == not {
				without++
			}
		}
		if without > 0 {
			return fmt.Errorf("%d partitions have no new leader", without)
		}
		return nil
	})
}

//go:build faults

package faults

import (
	"math/rand/v2"
	"testing"
	"time"
)

// S4. Every node's data folder lies on its own ext4 image. All three images lose
// power at once under load: what was not synced is gone. What was acknowledged is not.
func TestPowerLossOfAllAtOnceLosesNothing(t *testing.T) {
	rounds := setting("FAULTS_POWER_ROUNDS", 4)
	const partitions = 3
	disks := make(map[int32]*volume)
	c := newClusterOnDisks(t, disks)
	c.createTopic("s4", partitions)
	l := newLedger(c, "s4", partitions)
	p := l.produce(2 * time.Millisecond)
	for range rounds {
		l.awaitAcknowledged(500)
		for _, d := range disks {
			d.cutPower()
		}
		c.KillAll()
		for _, d := range disks {
			d.unmount()
			d.mount()
		}
		next := l.mark(0)
		for _, i := range rand.Perm(len(c.nodes)) {
			c.nodes[i].Start()
		}
		c.each((*node).AwaitReady)
		next.wait(t, "after the power came back")
		l.check()
	}
	p.finish()
	y := l.check()
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "%d power losses of all three nodes at once under load: %v; %d partitions identical", rounds, y, compared)
}

// S5, in part. One node, the leader of a partition, loses power under load.
func TestPowerLossOfOneLosesNothing(t *testing.T) {
	rounds := setting("FAULTS_POWER_ROUNDS", 4)
	disks := make(map[int32]*volume)
	c := newClusterOnDisks(t, disks)
	c.createTopic("s5", 1)
	l := newLedger(c, "s5", 1)
	p := l.produce(2 * time.Millisecond)
	var recovery []time.Duration
	for range rounds {
		l.awaitAcknowledged(500)
		leader := c.leader("s5", 0)
		next := l.mark(0)
		disks[leader.ID].cutPower()
		leader.Kill()
		recovery = append(recovery, next.wait(t, "after a power loss of the leader"))
		disks[leader.ID].unmount()
		disks[leader.ID].mount()
		c.restart(leader)
		c.awaitInSync("s5")
	}
	p.finish()
	y := l.check()
	c.Stop()
	c.checkAtRest()
	figure(t, "%d power losses of the leader under load: %v; to the next acknowledgement p50 %s, max %s",
		rounds, y, millis(percentile(recovery, 50)), millis(percentile(recovery, 100)))
}

func newClusterOnDisks(t *testing.T, disks map[int32]*volume) *cluster {
	t.Helper()
	return startCluster(t, 3, func(n *node) { disks[n.ID] = newDisk(t, n, 512) })
}

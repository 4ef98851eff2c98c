//go:build faults

package faults

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// S20. Data folders lie on small file systems that fill up: a follower's, the
// leader's, all. Producers get errors they retry, readers read on, and when
// there is room again everything goes on without a restart.
func TestFullDiskIsRetriableAndHealsWithoutRestart(t *testing.T) {
	disks := make(map[int32]*volume)
	c := startCluster(t, 3, func(n *node) { disks[n.id] = newMemory(t, n, 96) })
	c.createTopic("s20", 1, "segment.bytes=4194304")
	pids := make(map[int32]int)
	c.each(func(n *node) { pids[n.id] = n.pid })
	l := newLedger(c, "s20", 1)
	l.valueBytes = 8000
	p := l.produce(10 * time.Millisecond)
	l.awaitAcknowledged(100)

	leader := c.leader("s20", 0)
	follower := c.node(leader.id%3 + 1)
	disks[follower.id].fill(0)
	l.awaitAcknowledged(300) // past whatever was preallocated
	l.check()
	disks[follower.id].makeRoom()
	c.awaitInSync("s20")
	figure(t, "a follower's disk full: producing went on; caught up when there was room")

	leader = c.leader("s20", 0)
	disks[leader.id].fill(0)
	began := time.Now()
	l.awaitAcknowledged(300)
	l.check()
	now := c.leader("s20", 0)
	disks[leader.id].makeRoom()
	c.awaitInSync("s20")
	figure(t, "the leader's disk full (node %d; afterwards node %d led): 300 more records were acknowledged in %s", leader.id, now.id, millis(time.Since(began)))

	for _, d := range disks {
		d.fill(0)
	}
	raw := c.client(kgo.MaxVersions(produceTwelve()))
	codes := make(map[string]int)
	refusedBy := ""
	deadline := time.Now().Add(patience)
	for attempt := 0; refusedBy == "" && time.Now().Before(deadline); attempt++ {
		leader := c.leader("s20", 0)
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		a, err := produceRaw(ctx, raw, leader.id, "s20", 0, l.value(1<<20, 0, attempt)) // a value of no ledger
		cancel()
		switch {
		case err != nil:
			codes[err.Error()]++
		case a.ErrorCode == 0:
			codes["acknowledged"]++
		default:
			refusedBy = kerr.ErrorForCode(a.ErrorCode).(*kerr.Error).Message
			codes[refusedBy]++
			if !retriable(a.ErrorCode) {
				t.Errorf("with all disks full a produce gets %s, which clients do not retry", refusedBy)
			}
		}
	}
	if refusedBy == "" {
		t.Errorf("with all disks full no produce was refused: %v", codes)
	}
	readers := l.readAll()[0]
	for _, d := range disks {
		d.makeRoom()
	}
	began = time.Now()
	l.awaitAck(0, "after there was room again")
	figure(t, "all disks full: produces got %v, %d records could be read; with room again, the next acknowledgement after %s", codes, len(readers), millis(time.Since(began)))
	p.finish()
	c.awaitInSync("s20")
	c.each(func(n *node) {
		if !n.running() || n.pid != pids[n.id] {
			t.Errorf("node %d did not live through it", n.id)
		}
	})
	y := l.check()
	c.stop()
	c.checkAtRest()
	figure(t, "%v", y)
}

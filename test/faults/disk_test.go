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
// leader's, all. Producers are served or get errors they retry, readers read on,
// and when there is room again everything goes on without a restart.
func TestFullDiskIsRetriableAndHealsWithoutRestart(t *testing.T) {
	disks := make(map[int32]*volume)
	c := startCluster(t, 3, func(n *node) { disks[n.ID] = newMemory(t, n, 96) })
	// Small segments, so that what is allocated ahead is used up soon.
	c.createTopic("s20", 1, "segment.bytes=4194304")
	living := c.mustLive()
	l := newLedger(c, "s20", 1)
	l.valueBytes = 8000
	p := l.produce(10 * time.Millisecond)
	l.awaitAcknowledged(100)

	// A follower: a quorum has room, so producing goes on.
	leader := c.leader("s20", 0)
	follower := c.node(leader.ID%3 + 1)
	disks[follower.ID].fill(0)
	l.awaitAcknowledged(300) // past whatever was allocated ahead
	l.check()
	disks[follower.ID].makeRoom()
	c.awaitInSync("s20")
	figure(t, "a follower's disk full: producing went on; caught up when there was room")

	for _, what := range []string{"the leader's disk", "all disks"} {
		full := c.nodes
		if what == "the leader's disk" {
			full = []*node{c.leader("s20", 0)}
		}
		for _, n := range full {
			disks[n.ID].fill(0)
		}
		acked, codes := c.fillUntilRefused(t, "s20", 300)
		if acked == 300 && len(full) == len(c.nodes) {
			t.Errorf("with %s full, 300 batches were acknowledged", what)
		}
		readable := len(l.readAll()[0])
		for _, n := range full {
			disks[n.ID].makeRoom()
		}
		healed := l.awaitAck(0, "after there was room again")
		c.awaitInSync("s20")
		figure(t, "%s full: %d batches acknowledged, then %v; %d records could be read; with room again, the next acknowledgement after %s",
			what, acked, codes, readable, millis(healed))
	}
	p.finish()
	living()
	y := l.check()
	c.Stop()
	c.checkAtRest()
	figure(t, "%v", y)
}

// fillUntilRefused sends batches to whoever leads, one at a time and without
// retries, until some have been refused or enough acknowledged. Every refusal
// has to be one that clients retry. It returns how many were acknowledged and
// what the others got.
func (c *cluster) fillUntilRefused(t *testing.T, topic string, enough int) (acked int, codes map[string]int) {
	t.Helper()
	client := c.client(kgo.MaxVersions(produceTwelve()))
	defer client.Close()
	codes = make(map[string]int)
	noise := newLedger(c, topic, 1)
	noise.valueBytes = 100_000
	deadline := time.Now().Add(patience)
	for refused := 0; refused < 5 && acked < enough && time.Now().Before(deadline); {
		leader := c.leader(topic, 0)
		ctx, cancel := context.WithTimeout(context.Background(), 25*time.Second)
		a, err := produceRaw(ctx, client, leader.ID, topic, 0, noise.value(rawProducer, 0, acked))
		cancel()
		switch {
		case err != nil:
			codes[err.Error()]++
			refused++
		case a.ErrorCode == 0:
			acked++
		default:
			codes[kerr.ErrorForCode(a.ErrorCode).(*kerr.Error).Message]++
			refused++
			if !retriable(a.ErrorCode) {
				t.Errorf("a produce to a full disk gets %v, which clients do not retry", kerr.ErrorForCode(a.ErrorCode))
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	return acked, codes
}

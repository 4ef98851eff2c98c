//go:build faults

package faults

import (
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"
)

// limited is this machine, where a process may have so many descriptors.
type limited int

// Command implements testcluster.Host.
func (l limited) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("prlimit", append([]string{fmt.Sprintf("--nofile=%d:%d", l, l), name}, args...)...)
}

// S25. A flood of connections takes a node's descriptors while segments roll, on
// the leader, a follower and the controller. When the flood is over everything
// is acknowledged and in sync again, without a restart.
func TestDescriptorFloodLeavesNothingDeaf(t *testing.T) {
	if _, err := exec.LookPath("prlimit"); err != nil {
		t.Skip("prlimit (package util-linux) is not installed: not run")
	}
	const limit, flood = 200, 400
	c := startCluster(t, 3, func(n *node) {
		n.Host = limited(limit)
	})
	// Small segments, so that they roll all the time; two replicas are a quorum.
	c.createTopic("s25", 3, "segment.bytes=1048576")
	living := c.mustLive()
	l := newLedger(c, "s25", 3)
	l.valueBytes = 20_000
	p := l.produce(10 * time.Millisecond)
	l.awaitAcknowledged(300)
	leader := c.leader("s25", 0)
	for _, victim := range []struct {
		what string
		*node
	}{
		{"the leader of partition 0", leader},
		{"a follower of it", c.node(leader.ID%3 + 1)},
		{"the controller", c.controller()},
	} {
		var all []net.Conn
		for range flood {
			conn, err := net.DialTimeout("tcp", victim.Address, time.Second)
			if err != nil {
				break // the queue of connections is full as well
			}
			all = append(all, conn)
		}
		time.Sleep(5 * time.Second) // segments roll meanwhile, or do not
		for _, conn := range all {
			conn.Close()
		}
		var worst time.Duration
		for partition := range int32(3) {
			worst = max(worst, l.awaitAck(partition, "after the flood of "+victim.what))
		}
		c.awaitInSync("s25")
		c.AwaitHealthy()
		figure(t, "%d connections to %s, whose limit is %d descriptors: after the flood the next acknowledgement within %s",
			len(all), victim.what, limit, millis(worst))
	}
	p.finish()
	living()
	y := l.check()
	c.Stop()
	c.checkAtRest()
	figure(t, "%v", y)
}

package replication

import (
	"testing"
	"time"

	"millrace/replication/raftgroup"
)

// The times of replication are chosen one by one and hold together: whoever changes
// one reads here what else depends on it, and in the tables of raftgroup and failover.
func TestTimesGoTogether(t *testing.T) {
	for _, c := range []struct {
		less    time.Duration
		than    time.Duration
		because string
	}{
		{max(raftgroup.PeerTimeout+raftgroup.PingInterval, cutOffAfter) + stallEvery, 5 * time.Second, "a consumer that waits at a leader that is cut off looks for another within 5 s"},
		{stallTime, raftgroup.LeaseTimeout, "a leader whose disk hangs is replaced by its own node"},
		{stallEvery, stallTime, "which looks often enough"},
		{transferTime, callTimeout, "a transfer ends before the call that asked for it"},
		{confirmTime, callTimeout, "a round of questions too"},
		{raftgroup.PeerTimeout + raftgroup.ElectionStagger, settleTime, "leadership is not handed back to a node that was given up and may be again"},
		{memberEvery, quietEvery, "what happens is looked after sooner than what does not"},
	} {
		if c.less >= c.than {
			t.Errorf("%v is not less than %v: %s", c.less, c.than, c.because)
		}
	}
}

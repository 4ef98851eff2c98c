package replication

import (
	"testing"
	"time"

	"millrace/replication/partition"
	"millrace/replication/raftgroup"
)

// The times of replication are chosen one by one and hold together: whoever changes
// one reads here what else depends on it, and in the tables of raftgroup, partition and
// failover.
func TestTimesGoTogether(t *testing.T) {
	for _, c := range []struct {
		less    time.Duration
		than    time.Duration
		because string
	}{
		{max(raftgroup.PeerTimeout+raftgroup.PingInterval, partition.CutOffAfter) + stallEvery, 5 * time.Second, "a consumer that waits at a leader that is cut off looks for another within 5 s"},
		{stallEvery, partition.StallTime, "which looks often enough"},
		{memberEvery, quietEvery, "what happens is looked after sooner than what does not"},
	} {
		if c.less >= c.than {
			t.Errorf("%v is not less than %v: %s", c.less, c.than, c.because)
		}
	}
}

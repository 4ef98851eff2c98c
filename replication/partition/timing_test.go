package partition

import (
	"testing"
	"time"

	"millrace/replication/raftgroup"
)

// The times of a partition are chosen one by one and hold together: whoever changes
// one reads here what else depends on it, and in the tables of packages raftgroup and
// replication.
func TestPartitionTimesGoTogether(t *testing.T) {
	for _, c := range []struct {
		less    time.Duration
		than    time.Duration
		because string
	}{
		{StallTime, raftgroup.LeaseTimeout, "a leader whose disk hangs is replaced by its own node"},
		{TransferTime, callTimeout, "a transfer ends before the call that asked for it"},
		{ConfirmTime, callTimeout, "a round of questions too"},
		{raftgroup.PeerTimeout + raftgroup.ElectionStagger, SettleTime, "leadership is not handed back to a node that was given up and may be again"},
	} {
		if c.less >= c.than {
			t.Errorf("%v is not less than %v: %s", c.less, c.than, c.because)
		}
	}
}

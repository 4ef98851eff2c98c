package failover

import (
	"testing"
	"time"

	"millrace/replication/raftgroup"
)

// The times of failover are chosen one by one and hold together, with those of all groups.
func TestTimesGoTogether(t *testing.T) {
	for _, c := range []struct {
		less    time.Duration
		than    time.Duration
		because string
	}{
		{introduction, raftgroup.ElectionStagger, "who leads has said so before the second campaigns"},
		{2 * raftgroup.ElectionStagger, shortenAfter, "three voters have campaigned before Raft's timers are changed"},
		{2 * raftgroup.ElectionStagger, giveAfter, "a leader that stepped down has campaigned before the others are told"},
		{giveAfter, shortenAfter, "and they are told before Raft's timers are changed"},
		{shortenAfter, lackTime, "an election that goes well is not logged as one that lacks"},
		{resendEvery, raftgroup.ElectionStagger, "news that did not arrive come again before the next campaign"},
		{lookEvery, raftgroup.ElectionStagger, "campaigns are told apart"},
		{isolatedAfter, raftgroup.LeaseTimeout, "who is cut off says that it knows no leader before a leader that is has ended its lease"},
	} {
		if c.less >= c.than {
			t.Errorf("%v is not less than %v: %s", c.less, c.than, c.because)
		}
	}
}

package raftgroup

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// The times of groups are chosen one by one and hold together: whoever changes
// one reads here what else depends on it, and in the table of package replication.
func TestGroupTimesGoTogether(t *testing.T) {
	for _, c := range []struct {
		less    time.Duration
		than    time.Duration
		because string
	}{
		{QuiesceTime + PingInterval + GatherInterval, LeaseTimeout, "a leader keeps its lease though its followers are asked only after they were quiesced, at the next ping, in company"},
		{LeaseTimeout, HeartbeatTimeout, "a leader that is cut off has ended its lease before Raft alone has another elected"},
		{LeaseTimeout - 1, ShortTimeout, "Raft refuses a heartbeat timeout below the lease"},
		{ShortTimeout, HeartbeatTimeout, "the shortened timeout is shorter than the long one"},
		{timeoutStep, ElectionStagger, "the election timeout is the heartbeat timeout, to all but PokeElectionTimer"},
		{QuiesceTime, HeartbeatTimeout / 2, "a follower does not give up a leader that is quiesced once, and once more"},
		{QuiesceTime, LagTime, "a follower that is quiesced is in sync"},
		{LagTime, 30 * time.Second, "clients see who lags no later than with Kafka"},
		{3 * PingInterval, PeerTimeout, "two lost pings make nobody dead"},
		{PeerTimeout + PingInterval + 3*ElectionStagger, 10 * time.Second, "a silent leader is replaced within 10 s, whoever of three has the log for it"},
		{PeerTimeout, LeaseTimeout, "who is silent is replaced by evidence, before its lease ends"},
		{PeerTimeout, AnswerTimeout, "a connection that is dead ends before what waits on it"},
		{voteRetryEvery, ElectionStagger, "a question for a vote comes again before the next campaign"},
	} {
		if c.less >= c.than {
			t.Errorf("%v is not less than %v: %s", c.less, c.than, c.because)
		}
	}
	for _, timeout := range []time.Duration{HeartbeatTimeout, ShortTimeout} {
		conf := raft.DefaultConfig()
		conf.LocalID = "1.aa"
		conf.HeartbeatTimeout, conf.ElectionTimeout = timeout, timeout+timeoutStep
		conf.LeaderLeaseTimeout, conf.CommitTimeout = LeaseTimeout, CommitTimeout
		if err := raft.ValidateConfig(conf); err != nil {
			t.Errorf("Raft refuses a heartbeat timeout of %v: %v", timeout, err)
		}
	}
}

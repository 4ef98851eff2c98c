package replication

import (
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// The times of replication are chosen one by one and hold together: whoever changes
// one reads here what else depends on it.
func TestTimesGoTogether(t *testing.T) {
	const tick = 20 * time.Millisecond // of electLoop
	for _, c := range []struct {
		less    time.Duration
		than    time.Duration
		because string
	}{
		{quiesceTime + pingInterval + gatherInterval, leaseTimeout, "a leader keeps its lease though its followers are asked only after they were quiesced, at the next ping, in company"},
		{leaseTimeout, heartbeatTimeout, "a leader that is cut off has ended its lease before Raft alone has another elected"},
		{leaseTimeout - 1, shortTimeout, "Raft refuses a heartbeat timeout below the lease"},
		{shortTimeout, heartbeatTimeout, "the shortened timeout is shorter than the long one"},
		{timeoutStep, tick, "the election timeout is the heartbeat timeout, to all but pokeElectionTimer"},
		{quiesceTime, heartbeatTimeout / 2, "a follower does not give up a leader that is quiesced once, and once more"},
		{quiesceTime, lagTime, "a follower that is quiesced is in sync"},
		{lagTime, 30 * time.Second, "clients see who lags no later than with Kafka"},
		{3 * pingInterval, peerTimeout, "two lost pings make nobody dead"},
		{peerTimeout + pingInterval + 3*electionStagger, 10 * time.Second, "a silent leader is replaced within 10 s, whoever of three has the log for it"},
		{peerTimeout, leaseTimeout, "who is silent is replaced by evidence, before its lease ends"},
		{peerTimeout, answerTimeout, "a connection that is dead ends before what waits on it"},
		{introduction, electionStagger, "who leads has said so before the second campaigns"},
		{2 * electionStagger, shortenAfter, "three voters have campaigned before Raft's timers are changed"},
		{2 * electionStagger, giveAfter, "a leader that stepped down has campaigned before the others are told"},
		{giveAfter, shortenAfter, "and they are told before Raft's timers are changed"},
		{shortenAfter, lackTime, "an election that goes well is not logged as one that lacks"},
		{resendEvery, electionStagger, "news that did not arrive come again before the next campaign"},
		{voteRetryEvery, electionStagger, "a question for a vote comes again before the next campaign"},
		{tick, electionStagger, "campaigns are told apart"},
		{max(peerTimeout+pingInterval, cutOffAfter) + stallEvery, 5 * time.Second, "a consumer that waits at a leader that is cut off looks for another within 5 s"},
		{stallTime, leaseTimeout, "a leader whose disk hangs is replaced by its own node"},
		{stallEvery, stallTime, "which looks often enough"},
		{transferTime, callTimeout, "a transfer ends before the call that asked for it"},
		{confirmTime, callTimeout, "a round of questions too"},
		{peerTimeout + electionStagger, settleTime, "leadership is not handed back to a node that was given up and may be again"},
		{memberEvery, quietEvery, "what happens is looked after sooner than what does not"},
	} {
		if c.less >= c.than {
			t.Errorf("%v is not less than %v: %s", c.less, c.than, c.because)
		}
	}
	for _, timeout := range []time.Duration{heartbeatTimeout, shortTimeout} {
		conf := raft.DefaultConfig()
		conf.LocalID = "1.aa"
		conf.HeartbeatTimeout, conf.ElectionTimeout = timeout, timeout+timeoutStep
		conf.LeaderLeaseTimeout, conf.CommitTimeout = leaseTimeout, commitTimeout
		if err := raft.ValidateConfig(conf); err != nil {
			t.Errorf("Raft refuses a heartbeat timeout of %v: %v", timeout, err)
		}
	}
}

package raftgroup

import "time"

// The times of all Raft groups, and of the evidence that stands in for Raft's own timers.
// How they relate to each other, and why, is a table in TestTimesGoTogether, which holds
// them to it; those of package replication stand in one of its own, beside these.
//
// Raft's own timers are for silent failures only: a process that dies, or says nothing
// for PeerTimeout, is replaced by evidence, a leader whose disk hangs has another elected,
// and a group without a leader gets shorter timers until it has one. Long ones are what
// makes an idle group cheap, since it is waking up that costs, some 70 µs each time.
const (
	// HeartbeatTimeout is how long a follower waits for its leader, and five to
	// ten times what a leader waits before its next heartbeat, which is held then.
	HeartbeatTimeout = 36 * time.Second
	// ShortTimeout is in its place where a group has no leader for a while: should all
	// campaigns lead nowhere, the group tries again by itself. Raft takes none below the
	// lease.
	ShortTimeout = LeaseTimeout
	// QuiesceTime is from one answer of an idle follower to when it is asked again,
	// with the others that are due.
	QuiesceTime = 12 * time.Second
	// LeaseTimeout leaves a busy node the time to ask them all. Longer would only keep
	// a leader that is cut off for longer.
	LeaseTimeout = QuiesceTime + 2*time.Second
	// CommitTimeout, once to twice, is when Raft sends again what did not arrive, or
	// what it has committed, without a new entry that makes it. Nothing waits for it in a
	// partition: who comes back is sent an entry that changes nothing.
	CommitTimeout = 30 * time.Second
	// LagTime is as long as an idle follower may be silent, and a little; Kafka's
	// replica.lag.time.max.ms is 30 s.
	LagTime = QuiesceTime + 4*time.Second
	// timeoutStep is by how much the election timeout exceeds the heartbeat timeout,
	// for PokeElectionTimer.
	timeoutStep = time.Millisecond

	// PingInterval is how often a node says that it is there, PeerTimeout how long it
	// may say nothing before it is taken for dead.
	PingInterval = 500 * time.Millisecond
	PeerTimeout  = 3 * time.Second
	// AnswerTimeout bounds an append, a vote and a heartbeat, on a connection that lives.
	AnswerTimeout = 10 * time.Second
	// GatherInterval is what heartbeats wait for company. It is far below the lease, and
	// long enough that idle groups share frames.
	GatherInterval = 200 * time.Millisecond

	// ElectionStagger is from one voter's campaign to the next one's.
	ElectionStagger = 150 * time.Millisecond
	// voteRetryEvery is how often a candidate repeats a question that did not arrive.
	voteRetryEvery = 20 * time.Millisecond
)

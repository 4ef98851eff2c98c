package replication

import "time"

// The times of replication. How they relate to each other, and why, is a table in
// TestTimesGoTogether, which holds them to it.
//
// Raft's own timers are for silent failures only: a process that dies, or says nothing
// for peerTimeout, is replaced by evidence (see failover.go), a leader whose disk hangs for
// stallTime has another elected, and a group without a leader gets shorter ones until it
// has one. Long ones are what makes an idle group cheap, since it is waking up that
// costs, some 70 µs each time.
const (
	// Raft, in all groups.

	// heartbeatTimeout is how long a follower waits for its leader, and five to
	// ten times what a leader waits before its next heartbeat, which is held then.
	heartbeatTimeout = 36 * time.Second
	// quiesceTime is from one answer of an idle follower to when it is asked again,
	// with the others that are due.
	quiesceTime = 12 * time.Second
	// leaseTimeout leaves a busy node the time to ask them all. Longer would only keep
	// a leader that is cut off for longer.
	leaseTimeout = quiesceTime + 2*time.Second
	// commitTimeout, once to twice, is when Raft sends again what did not arrive, or
	// what it has committed, without a new entry that makes it. Nothing waits for it:
	// who comes back is sent an entry that changes nothing (see nudge).
	commitTimeout = 30 * time.Second
	// lagTime is as long as an idle follower may be silent, and a little; Kafka's
	// replica.lag.time.max.ms is 30 s.
	lagTime = quiesceTime + 4*time.Second
	// timeoutStep is by how much the election timeout exceeds the heartbeat timeout,
	// for pokeElectionTimer.
	timeoutStep = time.Millisecond

	// Nodes, and whether they are there.

	// pingInterval is how often a node says that it is there, peerTimeout how long it
	// may say nothing before it is taken for dead.
	pingInterval = 500 * time.Millisecond
	peerTimeout  = 3 * time.Second
	// answerTimeout bounds an append, a vote and a heartbeat, on a connection that lives.
	answerTimeout = 10 * time.Second
	// gatherInterval is what heartbeats wait for company. It is far below the lease, and
	// long enough that idle groups share frames.
	gatherInterval = 200 * time.Millisecond
	// isolatedAfter is for how long a node goes on telling clients who leads what when
	// it has lost the majority of the brokers: what it knows may be old from then on.
	isolatedAfter = 3 * time.Second
	// cutOffAfter is for how long a voter whose connections ended counts as heard since
	// its last word. A leader that hears no majority sends clients that wait for records
	// to look for another. Who was given up for its silence has been silent for as long.
	cutOffAfter = peerTimeout
	// seekEvery is how often the addresses given to join through are asked where the
	// others are, at first, and seekMost at last.
	seekEvery = 500 * time.Millisecond
	seekMost  = 30 * time.Second

	// Elections.

	// electionStagger is from one voter's campaign to the next one's.
	electionStagger = 150 * time.Millisecond
	// introduction is how long after the last peer came up nodes are given to
	// say which groups they lead.
	introduction = 100 * time.Millisecond
	// After shortenAfter without a leader, Raft's own election timeout is shortened to
	// shortTimeout, until there is one: should all campaigns lead nowhere, the group
	// tries again by itself. Raft takes none below the lease.
	shortenAfter = time.Second
	shortTimeout = leaseTimeout
	// giveAfter is for how long a leader that stepped down tries to be elected again
	// before the others, which still follow it, are told that it leads no more.
	giveAfter = 4 * electionStagger
	// voteRetryEvery is how often a candidate repeats a question that did not arrive.
	voteRetryEvery = 20 * time.Millisecond
	// resendEvery is how often a node is sent again what did not reach it.
	resendEvery = 20 * time.Millisecond
	// lackTime is how long a group may be without a leader before that is logged, and
	// lackEvery how often groups that lack one are, together.
	lackTime  = 5 * time.Second
	lackEvery = time.Second

	// Leadership, of one who is there.

	// stallTime is how long a write may take before the disk is said to hang.
	stallTime = 3 * time.Second
	// transferTime bounds a transfer of leadership, during which nobody serves.
	transferTime = 2 * time.Second
	// settleTime is how long leadership stays where it went before it is handed back.
	settleTime = 10 * time.Second
	// confirmTime bounds one round of questions to the voters. A leader that a
	// quorum does not answer for so long has lost its lease anyway.
	confirmTime = 3 * time.Second
	// callTimeout bounds the small calls that the node makes by itself.
	callTimeout = 5 * time.Second
)

// How often the upkeep goroutine looks after its chores.
const (
	stallEvery     = 250 * time.Millisecond
	controlEvery   = 50 * time.Millisecond // while the node is young and may have to become a voter
	settledAfter   = 30 * time.Second
	memberEvery    = time.Second     // after anything has happened, and while there are steps to take
	quietEvery     = 5 * time.Second // the same chore, otherwise
	choresEvery    = 15 * time.Second
	ageEvery       = time.Second // while something is written
	unmapIdleEvery = 5 * time.Minute
)

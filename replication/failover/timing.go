package failover

import (
	"time"

	"millrace/replication/raftgroup"
)

// How they relate to each other and to those of all groups (see raftgroup.HeartbeatTimeout),
// and why, is a table in TestTimesGoTogether, which holds them to it. From one voter's
// campaign to the next one's is raftgroup.ElectionStagger.
const (
	// lookEvery is how often groups without a leader are looked after.
	lookEvery = 20 * time.Millisecond
	// introduction is how long after the last peer came up nodes are given to
	// say which groups they lead.
	introduction = 100 * time.Millisecond
	// After shortenAfter without a leader, Raft's own election timeout is shortened
	// until there is one: should all campaigns lead nowhere, the group tries again by itself.
	shortenAfter = time.Second
	// giveAfter is for how long a leader that stepped down tries to be elected again
	// before the others, which still follow it, are told that it leads no more.
	giveAfter = 4 * raftgroup.ElectionStagger
	// resendEvery is how often a node is sent again what did not reach it.
	resendEvery = 20 * time.Millisecond
	// lackTime is how long a group may be without a leader before that is logged, and
	// lackEvery how often groups that lack one are, together.
	lackTime  = 5 * time.Second
	lackEvery = time.Second
	// isolatedAfter is for how long a node goes on telling clients who leads what when
	// it has lost the majority of the brokers: what it knows may be old from then on.
	isolatedAfter = 3 * time.Second
	// callTimeout bounds one message with gossip or a view.
	callTimeout = 5 * time.Second
)

package replication

import (
	"time"
)

// The times of replication, beside those of all groups (see raftgroup.HeartbeatTimeout).
// How they relate to each other, and why, is a table in TestTimesGoTogether, which holds
// them to it.
const (
	// Nodes, and whether they are there.

	// seekEvery is how often the addresses given to join through are asked where the
	// others are, at first, and seekMost at last.
	seekEvery = 500 * time.Millisecond
	seekMost  = 30 * time.Second

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

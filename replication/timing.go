package replication

import (
	"time"

	"millrace/replication/raftgroup"
)

// The times of replication, beside those of all groups (see raftgroup.HeartbeatTimeout).
// How they relate to each other, and why, is a table in TestTimesGoTogether, which holds
// them to it.
const (
	// Nodes, and whether they are there.

	// cutOffAfter is for how long a voter whose connections ended counts as heard since
	// its last word. A leader that hears no majority sends clients that wait for records
	// to look for another. Who was given up for its silence has been silent for as long.
	cutOffAfter = raftgroup.PeerTimeout
	// seekEvery is how often the addresses given to join through are asked where the
	// others are, at first, and seekMost at last.
	seekEvery = 500 * time.Millisecond
	seekMost  = 30 * time.Second

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

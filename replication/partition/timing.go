package partition

import (
	"time"

	"millrace/replication/raftgroup"
)

// The times of a partition's leadership, beside those of all groups (see
// raftgroup.HeartbeatTimeout): TestTimesGoTogether holds them to each other.
const (
	// StallTime is how long a write may take before the disk is said to hang.
	StallTime = 3 * time.Second
	// TransferTime bounds a transfer of leadership, during which nobody serves.
	TransferTime = 2 * time.Second
	// SettleTime is how long leadership stays where it went before it is handed back.
	SettleTime = 10 * time.Second
	// ConfirmTime bounds one round of questions to the voters. A leader that a
	// quorum does not answer for so long has lost its lease anyway.
	ConfirmTime = 3 * time.Second
	// CutOffAfter is for how long a voter whose connections ended counts as heard since
	// its last word. A leader that hears no majority sends clients that wait for records
	// to look for another. Who was given up for its silence has been silent for as long.
	CutOffAfter = raftgroup.PeerTimeout
	// callTime bounds what a replica asks of its group by itself.
	callTimeout = 5 * time.Second
)

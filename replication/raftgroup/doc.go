// Package raftgroup is this node's part in one Raft group. It is the same for the group of
// the controllers and for a partition's: what differs, which is the log, the state machine
// and what to do when leadership comes and goes, belongs to whoever embeds a [Member].
//
// What it adds to hashicorp/raft:
//
//   - Timers of half a minute, so that a thousand idle groups cost nothing. Failures are
//     met by evidence instead, by whoever implements [Elections]; a member that leads no
//     more says so there, and [Member.SendTimeoutNow] and [Member.PokeElectionTimer] are
//     how an election is begun without waiting for a timer.
//   - Votes that are asked for until somebody answers. Raft asks once.
//   - What followers have, by what they said in this term ([Progress]): who is in sync,
//     who may get a vote, who can take leadership over.
//   - That nobody hears of a commit which is not durable here: [Log] says up to where.
//   - A logger with limits ([LogLimits]): what Raft says of each group and heartbeat is
//     one line in a while.
package raftgroup

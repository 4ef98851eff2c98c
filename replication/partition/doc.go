// Package partition is one partition's replica on this node: a Raft group whose log is the
// partition's data, what appends to it and reads from it, and what a node has it do now and
// then. It knows the node that hosts it as an [Env]: what it asks of it is [Host], what it
// tells it is [Events]. Nothing here knows of topics' lists, elections or clients.
//
// # Partition, run, leadership
//
// Three types live inside each other, and each is shorter-lived than the one around it.
//
//	Partition   ├────────────────────────────────────────────────────────────┤  hosted here
//	Replica       ├── run ───────────┤bounce├── run ─────────────────────┤      NewRaft … Shutdown
//	leadership        ├ term 3 ┤ ├ 5 ┤          ├ term 9 ┤                       serves … ends
//
// A [Partition] is what the rest of the broker holds for as long as the node hosts a replica.
// It keeps what must not fall when a run ends: the high watermark with those who wait for it,
// the log start, and where the numbers of the next leadership begin.
//
// A [Replica] is one run: one Raft instance over one open log. Whenever Raft's memory and
// the disk may disagree (a store failed, a configuration was not stored, a folder was
// replaced by catch-up) the run is bounced: shut down, and another begun from what the disk
// says. It is never repaired. Three bounces in a minute and the partition stays down, with
// the reason; damaged data and a disk that failed are quarantined at once, since what the
// page cache still shows may not be on the disk. What the system only lacks for the moment
// (room, descriptors) is waited for.
//
//	opening ──► running ──► bouncing ──► running …
//	    │           │            │
//	    └───────────┴────────────┴────► quarantined   damaged data, or too many bounces
//
// A leadership is the time in one term in which the run may serve. It begins only once the
// first entry of its own term is committed and everything before it applied: then no entry
// of an earlier term is missing, and the producers are known. (A barrier of Raft's would
// say the same, but its future may never be answered.) There is one a term at most. It ends
// with the term, with the run, or when an entry of a later term is applied, whichever is
// noticed first; what it has in flight is unknown from then on.
//
// # Produce
//
//	Append ─► queue ─► appender ─► raft.ApplyLog ─► inflight ─► answered
//	                                    │              ▲  ▲
//	                                StoreLogs ── stored   │
//	                                commit ─► fsm ───── applied
//
// The appender, one goroutine of a leadership that runs while calls wait, judges producers
// by what is committed and in flight, joins small batches into one entry, gives it the
// next number and reserves room for it. The store takes an entry of our own only with the
// number it expects, so that an entry which waited in Raft's queue while the one before it was
// refused never reaches the log. Then three things are known of an entry, in this order:
//
//   - stored: the log gave it an index. A sync may still run beside Raft; until it ends
//     nobody else hears of a commit up to there (pendingSync).
//   - applied: Raft has committed it and the state machine has seen it: the watermark rises,
//     the producer is remembered.
//   - answered: with the offset, if what was applied at its index is of the leadership's own
//     term. What was refused before Raft saw it may be sent again; what was in flight when
//     the leadership ended is [raftgroup.ErrUnknown], since it may survive yet.
//
// # Catch-up
//
// A leader whose log no longer begins early enough for a follower sends it Raft's
// InstallSnapshot, which holds no data. The follower asks the leader for its sealed segments,
// stages them, ends its run, puts them in its log's place with one rename, keeps the snapshot
// and begins another run. A crash before the rename leaves the old log with the old snapshot;
// one after it is finished at the next start.
//
// # Snapshots, and what is deleted
//
// A snapshot is where Raft stood and the producers; the data stays in the log. It is taken at
// each roll and every 32 MiB, and is what allows a segment to go: the leader moves the log
// start by an entry like any other (a trim), each replica drops what its snapshot covers.
// [Upkeep] is the rest: retention, compaction, members that follow the cluster's metadata,
// and leaders that are cut off or whose disk hangs.
//
// # What breaks if a line goes
//
//   - The order in fsm.applyTerm (the watermark before next): a new leader would serve and
//     show less than was acknowledged. TestWatermarkRisesBeforeTheFSMSaysWhatItReached.
//   - The comparison of terms in leadership.applied: a deposed leader would acknowledge what
//     its heir stored in the place of what it lost.
//     TestAppliedEntriesAreAcknowledgedInTheirOwnTermOnly.
//   - The number that the store expects: a gap in a producer's sequence would be stored.
//     TestOwnEntriesOutOfTurnAreRefused.
//   - The wait for pendingSync in logStore.GetLog and fsm.ApplyBatch: a crash would take back
//     what was counted for a quorum. TestFormerLeaderAnswersForNothingItHasNotSynced.
//   - The wait for nothing in flight in leadership.makeRoom and refuse: a batch sent again
//     would be stored again. TestTailsAreForgottenOnceNothingIsInFlight.
//   - logStore.cut: after a suffix was cut, even a clean refusal leaves Raft with a wrong last
//     index. TestARefusedWriteBehindACutEndsALife.
//   - storedKey: a replica whose log was lost would vote again under its old name.
//     TestJoiningReplicaMayBeEmptyUntilItStores.
//   - The count of writes in catchUp.install: acknowledged entries would go with the old
//     log. TestCatchUpKeepsWhatCameInUntilRaftEnded.
//   - The settings last in Configure: what a shorter retention expires would go before anybody
//     could take that back. TestNewSettingsAreNeverFoundWithoutTheirDelay.
package partition

// Package coordinator is what every coordinator stands on, whatever it coordinates:
// a replicated state machine for each partition of a topic of the cluster's own.
// Consumer groups (package group) are one; transactions and share groups are to be
// others, each with a topic and a Runtime of its own. It is pure of network and
// replication, and knows nothing of what records mean.
//
// # The parts, in Kafka's words where it has them (CoordinatorRuntime)
//
//	Runtime       the shards of one coordinator: which partitions are loaded here, in which epoch
//	Shard         one partition in one epoch: a lock, pending appends, alarms
//	StateMachine  what the coordinator knows of one partition; the coordinator's own type
//	Machines      makes one, for a shard that is about to be loaded
//	Journal       the topic, as a shard sees it: append in this epoch, confirm that it still leads
//	Appender      who has records appended, and is told what became of them
//	Alarm         a timer under the shard's lock; its Ringer is who is rung
//
// A shard lives from one load to the next unload:
//
//	journal.Topic   leads in epoch 5                            leads no more
//	Runtime         Load(0, 5, records)                         Unload(0)
//	Shard           replay … replay, LoadedLocked │ requests │  AppendedLocked(ErrUnloaded) …, UnloadedLocked
//
// The epoch is the partition's leader epoch: there is one leader in each, and an append
// names the one in which it was decided. So a node that has been deposed, and does not know
// it yet, appends nothing, whatever it decides.
//
// A request finds its shard by its key, works under the shard's lock, and appends what it
// decides. The answer follows when its Appender is told:
//
//	s, err := runtime.Enter(key)        s is locked
//	if err != nil { return … }
//	defer s.Unlock()                    unloads s if anything below panics
//	s.WriteLocked(records, request)     request.AppendedLocked(err) follows, locked again
//
// Until then the append is pending. Pending appends of a shard are told in the order of
// the calls, whatever the order in which the journal knows their outcome.
//
// # What is promised
//
// Replay is the only writer. A state machine changes what is to survive in ReplayLocked
// and in AppendedLocked only: when a quorum has the records, in the order of the appends,
// and never before. WriteLocked does the former by itself, with the very bytes that a
// load would read; AppendLocked is for a state machine that has worked out the new state
// beside the old one already. So everything that is visible is durable, and a shard that
// is loaded elsewhere shows the same. What need not survive (who waits for an answer,
// alarms) may change at any time under the lock.
//
// An append whose outcome is not known, or that says that this node leads no more,
// unloads the shard before anything else happens to it. Whatever waits is told
// ErrUnloaded, Journal.Lost is called, and whoever loads partitions reads it again if
// this node still leads. The same goes for a panic under the lock: memory is suspect
// from then on, the journal is not. A shard that is unloaded appends nothing more.
//
// Reads of what others may have changed go through Shard.Confirm: a shard does not
// notice by itself that another node has taken over.
//
// Alarms are not in the journal. One that is to go off after a failover too is set
// again in LoadedLocked, from a time that a record carries; one that is about this
// coordinator's patience (a session) begins anew there.
//
// There are no snapshots. The topic is compacted, a tombstone ends what a key said,
// and loading reads what is left.
//
// # How long under the lock
//
// All that a shard does waits for its lock, so whatever grows with what clients send
// is done without it, or in pieces: compute, take the lock, check that nothing has
// moved, append. The lock is free between two alarms and between two batches of
// outcomes, so an alarm that has more to do sets itself again for now.
//
// # What a new coordinator brings
//
// kv_test.go is one, in 150 lines. It brings:
//
//   - A state machine of three methods that embeds the *Shard it is made for, and a
//     Machines that makes it. What it knows is a function of the records that it has
//     replayed; ReplayLocked must take any that a former release has written.
//   - Records whose key says what they are about, so that compaction keeps the newest
//     and a tombstone ends it. One decision is one append, which survives wholly or not
//     at all.
//   - For each kind of request an Appender that answers it. It may find the state
//     machine other than its request left it: what came before it in the order of the
//     appends has been replayed, what follows has not.
//   - Answers to whoever waits, in UnloadedLocked. Pending appends have theirs by then.
//   - A topic: a journal.Spec for package journal, beside __consumer_offsets, and the
//     partition of a key by Runtime.PartitionOf for FindCoordinator.
//
// Test it over coordinatortest.Journal, in virtual time (testing/synctest), with a
// history in which the journal fails in every way it may while leaders follow one
// another: TestNothingGoesBackWhateverFails.
package coordinator

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
//	Journal       the topic, as a shard sees it: append in this epoch, confirm that it still leads
//	Alarm         a timer under the shard's lock
//
// A request finds its shard by its key (Runtime.Enter), works under the shard's
// lock, and appends what it decides. The answer follows in done:
//
//	s, err := runtime.Enter(key)               s is locked
//	if err != nil { return … }
//	defer s.Unlock()                           unloads s if anything below panics
//	s.WriteLocked(records, func(err error) {   later, locked again, in the order of the calls
//	        answer <- …
//	})
//
// # What is promised
//
// Memory is what the journal says. A state machine changes what is to survive in
// ReplayLocked and in the done of an append only: when a quorum has the records, in
// the order of the appends, and never before. So everything that is visible is
// durable, and a shard that is loaded elsewhere shows the same. What need not
// survive (who waits for an answer, alarms) may change at any time under the lock.
//
// An append whose outcome is not known, or that says that this node leads no more,
// unloads the shard before anything else is done with it. Whatever waits is told
// ErrUnloaded, Config.Lost is called, and whoever loads partitions reads it again if
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
package coordinator

// Package group is the group coordinator: who is in a consumer group, who reads
// which partition, and how far each group has read. It is a coordinator of package
// coordinator: its journal is __consumer_offsets, in Kafka's own record formats, and
// what it knows is what those records say, plus alarms and the requests that wait.
//
// # How it is built
//
//	Coordinator   finds the shard of a group, and speaks kmsg both ways
//	shard         the groups of one partition: the state machine of a coordinator.Shard
//	group         a name, its committed offsets and its membership
//	membership    classic (classic.go) or consumer (KIP-848): a state machine under the shard's lock
//
// A membership calls four things of its shard, all with the lock held: SetLocked and
// StopLocked for alarms, AppendLocked and WriteLocked for records. What must not be
// seen before it is durable changes in the done of an append, or in replay, which is
// dispatched by the version of the record's key in shard.ReplayLocked.
//
// # What is promised
//
// A committed offset is visible, and acknowledged, only when a quorum has it, and
// OffsetFetch answers only after Confirm: committed offsets are a linearizable
// register, across failovers too. The rest is package coordinator's promise.
package group

// Package group is the group coordinator: who is in a consumer group, who reads
// which partition, and how far each group has read. It is a coordinator of package
// coordinator, whose documentation comes first: its journal is __consumer_offsets, in
// Kafka's own record formats, and what it knows is what those records say, plus alarms
// and the requests that wait.
//
// # How it is built
//
//	Coordinator   finds the shard of a group, and speaks kmsg both ways
//	shard         the groups of one partition: the state machine of a coordinator.Shard
//	group         a name, its committed offsets and its membership
//	membership    one of two, both on a base: a state machine under the shard's lock
//
//	classicGroup  roster         who is in it, and what follows by counting   roster.go
//	              pendingMembers who was given an id and has not come back    pending.go
//	              generations    what may be handed out, what the journal has generations.go
//	              rebalance      how it gets to the next generation           rebalance.go
//	              requests                                                    join.go, sync.go, heartbeat.go, leave.go
//
//	consumerGroup consumerState  what the journal says, with counts           consumer_state.go, consumer_record.go
//	              steps, draft   what is being made of it                     steps.go
//	              seats          members' alarms                              seats.go
//	              planner        who computes the target                      plan.go, assignor.go
//	              resolver       who matches expressions again                regex.go
//	              requests       of consumers, and of classic members         consumer_heartbeat.go, consumer_classic.go
//
//	both          offsets.go: commit, fetch, delete; expiry.go: how they end;
//	              bounds.go: what clients may take; migration.go: from one type to the other
//
// Records are replayed by the version of their key (shard.ReplayLocked). What is
// written is either replayed from the very records (offsets), or is worked out first and
// becomes visible in AppendedLocked (memberships).
//
// # A classic group: join and sync
//
//	a  JoinGroup ──► preparing: an alarm gives the others the rebalance timeout
//	b  JoinGroup ──► all have joined, completing: generation 7, its protocol and leader are chosen
//	a  ◄── generation 7, and all members with their metadata: a leads
//	b  ◄── generation 7
//	b  SyncGroup ──► b waits for its assignment
//	a  SyncGroup with all assignments ──► one record of the whole group ──► journal
//	a, b ◄── their assignments, when a quorum has the record: stable
//
// Whoever joins, leaves, or whose session ends begins this anew: the others hear
// REBALANCE_IN_PROGRESS at their next heartbeat and join again; who does not in time is
// out. The journal knows stable generations only. A generation is handed out before it
// knows of it, which takes a bound (generations). A coordinator that takes over finds the
// last stable generation, whose members go on with the next heartbeat.
//
// Static members (KIP-345) come back under their instance id: one whose subscription is
// the same takes its old place and assignment, and the group stays as it is.
//
// # A consumer group: a beat (KIP-848)
//
// One request is all of it: joining, living, giving back, leaving. Each is a step on a
// draft, which lies over the state and has what differs:
//
//	who      identify the member; check its epoch; put what it says of itself
//	group    if members, subscriptions or topics have moved: the next group epoch
//	target   a small group's target at once, a large one's by the planner; who moved it waits
//	member   what it has meets its target: give back first, get what is free, then the epoch
//	journal  the draft's records, one append; the draft becomes the state; the answer
//
// While a draft is on its way the group is busy: steps that come meanwhile wait, and go on
// the next draft together. A partition is given to a member only when no other has it,
// assigned or yet to be given back.
//
// # How a group changes its protocol
//
// As far as group.consumer.migration.policy lets it (migration.go), in one batch: the old
// type's tombstones, the new type's records, and the step that brought it about. A
// coordinator that takes over finds one or the other.
//
//	classic ──a consumer joins──► consumer. Members of the classic protocol go on: their
//	        generation is their epoch, a heartbeat tells them to join again when the
//	        target has moved, a sync gets them what they have.
//	consumer ──the last consumer goes, classic members stay──► classic. All are asked to
//	        join again; the journal's record is one generation ahead, so that whoever
//	        takes over before they have does not take them for a group with nothing to do.
//
// # What is promised
//
// A committed offset is visible, and acknowledged, only when a quorum has it, and
// OffsetFetch answers only after Confirm: committed offsets are a linearizable
// register, across failovers too. The rest is package coordinator's promise.
//
// testdata/group has stories: what clients learn as members come, die, come back and
// change their protocol while the coordinator moves, and what the journal says of it.
package group

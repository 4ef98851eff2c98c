// Package replication is a node and its Raft groups: the controller group,
// whose log is the cluster's metadata, and one group a partition, whose log is
// the partition's data.
//
// # Runs of a replica
//
// A [Partition] is what the rest of the broker holds for as long as the node
// hosts a replica. Beneath it a replica runs: one Raft instance over one open
// log. Whenever Raft's memory and the disk may disagree (a store failed, a
// transfer hung, a folder was replaced by catch-up) the replica is bounced:
// shut down, and started again from what the disk says. Three bounces in a
// minute and it stays down, with the reason.
//
//	opening ──► running ──► bouncing ──► running …
//	    │           │            │
//	    └───────────┴────────────┴────► quarantined   damaged data, or too many bounces
//
// # Who may acknowledge
//
// A leader serves only once the first entry of its own term is committed and
// everything before it applied: then no entry of an earlier term is missing, and the
// state machine's producer state is complete. (A barrier of Raft's would say the same,
// but its future may never be answered.) Entries carry the number the appender gave them, and the
// store refuses one that does not follow its predecessor: an entry that waited
// in Raft's queue while an earlier one was refused never reaches the log.
//
// # What is unknown
//
// An append that failed before Raft stored it was refused. One that failed
// after (leadership lost, shutdown, a store error) is unknown: it may or may
// not survive, and the client is told to retry.
package replication

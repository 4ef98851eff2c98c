// Package replication is a node and its Raft groups: the controllers' group, whose log is
// the cluster's metadata, and one group a partition, whose log is the partition's data.
//
// What a node does is in rooms, each a package that does not know this one:
//
//	admission    how it becomes a member: its folder, founding a cluster, joining one
//	folder       its data folder, but for partitions and metadata
//	roster       the other nodes: whom it speaks with, and where they listen
//	transport    the connections to them, shared by all groups
//	raftgroup    its part in one Raft group, the same for controllers and partitions
//	controller   the controllers' group: how a change of the metadata is decided
//	metadata     what is decided: images, and the changes between them
//	partition    the replica of one partition: log, state, leadership, catch-up, retention
//	failover     who leads a group when its leader is gone: gossip, evidence, elections
//	vote         the votes and terms of all groups, in one file
//	bulletin     what the log says of many partitions at once
//	rescue       making a survivor go on alone, while no node runs
//
// Here they are put together. A Node has them, and is what package server and the command
// line call. What is not worth a room is a type here, with one purpose:
//
//	lifetime     the node's end, and the goroutines that it waits for
//	hosted       the partitions that have a replica here
//	reconciler   makes those follow the image
//	upkeep       what has to be done now and then: disks, members, retention, compaction
//	registrar    has the image say what this node is
//	standing     whether the node may go on, and what its folder says of that (folder.Standing)
//
// A room asks the node by an interface of its own, which a type without state implements
// here: it says which part of the node each question is for.
//
//	peers, rosterNode   transport and roster ask who the others are    peers.go
//	groups, electable   failover asks for a node's groups              groups.go
//	hosting             a partition asks the node that hosts it        host.go
//	decisions           the controllers' group tells what was decided  decisions.go
//
// # Where to begin
//
// Node.Start shows in which order a node comes to life. From there follow what you look
// for:
//
//   - A record that is produced goes to partition.Partition.Append, and nowhere else here:
//     server finds the Partition by Node.Partition.
//   - A topic that is created is a change of the metadata: CreateTopic in topics.go, the
//     controllers' group, then reconciler.follow on every node, which opens the replicas.
//   - A node that dies is noticed by transport, which tells failover through peers.
//   - A message between nodes that is none of Raft's comes in at handle in calls.go, which
//     lists all kinds.
//   - What happens by itself begins in upkeep.loop.
package replication

// Package replication is a node and its Raft groups: the controller group, whose log is the
// cluster's metadata, and one group a partition, whose log is the partition's data.
//
// What a partition's replica is, and who may acknowledge what, is package partition; what all
// groups have in common is raftgroup; who leads them is failover. Here is what they have to
// do with each other: a [Node] founds or joins a cluster, keeps the image of its metadata,
// has the replicas open that the image places here, and looks after them in a few goroutines
// for all.
package replication

package replication

import (
	"slices"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
)

// What clients are told: who leads, who is in sync, who is there. It is not what elections
// go by (see package failover), nor what this node's own connections say (see Node.Live).

// Leader returns who leads a partition and since which epoch, as far as this node
// knows. Whoever said so last stays the leader, out of this node's own hearing too,
// until another one does. ok is false when nobody has said so, when nobody among a
// majority of the brokers hears who did, and when this node is Isolated.
func (n *Node) Leader(id metadata.PartitionID) (broker, epoch int32, ok bool) {
	_, part, known := n.Image().Partition(id)
	if !known {
		return -1, -1, false
	}
	if p, err := n.Partition(id); err == nil {
		if epoch, err := p.Serving(); err == nil && !p.CutOff() {
			return n.identity.Node, epoch, true
		}
	}
	node, term, ok := n.failover.Leader(part.Group)
	if !ok {
		return -1, -1, false
	}
	return node, int32(term), true
}

// InSync lists the replicas that have what the leader has: on the leader by
// what they acknowledged, elsewhere those that are there and have the partition open.
func (n *Node) InSync(id metadata.PartitionID) []int32 {
	_, part, ok := n.Image().Partition(id)
	if !ok {
		return nil
	}
	r := n.replicaOf(part.Group)
	leads := false
	if r != nil {
		_, leads = r.LeadsNow()
	}
	var voters []raft.ServerID
	if leads {
		voters = r.Voters()
	}
	var list []int32
	for _, node := range part.Replicas {
		switch {
		case node == n.identity.Node:
			if r == nil {
				continue
			}
		default:
			server, ok := n.serverOf(node)
			if !ok || !n.failover.HasOpen(server, part.Group) {
				continue
			}
			// A replica that has no vote yet has all the data and still is not one
			// that the partition can lose another for.
			if leads && (!slices.Contains(voters, server) || !r.InSync(server)) {
				continue
			}
		}
		list = append(list, node)
	}
	return list
}

// Isolated tells whether this node has heard neither the controller nor a majority of
// the brokers for a while. Who leads what elsewhere is not known then.
func (n *Node) Isolated() bool { return n.failover.Isolated() }

// Present tells whether a broker is there, as far as this node knows: it hears it, or
// hears a node that does. A node that has lost the majority of the brokers cannot
// tell who is gone, and says so of nobody: clients are to go on asking the others.
func (n *Node) Present(broker int32) bool { return n.failover.Present(broker) }

package replication

import (
	"millrace/replication/controller"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/removal"
)

var _ removal.Cluster = Remaining{}

// A Remaining is a node that stays, by which a broker is removed that has left for good.
type Remaining struct{ *Node }

// Heard implements removal.Cluster.
func (r Remaining) Heard(broker int32) bool { return r.failover.Heard(broker) }

// Members implements removal.Cluster.
func (r Remaining) Members(f func(group string, m *raftgroup.Member)) {
	if m := r.memberOf(controller.Group); m != nil {
		f("the controllers", m)
	}
	r.eachReplica(func(p *partition.Replica) { f(p.Name(), &p.Member) })
}

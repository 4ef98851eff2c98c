package replication

import (
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/transport"
)

// A Quorum is the controller group as one of its members sees it.
type Quorum struct {
	Leader    int32 // -1: this node knows of none
	Term      uint64
	Committed uint64 // the index of the last entry that this node knows to be committed
	Voters    []QuorumMember
	Learners  []QuorumMember // that do not vote yet
}

// A QuorumMember is one member's log, as far as this node knows it.
type QuorumMember struct {
	Node int32
	Last int64 // the index of its last entry; -1: not known here
}

// Quorum describes the controller group. It is empty until the node has started.
func (n *Node) Quorum() Quorum {
	q := Quorum{Leader: -1}
	m := n.memberOf(controller.Group)
	if m == nil {
		return q
	}
	if leader, ok := n.Controller(); ok {
		q.Leader = leader
	}
	q.Term, q.Committed = m.Raft.CurrentTerm(), m.Raft.CommitIndex()
	for _, s := range m.Raft.GetConfiguration().Configuration().Servers {
		peer, err := transport.ParseServerID(s.ID)
		if err != nil {
			continue
		}
		one := QuorumMember{Node: peer.Node, Last: -1}
		if s.ID == n.serverID() {
			one.Last = int64(m.Raft.LastIndex())
		}
		if s.Suffrage == raft.Voter {
			q.Voters = append(q.Voters, one)
		} else {
			q.Learners = append(q.Learners, one)
		}
	}
	return q
}

// DownSince tells since when this node has had no connection to a broker: since
// it lost the last one, or since it started. The zero time while it has one.
func (n *Node) DownSince(broker int32) time.Time {
	if n.Live(broker) {
		return time.Time{}
	}
	if at, ok := n.failover.LostAt(broker); ok {
		return at
	}
	return n.began
}

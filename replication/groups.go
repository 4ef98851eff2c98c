package replication

import (
	"encoding/json"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"millrace/replication/bulletin"
	"millrace/replication/failover"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/replication/raftgroup"
	"millrace/replication/roster"
	"millrace/replication/transport"
)

var (
	_ failover.Node     = groups{}
	_ failover.Observer = groups{}
	_ failover.Member   = electable{}
	_ failover.Peers    = (*transport.Transport)(nil)
	_ partition.Events  = (*failover.Failover)(nil)
)

// The news are what is said in the log in groups.
type news struct {
	groups  bulletin.Groups
	peers   bulletin.Peers
	leaving atomic.Bool // the node is: Shutdown has begun
}

// groups is what failover asks a node about its groups, and tells it of them. It has no
// state: it says which part of the node each question is for.
type groups struct{ n *Node }

// Image implements failover.Node.
func (g groups) Image() *metadata.Image { return g.n.Image() }

// Member implements failover.Node.
func (g groups) Member(group uint64) (failover.Member, bool) {
	m := g.n.memberOf(group)
	return electable{m}, m != nil
}

// EachMember implements failover.Node. The controllers' group comes first.
func (g groups) EachMember(f func(failover.Member)) {
	g.n.eachMember(func(m *raftgroup.Member) { f(electable{m}) })
}

// About implements failover.Node.
func (g groups) About() string { return g.n.members.About() }

// Addresses implements failover.Node.
func (g groups) Addresses() json.RawMessage {
	p, err := json.Marshal(g.n.book.Entries())
	if err != nil {
		panic(fmt.Sprintf("addresses cannot be encoded: %v", err)) // they are strings and numbers
	}
	return p
}

// PeerUp implements failover.Observer.
func (g groups) PeerUp(node int32) {
	g.n.news.peers.Say(g.n.logger, node, true, g.n.news.leaving.Load())
}

// PeerDown implements failover.Observer.
func (g groups) PeerDown(node int32) {
	g.n.news.peers.Say(g.n.logger, node, false, g.n.news.leaving.Load())
}

// Led implements failover.Observer.
func (g groups) Led(group uint64) {
	g.n.news.groups.Add(bulletin.Headline{Text: "this node leads more partitions"}, group)
}

// Ended implements failover.Observer.
func (g groups) Ended(group uint64) {
	g.n.news.groups.Add(bulletin.Headline{Text: "this node leads fewer partitions"}, group)
}

// Changed implements failover.Observer.
func (g groups) Changed() { g.n.upkeep.hints.Add(1) }

// Said implements failover.Observer.
func (g groups) Said(by transport.Peer, about string) { g.n.members.Admitted(by, about) }

// Addressed implements failover.Observer.
func (g groups) Addressed(p json.RawMessage) (news bool, err error) {
	var list []roster.Entry
	if err := json.Unmarshal(p, &list); err != nil {
		return false, fmt.Errorf("addresses: %w", err)
	}
	return g.n.book.Take(list), nil
}

// An electable is a member as elections see it.
type electable struct{ *raftgroup.Member }

// Group implements failover.Member.
func (m electable) Group() uint64 { return m.Member.Group }

// Name implements failover.Member.
func (m electable) Name() string { return m.Role.Name() }

// Term implements failover.Member.
func (m electable) Term() uint64 { return m.Raft.CurrentTerm() }

// State implements failover.Member.
func (m electable) State() raft.RaftState { return m.Raft.State() }

// LeadsNow implements failover.Member.
func (m electable) LeadsNow() (term uint64, ok bool) { return m.Role.LeadsNow() }

// StillLeads implements failover.Member.
func (m electable) StillLeads(term uint64) bool { return m.Role.StillLeads(term) }

// Stalls implements failover.Member.
func (m electable) Stalls() bool { return m.Role.Stalls() }

// Campaign implements failover.Member.
func (m electable) Campaign() error { return m.Port.Elect() }

// AskPreVotes implements failover.Member.
func (m electable) AskPreVotes() error { return m.PokeElectionTimer() }

// AbandonCandidacy implements failover.Member.
func (m electable) AbandonCandidacy(term uint64) error { return m.Port.AbandonCandidacy(term) }

// ShortenTimeouts implements failover.Member.
func (m electable) ShortenTimeouts(on bool) {
	if on {
		m.SetTimeouts(raftgroup.ShortTimeout)
	} else {
		m.SetTimeouts(raftgroup.HeartbeatTimeout)
	}
}

package replication

import (
	"context"

	"github.com/hashicorp/raft"

	"millrace/replication/admission"
	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/roster"
	"millrace/replication/transport"
)

var (
	_ transport.Membership = peers{}
	_ transport.Observer   = peers{}
	_ transport.Handler    = peers{}
	_ transport.Entries    = gate{}
)

// peers is what the transport asks a node about the others, and tells it of them. It has
// no state: it says which part of the node each question is for.
type peers struct{ n *Node }

// Resolve implements transport.Membership.
func (p peers) Resolve(node int32) (addr string, ok bool) { return p.n.book.Resolve(node) }

// About implements transport.Membership.
func (p peers) About() string { return p.n.members.About() }

// Judge implements transport.Membership.
func (p peers) Judge(peer transport.Peer, about string) error { return p.n.members.Judge(peer, about) }

// Admitted implements transport.Membership.
func (p peers) Admitted(peer transport.Peer, about string) { p.n.members.Admitted(peer, about) }

// PeerUp implements transport.Observer.
func (p peers) PeerUp(peer transport.Process) { p.n.failover.PeerUp(peer) }

// PeerDown implements transport.Observer.
func (p peers) PeerDown(peer transport.Process) { p.n.failover.PeerDown(peer) }

// Learned implements transport.Observer.
func (p peers) Learned(peer transport.Peer, addr string) { p.n.book.Learned(peer, addr) }

// Outdated implements transport.Observer.
func (p peers) Outdated(by transport.Peer, reason string) { p.n.members.Outdated(by, reason) }

// Replaced implements transport.Observer.
func (p peers) Replaced(by transport.Peer, at uint64, reason string) {
	p.n.members.Replaced(by, at, reason)
}

// Foreign implements transport.Observer.
func (p peers) Foreign(cluster string) {
	if folder.IsClusterID(cluster) && p.n.entry.Doubtful() && len(p.n.Image().Brokers()) <= 1 {
		p.n.standing.Fail(admission.Elsewhere(cluster), p.n.Image().Level(), func(id *folder.Identity) { id.Doubted = cluster })
	}
}

// Handle implements transport.Handler.
func (p peers) Handle(ctx context.Context, from transport.Peer, kind uint8, req []byte) ([]byte, error) {
	return calls{p.n}.handle(ctx, from, kind, req)
}

// A rosterNode is what members and the book ask a node. It has no state.
type rosterNode struct{ *Node }

var (
	_ roster.Node  = rosterNode{}
	_ roster.Views = rosterNode{}
)

// Controllers implements roster.Node.
func (n rosterNode) Controllers() []raft.Server {
	m := n.memberOf(controller.Group)
	if m == nil {
		return nil
	}
	return m.Raft.GetConfiguration().Configuration().Servers
}

// Outdated implements roster.Node.
func (n rosterNode) Outdated(reason string) { n.outdated(reason) }

// ShowViews implements roster.Views.
func (n rosterNode) ShowViews() { n.failover.ShowViews() }

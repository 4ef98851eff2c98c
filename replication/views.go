package replication

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// Whom the others hear. A node's own connections tell it whom it hears; whether a
// node is gone, or only out of its own hearing, tell the others. So nodes show each
// other their views, whenever they change, and three questions are answered from
// them:
//
//   - Has a majority of a group's voters lost its leader? Only then is a leader
//     deposed that somebody may still hear: see Node.campaign.
//   - Is a broker there, for clients, though this node has no connection to it?
//   - Who leads what, at nodes that this one does not hear? A node that hears both
//     passes that on.

// A process is one run of one node.
type process = transport.Process

// A view is what a node shows to another of whom it hears, in JSON. Fields that a
// receiver does not know mean nothing to it.
type view struct {
	Number uint64          `json:"number"` // counts the views of this process
	Self   processName     `json:"self"`
	Hears  []processName   `json:"hears"`
	Leads  []relayedGroups `json:"leads,omitempty"` // by whom the receiver does not hear

	Addresses []addressed `json:"addresses,omitempty"` // all that the sender knows
}

// A processName is a process in a view.
type processName struct {
	Node        int32  `json:"node"`
	Incarnation string `json:"incarnation"`
	Session     uint64 `json:"session"`
}

// A relayedGroups is what a process leads, by its own word: pairs of group and term.
type relayedGroups struct {
	By     processName `json:"by"`
	Groups [][2]uint64 `json:"groups"`
}

func nameOf(p process) processName {
	return processName{Node: p.Node, Incarnation: p.Incarnation, Session: p.Session}
}

func (n processName) process() process {
	return process{Peer: transport.Peer{Node: n.Node, Incarnation: n.Incarnation}, Session: n.Session}
}

// A seen is the newest view of a process.
type seen struct {
	number uint64
	hears  map[process]bool
}

// hears tells whether this node has a connection to a process.
func (n *Node) hears(p process) bool {
	if p == n.transport.Self() {
		return true
	}
	now, ok := n.transport.Hears(p.Peer)
	return ok && now == p
}

// heardOf tells when a server was last heard of: now, while it is connected.
func (n *Node) heardOf(id raft.ServerID, now time.Time) (at time.Time, connected bool) {
	if id == n.serverID() {
		return now, true
	}
	peer, err := transport.ParseServerID(id)
	if err != nil {
		return at, false
	}
	if _, ok := n.transport.Hears(peer); ok {
		return now, true
	}
	return n.transport.LastHeard(peer), false
}

// anyHears tells whether this node, or one that it hears, has a connection to a
// process that is.
func (n *Node) anyHears(is func(process) bool) bool {
	for _, p := range n.transport.Heard() {
		if is(p) {
			return true
		}
		n.gossipMu.Lock()
		for other := range n.views[p].hears {
			if is(other) {
				n.gossipMu.Unlock()
				return true
			}
		}
		n.gossipMu.Unlock()
	}
	return false
}

// lost tells whether a majority of voters do not hear a process: this node, if it
// votes, and those that it hears and that say so. Who has shown no view, being of an
// earlier version, is taken to hear what this node does.
func (n *Node) lost(p process, voters []raft.ServerID) bool {
	count := 0
	for _, id := range voters {
		peer, err := transport.ParseServerID(id)
		if err != nil {
			continue
		}
		if id == n.serverID() {
			if !n.hears(p) {
				count++
			}
			continue
		}
		voter, ok := n.transport.Hears(peer)
		switch {
		case !ok || voter == p: // nobody knows; hears itself
		case peer == p.Peer: // it has started again
			count++
		default:
			n.gossipMu.Lock()
			v, shown := n.views[voter]
			n.gossipMu.Unlock()
			if !shown && !n.hears(p) || shown && !v.hears[p] {
				count++
			}
		}
	}
	return count >= len(voters)/2+1
}

// sendViews sends every node that this one hears its view.
func (n *Node) sendViews() {
	for _, node := range n.transport.Connected() {
		n.sendView(node)
	}
}

// sendView sends a node this one's view, and again until it arrives or the node is gone.
func (n *Node) sendView(node int32) {
	a := n.gossipPeer(node)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.viewStale = true
	if a.sendingView {
		return
	}
	a.sendingView = true
	n.goTracked(func() {
		a.mu.Lock()
		for a.viewStale && n.ctx.Err() == nil && n.Live(node) {
			a.viewStale = false
			a.mu.Unlock()
			err := n.sendViewOnce(node)
			if err != nil {
				n.logger.Debug("view not delivered", "node", node, "error", err)
				select {
				case <-time.After(resendEvery):
				case <-n.closing:
				}
			}
			a.mu.Lock()
			a.viewStale = a.viewStale || err != nil
		}
		a.sendingView = false
		a.mu.Unlock()
	})
}

// sendViewOnce sends a view once. A node that answers that it cannot take it, because it
// is of an earlier version, has been sent all that it can see.
func (n *Node) sendViewOnce(node int32) error {
	data, err := json.Marshal(n.viewFor(node))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	_, err = n.transport.Call(ctx, node, callView, data)
	var refused *transport.RemoteError
	unknown := errors.As(err, &refused) && strings.Contains(refused.Message, errUnknownCall.Error())
	if unknown || errors.Is(err, transport.ErrTooLarge) {
		n.logger.Debug("view not taken", "node", node, "error", err)
		return nil
	}
	return err
}

// viewFor is what this node shows to another.
func (n *Node) viewFor(node int32) view {
	heard, known := n.transport.Heard(), n.knownAddresses()
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	n.viewNumber++
	v := view{Number: n.viewNumber, Self: nameOf(n.transport.Self()), Addresses: known}
	blind := make(map[process]*relayedGroups)
	for _, p := range heard {
		v.Hears = append(v.Hears, nameOf(p))
		if p.Node != node && n.blindLocked(node, p) {
			blind[p] = &relayedGroups{By: nameOf(p)}
		}
	}
	if len(blind) == 0 {
		return v
	}
	for group, c := range n.leaders {
		if r := blind[c.process]; r != nil {
			r.Groups = append(r.Groups, [2]uint64{group, c.term})
		}
	}
	for _, r := range blind {
		v.Leads = append(v.Leads, *r)
	}
	return v
}

// blindLocked tells whether a node said that it does not hear a process, with
// gossipMu held.
func (n *Node) blindLocked(node int32, p process) bool {
	for by, v := range n.views {
		if by.Node == node && !v.hears[p] {
			return true
		}
	}
	return false
}

// relay passes on what a process just said that it leads, to those who do not hear it.
func (n *Node) relay(p process) {
	for _, node := range n.transport.Connected() {
		n.gossipMu.Lock()
		blind := node != p.Node && n.blindLocked(node, p)
		n.gossipMu.Unlock()
		if blind {
			n.sendView(node)
		}
	}
}

// receiveView takes in a view.
func (n *Node) receiveView(from transport.Peer, data []byte) error {
	var v view
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("view: %w", err)
	}
	by := v.Self.process()
	if by.Peer != from {
		return fmt.Errorf("view: of %s, from %s", by, from)
	}
	hears := make(map[process]bool, len(v.Hears))
	for _, name := range v.Hears {
		hears[name.process()] = true
	}
	if !n.hears(by) {
		return fmt.Errorf("%w: its connection has just ended, or is not known yet", transport.ErrUnreachable)
	}
	n.gossipMu.Lock()
	maps.DeleteFunc(n.views, func(p process, _ seen) bool { return p.Node == by.Node && p != by }) // of its former processes
	before, shown := n.views[by]
	if shown && before.number >= v.Number {
		n.gossipMu.Unlock()
		return nil
	}
	n.views[by] = seen{v.Number, hears}
	changed := !shown || len(before.hears) != len(hears)
	if !changed {
		for p := range hears {
			changed = changed || !before.hears[p]
		}
	}
	for _, r := range v.Leads {
		for _, gt := range r.Groups {
			n.noteLeaderLocked(gt[0], leaderEntry{r.By.process(), gt[1]})
		}
	}
	n.gossipMu.Unlock()
	n.membershipHints.Add(1)
	if n.takeAddresses(v.Addresses) {
		n.sendViews()
	}
	if changed {
		n.sendView(from.Node) // what it does not hear, it is told of
		n.electLeaderless(time.Now())
	}
	return nil
}

// majority tells whether this node hears a majority of the brokers, itself included.
func (n *Node) majority() bool {
	brokers := n.Image().Brokers()
	heard := 0
	for _, b := range brokers {
		if n.Live(b.ID) {
			heard++
		}
	}
	return heard > len(brokers)/2 || len(brokers) == 0
}

// Isolated tells whether this node has heard neither the controller nor a majority of
// the brokers for a while. Who leads what elsewhere is not known then.
func (n *Node) Isolated() bool { return n.isolated(time.Now()) }

func (n *Node) isolated(now time.Time) bool {
	controller, ok := n.Controller()
	hears := n.majority() || ok && controller != n.identity.Node
	n.gossipMu.Lock()
	defer n.gossipMu.Unlock()
	switch {
	case hears:
		n.alone = time.Time{}
	case n.alone.IsZero():
		n.alone = now
	}
	return !hears && now.Sub(n.alone) > isolatedAfter
}

// Present tells whether a broker is there, as far as this node knows: it hears it, or
// hears a node that does. A node that has lost the majority of the brokers cannot
// tell who is gone, and says so of nobody: clients are to go on asking the others.
func (n *Node) Present(broker int32) bool {
	return n.Live(broker) || !n.majority() || n.anyHears(func(p process) bool { return p.Node == broker })
}

package failover

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/transport"
)

// The evidence is whom this node hears, and whom the others do. Its own connections tell it
// the first; whether a node is gone, or only out of its own hearing, tell the others. So
// nodes show each other their views, whenever they change, and three questions are answered
// from them:
//
//   - Has a majority of a group's voters lost its leader? Only then is a leader
//     deposed that somebody may still hear: see elector.campaign.
//   - Is a broker there, for clients, though this node has no connection to it?
//   - Who leads what, at nodes that this one does not hear? A node that hears both
//     passes that on.
type evidence struct {
	f *Failover

	mu     sync.Mutex
	views  map[process]seen
	number uint64    // of this process's latest view
	alone  time.Time // since when this node has lost the majority; none: it has not
	peers  map[int32]*viewPeer

	lostAt sync.Map // int32, a node, to time.Time: when its last connection ended
}

// A view is what a node shows to another of whom it hears, in JSON. Fields that a
// receiver does not know mean nothing to it.
type view struct {
	Number uint64          `json:"number"` // counts the views of this process
	Self   processName     `json:"self"`
	Hears  []processName   `json:"hears"`
	Leads  []relayedGroups `json:"leads,omitempty"` // by whom the receiver does not hear

	Addresses json.RawMessage `json:"addresses,omitempty"` // all that the sender knows, in its own words
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
func (ev *evidence) hears(p process) bool {
	if p == ev.f.peers.Self() {
		return true
	}
	now, ok := ev.f.peers.Hears(p.Peer)
	return ok && now == p
}

// heardOf tells when a server was last heard of: now, while it is connected.
func (ev *evidence) heardOf(id raft.ServerID, now time.Time) (at time.Time, connected bool) {
	if id == ev.f.self() {
		return now, true
	}
	peer, err := transport.ParseServerID(id)
	if err != nil {
		return at, false
	}
	if _, ok := ev.f.peers.Hears(peer); ok {
		return now, true
	}
	return ev.f.peers.LastHeard(peer), false
}

// anyHears tells whether this node, or one that it hears, has a connection to a
// process that is.
func (ev *evidence) anyHears(is func(process) bool) bool {
	for _, p := range ev.f.peers.Heard() {
		if is(p) {
			return true
		}
		ev.mu.Lock()
		for other := range ev.views[p].hears {
			if is(other) {
				ev.mu.Unlock()
				return true
			}
		}
		ev.mu.Unlock()
	}
	return false
}

// hearer returns a node that hears a process, which this one does not.
func (ev *evidence) hearer(is process) (node int32, ok bool) {
	for _, p := range ev.f.peers.Heard() {
		ev.mu.Lock()
		ok := ev.views[p].hears[is]
		ev.mu.Unlock()
		if ok {
			return p.Node, true
		}
	}
	return 0, false
}

// lost tells whether a majority of voters do not hear a process: this node, if it
// votes, and those that it hears and that say so. Who has shown no view, being of an
// earlier version, is taken to hear what this node does.
func (ev *evidence) lost(p process, voters []raft.ServerID) bool {
	count := 0
	for _, id := range voters {
		peer, err := transport.ParseServerID(id)
		if err != nil {
			continue
		}
		if id == ev.f.self() {
			if !ev.hears(p) {
				count++
			}
			continue
		}
		voter, ok := ev.f.peers.Hears(peer)
		switch {
		case !ok || voter == p: // nobody knows; hears itself
		case peer == p.Peer: // it has started again
			count++
		default:
			ev.mu.Lock()
			v, shown := ev.views[voter]
			ev.mu.Unlock()
			if !shown && !ev.hears(p) || shown && !v.hears[p] {
				count++
			}
		}
	}
	return count >= len(voters)/2+1
}

// sendViews sends every node that this one hears its view.
func (ev *evidence) sendViews() {
	for _, node := range ev.f.peers.Connected() {
		ev.sendView(node)
	}
}

// A viewPeer is whether a node has been sent this one's view.
type viewPeer struct {
	mu      sync.Mutex
	sending bool // a goroutine is sending it
	stale   bool // it has changed since
}

func (ev *evidence) viewPeer(node int32) *viewPeer {
	ev.mu.Lock()
	defer ev.mu.Unlock()
	p := ev.peers[node]
	if p == nil {
		p = new(viewPeer)
		ev.peers[node] = p
	}
	return p
}

// sendView sends a node this one's view, and again until it arrives or the node is gone.
func (ev *evidence) sendView(node int32) {
	f := ev.f
	p := ev.viewPeer(node)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stale = true
	if p.sending {
		return
	}
	p.sending = true
	f.goTracked(func() {
		p.mu.Lock()
		for p.stale && f.ctx.Err() == nil && f.live(node) {
			p.stale = false
			p.mu.Unlock()
			err := ev.sendViewOnce(node)
			if err != nil {
				f.logger.Debug("view not delivered", "node", node, "error", err)
				f.pause(resendEvery)
			}
			p.mu.Lock()
			p.stale = p.stale || err != nil
		}
		p.sending = false
		p.mu.Unlock()
	})
}

// sendViewOnce sends a view once. A node that answers that it cannot take it, because it
// is of an earlier version, has been sent all that it can see.
func (ev *evidence) sendViewOnce(node int32) error {
	data, err := json.Marshal(ev.viewFor(node))
	if err != nil {
		return err
	}
	err = ev.f.call(node, CallView, data)
	var refused *transport.RemoteError
	unknown := errors.As(err, &refused) && strings.Contains(refused.Message, UnknownCall)
	if unknown || errors.Is(err, transport.ErrTooLarge) {
		ev.f.logger.Debug("view not taken", "node", node, "error", err)
		return nil
	}
	return err
}

// viewFor is what this node shows to another.
func (ev *evidence) viewFor(node int32) view {
	heard, known := ev.f.peers.Heard(), ev.f.node.Addresses()
	ev.mu.Lock()
	defer ev.mu.Unlock()
	ev.number++
	v := view{Number: ev.number, Self: nameOf(ev.f.peers.Self()), Addresses: known}
	blind := make(map[process]*relayedGroups)
	for _, p := range heard {
		v.Hears = append(v.Hears, nameOf(p))
		if p.Node != node && ev.blindLocked(node, p) {
			blind[p] = &relayedGroups{By: nameOf(p)}
		}
	}
	if len(blind) == 0 {
		return v
	}
	ev.f.gossip.mu.Lock()
	for group, c := range ev.f.gossip.leaders {
		if r := blind[c.process]; r != nil {
			r.Groups = append(r.Groups, [2]uint64{group, c.term})
		}
	}
	ev.f.gossip.mu.Unlock()
	for _, r := range blind {
		v.Leads = append(v.Leads, *r)
	}
	return v
}

// blindLocked tells whether a node said that it does not hear a process, with mu held.
func (ev *evidence) blindLocked(node int32, p process) bool {
	for by, v := range ev.views {
		if by.Node == node && !v.hears[p] {
			return true
		}
	}
	return false
}

// relay passes on what a process just said that it leads, to those who do not hear it.
func (ev *evidence) relay(p process) {
	for _, node := range ev.f.peers.Connected() {
		ev.mu.Lock()
		blind := node != p.Node && ev.blindLocked(node, p)
		ev.mu.Unlock()
		if blind {
			ev.sendView(node)
		}
	}
}

// receiveView takes in a view.
func (ev *evidence) receiveView(from transport.Peer, data []byte) error {
	f := ev.f
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
	if !ev.hears(by) {
		return fmt.Errorf("%w: its connection has just ended, or is not known yet", transport.ErrUnreachable)
	}
	ev.mu.Lock()
	maps.DeleteFunc(ev.views, func(p process, _ seen) bool { return p.Node == by.Node && p != by }) // of its former processes
	before, shown := ev.views[by]
	if shown && before.number >= v.Number {
		ev.mu.Unlock()
		return nil
	}
	ev.views[by] = seen{v.Number, hears}
	changed := !shown || len(before.hears) != len(hears)
	if !changed {
		for p := range hears {
			changed = changed || !before.hears[p]
		}
	}
	for _, r := range v.Leads {
		for _, gt := range r.Groups {
			ev.f.gossip.noteLeader(gt[0], leaderEntry{r.By.process(), gt[1]})
		}
	}
	ev.mu.Unlock()
	f.observer.Changed()
	if len(v.Addresses) > 0 {
		news, err := f.observer.Addressed(v.Addresses)
		if err != nil {
			return fmt.Errorf("view: %w", err)
		}
		if news {
			ev.sendViews()
		}
	}
	if changed {
		ev.sendView(from.Node) // what it does not hear, it is told of
		ev.f.elections.electLeaderless(time.Now())
	}
	return nil
}

// majority tells whether this node hears a majority of the brokers, itself included.
func (ev *evidence) majority() bool {
	brokers := ev.f.node.Image().Brokers()
	heard := 0
	for _, b := range brokers {
		if ev.f.live(b.ID) {
			heard++
		}
	}
	return heard > len(brokers)/2 || len(brokers) == 0
}

func (ev *evidence) isolated(now time.Time) bool {
	hears := ev.majority()
	if !hears {
		controller, ok := ev.f.Controller()
		hears = ok && controller != ev.f.peers.Self().Node
	}
	ev.mu.Lock()
	defer ev.mu.Unlock()
	switch {
	case hears:
		ev.alone = time.Time{}
	case ev.alone.IsZero():
		ev.alone = now
	}
	return !hears && now.Sub(ev.alone) > isolatedAfter
}

package failover

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/metadata"
	"millrace/replication/raftgroup"
	"millrace/replication/transport"
)

// A gossiper tells the other nodes which groups this one has open and which it leads, and
// remembers what they say of themselves: openAt, and the leaders table, which views of
// other nodes fill in, too.
type gossiper struct {
	f *Failover

	mu      sync.Mutex
	leaders map[uint64]leaderEntry // the leaders table
	openAt  map[process]map[uint64]bool
	numbers map[process]uint64 // of the latest gossip that was taken in
	peers   map[int32]*gossipPeer
	delta   gossip // since gossipLoop sent something

	wake chan struct{} // wakes gossipLoop
	sent atomic.Uint64 // gossip so far
}

// A leaderEntry is what a process said of a group: that it leads it, under which term. It
// holds until a later one, or until the process says that it leads other groups only:
// that it is not heard here any more says nothing of those who hear it.
type leaderEntry struct {
	process
	term uint64
}

// noteLeaderLocked takes an entry into the leaders table, with mu held, unless the group was
// deleted: a peer that does not know so yet may say who leads it.
func (gs *gossiper) noteLeaderLocked(group uint64, c leaderEntry) {
	if deleted(gs.f.node.Image(), group) {
		return
	}
	before, ok := gs.leaders[group]
	if ok && c.term < before.term {
		return
	}
	gs.leaders[group] = c
	if group == controllerGroup && c != before && c.process != gs.f.peers.Self() {
		gs.f.logger.Info("another node is the controller now", "controller", c.Node, "term", c.term)
	}
}

// noteLeader takes an entry into the leaders table.
func (gs *gossiper) noteLeader(group uint64, c leaderEntry) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.noteLeaderLocked(group, c)
}

// leaderOf returns who leads a group by gossip.
func (gs *gossiper) leaderOf(group uint64) (leaderEntry, bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	c, ok := gs.leaders[group]
	return c, ok
}

// hasOpen tells whether a server's process, which is not lost, said that it has the
// group open.
func (gs *gossiper) hasOpen(id raft.ServerID, group uint64, lost process) bool {
	peer, err := transport.ParseServerID(id)
	if err != nil {
		return false
	}
	p, ok := gs.f.peers.Hears(peer)
	if !ok || p == lost {
		return false
	}
	gs.mu.Lock()
	defer gs.mu.Unlock()
	return gs.openAt[p][group]
}

// leads has it spread that this node leads a group, by whoever calls spread.
func (gs *gossiper) leads(group, term uint64) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.noteLeaderLocked(group, leaderEntry{gs.f.peers.Self(), term})
	gs.delta.leads = append(gs.delta.leads, groupTerm{group, term})
}

// opened spreads that a group is open here.
func (gs *gossiper) opened(group uint64) {
	gs.mu.Lock()
	gs.delta.open = append(gs.delta.open, group)
	gs.mu.Unlock()
	gs.spread()
}

// introduce has a node sent the full state.
func (gs *gossiper) introduce(node int32) {
	p := gs.gossipPeer(node)
	p.mu.Lock()
	p.missed = true
	p.mu.Unlock()
	gs.f.goTracked(func() { gs.sendGossip(node, gossip{}) })
}

// notOpen has every peer sent the full state, since a delta only tells what is added.
func (gs *gossiper) notOpen() {
	for _, node := range gs.f.peers.Connected() {
		gs.introduce(node)
	}
}

// forget drops what was said of groups that an image says were deleted.
func (gs *gossiper) forget(image *metadata.Image) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	maps.DeleteFunc(gs.leaders, func(group uint64, _ leaderEntry) bool { return deleted(image, group) })
	for _, open := range gs.openAt {
		maps.DeleteFunc(open, func(group uint64, _ bool) bool { return deleted(image, group) })
	}
}

// deleted tells whether an image knows of no group of this number any more.
func deleted(image *metadata.Image, group uint64) bool {
	_, known := image.Group(group)
	return group != controllerGroup && group <= image.LastGroup() && !known
}

// spread wakes the gossip goroutine.
func (gs *gossiper) spread() {
	select {
	case gs.wake <- struct{}{}:
	default:
	}
}

// gossipLoop sends what is new to all peers, a few milliseconds' worth at a time.
func (gs *gossiper) gossipLoop() {
	f := gs.f
	for {
		select {
		case <-f.ctx.Done():
			return
		case <-gs.wake:
		}
		time.Sleep(5 * time.Millisecond)
		gs.mu.Lock()
		g := gs.delta
		gs.delta = gossip{}
		gs.mu.Unlock()
		for _, node := range f.peers.Connected() {
			f.goTracked(func() { gs.sendGossip(node, g) })
		}
	}
}

// fullState is all that gossip says of this node.
func (gs *gossiper) fullState() gossip {
	g := gossip{first: true}
	gs.f.node.EachMember(func(m Member) {
		g.open = append(g.open, m.Group())
		if term, ok := m.LeadsNow(); ok {
			g.leads = append(g.leads, groupTerm{m.Group(), term})
		}
	})
	return g
}

// stillSo returns what of a delta holds when it is sent, which is milliseconds
// after it was gathered. A replica that was opened, or elected, and quarantined in
// between has been told to be shut by then, see notOpen: nobody may hear after that
// that it is open, or leads.
func (gs *gossiper) stillSo(g gossip) gossip {
	var still gossip
	for _, group := range g.open {
		if gs.f.member(group) != nil {
			still.open = append(still.open, group)
		}
	}
	for _, l := range g.leads {
		if m := gs.f.member(l.group); m != nil && m.StillLeads(l.term) {
			still.leads = append(still.leads, l)
		}
	}
	return still
}

// A gossipPeer is how far a node has been told what this one is.
type gossipPeer struct {
	mu     sync.Mutex
	busy   bool // a goroutine is sending it something
	missed bool // it lacks something that was sent until now
}

func (gs *gossiper) gossipPeer(node int32) *gossipPeer {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	p := gs.peers[node]
	if p == nil {
		p = &gossipPeer{missed: true}
		gs.peers[node] = p
	}
	return p
}

// sendGossip sends what is new to one node, or the full state if it has missed something, until
// it arrives or the node is gone. A peer that came up by its own connection may
// not be reached by ours for a moment, and a node that has not been told which
// groups are open here takes no part in electing their leaders.
func (gs *gossiper) sendGossip(node int32, g gossip) {
	f := gs.f
	a := gs.gossipPeer(node)
	a.mu.Lock()
	if a.busy {
		a.missed = true
		a.mu.Unlock()
		return
	}
	a.busy = true
	for {
		if a.missed {
			a.missed = false
			a.mu.Unlock()
			g = gs.fullState()
		} else {
			a.mu.Unlock()
			g = gs.stillSo(g)
		}
		if f.node.Image().Level() >= 2 { // whoever is earlier reads neither
			g.number, g.about = gs.sent.Add(1), f.node.About()
		}
		err := f.call(node, CallGossip, g.encode())
		if err != nil {
			f.logger.Debug("gossip not delivered", "node", node, "error", err)
			f.pause(resendEvery)
		}
		a.mu.Lock()
		a.missed = a.missed || err != nil
		if !a.missed || f.ctx.Err() != nil || !f.live(node) {
			break
		}
	}
	a.busy = false
	a.mu.Unlock()
}

// receiveGossip takes in a node's gossip.
//
// Two nodes do not lose each other at the same moment, nor need both of them. One that
// was paused finds new connections beside the old ones, and sees no end; the other had
// given it up. So what could not be taken in is refused, and said again.
//
// What was not answered in time is said again too, as everything there is, and may
// have been on its way all the while, over a connection that has ended. It must not
// undo what overtook it: nobody would say that again.
func (gs *gossiper) receiveGossip(from transport.Peer, g gossip) error {
	f := gs.f
	by, ok := f.peers.Hears(from)
	if !ok {
		return fmt.Errorf("%w: its connection has just ended, or is not known yet", transport.ErrUnreachable)
	}
	if g.about != "" {
		f.observer.Said(from, g.about)
	}
	if g.first || len(g.open)+len(g.leads) > 0 { // else it only says how old it is
		defer f.observer.Changed()
	}
	var given []uint64 // groups that it says it leads no more
	gs.mu.Lock()
	if g.number > 0 {
		if g.number <= gs.numbers[by] {
			gs.mu.Unlock()
			return nil
		}
		maps.DeleteFunc(gs.numbers, func(p process, _ uint64) bool { return p.Node == by.Node && p != by })
		gs.numbers[by] = g.number
	}
	if gs.openAt[by] == nil || g.first {
		maps.DeleteFunc(gs.openAt, func(p process, _ map[uint64]bool) bool { return p.Node == by.Node }) // of its former processes, too
		gs.openAt[by] = make(map[uint64]bool)
	}
	for _, group := range g.open {
		gs.openAt[by][group] = true
	}
	if g.first {
		maps.DeleteFunc(gs.leaders, func(group uint64, c leaderEntry) bool {
			if c.Node != by.Node || slices.ContainsFunc(g.leads, func(gt groupTerm) bool { return gt.group == group }) {
				return false
			}
			if c.process == by {
				given = append(given, group)
			}
			return true
		})
	}
	for _, gt := range g.leads {
		gs.noteLeaderLocked(gt.group, leaderEntry{by, gt.term})
	}
	gs.mu.Unlock()
	if !g.first {
		f.elections.campaignAnew(slices.Clone(g.open))
	}
	if len(g.leads) > 0 {
		f.evidence.relay(by)
	}
	if g.first {
		// It may have been shut before it was heard of as the leader, but to Raft.
		known := make(map[uint64]bool, len(g.open)+len(given))
		for _, group := range slices.Concat(g.open, given) {
			known[group] = true
		}
		f.node.EachMember(func(m Member) {
			if group := m.Group(); !known[group] && group != controllerGroup && f.elections.lostLeader(m, by) {
				given = append(given, group)
			}
		})
	}
	for _, group := range given {
		// It had another voter campaign if it knew of one that could, or it opens the group
		// again and campaigns itself: both are given a while.
		if m := f.member(group); m != nil && f.elections.lostLeader(m, by) {
			f.elections.leaderLost(group, by, true, 2*raftgroup.ElectionStagger)
		}
	}
	return nil
}

// A groupTerm is a group that is led, and the leader's term.
type groupTerm struct{ group, term uint64 }

// A gossip is what one node tells another about itself.
type gossip struct {
	first  bool // everything; forget what was said before
	open   []uint64
	leads  []groupTerm
	number uint64 // of what this process told anybody; 0: not said
	about  string // what the node says of itself; "": not said
}

// encode returns the message:
//
//	flags u8 · opens u32 · group u64 … · leads u32 · group u64, term u64 … · number u64 · about, the rest
//
// Flags are 1 for first, 2 for a number and 4 for about, which are not there without.
func (g gossip) encode() []byte {
	p := make([]byte, 0, 17+8*len(g.open)+16*len(g.leads)+len(g.about))
	flags := byte(0)
	if g.first {
		flags |= 1
	}
	if g.number > 0 {
		flags |= 2
	}
	if g.about != "" {
		flags |= 4
	}
	p = append(p, flags)
	p = binary.BigEndian.AppendUint32(p, uint32(len(g.open)))
	for _, group := range g.open {
		p = binary.BigEndian.AppendUint64(p, group)
	}
	p = binary.BigEndian.AppendUint32(p, uint32(len(g.leads)))
	for _, gt := range g.leads {
		p = binary.BigEndian.AppendUint64(p, gt.group)
		p = binary.BigEndian.AppendUint64(p, gt.term)
	}
	if g.number > 0 {
		p = binary.BigEndian.AppendUint64(p, g.number)
	}
	return append(p, g.about...)
}

func decodeGossip(p []byte) (g gossip, err error) {
	d := &decoder{p: p}
	flags := d.byte()
	g.first = flags&1 != 0
	for range d.count(8) {
		g.open = append(g.open, d.uint64())
	}
	for range d.count(16) {
		g.leads = append(g.leads, groupTerm{d.uint64(), d.uint64()})
	}
	if flags&2 != 0 {
		if g.number = d.uint64(); g.number == 0 {
			return g, errShortMessage
		}
	}
	if flags&4 != 0 {
		if g.about = d.rest(); g.about == "" {
			return g, errShortMessage
		}
	}
	return g, d.end()
}

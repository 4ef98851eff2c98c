package transport

import (
	"time"

	"github.com/hashicorp/raft"
)

// An idle group's leader would send a heartbeat to each follower about once a
// second, only to hear again what it was told before. With a thousand groups
// that is most of what an idle node does. So a heartbeat is answered here, as
// the follower answered last, while nothing can have changed that the leader
// would not be told otherwise:
//
//   - The follower answered the last append that this term's leader sent it with
//     success, on the connection that is still open, less than Config.Standing
//     ago. Appends without entries come every CommitTimeout of Raft to twice that;
//     they are never answered here, and keep the follower from standing for
//     election.
//   - No other append to it is under way: one that does not come back, from a
//     disk that hangs say, must cost the leader its lease.
//   - Something came over that connection within heardTime; a ping is answered
//     every PingInterval.
//   - No connection to any peer has ended since. Who lost us may have elected
//     another leader with those who still hear us.
//
// What this costs: a leader that is cut off from its followers keeps its lease
// for heardTime longer, and one whose followers' replicas have ended, while their
// nodes live on, until its next append. Neither can commit anything meanwhile.
type standing struct {
	client *client
	term   uint64
	since  time.Duration // of Transport.start
	ends   uint64        // Transport.ends then
}

const heardTime = time.Second

// begin notes that an append to a server is under way, and returns how many
// connections have ended so far.
func (p *Port) begin(id raft.ServerID) (ends uint64) {
	p.standingMu.Lock()
	defer p.standingMu.Unlock()
	delete(p.standings, id)
	if p.underWay == nil {
		p.underWay = make(map[raft.ServerID]int)
	}
	p.underWay[id]++
	return p.t.ends.Load()
}

// finish notes what became of an append; ends is what begin returned.
func (p *Port) finish(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error, ends uint64) {
	var c *client
	if err == nil && resp.Success && resp.Term == args.Term {
		if to, err := ParseServerID(id); err == nil {
			c = p.t.peer(to.Node).current(kindControl, to.Incarnation)
		}
	}
	p.standingMu.Lock()
	defer p.standingMu.Unlock()
	if p.underWay[id]--; p.underWay[id] == 0 {
		delete(p.underWay, id)
	}
	if c == nil {
		delete(p.standings, id)
		return
	}
	if p.standings == nil {
		p.standings = make(map[raft.ServerID]standing)
	}
	p.standings[id] = standing{client: c, term: args.Term, since: time.Since(p.t.start), ends: ends}
}

// stands tells whether a heartbeat of term to a server would be answered with
// success, as far as this node can know.
func (p *Port) stands(id raft.ServerID, term uint64) bool {
	p.standingMu.Lock()
	s, ok := p.standings[id]
	busy := p.underWay[id] > 0
	p.standingMu.Unlock()
	now := time.Since(p.t.start)
	return ok && !busy && s.term == term && s.ends == p.t.ends.Load() && now-s.since < p.t.cfg.Standing &&
		now-time.Duration(s.client.conn.last.Load()) < heardTime && s.client.open()
}

// open tells whether the connection has not ended.
func (c *client) open() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err == nil
}

// current returns the open connection of a kind to an incarnation of the peer, or nil.
func (p *peer) current(kind uint8, incarnation string) *client {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.links[kind].client; c != nil && c.remote.Incarnation == incarnation {
		return c
	}
	return nil
}

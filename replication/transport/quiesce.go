package transport

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// An idle group's leader has nothing to tell its followers but that it is there.
// Raft has it say so at times of its own choosing, and what costs is that nodes
// wake up for each; with a thousand groups that is most of what an idle node does.
// So an idle group is quiesced: an append without entries is held here until it is
// due, Timers.Quiesce after the follower's last answer, and goes when the transport
// wakes for its pings anyhow, in one frame with those of all groups that are due then.
// It is held only while nothing hints that the answer would be news:
//
//   - The follower answered the last append that this term's leader sent it with
//     success, on the connection that is still open, and knows the leader's commit
//     index.
//   - No append to it is under way: one that does not come back, from a disk that
//     hangs say, must cost the leader its lease.
//   - No connection to any peer has ended since it was asked. Who lost us may have
//     elected another leader with those who still hear us.
//
// Raft's lease and heartbeat timeout must exceed Timers.Quiesce by what a busy node may
// need to ask and to answer.

// An affirmation is that a follower answered an append with success.
type affirmation struct {
	client *client
	term   uint64
	commit uint64        // it was told
	at     time.Duration // of Transport.start
	ends   uint64        // quiescedTable.ends when it was asked
}

// A quiesced is an append without entries that waits until it is due.
type quiesced struct {
	hurries bool          // new entries wait for its answer
	over    chan struct{} // filled when it is to go
}

func (q *quiesced) end() {
	select {
	case q.over <- struct{}{}:
	default: // ended already
	}
}

// A quiescedTable has the held appends of all groups, by the tick of the transport at which they
// end. What ends earlier stays in it till then.
type quiescedTable struct {
	ends atomic.Uint64 // connections to peers that have ended

	mu    sync.Mutex
	ticks map[int64][]*quiesced
}

// add has an append held until a tick.
func (t *quiescedTable) add(r *quiesced, tick int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ticks == nil {
		t.ticks = make(map[int64][]*quiesced)
	}
	t.ticks[tick] = append(t.ticks[tick], r)
}

// wake lets those of all ticks up to one go.
func (t *quiescedTable) wake(tick int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, held := range t.ticks {
		if at <= tick {
			delete(t.ticks, at)
			for _, q := range held {
				q.end()
			}
		}
	}
}

// tick numbers the pings: an append is due at the last tick before its time.
func (t *Transport) tick(since time.Duration) int64 { return int64(since / t.cfg.Timers.PingInterval) }

// activeFor is how long after its last entries a group's empty appends skip the
// gathering. Raft's replication goroutine waits for their answer, so new entries
// would wait with it.
const activeFor = time.Second

// A quiescing decides for one group which appends without entries are held, and until when.
type quiescing struct {
	t           *Transport
	done        <-chan struct{} // closed with the port
	lastEntries atomic.Int64    // when entries were last sent or acknowledged, since Transport.start

	mu           sync.Mutex
	hurried      []*quiesced // those held for whose answers new entries would wait
	affirmations map[raft.ServerID]affirmation
	underWay     map[raft.ServerID]int // appends, heartbeats excepted, sent and not answered
}

// wait returns when an append without entries is due: one of Raft's heartbeats, or
// else one of its replication, for whose answer new entries would wait.
func (q *quiescing) wait(id raft.ServerID, args *raft.AppendEntriesRequest, heartbeat bool) {
	at, ok := q.affirmed(id, args)
	if !ok {
		return
	}
	held := &quiesced{hurries: !heartbeat, over: make(chan struct{}, 1)}
	if held.hurries {
		q.mu.Lock()
		q.hurried = append(q.hurried, held)
		q.mu.Unlock()
		defer func() {
			q.mu.Lock()
			q.hurried = slices.DeleteFunc(q.hurried, func(other *quiesced) bool { return other == held })
			q.mu.Unlock()
		}()
	}
	q.t.quiesced.add(held, q.t.tick(at+q.t.cfg.Timers.Quiesce))
	// What changed before it was there has woken nobody.
	if _, ok := q.affirmed(id, args); !ok || held.hurries && q.active() {
		return
	}
	q.t.stats.Quiesced.Add(1)
	select {
	case <-held.over:
	case <-q.done:
	}
}

// wakeHurried lets the appends go for whose answers new entries would wait.
func (q *quiescing) wakeHurried() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, held := range q.hurried {
		held.end()
	}
}

// affirmed returns when a follower last answered, and whether an append without
// entries for it may be held.
func (q *quiescing) affirmed(id raft.ServerID, args *raft.AppendEntriesRequest) (at time.Duration, ok bool) {
	q.mu.Lock()
	a, ok := q.affirmations[id]
	ok = ok && q.underWay[id] == 0
	q.mu.Unlock()
	return a.at, ok && a.term == args.Term && args.LeaderCommitIndex <= a.commit && a.ends == q.t.quiesced.ends.Load() && a.client.open() &&
		time.Since(q.t.start)-a.at < q.t.cfg.Timers.Quiesce
}

// noteEntries notes when the group last had entries to send, or an answer to them.
func (q *quiescing) noteEntries(when time.Time) { q.lastEntries.Store(int64(when.Sub(q.t.start))) }

// active reports whether the group had new entries a moment ago.
func (q *quiescing) active() bool {
	return time.Since(q.t.start)-time.Duration(q.lastEntries.Load()) < activeFor
}

// begin notes that an append to a server is asked, and returns how many connections
// have ended so far. Heartbeats do not count as under way: none of
// them waits for a disk.
func (q *quiescing) begin(id raft.ServerID, heartbeat bool) (ends uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !heartbeat {
		if q.underWay == nil {
			q.underWay = make(map[raft.ServerID]int)
		}
		q.underWay[id]++
	}
	return q.t.quiesced.ends.Load()
}

// finish notes what became of an append; ends is what begin returned.
func (q *quiescing) finish(id raft.ServerID, heartbeat bool, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse, err error, ends uint64) {
	var c *client
	if err == nil && resp.Success && resp.Term == args.Term {
		if to, err := ParseServerID(id); err == nil {
			c = q.t.peers.of(to.Node).current(kindControl, to.Incarnation)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if !heartbeat {
		q.underWay[id]--
	}
	if c == nil {
		delete(q.affirmations, id)
		return
	}
	if q.affirmations == nil {
		q.affirmations = make(map[raft.ServerID]affirmation)
	}
	commit := args.LeaderCommitIndex // of which a heartbeat says nothing
	if before := q.affirmations[id]; before.term == args.Term {
		commit = max(commit, before.commit)
	}
	q.affirmations[id] = affirmation{client: c, term: args.Term, commit: commit, at: time.Since(q.t.start), ends: ends}
}

// open reports whether the connection has not ended.
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

package partition

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A confirmer asks the voters of a led group whether they still follow this
// leadership. One round answers all who came before it began; who comes while
// one is under way waits for the next.
//
//	caller A ──┐ round 1 ───────┐
//	caller B   └──┐ (waits)     └─ A answered
//	caller C      └─────────────── round 2 ───────── B, C answered
//
// Raft's own VerifyLeader is not asked. It takes the answer to a heartbeat that
// was on its way already for the answer to one sent after the question: a leader
// that slept with that answer in its socket would believe in itself. Its futures
// may never be answered (see leadership). And its heartbeats are gathered for
// 15 ms, where a round of these takes 30 µs over loopback.
type confirmer struct {
	mu   sync.Mutex
	next *confirmation // has not begun; nil: nobody waits
	asks bool          // a round is under way
}

// A confirmation is one round. err is set before done is closed.
type confirmation struct {
	done chan struct{}
	err  error
}

// Confirm returns the leader epoch if this replica leads, may serve, and a
// quorum said so at a moment after the call: whatever was acknowledged before
// the call, by whomever, is below the high watermark here. ErrNotLeader,
// ErrQuarantined, or what ctx says. Without an answer of the quorum it gives
// up, with ErrNotLeader, after the lease.
func (p *Partition) Confirm(ctx context.Context) (epoch int32, err error) {
	r, l, err := p.serving()
	if err != nil {
		return -1, err
	}
	round := l.confirmer.join(func() error { return r.askVoters(l) })
	select {
	case <-round.done:
	case <-ctx.Done():
		return -1, ctx.Err()
	}
	if round.err != nil {
		return -1, round.err
	}
	return int32(l.term), nil
}

// join returns a round that begins after the call, and sees to it that it does.
func (c *confirmer) join(ask func() error) *confirmation {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = &confirmation{done: make(chan struct{})}
	}
	if !c.asks {
		c.asks = true
		go c.confirmWaiting(ask)
	}
	return c.next
}

// confirmWaiting runs rounds while somebody waits for one.
func (c *confirmer) confirmWaiting(ask func() error) {
	for {
		c.mu.Lock()
		round := c.next
		c.next = nil
		if round == nil {
			c.asks = false
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		round.err = ask()
		close(round.done)
	}
}

// askVoters asks all voters at once, and returns nil when a quorum of them,
// this replica included, is in no later term than l's. A voter that is not may
// have voted for a newer leader.
func (r *Replica) askVoters(l *leadership) error {
	self := r.p.env.Self
	voters := r.Voters()
	quorum := len(voters)/2 + 1
	answers := make(chan bool, len(voters))
	asked := 0
	for _, id := range voters {
		if id == self {
			quorum--
			continue
		}
		asked++
		go func() { answers <- r.follows(id, l.term) }() // ends with the transport's timeout
	}
	timeout := time.NewTimer(ConfirmTime)
	defer timeout.Stop()
	for quorum > 0 {
		if asked < quorum {
			return ErrNotLeader
		}
		select {
		case follows := <-answers:
			asked--
			if follows {
				quorum--
			}
		case <-timeout.C:
			return ErrNotLeader
		case <-r.closing:
			return ErrNotLeader
		}
	}
	// This replica's own vote may have gone to a newer leader just now, before
	// anybody was told that the leadership is over. Terms are raised before votes
	// are given.
	if r.Raft.CurrentTerm() != l.term || r.leadership.Load() != l {
		return ErrNotLeader
	}
	return nil
}

// follows asks a voter, by a heartbeat of its own, whether it is still in the
// leader's term.
func (r *Replica) follows(id raft.ServerID, term uint64) bool {
	var resp raft.AppendEntriesResponse
	err := r.Port.Heartbeat(id, &raft.AppendEntriesRequest{Term: term}, &resp)
	return err == nil && resp.Success && resp.Term == term
}

package raftgroup

import (
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A Progress is how far the followers of a group have come, as far as they said so in one
// term. That is how a leader knows which replicas are in sync. The zero value knows of
// none.
type Progress struct {
	mu    sync.Mutex
	term  uint64 // in which match was learned: a follower may have lost entries since an earlier one
	match map[raft.ServerID]matched
	// pauses has the followers that could not store what they were sent last, and how long
	// they were left alone then.
	pauses map[raft.ServerID]time.Duration
}

// A matched follower had all entries up to index when it last answered.
type matched struct {
	index  uint64
	caught time.Time // a time at which there was nothing that it does not have now

	// last was the last entry when it answered before, at asked: once it has that, it has
	// caught up with what there was then. Under load there is always something newer.
	last  uint64
	asked time.Time
}

// inSync tells whether the follower has everything up to last, or had all there was
// within the last LagTime.
func (m matched) inSync(last uint64, now time.Time) bool {
	return m.index >= last || now.Sub(m.caught) < LagTime
}

// A follower that could not store what it was sent is sent it again after pauseFirst,
// then after twice as long each time.
const (
	pauseFirst = 10 * time.Millisecond
	pauseMost  = time.Second
)

// Refused notes that a follower could not store what it was sent, and returns for how long
// it is to be left alone.
func (p *Progress) Refused(id raft.ServerID) (pause time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pauses == nil {
		p.pauses = make(map[raft.ServerID]time.Duration)
	}
	pause = min(max(2*p.pauses[id], pauseFirst), pauseMost)
	p.pauses[id] = pause
	return pause
}

// Answered notes that a follower has the entries up to index, 0 if it only answered, while
// the log ends at last. It returns up to which entry all have everything. ok is false for an
// answer to an earlier leadership.
func (p *Progress) Answered(id raft.ServerID, term, index, last uint64) (all uint64, ok bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.match == nil {
		p.match = make(map[raft.ServerID]matched)
	}
	switch {
	case term < p.term:
		return 0, false
	case term > p.term:
		p.term = term
		clear(p.match)
	}
	if index > 0 && len(p.pauses) > 0 {
		delete(p.pauses, id)
	}
	m := p.match[id]
	if index == 0 {
		index = m.index
	}
	m.index = index
	switch {
	case index >= last:
		m.caught = now
	case index >= m.last:
		m.caught = m.asked
	}
	if index >= m.last { // else it is still behind what there was then
		m.last, m.asked = last, now
	}
	p.match[id] = m
	all = index
	for _, m := range p.match {
		all = min(all, m.index)
	}
	return all, true
}

// of returns what a follower said in term, false if it has not answered in it.
func (p *Progress) of(id raft.ServerID, term uint64) (m matched, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.term != term {
		return matched{}, false
	}
	m, ok = p.match[id]
	return m, ok
}

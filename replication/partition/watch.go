package partition

import (
	"fmt"
	"sync/atomic"
	"time"
)

// An Upkeep is what a node has a replica do now and then, so that an idle group needs no
// timer: look after its members, its disk, its voters, its log and its producers. Each method
// is called by one goroutine of the node's, and not for one replica twice at a time.
type Upkeep struct {
	r *Replica

	nudges     nudges      // see nudge
	changing   atomic.Bool // a membership change is under way
	notAlone   bool        // GoOnAlone found that it must not; until the next run
	flushed    time.Time   // when flush.ms was last honoured
	unreadable time.Time   // when it was last said that batches cannot be read
}

// ExpireProducers forgets the producers that have written nothing since before, and returns
// how many are left.
func (u *Upkeep) ExpireProducers(before time.Time) (left int) {
	forgot, left := u.r.fsm.expire(before)
	if l := u.r.leadership.Load(); l != nil && forgot > 0 {
		l.outdated.Store(true)
	}
	return left
}

// WatchVoters tells a leader whether it is cut off: whether it hears no majority of its voters
// any more. Clients that wait for records are woken when that begins. It returns whether a
// voter is not connected, so that it is asked again even if nothing happens.
func (u *Upkeep) WatchVoters(now time.Time) (unheard bool) {
	l := u.r.leadership.Load()
	if l == nil {
		return false
	}
	voters, gone := u.r.Voters(), 0
	for _, id := range voters {
		heard, connected := u.r.p.env.Host.HeardOf(id, now)
		if !connected {
			unheard = true
		}
		if now.Sub(heard) > CutOffAfter {
			gone++
		}
	}
	cutOff := gone > (len(voters)-1)/2
	if l.cutOff.Swap(cutOff) != cutOff && cutOff {
		u.r.p.logger.Info("no majority of the voters is heard here: clients that wait for records look for another leader", "epoch", l.term)
		u.r.p.watermark.wake()
	}
	return unheard
}

// WatchDisk makes a group whose disk hangs lose leadership: while a write takes longer than
// StallTime, its heartbeats fail on purpose, and when that begins another voter is asked to
// campaign, since Raft itself hangs with the write. watch: there is something to watch even if
// no further write begins. flush: by flush.ms it is time for Flush, which it is taken to be
// followed by; never while flushing, which is of what was due before. It is called by one
// goroutine.
func (u *Upkeep) WatchDisk(now time.Time, flushing bool) (watch, flush bool) {
	took := u.r.store.stalled(now)
	stalls := took > StallTime
	if u.r.Port.Stall(stalls) && stalls {
		u.r.p.env.Host.GoTracked(u.r.stepAside)
	}
	s := u.r.p.settings.Load()
	if watch = took != 0 || s.FlushMessages > 1; stalls || flushing || s.FlushMessages <= 1 || now.Sub(u.flushed) < millis(s.FlushMillis) {
		return watch, false
	}
	u.flushed = now
	return watch, true
}

// Flush syncs what the topic leaves to time (flush.ms).
func (u *Upkeep) Flush() {
	if err := u.r.store.Flush(); err != nil {
		u.r.p.bounce(u.r, fmt.Errorf("flush: %w", err))
	}
}

// Topic is the name of the partition's topic.
func (u *Upkeep) Topic() string { return u.r.p.topic }

// UnmapIdle ends the mappings that nobody reads any more.
func (u *Upkeep) UnmapIdle() { u.r.store.UnmapIdle() }

package replication

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"millrace/log"
	"millrace/replication/metadata/settings"
)

// expiredBytes is how much an expired last segment must hold to be worth a roll.
const expiredBytes = 64 << 10

// upkeepLoop does what has to be done now and then, for all groups, so that an
// idle group needs no timer of its own.
func (n *Node) upkeepLoop() {
	tick := time.NewTicker(controlEvery)
	defer tick.Stop()
	var disks, members, chores, unmapped, producers, ages time.Time
	settled := false
	watched, writes := true, uint64(0) // what watchDisks said last, and how many writes had begun then
	unheard, heard := true, uint64(0)  // what watchVoters said last, and Node.membershipHints then
	steps, known := true, uint64(0)    // what tendMembers said last, and Node.membershipHints then
	began := time.Now()
	retention := n.now()
	for {
		select {
		case <-n.closing:
			return
		case <-tick.C:
		}
		now := time.Now()
		if !settled && now.Sub(began) > settledAfter {
			settled = true
			tick.Reset(stallEvery)
		}
		n.groupNews.Log(n.logger, now, n.partitionName)
		n.peerNews.Log(n.logger, now)
		n.noteController()
		n.registrar.raiseLevel()
		n.reconcileControllers()
		if begun := n.budget.writes.Load(); now.Sub(disks) >= stallEvery && (watched || begun != writes) {
			disks, writes = now, begun
			watched = n.watchDisks(now)
		}
		if hints := n.membershipHints.Load(); unheard || hints != heard {
			heard = hints
			unheard = n.watchVoters(now)
		}
		if hints := n.membershipHints.Load(); now.Sub(members) >= quietEvery || now.Sub(members) >= memberEvery && (steps || hints != known) {
			members, known = now, hints
			steps = n.tendMembers(now)
		}
		if now.Sub(ages) >= ageEvery {
			ages = now
			n.grow()
		}
		// What makes records and producers expire goes by the node's clock: who sets it
		// forward finds them gone.
		clock := n.now()
		if clock.Sub(producers) >= choresEvery {
			producers = clock
			n.expireProducers()
		}
		at := n.retainAt.Load()
		soon := at != 0 && (clock.UnixMilli() >= at || n.lacksRoom.Load()) && clock.Sub(chores) >= time.Second
		if clock.Sub(chores) >= min(choresEvery, n.retentionEvery()) || soon {
			chores = clock
			due := soon || clock.Sub(retention) >= n.retentionEvery()
			if n.tendLogs(due) && due {
				retention = clock
			}
		}
		if now.Sub(unmapped) >= unmapIdleEvery {
			unmapped = now
			n.eachReplica(func(r *replica) { r.store.UnmapIdle() }) // mappings that nobody reads any more
		}
	}
}

// expireProducers forgets the producers that have written nothing for
// producer.id.expiration.ms, and counts the others.
func (n *Node) expireProducers() {
	before := n.now().Add(-millis(n.settings().Logs.ProducerExpirationMillis))
	all := 0
	n.eachReplica(func(r *replica) {
		forgot, left := r.fsm.expire(before)
		all += left
		if l := r.leadership.Load(); l != nil && forgot > 0 {
			l.outdated.Store(true)
		}
	})
	n.budget.producers.Store(int64(all))
}

// forgot says that a partition forgot idempotent producers before their time, at
// most once a minute. It must not block.
func (r *replica) forgot(n int) {
	r.forgotten += n
	if now := r.p.env.now(); now.Sub(r.forgotAt) >= time.Minute {
		r.p.logger.Warn("idempotent producers were forgotten before producer.id.expiration.ms, since there are too many: what they send again is stored again",
			"forgotten", r.forgotten, "remembered", r.p.env.budget.maxProducers())
		r.forgotAt, r.forgotten = now, 0
	}
}

// watchVoters tells the leaders here whether they are cut off: whether they hear no
// majority of their voters any more. Clients that wait for records are woken when
// that begins. It returns whether a voter is not connected, so that it is asked again even
// if nothing happens. 1,000 led partitions take it some 200 µs.
func (n *Node) watchVoters(now time.Time) (unheard bool) {
	n.eachReplica(func(r *replica) {
		l := r.leadership.Load()
		if l == nil {
			return
		}
		voters, gone := r.Voters(), 0
		for _, id := range voters {
			heard, connected := n.failover.HeardOf(id, now)
			if !connected {
				unheard = true
			}
			if now.Sub(heard) > cutOffAfter {
				gone++
			}
		}
		cutOff := gone > (len(voters)-1)/2
		if l.cutOff.Swap(cutOff) != cutOff && cutOff {
			r.p.logger.Info("no majority of the voters is heard here: clients that wait for records look for another leader", "epoch", l.term)
			r.p.wake()
		}
	})
	return unheard
}

// watchDisks makes groups whose disk hangs lose leadership: while a write takes
// longer than stallTime, their heartbeats fail on purpose, and when that begins
// another voter is asked to campaign, since Raft itself hangs with the
// write. It also has
// the topics synced that leave that to time (flush.ms), beside itself: a sync
// hangs with the disk, and then this is needed most. It returns whether there is
// anything to watch, if no further write begins.
func (n *Node) watchDisks(now time.Time) (more bool) {
	var due []*replica
	flushing := n.flushing.Load()
	n.eachReplica(func(r *replica) {
		took := r.store.stalled(now)
		stalls := took > stallTime
		if r.Port.Stall(stalls) && stalls {
			n.goTracked(r.stepAside)
		}
		s := r.p.settings.Load()
		more = more || took != 0 || s.FlushMessages > 1
		if stalls || flushing || s.FlushMessages <= 1 || now.Sub(r.flushed) < millis(s.FlushMillis) {
			return
		}
		r.flushed = now
		due = append(due, r)
	})
	if len(due) == 0 {
		return more
	}
	n.flushing.Store(true)
	n.goTracked(func() {
		defer n.flushing.Store(false)
		for _, r := range due {
			if err := r.store.Flush(); err != nil {
				r.p.bounce(r, fmt.Errorf("flush: %w", err))
			}
		}
	})
	return more
}

// retentionEvery is how often retention looks for what has expired
// (log.retention.check.interval.ms). Whoever writes records with old timestamps
// may count on reading them for so long, as with Kafka.
func (n *Node) retentionEvery() time.Duration {
	return millis(n.settings().Logs.RetentionCheckMillis)
}

// tendLogs looks after all logs, which may wait for disks and quorums, beside the
// chores that must not wait. A pass that is still under way is left to it, and
// began is false.
func (n *Node) tendLogs(retention bool) (began bool) {
	if !n.retaining.CompareAndSwap(false, true) {
		return false
	}
	if retention {
		n.retainAt.Store(0)
	}
	n.goTracked(func() {
		defer n.retaining.Store(false)
		n.keepRoom()
		n.book.SaveAgain()
		var deleted deletions
		n.eachReplica(func(r *replica) {
			n.tendLog(r)
			if retention {
				deleted.add(r.p.topic, n.retain(r))
			}
		})
		deleted.log(n)
	})
	return true
}

// deletions are what a pass of retention deleted, by topic: a line for each, however
// many partitions and segments it was.
type deletions map[string]struct {
	partitions int
	records    int64
}

func (d *deletions) add(topic string, records int64) {
	if records == 0 {
		return
	}
	if *d == nil {
		*d = make(deletions)
	}
	of := (*d)[topic]
	of.partitions++
	of.records += records
	(*d)[topic] = of
}

func (d deletions) log(n *Node) {
	for _, topic := range slices.Sorted(maps.Keys(d)) {
		n.logger.Info("retention deleted records", "topic", topic, "partitions", d[topic].partitions, "records", d[topic].records)
	}
}

// tendLog rolls what is due, and sees to it that it can be deleted.
func (n *Node) tendLog(r *replica) {
	r.settleTrim()
	now := n.now()
	if _, err := r.store.RollIfDue(now); err != nil && !errors.Is(err, log.ErrNoSpace) {
		r.p.logger.Warn("segment was not rolled", "error", err)
	}
	if r.store.StartOffset() == r.store.EndOffset() && r.store.Size() > expiredBytes {
		// All of it has expired, the last segment too: only once that has ended can
		// it be deleted, by the snapshot that follows.
		if err := r.store.Roll(); err != nil && !errors.Is(err, log.ErrNoSpace) {
			r.p.logger.Warn("an expired segment was not rolled", "error", err)
		}
	}
	n.cover(r)
}

// retainBy asks for a pass of retention at a time, ms since 1970, or earlier.
func (n *Node) retainBy(due int64) {
	for {
		at := n.retainAt.Load()
		if at != 0 && at <= due || n.retainAt.CompareAndSwap(at, due) {
			return
		}
	}
}

// spared tells until when nothing of a partition is deleted, if that is not over:
// its settings have changed, and changing them back is still to be of use. A disk
// without room has no time for that.
func (n *Node) spared(p *Partition, now time.Time) (until int64, spared bool) {
	until = p.deleteFrom.Load()
	return until, now.UnixMilli() < until && !n.lacksRoom.Load()
}

// deletable returns a partition's settings as far as deletion goes by them, and until when
// they spare everything. The settings are read first, since configure sets them last: who
// read them last might go by new ones at once.
func (n *Node) deletable(p *Partition, now time.Time) (s *settings.Topic, until int64, spared bool) {
	s = p.settings.Load()
	until, spared = n.spared(p, now)
	return s, until, spared
}

// Retained returns where the log of a partition that is led here would start at a
// time under the given settings, if nothing was written until then.
func (p *Partition) Retained(s *settings.Topic, at time.Time) int64 {
	r := p.current.Load()
	if r == nil || !s.CleanupDelete {
		return p.StartOffset()
	}
	return max(p.StartOffset(), r.store.RetentionOffset(at, maxAge(s), s.RetentionBytes, p.HighWatermark()))
}

// NextDeletion returns up to which offset retention deletes next of a partition that is
// led here, if nothing is written to it, and when the records have expired: not before
// deletion may begin at all. ok is false if nothing is to be deleted.
func (p *Partition) NextDeletion() (offset int64, at time.Time, ok bool) {
	s := p.settings.Load()
	r := p.current.Load()
	if r == nil || !s.CleanupDelete {
		return 0, time.Time{}, false
	}
	offset, at, ok = r.store.NextRetention(p.env.now(), maxAge(s), s.RetentionBytes, p.HighWatermark())
	if until, spared := p.env.host.spared(p, at); ok && spared {
		at = time.UnixMilli(until)
	}
	return offset, at, ok
}

// maxAge is how old records may be by a topic's retention, negative for any age.
func maxAge(s *settings.Topic) time.Duration {
	if s.RetentionMillis < 0 {
		return -1
	}
	return millis(s.RetentionMillis)
}

// retain moves the log start, on the leader, by the topic's retention. It returns by how
// many records.
func (n *Node) retain(r *replica) (records int64) {
	now := n.now()
	if r.leadership.Load() == nil {
		return 0
	}
	s, until, spared := n.deletable(r.p, now)
	if spared {
		n.retainBy(until)
		return 0
	}
	from, start := r.p.StartOffset(), r.p.Retained(s, now)
	if start <= from {
		return 0
	}
	ctx, cancel := context.WithTimeout(n.ctx, callTimeout)
	defer cancel()
	if _, err := r.p.Trim(ctx, start); err != nil {
		r.p.logger.Warn("retention did not move the log start", "to", start, "error", err)
		return 0
	}
	return start - from
}

// cover sees to it that the snapshot comes to cover the segments that have ended:
// until it does they can be neither deleted nor compacted. A snapshot stands at
// the last entry that the state machine was given, and Raft gives it none for the
// entry that begins a leadership. Where such a one ends a segment, and nothing
// follows, the leader moves the log start to where it is: an entry like any other.
func (n *Node) cover(r *replica) {
	last := uint64(0)
	for _, s := range r.store.Sealed() {
		if !s.Compacted {
			last = s.LastIndex
		}
	}
	if last <= r.snapshots.index() || !r.store.live.Load() {
		return
	}
	if applied := r.Raft.AppliedIndex(); r.leadership.Load() != nil && applied >= last && r.fsm.given() < last {
		r.Raft.ApplyLog(log.TrimEntry(r.p.StartOffset()), time.Second)
	}
	n.wantSnapshot(r)
}

// wantSnapshot queues a replica for a snapshot. When the queue is full the
// next roll asks again.
func (n *Node) wantSnapshot(r *replica) {
	if r.wantsSnapshot.CompareAndSwap(false, true) {
		select {
		case n.snapshots <- r:
		default:
			r.wantsSnapshot.Store(false)
		}
	}
}

// snapshotLoop takes the snapshots that are asked for, one at a time.
func (n *Node) snapshotLoop() {
	for {
		select {
		case <-n.closing:
			return
		case r := <-n.snapshots:
			r.wantsSnapshot.Store(false)
			r.takeSnapshot()
		}
	}
}

package replication

import (
	"maps"
	"slices"
	"time"

	"millrace/replication/partition"
)

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
		if begun := n.budget.Begun(); now.Sub(disks) >= stallEvery && (watched || begun != writes) {
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
			n.eachReplica(func(r *partition.Replica) { r.UnmapIdle() }) // mappings that nobody reads any more
		}
	}
}

// expireProducers forgets the producers that have written nothing for
// producer.id.expiration.ms, and counts the others.
func (n *Node) expireProducers() {
	before := n.now().Add(-milliseconds(n.settings().Logs.ProducerExpirationMillis))
	all := 0
	n.eachReplica(func(r *partition.Replica) { all += r.ExpireProducers(before) })
	n.budget.Remember(all)
}

// watchVoters tells the leaders here whether they are cut off, and returns whether a voter is
// not connected, so that it is asked again even if nothing happens. 1,000 led partitions take
// it some 200 µs.
func (n *Node) watchVoters(now time.Time) (unheard bool) {
	n.eachReplica(func(r *partition.Replica) {
		if r.WatchVoters(now) {
			unheard = true
		}
	})
	return unheard
}

// watchDisks makes groups whose disk hangs lose leadership, and has the topics synced that
// leave that to time (flush.ms), beside itself: a sync hangs with the disk, and then this is
// needed most. It returns whether there is anything to watch, if no further write begins.
func (n *Node) watchDisks(now time.Time) (more bool) {
	var due []*partition.Replica
	flushing := n.flushing.Load()
	n.eachReplica(func(r *partition.Replica) {
		watch, flush := r.WatchDisk(now, flushing)
		more = more || watch
		if flush {
			due = append(due, r)
		}
	})
	if len(due) == 0 {
		return more
	}
	n.flushing.Store(true)
	n.goTracked(func() {
		defer n.flushing.Store(false)
		for _, r := range due {
			r.Flush()
		}
	})
	return more
}

// retentionEvery is how often retention looks for what has expired
// (log.retention.check.interval.ms). Whoever writes records with old timestamps
// may count on reading them for so long, as with Kafka.
func (n *Node) retentionEvery() time.Duration {
	return milliseconds(n.settings().Logs.RetentionCheckMillis)
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
		n.eachReplica(func(r *partition.Replica) {
			r.TendLog()
			if retention {
				deleted.add(r.Topic(), r.Retain())
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

// retainBy asks for a pass of retention at a time, ms since 1970, or earlier.
func (n *Node) retainBy(due int64) {
	for {
		at := n.retainAt.Load()
		if at != 0 && at <= due || n.retainAt.CompareAndSwap(at, due) {
			return
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
			r.TakeSnapshot()
		}
	}
}

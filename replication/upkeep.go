package replication

import (
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"millrace/internal/slowlog"
	"millrace/replication/folder"
	"millrace/replication/partition"
)

// An upkeep does what has to be done now and then on a node, for all groups: an idle group
// needs no timer of its own. Any goroutine may ask it for snapshots and passes of retention.
type upkeep struct {
	n     *Node
	aging folder.Aging

	hints     atomic.Uint64 // counts what may call for another leader or member: images, nodes, leaders
	snapshots chan *partition.Replica
	retainAt  atomic.Int64  // when retention is due before its time, since settings changed; ms since 1970, 0: at its time
	retaining atomic.Bool   // a pass is under way
	flushing  atomic.Bool   // a flush of the topics that are due is under way
	lacksRoom atomic.Bool   // the node's own files have none to grow; see keepRoom
	fullDisk  slowlog.Limit // which took no records of producers
	growing   atomic.Bool   // topics are, with the cluster
	tending   atomic.Bool   // the controllers' members are being looked after
}

func newUpkeep(n *Node) upkeep {
	return upkeep{n: n, snapshots: make(chan *partition.Replica, 1024), fullDisk: slowlog.Limit{Every: fullSaidEvery}}
}

// loop looks at each tick what is due, until the node ends.
func (u *upkeep) loop() {
	tick := time.NewTicker(controlEvery)
	defer tick.Stop()
	var disks, members, chores, unmapped, producers, ages time.Time
	settled := false
	watched, writes := true, uint64(0) // what watchDisks said last, and how many writes had begun then
	unheard, heard := true, uint64(0)  // what watchVoters said last, and hints then
	steps, known := true, uint64(0)    // what tendMembers said last, and hints then
	began := time.Now()
	retention := u.n.cfg.Now()
	for {
		select {
		case <-u.n.closing:
			return
		case <-tick.C:
		}
		now := time.Now()
		if !settled && now.Sub(began) > settledAfter {
			settled = true
			tick.Reset(stallEvery)
		}
		u.n.news.groups.Log(u.n.logger, now, u.n.partitionName)
		u.n.news.peers.Log(u.n.logger, now)
		u.n.registrar.noteController()
		u.n.registrar.raiseLevel()
		u.reconcileControllers()
		if begun := u.n.env.Budget.Begun(); now.Sub(disks) >= stallEvery && (watched || begun != writes) {
			disks, writes = now, begun
			watched = u.watchDisks(now)
		}
		if hints := u.hints.Load(); unheard || hints != heard {
			heard = hints
			unheard = u.watchVoters(now)
		}
		if hints := u.hints.Load(); now.Sub(members) >= quietEvery || now.Sub(members) >= memberEvery && (steps || hints != known) {
			members, known = now, hints
			steps = u.tendMembers(now)
		}
		if now.Sub(ages) >= ageEvery {
			ages = now
			u.grow()
		}
		// What makes records and producers expire goes by the node's clock: who sets it
		// forward finds them gone.
		clock := u.n.cfg.Now()
		if clock.Sub(producers) >= choresEvery {
			producers = clock
			u.expireProducers()
		}
		at := u.retainAt.Load()
		soon := at != 0 && (clock.UnixMilli() >= at || u.lacksRoom.Load()) && clock.Sub(chores) >= time.Second
		if clock.Sub(chores) >= min(choresEvery, u.retentionEvery()) || soon {
			chores = clock
			due := soon || clock.Sub(retention) >= u.retentionEvery()
			if u.tendLogs(due) && due {
				retention = clock
			}
		}
		if now.Sub(unmapped) >= unmapIdleEvery {
			unmapped = now
			u.n.eachReplica(func(r *partition.Replica) { r.UnmapIdle() }) // mappings that nobody reads any more
		}
	}
}

// expireProducers forgets the producers that have written nothing for
// producer.id.expiration.ms, and counts the others.
func (u *upkeep) expireProducers() {
	before := u.n.cfg.Now().Add(-milliseconds(u.n.settings().Logs.ProducerExpirationMillis))
	all := 0
	u.n.eachReplica(func(r *partition.Replica) { all += r.ExpireProducers(before) })
	u.n.env.Budget.Remember(all)
}

// watchVoters tells the leaders here whether they are cut off, and returns whether a voter is
// not connected, so that it is asked again even if nothing happens. 1,000 led partitions take
// it some 200 µs.
func (u *upkeep) watchVoters(now time.Time) (unheard bool) {
	u.n.eachReplica(func(r *partition.Replica) {
		if r.WatchVoters(now) {
			unheard = true
		}
	})
	return unheard
}

// watchDisks makes groups whose disk hangs lose leadership, and has the topics synced that
// leave that to time (flush.ms), beside itself: a sync hangs with the disk, and then this is
// needed most. It returns whether there is anything to watch, if no further write begins.
func (u *upkeep) watchDisks(now time.Time) (more bool) {
	var due []*partition.Replica
	flushing := u.flushing.Load()
	u.n.eachReplica(func(r *partition.Replica) {
		watch, flush := r.WatchDisk(now, flushing)
		more = more || watch
		if flush {
			due = append(due, r)
		}
	})
	if len(due) == 0 {
		return more
	}
	u.flushing.Store(true)
	u.n.goTracked(func() {
		defer u.flushing.Store(false)
		for _, r := range due {
			r.Flush()
		}
	})
	return more
}

// retentionEvery is how often retention looks for what has expired
// (log.retention.check.interval.ms). Whoever writes records with old timestamps
// may count on reading them for so long, as with Kafka.
func (u *upkeep) retentionEvery() time.Duration {
	return milliseconds(u.n.settings().Logs.RetentionCheckMillis)
}

// tendLogs looks after all logs, which may wait for disks and quorums, beside the
// chores that must not wait. A pass that is still under way is left to it, and
// began is false.
func (u *upkeep) tendLogs(retention bool) (began bool) {
	if !u.retaining.CompareAndSwap(false, true) {
		return false
	}
	if retention {
		u.retainAt.Store(0)
	}
	u.n.goTracked(func() {
		defer u.retaining.Store(false)
		u.keepRoom()
		u.n.book.SaveAgain()
		var deleted deletions
		u.n.eachReplica(func(r *partition.Replica) {
			r.TendLog()
			if retention {
				deleted.add(r.Topic(), r.Retain())
			}
		})
		deleted.log(u.n.logger)
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

func (d deletions) log(logger *slog.Logger) {
	for _, topic := range slices.Sorted(maps.Keys(d)) {
		logger.Info("retention deleted records", "topic", topic, "partitions", d[topic].partitions, "records", d[topic].records)
	}
}

// retainBy asks for a pass of retention at a time, ms since 1970, or earlier.
func (u *upkeep) retainBy(due int64) {
	for {
		at := u.retainAt.Load()
		if at != 0 && at <= due || u.retainAt.CompareAndSwap(at, due) {
			return
		}
	}
}

// snapshotLoop takes the snapshots that are asked for, one at a time.
func (u *upkeep) snapshotLoop() {
	for {
		select {
		case <-u.n.closing:
			return
		case r := <-u.snapshots:
			r.TakeSnapshot()
		}
	}
}

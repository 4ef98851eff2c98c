package replication

import (
	"time"

	"millrace/log"
	"millrace/replication/metadata/settings"
	"millrace/replication/partition"
)

// cleanerLoop compacts the replicas here whose topic says cleanup.policy=compact,
// one at a time, the dirtiest first. Each replica is compacted on its own: what
// was rewritten is committed and covered by its snapshot, so replicas differ in
// when they drop what has been superseded, and in nothing else.
func (u *upkeep) cleanerLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-u.n.closing:
			return
		case <-timer.C:
		}
		cleaner := u.n.settings().Cleaner
		if cleaner.Enable {
			failed := make(map[*partition.Replica]bool) // in this round
			for {
				r, compaction := u.dirtiest(cleaner, failed)
				if r == nil {
					break
				}
				if !r.Clean(compaction) {
					failed[r] = true
				}
			}
		}
		timer.Reset(max(milliseconds(cleaner.BackoffMillis), 100*time.Millisecond))
	}
}

// dirtiest returns the replica to compact next, and how: the largest part of the log first,
// see partition.Replica.Dirty.
func (u *upkeep) dirtiest(cleaner settings.Cleaner, except map[*partition.Replica]bool) (best *partition.Replica, how log.Compaction) {
	most := 0.0
	at := u.n.cfg.Now()
	u.n.eachReplica(func(r *partition.Replica) {
		if except[r] {
			return
		}
		if c, dirt := r.Dirty(cleaner, at); dirt > most {
			best, how, most = r, c, dirt
		}
	})
	return best, how
}

package replication

import (
	"context"
	"errors"
	"math"
	"time"

	"millrace/log"
	"millrace/replication/metadata/settings"
	"millrace/segment"
)

// cleanerLoop compacts the replicas here whose topic says cleanup.policy=compact,
// one at a time, the dirtiest first. Each replica is compacted on its own: what
// was rewritten is committed and covered by its snapshot, so replicas differ in
// when they drop what has been superseded, and in nothing else.
func (n *Node) cleanerLoop() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	complained := make(map[*replica]time.Time) // of batches that cannot be read
	for {
		select {
		case <-n.closing:
			return
		case <-timer.C:
		}
		for r, at := range complained {
			if time.Since(at) >= complainEvery {
				delete(complained, r)
			}
		}
		cleaner := n.settings().Cleaner
		pause := max(millis(cleaner.BackoffMillis), 100*time.Millisecond)
		if cleaner.Enable {
			failed := make(map[*replica]bool) // in this round
			for {
				r, compaction := n.dirtiest(cleaner, failed)
				if r == nil {
					break
				}
				done, err := n.clean(r, compaction)
				if err != nil {
					failed[r] = true
				}
				if _, said := complained[r]; done.Unreadable > 0 && !said {
					complained[r] = time.Now()
					r.p.logger.Warn("a compaction met batches that cannot be read, and kept them as they are: see `millrace segment dump`",
						"batches", done.Unreadable, "first", done.Problem)
				}
			}
		}
		timer.Reset(pause)
	}
}

// complainEvery is how often a replica is complained of that has batches which
// cannot be read: each compaction meets them again.
const complainEvery = time.Hour

// dirtiest returns the replica to compact next, and how: one whose dirty part has
// waited for max.compaction.lag.ms before one in which it has reached
// min.cleanable.dirty.ratio, the largest part of the log first.
func (n *Node) dirtiest(cleaner settings.Cleaner, except map[*replica]bool) (*replica, log.Compaction) {
	var best *replica
	var how log.Compaction
	most := 0.0
	at := n.now()
	now := at.UnixMilli()
	n.eachReplica(func(r *replica) {
		s, _, spared := n.deletable(r.p, at)
		if spared || !s.CleanupCompact || except[r] || !r.store.live.Load() {
			return
		}
		c := log.Compaction{
			MaxIndex:        r.snapshots.index(),
			Limit:           r.p.StableOffset(),
			MinLag:          millis(s.MinCompactionLagMillis),
			DeleteRetention: millis(s.DeleteRetentionMillis),
			MaxKeys:         int(max(1, min(cleaner.DedupeBytes/log.KeyBytes, 1<<30))),
		}
		if rate := cleaner.BytesPerSecond; rate < math.MaxInt64 {
			c.BytesPerSecond = int64(rate)
		}
		clean, dirty, since := r.store.Dirty(c)
		if dirty == 0 {
			return
		}
		ratio := float64(dirty) / float64(clean+dirty)
		overdue := s.MaxCompactionLagMillis < now-since
		if !overdue && ratio < s.MinCleanableDirtyRatio {
			return
		}
		if overdue {
			ratio++
		}
		if ratio > most {
			best, how, most = r, c, ratio
		}
	})
	return best, how
}

// clean compacts one replica.
func (n *Node) clean(r *replica, c log.Compaction) (log.Compacted, error) {
	ctx, cancel := context.WithCancel(n.ctx)
	defer cancel()
	stop := context.AfterFunc(n.ctx, cancel)
	defer stop()
	go func() { // "cleaning": ends with the compaction, which ends with the replica's run
		select {
		case <-r.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	began := time.Now()
	done, err := r.store.Compact(ctx, c)
	switch {
	case err == nil:
		r.p.logger.Info("compacted", "segments", done.Segments, "read_bytes", done.Read, "wrote_bytes", done.Wrote,
			"records", done.Records, "kept", done.Kept, "took", time.Since(began).Round(time.Millisecond))
		if done.Segments == 0 {
			err = errNothingCompacted
		}
	case ctx.Err() != nil || errors.Is(err, log.ErrClosed):
	case segment.IsCorrupt(err):
		r.p.bounce(r, err)
	default:
		r.p.logger.Warn("a compaction failed and will be tried again", "error", err)
	}
	return done, err
}

// errNothingCompacted keeps a replica that had nothing to compact out of the round.
var errNothingCompacted = errors.New("replication: nothing to compact")

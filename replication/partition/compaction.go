package partition

import (
	"context"
	"errors"
	"math"
	"time"

	"millrace/log"
	"millrace/replication/metadata/settings"
	"millrace/segment"
)

// Dirty returns how much a replica calls for compaction, and by what: the part of its log
// that is dirty, from min.cleanable.dirty.ratio on, and one more where the dirty part has
// waited for max.compaction.lag.ms; 0 where there is nothing to do.
func (u *Upkeep) Dirty(cleaner settings.Cleaner, at time.Time) (c log.Compaction, dirt float64) {
	s, _, spared := u.r.p.deletable(at)
	if spared || !s.CleanupCompact || !u.r.store.live.Load() {
		return c, 0
	}
	c = log.Compaction{
		MaxIndex:        u.r.snapshots.index(),
		Limit:           u.r.p.StableOffset(),
		MinLag:          millis(s.MinCompactionLagMillis),
		DeleteRetention: millis(s.DeleteRetentionMillis),
		MaxKeys:         int(max(1, min(cleaner.DedupeBytes/log.KeyBytes, 1<<30))),
	}
	if rate := cleaner.BytesPerSecond; rate < math.MaxInt64 {
		c.BytesPerSecond = int64(rate)
	}
	clean, dirty, since := u.r.store.Dirty(c)
	if dirty == 0 {
		return c, 0
	}
	ratio := float64(dirty) / float64(clean+dirty)
	switch overdue := s.MaxCompactionLagMillis < at.UnixMilli()-since; {
	case overdue:
		ratio++
	case ratio < s.MinCleanableDirtyRatio:
		return c, 0
	}
	return c, ratio
}

// Clean compacts the replica's log. It returns whether something was compacted: else it is
// not to be tried again before a while.
func (u *Upkeep) Clean(c log.Compaction) (compacted bool) {
	ctx, cancel := context.WithCancel(u.r.p.env.Ctx)
	defer cancel()
	go func() { // "cleaning": ends with the compaction, which ends with the replica's run
		select {
		case <-u.r.closing:
			cancel()
		case <-ctx.Done():
		}
	}()
	began := time.Now()
	done, err := u.r.store.Compact(ctx, c)
	switch {
	case err == nil:
		u.r.p.logger.Info("compacted", "segments", done.Segments, "read_bytes", done.Read, "wrote_bytes", done.Wrote,
			"records", done.Records, "kept", done.Kept, "took", time.Since(began).Round(time.Millisecond))
	case ctx.Err() != nil || errors.Is(err, log.ErrClosed):
	case segment.IsCorrupt(err):
		u.r.p.bounce(u.r, err)
	default:
		u.r.p.logger.Warn("a compaction failed and will be tried again", "error", err)
	}
	if done.Unreadable > 0 && time.Since(u.unreadable) >= unreadableEvery {
		u.unreadable = time.Now()
		u.r.p.logger.Warn("a compaction met batches that cannot be read, and kept them as they are: see `millrace segment dump`",
			"batches", done.Unreadable, "first", done.Problem)
	}
	return err == nil && done.Segments > 0
}

// unreadableEvery is how often it is said of a replica that it has batches which
// cannot be read: each compaction meets them again.
const unreadableEvery = time.Hour

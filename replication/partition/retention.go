package partition

import (
	"context"
	"errors"
	"time"

	"millrace/log"
	"millrace/replication/metadata/settings"
)

// expiredBytes is how much an expired last segment must hold to be worth a roll.
const expiredBytes = 64 << 10

// TendLog rolls what is due, and sees to it that it can be deleted.
func (u *Upkeep) TendLog() {
	u.r.trims.settle()
	now := u.r.p.env.Now()
	if _, err := u.r.store.RollIfDue(now); err != nil && !errors.Is(err, log.ErrNoSpace) {
		u.r.p.logger.Warn("segment was not rolled", "error", err)
	}
	if u.r.store.StartOffset() == u.r.store.EndOffset() && u.r.store.Size() > expiredBytes {
		// All of it has expired, the last segment too: only once that has ended can
		// it be deleted, by the snapshot that follows.
		if err := u.r.store.Roll(); err != nil && !errors.Is(err, log.ErrNoSpace) {
			u.r.p.logger.Warn("an expired segment was not rolled", "error", err)
		}
	}
	u.cover()
}

// spared tells until when nothing of a partition is deleted, if that is not over:
// its settings have changed, and changing them back is still to be of use. A disk
// without room has no time for that.
func (s *site) spared(now time.Time) (until int64, spared bool) {
	until = s.deleteFrom.Load()
	return until, now.UnixMilli() < until && !s.env.Host.LacksRoom()
}

// deletable returns a partition's settings as far as deletion goes by them, and until when
// they spare everything. The settings are read first, since Configure sets them last: who
// read them last might go by new ones at once.
func (s *site) deletable(now time.Time) (set *settings.Topic, until int64, spared bool) {
	set = s.settings.Load()
	until, spared = s.spared(now)
	return set, until, spared
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
	offset, at, ok = r.store.NextRetention(p.env.Now(), maxAge(s), s.RetentionBytes, p.HighWatermark())
	if until, spared := p.spared(at); ok && spared {
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

// Retain moves the log start, on the leader, by the topic's retention. It returns by how
// many records.
func (u *Upkeep) Retain() (records int64) {
	now := u.r.p.env.Now()
	if u.r.leadership.Load() == nil {
		return 0
	}
	s, until, spared := u.r.p.deletable(now)
	if spared {
		u.r.p.env.Host.RetainBy(until)
		return 0
	}
	from, start := u.r.p.StartOffset(), u.r.p.Retained(s, now)
	if start <= from {
		return 0
	}
	ctx, cancel := context.WithTimeout(u.r.p.env.Ctx, callTimeout)
	defer cancel()
	if _, err := u.r.p.Trim(ctx, start); err != nil {
		u.r.p.logger.Warn("retention did not move the log start", "to", start, "error", err)
		return 0
	}
	return start - from
}

// cover sees to it that the snapshot comes to cover the segments that have ended:
// until it does they can be neither deleted nor compacted. A snapshot stands at
// the last entry that the state machine was given, and Raft gives it none for the
// entry that begins a leadership. Where such a one ends a segment, and nothing
// follows, the leader moves the log start to where it is: an entry like any other.
func (u *Upkeep) cover() {
	last := uint64(0)
	for _, s := range u.r.store.Sealed() {
		if !s.Compacted {
			last = s.LastIndex
		}
	}
	if last <= u.r.snapshots.index() || !u.r.store.live.Load() {
		return
	}
	if applied := u.r.Raft.AppliedIndex(); u.r.leadership.Load() != nil && applied >= last && u.r.fsm.given() < last {
		u.r.Raft.ApplyLog(log.TrimEntry(u.r.p.StartOffset()), time.Second)
	}
	u.r.wantSnapshot()
}

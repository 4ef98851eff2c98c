package group

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"millrace/segment/record"
)

// A shard serves the groups of one partition of __consumer_offsets in one epoch.
// It never serves another: an epoch that ends takes its shard with it.
type shard struct {
	c         *Coordinator
	partition int32
	epoch     int32
	log       *slog.Logger
	loading   atomic.Bool

	mu       sync.Mutex
	unloaded bool
	groups   map[string]*group
	held     map[string]int64 // by host, what its members hold here
	idle     int              // what those about to join hold here
	pendings pendings         // groups that somebody is about to join
	pended   uint64           // member ids handed out
	taken    []*flight        // that landSome is at
	alarms   alarms
	timer    *time.Timer
	wakeAt   time.Time // when timer goes off; zero: it does not
	sweep    alarm     // the next look for offsets to expire

	// Appends wait here for their outcome, in order. The journal's callbacks take
	// only landMu, which nobody holds for long, so they do not block.
	landMu  sync.Mutex
	flying  []*flight
	landing bool // land runs
}

// A flight is an append on its way.
type flight struct {
	landed func(error) // nil: has been called
	over   bool
	err    error
}

func newShard(c *Coordinator, partition, epoch int32) *shard {
	s := &shard{
		c: c, partition: partition, epoch: epoch,
		log:    c.cfg.Logger.With("partition", partition, "epoch", epoch),
		groups: make(map[string]*group), held: make(map[string]int64),
	}
	s.loading.Store(true)
	return s
}

func (s *shard) now() time.Time { return s.c.cfg.Now() }

// load replays records and begins to serve.
func (s *shard) load(records iter.Seq2[record.Record, error]) (failed error) {
	began := s.now()
	n := 0
	for r, err := range records {
		if err != nil {
			return fmt.Errorf("load group partition %d: %w", s.partition, err)
		}
		s.mu.Lock()
		gone := s.unloaded
		if !gone {
			s.replayLocked(r)
		}
		s.mu.Unlock()
		if gone {
			return ErrUnloaded
		}
		n++
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("load group partition %d: panic: %v\n%s", s.partition, p, debug.Stack())
		}
	}()
	if s.unloaded {
		return ErrUnloaded
	}
	for _, g := range s.groups {
		g.members.startLocked()
	}
	s.sweep.ring = s.sweepLocked
	s.setLocked(&s.sweep, s.now().Add(s.c.settings().RetentionCheckInterval))
	s.loading.Store(false)
	level := slog.LevelInfo
	if len(s.groups) == 0 {
		level = slog.LevelDebug // of fifty partitions most hold none, and all are loaded at each failover
	}
	s.log.Log(context.Background(), level, "loaded groups", "groups", len(s.groups), "records", n, "took", s.now().Sub(began))
	return nil
}

// leave unlocks the shard after something was done with it, and is deferred right
// after the lock is taken. A panic in between ends what the shard knows, not the
// process and not its lock: memory is suspect from then on, the journal is not, and
// memory is nothing but what the journal says. So the shard is dropped, as after an
// append of unknown outcome, and is to be loaded again. Where a request brings about
// the panic each time, its partition is loaded again and again, which is seen in the
// log and keeps no other partition from being served.
func (s *shard) leave() {
	p := recover()
	if p == nil {
		s.mu.Unlock()
		return
	}
	s.log.Error("unloading groups: a panic", "panic", p, "stack", string(debug.Stack()))
	s.breakLocked()
	s.mu.Unlock()
	s.lost()
}

// caught runs f without the lock, for a goroutine that no caller recovers for, and
// returns its panic as an error.
func caught(f func()) (failed error) {
	defer func() {
		if p := recover(); p != nil {
			failed = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	f()
	return nil
}

// do runs f with the shard's lock held, which it releases. It returns false if f
// panicked, and the shard is unloaded.
func (s *shard) do(f func()) bool {
	defer s.leave()
	f()
	return true
}

// breakLocked unloads a shard whose state cannot be relied on. Those who wait are
// answered as far as they can be found.
func (s *shard) breakLocked() {
	if s.unloaded {
		return
	}
	s.unloaded = true
	s.loading.Store(false)
	if s.timer != nil {
		s.timer.Stop()
	}
	try := func(f func()) {
		defer func() { recover() }()
		f()
	}
	for _, f := range append(s.taken, s.takeFlights(true)...) {
		try(func() { f.landed(ErrUnloaded) })
	}
	for _, g := range s.groups {
		try(func() { g.members.stopLocked(notCoordinator) })
	}
	s.forgetLocked()
}

// forgetLocked gives back what the shard holds.
func (s *shard) forgetLocked() {
	for host, n := range s.held {
		s.c.memory.add(host, -n)
	}
	s.c.pending.Add(-int64(s.idle))
	s.groups, s.alarms, s.pendings, s.held, s.idle = nil, nil, nil, make(map[string]int64), 0
}

// lost says that the shard has unloaded itself.
func (s *shard) lost() {
	s.c.remove(s)
	if s.c.cfg.Lost != nil {
		s.c.cfg.Lost(s.partition, s.epoch)
	}
}

// unload answers whoever waits and drops everything. It may be called twice.
func (s *shard) unload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unloadLocked()
}

func (s *shard) unloadLocked() {
	if s.unloaded {
		return
	}
	s.unloaded = true
	s.loading.Store(false)
	if s.timer != nil {
		s.timer.Stop()
	}
	for _, f := range s.takeFlights(true) {
		f.landed(ErrUnloaded)
	}
	for _, g := range s.groups {
		g.members.stopLocked(notCoordinator)
	}
	s.forgetLocked()
}

// appendLocked appends records to the journal. landed is called once, with the
// lock held, after all earlier appends' and never before appendLocked has
// returned. After an error for which lost holds, the shard is unloaded by then.
func (s *shard) appendLocked(records []record.Record, landed func(error)) {
	f := &flight{landed: landed}
	s.landMu.Lock()
	s.flying = append(s.flying, f)
	s.landMu.Unlock()
	s.c.cfg.Journal.Append(s.partition, s.epoch, records, func(err error) {
		s.landMu.Lock()
		defer s.landMu.Unlock()
		f.over, f.err = true, err
		if !s.landing {
			s.landing = true
			go s.land()
		}
	})
}

// takeFlights removes the flights at the head of the queue that are over, or all.
func (s *shard) takeFlights(all bool) []*flight {
	s.landMu.Lock()
	defer s.landMu.Unlock()
	n := 0
	for n < len(s.flying) && (all || s.flying[n].over) {
		n++
	}
	taken := s.flying[:n:n]
	s.flying = s.flying[n:]
	if n == 0 {
		s.landing = false
	}
	return taken
}

// land is the goroutine that tells the state machines what came of their appends.
// The journal's callback starts it; it ends when no append at the head of the
// queue is over.
func (s *shard) land() {
	wasLost := false
	for s.landSome(&wasLost) {
	}
	if wasLost {
		s.lost()
	}
}

// landSome takes the flights that are over; false: there were none.
func (s *shard) landSome(wasLost *bool) bool {
	// The lock comes first: an unload may take the same flights.
	s.mu.Lock()
	defer s.leave()
	s.taken = s.takeFlights(false)
	some := len(s.taken) > 0
	for len(s.taken) > 0 {
		f := s.taken[0]
		s.taken = s.taken[1:]
		if lost(f.err) && !s.unloaded {
			s.log.Warn("unloading groups: the journal cannot tell what became of an append", "err", f.err)
			s.unloadLocked()
			*wasLost = true
		}
		if s.unloaded {
			f.err = ErrUnloaded // what it would change is gone
		}
		f.landed(f.err)
	}
	return some
}

// groupLocked returns a group, or nil.
func (s *shard) groupLocked(id string) *group { return s.groups[id] }

// createLocked returns a group, made as an empty classic one if it is not there.
func (s *shard) createLocked(id string) *group {
	g := s.groups[id]
	if g == nil {
		g = &group{id: id, shard: s}
		g.members = newClassic(g)
		s.groups[id] = g
	}
	return g
}

// dropLocked forgets a group.
func (s *shard) dropLocked(g *group) {
	g.members.stopLocked(coordinatorNotAvailable)
	if s.groups[g.id] == g {
		delete(s.groups, g.id)
	}
}

// dropIfNothingLocked forgets a group of which the journal knows nothing and
// nobody is a member.
func (s *shard) dropIfNothingLocked(g *group) {
	if !g.dead && len(g.offsets) == 0 && len(g.pending) == 0 && g.members.nothing() {
		s.dropLocked(g)
	}
}

// replayLocked applies one record of the journal. What it does not understand it
// skips: a record that an operator or a newer release wrote must not keep groups
// from being served.
func (s *shard) replayLocked(r record.Record) {
	defer func() {
		if p := recover(); p != nil { // each load would meet it again
			s.log.Error("skipping a record of the groups' journal: a panic", "offset", r.Offset, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if err := s.applyLocked(r); err != nil {
		s.log.Warn("skipping a record of the groups' journal", "offset", r.Offset, "err", err)
	}
}

// applyLocked is also how records become visible that have landed.
func (s *shard) applyLocked(r record.Record) error {
	if s.unloaded {
		return nil
	}
	k, err := parseKey(r.Key)
	if err != nil {
		return err
	}
	switch k.version {
	case 0, 1:
		return s.applyOffsetLocked(k, r.Value)
	case 2:
		return s.applyClassicLocked(k.group, r.Value)
	case groupEpochKey, topicsKey, memberKey, targetEpochKey, targetKey, currentKey, regexKey:
		return s.applyConsumerLocked(k, r.Value)
	default:
		return fmt.Errorf("unknown key version %d", k.version)
	}
}

// sweepLocked is the alarm that looks for offsets that expired and for groups
// that are no more.
func (s *shard) sweepLocked(now time.Time) {
	settings := s.c.settings()
	for _, g := range maps.Clone(s.groups) {
		s.expireLocked(g, now, settings.OffsetRetention)
	}
	s.setLocked(&s.sweep, now.Add(settings.RetentionCheckInterval))
}

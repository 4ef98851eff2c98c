package replication

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/replication/vote"
	"millrace/segment"
)

// maxAppendEntries entries travel in one request at most; the transport limits their
// bytes.
const maxAppendEntries = 16

// A replica is one run of a partition's Raft instance, from NewRaft to
// Shutdown over one open log. It is bounced, never repaired.
type replica struct {
	p         *Partition
	store     *logStore
	snapshots *snapshotStore
	fsm       *fsm
	votes     raft.StableStore // of its group: term, vote, and storedKey
	raftgroup.Member

	// leadership is set while this replica leads and may serve.
	leadership atomic.Pointer[leadership]
	// serving is held while a leadership begins, so that of two that were won
	// one after the other only the later one does, and none begins twice.
	serving sync.Mutex
	served  uint64 // the term of the latest leadership; under serving

	trimMu      sync.Mutex // held while the log start moves, by Raft's or by a snapshot's doing
	pendingTrim int64      // the log start that a full disk did not allow yet; 0: none

	forgotten int       // producers since forgotAt, before their time; under fsm.mu
	forgotAt  time.Time // when that was last said

	wantsSnapshot atomic.Bool           // queued for one
	changing      atomic.Bool           // a membership change is under way
	cause         atomic.Pointer[error] // why somebody has asked to end it, see bounce; nil: nobody has
	flushed       time.Time             // when flush.ms was last honoured; upkeepLoop's own
	nudges        nudges                // see nudge; upkeepLoop's own, too

	closing  chan struct{}
	stopOnce sync.Once
	wait     sync.WaitGroup
}

// startReplica opens the partition's log and starts Raft over it. A
// *segment.CorruptError in the chain means damaged data.
func (p *Partition) startReplica() (r *replica, err error) {
	snapshots, err := openSnapshots(p.env.fs, p.dir)
	if err != nil {
		return nil, err
	}
	r = &replica{
		p:       p,
		votes:   p.env.votes.Group(p.group),
		closing: make(chan struct{}),
	}
	r.Member = raftgroup.Member{Group: p.group, Role: r}
	cfg := p.logConfig()
	cfg.Owner = r
	l, err := log.Open(p.dir, p.identity(), cfg)
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	defer func() {
		if err != nil {
			l.Close(false)
		}
	}()
	last, err := l.LastIndex()
	if err != nil {
		return nil, err
	}
	first, err := l.FirstIndex()
	if err != nil {
		return nil, err
	}
	if snapshots, err = p.finishInstall(first, snapshots); err != nil {
		return nil, err
	}
	if err := p.bootstrap(l, r.votes, snapshots, last); err != nil {
		return nil, err
	}
	// Raft panics over an unreadable entry above the snapshot, so they are
	// checked before it starts.
	if err := l.Verify(snapshots.index() + 1); err != nil {
		return nil, err
	}

	r.snapshots = snapshots
	r.store = &logStore{Log: l, r: r, pending: newPendingSync(), concurrentSyncs: &p.env.budget.concurrentSyncs}
	state, next := producers{}, int64(0)
	if snap := snapshots.newest(); snap != nil {
		if state, err = decodeProducers(snap.state, p.env.now().UnixMilli()); err != nil {
			return nil, fmt.Errorf("read %s: %w", snapshots.path, err)
		}
		if next, err = l.OffsetOf(snap.index); err != nil {
			return nil, fmt.Errorf("find snapshot's entry %d in the log: %w", snap.index, err)
		}
		p.raiseWatermark(next)
	}
	r.fsm = &fsm{r: r, producers: state, next: next}
	r.Port = p.env.transport.Group(p.group, p.env.self)
	term, err := r.votes.GetUint64([]byte(vote.CurrentTerm))
	if err != nil && !errors.Is(err, vote.ErrNotFound) {
		r.Port.Close()
		return nil, err
	}
	r.Port.StartAt(term)
	r.Port.ReuseBuffers() // followers' logs keep headers only, which are copies
	snapshots.r = r
	if err := r.startRaft(); err != nil {
		r.Port.Close()
		if r.store.refused != nil { // Raft wraps no error
			err = fmt.Errorf("start raft: %w", r.store.refused)
		}
		return nil, err
	}
	r.Port.Attach(r) // which asks r.Raft
	r.wait.Add(1)
	go func() { // WatchLeadership: ends with the replica
		defer r.wait.Done()
		r.WatchLeadership(p.env.events, r.closing)
	}()
	return r, nil
}

// fault ends this run for an error after which it must not go on, beside whoever meets
// it: Raft's goroutines, the log's, a sync's. It does not block.
func (r *replica) fault(cause error) { r.p.bounce(r, cause) }

// LogFailed is log.Owner's: a log that failed by itself, during a flush or a roll, say, ends
// this run as one does that failed in Raft's hands.
func (r *replica) LogFailed(cause error) { r.fault(cause) }

// LogRolled is log.Owner's: what the ended segment holds, a snapshot can stand for.
func (r *replica) LogRolled(uint64) { r.p.env.host.wantSnapshot(r) }

// beforeWrite is called as entries are about to be stored. Followers that have answered
// get those of a leader now, and the disk is watched.
func (r *replica) beforeWrite() {
	r.Port.Expedite()
	r.p.env.budget.writes.Add(1)
}

// beforeFirstEntry notes that entry 1 is about to be stored: from then on the log must be
// there.
func (r *replica) beforeFirstEntry() error { return r.votes.Set(storedKey, []byte{1}) }

// isFollower tells that Raft is no leader, and has begun to send nothing to anybody. Raft is
// Leader before it begins to read what it sends; what it still reads when it no longer is,
// its transport refuses to send.
func (r *replica) isFollower() bool { return r.Raft.State() != raft.Leader }

// stored says that the store gave an index to the entry of our own with this data, before
// Raft may commit it. It does not block.
func (r *replica) stored(data []byte, index uint64) {
	if l := r.leadership.Load(); l != nil {
		l.stored(data, index)
	}
}

// applied says that the fsm has applied everything up to index, of which the last
// entry is of term. It does not block.
func (r *replica) applied(index, term uint64) {
	if l := r.leadership.Load(); l != nil {
		l.applied(index, term)
	}
}

// raftConfig returns the configuration of a partition's group.
func (r *replica) raftConfig() *raft.Config {
	c := r.Config(r.p.env.self, raftgroup.NewLogger(r.p.logger, r.p.env.raftLimits))
	c.MaxAppendEntries = maxAppendEntries
	c.BatchApplyCh = true
	c.NoSnapshotRestoreOnStart = true
	// The log alone decides when data goes; Raft never deletes a prefix.
	c.TrailingLogs = math.MaxUint64
	// Snapshots are asked for: at every roll, and by applied bytes.
	c.SnapshotThreshold = math.MaxUint64
	c.SnapshotInterval = 24 * time.Hour
	return c
}

// startRaft runs NewRaft in a goroutine of its own, because reads of damaged
// entries may panic in it; neither ends the process.
func (r *replica) startRaft() error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("NewRaft ended early")
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("start raft: %v", cause)
			}
			done <- err
		}()
		r.Raft, err = raft.NewRaft(r.raftConfig(), r.fsm, r.store, r.votes, r.snapshots, r.Transport(r.store))
	}()
	if err := <-done; err != nil {
		return err
	}
	r.store.live.Store(true)
	return nil
}

// stop ends this run. The log is closed clean unless its state is in doubt.
// It is safe to call more than once; every call waits.
func (r *replica) stop(clean bool) {
	r.stopOnce.Do(func() {
		close(r.closing)
		r.loseLeadership()
		r.Port.Close()
		if err := r.Raft.Shutdown().Error(); err != nil {
			r.p.logger.Warn("raft did not shut down cleanly", "error", err)
		}
		r.wait.Wait()
		r.loseLeadership() // one that began meanwhile
		if err := r.store.Log.Close(clean); err != nil {
			r.p.logger.Warn("log did not close cleanly", "error", err)
		}
	})
}

// Name implements raftgroup.Role.
func (r *replica) Name() string { return fmt.Sprintf("%s/%d", r.p.topic, r.p.id.Index) }

// LeadsNow implements raftgroup.Role: it leads while it serves.
func (r *replica) LeadsNow() (term uint64, ok bool) {
	if l := r.leadership.Load(); l != nil {
		return l.term, true
	}
	return 0, false
}

// StillLeads implements raftgroup.Role.
func (r *replica) StillLeads(term uint64) bool {
	now, ok := r.LeadsNow()
	return ok && now == term
}

// Stalls implements raftgroup.Role.
func (r *replica) Stalls() bool { return r.store.stalled(time.Now()) > stallTime/2 }

// LeadershipChanged implements raftgroup.Role. A notification may tell of a term that is over when a
// later one has begun; so it is a reason to look, and Raft says what is true.
func (r *replica) LeadershipChanged(leads bool) {
	r.p.env.events.Noticed()
	if l := r.leadership.Load(); l != nil && !r.leads(l.term) {
		r.endLeadership(l)
	}
	if leads {
		r.wait.Add(1)
		go r.takeLeadership()
	}
}

// takeLeadership begins to serve once the first entry of the current term is
// committed and everything before it applied: then no entry of an earlier term
// is missing, and the producer state is complete. (A Raft barrier would say the
// same, but its future may never be answered.)
func (r *replica) takeLeadership() {
	defer r.wait.Done()
	term := r.Raft.CurrentTerm()
	leads := func() bool { return r.leads(term) }
	opened := func() bool {
		o := r.store.opening.Load()
		return o != nil && o.term == term && r.Raft.CommitIndex() >= o.index && r.fsm.reached(o.next)
	}
	if r.until(context.Background(), func() bool { return !leads() || opened() }) != nil {
		return
	}
	r.serving.Lock()
	if term <= r.served || !leads() { // it serves already, or another notification is on its way
		r.serving.Unlock()
		return
	}
	r.served = term
	r.loseLeadership() // of an earlier term, whose end is not noticed yet
	l := newLeadership(r, term)
	r.leadership.Store(l)
	r.serving.Unlock()
	if !leads() {
		r.endLeadership(l)
		return
	}
	r.p.env.events.Leads(r.p.group, term)
	r.p.wake()
}

// leads tells whether Raft leads in term, in which it has led before: its state is
// read first, and terms do not fall, so both are of one moment.
func (r *replica) leads(term uint64) bool {
	return r.Raft.State() == raft.Leader && r.Raft.CurrentTerm() == term
}

// loseLeadership stops serving. What is in flight becomes unknown.
func (r *replica) loseLeadership() {
	if l := r.leadership.Load(); l != nil {
		r.endLeadership(l)
	}
}

// endLeadership ends l, and what it has in flight before anybody can see that it ended.
func (r *replica) endLeadership(l *leadership) {
	l.end()
	if r.leadership.CompareAndSwap(l, nil) {
		r.p.env.events.Ended(r.p.group)
		r.p.wake()
	}
}

// outlived is told that entries of term are committed here: the leadership of an
// earlier one is over.
func (r *replica) outlived(term uint64) {
	if l := r.leadership.Load(); l != nil && l.term < term {
		r.endLeadership(l)
	}
}

// trimmed moves the log start, and drops what the newest snapshot allows. If the
// system refuses (a full disk) it is left pending: upkeep tries again, and a bounce would not
// help.
func (r *replica) trimmed(start int64) {
	r.trimMu.Lock()
	defer r.trimMu.Unlock()
	start = max(start, r.pendingTrim)
	if _, err := r.store.Drop(start, r.snapshots.index()); segment.IsRefused(err) {
		r.pendingTrim = start
		r.p.logger.Warn("the log start was not moved, trying again later", "to", start, "error", err)
		return
	} else if err != nil {
		r.p.bounce(r, fmt.Errorf("drop below offset %d: %w", start, err))
		return
	}
	r.pendingTrim = 0
	r.p.start.Store(r.store.StartOffset())
}

// settleTrim moves the log start to where a full disk did not allow it yet.
func (r *replica) settleTrim() {
	r.trimMu.Lock()
	start := r.pendingTrim
	r.trimMu.Unlock()
	if start > 0 {
		r.trimmed(start)
	}
}

// takeSnapshot takes a snapshot of the state machine, and drops the segments
// that only waited for it. What a restart reads follows it, in the log too. What goes
// wrong on the disk meanwhile ends this run, or is said and tried again: see
// snapshotTroubled, trimmed and LogFailed.
func (r *replica) takeSnapshot() {
	if !r.store.live.Load() {
		return // asked for while Raft starts; the next roll asks again
	}
	if err := r.Raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		r.p.logger.Debug("Raft took no snapshot", "error", err) // it does not while members change
		return
	}
	r.trimmed(r.store.StartOffset())
	if err := r.store.Checkpoint(); segment.IsRefused(err) {
		r.p.logger.Warn("no checkpoint was written; a restart reads more of the log until one is", "error", err)
	}
}

// snapshotTroubled is told why a snapshot was not kept. The one before stands, and the
// next is tried when more has been applied; unless the disk failed, which the log has
// only not met yet.
func (r *replica) snapshotTroubled(err error) {
	r.p.logger.Warn("a snapshot was not kept; no segment is deleted until one is", "error", err)
	if !segment.Scarce(err) {
		r.fault(&log.FailedError{Dir: r.p.dir, Err: err})
	}
}

// transferTo hands leadership to a voter: it stops serving, waits until the
// voter has everything, and tells it to campaign. Raft's own transfer
// is not used: it can hang for good, with a goroutine each time. If the voter
// does not take over, this replica serves again, under the same leadership: a
// new one of the same term would not know of the batches still in flight, and
// append those again that their producers send again.
func (r *replica) transferTo(ctx context.Context, id raft.ServerID) error {
	l := r.leadership.Load()
	if l == nil {
		return ErrNotLeader
	}
	l.close()
	ctx, cancel := context.WithTimeout(ctx, transferTime)
	defer cancel()
	err := r.yieldTo(ctx, id)
	if r.leads(l.term) {
		l.reopen()
		return err
	}
	r.endLeadership(l) // unless Raft's notification was faster
	return err
}

func (r *replica) yieldTo(ctx context.Context, id raft.ServerID) error {
	if err := r.until(ctx, func() bool { return r.MatchIndex(id) >= r.Raft.LastIndex() }); err != nil {
		return fmt.Errorf("%s does not catch up: %w", id, err)
	}
	if err := r.Member.SendTimeoutNow(id); err != nil {
		return err
	}
	return r.until(ctx, func() bool { return r.Raft.State() != raft.Leader })
}

// until polls, which is fine for what takes milliseconds and happens seldom.
func (r *replica) until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.closing:
			return ErrClosed
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// resign has another voter campaign if this replica leads, because it
// is about to end. No connection closes then, so the others learn of it later, by what
// this node says that it leads (see gossiper.receiveGossip).
func (r *replica) resign() {
	if r.Raft.State() != raft.Leader {
		return
	}
	r.loseLeadership()
	id, ok := r.successor()
	if !ok {
		return
	}
	if err := r.SendTimeoutNow(id); err != nil {
		r.p.logger.Debug("nobody took leadership over", "asked", id, "error", err)
	}
}

// stepAside has another voter lead while this replica's disk hangs. What is in flight
// becomes unknown. If no voter can, this replica goes on: its callers may as well wait
// for the disk. If the one that was asked does not take over, Raft is made to follow when
// the disk is back, and the group elects anew: without that it would lead for ever, in a
// term in which it has served and serves no more.
func (r *replica) stepAside() {
	l := r.leadership.Load()
	if l == nil {
		return
	}
	id, ok := r.successor()
	if !ok {
		return
	}
	r.endLeadership(l)
	if err := r.SendTimeoutNow(id); err != nil {
		r.p.logger.Debug("nobody took leadership over", "asked", id, "error", err)
	}
	for {
		ctx, cancel := context.WithTimeout(r.p.env.ctx, transferTime)
		err := r.until(ctx, func() bool { return !r.leads(l.term) })
		cancel()
		if err == nil || errors.Is(err, ErrClosed) || r.p.env.ctx.Err() != nil {
			return
		}
		if err := r.Port.StepDown(l.term + 1); err != nil { // while the disk hangs
			r.p.logger.Debug("the replica goes on leading", "error", err)
		}
	}
}

// successor picks the voter to hand leadership to: of those in sync that have most of
// the log, since whoever lacks what another has loses the election, the preferred one,
// or any.
func (r *replica) successor() (raft.ServerID, bool) {
	var candidates []raft.ServerID
	most := uint64(0)
	for _, id := range r.Voters() {
		if id != r.p.env.self && r.p.env.host.mayLead(id, r.p.group) && r.InSync(id) {
			if has := r.MatchIndex(id); has > most {
				candidates, most = nil, has
			} else if has < most {
				continue
			}
			candidates = append(candidates, id)
		}
	}
	if len(candidates) == 0 {
		return "", false
	}
	if preferred, ok := r.p.preferred(); ok && slices.Contains(candidates, preferred) {
		return preferred, true
	}
	return candidates[0], true
}

package partition

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

// A Replica is one run of a partition's Raft instance, from NewRaft to
// Shutdown over one open log. It is bounced, never repaired.
type Replica struct {
	p         *Partition
	store     *logStore
	snapshots *snapshotStore
	fsm       *fsm
	votes     raft.StableStore // of its group: term, vote, and storedKey
	raftgroup.Member
	Upkeep

	// leadership is set while this replica leads and may serve.
	leadership atomic.Pointer[leadership]
	// serving is held while a leadership begins, so that of two that were won
	// one after the other only the later one does, and none begins twice.
	serving sync.Mutex
	served  uint64 // the term of the latest leadership; under serving

	trims trims

	wantsSnapshot atomic.Bool           // queued for one
	cause         atomic.Pointer[error] // why somebody has asked to end it, see bounce; nil: nobody has

	closing  chan struct{}
	stopOnce sync.Once
	wait     sync.WaitGroup
}

// startReplica opens the partition's log and starts Raft over it. A
// *segment.CorruptError in the chain means damaged data.
func (p *Partition) startReplica() (r *Replica, err error) {
	snapshots, err := openSnapshots(p.env.FS, p.dir)
	if err != nil {
		return nil, err
	}
	r = &Replica{
		p:       p,
		votes:   p.env.Votes.Group(p.group),
		closing: make(chan struct{}),
	}
	r.Member = raftgroup.Member{Group: p.group, Role: r}
	r.Upkeep.r, r.trims.r = r, r
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
	if p.alone && last > 0 {
		if err := p.endAlone(l, r.votes, last); err != nil {
			return nil, err
		}
	}
	// Raft panics over an unreadable entry above the snapshot, so they are
	// checked before it starts.
	if err := l.Verify(snapshots.index() + 1); err != nil {
		return nil, err
	}

	r.snapshots = snapshots
	r.store = &logStore{Log: l, r: r, pending: newPendingSync(), concurrentSyncs: &p.env.Budget.concurrentSyncs}
	state, next := producers{}, int64(0)
	if snap := snapshots.newest(); snap != nil {
		if state, err = decodeProducers(snap.state, p.env.Now().UnixMilli()); err != nil {
			return nil, fmt.Errorf("read %s: %w", snapshots.path, err)
		}
		if next, err = l.OffsetOf(snap.index); err != nil {
			return nil, fmt.Errorf("find snapshot's entry %d in the log: %w", snap.index, err)
		}
		p.watermark.raise(next)
	}
	r.fsm = &fsm{r: r, producers: state, next: next}
	r.Port = p.env.Transport.Group(p.group, p.env.Self)
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
		r.WatchLeadership(p.env.Events, r.closing)
	}()
	return r, nil
}

// Bounce ends this run for an error after which it must not go on, beside whoever meets
// it: Raft's goroutines, the log's, a sync's. It does not block.
func (r *Replica) Bounce(cause error) { r.p.bounce(r, cause) }

// LogFailed is log.Owner's: a log that failed by itself, during a flush or a roll, say, ends
// this run as one does that failed in Raft's hands.
func (r *Replica) LogFailed(cause error) { r.Bounce(cause) }

// LogRolled is log.Owner's: what the ended segment holds, a snapshot can stand for.
func (r *Replica) LogRolled(uint64) { r.wantSnapshot() }

// beforeWrite is called as entries are about to be stored. Followers that have answered
// get those of a leader now, and the disk is watched.
func (r *Replica) beforeWrite() {
	r.Port.Expedite()
	r.p.env.Budget.writes.Add(1)
}

// Log is the run's log, to look at: Raft alone writes to it.
func (r *Replica) Log() *log.Log { return r.store.Log }

// SnapshotIndex is the last entry that the newest snapshot covers, 0 without one.
func (r *Replica) SnapshotIndex() uint64 { return r.snapshots.index() }

// Durable is the last entry up to which the log is durable at least; math.MaxUint64: all of it.
func (r *Replica) Durable() uint64 { return r.store.Durable() }

// isFollower tells that Raft is no leader, and has begun to send nothing to anybody. Raft is
// Leader before it begins to read what it sends; what it still reads when it no longer is,
// its transport refuses to send.
func (r *Replica) isFollower() bool { return r.Raft.State() != raft.Leader }

// stored says that the store gave an index to the entry of our own with this data, before
// Raft may commit it. It does not block.
func (r *Replica) stored(data []byte, index uint64) {
	if l := r.leadership.Load(); l != nil {
		l.stored(data, index)
	}
}

// applied says that the fsm has applied everything up to index, of which the last
// entry is of term. It does not block.
func (r *Replica) applied(index, term uint64) {
	if l := r.leadership.Load(); l != nil {
		l.applied(index, term)
	}
}

// raftConfig returns the configuration of a partition's group.
func (r *Replica) raftConfig() *raft.Config {
	c := r.Config(r.p.env.Self, raftgroup.NewLogger(r.p.logger, r.p.env.LogLimits))
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
func (r *Replica) startRaft() error {
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
func (r *Replica) stop(clean bool) {
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
func (r *Replica) Name() string { return r.p.Name() }

// LeadsNow implements raftgroup.Role: it leads while it serves.
func (r *Replica) LeadsNow() (term uint64, ok bool) {
	if l := r.leadership.Load(); l != nil {
		return l.term, true
	}
	return 0, false
}

// StillLeads implements raftgroup.Role.
func (r *Replica) StillLeads(term uint64) bool {
	now, ok := r.LeadsNow()
	return ok && now == term
}

// Stalls implements raftgroup.Role.
func (r *Replica) Stalls() bool { return r.store.stalled(time.Now()) > StallTime/2 }

// LeadershipChanged implements raftgroup.Role. A notification may tell of a term that is over when a
// later one has begun; so it is a reason to look, and Raft says what is true.
func (r *Replica) LeadershipChanged(leads bool) {
	r.p.env.Events.Noticed()
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
func (r *Replica) takeLeadership() {
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
	r.p.env.Events.Leads(r.p.group, term)
	r.p.watermark.wake()
}

// leads tells whether Raft leads in term, in which it has led before: its state is
// read first, and terms do not fall, so both are of one moment.
func (r *Replica) leads(term uint64) bool {
	return r.Raft.State() == raft.Leader && r.Raft.CurrentTerm() == term
}

// loseLeadership stops serving. What is in flight becomes unknown.
func (r *Replica) loseLeadership() {
	if l := r.leadership.Load(); l != nil {
		r.endLeadership(l)
	}
}

// endLeadership ends l, and what it has in flight before anybody can see that it ended.
func (r *Replica) endLeadership(l *leadership) {
	l.end()
	if r.leadership.CompareAndSwap(l, nil) {
		r.p.env.Events.Ended(r.p.group)
		r.p.watermark.wake()
	}
}

// outlived is told that entries of term are committed here: the leadership of an
// earlier one is over.
func (r *Replica) outlived(term uint64) {
	if l := r.leadership.Load(); l != nil && l.term < term {
		r.endLeadership(l)
	}
}

// wantSnapshot has a snapshot taken, soon. When too many are queued the next roll asks again.
// It does not block.
func (r *Replica) wantSnapshot() {
	if r.wantsSnapshot.CompareAndSwap(false, true) && !r.p.env.Host.QueueSnapshot(r) {
		r.wantsSnapshot.Store(false)
	}
}

// TakeSnapshot takes a snapshot of the state machine, and drops the segments
// that only waited for it. What a restart reads follows it, in the log too. What goes
// wrong on the disk meanwhile ends this run, or is said and tried again: see
// snapshotTroubled, trims and LogFailed.
func (r *Replica) TakeSnapshot() {
	r.wantsSnapshot.Store(false)
	if !r.store.live.Load() {
		return // asked for while Raft starts; the next roll asks again
	}
	if err := r.Raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
		r.p.logger.Debug("Raft took no snapshot", "error", err) // it does not while members change
		return
	}
	r.trims.moveTo(r.store.StartOffset())
	if err := r.store.Checkpoint(); segment.IsRefused(err) {
		r.p.logger.Warn("no checkpoint was written; a restart reads more of the log until one is", "error", err)
	}
}

// snapshotTroubled is told why a snapshot was not kept. The one before stands, and the
// next is tried when more has been applied; unless the disk failed, which the log has
// only not met yet.
func (r *Replica) snapshotTroubled(err error) {
	r.p.logger.Warn("a snapshot was not kept; no segment is deleted until one is", "error", err)
	if !segment.Scarce(err) {
		r.Bounce(&log.FailedError{Dir: r.p.dir, Err: err})
	}
}

// TransferTo hands leadership to a voter: it stops serving, waits until the
// voter has everything, and tells it to campaign. Raft's own transfer
// is not used: it can hang for good, with a goroutine each time. If the voter
// does not take over, this replica serves again, under the same leadership: a
// new one of the same term would not know of the batches still in flight, and
// append those again that their producers send again.
func (r *Replica) TransferTo(ctx context.Context, id raft.ServerID) error {
	l := r.leadership.Load()
	if l == nil {
		return ErrNotLeader
	}
	l.close()
	ctx, cancel := context.WithTimeout(ctx, TransferTime)
	defer cancel()
	err := r.yieldTo(ctx, id)
	if r.leads(l.term) {
		l.reopen()
		return err
	}
	r.endLeadership(l) // unless Raft's notification was faster
	return err
}

func (r *Replica) yieldTo(ctx context.Context, id raft.ServerID) error {
	if err := r.until(ctx, func() bool { return r.MatchIndex(id) >= r.Raft.LastIndex() }); err != nil {
		return fmt.Errorf("%s does not catch up: %w", id, err)
	}
	if err := r.Member.SendTimeoutNow(id); err != nil {
		return err
	}
	return r.until(ctx, func() bool { return r.Raft.State() != raft.Leader })
}

// until polls, which is fine for what takes milliseconds and happens seldom.
func (r *Replica) until(ctx context.Context, done func() bool) error {
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-r.closing:
			return raftgroup.ErrClosed
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// resign has another voter campaign if this replica leads, because it
// is about to end. No connection closes then, so the others learn of it later, by what
// this node says that it leads.
func (r *Replica) resign() {
	if r.Raft.State() != raft.Leader {
		return
	}
	r.loseLeadership()
	id, ok := r.Successor()
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
func (r *Replica) stepAside() {
	l := r.leadership.Load()
	if l == nil {
		return
	}
	id, ok := r.Successor()
	if !ok {
		return
	}
	r.endLeadership(l)
	if err := r.SendTimeoutNow(id); err != nil {
		r.p.logger.Debug("nobody took leadership over", "asked", id, "error", err)
	}
	for {
		ctx, cancel := context.WithTimeout(r.p.env.Ctx, TransferTime)
		err := r.until(ctx, func() bool { return !r.leads(l.term) })
		cancel()
		if err == nil || errors.Is(err, raftgroup.ErrClosed) || r.p.env.Ctx.Err() != nil {
			return
		}
		if err := r.Port.StepDown(l.term + 1); err != nil { // while the disk hangs
			r.p.logger.Debug("the replica goes on leading", "error", err)
		}
	}
}

// Successor picks the voter to hand leadership to: of those in sync that have most of
// the log, since whoever lacks what another has loses the election, the preferred one,
// or any.
func (r *Replica) Successor() (raft.ServerID, bool) {
	var candidates []raft.ServerID
	most := uint64(0)
	for _, id := range r.Voters() {
		if id != r.p.env.Self && r.p.env.mayLead(id, r.p.group) && r.InSync(id) {
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

package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/replication/raftgroup"
	"millrace/segment"
	"millrace/segment/record"
)

// A Partition is one replica hosted on this node: a run now, another after a bounce, and what
// lasts beyond them. It is safe for concurrent use.
type Partition struct {
	site

	// lifecycle is held while a run begins or ends.
	lifecycle longLock
	current   atomic.Pointer[Replica] // nil: between runs, or down
	closed    bool
	alone     bool          // the run that begins is to be of the only voter, see GoOnAlone
	bounces   []time.Time   // of the last minute
	patience  time.Duration // before the next try to begin a run that the system refused

	catching atomic.Bool // a catch-up is under way

	mu   sync.Mutex
	down error // why there is no current run and none will be

	number    atomic.Uint64 // where the latest leadership's numbers begin, see numbersEach
	start     atomic.Int64
	watermark watermark
}

// New returns the partition of a group that is to live in the folder dir, without a run: Open
// makes the folder and begins one. topic is the topic's name, for people.
func New(env *Env, id metadata.PartitionID, topic string, group uint64, dir string, set settings.Topic) *Partition {
	p := &Partition{site: site{
		env: env, id: id, topic: topic, group: group, dir: dir,
		logger: env.Logger.With("topic", topic, "partition", id.Index),
	}}
	p.settings.Store(&set)
	return p
}

// Replica returns the run under way, nil if there is none now.
func (p *Partition) Replica() *Replica { return p.current.Load() }

// A longLock is a mutex that may be held for long: Raft is ended under it, and peers are
// asked. Who waits for it waits as for a channel, so that a test's virtual time goes on
// (see testing/synctest), which it does not while somebody waits for a sync.Mutex.
type longLock struct {
	mu    sync.Mutex
	taken bool
	next  sync.Cond
}

func (l *longLock) Lock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.next.L == nil {
		l.next.L = &l.mu
	}
	for l.taken {
		l.next.Wait()
	}
	l.taken = true
}

func (l *longLock) Unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.taken = false
	l.next.Signal()
}

// bounceLimit bounces within a minute, and the group stays down.
const bounceLimit = 3

// Open makes the partition's folder and begins the first run, unless the node
// is closing: it may have closed its partitions before this one was among them.
//
// It waits for its turn, and a node that was away may learn of the partition's
// deletion meanwhile. Whichever of Open and Remove comes second sees the other:
// both are decided under lifecycle, so no folder is made after its removal.
func (p *Partition) Open() {
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	select {
	case <-p.env.Closing:
		return
	default:
	}
	if p.closed || p.current.Load() != nil {
		return
	}
	if err := p.prepareFolder(); err != nil {
		p.notBegunLocked(err)
		return
	}
	p.beginLocked()
}

// beginLocked begins a run, or records why it cannot.
func (p *Partition) beginLocked() {
	r, err := p.startReplica()
	if err != nil {
		p.notBegunLocked(err)
		return
	}
	p.patience = 0
	p.mu.Lock()
	p.down = nil
	p.mu.Unlock()
	p.start.Store(r.store.StartOffset())
	p.current.Store(r)
	p.env.Events.Opened(p.group)
}

// notBegunLocked deals with a run that did not begin. What the system lacks comes
// back, and a partition must not need a restart for that.
func (p *Partition) notBegunLocked(err error) {
	if segment.Scarce(err) {
		p.patience = min(max(2*p.patience, patienceFirst), patienceMost)
		p.waitLocked(err, p.patience)
		return
	}
	p.quarantine(err)
}

// A run that the system refused is tried again after patienceFirst, then after twice
// as long each time. With patienceMost a partition serves within 5 s of what the system
// lacked being there again. Where it lacks descriptors or room, a try costs one call.
const (
	patienceFirst = 250 * time.Millisecond
	patienceMost  = 4 * time.Second
)

// waitLocked keeps the partition down for a while, and says why.
func (p *Partition) waitLocked(cause error, while time.Duration) {
	why := ErrRefused
	if segment.IsNoSpace(cause) {
		why = ErrNoSpace
	}
	level := slog.LevelWarn
	if while == patienceMost {
		level = slog.LevelDebug // has been said
	}
	p.logger.Log(context.Background(), level, "the replica is down for want of what the system may have again soon", "again", while, "error", cause)
	p.takeDown(fmt.Errorf("%w: %w", why, cause))
	p.env.Host.GoTracked(func() { // "reopening": ends with the node, or with the wait
		select {
		case <-p.env.Closing:
		case <-time.After(while):
			p.Open()
		}
	})
}

// takeDown tells why there is no run, to clients and to the other nodes.
func (p *Partition) takeDown(err error) {
	p.mu.Lock()
	p.down = err
	p.mu.Unlock()
	p.env.Events.NotOpen()
	p.watermark.wake()
}

// quarantine keeps the partition down, and says why.
func (p *Partition) quarantine(err error) {
	if !errors.Is(err, ErrQuarantined) {
		err = fmt.Errorf("%w: %w", ErrQuarantined, err)
	}
	p.logger.Error("partition is quarantined: it neither votes nor serves here", "error", err)
	p.takeDown(err)
}

// Group is the partition's Raft group.
func (p *Partition) Group() uint64 { return p.group }

// Name is what people call it: the topic's name and the partition's index.
func (p *Partition) Name() string { return fmt.Sprintf("%s/%d", p.topic, p.id.Index) }

// Configure takes new settings into use.
func (p *Partition) Configure(set settings.Topic) {
	old := p.settings.Load()
	if *old == set {
		return
	}
	if deletion(*old) != deletion(set) {
		// Before the settings: whoever sees these must see that they have to wait.
		due := p.env.Now().Add(millis(set.FileDeleteDelayMillis)).UnixMilli()
		p.deleteFrom.Store(due)
		p.env.Host.RetainBy(due)
	}
	p.settings.Store(&set)
	if r := p.current.Load(); r != nil {
		r.store.Configure(p.logConfig())
	}
}

// deletion is the part of a topic's settings that decides what is deleted and when.
func deletion(s settings.Topic) settings.Topic {
	return settings.Topic{
		RetentionMillis:        s.RetentionMillis,
		RetentionBytes:         s.RetentionBytes,
		SegmentBytes:           s.SegmentBytes,
		SegmentMillis:          s.SegmentMillis,
		CleanupDelete:          s.CleanupDelete,
		CleanupCompact:         s.CleanupCompact,
		MinCleanableDirtyRatio: s.MinCleanableDirtyRatio,
		MinCompactionLagMillis: s.MinCompactionLagMillis,
		MaxCompactionLagMillis: s.MaxCompactionLagMillis,
		DeleteRetentionMillis:  s.DeleteRetentionMillis,
	}
}

// Settings are the topic's, as they are used here.
func (p *Partition) Settings() settings.Topic { return *p.settings.Load() }

// Dir is the folder that holds the replica's log.
func (p *Partition) Dir() string { return p.dir }

// Down returns why the partition neither votes nor serves here: ErrQuarantined, until
// the node is restarted; or ErrNoSpace or ErrRefused, for as long as the system lacks
// what it takes to open it. nil while it does.
func (p *Partition) Down() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.down
}

// bounce ends a run whose memory and disk may disagree, and begins another, unless the
// data is damaged or the disk failed, for which it is quarantined. It does not block.
// The first call for a run counts, which is the one that saw the fault; those who meet
// the same fault beside it, as the log, its writer and its syncs do, do nothing.
func (p *Partition) bounce(r *Replica, cause error) {
	if !r.cause.CompareAndSwap(nil, &cause) {
		return
	}
	go func() {
		p.lifecycle.Lock()
		defer p.lifecycle.Unlock()
		if p.closed || p.current.Load() != r {
			return
		}
		p.logger.Warn("bouncing the replica", "cause", cause)
		led := r.Raft.State() == raft.Leader
		r.resign()
		p.endLocked(false)
		if led {
			p.env.Events.NotOpen() // who was asked to lead may not be elected, and the others wait for this leader
		}
		var failed *log.FailedError
		switch {
		case segment.IsCorrupt(cause):
			p.quarantine(cause)
			return
		case errors.As(cause, &failed) && !failed.Scarce():
			// An fsync that failed has failed for good: what the page cache still
			// shows may not be on the disk, and must not count for a quorum.
			p.quarantine(fmt.Errorf("the disk failed; restart the node when it is repaired or replaced: %w", cause))
			return
		}
		now := p.env.Now()
		recent := p.bounces[:0]
		for _, t := range p.bounces {
			if now.Sub(t) < time.Minute {
				recent = append(recent, t)
			}
		}
		p.bounces = append(recent, now)
		if n := len(p.bounces); segment.Scarce(cause) && n > 1 {
			// On a disk that is full and cannot promise room (where writing copies), every
			// write ends like this.
			p.waitLocked(cause, min(time.Second<<(n-2), patienceMost))
			return
		} else if n > bounceLimit && !segment.Scarce(cause) {
			p.quarantine(fmt.Errorf("bounced %d times within a minute, last: %w", bounceLimit, cause))
			return
		}
		p.beginLocked()
	}()
}

// endLocked ends the current run, if there is one.
func (p *Partition) endLocked(clean bool) {
	if r := p.current.Swap(nil); r != nil {
		r.stop(clean)
		p.env.Events.Closed(p.group)
	}
	p.watermark.wake()
}

// Close ends the partition on this node. Unless it is clean, the log does not record how
// far it was whole.
func (p *Partition) Close(clean bool) {
	p.lifecycle.Lock()
	defer p.lifecycle.Unlock()
	p.closed = true
	p.endLocked(clean)
}

// Remove closes the partition and deletes its data, after a committed deletion: beside
// everything else and until it is gone.
func (p *Partition) Remove() {
	p.env.remove(p.dir, func() error {
		p.Close(false) // what is gone in a moment is not worth two syncs
		return p.site.remove()
	})
}

// ID returns what the partition is called in the cluster's metadata.
func (p *Partition) ID() metadata.PartitionID { return p.id }

// serving returns the leadership under which this replica serves.
func (p *Partition) serving() (*Replica, *leadership, error) {
	r := p.current.Load()
	if r == nil {
		if err := p.Down(); err != nil {
			return nil, nil, err
		}
		return nil, nil, ErrNotLeader
	}
	l := r.leadership.Load()
	if l == nil {
		return nil, nil, ErrNotLeader
	}
	return r, l, nil
}

// Serving returns the leader epoch if this replica leads and may serve; else
// ErrNotLeader or ErrQuarantined.
func (p *Partition) Serving() (epoch int32, err error) {
	_, l, err := p.serving()
	if err != nil {
		return -1, err
	}
	return int32(l.term), nil
}

// CutOff tells whether this replica leads and has heard no majority of its voters for
// CutOffAfter, and a little: they may have elected another leader, and nothing new is
// committed here before they are heard again. What is below the high watermark stays
// readable. Notify tells when it begins. It costs three atomic loads.
func (p *Partition) CutOff() bool {
	r := p.current.Load()
	if r == nil {
		return false
	}
	l := r.leadership.Load()
	return l != nil && l.cutOff.Load()
}

// Append queues batches, in the order of the calls, and tells the caller
// once: when a quorum has them, or with an error that says whether they were
// refused (ErrNotLeader, ErrNoSpace, ErrRefused, ErrBusy, ErrSequence,
// ErrProducerFenced, ErrQuarantined) or may yet survive (raftgroup.ErrUnknown). It may be told
// before Append returns.
//
// The batches must have passed record.Validate and belong to the partition
// until the caller is told, those of KeptBytes or more for good. An idempotent
// producer's batch comes alone; one that is among its last five is answered with
// the offset it got then (KIP-98).
func (p *Partition) Append(batches []record.Batch, caller Appender) {
	_, l, err := p.serving()
	if err != nil {
		caller.Appended(Ack{}, err)
		return
	}
	if err := l.append(batches, caller); err != nil {
		caller.Appended(Ack{}, err)
	}
}

// AppendIn is Append under the leadership of one epoch, for those who append
// what they concluded from what they had read when that leadership began. It
// returns what refused it at once, ErrNotLeader under any other, and does not
// tell the caller then. Otherwise the caller is told on another goroutine.
func (p *Partition) AppendIn(epoch int32, batches []record.Batch, caller Appender) error {
	_, l, err := p.serving()
	if err != nil {
		return err
	}
	if int32(l.term) != epoch {
		return ErrNotLeader
	}
	return l.append(batches, caller)
}

// append is Partition.Append under this leadership. What it refuses at once, it
// returns.
func (l *leadership) append(batches []record.Batch, caller Appender) error {
	w := appendCall{batches: batches, caller: caller}
	for _, b := range batches {
		w.bytes += len(b)
	}
	return l.submit(w)
}

// StartOffset returns the log start offset.
func (p *Partition) StartOffset() int64 { return p.start.Load() }

// HighWatermark returns the offset below which everything is committed, as
// far as this replica knows.
func (p *Partition) HighWatermark() int64 { return p.watermark.load() }

// StableOffset returns the offset below which every transaction is decided.
func (p *Partition) StableOffset() int64 { return p.watermark.load() }

// EndOffset returns the offset the next record would get here.
func (p *Partition) EndOffset() int64 {
	if r := p.current.Load(); r != nil {
		return r.store.EndOffset()
	}
	return p.watermark.load()
}

// Size returns the bytes of the replica's segments.
func (p *Partition) Size() int64 {
	if r := p.current.Load(); r != nil {
		return r.store.Size()
	}
	return 0
}

// Read returns whole batches from the one that holds offset on: about
// maxBytes of them, at least one, none above the high watermark. At the high
// watermark the view is empty. ErrOutOfRange, ErrNotLeader, ErrRefused,
// ErrQuarantined.
func (p *Partition) Read(offset int64, maxBytes int, committed bool) (*segment.View, error) {
	r, _, err := p.serving()
	if err != nil {
		return nil, err
	}
	limit := p.HighWatermark()
	if committed {
		limit = p.StableOffset()
	}
	if offset < p.StartOffset() || offset > p.HighWatermark() {
		return nil, ErrOutOfRange
	}
	if offset >= limit {
		return &segment.View{Next: offset}, nil
	}
	v, err := r.store.Read(offset, limit, maxBytes)
	return v, r.readError(err)
}

// readError sorts out what reading the log said; damage ends this run.
func (r *Replica) readError(err error) error {
	var corrupt *segment.CorruptError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, log.ErrOutOfRange):
		return ErrOutOfRange
	case errors.As(err, &corrupt):
		r.p.bounce(r, err)
		return fmt.Errorf("%w: %w", ErrQuarantined, err)
	case segment.IsRefused(err):
		return refusal(err)
	}
	return err
}

// OffsetAt finds the first committed record at or after timestamp
// (milliseconds since 1970). ok is false when there is none.
func (p *Partition) OffsetAt(timestamp int64) (offset, found int64, ok bool, err error) {
	r, _, err := p.serving()
	if err != nil {
		return -1, -1, false, err
	}
	offset, found, ok, err = r.store.OffsetAt(timestamp, p.HighWatermark())
	return offset, found, ok, r.readError(err)
}

// MaxTimestamp finds the committed record with the largest timestamp
// (KIP-734); -1, -1 without any record.
func (p *Partition) MaxTimestamp() (offset, timestamp int64, err error) {
	r, _, err := p.serving()
	if err != nil {
		return -1, -1, err
	}
	offset, timestamp, err = r.store.MaxTimestamp(p.HighWatermark())
	return offset, timestamp, r.readError(err)
}

// EpochEnd returns the largest epoch at or below the one asked for, and the
// offset at which it ended (KIP-320); -1, -1 for one to come. A leadership may
// pass without a record: ListOffsets has told its epoch to consumers all the
// same, who take -1 for a log that has lost what they read.
func (p *Partition) EpochEnd(epoch int32) (e int32, end int64) {
	r, l, err := p.serving()
	if err != nil {
		return -1, -1
	}
	if epoch >= int32(l.term) {
		if epoch > int32(l.term) {
			return -1, -1
		}
		return epoch, p.HighWatermark()
	}
	if epoch < 0 {
		return -1, -1
	}
	for {
		e, end, ok := r.store.EpochEnd(epoch)
		if ok {
			return e, min(end, p.HighWatermark())
		}
		// Nothing was stored in epoch or since then, so all there is lies
		// before; unless something came just now.
		high := p.HighWatermark()
		switch last := r.store.EpochAt(math.MaxInt64); {
		case last < 0:
			return epoch, high
		case last < epoch:
			return last, high
		}
	}
}

// EpochAt returns the leader epoch of the batch that holds offset, or -1.
func (p *Partition) EpochAt(offset int64) int32 {
	if r := p.current.Load(); r != nil {
		return r.store.EpochAt(offset)
	}
	return -1
}

// Trim moves the log start up to before, on every replica; -1 means the high
// watermark. It returns the new log start offset. ErrOutOfRange,
// ErrNotLeader, ErrUnknown. While Raft takes no more entries it waits for ctx's
// deadline, and does not see an earlier end of it.
func (p *Partition) Trim(ctx context.Context, before int64) (start int64, err error) {
	r, l, err := p.serving()
	if err != nil {
		return -1, err
	}
	high := p.HighWatermark()
	if before == -1 {
		before = high
	}
	switch {
	case before < 0:
		return -1, ErrOutOfRange
	case before > high: // which a deposed leader may not know of
		if epoch, err := p.Confirm(ctx); err != nil || epoch != int32(l.term) {
			return -1, ErrNotLeader
		}
		return -1, ErrOutOfRange
	case before <= p.StartOffset():
		return p.StartOffset(), nil
	}
	enqueue := time.Duration(0) // for ever
	if deadline, ok := ctx.Deadline(); ok {
		enqueue = max(time.Until(deadline), 1)
	}
	r.Raft.ApplyLog(log.TrimEntry(before), enqueue)
	done := func() bool { return p.StartOffset() >= before || r.leadership.Load() != l }
	if err := r.until(ctx, done); err != nil {
		return -1, fmt.Errorf("%w: %w", raftgroup.ErrUnknown, err)
	}
	if p.StartOffset() < before {
		return -1, raftgroup.ErrUnknown
	}
	return p.StartOffset(), nil
}

// A ProducerInfo is what a partition remembers of one producer.
type ProducerInfo struct {
	ID            int64
	Epoch         int16
	LastSequence  int32
	LastTimestamp int64 // milliseconds since 1970
}

// Producers lists the idempotent producers that the partition remembers.
func (p *Partition) Producers() []ProducerInfo {
	r := p.current.Load()
	if r == nil {
		return nil
	}
	r.fsm.mu.Lock()
	defer r.fsm.mu.Unlock()
	list := make([]ProducerInfo, 0, len(r.fsm.producers))
	for id, s := range r.fsm.producers {
		list = append(list, ProducerInfo{ID: id, Epoch: s.epoch, LastSequence: s.lastSequence(), LastTimestamp: s.timestamp})
	}
	return list
}

// Notify sends on wake, without blocking, when the high watermark passes
// offset and whenever this replica's leadership changes or is cut off. The send may come
// at once, and more than once. cancel ends it and must be called.
func (p *Partition) Notify(offset int64, wake chan<- struct{}) (cancel func()) {
	w := p.watermark.add(offset, wake)
	// What moved before the waiter was counted is told now.
	if _, err := p.Serving(); err != nil || p.watermark.load() > offset || p.CutOff() {
		w.tell()
	}
	return func() { p.watermark.remove(w) }
}

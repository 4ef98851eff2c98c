package partition

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"millrace/log"
	"millrace/replication/raftgroup"
	"millrace/segment"
	"millrace/segment/record"
)

const (
	// joinBytes is how many waiting bytes are joined into one entry: enough
	// that the cost of an entry vanishes, little enough that the copy does.
	joinBytes = 512 << 10
	// KeptBytes is the size of batches that may make an entry as they are: their
	// memory is kept. Smaller ones are copied, whose memory may be a small part of
	// what was read with them and would be kept for their sake.
	KeptBytes = joinBytes
	// waitingBytes may wait to be appended to one partition; more is ErrBusy.
	waitingBytes = 64 << 20
	// maxInflightBytes may be on their way through Raft; the appender waits above. It
	// takes as many at a time, so twice that and a call are the most. More would
	// not be faster, it would only wait elsewhere.
	maxInflightBytes = 2 << 20
	// nodeInflightBytes is what the busy partitions that a node leads share, so that
	// what is on its way fits the caches: a follower applies what it finds there,
	// and reads the disk for what it does not.
	nodeInflightBytes = 8 << 20
)

// An Ack says where batches went.
type Ack struct {
	BaseOffset  int64 // of the first record of the first batch
	AppendTime  int64 // milliseconds since 1970; -1 with CreateTime
	StartOffset int64 // the partition's log start offset
	Epoch       int32 // leader epoch
}

// An Appender is who appends, and is told what came of it.
type Appender interface {
	// Appended is called exactly once for each call of Append: with where the batches went,
	// or with the error. It must not block.
	Appended(Ack, error)
}

// An appendCall is one call of Append.
type appendCall struct {
	batches []record.Batch
	bytes   int
	caller  Appender
}

// An entryPart is one call's share of an entry.
type entryPart struct {
	appendCall
	at int // where its first batch begins in the entry's data
	// repeats is the batch this call sent again; its offset is the answer.
	repeats *sequenced
	// pending gets the first batch's offset, for the producer's tail.
	pending *pendingOffset
}

// An entry is on its way through Raft.
type entry struct {
	data  []byte // empty: repeats only
	parts []entryPart
	index uint64 // in the log; 0: not stored yet
}

// A leadership is the time between the first commit of our own term and the
// loss of it. Its appender runs only while calls wait. The way of an entry is drawn under
// "Produce" in the package's comment.
//
// Raft's futures are not waited for: it never answers those that a shutdown
// finds in one of its channels. An entry is acknowledged when the state machine
// has applied the index that the store gave it, in the leadership's own term, and
// unknown when the leadership ends before that. The index alone says nothing: a
// deposed leader applies what its heir has put in the place of what it lost, and
// may do so before Raft's notification that it is deposed has been looked at.
//
//	Raft       term 3 ─ deposed ─ cuts 7, stores the heir's 7 ─ applies 7 of term 4
//	ours                    └─ notification ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ late │
//	                                       "term 4": our 7 is unknown ◄──┘     └─► nothing left to end
//
// Whatever replaced an entry has a later term than it, and so has everything behind
// that. There is one leadership a term at most: a second one would not know of what
// the first has in flight.
//
// The appender is the only one that numbers entries, and that reads and writes tails.
// Calls that are in flight are answered in the order of their entries; one that is refused
// is answered when that is known, be it before those.
type leadership struct {
	r    *Replica
	term uint64

	mu            sync.Mutex
	since         time.Time // when it began to take calls, last
	queue         []appendCall
	queued        int // bytes in queue
	inflight      []*entry
	inflightBytes int // bytes in flight
	appending     bool
	closed        bool      // takes no more calls
	over          error     // why it ended; nil: it has not
	freed         sync.Cond // inflightBytes fell, or over was set

	// tails is the producer state with what is in flight, filled from the
	// committed state as producers turn up. Only the appender touches it.
	tails map[int64]*producer
	// outdated is set when producers were forgotten that tails may still hold.
	outdated atomic.Bool
	next     uint64 // number of the next entry
	sent     int64  // payload bytes handed to Raft, against logStore.stored

	confirmer confirmer

	cutOff atomic.Bool // no majority of the voters is heard, see Partition.CutOff
}

// numbersEach numbers are a leadership's own, so that no entry of an earlier one, which
// may still be on its way to Raft, has the number that the next entry must carry. At
// 100,000 entries a second they last for four months.
const numbersEach = 1 << 40

func newLeadership(r *Replica, term uint64) *leadership {
	l := &leadership{r: r, term: term, since: time.Now(), tails: make(map[int64]*producer)}
	l.freed.L = &l.mu
	l.next = r.p.number.Add(numbersEach)
	r.store.next.Store(l.next)
	l.sent = r.store.stored.Load()
	return l
}

// submit queues a call. It answers at once when it cannot.
func (l *leadership) submit(w appendCall) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over != nil || l.closed:
		return ErrNotLeader
	case l.queued+w.bytes > waitingBytes && l.queued > 0:
		return ErrBusy
	}
	l.queue = append(l.queue, w)
	l.queued += w.bytes
	if !l.appending {
		l.appending = true
		go l.appendQueued()
	}
	return nil
}

// close takes no more calls, and lets what is in flight be answered.
func (l *leadership) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

// reopen takes calls again after close.
func (l *leadership) reopen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed, l.since = false, time.Now()
}

// settled tells whether it has taken calls for long enough to be handed on.
func (l *leadership) settled() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.closed && time.Since(l.since) >= SettleTime
}

// end stops the leadership. Calls that are queued are refused, since nothing of
// them reached Raft; those in flight are unknown.
func (l *leadership) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.endLocked()
}

func (l *leadership) endLocked() {
	if l.over != nil {
		return
	}
	l.over = ErrNotLeader
	l.freed.Broadcast()
	for _, e := range l.inflight {
		e.answer(func(*entryPart) (Ack, error) { return Ack{}, raftgroup.ErrUnknown })
	}
	l.inflight = nil
}

// answer answers the calls of an entry.
func (e *entry) answer(how func(*entryPart) (Ack, error)) {
	for i := range e.parts {
		e.parts[i].caller.Appended(how(&e.parts[i]))
	}
}

// appendQueued is the appender: it runs while calls wait.
func (l *leadership) appendQueued() {
	busy := &l.r.p.env.Budget.appending
	busy.Add(1)
	defer busy.Add(-1)
	for {
		l.mu.Lock()
		for l.inflightBytes > l.inflightLimit() && l.over == nil {
			l.freed.Wait()
		}
		queue := l.takeLocked(l.inflightLimit())
		if len(queue) == 0 {
			l.appending = false
			l.mu.Unlock()
			return
		}
		over := l.over != nil || l.closed
		l.mu.Unlock()
		if over {
			for _, w := range queue {
				w.caller.Appended(Ack{}, ErrNotLeader)
			}
			continue
		}
		for rest := queue; len(rest) > 0; {
			rest = l.appendSome(rest)
		}
		clear(queue) // its calls are in flight; the array may stay behind the queue
	}
}

// inflightLimit is this partition's share of what may be in flight. The appender
// that asks is one of those that are busy.
func (l *leadership) inflightLimit() int {
	return min(maxInflightBytes, nodeInflightBytes/int(l.r.p.env.Budget.appending.Load()))
}

// takeLocked takes the first waiting calls, at least one and as many as may be in
// flight at once: what lies behind them still counts as queued, and is not yet in flight.
func (l *leadership) takeLocked(limit int) []appendCall {
	n, bytes := 0, 0
	for n < len(l.queue) && bytes < limit {
		bytes += l.queue[n].bytes
		n++
	}
	first := l.queue[:n:n]
	l.queued -= bytes
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	return first
}

// appendSome makes one entry of the first waiting calls, and hands it to Raft.
// It returns the calls that did not fit.
func (l *leadership) appendSome(queue []appendCall) []appendCall {
	l.makeRoom() // not while parts are about to be in flight: their tails must stay
	e := &entry{}
	size, taken := 0, 0
	for _, w := range queue {
		if size > 0 && size+w.bytes > joinBytes {
			break
		}
		taken++
		p, err := l.admit(w)
		if errors.Is(err, ErrSequence) {
			go l.refuseSequence(w, err)
			continue
		}
		if err != nil {
			w.caller.Appended(Ack{}, err)
			continue
		}
		p.at = size
		e.parts = append(e.parts, p)
		if p.repeats == nil {
			size += w.bytes
		}
	}
	switch {
	case len(e.parts) == 0:
	case size == 0: // repeats only: answered after what they repeat
		if l.track(e) {
			l.mu.Lock()
			l.acknowledgeLocked(0)
			l.mu.Unlock()
		}
	default:
		l.send(e, size)
	}
	return queue[taken:]
}

// send builds the entry's data and hands it to Raft.
func (l *leadership) send(e *entry, size int) {
	e.data = join(e.parts, size)
	assignNumber(e.data, l.next, l.term)
	inFlight := l.sent - l.r.store.stored.Load()
	entries := l.next - l.r.store.next.Load() // the same, counted
	if err := l.r.store.Reserve(int(entries)+1, int(inFlight)+size); err != nil {
		l.refuse(e, err)
		return
	}
	l.next++
	l.sent += int64(size)
	if l.track(e) {
		l.r.Raft.ApplyLog(raft.Log{Data: e.data}, 0)
	}
}

// refuse answers an entry that never went to Raft. Producers' tails already
// count it, so they are forgotten and read again from what is committed, once
// nothing is in flight; until then no call of these producers could be judged.
func (l *leadership) refuse(e *entry, err error) {
	l.mu.Lock()
	for len(l.inflight) > 0 && l.over == nil {
		l.freed.Wait()
	}
	l.mu.Unlock()
	clear(l.tails)
	if errors.Is(err, log.ErrNoSpace) {
		l.r.p.env.Host.Full(l.r.p.logger, err)
	}
	err = refusal(err)
	e.answer(func(*entryPart) (Ack, error) { return Ack{}, err })
}

// refuseSequence refuses a batch that does not follow its producer's last one, if a
// quorum confirms that this is the leader: a deposed one does not know what the producer
// has sent to its heir, and clients take the error for a loss of data.
func (l *leadership) refuseSequence(w appendCall, err error) {
	round := l.confirmer.join(func() error { return l.r.askVoters(l) })
	<-round.done // within ConfirmTime
	if round.err != nil {
		err = round.err
	}
	w.caller.Appended(Ack{}, err)
}

// refusal says for a client what the log said before anything was handed to Raft.
func refusal(err error) error {
	switch {
	case errors.Is(err, log.ErrNoSpace):
		return fmt.Errorf("%w: %v", ErrNoSpace, err)
	case segment.IsRefused(err):
		return fmt.Errorf("%w: %v", ErrRefused, err)
	}
	return fmt.Errorf("%w: %v", raftgroup.ErrUnknown, err) // the log has failed, and said so itself: see Partition.bounce
}

// join returns the parts' batches one after another. A single one of KeptBytes or
// more is not copied.
func join(parts []entryPart, size int) []byte {
	if len(parts) == 1 && len(parts[0].batches) == 1 && size >= KeptBytes {
		return parts[0].batches[0]
	}
	data := make([]byte, 0, size)
	for _, p := range parts {
		if p.repeats != nil {
			continue
		}
		for _, b := range p.batches {
			data = append(data, b...)
		}
	}
	return data
}

// admit judges a call by its producer's state and remembers it there.
func (l *leadership) admit(w appendCall) (entryPart, error) {
	p := entryPart{appendCall: w}
	appended := l.r.p.appendTime()
	for _, b := range w.batches {
		if appended >= 0 {
			b.SetAppendTime(appended)
		}
		if b.ProducerID() < 0 || b.IsControl() {
			continue
		}
		if len(w.batches) > 1 {
			return p, fmt.Errorf("%w: idempotent batches are appended one at a time", ErrSequence)
		}
		tail := l.tail(b)
		if s, ok := tail.find(b); ok {
			p.repeats = &s
			return p, nil
		}
		if err := tail.check(b); err != nil {
			return p, err
		}
		p.pending = &pendingOffset{offset: -1}
		tail.add(b, sequenced{offset: -1, appended: appended, pending: p.pending})
	}
	return p, nil
}

// tail returns the state of b's producer, what is in flight included.
func (l *leadership) tail(b record.Batch) *producer {
	id := b.ProducerID()
	tail := l.tails[id]
	if tail != nil {
		return tail
	}
	if tail = l.r.fsm.producer(id); tail == nil {
		tail = &producer{epoch: b.ProducerEpoch()}
	}
	l.tails[id] = tail
	return tail
}

// makeRoom bounds tails, but for those one entry adds, and drops what the fsm
// has forgotten. What is dropped is read
// again from the committed state, so nothing may be in flight then.
func (l *leadership) makeRoom() {
	if len(l.tails) < maxTails && !l.outdated.Load() {
		return
	}
	l.outdated.Store(false)
	l.mu.Lock()
	for len(l.inflight) > 0 && l.over == nil {
		l.freed.Wait()
	}
	l.mu.Unlock()
	clear(l.tails)
}

// track puts an entry in flight, or answers it if the leadership is over.
func (l *leadership) track(e *entry) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil {
		e.answer(func(*entryPart) (Ack, error) { return Ack{}, ErrNotLeader })
		return false
	}
	l.inflight = append(l.inflight, e)
	l.inflightBytes += len(e.data)
	return true
}

// stored is told that the store gave an index to the entry with this data,
// the first in flight without one.
func (l *leadership) stored(data []byte, index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.inflight {
		if len(e.data) > 0 && &e.data[0] == &data[0] {
			e.index = index
			return
		}
	}
}

// applied is told that everything up to index is applied, of which the last entry is
// of term, and answers what was in flight up to there.
func (l *leadership) applied(index, term uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if term > l.term {
		l.endLocked() // the entry at index may be another's; see Replica.outlived, too
		return
	}
	l.acknowledgeLocked(index)
}

// acknowledgeLocked answers what is in flight up to index, which this leader has committed.
func (l *leadership) acknowledgeLocked(index uint64) {
	start := l.r.store.StartOffset()
	n := 0
	for _, e := range l.inflight {
		if len(e.data) > 0 && (e.index == 0 || e.index > index) {
			break
		}
		e.answer(func(p *entryPart) (Ack, error) { return l.ack(e, p, start) })
		l.inflightBytes -= len(e.data)
		n++
	}
	if n > 0 {
		clear(l.inflight[:n]) // the array stays, and what they came in must not
		l.inflight = l.inflight[n:]
		l.freed.Broadcast()
	}
}

// ack says where a part of a committed entry went.
func (l *leadership) ack(e *entry, p *entryPart, start int64) (Ack, error) {
	ack := Ack{AppendTime: -1, StartOffset: start, Epoch: int32(l.term)}
	if p.repeats != nil {
		ack.BaseOffset, ack.AppendTime = p.repeats.resolve(), p.repeats.appended
		if ack.BaseOffset < 0 {
			return Ack{}, raftgroup.ErrUnknown
		}
		return ack, nil
	}
	first := record.Batch(e.data[p.at:])
	ack.BaseOffset = first.BaseOffset()
	if first.AppendTime() {
		ack.AppendTime = first.MaxTimestamp()
	}
	if p.pending != nil {
		p.pending.offset = ack.BaseOffset
	}
	return ack, nil
}

// resolve returns the batch's first offset, -1 if its entry was lost. It is
// asked behind the entry that carried the batch, under the leadership's mu.
func (s *sequenced) resolve() int64 {
	if s.pending != nil {
		return s.pending.offset
	}
	return s.offset
}

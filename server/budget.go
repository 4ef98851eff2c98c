package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A budget shares out the memory that requests, and the answers to them, take
// on all connections together: a share each.
//
// While there is enough, everybody gets what they ask for. Beyond size
//
//   - a share that stays within its fair part, size divided by those that hold
//     more than smallShare, goes on without waiting. So whoever arrives last is
//     not made to pay for those who were there first. What is held grows by size
//     × (1 + 1/2 + 1/3 …) that way, and ends at maxOver × size;
//   - the others wait, the oldest request first, and take nothing from their
//     clients meanwhile;
//   - the oldest of those that wait goes beyond: what it holds is counted apart,
//     until it is back within its fair part. There is one such place, and a
//     request larger than size has no other.
//
// Nobody keeps others waiting by being slow, in the middle of a request or of an
// answer: see care. While memory is short those who are late may hold half of size
// together; beyond that the largest are closed, or answered if they are Fetches that
// wait for records. The one beyond is closed when it
// is late and somebody waits. While memory is not short, a line may be as slow as
// the connection's own timeouts allow.
//
// So at most maxOver × size and one request are held. A budget is safe for
// concurrent use; a request and its end take mu once each, some 20 ns.
type budget struct {
	size int // set before use

	mu     sync.Mutex
	held   int // by all but the share beyond
	peak   int // the most that was held, by all
	large  int // shares that hold more than smallShare, or wait to
	shares map[*share]struct{}
	queue  []*share // those that wait, oldest request first
	beyond *share   // nil: nobody
	turns  uint64   // requests so far: their order
	looked time.Time
	// watched is set while a timer looks for those who are late.
	watched bool
}

const (
	// tinyShare is what everybody gets whatever is left.
	tinyShare = 4 << 10
	// smallShare is what everybody gets without being counted among the large, as
	// long as no more than half of all there may be is held.
	smallShare = 64 << 10
	// maxOver times size is held at most by those within their fair parts.
	maxOver = 4
	// elementBytes is what an element of a request takes while it is served,
	// counted in the connection's share: the decoded structure, what a handler
	// notes about it and its part of the answer. The largest is a Fetch's
	// partition. So few elements as freeElements are not counted.
	elementBytes = 320
	freeElements = 256
	// lateEvery is how often it is looked for those who are late.
	lateEvery = 20 * time.Millisecond
)

// A care says who is late: whose client moves less than pace bytes a second in a
// stretch of grace or more.
type care struct {
	grace time.Duration
	pace  int64
}

// patient is for those who wait for more than their fair part: it is enough
// that clients do not stand still. Lines of their pace may all be honest.
var patient = care{time.Second, 64 << 10}

// pressing is for those who wait for a fair part, or when it comes to that. They give
// up after 30 seconds, and may be behind others: what is held by one must be through
// in a fifth of that, 24 MiB at 4 MiB/s and 384 KiB as slow as any. So a slow line
// costs nobody their connection for what it holds little of.
func pressing(held int) care {
	return care{time.Second / 10, max(patient.pace, int64(held)/6)}
}

// careBeyond is for the one beyond, which must be there before those who wait for
// its place give up: 100 MiB at 4 MiB/s, 1 MiB as slow as any.
func careBeyond(held int) care {
	return care{time.Second, max(patient.pace, int64(held)/25)}
}

// A share is one connection's part of a budget. Its connection's goroutines may
// use it at once; only one of them takes.
type share struct {
	budget *budget
	// owner is closed once, in a goroutine of its own, when the share is late and
	// others need the memory: that must lead to leave.
	owner io.Closer

	held  int    // under budget.mu, as the next three
	want  int    // more bytes, while it waits
	turn  uint64 // of the request under way
	isBig bool   // counted in budget.large
	fresh bool   // turn is to be given; of the goroutine that takes
	ready chan struct{}

	client  progress      // of the request or the answer
	acks    progress      // of the answers to Produce, which come beside requests
	idle    progress      // of a Fetch that waits for records: it never moves
	hurried chan struct{} // takes one: others need the memory of a Fetch that waits
	slow    atomic.Bool   // owner was closed, or is about to be
}

// progress is how a client is getting on with what it has to send or to take.
type progress struct {
	since atomic.Int64 // when it began, in Unix nanoseconds; 0: nothing is up to it
	moved atomic.Int64 // bytes since

	// The stretch that is looked at, under budget.mu: it began at from, with so
	// many bytes moved as mark says, in what began at seen.
	seen, from, mark int64
}

func (p *progress) begin(now time.Time) {
	p.moved.Store(0)
	p.since.Store(now.UnixNano())
}

func (p *progress) end() { p.since.Store(0) }

// late reports whether the client lags behind at now: whether it moved too little
// in a stretch of grace or more. What it was ahead in earlier ones does not count.
func (p *progress) late(now time.Time, c care) bool {
	since := p.since.Load()
	if since == 0 {
		return false
	}
	if p.seen != since {
		p.seen, p.from, p.mark = since, since, 0
	}
	stretch := time.Duration(now.UnixNano() - p.from)
	if stretch < c.grace {
		return false
	}
	moved := p.moved.Load()
	if moved-p.mark < int64(float64(c.pace)*stretch.Seconds()) {
		return true
	}
	p.from, p.mark = now.UnixNano(), moved
	return false
}

func (s *share) late(now time.Time, c care) bool {
	return s.client.late(now, c) || s.acks.late(now, c) || s.idle.late(now, c)
}

// hasten ends what a late share holds memory for: a Fetch that waits is answered,
// anything else costs the connection.
func (s *share) hasten() {
	if s.idle.since.Load() != 0 {
		select {
		case s.hurried <- struct{}{}:
		default:
		}
		return
	}
	if !s.slow.Swap(true) {
		go s.owner.Close() // "closer": a TLS connection's end may take its time
	}
}

// join makes s a share of b. leave must follow.
func (b *budget) join(s *share, owner io.Closer) {
	s.budget, s.owner = b, owner
	s.ready, s.hurried = make(chan struct{}, 1), make(chan struct{}, 1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.shares == nil {
		b.shares = map[*share]struct{}{}
	}
	b.shares[s] = struct{}{}
}

// leave gives everything back and ends the share.
func (s *share) leave() {
	b := s.budget
	b.mu.Lock()
	defer b.mu.Unlock()
	b.giveLocked(s, s.held)
	delete(b.shares, s)
}

// begin says that a new request begins, from which its age is counted. It is for
// the goroutine that takes.
func (s *share) begin() { s.fresh = true }

// errNoMemory is what take says when nothing became free in time.
var errNoMemory = errors.New("server: no memory for its request")

// take adds n bytes to what the share holds. It waits for them, for patience at
// most, and tells for how long it did.
func (s *share) take(ctx context.Context, n int, patience time.Duration) (waited time.Duration, err error) {
	b := s.budget
	b.mu.Lock()
	if s.fresh {
		s.fresh = false
		b.turns++
		s.turn = b.turns
	}
	s.want = n
	b.countLocked(s)
	if b.fitsLocked(s, !slices.ContainsFunc(b.queue, func(q *share) bool { return q.held+q.want <= b.size })) {
		b.grantLocked(s)
		short := b.held > b.size
		b.mu.Unlock()
		if short {
			b.look()
		}
		return 0, nil
	}
	at, _ := slices.BinarySearchFunc(b.queue, s, func(q, s *share) int { return cmp.Compare(q.turn, s.turn) })
	b.queue = slices.Insert(b.queue, at, s)
	b.serveLocked()
	if len(b.queue) > 0 && !b.watched {
		b.watched = true
		time.AfterFunc(lateEvery, b.watch)
	}
	b.mu.Unlock()

	begin := time.Now()
	end := time.NewTimer(patience)
	defer end.Stop()
	b.look()
	select {
	case <-s.ready:
		return time.Since(begin), nil
	case <-end.C:
		err = fmt.Errorf("%w in %v", errNoMemory, patience)
	case <-ctx.Done():
		err = errBye
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-s.ready: // it came after all
		return time.Since(begin), nil
	default:
	}
	b.queue = slices.DeleteFunc(b.queue, func(q *share) bool { return q == s })
	s.want = 0
	b.countLocked(s)
	b.serveLocked()
	return time.Since(begin), err
}

// add counts n bytes that are there already.
func (s *share) add(n int) {
	b := s.budget
	b.mu.Lock()
	waits := s.want // the connection may wait for a request beside
	s.want = n
	b.grantLocked(s)
	s.want = waits
	b.countLocked(s)
	short := b.held > b.size
	b.mu.Unlock()
	if short {
		b.look()
	}
}

// give takes n bytes off what the share holds.
func (s *share) give(n int) {
	if n == 0 {
		return
	}
	b := s.budget
	b.mu.Lock()
	b.giveLocked(s, n)
	b.mu.Unlock()
}

// fairLocked is the part that s may have while memory is short.
func (b *budget) fairLocked(s *share) int {
	n := b.large
	if !s.isBig {
		n++
	}
	return max(b.size/max(n, 1), smallShare)
}

// fitsLocked reports whether s may have what it wants. first: no older request waits
// that could do without going beyond.
func (b *budget) fitsLocked(s *share, first bool) bool {
	after := s.held + s.want
	switch {
	case s == b.beyond, after <= tinyShare:
		return true
	case first && b.held+s.want <= b.size:
		return true
	case after <= smallShare:
		return b.held+s.want <= maxOver/2*b.size
	}
	return after <= b.fairLocked(s) && b.held+s.want <= maxOver*b.size
}

// grantLocked gives s what it wants.
func (b *budget) grantLocked(s *share) {
	s.held += s.want
	if s != b.beyond {
		b.held += s.want
	}
	s.want = 0
	all := b.held
	if b.beyond != nil {
		all += b.beyond.held
	}
	b.peak = max(b.peak, all)
}

func (b *budget) giveLocked(s *share, n int) {
	s.held -= n
	if s.held < 0 {
		panic(fmt.Sprintf("server: a share gave %d bytes back of %d", n, s.held+n))
	}
	if s != b.beyond {
		b.held -= n
	}
	b.countLocked(s)
	if s == b.beyond && (s.held <= b.fairLocked(s) || b.held+s.held <= b.size) {
		b.beyond = nil
		b.held += s.held
	}
	b.serveLocked()
}

// countLocked keeps large up to date with s.
func (b *budget) countLocked(s *share) {
	if big := s.held+s.want > smallShare; big != s.isBig {
		s.isBig = big
		if big {
			b.large++
		} else {
			b.large--
		}
	}
}

// serveLocked gives those that wait what there is, oldest first. Of ten thousand
// nobody looks at each whenever a byte is given back.
func (b *budget) serveLocked() {
	first := true
	for i := 0; i < min(len(b.queue), 64); {
		s := b.queue[i]
		if !b.fitsLocked(s, first) {
			if b.beyond != nil {
				first = first && s.held+s.want > b.size
				i++
				continue
			}
			b.beyond = s
			b.held -= s.held
		}
		b.queue = slices.Delete(b.queue, i, i+1)
		b.grantLocked(s)
		s.ready <- struct{}{}
	}
}

// watch looks for those who are late as long as anybody waits.
func (b *budget) watch() {
	b.look()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.watched = len(b.queue) > 0; b.watched {
		time.AfterFunc(lateEvery, b.watch)
	}
}

// look hastens those who are late, if that is due.
func (b *budget) look() {
	b.mu.Lock()
	now := time.Now()
	if now.Sub(b.looked) < lateEvery {
		b.mu.Unlock()
		return
	}
	b.looked = now
	for _, s := range b.lateLocked(now) {
		s.hasten()
	}
	b.mu.Unlock()
}

// lateLocked lists those to be hastened.
func (b *budget) lateLocked(now time.Time) (list []*share) {
	if len(b.queue) > 0 && b.beyond != nil && b.beyond.late(now, careBeyond(b.beyond.held)) {
		list = append(list, b.beyond)
	}
	of := func(int) care { return patient }
	if b.held > (maxOver-1)*b.size || slices.ContainsFunc(b.queue[:min(len(b.queue), 64)], func(s *share) bool { return s.held+s.want <= b.fairLocked(s) }) {
		of = pressing
	}
	var late []*share
	sum := 0
	for s := range b.shares {
		if s != b.beyond && s.held > 0 && s.late(now, of(s.held)) {
			late = append(late, s)
			sum += s.held
		}
	}
	if sum <= b.size/2 {
		return list
	}
	// Of two that hold the same, the one that came last goes first.
	slices.SortFunc(late, func(x, y *share) int {
		return cmp.Or(cmp.Compare(y.held, x.held), cmp.Compare(y.turn, x.turn))
	})
	for _, s := range late {
		if sum <= b.size/2 {
			break
		}
		sum -= s.held
		list = append(list, s)
	}
	return list
}

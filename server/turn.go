package server

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// turns let requests with many elements be worked on in turn, on half of the
// processors at most. Half a million names take half a second of one to decode, to
// look up and to encode, and forty connections that send them would have everybody
// else's request wait behind forty slices of the scheduler's. Requests that people
// send take no turn.
//
// A turn is for work and not for waiting: whoever waits for memory, for records, for
// a group's members or for the client to read gives it up meanwhile. Others wait in
// theirs, mostly for a quorum and then not for long; where there is none a turn ends by
// itself after maxTurn, and the request goes on without.
//
// Work is done in stretches, with a pause after each that is as long at least: see step.
// So it leaves half of a processor to others, and the collector time for what it threw
// away. More than that, nobody waits for it longer than a stretch: the scheduler would
// let it run for 10 ms at a time, and what comes in by the network wait as long to be
// looked at. A small request takes ten such steps and more, through the leader of a
// partition and back, and would wait at each.
//
// The zero value is ready. It is safe for concurrent use.
type turns struct {
	once   sync.Once
	places chan struct{}
}

// turnElements is how many elements a request may have without a turn: more than a
// consumer of all partitions of most clusters names, and some milliseconds of work.
const turnElements = 10_000

const (
	// maxTurn bounds how long a turn lasts that nothing is done in: see step.
	maxTurn = 2 * time.Second
	// maxRest bounds how long a place stays empty, and a pause.
	maxRest = time.Second
	// stretch is how long it is worked without a pause. Sleeping takes a millisecond
	// where nothing else is to be done, so with less most of the time would be pauses.
	stretch = 500 * time.Microsecond
	// stepsAtOnce is how many steps are taken without a look at the clock, of a
	// microsecond or a few each.
	stepsAtOnce = 16
)

// A turn is one of turns that was taken. The zero value is none.
type turn struct {
	since time.Time   // it began, or the last pause ended
	end   *time.Timer // gives the place back after maxTurn
	steps int
}

// errNoTurn is what take says when no place became free in time.
var errNoTurn = errors.New("server: too many requests of more than 10,000 elements at once")

func (t *turns) init() {
	t.once.Do(func() { t.places = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
}

// take waits for a place, for patience at most.
func (t *turns) take(ctx context.Context, patience time.Duration) (turn, error) {
	t.init()
	end := time.NewTimer(patience)
	defer end.Stop()
	select {
	case t.places <- struct{}{}:
		return turn{since: time.Now(), end: time.AfterFunc(maxTurn, t.free)}, nil
	case <-end.C:
		return turn{}, fmt.Errorf("%w: none was served in %v", errNoTurn, patience)
	case <-ctx.Done():
		return turn{}, errBye
	}
}

// leave ends a turn, if it has not ended by itself. Its place stays empty for as long
// as the last stretch took.
func (t *turns) leave(mine turn) {
	if mine.end.Stop() {
		time.AfterFunc(min(time.Since(mine.since), maxRest), t.free)
	}
}

// has reports whether there is a turn.
func (t *turn) has() bool { return t.end != nil }

// step says that the work on one element, or a few, is done: it pauses when the stretch
// is over. A turn that has ended by itself pauses as well.
func (t *turn) step() {
	if t.has() {
		t.stepped()
	}
}

func (t *turn) stepped() {
	if t.steps++; t.steps%stepsAtOnce != 0 {
		return
	}
	if took := time.Since(t.since); took >= stretch {
		t.pause(min(took, maxRest))
	}
}

func (t *turn) pause(d time.Duration) {
	if t.end.Stop() {
		t.end.Reset(maxTurn + d) // it is at work
	}
	time.Sleep(d)
	t.since = time.Now()
}

// step is to be called for each element of a request that may have many: see turn.step.
// It costs a nanosecond where there are few.
func (c *call) step() { c.conn.turn.step() }

func (t *turns) free() { <-t.places }

// takeTurn begins the connection's turn; endTurn must follow.
func (c *connection) takeTurn() (err error) {
	c.turn, err = c.server.shared.turns.take(c.ctx, c.server.stallTimeout())
	return err
}

// endTurn ends the connection's turn, if it has one, and reports whether it had.
func (c *connection) endTurn() bool {
	if !c.turn.has() {
		return false
	}
	c.server.shared.turns.leave(c.turn)
	c.turn = turn{}
	return true
}

// besides does what may wait without the connection's turn, and takes another after it.
func (c *connection) besides(do func()) error {
	had := c.endTurn()
	if c.throttle.timed {
		since := time.Now()
		do()
		c.throttle.waited += time.Since(since)
	} else {
		do()
	}
	if !had {
		return nil
	}
	return c.takeTurn()
}

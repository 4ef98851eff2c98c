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
// a group's members or for the client to read gives it up meanwhile. When it ends, its
// place stays empty for as long as the work took, so that what comes one after the
// other leaves half of that processor to others, and the collector time for what it
// threw away.
//
// The zero value is ready. It is safe for concurrent use.
type turns struct {
	once   sync.Once
	places chan struct{}
}

// turnElements is how many elements a request may have without a turn: more than a
// consumer of all partitions of most clusters names, and some milliseconds of work.
const turnElements = 10_000

// maxRest bounds how long a place stays empty.
const maxRest = time.Second

// errNoTurn is what take says when no place became free in time.
var errNoTurn = errors.New("server: too many requests of more than 10,000 elements at once")

func (t *turns) init() {
	t.once.Do(func() { t.places = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)) })
}

// take waits for a place, for patience at most.
func (t *turns) take(ctx context.Context, patience time.Duration) error {
	t.init()
	end := time.NewTimer(patience)
	defer end.Stop()
	select {
	case t.places <- struct{}{}:
		return nil
	case <-end.C:
		return fmt.Errorf("%w: none was served in %v", errNoTurn, patience)
	case <-ctx.Done():
		return errBye
	}
}

// leave gives a place back that was taken at began.
func (t *turns) leave(began time.Time) {
	time.AfterFunc(min(time.Since(began), maxRest), func() { <-t.places })
}

// takeTurn begins the connection's turn; endTurn must follow.
func (c *connection) takeTurn() error {
	if err := c.server.turns.take(c.ctx, c.server.stallTimeout()); err != nil {
		return err
	}
	c.turn = time.Now()
	return nil
}

// endTurn ends the connection's turn, if it has one, and tells whether it had.
func (c *connection) endTurn() bool {
	if c.turn.IsZero() {
		return false
	}
	c.server.turns.leave(c.turn)
	c.turn = time.Time{}
	return true
}

// besides does what may wait without the connection's turn, and takes another after it.
func (c *connection) besides(do func()) error {
	had := c.endTurn()
	do()
	if !had {
		return nil
	}
	return c.takeTurn()
}

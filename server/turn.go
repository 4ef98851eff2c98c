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
// itself after maxTurn, and the request goes on without. When it ends, its place stays
// empty for as long as the work took, so that what comes one after the
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

const (
	// maxTurn bounds a turn: the work on as many elements as a request may have, and some.
	maxTurn = 2 * time.Second
	// maxRest bounds how long a place stays empty.
	maxRest = time.Second
)

// A turn is one of turns that was taken. The zero value is none.
type turn struct {
	began time.Time
	end   *time.Timer // gives the place back after maxTurn
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
		return turn{time.Now(), time.AfterFunc(maxTurn, t.free)}, nil
	case <-end.C:
		return turn{}, fmt.Errorf("%w: none was served in %v", errNoTurn, patience)
	case <-ctx.Done():
		return turn{}, errBye
	}
}

// leave ends a turn, if it has not ended by itself.
func (t *turns) leave(mine turn) {
	if mine.end.Stop() {
		time.AfterFunc(min(time.Since(mine.began), maxRest), t.free)
	}
}

func (t *turns) free() { <-t.places }

// takeTurn begins the connection's turn; endTurn must follow.
func (c *connection) takeTurn() (err error) {
	c.turn, err = c.server.turns.take(c.ctx, c.server.stallTimeout())
	return err
}

// endTurn ends the connection's turn, if it has one, and tells whether it had.
func (c *connection) endTurn() bool {
	if c.turn.end == nil {
		return false
	}
	c.server.turns.leave(c.turn)
	c.turn = turn{}
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

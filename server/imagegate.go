package server

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// An imageGate holds requests back after a start until the image has what this node
// already knew of the cluster when it ended. Else a client could be told that a topic is
// not there, which was created a second before the crash, and believe it. Where there is
// no controller nobody waits after imageWait: data that can be served does not wait for
// metadata.
//
// The zero value is ready. It is safe for concurrent use.
type imageGate struct {
	patience time.Duration // 0: imageWait
	once     sync.Once     // makes late
	late     chan struct{} // closed when nobody waits any more
	waiting  atomic.Int64  // requests that do
}

// imageWait bounds how long requests wait after a start, all in all. A controller group
// whose majority starts has a leader before that.
const imageWait = 5 * time.Second

// await waits until replayed is closed, which it is when the image is there.
func (g *imageGate) await(ctx context.Context, replayed <-chan struct{}) {
	select {
	case <-replayed:
		return
	default:
	}
	g.once.Do(func() {
		g.late = make(chan struct{})
		time.AfterFunc(cmp.Or(g.patience, imageWait), func() { close(g.late) })
	})
	g.waiting.Add(1)
	defer g.waiting.Add(-1)
	select {
	case <-replayed:
	case <-g.late:
	case <-ctx.Done():
	}
}

package replication

import (
	"context"
	"sync"
	"time"
)

// A lifetime is a node's, and has the goroutines that live as long.
type lifetime struct {
	began   time.Time
	ctx     context.Context // ends with the node
	cancel  context.CancelFunc
	closing chan struct{} // closed when that begins
	once    sync.Once
	tracked sync.WaitGroup
}

func newLifetime() *lifetime {
	ctx, cancel := context.WithCancel(context.Background())
	return &lifetime{began: time.Now(), ctx: ctx, cancel: cancel, closing: make(chan struct{})}
}

// goTracked starts a goroutine that the end waits for.
func (l *lifetime) goTracked(f func()) {
	l.tracked.Add(1)
	go func() {
		defer l.tracked.Done()
		f()
	}()
}

// end ends it, once, and then closes what there is by closeAll. Who calls it again waits for
// that.
func (l *lifetime) end(closeAll func()) {
	l.once.Do(func() {
		close(l.closing)
		l.cancel()
		closeAll()
	})
}

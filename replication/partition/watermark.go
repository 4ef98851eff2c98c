package partition

import (
	"sync"
	"sync/atomic"
)

// A watermark is a partition's high watermark: the offset below which everything is
// committed, as far as this replica knows. It only rises, from run to run, and whoever
// waits for that is told. All methods may be called by any goroutine.
type watermark struct {
	at atomic.Int64

	mu      sync.Mutex
	waiting map[*waiter]struct{}
	count   atomic.Int32 // of those: raise, which is in every commit's way, takes no lock for none
}

// A waiter wants to know when the watermark passes offset.
type waiter struct {
	offset int64
	wake   chan<- struct{}
}

func (w *waiter) tell() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (m *watermark) load() int64 { return m.at.Load() }

// add counts a waiter in. It is not told of what moved before.
func (m *watermark) add(offset int64, wake chan<- struct{}) *waiter {
	w := &waiter{offset: offset, wake: wake}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting == nil {
		m.waiting = make(map[*waiter]struct{})
	}
	m.waiting[w] = struct{}{}
	m.count.Add(1)
	return w
}

// remove ends what add began. It may be called again.
func (m *watermark) remove(w *waiter) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.waiting[w]; ok {
		delete(m.waiting, w)
		m.count.Add(-1)
	}
}

// raise moves the watermark up, and wakes who waits for that.
func (m *watermark) raise(next int64) {
	for {
		at := m.at.Load()
		if next <= at {
			return
		}
		if m.at.CompareAndSwap(at, next) {
			break
		}
	}
	if m.count.Load() == 0 {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.waiting {
		if next > w.offset {
			w.tell()
		}
	}
}

// wake tells every waiter that leadership changed, or is cut off.
func (m *watermark) wake() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.waiting {
		w.tell()
	}
}

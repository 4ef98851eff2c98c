package transport

import "sync"

const (
	eventUp uint8 = iota
	eventDown
	eventLearned
)

type event struct {
	peer    Process
	what    uint8
	address string
}

// An eventQueue hands events to the Observer in the order in which they came to
// be, with no lock held. It has no bound: connections come and go no faster than
// handshakes, and an event lost would be an election not held.
type eventQueue struct {
	mu     sync.Mutex
	ready  sync.Cond
	events []event
	closed bool
}

func (q *eventQueue) put(e event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.events = append(q.events, e)
	q.ready.Signal()
}

func (q *eventQueue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Signal()
}

func (q *eventQueue) take() []event {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.events) == 0 && !q.closed {
		q.ready.Wait()
	}
	if q.closed {
		return nil
	}
	events := q.events
	q.events = nil
	return events
}

// report calls the Observer's PeerUp, PeerDown and Learned. One goroutine, from New to Close.
func (t *Transport) report() {
	q := &t.connections.evidence
	for events := q.take(); events != nil; events = q.take() {
		for _, e := range events {
			switch e.what {
			case eventUp:
				t.stats.Ups.Add(1)
				t.cfg.Observer.PeerUp(e.peer)
			case eventDown:
				t.stats.Downs.Add(1)
				t.cfg.Observer.PeerDown(e.peer)
			case eventLearned:
				t.cfg.Observer.Learned(e.peer.Peer, e.address)
			}
		}
	}
}

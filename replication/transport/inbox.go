package transport

import (
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// An inbox is the queue of the requests that are on their way to one group's Raft: those
// of other nodes, and a few of this node's own. Any number of goroutines put requests in;
// one, while there are any, hands them to Raft.
//
// A request has a place in it from before its entries are read until it is answered, so
// that what a group may keep in memory is bounded whatever Raft does. Who finds no place
// is told so, and waits for nobody.
type inbox struct {
	room     *room // of all groups' entries
	limits   *Limits
	member   *attachment
	consumer chan raft.RPC
	done     chan struct{} // closed by close

	mu      sync.Mutex
	closed  bool
	queue   []*delivery
	pumping bool // pump runs
	pumps   sync.WaitGroup
	slots   int // requests reserved and not yet answered
	bytes   int // and what they carry
}

// A delivery is one request on its way to Raft.
type delivery struct {
	command  any
	deadline time.Time
	size     int
	replier  replier
}

// A replier answers one request of the node that sent it.
type replier interface {
	// reply is called once, with what Raft said or why it was not asked. It must not block.
	reply(resp any, err error)
}

// nobody is the replier of what this node asks itself.
type nobody struct{}

func (nobody) reply(any, error) {}

// close refuses what waits and what comes; pumps are done soon after it. It reports
// whether it was the first to close the inbox.
func (in *inbox) close() (first bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.closed {
		return false
	}
	in.closed = true
	close(in.done)
	return true
}

// reserve takes a place for a request with n bytes of entries, before they are read:
// ErrBusy when there is none. push or unreserve must follow.
func (in *inbox) reserve(n int) error {
	if err := in.room.take(n); err != nil {
		return err
	}
	err := in.tryReserve(n)
	if err == ErrBusy && in.expire() {
		err = in.tryReserve(n)
	}
	if err != nil {
		in.room.give(n)
	}
	return err
}

func (in *inbox) tryReserve(n int) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.closed:
		return ErrClosed
	case in.slots >= in.limits.QueueLength, in.bytes > 0 && in.bytes+n > in.limits.QueueBytes:
		return ErrBusy
	}
	in.slots++
	in.bytes += n
	return nil
}

func (in *inbox) unreserve(n int) {
	in.mu.Lock()
	in.slots--
	in.bytes -= n
	in.mu.Unlock()
	in.room.give(n)
}

// expire answers what waited for longer than its sender, so that it does not keep others
// out, and reports whether there was any.
func (in *inbox) expire() bool {
	var expired []*delivery
	now := time.Now()
	in.mu.Lock()
	in.queue = slices.DeleteFunc(in.queue, func(d *delivery) bool {
		late := now.After(d.deadline)
		if late {
			expired = append(expired, d)
		}
		return late
	})
	in.mu.Unlock()
	for _, d := range expired {
		in.answer(d, nil, ErrTimeout)
	}
	return len(expired) > 0
}

// push queues a request that has a place.
func (in *inbox) push(d *delivery) {
	in.mu.Lock()
	if in.closed {
		in.mu.Unlock()
		in.answer(d, nil, ErrClosed)
		return
	}
	in.queue = append(in.queue, d)
	if !in.pumping {
		in.pumping = true
		in.pumps.Add(1)
		go in.pump()
	}
	in.mu.Unlock()
}

// answer ends a request.
func (in *inbox) answer(d *delivery, resp any, err error) {
	in.unreserve(d.size)
	d.replier.reply(resp, err)
}

// pump hands queued requests to Raft, the next one when the one before is answered. It is
// started by push and ends when the queue is empty, so that an idle group has no goroutine
// here.
func (in *inbox) pump() {
	defer in.pumps.Done()
	for d := in.pop(); d != nil; d = in.pop() {
		resp, err := in.offer(d)
		in.answer(d, resp, err)
	}
}

func (in *inbox) pop() *delivery {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.queue) == 0 {
		in.pumping = false
		in.queue = nil
		return nil
	}
	d := in.queue[0]
	in.queue[0] = nil
	in.queue = in.queue[1:]
	return d
}

// offer waits for Raft to take a request, until its deadline, and then, for as
// long as it takes, for the answer.
func (in *inbox) offer(d *delivery) (any, error) {
	select {
	case <-in.done:
		return nil, ErrClosed
	default:
	}
	wait := time.Until(d.deadline)
	if wait <= 0 {
		return nil, ErrTimeout
	}
	resp := make(chan raft.RPCResponse, 1) // Raft answers from its main loop and must not wait for us
	rpc := raft.RPC{Command: d.command, RespChan: resp}
	if _, stands := d.command.(*raft.TimeoutNowRequest); stands {
		if leads, err := in.offerElection(rpc, d.deadline); leads || err != nil {
			return &raft.TimeoutNowResponse{}, err
		}
	} else {
		select {
		case in.consumer <- rpc:
		default:
			timer := time.NewTimer(wait)
			defer timer.Stop()
			select {
			case in.consumer <- rpc:
			case <-timer.C:
				return nil, ErrTimeout
			case <-in.done:
				return nil, ErrClosed
			}
		}
	}
	select {
	case r := <-resp:
		return r.Response, r.Error
	case <-in.done:
		return nil, ErrClosed
	}
}

// offerElection has Raft stand for election, unless it leads by then. Raft does as it
// is told, even a leader that has won while the request waited for it, and deposes
// itself. It looks after its queue again when it has stored the entry with which it
// begins to lead, some milliseconds later; so this asks before each offer, and does
// not wait in line.
func (in *inbox) offerElection(rpc raft.RPC, deadline time.Time) (leads bool, err error) {
	const again = time.Millisecond
	for {
		if in.member.leads() {
			return true, nil
		}
		select {
		case in.consumer <- rpc:
			return false, nil
		default:
		}
		if !time.Now().Before(deadline) {
			return false, ErrTimeout
		}
		select {
		case <-time.After(again):
		case <-in.done:
			return false, ErrClosed
		}
	}
}

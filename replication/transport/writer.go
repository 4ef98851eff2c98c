package transport

import (
	"net"
	"sync"
	"time"
)

const (
	maxWrite       = 1 << 20          // bytes joined into one writev, unless one message is larger
	writePatience  = 10 * time.Second // for a write to finish, and
	slowestWrite   = 32 << 10         // bytes a second on top of it
	maxQueuedBytes = 64 << 20         // small answers waiting for a peer that does not read
	patientBytes   = 16 << 20         // with so much waiting, large ones are not queued yet
)

// An outgoing message is a frame and the payload behind it. The payload is
// referenced, never copied.
type outgoing struct {
	frame   []byte
	payload [][]byte
	size    int
	taken   bool // by the writer; under its mu
}

func newOutgoing(frame []byte, payload ...[]byte) *outgoing {
	o := &outgoing{frame: frame, payload: payload, size: len(frame)}
	for _, p := range payload {
		o.size += len(p)
	}
	return o
}

// A writer puts messages on one connection in the order they were sent. Any
// number of goroutines may send; run, the only one that writes, joins what is
// waiting into one writev.
type writer struct {
	conn  net.Conn
	limit int  // bytes that may wait; 0: the senders limit themselves
	once  bool // the first message is the last: run closes the connection behind it

	mu    sync.Mutex
	ready sync.Cond // queue is not empty, or err is set
	room  sync.Cond // size fell, or err is set
	queue []*outgoing
	size  int // bytes in queue
	err   error
}

func newWriter(conn net.Conn, limit int) *writer {
	w := &writer{conn: conn, limit: limit}
	w.ready.L, w.room.L = &w.mu, &w.mu
	return w
}

// send queues o and returns at once. A peer that lets more than the limit wait
// loses its connection.
func (w *writer) send(o *outgoing) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	if w.limit > 0 && len(w.queue) > 0 && w.size+o.size > w.limit {
		w.failLocked(ErrTooLarge)
		return w.err
	}
	w.queueLocked(o)
	return nil
}

// sendPatiently waits for room before it queues o. A peer that reads nothing at
// all ends the wait: the write before times out.
func (w *writer) sendPatiently(o *outgoing) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.err == nil && w.size > 0 && w.size+o.size > patientBytes {
		w.room.Wait()
	}
	if w.err != nil {
		return w.err
	}
	w.queueLocked(o)
	return nil
}

func (w *writer) queueLocked(o *outgoing) {
	w.queue = append(w.queue, o)
	w.size += o.size
	if len(w.queue) == 1 {
		w.ready.Signal()
	}
}

// withdraw forgets a message nobody waits for any more, so that a slow peer does
// not hold the memory of requests given up long ago.
func (w *writer) withdraw(o *outgoing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if o.taken || o.frame == nil {
		return
	}
	w.size -= o.size
	o.frame, o.payload, o.size = nil, nil, 0
}

// fail ends run, which closes the connection; err is what later sends return.
func (w *writer) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failLocked(err)
}

func (w *writer) failLocked(err error) {
	if w.err != nil {
		return
	}
	w.err = err
	w.queue, w.size = nil, 0
	w.ready.Signal()
	w.room.Broadcast()
	w.conn.Close()
}

// run writes until fail is called or a write fails.
func (w *writer) run() {
	for {
		parts, size := w.take()
		if parts == nil {
			return
		}
		patience := writePatience + time.Duration(size/slowestWrite)*time.Second
		w.conn.SetWriteDeadline(time.Now().Add(patience))
		if err := w.write(parts, size); err != nil {
			w.fail(err)
			return
		}
		if w.once {
			w.fail(ErrClosed)
			return
		}
	}
}

// joined is how much is copied together for a connection that knows no writev: several
// records of TLS, which else would be one for each piece, however small.
const joined = 64 << 10

// write writes parts, of size bytes together.
func (w *writer) write(parts net.Buffers, size int) error {
	if bottom(w.conn) == w.conn {
		_, err := parts.WriteTo(w.conn)
		return err
	}
	buf := make([]byte, 0, min(size, joined))
	for _, p := range parts {
		for len(p) > 0 {
			n := min(len(p), cap(buf)-len(buf))
			if buf, p = append(buf, p[:n]...), p[n:]; len(buf) < cap(buf) {
				continue
			}
			if _, err := w.conn.Write(buf); err != nil {
				return err
			}
			buf = buf[:0]
		}
	}
	if len(buf) == 0 {
		return nil
	}
	_, err := w.conn.Write(buf)
	return err
}

// take waits for messages and returns as many as one write should carry, nil
// after fail.
func (w *writer) take() (parts net.Buffers, size int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for len(w.queue) == 0 && w.err == nil {
			w.ready.Wait()
		}
		if w.err != nil {
			return nil, 0
		}
		i := 0
		for ; i < len(w.queue) && (size == 0 || size+w.queue[i].size <= maxWrite); i++ {
			o := w.queue[i]
			w.queue[i] = nil
			if o.frame == nil {
				continue // withdrawn
			}
			o.taken = true
			size += o.size
			parts = append(parts, o.frame)
			parts = append(parts, o.payload...)
		}
		if w.queue = w.queue[i:]; len(w.queue) == 0 {
			w.queue = nil
		}
		w.size -= size
		w.room.Broadcast()
		if size > 0 {
			return parts, size
		}
	}
}

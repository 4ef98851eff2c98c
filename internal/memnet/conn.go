package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// window is how many bytes wait in each direction of a connection, for their reader or for
// the way to open, before writes wait. The write that goes beyond it is taken whole.
const window = 1 << 20

// A Conn is one end of a connection, a net.Conn.
type Conn struct {
	n               *Network
	in, out         *half
	readBy, writeBy deadline
}

// A half is one direction of a connection. Its network's mu guards it.
type half struct {
	n        *Network
	from, to string
	moved    sync.Cond // something below has changed, or a deadline is over

	//	written:  |== left, at offset ==|== waiting ==|
	//	read:     |====|== arrived ==|
	waiting, arrived []byte
	offset           int64

	ended bool // its writer has closed it
	eof   bool // which has arrived
	gone  bool // its reader has closed it
	lost  bool // nothing arrives any more
	told  bool // its writer has written to a closed end, which answers with a reset
	reset bool // the connection is no more
}

// connect makes a connection; n.mu is held.
func (n *Network) connect(from, to string) (near, far *Conn) {
	there := &half{n: n, from: from, to: to, moved: sync.Cond{L: &n.mu}}
	back := &half{n: n, from: to, to: from, moved: sync.Cond{L: &n.mu}}
	near, far = &Conn{n: n, in: back, out: there}, &Conn{n: n, in: there, out: back}
	n.conns[near], n.conns[far] = struct{}{}, struct{}{}
	return near, far
}

// move lets go what waits, if the way is open, and wakes who waits for that.
func (h *half) move() {
	defer h.moved.Broadcast()
	switch {
	case h.lost || h.gone || h.reset:
		h.waiting = nil
		return
	case h.n.way(h.from, h.to) != Open:
		return
	}
	for len(h.waiting) > 0 {
		n, delays := len(h.waiting), []time.Duration{0}
		if h.n.Carrier != nil {
			if n, delays = h.n.Carrier.Carry(h.from, h.to, h.offset, h.waiting); n == 0 {
				break
			}
		}
		message := h.waiting[:n:n]
		h.waiting = h.waiting[n:]
		h.offset += int64(n)
		for _, d := range delays {
			if d == 0 {
				h.arrived = append(h.arrived, message...)
				continue
			}
			time.AfterFunc(d, func() {
				h.n.mu.Lock()
				defer h.n.mu.Unlock()
				h.arrived = append(h.arrived, message...)
				h.moved.Broadcast()
			})
		}
	}
	if h.ended { // behind what it ends, even if that is half a message
		h.arrived = append(h.arrived, h.waiting...)
		h.waiting, h.eof = nil, true
	}
}

// full reports whether a write has to wait. The beginning of a message that waits for its
// rest, on a way that is open, does not count: it would wait for good.
func (h *half) full() bool {
	return len(h.arrived) >= window || len(h.waiting) >= window && h.n.way(h.from, h.to) != Open
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for h := c.in; ; h.moved.Wait() {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.reset:
			return 0, syscall.ECONNRESET
		case c.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.arrived) > 0:
			n := copy(p, h.arrived)
			h.arrived = h.arrived[n:]
			h.moved.Broadcast()
			return n, nil
		case h.eof:
			return 0, io.EOF
		}
	}
}

// Write implements net.Conn. It writes all of p or nothing.
func (c *Conn) Write(p []byte) (int, error) {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	for h := c.out; ; h.moved.Wait() {
		switch {
		case h.ended:
			return 0, net.ErrClosed
		case h.reset || h.told:
			return 0, syscall.ECONNRESET
		case c.writeBy.over():
			return 0, os.ErrDeadlineExceeded
		case h.lost || h.gone: // as TCP, which learns that an end is closed by writing to it
			h.told = h.gone && c.in.eof
			return len(p), nil
		case !h.full():
			h.waiting = append(h.waiting, p...)
			h.move()
			return len(p), nil
		}
	}
}

// CloseWrite ends what is written, and leaves the other direction as it is.
func (c *Conn) CloseWrite() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.out.ended = true
	c.out.move()
	return nil
}

// Close implements net.Conn: what was written still arrives.
func (c *Conn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.close()
	return nil
}

// Lose has nothing arrive any more that is written, the end neither: a connection that a
// firewall has forgotten.
func (c *Conn) Lose() {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.out.lost = true
	c.out.move()
}

func (c *Conn) close() {
	delete(c.n.conns, c)
	c.readBy.stop()
	c.writeBy.stop()
	c.in.gone, c.out.ended = true, true
	c.in.move()
	c.out.move()
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return addr(c.local()) }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return addr(c.in.from) }

func (c *Conn) local() string { return c.out.from }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.set(&c.readBy, c.in, t) }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.set(&c.writeBy, c.out, t) }

func (c *Conn) set(d *deadline, h *half, t time.Time) error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	if c.in.gone {
		return net.ErrClosed
	}
	d.stop()
	d.at = t
	if !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			c.n.mu.Lock()
			defer c.n.mu.Unlock()
			h.moved.Broadcast()
		})
	}
	h.moved.Broadcast()
	return nil
}

// A deadline is that of reads or of writes; zero: none.
type deadline struct {
	at    time.Time
	timer *time.Timer // wakes who waits
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
	}
}

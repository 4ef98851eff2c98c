package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// pipenet is a network in memory, for virtual time. It behaves like TCP over
// cables that can be cut: what is written while a cable is cut, the end of the
// connection included, arrives when it is whole again, and neither side notices.
//
// It knows the protocol's framing, so that disturb can delay and repeat whole
// messages.
type pipenet struct {
	// disturb, if set, says after what delays a message arrives, once for each;
	// none: lost. nil means once, at once. What a delay overtakes is overtaken.
	disturb func(from, to int32, message []byte) []time.Duration

	mu        sync.Mutex
	cut       map[[2]int32]bool
	changed   chan struct{} // closed when cut changes or on close
	closed    bool
	listeners map[string]*pipeListener
	dead      map[int32]bool
	conns     map[*pipeConn]struct{}
	wg        sync.WaitGroup
	ports     int
}

type pipeListener struct {
	node  int32
	serve func(net.Conn)
}

func newPipenet() *pipenet {
	return &pipenet{
		cut: make(map[[2]int32]bool), changed: make(chan struct{}),
		listeners: make(map[string]*pipeListener), dead: make(map[int32]bool), conns: make(map[*pipeConn]struct{}),
	}
}

func (n *pipenet) listen(node int32, serve func(net.Conn)) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ports++
	n.dead[node] = false
	addr := fmt.Sprintf("node%d:%d", node, n.ports)
	n.listeners[addr] = &pipeListener{node, serve}
	return addr
}

func (n *pipenet) dial(ctx context.Context, from int32, addr string) (net.Conn, error) {
	for {
		n.mu.Lock()
		l := n.listeners[addr]
		if l == nil || n.closed || n.dead[from] {
			n.mu.Unlock()
			return nil, errors.New("connection refused")
		}
		if !n.cut[[2]int32{from, l.node}] && !n.cut[[2]int32{l.node, from}] {
			there, back := newHalf(n, from, l.node), newHalf(n, l.node, from)
			a := &pipeConn{n: n, node: from, r: back, w: there}
			b := &pipeConn{n: n, node: l.node, r: there, w: back}
			n.conns[a], n.conns[b] = struct{}{}, struct{}{}
			n.wg.Go(there.carry)
			n.wg.Go(back.carry)
			n.wg.Go(func() { l.serve(b) })
			n.mu.Unlock()
			return a, nil
		}
		changed := n.changed
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// set cuts or mends the direction from a to b.
func (n *pipenet) set(a, b int32, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]int32{a, b}] = cut
	close(n.changed)
	n.changed = make(chan struct{})
}

// isolate cuts or mends all cables of a node, both ways.
func (n *pipenet) isolate(node int32, nodes int, cut bool) {
	for other := int32(1); other <= int32(nodes); other++ {
		n.set(node, other, cut)
		n.set(other, node, cut)
	}
}

// kill does what the kernel does when a process dies: every connection of the
// node ends and nobody listens or dials there.
func (n *pipenet) kill(node int32) {
	n.mu.Lock()
	n.dead[node] = true
	var dead []*pipeConn
	for c := range n.conns {
		if c.node == node {
			dead = append(dead, c)
		}
	}
	for addr, l := range n.listeners {
		if l.node == node {
			delete(n.listeners, addr)
		}
	}
	n.mu.Unlock()
	for _, c := range dead {
		c.Close()
	}
}

// vanish is a power cut: as kill, but nobody is told.
func (n *pipenet) vanish(node int32) {
	n.mu.Lock()
	for c := range n.conns {
		if c.node != node {
			continue
		}
		for _, h := range []*half{c.r, c.w} {
			h.mu.Lock()
			h.swallow = true
			h.mu.Unlock()
		}
	}
	n.mu.Unlock()
	n.kill(node)
}

func (n *pipenet) close() {
	n.mu.Lock()
	n.closed = true
	close(n.changed)
	n.changed = make(chan struct{})
	var all []*pipeConn
	for c := range n.conns {
		all = append(all, c)
	}
	n.mu.Unlock()
	for _, c := range all {
		c.Close()
	}
	n.wg.Wait()
}

// A half carries bytes one way.
type half struct {
	n        *pipenet
	from, to int32

	mu      sync.Mutex
	moved   sync.Cond
	sent    []byte // written, not yet on its way
	arrived []byte
	ended   bool // writer closed; arrives behind what it wrote
	eof     bool // that arrived
	gone    bool // reader closed
	swallow bool // what is written vanishes, and so does its end
	readBy  time.Time
	timer   *time.Timer
}

func newHalf(n *pipenet, from, to int32) *half {
	h := &half{n: n, from: from, to: to}
	h.moved.L = &h.mu
	return h
}

const window = 1 << 20 // bytes a half holds before writes wait

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.sent) > window && !h.ended && !h.gone {
		h.moved.Wait()
	}
	if h.swallow {
		return len(p), nil
	}
	if h.ended || h.gone {
		return 0, net.ErrClosed
	}
	h.sent = append(h.sent, p...)
	h.moved.Broadcast()
	return len(p), nil
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.arrived) == 0 {
		switch {
		case h.gone:
			return 0, net.ErrClosed
		case h.eof:
			return 0, io.EOF
		case !h.readBy.IsZero() && !time.Now().Before(h.readBy):
			return 0, os.ErrDeadlineExceeded
		}
		h.moved.Wait()
	}
	n := copy(p, h.arrived)
	h.arrived = h.arrived[n:]
	return n, nil
}

func (h *half) deadline(t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readBy = t
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	if !t.IsZero() {
		h.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.moved.Broadcast()
		})
	}
	h.moved.Broadcast()
}

// carry moves messages from sent to arrived. It ends with the connection.
func (h *half) carry() {
	shaken := false
	for {
		message := h.next(!shaken)
		if !h.whole() {
			return
		}
		if message == nil {
			h.mu.Lock()
			h.eof = !h.swallow
			h.moved.Broadcast()
			h.mu.Unlock()
			return
		}
		delays := []time.Duration{0}
		if h.n.disturb != nil && shaken {
			delays = h.n.disturb(h.from, h.to, message)
		}
		shaken = true
		for _, d := range delays {
			if d == 0 {
				h.arrive(message)
			} else {
				time.AfterFunc(d, func() { h.arrive(message) })
			}
		}
	}
}

func (h *half) arrive(message []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.arrived = append(h.arrived, message...)
	h.moved.Broadcast()
}

// next takes one message off sent, nil at the end.
func (h *half) next(handshake bool) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if n := messageLen(h.sent, handshake); n > 0 && len(h.sent) >= n {
			m := append([]byte(nil), h.sent[:n]...)
			h.sent = h.sent[n:]
			h.moved.Broadcast()
			return m
		}
		if h.gone {
			return nil
		}
		if h.ended {
			if len(h.sent) == 0 {
				return nil
			}
			m := h.sent // cut off in mid-message
			h.sent = nil
			return m
		}
		h.moved.Wait()
	}
}

// messageLen is the length of the message that b begins with, 0 if it takes more
// of it to know.
func messageLen(b []byte, handshake bool) int {
	switch {
	case handshake && len(b) >= helloFixed:
		return helloFixed + int(binary.BigEndian.Uint16(b[6:]))
	case !handshake && len(b) >= headerSize:
		return headerSize + int(binary.BigEndian.Uint32(b)) + int(binary.BigEndian.Uint32(b[4:]))
	}
	return 0
}

// whole waits until the cable is; false when the connection ended meanwhile.
func (h *half) whole() bool {
	for {
		h.n.mu.Lock()
		cut, changed, closed := h.n.cut[[2]int32{h.from, h.to}], h.n.changed, h.n.closed
		h.n.mu.Unlock()
		if closed {
			return false
		}
		if !cut {
			return true
		}
		<-changed
	}
}

type pipeConn struct {
	n    *pipenet
	node int32
	r, w *half
}

func (c *pipeConn) Read(p []byte) (int, error)  { return c.r.read(p) }
func (c *pipeConn) Write(p []byte) (int, error) { return c.w.write(p) }
func (c *pipeConn) Close() error {
	c.n.mu.Lock()
	delete(c.n.conns, c)
	c.n.mu.Unlock()
	c.w.mu.Lock()
	c.w.ended = true
	c.w.moved.Broadcast()
	c.w.mu.Unlock()
	c.r.mu.Lock()
	c.r.gone = true
	if c.r.timer != nil {
		c.r.timer.Stop()
	}
	c.r.moved.Broadcast()
	c.r.mu.Unlock()
	return nil
}
func (c *pipeConn) LocalAddr() net.Addr                { return pipeAddr(c.node) }
func (c *pipeConn) RemoteAddr() net.Addr               { return pipeAddr(c.r.from) }
func (c *pipeConn) SetDeadline(t time.Time) error      { c.r.deadline(t); return nil }
func (c *pipeConn) SetReadDeadline(t time.Time) error  { c.r.deadline(t); return nil }
func (c *pipeConn) SetWriteDeadline(t time.Time) error { return nil } // Close ends a write

type pipeAddr int32

func (a pipeAddr) Network() string { return "pipe" }
func (a pipeAddr) String() string  { return fmt.Sprintf("node%d", int32(a)) }

// nowhere is a connection nobody is at the other end of.
type nowhere struct{ net.Conn }

func (nowhere) Close() error                     { return nil }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }

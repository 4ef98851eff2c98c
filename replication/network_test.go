package replication

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A network joins the nodes of a test in memory, so that a whole cluster runs
// in virtual time, and can be cut.
type network struct {
	mu        sync.Mutex
	listeners map[string]func(net.Conn)
	links     map[*link]struct{}
	cuts      map[[2]string]bool
	frozen    map[string]bool
	drops     map[[2]string]bool
}

// A link is both ends of one connection.
type link struct {
	from, to string
	a, b     *pipeEnd
}

func newNetwork() *network {
	return &network{
		listeners: make(map[string]func(net.Conn)),
		links:     make(map[*link]struct{}),
		cuts:      make(map[[2]string]bool),
		frozen:    make(map[string]bool),
		drops:     make(map[[2]string]bool),
	}
}

// listen makes serve answer connections to addr; nil stops that.
func (w *network) listen(addr string, serve func(net.Conn)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if serve == nil {
		delete(w.listeners, addr)
		return
	}
	w.listeners[addr] = serve
}

// A caller dials for the node at an address.
type caller struct {
	*network
	from string
}

// DialContext implements transport.Dialer.
func (w caller) DialContext(ctx context.Context, _, to string) (net.Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	serve := w.listeners[to]
	if serve == nil || w.cuts[[2]string{w.from, to}] || w.cuts[[2]string{to, w.from}] {
		return nil, fmt.Errorf("dial %s: connection refused", to)
	}
	if w.drops[[2]string{w.from, to}] || w.drops[[2]string{to, w.from}] {
		w.mu.Unlock()
		<-ctx.Done()
		w.mu.Lock()
		return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
	}
	a, b := newPipe(w.from, to)
	a.in.setFrozen(w.frozen[w.from])
	b.in.setFrozen(w.frozen[to])
	l := &link{w.from, to, a, b}
	w.links[l] = struct{}{}
	go serve(b)
	return a, nil
}

// kill closes every connection of addr, as the kernel does for a dead process.
func (w *network) kill(addr string) {
	w.closeLinks(func(l *link) bool { return l.from == addr || l.to == addr })
}

// cut separates two addresses; their connections close.
func (w *network) cut(a, b string) {
	w.mu.Lock()
	w.cuts[[2]string{a, b}] = true
	w.mu.Unlock()
	w.closeLinks(func(l *link) bool { return l.from == a && l.to == b || l.from == b && l.to == a })
}

// drop loses what one address sends to another, the end of a connection too, until
// heal. Neither can open a connection to the other meanwhile.
func (w *network) drop(from, to string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drops[[2]string{from, to}] = true
	for l := range w.links {
		switch {
		case l.from == from && l.to == to:
			l.b.in.drop()
		case l.from == to && l.to == from:
			l.a.in.drop()
		}
	}
}

// freeze keeps from addr what is sent to it, until thaw, and closes no
// connection: it waits as in the sockets of a paused process.
func (w *network) freeze(addr string) { w.setFrozen(addr, true) }

func (w *network) thaw(addr string) { w.setFrozen(addr, false) }

func (w *network) setFrozen(addr string, frozen bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frozen[addr] = frozen
	for l := range w.links {
		if l.from == addr {
			l.a.in.setFrozen(frozen)
		}
		if l.to == addr {
			l.b.in.setFrozen(frozen)
		}
	}
}

func (w *network) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.cuts)
	clear(w.drops)
}

func (w *network) closeLinks(match func(*link) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for l := range w.links {
		if match(l) {
			l.a.Close()
			l.b.Close()
			delete(w.links, l)
		}
	}
}

// A stream is one direction of a connection: bytes in memory, without limit.
type stream struct {
	mu       sync.Mutex
	change   sync.Cond
	data     []byte
	closed   bool
	frozen   bool
	dropped  bool // nothing arrives any more
	deadline time.Time
}

func newStream() *stream {
	s := &stream{}
	s.change.L = &s.mu
	return s
}

func (s *stream) read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.data) == 0 || s.frozen {
		if s.closed {
			return 0, io.EOF
		}
		if !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
			return 0, os.ErrDeadlineExceeded
		}
		s.change.Wait()
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

func (s *stream) write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	if s.dropped {
		return len(p), nil
	}
	s.data = append(s.data, p...)
	s.change.Broadcast()
	return len(p), nil
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.change.Broadcast()
}

// hangUp is close, by the end that writes.
func (s *stream) hangUp() {
	s.mu.Lock()
	dropped := s.dropped
	s.mu.Unlock()
	if !dropped {
		s.close()
	}
}

func (s *stream) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped = true
}

func (s *stream) setFrozen(frozen bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frozen = frozen
	s.change.Broadcast()
}

func (s *stream) setDeadline(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadline = t
	s.change.Broadcast()
	if !t.IsZero() {
		time.AfterFunc(time.Until(t), func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.change.Broadcast()
		})
	}
}

// A pipeEnd is one end of a connection in memory.
type pipeEnd struct {
	in, out       *stream
	local, remote pipeAddr
}

type pipeAddr string

func (a pipeAddr) Network() string { return "memory" }
func (a pipeAddr) String() string  { return string(a) }

func newPipe(from, to string) (a, b *pipeEnd) {
	x, y := newStream(), newStream()
	return &pipeEnd{x, y, pipeAddr(from), pipeAddr(to)}, &pipeEnd{y, x, pipeAddr(to), pipeAddr(from)}
}

func (p *pipeEnd) Read(b []byte) (int, error)        { return p.in.read(b) }
func (p *pipeEnd) Write(b []byte) (int, error)       { return p.out.write(b) }
func (p *pipeEnd) Close() error                      { p.in.close(); p.out.hangUp(); return nil }
func (p *pipeEnd) LocalAddr() net.Addr               { return p.local }
func (p *pipeEnd) RemoteAddr() net.Addr              { return p.remote }
func (p *pipeEnd) SetReadDeadline(t time.Time) error { p.in.setDeadline(t); return nil }
func (p *pipeEnd) SetWriteDeadline(time.Time) error  { return nil }
func (p *pipeEnd) SetDeadline(t time.Time) error     { return p.SetReadDeadline(t) }

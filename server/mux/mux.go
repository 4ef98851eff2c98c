// Package mux cuts a listener into several by the first bytes of each connection:
// one for Kafka's clients, one for the other nodes of the cluster.
//
//	               limits      first four bytes
//	Accept ──▶ Quotas.admit ──▶ a length ───────▶ Kafka()
//	                            transport.Magic ▶ Peers()
//	                            a TLS handshake ▶ Peers() if it asks for a protocol of nodes
//	                                              (ALPN, package identity), else the same, of
//	                                              what is in it
//	                            a verb of HTTP    is told what this address is
//	                            anything else     closed
//
// Whoever accepts from one of them gets a connection of which nothing has been read,
// and owns it. It is in the broker's books until it is closed: see Quotas. A TCP
// connection keeps all that it can do (writev, CloseWrite, SyscallConn).
//
// A connection that says nothing costs a goroutine and a descriptor, for Patience, or
// until somebody needs its place.
package mux

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"millrace/replication/identity"
)

// A Config says how a Mux treats connections.
type Config struct {
	// Quotas count the connections. They may be those of several Muxes.
	Quotas *Quotas
	// TLS serves clients that begin a TLS handshake. nil: they are closed.
	TLS *tls.Config
	// Nodes answers other nodes that do, as they say by ALPN. nil: they are closed.
	Nodes Nodes
	// Patience is how long a connection may take for its first bytes. 0: 30 seconds.
	Patience time.Duration
}

// Nodes is the node behind a Mux.
type Nodes interface {
	// NodeTLS is how the node answers a handshake in which another asks for one of our
	// protocols: see identity.Credentials.Server. An error is why it does not.
	NodeTLS(hello *tls.ClientHelloInfo) (*tls.Config, error)
}

// A Mux accepts connections from one listener and hands them on by what they begin
// with. It is safe for concurrent use.
type Mux struct {
	cfg   Config
	outer net.Listener
	tls   *tls.Config // asks configFor
	kafka part
	peers part

	closed    chan struct{} // by Close
	closeOnce sync.Once
	running   sync.WaitGroup // the acceptor, and one for each connection that is looked at

	mu      sync.Mutex
	sniffed map[net.Conn]struct{} // those that are looked at now
	closing bool
}

// New begins to accept from l, which the Mux closes.
func New(l net.Listener, cfg Config) *Mux {
	m := &Mux{cfg: cfg, outer: l, closed: make(chan struct{}), sniffed: make(map[net.Conn]struct{})}
	if m.cfg.Patience <= 0 {
		m.cfg.Patience = 30 * time.Second
	}
	m.tls = &tls.Config{GetConfigForClient: m.configFor}
	for _, p := range []*part{&m.kafka, &m.peers} {
		p.mux, p.conns, p.closed = m, make(chan net.Conn), make(chan struct{})
	}
	m.running.Go(m.accept)
	return m
}

// Kafka returns the listener of Kafka's clients. Until it is called for the first time,
// they are closed, and come again.
func (m *Mux) Kafka() net.Listener { return m.kafka.opened() }

// Peers returns the listener of other nodes, which are closed until it is called, too.
func (m *Mux) Peers() net.Listener { return m.peers.opened() }

// Close closes the listener, those that were cut from it, and every connection that has
// not been accepted from one of them. It leaves the others to their owners, and returns
// when nothing of the Mux runs any more.
func (m *Mux) Close() error {
	err := m.end(net.ErrClosed)
	m.running.Wait()
	return err
}

// end does so without waiting; from then on Accept says why.
func (m *Mux) end(why error) (err error) {
	m.closeOnce.Do(func() {
		m.kafka.close(why)
		m.peers.close(why)
		close(m.closed)
		err = m.outer.Close()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.closing = true
		for conn := range m.sniffed {
			conn.Close()
		}
	})
	return err
}

// So many connections are accepted at once, and one each acceptEvery from there: to
// accept one and find out that it wants nothing costs a fourth of that.
//
// Other nodes wait in the same queue, which is of acceptQueue connections with Linux:
// whoever joins it must have its handshake before it gives up (transport.DialTimeout), or a
// flood would keep a node that has lost its connections from all others for as long as
// it lasts.
const (
	acceptEvery = 400 * time.Microsecond
	acceptBurst = 1000
	acceptQueue = 4096 // net.core.somaxconn
)

// accept is the goroutine "acceptor". It ends with the listener.
func (m *Mux) accept() {
	pause := time.Duration(0)
	var next time.Time // see acceptEvery
	for {
		conn, err := m.outer.Accept()
		if errors.Is(err, net.ErrClosed) {
			m.end(err)
			return
		}
		if err != nil {
			// Out of descriptors, or the client gave up: neither may end the
			// broker, and neither is mended by asking again at once.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			m.cfg.Quotas.Broker.Warn("accept failed", "listener", m.outer.Addr(), "error", err)
			if !m.wait(pause) {
				return
			}
			continue
		}
		pause = 0
		m.begin(conn)
		// Whoever floods the listener waits in its queue, not in that of the processor.
		now := time.Now()
		if next = next.Add(acceptEvery); next.Before(now.Add(-acceptBurst * acceptEvery)) {
			next = now.Add(-acceptBurst * acceptEvery)
		}
		if next.After(now) && !m.wait(next.Sub(now)) {
			return
		}
	}
}

// wait waits, and returns false when the Mux is closed meanwhile.
func (m *Mux) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-m.closed:
		return false
	}
}

// begin starts the goroutine that looks at a connection.
func (m *Mux) begin(conn net.Conn) {
	m.mu.Lock()
	if m.closing {
		m.mu.Unlock()
		conn.Close()
		return
	}
	m.sniffed[conn] = struct{}{}
	m.mu.Unlock()
	p := m.cfg.Quotas.admit(conn)
	m.running.Go(func() { m.sort(conn, p) })
}

// sort is the goroutine "sorter": it finds out who calls, and ends when somebody has
// accepted the connection or it is closed.
func (m *Mux) sort(conn net.Conn, p *place) {
	handed := false
	defer func() {
		if r := recover(); r != nil {
			m.cfg.Quotas.panics.Add(1)
			m.cfg.Quotas.Broker.Warn("panic while serving a connection", "remote", conn.RemoteAddr(), "panic", r, "stack", string(debug.Stack()))
		}
		m.mu.Lock()
		delete(m.sniffed, conn)
		m.mu.Unlock()
		if !handed {
			conn.Close()
			p.leave()
		}
	}()
	patience := m.cfg.Patience
	if p.probation {
		patience = min(patience, strangerTime) // nodes send their handshake at once
	}
	c, err := m.sniff(conn, patience)
	switch {
	case p.probation && (err != nil || c.who != callerNode):
		m.cfg.Quotas.refuseOne(p)
	case err != nil:
		// Port scanners and health checks connect and leave: not worth a line. One
		// that was closed here made room, which has been said, or Close came.
		if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			m.cfg.Quotas.refuse(conn, err.Error())
		}
		// With TLS 1.3 a client whose certificate is refused has sent a request behind it.
		if shaken := (*handshakeError)(nil); errors.As(err, &shaken) {
			linger(conn)
		}
	case c.who == callerHTTP:
		m.refuseHTTP(conn, c.Conn)
	case c.who == callerNode:
		handed = m.peers.give(owned(c, p))
	default:
		handed = m.kafka.give(owned(c, p))
	}
}

// A part is one of the listeners that a Mux was cut into.
type part struct {
	mux    *Mux
	open   atomic.Bool // somebody has asked for it
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	why    error // set before closed is closed
}

func (p *part) opened() net.Listener {
	p.open.Store(true)
	return p
}

// give waits until somebody accepts c. False: nobody will.
func (p *part) give(c net.Conn) bool {
	if !p.open.Load() {
		return false
	}
	select {
	case p.conns <- c:
		return true
	case <-p.closed:
		return false
	}
}

// Accept implements net.Listener.
func (p *part) Accept() (net.Conn, error) {
	select {
	case <-p.closed: // rather than a connection that comes at the same time
		return nil, p.why
	default:
	}
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, p.why
	}
}

// Close implements net.Listener. It closes this part alone: who comes for it is closed.
func (p *part) Close() error {
	p.close(net.ErrClosed)
	return nil
}

func (p *part) close(why error) {
	p.once.Do(func() {
		p.why = why
		close(p.closed)
	})
}

// Addr implements net.Listener: it is the address of the whole.
func (p *part) Addr() net.Addr { return p.mux.outer.Addr() }

// owned returns c as its next owner gets it, who takes it off the books by closing it.
func owned(c called, p *place) net.Conn {
	if tcp, ok := c.Conn.(*net.TCPConn); ok {
		return &tcpConn{tcp, p, c.proof}
	}
	return &otherConn{c.Conn, p, c.proof, c.secure}
}

// A tcpConn is a TCP connection in the books. What it embeds is no interface, so that
// it has the unexported methods too: package net writes a net.Buffers by writev to who
// has them.
type tcpConn struct {
	*net.TCPConn
	place *place
	proof identity.Proof
}

// Proof is what the other end has shown of itself, as a node.
func (c *tcpConn) Proof() identity.Proof { return c.proof }

// Known says that the connection is no stranger's any more, and keeps its place.
func (c *tcpConn) Known() { c.place.known() }

// Close implements net.Conn.
func (c *tcpConn) Close() error {
	defer c.place.leave() // once the descriptor is free
	return c.TCPConn.Close()
}

// An otherConn is one that came over TLS, or of which something had to be read.
type otherConn struct {
	net.Conn
	place  *place
	proof  identity.Proof
	secure *tls.Conn // nil: it is a client's without TLS
}

// TLS is how a client and the broker agreed to keep others from reading, if they did.
func (c *otherConn) TLS() (state tls.ConnectionState, ok bool) {
	if c.secure == nil {
		return state, false
	}
	return c.secure.ConnectionState(), true
}

// Proof is tcpConn's.
func (c *otherConn) Proof() identity.Proof { return c.proof }

// NetConn is what c.Conn goes over, or c.Conn itself.
func (c *otherConn) NetConn() net.Conn {
	conn := c.Conn
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = over.NetConn()
	}
}

// Known is tcpConn's.
func (c *otherConn) Known() { c.place.known() }

// CloseWrite ends one direction, where that can be done.
func (c *otherConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Close implements net.Conn.
func (c *otherConn) Close() error {
	defer c.place.leave()
	return c.Conn.Close()
}

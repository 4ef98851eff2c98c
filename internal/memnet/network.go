package memnet

import (
	"context"
	"fmt"
	"net"
	"sync"
	"syscall"
	"time"
)

// A Way is how what one host sends to another fares, the worse the greater. The package's
// page has the table.
type Way int

// The ways there are.
const (
	Open Way = iota
	Stalled
	Held
	Lost
	Severed
)

// A Network joins hosts in memory. It is safe for concurrent use. Make one with New.
type Network struct {
	// Carrier, if set before the first connection, is asked how what was written travels.
	Carrier Carrier

	// mu guards everything of the network, its listeners and its connections.
	mu        sync.Mutex
	ways      map[[2]string]Way // not those that are open
	changed   chan struct{}     // closed, and another one, when ways or listeners change
	listeners map[string]*listener
	conns     map[*Conn]struct{} // both ends of each, until they are closed
	dead      map[string]bool    // hosts that were killed and have not listened since
}

// A Carrier delays, repeats, reorders and loses messages. It is called with the network
// locked, and must not use it.
type Carrier interface {
	// Carry is given what waits to leave for another host, behind offset bytes of its
	// connection that have left. The first n bytes of b leave now, and arrive after each of
	// the delays: overtaken by what is faster, more than once, or never. n == 0 lets b wait
	// for more.
	Carry(from, to string, offset int64, b []byte) (n int, delays []time.Duration)
}

// New returns a network on which all ways are open.
func New() *Network {
	return &Network{
		ways: make(map[[2]string]Way), changed: make(chan struct{}), listeners: make(map[string]*listener),
		conns: make(map[*Conn]struct{}), dead: make(map[string]bool),
	}
}

// Listen begins to listen at a host, which lives again if it was killed.
func (n *Network) Listen(host string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[host] != nil {
		return nil, fmt.Errorf("listen at %s: %w", host, syscall.EADDRINUSE)
	}
	delete(n.dead, host)
	l := &listener{n: n, host: host, moved: sync.Cond{L: &n.mu}}
	n.listeners[host] = l
	return l, nil
}

// Dial connects two hosts. It waits for as long as ctx and the ways between them have it
// wait.
func (n *Network) Dial(ctx context.Context, from, to string) (net.Conn, error) {
	for {
		n.mu.Lock()
		l, changed := n.listeners[to], n.changed
		switch way := max(n.way(from, to), n.way(to, from)); {
		case l == nil || n.dead[from] || way == Severed:
			n.mu.Unlock()
			return nil, fmt.Errorf("dial %s: %w", to, syscall.ECONNREFUSED)
		case way <= Stalled:
			defer n.mu.Unlock()
			near, far := n.connect(from, to)
			l.queue = append(l.queue, far)
			l.moved.Signal()
			return near, nil
		}
		n.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("dial %s: %w", to, ctx.Err())
		}
	}
}

// Dialer returns what dials from one host.
func (n *Network) Dialer(from string) Dialer { return Dialer{n, from} }

// A Dialer dials from one host, by the method of net.Dialer.
type Dialer struct {
	n    *Network
	from string
}

// DialContext is Dial. There is one kind of network.
func (d Dialer) DialContext(ctx context.Context, _, to string) (net.Conn, error) {
	return d.n.Dial(ctx, d.from, to)
}

// Set changes the way from one host to another; "" means every host. A way that was set
// for every host and one that was set for two are two: the worse counts, and each is
// opened as it was set.
func (n *Network) Set(from, to string, way Way) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ways[[2]string{from, to}] = way
	n.move()
}

// SetBoth is Set in both directions.
func (n *Network) SetBoth(a, b string, way Way) {
	n.Set(a, b, way)
	n.Set(b, a, way)
}

// Heal opens every way.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.ways)
	n.move()
}

// Kill does what the kernel does when the process at host dies: its connections end and
// nobody listens or dials there, until somebody listens there again.
func (n *Network) Kill(host string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dead[host] = true
	if l := n.listeners[host]; l != nil {
		l.close()
	}
	for c := range n.conns {
		if c.local() == host {
			c.close()
		}
	}
}

// Vanish is Kill of which nobody is told: what is under way is lost, the ends of the
// connections too.
func (n *Network) Vanish(host string) {
	n.mu.Lock()
	for c := range n.conns {
		if c.local() == host {
			c.in.lost, c.out.lost = true, true
		}
	}
	n.mu.Unlock()
	n.Kill(host)
}

// Close kills every host that listens or is connected.
func (n *Network) Close() {
	n.mu.Lock()
	hosts := make(map[string]bool)
	for host := range n.listeners {
		hosts[host] = true
	}
	for c := range n.conns {
		hosts[c.local()] = true
	}
	n.mu.Unlock()
	n.Heal() // who waits to dial is refused
	for host := range hosts {
		n.Kill(host)
	}
}

// way returns the worst of the ways that were set; n.mu is held.
func (n *Network) way(from, to string) Way {
	return max(n.ways[[2]string{from, to}], n.ways[[2]string{from, ""}], n.ways[[2]string{"", to}])
}

// move has the ways take effect on connections, and wakes who waits to dial; n.mu is held.
func (n *Network) move() {
	close(n.changed)
	n.changed = make(chan struct{})
	for c := range n.conns {
		for _, h := range []*half{c.in, c.out} { // the other end may be closed, what it wrote is not here yet
			switch n.way(h.from, h.to) {
			case Severed:
				c.in.reset, c.out.reset = true, true
			case Lost:
				h.lost = true
			}
		}
		c.in.move()
		c.out.move()
	}
}

// A listener is where connections to a host wait to be accepted.
type listener struct {
	n      *Network
	host   string
	moved  sync.Cond
	queue  []*Conn
	closed bool
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	for len(l.queue) == 0 {
		if l.closed {
			return nil, net.ErrClosed
		}
		l.moved.Wait()
	}
	c := l.queue[0]
	l.queue = l.queue[1:]
	return c, nil
}

// Close implements net.Listener: whose connection was not accepted finds it ended.
func (l *listener) Close() error {
	l.n.mu.Lock()
	defer l.n.mu.Unlock()
	l.close()
	return nil
}

func (l *listener) close() {
	if l.closed {
		return
	}
	l.closed = true
	delete(l.n.listeners, l.host)
	for _, c := range l.queue {
		c.close()
	}
	l.queue = nil
	l.moved.Broadcast()
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return addr(l.host) }

// An addr is a host as the address of a connection.
type addr string

func (addr) Network() string  { return "memory" }
func (a addr) String() string { return string(a) }

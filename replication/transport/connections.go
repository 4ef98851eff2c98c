package transport

import (
	"container/list"
	"maps"
	"math"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Process is one run of one peer: Session is random, so that a peer which started
// again is told from the one before it.
type Process struct {
	Peer
	Session uint64
}

// A presence is one process of one peer, as long as a connection to or from it
// is open. Its beginning and its end are the evidence that PeerUp and PeerDown
// report.
type presence struct {
	peer    Peer
	session uint64
	last    atomic.Int64 // when a byte last came from it, in nanoseconds since Transport.start
	conns   map[*tracked]struct{}
}

// A tracked connection notes when bytes arrive and belongs to a presence.
type tracked struct {
	net.Conn
	start    time.Time // Transport.start
	presence *presence // nil on connections that are no evidence
	kind     uint8
	version  uint8 // of the protocol, that both sides speak
	inbound  bool
	last     atomic.Int64 // as presence.last, of this connection
}

func (c *tracked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		now := int64(time.Since(c.start))
		c.last.Store(now)
		if c.presence != nil {
			c.presence.last.Store(now)
		}
	}
	return n, err
}

// bottom is what a connection goes over, below TLS; or conn itself.
func bottom(conn net.Conn) net.Conn {
	for {
		over, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return conn
		}
		conn = over.NetConn()
	}
}

const (
	readPatience = 10 * time.Second // for a large payload to arrive, and
	slowestRead  = 32 << 10         // bytes a second on top of it
)

// patience gives a payload of n bytes time to arrive; the returned function ends it.
// On a connection for one call everything has to be over in time anyway: see onceTime.
func (c *tracked) patience(n int) (done func()) {
	if n <= readBuffer || c.inbound && c.kind == kindOnce {
		return func() {}
	}
	c.SetReadDeadline(time.Now().Add(readPatience + time.Duration(n/slowestRead)*time.Second))
	return func() { c.SetReadDeadline(time.Time{}) }
}

// connections are all that a node has, in and out, and whom they are evidence of.
type connections struct {
	start    time.Time // Transport.start
	limit    int       // of connections
	evidence eventQueue

	mu        sync.Mutex
	closed    bool
	conns     map[net.Conn]struct{} // all there are, for close
	strangers list.List             // inbound ones whose handshake is not done or that are for one call, oldest first
	present   map[Peer]*presence
	departed  map[Peer]time.Duration // when those who are not present were last heard, since start
}

// enter counts an inbound connection among the strangers, if there is room. When there
// is none, the oldest of them makes it, which the caller closes: a peer says hello at
// once, and must not be kept out by who came before it and says nothing.
func (cs *connections) enter(conn net.Conn) (place *list.Element, expelled net.Conn, err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return nil, nil, ErrClosed
	}
	full := len(cs.conns) >= cs.limit
	if oldest := cs.strangers.Front(); oldest != nil && (full || cs.strangers.Len() >= max(1, cs.limit/4)) {
		full = false
		expelled = cs.strangers.Remove(oldest).(net.Conn) // its goroutine takes it out of conns
	}
	if full {
		return nil, nil, ErrBusy
	}
	cs.conns[conn] = struct{}{}
	return cs.strangers.PushBack(conn), expelled, nil
}

// known takes a connection out of the strangers.
func (cs *connections) known(place *list.Element) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.strangers.Remove(place)
}

// left ends what enter began.
func (cs *connections) left(conn net.Conn, place *list.Element) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.strangers.Remove(place) // if it still is one
	delete(cs.conns, conn)
}

// close ends the evidence and returns all connections, for the caller to close. None is
// counted any more.
func (cs *connections) close() []net.Conn {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.closed = true
	cs.evidence.close()
	return slices.Collect(maps.Keys(cs.conns))
}

// join counts conn, whose handshake is done, among its peer's connections. ErrClosed
// after Close.
func (t *Transport) join(conn net.Conn, peer Peer, session uint64, kind uint8, inbound bool) (*tracked, error) {
	if err := giveUpAfter(conn, t.cfg.Timers.PeerTimeout); err != nil {
		t.warn("user timeout", "a lost burst may be waited for longer", "peer", peer.String(), "error", err)
	}
	c := &tracked{Conn: conn, start: t.start, kind: kind, inbound: inbound}
	stale, err := t.connections.join(c, peer, session)
	for _, old := range stale {
		old.Close()
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// join counts c, and returns the connections that it replaces, for the caller to close.
//
// A peer's new connection replaces the one of its kind it opened before: the
// peer opens a second only when it has given the first up. A new session
// replaces every connection of the session before, whose process is gone even if
// no packet ever said so; see replaces for one that only says so.
func (cs *connections) join(c *tracked, peer Peer, session uint64) (stale []*tracked, err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.closed {
		return nil, ErrClosed
	}
	cs.conns[c.Conn] = struct{}{}
	if c.kind == kindOnce {
		return nil, nil
	}
	pr := cs.present[peer]
	if pr != nil && pr.session != session {
		stale = cs.departLocked(pr)
		pr = nil
	}
	if pr == nil {
		pr = &presence{peer: peer, session: session, conns: make(map[*tracked]struct{})}
		cs.present[peer] = pr
		cs.evidence.put(event{peer: Process{peer, session}, what: eventUp})
	}
	pr.last.Store(int64(time.Since(cs.start)))
	delete(cs.departed, peer)
	for old := range pr.conns {
		if c.inbound && old.inbound && old.kind == c.kind {
			stale = append(stale, old)
		}
	}
	pr.conns[c] = struct{}{}
	c.presence = pr
	return stale, nil
}

// replaces reports whether a handshake may begin a new session of a peer. Anybody can
// say hello in a peer's name, and the end of a session is evidence that a process died:
// while the one there is speaks it is not replaced. It is asked for a sign of life
// and given two pings' time; a process that really died closed its connections, or
// is silent.
func (t *Transport) replaces(peer Peer, session uint64) bool {
	pr := t.connections.of(peer)
	if pr == nil || pr.session == session {
		return true
	}
	asked := int64(time.Since(t.start))
	for _, c := range t.peers.controls() {
		if c.remote == peer {
			c.ping()
		}
	}
	every := t.cfg.Timers.PingInterval / 10
	for range 20 {
		select {
		case <-time.After(every):
		case <-t.running.ctx.Done():
			return false
		}
		if t.connections.of(peer) != pr { // gone
			return true
		}
		if pr.last.Load() > asked {
			return false
		}
	}
	return true
}

// leave is join's end.
func (t *Transport) leave(c *tracked) {
	c.Close()
	if c.presence != nil {
		t.quiesced.ends.Add(1)
		defer t.quiesced.wake(math.MaxInt64)
	}
	t.connections.leave(c)
}

func (cs *connections) leave(c *tracked) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	delete(cs.conns, c.Conn)
	if pr := c.presence; pr != nil {
		delete(pr.conns, c)
		if len(pr.conns) == 0 && cs.present[pr.peer] == pr {
			cs.departLocked(pr)
		}
	}
}

// maxDeparted is how many peers are remembered that are not present.
const maxDeparted = 1024

// departLocked ends a presence and returns its connections, for the caller to
// close. They leave later without a second word.
func (cs *connections) departLocked(pr *presence) []*tracked {
	delete(cs.present, pr.peer)
	if len(cs.departed) >= maxDeparted { // names that anybody made up
		clear(cs.departed)
	}
	cs.departed[pr.peer] = time.Duration(pr.last.Load())
	if !cs.closed {
		cs.evidence.put(event{peer: Process{pr.peer, pr.session}, what: eventDown})
	}
	conns := make([]*tracked, 0, len(pr.conns))
	for c := range pr.conns {
		conns = append(conns, c)
	}
	return conns
}

// of returns the presence of a peer, or nil.
func (cs *connections) of(peer Peer) *presence {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return cs.present[peer]
}

// monitor pings every peer we have a control connection to, wakes the appends that
// are held until they are due, and takes peers that were silent too long for gone. One
// goroutine, from New to Close.
func (t *Transport) monitor() {
	tick := time.NewTicker(t.cfg.Timers.PingInterval)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-tick.C:
		case <-t.running.ctx.Done():
			return
		}
		now := time.Now()
		late := now.Sub(before) > t.cfg.Timers.PingInterval+t.cfg.Timers.PeerTimeout/3
		before = now
		t.peers.ping()
		t.quiesced.wake(t.tick(now.Sub(t.start)))
		t.buryTheSilent(late)
	}
}

// buryTheSilent closes all connections of peers that have been silent for longer
// than PeerTimeout. When this process itself was paused (late), what looks like
// their silence was ours: everybody gets a new term.
func (t *Transport) buryTheSilent(late bool) {
	stale, silent := t.connections.silent(late, t.cfg.Timers.PeerTimeout)
	for _, peer := range silent {
		t.stats.Silent.Add(1)
		t.warn("silent "+peer.String(), "closed the connections of a silent peer", "peer", peer.String(), "timeout", t.cfg.Timers.PeerTimeout)
	}
	for _, c := range stale {
		c.Close()
	}
}

// silent takes out those who have been silent for longer than timeout, and returns their
// connections and their names.
func (cs *connections) silent(late bool, timeout time.Duration) (stale []*tracked, silent []Peer) {
	now := int64(time.Since(cs.start))
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, pr := range cs.present {
		switch silence := time.Duration(now - pr.last.Load()); {
		case late:
			pr.last.Store(now)
		case silence > timeout:
			stale = append(stale, cs.departLocked(pr)...)
			silent = append(silent, pr.peer)
		}
	}
	return stale, silent
}

// Hears returns the process of a peer that has an open connection to or from here.
func (t *Transport) Hears(peer Peer) (p Process, ok bool) {
	pr := t.connections.of(peer)
	if pr == nil {
		return Process{}, false
	}
	return Process{peer, pr.session}, true
}

// LastHeard returns when a byte last came from a peer that has no open connection to or
// from here any more; the zero time if it never had one.
func (t *Transport) LastHeard(peer Peer) time.Time {
	t.connections.mu.Lock()
	defer t.connections.mu.Unlock()
	last, ok := t.connections.departed[peer]
	if !ok {
		return time.Time{}
	}
	return t.start.Add(last)
}

// Heard returns every process that has an open connection to or from here, in no order.
func (t *Transport) Heard() []Process {
	t.connections.mu.Lock()
	defer t.connections.mu.Unlock()
	all := make([]Process, 0, len(t.connections.present))
	for peer, pr := range t.connections.present {
		all = append(all, Process{peer, pr.session})
	}
	return all
}

// Self returns this process.
func (t *Transport) Self() Process { return Process{t.cfg.Local, t.session} }

// Connected returns the ids of the nodes with an open connection to or from
// here, in order.
func (t *Transport) Connected() []int32 {
	t.connections.mu.Lock()
	nodes := make([]int32, 0, len(t.connections.present))
	for peer := range t.connections.present {
		nodes = append(nodes, peer.Node)
	}
	t.connections.mu.Unlock()
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

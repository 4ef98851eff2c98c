package transport

import (
	"math"
	"net"
	"slices"
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
	t        *Transport
	presence *presence // nil on connections that are no evidence
	kind     uint8
	version  uint8 // of the protocol, that both sides speak
	inbound  bool
	last     atomic.Int64 // as presence.last, of this connection
}

func (c *tracked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		now := int64(time.Since(c.t.start))
		c.last.Store(now)
		if c.presence != nil {
			c.presence.last.Store(now)
		}
	}
	return n, err
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

// join counts conn, whose handshake is done, among its peer's connections. ErrClosed
// after Close.
//
// A peer's new connection replaces the one of its kind it opened before: the
// peer opens a second only when it has given the first up. A new session
// replaces every connection of the session before, whose process is gone even if
// no packet ever said so; see replaces for one that only says so.
func (t *Transport) join(conn net.Conn, peer Peer, session uint64, kind uint8, inbound bool) (*tracked, error) {
	c := &tracked{Conn: conn, t: t, kind: kind, inbound: inbound}
	if err := giveUpAfter(conn, t.cfg.Timers.PeerTimeout); err != nil {
		t.warn("user timeout", "a lost burst may be waited for longer", "peer", peer.String(), "error", err)
	}
	var stale []*tracked
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil, ErrClosed
	}
	t.conns[conn] = struct{}{}
	if kind != kindOnce {
		pr := t.present[peer]
		if pr != nil && pr.session != session {
			stale = t.departLocked(pr)
			pr = nil
		}
		if pr == nil {
			pr = &presence{peer: peer, session: session, conns: make(map[*tracked]struct{})}
			t.present[peer] = pr
			t.evidence.put(event{peer: Process{peer, session}, what: eventUp})
		}
		pr.last.Store(int64(time.Since(t.start)))
		delete(t.departed, peer)
		for old := range pr.conns {
			if inbound && old.inbound && old.kind == kind {
				stale = append(stale, old)
			}
		}
		pr.conns[c] = struct{}{}
		c.presence = pr
	}
	t.mu.Unlock()
	for _, old := range stale {
		old.Close()
	}
	return c, nil
}

// replaces tells whether a handshake may begin a new session of a peer. Anybody can
// say hello in a peer's name, and the end of a session is evidence that a process died:
// while the one there is speaks it is not replaced. It is asked for a sign of life
// and given two pings' time; a process that really died closed its connections, or
// is silent.
func (t *Transport) replaces(peer Peer, session uint64) bool {
	t.mu.Lock()
	pr := t.present[peer]
	t.mu.Unlock()
	if pr == nil || pr.session == session {
		return true
	}
	asked := int64(time.Since(t.start))
	for _, c := range t.controls() {
		if c.remote == peer {
			c.ping()
		}
	}
	every := t.cfg.Timers.PingInterval / 10
	for range 20 {
		select {
		case <-time.After(every):
		case <-t.ctx.Done():
			return false
		}
		t.mu.Lock()
		gone := t.present[peer] != pr
		t.mu.Unlock()
		if gone {
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
		t.ends.Add(1)
		defer t.quiesced.wake(math.MaxInt64)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.conns, c.Conn)
	if pr := c.presence; pr != nil {
		delete(pr.conns, c)
		if len(pr.conns) == 0 && t.present[pr.peer] == pr {
			t.departLocked(pr)
		}
	}
}

// maxDeparted is how many peers are remembered that are not present.
const maxDeparted = 1024

// departLocked ends a presence and returns its connections, for the caller to
// close. They leave later without a second word.
func (t *Transport) departLocked(pr *presence) []*tracked {
	delete(t.present, pr.peer)
	if len(t.departed) >= maxDeparted { // names that anybody made up
		clear(t.departed)
	}
	t.departed[pr.peer] = time.Duration(pr.last.Load())
	if !t.closed {
		t.evidence.put(event{peer: Process{pr.peer, pr.session}, what: eventDown})
	}
	conns := make([]*tracked, 0, len(pr.conns))
	for c := range pr.conns {
		conns = append(conns, c)
	}
	return conns
}

// monitor pings every peer we have a control connection to, wakes the appends that
// are held until they are due, and takes peers that were silent too long for gone. One
// goroutine, from New to Close.
func (t *Transport) monitor() {
	defer t.wg.Done()
	tick := time.NewTicker(t.cfg.Timers.PingInterval)
	defer tick.Stop()
	before := time.Now()
	for {
		select {
		case <-tick.C:
		case <-t.ctx.Done():
			return
		}
		now := time.Now()
		late := now.Sub(before) > t.cfg.Timers.PingInterval+t.cfg.Timers.PeerTimeout/3
		before = now
		t.ping()
		t.quiesced.wake(t.tick(now.Sub(t.start)))
		t.buryTheSilent(late)
	}
}

// buryTheSilent closes all connections of peers that have been silent for longer
// than PeerTimeout. When this process itself was paused (late), what looks like
// their silence was ours: everybody gets a new term.
func (t *Transport) buryTheSilent(late bool) {
	now := int64(time.Since(t.start))
	var stale []*tracked
	var silent []Peer
	t.mu.Lock()
	for _, pr := range t.present {
		switch silence := time.Duration(now - pr.last.Load()); {
		case late:
			pr.last.Store(now)
		case silence > t.cfg.Timers.PeerTimeout:
			stale = append(stale, t.departLocked(pr)...)
			silent = append(silent, pr.peer)
		}
	}
	t.mu.Unlock()
	for _, peer := range silent {
		t.stats.Silent.Add(1)
		t.warn("silent "+peer.String(), "closed the connections of a silent peer", "peer", peer.String(), "timeout", t.cfg.Timers.PeerTimeout)
	}
	for _, c := range stale {
		c.Close()
	}
}

// Hears returns the process of a peer that has an open connection to or from here.
func (t *Transport) Hears(peer Peer) (p Process, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pr := t.present[peer]
	if pr == nil {
		return Process{}, false
	}
	return Process{peer, pr.session}, true
}

// LastHeard returns when a byte last came from a peer that has no open connection to or
// from here any more; the zero time if it never had one.
func (t *Transport) LastHeard(peer Peer) time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	last, ok := t.departed[peer]
	if !ok {
		return time.Time{}
	}
	return t.start.Add(last)
}

// Heard returns every process that has an open connection to or from here, in no order.
func (t *Transport) Heard() []Process {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Process, 0, len(t.present))
	for peer, pr := range t.present {
		all = append(all, Process{peer, pr.session})
	}
	return all
}

// Self returns this process.
func (t *Transport) Self() Process { return Process{t.cfg.Local, t.session} }

// Connected returns the ids of the nodes with an open connection to or from
// here, in order.
func (t *Transport) Connected() []int32 {
	t.mu.Lock()
	nodes := make([]int32, 0, len(t.present))
	for peer := range t.present {
		nodes = append(nodes, peer.Node)
	}
	t.mu.Unlock()
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

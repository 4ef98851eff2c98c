package mux

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Limits are the bounds on a broker's connections from one address.
type Limits struct {
	Connections int     // of all addresses together: max.connections
	PerIP       int     // of the address: max.connections.per.ip, or what its overrides say
	Rate        float64 // new ones a second, of all addresses together: max.connection.creation.rate; 0: any
	RatePerIP   float64 // of the address: its quota connection_creation_rate; 0: any
}

// A Broker is whose connections Quotas count. Its methods are called by many goroutines
// at once.
type Broker interface {
	// Limits returns the bounds that hold now for an address. It is called for each
	// connection.
	Limits(remote netip.Addr) Limits
	// MaxRequest is how many bytes the largest frame has that a client may begin with.
	MaxRequest() int
	// Warn logs a warning that clients may cause as often as they like.
	Warn(message string, args ...any)
}

// Quotas count the connections of a broker, by whichever of its listeners they
// came, and say who may come in: what ConnectionQuotas does in Kafka. A connection
// is counted from Accept until it is closed, whoever serves it. Quotas are safe
// for concurrent use; the fields must not change once a Mux uses them.
//
// A connection is a stranger until Known is called on it: until its first whole
// request, or the handshake of another node. When all places are taken, the oldest
// stranger makes room: whoever comes to send a request has done so before it is
// its turn. Clients at work keep their places.
//
// Who comes faster than the rates allow is treated like a crowd: it makes nobody leave, and
// counts for no rate. A rate has a burst, what it allows in one second.
//
// Limits are for clients: who comes when they are reached is on probation beyond
// any of them, until it is known to be another node or closed. There are onProbation
// such places, and the oldest there makes room for the next, so that no flood keeps
// a node out.
type Quotas struct {
	Broker Broker
	// Now is the clock. nil: time.Now.
	Now func() time.Time

	mu        sync.Mutex
	open      int
	from      map[netip.Addr]int // how many of them come from each address
	paces     paces
	strangers list.List // *place, of those that have a place, oldest first
	probation list.List // *place, of those let in beyond the limits, oldest first

	accepted, refused, panics atomic.Int64
}

// A place is one connection's in the books. Its fields are under Quotas.mu.
type place struct {
	quotas    *Quotas
	conn      net.Conn // as it was accepted
	remote    netip.Addr
	since     time.Time
	line      *list.List    // strangers or probation, while it is in one
	at        *list.Element // in line
	probation bool          // it came when the limits were reached; never changes
	hurried   bool          // it came faster than the rates allow; never changes
	left      bool
}

const (
	// strangerTime is how long a stranger keeps its place when there is no other.
	strangerTime = time.Second
	// onProbation is how many connections are let in beyond all limits. A node has
	// sent its handshake by the time that so many have come after it.
	onProbation = 64
)

// Stats are what Quotas have counted.
type Stats struct {
	Connections int   // open now
	Strangers   int   // of them, those that have not been made Known and are not on probation
	Probation   int   // of them, those let in beyond the limits until they show that they are nodes
	Accepted    int64 // since the beginning, like the rest
	Refused     int64 // closed for their number or their first bytes
	Panics      int64 // while first bytes were looked at
}

// Stats returns what has been counted so far.
func (q *Quotas) Stats() Stats {
	q.mu.Lock()
	defer q.mu.Unlock()
	return Stats{q.open, q.strangers.Len(), q.probation.Len(), q.accepted.Load(), q.refused.Load(), q.panics.Load()}
}

// From returns how many connections are open from an address.
func (q *Quotas) From(remote netip.Addr) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.from[remote]
}

func (q *Quotas) now() time.Time {
	if q.Now != nil {
		return q.Now()
	}
	return time.Now()
}

// admit counts conn in, and closes who makes room for it.
func (q *Quotas) admit(conn net.Conn) *place {
	q.accepted.Add(1)
	p := &place{quotas: q, conn: conn, remote: remoteIP(conn), since: q.now()}
	limits := q.Broker.Limits(p.remote)
	var leaves, expelled *place
	q.mu.Lock()
	full := q.open-q.probation.Len() >= limits.Connections
	crowded := q.from[p.remote] >= limits.PerIP
	p.hurried = !crowded && !q.paces.free(p.remote, &limits, p.since)
	p.probation = full || crowded || p.hurried
	if front := q.strangers.Front(); full && !crowded && !p.hurried && front != nil && p.since.Sub(front.Value.(*place).since) >= strangerTime {
		leaves = front.Value.(*place)
		leaves.knownLocked()
		p.probation = false
	}
	if !p.probation {
		q.paces.take(p.remote, &limits, p.since)
	}
	if p.probation && q.probation.Len() >= onProbation {
		expelled = q.probation.Front().Value.(*place)
		expelled.knownLocked()
	}
	q.open++
	if q.from == nil {
		q.from = make(map[netip.Addr]int)
	}
	q.from[p.remote]++
	p.line = &q.strangers
	if p.probation {
		p.line = &q.probation
	}
	p.at = p.line.PushBack(p)
	q.mu.Unlock()
	if leaves != nil {
		q.refused.Add(1)
		q.Broker.Warn("too many connections: one that sent no request makes room", "remote", leaves.conn.RemoteAddr(), "max", limits.Connections)
		leaves.conn.Close() // whoever serves it finds that out, and takes it off the books
	}
	if expelled != nil {
		expelled.conn.Close() // the same; it is refused there
	}
	return p
}

// refuse counts and reports a connection that is being closed for what came over it.
func (q *Quotas) refuse(conn net.Conn, reason string) {
	q.refused.Add(1)
	q.Broker.Warn("connection refused", "remote", conn.RemoteAddr(), "reason", reason)
}

// refuseOne does so for one that is beyond the limits.
func (q *Quotas) refuseOne(p *place) {
	limits := q.Broker.Limits(p.remote)
	q.refused.Add(1)
	if p.hurried {
		q.Broker.Warn("connections come too fast", "remote", p.conn.RemoteAddr(), "max_per_second", limits.Rate, "max_per_second_per_ip", limits.RatePerIP)
		return
	}
	q.Broker.Warn("too many connections", "remote", p.conn.RemoteAddr(), "max", limits.Connections, "max_per_ip", limits.PerIP)
}

// known says that the connection is no stranger any more.
func (p *place) known() {
	p.quotas.mu.Lock()
	defer p.quotas.mu.Unlock()
	p.knownLocked()
}

func (p *place) knownLocked() {
	if p.line != nil {
		p.line.Remove(p.at)
		p.line, p.at = nil, nil
	}
}

// leave takes the connection off the books. Only the first call has an effect.
func (p *place) leave() {
	q := p.quotas
	q.mu.Lock()
	defer q.mu.Unlock()
	if p.left {
		return
	}
	p.left = true
	p.knownLocked()
	q.open--
	if q.from[p.remote]--; q.from[p.remote] == 0 {
		delete(q.from, p.remote)
	}
}

// remoteIP is the address a connection comes from; all that do not come over
// TCP share one.
func remoteIP(conn net.Conn) netip.Addr {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		return a.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

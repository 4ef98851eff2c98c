package mux

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"millrace/replication/transport"
)

// A caller is a connection that is nowhere, from an address.
type callerFrom struct {
	net.Conn
	addr   string
	closed bool
}

func (c *callerFrom) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(c.addr), 1))
}

func (c *callerFrom) Close() error {
	c.closed = true
	return nil
}

// A desk admits connections by a clock of its own.
type desk struct {
	*Quotas
	limits Limits
	clock  time.Time
}

func newDesk(all, perIP int) *desk {
	d := &desk{limits: Limits{Connections: all, PerIP: perIP}, clock: time.Unix(1, 0)}
	d.Quotas = &Quotas{Broker: d, Now: func() time.Time { return d.clock }}
	return d
}

func (d *desk) Limits(netip.Addr) Limits { return d.limits }
func (d *desk) MaxRequest() int          { return 1 << 20 }
func (d *desk) Warn(string, ...any)      {}

func (d *desk) come(addr string) (*callerFrom, *place) {
	c := &callerFrom{addr: addr}
	return c, d.admit(c)
}

func (d *desk) wants(t *testing.T, when string, open, strangers, probation int) {
	t.Helper()
	if s := d.Stats(); s.Connections != open || s.Strangers != strangers || s.Probation != probation {
		t.Errorf("%s: %d open, %d strangers, %d on probation; want %d, %d, %d", when, s.Connections, s.Strangers, s.Probation, open, strangers, probation)
	}
}

func TestTheOldestStrangerMakesRoom(t *testing.T) {
	d := newDesk(3, 100)
	working, w := d.come("10.0.0.1")
	w.known()
	first, f := d.come("10.0.0.1")
	second, _ := d.come("10.0.0.1")
	d.wants(t, "full", 3, 2, 0)

	// They may yet send their first request.
	early, e := d.come("10.0.0.2")
	if !e.probation || first.closed || early.closed {
		t.Errorf("within strangerTime: probation %v, the first stranger closed %v", e.probation, first.closed)
	}
	e.leave()
	d.clock = d.clock.Add(strangerTime)
	_, n := d.come("10.0.0.2")
	if n.probation || !first.closed || second.closed || working.closed {
		t.Errorf("after it: probation %v, closed: first %v, second %v, the one at work %v", n.probation, first.closed, second.closed, working.closed)
	}
	f.leave()
	d.wants(t, "when it has left", 3, 2, 0)
	if s := d.Stats(); s.Refused != 1 || s.Accepted != 5 {
		t.Errorf("%+v; want one that made room counted as refused", s)
	}
}

// Who has made room may take a while to leave, and makes none for the next.
func TestEachNewcomerHasAStrangerOfItsOwn(t *testing.T) {
	d := newDesk(2, 100)
	first, _ := d.come("10.0.0.1")
	second, _ := d.come("10.0.0.1")
	d.clock = d.clock.Add(strangerTime)
	for i, makesRoom := range []*callerFrom{first, second} {
		if makesRoom.closed {
			t.Errorf("%d have come, and one more makes room", i)
		}
		if _, p := d.come("10.0.0.2"); p.probation || !makesRoom.closed {
			t.Errorf("newcomer %d: probation %v, its stranger closed %v", i+1, p.probation, makesRoom.closed)
		}
	}
}

// Who has its address's number of places already takes nobody else's.
func TestNobodyMakesRoomForACrowd(t *testing.T) {
	d := newDesk(2, 1)
	first, _ := d.come("10.0.0.1")
	second, _ := d.come("10.0.0.2")
	d.clock = d.clock.Add(time.Hour)
	if _, p := d.come("10.0.0.1"); !p.probation || first.closed || second.closed {
		t.Errorf("probation %v, closed: %v and %v", p.probation, first.closed, second.closed)
	}
}

// Places beyond the limits are none of those that the limits are for.
func TestThoseOnProbationTakeNoClientsPlace(t *testing.T) {
	d := newDesk(2, 1)
	d.come("10.0.0.1")
	for range 10 {
		if _, p := d.come("10.0.0.1"); !p.probation {
			t.Fatal("a second of one address was let in")
		}
	}
	if _, p := d.come("10.0.0.2"); p.probation {
		t.Error("a client was not let in, though there was a place")
	}
	if _, p := d.come("10.0.0.3"); !p.probation {
		t.Error("a third was let in")
	}
}

func TestKnownConnectionsKeepTheirPlaces(t *testing.T) {
	d := newDesk(2, 100)
	a, p := d.come("10.0.0.1")
	p.known()
	b, q := d.come("10.0.0.1")
	q.known()
	d.clock = d.clock.Add(time.Hour)
	var late []*callerFrom
	for range onProbation + 10 {
		c, r := d.come("10.0.0.9")
		if !r.probation {
			t.Fatal("a client was let in beyond the limit")
		}
		late = append(late, c)
	}
	for i, c := range late {
		if want := i < 10; c.closed != want {
			t.Errorf("the %d. that came beyond the limit: closed %v; want the oldest to make room", i+1, c.closed)
		}
	}
	if a.closed || b.closed {
		t.Error("a connection at work was closed")
	}
	d.wants(t, "beyond", 2+onProbation+10, 0, onProbation) // those closed count until whoever serves them lets go
}

// A connection that is known to be a node's keeps the place that it got beyond the limits,
// and from then on counts like any other.
func TestNodesStayBeyondTheLimits(t *testing.T) {
	d := newDesk(1, 100)
	_, client := d.come("10.0.0.1")
	client.known()
	node, n := d.come("10.0.0.2")
	n.known()
	for range 2 * onProbation {
		d.come("10.0.0.3")
	}
	if node.closed {
		t.Error("the node was closed")
	}
	d.wants(t, "with a node", 2+2*onProbation, 0, onProbation)
	client.leave()
	if _, p := d.come("10.0.0.4"); !p.probation {
		t.Error("a client got the place that the node counts for")
	}
}

func TestAddressesAreBoundedEach(t *testing.T) {
	d := newDesk(100, 2)
	_, a := d.come("10.0.0.1")
	d.come("::ffff:10.0.0.1") // the same
	d.clock = d.clock.Add(time.Hour)
	if _, p := d.come("10.0.0.1"); !p.probation {
		t.Error("a third of one address was let in, or a stranger of it made room")
	}
	if _, p := d.come("10.0.0.2"); p.probation {
		t.Error("another address was not let in")
	}
	a.leave()
	a.leave() // no effect
	if n := d.From(netip.MustParseAddr("10.0.0.1")); n != 2 {
		t.Errorf("%d from the address; want one and the one on probation", n)
	}
	d.limits.PerIP = 5
	if _, p := d.come("10.0.0.1"); p.probation {
		t.Error("a new limit has no effect")
	}
}

// There are more addresses than memory.
func TestAddressesThatHaveLeftAreForgotten(t *testing.T) {
	d := newDesk(100, 2)
	var places []*place
	for i := range 10 {
		_, p := d.come(fmt.Sprintf("10.0.0.%d", i))
		places = append(places, p)
	}
	for _, p := range places {
		p.leave()
	}
	if len(d.from) != 0 {
		t.Errorf("%v are remembered, and nobody is there", d.from)
	}
}

// Who joins the full queue of a flooded listener has its handshake before it gives up.
func TestNodesOutwaitAFlood(t *testing.T) {
	if wait := acceptQueue * acceptEvery; wait > transport.DialTimeout*2/3 {
		t.Errorf("a node waits for %v in a full queue, and gives up after %v", wait, transport.DialTimeout)
	}
}

// Who comes faster than an address may is on probation, and nobody makes room for it; what
// drains meanwhile may come again.
func TestAnAddressComesNoFasterThanItsRate(t *testing.T) {
	d := newDesk(100, 100)
	d.limits.RatePerIP = 2
	d.come("10.0.0.1")
	d.come("::ffff:10.0.0.1") // the same
	for range 5 {             // they count for nothing
		if _, p := d.come("10.0.0.1"); !p.probation || !p.hurried {
			t.Error("a third was let in at once")
		}
	}
	if _, p := d.come("10.0.0.2"); p.probation {
		t.Error("another address was not let in")
	}
	d.clock = d.clock.Add(500 * time.Millisecond)
	if _, p := d.come("10.0.0.1"); p.probation {
		t.Error("half a second later none was let in, though two a second may come")
	}
	if _, p := d.come("10.0.0.1"); !p.probation {
		t.Error("half a second later two were let in")
	}
	d.clock = d.clock.Add(time.Hour)
	let := 0
	for range 10 {
		if _, p := d.come("10.0.0.1"); !p.probation {
			let++
		}
	}
	if let != 2 {
		t.Errorf("after an hour %d were let in at once; want what one second allows, 2", let)
	}
	d.limits.RatePerIP = 0
	if _, p := d.come("10.0.0.1"); p.probation {
		t.Error("without a rate one was not let in")
	}
}

// Less than one a second is one at once, and then none for as long as it takes.
func TestSlowRatesLetOneInAtATime(t *testing.T) {
	d := newDesk(100, 100)
	d.limits.RatePerIP = 0.1
	if _, p := d.come("10.0.0.1"); p.probation {
		t.Error("the first was not let in")
	}
	d.clock = d.clock.Add(9 * time.Second)
	if _, p := d.come("10.0.0.1"); !p.probation {
		t.Error("a second was let in too early")
	}
	d.clock = d.clock.Add(time.Second)
	if _, p := d.come("10.0.0.1"); p.probation {
		t.Error("a second was not let in after ten seconds")
	}
}

// The rate of all is one for all addresses. Nodes get in beyond it, as beyond all limits,
// by a probation that does not count.
func TestAllTogetherComeNoFasterThanTheirRate(t *testing.T) {
	d := newDesk(2, 100)
	d.limits.Rate = 3
	first, _ := d.come("10.0.0.1")
	d.come("10.0.0.2")
	d.clock = d.clock.Add(strangerTime)
	for i := range 3 { // the first makes room, and the second
		_, p := d.come("10.0.0.3")
		if p.probation != (i == 2) || p.hurried {
			t.Errorf("newcomer %d: probation %v, too fast %v", i+1, p.probation, p.hurried)
		}
	}
	if !first.closed {
		t.Error("the oldest stranger was not closed")
	}
	d.limits.Connections = 100
	if _, p := d.come("10.0.0.4"); p.probation {
		t.Error("a third in one second was not let in")
	}
	node, p := d.come("10.0.0.5")
	if !p.probation || !p.hurried || node.closed {
		t.Errorf("a fourth: probation %v, closed %v; want it heard", p.probation, node.closed)
	}
	p.known()
	if node.closed {
		t.Error("a node that came too fast was closed")
	}
}

// Addresses that came long ago take no memory, and no number of them takes more than its bound.
func TestPacesAreForgotten(t *testing.T) {
	limits := Limits{RatePerIP: 1}
	var p paces
	now := time.Unix(1, 0)
	address := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	}
	for i := range maxPaces + 100 {
		p.take(address(i), &limits, now)
	}
	if n := len(p.of); n > maxPaces+1 {
		t.Errorf("%d addresses are remembered", n)
	}
	if p.free(address(maxPaces+200), &limits, now) {
		t.Error("an address beyond all that are remembered has a pace of its own")
	}
	now = now.Add(2 * time.Second)
	if !p.free(address(maxPaces+200), &limits, now) {
		t.Error("it may not come when all have drained")
	}
	p.take(address(maxPaces+200), &limits, now)
	if n := len(p.of); n > 2 {
		t.Errorf("%d addresses are remembered after all have drained", n)
	}
}

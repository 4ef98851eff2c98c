package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"millrace/replication/identity"
)

// onceTime is how long a connection for one call may last, from the handshake to the answer.
const onceTime = 30 * time.Second

// Serve takes over an inbound connection, from its magic bytes on, and returns
// when it is closed. The caller runs it in a goroutine of its own. After Close it
// closes conn and returns at once.
//
// Those whose handshake is not done are strangers, for whom there is less room: see
// connections.enter. Connections for one call are strangers until they end: anybody may open
// one, so that its handshake shows nothing.
func (t *Transport) Serve(conn net.Conn) {
	if !t.running.enter() {
		conn.Close()
		return
	}
	defer t.running.wg.Done()
	defer conn.Close()
	place, expelled, err := t.connections.enter(conn)
	if err == ErrBusy {
		t.stats.Refused.Add(1)
		t.warn("full", "too many connections, closing one", "limit", t.cfg.Limits.MaxConnections)
	}
	if err != nil {
		return
	}
	defer t.connections.left(conn, place)
	if expelled != nil {
		expelled.Close()
	}
	s, err := t.welcome(conn)
	if err == nil {
		if s.conn.kind != kindOnce {
			t.connections.known(place)
			if counted, ok := conn.(interface{ Known() }); ok { // the listener's books take it for a stranger
				counted.Known()
			}
		}
		s.run()
		return
	}
	t.stats.Refused.Add(1)
	switch {
	case errors.Is(err, errNoPeer), err == io.EOF: // a client that came before this node serves any, say
	case t.running.ctx.Err() != nil, errors.Is(err, net.ErrClosed), errors.Is(err, io.ErrClosedPipe): // closed here
	default:
		t.warn("refused "+hostOf(conn), "refused a connection", "remote", hostOf(conn), "error", err)
	}
}

func hostOf(conn net.Conn) string {
	a := conn.RemoteAddr()
	if a == nil {
		return "unknown"
	}
	if host, _, err := net.SplitHostPort(a.String()); err == nil {
		return host
	}
	return a.String()
}

// welcome reads the hello and answers it.
func (t *Transport) welcome(conn net.Conn) (s *served, err error) {
	defer t.contain("handshake", Peer{})
	err = errors.New("transport: handshake failed") // should anything below panic
	conn.SetDeadline(time.Now().Add(t.cfg.Timers.DialTimeout))
	v, kind, body, err := readHello(conn)
	if err != nil {
		return nil, err
	}
	self := t.cfg.Local
	// Who has not shown that it knows a member is not told what members know each
	// other by.
	a := ack{low: t.low, high: t.high, from: Peer{Node: self.Node}, cluster: t.cfg.Cluster}
	refuse := func(status uint8, reason string) (*served, error) {
		a.status, a.reason = status, reason
		conn.Write(a.encode())
		return nil, errors.New(reason)
	}
	h, err := decodeHello(v, kind, body)
	version := meet(t.low, t.high, v, h.high)
	switch {
	case version == 0 && v > 0 && h.high >= v:
		return refuse(statusVersion, fmt.Sprintf("versions %d to %d are not spoken here, %d to %d are", v, h.high, t.low, t.high))
	case err != nil:
		return refuse(statusMalformed, err.Error())
	}
	proof := proofOf(conn)
	if err := t.proved(h, proof); err != nil {
		return refuse(statusStranger, err.Error())
	}
	if status, reason := t.judge(h, self, a.cluster); status != statusWelcome {
		if status == statusCluster && h.cluster != "" && h.kind != kindOnce && h.session != t.session {
			t.cfg.Observer.Foreign(h.cluster)
		}
		return refuse(status, reason)
	}
	if h.kind != kindOnce {
		status, at, reason := t.admits(h.from, h.about)
		if status != statusWelcome {
			a.at = at
			return refuse(status, reason)
		}
		if !t.replaces(h.from, h.session) {
			return refuse(statusNode, fmt.Sprintf("another process of %s is alive, and spoke just now", h.from))
		}
		t.cfg.Membership.Admitted(h.from, h.about)
		a.session, a.from, a.about = t.session, self, t.cfg.Membership.About()
	} else {
		h.from.Node = 0
	}
	tc, err := t.join(conn, h.from, h.session, h.kind, true)
	if err != nil {
		return refuse(statusClosed, "closing")
	}
	tc.version = version
	if h.kind != kindOnce && h.address != "" {
		t.connections.evidence.put(event{peer: Process{h.from, h.session}, what: eventLearned, address: h.address})
	}
	if _, err := conn.Write(a.encode()); err != nil {
		t.leave(tc)
		return nil, err
	}
	end := time.Time{}
	if h.kind == kindOnce {
		end = time.Now().Add(onceTime)
	}
	conn.SetDeadline(end)
	w := newWriter(conn, maxQueuedBytes)
	w.once = h.kind == kindOnce
	origin := Origin{Once: w.once, Proof: proof, Loopback: identity.Loopback(conn)}
	ctx, cancel := context.WithCancel(context.WithValue(t.running.ctx, originKey{}, origin))
	return &served{
		t: t, from: h.from, conn: tc, ctx: ctx, cancel: cancel,
		w: w,
	}, nil
}

// An Origin is what is known of where a call comes from.
type Origin struct {
	Once     bool           // by a connection of kind 4
	Proof    identity.Proof // that was shown before its hello, and is what that says
	Loopback bool           // both ends of the connection are loopback addresses
}

type originKey struct{}

// OriginOf tells a Handler where the call comes from that a context was given for.
func OriginOf(ctx context.Context) Origin {
	o, _ := ctx.Value(originKey{}).(Origin)
	return o
}

// proofOf is what whoever accepted a connection was shown over it.
func proofOf(conn net.Conn) identity.Proof {
	if c, ok := conn.(interface{ Proof() identity.Proof }); ok {
		return c.Proof()
	}
	return identity.Proof{}
}

// proved decides whether a caller has shown that it is who it says, if it has to.
func (t *Transport) proved(h hello, proof identity.Proof) error {
	switch said := (identity.Name{Cluster: h.cluster, Node: h.from.Node, Incarnation: h.from.Incarnation}); {
	case t.cfg.Guard == nil:
		return nil
	case proof.Certified() && said != proof.Name:
		return fmt.Errorf("it says that it is node %s, and its certificate that it is node %s", said, proof.Name)
	case proof.Certified():
		return nil
	case proof.Protocol == identity.Join && h.kind != kindOnce:
		return errors.New("who comes to join has one call, and no connection of a member")
	case proof.Protocol == identity.Join:
		return nil
	}
	return t.cfg.Guard.Bare(h.from, h.kind == kindOnce)
}

// admits asks Config.Membership about the other side of a connection. at is a ReplacedError's.
func (t *Transport) admits(p Peer, about string) (status uint8, at uint64, reason string) {
	err := t.cfg.Membership.Judge(p, about)
	var replaced *ReplacedError
	switch {
	case err == nil:
		return statusWelcome, 0, ""
	case errors.Is(err, ErrOldDisk):
		return statusOldDisk, 0, err.Error()
	case errors.As(err, &replaced):
		return statusReplaced, replaced.At, err.Error()
	default:
		return statusStranger, 0, err.Error()
	}
}

// judge decides whether a caller is let in.
func (t *Transport) judge(h hello, self Peer, cluster string) (status uint8, reason string) {
	once := h.kind == kindOnce
	switch {
	case h.session == t.session:
		return statusSelf, "this is yourself"
	case cluster == "" && !once:
		return statusCluster, "not a member of a cluster yet"
	case h.cluster != cluster && !(once && (h.cluster == "" || cluster == "")):
		return statusCluster, fmt.Sprintf("this is cluster %q, not %q", cluster, h.cluster)
	case h.target.Node != 0 && h.target.Node != self.Node:
		return statusNode, fmt.Sprintf("this is node %d, not %d", self.Node, h.target.Node)
	case h.target.Incarnation != "" && h.target.Incarnation != self.Incarnation:
		return statusIncarnation, fmt.Sprintf("this is another incarnation of node %d than %s", self.Node, h.target.Incarnation)
	case h.from.Node == self.Node && !once:
		return statusNode, fmt.Sprintf("node %d is me", self.Node)
	}
	return statusWelcome, ""
}

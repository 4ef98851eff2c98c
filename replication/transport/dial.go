package transport

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"

	"millrace/replication/identity"
)

// dial connects to the peer where Membership says that it lives.
func (p *peer) dial(kind uint8, incarnation string) (*client, error) {
	t := p.t
	if p.node == t.cfg.Local.Node {
		return nil, fmt.Errorf("%w: node %d is this one", ErrUnreachable, p.node)
	}
	addr, ok := t.cfg.Membership.Resolve(p.node)
	if !ok {
		return nil, fmt.Errorf("%w: no address of node %d", ErrUnreachable, p.node)
	}
	return t.dial(t.running.ctx, addr, kind, Peer{Node: p.node, Incarnation: incarnation})
}

// dial connects, shakes hands and returns a client whose writer runs; the caller runs
// its read.
func (t *Transport) dial(ctx context.Context, addr string, kind uint8, target Peer) (c *client, err error) {
	t.stats.Dials.Add(1)
	defer func() {
		if err != nil {
			t.stats.DialsFailed.Add(1)
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, t.cfg.Timers.DialTimeout)
	defer cancel()
	conn, proof, err := t.connect(ctx, addr, target)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	a, err := t.handshake(conn, proof, kind, target)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	tc, err := t.join(conn, a.from, a.session, kind, false)
	if err != nil {
		conn.Close()
		return nil, err
	}
	tc.version = a.version
	c = newClient(t, tc, a.from)
	if !t.running.spawn(c.w.run) {
		t.leave(tc)
		return nil, ErrClosed
	}
	return c, nil
}

// connect opens a connection and secures it as Config.Guard says.
func (t *Transport) connect(ctx context.Context, addr string, target Peer) (net.Conn, identity.Proof, error) {
	conn, err := t.cfg.Dialer.DialContext(ctx, "tcp", addr)
	if err != nil || t.cfg.Guard == nil {
		return conn, identity.Proof{}, err
	}
	cfg, orBare := t.cfg.Guard.Dial(target)
	if cfg == nil {
		return conn, identity.Proof{}, nil
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	secured, proof, err := identity.Dial(ctx, conn, cfg)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		return secured, proof, nil
	}
	conn.Close()
	if !orBare || ctx.Err() != nil {
		return nil, identity.Proof{}, err
	}
	conn, err = t.cfg.Dialer.DialContext(ctx, "tcp", addr)
	return conn, identity.Proof{}, err
}

// handshake says hello on a fresh connection and judges the answer.
func (t *Transport) handshake(conn io.ReadWriter, proof identity.Proof, kind uint8, target Peer) (ack, error) {
	cluster := t.cfg.Cluster
	if cluster == "" && kind != kindOnce {
		return ack{}, fmt.Errorf("%w: this node has no cluster id yet", ErrWrongCluster)
	}
	h := hello{
		kind: kind, low: t.low, high: t.high, session: t.session, from: t.cfg.Local, target: target,
		cluster: cluster, address: t.cfg.Address,
	}
	if kind != kindOnce {
		h.about = t.cfg.Membership.About()
	}
	if _, err := conn.Write(h.encode()); err != nil {
		return ack{}, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	v, status, body, err := readHello(conn)
	if err != nil {
		return ack{}, fmt.Errorf("%w: handshake: %w", ErrUnreachable, err)
	}
	a, err := decodeAck(v, status, body)
	if a.version = meet(t.low, t.high, v, a.high); a.version == 0 {
		return ack{}, &RefusedError{Peer: a.from, status: statusVersion, Reason: fmt.Sprintf("it speaks versions %d to %d, this node %d to %d", v, a.high, t.low, t.high)}
	}
	if err != nil {
		return ack{}, err
	}
	refused := func(status uint8, format string, args ...any) error {
		return &RefusedError{Peer: a.from, Reason: fmt.Sprintf(format, args...), status: status}
	}
	if proof.Certified() && (a.cluster != proof.Name.Cluster || a.from.Node != proof.Name.Node ||
		a.from.Incarnation != "" && a.from.Incarnation != proof.Name.Incarnation) {
		return a, refused(statusNode, "it says that it is node %s of cluster %s, and its certificate that it is node %s", a.from, a.cluster, proof.Name)
	}
	switch {
	case a.status != statusWelcome:
		switch {
		case a.cluster != cluster:
		case a.status == statusOldDisk:
			t.cfg.Observer.Outdated(a.from, a.reason)
		case a.status == statusReplaced:
			t.cfg.Observer.Replaced(a.from, a.at, a.reason)
		}
		return a, &RefusedError{Peer: a.from, Reason: a.reason, status: a.status}
	case kind == kindOnce && (cluster == "" || a.cluster == "" || a.cluster == cluster):
		return a, nil
	case a.cluster != cluster:
		return a, refused(statusCluster, "it belongs to cluster %q, this node to %q", a.cluster, cluster)
	case a.from.Node != target.Node || !validIncarnation(a.from.Incarnation):
		return a, refused(statusNode, "it is node %s, want node %d", a.from, target.Node)
	case target.Incarnation != "" && a.from.Incarnation != target.Incarnation:
		return a, refused(statusIncarnation, "it is %s, want %s", a.from, target)
	}
	if status, _, reason := t.admits(a.from, a.about); status != statusWelcome {
		return a, refused(status, "%s", reason)
	}
	t.cfg.Membership.Admitted(a.from, a.about)
	return a, nil
}

// readBuffer is how much is read from a connection at once, small frames together.
const readBuffer = 64 << 10

func newReader(c io.Reader) *bufio.Reader { return bufio.NewReaderSize(c, readBuffer) }

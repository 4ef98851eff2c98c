package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstBackoff   = 50 * time.Millisecond // before the second dial
	longestBackoff = time.Second           // healing is noticed within this
	reachFor       = time.Minute           // how long an append waits for a peer that is away
	reachEvery     = 5 * time.Second       // how often it has a peer dialled that nobody holds
	stableLife     = time.Second           // a connection that lived shorter counts as a failed dial
	readBuffer     = 64 << 10
	leastBytes     = 16 << 10 // the cap on an append goes no lower than this
)

// A peer is this node's way to one other node: a link of each kind, dialled when
// somebody wants it.
type peer struct {
	t    *Transport
	node int32

	// limit is how many bytes of entries one append may carry: MaxRequestBytes,
	// halved whenever an append timed out, so that a slow line carries small
	// appends in time rather than large ones never.
	limit atomic.Int64

	mu    sync.Mutex
	came  chan struct{} // closed and replaced when a connection to or from the peer opens
	held  bool          // SetPeers wants a control connection
	links [kinds]link
}

// A link is one kind of connection to a peer: there, being dialled, or waiting after
// a failure, or idle. Guarded by peer.mu.
type link struct {
	client     *client       // nil: not connected
	attempts   uint64        // finished dials
	err        error         // of the last
	backingOff bool          // a failure is too fresh to try again
	wanted     bool          // somebody waits
	running    bool          // keep has been started
	changed    chan struct{} // closed and replaced when client, attempts or backingOff change
	wake       chan struct{} // tells keep of wanted and held
	dialledUs  chan struct{} // filled when the peer dialled us: no need to wait
}

func newPeer(t *Transport, node int32) *peer {
	p := &peer{t: t, node: node, came: make(chan struct{})}
	p.limit.Store(int64(t.cfg.Limits.MaxRequestBytes))
	for i := range p.links {
		p.links[i].changed = make(chan struct{})
		p.links[i].wake = make(chan struct{}, 1)
		p.links[i].dialledUs = make(chan struct{}, 1)
	}
	return p
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (l *link) changedLocked() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// connect returns the peer's connection of a kind, dialling if there is none. It
// waits for the outcome of one dial at most, and fails at once while backing off from
// the last. incarnation "" accepts any. stop gives up.
func (p *peer) connect(kind uint8, incarnation string, stop <-chan struct{}) (*client, error) {
	if p.t.ctx.Err() != nil {
		return nil, ErrClosed
	}
	p.mu.Lock()
	l := &p.links[kind]
	for first := l.attempts; ; {
		if c := l.client; c != nil {
			p.mu.Unlock()
			if incarnation != "" && c.remote.Incarnation != incarnation {
				return nil, fmt.Errorf("%w: %d.%s is now %s", ErrWrongIncarnation, p.node, incarnation, c.remote)
			}
			return c, nil
		}
		if l.backingOff || l.attempts > first {
			err := l.err
			p.mu.Unlock()
			if err == nil {
				err = ErrUnreachable // came and went while we slept
			}
			return nil, err
		}
		p.wantLocked(kind)
		if kind != kindControl {
			p.wantLocked(kindControl) // whose pings watch over the others
		}
		changed := l.changed
		p.mu.Unlock()
		select {
		case <-changed:
		case <-stop:
			return nil, ErrTimeout
		case <-p.t.ctx.Done():
			return nil, ErrClosed
		}
		p.mu.Lock()
	}
}

// reach is connect for those who have nothing to do but to wait for the peer: one that
// is away is waited for, up to reachFor; away is called before that. It costs nothing
// until the peer comes, but a look at it now and then.
func (p *peer) reach(kind uint8, incarnation string, stop <-chan struct{}, away func()) error {
	var late <-chan time.Time
	for {
		p.mu.Lock()
		came, changed := p.came, p.links[kind].changed
		p.mu.Unlock()
		_, err := p.connect(kind, incarnation, stop)
		switch {
		case err == ErrTimeout: // which is what connect says when it is stopped
			return ErrClosed
		case !errors.Is(err, ErrUnreachable):
			return err
		}
		if _, there := p.t.Hears(Peer{p.node, incarnation}); !there {
			changed = nil // what a dial comes to while it is away is no news
		}
		if late == nil {
			timer := time.NewTimer(reachFor)
			defer timer.Stop()
			late = timer.C
			away()
		}
		again := time.NewTimer(reachEvery)
		select {
		case <-came:
		case <-changed:
		case <-again.C:
		case <-late:
			return err
		case <-stop:
			return ErrClosed
		case <-p.t.ctx.Done():
			return ErrClosed
		}
		again.Stop()
	}
}

// arrived wakes those who wait for the peer.
func (p *peer) arrived() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.came)
	p.came = make(chan struct{})
}

func (p *peer) wantLocked(kind uint8) {
	l := &p.links[kind]
	if l.client != nil {
		return
	}
	l.wanted = true
	if !l.running {
		l.running = p.t.spawn(func() { p.keep(kind) })
	}
	poke(l.wake)
}

// hold sets whether SetPeers wants the peer.
func (p *peer) hold(held bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
	if held {
		p.wantLocked(kindControl)
	}
}

// dialledUs ends the back-off of all links: the peer is alive, it has just dialled us.
func (t *Transport) heard(node int32) {
	t.mu.Lock()
	p := t.peers[node]
	t.mu.Unlock()
	if p == nil {
		return
	}
	for kind := range p.links {
		poke(p.links[kind].dialledUs)
	}
	p.arrived()
}

// dueLocked tells whether a link should be dialled.
func (p *peer) dueLocked(kind uint8) bool {
	watch := p.held || p.links[kindData].client != nil || p.links[kindBulk].client != nil
	return p.links[kind].wanted || kind == kindControl && watch
}

// incarnationLocked is whom the peer's open connections lead to. Dials name it, so
// that all three lead to the same.
func (p *peer) incarnationLocked() string {
	for i := range p.links {
		if c := p.links[i].client; c != nil {
			return c.remote.Incarnation
		}
	}
	return ""
}

// keep dials one link whenever it is due and reads its answers while it is up.
// One goroutine a link, from its first use to Close.
func (p *peer) keep(kind uint8) {
	t, l := p.t, &p.links[kind]
	backoff := time.Duration(0)
	away := fmt.Sprintf("dial %d", p.node) // one line for all its links
	for {
		p.mu.Lock()
		due, incarnation := p.dueLocked(kind), p.incarnationLocked()
		p.mu.Unlock()
		if !due {
			select {
			case <-l.wake:
				continue
			case <-t.ctx.Done():
				return
			}
		}

		select { // what was heard before this dial says nothing about what follows it
		case <-l.dialledUs:
		default:
		}
		c, err := t.dialPeer(p.node, kind, incarnation)
		if t.ctx.Err() != nil {
			if c != nil {
				c.close(ErrClosed)
				c.read()
			}
			return
		}
		p.mu.Lock()
		l.attempts++
		l.client, l.err, l.wanted, l.backingOff = c, err, false, err != nil
		l.changedLocked()
		if kind != kindControl {
			poke(p.links[kindControl].wake) // it is due for as long as this link is up
		}
		p.mu.Unlock()

		if err == nil {
			p.arrived()
			if kind == kindControl {
				t.slow.Over(away)
			}
			began := time.Now()
			err = c.read()
			p.mu.Lock()
			l.client, l.err = nil, ErrUnreachable
			short := time.Since(began) < stableLife
			l.backingOff = short
			l.changedLocked()
			p.mu.Unlock()
			if !short {
				backoff = 0
				continue
			}
		}
		if t.ctx.Err() != nil {
			return
		}
		t.slow.Lasting(t.cfg.Logger, away, "transport: no connection to a peer", "node", p.node, "kind", kindNames[kind], "error", err)
		backoff = min(max(2*backoff, firstBackoff), longestBackoff)
		timer := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-timer.C:
		case <-l.dialledUs:
		case <-t.ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
		p.mu.Lock()
		l.backingOff = false
		l.changedLocked()
		p.mu.Unlock()
	}
}

// dialPeer connects to a node where Membership says that it lives.
func (t *Transport) dialPeer(node int32, kind uint8, incarnation string) (*client, error) {
	if node == t.cfg.Local.Node {
		return nil, fmt.Errorf("%w: node %d is this one", ErrUnreachable, node)
	}
	addr, ok := t.cfg.Membership.Resolve(node)
	if !ok {
		return nil, fmt.Errorf("%w: no address of node %d", ErrUnreachable, node)
	}
	return t.dial(t.ctx, addr, kind, Peer{Node: node, Incarnation: incarnation})
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
	conn, err := t.cfg.Dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	a, err := t.handshake(conn, kind, target)
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
	if !t.spawn(c.w.run) {
		t.leave(tc)
		return nil, ErrClosed
	}
	return c, nil
}

// handshake says hello on a fresh connection and judges the answer.
func (t *Transport) handshake(conn io.ReadWriter, kind uint8, target Peer) (ack, error) {
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

func newReader(c io.Reader) *bufio.Reader { return bufio.NewReaderSize(c, readBuffer) }

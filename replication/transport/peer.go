package transport

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
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
	leastBytes     = 16 << 10              // the cap on an append goes no lower than this
)

// peers are a node's ways to the others, one each for as long as the transport lasts.
type peers struct {
	t *Transport

	mu  sync.Mutex
	all map[int32]*peer
}

// of returns the way to a node.
func (ps *peers) of(node int32) *peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.all[node]
	if p == nil {
		p = newPeer(ps.t, node)
		ps.all[node] = p
	}
	return p
}

// list returns those there are.
func (ps *peers) list() []*peer {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return slices.Collect(maps.Values(ps.all))
}

// controls returns the control connections there are.
func (ps *peers) controls() (all []*client) {
	for _, p := range ps.list() {
		p.mu.Lock()
		c := p.links[kindControl].client
		p.mu.Unlock()
		if c != nil {
			all = append(all, c)
		}
	}
	return all
}

// ping asks every peer that there is a control connection to for a sign of life.
func (ps *peers) ping() {
	for _, c := range ps.controls() {
		c.ping()
	}
}

// heard ends the back-off of a peer's links: it is alive, it has just dialled us.
func (ps *peers) heard(node int32) {
	ps.mu.Lock()
	p := ps.all[node]
	ps.mu.Unlock()
	if p == nil {
		return
	}
	for kind := range p.links {
		poke(p.links[kind].dialledUs)
	}
	p.arrived()
}

// SetPeers makes the transport hold a control connection to each of nodes, this
// one excepted, redialling whenever it is lost, and no longer to others. Without
// it a connection is opened by the first message for it.
func (t *Transport) SetPeers(nodes []int32) {
	hold := make(map[int32]bool, len(nodes))
	for _, n := range nodes {
		if n != t.cfg.Local.Node && n > 0 {
			hold[n] = true
			t.peers.of(n)
		}
	}
	for _, p := range t.peers.list() {
		p.hold(hold[p.node])
	}
}

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
	if p.t.running.ctx.Err() != nil {
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
		case <-p.t.running.ctx.Done():
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
		case <-p.t.running.ctx.Done():
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
		l.running = p.t.running.spawn(func() { p.keep(kind) })
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

// dueLocked reports whether a link should be dialled.
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
			case <-t.running.ctx.Done():
				return
			}
		}

		select { // what was heard before this dial says nothing about what follows it
		case <-l.dialledUs:
		default:
		}
		c, err := p.dial(kind, incarnation)
		if t.running.ctx.Err() != nil {
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
		if t.running.ctx.Err() != nil {
			return
		}
		t.slow.Lasting(t.cfg.Logger, away, "transport: no connection to a peer", "node", p.node, "kind", kindNames[kind], "error", err)
		backoff = min(max(2*backoff, firstBackoff), longestBackoff)
		timer := time.NewTimer(backoff/2 + rand.N(backoff/2))
		select {
		case <-timer.C:
		case <-l.dialledUs:
		case <-t.running.ctx.Done():
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

package transport

import (
	"container/list"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/bufpool"
	"millrace/internal/slowlog"
)

// A Transport carries the messages of all Raft groups of one node, and calls from
// node to node, over three connections a peer. It is safe for concurrent use.
type Transport struct {
	cfg      Config
	low      uint8 // versions spoken
	high     uint8
	session  uint64        // tells this process from one before it under the same name
	start    time.Time     // epoch of presence.last
	ends     atomic.Uint64 // connections to peers that have ended
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup // every goroutine but those of ports; added to under mu while not closed
	evidence eventQueue
	slow     slowlog.Limit // of warnings
	stats    counters
	inflight atomic.Int64 // bytes admitted and not yet answered
	buffers  bufpool.Pool // of entries that come in
	quiesced quiescedTable

	mu        sync.Mutex
	closed    bool
	conns     map[net.Conn]struct{} // all there are, for Close
	strangers list.List             // inbound ones whose handshake is not done or that are for one call, oldest first
	present   map[Peer]*presence
	departed  map[Peer]time.Duration // when those who are not present were last heard, since start
	peers     map[int32]*peer

	portsMu sync.RWMutex
	ports   map[uint64]*Port // nil after Close
}

// New starts a Transport. It listens nowhere: the shared listener hands
// connections to Serve.
func New(cfg Config) *Transport {
	ctx, cancel := context.WithCancel(context.Background())
	t := &Transport{
		cfg:      cfg.withDefaults(),
		low:      minVersion,
		high:     maxVersion,
		start:    time.Now(),
		ctx:      ctx,
		cancel:   cancel,
		conns:    make(map[net.Conn]struct{}),
		present:  make(map[Peer]*presence),
		departed: make(map[Peer]time.Duration),
		peers:    make(map[int32]*peer),
		ports:    make(map[uint64]*Port),
		slow:     slowlog.Limit{Every: 10 * time.Second},
	}
	var b [8]byte
	rand.Read(b[:]) // never fails
	t.session = binary.BigEndian.Uint64(b[:])
	t.evidence.ready.L = &t.evidence.mu
	t.wg.Add(2)
	go t.report()
	go t.monitor()
	return t
}

// Close closes every port and connection and returns when all goroutines of the
// transport have ended. It reports no peer as down. Further calls do nothing.
func (t *Transport) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed = true
	conns := make([]net.Conn, 0, len(t.conns))
	for c := range t.conns {
		conns = append(conns, c)
	}
	t.mu.Unlock()

	t.evidence.close()
	t.cancel()
	for _, c := range conns {
		c.Close()
	}
	t.portsMu.Lock()
	ports := t.ports
	t.ports = nil
	t.portsMu.Unlock()
	for _, p := range ports {
		p.Close()
	}
	t.wg.Wait()
	return nil
}

// spawn runs f in a goroutine that Close waits for, unless closed.
func (t *Transport) spawn(f func()) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.wg.Add(1)
	go func() {
		defer t.wg.Done()
		f()
	}()
	return true
}

// contain is deferred by every goroutine that parses what came from outside. One
// bad message may cost its connection, never the process.
func (t *Transport) contain(what string, peer Peer) {
	if p := recover(); p != nil {
		t.stats.Panics.Add(1)
		t.warn("panic "+what, "panic while serving a peer", "what", what, "peer", peer.String(),
			"panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
}

// warn logs what a peer causes, once in a while for each key, so that one that fails in a
// loop costs a line, not the disk.
func (t *Transport) warn(key, message string, args ...any) {
	t.slow.Warn(t.cfg.Logger, key, "transport: "+message, args...)
}

// admit reserves n bytes of the node's room for requests. One request is always
// let in, however large.
func (t *Transport) admit(n int) error {
	for {
		have := t.inflight.Load()
		if have > 0 && have+int64(n) > int64(t.cfg.Limits.InflightBytes) {
			return ErrBusy
		}
		if t.inflight.CompareAndSwap(have, have+int64(n)) {
			return nil
		}
	}
}

func (t *Transport) release(n int) { t.inflight.Add(int64(-n)) }

// SetPeers makes the transport hold a control connection to each of nodes, this
// one excepted, redialling whenever it is lost, and no longer to others. Without
// it a connection is opened by the first message for it.
func (t *Transport) SetPeers(nodes []int32) {
	hold := make(map[int32]bool, len(nodes))
	self := t.cfg.Local.Node
	for _, n := range nodes {
		if n != self && n > 0 {
			hold[n] = true
		}
	}
	for n := range hold {
		t.peer(n)
	}
	t.mu.Lock()
	peers := make([]*peer, 0, len(t.peers))
	for _, p := range t.peers {
		peers = append(peers, p)
	}
	t.mu.Unlock()
	for _, p := range peers {
		p.hold(hold[p.node])
	}
}

// peer returns the one object for a node.
func (t *Transport) peer(node int32) *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.peers[node]
	if p == nil {
		p = newPeer(t, node)
		t.peers[node] = p
	}
	return p
}

// port returns the open port of a group.
func (t *Transport) port(group uint64) (*Port, error) {
	t.portsMu.RLock()
	defer t.portsMu.RUnlock()
	if p := t.ports[group]; p != nil {
		return p, nil
	}
	return nil, ErrUnknownGroup
}

// counters are Stats, counting.
type counters struct {
	Dials, DialsFailed, Refused, Malformed, Invalid, Busy, Expired, Panics, Silent, Ups, Downs atomic.Uint64
	HeartbeatFrames, Heartbeats, Quiesced, Appends                                             atomic.Uint64
}

// Stats counts what happened since New.
type Stats struct {
	Dials, DialsFailed uint64 // connections tried, and those that did not come to be
	Refused            uint64 // connections we turned away in their handshake
	Malformed          uint64 // connections we closed because of bytes no peer of ours sends
	Invalid            uint64 // requests that break a rule, answered so
	Busy               uint64 // requests refused because a queue was full
	Expired            uint64 // requests that waited longer than their sender
	Panics             uint64 // contained
	Silent             uint64 // peers given up for their silence
	Ups, Downs         uint64 // events reported
	HeartbeatFrames    uint64 // sent
	Heartbeats         uint64 // sent in them
	Quiesced           uint64 // appends without entries that were not sent at once, see quiesce
	Appends            uint64 // with entries, sent
}

// Stats returns the counters as they are now.
func (t *Transport) Stats() Stats {
	c := &t.stats
	return Stats{
		Dials: c.Dials.Load(), DialsFailed: c.DialsFailed.Load(), Refused: c.Refused.Load(),
		Malformed: c.Malformed.Load(), Invalid: c.Invalid.Load(), Busy: c.Busy.Load(),
		Expired: c.Expired.Load(), Panics: c.Panics.Load(), Silent: c.Silent.Load(),
		Ups: c.Ups.Load(), Downs: c.Downs.Load(), HeartbeatFrames: c.HeartbeatFrames.Load(),
		Heartbeats: c.Heartbeats.Load(), Quiesced: c.Quiesced.Load(), Appends: c.Appends.Load(),
	}
}

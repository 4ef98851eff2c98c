package transport

import (
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
	cfg     Config
	low     uint8 // versions spoken
	high    uint8
	session uint64    // tells this process from one before it under the same name
	start   time.Time // what times within a Transport are counted from

	running     goroutines   // those of Transport and its connections; an inbox has its own
	connections connections  // what connections there are, and so who is there
	peers       peers        // this node's ways to the others
	ports       ports        // of the groups
	room        room         // for requests
	buffers     bufpool.Pool // of entries that come in
	quiesced    quiescedTable
	stats       counters
	slow        slowlog.Limit // of warnings
}

// New starts a Transport. It listens nowhere: the shared listener hands
// connections to Serve.
func New(cfg Config) *Transport {
	t := &Transport{
		cfg:   cfg.withDefaults(),
		low:   minVersion,
		high:  maxVersion,
		start: time.Now(),
		slow:  slowlog.Limit{Every: 10 * time.Second},
	}
	var b [8]byte
	rand.Read(b[:]) // never fails
	t.session = binary.BigEndian.Uint64(b[:])
	t.running.ctx, t.running.cancel = context.WithCancel(context.Background())
	t.connections.start, t.connections.limit = t.start, t.cfg.Limits.MaxConnections
	t.connections.conns, t.connections.present, t.connections.departed = make(map[net.Conn]struct{}), make(map[Peer]*presence), make(map[Peer]time.Duration)
	t.connections.evidence.ready.L = &t.connections.evidence.mu
	t.peers.t, t.peers.all = t, make(map[int32]*peer)
	t.ports.open = make(map[uint64]*Port)
	t.room.limit = int64(t.cfg.Limits.InflightBytes)
	t.running.spawn(t.report)
	t.running.spawn(t.monitor)
	return t
}

// Close closes every port and connection and returns when all goroutines of the
// transport have ended. It reports no peer as down. Further calls do nothing.
func (t *Transport) Close() error {
	if !t.running.close() {
		return nil
	}
	conns := t.connections.close()
	t.running.cancel()
	for _, c := range conns {
		c.Close()
	}
	for _, p := range t.ports.close() {
		p.Close()
	}
	t.running.wg.Wait()
	return nil
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

// goroutines are those that Close ends and waits for.
type goroutines struct {
	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup // added to under mu while not closed
}

// spawn runs f in a goroutine of its own, unless Close was called.
func (g *goroutines) spawn(f func()) bool {
	if !g.enter() {
		return false
	}
	go func() {
		defer g.wg.Done()
		f()
	}()
	return true
}

// enter counts the calling goroutine, which calls wg.Done in the end, unless Close was
// called.
func (g *goroutines) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Add(1)
	return true
}

// close lets no further ones begin. It reports whether it was the first to.
func (g *goroutines) close() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.closed = true
	return true
}

// A room is what requests of all groups and calls may have in memory, in bytes.
type room struct {
	limit int64
	taken atomic.Int64 // by requests that are not yet answered
}

// take takes n bytes of it, or says ErrBusy. One request is always let in, however large.
func (r *room) take(n int) error {
	for {
		have := r.taken.Load()
		if have > 0 && have+int64(n) > r.limit {
			return ErrBusy
		}
		if r.taken.CompareAndSwap(have, have+int64(n)) {
			return nil
		}
	}
}

// give gives n bytes back.
func (r *room) give(n int) { r.taken.Add(int64(-n)) }

// ports are the open ports of a node's groups.
type ports struct {
	mu   sync.RWMutex
	open map[uint64]*Port // nil after close
}

// get returns the port of a group, or ErrUnknownGroup.
func (ps *ports) get(group uint64) (*Port, error) {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	if p := ps.open[group]; p != nil {
		return p, nil
	}
	return nil, ErrUnknownGroup
}

// put makes p the port of its group, in old's place; ok is false after close.
func (ps *ports) put(p *Port) (old *Port, ok bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.open == nil {
		return nil, false
	}
	old = ps.open[p.group]
	ps.open[p.group] = p
	return old, true
}

// remove takes p out, unless another has its place.
func (ps *ports) remove(p *Port) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.open[p.group] == p {
		delete(ps.open, p.group)
	}
}

// close returns those that were open; there are none from then on.
func (ps *ports) close() map[uint64]*Port {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	was := ps.open
	ps.open = nil
	return was
}

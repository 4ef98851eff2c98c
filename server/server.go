// Package server speaks the Kafka protocol: it reads requests from connections
// and answers them from the replicas and the metadata of one node.
//
// A Server is shaped like net/http's: Serve accepts connections from a listener
// until Shutdown. One address serves everyone; the first bytes of a connection
// tell Kafka clients, other nodes, HTTP and TLS apart.
//
// What a client sends is never trusted. Memory follows the bytes that have
// arrived, not a length that was declared (connection.go); bodies are walked by
// the guard before the codec sees them (guard.go); every goroutine that parses
// recovers, closes its connection and counts it. Whatever goes wrong on one
// connection ends that connection and nothing else.
//
// One table, apis.go, says which requests are served and in which versions; it
// drives dispatch and the answer to ApiVersions. Handlers live in one file a
// family and each begins with what it honours. errors.go alone turns our errors
// into Kafka's codes.
package server

import (
	"container/list"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/bufpool"
	"millrace/replication"
	"millrace/server/group"
)

// ErrClosed is what Serve returns after Shutdown.
var ErrClosed = errors.New("server: closed")

// A Server serves the Kafka protocol from one node. Fields must not change
// after the first call of Serve. It is safe for concurrent use.
type Server struct {
	// Node holds the replicas and the metadata that requests are answered from.
	Node *replication.Node
	// Advertised is HOST:PORT that clients are told for this node, unless they came in
	// by a Listener. "": the address by which each client's connection came in.
	Advertised string
	// DataDir is the folder that DescribeLogDirs speaks of.
	DataDir string
	// Software is the program and its version, which DescribeCluster tells. "": it tells none.
	Software string
	// HTTP takes a connection that begins with an HTTP verb; the verb is still
	// to be read from it. HTTP owns the connection and must close it. nil: such
	// a connection gets a short answer and is closed.
	HTTP func(net.Conn)
	// TLSConfig serves connections that begin a TLS handshake. nil: they are closed.
	TLSConfig *tls.Config
	// StallTimeout closes a connection that sends no byte in the middle of a
	// request, or takes no byte of a response, for so long. 0: 30 seconds.
	StallTimeout time.Duration
	// MaxHeldBytes is how much memory the requests of all connections together,
	// and the answers to them, may take before it is shared out: see budget.
	// Up to four times as much and one request are held then; who waits for
	// more than StallTimeout is closed. 0: 24 MiB. More made producing no faster:
	// what waits here has already arrived.
	MaxHeldBytes int64
	// MaxSessionPartitions bounds the partitions that all fetch sessions
	// together may hold, 400 bytes each. Beyond it clients fetch without sessions.
	// 0: 200,000.
	MaxSessionPartitions int
	// Logger takes diagnostics. nil: slog.Default().
	Logger *slog.Logger
	// Levels are the levels of Logger that clients may see and change, if its
	// handler is theirs. nil: INFO for all, and changing it has no effect.
	Levels *Levels
	// Now is the clock for append times, and the one that DescribeCluster tells. nil: time.Now.
	Now func() time.Time

	once sync.Once
	ctx  context.Context // done when Shutdown begins
	stop context.CancelFunc

	mu        sync.Mutex
	listeners map[net.Listener]struct{}
	open      map[net.Conn]*connection // nil for those not yet known to speak Kafka
	from      map[netip.Addr]int       // how many come from each address
	handed    int                      // connections that Node or HTTP serve
	strangers list.List                // net.Conns of open that have sent no whole request yet, oldest first, as stranger
	known     map[net.Conn]*list.Element
	probation list.List // net.Conns of open that are let in beyond all bounds, oldest first
	closing   bool
	active    sync.WaitGroup // counts open

	budget     budget
	turns      turns
	buffers    bufpool.Pool // of Produce requests
	creating   sync.Mutex   // held while the topic of committed offsets is created
	resolved   atomic.Pointer[settings]
	complaints complaints
	stats      counters

	coordinating sync.Once          // begins the coordination of groups
	groups       *group.Coordinator // nil before Serve, like watch
	watch        *watch
}

// A Listener is one of several that clients come in by, with a name and an address of
// its own: Serve knows it for one. A client is told of other brokers what they
// registered under that name.
type Listener struct {
	net.Listener
	Name       string
	Advertised string // as Server.Advertised
}

// Stats counts what a Server has met since it began.
type Stats struct {
	Connections int64 // open now
	Accepted    int64
	Requests    int64
	Refused     int64 // connections closed for what was sent over them, or for their number
	Panics      int64 // in goroutines that parse what came from outside
	Sessions    int64 // fetch sessions now
}

type counters struct {
	connections, accepted, requests, refused, panics atomic.Int64
	sessions, sessionPartitions                      atomic.Int64
}

// Stats returns what has been counted so far.
func (s *Server) Stats() Stats {
	return Stats{
		Connections: s.stats.connections.Load(),
		Accepted:    s.stats.accepted.Load(),
		Requests:    s.stats.requests.Load(),
		Refused:     s.stats.refused.Load(),
		Panics:      s.stats.panics.Load(),
		Sessions:    s.stats.sessions.Load(),
	}
}

func (s *Server) init() {
	s.once.Do(func() {
		s.ctx, s.stop = context.WithCancel(context.Background())
		s.budget.size = s.maxHeldBytes()
		s.listeners = map[net.Listener]struct{}{}
		s.open = map[net.Conn]*connection{}
		s.from = map[netip.Addr]int{}
		s.known = map[net.Conn]*list.Element{}
		if s.Levels == nil {
			s.Levels = NewLevels(slog.LevelInfo)
		}
	})
}

func (s *Server) maxHeldBytes() int {
	if s.MaxHeldBytes > 0 {
		return int(s.MaxHeldBytes)
	}
	return 24 << 20
}

func (s *Server) maxSessionPartitions() int64 {
	if s.MaxSessionPartitions > 0 {
		return int64(s.MaxSessionPartitions)
	}
	return 200_000
}

func (s *Server) stallTimeout() time.Duration {
	if s.StallTimeout > 0 {
		return s.StallTimeout
	}
	return 30 * time.Second
}

func (s *Server) logger() *slog.Logger {
	if s.Logger != nil {
		return s.Logger
	}
	return slog.Default()
}

func (s *Server) now() time.Time {
	if s.Now != nil {
		return s.Now()
	}
	return time.Now()
}

// Serve accepts connections from l, each served by a goroutine of its own,
// until Shutdown closes l. It returns ErrClosed then, or what Accept said. It
// may be called for several listeners; what a client is told depends on which, if they
// are of type *Listener.
func (s *Server) Serve(l net.Listener) error {
	s.init()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	first := false
	s.coordinating.Do(func() { s.coordinate(); first = true })
	s.mu.Unlock()
	if first { // of all listeners
		s.logger().Info("accepting connections", "max", s.maxConnections(), "descriptors", descriptors(),
			"kept_for", "the logs' files, two a replica, and 256 others")
	}
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()

	by, _ := l.(*Listener)
	pause := time.Duration(0)
	var next time.Time // see acceptEvery
	for {
		conn, err := l.Accept()
		if err != nil {
			if s.ctx.Err() != nil {
				return ErrClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, or the client gave up: neither may end the
			// server, and neither is mended by asking again at once.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.complain("accept failed", "listener", l.Addr(), "error", err)
			select {
			case <-time.After(pause):
			case <-s.ctx.Done():
			}
			continue
		}
		pause = 0
		s.accept(conn, by)
		// Whoever floods the listener waits in its queue, not in that of the processor.
		now := time.Now()
		if next = next.Add(acceptEvery); next.Before(now.Add(-acceptBurst * acceptEvery)) {
			next = now.Add(-acceptBurst * acceptEvery)
		}
		if next.After(now) {
			select {
			case <-time.After(next.Sub(now)):
			case <-s.ctx.Done():
			}
		}
	}
}

// So many connections are accepted at once, and one each acceptEvery from there: to
// accept one and find out that it wants nothing costs a fourth of that.
//
// Other nodes wait in the same queue, which is of acceptQueue connections with Linux:
// whoever joins it must be greeted before it gives up (transport.DialTimeout), or a
// flood would keep a node that has lost its connections from all others for as long as
// it lasts.
const (
	acceptEvery = 400 * time.Microsecond
	acceptBurst = 1000
	acceptQueue = 4096 // net.core.somaxconn
)

// A stranger is a connection that has sent no whole request yet.
type stranger struct {
	conn  net.Conn
	since time.Time
}

const (
	// strangerTime is how long a stranger keeps its place when there is no other.
	strangerTime = time.Second
	// onProbation is how many connections are let in beyond all bounds, until their
	// first bytes tell whether they are other nodes'. A node has sent its by the time
	// that so many have come after it.
	onProbation = 64
)

// accept starts the goroutine that serves conn, or closes conn.
//
// When all places are taken, the oldest stranger makes room: whoever comes to
// send a request has done so before it is its turn. Clients at work keep their
// places, and other nodes get one beyond. Bounds are for clients: who comes is on
// probation beyond any of them, and the oldest one there makes room for it, so that
// no flood keeps a node out.
func (s *Server) accept(conn net.Conn, by *Listener) {
	s.stats.accepted.Add(1)
	remote := remoteIP(conn)
	all, one := s.maxConnections(), s.maxConnectionsPerIP()
	now := time.Now()
	var leaves net.Conn
	s.mu.Lock()
	full := len(s.open)+s.handed-s.probation.Len() >= all
	probation := full || s.from[remote] >= one
	if front := s.strangers.Front(); full && s.from[remote] < one && front != nil && now.Sub(front.Value.(stranger).since) >= strangerTime {
		leaves = front.Value.(stranger).conn
		s.greetedLocked(leaves)
		probation = false
	}
	var expelled net.Conn // its goroutine counts it
	if probation && s.probation.Len() >= onProbation {
		expelled = s.probation.Front().Value.(stranger).conn
		s.greetedLocked(expelled)
	}
	closing := s.closing
	if !closing {
		s.open[conn] = nil
		s.from[remote]++
		s.active.Add(1)
		line := &s.strangers
		if probation {
			line = &s.probation
		}
		s.known[conn] = line.PushBack(stranger{conn, now})
	}
	s.mu.Unlock()
	if leaves != nil {
		s.stats.refused.Add(1)
		s.complain("too many connections: one that sent no request makes room", "remote", leaves.RemoteAddr(), "max", all)
		leaves.Close()
	}
	if expelled != nil {
		expelled.Close()
	}
	if closing {
		conn.Close()
		return
	}
	s.stats.connections.Add(1)
	go s.serve(conn, by, probation)
}

func (s *Server) refuseOne(conn net.Conn, all, one int) {
	s.stats.refused.Add(1)
	s.complain("too many connections", "remote", conn.RemoteAddr(), "max", all, "max_per_ip", one)
}

// greeted says that conn is no stranger any more.
func (s *Server) greeted(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.greetedLocked(conn)
}

func (s *Server) greetedLocked(conn net.Conn) {
	if e := s.known[conn]; e != nil {
		s.strangers.Remove(e) // of the two, the one that has it
		s.probation.Remove(e)
		delete(s.known, conn)
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

// serve finds out who is calling and serves them to the end. It is the body of
// the goroutine "connection". On probation only other nodes are served.
func (s *Server) serve(conn net.Conn, by *Listener, probation bool) {
	kept := false // conn has another owner now
	handOver := func() {
		kept = true
		s.forget(conn, true)
	}
	defer func() {
		s.forget(conn, false)
		if kept {
			s.mu.Lock()
			s.handed--
			s.leftLocked(conn)
			s.mu.Unlock()
		}
		if r := recover(); r != nil {
			s.panicked(conn, r)
		}
		if !kept {
			conn.Close()
		}
	}()

	patience := s.stallTimeout()
	if probation {
		patience = min(patience, strangerTime) // nodes greet at once
	}
	caller, conn2, err := s.sniff(conn, patience)
	if probation && (err != nil || caller != callerNode) {
		s.refuseOne(conn, s.maxConnections(), s.maxConnectionsPerIP())
		return
	}
	if err != nil {
		// Port scanners and health checks connect and leave: not worth a line.
		if !errors.Is(err, io.EOF) && s.ctx.Err() == nil {
			s.refuse(conn, err.Error())
		}
		return
	}
	switch caller {
	case callerNode:
		handOver()
		s.Node.ServeConn(conn2)
	case callerHTTP:
		if s.HTTP == nil {
			s.refuseHTTP(conn2)
			return
		}
		handOver()
		s.HTTP(conn2)
	case callerKafka:
		if s.Node.Image().ClusterID == "" {
			return // the node has not joined yet; clients come again
		}
		c := newConnection(s, conn2)
		c.accepted, c.listener = conn, by
		s.mu.Lock()
		if _, ok := s.open[conn]; ok {
			s.open[conn] = c
		}
		closing := s.closing
		s.mu.Unlock()
		if !closing {
			c.serve()
		}
	}
}

// forget takes conn off the list of open connections, for which Shutdown
// waits. Only the first call for a connection has an effect. One that is handed
// over goes on counting until it ends.
func (s *Server) forget(conn net.Conn, handed bool) {
	s.mu.Lock()
	_, ok := s.open[conn]
	delete(s.open, conn)
	s.greetedLocked(conn)
	switch {
	case ok && handed:
		s.handed++
	case ok:
		s.leftLocked(conn)
	}
	s.mu.Unlock()
	if ok {
		s.stats.connections.Add(-1)
		s.active.Done()
	}
}

// leftLocked takes a connection off what comes from its address.
func (s *Server) leftLocked(conn net.Conn) {
	remote := remoteIP(conn)
	if s.from[remote]--; s.from[remote] == 0 {
		delete(s.from, remote)
	}
}

// Shutdown closes the listeners, lets every connection finish the requests it
// has read, and closes it. Fetches that wait for data answer with what there
// is. When ctx ends first, the rest is cut off and ctx's error returned.
// Connections handed to Node or HTTP are theirs to close.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	s.mu.Lock()
	s.closing = true
	s.stop()
	for l := range s.listeners {
		l.Close()
	}
	for conn := range s.open {
		// Wakes who waits for a request; who is at work on one goes on.
		conn.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()

	finished := make(chan struct{})
	go func() { // "shutdown": ends when the last connection has, and the coordination
		s.active.Wait()
		if s.watch != nil {
			<-s.watch.ended
			s.groups.Close()
		}
		close(finished)
	}()
	select {
	case <-finished:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	for conn := range s.open {
		conn.Close()
	}
	s.mu.Unlock()
	return ctx.Err()
}

// refuse counts and reports a connection that is being closed for what was
// sent over it.
func (s *Server) refuse(conn net.Conn, reason string) {
	s.stats.refused.Add(1)
	s.complain("connection refused", "remote", conn.RemoteAddr(), "reason", reason)
}

func (s *Server) panicked(conn net.Conn, r any) {
	s.stats.panics.Add(1)
	s.complain("panic while serving a connection", "remote", conn.RemoteAddr(), "panic", r, "stack", stack())
}

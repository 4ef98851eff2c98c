package server

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"millrace/internal/bufpool"
	"millrace/replication"
	"millrace/server/coordinator"
	"millrace/server/mux"
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
	// TLSConfig is for connections that begin a TLS handshake, by way of Mux. nil: they
	// are closed.
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
	// Auditor is told what was denied to clients. nil: nobody is.
	Auditor Auditor
	// Clock is for append times and groups, and what DescribeCluster tells. nil: the
	// system's.
	Clock coordinator.Clock

	once sync.Once
	ctx  context.Context // done when Shutdown begins
	stop context.CancelFunc

	doors
	shared   shared
	broker   broker
	handlers handlers
	stats    counters
}

// doors are what a Server accepts connections from, and those that it has accepted.
type doors struct {
	mu        sync.Mutex
	muxes     []*mux.Mux
	listeners map[net.Listener]struct{}
	open      map[net.Conn]*connection // nil for a moment
	begun     bool                     // by Serve
	closing   bool
	active    sync.WaitGroup // counts open
}

// shared is what connections share out among them.
type shared struct {
	budget  budget
	turns   turns
	buffers bufpool.Pool // of Produce requests
	quotas  mux.Quotas   // of the connections themselves
	logins  turnstile    // of those who check a password
}

// A Listener is one of several that clients come in by, with a name and an address of
// its own: Serve knows it for one. A client is told of other brokers what they
// registered under that name.
type Listener struct {
	net.Listener
	Name       string
	Advertised string // as Server.Advertised
	Access     Access
	// Insecure takes passwords (PLAIN) from connections that others may read.
	Insecure bool
	// Mechanisms are those that its clients may log in by; nil: sasl.enabled.mechanisms.
	Mechanisms []string
	// Certificates are what clients are shown that begin a TLS handshake. nil: they are
	// closed, unless the Server has a TLSConfig.
	Certificates Certificates
	// OnlyTLS closes those that begin none.
	OnlyTLS bool
	// Remote lets clients in from other machines while the cluster has no user. Without it
	// AccessAuto is open to this machine alone.
	Remote bool
}

// Certificates are a broker's, and say who clients are by theirs. They are used by many
// goroutines at once.
type Certificates interface {
	// TLS is how handshakes are made.
	TLS() *tls.Config
	// Principal is who a client is by the certificate that it has shown, "User:…"; "" if it
	// has shown none. An error closes the connection.
	Principal(tls.ConnectionState) (string, error)
}

// Stats counts what a Server has met since it began.
type Stats struct {
	Connections int64 // of clients, open now; Quotas count all
	Requests    int64
	Refused     int64 // connections closed for what was sent over them, or for their number
	Panics      int64 // in goroutines that parse what came from outside
	Sessions    int64 // fetch sessions now
}

type counters struct {
	connections, requests, refused, panics atomic.Int64
}

// Stats returns what has been counted so far.
func (s *Server) Stats() Stats {
	before := s.shared.quotas.Stats() // of connections that never came to be served here
	return Stats{
		Connections: s.stats.connections.Load(),
		Requests:    s.stats.requests.Load(),
		Refused:     s.stats.refused.Load() + before.Refused,
		Panics:      s.stats.panics.Load() + before.Panics,
		Sessions:    s.handlers.fetches.sessions.count.Load(),
	}
}

func (s *Server) init() {
	s.once.Do(func() {
		s.ctx, s.stop = context.WithCancel(context.Background())
		s.shared.budget.size = s.maxHeldBytes()
		b := &s.broker
		if b.node, b.advertised, b.logger, b.clock = s.Node, s.Advertised, s.Logger, s.Clock; b.logger == nil {
			b.logger = slog.Default()
		}
		if b.clock == nil {
			b.clock = coordinator.SystemClock{}
		}
		b.authorizer = &accessControl{broker: b}
		h := &s.handlers
		h.init(b)
		h.cluster.dataDir, h.cluster.software = s.DataDir, s.Software
		if h.configs.levels = s.Levels; h.configs.levels == nil {
			h.configs.levels = NewLevels(slog.LevelInfo)
		}
		h.fetches.sessions.most = s.maxSessionPartitions()
		h.producers.buffers = &s.shared.buffers
		s.listeners = map[net.Listener]struct{}{}
		s.open = map[net.Conn]*connection{}
		s.shared.quotas.Broker = bounds{b}
		s.shared.logins = newTurnstile(max(1, runtime.GOMAXPROCS(0)/2))
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

// Mux begins to accept from l, and cuts it into a listener for Serve and one for the
// other nodes (replication.Node.Serve). All that come by it are counted together with
// those of the Server's other listeners, and bounded by the node's settings; Quotas
// tells about them. Of a *Listener the Certificates are shown. Shutdown closes it.
func (s *Server) Mux(l net.Listener) *mux.Mux {
	s.init()
	cfg := mux.Config{Quotas: &s.shared.quotas, TLS: s.TLSConfig, Patience: s.stallTimeout()}
	if own, ok := l.(*Listener); ok && own.Certificates != nil {
		cfg.TLS = own.Certificates.TLS()
	}
	if s.Node != nil {
		cfg.Nodes = s.Node
	}
	m := mux.New(l, cfg)
	s.mu.Lock()
	s.muxes = append(s.muxes, m)
	closing := s.closing
	s.mu.Unlock()
	if closing {
		m.Close()
	}
	return m
}

// Quotas returns the books of the connections that came by Mux.
func (s *Server) Quotas() *mux.Quotas {
	s.init()
	return &s.shared.quotas
}

// Serve accepts connections of clients from l, each served by a goroutine of its own,
// until Shutdown closes l. It returns ErrClosed then, or what Accept said. It
// may be called for several listeners; what a client is told depends on which, if they
// are of type *Listener. It bounds no connections: that is the part of Mux.
func (s *Server) Serve(l net.Listener) error {
	s.init()
	s.mu.Lock()
	if s.closing {
		s.mu.Unlock()
		l.Close()
		return ErrClosed
	}
	s.listeners[l] = struct{}{}
	first := !s.begun
	if s.begun = true; first {
		s.handlers.groups.begin(s.ctx)
	}
	s.mu.Unlock()
	if first { // of all listeners
		s.broker.logger.Info("accepting connections", "max", s.broker.maxConnections(), "descriptors", descriptors(),
			"kept_for", "the logs' files, two a replica, and 256 others")
	}
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
		l.Close()
	}()

	by, _ := l.(*Listener)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			s.begin(conn, by)
		case s.ctx.Err() != nil:
			return ErrClosed
		default:
			return err
		}
	}
}

// begin starts the goroutine that serves conn, unless Shutdown has begun.
func (s *Server) begin(conn net.Conn, by *Listener) {
	s.mu.Lock()
	closing := s.closing
	if !closing {
		s.open[conn] = nil
		s.active.Add(1)
	}
	s.mu.Unlock()
	if closing {
		conn.Close()
		return
	}
	s.stats.connections.Add(1)
	go s.serve(conn, by)
}

// serve serves a client to the end. It is the body of the goroutine "connection".
func (s *Server) serve(conn net.Conn, by *Listener) {
	defer func() {
		if r := recover(); r != nil {
			s.panicked(conn, r)
		}
		conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
		s.stats.connections.Add(-1)
		s.active.Done()
	}()
	// A node that is not in its own image has not joined yet, or has not caught up with
	// what there was when it did: it knows neither topics nor who may do what with them.
	// Clients come again.
	image := s.Node.Image()
	if image.ClusterID == "" {
		return
	}
	if _, registered := image.Broker(s.Node.ID()); !registered {
		return
	}
	c := newConnection(s, conn)
	c.origin.listener = by
	if err := c.enter(); err != nil {
		s.refuse(conn, err.Error())
		c.cancel()
		c.share.leave()
		return
	}
	s.mu.Lock()
	s.open[conn] = c
	s.mu.Unlock()
	c.serve()
}

// Shutdown closes the listeners, what Mux made among them, lets every connection finish
// the requests it has read, and closes it. Fetches that wait for data answer with what
// there is. When ctx ends first, the rest is cut off and ctx's error returned.
func (s *Server) Shutdown(ctx context.Context) error {
	s.init()
	s.mu.Lock()
	s.closing = true
	s.stop()
	for l := range s.listeners {
		l.Close()
	}
	muxes := s.muxes
	for conn := range s.open {
		// Wakes who waits for a request; who is at work on one goes on.
		conn.SetReadDeadline(time.Unix(1, 0))
	}
	s.mu.Unlock()
	for _, m := range muxes {
		m.Close()
	}

	finished := make(chan struct{})
	go func() { // "shutdown": ends when the last connection has, and the coordination
		s.active.Wait()
		s.handlers.groups.end()
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
	s.broker.warn("connection refused", "remote", conn.RemoteAddr(), "reason", reason)
}

func (s *Server) panicked(conn net.Conn, r any) {
	s.stats.panics.Add(1)
	s.broker.warn("panic while serving a connection", "remote", conn.RemoteAddr(), "panic", r, "stack", stack())
}

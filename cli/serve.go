package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"millrace/replication"
	"millrace/server"

	urfave "github.com/urfave/cli/v2"
)

const (
	defaultDataDir = "./millrace-data"

	// shutdownTimeout bounds how long a node hands over leadership and flushes
	// before it just ends. What was acknowledged is on disk either way.
	shutdownTimeout = 10 * time.Second
)

func serveCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "serve",
		Usage: "run one broker",
		Description: `   Without flags: a cluster of one node in ./millrace-data on 127.0.0.1:9092. Further nodes
   --join any node of it. Started again, a node knows its cluster and needs no --join; nodes
   that all moved to other addresses find each other by it. An empty folder founds a cluster
   unless a join was begun in it, or the nodes of another cluster look for this one; --found
   founds one all the same.

   SIGTERM and Ctrl-C: hand leadership over, flush, exit 0.

   --config reads a properties file under Kafka's names: node.id, listeners, advertised.listeners,
   log.dirs, broker.rack, controller.quorum.bootstrap.servers (the nodes to join) and the
   settings of brokers, such as num.partitions or log.retention.hours. Flags go before it.
   A bad value, or a setting that asks for access control, ends the start with status 2;
   names that have no effect are warned of.

EXAMPLES:
   $ millrace serve
   $ millrace serve --listen 127.0.0.1:9093 --data-dir ./node-2 --join 127.0.0.1:9092
   $ millrace serve --ephemeral --listen 127.0.0.1:0 --ready-file ./ready`,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "data-dir", Value: defaultDataDir, DefaultText: defaultDataDir, Usage: "`DIR`: where the node keeps its data"},
			&urfave.StringFlag{Name: "listen", Value: defaultBroker, DefaultText: defaultBroker, Usage: "`HOST:PORT`: address for clients and other nodes; port 0 is a free one"},
			&urfave.StringFlag{Name: "advertise", Usage: "address others are told, `HOST:PORT`", DefaultText: "where it listens"},
			&urfave.IntFlag{Name: "node-id", Usage: "`N`: id of a new node, 1 or more", DefaultText: "given by the cluster"},
			&urfave.StringFlag{Name: "join", Usage: "nodes of the cluster to join, `HOST:PORT,…`"},
			&urfave.BoolFlag{Name: "found", Usage: "found a cluster in an empty folder, whatever speaks against it"},
			&urfave.StringFlag{Name: "config", Usage: "read settings from this `FILE`"},
			&urfave.BoolFlag{Name: "ephemeral", Usage: "keep the data in a temporary folder that is removed at the end"},
			&urfave.StringFlag{Name: "ready-file", Usage: "write this `FILE` when serving: pid, node, address and cluster as JSON"},
			&urfave.StringFlag{Name: "log-level", Value: "info", DefaultText: "info", Usage: "`LEVEL`: debug, info, warn or error"},
		},
		Action: serve,
	}
}

// A broker is everything a command line and a config file say about a node.
type broker struct {
	dataDir   string
	listen    string
	advertise string
	nodeID    int32
	join      []string
	rack      string
	settings  map[string]string
	warnings  []string // what its configuration says without effect
}

func serve(c *urfave.Context) (err error) {
	if c.NArg() > 0 {
		return usage("serve takes no arguments, but %q was given", c.Args().First())
	}
	logger, levels, err := newLogger(c)
	if err != nil {
		return err
	}
	b, err := brokerOf(c)
	if err != nil {
		return err
	}
	for _, w := range b.warnings {
		logger.Warn(w)
	}
	if c.Bool("ephemeral") {
		if c.IsSet("data-dir") {
			return usage("--ephemeral and --data-dir exclude each other")
		}
		if b.dataDir, err = os.MkdirTemp("", "millrace-"); err != nil {
			return err
		}
		defer os.RemoveAll(b.dataDir)
	}
	if nodes, _ := filepath.Glob(filepath.Join(b.dataDir, "node-*", nodeFile)); len(nodes) > 0 {
		return usage("%s holds the nodes of `millrace up`; serve one of them with --data-dir %s", b.dataDir, filepath.Dir(nodes[0]))
	}

	defer tuneCollector()()
	listener, err := net.Listen("tcp", b.listen)
	if err != nil {
		return cannotListen(b.listen, err)
	}
	defer listener.Close()
	b.listen = listener.Addr().String() // port 0 has become a real one
	registered := b.advertise
	if registered == "" {
		registered = advertised(b.listen)
	}
	b.describe()
	node, err := replication.Open(replication.Config{
		DataDir:   b.dataDir,
		NodeID:    b.nodeID,
		Advertise: registered,
		Join:      b.join,
		Rack:      b.rack,
		Settings:  b.settings,
		Logger:    logger,

		Found:      c.Bool("found"),
		FoundAfter: listenFirst(registered, c.Bool("ephemeral")),
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", b.dataDir, err)
	}
	kafka := &server.Server{Node: node, Advertised: b.advertise, DataDir: b.dataDir, Logger: logger, Levels: levels}
	defer func() { stop(context.WithoutCancel(c.Context), logger, node, kafka) }()

	// Until it has the cluster's metadata the node talks to other nodes only: it
	// would tell a client that no topic exists.
	closed := peersOnly(listener, node, logger)
	err = node.Start(c.Context)
	switch {
	case c.Context.Err() != nil:
		return nil // told to stop before it began
	case err != nil:
		return fmt.Errorf("start: %w", err)
	}
	if err := closed(); err != nil {
		return fmt.Errorf("serve %s: %w", b.listen, err)
	}
	served := make(chan error, 1)
	go func() { served <- kafka.Serve(listener) }() // the acceptor: ends with kafka.Shutdown
	logger.Info("serving", "address", b.listen, "advertised", registered, "node", node.ID(), "cluster", node.ClusterID(), "data", b.dataDir)
	if name := c.String("ready-file"); name != "" {
		if err := writeReady(name, ready{os.Getpid(), node.ID(), b.listen, node.ClusterID()}); err != nil {
			return err
		}
		defer os.Remove(name)
	}
	select {
	case <-c.Context.Done():
		logger.Info("stopping: handing leadership over")
		return nil
	case <-node.Failed():
		return node.Failure()
	case err := <-served:
		return fmt.Errorf("serve %s: %w", b.listen, err)
	}
}

// listenFirst is how long a node listens, before it founds a cluster, whether the nodes
// of another look for it at its address: they dial once a second. On this machine
// alone, and for data that does not stay, it is not worth a second and a half of
// each first start; then a node ends if it hears of them afterwards.
func listenFirst(registered string, ephemeral bool) time.Duration {
	host, _, err := net.SplitHostPort(registered)
	if ip := net.ParseIP(host); ephemeral || err != nil || host == "localhost" || ip != nil && ip.IsLoopback() {
		return 0
	}
	return 1500 * time.Millisecond
}

// peersOnly hands every connection to the node, which closes those that are not
// of other nodes; clients try again. The returned function ends that and leaves
// the listener open.
func peersOnly(listener net.Listener, node *replication.Node, logger *slog.Logger) (stop func() error) {
	done := make(chan error, 1)
	go func() { // the porter: ends with stop, or when the listener is closed
		for {
			conn, err := listener.Accept()
			if err != nil {
				done <- err
				return
			}
			go func() { // a peer's connection: ends with it
				defer func() {
					if r := recover(); r != nil {
						conn.Close()
						logger.Error("a connection was closed after a panic", "remote", conn.RemoteAddr(), "panic", r)
					}
				}()
				node.ServeConn(conn)
			}()
		}
	}()
	return func() error {
		tcp := listener.(*net.TCPListener)
		tcp.SetDeadline(time.Unix(1, 0))
		if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		return tcp.SetDeadline(time.Time{})
	}
}

// stop ends a node in this order: leadership goes while clients can still be told
// so, then the connections and the listener. After shutdownTimeout it is left at
// that: what was acknowledged is on disk either way.
func stop(ctx context.Context, logger *slog.Logger, node *replication.Node, kafka *server.Server) {
	ctx, cancel := context.WithTimeout(ctx, shutdownTimeout)
	defer cancel()
	begin := time.Now()
	down := make(chan error, 1)
	go func() { // the stopper: ends with the node, or with the process
		err := node.Shutdown(ctx)
		if e := kafka.Shutdown(ctx); e != nil && !errors.Is(e, context.DeadlineExceeded) {
			err = errors.Join(err, e)
		}
		down <- err
	}()
	var err error
	select {
	case err = <-down:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		logger.Warn("stopped, but not in order", "err", err)
		return
	}
	logger.Info("stopped", "took", time.Since(begin).Round(time.Millisecond))
}

// brokerOf joins flags and config file; flags win.
func brokerOf(c *urfave.Context) (*broker, error) {
	b := &broker{dataDir: c.String("data-dir"), listen: c.String("listen"), settings: make(map[string]string)}
	if name := c.String("config"); name != "" {
		if err := b.readConfig(name, c.IsSet); err != nil {
			return nil, err
		}
	}
	if c.IsSet("node-id") {
		if c.Int("node-id") < 1 || c.Int("node-id") > 1<<30 {
			return nil, usage("--node-id %d: it is 1 or more", c.Int("node-id"))
		}
		b.nodeID = int32(c.Int("node-id"))
	}
	if c.IsSet("advertise") {
		b.advertise = c.String("advertise")
	}
	if c.IsSet("join") {
		var err error
		if b.join, err = brokersOf(c.String("join")); err != nil {
			return nil, usage("--join: %v", err)
		}
	}
	if _, _, err := net.SplitHostPort(b.listen); err != nil {
		return nil, usage("--listen %q: it is HOST:PORT", b.listen)
	}
	if b.advertise != "" {
		if host, port, err := net.SplitHostPort(b.advertise); err != nil || host == "" || port == "0" {
			return nil, usage("--advertise %q: it is HOST:PORT, as others reach this node", b.advertise)
		}
	}
	return b, nil
}

// describe puts what the node is among its settings, where DescribeConfigs looks
// for it, whether a flag, a file or a default said so. The id follows when the node
// knows it.
func (b *broker) describe() {
	b.settings[listenersKey] = plaintextProtocol + "://" + b.listen
	b.settings[logDirsKey] = b.dataDir
	if b.advertise != "" {
		b.settings[advertisedKey] = plaintextProtocol + "://" + b.advertise
	}
	if b.rack != "" {
		b.settings[rackKey] = b.rack
	}
}

// advertised is the address a node registers under when it is told none: the one
// it listens on, with the machine's first address in the place of "all of them".
func advertised(listening string) string {
	host, port, err := net.SplitHostPort(listening)
	if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsUnspecified() {
		return listening
	}
	host = "127.0.0.1"
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.IsGlobalUnicast() && n.IP.To4() != nil {
			host = n.IP.String()
			break
		}
	}
	return net.JoinHostPort(host, port)
}

// nodeFile is in every data folder that has been served.
const nodeFile = "node.json"

// A ready file's content.
type ready struct {
	PID     int    `json:"pid"`
	Node    int32  `json:"node"`
	Address string `json:"address"`
	Cluster string `json:"cluster"`
}

// writeReady makes the file appear with its content or not at all.
func writeReady(name string, r ready) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := os.WriteFile(name+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

// newLogger makes the node's logger, with levels that may be changed while it runs.
func newLogger(c *urfave.Context) (*slog.Logger, *server.Levels, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, nil, usage("--log-level %q: it is one of debug, info, warn, error", c.String("log-level"))
	}
	levels := server.NewLevels(level)
	all := slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.Level(math.MinInt)})
	return slog.New(levels.Handler(all)), levels, nil
}

// cannotListen explains why an address cannot be listened on.
func cannotListen(address string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		by := ""
		if pid := listenerPID(address); pid > 0 {
			by = fmt.Sprintf(" by pid %d", pid)
		}
		return fail(StatusFailed, "cannot listen on %s: address in use%s; choose another with --listen", address, by)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fail(StatusFailed, "cannot listen on %s: this machine does not have that address; choose another with --listen", address)
	case errors.Is(err, syscall.EACCES):
		return fail(StatusNotAllowed, "cannot listen on %s: not allowed; choose a port above 1023 with --listen", address)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fail(StatusFailed, "cannot listen on %s: %v; choose another with --listen", address, err)
}

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
	"strings"
	"time"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/server"
	"millrace/server/mux"

	"github.com/coreos/go-systemd/v22/daemon"
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

   SIGTERM and Ctrl-C: hand leadership over, flush, exit 0. A service manager that waits for
   it is told when the node serves (systemd's Type=notify).

   --config reads a properties file under Kafka's names: node.id, listeners, advertised.listeners,
   log.dirs, broker.rack, controller.quorum.voters (the nodes to join) and the settings of
   brokers, such as num.partitions or log.retention.hours; see "millrace cluster config list".
   The environment may say the same. What stands first here wins:

      flags                         --data-dir ./d
      variables of flags            MILLRACE_DATA_DIR=./d, and so on for each
      variables of settings         MILLRACE_CFG_LOG_RETENTION_HOURS=7d
      those of Kafka's images       KAFKA_LOG_RETENTION_HOURS=168
      the file of --config          log.retention.hours=168

   Units work where they are plain: 7d, 10MB. A bad value, or a setting that asks for access
   control, ends the start with status 2, all of them told at once; names that have no effect
   are warned of. With several listeners a client is told the advertised addresses of the one
   it came in by.

EXAMPLES:
   $ millrace serve
   $ millrace serve --listen 127.0.0.1:9093 --data-dir ./node-2 --join 127.0.0.1:9092
   $ millrace serve --ephemeral --listen 127.0.0.1:0 --ready-file ./ready
   $ MILLRACE_CFG_NUM_PARTITIONS=6 millrace serve --config ./server.properties`,
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
	listeners []listener // one or more
	nodes     int        // the one of listeners at which other nodes reach it
	nodeID    int32
	join      []string
	founds    bool // with an empty folder, although there are nodes to join
	rack      string
	settings  map[string]string
	warnings  []string // what its configuration says without effect
}

func serve(c *urfave.Context) (err error) {
	if c.NArg() > 0 {
		return usage("serve takes no arguments, but %q was given", c.Args().First())
	}
	if err := keepsLogs(); err != nil {
		return err
	}
	b, err := brokerOf(c)
	if err != nil {
		return err
	}
	logger, levels, err := newLogger(c)
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

	if _, err := os.Stat(filepath.Join(b.dataDir, nodeFile)); err != nil && b.founds {
		b.join = nil
	}

	defer tuneCollector()()
	listeners, err := b.open()
	if err != nil {
		return err
	}
	for _, l := range listeners {
		defer l.Close()
	}
	own := b.listeners[b.nodes]
	registered := own.registered()
	b.describe()
	node, err := replication.Open(replication.Config{
		DataDir:   b.dataDir,
		NodeID:    b.nodeID,
		Advertise: registered,
		Listeners: b.registered(),
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
	kafka := &server.Server{Node: node, Advertised: own.advertise, DataDir: b.dataDir, Software: software(), Logger: logger, Levels: levels}
	defer func() { stop(context.WithoutCancel(c.Context), logger, node, kafka) }()

	// Until it has the cluster's metadata the node talks to other nodes only: it
	// would tell a client that no topic exists.
	var muxes []*mux.Mux
	for _, l := range listeners {
		m := kafka.Mux(l)
		peers := m.Peers()
		go node.Serve(peers) // the porter: ends with kafka.Shutdown
		muxes = append(muxes, m)
	}
	tellManager(logger, "STATUS=looking for its cluster")
	err = node.Start(c.Context)
	switch {
	case c.Context.Err() != nil:
		return nil // told to stop before it began
	case err != nil:
		return fmt.Errorf("start: %w", err)
	}
	served := make(chan error, len(listeners))
	for i, m := range muxes {
		l := m.Kafka()
		if len(listeners) > 1 {
			l = &server.Listener{Listener: l, Name: b.listeners[i].name, Advertised: b.listeners[i].advertise}
		}
		go func() { served <- kafka.Serve(l) }() // the acceptor: ends with kafka.Shutdown
	}
	for i, l := range b.listeners {
		if len(b.listeners) > 1 && (!l.only || i == b.nodes) { // of one that is alone the next line says it all
			logger.Info("listening", "listener", l.name, "address", l.listen, "advertised", l.registered(), "nodes", i == b.nodes)
		}
	}
	logger.Info("serving", "address", own.listen, "advertised", registered, "node", node.ID(), "cluster", node.ClusterID(), "data", b.dataDir)
	if name := c.String("ready-file"); name != "" {
		if err := writeReady(name, ready{os.Getpid(), node.ID(), own.listen, node.ClusterID()}); err != nil {
			return err
		}
		defer os.Remove(name)
	}
	tellManager(logger, daemon.SdNotifyReady, fmt.Sprintf("STATUS=node %d of cluster %s, serving %s", node.ID(), node.ClusterID(), registered))
	select {
	case <-c.Context.Done():
		logger.Info("stopping: handing leadership over")
		return nil
	case <-node.Failed():
		return node.Failure()
	case err := <-served:
		return fmt.Errorf("serve %s: %w", own.listen, err)
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

// stop ends a node in this order: leadership goes while clients can still be told
// so, then the connections and the listener. After shutdownTimeout it is left at
// that: what was acknowledged is on disk either way.
func stop(ctx context.Context, logger *slog.Logger, node *replication.Node, kafka *server.Server) {
	tellManager(logger, daemon.SdNotifyStopping, "STATUS=handing leadership over")
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

// open listens on all of a node's addresses; their ports are the real ones afterwards.
func (b *broker) open() (all []net.Listener, err error) {
	for i := range b.listeners {
		l := &b.listeners[i]
		listener, err := net.Listen("tcp", l.listen)
		if err != nil {
			for _, opened := range all {
				opened.Close()
			}
			return nil, cannotListen(l.listen, err, "--listen")
		}
		l.listen = listener.Addr().String()
		all = append(all, listener)
	}
	return all, nil
}

// registered is what others are told of a listener.
func (l *listener) registered() string {
	if l.advertise != "" {
		return l.advertise
	}
	return advertised(l.listen)
}

// registered lists what clients are told by listener, nothing when there is only one.
func (b *broker) registered() (all []metadata.Listener) {
	clients := 0
	for _, l := range b.listeners {
		if !l.only {
			clients++
			all = append(all, metadata.Listener{Name: l.name, Address: l.registered()})
		}
	}
	if clients < 2 {
		return nil
	}
	return all
}

// brokerOf joins flags, environment and config file, in this order.
func brokerOf(c *urfave.Context) (*broker, error) {
	variables, err := flagsFromEnvironment(c)
	if err != nil {
		return nil, err
	}
	// says names a flag as whoever set it did.
	says := func(flag string) string {
		if v := variables[flag]; v != "" {
			return "environment: " + v + "=" + c.String(flag)
		}
		return "--" + flag + " " + c.String(flag)
	}
	b := &broker{dataDir: c.String("data-dir"), settings: make(map[string]string)}
	b.listeners = []listener{{name: plaintextProtocol, listen: c.String("listen")}}
	if err := b.configure(c.String("config"), os.Environ(), knownVariables(), c.IsSet); err != nil {
		var all mistakes
		if errors.As(err, &all) { // who mends them wants to hear of what has no effect, too
			for _, w := range b.warnings {
				all = append(all, "warning: "+w)
			}
			err = &failure{StatusUsage, all}
		}
		return nil, err
	}
	if c.IsSet("node-id") {
		if c.Int("node-id") < 1 || c.Int("node-id") > 1<<30 {
			return nil, usage("%s: it is 1 or more", says("node-id"))
		}
		b.nodeID = int32(c.Int("node-id"))
	}
	own := &b.listeners[b.nodes]
	if c.IsSet("advertise") {
		own.advertise = c.String("advertise")
		if why := unreachableAddress(own.advertise); why != "" {
			return nil, usage("%s: %s", says("advertise"), why)
		}
	}
	if c.IsSet("join") {
		if b.join, err = brokersOf("--join", c.String("join")); err != nil {
			return nil, usage("%s: it is HOST:PORT,…", says("join"))
		}
	}
	if _, _, err := net.SplitHostPort(own.listen); err != nil {
		return nil, usage("%s: it is HOST:PORT", says("listen"))
	}
	return b, nil
}

// variableOf is the environment's name of a flag: MILLRACE_DATA_DIR is --data-dir.
func variableOf(flag string) string {
	return ownPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// flagsFromEnvironment sets the flags of a command that nobody gave from MILLRACE_…, and
// returns which variable set which. An empty variable says nothing.
func flagsFromEnvironment(c *urfave.Context) (variables map[string]string, err error) {
	variables = make(map[string]string)
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		variable := variableOf(name)
		value := os.Getenv(variable)
		if value == "" || c.IsSet(name) {
			continue
		}
		if err := c.Set(name, value); err != nil {
			what := "a whole number"
			if _, truth := f.(*urfave.BoolFlag); truth {
				what = "true or false"
			}
			return nil, usage("environment: %s=%s: it is %s", variable, value, what)
		}
		variables[name] = variable
	}
	return variables, nil
}

// knownVariables lists the variables that mean something to one of the commands.
func knownVariables() (all []string) {
	for _, c := range []*urfave.Command{serveCommand(), upCommand()} {
		for _, f := range c.Flags {
			all = append(all, variableOf(f.Names()[0]))
		}
	}
	return append(all, "MILLRACE_BROKERS")
}

// describe puts what the node is among its settings, where DescribeConfigs looks
// for it, whether a flag, a file or a default said so. The id follows when the node
// knows it.
func (b *broker) describe() {
	var listens, told []string
	for _, l := range b.listeners {
		listens = append(listens, l.name+"://"+l.listen)
		if l.advertise != "" {
			told = append(told, l.name+"://"+l.advertise)
		}
	}
	b.settings[listenersKey] = strings.Join(listens, ",")
	b.settings[logDirsKey] = b.dataDir
	delete(b.settings, advertisedKey)
	if len(told) > 0 {
		b.settings[advertisedKey] = strings.Join(told, ",")
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

// cannotListen explains why an address cannot be listened on; flag is the command's own
// that names another.
func cannotListen(address string, err error, flag string) error {
	switch {
	case errors.Is(err, errnoInUse):
		by := ""
		if pid := listenerPID(address); pid > 0 {
			by = fmt.Sprintf(" by pid %d", pid)
		}
		return fail(StatusFailed, "cannot listen on %s: address in use%s; choose another with %s", address, by, flag)
	case errors.Is(err, errnoNotAvailable):
		return fail(StatusFailed, "cannot listen on %s: this machine does not have that address; choose another with %s", address, flag)
	case errors.Is(err, errnoNotAllowed):
		return fail(StatusNotAllowed, "cannot listen on %s: not allowed; choose a port above 1023 with %s", address, flag)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return fail(StatusFailed, "cannot listen on %s: %v; choose another with %s", address, err, flag)
}

package local

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
	"slices"
	"strings"
	"time"

	"millrace"
	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/identity"
	"millrace/segment"
	"millrace/server"

	"github.com/coreos/go-systemd/v22/daemon"
	urfave "github.com/urfave/cli/v2"
)

const (
	// DataDir is where a node keeps its data that is not told otherwise.
	DataDir = "./millrace-data"

	// shutdownTimeout bounds how long a node hands over leadership and flushes
	// before it just ends. What was acknowledged is on disk either way.
	shutdownTimeout = 10 * time.Second
)

// ServeCommand is `millrace serve`.
func ServeCommand() *urfave.Command {
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
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "data-dir", Value: DataDir, DefaultText: DataDir, Usage: "`DIR`: where the node keeps its data"},
			&urfave.StringFlag{Name: "listen", Value: kafka.DefaultBroker, DefaultText: kafka.DefaultBroker, Usage: "`HOST:PORT`: address for clients and other nodes; port 0 is a free one"},
			&urfave.StringFlag{Name: "advertise", Usage: "address others are told, `HOST:PORT`", DefaultText: "where it listens"},
			&urfave.IntFlag{Name: "node-id", Usage: "`N`: id of a new node, 1 or more", DefaultText: "given by the cluster"},
			&urfave.StringFlag{Name: "join", Usage: "`TOKEN` of the cluster to join, made by millrace cluster token, @FILE that holds it, or HOST:PORT,… of nodes on this machine"},
			&urfave.BoolFlag{Name: "found", Usage: "found a cluster in an empty folder, whatever speaks against it"},
			&urfave.StringFlag{Name: "config", Usage: "read settings from this `FILE`"},
			&urfave.BoolFlag{Name: "ephemeral", Usage: "keep the data in a temporary folder that is removed at the end"},
			&urfave.StringFlag{Name: "ready-file", Usage: "write this `FILE` when serving: pid, node, address and cluster as JSON"},
			&urfave.StringFlag{Name: "log-level", Value: "info", DefaultText: "info", Usage: "`LEVEL`: debug, info, warn or error"},
		}, secureFlags()...),
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
	users     []millrace.UserSecret // of a cluster that it founds
	settings  map[string]string
	warnings  []string // what there is to say of its configuration before it serves
}

func serve(c *urfave.Context) (err error) {
	if c.NArg() > 0 {
		return term.Usage("serve takes no arguments, but %q was given", c.Args().First())
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
	empty := true
	if c.Bool("ephemeral") {
		if c.IsSet("data-dir") {
			return term.Usage("--ephemeral and --data-dir exclude each other")
		}
		b.dataDir = ""
	} else {
		if nodes, _ := filepath.Glob(filepath.Join(b.dataDir, "node-*", NodeFile)); len(nodes) > 0 {
			return term.Usage("%s holds the nodes of `millrace up`; serve one of them with --data-dir %s", b.dataDir, filepath.Dir(nodes[0]))
		}
		_, err := os.Stat(filepath.Join(b.dataDir, NodeFile))
		empty = err != nil
	}
	if b.founds && empty {
		b.join = nil
	}

	tellManager(logger, "STATUS=looking for its cluster")
	broker, err := millrace.Start(c.Context, b.config(c, logger, levels))
	var unheard *millrace.ListenError
	switch {
	case errors.As(err, &unheard):
		return cannotListen(unheard.Addr, unheard.Err, "--listen")
	case err != nil && c.Context.Err() != nil:
		return nil // told to stop before it began
	case err != nil:
		return Advised(err)
	}
	defer func() {
		tellManager(logger, daemon.SdNotifyStopping, "STATUS=handing leadership over")
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context), shutdownTimeout)
		defer cancel()
		broker.Shutdown(ctx) // it logs how that went
	}()

	listeners := broker.Listeners()
	for i, l := range listeners {
		if len(listeners) > 1 && (!l.Hidden || i == b.nodes) { // of one that is alone the next line says it all
			logger.Info("listening", "listener", l.Name, "address", l.Listen, "advertised", l.Advertise, "nodes", i == b.nodes)
		}
	}
	logger.Info("serving", "address", broker.Addr(), "advertised", broker.Advertised(), "node", broker.ID(), "cluster", broker.ClusterID(), "data", broker.DataDir())
	if name := c.String("ready-file"); name != "" {
		if err := writeReady(name, ready{os.Getpid(), broker.ID(), broker.Addr(), broker.ClusterID()}); err != nil {
			return err
		}
		defer os.Remove(name)
	}
	tellManager(logger, daemon.SdNotifyReady, fmt.Sprintf("STATUS=node %d of cluster %s, serving %s", broker.ID(), broker.ClusterID(), broker.Advertised()))
	select {
	case <-c.Context.Done():
		logger.Info("stopping: handing leadership over")
		return nil
	case <-broker.Done():
		return Advised(broker.Err())
	}
}

// config is what the broker is started with.
func (b *broker) config(c *urfave.Context, logger *slog.Logger, levels *server.Levels) millrace.Config {
	cfg := millrace.Config{
		DataDir:   b.dataDir,
		Ephemeral: c.Bool("ephemeral"),

		NodeID: b.nodeID,
		Join:   b.join,
		Found:  c.Bool("found"),
		Rack:   b.rack,
		Users:  b.users,

		Settings:      b.settings,
		InterBroker:   b.listeners[b.nodes].name,
		Logger:        logger,
		Levels:        levels,
		Software:      term.Software(),
		TuneCollector: true,
	}
	for _, l := range b.listeners {
		cfg.Listeners = append(cfg.Listeners, millrace.Listener{Name: l.name, Listen: l.listen, Advertise: l.advertise, Hidden: l.only,
			Protocol: l.protocol, Certificate: l.certificate, Auto: l.auto, Insecure: l.insecure, Mechanisms: slices.Collect(list(l.mechanisms))})
	}
	return cfg
}

// brokerOf joins flags, environment and config file, in this order.
func brokerOf(c *urfave.Context) (*broker, error) {
	variables, err := flagsFromEnvironment(c)
	if err != nil {
		return nil, err
	}
	// says names a flag as whoever set it did.
	says := func(flag string) string {
		value := c.String(flag)
		if identity.IsToken(value) {
			value = "TOKEN"
		}
		if v := variables[flag]; v != "" {
			return "environment: " + v + "=" + value
		}
		return "--" + flag + " " + value
	}
	b := &broker{dataDir: c.String("data-dir"), settings: make(map[string]string)}
	b.listeners = []listener{{name: plaintextProtocol, listen: c.String("listen")}}
	if err := b.configure(c.String("config"), os.Environ(), knownVariables(), c.IsSet); err != nil {
		var all term.Mistakes
		if errors.As(err, &all) { // who mends them wants to hear of what has no effect, too
			for _, w := range b.warnings {
				all = append(all, "warning: "+w)
			}
			err = &term.Failure{Status: term.StatusUsage, Err: all}
		}
		return nil, err
	}
	if c.IsSet("node-id") {
		if c.Int("node-id") < 1 || c.Int("node-id") > 1<<30 {
			return nil, term.Usage("%s: it is 1 or more", says("node-id"))
		}
		b.nodeID = int32(c.Int("node-id"))
	}
	own := &b.listeners[b.nodes]
	if c.IsSet("advertise") {
		own.advertise = c.String("advertise")
		if why := UnreachableAddress(own.advertise); why != "" {
			return nil, term.Usage("%s: %s", says("advertise"), why)
		}
	}
	if c.IsSet("join") {
		if b.join, err = parseJoin(says("join"), c.String("join")); err != nil {
			return nil, err
		}
	}
	if c.Bool("found") && c.IsSet("join") {
		return nil, term.Usage("%s and --found exclude each other: one joins a cluster, the other founds one", says("join"))
	}
	b.founds = b.founds || c.Bool("found") // whatever a file says of voters
	if _, _, err := net.SplitHostPort(own.listen); err != nil {
		return nil, term.Usage("%s: it is HOST:PORT", says("listen"))
	}
	return b, b.secure(c)
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
			return nil, term.Usage("environment: %s=%s: it is %s", variable, value, what)
		}
		variables[name] = variable
	}
	return variables, nil
}

// knownVariables lists the variables that mean something to one of the commands.
func knownVariables() (all []string) {
	for _, c := range []*urfave.Command{ServeCommand(), UpCommand()} {
		for _, f := range c.Flags {
			all = append(all, variableOf(f.Names()[0]))
		}
	}
	return append(all, append(kafka.Variables(), userVariable, passwordVariable)...)
}

// NodeFile is in every data folder that has been served.
const NodeFile = "node.json"

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
	return segment.WriteFileUnsynced(segment.OS, name, append(b, '\n'))
}

// newLogger makes the node's logger, with levels that may be changed while it runs.
func newLogger(c *urfave.Context) (*slog.Logger, *server.Levels, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, nil, term.Usage("--log-level %q: it is one of debug, info, warn, error", c.String("log-level"))
	}
	levels := server.NewLevels(level)
	all := slog.NewTextHandler(c.App.ErrWriter, &slog.HandlerOptions{Level: slog.Level(math.MinInt)})
	return slog.New(levels.Handler(all)), levels, nil
}

// cannotListen explains why an address cannot be listened on; flag is the command's own
// that names another.
func cannotListen(address string, err error, flag string) error {
	switch {
	case errors.Is(err, term.ErrnoInUse):
		by := ""
		if pid := ListenerPID(address); pid > 0 {
			by = fmt.Sprintf(" by pid %d", pid)
		}
		return term.Fail(term.StatusFailed, "cannot listen on %s: address in use%s; choose another with %s", address, by, flag)
	case errors.Is(err, term.ErrnoNotAvailable):
		return term.Fail(term.StatusFailed, "cannot listen on %s: this machine does not have that address; choose another with %s", address, flag)
	case errors.Is(err, term.ErrnoNotAllowed):
		return term.Fail(term.StatusNotAllowed, "cannot listen on %s: not allowed; choose a port above 1023 with %s", address, flag)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	return term.Fail(term.StatusFailed, "cannot listen on %s: %v; choose another with %s", address, err, flag)
}

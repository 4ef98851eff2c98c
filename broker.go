// Package millrace runs a Kafka-compatible broker inside a Go program. This one starts a
// broker, produces, consumes and stops:
//
//	func main() {
//		ctx := context.Background()
//		broker, err := millrace.Start(ctx, millrace.Config{DataDir: "./data"})
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer broker.Shutdown(ctx)
//		client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()), kgo.AllowAutoTopicCreation(), kgo.ConsumeTopics("greetings"))
//		if err != nil {
//			log.Fatal(err)
//		}
//		defer client.Close()
//		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "greetings", Value: []byte("hello")}).FirstErr(); err != nil {
//			log.Fatal(err)
//		}
//		fmt.Println(string(client.PollFetches(ctx).Records()[0].Value))
//	}
//
// A broker founds a cluster of one, or joins others: it is the same broker that the
// command `millrace serve` runs, which stands on this package. Several may run in one
// process, each in a folder of its own. Package brokertest starts brokers for tests.
package millrace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/replication/metadata/settings"
	"millrace/security/certificate"
	"millrace/server"
	"millrace/server/audit"
	"millrace/server/coordinator"
	"millrace/server/mux"
)

// A Config says what a broker is and where it keeps its data.
type Config struct {
	// DataDir is the broker's folder, which no other may use. It is made if it is not
	// there. One that holds a broker's data is gone on with.
	DataDir string
	// Ephemeral keeps the data in a temporary folder that Shutdown removes, in the place
	// of DataDir.
	Ephemeral bool

	// Listen is HOST:PORT where clients and other brokers reach this one; port 0 is a free
	// one, which Broker.Addr tells. "": 127.0.0.1:0. While the cluster has no user, clients
	// come in from this machine alone: see Listener.
	Listen string
	// Advertise is the HOST:PORT that they are told. "": where it listens; with an
	// unspecified host, such as 0.0.0.0, this machine's first address.
	Advertise string
	// Listeners are where the broker listens in the place of Listen and Advertise, when
	// there is more to say of it than those do.
	Listeners []Listener
	// InterBroker is the name of the listener at which other brokers are told to reach
	// this one. "": the first.
	InterBroker string

	// NodeID is the broker's id, 1 or more. 0: what DataDir says; in an empty one 1 when
	// founding a cluster, or whatever the cluster gives.
	NodeID int32
	// Join lists addresses of brokers of a cluster to become a member of, where DataDir
	// is empty. None: a cluster is founded.
	Join []string
	// Found founds a cluster with an empty folder whatever speaks against it: a join that
	// was begun there, or brokers of another cluster that look for this one.
	Found bool
	// Users are those with whom a cluster begins that this broker founds. They are made
	// before it serves anybody, once: they have no effect on a cluster that has a user. The
	// first is a super user (super.users), and clients have to log in from then on.
	Users []UserSecret
	// Rack is where the broker stands, for the placement of replicas.
	Rack string
	// Settings are broker settings under Kafka's names, defaults for topics among them:
	// "num.partitions": "6". Units may be written where they are plain: "7d", "10MB".
	Settings map[string]string

	// Clock is the broker's clock. nil: the system's.
	Clock Clock
	// Logger takes diagnostics. nil: they are discarded.
	Logger *slog.Logger
	// Levels are the levels of Logger that clients may see and change, if its handler is
	// theirs. nil: INFO for all, and changing it has no effect.
	Levels *server.Levels
	// Software is the program and its version, which clients are told. "": nothing.
	Software string
	// TuneCollector sets the target of Go's garbage collector, which is the whole
	// process's, by what is live, until Shutdown: a broker that is small collects more
	// seldom, and a large one takes less. GOGC in the environment wins.
	TuneCollector bool
}

// A Listener is one of several addresses of a broker.
type Listener struct {
	// Name is what other brokers and clients know it by. Each broker of a cluster has the
	// same names. "": PLAINTEXT.
	Name string
	// Listen and Advertise are Config's, of this listener.
	Listen, Advertise string
	// Hidden keeps it from clients: it is not among the addresses they are told.
	Hidden bool
	// Protocol is what clients have to do, under Kafka's names. "": they log in once the
	// cluster has a user; before that they come in from this machine, and from others if
	// Insecure says so. A certificate that they show is a log-in, too.
	Protocol Protocol
	// Insecure lets clients in who do not log in, and takes their passwords unencrypted.
	Insecure bool
	// Mechanisms are those by which its clients may log in, of what the broker has; nil: all.
	Mechanisms []string
	// Certificate is what clients are shown that speak TLS, on the same port. nil: none.
	Certificate *certificate.Config
	// Auto shows one that the cluster's own authority issues, in its place: clients are
	// given the authority, which `millrace cluster ca` prints.
	Auto bool
}

// A Protocol is what clients of a listener have to do: listener.security.protocol.map.
type Protocol string

// The protocols.
const (
	Plaintext     Protocol = "PLAINTEXT"      // nothing
	SSL           Protocol = "SSL"            // speak TLS; who they are their certificates say, where these are asked for
	SASLPlaintext Protocol = "SASL_PLAINTEXT" // log in
	SASLSSL       Protocol = "SASL_SSL"       // log in, over TLS
)

// A Clock says what time it is: timestamps of records, their retention and compaction,
// sessions and rebalances of groups, and the expiry of committed offsets go by it. It may
// be set forward. Elections, connections and whatever waits for another broker or a client
// go by the system's clock, which tells how long something takes.
type Clock interface {
	// Now's times carry a monotonic reading, so that a system whose clock is set ends no
	// session.
	Now() time.Time
	// AfterFunc calls f in a goroutine of its own once Now is d later.
	AfterFunc(d time.Duration, f func()) Timer
}

// A Timer is what Clock.AfterFunc and time.AfterFunc return.
type Timer = coordinator.Timer

// A Broker is a running broker. Its methods may be called at once from many goroutines.
type Broker struct {
	cfg       Config
	logger    *slog.Logger
	audit     *audit.Log
	listeners []Listener // as they are: real ports, advertised addresses
	told      []string   // of each, what clients that came in by it are told: "" is where they did
	inter     int        // the one at which other brokers reach it

	certificates []server.Certificates // of each listener, nil: none

	node    *replication.Node
	kafka   *server.Server
	serving sync.WaitGroup // one for each listener's clients and peers
	tuned   *tunedCollector

	failOnce sync.Once
	failure  error         // set before done is closed
	done     chan struct{} // closed when it serves no more

	stopOnce sync.Once
	stopErr  error // set before stopped is closed
	stopped  chan struct{}
}

// A ListenError is why Start could not listen on an address.
type ListenError struct {
	Addr string
	Err  error
}

func (e *ListenError) Error() string { return fmt.Sprintf("listen on %s: %v", e.Addr, e.Err) }

// Unwrap returns the system's error.
func (e *ListenError) Unwrap() error { return e.Err }

const (
	defaultListen = "127.0.0.1:0"
	defaultName   = "PLAINTEXT"

	// stopTimeout bounds how long a broker that could not start takes to stop.
	stopTimeout = 10 * time.Second
)

// Start starts a broker and returns once it serves. ctx bounds the start alone: that of a
// broker that joins a cluster takes until another takes it in.
//
// Shutdown must be called of what it returns. After an error nothing is left running.
func Start(ctx context.Context, cfg Config) (*Broker, error) {
	b := &Broker{cfg: cfg, logger: cfg.Logger, done: make(chan struct{}), stopped: make(chan struct{})}
	if b.logger == nil {
		b.logger = slog.New(slog.DiscardHandler)
	}
	if err := b.complete(); err != nil {
		return nil, err
	}
	if cfg.TuneCollector {
		b.tuned = tuneCollector()
	}
	opened, err := b.listen()
	if err == nil {
		err = b.open()
	}
	if err != nil {
		for _, l := range opened {
			l.Close()
		}
		b.release()
		return nil, err
	}
	if err := b.start(ctx, opened); err != nil {
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		b.Shutdown(stop)
		return nil, err
	}
	return b, nil
}

// complete checks the configuration and puts defaults into it.
func (b *Broker) complete() error {
	cfg := &b.cfg
	switch {
	case runtime.GOOS == "windows": // where what is mapped can be neither removed nor replaced
		return errors.New("millrace: brokers do not run on Windows")
	case cfg.Ephemeral && cfg.DataDir != "":
		return errors.New("millrace: Config has a DataDir and is Ephemeral, which exclude each other")
	case !cfg.Ephemeral && cfg.DataDir == "":
		return errors.New("millrace: Config names no DataDir, and is not Ephemeral")
	case len(cfg.Listeners) > 0 && (cfg.Listen != "" || cfg.Advertise != ""):
		return errors.New("millrace: Config has Listeners besides Listen or Advertise, whose place they take")
	}
	b.listeners = append(b.listeners, cfg.Listeners...)
	if len(b.listeners) == 0 {
		b.listeners = []Listener{{Listen: cfg.Listen, Advertise: cfg.Advertise}}
	}
	b.inter = -1
	names := make(map[string]bool)
	for i := range b.listeners {
		l := &b.listeners[i]
		if l.Name == "" {
			l.Name = defaultName
		}
		if l.Listen == "" {
			l.Listen = defaultListen
		}
		if names[l.Name] {
			return fmt.Errorf("millrace: Config has two listeners called %s", l.Name)
		}
		names[l.Name] = true
		if b.inter < 0 && (cfg.InterBroker == "" || cfg.InterBroker == l.Name) {
			b.inter = i
		}
	}
	if b.inter < 0 {
		return fmt.Errorf("millrace: Config.InterBroker is %s, which is no listener's name", cfg.InterBroker)
	}
	if err := errors.Join(b.takeSettings(), b.takeUsers(), b.readCertificates()); err != nil {
		return err
	}
	if cfg.Ephemeral {
		dir, err := os.MkdirTemp("", "millrace-")
		if err != nil {
			return err
		}
		cfg.DataDir = dir
	}
	return nil
}

// takeSettings checks the settings and writes them as they are meant: "7d" has become
// milliseconds. All that cannot be read is told at once; names that have no meaning are
// warned of.
func (b *Broker) takeSettings() error {
	var mistakes []error
	meant := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(b.cfg.Settings)) {
		d, known := settings.BrokerDefinition(name)
		value := b.cfg.Settings[name]
		if !known {
			b.logger.Warn("a setting has no effect: there is none of that name", "name", name)
			continue
		}
		value = d.Plain(value)
		if _, err := d.Validate(value); err != nil {
			mistakes = append(mistakes, fmt.Errorf("millrace: setting %s=%s: it is %s", name, b.cfg.Settings[name], d.Allowed()))
		}
		meant[name] = value
	}
	b.cfg.Settings = meant
	return errors.Join(mistakes...)
}

// listen listens at all addresses, and fills in what the system and the machine say of them.
func (b *Broker) listen() (all []net.Listener, err error) {
	for i := range b.listeners {
		l := &b.listeners[i]
		opened, err := net.Listen("tcp", l.Listen)
		if err != nil {
			return all, &ListenError{l.Listen, err}
		}
		all = append(all, opened)
		l.Listen = opened.Addr().String()
		b.told = append(b.told, l.Advertise)
		if l.Advertise == "" {
			l.Advertise = reachable(l.Listen)
		}
	}
	return all, nil
}

// describe puts what the broker is among its settings, where DescribeConfigs looks for it.
// The id follows when the node knows it.
func (b *Broker) describe(settings map[string]string) {
	var listens, told []string
	for i, l := range b.listeners {
		listens = append(listens, l.Name+"://"+l.Listen)
		if b.told[i] != "" {
			told = append(told, l.Name+"://"+b.told[i])
		}
	}
	settings["listeners"] = strings.Join(listens, ",")
	settings["log.dirs"] = b.cfg.DataDir
	delete(settings, "advertised.listeners")
	if len(told) > 0 {
		settings["advertised.listeners"] = strings.Join(told, ",")
	}
	if b.cfg.Rack != "" {
		settings["broker.rack"] = b.cfg.Rack
	}
}

// registered lists what clients are told by listener, nothing when there is only one.
func (b *Broker) registered() (all []metadata.Listener) {
	for _, l := range b.listeners {
		if !l.Hidden {
			all = append(all, metadata.Listener{Name: l.Name, Address: l.Advertise})
		}
	}
	if len(all) < 2 {
		return nil
	}
	return all
}

// open opens the broker's folder.
func (b *Broker) open() error {
	cfg, own := b.cfg, b.listeners[b.inter]
	b.describe(cfg.Settings)
	var err error
	if b.audit, err = audit.Open(settings.Layers{Static: cfg.Settings}.Broker().Access.AuditLog, b.logger); err != nil {
		return fmt.Errorf("open the file of millrace.audit.log.path: %w", err)
	}
	var now func() time.Time
	if cfg.Clock != nil {
		now = cfg.Clock.Now
	}
	node, err := replication.Open(replication.Config{
		DataDir:    cfg.DataDir,
		NodeID:     cfg.NodeID,
		Advertise:  own.Advertise,
		Listeners:  b.registered(),
		Join:       cfg.Join,
		Found:      cfg.Found,
		FoundAfter: listenFirst(own.Advertise, cfg.Ephemeral),
		Users:      b.firstUsers(),
		Rack:       cfg.Rack,
		Settings:   cfg.Settings,
		Logger:     cfg.Logger,
		Now:        now,
	})
	if err != nil {
		return fmt.Errorf("open %s: %w", cfg.DataDir, err)
	}
	b.node = node
	b.kafka = &server.Server{
		Node: node, Advertised: b.told[b.inter], DataDir: cfg.DataDir, Software: cfg.Software, Logger: b.logger, Levels: cfg.Levels,
		Clock: cfg.Clock, Auditor: b.audit,
	}
	return nil
}

// start has the node find its cluster, and then clients be served. Until it has the
// cluster's metadata it talks to other nodes only: it would tell a client that no topic
// exists.
func (b *Broker) start(ctx context.Context, opened []net.Listener) error {
	var muxes []*mux.Mux
	for i, l := range opened {
		own := b.serverListener(i, l)
		m := b.kafka.Mux(own)
		peers := m.Peers()
		b.serving.Go(func() { b.node.Serve(peers) }) // ends with kafka.Shutdown
		muxes = append(muxes, m)
	}
	if err := b.node.Start(ctx); err != nil {
		return fmt.Errorf("start: %w", err)
	}
	for i, m := range muxes {
		clients := b.serverListener(i, m.Kafka())
		b.serving.Go(func() { // ends with kafka.Shutdown
			if err := b.kafka.Serve(clients); !errors.Is(err, server.ErrClosed) {
				b.fail(fmt.Errorf("serve %s: %w", clients.Addr(), err))
			}
		})
	}
	go func() { // the watch: ends with the broker
		select {
		case <-b.node.Failed():
			b.fail(b.node.Failure())
		case <-b.done:
		}
	}()
	return nil
}

// serverListener is what the server has to know of a listener.
func (b *Broker) serverListener(i int, l net.Listener) *server.Listener {
	cfg := &b.listeners[i]
	s := &server.Listener{Listener: l, Name: cfg.Name, Advertised: b.told[i], Insecure: cfg.Insecure, Mechanisms: cfg.Mechanisms, Certificates: b.certificates[i]}
	switch cfg.Protocol {
	case Plaintext:
		s.Access = server.AccessOpen
	case SSL:
		s.Access, s.OnlyTLS = server.AccessOpen, true
	case SASLPlaintext:
		s.Access = server.AccessAuthenticated
	case SASLSSL:
		s.Access, s.OnlyTLS = server.AccessAuthenticated, true
	default:
		if s.Remote = cfg.Insecure; cfg.Insecure {
			s.Access = server.AccessOpen
		}
	}
	return s
}

// readCertificates reads what clients are shown.
func (b *Broker) readCertificates() error {
	var wrong []error
	b.certificates = make([]server.Certificates, len(b.listeners))
	for i := range b.listeners {
		l := &b.listeners[i]
		switch {
		case l.Certificate != nil && l.Auto:
			wrong = append(wrong, fmt.Errorf("millrace: listener %s has a Certificate and is Auto, which exclude each other", l.Name))
		case l.Certificate != nil:
			cfg := *l.Certificate
			cfg.Logger = b.logger
			source, err := certificate.New(cfg)
			if err != nil {
				wrong = append(wrong, fmt.Errorf("millrace: listener %s: %w", l.Name, err))
				continue
			}
			b.certificates[i] = source
		case l.Auto:
			b.certificates[i] = &ownCertificate{broker: b, listener: i}
		case l.Protocol == SSL || l.Protocol == SASLSSL:
			wrong = append(wrong, fmt.Errorf("millrace: listener %s speaks %s, and has no certificate: --tls-cert and --tls-key, ssl.keystore.location, or --tls auto", l.Name, l.Protocol))
		}
	}
	return errors.Join(wrong...)
}

// fail ends the broker's service; nil says that it was shut down.
func (b *Broker) fail(err error) {
	b.failOnce.Do(func() {
		b.failure = err
		close(b.done)
	})
}

// Addr returns HOST:PORT where the broker listens for clients and other brokers: Config's
// with the real port.
func (b *Broker) Addr() string { return b.listeners[b.inter].Listen }

// Listeners returns where the broker listens, with the real ports, and what others are told.
func (b *Broker) Listeners() []Listener { return append([]Listener(nil), b.listeners...) }

// Advertised returns the HOST:PORT that other brokers are told.
func (b *Broker) Advertised() string { return b.listeners[b.inter].Advertise }

// ID returns the broker's id in its cluster.
func (b *Broker) ID() int32 { return b.node.ID() }

// ClusterID returns the cluster's id, 22 characters of base64.
func (b *Broker) ClusterID() string { return b.node.ClusterID() }

// DataDir returns the folder that holds the broker's data.
func (b *Broker) DataDir() string { return b.cfg.DataDir }

// Done returns a channel that is closed when the broker serves no more: after Shutdown, or
// because it cannot go on, which Err tells. In that case too Shutdown must be called.
func (b *Broker) Done() <-chan struct{} { return b.done }

// Err returns why the broker cannot go on; nil while it serves, and after Shutdown.
func (b *Broker) Err() error {
	select {
	case <-b.done:
		return b.failure
	default:
		return nil
	}
}

// Shutdown ends the broker in this order: leadership goes to other brokers while clients can
// still be told so, every log is closed, then the listeners and the connections. When ctx
// ends first, it is left at that, and ctx's error is returned: what was acknowledged is on
// disk either way. Further calls wait for the first.
func (b *Broker) Shutdown(ctx context.Context) error {
	begin := time.Now()
	first := false
	b.stopOnce.Do(func() {
		first = true
		go b.stop(ctx) // the stopper: ends with the broker
	})
	var err error
	select {
	case <-b.stopped:
		err = b.stopErr
	case <-ctx.Done():
		err = ctx.Err()
		if b.cfg.Ephemeral {
			os.RemoveAll(b.cfg.DataDir)
		}
	}
	switch {
	case first && err != nil:
		b.logger.Warn("stopped, but not in order", "error", err)
	case first:
		b.logger.Info("stopped", "took", time.Since(begin).Round(time.Millisecond))
	}
	return err
}

func (b *Broker) stop(ctx context.Context) {
	b.stopErr = errors.Join(b.node.Shutdown(ctx), b.kafka.Shutdown(ctx))
	b.serving.Wait()
	b.fail(nil)
	b.release()
	close(b.stopped)
}

// release gives back what the broker has besides its node.
func (b *Broker) release() {
	b.tuned.stop()
	if b.audit != nil {
		b.audit.Close()
	}
	if b.cfg.Ephemeral {
		os.RemoveAll(b.cfg.DataDir)
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

// reachable is the address a broker registers under when it is told none: the one
// it listens on, with the machine's first address in the place of "all of them".
func reachable(listening string) string {
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

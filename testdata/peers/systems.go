package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

const (
	kafkaRelease = "4.1.2"
	natsModule   = "github.com/nats-io/nats-server/v2"
)

// nodes is how many brokers every system has.
const nodes = 3

// A system is a cluster of three brokers on this machine, of one kind. Its
// methods are called by one goroutine.
type system struct {
	kind    kind
	dir     string // of its data and logs
	ports   [nodes]int
	extra   [nodes]int // a second port of each broker, where the kind needs one
	brokers [nodes]*process
	began   time.Time // when the first process was started, last
}

// A kind says how to run one sort of broker.
type kind interface {
	name() string
	version() string
	// prepare makes a fresh system's files, before any clock runs.
	prepare(s *system) error
	// launch starts broker i. again: it has run on this folder before.
	launch(s *system, i int, again bool) (*process, error)
	// ready waits until broker i takes part, if others must wait for that.
	ready(ctx context.Context, s *system, i int) error
}

// newSystem lays a system out in a folder of its own. Nothing runs yet.
func newSystem(k kind, root string) (*system, error) {
	dir, err := os.MkdirTemp(root, k.name()+"-")
	if err != nil {
		return nil, err
	}
	s := &system{kind: k, dir: dir}
	var held []net.Listener
	for i := range 2 * nodes {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		held = append(held, l)
		port := l.Addr().(*net.TCPAddr).Port
		if i < nodes {
			s.ports[i] = port
		} else {
			s.extra[i-nodes] = port
		}
	}
	for _, l := range held {
		l.Close()
	}
	return s, k.prepare(s)
}

// start starts all brokers.
func (s *system) start(ctx context.Context, again bool) error {
	s.began = time.Now()
	for i := range nodes {
		if err := s.launch(i, again); err != nil {
			return err
		}
		if i == 0 && !again {
			if err := s.kind.ready(ctx, s, i); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *system) launch(i int, again bool) (err error) {
	s.brokers[i], err = s.kind.launch(s, i, again)
	return err
}

// end ends all brokers and removes their folders.
func (s *system) end() {
	for _, p := range s.brokers {
		if p != nil {
			p.kill()
		}
	}
	os.RemoveAll(s.dir)
}

func (s *system) address(i int) string { return fmt.Sprintf("127.0.0.1:%d", s.ports[i]) }

func (s *system) addresses() []string {
	var all []string
	for i := range nodes {
		all = append(all, s.address(i))
	}
	return all
}

func (s *system) folder(i int) string { return filepath.Join(s.dir, fmt.Sprint("node-", i+1)) }
func (s *system) log(i int) string    { return s.folder(i) + ".log" }

// cpu is the processor time of all brokers together.
func (s *system) cpu() (sum time.Duration) {
	for _, p := range s.brokers {
		sum += cpuOf(p.pid())
	}
	return sum
}

// memory is the largest broker's, in bytes: VmHWM or VmRSS.
func (s *system) memory(line string) (most int64) {
	for _, p := range s.brokers {
		most = max(most, memoryOf(p.pid(), line))
	}
	return most
}

// A millrace is our own binary, built from this tree.
type millrace struct{ binary, commit string }

func (millrace) name() string          { return "millrace" }
func (m millrace) version() string     { return "millrace " + m.commit }
func (millrace) prepare(*system) error { return nil }

func (m millrace) launch(s *system, i int, again bool) (*process, error) {
	os.Remove(s.folder(i) + ".ready")
	args := []string{"serve", "--data-dir", s.folder(i), "--listen", s.address(i), "--ready-file", s.folder(i) + ".ready"}
	if !again {
		args = append(args, "--node-id", fmt.Sprint(i+1))
		if i > 0 {
			args = append(args, "--join", s.address(0))
		}
	}
	return start(s.log(i), nil, m.binary, args...)
}

func (m millrace) ready(ctx context.Context, s *system, i int) error {
	for {
		if _, err := os.Stat(s.folder(i) + ".ready"); err == nil {
			return nil
		}
		if err := s.pause(ctx, i, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits a moment for broker i, unless there is nothing to wait for.
func (s *system) pause(ctx context.Context, i int, d time.Duration) error {
	select {
	case <-s.brokers[i].exited:
		b, _ := os.ReadFile(s.log(i))
		return fmt.Errorf("broker %d of %s has ended: %s", i+1, s.kind.name(), b[max(0, len(b)-1000):])
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// A kafka is Apache Kafka in KRaft mode, every node broker and controller, with
// the options of its own start script.
type kafka struct{ java, lib string }

func (kafka) name() string    { return "kafka" }
func (kafka) version() string { return "Apache Kafka " + kafkaRelease }

// prepareKafka fetches the jars into a folder that stays between runs.
func prepareKafka(pom string) (kafka, error) {
	k := kafka{java: "java"}
	if _, err := exec.LookPath("java"); err != nil {
		return k, fmt.Errorf("java is not installed: apt-get install default-jre-headless")
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return k, err
	}
	k.lib = filepath.Join(cache, "millrace-peers", "kafka-"+kafkaRelease)
	complete := filepath.Join(k.lib, ".complete")
	if _, err := os.Stat(complete); err == nil {
		return k, nil
	}
	if err := os.MkdirAll(k.lib, 0o755); err != nil {
		return k, err
	}
	if _, _, err := run(10*time.Minute, "mvn", "-q", "-B", "-f", pom, "-Dkafka.version="+kafkaRelease, "-Dpeers.lib="+k.lib, "package"); err != nil {
		return k, fmt.Errorf("fetch Kafka's jars (needs maven: apt-get install maven): %w", err)
	}
	return k, os.WriteFile(complete, nil, 0o644)
}

func (k kafka) config(s *system, i int) string { return s.folder(i) + ".properties" }

func (k kafka) prepare(s *system) error {
	var voters []string
	for i := range nodes {
		voters = append(voters, fmt.Sprintf("%d@127.0.0.1:%d", i+1, s.extra[i]))
	}
	for i := range nodes {
		settings := fmt.Sprintf(`process.roles=broker,controller
node.id=%d
controller.quorum.voters=%s
listeners=PLAINTEXT://%s,CONTROLLER://127.0.0.1:%d
advertised.listeners=PLAINTEXT://%[3]s
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=%[5]s
min.insync.replicas=2
default.replication.factor=3
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
auto.create.topics.enable=false
`, i+1, strings.Join(voters, ","), s.address(i), s.extra[i], s.folder(i))
		if err := os.WriteFile(k.config(s, i), []byte(settings), 0o644); err != nil {
			return err
		}
		if _, _, err := run(time.Minute, k.java, "-Xmx256m", "-cp", k.lib+"/*", "kafka.tools.StorageTool",
			"format", "-t", "bWlsbHJhY2UtcGVlcnMtMQ", "-c", k.config(s, i)); err != nil {
			return err
		}
	}
	return nil
}

func (k kafka) launch(s *system, i int, _ bool) (*process, error) {
	return start(s.log(i), nil, k.java, "-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-Djava.awt.headless=true",
		"-cp", k.lib+"/*", "kafka.Kafka", k.config(s, i))
}

func (kafka) ready(context.Context, *system, int) error { return nil }

// A natsServer is NATS with JetStream, its streams on disk.
type natsServer struct{ binary, release string }

func (natsServer) name() string      { return "nats" }
func (n natsServer) version() string { return "NATS JetStream " + n.release }

func (n natsServer) prepare(s *system) error {
	var routes []string
	for i := range nodes {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", s.extra[i]))
	}
	for i := range nodes {
		settings := fmt.Sprintf(`server_name: n%d
listen: %s
max_payload: 2MB
jetstream { store_dir: %q }
cluster { name: peers, listen: "127.0.0.1:%d", routes: [%s] }
`, i+1, s.address(i), s.folder(i), s.extra[i], strings.Join(routes, ", "))
		if err := os.WriteFile(s.folder(i)+".conf", []byte(settings), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (n natsServer) launch(s *system, i int, _ bool) (*process, error) {
	return start(s.log(i), nil, n.binary, "-c", s.folder(i)+".conf")
}

func (natsServer) ready(context.Context, *system, int) error { return nil }

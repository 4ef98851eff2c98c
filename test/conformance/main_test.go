//go:build conformance

package conformance

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// patience guards against hanging; a slow machine never fails a test by it.
const patience = 60 * time.Second

// The cluster under test: shared by all cells, each of which has topics and
// groups of its own.
var (
	brokers     []string // HOST:PORT
	replication int16
	nodes       string // the folder of the nodes' folders and logs; "" when the cluster is another's
	suffix      string // of names, where the cluster may know them from an earlier run
	own         *kgo.Client
	admin       *kadm.Client
	program     string   // millrace itself; "" when the cluster is another's
	stops       []func() // what cells started for all, and who ends it
)

func TestMain(m *testing.M) {
	// The kernel ties a child's parent-death signal to the thread that made it,
	// and the main goroutine's thread lives as long as the process.
	runtime.LockOSThread()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "millrace-conformance-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		stop, err := startCluster(dir)
		if err == nil {
			err = connect()
		}
		if err != nil {
			stop()
			fmt.Fprintf(os.Stderr, "start a cluster: %v\n", err)
			return 1
		}
		status := m.Run()
		own.Close()
		for _, also := range stops {
			also()
		}
		stop()
		results.print()
		if status == 0 && os.Getenv("CONFORMANCE_KEEP") == "" {
			os.RemoveAll(dir)
		} else {
			fmt.Printf("the nodes' folders and logs are in %s\n", dir)
		}
		return status
	}())
}

// startCluster runs `millrace up 3` on free ports, or uses the brokers that
// CONFORMANCE_BROKERS names: to hold the programs themselves against Apache
// Kafka. stop may be called whatever the error.
func startCluster(dir string) (stop func(), err error) {
	if named := os.Getenv("CONFORMANCE_BROKERS"); named != "" {
		brokers = strings.Split(named, ",")
		suffix = fmt.Sprintf("-%06d", rand.IntN(1_000_000))
		return func() {}, nil
	}
	program = filepath.Join(dir, "millrace")
	args := []string{"build", "-o", program}
	if os.Getenv("CONFORMANCE_RACE") != "" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "millrace/cli/millrace")...).CombinedOutput(); err != nil {
		return func() {}, fmt.Errorf("build ./cli/millrace: %w\n%s", err, out)
	}
	nodes = filepath.Join(dir, "data")
	brokers, stop, err = up(nodes)
	return stop, err
}

// up runs `millrace up 3` on a folder and free ports, with some variables of the
// environment besides. stop may be called whatever the error.
func up(data string, variables ...string) (brokers []string, stop func(), err error) {
	base := freePorts(3)
	for i := range 3 {
		brokers = append(brokers, net.JoinHostPort("127.0.0.1", strconv.Itoa(base+i)))
	}
	var output bytes.Buffer
	up := exec.Command(program, "up", "3", "--base-port", strconv.Itoa(base), "--data-dir", data)
	up.Env = append(os.Environ(), variables...)
	up.Stdout, up.Stderr = &output, &output
	up.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := up.Start(); err != nil {
		return brokers, func() {}, err
	}
	return brokers, func() {
		up.Process.Signal(syscall.SIGTERM)
		if err := up.Wait(); err != nil {
			fmt.Printf("millrace up: %v\n%s", err, output.Bytes())
		}
	}, nil
}

// freePorts returns the first of n ports in a row that nobody listens on. They
// lie below the range from which the kernel takes the ports of outgoing
// connections.
func freePorts(n int) int {
next:
	for {
		base := 20000 + rand.IntN(12000)
		for i := range n {
			l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", base+i))
			if err != nil {
				continue next
			}
			l.Close()
		}
		return base
	}
}

// connect opens this package's own client and waits until all brokers are members.
func connect() (err error) {
	own, err = kgo.NewClient(
		kgo.SeedBrokers(brokers...),
		kgo.MetadataMinAge(50*time.Millisecond),
		kgo.UnknownTopicRetries(-1),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	if err != nil {
		return err
	}
	admin = kadm.NewClient(own)
	admin.SetTimeoutMillis(30_000)
	replication = int16(min(3, len(brokers)))
	return allThere(own, len(brokers))
}

// allThere waits until a client hears of so many brokers.
func allThere(client *kgo.Client, n int) error {
	deadline := time.Now().Add(patience)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		// Only a question that asks for more is asked: else kadm answers with the brokers
		// that its client has heard of, and the client asks every five minutes.
		m, err := kadm.NewClient(client).BrokerMetadata(kadm.WithAuthorizedOps(ctx))
		cancel()
		if err == nil && len(m.Brokers) >= n {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not all of %d brokers are members after %v: %v, %w", n, patience, m.Brokers.NodeIDs(), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

//go:build faults

package faults

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/kafka"
	"millrace/internal/testcluster"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// patience guards against hanging; a slow machine never fails a test by it.
const patience = 60 * time.Second

// A cluster is a testcluster.Cluster, and what these tests ask of it as its clients. Its
// methods are called from the test's goroutine.
type cluster struct {
	*testcluster.Cluster
	t     *testing.T
	nodes []*node // Cluster's
}

// A node is a testcluster.Node, and where it runs.
type node struct {
	*testcluster.Node
	t      *testing.T
	host   *host // nil for the test's own
	others int   // the process that runs it, where that is not this one's child: TestRole
}

// PID is the process that runs the node.
func (n *node) PID() int { return cmp.Or(n.others, n.Node.PID()) }

// newCluster lays out n nodes. prepare, which may be nil, may give a node another
// data folder or more arguments before anything runs. The cluster is killed and its
// folder removed when the test ends; the folder stays when it failed, or when
// FAULTS_KEEP is set.
func newCluster(t *testing.T, n int, prepare func(*node)) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "millrace-faults-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() || os.Getenv("FAULTS_KEEP") != "" {
			t.Logf("the nodes' folders and logs are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	c := &cluster{t: t}
	c.Cluster = testcluster.New(t, binary, dir, n, func(of *testcluster.Node) {
		n := &node{Node: of, t: t}
		if level := os.Getenv("FAULTS_LOG_LEVEL"); level != "" {
			n.Args = append(n.Args, "--log-level", level)
		}
		if prepare != nil {
			prepare(n)
		}
		c.nodes = append(c.nodes, n)
	})
	return c
}

// startCluster is newCluster, started and with all nodes members.
func startCluster(t *testing.T, n int, prepare func(*node)) *cluster {
	t.Helper()
	c := newCluster(t, n, prepare)
	c.form()
	return c
}

// form starts the nodes for the first time and waits until all are members.
func (c *cluster) form() {
	c.t.Helper()
	c.Start()
	admin := c.admin()
	eventually(c.t, patience, "all brokers are members", func() error {
		m, err := brokerMetadata(admin)
		if err == nil && len(m.Brokers) != len(c.nodes) {
			err = fmt.Errorf("brokers %v", m.Brokers.NodeIDs())
		}
		return err
	})
	c.AwaitHealthy()
}

// each calls f for all nodes.
func (c *cluster) each(f func(*node)) {
	for _, n := range c.nodes {
		f(n)
	}
}

// restart starts the nodes given, in that order, and waits until all serve.
func (c *cluster) restart(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		n.Start()
	}
	for _, n := range nodes {
		n.AwaitReady()
	}
}

// mustLive returns what fails the test if a node's process is another by then than now.
func (c *cluster) mustLive() (check func()) {
	pids := make(map[int32]int)
	c.each(func(n *node) { pids[n.ID] = n.PID() })
	return func() {
		c.t.Helper()
		c.each(func(n *node) {
			if !n.Running() || n.PID() != pids[n.ID] {
				c.t.Errorf("node %d did not live through it", n.ID)
			}
		})
	}
}

// node returns the node with an id.
func (c *cluster) node(id int32) *node {
	c.t.Helper()
	if id < 1 || int(id) > len(c.nodes) {
		c.t.Fatalf("there is no node %d", id)
	}
	return c.nodes[id-1]
}

// client returns a client that looks for new leaders every 20 ms. It is closed
// when the test ends.
func (c *cluster) client(options ...kgo.Opt) *kgo.Client {
	c.t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(c.Addresses()...),
		kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.MetadataMaxAge(5 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.DialTimeout(2 * time.Second),
		kgo.UnknownTopicRetries(-1),
	}, options...)...)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(client.Close)
	return client
}

func (c *cluster) admin() *kadm.Client { return kadm.NewClient(c.client()) }

// brokerMetadata asks a broker who is there. BrokerMetadata by itself answers with the
// brokers that its client has heard of, and the client asks every five minutes.
func brokerMetadata(admin *kadm.Client) (kadm.Metadata, error) {
	return admin.BrokerMetadata(kadm.WithAuthorizedOps(context.Background()))
}

// createTopic makes a topic whose records stay for ever, with three replicas
// where there are as many nodes. settings are KEY=VALUE.
func (c *cluster) createTopic(name string, partitions int32, settings ...string) {
	c.t.Helper()
	configs := map[string]*string{"retention.ms": ptr("-1")}
	for _, s := range settings {
		k, v, _ := strings.Cut(s, "=")
		configs[k] = &v
	}
	admin := c.admin()
	admin.SetTimeoutMillis(60_000)
	_, err := admin.CreateTopic(context.Background(), partitions, int16(min(3, len(c.nodes))), configs, name)
	if err != nil {
		c.t.Fatalf("create topic %s: %v", name, err)
	}
	c.awaitLeaders(name)
	kafka.Abreast(context.Background(), admin) // whichever is asked next
}

func ptr[T any](v T) *T { return &v }

// describe returns what the cluster says of a topic.
func (c *cluster) describe(admin *kadm.Client, topic string) (kadm.TopicDetail, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := admin.ListTopics(ctx, topic)
	if err != nil {
		return kadm.TopicDetail{}, err
	}
	return all[topic], all[topic].Err
}

// awaitLeaders waits until every partition of a topic has a leader.
func (c *cluster) awaitLeaders(topic string) {
	c.t.Helper()
	admin := c.admin()
	eventually(c.t, patience, "leaders of "+topic, func() error {
		d, err := c.describe(admin, topic)
		if err != nil {
			return err
		}
		for _, p := range d.Partitions.Sorted() {
			if p.Err != nil || p.Leader < 0 {
				return fmt.Errorf("partition %d: leader %d, %v", p.Partition, p.Leader, p.Err)
			}
		}
		return nil
	})
}

// awaitPreferred waits until every partition of a topic is led by its first replica: from
// then on leadership stays where it is unless something happens. On a busy machine another
// may be elected first, and hands it back after ten seconds.
func (c *cluster) awaitPreferred(topic string) {
	c.t.Helper()
	admin := c.admin()
	eventually(c.t, patience, "leaders of "+topic+" are the preferred ones", func() error {
		d, err := c.describe(admin, topic)
		if err != nil {
			return err
		}
		for _, p := range d.Partitions.Sorted() {
			if p.Err != nil || p.Leader != p.Replicas[0] {
				return fmt.Errorf("partition %d: leader %d, replicas %v, %v", p.Partition, p.Leader, p.Replicas, p.Err)
			}
		}
		return nil
	})
}

// awaitInSync waits until every partition of a topic has a leader which says that
// all replicas are in sync. Only the leader knows.
func (c *cluster) awaitInSync(topic string) {
	c.t.Helper()
	client := c.client()
	defer client.Close()
	admin := kadm.NewClient(client)
	eventually(c.t, patience, "replicas of "+topic+" in sync", func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		d, err := c.describe(admin, topic)
		if err != nil {
			return err
		}
		led := make(map[int32][]int32) // partitions by leader
		for _, p := range d.Partitions.Sorted() {
			if p.Err != nil || p.Leader < 0 {
				return fmt.Errorf("partition %d: leader %d, %v", p.Partition, p.Leader, p.Err)
			}
			led[p.Leader] = append(led[p.Leader], p.Partition)
		}
		for leader, partitions := range led {
			req := kmsg.NewPtrMetadataRequest()
			req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
			answer, err := client.Broker(int(leader)).Request(ctx, req)
			if err != nil {
				return err
			}
			for _, p := range answer.(*kmsg.MetadataResponse).Topics[0].Partitions {
				if slices.Contains(partitions, p.Partition) && (p.Leader != leader || len(p.ISR) != len(p.Replicas)) {
					return fmt.Errorf("partition %d: node %d says leader %d, replicas %v, in sync %v", p.Partition, leader, p.Leader, p.Replicas, p.ISR)
				}
			}
		}
		return nil
	})
}

// leader returns the node that leads a partition.
func (c *cluster) leader(topic string, partition int32) *node {
	c.t.Helper()
	admin := c.admin()
	var leader int32
	eventually(c.t, patience, fmt.Sprintf("leader of %s/%d", topic, partition), func() error {
		d, err := c.describe(admin, topic)
		if err != nil {
			return err
		}
		p := d.Partitions[partition]
		leader = p.Leader
		if p.Err != nil || leader < 1 {
			return fmt.Errorf("leader %d, %v", leader, p.Err)
		}
		return nil
	})
	return c.node(leader)
}

// controller returns the node that leads the controller group, as a broker says.
func (c *cluster) controller() *node {
	c.t.Helper()
	admin := c.admin()
	var id int32
	eventually(c.t, patience, "a controller", func() error {
		m, err := brokerMetadata(admin)
		if err == nil && m.Controller < 1 {
			err = fmt.Errorf("controller %d", m.Controller)
		}
		id = m.Controller
		return err
	})
	return c.node(id)
}

// run runs the binary as a client of the cluster.
func (c *cluster) run(stdin io.Reader, args ...string) (out, errs string, status int) {
	c.t.Helper()
	return c.exec(stdin, binary, append(slices.Clone(args), "--brokers", strings.Join(c.Addresses(), ","))...)
}

// exec runs a program to its end.
func (c *cluster) exec(stdin io.Reader, name string, args ...string) (out, errs string, status int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		status = exit.ExitCode()
	case err != nil:
		c.t.Fatalf("%s %s: %v", name, strings.Join(args, " "), err)
	}
	return stdout.String(), stderr.String(), status
}

// usage is what a process has used of the machine.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// usage reads /proc; zero where there is none.
func (n *node) usage() (u usage) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux Go runs on
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.PID())); err == nil {
		// The second field, in parentheses, may hold spaces.
		if _, rest, ok := bytes.Cut(b, []byte(") ")); ok {
			f := strings.Fields(string(rest))
			var user, system int64
			fmt.Sscan(f[11], &user)
			fmt.Sscan(f[12], &system)
			u.cpu = time.Duration(user+system) * tick
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.PID())); err == nil {
		var size, resident int64
		fmt.Sscan(string(b), &size, &resident)
		u.rss = resident * int64(os.Getpagesize())
	}
	return u
}

// diskUsed returns the bytes that files under dir take on the disk.
func diskUsed(dir string) (used int64) {
	filepath.Walk(dir, func(_ string, info os.FileInfo, err error) error {
		if err != nil {
			return nil
		}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			used += s.Blocks * 512
		}
		return nil
	})
	return used
}

// retriable tells whether a client is meant to try again.
func retriable(code int16) bool { return kerr.IsRetriable(kerr.ErrorForCode(code)) }

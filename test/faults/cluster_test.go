//go:build faults

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// patience guards against hanging; a slow machine never fails a test by it.
const patience = 60 * time.Second

// A cluster is several serve processes, an address and a data folder each. Its
// methods are called from the test's goroutine.
type cluster struct {
	t     *testing.T
	dir   string
	nodes []*node
}

// A node is one broker: where it is, and the process that runs it now.
type node struct {
	t       *testing.T
	id      int32
	address string
	data    string
	log     string
	ready   string
	config  string // a config file, "" for none
	host    *host  // where it runs, nil for the test's own
	files   int    // the most descriptors it may have, 0 for the test's own limit

	pid    int
	exited chan struct{} // closed when the process has ended; nil before the first
	state  *os.ProcessState
}

// newCluster lays out n nodes. prepare, which may be nil, may give a node another
// data folder or a config file before anything runs. The cluster is killed and
// its folder removed when the test ends; the folder stays when it failed, or when
// FAULTS_KEEP is set.
func newCluster(t *testing.T, n int, prepare func(*node)) *cluster {
	t.Helper()
	dir, err := os.MkdirTemp("", "millrace-faults-")
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, dir: dir}
	t.Cleanup(func() {
		for _, n := range c.nodes {
			n.resume()
			n.kill()
		}
		if t.Failed() || os.Getenv("FAULTS_KEEP") != "" {
			c.printLogs()
			t.Logf("the nodes' folders and logs are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	for i, address := range freeAddresses(t, n) {
		data := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		n := &node{t: t, id: int32(i + 1), address: address, data: data, log: data + ".log", ready: data + ".ready"}
		if prepare != nil {
			prepare(n)
		}
		c.nodes = append(c.nodes, n)
	}
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
	c.nodes[0].start("--node-id", "1")
	c.nodes[0].awaitReady()
	for _, n := range c.nodes[1:] {
		n.start("--node-id", fmt.Sprint(n.id), "--join", c.nodes[0].address)
	}
	for _, n := range c.nodes[1:] {
		n.awaitReady()
	}
	admin := c.admin()
	eventually(c.t, patience, "all brokers are members", func() error {
		m, err := brokerMetadata(admin)
		if err == nil && len(m.Brokers) != len(c.nodes) {
			err = fmt.Errorf("brokers %v", m.Brokers.NodeIDs())
		}
		return err
	})
	c.awaitHealthy()
}

// freeAddresses returns addresses that nobody listens on. They lie below the
// range from which the kernel takes the ports of outgoing connections, else a
// client might hold a port while the node that owns it is down.
func freeAddresses(t *testing.T, n int) []string {
	t.Helper()
	var all []string
	for len(all) < n {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000))
		l, err := net.Listen("tcp", address)
		if err != nil || slices.Contains(all, address) {
			continue
		}
		l.Close()
		all = append(all, address)
	}
	return all
}

// start begins the node's process.
func (n *node) start(args ...string) {
	n.t.Helper()
	if n.running() {
		n.t.Fatalf("node %d runs already", n.id)
	}
	os.Remove(n.ready)
	f, err := os.OpenFile(n.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		n.t.Fatal(err)
	}
	defer f.Close()
	all := append([]string{"serve", "--data-dir", n.data, "--listen", n.address, "--ready-file", n.ready}, args...)
	if level := os.Getenv("FAULTS_LOG_LEVEL"); level != "" {
		all = append(all, "--log-level", level)
	}
	if n.config != "" {
		all = append(all, "--config", n.config)
	}
	fmt.Fprintf(f, "---- millrace %s\n", strings.Join(all, " "))
	program := binary
	if n.files > 0 {
		program, all = "prlimit", append([]string{fmt.Sprintf("--nofile=%d:%d", n.files, n.files), binary}, all...)
	}
	cmd := exec.Command(program, all...)
	if n.host != nil {
		cmd = n.host.command(program, all...)
	}
	cmd.Stdout, cmd.Stderr = f, f
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	fork(func() { err = cmd.Start() })
	if err != nil {
		n.t.Fatal(err)
	}
	exited := make(chan struct{})
	n.pid, n.exited = cmd.Process.Pid, exited
	go func() { // the waiter: ends with the process
		cmd.Wait()
		n.state = cmd.ProcessState
		close(exited)
	}()
}

// running tells whether the node's process runs, or is paused.
func (n *node) running() bool {
	if n.exited == nil {
		return false
	}
	select {
	case <-n.exited:
		return false
	default:
		return true
	}
}

// serves tells whether the node's present process has said that it is ready.
func (n *node) serves() bool {
	b, err := os.ReadFile(n.ready)
	var r struct{ PID int }
	return err == nil && json.Unmarshal(b, &r) == nil && r.PID == n.pid
}

// awaitReady waits until nodes serve.
func (n *node) awaitReady() {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	for !n.serves() {
		switch {
		case !n.running():
			n.t.Fatalf("node %d ended instead of starting: %s", n.id, n.state)
		case time.Now().After(deadline):
			n.t.Fatalf("node %d is not ready after %v", n.id, patience)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func (n *node) signal(s syscall.Signal) {
	if n.running() {
		syscall.Kill(n.pid, s)
	}
}

// kill ends the node with SIGKILL and waits until it is gone.
func (n *node) kill() {
	n.signal(syscall.SIGKILL)
	if n.exited != nil {
		<-n.exited
	}
}

func (n *node) pause()  { n.signal(syscall.SIGSTOP) }
func (n *node) resume() { n.signal(syscall.SIGCONT) }

// stop ends the node as an administrator would, and expects it to say so.
func (n *node) stop() {
	n.t.Helper()
	n.signal(syscall.SIGTERM)
	n.awaitStopped()
}

// awaitStopped waits for a node that was told to stop. Told twice, it would end
// at once.
func (n *node) awaitStopped() {
	n.t.Helper()
	select {
	case <-n.exited:
	case <-time.After(patience):
		n.t.Fatalf("node %d does not stop", n.id)
	}
	if code := n.state.ExitCode(); code != 0 {
		n.t.Errorf("node %d ended with %s after SIGTERM, want status 0", n.id, n.state)
	}
}

// each calls f for all nodes.
func (c *cluster) each(f func(*node)) {
	for _, n := range c.nodes {
		f(n)
	}
}

// stop ends all nodes at once, as an administrator would.
func (c *cluster) stop() {
	c.t.Helper()
	c.each(func(n *node) { n.signal(syscall.SIGTERM) })
	c.each((*node).awaitStopped)
}

// killAll kills all nodes at once: no node sees another one's death for long.
func (c *cluster) killAll() {
	c.each(func(n *node) { n.signal(syscall.SIGKILL) })
	c.each((*node).kill)
}

// restart starts the nodes given, in that order, and waits until all serve.
func (c *cluster) restart(nodes ...*node) {
	c.t.Helper()
	for _, n := range nodes {
		n.start()
	}
	for _, n := range nodes {
		n.awaitReady()
	}
}

// mustLive returns what fails the test if a node's process is another by then than now.
func (c *cluster) mustLive() (check func()) {
	pids := make(map[int32]int)
	c.each(func(n *node) { pids[n.id] = n.pid })
	return func() {
		c.t.Helper()
		c.each(func(n *node) {
			if !n.running() || n.pid != pids[n.id] {
				c.t.Errorf("node %d did not live through it", n.id)
			}
		})
	}
}

func (c *cluster) addresses() []string {
	var all []string
	c.each(func(n *node) { all = append(all, n.address) })
	return all
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
		kgo.SeedBrokers(c.addresses()...),
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

// awaitHealthy waits until `millrace cluster health` says so.
func (c *cluster) awaitHealthy() {
	c.t.Helper()
	out, errs, status := c.run(nil, "cluster", "health", "--wait", patience.String())
	if status != 0 {
		c.t.Fatalf("cluster health: status %d: %s%s", status, out, errs)
	}
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
	return c.exec(stdin, binary, append(slices.Clone(args), "--brokers", strings.Join(c.addresses(), ","))...)
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

// printLogs prints the end of every node's log.
func (c *cluster) printLogs() {
	const lines = 60
	for _, n := range c.nodes {
		b, err := os.ReadFile(n.log)
		if err != nil {
			continue
		}
		all := strings.Split(strings.TrimSpace(string(b)), "\n")
		c.t.Logf("node %d, the last of %d lines of its log:\n%s", n.id, len(all), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
}

// grepLog returns the lines of a node's log that contain a text.
func (n *node) grepLog(text string) []string {
	b, _ := os.ReadFile(n.log)
	var found []string
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, text) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// usage is what a process has used of the machine.
type usage struct {
	cpu time.Duration
	rss int64 // bytes
}

// usage reads /proc; zero where there is none.
func (n *node) usage() (u usage) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux Go runs on
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n.pid)); err == nil {
		// The second field, in parentheses, may hold spaces.
		if _, rest, ok := bytes.Cut(b, []byte(") ")); ok {
			f := strings.Fields(string(rest))
			var user, system int64
			fmt.Sscan(f[11], &user)
			fmt.Sscan(f[12], &system)
			u.cpu = time.Duration(user+system) * tick
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", n.pid)); err == nil {
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

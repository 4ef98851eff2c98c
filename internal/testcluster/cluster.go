package testcluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"millrace/replication/identity"
	"millrace/testdata/ports"
)

// A Cluster is several nodes, an address and a data folder each. Its methods are called from
// the test's goroutine, and fail the test.
type Cluster struct {
	Nodes []*Node // of ids 1, 2, 3…

	t       testing.TB
	program string
}

// New lays out n nodes of a program in a folder, at addresses of 127.0.0.1 that nobody else is
// given until the test ends; see package ports. prepare, which may be nil, may change a node
// before anything runs, and skip the test.
//
// When the test ends, the nodes are killed, and if it has failed the ends of their logs are
// shown. The folder stays the caller's: what removes it is to be registered before.
func New(t testing.TB, program, dir string, n int, prepare func(*Node)) *Cluster {
	t.Helper()
	c := &Cluster{t: t, program: program}
	t.Cleanup(func() {
		c.KillAll()
		if t.Failed() {
			c.printLogs()
		}
	})
	for i, address := range ports.Hold(t, n) {
		data := filepath.Join(dir, fmt.Sprintf("node-%d", i+1))
		n := &Node{ID: int32(i + 1), Address: address, Data: data, Log: data + ".log", t: t, program: program, ready: data + ".ready"}
		if prepare != nil {
			prepare(n)
		}
		c.Nodes = append(c.Nodes, n)
	}
	return c
}

// Start starts every node that does not run and waits until all serve. The first founds a new
// cluster alone, before the others ask to join it; the nodes of an old one start at once,
// because it needs several before any of them can serve. A node that has lost its folder joins
// those that have theirs.
func (c *Cluster) Start() {
	c.t.Helper()
	if founder := c.Nodes[0]; founder.fresh() && len(c.joins(founder)) == 0 && !founder.Running() {
		founder.Start("--node-id", fmt.Sprint(founder.ID))
		founder.AwaitReady()
	}
	// Whom a node joins is settled before any of the others runs and may look like a member.
	args := make(map[*Node][]string)
	for _, n := range c.Nodes {
		if n.fresh() {
			args[n] = []string{"--node-id", fmt.Sprint(n.ID), "--join", c.Way(n)}
		}
	}
	for _, n := range c.Nodes {
		if !n.Running() {
			n.Start(args[n]...)
		}
	}
	for _, n := range c.Nodes {
		n.AwaitReady()
	}
}

// Way returns what a node is to join by: the addresses of the others, or where these are not
// this machine's alone a token, which one of them makes that runs.
func (c *Cluster) Way(n *Node) string {
	c.t.Helper()
	members := c.joins(n)
	for _, other := range c.Nodes {
		host, _, _ := net.SplitHostPort(other.Address)
		if other == n || !other.Running() || identity.LoopbackHost(host) {
			continue
		}
		out, err := exec.Command(c.program, "cluster", "token", "--data-dir", other.Data).Output()
		if err != nil {
			c.t.Fatalf("a token of node %d: %v", other.ID, err)
		}
		return strings.TrimSpace(string(out))
	}
	return strings.Join(members, ",")
}

// joins returns the other nodes that belong to the cluster already.
func (c *Cluster) joins(n *Node) (members []string) {
	for _, other := range c.Nodes {
		if other != n && !other.fresh() {
			members = append(members, other.Address)
		}
	}
	return members
}

// AwaitHealthy waits until `millrace cluster health` says so.
func (c *Cluster) AwaitHealthy() {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c.program, "cluster", "health", "--wait", patience.String(), "--brokers", strings.Join(c.Addresses(), ","))
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("cluster health: %v: %s", err, out)
	}
}

// Addresses lists where the nodes are.
func (c *Cluster) Addresses() (all []string) {
	for _, n := range c.Nodes {
		all = append(all, n.Address)
	}
	return all
}

// Stop ends all nodes at once, as an administrator would.
func (c *Cluster) Stop() {
	c.t.Helper()
	for _, n := range c.Nodes {
		n.Signal(syscall.SIGTERM)
	}
	for _, n := range c.Nodes {
		n.AwaitStopped()
	}
}

// KillAll is Kill of all nodes.
func (c *Cluster) KillAll() { c.Kill(c.Nodes...) }

// Kill kills nodes at once: no node sees another one's death for long.
func (c *Cluster) Kill(nodes ...*Node) {
	for _, n := range nodes {
		n.Signal(os.Kill)
	}
	for _, n := range nodes {
		n.Wait()
	}
}

// printLogs prints the end of every node's log.
func (c *Cluster) printLogs() {
	const lines = 60
	for _, n := range c.Nodes {
		b, err := os.ReadFile(n.Log)
		if err != nil {
			continue // it has never been started
		}
		all := strings.Split(strings.TrimSpace(string(b)), "\n")
		c.t.Logf("node %d at %s, the last of %d lines of its log:\n%s", n.ID, n.Address, len(all), strings.Join(all[max(0, len(all)-lines):], "\n"))
	}
}

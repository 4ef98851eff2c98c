//go:build faults

package faults

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A lab is a cluster whose nodes are hosts of their own: a network namespace and
// an address each, on one bridge. The test's clients sit on the bridge as well
// and reach every node whatever is cut between nodes. All of it lies in the
// namespace that the tests run in, and goes with them.
type lab struct {
	*cluster
	hosts []*host
}

// A host is one network namespace with one interface on the lab's bridge.
type host struct {
	t       *testing.T
	name    string // of the namespace
	address string // without a port
}

const labNet = "10.77.0."

// insideNamespace names the variable that holds the path of the binary once the
// tests have a network namespace of their own.
const insideNamespace = "FAULTS_INSIDE_NAMESPACE"

// enterNamespace begins the tests again in a network namespace of their own. It
// returns only if it cannot.
func enterNamespace() error {
	runtime.LockOSThread() // exec keeps the namespaces of the thread that calls it
	if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, append(os.Environ(), insideNamespace+"="+binary))
}

// newLab lays out n nodes on hosts of their own, which run as n.start says. The
// test skips where this machine has no network namespaces or no nftables.
func newLab(t *testing.T, n int) *lab {
	t.Helper()
	if os.Getenv(insideNamespace) == "" {
		t.Skip("network namespaces need root: not run")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft (package nftables) is not installed: not run")
	}
	l := &lab{}
	ip(t, "link", "add", "lab", "type", "bridge")
	t.Cleanup(func() { ip(t, "link", "del", "lab") })
	ip(t, "addr", "add", labNet+"254/24", "dev", "lab")
	ip(t, "link", "set", "lab", "up")
	for i := range n {
		l.hosts = append(l.hosts, newHost(t, i+1))
	}
	// The cluster's clean-up, which ends the processes, runs before that of the hosts.
	l.cluster = newCluster(t, n, func(n *node) {
		n.host = l.hosts[n.ID-1]
		n.Host = n.host
		n.Address = n.host.address + ":9092"
		n.Args = append(n.Args, "--insecure") // the lab is nobody else's
	})
	return l
}

// startLab is newLab, started and with all nodes members.
func startLab(t *testing.T, n int) *lab {
	t.Helper()
	l := newLab(t, n)
	l.form()
	return l
}

func newHost(t *testing.T, number int) *host {
	t.Helper()
	h := &host{t: t, name: fmt.Sprintf("millrace-%d-%d", os.Getpid(), number), address: fmt.Sprintf("%s%d", labNet, number)}
	link := fmt.Sprintf("lab%d", number)
	ip(t, "netns", "add", h.name)
	t.Cleanup(func() { ip(t, "netns", "del", h.name) })
	ip(t, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", h.name)
	t.Cleanup(func() { ip(t, "link", "del", link) }) // at once; with its namespace it would go some time later
	ip(t, "link", "set", link, "master", "lab", "up")
	for _, args := range [][]string{
		{"ip", "addr", "add", h.address + "/24", "dev", "eth0"},
		{"ip", "link", "set", "eth0", "up"},
		{"ip", "link", "set", "lo", "up"},
		{"nft", "add table inet lab"},
		{"nft", "add chain inet lab in { type filter hook input priority 0; }"},
	} {
		h.run(args...)
	}
	return h
}

// ip runs ip(8) in the tests' namespace.
func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Command implements testcluster.Host.
func (h *host) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", h.name, name}, args...)...)
}

func (h *host) run(args ...string) {
	h.t.Helper()
	if out, err := h.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %s: %v: %s", h.name, strings.Join(args, " "), err, out)
	}
}

// move gives the host another address, as a machine that is set up anew gets one.
func (h *host) move(to string) {
	h.t.Helper()
	h.run("ip", "addr", "del", h.address+"/24", "dev", "eth0")
	h.run("ip", "addr", "add", to+"/24", "dev", "eth0")
	h.address = to
}

// drop loses what one node sends to another, from now on and without a word.
func (l *lab) drop(from, to *node) {
	l.t.Helper()
	to.host.run("nft", "add rule inet lab in ip saddr "+from.host.address+" drop")
}

// cut drops what two nodes send to each other.
func (l *lab) cut(a, b *node) {
	l.t.Helper()
	l.drop(a, b)
	l.drop(b, a)
}

// isolate cuts a node off from all others, but not from clients.
func (l *lab) isolate(n *node) {
	l.t.Helper()
	l.others(n, func(other *node) { l.cut(n, other) })
}

// others calls f for all nodes but one.
func (l *lab) others(n *node, f func(*node)) {
	l.each(func(other *node) {
		if other != n {
			f(other)
		}
	})
}

// heal takes back all that drop, cut and isolate did.
func (l *lab) heal() {
	l.t.Helper()
	for _, h := range l.hosts {
		h.run("nft", "flush chain inet lab in")
	}
}

// createThrough asks for a topic of one partition and returns what came of it.
func createThrough(ctx context.Context, client *kgo.Client, topic string) error {
	_, err := kadm.NewClient(client).CreateTopic(ctx, 1, 1, nil, topic)
	return err
}

// awaitVoters waits until so many nodes vote in the controller group. A node is one of
// the cluster's before it votes, and a quorum is one of those that do.
func (c *cluster) awaitVoters(n int) {
	c.t.Helper()
	client := c.client()
	defer client.Close()
	eventually(c.t, patience, fmt.Sprintf("%d voters of the controller group", n), func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		req := kmsg.NewPtrDescribeQuorumRequest()
		partition := kmsg.NewDescribeQuorumRequestTopicPartition()
		topic := kmsg.NewDescribeQuorumRequestTopic()
		topic.Topic, topic.Partitions = "__cluster_metadata", []kmsg.DescribeQuorumRequestTopicPartition{partition}
		req.Topics = []kmsg.DescribeQuorumRequestTopic{topic}
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
			return fmt.Errorf("error %d, %d topics", resp.ErrorCode, len(resp.Topics))
		}
		if p := resp.Topics[0].Partitions[0]; len(p.CurrentVoters) != n {
			return fmt.Errorf("%d voters, error %d", len(p.CurrentVoters), p.ErrorCode)
		}
		return nil
	})
}

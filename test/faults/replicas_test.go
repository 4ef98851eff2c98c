//go:build faults

package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// partitionFolders lists the folders of a node's replicas by their names, which
// are made of topic id and partition and so are the same on every node.
func (n *node) partitionFolders() map[string]string {
	n.t.Helper()
	root := filepath.Join(n.Data, "partitions")
	entries, err := os.ReadDir(root)
	if err != nil {
		n.t.Fatal(err)
	}
	all := make(map[string]string)
	for _, e := range entries {
		if e.IsDir() {
			all[e.Name()] = filepath.Join(root, e.Name())
		}
	}
	return all
}

// folder is where the node keeps a partition of a topic.
func (n *node) folder(topicID string, partition int32) string {
	return filepath.Join(n.Data, "partitions", fmt.Sprintf("%s-%d", topicID, partition))
}

// checkAtRest compares replicas of stopped nodes: `millrace segment verify`
// finds each whole, and what two replicas both have committed is the same, entry
// by entry in index, term and CRC (I9). It returns how many partitions it compared.
func (c *cluster) checkAtRest(nodes ...*node) (partitions int) {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = c.nodes
	}
	replicas := make(map[string][]*node)
	for _, n := range nodes {
		if n.Running() {
			c.t.Fatalf("node %d still runs", n.ID)
		}
		var dirs []string
		for name, dir := range n.partitionFolders() {
			replicas[name] = append(replicas[name], n)
			dirs = append(dirs, dir)
		}
		if len(dirs) > 0 {
			out, errs, status := c.exec(nil, binary, append([]string{"segment", "verify"}, dirs...)...)
			if status != 0 {
				c.t.Errorf("I9 node %d: segment verify: status %d: %s", n.ID, status, oneLine(out+errs))
			}
		}
	}
	for name, nodes := range replicas {
		if len(nodes) < 2 {
			continue
		}
		partitions++
		compareReplicas(c.t, name, nodes)
	}
	return partitions
}

// entry is what an entry of a log is known by.
type entry struct {
	index, term uint64
	crc         uint32
	command     bool
}

// compareReplicas compares what replicas have in common. An uncommitted suffix
// may differ: behind the last entry that a quorum has, nobody was promised
// anything. A replica that has more than all others is compared over what they have.
func compareReplicas(t *testing.T, name string, nodes []*node) {
	t.Helper()
	logs := make([][]entry, len(nodes))
	for i, n := range nodes {
		all, err := entriesOf(filepath.Join(n.Data, "partitions", name))
		if err != nil {
			t.Errorf("I9 node %d: %s: %v", n.ID, name, err)
			return
		}
		logs[i] = all
	}
	for i := range logs {
		for j := i + 1; j < len(logs); j++ {
			if why := differ(logs[i], logs[j]); why != "" {
				t.Errorf("I9 %s: node %d and node %d: %s", name, nodes[i].ID, nodes[j].ID, why)
			}
		}
	}
}

// differ says how two logs differ over their common range, "" when they do not.
// The entries after the last command both have are elections of the end, and
// may differ where nobody won.
func differ(a, b []entry) string {
	if len(a) == 0 || len(b) == 0 {
		return ""
	}
	first := max(a[0].index, b[0].index)
	last := min(lastCommand(a), lastCommand(b))
	if last < first {
		return ""
	}
	for i := first; i <= last; i++ {
		x, y := a[i-a[0].index], b[i-b[0].index]
		if x.index != i || y.index != i {
			return fmt.Sprintf("indexes have a hole at %d", i)
		}
		if x != y {
			return fmt.Sprintf("entry %d differs: term %d CRC %#08x, and term %d CRC %#08x", i, x.term, x.crc, y.term, y.crc)
		}
	}
	return ""
}

func lastCommand(all []entry) uint64 {
	for i := len(all) - 1; i >= 0; i-- {
		if all[i].command {
			return all[i].index
		}
	}
	return 0
}

// segmentFiles lists the data files of a replica, oldest first.
func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		t.Fatal(err)
	}
	return all // Glob sorts, and names are zero-padded
}

// topicID asks the cluster for a topic's id, in the form folders have.
func (c *cluster) topicID(topic string) string {
	c.t.Helper()
	out, errs, status := c.run(nil, "topic", "describe", topic, "--output", "json")
	if status != 0 {
		c.t.Fatalf("topic describe %s: status %d: %s", topic, status, errs)
	}
	_, rest, ok := strings.Cut(out, `"id": "`)
	id, _, ok2 := strings.Cut(rest, `"`)
	if !ok || !ok2 {
		c.t.Fatalf("topic describe %s: no id in %s", topic, out)
	}
	return id
}

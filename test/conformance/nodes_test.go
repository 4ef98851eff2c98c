//go:build conformance

package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNodesRefusedNoClient runs after all cells: a client that loses its
// connection opens another and says nothing, but the node does.
func TestNodesRefusedNoClient(t *testing.T) {
	if nodes == "" {
		t.Skip("the cluster is not ours: its logs are not looked at")
	}
	logs, err := filepath.Glob(filepath.Join(nodes, "node-*.log"))
	if err != nil || len(logs) != len(brokers) {
		t.Fatalf("the nodes' logs are %v (%v), want %d", logs, err, len(brokers))
	}
	for _, path := range logs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(content)) {
			for _, fault := range []string{`msg="connection refused"`, "panic", "DATA RACE"} {
				if strings.Contains(line, fault) {
					t.Errorf("%s: %s", filepath.Base(path), line)
				}
			}
		}
	}
}

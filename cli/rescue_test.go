package cli

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// Two of three folders are gone. The third is looked at, which changes nothing, is not
// rescued without a word, and goes on alone with all that it had.
func TestRescueGoesOnWithOneFolder(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	c.do("", "topic", "create", "orders", "-p1", "-r3")
	c.do("", "cluster", "health", "--wait", "30s")
	c.do(strings.Repeat("v\n", 100), "produce", "orders", "-q")
	survivor := c.all[0]
	dir := []string{"cluster", "rescue", "--dir", survivor.data}
	if r := runMillrace(t, c.addresses(), "", append(dir, "--dry-run")...); r.status != StatusFailed || !strings.Contains(r.stderr, "stop its node first") {
		t.Errorf("beside its node: status %d, %s", r.status, r.stderr)
	}
	c.stop()
	for _, n := range c.all[1:] {
		if err := os.RemoveAll(n.data); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		flag, says string
		status     int
	}{
		{"--dry-run", "kept, acknowledged or not: 100 records\n", StatusDone},
		{"--output=table", "say --yes\n", StatusUsage},
		{"--yes", "rescued; start the node", StatusDone},
	} {
		r := runMillrace(t, nil, "", append(dir, tt.flag)...)
		if r.status != tt.status || !strings.Contains(r.stderr, tt.says) || !strings.Contains(r.stderr, "the others are given up: node 2 at "+c.all[1].address) {
			t.Errorf("%s: status %d, %s", tt.flag, r.status, r.stderr)
		}
		if lines := strings.Split(r.stdout, "\n"); len(lines) < 2 || strings.Join(strings.Fields(lines[1]), " ") != "orders 0 0 - 100 -" {
			t.Errorf("%s:\n%s", tt.flag, r.stdout)
		}
	}
	if err := c.nodes.start(survivor); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.awaitReady(ctx, survivor); err != nil {
		t.Fatal(err)
	}
	c.leader("orders", 0)
	if got := c.do("", "consume", "orders", "-e", "-f", "value").stdout; strings.Count(got, "\n") != 100 {
		t.Errorf("%d records are left", strings.Count(got, "\n"))
	}
	c.start() // the others, empty
	c.do("", "cluster", "health", "--wait", "60s")
}

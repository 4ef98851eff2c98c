package cli

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// Two of three folders are gone. The third is looked at, which changes nothing, is not
// rescued without a word, and goes on alone with all that it had.
func TestRescueGoesOnWithOneFolder(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	c.Do("", "topic", "create", "orders", "-p1", "-r3")
	c.Do("", "cluster", "health", "--wait", "30s")
	c.Do(strings.Repeat("v\n", 100), "produce", "orders", "-q")
	survivor := c.All[0]
	dir := []string{"cluster", "rescue", "--dir", survivor.Data}
	if r := clitest.Run(t, c.Addresses(), "", append(dir, "--dry-run")...); r.Status != term.StatusFailed || !strings.Contains(r.Stderr, "stop its node first") {
		t.Errorf("beside its node: status %d, %s", r.Status, r.Stderr)
	}
	c.Stop()
	for _, n := range c.All[1:] {
		if err := os.RemoveAll(n.Data); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 { // what root wrote there its user could not read
		if err := os.Chown(survivor.Data, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if r := clitest.Run(t, nil, "", append(dir, "--yes")...); r.Status != term.StatusUsage || !strings.Contains(r.Stderr, "belongs to user 12345") {
			t.Errorf("by root: status %d, %s", r.Status, r.Stderr)
		}
		if err := os.Chown(survivor.Data, 0, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		flag, says string
		status     int
	}{
		{"--dry-run", "kept, acknowledged or not: 100 records\n", term.StatusDone},
		{"--output=table", "say --yes\n", term.StatusUsage},
		{"--yes", "rescued; start the node", term.StatusDone},
	} {
		r := clitest.Run(t, nil, "", append(dir, tt.flag)...)
		if r.Status != tt.status || !strings.Contains(r.Stderr, tt.says) || !strings.Contains(r.Stderr, "the others are given up: node 2 at "+c.All[1].Address) {
			t.Errorf("%s: status %d, %s", tt.flag, r.Status, r.Stderr)
		}
		if lines := strings.Split(r.Stdout, "\n"); len(lines) < 2 || strings.Join(strings.Fields(lines[1]), " ") != "orders 0 0 - 100 -" {
			t.Errorf("%s:\n%s", tt.flag, r.Stdout)
		}
	}
	if err := c.Nodes.Start(survivor); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.AwaitReady(ctx, survivor); err != nil {
		t.Fatal(err)
	}
	c.Leader("orders", 0)
	if got := c.Do("", "consume", "orders", "-e", "-f", "value").Stdout; strings.Count(got, "\n") != 100 {
		t.Errorf("%d records are left", strings.Count(got, "\n"))
	}
	c.Start() // the others, empty
	c.Do("", "cluster", "health", "--wait", "60s")
}

package local_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/term"
	"millrace/testdata/ports"
)

// What runbooks say is done, or refused with a sentence and the status of its kind.
func TestRunbooksOfOthers(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 3)
	text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "config", "commands.txt"))
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), " | ", 3)
		if len(parts) != 3 {
			continue
		}
		lines++
		r := clitest.Run(t, c.Addresses(), "", strings.Fields(parts[1])...)
		if said := r.Stdout + r.Stderr; fmt.Sprint(r.Status) != parts[0] || !strings.Contains(said, parts[2]) || strings.Count(r.Stderr, "\n") > 1 {
			t.Errorf("millrace %s: status %d, want %s, with %q in\n%s", parts[1], r.Status, parts[0], parts[2], said)
		}
	}
	if lines < 20 {
		t.Errorf("only %d lines", lines)
	}
}

// The environments of a compose file of three, as they are, make one cluster of three,
// in whichever order they start; and clients are told where they came in.
func TestThreeOfAComposeFileBecomeOneCluster(t *testing.T) {
	t.Parallel()
	clitest.Program(t)
	at := ports.Hold(t, 9) // of each: inside, outside, controller
	var voters []string
	for i := range 3 {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, at[3*i+2]))
	}
	dir := t.TempDir()
	var inside, outside []string
	for i := 2; i >= 0; i-- { // who founds comes last
		inside, outside = append(inside, at[3*i]), append(outside, at[3*i+1])
		cmd := clitest.Command(t, nil, "serve")
		cmd.Env = append(cmd.Env,
			fmt.Sprintf("KAFKA_NODE_ID=%d", i+1), "KAFKA_PROCESS_ROLES=broker,controller",
			fmt.Sprintf("KAFKA_LISTENERS=PLAINTEXT://%s,CONTROLLER://%s,PLAINTEXT_HOST://%s", at[3*i], at[3*i+2], at[3*i+1]),
			fmt.Sprintf("KAFKA_ADVERTISED_LISTENERS=PLAINTEXT://%s,PLAINTEXT_HOST://%s", at[3*i], at[3*i+1]),
			"KAFKA_LISTENER_SECURITY_PROTOCOL_MAP=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,PLAINTEXT_HOST:PLAINTEXT",
			"KAFKA_CONTROLLER_LISTENER_NAMES=CONTROLLER", "KAFKA_CONTROLLER_QUORUM_VOTERS="+strings.Join(voters, ","),
			fmt.Sprintf("KAFKA_LOG_DIRS=%s", filepath.Join(dir, fmt.Sprint(i+1))), "KAFKA_HEAP_OPTS=-Xmx1G")
		var log strings.Builder
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Signal(syscall.SIGTERM)
			if cmd.Wait(); t.Failed() {
				t.Logf("node %d:\n%s", i+1, log.String())
			}
		})
	}
	if r := clitest.Run(t, inside, "", "cluster", "health", "--wait", "60s"); r.Status != term.StatusDone {
		t.Fatalf("%+v", r)
	}
	for _, through := range [][]string{inside, outside} {
		var got []string
		eventuallyTold := time.Now().Add(30 * time.Second) // listeners are registered in the background
		for {
			var state struct{ Brokers []struct{ Address string } }
			r := clitest.Run(t, through[:1], "", "cluster", "status", "-o", "json")
			if err := json.Unmarshal([]byte(r.Stdout), &state); err != nil {
				t.Fatalf("%+v: %v", r, err)
			}
			got = nil
			for _, b := range state.Brokers {
				got = append(got, b.Address)
			}
			slices.Reverse(got)
			if slices.Equal(got, through) || time.Now().After(eventuallyTold) {
				break
			}
		}
		if !slices.Equal(got, through) {
			t.Errorf("through %s the brokers are said to be at %s, want %s", through[0], got, through)
		}
	}
}

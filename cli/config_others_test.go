package cli

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/testdata/ports"
)

var rewrite = flag.Bool("rewrite", false, "write what testdata/config says of each configuration anew")

// configurations are those of testdata/config: files, and environments with a variable
// a line.
func configurations(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.properties", "*.env"} {
		names, err := filepath.Glob(filepath.Join("..", "testdata", "config", pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, names...)
	}
	if len(all) < 20 {
		t.Fatalf("%d configurations", len(all))
	}
	return all
}

// take is what a node makes of a configuration, and the file and environment it is of.
func take(t *testing.T, name string) (b *broker, file string, environ []string, err error) {
	t.Helper()
	file = name
	if strings.HasSuffix(name, ".env") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file = ""
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
				environ = append(environ, line)
			}
		}
	}
	b = &broker{dataDir: defaultDataDir, listeners: []listener{{name: plaintextProtocol, listen: defaultBroker}}}
	err = b.configure(file, environ, knownVariables(), func(string) bool { return false })
	return b, file, environ, err
}

// Every configuration starts a node as it is meant, or is refused with a sentence for
// each line that cannot be honoured.
func TestConfigurationsOfOthers(t *testing.T) {
	for _, name := range configurations(t) {
		b, _, _, err := take(t, name)
		var w strings.Builder
		if err != nil {
			if statusOf(err) != StatusUsage {
				t.Errorf("%s: status %d", name, statusOf(err))
			}
			fmt.Fprintf(&w, "refused:\n   %s\n", strings.ReplaceAll(err.Error(), "\n", "\n   "))
		} else {
			fmt.Fprintf(&w, "node %d in %s\n", b.nodeID, b.dataDir)
			for i, l := range b.listeners {
				fmt.Fprintf(&w, "%s at %s", l.name, l.listen)
				switch {
				case l.only:
					w.WriteString(", for nodes")
				case l.advertise == "":
					w.WriteString(", clients are told where they came in")
				default:
					fmt.Fprintf(&w, ", clients are told %s", l.advertise)
				}
				if i == b.nodes {
					w.WriteString(", nodes speak here")
				}
				w.WriteString("\n")
			}
			switch {
			case b.founds && len(b.join) > 0:
				fmt.Fprintf(&w, "founds a cluster with an empty folder; others are at %s\n", strings.Join(b.join, ", "))
			case len(b.join) > 0:
				fmt.Fprintf(&w, "joins through %s\n", strings.Join(b.join, ", "))
			default:
				w.WriteString("founds a cluster with an empty folder\n")
			}
		}
		if len(b.warnings) > 0 {
			fmt.Fprintf(&w, "warns:\n   %s\n", strings.Join(b.warnings, "\n   "))
		}
		got := strings.ReplaceAll(w.String(), filepath.Dir(name)+string(filepath.Separator), "")
		path := strings.TrimSuffix(strings.TrimSuffix(name, ".properties"), ".env") + ".want"
		if *rewrite {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(path)
		if err != nil || got != string(want) {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, want)
		}
	}
}

// What is not refused starts: those that found a cluster here, at ports that are free
// and in folders of the test, the others would join.
func TestConfigurationsOfOthersStart(t *testing.T) {
	started := 0
	for _, name := range configurations(t) {
		b, file, environ, err := take(t, name)
		if err != nil || len(b.join) > 0 && !b.founds {
			continue
		}
		started++
		t.Run(filepath.Base(name), func(t *testing.T) {
			for _, variable := range environ {
				name, value, _ := strings.Cut(variable, "=")
				t.Setenv(name, value)
			}
			dir := t.TempDir()
			readyFile := filepath.Join(dir, "ready")
			args := []string{"serve", "--listen=127.0.0.1:0", "--advertise=127.0.0.1:1", "--data-dir=" + filepath.Join(dir, "data"), "--ready-file=" + readyFile, "--log-level=error"}
			if file != "" {
				args = append(args, "--config="+file)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			ended := make(chan int, 1)
			var out strings.Builder
			go func() { ended <- Run(ctx, args, strings.NewReader(""), &out, &out) }()
			for {
				if _, err := os.Stat(readyFile); err == nil {
					cancel()
					if status := <-ended; status != StatusDone || out.Len() > 0 {
						t.Errorf("status %d: %s", status, out.String())
					}
					return
				}
				select {
				case status := <-ended:
					t.Fatalf("status %d: %s", status, out.String())
				case <-time.After(2 * time.Millisecond):
				}
			}
		})
	}
	if started < 8 {
		t.Errorf("only %d of them start", started)
	}
}

// What runbooks say is done, or refused with a sentence and the status of its kind.
func TestRunbooksOfOthers(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	text, err := os.ReadFile(filepath.Join("..", "testdata", "config", "commands.txt"))
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
		r := runMillrace(t, c.addresses(), "", strings.Fields(parts[1])...)
		if said := r.stdout + r.stderr; fmt.Sprint(r.status) != parts[0] || !strings.Contains(said, parts[2]) || strings.Count(r.stderr, "\n") > 1 {
			t.Errorf("millrace %s: status %d, want %s, with %q in\n%s", parts[1], r.status, parts[0], parts[2], said)
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
	program(t)
	at := ports.Hold(t, 9) // of each: inside, outside, controller
	var voters []string
	for i := range 3 {
		voters = append(voters, fmt.Sprintf("%d@%s", i+1, at[3*i+2]))
	}
	dir := t.TempDir()
	var inside, outside []string
	for i := 2; i >= 0; i-- { // who founds comes last
		inside, outside = append(inside, at[3*i]), append(outside, at[3*i+1])
		cmd := command(t, nil, "serve")
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
	if r := runMillrace(t, inside, "", "cluster", "health", "--wait", "60s"); r.status != StatusDone {
		t.Fatalf("%+v", r)
	}
	for _, through := range [][]string{inside, outside} {
		var got []string
		eventuallyTold := time.Now().Add(30 * time.Second) // listeners are registered in the background
		for {
			var state clusterState
			r := runMillrace(t, through[:1], "", "cluster", "status", "-o", "json")
			if err := json.Unmarshal([]byte(r.stdout), &state); err != nil {
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

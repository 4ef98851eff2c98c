package local

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"
)

var rewrite = flag.Bool("rewrite", false, "write what testdata/config says of each configuration anew")

// configurations are those of testdata/config: files, and environments with a variable
// a line.
func configurations(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, pattern := range []string{"*.properties", "*.env"} {
		names, err := filepath.Glob(filepath.Join("..", "..", "testdata", "config", pattern))
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
	b = &broker{dataDir: DataDir, listeners: []listener{{name: plaintextProtocol, listen: kafka.DefaultBroker}}}
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
			if term.StatusOf(err) != term.StatusUsage {
				t.Errorf("%s: status %d", name, term.StatusOf(err))
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
			go func() { ended <- runServe(ctx, args, &out) }()
			for {
				if _, err := os.Stat(readyFile); err == nil {
					cancel()
					if status := <-ended; status != term.StatusDone || out.Len() > 0 {
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

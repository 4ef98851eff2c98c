package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kfake"
)

// What a context keeps reaches the cluster without a flag, from any folder, and a change of
// the context in use is what the next command goes by.
func TestContextsReachTheirClusters(t *testing.T) {
	alone(t)
	open := newFake(t)
	guarded := newFake(t, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "alice", aliceSecret))
	password := file(t, "alice.secret", aliceSecret+"\n")
	t.Chdir(filepath.Dir(password))
	run := func(line, want string) {
		t.Helper()
		if r := runInProcess(t, strings.Fields(line)...); r.Status != term.StatusDone || !strings.Contains(r.Stdout, want) {
			t.Fatalf("millrace %s: status %d, %s%s; want %q", line, r.Status, r.Stdout, r.Stderr, want)
		}
	}
	run("context add local --brokers "+open, "kept context local, which is in use\n")
	run("context add shop -b "+guarded+" --user alice --password-file alice.secret -X sasl.mechanism=SCRAM-SHA-256", "kept context shop; `millrace context use shop` puts it in use\n")
	t.Chdir(t.TempDir())
	run("cluster status", open)
	run("cluster status --context shop", guarded)
	run("context use shop", "context shop is in use: "+guarded)
	run("cluster status", guarded)
	run("context list", "shop     "+guarded+"  alice  yes")
	run("context show", "in "+password)
	run("context delete shop --dry-run", "would forget shop (in use)\n")
	run("context show shop", "sasl.mechanism")
	run("context delete shop --yes", "forgot shop; none is in use now: `millrace context use NAME`\n")
	run("context use --none", "no context is in use\n")
	if r := runInProcess(t, "context", "show"); r.Status != term.StatusNotFound {
		t.Errorf("with none in use: %+v", r)
	}
}

// A password that is kept is shown by nothing, and nobody else may read it.
func TestAKeptPasswordIsNotShown(t *testing.T) {
	alone(t)
	all := &kafka.Contexts{Current: "shop", Notes: map[string]kafka.Note{"shop": {Brokers: "10.0.0.1:9092", User: "alice", Password: aliceSecret}}}
	if err := all.Write(); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"context show", "context show -o json", "context show -o yaml", "context list", "context list -o json", "context delete shop --dry-run"} {
		r := runInProcess(t, strings.Fields(line)...)
		if r.Status != term.StatusDone || strings.Contains(r.Stdout+r.Stderr, "battery") || !strings.Contains(r.Stdout, "shop") {
			t.Errorf("millrace %s: %+v", line, r)
		}
		if line == "context show -o json" {
			var shown struct{ Password string }
			if err := json.Unmarshal([]byte(r.Stdout), &shown); err != nil || shown.Password != "kept, not shown" {
				t.Errorf("%s: %v", r.Stdout, err)
			}
		}
	}
	config, err := os.UserConfigDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(config, "millrace", "contexts.json")
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if r := runInProcess(t, "context", "list"); r.Status != term.StatusNotAllowed || !strings.Contains(r.Stderr, "chmod 600 "+path) {
		t.Errorf("a file that others may read: %+v", r)
	}
}

// What no command could use is not kept, and the file is as it was.
func TestWrongContextsAreNotKept(t *testing.T) {
	alone(t)
	for line, want := range map[string]string{
		"context add":            "context add takes the name of one context",
		"context add a b -b h:1": "context add takes the name of one context",
		"context add a -b h:x":   "--brokers",
		"context add a -b h:1 --user u --password-file nowhere": "no such file",
		"context add a -b h:1 --password-file f":                "the password of whom? say --user NAME",
		"context add a -b h:1 --keep-password":                  "the password of whom? say --user NAME",
		"context add a -b h:1 --user u --keep-password":         "no terminal to ask for it",
		"context add a -b h:1 --tls-ca nowhere":                 "--tls-ca: open ",
		"context add a":                                         "context add: where is the cluster?",
		"context add a -b h:1 -X sasl.password=battery":         "-X sasl.password: it is KEY=VALUE, a property that says how a cluster is reached, and no secret",
		"context add a -b h:1 -X sasl.mechanisn=PLAIN":          "-X sasl.mechanisn",
		"context use nowhere":                                   `context "nowhere" does not exist`,
		"context use nowhere --none":                            "context use takes a name or --none, not both",
		"context delete":                                        "context delete which context?",
		"context delete nowhere --yes":                          `context "nowhere" does not exist`,
	} {
		if r := runInProcess(t, strings.Fields(line)...); r.Status == term.StatusDone || !strings.Contains(r.Stderr, want) || strings.Contains(r.Stderr, "battery") {
			t.Errorf("millrace %s: status %d, %swant %s", line, r.Status, r.Stderr, want)
		}
	}
	if all, err := kafka.ReadContexts(); err != nil || len(all.Notes) > 0 {
		t.Errorf("%v, %v", all, err)
	}
	runInProcess(t, strings.Fields("context add a -b h:1")...)
	if r := runInProcess(t, strings.Fields("context add a -b h:2")...); r.Status != term.StatusFailed || !strings.Contains(r.Stderr, "--replace") {
		t.Errorf("a second one of the name: %+v", r)
	}
	if r := runInProcess(t, strings.Fields("context add a -b h:2 --replace")...); r.Status != term.StatusDone {
		t.Errorf("in its place: %+v", r)
	}
}

func TestExamplesOfContextsRun(t *testing.T) {
	alone(t)
	dir := t.TempDir()
	p := newPKI(t)
	ca, err := os.ReadFile(p.ca)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"alice.secret": aliceSecret, "ca.pem": string(ca)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, words := range []string{"context add", "context use", "context list", "context show", "context delete"} {
		runExamples(t, dir, nil, strings.Fields(words))
	}
}

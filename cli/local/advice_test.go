package local_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/local"
	"millrace/cli/term"
	"millrace/replication"
	"millrace/replication/admission"
)

// A folder in which no broker begins is refused with what to do about it, in terms of the
// command line.
func TestServeSaysWhatToDoAboutItsFolder(t *testing.T) {
	t.Parallel()
	const identity = `{"cluster":"AAAAAAAAAAAAAAAAAAAAAA","node":3,"incarnation":"01234567"%s}`
	for name, test := range map[string]struct {
		files map[string]string
		args  []string
		want  string // %[1]s is the folder
	}{
		"partitions of nobody": {
			map[string]string{"partitions/x-0/partition.json": "{}"}, nil,
			"%[1]s holds partitions but no node.json, so nobody knows whose they are; restore the file or choose another folder with --data-dir",
		},
		"somebody's folder": {
			map[string]string{"src/main.go": ""}, nil,
			"%[1]s holds src/ and no node.json: it is no node's, and a node keeps its files apart; choose another folder, or an empty one, with --data-dir",
		},
		"another node's": {
			map[string]string{"node.json": fmt.Sprintf(identity, ""), "stable.db": "", "meta/raft.db": ""}, []string{"--node-id", "4"},
			"%[1]s belongs to node 3, not 4; leave out --node-id or choose another folder with --data-dir",
		},
		"a join that cannot be read": {
			map[string]string{"joining": "{}"}, nil,
			"%[1]s/joining: a join was begun in this folder, and it cannot be read whom it asked: it names no node; name a node of the cluster with --join",
		},
		"a cluster that should not be": {
			map[string]string{"node.json": fmt.Sprintf(identity, `,"doubted":"other"`), "stable.db": "", "meta/raft.db": ""}, nil,
			"%[1]s founded cluster AAAAAAAAAAAAAAAAAAAAAA by mistake, it seems, and must be empty to join another: admission: nodes of another cluster look for this one: they are of cluster other; if this node lost its disk, start it in an empty folder with --node-id and --join; if a new cluster is meant, with --found",
		},
	} {
		dir := filepath.Join(t.TempDir(), "data")
		for file, text := range test.files {
			path := filepath.Join(dir, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		args := append([]string{"serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--log-level", "error"}, test.args...)
		want := fmt.Sprintf("millrace: open %[1]s: "+test.want+"\n", dir)
		if r := clitest.Run(t, nil, "", args...); r.Status != term.StatusFailed || r.Stderr != want {
			t.Errorf("%s: status %d\n%swant\n%s", name, r.Status, r.Stderr, want)
		}
	}

	// A node that lost its votes, and knows nobody; it says before that it did.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "node.json"), fmt.Appendf(nil, identity, ""), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "millrace: start: node 3 lost its votes or its metadata log and knows no other node; name one with --join\n"
	if r := clitest.Run(t, nil, "", "serve", "--listen", "127.0.0.1:0", "--data-dir", dir, "--log-level", "error"); r.Status != term.StatusFailed || r.Stderr != want {
		t.Errorf("it knows nobody: status %d\n%swant\n%s", r.Status, r.Stderr, want)
	}
}

// A folder that is served already is refused by who serves it.
func TestServeSaysWhoServesItsFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ready, data := filepath.Join(dir, "ready"), filepath.Join(dir, "data")
	cmd := clitest.Command(t, nil, "serve", "--data-dir", data, "--listen", "127.0.0.1:0", "--ready-file", ready)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); !isReady(ready, cmd.Process.Pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not ready: %s", stderr.String())
		}
	}
	want := fmt.Sprintf("millrace: open %s: in use by pid %d; stop it, or choose another folder with --data-dir\n", data, cmd.Process.Pid)
	if r := clitest.Run(t, nil, "", "serve", "--data-dir", data, "--listen", "127.0.0.1:0"); r.Status != term.StatusFailed || r.Stderr != want {
		t.Errorf("status %d\n%swant\n%s", r.Status, r.Stderr, want)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		t.Errorf("SIGTERM ends it with %v: %s", err, stderr.String())
	}
}

// What ends a broker that serves, or that others refuse, has its advice as well.
func TestWhatEndsABrokerHasItsAdvice(t *testing.T) {
	for err, want := range map[error]string{
		fmt.Errorf("%w: said; nobody to catch up from", replication.ErrOldDisk):           replication.ErrOldDisk.Error() + ": said; nobody to catch up from: see `millrace cluster rescue --help` first",
		fmt.Errorf("start: %w", admission.ErrIDTaken):                                     "start: " + admission.ErrIDTaken.Error() + " with --node-id",
		fmt.Errorf("start: %w", replication.ErrClosed):                                    "start: raftgroup: node is closed",
		fmt.Errorf("join: %w", fmt.Errorf("through x: %w", admission.Elsewhere("other"))): "join: through x: admission: nodes of another cluster look for this one: they are of cluster other; if this node lost its disk, start it in an empty folder with --node-id and --join; if a new cluster is meant, with --found",
	} {
		if got := local.Advised(err); got.Error() != want || term.StatusOf(got) != term.StatusFailed {
			t.Errorf("%v: %v, want %s", err, got, want)
		}
	}
	if local.Advised(nil) != nil {
		t.Error("a broker that ended in order has an advice")
	}
}

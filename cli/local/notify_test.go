//go:build unix

package local_test

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// A service manager is told that the node serves when it does, and that it stops before
// it has.
func TestTheServiceManagerIsTold(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "m") // a socket's path has about a hundred bytes
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	manager.SetReadDeadline(time.Now().Add(time.Minute))
	hear := func() string {
		t.Helper()
		p := make([]byte, 4096)
		n, err := manager.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(p[:n])
	}

	cmd := clitest.Command(t, nil, "serve", "--ephemeral", "--listen", "127.0.0.1:0")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+filepath.Join(dir, "s"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	if first := hear(); first != "STATUS=looking for its cluster" {
		t.Errorf("first %q", first)
	}
	ready := hear()
	_, address, serves := strings.Cut(ready, ", serving ")
	if !strings.HasPrefix(ready, "READY=1\nSTATUS=node 1 of cluster ") || !serves {
		t.Fatalf("then %q", ready)
	}
	if r := clitest.Run(t, []string{address}, "", "cluster", "status"); r.Status != term.StatusDone {
		t.Errorf("it says that it is ready, and answers with status %d: %s", r.Status, r.Stderr)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if last := hear(); !strings.HasPrefix(last, "STOPPING=1\n") {
		t.Errorf("at the end %q", last)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, stderr.String())
	}
}

// Whoever named a socket that is not there is warned of, and the node serves.
func TestAServiceManagerThatIsGoneStopsNothing(t *testing.T) {
	t.Parallel()
	cmd := clitest.Command(t, nil, "serve", "--ephemeral", "--listen", "127.0.0.1:0")
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET=/nowhere/notify")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	warned, served := false, false
	for lines := bufio.NewScanner(stderr); lines.Scan(); { // to its end
		warned = warned || strings.Contains(lines.Text(), "the service manager could not be told")
		if !served && strings.Contains(lines.Text(), "msg=serving") {
			served = true
			cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	if err := cmd.Wait(); err != nil || !warned || !served {
		t.Errorf("%v; warned %t, served %t", err, warned, served)
	}
}

package cli

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
)

// A consumer that is killed with -9 leaves no command behind: its records are handled by
// another member by then.
func TestCommandsDieWithTheirConsumer(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "produce", "jobs", "one", "-q")
	file := filepath.Join(t.TempDir(), "pid")
	consumer := clitest.Command(t, c.Addresses(), "consume", "jobs", "-g", "workers", "--exec", "echo $$ > "+file+".new; mv "+file+".new "+file+"; exec sleep 1000")
	if err := consumer.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	for deadline := time.Now().Add(30 * time.Second); pid == 0; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(file); err == nil {
			if pid, err = strconv.Atoi(strings.TrimSpace(string(b))); err != nil {
				t.Fatal(err)
			}
		}
		if time.Now().After(deadline) {
			consumer.Process.Kill()
			t.Fatal("the command was never run")
		}
	}
	if !clitest.Alive(pid) {
		t.Fatal("the command does not run")
	}
	consumer.Process.Signal(syscall.SIGKILL)
	consumer.Wait()
	clitest.MustBeGone(t, []int{pid})
}

// A member of a group for which there is no partition says so, and how many it takes.
func TestAMemberWithNothingToDoSaysSo(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "jobs", "-p1")
	first := clitest.Command(t, c.Addresses(), "consume", "jobs", "-g", "workers")
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	defer first.Wait()
	defer first.Process.Kill()
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(clitest.Run(t, c.Addresses(), "", "group", "describe", "workers").Stdout, "STATE        Stable"); {
		if time.Now().After(deadline) {
			t.Fatal("the group is never stable")
		}
		time.Sleep(50 * time.Millisecond)
	}
	want := "nothing to do here: topic jobs has 1 partition, the group 2 members; `millrace topic alter jobs -p 2` gives each one"
	second := clitest.Command(t, c.Addresses(), "consume", "jobs", "-g", "workers")
	stderr, err := second.StderrPipe()
	if err == nil {
		err = second.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { second.Process.Kill() })
	defer late.Stop()
	said := make([]byte, 4096)
	n, _ := stderr.Read(said)
	if got := strings.TrimSpace(string(said[:n])); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	second.Process.Kill()
	second.Wait()
}

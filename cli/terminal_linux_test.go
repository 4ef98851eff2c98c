package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/term"

	"golang.org/x/sys/unix"
)

// onTerminal runs the program on a terminal of some columns, to its end, or until it
// has printed something and then was interrupted. It returns what the terminal got.
func onTerminal(t *testing.T, brokers []string, columns int, until string, args ...string) string {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no terminals here: ", err)
	}
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: uint16(columns)})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	cmd := clitest.Command(t, brokers, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	err = cmd.Start()
	slave.Close()
	if err != nil {
		t.Fatal(err)
	}
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	defer late.Stop()
	var out strings.Builder
	for b := make([]byte, 4096); ; {
		n, err := master.Read(b) // EIO once nobody has the other end
		out.Write(b[:n])
		if err != nil {
			break
		}
		if until != "" && strings.Contains(out.String(), until) {
			cmd.Process.Signal(syscall.SIGINT)
			until = ""
		}
	}
	cmd.Wait()
	if until != "" {
		t.Errorf("millrace %s never printed %q", strings.Join(args, " "), until)
	}
	return strings.ReplaceAll(out.String(), "\r\n", "\n")
}

// Who follows a topic on a terminal is told that it waits, once it does.
func TestWhoWaitsForRecordsSaysSo(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "produce", "jobs", "one", "two", "-q")
	const waits = "waiting for records; Ctrl-C ends\n"
	for _, args := range [][]string{{"consume", "jobs", "-f", "value"}, {"consume", "jobs", "-f", "value", "-g", "workers"}} {
		if got := onTerminal(t, c.Addresses(), 80, "ends\r\n", args...); got != "one\ntwo\n"+waits {
			t.Errorf("millrace %s: %q", strings.Join(args, " "), got)
		}
	}
	if got := onTerminal(t, c.Addresses(), 80, "", "consume", "jobs", "-f", "value", "-e"); got != "one\ntwo\n" {
		t.Errorf("with -e: %q", got)
	}
}

// No table is wider than the terminal, and what is left out is said; --wide leaves out
// nothing.
func TestTablesFitTheTerminal(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	c.Do("", "topic", "create", "flights", "-p3")
	c.Do("", "produce", "flights", "-q", "one")
	member := clitest.Command(t, c.Addresses(), "consume", "flights", "-g", "audit")
	if err := member.Start(); err != nil {
		t.Fatal(err)
	}
	defer member.Wait()
	defer member.Process.Kill()
	// Until it has committed what there is, what is told of the group changes.
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var d groupDescription
		r := clitest.Run(t, c.Addresses(), "", "group", "describe", "audit", "-o", "json")
		if r.Status == term.StatusDone && json.Unmarshal([]byte(r.Stdout), &d) == nil && d.State == "Stable" && d.lag() == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the group does not settle: %s%s", r.Stdout, r.Stderr)
		}
	}
	for _, line := range []string{
		"group describe audit", "group list", "topic list -i", "topic describe flights --all", "cluster status", "cluster metadata -i", "segment verify -i " + c.Dir,
		"topic trim flights -o end --dry-run", "group seek audit --topics flights --to start --dry-run",
	} {
		for row := range strings.Lines(onTerminal(t, c.Addresses(), 80, "", strings.Fields(line)...)) {
			if n := term.CellWidth(strings.TrimSuffix(row, "\n")); n > 80 {
				t.Errorf("millrace %s: a line is %d wide: %s", line, n, row)
			}
		}
	}
	narrow := onTerminal(t, c.Addresses(), 80, "", "group", "describe", "audit")
	if !strings.Contains(narrow, "\n(HOST, CLIENT-ID") || !strings.Contains(narrow, ": --wide)\n") {
		t.Errorf("%s", narrow)
	}
	wide := onTerminal(t, c.Addresses(), 80, "", "group", "describe", "audit", "--wide")
	piped := c.Do("", "group", "describe", "audit").Stdout
	if wide != piped || !strings.Contains(piped, "HOST") {
		t.Errorf("with --wide\n%s\nin a pipe\n%s", wide, piped)
	}
}

// Who follows a topic ends when nobody reads the output any more, record or not.
func TestConsumeEndsWithItsReader(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "produce", "jobs", "one", "two", "-q")
	for _, args := range [][]string{{"consume", "jobs"}, {"consume", "jobs", "-n", "3"}, {"consume", "jobs", "-g", "workers"}} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd := clitest.Command(t, c.Addresses(), args...)
		cmd.Stdout = w
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		w.Close()
		r.Read(make([]byte, 1))
		r.Close()
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("millrace %s: %v", strings.Join(args, " "), err)
			}
		case <-time.After(30 * time.Second):
			t.Errorf("millrace %s does not end", strings.Join(args, " "))
			cmd.Process.Kill()
			<-ended
		}
	}
}

// What people read has one style: numbers with separators, sizes with their unit apart;
// what a script adds up is digits alone.
func TestNumbersHaveOneStyle(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "many", "-p1")
	c.Do(strings.Repeat("0123456789\n", 1500), "produce", "many", "-q")
	c.Do("", "group", "seek", "readers", "--to", "start", "--topics", "many")
	for line, want := range map[string][2]string{ // on a terminal, in a pipe
		"topic list":             {"  1,500  ", "  1500  "},
		"group list":             {"  1,500  ", "  1500  "},
		"group describe readers": {"TOTAL-LAG    1,500\n", "TOTAL-LAG    1500\n"},
		"topic list --wide":      {" kB  ", "kB  "},
	} {
		if out := onTerminal(t, c.Addresses(), 200, "", strings.Fields(line)...); !strings.Contains(out, want[0]) {
			t.Errorf("on a terminal, millrace %s has no %q:\n%s", line, want[0], out)
		}
		if out := c.Do("", strings.Fields(line)...).Stdout; !strings.Contains(out, want[1]) {
			t.Errorf("in a pipe, millrace %s has no %q:\n%s", line, want[1], out)
		}
	}
}

// Who interrupts a command at its question has not said yes.
func TestAnInterruptedQuestionIsNoYes(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "produce", "jobs", "one", "two", "-q")
	const question = "Really delete topic jobs with 1 partition and 2 records? [y/N] "
	if got := onTerminal(t, c.Addresses(), 80, question, "topic", "delete", "jobs"); got != question+"\nmillrace: nothing was done\n" {
		t.Errorf("%q", got)
	}
	if got := c.Do("", "topic", "list", "-o", "name").Stdout; got != "jobs\n" {
		t.Errorf("topics: %q", got)
	}
}

package cli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"millrace/cli/clitest"
	"millrace/cli/kafka"
	"millrace/cli/term"
)

// What is asked for and is not there is named, with what there is instead.
func TestWhatIsNotThereIsNamed(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	c.Do("", "topic", "create", "flights", "-p2")
	c.Do("", "produce", "flights", "-p0", "-q", "one", "two")
	note := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(note, []byte("no log\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		line           string
		status         int
		stdout, stderr string
	}{
		{"consume flights -p 9 -e", term.StatusNotFound, "", "millrace: topic flights has no partition 9: it has 2, counted from 0\n"},
		{"topic trim flights -p 5-7 -o end -y", term.StatusNotFound, "", "millrace: topic flights has no partition 5-7: it has 2, counted from 0\n"},
		{"consume -r zzz -e", term.StatusNotFound, "", "millrace: no topic fits -r zzz; see `millrace topic list`\n"},
		{"consume flights -o @2130-01-01 -e", 0, "", "nothing to read: no record lies within -o @2130-01-01\n"},
		{"consume flights -p1 -e", 0, "", ""},
		{"topic config flights --changed", 0, "", "every setting is at its default\n"},
		{"topic alter flights --unset retention.mss", term.StatusUsage, "", "millrace: --unset retention.mss: topic flights has no such setting (did you mean retention.ms?); see `millrace topic config flights`\n"},
		{"topic alter flights --unset retention.ms", 0, "altered topic flights\n", ""},
		{"topic create weeks -p1 -c retention.ms=7d", 0, "created topic weeks: 1 partition, 1 replica\n", ""},
		{"topic config weeks --changed -o name", 0, "retention.ms\n", ""},
		{"topic create fresh flights -p1", term.StatusFailed, "", "millrace: topic \"flights\" exists already; --if-not-exists accepts that; no topic was created\n"},
		{"topic create fresh flights -p1 --if-not-exists", 0, "created topic fresh: 1 partition, 1 replica\ntopic flights exists already\n", ""},
		{"produce flights {} {\"a\":1} --key-field a", term.StatusFailed, "", "millrace: value 1: no field \"a\"\n"},
		{"segment verify " + note, term.StatusNotFound, "", "millrace: there is no log in " + note + "; name a data folder, the folder of a partition or a segment file\n"},
		{"cluster rescue --dir " + c.Dir, term.StatusUsage, "", "millrace: " + c.Dir + " holds the nodes of `millrace up`; name the one to go on with: " + c.All[0].Data + "\n"},
		{"topic trim flights -o end --dry-run -p0 --no-headers", 0, "0  0  2  2\n", "would delete 2 records, all that there are, of topic flights\n"},
		{"topic trim flights -o 1 --yes -p0 --no-headers", 0, "0  0  1  1\n", "deleted 1 record of topic flights; the disks have their room back within a minute or two\n"},
	} {
		r := clitest.Run(t, c.Addresses(), "", strings.Fields(test.line)...)
		if r.Status != test.status || r.Stdout != test.stdout || r.Stderr != test.stderr {
			t.Errorf("millrace %s: status %d, %q, %q\nwant %d, %q, %q", test.line, r.Status, r.Stdout, r.Stderr, test.status, test.stdout, test.stderr)
		}
	}
	if out := c.Do("", "topic", "config", "weeks", "retention.ms").Stdout; !strings.HasPrefix(out, "retention.ms="+strconv.Itoa(7*24*3600*1000)+" ") {
		t.Errorf("7d became %.40q", out)
	}
	// A log is its node's, and those that are not listed are counted.
	c.Do("", "group", "seek", "readers", "--to", "end", "--topics", "flights")
	var r clitest.Result
	for deadline := time.Now().Add(30 * time.Second); !strings.HasSuffix(r.Stderr, "\n50 of them, of internal topics, are not listed: -i\n"); {
		if time.Now().After(deadline) { // the node keeps what its topics are called once a second
			t.Fatalf("%s%s", r.Stdout, r.Stderr)
		}
		r = c.Do("", "segment", "verify", c.Dir)
	}
	if rows := strings.Split(r.Stdout, "\n"); len(rows) != 6 || !strings.Contains(strings.Join(strings.Fields(r.Stdout), " "), "-0 1 flights 0 ") {
		t.Errorf("%s", r.Stdout)
	}
	// The ports of a cluster are taken by its own node, which was started by hand.
	_, port, _ := net.SplitHostPort(c.All[0].Address)
	up := clitest.Run(t, nil, "", "up", "--data-dir", c.Dir, "--base-port", port)
	if want := fmt.Sprintf("millrace: %s is served already, at %s by pid %d; stop that first: kill %[3]d\n", c.All[0].Data, c.All[0].Address, c.All[0].PID); up.Stderr != want {
		t.Errorf("%q, want %q", up.Stderr, want)
	}
	// An empty variable names no broker: the default is asked, whoever may listen there.
	for _, line := range []string{"topic list", "cluster health", "doctor"} {
		if r := clitest.Run(t, nil, "", strings.Fields(line)...); r.Status == term.StatusUsage || r.Status != term.StatusDone && !strings.Contains(r.Stdout+r.Stderr, kafka.DefaultBroker) {
			t.Errorf("millrace %s: status %d, %s%s", line, r.Status, r.Stdout, r.Stderr)
		}
	}
}

// A node does not settle among somebody's files, and does beside a few of its own.
func TestANodeKeepsItsFilesApart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	r := clitest.Run(t, nil, "", "serve", "--data-dir", dir, "--listen", "127.0.0.1:0")
	if want := dir + " holds src/ and no node.json: it is no node's, "; r.Status != term.StatusFailed || !strings.Contains(r.Stderr, want) {
		t.Errorf("status %d: %s", r.Status, r.Stderr)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("it left %v", entries)
	}
}

// Times are rounded, not cut off: seven days that began a second ago are seven days.
func TestTimesAreRounded(t *testing.T) {
	for s, want := range map[float64]string{
		0.4: "0 s", 12: "12 s", 119.4: "119 s", 119.6: "2 min", 3599: "60 min", 2*3600 - 1: "2 h", 7*24*3600 - 1: "7 days", 3 * 24 * 3600: "3 days",
	} {
		if got := lasting(s); got != want {
			t.Errorf("%v s: %s, want %s", s, got, want)
		}
	}
}

// What an alteration deletes is said for what is known, and what is not known as such.
func TestWhatAnAlterationDeletesIsSaid(t *testing.T) {
	for _, test := range []struct {
		deleted, all int64
		unknown      int
		want         string
	}{
		{0, 5, 0, ""},
		{1, 1, 0, "the only record"},
		{5, 5, 0, "5 records, all of them"},
		{3, 5, 0, "3 records of 5"},
		{0, 0, 2, "perhaps records of 2 partitions without a leader"},
		{3, 3, 1, "at least 3 records, and perhaps some of 1 partition without a leader"},
	} {
		if got := deletedOf(test.deleted, test.all, test.unknown); got != test.want {
			t.Errorf("%d of %d, %d unknown: %q, want %q", test.deleted, test.all, test.unknown, got, test.want)
		}
	}
}

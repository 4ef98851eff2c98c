package cli

import (
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// Who did not ask for a number of partitions is told what the default means; who asks for
// too many, how many there may be; who sets what has no effect, that it has none.
func TestTopicsAreMadeWithAWord(t *testing.T) {
	t.Parallel()
	c := clitest.StartCluster(t, 1)
	for _, test := range []struct {
		line           string
		status         int
		stdout, stderr string
	}{
		{"topic create one", 0, "created topic one: 1 partition, 1 replica\n", "1 partition: strict order, one worker of a group at a time; -p 6 makes six\n"},
		{"topic create asked -p1", 0, "created topic asked: 1 partition, 1 replica\n", ""},
		{"topic create three -p3", 0, "created topic three: 3 partitions, 1 replica\n", ""},
		{"produce made x -q", 0, "", "topic made was not there and has been created: 1 partition, strict order, one worker of a group at a time; `millrace topic alter made -p 6` makes six\n"},
		{"produce made x -q", 0, "", ""},
		{"produce made x", 0, "made/0@2\n", "1 record, 1 B in "},
		{"topic create many -p 100000", term.StatusFailed, "", "millrace: topic \"many\": Excessively large number of partitions per request: at most 10,000.\n"},
		{"topic alter one -p 100000", term.StatusFailed, "", "millrace: topic \"one\": Excessively large number of partitions per request: at most 10,000.\n"},
		{"topic alter one -c min.insync.replicas=2", 0, "altered topic one\n", "millrace: min.insync.replicas has no effect here: a write is acknowledged by a majority of its partition's replicas, whatever this says and whatever acks asks for\n"},
		{"topic create safe -p1 -c min.insync.replicas=2 -c retention.ms=1000", 0, "created topic safe: 1 partition, 1 replica\n", "millrace: min.insync.replicas has no effect here: "},
		{"produce a/b x", term.StatusFailed, "", "millrace: topic \"a/b\": a name has letters, digits, '.', '_' and '-', 249 at most, and is not '.' or '..'\n"},
		{"consume a/b -e", term.StatusFailed, "", "millrace: topic \"a/b\": a name has letters, "},
	} {
		r := clitest.Run(t, c.Addresses(), "", strings.Fields(test.line)...)
		if r.Status != test.status || r.Stdout != test.stdout || !strings.HasPrefix(r.Stderr, test.stderr) || test.stderr == "" && r.Stderr != "" {
			t.Errorf("millrace %s: status %d, %q, %q\nwant %d, %q, %q", test.line, r.Status, r.Stdout, r.Stderr, test.status, test.stdout, test.stderr)
		}
	}
	// The cluster's own topics do not drown the others.
	c.Do("", "group", "seek", "readers", "--to", "end", "--topics", "made")
	for _, test := range []struct {
		line string
		own  int // lines that name the internal topic
	}{
		{"cluster metadata", 0}, {"cluster metadata -o json", 0}, {"cluster metadata -i", 50}, {"cluster metadata -o kcat", 1}, {"topic list", 0}, {"topic list -i", 1},
	} {
		out := c.Do("", strings.Fields(test.line)...).Stdout
		if own := strings.Count(out, "__consumer_offsets"); own != test.own || !strings.Contains(out, "three") {
			t.Errorf("millrace %s has %d lines of internal topics, want %d", test.line, own, test.own)
		}
	}
	if out := c.Do("", "cluster", "status").Stdout; !strings.Contains(out, "  1 broker  5 topics  7 partitions\nand 1 internal topic, 50 partitions\n") {
		t.Errorf("%s", out)
	}
}

package cli

import (
	"fmt"
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// An offset that nobody has reached is no place to begin. Where some partitions have, it
// is one, and what the others get until then is not asked for.
func TestAnOffsetBeyondTheEndIsRefused(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "jobs", "-p2")
	c.Do(strings.Repeat("x\n", 4), "produce", "jobs", "-q", "-p0")
	c.Do(strings.Repeat("x\n", 2), "produce", "jobs", "-q", "-p1")
	for _, test := range []struct{ line, want string }{
		{"consume jobs -o 9999 -e", "-o 9,999 is beyond the end of topic jobs: partition 0 ends at 4, partition 1 ends at 2; -o end is what comes next, -o -10 the last ten"},
		{"consume jobs -o 9999", "-o 9,999 is beyond the end of topic jobs: partition 0 "},
		{"consume jobs -o 9999:10000 -p1", "-o 9,999 is beyond the end of topic jobs: partition 1 "},
		{"consume jobs -o +5 -e", "-o 5 is beyond the end of topic jobs: partition 0 "},
		{"consume jobs -g workers -o 9999", "-o 9,999 is beyond the end of topic jobs: partition 0 "},
		{"group seek workers --topics jobs --to 9999", "--to 9,999 is beyond the end of topic jobs: partition 0 ends at 4, partition 1 ends at 2; --to end is "},
	} {
		if r := clitest.Run(t, c.Addresses(), "", strings.Fields(test.line)...); r.Status != term.StatusNotFound || !strings.HasPrefix(r.Stderr, "millrace: "+test.want) {
			t.Errorf("millrace %s: status %d, %s", test.line, r.Status, r.Stderr)
		}
	}
	if got := c.Do("", "consume", "jobs", "-o", "3", "-e", "-f", "%p/%o\n").Stdout; got != "0/3\n" {
		t.Errorf("from offset 3 on: %q", got)
	}
	follower := clitest.Command(t, c.Addresses(), "consume", "jobs", "-o", "3", "-n2", "-f", "%p/%o ")
	var out strings.Builder
	follower.Stdout = &out
	if err := follower.Start(); err != nil {
		t.Fatal(err)
	}
	c.Do(strings.Repeat("x\n", 2), "produce", "jobs", "-q", "-p1")
	if err := follower.Wait(); err != nil || !strings.Contains(out.String(), "0/3 ") || !strings.Contains(out.String(), "1/3 ") {
		t.Errorf("followed from offset 3 on: %q, %v", out.String(), err)
	}
}

func TestPartitionsAreListsAndRanges(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", "0 1 2 3 4 5 6 7 8 9"},
		{"3", "3"},
		{"0,2,5-7", "0 2 5 6 7"},
		{" 1 , 2 ", "1 2"},
		{"x", "error"},
		{"-1", "error"},
		{"3-1", "error"},
		{"1,,2", "error"},
		{"99999999999", "error"},
	} {
		set, err := parsePartitions(test.in)
		got := ""
		if err != nil {
			got = " error"
		} else {
			for i := range int32(10) {
				if set.has(i) {
					got += fmt.Sprintf(" %d", i)
				}
			}
		}
		if got != " "+test.want {
			t.Errorf("-p %q:%s, want %s", test.in, got, test.want)
		}
	}
}

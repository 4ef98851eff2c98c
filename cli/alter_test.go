package cli

import (
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// An alteration that deletes says how many records, and is not done in a pipe without
// --yes; altered back in time, it has deleted nothing. One that deletes nothing is done
// without a question.
func TestAnAlterationThatDeletesIsCountedAndAskedFor(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "orders", "-p2")
	c.Do(strings.Repeat("k v\n", 900)+strings.Repeat("l v\n", 100), "produce", "orders", "-q", "-f", "%k %v\n")
	c.Do("", "produce", "orders", "-q", "no key")
	says := func(status int, want string, args ...string) {
		t.Helper()
		args = append([]string{"topic", "alter", "orders"}, args...)
		r := clitest.Run(t, c.Addresses(), "", args...)
		if got := r.Stdout + r.Stderr; r.Status != status || got != want {
			t.Errorf("millrace %s: status %d, %q\nwant %d, %q", strings.Join(args, " "), r.Status, got, status, want)
		}
	}
	all := "1,001 records, all of them"
	says(term.StatusDone, "could alter topic orders; it deletes "+all+"\n", "-c", "retention.ms=1000", "--dry-run")
	says(term.StatusUsage, "millrace: refusing to alter topic orders (it deletes "+all+"): there is no terminal to ask on; say --yes\n", "-c", "retention.ms=1000")
	says(term.StatusDone, "could alter topic orders; it deletes by compaction, as segments end, 999 records of 1,001: all but the last of each key, and what has no key\n",
		"-c", "cleanup.policy=compact", "--dry-run")
	says(term.StatusDone, "could alter topic orders, 6 partitions instead of 2\n", "-p6", "--dry-run")
	says(term.StatusDone, "altered topic orders\n", "-c", "retention.ms=86400000")
	says(term.StatusDone, "altered topic orders\nmillrace: it deletes "+all+", from 90 s on; altered back before then, it keeps what is there\n", "-c", "retention.ms=1001", "-c", "file.delete.delay.ms=90000", "--yes")
	says(term.StatusDone, "altered topic orders\n", "--unset", "retention.ms", "--unset", "file.delete.delay.ms")
	says(term.StatusDone, "altered topic orders\nmillrace: it deletes "+all+", from 60 s on; altered back before then, it keeps what is there\n", "-c", "retention.ms=1000", "--yes")
	says(term.StatusDone, "altered topic orders\n", "--unset", "retention.ms")
	if got := c.Do("", "consume", "orders", "-e", "-f", "value").Stdout; strings.Count(got, "\n") != 1001 {
		t.Errorf("%d records are left", strings.Count(got, "\n"))
	}
}

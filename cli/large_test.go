package cli

import (
	"strings"
	"testing"

	"millrace/cli/clitest"
	"millrace/cli/term"
)

// Records are as large as their topic takes them, whatever the client library's own
// bound: larger ones where that was raised, and batches no larger where it was lowered.
func TestRecordsAreAsLargeAsTheirTopicTakesThem(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "plain")
	c.Do("", "topic", "create", "large", "-c", "max.message.bytes=3000000")
	c.Do("", "topic", "create", "small", "-c", "max.message.bytes=200000")
	c.Do(strings.Repeat("x", 1_000_000)+"\n", "produce", "plain", "-q")
	c.Do(strings.Repeat("x", 2_000_000)+"\n", "produce", "large", "-q")
	c.Do(strings.Repeat(strings.Repeat("x", 90_000)+"\n", 20), "produce", "small", "-q", "-z", "none")
	for topic, value := range map[string]string{"plain": strings.Repeat("x", 2_000_000), "small": strings.Repeat("x", 300_000)} {
		r := clitest.Run(t, c.Addresses(), value+"\n", "produce", topic, "-q", "-z", "none")
		if r.Status != term.StatusFailed || !strings.Contains(r.Stderr, "is too large") || !strings.Contains(r.Stderr, "max.message.bytes") {
			t.Errorf("%d bytes to %s: status %d, %q", len(value), topic, r.Status, r.Stderr)
		}
	}
	if got := c.Do("", "consume", "small", "-e", "-f", "value").Stdout; strings.Count(got, "\n") != 20 {
		t.Errorf("%d records of 20 arrived", strings.Count(got, "\n"))
	}
}

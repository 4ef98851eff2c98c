package cli

import (
	"strings"
	"testing"
)

// Records are as large as their topic takes them, whatever the client library's own
// bound: larger ones where that was raised, and batches no larger where it was lowered.
func TestRecordsAreAsLargeAsTheirTopicTakesThem(t *testing.T) {
	t.Parallel()
	c := startBroker(t)
	c.do("", "topic", "create", "plain")
	c.do("", "topic", "create", "large", "-c", "max.message.bytes=3000000")
	c.do("", "topic", "create", "small", "-c", "max.message.bytes=200000")
	c.do(strings.Repeat("x", 1_000_000)+"\n", "produce", "plain", "-q")
	c.do(strings.Repeat("x", 2_000_000)+"\n", "produce", "large", "-q")
	c.do(strings.Repeat(strings.Repeat("x", 90_000)+"\n", 20), "produce", "small", "-q", "-z", "none")
	for topic, value := range map[string]string{"plain": strings.Repeat("x", 2_000_000), "small": strings.Repeat("x", 300_000)} {
		r := runMillrace(t, c.addresses(), value+"\n", "produce", topic, "-q", "-z", "none")
		if r.status != StatusFailed || !strings.Contains(r.stderr, "is too large") || !strings.Contains(r.stderr, "max.message.bytes") {
			t.Errorf("%d bytes to %s: status %d, %q", len(value), topic, r.status, r.stderr)
		}
	}
	if got := c.do("", "consume", "small", "-e", "-f", "value").stdout; strings.Count(got, "\n") != 20 {
		t.Errorf("%d records of 20 arrived", strings.Count(got, "\n"))
	}
}

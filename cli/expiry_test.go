package cli

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"millrace/cli/clitest"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Records that are older than what their topic keeps are stored and soon deleted: the
// producer is told before and after, and topic describe says what goes next.
func TestRecordsThatHaveExpiredAreWarnedOf(t *testing.T) {
	t.Parallel()
	c := clitest.StartBroker(t)
	c.Do("", "topic", "create", "kept", "-p1", "-c", "retention.ms=-1")
	c.Do("", "topic", "create", "stamped", "-p1", "-c", "message.timestamp.type=LogAppendTime")
	line := func(at time.Time) string { return `{"at":"` + at.Format(time.RFC3339) + `"}` + "\n" }
	lines := line(time.Now()) + line(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)) + line(time.Date(2002, 1, 1, 0, 0, 0, 0, time.UTC))
	want := regexp.MustCompile("^millrace: warning: record 2 is dated 2001-01-01T00:00:00.000Z, and topic old keeps records for 7 days: what is older is deleted within minutes; `millrace topic alter old -c retention.ms=-1` keeps it\n" +
		"(topic old was not there .*\n)?3 records, .*\n" +
		"millrace: warning: 2 of 3 records are older than the 7 days that topic old keeps, and will be deleted within minutes\n$")
	for range 2 { // the topic is there the second time
		if got := c.Do(lines, "produce", "old", "-p0", "--timestamp-field", "at").Stderr; !want.MatchString(got) {
			t.Errorf("%q", got)
		}
	}
	for _, topic := range []string{"kept", "stamped"} {
		if got := c.Do(lines, "produce", topic, "-q", "--timestamp-field", "at").Stderr; strings.Contains(got, "warning") {
			t.Errorf("topic %s: %q", topic, got)
		}
	}
	c.Do(line(time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)), "produce", "gone", "-q", "--timestamp-field", "at")
	for topic, want := range map[string]string{"old": "\ndeleted next: 6 records, in 7 days\n", "gone": "\ndeleted next: 1 record, within minutes\n"} {
		if got := c.Do("", "topic", "describe", topic).Stdout; !strings.Contains(got, want) {
			t.Errorf("topic %s: %s, want %q", topic, got, want)
		}
	}
	if got := c.Do("", "topic", "describe", "kept").Stdout; strings.Contains(got, "deleted") {
		t.Errorf("%s", got)
	}
}

// What a topic keeps is what is set for it, or what its broker gives new topics.
func TestWhatATopicKeeps(t *testing.T) {
	for _, test := range []struct {
		settings string
		want     time.Duration
	}{
		{"cleanup.policy=delete retention.ms=1000", time.Second},
		{"cleanup.policy=compact,delete retention.ms=1000", time.Second},
		{"cleanup.policy=compact retention.ms=1000", 0},
		{"cleanup.policy=delete retention.ms=-1", 0},
		{"cleanup.policy=delete retention.ms=9223372036854775807", 0},
		{"cleanup.policy=delete retention.ms=1000 message.timestamp.type=LogAppendTime", 0},
		{"log.cleanup.policy=delete log.retention.hours=2", 2 * time.Hour},
		{"log.cleanup.policy=delete log.retention.hours=2 log.retention.minutes=3", 3 * time.Minute},
		{"log.cleanup.policy=delete log.retention.hours=2 log.retention.ms=4", 4 * time.Millisecond},
	} {
		values := make(map[string]string)
		for s := range strings.FieldsSeq(test.settings) {
			name, value, _ := strings.Cut(s, "=")
			values[name] = value
		}
		if got := keeps(values); got != test.want {
			t.Errorf("%s: %v, want %v", test.settings, got, test.want)
		}
	}
	var out strings.Builder
	e := &expiry{w: &out}
	e.note(&kgo.Record{Timestamp: time.Unix(1, 0)})
	e.finish()
	if out.Len() > 0 {
		t.Errorf("a topic that keeps everything: %s", out.String())
	}
}

package cli

import (
	"context"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// An expiry counts records that are older than what their topic keeps when they are
// produced: they are stored, and the next search for what has expired deletes them. Of a
// topic that keeps everything, or stamps records itself, there are none.
type expiry struct {
	w     io.Writer
	topic string
	keeps time.Duration // 0: does not matter
	old   int64
	all   int64
}

// newExpiry counts for a topic with settings as settingsOf tells them.
func newExpiry(w io.Writer, topic string, settings map[string]string) *expiry {
	return &expiry{w: w, topic: topic, keeps: keeps(settings)}
}

// settingsOf asks for a topic's settings; for those that its first record would give it,
// by the names that brokers have for them, if it does not exist. nil if nobody says.
func settingsOf(ctx context.Context, client *kgo.Client, topic string, exists bool) map[string]string {
	admin := kadm.NewClient(client)
	var resources kadm.ResourceConfigs
	var err error
	if exists {
		resources, err = admin.DescribeTopicConfigs(ctx, topic)
	} else if brokers, failed := admin.ListBrokers(ctx); failed == nil && len(brokers) > 0 {
		resources, err = admin.DescribeBrokerConfigs(ctx, brokers[0].NodeID)
	}
	if err != nil || len(resources) == 0 {
		return nil
	}
	values := make(map[string]string)
	for _, s := range resources[0].Configs {
		if s.Value != nil {
			values[s.Key] = *s.Value
		}
	}
	return values
}

// keeps is how long records are kept by the settings of a topic, or of a broker for a topic
// without any; 0 if their own times do not decide about it.
func keeps(values map[string]string) time.Duration {
	policy, stamped := values["cleanup.policy"]+values["log.cleanup.policy"], values["message.timestamp.type"]+values["log.message.timestamp.type"]
	if !strings.Contains(policy, "delete") || stamped == "LogAppendTime" {
		return 0
	}
	for _, s := range []struct {
		name string
		unit time.Duration
	}{
		{"retention.ms", time.Millisecond}, {"log.retention.ms", time.Millisecond}, {"log.retention.minutes", time.Minute}, {"log.retention.hours", time.Hour},
	} {
		if n, err := strconv.ParseInt(values[s.name], 10, 64); err == nil {
			if n < 0 || n > int64(math.MaxInt64/s.unit) {
				return 0
			}
			return time.Duration(n) * s.unit
		}
	}
	return 0
}

// note looks at a record before it is sent; of the first that is too old it tells.
func (e *expiry) note(r *kgo.Record) {
	e.all++
	if e.keeps == 0 || r.Timestamp.IsZero() || time.Since(r.Timestamp) <= e.keeps {
		return
	}
	if e.old++; e.old == 1 {
		fmt.Fprintf(e.w, "millrace: warning: record %s is dated %s, and topic %s keeps records for %s: what is older is deleted within minutes; `millrace topic alter %s -c retention.ms=-1` keeps it\n",
			term.Number(e.all), r.Timestamp.UTC().Format(isoMillis), e.topic, lasting(e.keeps.Seconds()), e.topic)
	}
}

// finish tells how many there were.
func (e *expiry) finish() {
	if e.old > 0 {
		fmt.Fprintf(e.w, "millrace: warning: %s of %s are older than the %s that topic %s keeps, and will be deleted within minutes\n",
			term.Number(e.old), term.Count(e.all, "record"), lasting(e.keeps.Seconds()), e.topic)
	}
}

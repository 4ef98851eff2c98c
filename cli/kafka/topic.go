package kafka

import (
	"context"
	"errors"
	"strings"

	"millrace/cli/term"
	"millrace/replication/metadata/settings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

// GivenSettings reads the -c flags: key=value, each key once.
func GivenSettings(c *urfave.Context) (map[string]string, error) {
	all := make(map[string]string)
	for _, s := range c.StringSlice("config") {
		key, value, ok := strings.Cut(s, "=")
		key = strings.TrimSpace(key)
		if !ok || key == "" {
			return nil, term.Usage("-c %q: it is KEY=VALUE, such as retention.ms=86400000", s)
		}
		if _, twice := all[key]; twice {
			return nil, term.Usage("-c %s is given twice", key)
		}
		if d, known := settings.TopicDefinition(key); known {
			value = d.Plain(value) // 7d, as in a configuration file
		}
		all[key] = value
	}
	return all, nil
}

// ConfigFlag is the flag -c of commands that make or alter topics; GivenSettings reads it.
func ConfigFlag() urfave.Flag {
	return &urfave.StringSliceFlag{Name: "config", Aliases: []string{"c"}, Usage: "`KEY=VALUE`: a setting of the topic; may be repeated"}
}

// FindTopics returns the metadata of topics that ought to be there. One that is missing is
// asked for once more when all brokers are abreast: somebody may just have created it, and
// not every broker have heard of that.
func FindTopics(ctx context.Context, admin *kadm.Client, topics ...string) (kadm.TopicDetails, error) {
	found, err := admin.ListTopicsWithInternal(ctx, topics...)
	for _, t := range found {
		if errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			Abreast(ctx, admin)
			return admin.ListTopicsWithInternal(ctx, topics...)
		}
	}
	return found, err
}

// DescribeTopic returns one topic's metadata.
func DescribeTopic(ctx context.Context, admin *kadm.Client, topic string) (kadm.TopicDetail, error) {
	topics, err := FindTopics(ctx, admin, topic)
	if err != nil {
		return kadm.TopicDetail{}, Asked(topic, err)
	}
	t := topics[topic]
	if t.Err != nil {
		return t, TopicError(topic, t.Err, "")
	}
	return t, nil
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func topicCreateCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "create",
		Usage:     "create topics",
		ArgsUsage: "TOPIC…",
		Description: `   What is not said is the cluster's default; the replication factor's is three, or as
   many as there are brokers. If one of the topics cannot be created, none is.

EXAMPLES:
   $ millrace topic create orders
   $ millrace topic create flights -p 3 -r 3 -c retention.ms=-1
   $ millrace topic create a b c --if-not-exists`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.IntFlag{Name: "partitions", Aliases: []string{"p"}, Value: -1, DefaultText: "the cluster's", Usage: "number of partitions, `N`"},
			&urfave.IntFlag{Name: "replicas", Aliases: []string{"r"}, Value: -1, DefaultText: "the cluster's", Usage: "copies of each partition, `N`"},
			kafka.ConfigFlag(),
			&urfave.BoolFlag{Name: "if-not-exists", Usage: "a topic that exists already is fine"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "only ask whether it could be done"},
		}),
		Action: topicCreate,
	}
}

func topicCreate(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("topic create which topic? see `millrace topic create --help`")
	}
	partitions, replicas := c.Int("partitions"), c.Int("replicas")
	if c.IsSet("partitions") && partitions < 1 || partitions > 1<<20 {
		return term.Usage("-p %d: a topic has 1 partition or more", partitions)
	}
	if c.IsSet("replicas") && replicas < 1 || replicas > 1<<10 {
		return term.Usage("-r %d: a partition has 1 replica or more", replicas)
	}
	given, err := kafka.GivenSettings(c)
	if err != nil {
		return err
	}
	configs := make(map[string]*string, len(given))
	for k, v := range given {
		configs[k] = &v
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, admin *kadm.Client) error {
		create, said := admin.CreateTopics, "created"
		if c.Bool("dry-run") {
			create, said = admin.ValidateCreateTopics, "could create"
		}
		if c.NArg() > 1 && !c.Bool("dry-run") { // all or none
			could, err := admin.ValidateCreateTopics(ctx, int32(partitions), int16(replicas), configs, c.Args().Slice()...)
			if err != nil {
				return err
			}
			for _, topic := range c.Args().Slice() {
				if a := could[topic]; a.Err != nil && !(c.Bool("if-not-exists") && errors.Is(a.Err, kerr.TopicAlreadyExists)) {
					return term.Explain(a.Err, "%s; no topic was created", term.OneLine(kafka.TopicError(topic, a.Err, a.ErrMessage)))
				}
			}
		}
		answers, err := create(ctx, int32(partitions), int16(replicas), configs, c.Args().Slice()...)
		if err != nil {
			return err
		}
		var first error
		var made []string
		for _, topic := range c.Args().Slice() {
			a := answers[topic]
			switch {
			case a.Err == nil:
				line := said + " topic " + topic
				if a.NumPartitions > 0 {
					line += fmt.Sprintf(": %s, %s", term.Count(a.NumPartitions, "partition"), term.Count(int(a.ReplicationFactor), "replica"))
				}
				if !c.Bool("dry-run") {
					if r := a.ReplicationFactor; r == 2 {
						fmt.Fprintf(c.App.ErrWriter, "millrace: warning: topic %s has two replicas: while either broker is down it stands still; three bear the loss of one\n", topic)
					}
					made = append(made, topic)
				}
				fmt.Fprintln(c.App.Writer, line)
				if a.NumPartitions == 1 && !c.IsSet("partitions") {
					fmt.Fprintln(c.App.ErrWriter, onePartition)
				}
			case c.Bool("if-not-exists") && errors.Is(a.Err, kerr.TopicAlreadyExists):
				fmt.Fprintf(c.App.Writer, "topic %s exists already\n", topic)
			case first == nil:
				first = kafka.TopicError(topic, a.Err, a.ErrMessage)
			default:
				fmt.Fprintf(c.App.ErrWriter, "millrace: %s\n", term.OneLine(kafka.TopicError(topic, a.Err, a.ErrMessage)))
			}
		}
		if err := awaitLeaders(ctx, admin, made, leaderPatience); first == nil {
			first = err
		}
		if len(made) > 0 {
			tellWithoutEffect(ctx, c.App.ErrWriter, client, made[0], slices.Sorted(maps.Keys(given)))
		}
		return first
	})
}

// onePartition says what the default means, to who did not ask for a number.
const onePartition = "1 partition: strict order, one worker of a group at a time; -p 6 makes six"

// leaderPatience is how long a new topic may be without leaders before that is an error.
const leaderPatience = 10 * time.Second

// awaitLeaders waits until all partitions of new topics have leaders. A topic that
// is there and cannot be used, because a node is out of file descriptors, say, is
// not what was asked for.
func awaitLeaders(ctx context.Context, admin *kadm.Client, topics []string, patience time.Duration) error {
	if len(topics) == 0 {
		return nil
	}
	deadline := time.Now().Add(patience)
	for attempt := 1; ; attempt++ {
		var without []string
		all := 0
		m, err := admin.Metadata(ctx, topics...)
		if err != nil {
			return fmt.Errorf("created, but ask for the leaders: %w", err)
		}
		for _, t := range m.Topics.Sorted() {
			for _, p := range t.Partitions.Sorted() {
				if all++; p.Leader < 0 {
					without = append(without, fmt.Sprintf("%s/%d", p.Topic, p.Partition))
				}
			}
		}
		switch {
		case len(without) == 0 && all > 0:
			return nil
		case time.Now().After(deadline):
			have := "have"
			if len(without) == 1 {
				have = "has"
			}
			return term.Fail(term.StatusFailed, "created, but %s of %s %s no leader after %s: %s; `millrace cluster health` and the nodes' logs say why",
				term.Number(len(without)), term.Count(all, "partition"), have, patience, term.Some(without))
		}
		select {
		case <-time.After(kafka.Backoff(attempt)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

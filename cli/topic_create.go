package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

func topicCreateCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "create",
		Usage:     "create topics",
		ArgsUsage: "TOPIC…",
		Description: `   What is not said is the cluster's default; the replication factor's is three, or as
   many as there are brokers.

EXAMPLES:
   $ millrace topic create orders
   $ millrace topic create flights -p 3 -r 3 -c retention.ms=-1
   $ millrace topic create a b c --if-not-exists`,
		Flags: clientFlags([]urfave.Flag{
			&urfave.IntFlag{Name: "partitions", Aliases: []string{"p"}, Value: -1, DefaultText: "the cluster's", Usage: "number of partitions, `N`"},
			&urfave.IntFlag{Name: "replicas", Aliases: []string{"r"}, Value: -1, DefaultText: "the cluster's", Usage: "copies of each partition, `N`"},
			configFlag(),
			&urfave.BoolFlag{Name: "if-not-exists", Usage: "a topic that exists already is fine"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "only ask whether it could be done"},
		}),
		Action: topicCreate,
	}
}

func topicCreate(c *urfave.Context) error {
	if c.NArg() == 0 {
		return usage("topic create which topic? see `millrace topic create --help`")
	}
	partitions, replicas := c.Int("partitions"), c.Int("replicas")
	if partitions == 0 || partitions < -1 || partitions > 1<<20 {
		return usage("-p %d: a topic has 1 partition or more", partitions)
	}
	if replicas == 0 || replicas < -1 || replicas > 1<<10 {
		return usage("-r %d: a partition has 1 replica or more", replicas)
	}
	given, err := settings(c)
	if err != nil {
		return err
	}
	configs := make(map[string]*string, len(given))
	for k, v := range given {
		configs[k] = &v
	}
	return withAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		create, said := admin.CreateTopics, "created"
		if c.Bool("dry-run") {
			create, said = admin.ValidateCreateTopics, "could create"
		}
		answers, err := create(ctx, int32(partitions), int16(replicas), configs, c.Args().Slice()...)
		if err != nil {
			return err
		}
		var first error
		for _, topic := range c.Args().Slice() {
			a := answers[topic]
			switch {
			case a.Err == nil:
				line := said + " topic " + topic
				if a.NumPartitions > 0 {
					line += fmt.Sprintf(": %s, %s", count(a.NumPartitions, "partition"), count(int(a.ReplicationFactor), "replica"))
				}
				fmt.Fprintln(c.App.Writer, line)
			case c.Bool("if-not-exists") && errors.Is(a.Err, kerr.TopicAlreadyExists):
				fmt.Fprintf(c.App.Writer, "topic %s exists already\n", topic)
			case first == nil:
				first = topicError(topic, a.Err, a.ErrMessage)
			default:
				fmt.Fprintf(c.App.ErrWriter, "millrace: %s\n", oneLine(topicError(topic, a.Err, a.ErrMessage)))
			}
		}
		return first
	})
}

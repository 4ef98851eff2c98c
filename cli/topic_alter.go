package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func topicAlterCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "alter",
		Usage:        "change a topic's settings, or give it more partitions",
		ArgsUsage:    "TOPIC",
		BashComplete: completeTopics,
		Description: `   Settings that are not named stay as they are. More partitions move keys: records
   of one key may lie in two partitions afterwards, old and new.

EXAMPLES:
   $ millrace topic alter orders -c retention.ms=86400000 -c max.message.bytes=2000000
   $ millrace topic alter orders --unset retention.ms
   $ millrace topic alter orders -p 6 --dry-run`,
		Flags: clientFlags([]urfave.Flag{
			configFlag(),
			&urfave.StringSliceFlag{Name: "unset", Usage: "`KEY`: return this setting to its default; may be repeated"},
			&urfave.IntFlag{Name: "partitions", Aliases: []string{"p"}, DefaultText: "unchanged", Usage: "`N`: number of partitions, more than now"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "only ask whether it could be done"},
		}),
		Action: topicAlter,
	}
}

func topicAlter(c *urfave.Context) error {
	topic, err := oneTopic(c)
	if err != nil {
		return err
	}
	set, err := settings(c)
	if err != nil {
		return err
	}
	var changes []kadm.AlterConfig
	for _, key := range slices.Sorted(maps.Keys(set)) {
		value := set[key]
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	for _, key := range c.StringSlice("unset") {
		changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: key})
	}
	if len(changes) == 0 && !c.IsSet("partitions") {
		return usage("topic alter: nothing to change; say -c KEY=VALUE, --unset KEY or -p N")
	}
	return withAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		if _, err := describeTopic(ctx, admin, topic); err != nil {
			return err
		}
		alter, grow, said := admin.AlterTopicConfigs, admin.UpdatePartitions, "altered"
		if c.Bool("dry-run") {
			alter, grow, said = admin.ValidateAlterTopicConfigs, admin.ValidateUpdatePartitions, "could alter"
		}
		if len(changes) > 0 {
			answers, err := alter(ctx, changes, topic)
			if err != nil {
				return err
			}
			for _, a := range answers {
				if a.Err != nil {
					return topicError(topic, a.Err, a.ErrMessage)
				}
			}
		}
		if c.IsSet("partitions") {
			answers, err := grow(ctx, c.Int("partitions"), topic)
			if err != nil {
				return err
			}
			for _, a := range answers {
				if a.Err != nil {
					return topicError(topic, a.Err, a.ErrMessage)
				}
			}
		}
		_, err := fmt.Fprintln(c.App.Writer, said, "topic", topic)
		return err
	})
}

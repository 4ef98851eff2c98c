package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func topicDeleteCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "delete",
		Aliases:      []string{"rm"},
		Usage:        "delete topics with all their records",
		ArgsUsage:    "TOPIC…",
		BashComplete: completeTopics,
		Description: `   There is no way back. If one of the topics does not exist, none is deleted.

EXAMPLES:
   $ millrace topic delete copies --dry-run
   $ millrace topic delete copies --yes`,
		Flags:  clientFlags(destructiveFlags()),
		Action: topicDelete,
	}
}

func topicDelete(c *urfave.Context) error {
	if c.NArg() == 0 {
		return usage("topic delete which topic? see `millrace topic delete --help`")
	}
	return withAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		var what []string
		for _, topic := range c.Args().Slice() {
			t, err := describeTopic(ctx, admin, topic)
			if err != nil {
				return err
			}
			what = append(what, fmt.Sprintf("topic %s with %s%s", topic, count(len(t.Partitions), "partition"), recordsIn(ctx, admin, topic)))
		}
		if c.Bool("dry-run") {
			_, err := fmt.Fprintln(c.App.Writer, "would delete", strings.Join(what, ", "))
			return err
		}
		if err := confirm(c, "delete "+strings.Join(what, ", ")); err != nil {
			return err
		}
		// Asking a person may have taken longer than the time for the request.
		ctx = context.WithoutCancel(ctx)
		answers, err := admin.DeleteTopics(ctx, c.Args().Slice()...)
		if err != nil {
			return err
		}
		var first error
		for _, topic := range c.Args().Slice() {
			switch a := answers[topic]; {
			case a.Err == nil:
				fmt.Fprintln(c.App.Writer, "deleted topic", topic)
			case first == nil:
				first = topicError(topic, a.Err, a.ErrMessage)
			}
		}
		return first
	})
}

// recordsIn says how many offsets a topic spans, for a question: "" when unknown.
func recordsIn(ctx context.Context, admin *kadm.Client, topic string) string {
	starts, err1 := listed(admin.ListStartOffsets(ctx, topic))
	ends, err2 := listed(admin.ListEndOffsets(ctx, topic))
	if err1 != nil || err2 != nil {
		return ""
	}
	n := int64(0)
	for i, end := range ends[topic] {
		n += end.Offset - starts[topic][i].Offset
	}
	return " and " + count(n, "record")
}

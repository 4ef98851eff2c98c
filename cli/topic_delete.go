package cli

import (
	"context"
	"fmt"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"

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
		Flags:  kafka.Flags(term.DestructiveFlags()),
		Action: topicDelete,
	}
}

func topicDelete(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("topic delete which topic? see `millrace topic delete --help`")
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		var what []string
		for _, topic := range c.Args().Slice() {
			t, err := kafka.DescribeTopic(ctx, admin, topic)
			if err != nil {
				return err
			}
			what = append(what, fmt.Sprintf("topic %s with %s%s", topic, term.Count(len(t.Partitions), "partition"), recordsIn(ctx, admin, t)))
		}
		if c.Bool("dry-run") {
			_, err := fmt.Fprintln(c.App.Writer, "would delete", strings.Join(what, ", "))
			return err
		}
		if err := term.Confirm(c, "delete "+strings.Join(what, ", ")); err != nil {
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
				first = kafka.TopicError(topic, a.Err, a.ErrMessage)
			}
		}
		return first
	})
}

// recordsIn says how many offsets a topic spans, for a question. Partitions without a
// leader do not tell, and are said not to.
func recordsIn(ctx context.Context, admin *kadm.Client, t kadm.TopicDetail) string {
	starts, _ := admin.ListStartOffsets(ctx, t.Topic)
	ends, _ := admin.ListEndOffsets(ctx, t.Topic)
	n, unknown := int64(0), 0
	for i := range t.Partitions {
		start, ok1 := starts.Lookup(t.Topic, i)
		end, ok2 := ends.Lookup(t.Topic, i)
		if !ok1 || !ok2 || start.Err != nil || end.Err != nil {
			unknown++
			continue
		}
		n += end.Offset - start.Offset
	}
	return countedRecords(n, unknown)
}

// countedRecords says how many records there are, when some partitions do not tell.
func countedRecords(n int64, unknown int) string {
	switch {
	case unknown == 0:
		return " and " + term.Count(n, "record")
	case unknown == 1:
		return " and at least " + term.Count(n, "record") + ", since 1 partition does not tell"
	}
	return " and at least " + term.Count(n, "record") + ", since " + term.Count(unknown, "partition") + " do not tell"
}

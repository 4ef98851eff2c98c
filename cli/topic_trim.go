package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

func topicTrimCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "trim",
		Usage:        "delete the records before an offset",
		ArgsUsage:    "TOPIC -o OFFSET",
		BashComplete: completeTopics,
		Description: `   Moves the start of every partition (or those of -p) up to OFFSET: a number, end for
   all records, -N to keep the last N, @TIME to keep what is younger. There is no way back.
   The disks have the room back once the segments are deleted, within a minute or two.

   JSON: a list of {topic, partition, from, to, records}.

EXAMPLES:
   $ millrace topic trim orders -o -1 --dry-run
   $ millrace topic trim orders -o @-168h --yes`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.StringFlag{Name: "offset", Aliases: []string{"o"}, Usage: "the first `OFFSET` to keep"},
			&urfave.StringFlag{Name: "partitions", Aliases: []string{"p"}, Usage: "only these partitions, `0,2,5-7`", DefaultText: "all"},
		}, term.OutputFlags(false), term.DestructiveFlags()),
		Action: topicTrim,
	}
}

// A trim is what happens to one partition: records in [From, To) go.
type trim struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
	Records   int64  `json:"records"`

	end int64 // of the partition
}

func topicTrim(c *urfave.Context) error {
	topic, err := oneTopic(c)
	if err != nil {
		return err
	}
	if !c.IsSet("offset") {
		return term.Usage("topic trim up to where? say -o OFFSET")
	}
	to, err := kafka.ParseSpan("-o", c.String("offset"), time.Now())
	if err != nil {
		return err
	}
	if to.To != nil {
		return term.Usage("-o %q: trim takes the one offset where the topic is to begin", c.String("offset"))
	}
	wanted, err := parsePartitions(c.String("partitions"))
	if err != nil {
		return err
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		if _, err := kafka.DescribeTopic(ctx, admin, topic); err != nil {
			return err
		}
		trims, err := planTrim(ctx, admin, topic, to, c.String("partitions"), wanted.has)
		if err != nil {
			return err
		}
		total, kept := int64(0), int64(0)
		for _, t := range trims {
			total += t.Records
			kept += t.end - t.To
		}
		what := term.Count(total, "record")
		if kept == 0 && total > 1 {
			what += ", all that there are,"
		}
		if !c.Bool("dry-run") && total > 0 {
			if err := term.Confirm(c, fmt.Sprintf("delete %s of topic %s", what, topic)); err != nil {
				return err
			}
			before := make(kadm.Offsets)
			for _, t := range trims {
				if t.Records > 0 {
					before.AddOffset(topic, t.Partition, t.To, -1)
				}
			}
			answers, err := admin.DeleteRecords(context.WithoutCancel(ctx), before)
			if err != nil {
				return err
			}
			if err := answers.Error(); err != nil {
				if errors.Is(err, kerr.PolicyViolation) {
					return term.Explain(err, "topic %q is only compacted, so nothing is deleted before an offset; `millrace topic alter %s -c cleanup.policy=compact,delete` allows it", topic, topic)
				}
				return kafka.TopicError(topic, err, "")
			}
			fmt.Fprintf(c.App.ErrWriter, "deleted %s of topic %s; the disks have their room back within a minute or two\n", term.Count(total, "record"), topic)
		}
		if c.Bool("dry-run") {
			fmt.Fprintf(c.App.ErrWriter, "would delete %s of topic %s\n", what, topic)
		}
		return term.PrintList(c, trims, []term.Column[trim]{
			{Header: "PARTITION", Cell: func(t trim) string { return strconv.Itoa(int(t.Partition)) }},
			{Header: "LOG-START-OFFSET", Cell: func(t trim) string { return strconv.FormatInt(t.From, 10) }},
			{Header: "NEW-START-OFFSET", Cell: func(t trim) string { return strconv.FormatInt(t.To, 10) }},
			{Header: "RECORDS", Cell: func(t trim) string { return term.CellNumber(c.App.Writer, t.Records) }},
		})
	})
}

// planTrim says what moving the start of a topic to a point means for each partition that
// is wanted; which says them as they were typed.
func planTrim(ctx context.Context, admin *kadm.Client, topic string, to kafka.Span, which string, wanted func(int32) bool) ([]trim, error) {
	all, err := to.Resolve(ctx, admin, []string{topic}, false, false)
	if err != nil {
		return nil, err
	}
	now, err := kafka.Span{}.Resolve(ctx, admin, []string{topic}, true, false)
	if err != nil {
		return nil, err
	}
	var trims []trim
	for i, b := range all[topic] {
		if !wanted(i) {
			continue
		}
		if end := now[topic][i].To; b.From > end {
			return nil, term.Usage("partition %d of topic %s ends at offset %d, before %d; choose partitions with -p", i, topic, end, b.From)
		}
		from := now[topic][i].From
		trims = append(trims, trim{topic, i, from, max(b.From, from), max(b.From-from, 0), now[topic][i].To})
	}
	if len(trims) == 0 {
		return nil, noPartition(topic, len(all[topic]), which)
	}
	slices.SortFunc(trims, func(a, b trim) int { return int(a.Partition - b.Partition) })
	return trims, nil
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func groupSeekCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "seek",
		Usage:        "make a group go on from somewhere else",
		ArgsUsage:    "GROUP",
		BashComplete: completeGroups,
		Description: `   Commits new offsets for every partition of the topics of which the group has committed
   any, or of --topics, to which it may be new. The group must have no members. --to is
   start, end, an OFFSET, +N, -N or @TIME, as consume's -o.

   JSON: a list of {topic, partition, from, to}; from -1 is none.

EXAMPLES:
   $ millrace group seek audit --to start --dry-run
   $ millrace group seek audit --to @-1h
   $ millrace group seek audit --to end --topics flights`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.StringFlag{Name: "to", Usage: "`OFFSET`: start, end, a number, +N, -N or @TIME"},
			&urfave.StringFlag{Name: "topics", Usage: "`TOPIC,…`: these topics, committed or not", DefaultText: "all that were committed"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "say what would be done, do nothing"},
		}, term.OutputFlags(true)),
		Action: groupSeek,
	}
}

// moved sums up what seeks mean for a group.
func moved(seeks []seek) string {
	again, skipped, fresh := int64(0), int64(0), 0
	for _, s := range seeks {
		if s.From < 0 {
			fresh++
			continue
		}
		again += max(0, s.From-s.To)
		skipped += max(0, s.To-s.From)
	}
	sum := fmt.Sprintf("%s again, %s skipped", term.Count(again, "record"), term.Number(skipped))
	if fresh > 0 {
		sum += fmt.Sprintf("; nothing was committed of %s", term.Count(fresh, "partition"))
	}
	return sum
}

// A seek is what happens to one partition.
type seek struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"`
}

func groupSeek(c *urfave.Context) error {
	name, err := oneGroup(c)
	if err != nil {
		return err
	}
	if !c.IsSet("to") {
		return term.Usage("group seek to where? say --to start, --to end, --to OFFSET or --to @TIME")
	}
	to, err := kafka.ParseSpan("--to", c.String("to"), time.Now())
	if err != nil {
		return err
	}
	if to.To != nil {
		return term.Usage("--to %q: a group goes on from one offset", c.String("to"))
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		seeks, err := planSeek(c, ctx, admin, name, to, c.String("topics"))
		if err != nil {
			return err
		}
		if !c.Bool("dry-run") {
			offsets := make(kadm.Offsets)
			for _, s := range seeks {
				offsets.AddOffset(s.Topic, s.Partition, s.To, -1)
			}
			answers, err := admin.CommitOffsets(ctx, name, offsets)
			if err != nil {
				return kafka.GroupError(name, err)
			}
			if err := answers.Error(); err != nil {
				return kafka.GroupError(name, err)
			}
		}
		did := "moved"
		if c.Bool("dry-run") {
			did = "would move"
		}
		fmt.Fprintf(c.App.ErrWriter, "%s group %s: %s\n", did, name, moved(seeks))
		return term.PrintList(c, seeks, []term.Column[seek]{
			{Header: "TOPIC", Cell: func(s seek) string { return s.Topic }},
			{Header: "PARTITION", Cell: func(s seek) string { return fmt.Sprint(s.Partition) }},
			{Header: "FROM", Cell: func(s seek) string { return orDash(s.From) }},
			{Header: "TO", Cell: func(s seek) string { return fmt.Sprint(s.To) }},
		})
	})
}

// planSeek says which offset each partition would get. It refuses while the
// group has members: they would go on from where they are, and commit that.
func planSeek(c *urfave.Context, ctx context.Context, admin *kadm.Client, group string, to kafka.Span, list string) ([]seek, error) {
	var seeks []seek
	err := vigilOver(c).settle(ctx, func(ctx context.Context) error {
		state, members, err := groupState(ctx, admin, group)
		if err != nil {
			return err
		}
		if len(members) > 0 {
			return term.Fail(term.StatusFailed, "group %q has %s; stop its consumers before it can seek", group, term.Count(len(members), "member"))
		}
		committed, err := admin.FetchOffsets(ctx, group)
		if err != nil {
			return kafka.GroupError(group, err)
		}
		topics := make(map[string]bool)
		for t := range strings.SplitSeq(list, ",") {
			if t = strings.TrimSpace(t); t == "" {
				continue
			}
			if _, err := kafka.DescribeTopic(ctx, admin, t); err != nil {
				return err
			}
			topics[t] = true
		}
		if len(topics) == 0 {
			for _, o := range committed.Sorted() {
				topics[o.Topic] = true
			}
		}
		if len(topics) == 0 {
			if state.State == "Dead" {
				return term.Fail(term.StatusNotFound, "group %q does not exist; see `millrace group list`, or make it by seeking in --topics", group)
			}
			return term.Fail(term.StatusNotFound, "group %q has committed nothing; say where with --topics", group)
		}
		all, err := to.Resolve(ctx, admin, slices.Sorted(maps.Keys(topics)), true, false)
		if err != nil {
			return err
		}
		if err := kafka.Beyond("--to", all, func(int32) bool { return true }); err != nil {
			return err
		}
		seeks = nil
		for topic, partitions := range all {
			for i, b := range partitions {
				s := seek{Topic: topic, Partition: i, From: -1, To: min(b.From, b.To)}
				if o, ok := committed.Lookup(topic, i); ok {
					s.From = o.At
				}
				seeks = append(seeks, s)
			}
		}
		slices.SortFunc(seeks, func(a, b seek) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
		return nil
	})
	return seeks, err
}

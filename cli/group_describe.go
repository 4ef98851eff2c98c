package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func groupDescribeCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "describe",
		Usage:        "show a group's members, offsets and lag",
		ArgsUsage:    "GROUP",
		BashComplete: completeGroups,
		Description: `   Every partition of the topics that the group reads is a row, and so is every member that
   has none. Which topics those are its members say while they are there, and what it has
   committed. Where nothing was committed the lag counts from the start of the log, which is
   what a consumer that begins at the start has before it. Of a group that has no members
   and has committed nothing no broker knows the topics: its total is a dash.

   With --max-lag the exit status is 11 when the total lag is larger, and 1 when it is not
   known of every partition.

   JSON: {name, coordinator, kind, state, balancer, members, total_lag, not_committed, unknown,
   partitions: [{topic, partition, current_offset, log_start_offset, log_end_offset, lag,
   member_id, client_id, host}], idle_members: [{member_id, client_id, host}]}; an offset or
   lag of -1 is not known, nor a total_lag of null, a current offset of -1 not committed.
   not_committed and unknown count partitions; the total has none of those that are unknown.

EXAMPLES:
   $ millrace group describe audit
   $ millrace group describe audit --max-lag 100000
   $ millrace group describe audit -o json`,
		Flags: kafka.Flags(term.OutputFlags(true), []urfave.Flag{
			&urfave.Int64Flag{Name: "max-lag", Usage: "end with status 11 when the group is more than `N` records behind", DefaultText: "no limit"},
		}),
		Action: groupDescribe,
	}
}

func groupDescribe(c *urfave.Context) error {
	name, err := oneGroup(c)
	if err != nil {
		return err
	}
	if c.IsSet("max-lag") && c.Int64("max-lag") < 0 {
		return term.Usage("--max-lag %d: it is 0 or more", c.Int64("max-lag"))
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		var d *groupDescription
		err := vigilOver(c).settle(ctx, func(ctx context.Context) (err error) {
			d, err = describeGroup(ctx, admin, name)
			return err
		})
		if err != nil {
			return err
		}
		err = term.PrintObject(c, d, d.Name, func() error {
			w := c.App.Writer
			fmt.Fprintf(w, "GROUP        %s\nCOORDINATOR  %d\nKIND         %s\nSTATE        %s\nBALANCER     %s\nMEMBERS      %s\nTOTAL-LAG    %s%s\n",
				d.Name, d.Coordinator, d.Kind, d.State, dash(d.Balancer), term.CellNumber(w, int64(d.Members)), dash(term.CellNumber(w, d.lag())), d.notes())
			if d.TotalLag == nil {
				fmt.Fprintln(c.App.ErrWriter, whereConsumersBegin)
			}
			rows := make([]groupRow, 0, len(d.Partitions)+len(d.Idle))
			for i := range d.Partitions {
				l := &d.Partitions[i]
				rows = append(rows, groupRow{l, idleMember{l.MemberID, l.ClientID, l.Host}})
			}
			for _, m := range d.Idle {
				rows = append(rows, groupRow{nil, m})
			}
			if len(rows) == 0 {
				return nil
			}
			fmt.Fprintln(w)
			offset := func(of func(*groupLine) int64) func(groupRow) string {
				return func(r groupRow) string {
					if r.groupLine == nil {
						return ""
					}
					return orDash(of(r.groupLine))
				}
			}
			return term.PrintTable(c, rows, []term.Column[groupRow]{
				{Header: "TOPIC", Cell: func(r groupRow) string {
					if r.groupLine == nil {
						return ""
					}
					return r.Topic
				}},
				{Header: "PARTITION", Cell: offset(func(l *groupLine) int64 { return int64(l.Partition) })},
				{Header: "CURRENT-OFFSET", Cell: func(r groupRow) string {
					if r.groupLine != nil && r.CurrentOffset < 0 && !r.untold {
						return "uncommitted"
					}
					return offset(func(l *groupLine) int64 { return l.CurrentOffset })(r)
				}},
				{Header: "LOG-START-OFFSET", Cell: offset(func(l *groupLine) int64 { return l.LogStartOffset })},
				{Header: "LOG-END-OFFSET", Cell: offset(func(l *groupLine) int64 { return l.LogEndOffset })},
				{Header: "LAG", Cell: func(r groupRow) string {
					if r.groupLine == nil {
						return ""
					}
					return term.CellNumber(w, r.Lag)
				}},
				{Header: "MEMBER-ID", Cell: func(r groupRow) string { return r.member.MemberID }},
				{Header: "CLIENT-ID", Cell: func(r groupRow) string { return r.member.ClientID }},
				{Header: "HOST", Cell: func(r groupRow) string { return r.member.Host }},
			})
		})
		if err != nil || !c.IsSet("max-lag") {
			return err
		}
		switch most := c.Int64("max-lag"); {
		case d.lag() > most:
			return term.Fail(term.StatusLag, "group %q is %s behind, more than %s; its consumers are too slow or not there",
				name, term.Count(d.lag(), "record"), term.Number(most))
		case d.TotalLag == nil:
			return term.Fail(term.StatusFailed, "group %q: its lag is not known: %s; start a consumer, or commit by `millrace group seek %s --topics TOPIC --to start`",
				name, d.unknownTopics(), name)
		case d.Unknown > 0:
			return term.Fail(term.StatusFailed, "group %q: the lag of %s is not known, for want of a leader; see `millrace cluster health`",
				name, term.Count(d.Unknown, "partition"))
		}
		return nil
	})
}

// A groupRow is a row of the table: a partition and who has it, or a member that has none.
type groupRow struct {
	*groupLine // nil: none
	member     idleMember
}

// whereConsumersBegin is for who would know where a group goes on that has committed nothing.
const whereConsumersBegin = "where a consumer begins that joins, its auto.offset.reset says: at the start of\n" +
	"the log with earliest, at its end with latest, the default of most clients"

// unknownTopics says why the topics of a group are not known.
func (d *groupDescription) unknownTopics() string {
	if d.Members > 0 {
		return "nothing was committed, and its members do not say what they read"
	}
	return "nothing was committed, and no member says what the group reads"
}

// notes says what the total is made of besides what was committed, "" if nothing.
func (d *groupDescription) notes() string {
	if d.TotalLag == nil {
		return " (" + d.unknownTopics() + ")"
	}
	var notes []string
	if d.NotCommitted > 0 {
		notes = append(notes, term.Count(d.NotCommitted, "partition")+" not committed, from the start of the log")
	}
	if d.Unknown > 0 {
		notes = append(notes, "without "+term.Count(d.Unknown, "partition")+" that cannot tell")
	}
	if len(notes) == 0 {
		return ""
	}
	return " (" + strings.Join(notes, "; ") + ")"
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func orDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func groupDescribeCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "describe",
		Usage:        "show a group's members, offsets and lag",
		ArgsUsage:    "GROUP",
		BashComplete: completeGroups,
		Description: `   JSON: {name, coordinator, state, balancer, members, total_lag, partitions: [{topic,
   partition, current_offset, log_start_offset, log_end_offset, lag, member_id, client_id,
   host}]}; an offset or lag of -1 is not known. With --max-lag the exit status is 11 when the
   total lag is larger.

EXAMPLES:
   $ millrace group describe audit
   $ millrace group describe audit --max-lag 100000
   $ millrace group describe audit -o json`,
		Flags: clientFlags(outputFlags(true), []urfave.Flag{
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
		return usage("--max-lag %d: it is 0 or more", c.Int64("max-lag"))
	}
	return withAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		var d *groupDescription
		err := settle(ctx, func(ctx context.Context) (err error) {
			d, err = describeGroup(ctx, admin, name)
			return err
		})
		if err != nil {
			return err
		}
		err = printObject(c, d, d.Name, func() error {
			fmt.Fprintf(c.App.Writer, "GROUP        %s\nCOORDINATOR  %d\nSTATE        %s\nBALANCER     %s\nMEMBERS      %d\nTOTAL-LAG    %d\n",
				d.Name, d.Coordinator, d.State, dash(d.Balancer), d.Members, d.TotalLag)
			if len(d.Partitions) == 0 {
				return nil
			}
			fmt.Fprintln(c.App.Writer)
			return printTable(c.App.Writer, !c.Bool("no-headers"), d.Partitions, []column[groupLine]{
				{"TOPIC", func(l groupLine) string { return l.Topic }},
				{"PARTITION", func(l groupLine) string { return strconv.Itoa(int(l.Partition)) }},
				{"CURRENT-OFFSET", func(l groupLine) string { return orDash(l.CurrentOffset) }},
				{"LOG-START-OFFSET", func(l groupLine) string { return orDash(l.LogStartOffset) }},
				{"LOG-END-OFFSET", func(l groupLine) string { return orDash(l.LogEndOffset) }},
				{"LAG", func(l groupLine) string { return orDash(l.Lag) }},
				{"MEMBER-ID", func(l groupLine) string { return l.MemberID }},
				{"CLIENT-ID", func(l groupLine) string { return l.ClientID }},
				{"HOST", func(l groupLine) string { return l.Host }},
			})
		})
		if err == nil && c.IsSet("max-lag") && d.TotalLag > c.Int64("max-lag") {
			return fail(StatusLag, "group %q is %s behind, more than %s; its consumers are too slow or not there",
				name, count(d.TotalLag, "record"), number(c.Int64("max-lag")))
		}
		return err
	})
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

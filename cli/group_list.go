package cli

import (
	"context"
	"fmt"
	"strconv"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func groupListCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list consumer groups",
		Description: `   KIND is the protocol its members speak: classic, or consumer for KIP-848's; what is no
   group of consumers has the name it gives itself. LAG is the total of group describe; a
   dash is not known of every partition, or the group has committed nothing and no member is
   there to say what it reads.

   JSON: a list of {name, kind, members, total_lag, state, coordinator, protocol_type}; a
   total_lag of null is not known, nor are members of -1.

EXAMPLES:
   $ millrace group list
   $ millrace group ls -o json
   $ millrace group ls -o name`,
		Flags:  kafka.Flags(term.OutputFlags(true)),
		Action: groupList,
	}
}

type groupItem struct {
	Name         string `json:"name"`
	Kind         string `json:"kind"`
	Members      int    `json:"members"`
	TotalLag     *int64 `json:"total_lag"`
	State        string `json:"state"`
	Coordinator  int32  `json:"coordinator"`
	ProtocolType string `json:"protocol_type"`
}

func groupList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("group list takes no arguments; describe a group with `millrace group describe %s`", c.Args().First())
	}
	return withReader(c, func(ctx context.Context, r *reader) error {
		admin, ask := r.admin, vigilOver(c).settle
		if !r.majority() { // groups have no coordinators then, and waiting for them is vain
			ask = func(ctx context.Context, f func(context.Context) error) error { return f(ctx) }
		}
		var groups kadm.ListedGroups
		err := ask(ctx, func(ctx context.Context) (err error) {
			groups, err = admin.ListGroups(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("list groups: %w", err)
		}
		var items []groupItem
		for _, g := range groups.Sorted() {
			items = append(items, groupItem{g.Group, g.ProtocolType, -1, nil, g.State, g.Coordinator, g.ProtocolType})
		}
		if c.String("output") != "name" {
			completeGroupItems(ctx, admin, items)
		}
		return term.PrintList(c, items, []term.Column[groupItem]{
			{Header: "GROUP", Cell: func(g groupItem) string { return g.Name }},
			{Header: "KIND", Cell: func(g groupItem) string { return g.Kind }},
			{Header: "MEMBERS", Cell: func(g groupItem) string { return term.CellNumber(c.App.Writer, int64(g.Members)) }},
			{Header: "LAG", Cell: func(g groupItem) string {
				if g.TotalLag == nil {
					return ""
				}
				return term.CellNumber(c.App.Writer, *g.TotalLag)
			}},
			{Header: "STATE", Cell: func(g groupItem) string { return g.State }},
			{Header: "COORDINATOR", Cell: func(g groupItem) string { return strconv.Itoa(int(g.Coordinator)) }},
		})
	})
}

// completeGroupItems asks for what a list of groups does not have. What cannot be had of
// one stays unknown.
func completeGroupItems(ctx context.Context, admin *kadm.Client, items []groupItem) {
	names := make([]string, 0, len(items))
	for _, g := range items {
		names = append(names, g.Name)
	}
	answers := describeGroups(ctx, admin, names...)
	for i := range items {
		g, d := &items[i], answers[items[i].Name]
		if d.err != nil {
			continue
		}
		g.State, g.Members = d.State, d.Members
		if g.ProtocolType == "consumer" || g.ProtocolType == "" {
			g.Kind = d.Kind
		}
		if d.Unknown == 0 {
			g.TotalLag = d.TotalLag
		}
	}
}

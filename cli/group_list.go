package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func groupListCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list consumer groups",
		Description: `   JSON: a list of {name, coordinator, state, protocol_type}.

EXAMPLES:
   $ millrace group list
   $ millrace group ls -o json
   $ millrace group ls -o name`,
		Flags:  clientFlags(outputFlags(true)),
		Action: groupList,
	}
}

type groupItem struct {
	Name         string `json:"name"`
	Coordinator  int32  `json:"coordinator"`
	State        string `json:"state"`
	ProtocolType string `json:"protocol_type"`
}

func groupList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return usage("group list takes no arguments; describe a group with `millrace group describe %s`", c.Args().First())
	}
	return withAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		var groups kadm.ListedGroups
		err := settle(ctx, func(ctx context.Context) (err error) {
			groups, err = admin.ListGroups(ctx)
			return err
		})
		if err != nil {
			return fmt.Errorf("list groups: %w", err)
		}
		var items []groupItem
		for _, g := range groups.Sorted() {
			items = append(items, groupItem{g.Group, g.Coordinator, g.State, g.ProtocolType})
		}
		return printList(c, items, []column[groupItem]{
			{"GROUP", func(g groupItem) string { return g.Name }},
			{"COORDINATOR", func(g groupItem) string { return strconv.Itoa(int(g.Coordinator)) }},
			{"STATE", func(g groupItem) string { return g.State }},
		})
	})
}

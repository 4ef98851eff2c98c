package cli

import (
	"context"
	"fmt"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

func groupDeleteCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "delete",
		Aliases:      []string{"rm"},
		Usage:        "delete groups with what they have committed",
		ArgsUsage:    "GROUP…",
		BashComplete: completeGroups,
		Description: `   Only groups without members can be deleted. If one of the groups does not exist, none is.

EXAMPLES:
   $ millrace group delete audit --dry-run
   $ millrace group delete audit --yes`,
		Flags:  kafka.Flags(term.DestructiveFlags()),
		Action: groupDelete,
	}
}

func groupDelete(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("group delete which group? see `millrace group delete --help`")
	}
	return kafka.WithAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		var what []string
		for _, name := range c.Args().Slice() {
			var d *groupDescription
			err := vigilOver(c).settle(ctx, func(ctx context.Context) (err error) {
				d, err = describeGroup(ctx, admin, name)
				return err
			})
			if err != nil {
				return err
			}
			if d.Members > 0 {
				return kafka.GroupError(name, kerr.NonEmptyGroup)
			}
			what = append(what, fmt.Sprintf("group %s with what it committed for %s", name, term.Count(d.committed(), "partition")))
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
		answers, err := admin.DeleteGroups(ctx, c.Args().Slice()...)
		if err != nil {
			return err
		}
		var first error
		for _, name := range c.Args().Slice() {
			switch a := answers[name]; {
			case a.Err == nil:
				fmt.Fprintln(c.App.Writer, "deleted group", name)
			case first == nil:
				first = kafka.GroupError(name, a.Err)
			}
		}
		return first
	})
}

package cli

import (
	"context"
	"fmt"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func aclGrantCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "grant",
		Usage: "allow somebody to do something, or deny it",
		Description: `   What a client needs is said by --produce, --consume and --group, anything else by
   --operation and what it is about. All that one command line says is granted together.
   What is granted already stays so.

   Who may read, write, delete or alter something may describe it. What is denied to
   somebody nothing else allows, but super users may do everything.

EXAMPLES:
   $ millrace acl grant --user alice --produce orders --consume payments --group billing
   $ millrace acl grant --user audit --consume logs. --group audit --prefix
   $ millrace acl grant --user ops --operation alter --operation describe --cluster
   $ millrace acl grant --user bob --deny --operation delete --topic '*' --dry-run`,
		Flags:  kafka.Flags(entryFlags()),
		Action: aclGrant,
	}
}

func aclGrant(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("acl grant takes flags alone, not %q; see `millrace acl grant --help`", c.Args().First())
	}
	entries, err := entriesNamed(c)
	if err != nil {
		return err
	}
	if c.Bool("dry-run") {
		for i := range entries {
			fmt.Fprintln(c.App.Writer, "would grant:", sentenceOf(&entries[i]))
		}
		return nil
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		req := kmsg.NewPtrCreateACLsRequest()
		for i := range entries {
			e := &entries[i]
			rc := kmsg.NewCreateACLsRequestCreation()
			rc.ResourceType, rc.ResourceName, rc.ResourcePatternType = kmsg.ACLResourceType(e.Type), e.Name, kmsg.ACLResourcePatternType(e.Pattern)
			rc.Principal, rc.Host, rc.Operation, rc.PermissionType = e.Principal, e.Host, kmsg.ACLOperation(e.Operation), kmsg.ACLPermissionType(e.Permission)
			req.Creations = append(req.Creations, rc)
		}
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return err
		}
		if len(resp.Results) != len(entries) {
			return fmt.Errorf("the broker answered %d of %s", len(resp.Results), term.Count(len(entries), "entry"))
		}
		var first error
		for i, r := range resp.Results {
			if err := kerr.ErrorForCode(r.ErrorCode); err == nil {
				fmt.Fprintln(c.App.Writer, "granted:", sentenceOf(&entries[i]))
			} else if first == nil {
				first = aclError(err, r.ErrorMessage)
			}
		}
		return first
	})
}

package cli

import (
	"context"
	"fmt"
	"slices"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/security/acl"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func aclRevokeCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "revoke",
		Usage: "take back what was granted or denied",
		Description: `   The flags are those of grant, and name the same entries; --all names all of somebody's.
   Operations that others need too go with them: who may produce to a topic and consume it
   and is no longer to consume it may not describe it by an entry of its own any more, and
   may by its right to write. If none of the entries is there, the status is 3.

EXAMPLES:
   $ millrace acl revoke --user alice --consume payments --group billing --dry-run
   $ millrace acl revoke --user alice --consume payments --group billing
   $ millrace acl revoke --user audit --all --yes`,
		Flags: kafka.Flags(entryFlags(), []urfave.Flag{
			&urfave.BoolFlag{Name: "all", Usage: "all that was granted to somebody and denied"},
			&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask, with --all"},
		}),
		Action: aclRevoke,
	}
}

func aclRevoke(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("acl revoke takes flags alone, not %q; see `millrace acl revoke --help`", c.Args().First())
	}
	var named []acl.Entry
	principals, err := who(c)
	switch {
	case err != nil:
		return err
	case c.Bool("all") && len(principals) == 0:
		return term.Usage("acl revoke all of whom? --user NAME says it")
	case c.Bool("all"):
		for _, flag := range []string{"produce", "consume", "idempotent", "operation", "topic", "group", "cluster", "transactional-id", "delegation-token", "user-principal", "prefix", "host", "deny"} {
			if c.IsSet(flag) {
				return term.Usage("--all is all that somebody was granted; --%s would be part of it", flag)
			}
		}
	default:
		if named, err = entriesNamed(c); err != nil {
			return err
		}
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		var found []acl.Entry
		for _, p := range whose(named, principals) {
			f := everything
			f.Principal = &p
			entries, err := describeACLs(ctx, client, f)
			if err != nil {
				return err
			}
			for _, e := range entries {
				if c.Bool("all") || slices.Contains(named, e) {
					found = append(found, e)
				}
			}
		}
		if len(found) == 0 {
			return term.Fail(term.StatusNotFound, "nothing of that is granted or denied; see `millrace acl list`")
		}
		if c.Bool("dry-run") {
			for i := range found {
				fmt.Fprintln(c.App.Writer, "would revoke:", sentenceOf(&found[i]))
			}
			return nil
		}
		if c.Bool("all") {
			if err := term.Confirm(c, fmt.Sprintf("revoke all that was granted to somebody and denied, %d in all", len(found))); err != nil {
				return err
			}
			// Asking a person may have taken longer than the time for the request.
			ctx = context.WithoutCancel(ctx)
		}
		return deleteACLs(ctx, c, client, found)
	})
}

// whose are the principals of entries, each once, with further ones.
func whose(entries []acl.Entry, principals []string) []string {
	for i := range entries {
		principals = append(principals, entries[i].Principal)
	}
	slices.Sort(principals)
	return slices.Compact(principals)
}

// deleteACLs deletes entries, each by a filter that is for it alone.
func deleteACLs(ctx context.Context, c *urfave.Context, client *kgo.Client, entries []acl.Entry) error {
	req := kmsg.NewPtrDeleteACLsRequest()
	for i := range entries {
		e := &entries[i]
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourceName, f.ResourcePatternType = kmsg.ACLResourceType(e.Type), &e.Name, kmsg.ACLResourcePatternType(e.Pattern)
		f.Principal, f.Host, f.Operation, f.PermissionType = &e.Principal, &e.Host, kmsg.ACLOperation(e.Operation), kmsg.ACLPermissionType(e.Permission)
		req.Filters = append(req.Filters, f)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return err
	}
	if len(resp.Results) != len(entries) {
		return fmt.Errorf("the broker answered %d of %s", len(resp.Results), term.Count(len(entries), "entry"))
	}
	var first error
	for i := range resp.Results {
		r := &resp.Results[i]
		err, detail := kerr.ErrorForCode(r.ErrorCode), r.ErrorMessage
		for j := range r.MatchingACLs {
			if err == nil {
				err, detail = kerr.ErrorForCode(r.MatchingACLs[j].ErrorCode), r.MatchingACLs[j].ErrorMessage
			}
		}
		switch {
		case err != nil && first == nil:
			first = aclError(err, detail)
		case err == nil && len(r.MatchingACLs) > 0: // else somebody else was faster
			fmt.Fprintln(c.App.Writer, "revoked:", sentenceOf(&entries[i]))
		}
	}
	return first
}

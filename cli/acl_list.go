package cli

import (
	"context"
	"slices"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/security/acl"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func aclListCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list who may do what, and who may not",
		Description: `   All entries, or those that concern somebody, or one of some resources: those for all
   users, for all names and for what names begin with are among them.

   JSON: a list of {principal, permission, operation, type, name, pattern, host}; pattern is
   literal or prefixed, a host of * is any.

EXAMPLES:
   $ millrace acl list
   $ millrace acl list --user alice
   $ millrace acl ls --topic orders -o json`,
		Flags:  kafka.Flags(term.OutputFlags(true), whoFlags("what concerns a"), resourceFlags()),
		Action: aclList,
	}
}

// A listedACL is an entry as it is written.
type listedACL struct {
	Principal  string `json:"principal"`
	Permission string `json:"permission"`
	Operation  string `json:"operation"`
	Type       string `json:"type"`
	Name       string `json:"name"`
	Pattern    string `json:"pattern"`
	Host       string `json:"host"`
}

func aclList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("acl list takes flags alone, not %q; see `millrace acl list --help`", c.Args().First())
	}
	principals, err := who(c)
	if err != nil {
		return err
	}
	named, err := resources(c)
	if err != nil {
		return err
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		entries, err := describeACLs(ctx, client, everything)
		if err != nil {
			return err
		}
		var items []listedACL
		for i := range entries {
			e := &entries[i]
			if len(principals) > 0 && e.Principal != acl.AnyPrincipal && !slices.Contains(principals, e.Principal) {
				continue
			}
			if len(named) > 0 && !slices.ContainsFunc(named, func(r resource) bool { return about(r, e) }) {
				continue
			}
			items = append(items, listedACL{e.Principal, lower(e.Permission), lower(e.Operation), lower(e.Type), e.Name, lower(e.Pattern), e.Host})
		}
		return term.PrintList(c, items, []term.Column[listedACL]{
			{Header: "PRINCIPAL", Cell: func(l listedACL) string { return l.Principal }},
			{Header: "PERMISSION", Cell: func(l listedACL) string { return l.Permission }},
			{Header: "OPERATION", Cell: func(l listedACL) string { return l.Operation }},
			{Header: "TYPE", Cell: func(l listedACL) string { return l.Type }},
			{Header: "NAME", Cell: func(l listedACL) string { return l.Name }},
			{Header: "PATTERN", Cell: func(l listedACL) string { return l.Pattern }},
			{Header: "HOST", Cell: func(l listedACL) string { return l.Host }},
		})
	})
}

// about says whether an entry is about a resource.
func about(r resource, e *acl.Entry) bool {
	f := everything
	f.Type, f.Name, f.Pattern = r.kind, &r.name, acl.Match
	return f.Matches(e)
}

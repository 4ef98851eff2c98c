package cli

import (
	"context"
	"fmt"
	"strings"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/metadata/settings"
	"millrace/security/acl"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func aclCheckCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "check",
		Usage: "say whether somebody may do something, and why",
		Description: `   Decided here, as brokers do, by what they say is granted and by their settings
   super.users and allow.everyone.if.no.acl.found. The status is 0 for what is allowed and 4
   for what is not.

   JSON: {principal, host, operation, type, name, allowed, because, entries}; entries are
   those that decide, as acl list has them.

EXAMPLES:
   $ millrace acl check --user alice --operation write --topic orders
   $ millrace acl check --user audit --operation read --topic logs.web -o json`,
		Flags: kafka.Flags(term.OutputFlags(true), whoFlags("may a"), []urfave.Flag{
			&urfave.StringSliceFlag{Name: "operation", Usage: "do `OPERATION`: read, write, describe-configs, …"},
		}, resourceFlags(), []urfave.Flag{
			&urfave.StringFlag{Name: "host", Value: "127.0.0.1", Usage: "from an `ADDRESS`"},
		}),
		Action: aclCheck,
	}
}

// A checkedACL is what acl check finds out.
type checkedACL struct {
	Principal string      `json:"principal"`
	Host      string      `json:"host"`
	Operation string      `json:"operation"`
	Type      string      `json:"type"`
	Name      string      `json:"name"`
	Allowed   bool        `json:"allowed"`
	Because   string      `json:"because"`
	Entries   []listedACL `json:"entries"`
}

func aclCheck(c *urfave.Context) error {
	principals, err := who(c)
	if err != nil {
		return err
	}
	operations, err := operationsNamed(c)
	if err != nil {
		return err
	}
	named, err := resources(c)
	if err != nil {
		return err
	}
	if len(principals) != 1 || len(operations) != 1 || len(named) != 1 || c.NArg() > 0 {
		return term.Usage("acl check takes one --user, one --operation, and one of --topic, --group, --cluster, …; see `millrace acl check --help`")
	}
	q := acl.Request{Principal: principals[0], Host: acl.CanonicalHost(c.String("host")), Operation: operations[0], Type: named[0].kind, Name: named[0].name}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		entries, err := describeACLs(ctx, client, everything)
		if err != nil {
			return err
		}
		rules, err := rulesSet(ctx, client)
		if err != nil {
			return err
		}
		rules.Entries = acl.NewSet(entries)
		d := rules.Decide(q)
		checked := checkedACL{q.Principal, q.Host, lower(q.Operation), lower(q.Type), q.Name, d.Allowed, d.Because.String(), []listedACL{}}
		var why []string
		for i := range entries {
			e := &entries[i]
			if (d.Because == acl.EntryAllows || d.Because == acl.EntryDenies) && decides(e, q, d) {
				checked.Entries = append(checked.Entries, listedACL{e.Principal, lower(e.Permission), lower(e.Operation), lower(e.Type), e.Name, lower(e.Pattern), e.Host})
				why = append(why, "   "+sentenceOf(e)+"\n")
			}
		}
		answer := "no"
		if d.Allowed {
			answer = "yes"
		}
		err = term.PrintObject(c, checked, answer, func() error {
			_, err := fmt.Fprintf(c.App.Writer, "%s: %s\n%s", answer, d.Because, strings.Join(why, ""))
			return err
		})
		if err == nil && !d.Allowed {
			err = &term.Silent{Status: term.StatusNotAllowed}
		}
		return err
	})
}

// decides says whether an entry alone decides a request as all of them do.
func decides(e *acl.Entry, q acl.Request, d acl.Decision) bool {
	alone := acl.Rules{Entries: acl.NewSet([]acl.Entry{*e})}
	return alone.Decide(q) == d
}

// rulesSet are the rules that brokers' settings make, as any of them has them.
func rulesSet(ctx context.Context, client *kgo.Client) (*acl.Rules, error) {
	m, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	rules := new(acl.Rules)
	if len(m.Brokers) == 0 {
		return rules, nil
	}
	b := m.Brokers[0]
	all, err := listSettings(ctx, client.Broker(int(b.NodeID)), kmsg.ConfigResourceTypeBroker, fmt.Sprint(b.NodeID), settings.BrokerDefinition)
	if err != nil {
		return nil, aclError(err, nil)
	}
	for _, s := range all {
		switch {
		case s.Value == nil:
		case s.Name == "super.users":
			rules.SuperUsers, _ = acl.ParseSuperUsers(*s.Value)
		case s.Name == "allow.everyone.if.no.acl.found":
			rules.AllowEveryone = *s.Value == "true"
		}
	}
	return rules, nil
}

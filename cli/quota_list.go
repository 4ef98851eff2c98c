package cli

import (
	"context"
	"strconv"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func quotaListCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list quotas",
		Description: `   All quotas, or those of which a user, a client id or an address is part.

   JSON: a list of {user, client_id, ip, key, value}; what is null is not part of it, an empty
   name is the default. Keys are Kafka's.

EXAMPLES:
   $ millrace quota list
   $ millrace quota list --user alice
   $ millrace quota ls --default-ip -o json`,
		Flags:  kafka.Flags(term.OutputFlags(true), entityFlags()),
		Action: quotaList,
	}
}

// A listedQuota is one value of a quota as it is written.
type listedQuota struct {
	User     *string `json:"user"`
	ClientID *string `json:"client_id"`
	IP       *string `json:"ip"`
	Key      string  `json:"key"`
	Value    float64 `json:"value"`
}

func quotaList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("quota list takes flags alone, not %q; see `millrace quota list --help`", c.Args().First())
	}
	e, err := entityNamed(c)
	if err != nil {
		return err
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		entries, err := describeQuotas(ctx, client, e, false)
		if err != nil {
			return err
		}
		var items []listedQuota
		for i := range entries {
			var of listedQuota
			for _, part := range entries[i].Entity {
				name := ""
				if part.Name != nil {
					name = *part.Name
				}
				switch part.Type {
				case "user":
					of.User = &name
				case "client-id":
					of.ClientID = &name
				case "ip":
					of.IP = &name
				}
			}
			for _, v := range entries[i].Values {
				of.Key, of.Value = v.Key, v.Value
				items = append(items, of)
			}
		}
		return term.PrintList(c, items, []term.Column[listedQuota]{
			{Header: "USER", Cell: func(q listedQuota) string { return shownPart(q.User) }},
			{Header: "CLIENT-ID", Cell: func(q listedQuota) string { return shownPart(q.ClientID) }},
			{Header: "IP", Cell: func(q listedQuota) string { return shownPart(q.IP) }},
			{Header: "QUOTA", Cell: func(q listedQuota) string { return q.Key }},
			{Header: "VALUE", Cell: func(q listedQuota) string { return shownRate(q.Value) }},
		})
	})
}

// shownPart is a part of an entity in a table, where <default> is no name: none has angle
// brackets in Kafka's tools either.
func shownPart(name *string) string {
	switch {
	case name == nil:
		return "-"
	case *name == "":
		return "<default>"
	}
	return *name
}

func shownRate(rate float64) string { return strconv.FormatFloat(rate, 'f', -1, 64) }

// describeQuotas asks for the quotas that an entity is part of, or for its own alone.
func describeQuotas(ctx context.Context, client *kgo.Client, e entity, strict bool) ([]kmsg.DescribeClientQuotasResponseEntry, error) {
	req := kmsg.NewPtrDescribeClientQuotasRequest()
	req.Strict = strict
	for _, part := range e {
		f := kmsg.NewDescribeClientQuotasRequestComponent()
		f.EntityType, f.MatchType, f.Match = part.Type, kmsg.QuotasMatchTypeExact, part.Name
		if part.Name == nil {
			f.MatchType = kmsg.QuotasMatchTypeDefault
		}
		req.Components = append(req.Components, f)
	}
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return nil, err
	}
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, quotaError(err, resp.ErrorMessage)
	}
	return resp.Entries, nil
}

package cli

import (
	"context"
	"fmt"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func quotaDeleteCommand() *urfave.Command {
	var values []urfave.Flag
	for _, kind := range quotaKinds {
		values = append(values, &urfave.BoolFlag{Name: kind.flag, Usage: "its " + kind.key})
	}
	return &urfave.Command{
		Name:  "delete",
		Usage: "let users, client ids and addresses go as others do",
		Description: `   All of its quotas, or those that are named. What a less specific quota says holds then.
   If it has none of them, the status is 3.

EXAMPLES:
   $ millrace quota delete --user alice --consume
   $ millrace quota delete --user alice
   $ millrace quota delete --default-user --default-client-id`,
		Flags:  kafka.Flags(entityFlags(), values),
		Action: quotaDelete,
	}
}

func quotaDelete(c *urfave.Context) error {
	e, err := someEntity(c)
	if err != nil {
		return err
	}
	named := map[string]bool{}
	for _, kind := range quotaKinds {
		if c.Bool(kind.flag) {
			named[kind.key] = true
		}
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		entries, err := describeQuotas(ctx, client, e, true)
		if err != nil {
			return err
		}
		var ops []kmsg.AlterClientQuotasRequestEntryOp
		for i := range entries {
			for _, v := range entries[i].Values {
				if len(named) == 0 || named[v.Key] {
					op := kmsg.NewAlterClientQuotasRequestEntryOp()
					op.Key, op.Remove = v.Key, true
					ops = append(ops, op)
				}
			}
		}
		if len(ops) == 0 {
			return term.Fail(term.StatusNotFound, "there is no such quota; see `millrace quota list`")
		}
		if err := alterQuota(ctx, client, e, ops); err != nil {
			return err
		}
		for _, op := range ops {
			fmt.Fprintf(c.App.Writer, "deleted: %s: %s\n", e, op.Key)
		}
		return nil
	})
}

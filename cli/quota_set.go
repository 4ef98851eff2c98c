package cli

import (
	"context"
	"fmt"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/metadata"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func quotaSetCommand() *urfave.Command {
	var values []urfave.Flag
	for _, kind := range quotaKinds {
		values = append(values, &urfave.StringFlag{Name: kind.flag, Usage: kind.usage})
	}
	return &urfave.Command{
		Name:  "set",
		Usage: "say how fast users, client ids and addresses may go",
		Description: `   What is not named stays as it was. Of all quotas that fit a client the most specific
   holds: of its user and its client id, then of its user, then of its client id; a default
   after those that are named. All clients that one quota holds for share it, at each broker
   by itself.

   Who goes faster is answered, and is then not read from for as long as it takes.

EXAMPLES:
   $ millrace quota set --user alice --produce 10MiB --consume 20MiB
   $ millrace quota set --default-user --default-client-id --produce 1MB
   $ millrace quota set --client-id reports --requests 50 --mutations 2
   $ millrace quota set --default-ip --connections 100`,
		Flags:  kafka.Flags(entityFlags(), values),
		Action: quotaSet,
	}
}

func quotaSet(c *urfave.Context) error {
	e, err := someEntity(c)
	if err != nil {
		return err
	}
	var ops []kmsg.AlterClientQuotasRequestEntryOp
	for _, kind := range quotaKinds {
		if !c.IsSet(kind.flag) {
			continue
		}
		rate, err := parseRate(kind.flag, c.String(kind.flag), kind.bytes)
		if err != nil {
			return err
		}
		op := kmsg.NewAlterClientQuotasRequestEntryOp()
		op.Key, op.Value = kind.key, rate
		ops = append(ops, op)
	}
	if len(ops) == 0 {
		return term.Usage("quota set what? --produce, --consume, --requests, --mutations or --connections says it")
	}
	byAddress := e[len(e)-1].Type == "ip"
	for _, op := range ops {
		if (op.Key == metadata.ConnectionCreationRate) != byAddress {
			return term.Usage("--connections is of an address, --ip or --default-ip, and nothing else is")
		}
	}
	return kafka.WithClient(c, func(ctx context.Context, client *kgo.Client, _ *kadm.Client) error {
		if err := alterQuota(ctx, client, e, ops); err != nil {
			return err
		}
		for _, op := range ops {
			fmt.Fprintf(c.App.Writer, "set: %s: %s=%s\n", e, op.Key, shownRate(op.Value))
		}
		return nil
	})
}

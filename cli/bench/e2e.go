package bench

import (
	"context"
	"maps"
	"slices"

	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func benchEndToEndCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "e2e",
		Usage: "how soon a record that is produced is consumed",
		Description: `   Produces at a rate and consumes at the same time, in one process and so by one clock. The
   latency of a record runs from the moment the rate has for it to its reception, --linger
   included. Every record is accounted for: one that was acknowledged and never received is
   lost, and the exit status is 1.

   -o json has the keys of bench produce, and lost and duplicates; records are those received.

EXAMPLES:
   $ millrace bench e2e -n 1000
   $ millrace bench e2e -n 2000 --rate 5000/s --linger 0s --producers 2 --consumers 2 -o json
   $ millrace bench e2e -n 500 --keys 10 -o csv`,
		Flags: kafka.Flags(benchTopicFlags(), []urfave.Flag{
			&urfave.IntFlag{Name: "consumers", Value: 1, DefaultText: "1", Usage: "that share the partitions, `N`"},
		}, benchLoadFlags("1000/s"), benchOutputFlags()),
		Action: benchEndToEnd,
	}
}

func benchEndToEnd(c *urfave.Context) error {
	if c.Int("consumers") < 1 {
		return term.Usage("--consumers %d: it is 1 or more", c.Int("consumers"))
	}
	plan, err := benchPlan(c)
	if err != nil {
		return err
	}
	if plan.RecordBytes < load.MinStamped {
		return term.Usage("--size %d: the stamp by which records are told apart needs %d", plan.RecordBytes, load.MinStamped)
	}
	b, err := openBench(c)
	if err != nil {
		return err
	}
	defer b.close()
	plan.Topic, plan.Partitions = b.topic, b.partitions
	senders, closeSenders, err := b.senders(plan)
	if err != nil {
		return err
	}
	defer closeSenders()
	clients, err := b.followers(min(c.Int("consumers"), b.partitions))
	if err != nil {
		return err
	}
	var receivers []load.Receiver
	for _, client := range clients {
		defer client.Close()
		receivers = append(receivers, load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error {
			return b.follow(ctx, client, func(r *kgo.Record) { m.GotRecord(r.Key, r.Value) })
		}))
	}
	received, _, err := load.EndToEnd(c.Context, plan, senders, receivers, b.tell)
	if err != nil {
		return term.Usage("%v", err)
	}
	columns := benchColumns(true,
		term.Column[*load.Result]{Header: "LOST", Cell: func(r *load.Result) string { return term.Number(r.Lost) }},
		term.Column[*load.Result]{Header: "DUPLICATES", Cell: func(r *load.Result) string { return term.Number(r.Duplicates) }})
	if err := b.print(received, columns); err != nil {
		return err
	}
	return b.verdict(received)
}

// followers returns n clients that share the topic's partitions and read what is
// written from now on.
func (b *bench) followers(n int) (clients []*kgo.Client, err error) {
	now, err := b.ends(b.c.Context)
	if err != nil {
		return nil, err
	}
	shares := make([]map[int32]kgo.Offset, n)
	for i, p := range slices.Sorted(maps.Keys(now)) {
		if shares[i%n] == nil {
			shares[i%n] = make(map[int32]kgo.Offset)
		}
		shares[i%n][p] = kgo.NewOffset().At(now[p])
	}
	for _, share := range shares {
		client, err := kafka.DialBrokers(b.c.Context, b.brokers,
			kgo.ClientID("millrace-bench"),
			kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{b.topic: share}))
		if err != nil {
			for _, c := range clients {
				c.Close()
			}
			return nil, err
		}
		clients = append(clients, client)
	}
	return clients, nil
}

// ends returns where each partition ends now.
func (b *bench) ends(ctx context.Context) (map[int32]int64, error) {
	all := make(map[int32]int64)
	err := kafka.Settle(ctx, func(ctx context.Context) error {
		ends, err := kafka.Listed(b.admin.ListEndOffsets(ctx, b.topic))
		for p, end := range ends[b.topic] {
			all[p] = end.Offset
		}
		return err
	})
	return all, err
}

// follow calls f for every record a client reads, until ctx ends.
func (b *bench) follow(ctx context.Context, client *kgo.Client, f func(*kgo.Record)) error {
	for ctx.Err() == nil {
		fetches := client.PollFetches(ctx)
		fetches.EachRecord(f)
		if err := kafka.CheckFetches(b.c, fetches); err != nil {
			return err
		}
	}
	return nil
}

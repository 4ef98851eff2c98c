package cli

import (
	"context"
	"strconv"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func topicListCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list topics",
		Description: `   JSON: a list of {name, id, partitions, replicas, internal}.

EXAMPLES:
   $ millrace topic list
   $ millrace topic ls --internal -o json
   $ millrace topic ls -o name`,
		Flags:  clientFlags(outputFlags(true), internalFlag()),
		Action: topicList,
	}
}

type topicItem struct {
	Name       string `json:"name"`
	ID         string `json:"id"`
	Partitions int    `json:"partitions"`
	Replicas   int    `json:"replicas"`
	Internal   bool   `json:"internal"`
}

func topicList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return usage("topic list takes no arguments; describe a topic with `millrace topic describe %s`", c.Args().First())
	}
	return withAdmin(c, func(ctx context.Context, admin *kadm.Client) error {
		list := admin.ListTopics
		if c.Bool("internal") {
			list = admin.ListTopicsWithInternal
		}
		topics, err := list(ctx)
		if err != nil {
			return err
		}
		var items []topicItem
		for _, t := range topics.Sorted() {
			items = append(items, topicItem{t.Topic, topicID(t.ID), len(t.Partitions), fewestReplicas(t), t.IsInternal})
		}
		return printList(c, items, []column[topicItem]{
			{"NAME", func(t topicItem) string { return t.Name }},
			{"PARTITIONS", func(t topicItem) string { return strconv.Itoa(t.Partitions) }},
			{"REPLICAS", func(t topicItem) string { return strconv.Itoa(t.Replicas) }},
		})
	})
}

package cli

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"strings"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func topicCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "topic",
		Aliases: []string{"topics"},
		Usage:   "list, create, describe, alter, delete and trim topics",
		Subcommands: []*urfave.Command{
			topicListCommand(),
			topicCreateCommand(),
			topicDescribeCommand(),
			topicConfigCommand(),
			topicAlterCommand(),
			topicDeleteCommand(),
			topicTrimCommand(),
		},
	}
}

// oneTopic returns the only argument.
func oneTopic(c *urfave.Context) (string, error) {
	if c.NArg() != 1 {
		return "", term.Usage("%s takes the name of one topic; see `millrace %s --help`", c.Command.HelpName[len("millrace "):], c.Command.HelpName[len("millrace "):])
	}
	return c.Args().First(), nil
}

// internalFlag asks for the cluster's own topics, which would drown the others.
func internalFlag() []urfave.Flag {
	return []urfave.Flag{&urfave.BoolFlag{Name: "internal", Aliases: []string{"i"}, Usage: "internal topics too"}}
}

// tellWithoutEffect says of settings that were given for a topic which of them the
// brokers take and do nothing with: they say so in the settings' documentation. Not being
// able to find out is no harm.
func tellWithoutEffect(ctx context.Context, w io.Writer, client *kgo.Client, topic string, keys []string) {
	if len(keys) == 0 {
		return
	}
	req := kmsg.NewPtrDescribeConfigsRequest()
	rr := kmsg.NewDescribeConfigsRequestResource()
	rr.ResourceType, rr.ResourceName, rr.ConfigNames = kmsg.ConfigResourceTypeTopic, topic, keys
	req.Resources, req.IncludeDocumentation = append(req.Resources, rr), true
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return
	}
	for _, r := range resp.Resources {
		for _, s := range r.Configs {
			if s.Documentation == nil {
				continue
			}
			if why, ok := strings.CutPrefix(*s.Documentation, withoutEffect); ok {
				fmt.Fprintf(w, "millrace: %s has no effect here:%s\n", s.Name, strings.TrimSuffix(why, "."))
			}
		}
	}
}

// withoutEffect begins the documentation of settings that are kept for tools' sake.
const withoutEffect = "Accepted without effect:"

// fewestReplicas is the replication factor of a topic; while a reassignment goes
// on its partitions may differ.
func fewestReplicas(t kadm.TopicDetail) int {
	n := 0
	for _, p := range t.Partitions {
		if n == 0 || len(p.Replicas) < n {
			n = len(p.Replicas)
		}
	}
	return n
}

// topicID writes a topic's id as Kafka does: 22 characters of base64, URL alphabet.
func topicID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

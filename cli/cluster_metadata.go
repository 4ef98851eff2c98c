package cli

import (
	"bytes"
	"context"
	"fmt"
	"strconv"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func clusterMetadataCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "metadata",
		Usage: "show every partition with its leader and replicas",
		Description: `   What a client is told, without internal topics unless -i. -o kcat prints all of it, as
   kcat -L does.

   JSON: a list of {topic, partition, leader, epoch, replicas, isr, offline}.

EXAMPLES:
   $ millrace cluster metadata
   $ millrace cluster metadata -o kcat`,
		Flags:  kafka.Flags(term.OutputFlags(true), internalFlag()),
		Action: clusterMetadata,
	}
}

type metadataItem struct {
	Topic     string  `json:"topic"`
	Partition int32   `json:"partition"`
	Leader    int32   `json:"leader"`
	Epoch     int32   `json:"epoch"`
	Replicas  []int32 `json:"replicas"`
	ISR       []int32 `json:"isr"`
	Offline   []int32 `json:"offline"`
}

func clusterMetadata(c *urfave.Context) error {
	return withReader(c, func(ctx context.Context, r *reader) error {
		m, err := r.admin.Metadata(ctx)
		if err != nil {
			return fmt.Errorf("ask for the metadata: %w", err)
		}
		if c.String("output") == "kcat" {
			_, err := c.App.Writer.Write(kcatMetadata(m))
			return err
		}
		var items []metadataItem
		for _, t := range m.Topics.Sorted() {
			if t.IsInternal && !c.Bool("internal") {
				continue
			}
			for _, p := range t.Partitions.Sorted() {
				items = append(items, metadataItem{p.Topic, p.Partition, p.Leader, p.LeaderEpoch,
					append([]int32{}, p.Replicas...), append([]int32{}, p.ISR...), append([]int32{}, p.OfflineReplicas...)})
			}
		}
		return term.PrintList(c, items, []term.Column[metadataItem]{
			{Header: "TOPIC", Cell: func(p metadataItem) string { return p.Topic }},
			{Header: "PARTITION", Cell: func(p metadataItem) string { return strconv.Itoa(int(p.Partition)) }},
			{Header: "LEADER", Cell: func(p metadataItem) string { return nodeOrNone(p.Leader) }},
			{Header: "EPOCH", Cell: func(p metadataItem) string { return strconv.Itoa(int(p.Epoch)) }},
			{Header: "REPLICAS", Cell: func(p metadataItem) string { return term.IDs(p.Replicas) }},
			{Header: "ISR", Cell: func(p metadataItem) string { return term.IDs(p.ISR) }},
			{Header: "OFFLINE", Cell: func(p metadataItem) string { return term.IDs(p.Offline) }},
		})
	})
}

// kcatMetadata writes metadata as kcat -L does, for scripts that read that.
func kcatMetadata(m kadm.Metadata) []byte {
	var b bytes.Buffer
	from := "no broker"
	for _, broker := range m.Brokers {
		if broker.NodeID == m.Controller || from == "no broker" {
			from = fmt.Sprintf("broker %d: %s:%d/%d", broker.NodeID, broker.Host, broker.Port, broker.NodeID)
		}
	}
	fmt.Fprintf(&b, "Metadata for all topics (from %s):\n %d brokers:\n", from, len(m.Brokers))
	for _, broker := range m.Brokers {
		controller := ""
		if broker.NodeID == m.Controller {
			controller = " (controller)"
		}
		fmt.Fprintf(&b, "  broker %d at %s:%d%s\n", broker.NodeID, broker.Host, broker.Port, controller)
	}
	fmt.Fprintf(&b, " %d topics:\n", len(m.Topics))
	for _, t := range m.Topics.Sorted() {
		fmt.Fprintf(&b, "  topic \"%s\" with %d partitions:\n", t.Topic, len(t.Partitions))
		for _, p := range t.Partitions.Sorted() {
			fmt.Fprintf(&b, "    partition %d, leader %d, replicas: %s, isrs: %s\n", p.Partition, p.Leader, term.IDs(p.Replicas), term.IDs(p.ISR))
		}
	}
	return b.Bytes()
}

package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

func clusterStatusCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "status",
		Usage: "show brokers, controller, leaders, and what is wrong",
		Description: `   JSON: {cluster, controller, brokers: [{node, address, rack, controller, leaders, replicas,
   up, down_for, disk_bytes, disk_free}], topics, partitions, internal_partitions, under_replicated:
   [TOPIC/PARTITION], leaderless, down: ["TOPIC/PARTITION on NODE"]}; down_for is in seconds.
   Internal topics count among topics, partitions, leaders and replicas.
   Every registered broker is a row, whether it is there or not.

EXAMPLES:
   $ millrace cluster status
   $ millrace cluster status -o json`,
		Flags:  kafka.Flags(term.OutputFlags(true)),
		Action: clusterStatus,
	}
}

func clusterStatus(c *urfave.Context) error {
	brokers, err := kafka.BrokersNamed(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	state, err := readCluster(ctx, brokers)
	if err != nil {
		return err
	}
	return term.PrintObject(c, state, state.Cluster, func() error {
		w := c.App.Writer
		internal := ""
		if state.internalTopics > 0 {
			internal = fmt.Sprintf("and %s, %s\n", term.Count(state.internalTopics, "internal topic"), term.Count(state.Internal, "partition"))
		}
		fmt.Fprintf(w, "cluster %s  %s  %s  %s\n%s\n", state.Cluster, term.Count(len(state.Brokers), "broker"),
			term.Count(state.Topics-state.internalTopics, "topic"), term.Count(state.Partitions-state.Internal, "partition"), internal)
		err := term.PrintTable(c, state.Brokers, []term.Column[brokerItem]{
			{Header: "NODE", Cell: func(b brokerItem) string { return strconv.Itoa(int(b.Node)) }},
			{Header: "ADDRESS", Cell: func(b brokerItem) string { return b.Address }},
			{Header: "RACK", Cell: func(b brokerItem) string { return b.Rack }},
			{Header: "LEADERS", Cell: func(b brokerItem) string { return strconv.Itoa(b.Leaders) }},
			{Header: "REPLICAS", Cell: func(b brokerItem) string { return strconv.Itoa(b.Replicas) }},
			{Header: "STATE", Cell: func(b brokerItem) string {
				if state := b.state(); state != "up" && state != "up, controller" {
					return term.Red(w, state)
				}
				return b.state()
			}},
		})
		if err != nil {
			return err
		}
		for i, trouble := range state.troubles() {
			if i == 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintln(w, term.Red(w, trouble))
		}
		return nil
	})
}

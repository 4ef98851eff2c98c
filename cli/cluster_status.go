package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

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
		Flags:  clientFlags(outputFlags(true)),
		Action: clusterStatus,
	}
}

func clusterStatus(c *urfave.Context) error {
	brokers, err := brokersNamed(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	state, err := readCluster(ctx, brokers)
	if err != nil {
		return err
	}
	return printObject(c, state, state.Cluster, func() error {
		w := c.App.Writer
		internal := ""
		if state.internalTopics > 0 {
			internal = fmt.Sprintf("and %s, %s\n", count(state.internalTopics, "internal topic"), count(state.Internal, "partition"))
		}
		fmt.Fprintf(w, "cluster %s  %s  %s  %s\n%s\n", state.Cluster, count(len(state.Brokers), "broker"),
			count(state.Topics-state.internalTopics, "topic"), count(state.Partitions-state.Internal, "partition"), internal)
		err := printTable(c, state.Brokers, []column[brokerItem]{
			{"NODE", func(b brokerItem) string { return strconv.Itoa(int(b.Node)) }},
			{"ADDRESS", func(b brokerItem) string { return b.Address }},
			{"RACK", func(b brokerItem) string { return b.Rack }},
			{"LEADERS", func(b brokerItem) string { return strconv.Itoa(b.Leaders) }},
			{"REPLICAS", func(b brokerItem) string { return strconv.Itoa(b.Replicas) }},
			{"STATE", func(b brokerItem) string {
				if state := b.state(); state != "up" && state != "up, controller" {
					return red(w, state)
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
			fmt.Fprintln(w, red(w, trouble))
		}
		return nil
	})
}

package cli

import (
	"context"
	"math"
	"strconv"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func topicListCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "list",
		Aliases: []string{"ls"},
		Usage:   "list topics",
		Description: `   RECORDS are the offsets from the start to the end of the partitions, which of a compacted
   topic is more than it has; SIZE is that of one replica of each; RATE, records a second,
   comes from the timestamps of the last minute.

   JSON: a list of {name, id, partitions, replicas, records, bytes, rate, internal}; records,
   bytes or a rate of -1 are not known of every partition.

EXAMPLES:
   $ millrace topic list
   $ millrace topic ls --internal -o json
   $ millrace topic ls -o name`,
		Flags:  kafka.Flags(term.OutputFlags(true), internalFlag()),
		Action: topicList,
	}
}

type topicItem struct {
	Name       string  `json:"name"`
	ID         string  `json:"id"`
	Partitions int     `json:"partitions"`
	Replicas   int     `json:"replicas"`
	Records    int64   `json:"records"`
	Bytes      int64   `json:"bytes"`
	Rate       float64 `json:"rate"`
	Internal   bool    `json:"internal"`
}

func topicList(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("topic list takes no arguments; describe a topic with `millrace topic describe %s`", c.Args().First())
	}
	return withReader(c, func(ctx context.Context, r *reader) error {
		admin := r.admin
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
			items = append(items, topicItem{t.Topic, topicID(t.ID), len(t.Partitions), fewestReplicas(t), -1, -1, -1, t.IsInternal})
		}
		if c.String("output") != "name" {
			completeTopicItems(ctx, admin, topics, items)
		}
		return term.PrintList(c, items, []term.Column[topicItem]{
			{Header: "NAME", Cell: func(t topicItem) string { return t.Name }},
			{Header: "PARTITIONS", Cell: func(t topicItem) string { return strconv.Itoa(t.Partitions) }},
			{Header: "REPLICAS", Cell: func(t topicItem) string { return strconv.Itoa(t.Replicas) }},
			{Header: "RECORDS", Cell: func(t topicItem) string { return term.CellNumber(c.App.Writer, t.Records) }},
			{Header: "SIZE", Cell: func(t topicItem) string { return term.CellSize(c.App.Writer, t.Bytes) }},
			{Header: "RATE", Cell: func(t topicItem) string {
				if t.Rate < 0 {
					return ""
				}
				return strconv.FormatFloat(t.Rate, 'f', -1, 64) + "/s"
			}},
		})
	})
}

// rateOver is the time of which topic list tells the rate.
const rateOver = time.Minute

// completeTopicItems asks for what the metadata does not have. What cannot be had of
// every partition of a topic stays unknown.
func completeTopicItems(ctx context.Context, admin *kadm.Client, topics kadm.TopicDetails, items []topicItem) {
	if len(items) == 0 {
		return // no topics would mean all topics
	}
	names := topics.Names()
	// Errors are in the partitions they concern, or are that there is no answer at all.
	var starts, ends, recent kadm.ListedOffsets
	var dirs kadm.DescribedAllLogDirs
	var asked sync.WaitGroup // at once: where a leader is away each takes some seconds
	asked.Go(func() { starts, _ = admin.ListStartOffsets(ctx, names...) })
	asked.Go(func() { ends, _ = admin.ListEndOffsets(ctx, names...) })
	asked.Go(func() { recent, _ = admin.ListOffsetsAfterMilli(ctx, time.Now().Add(-rateOver).UnixMilli(), names...) })
	asked.Go(func() { dirs, _ = admin.DescribeAllLogDirs(ctx, nil) })
	asked.Wait()
	type partition struct {
		topic string
		index int32
	}
	bytes := make(map[partition]int64) // of the largest replica
	for _, d := range dirs.Sorted() {
		for topic, partitions := range d.Topics {
			for i, p := range partitions {
				bytes[partition{topic, i}] = max(bytes[partition{topic, i}], p.Size)
			}
		}
	}
	for n := range items {
		t := &items[n]
		var records, size, latest int64
		var counted, sized, dated int
		for i := range int32(t.Partitions) {
			start, ok1 := starts.Lookup(t.Name, i)
			end, ok2 := ends.Lookup(t.Name, i)
			if ok1 && ok2 && start.Err == nil && end.Err == nil {
				counted++
				records += end.Offset - start.Offset
				if from, ok := recent.Lookup(t.Name, i); ok && from.Err == nil {
					dated++
					if from.Offset >= 0 {
						latest += max(0, end.Offset-max(from.Offset, start.Offset))
					}
				}
			}
			if b, ok := bytes[partition{t.Name, i}]; ok {
				sized++
				size += b
			}
		}
		if counted == t.Partitions {
			t.Records = records
		}
		if sized == t.Partitions {
			t.Bytes = size
		}
		if dated == t.Partitions {
			t.Rate = math.Round(10*float64(latest)/rateOver.Seconds()) / 10
		}
	}
}

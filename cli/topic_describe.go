package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

func topicDescribeCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "describe",
		Usage:        "show a topic's partitions, offsets and settings",
		ArgsUsage:    "TOPIC",
		BashComplete: completeTopics,
		Description: `   A table of the partitions, then one of the settings that are not defaults (all with
   --all). JSON: {name, id, internal, partitions: [{partition, leader, epoch, replicas, isr,
   down, start_offset, end_offset}], settings: [{name, value, source}], deletes_next: {records, at}};
   a leader of -1 is none, an offset of -1 is not known. deletes_next is what retention
   takes next if nothing is written, null for nothing. DOWN are the replicas whose brokers are down, or that failed on them.

EXAMPLES:
   $ millrace topic describe flights
   $ millrace topic describe flights --all -o yaml`,
		Flags: kafka.Flags(term.OutputFlags(true), []urfave.Flag{
			&urfave.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "settings that are defaults too"},
		}),
		Action: topicDescribe,
	}
}

type topicDescription struct {
	Name       string          `json:"name"`
	ID         string          `json:"id"`
	Internal   bool            `json:"internal"`
	Partitions []partitionItem `json:"partitions"`
	Settings   []settingItem   `json:"settings"`
	// What retention deletes next if nothing is written; nil: nothing, or nobody says.
	Next *nextDeletion `json:"deletes_next"`
}

// A nextDeletion is what retention takes from a topic next: so many records, once a time
// has come. It looks for them every log.retention.check.interval.ms.
type nextDeletion struct {
	Records int64     `json:"records"`
	At      time.Time `json:"at"`
}

// say tells it to people.
func (n *nextDeletion) say(now time.Time) string {
	when := "within minutes"
	if wait := n.At.Sub(now); wait > time.Minute {
		when = "in " + lasting(wait.Seconds())
	}
	return fmt.Sprintf("deleted next: %s, %s", term.Count(n.Records, "record"), when)
}

// nextOf finds the first time at which something is deleted of any partition, and counts
// what goes then, or within the minute; nil also where that cannot be counted.
func nextOf(partitions []partitionItem, answered map[int32]retained) *nextDeletion {
	first := int64(0)
	for _, r := range answered {
		if r.at != 0 && (first == 0 || r.at < first) {
			first = r.at
		}
	}
	if first == 0 {
		return nil
	}
	n := &nextDeletion{At: time.UnixMilli(first).UTC()}
	for _, p := range partitions {
		if r := answered[p.Partition]; r.at != 0 && r.at < first+time.Minute.Milliseconds() {
			if p.StartOffset < 0 {
				return nil // how much goes is not known
			}
			n.Records += max(0, r.next-p.StartOffset)
		}
	}
	return n
}

type partitionItem struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	Epoch       int32   `json:"epoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	Down        []int32 `json:"down"` // replicas that their own brokers call down, or whose brokers are
	StartOffset int64   `json:"start_offset"`
	EndOffset   int64   `json:"end_offset"`
}

type settingItem struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Source string  `json:"source"`
}

func topicDescribe(c *urfave.Context) error {
	topic, err := oneTopic(c)
	if err != nil {
		return err
	}
	return withReader(c, func(ctx context.Context, r *reader) error {
		d, err := r.describe(ctx, topic, c.Bool("all"))
		if err != nil {
			return err
		}
		// To alter nothing is asked what every alteration is. Who does not say tells nothing.
		asked := alteration{client: r.client, admin: r.admin, topic: topic}
		if asked.ask(ctx) == nil {
			d.Next = nextOf(d.Partitions, asked.answered)
		}
		return term.PrintObject(c, d, d.Name, func() error {
			fmt.Fprintf(c.App.Writer, "%s  id %s  %s\n\n", d.Name, d.ID, term.Count(len(d.Partitions), "partition"))
			err := term.PrintTable(c, d.Partitions, []term.Column[partitionItem]{
				{Header: "PARTITION", Cell: func(p partitionItem) string { return strconv.Itoa(int(p.Partition)) }},
				{Header: "LEADER", Cell: func(p partitionItem) string { return nodeOrNone(p.Leader) }},
				{Header: "EPOCH", Cell: func(p partitionItem) string { return strconv.Itoa(int(p.Epoch)) }},
				{Header: "REPLICAS", Cell: func(p partitionItem) string { return term.IDs(p.Replicas) }},
				{Header: "ISR", Cell: func(p partitionItem) string { return term.IDs(p.ISR) }},
				{Header: "LOG-START-OFFSET", Cell: func(p partitionItem) string { return offsetOrNone(p.StartOffset) }},
				{Header: "LOG-END-OFFSET", Cell: func(p partitionItem) string { return offsetOrNone(p.EndOffset) }},
				{Header: "DOWN", Cell: func(p partitionItem) string { return term.IDs(p.Down) }},
			})
			if err == nil && d.Next != nil {
				_, err = fmt.Fprintf(c.App.Writer, "\n%s\n", d.Next.say(time.Now()))
			}
			if err != nil || len(d.Settings) == 0 {
				return err
			}
			fmt.Fprintln(c.App.Writer)
			return term.PrintTable(c, d.Settings, []term.Column[settingItem]{
				{Header: "SETTING", Cell: func(s settingItem) string { return s.Name }},
				{Header: "VALUE", Cell: func(s settingItem) string {
					if s.Value == nil {
						return ""
					}
					return *s.Value
				}},
				{Header: "SOURCE", Cell: func(s settingItem) string { return s.Source }},
			})
		})
	})
}

func (r *reader) describe(ctx context.Context, topic string, all bool) (*topicDescription, error) {
	admin := r.admin
	t, err := kafka.DescribeTopic(ctx, admin, topic)
	if err != nil {
		return nil, err
	}
	// A partition without a leader has no offsets to tell; it is described all the same.
	var starts, ends kadm.ListedOffsets
	var asked sync.WaitGroup // at once: where a leader is away each takes some seconds
	asked.Go(func() { starts, _ = admin.ListStartOffsets(ctx, topic) })
	asked.Go(func() { ends, _ = admin.ListEndOffsets(ctx, topic) })
	asked.Wait()
	offset := func(listed kadm.ListedOffsets, partition int32) int64 {
		if o, ok := listed[topic][partition]; ok && o.Err == nil {
			return o.Offset
		}
		return -1
	}
	d := &topicDescription{Name: topic, ID: topicID(t.ID), Internal: t.IsInternal, Partitions: []partitionItem{}, Settings: []settingItem{}}
	var views brokerViews // without, what one broker knows has to do
	if cluster, err := admin.BrokerMetadata(ctx); err == nil {
		views = viewsOf(ctx, cluster.Brokers)
		views.dropStrangers(cluster.Cluster)
	}
	for _, p := range t.Partitions.Sorted() {
		p, down := views.firstHand(p)
		for _, id := range p.Replicas { // and those whose brokers cannot say it
			if views[id] == nil && (slices.Contains(p.OfflineReplicas, id) || r.isAway(id)) {
				down = append(down, id)
			}
		}
		d.Partitions = append(d.Partitions, partitionItem{
			p.Partition, p.Leader, p.LeaderEpoch, p.Replicas, p.ISR, append([]int32{}, down...), offset(starts, p.Partition), offset(ends, p.Partition),
		})
	}
	resources, err := admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("ask for the settings of topic %q: %w", topic, err)
	}
	for _, resource := range resources {
		if resource.Err != nil {
			return nil, kafka.TopicError(topic, resource.Err, resource.ErrMessage)
		}
		for _, s := range resource.Configs {
			source := strings.ToLower(strings.ReplaceAll(s.Source.String(), "_", " "))
			if all || source != "default config" {
				d.Settings = append(d.Settings, settingItem{s.Key, s.Value, source})
			}
		}
	}
	slices.SortFunc(d.Settings, func(a, b settingItem) int { return cmp.Compare(a.Name, b.Name) })
	return d, nil
}

func nodeOrNone(id int32) string {
	if id < 0 {
		return "none"
	}
	return strconv.Itoa(int(id))
}

func offsetOrNone(offset int64) string {
	if offset < 0 {
		return "unknown"
	}
	return strconv.FormatInt(offset, 10)
}

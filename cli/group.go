package cli

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

func groupCommand() *urfave.Command {
	return &urfave.Command{
		Name:    "group",
		Aliases: []string{"groups"},
		Usage:   "list, describe, seek and delete consumer groups",
		Subcommands: []*urfave.Command{
			groupListCommand(),
			groupDescribeCommand(),
			groupSeekCommand(),
			groupDeleteCommand(),
		},
	}
}

// oneGroup returns the only argument.
func oneGroup(c *urfave.Context) (string, error) {
	if c.NArg() != 1 || c.Args().First() == "" {
		return "", usage("%s takes the name of one group; see `millrace %s --help`", c.Command.HelpName[len("millrace "):], c.Command.HelpName[len("millrace "):])
	}
	return c.Args().First(), nil
}

// A groupDescription is what the cluster says of a group, whichever protocol
// its members speak.
type groupDescription struct {
	Name        string      `json:"name"`
	Coordinator int32       `json:"coordinator"`
	State       string      `json:"state"`
	Balancer    string      `json:"balancer"`
	Members     int         `json:"members"`
	TotalLag    int64       `json:"total_lag"` // of the partitions whose lag is known
	Partitions  []groupLine `json:"partitions"`
}

// A groupLine is one partition the group has committed, or a member has. Offsets
// and the lag are -1 while unknown.
type groupLine struct {
	Topic          string `json:"topic"`
	Partition      int32  `json:"partition"`
	CurrentOffset  int64  `json:"current_offset"`
	LogStartOffset int64  `json:"log_start_offset"`
	LogEndOffset   int64  `json:"log_end_offset"`
	Lag            int64  `json:"lag"`
	MemberID       string `json:"member_id"`
	ClientID       string `json:"client_id"`
	Host           string `json:"host"`
}

// A groupMember is one member and what it has been given.
type groupMember struct {
	id, client, host string
	assigned         map[string][]int32
}

// describeGroup asks for a group's members, offsets and lag.
func describeGroup(ctx context.Context, admin *kadm.Client, name string) (*groupDescription, error) {
	d, members, err := groupState(ctx, admin, name)
	if err != nil {
		return nil, err
	}
	committed, err := admin.FetchOffsets(ctx, name)
	if err != nil {
		return nil, groupError(name, err)
	}
	type partition struct {
		topic string
		index int32
	}
	lines := make(map[partition]*groupLine)
	line := func(topic string, i int32) *groupLine {
		p := partition{topic, i}
		if lines[p] == nil {
			lines[p] = &groupLine{Topic: topic, Partition: i, CurrentOffset: -1, LogStartOffset: -1, LogEndOffset: -1, Lag: -1}
		}
		return lines[p]
	}
	for _, o := range committed.Sorted() {
		if o.Err == nil && o.At >= 0 {
			line(o.Topic, o.Partition).CurrentOffset = o.At
		}
	}
	for _, m := range members {
		for topic, partitions := range m.assigned {
			for _, i := range partitions {
				l := line(topic, i)
				l.MemberID, l.ClientID, l.Host = m.id, m.client, m.host
			}
		}
	}
	if d.State == "Dead" && len(lines) == 0 {
		return nil, groupError(name, kerr.GroupIDNotFound)
	}
	topics := make(map[string]bool)
	for p := range lines {
		topics[p.topic] = true
	}
	if len(topics) > 0 { // no topics would mean all topics
		// A topic may be gone, or without a leader, and the rest is still worth telling.
		names := slices.Sorted(maps.Keys(topics))
		starts, _ := admin.ListStartOffsets(ctx, names...)
		ends, _ := admin.ListEndOffsets(ctx, names...)
		for p, l := range lines {
			if o, ok := starts.Lookup(p.topic, p.index); ok && o.Err == nil {
				l.LogStartOffset = o.Offset
			}
			if o, ok := ends.Lookup(p.topic, p.index); ok && o.Err == nil {
				l.LogEndOffset = o.Offset
			}
			if l.CurrentOffset >= 0 && l.LogEndOffset >= 0 {
				l.Lag = max(0, l.LogEndOffset-l.CurrentOffset)
				d.TotalLag += l.Lag
			}
		}
	}
	d.Partitions = []groupLine{}
	for _, l := range lines {
		d.Partitions = append(d.Partitions, *l)
	}
	slices.SortFunc(d.Partitions, func(a, b groupLine) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return d, nil
}

// groupState asks for a group's state and members, of either protocol.
func groupState(ctx context.Context, admin *kadm.Client, name string) (*groupDescription, []groupMember, error) {
	// KIP-848's groups answer to a request of their own; a broker that does not
	// know it has none of them.
	next, err := admin.DescribeConsumerGroups(ctx, name)
	if g, ok := next[name]; err == nil && ok && g.Err == nil {
		var members []groupMember
		for _, m := range g.Members {
			members = append(members, groupMember{m.MemberID, m.ClientID, m.ClientHost, partitionsOf(m.Assignment)})
		}
		return &groupDescription{
			Name: name, Coordinator: g.Coordinator.NodeID, State: g.State, Balancer: g.AssignorName, Members: len(members),
		}, members, nil
	}
	classic, err := admin.DescribeGroups(ctx, name)
	if err != nil {
		return nil, nil, groupError(name, err)
	}
	g, ok := classic[name]
	switch {
	case !ok:
		return nil, nil, groupError(name, kerr.GroupIDNotFound)
	case errors.Is(g.Err, kerr.GroupIDNotFound):
		return &groupDescription{Name: name, Coordinator: g.Coordinator.NodeID, State: "Dead"}, nil, nil
	case g.Err != nil:
		return nil, nil, groupError(name, g.Err)
	}
	var members []groupMember
	for _, m := range g.Members {
		assigned := make(map[string][]int32)
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				assigned[t.Topic] = t.Partitions
			}
		}
		members = append(members, groupMember{m.MemberID, m.ClientID, m.ClientHost, assigned})
	}
	return &groupDescription{
		Name: name, Coordinator: g.Coordinator.NodeID, State: g.State, Balancer: g.Protocol, Members: len(members),
	}, members, nil
}

func partitionsOf(set kadm.TopicsSet) map[string][]int32 {
	all := make(map[string][]int32)
	for topic, partitions := range set {
		all[topic] = slices.Sorted(maps.Keys(partitions))
	}
	return all
}

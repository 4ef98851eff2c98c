package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
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
	Name        string `json:"name"`
	Coordinator int32  `json:"coordinator"`
	Kind        string `json:"kind"` // classic, or consumer for KIP-848's
	State       string `json:"state"`
	Balancer    string `json:"balancer"`
	Members     int    `json:"members"`
	// TotalLag is what is left to read of all partitions below. Where nothing was
	// committed the group is to read everything that is there: what a consumer's reset
	// position makes of that, only the consumer knows.
	TotalLag     int64        `json:"total_lag"`
	NotCommitted int          `json:"not_committed"` // partitions that count from their start
	Unknown      int          `json:"unknown"`       // partitions whose lag nobody tells, for want of a leader: they are not in TotalLag
	Partitions   []groupLine  `json:"partitions"`
	Idle         []idleMember `json:"idle_members"`
}

// An idleMember is a member that has no partition.
type idleMember struct {
	MemberID string `json:"member_id"`
	ClientID string `json:"client_id"`
	Host     string `json:"host"`
}

// A groupLine is one partition of a topic that the group reads: of which it has
// committed a partition, or to which a member subscribes. Offsets and the lag are -1
// while unknown; the current offset also while nothing is committed.
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
	subscribed       []string
	pattern          string // to the topics that match it, too; "": none
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
	read, err := topicsRead(ctx, admin, members)
	if err != nil {
		return nil, err
	}
	for p := range lines {
		read[p.topic] = true
	}
	d.Partitions, d.Idle = []groupLine{}, []idleMember{}
	for _, m := range members {
		if len(m.assigned) == 0 {
			d.Idle = append(d.Idle, idleMember{m.id, m.client, m.host})
		}
	}
	if len(read) > 0 { // no topics would mean all topics
		names := slices.Sorted(maps.Keys(read))
		details, err := admin.ListTopicsWithInternal(ctx, names...)
		if err != nil {
			return nil, fmt.Errorf("ask for the topics of group %q: %w", name, err)
		}
		for _, t := range details {
			for i := range t.Partitions {
				line(t.Topic, i)
			}
		}
		// A topic may be without a leader, and the rest is still worth telling.
		starts, _ := admin.ListStartOffsets(ctx, names...)
		ends, _ := admin.ListEndOffsets(ctx, names...)
		for p, l := range lines {
			if o, ok := starts.Lookup(p.topic, p.index); ok && o.Err == nil {
				l.LogStartOffset = o.Offset
			}
			if o, ok := ends.Lookup(p.topic, p.index); ok && o.Err == nil {
				l.LogEndOffset = o.Offset
			}
			_, exists := details[p.topic].Partitions[p.index]
			d.count(l, exists)
		}
	}
	for _, l := range lines {
		d.Partitions = append(d.Partitions, *l)
	}
	slices.SortFunc(d.Partitions, func(a, b groupLine) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return d, nil
}

// count sets the lag of a partition, and adds it to the sum; exists tells whether the
// partition does.
func (d *groupDescription) count(l *groupLine, exists bool) {
	switch {
	case l.LogStartOffset < 0 || l.LogEndOffset < 0:
		if exists {
			d.Unknown++
		}
		return
	case l.CurrentOffset < 0:
		d.NotCommitted++
	}
	// What was deleted before it was read is not left to read.
	l.Lag = max(0, l.LogEndOffset-max(l.CurrentOffset, l.LogStartOffset))
	d.TotalLag += l.Lag
}

// committed counts the partitions of which the group has committed an offset.
func (d *groupDescription) committed() (n int) {
	for _, l := range d.Partitions {
		if l.CurrentOffset >= 0 {
			n++
		}
	}
	return n
}

// topicsRead are the topics to which members subscribe.
func topicsRead(ctx context.Context, admin *kadm.Client, members []groupMember) (map[string]bool, error) {
	read := make(map[string]bool)
	var patterns []*regexp.Regexp
	for _, m := range members {
		for _, topic := range m.subscribed {
			read[topic] = true
		}
		if p, err := regexp.Compile("^(?:" + m.pattern + ")$"); m.pattern != "" && err == nil {
			patterns = append(patterns, p)
		}
	}
	if len(patterns) == 0 {
		return read, nil
	}
	all, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	for _, topic := range all.Names() {
		if slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(topic) }) {
			read[topic] = true
		}
	}
	return read, nil
}

// groupState asks for a group's state and members, of either protocol.
func groupState(ctx context.Context, admin *kadm.Client, name string) (*groupDescription, []groupMember, error) {
	// KIP-848's groups answer to a request of their own; a broker that does not
	// know it has none of them.
	next, err := admin.DescribeConsumerGroups(ctx, name)
	if g, ok := next[name]; err == nil && ok && g.Err == nil {
		var members []groupMember
		for _, m := range g.Members {
			member := groupMember{id: m.MemberID, client: m.ClientID, host: m.ClientHost, assigned: partitionsOf(m.Assignment), subscribed: m.SubscribedTopics}
			if m.SubscribedTopicRegex != nil {
				member.pattern = *m.SubscribedTopicRegex
			}
			members = append(members, member)
		}
		return &groupDescription{
			Name: name, Coordinator: g.Coordinator.NodeID, Kind: "consumer", State: g.State, Balancer: g.AssignorName, Members: len(members),
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
		return &groupDescription{Name: name, Coordinator: g.Coordinator.NodeID, Kind: "classic", State: "Dead"}, nil, nil
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
		member := groupMember{id: m.MemberID, client: m.ClientID, host: m.ClientHost, assigned: assigned}
		if j, ok := m.Join.AsConsumer(); ok {
			member.subscribed = j.Topics
		}
		members = append(members, member)
	}
	return &groupDescription{
		Name: name, Coordinator: g.Coordinator.NodeID, Kind: "classic", State: g.State, Balancer: g.Protocol, Members: len(members),
	}, members, nil
}

func partitionsOf(set kadm.TopicsSet) map[string][]int32 {
	all := make(map[string][]int32)
	for topic, partitions := range set {
		all[topic] = slices.Sorted(maps.Keys(partitions))
	}
	return all
}

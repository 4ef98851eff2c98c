package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"millrace/cli/kafka"
	"millrace/cli/term"

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
		return "", term.Usage("%s takes the name of one group; see `millrace %s --help`", c.Command.HelpName[len("millrace "):], c.Command.HelpName[len("millrace "):])
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
	//
	// It is nil where nobody says which topics the group reads: it has committed nothing,
	// and its members, to whom a broker listens only while they are there, are gone, or
	// subscribe in another protocol than that of consumers.
	TotalLag     *int64       `json:"total_lag"`
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

	untold bool // whether an offset is committed
}

// A groupMember is one member and what it has been given.
type groupMember struct {
	id, client, host string
	assigned         map[string][]int32
	subscribed       []string
	pattern          string // to the topics that match it, too; "": none
}

// A groupAnswer is what the cluster says of one group, or why it does not.
type groupAnswer struct {
	*groupDescription
	members []groupMember
	err     error
}

func byPattern(m groupMember) bool { return m.pattern != "" }

// describeGroup asks for a group's members, offsets and lag.
func describeGroup(ctx context.Context, admin *kadm.Client, name string) (*groupDescription, error) {
	a := describeGroups(ctx, admin, name)[name]
	return a.groupDescription, a.err
}

// describeGroups asks for the members, offsets and lag of several groups: of all of them
// at once, a request to each coordinator and to each leader for each thing there is to ask.
func describeGroups(ctx context.Context, admin *kadm.Client, names ...string) map[string]*groupAnswer {
	answers := groupStates(ctx, admin, names...)
	committed := admin.FetchManyOffsets(ctx, names...)
	var all []groupMember
	for name, a := range answers {
		if of := committed[name]; a.err == nil && of.Err != nil {
			a.err = kafka.GroupError(name, of.Err)
		}
		all = append(all, a.members...)
	}
	existing, err := existingTopics(ctx, admin, all)
	lines := make(map[string]groupLines, len(answers))
	read := make(map[string]bool) // the topics of all groups
	for name, a := range answers {
		if a.err == nil && slices.ContainsFunc(a.members, byPattern) {
			a.err = err
		}
		if a.err != nil {
			continue
		}
		l := make(groupLines)
		for _, o := range committed[name].Fetched.Sorted() {
			if o.Err != nil {
				l.of(o.Topic, o.Partition).untold = true
			} else if o.At >= 0 {
				l.of(o.Topic, o.Partition).CurrentOffset = o.At
			}
		}
		a.Partitions, a.Idle = []groupLine{}, []idleMember{}
		for _, m := range a.members {
			if len(m.assigned) == 0 {
				a.Idle = append(a.Idle, idleMember{m.id, m.client, m.host})
			}
			for topic, partitions := range m.assigned {
				for _, i := range partitions {
					line := l.of(topic, i)
					line.MemberID, line.ClientID, line.Host = m.id, m.client, m.host
				}
			}
		}
		if a.State == "Dead" && len(l) == 0 {
			a.err = kafka.GroupError(name, kerr.GroupIDNotFound)
			continue
		}
		lines[name] = l
		own := l.topics(a.members, existing)
		if len(own) > 0 || slices.ContainsFunc(a.members, byPattern) {
			a.TotalLag = new(int64)
		}
		maps.Copy(read, own)
	}
	if len(read) == 0 { // no topics would mean all topics
		return answers
	}
	topics := slices.Sorted(maps.Keys(read))
	details, err := admin.ListTopicsWithInternal(ctx, topics...)
	// A topic may be without a leader, and the rest is still worth telling.
	starts, _ := admin.ListStartOffsets(ctx, topics...)
	ends, _ := admin.ListEndOffsets(ctx, topics...)
	for name, l := range lines {
		a := answers[name]
		own := l.topics(a.members, existing)
		if err != nil && len(own) > 0 {
			a.err = fmt.Errorf("ask for the topics of group %q: %w", name, err)
			continue
		}
		for topic := range own {
			for i := range details[topic].Partitions {
				l.of(topic, i)
			}
		}
		for p, line := range l {
			if o, ok := starts.Lookup(p.topic, p.index); ok && o.Err == nil {
				line.LogStartOffset = o.Offset
			}
			if o, ok := ends.Lookup(p.topic, p.index); ok && o.Err == nil {
				line.LogEndOffset = o.Offset
			}
			_, exists := details[p.topic].Partitions[p.index]
			a.count(line, exists)
			a.Partitions = append(a.Partitions, *line)
		}
		slices.SortFunc(a.Partitions, func(a, b groupLine) int {
			return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
		})
	}
	return answers
}

// groupLines are the partitions that a group reads, while they are put together.
type groupLines map[linePartition]*groupLine

type linePartition struct {
	topic string
	index int32
}

func (l groupLines) of(topic string, i int32) *groupLine {
	p := linePartition{topic, i}
	if l[p] == nil {
		l[p] = &groupLine{Topic: topic, Partition: i, CurrentOffset: -1, LogStartOffset: -1, LogEndOffset: -1, Lag: -1}
	}
	return l[p]
}

// topics are those of the lines, and those to which members subscribe.
func (l groupLines) topics(members []groupMember, existing []string) map[string]bool {
	read := topicsRead(members, existing)
	for p := range l {
		read[p.topic] = true
	}
	return read
}

// count sets the lag of a partition, and adds it to the sum, which there is where there are
// partitions; exists reports whether the
// partition does.
func (d *groupDescription) count(l *groupLine, exists bool) {
	switch {
	case l.untold, l.LogStartOffset < 0, l.LogEndOffset < 0:
		if exists {
			d.Unknown++
		}
		return
	case l.CurrentOffset < 0:
		d.NotCommitted++
	}
	// What was deleted before it was read is not left to read.
	l.Lag = max(0, l.LogEndOffset-max(l.CurrentOffset, l.LogStartOffset))
	*d.TotalLag += l.Lag
}

// lag is the total, -1 if it is not known.
func (d *groupDescription) lag() int64 {
	if d.TotalLag == nil {
		return -1
	}
	return *d.TotalLag
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

// topicsRead are the topics to which members subscribe; existing are those that a pattern
// is held against.
func topicsRead(members []groupMember, existing []string) map[string]bool {
	read := make(map[string]bool)
	for _, m := range members {
		for _, topic := range m.subscribed {
			read[topic] = true
		}
		if m.pattern == "" {
			continue
		}
		if p, err := regexp.Compile("^(?:" + m.pattern + ")$"); err == nil {
			for _, topic := range existing {
				if p.MatchString(topic) {
					read[topic] = true
				}
			}
		}
	}
	return read
}

// existingTopics lists the topics there are, if any of some members subscribes to a pattern.
func existingTopics(ctx context.Context, admin *kadm.Client, members []groupMember) ([]string, error) {
	if !slices.ContainsFunc(members, byPattern) {
		return nil, nil
	}
	all, err := admin.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the topics: %w", err)
	}
	return all.Names(), nil
}

// groupState asks for a group's state and members, of either protocol.
func groupState(ctx context.Context, admin *kadm.Client, name string) (*groupDescription, []groupMember, error) {
	a := groupStates(ctx, admin, name)[name]
	return a.groupDescription, a.members, a.err
}

// groupStates asks for the state and members of groups, of either protocol.
func groupStates(ctx context.Context, admin *kadm.Client, names ...string) map[string]*groupAnswer {
	answers := make(map[string]*groupAnswer, len(names))
	if len(names) == 0 { // which would mean all of them
		return answers
	}
	// KIP-848's groups answer to a request of their own; a broker that does not
	// know it has none of them.
	next, _ := admin.DescribeConsumerGroups(ctx, names...)
	var others []string
	for _, name := range names {
		g, ok := next[name]
		if !ok || g.Err != nil {
			others = append(others, name)
			continue
		}
		a := &groupAnswer{groupDescription: &groupDescription{
			Name: name, Coordinator: g.Coordinator.NodeID, Kind: "consumer", State: g.State, Balancer: g.AssignorName, Members: len(g.Members),
		}}
		for _, m := range g.Members {
			member := groupMember{id: m.MemberID, client: m.ClientID, host: m.ClientHost, assigned: partitionsOf(m.Assignment), subscribed: m.SubscribedTopics}
			if m.SubscribedTopicRegex != nil {
				member.pattern = *m.SubscribedTopicRegex
			}
			a.members = append(a.members, member)
		}
		answers[name] = a
	}
	if len(others) == 0 {
		return answers
	}
	classic, err := admin.DescribeGroups(ctx, others...)
	for _, name := range others {
		a := &groupAnswer{}
		answers[name] = a
		g, ok := classic[name]
		switch {
		case !ok && err != nil:
			a.err = kafka.GroupError(name, err)
			continue
		case !ok:
			a.err = kafka.GroupError(name, kerr.GroupIDNotFound)
			continue
		case errors.Is(g.Err, kerr.GroupIDNotFound):
			a.groupDescription = &groupDescription{Name: name, Coordinator: g.Coordinator.NodeID, Kind: "classic", State: "Dead"}
			continue
		case g.Err != nil:
			a.err = kafka.GroupError(name, g.Err)
			continue
		}
		a.groupDescription = &groupDescription{
			Name: name, Coordinator: g.Coordinator.NodeID, Kind: "classic", State: g.State, Balancer: g.Protocol, Members: len(g.Members),
		}
		for _, m := range g.Members {
			assigned := make(map[string][]int32)
			if of, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range of.Topics {
					assigned[t.Topic] = t.Partitions
				}
			}
			member := groupMember{id: m.MemberID, client: m.ClientID, host: m.ClientHost, assigned: assigned}
			if j, ok := m.Join.AsConsumer(); ok {
				member.subscribed = j.Topics
			}
			a.members = append(a.members, member)
		}
	}
	return answers
}

func partitionsOf(set kadm.TopicsSet) map[string][]int32 {
	all := make(map[string][]int32)
	for topic, partitions := range set {
		all[topic] = slices.Sorted(maps.Keys(partitions))
	}
	return all
}

package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/replication/metadata/settings"
)

const settingsHelp = `Each with its value, where that comes from, what it
   is for, its default, and which values it may have. Names, or beginnings of them, choose.
   JSON: {name, value, source, default, doc, allowed, fixed%s}; value and default are null
   where there is none, a fixed setting cannot be changed while a node runs.
`

func clusterConfigCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "config",
		Usage: "the brokers' settings",
		Subcommands: []*urfave.Command{{
			Name:      "list",
			Usage:     "list the brokers' settings, with what they mean",
			ArgsUsage: "[NAME…]",
			Description: `   The settings that are in force on every broker. ` + fmt.Sprintf(settingsHelp, ", nodes") + `   Where brokers differ, each value is listed with its nodes. docs/settings.md has them all.

EXAMPLES:
   $ millrace cluster config list --changed
   $ millrace cluster config list log.retention num.partitions`,
			Flags: kafka.Flags(term.OutputFlags(true), []urfave.Flag{
				&urfave.BoolFlag{Name: "changed", Usage: "only those that are not defaults"},
			}),
			Action: clusterConfigList,
		}},
	}
}

func topicConfigCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "config",
		Usage:        "list a topic's settings, with what they mean",
		ArgsUsage:    "TOPIC [NAME…]",
		BashComplete: completeTopics,
		Description: `   The settings that are in force for a topic. ` + fmt.Sprintf(settingsHelp, "") + `
EXAMPLES:
   $ millrace topic config flights --changed
   $ millrace topic config flights retention`,
		Flags: kafka.Flags(term.OutputFlags(true), []urfave.Flag{
			&urfave.BoolFlag{Name: "changed", Usage: "only those that are not defaults"},
		}),
		Action: topicConfig,
	}
}

// A listedSetting is a setting as it stands, on the nodes that have it so.
type listedSetting struct {
	Name    string  `json:"name"`
	Value   *string `json:"value"`
	Source  string  `json:"source"`
	Default *string `json:"default"`
	Doc     string  `json:"doc"`
	Allowed string  `json:"allowed"` // "": not known, of another system's
	Fixed   bool    `json:"fixed"`
	Nodes   []int32 `json:"nodes,omitempty"` // of a topic's none
}

func clusterConfigList(c *urfave.Context) error {
	return withReader(c, func(ctx context.Context, r *reader) error { return r.listBrokers(ctx, c) })
}

// listBrokers lists the settings of those brokers that answer.
func (r *reader) listBrokers(ctx context.Context, c *urfave.Context) error {
	m, err := kmsg.NewPtrMetadataRequest().RequestWith(ctx, r.client)
	if err != nil {
		return err
	}
	var all []listedSetting
	for _, b := range m.Brokers {
		if r.isAway(b.NodeID) {
			continue
		}
		of, err := listSettings(ctx, r.client.Broker(int(b.NodeID)), kmsg.ConfigResourceTypeBroker, fmt.Sprint(b.NodeID), settings.BrokerDefinition)
		if err != nil {
			return fmt.Errorf("broker %d: %w", b.NodeID, err)
		}
		for _, s := range of {
			i := slices.IndexFunc(all, func(o listedSetting) bool {
				return o.Name == s.Name && o.Source == s.Source && (o.Value == nil) == (s.Value == nil) && (s.Value == nil || *o.Value == *s.Value)
			})
			if i < 0 {
				i, all = len(all), append(all, s)
			}
			all[i].Nodes = append(all[i].Nodes, b.NodeID)
		}
	}
	slices.SortStableFunc(all, func(a, b listedSetting) int { return cmp.Compare(a.Name, b.Name) })
	return printSettings(c, all, c.Args().Slice(), len(m.Brokers))
}

func topicConfig(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("topic config takes the name of a topic; see `millrace topic config --help`")
	}
	return withReader(c, func(ctx context.Context, r *reader) error { return r.listTopic(ctx, c) })
}

// listTopic lists the settings of a topic.
func (r *reader) listTopic(ctx context.Context, c *urfave.Context) error {
	topic := c.Args().First()
	all, err := listSettings(ctx, r.client, kmsg.ConfigResourceTypeTopic, topic, settings.TopicDefinition)
	if err != nil {
		return kafka.TopicError(topic, err, "")
	}
	return printSettings(c, all, c.Args().Slice()[1:], 0)
}

// listSettings asks a broker, or any, for the settings of a resource. What values they
// may have no protocol tells: it is known of those that have our names.
func listSettings(ctx context.Context, b kmsg.Requestor, kind kmsg.ConfigResourceType, name string, define func(string) (*settings.Definition, bool)) (all []listedSetting, err error) {
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.IncludeSynonyms, req.IncludeDocumentation = true, true
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName = kind, name
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(ctx, b)
	if err != nil {
		return nil, err
	}
	for _, sr := range resp.Resources {
		if err := kerr.ErrorForCode(sr.ErrorCode); err != nil {
			return nil, err
		}
		for _, config := range sr.Configs {
			s := listedSetting{Name: config.Name, Value: config.Value, Source: sourceWords(config.Source), Fixed: config.ReadOnly}
			if config.Documentation != nil {
				s.Doc = *config.Documentation
			}
			for _, from := range config.ConfigSynonyms {
				if from.Source == kmsg.ConfigSourceDefaultConfig {
					s.Default = from.Value
				}
			}
			if d, known := define(config.Name); known {
				s.Allowed = d.Allowed()
				if s.Default = nil; !d.Null {
					s.Default = &d.Default
				}
			}
			all = append(all, s)
		}
	}
	return all, nil
}

// sourceWords says where a value comes from, as its operator knows it.
func sourceWords(source kmsg.ConfigSource) string {
	switch source {
	case kmsg.ConfigSourceDynamicTopicConfig:
		return "topic"
	case kmsg.ConfigSourceDynamicBrokerConfig:
		return "broker"
	case kmsg.ConfigSourceDynamicDefaultBrokerConfig:
		return "cluster"
	case kmsg.ConfigSourceStaticBrokerConfig:
		return "start" // flags, environment or file
	case kmsg.ConfigSourceDefaultConfig:
		return "default"
	}
	return strings.ToLower(source.String())
}

// printSettings writes the settings that names choose; brokers is how many there are, 0
// where settings are not a broker's.
func printSettings(c *urfave.Context, all []listedSetting, names []string, brokers int) error {
	matched := make(map[string]bool)
	var known []string
	for _, s := range all {
		known = append(known, s.Name)
	}
	all = slices.DeleteFunc(all, func(s listedSetting) bool {
		chosen := len(names) == 0
		for _, name := range names {
			if strings.HasPrefix(s.Name, name) {
				chosen, matched[name] = true, true
			}
		}
		return !chosen || c.Bool("changed") && s.Source == "default"
	})
	for _, name := range names {
		if !matched[name] {
			return term.Fail(term.StatusNotFound, "no setting begins with %s%s", name, term.DidYouMean(name, known))
		}
	}
	if format := c.String("output"); format != "table" && format != "" {
		return term.PrintList(c, all, []term.Column[listedSetting]{{Header: "NAME", Cell: func(s listedSetting) string { return s.Name }}})
	}
	if len(all) == 0 && c.Bool("changed") {
		fmt.Fprintln(c.App.ErrWriter, "every setting is at its default")
	}
	var b bytes.Buffer
	for _, s := range all {
		value := "-"
		if s.Value != nil {
			value = *s.Value
		}
		where := s.Source
		switch s.Source {
		case "start":
			where = "set at the start"
		case "broker":
			where = "set for this broker"
		case "cluster", "topic":
			where = "set for the " + s.Source
		}
		if n := len(s.Nodes); n > 0 && n < brokers {
			where += ", " + map[bool]string{true: "node ", false: "nodes "}[n == 1] + term.IDs(s.Nodes)
		}
		fmt.Fprintf(&b, "%s=%s  (%s)\n", s.Name, value, where)
		if text := s.text(); text != "" {
			b.WriteString(term.Wrapped(text, 3, 80))
		}
	}
	_, err := c.App.Writer.Write(b.Bytes())
	return err
}

// text is what a setting is for, its default and what it may be.
func (s *listedSetting) text() string {
	text := s.Doc
	if s.Source != "default" {
		was := "none"
		if s.Default != nil {
			was = *s.Default
		}
		if was == "" {
			was = "empty"
		}
		text += " Default: " + was + "."
	}
	if s.Allowed != "" {
		text += " " + strings.ToUpper(s.Allowed[:1]) + s.Allowed[1:] + "."
	}
	if s.Fixed {
		text += " Fixed while a node runs."
	}
	return strings.TrimSpace(text)
}

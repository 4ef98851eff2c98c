package metadata

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A ConfigType is Kafka's type of a setting, under the number DescribeConfigs uses. (KIP-569)
type ConfigType int8

// The types of settings.
const (
	Boolean  ConfigType = 1
	String   ConfigType = 2
	Int      ConfigType = 3
	Short    ConfigType = 4
	Long     ConfigType = 5
	Double   ConfigType = 6
	List     ConfigType = 7
	Class    ConfigType = 8
	Password ConfigType = 9
)

// String is Kafka's name of the type, "LONG".
func (t ConfigType) String() string {
	names := [...]string{1: "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD"}
	if t < 1 || int(t) >= len(names) {
		return "UNKNOWN"
	}
	return names[t]
}

// A Source is where the value of a setting comes from, under the number DescribeConfigs uses. (KIP-226)
type Source int8

// Sources, the one that wins first.
const (
	SourceTopic   Source = 1 // DYNAMIC_TOPIC_CONFIG: set for the topic
	SourceBroker  Source = 2 // DYNAMIC_BROKER_CONFIG: set at run time for one broker
	SourceCluster Source = 3 // DYNAMIC_DEFAULT_BROKER_CONFIG: set at run time for the whole cluster
	SourceStatic  Source = 4 // STATIC_BROKER_CONFIG: from the node's flags or configuration file
	SourceDefault Source = 5 // DEFAULT_CONFIG

	SourceLogger        Source = 6 // DYNAMIC_BROKER_LOGGER_CONFIG: a log level, see package server
	SourceClientMetrics Source = 7 // CLIENT_METRICS_CONFIG: set for a subscription
	SourceGroup         Source = 8 // GROUP_CONFIG: set for the group
)

// A Definition says what a setting is. Definitions are shared and must not be written to.
type Definition struct {
	Name    string
	Type    ConfigType
	Default string // "" also when Null
	Null    bool   // the default is null: other settings decide
	Doc     string // one line

	// ReadOnly settings of brokers are fixed while a node runs: they come from
	// its flags or configuration file. Settings of topics never are.
	ReadOnly bool
	// PerNode settings of brokers may differ from node to node. The others
	// hold for the whole cluster, because whichever node is asked must give the
	// same answer; they may not be set for one broker at run time.
	PerNode bool
	// Hidden settings may be set but are only described where they are. They are for tests.
	Hidden bool
	// Synonyms of a topic's setting are the brokers' settings that give its
	// default, the one that wins first. A broker's setting has none.
	Synonyms []Synonym

	valid rule
}

// A Synonym is another setting that gives a value.
type Synonym struct {
	Name  string
	Scale int64 // what the other's value is multiplied by: 3,600,000 from hours to milliseconds
}

// Sensitive tells whether the value is a secret, which is stored but never shown.
func (d *Definition) Sensitive() bool { return d.Type == Password }

// Validate checks a value, in the form it has on the wire, and returns it
// trimmed. The error is ErrInvalidConfig with Kafka's text. What is stored is
// what the client sent; it is trimmed again wherever it is read.
func (d *Definition) Validate(value string) (string, error) {
	trimmed := strings.TrimSpace(value)
	if wrong := d.wrong(trimmed); wrong != "" {
		return "", refuse(ErrInvalidConfig, "Invalid value %s for configuration %s: %s", shown(trimmed), d.Name, wrong)
	}
	return trimmed, nil
}

func (d *Definition) wrong(value string) string {
	if !utf8.ValidString(value) {
		return "Expected value to be UTF-8"
	}
	var err error
	switch d.Type {
	case Boolean:
		if !strings.EqualFold(value, "true") && !strings.EqualFold(value, "false") {
			return "Expected value to be either true or false"
		}
	case Int:
		_, err = strconv.ParseInt(value, 10, 32)
	case Short:
		_, err = strconv.ParseInt(value, 10, 16)
	case Long:
		_, err = strconv.ParseInt(value, 10, 64)
	case Double:
		var f float64
		if f, err = strconv.ParseFloat(value, 64); err == nil && math.IsNaN(f) {
			return "Value must be a number"
		}
	}
	if err != nil {
		return "Not a number of type " + d.Type.String()
	}
	if d.valid.wrong != nil {
		return d.valid.wrong(value)
	}
	return ""
}

// Append adds the elements of values to the list current, both separated by
// commas, leaving out what is there already: IncrementalAlterConfigs' APPEND.
// (KIP-339) current is the value in force, which may be the default. The error
// is ErrInvalidConfig if the setting is not a list; the result is not validated.
func (d *Definition) Append(current, values string) (string, error) {
	if d.Type != List {
		return "", refuse(ErrInvalidConfig, "Can't APPEND to key %s because its type is not LIST.", d.Name)
	}
	list := elements(current)
	for _, v := range elements(values) {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return strings.Join(list, ","), nil
}

// Subtract removes the elements of values from the list current:
// IncrementalAlterConfigs' SUBTRACT. What is not there is no error.
func (d *Definition) Subtract(current, values string) (string, error) {
	if d.Type != List {
		return "", refuse(ErrInvalidConfig, "Can't SUBTRACT to key %s because its type is not LIST.", d.Name)
	}
	gone := elements(values)
	list := slices.DeleteFunc(elements(current), func(v string) bool { return slices.Contains(gone, v) })
	return strings.Join(list, ","), nil
}

// elements of a list; empty ones are left out.
func elements(list string) []string {
	var all []string
	for v := range strings.SplitSeq(list, ",") {
		if v = strings.TrimSpace(v); v != "" {
			all = append(all, v)
		}
	}
	return all
}

// TopicDefinitions lists the settings a topic has, by name. Hidden ones are left out.
func TopicDefinitions() []*Definition { return visible(topicSettings) }

// TopicDefinition finds a topic's setting, hidden or not.
func TopicDefinition(name string) (*Definition, bool) { return find(topicSettings, name) }

// BrokerDefinitions lists the settings a broker has, by name.
func BrokerDefinitions() []*Definition { return visible(brokerSettings) }

// BrokerDefinition finds a broker's setting.
func BrokerDefinition(name string) (*Definition, bool) { return find(brokerSettings, name) }

func visible(all []*Definition) []*Definition {
	var list []*Definition
	for _, d := range all {
		if !d.Hidden {
			list = append(list, d)
		}
	}
	return list
}

func find(all []*Definition, name string) (*Definition, bool) {
	i, ok := slices.BinarySearchFunc(all, name, func(d *Definition, name string) int { return cmp.Compare(d.Name, name) })
	if !ok {
		return nil, false
	}
	return all[i], true
}

// ValidateTopicConfig checks settings given for a topic, each by itself. The
// error is ErrInvalidConfig. What they mean together is checked by [Image.Check].
func ValidateTopicConfig(values map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		d, ok := TopicDefinition(name)
		if !ok {
			return refuse(ErrInvalidConfig, "Unknown topic config name: %s", shown(name))
		}
		if _, err := d.Validate(values[name]); err != nil {
			return err
		}
	}
	return nil
}

func (RegisterBroker) check(_, _ *Image) error      { return nil }
func (UnregisterBroker) check(_, _ *Image) error    { return nil }
func (DeleteTopic) check(_, _ *Image) error         { return nil }
func (CreatePartitions) check(_, _ *Image) error    { return nil }
func (SetReplicas) check(_, _ *Image) error         { return nil }
func (AllocateProducerIDs) check(_, _ *Image) error { return nil }

func (c CreateTopic) check(_, next *Image) error {
	if err := ValidateTopicConfig(c.Config); err != nil {
		return err
	}
	t, _ := next.TopicByID(c.ID)
	return next.checkTogether(t)
}

// Only what is set now is looked at: what a newer release set, or an older one
// accepted, must not stand in the way of another change.
func (c SetTopicConfig) check(_, next *Image) error {
	if err := ValidateTopicConfig(c.Set); err != nil {
		return err
	}
	t, _ := next.TopicByID(c.Topic)
	return next.checkTogether(t)
}

func (c SetBrokerConfig) check(m, _ *Image) error {
	touched := slices.Concat(slices.Sorted(maps.Keys(c.Set)), slices.Sorted(slices.Values(c.Delete)))
	if c.Replace {
		for _, name := range slices.Sorted(maps.Keys(m.BrokerConfig(c.Broker))) {
			if _, kept := c.Set[name]; !kept {
				touched = append(touched, name)
			}
		}
	}
	for _, name := range touched {
		value, set := c.Set[name]
		d, ok := BrokerDefinition(name)
		switch {
		case !ok:
			continue // as Kafka: it may be a newer release's or a plug-in's, and has no effect
		case d.ReadOnly:
			return refuse(ErrReadOnlyConfig, "Cannot update these configs dynamically: Set(%s)", name)
		case set && c.Broker != 0 && !d.PerNode:
			return refuse(ErrReadOnlyConfig, "Cannot update %s for one broker: all nodes must agree on it, set it for the whole cluster (broker name \"\")", name)
		}
		if !set {
			continue
		}
		if _, err := d.Validate(value); err != nil {
			return err
		}
	}
	return nil
}

// checkTogether is for settings that contradict each other. The nodes' own
// settings are left out of it: they may differ.
func (m *Image) checkTogether(t *Topic) error {
	s := m.TopicSettings(t, 0, nil)
	if s.MinCompactionLagMillis > s.MaxCompactionLagMillis {
		return refuse(ErrInvalidConfig, "conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", s.MinCompactionLagMillis, s.MaxCompactionLagMillis)
	}
	return nil
}

// A Value is a setting as it stands.
type Value struct {
	*Definition
	Value  string // the value in force
	Null   bool   // there is none
	Source Source
	From   []Origin // everything that gives a value, the one in force first
}

// An Origin is one of the places a value could come from.
type Origin struct {
	Name   string // of the setting there, which may be a synonym
	Value  string // as it was set there
	Source Source
}

// DescribeTopic returns every setting of t as it stands on a node: all of the
// visible ones and of the hidden ones those that are set. static are the own
// settings of the node, id; they are only read.
func (m *Image) DescribeTopic(t *Topic, id int32, static map[string]string) []Value {
	layers := m.layers(id, static)
	var all []Value
	for _, d := range topicSettings {
		if _, set := t.Config[d.Name]; set || !d.Hidden {
			all = append(all, d.ofTopic(t.Config, layers, true))
		}
	}
	return all
}

// DescribeBroker returns every setting of a node as it stands, and those that were
// set at run time although no release has them; as in Kafka, their values count as
// secrets, since nobody knows better. static are the node's own.
func (m *Image) DescribeBroker(id int32, static map[string]string) []Value {
	layers := m.layers(id, static)
	all := make([]Value, 0, len(brokerSettings))
	for _, d := range brokerSettings {
		all = append(all, d.ofBroker(layers, true))
	}
	strange := make(map[string]bool)
	for _, l := range layers {
		if l.source == SourceStatic {
			continue // what only a file says was warned of at the start
		}
		for name := range l.values {
			if _, known := BrokerDefinition(name); !known {
				strange[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(strange)) {
		d := &Definition{Name: name, Type: Password, Null: true, PerNode: true, Doc: "Unknown, without effect."}
		all = append(all, d.ofBroker(layers, true))
	}
	return all
}

// A layer is one source's values, nearer ones first.
type layer struct {
	source Source
	values map[string]string
}

// layers of a broker's settings; with id 0 without those set for one broker alone.
func (m *Image) layers(id int32, static map[string]string) []layer {
	layers := make([]layer, 0, 3)
	if id != 0 {
		layers = append(layers, layer{SourceBroker, m.BrokerConfig(id)})
	}
	return append(layers, layer{SourceCluster, m.BrokerConfig(0)}, layer{SourceStatic, static})
}

// ofTopic resolves a topic's setting. A value that is not valid is passed over
// as if it were not there: one release may have accepted what another does not,
// and what is described must be what is in force. Unless origins are asked for
// it stops at the first.
func (d *Definition) ofTopic(topic map[string]string, layers []layer, origins bool) Value {
	v := Value{Definition: d, Null: true, Source: SourceDefault}
	if raw, ok := topic[d.Name]; ok {
		if value := strings.TrimSpace(raw); d.wrong(value) == "" {
			v.add(value, Origin{d.Name, value, SourceTopic})
		}
	}
	for _, l := range layers {
		for _, s := range d.Synonyms {
			if !origins && !v.Null {
				return v
			}
			raw, ok := l.values[s.Name]
			if !ok {
				continue
			}
			raw = strings.TrimSpace(raw)
			if value, ok := s.scaled(raw); ok && d.wrong(value) == "" {
				v.add(value, Origin{s.Name, raw, l.source})
			}
		}
	}
	if !origins && !v.Null {
		return v
	}
	for _, s := range d.Synonyms {
		if b, ok := BrokerDefinition(s.Name); ok && !b.Null {
			v.add(d.Default, Origin{s.Name, b.Default, SourceDefault})
		}
	}
	if v.Null && !d.Null {
		v.Value, v.Null = d.Default, false
	}
	return v
}

func (d *Definition) ofBroker(layers []layer, origins bool) Value {
	v := Value{Definition: d, Null: true, Source: SourceDefault}
	for _, l := range layers {
		raw, ok := l.values[d.Name]
		if !ok {
			continue
		}
		if value := strings.TrimSpace(raw); d.wrong(value) == "" {
			v.add(value, Origin{d.Name, value, l.source})
			if !origins {
				return v
			}
		}
	}
	if !d.Null {
		v.add(d.Default, Origin{d.Name, d.Default, SourceDefault})
	}
	return v
}

// add takes the value if it is the first.
func (v *Value) add(value string, from Origin) {
	if v.Null {
		v.Value, v.Null, v.Source = value, false, from.Source
	}
	v.From = append(v.From, from)
}

// scaled turns hours into milliseconds. A negative number means "no limit" in
// any unit, and what would overflow is no limit either.
func (s Synonym) scaled(raw string) (string, bool) {
	if s.Scale <= 1 {
		return raw, true
	}
	n, err := strconv.ParseInt(raw, 10, 64)
	switch {
	case err != nil:
		return "", false
	case n < 0:
		return "-1", true
	case n > math.MaxInt64/s.Scale:
		return strconv.FormatInt(math.MaxInt64, 10), true
	}
	return strconv.FormatInt(n*s.Scale, 10), true
}

// A rule is for values of a setting of the right type.
type rule struct {
	// allowed are the values in words that follow "it is", or for a number its range.
	allowed string
	// wrong says in the words of Kafka's ConfigDef what is wrong with a value,
	// trimmed; "" if nothing is.
	wrong func(value string) string
}

func atLeast(low float64) rule { return between(low, math.Inf(1)) }

func between(low, high float64) rule {
	allowed := fmt.Sprintf("%s to %s", decimal(low), decimal(high))
	if math.IsInf(high, 1) {
		allowed = decimal(low) + " or more"
	}
	return rule{allowed, func(value string) string {
		f, err := strconv.ParseFloat(value, 64)
		switch {
		case err != nil:
			return "Value must be a number"
		case f < low:
			return "Value must be at least " + decimal(low)
		case f > high:
			return "Value must be no more than " + decimal(high)
		}
		return ""
	}}
}

func decimal(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }

func oneOf(allowed ...string) rule {
	return rule{"one of " + strings.Join(allowed, ", "), func(value string) string {
		if slices.Contains(allowed, value) {
			return ""
		}
		return "String must be one of: " + strings.Join(allowed, ", ")
	}}
}

func eachOneOf(allowed ...string) rule {
	return rule{"any of " + strings.Join(allowed, ", ") + ", with commas between them", func(value string) string {
		for _, v := range elements(value) {
			if !slices.Contains(allowed, v) {
				return "String must be one of: " + strings.Join(allowed, ", ")
			}
		}
		return ""
	}}
}

var gzipLevel = rule{"1 to 9, or -1", func(value string) string {
	if n, err := strconv.Atoi(value); err != nil || n != -1 && (n < 1 || n > 9) {
		return "Value must be between 1 and 9 or equal to -1"
	}
	return ""
}}

var throttled = regexp.MustCompile(`^(\*|[0-9]+:[0-9]+(\s*,\s*[0-9]+:[0-9]+)*)?$`)

var throttledReplicas = rule{"* or PARTITION:BROKER,…", func(value string) string {
	if throttled.MatchString(value) {
		return ""
	}
	return "Value must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."
}}

func never(why string) rule {
	return rule{"false", func(value string) string {
		if strings.EqualFold(value, "false") {
			return ""
		}
		return why
	}}
}

func sorted(all []*Definition) []*Definition {
	slices.SortFunc(all, func(a, b *Definition) int { return cmp.Compare(a.Name, b.Name) })
	for i := 1; i < len(all); i++ {
		if all[i].Name == all[i-1].Name {
			panic(fmt.Sprintf("metadata: setting %s is defined twice", all[i].Name))
		}
	}
	return all
}

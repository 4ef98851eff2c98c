package settings

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
)

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

// Layers are where the values of a node's settings come from besides their defaults, and
// where those of a topic that were not set for it. They are only read; nil maps are empty.
type Layers struct {
	Node    map[string]string // set at run time for this one; nil for what holds for no one node
	Cluster map[string]string // set at run time for all
	Static  map[string]string // the node's own, from its flags and configuration file
	Brokers int               // how many are registered: a topic's replicas by default
}

// A layer is one source's values.
type layer struct {
	source Source
	values map[string]string
}

// byNearness are the layers, the one that wins first.
func (l Layers) byNearness() [3]layer {
	return [3]layer{{SourceBroker, l.Node}, {SourceCluster, l.Cluster}, {SourceStatic, l.Static}}
}

// DescribeTopic returns every setting of a topic as it stands: all of the visible ones, and
// of the hidden ones those that are set. config is what was set for the topic.
func (l Layers) DescribeTopic(config map[string]string) []Value {
	var all []Value
	for _, d := range topicSettings {
		if _, set := config[d.Name]; set || !d.Hidden {
			all = append(all, d.ofTopic(config, l, true))
		}
	}
	return all
}

// DescribeBroker returns every setting of a node as it stands, and those that were
// set at run time although no release has them; as in Kafka, their values count as
// secrets, since nobody knows better.
func (l Layers) DescribeBroker() []Value {
	all := make([]Value, 0, len(brokerSettings))
	for _, d := range brokerSettings {
		all = append(all, d.ofBroker(l, true))
	}
	strange := make(map[string]bool)
	for _, values := range []map[string]string{l.Node, l.Cluster} { // what only a file says was warned of at the start
		for name := range values {
			if _, known := BrokerDefinition(name); !known {
				strange[name] = true
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(strange)) {
		d := &Definition{Name: name, Type: Password, Null: true, PerNode: true, Doc: "Unknown, without effect."}
		all = append(all, d.ofBroker(l, true))
	}
	return all
}

// DescribeResource returns every setting of a group or of a subscription to clients'
// metrics as it stands, of which config was set: for a group what is not set is what the
// node's own settings say.
func (l Layers) DescribeResource(kind ResourceKind, config map[string]string) []Value {
	source := SourceGroup
	if kind == ClientMetrics {
		source = SourceClientMetrics
	}
	all := make([]Value, 0, len(resourceSettings[kind]))
	for _, d := range resourceSettings[kind] {
		v := Value{Definition: d, Value: d.Default, Source: SourceDefault}
		for _, s := range d.Synonyms {
			if b, ok := BrokerDefinition(s.Name); ok {
				v.Value = b.ofBroker(l, false).Value
			}
		}
		// As Kafka's: the broker's setting is a group's default, not a source of its own.
		v.From = []Origin{{d.Name, v.Value, SourceDefault}}
		if raw, ok := config[d.Name]; ok {
			if value := strings.TrimSpace(raw); d.wrong(value) == "" {
				v.Value, v.Source = value, source
				v.From = slices.Insert(v.From, 0, Origin{d.Name, value, source})
			}
		}
		all = append(all, v)
	}
	return all
}

// ofTopic resolves a topic's setting. A value that is not valid is passed over
// as if it were not there: one release may have accepted what another does not,
// and what is described must be what is in force. Unless origins are asked for
// it stops at the first.
func (d *Definition) ofTopic(topic map[string]string, layers Layers, origins bool) Value {
	v := Value{Definition: d, Null: true, Source: SourceDefault}
	if raw, ok := topic[d.Name]; ok {
		if value := strings.TrimSpace(raw); d.wrong(value) == "" {
			v.add(value, Origin{d.Name, value, SourceTopic})
		}
	}
	for _, l := range layers.byNearness() {
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

// ofBroker resolves a broker's setting in the same way.
func (d *Definition) ofBroker(layers Layers, origins bool) Value {
	v := Value{Definition: d, Null: true, Source: SourceDefault}
	for _, l := range layers.byNearness() {
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

// A resolver reads settings one by one, as numbers and the like: a topic's, or a broker's.
type resolver struct {
	topic  map[string]string
	broker bool // and not a topic's
	layers Layers
}

// text of a setting in force; "" when it is null.
func (r resolver) text(name string) string {
	if r.broker {
		d, _ := BrokerDefinition(name)
		return d.ofBroker(r.layers, false).Value
	}
	d, _ := TopicDefinition(name)
	return d.ofTopic(r.topic, r.layers, false).Value
}

// long is the number. Resolving passes over what is none, so there is always one.
func (r resolver) long(name string) int64 {
	n, _ := strconv.ParseInt(r.text(name), 10, 64)
	return n
}

// bounded is the number cut to 31 bits, for what is counted in int32.
func (r resolver) bounded(name string) int32 {
	return int32(min(max(r.long(name), math.MinInt32), math.MaxInt32))
}

// float is the number that may have a fraction.
func (r resolver) float(name string) float64 {
	f, _ := strconv.ParseFloat(r.text(name), 64)
	return f
}

// list is a comma-separated value taken apart.
func (r resolver) list(name string) []string { return elements(r.text(name)) }

// truth is the value of one that is true or false.
func (r resolver) truth(name string) bool { return strings.EqualFold(r.text(name), "true") }

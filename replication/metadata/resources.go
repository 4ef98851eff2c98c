package metadata

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// A ResourceKind is a kind of thing that has settings without being a topic or a
// broker, under the number Kafka gives it (ConfigResource.Type).
type ResourceKind int8

// The kinds of resources.
const (
	ClientMetrics ResourceKind = 16 // what clients are asked to report (KIP-714)
	Group         ResourceKind = 32 // a consumer group (KIP-848)
)

// String names the kind as kafka-configs does.
func (k ResourceKind) String() string {
	switch k {
	case ClientMetrics:
		return "client-metrics"
	case Group:
		return "group"
	}
	return "unknown"
}

// A resourceConfig is what was set for one resource. The resource itself need not be there.
type resourceConfig struct {
	kind   ResourceKind
	name   string
	values map[string]string
}

func (r resourceConfig) compare(o resourceConfig) int {
	return cmp.Or(cmp.Compare(r.kind, o.kind), cmp.Compare(r.name, o.name))
}

// SetResourceConfig sets settings of a group or of a subscription to clients'
// metrics, and returns others to their defaults. Neither need be there, and what
// has no settings left is forgotten.
//
// Errors: ErrNoCluster, ErrInvalidConfig, ErrConfigChanged, ErrLimit, ErrLevel.
type SetResourceConfig struct {
	Kind    ResourceKind
	Name    string
	Set     map[string]string  `json:",omitempty"`
	Delete  []string           `json:",omitempty"` // before Set
	Replace bool               `json:",omitempty"` // all that is not in Set returns to its default
	Was     map[string]*string `json:",omitempty"` // as in SetTopicConfig
}

func (SetResourceConfig) kind() string { return "SetResourceConfig" }
func (SetResourceConfig) level() int32 { return 2 }

func (c SetResourceConfig) apply(next *Image) error {
	if err := validResource(c.Kind, c.Name); err != nil {
		return err
	}
	if next.ClusterID == "" {
		return refuse(ErrNoCluster, "there is no cluster whose settings could be changed")
	}
	if next.level < 2 {
		return refuse(ErrLevel, "settings of a %s need feature level 2, and the cluster is at %d until all its brokers are upgraded", c.Kind, next.level)
	}
	i, known := next.resource(c.Kind, c.Name)
	var old map[string]string
	if known {
		old = next.resources[i].values
	}
	if err := unchanged(old, c.Was); err != nil {
		return err
	}
	values, err := edited(old, c.Set, c.Delete, c.Replace)
	if err != nil {
		return err
	}
	r := resourceConfig{c.Kind, c.Name, values}
	more := r.size() - resourceConfig{c.Kind, c.Name, old}.size()
	if next.resourceBytes += more; more > 0 && next.resourceBytes > MaxResourceBytes {
		return refuse(ErrLimit, "The settings of all groups and subscriptions to clients' metrics would take %d bytes; they may take at most %d.", next.resourceBytes, MaxResourceBytes)
	}
	switch {
	case known && values == nil:
		next.resources = removed(next.resources, i)
	case known:
		next.resources = replaced(next.resources, i, r)
	case values != nil && len(next.resources) >= MaxResources:
		return refuse(ErrLimit, "%d groups and subscriptions to clients' metrics have settings, the most there may be", MaxResources)
	case values != nil:
		next.resources = inserted(next.resources, i, r)
	}
	return next.grow(more)
}

func validResource(kind ResourceKind, name string) error {
	switch {
	case kind != ClientMetrics && kind != Group:
		return refuse(ErrInvalidConfig, "Unknown resource type %d", kind)
	case name == "" || !text(name):
		return refuse(ErrInvalidConfig, "The name of a %s must be a text of 1 to %d bytes.", kind, maxText)
	}
	return nil
}

// size bounds what Encode writes for a resource; one without settings is not written.
func (r resourceConfig) size() int {
	if len(r.values) == 0 {
		return 0
	}
	return 40 + jsonLen(r.name) + configSize(r.values)
}

// Like that of topics, the check is of values alone; bounds that nodes have in
// their configuration files are checked by who asks for the change, see
// [CheckGroupConfig].
func (c SetResourceConfig) check(_, _ *Image) error {
	for _, name := range slices.Sorted(maps.Keys(c.Set)) {
		d, ok := ResourceDefinition(c.Kind, name)
		if !ok && c.Kind == ClientMetrics {
			return refuse(ErrInvalidConfig, "Unknown client metrics configuration: %s", shown(name))
		}
		if !ok {
			return refuse(ErrInvalidConfig, "Unknown group config name: %s", shown(name))
		}
		if _, err := d.Validate(c.Set[name]); err != nil {
			return err
		}
	}
	return nil
}

func (m *Image) resource(kind ResourceKind, name string) (int, bool) {
	return slices.BinarySearchFunc(m.resources, resourceConfig{kind: kind, name: name}, resourceConfig.compare)
}

// ResourceConfig returns what was set for a group or a subscription to clients'
// metrics, nil when nothing was.
func (m *Image) ResourceConfig(kind ResourceKind, name string) map[string]string {
	i, ok := m.resource(kind, name)
	if !ok {
		return nil
	}
	return m.resources[i].values
}

// Resources lists the names of a kind for which something was set.
func (m *Image) Resources(kind ResourceKind) []string {
	var names []string
	for _, r := range m.resources {
		if r.kind == kind {
			names = append(names, r.name)
		}
	}
	return names
}

// DescribeResource returns every setting of a group or of a subscription to
// clients' metrics as it stands on a node: for a group what is not set is what
// the node's own settings say, broker.
func (m *Image) DescribeResource(kind ResourceKind, name string, broker int32, static map[string]string) []Value {
	own, source := m.ResourceConfig(kind, name), SourceGroup
	if kind == ClientMetrics {
		source = SourceClientMetrics
	}
	layers := m.layers(broker, static)
	all := make([]Value, 0, len(resourceSettings[kind]))
	for _, d := range resourceSettings[kind] {
		v := Value{Definition: d, Value: d.Default, Source: SourceDefault}
		for _, s := range d.Synonyms {
			if b, ok := BrokerDefinition(s.Name); ok {
				v.Value = b.ofBroker(layers, false).Value
			}
		}
		// As Kafka's: the broker's setting is a group's default, not a source of its own.
		v.From = []Origin{{d.Name, v.Value, SourceDefault}}
		if raw, ok := own[d.Name]; ok {
			if value := strings.TrimSpace(raw); d.wrong(value) == "" {
				v.Value, v.Source = value, source
				v.From = slices.Insert(v.From, 0, Origin{d.Name, value, source})
			}
		}
		all = append(all, v)
	}
	return all
}

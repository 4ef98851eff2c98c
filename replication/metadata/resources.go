package metadata

import (
	"cmp"
	"slices"

	"millrace/replication/metadata/settings"
)

// A resourceConfig is what was set for one resource. The resource itself need not be there.
type resourceConfig struct {
	kind   settings.ResourceKind
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
	Kind    settings.ResourceKind
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

func validResource(kind settings.ResourceKind, name string) error {
	switch {
	case kind != settings.ClientMetrics && kind != settings.Group:
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

func (m *Image) resource(kind settings.ResourceKind, name string) (int, bool) {
	return slices.BinarySearchFunc(m.resources, resourceConfig{kind: kind, name: name}, resourceConfig.compare)
}

// ResourceConfig returns what was set for a group or a subscription to clients'
// metrics, nil when nothing was.
func (m *Image) ResourceConfig(kind settings.ResourceKind, name string) map[string]string {
	i, ok := m.resource(kind, name)
	if !ok {
		return nil
	}
	return m.resources[i].values
}

// Resources lists the names of a kind for which something was set.
func (m *Image) Resources(kind settings.ResourceKind) []string {
	var names []string
	for _, r := range m.resources {
		if r.kind == kind {
			names = append(names, r.name)
		}
	}
	return names
}

package metadata

import (
	"maps"
	"slices"

	"millrace/replication/metadata/settings"
)

// Settings are where the values of node id's settings come from under this image, and those
// of topics that were not set for the topic: what was set for the broker at run time and for
// the cluster, and static, the node's own. With id 0 no broker's are looked at.
func (m *Image) Settings(id int32, static map[string]string) settings.Layers {
	l := settings.Layers{Cluster: m.BrokerConfig(0), Static: static, Brokers: len(m.brokers)}
	if id != 0 {
		l.Node = m.BrokerConfig(id)
	}
	return l
}

// What follows is the part of [Image.Check] that Apply does not do: it looks at values.

func (RegisterBroker) check(_, _ *Image) error      { return nil }
func (UnregisterBroker) check(_, _ *Image) error    { return nil }
func (DeleteTopic) check(_, _ *Image) error         { return nil }
func (CreatePartitions) check(_, _ *Image) error    { return nil }
func (SetReplicas) check(_, _ *Image) error         { return nil }
func (AllocateProducerIDs) check(_, _ *Image) error { return nil }

func (c CreateTopic) check(_, next *Image) error {
	t, _ := next.TopicByID(c.ID)
	return checkTopic(c.Config, t, next)
}

// Only what is set now is looked at: what a newer release set, or an older one
// accepted, must not stand in the way of another change.
func (c SetTopicConfig) check(_, next *Image) error {
	t, _ := next.TopicByID(c.Topic)
	return checkTopic(c.Set, t, next)
}

// checkTopic checks what is set for a topic by itself, and then with what else t has. The
// nodes' own settings are left out of it: they may differ.
func checkTopic(set map[string]string, t *Topic, next *Image) error {
	if err := settings.ValidateTopic(set); err != nil {
		return badSetting(err)
	}
	s := next.Settings(0, nil).Topic(t.Config)
	return badSetting(s.Validate())
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
		d, ok := settings.BrokerDefinition(name)
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
			return badSetting(err)
		}
	}
	return nil
}

// Like that of topics, the check is of values alone; bounds that nodes have in
// their configuration files are checked by who asks for the change, see
// [settings.ConsumerGroups.Validate].
func (c SetResourceConfig) check(_, _ *Image) error {
	return badSetting(settings.ValidateResource(c.Kind, c.Set))
}

// badSetting makes what package settings says a refusal of this one; nil stays nil.
func badSetting(err error) error {
	if err == nil {
		return nil
	}
	return &Refusal{ErrInvalidConfig, err.Error()}
}

package metadata

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"millrace/replication/metadata/settings"
)

// configured is a cluster with settings at run time and one topic.
func configured(t *testing.T, cluster, topic map[string]string) (*Image, *Topic) {
	t.Helper()
	m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "a", Assignment: [][]int32{{1}}, Config: topic})
	m = apply(t, m, SetBrokerConfig{Set: cluster})
	a, _ := m.Topic("a")
	return m, a
}

func TestGateRefusesValuesThatApplyWouldTake(t *testing.T) {
	m, topic := configured(t, map[string]string{"from.the.future": "1"}, map[string]string{"also.from.the.future": "1"})
	one := [][]int32{{1}}
	for _, c := range []struct {
		name   string
		change Change
		reason error
		text   string
	}{
		{"good topic", CreateTopic{ID: topicID(2), Name: "b", Assignment: one, Config: map[string]string{"retention.ms": "1"}}, nil, ""},
		{"bad value", CreateTopic{ID: topicID(2), Name: "b", Assignment: one, Config: map[string]string{"retention.ms": "x"}}, ErrInvalidConfig, "Invalid value x for configuration retention.ms: Not a number of type LONG"},
		{"unknown name", CreateTopic{ID: topicID(2), Name: "b", Assignment: one, Config: map[string]string{"x": "1"}}, ErrInvalidConfig, "Unknown topic config name: x"},
		{"contradiction", CreateTopic{ID: topicID(2), Name: "b", Assignment: one, Config: map[string]string{"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "9"}}, ErrInvalidConfig, "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (9)"},
		{"good beside what only a newer release knows", SetTopicConfig{Topic: topic.ID, Set: map[string]string{"retention.ms": "1"}}, nil, ""},
		{"bad beside it", SetTopicConfig{Topic: topic.ID, Set: map[string]string{"retention.ms": ""}}, ErrInvalidConfig, ""},
		{"take it away", SetTopicConfig{Topic: topic.ID, Delete: []string{"also.from.the.future"}}, nil, ""},
		{"cluster setting", SetBrokerConfig{Set: map[string]string{"log.retention.ms": "5"}}, nil, ""},
		{"bad cluster setting", SetBrokerConfig{Set: map[string]string{"log.retention.ms": "-5"}}, ErrInvalidConfig, "Invalid value -5 for configuration log.retention.ms: Value must be at least -1"},
		{"unknown cluster setting", SetBrokerConfig{Set: map[string]string{"num.io.threads": "5", "my.plugin": "6"}}, nil, ""},
		{"unknown setting of a broker", SetBrokerConfig{Broker: 1, Set: map[string]string{"background.threads": "5"}}, nil, ""},
		{"read-only setting", SetBrokerConfig{Set: map[string]string{"listeners": "PLAINTEXT://:1"}}, ErrReadOnlyConfig, "Cannot update these configs dynamically: Set(listeners)"},
		{"read-only setting taken away", SetBrokerConfig{Delete: []string{"listeners"}}, ErrReadOnlyConfig, ""},
		{"nodes would disagree", SetBrokerConfig{Broker: 1, Set: map[string]string{"num.partitions": "5"}}, ErrReadOnlyConfig, ""},
		{"one broker's retention", SetBrokerConfig{Broker: 1, Set: map[string]string{"log.retention.ms": "5", "message.max.bytes": "6", "compression.type": "zstd"}}, nil, ""},
		{"a group's before all brokers are upgraded", SetResourceConfig{Kind: settings.Group, Name: "g", Set: map[string]string{"consumer.session.timeout.ms": "50000"}}, ErrLevel, ""},
		{"a group's", SetResourceConfig{Kind: settings.Group, Name: "g", Set: map[string]string{"consumer.session.timeout.ms": "50000"}}, nil, ""},
		{"a group's unknown", SetResourceConfig{Kind: settings.Group, Name: "g", Set: map[string]string{"session": "1"}}, ErrInvalidConfig, "Unknown group config name: session"},
		{"a group's bad", SetResourceConfig{Kind: settings.Group, Name: "g", Set: map[string]string{"share.auto.offset.reset": "by_duration:PT"}}, ErrInvalidConfig, "Invalid value by_duration:PT for configuration share.auto.offset.reset: Value must be latest, earliest or by_duration:PnDTnHnMn.nS"},
		{"clients' metrics", SetResourceConfig{Kind: settings.ClientMetrics, Name: "all", Set: map[string]string{"match": "client_id=app-.*,client_software_name=Java", "interval.ms": "100"}}, nil, ""},
		{"too often", SetResourceConfig{Kind: settings.ClientMetrics, Name: "all", Set: map[string]string{"interval.ms": "99"}}, ErrInvalidConfig, ""},
		{"no such thing to match", SetResourceConfig{Kind: settings.ClientMetrics, Name: "all", Set: map[string]string{"match": "color=red"}}, ErrInvalidConfig, "Invalid value color=red for configuration match: Illegal client matching pattern: color=red"},
		{"one broker's own", SetBrokerConfig{Broker: 1, Set: map[string]string{"log.cleaner.threads": "5"}}, nil, ""},
		{"the future taken away", SetBrokerConfig{Replace: true}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := m
			if _, ok := c.change.(SetResourceConfig); ok && c.reason != ErrLevel {
				m = apply(t, m, SetLevel{Level: 2})
			}
			if err := m.Check(c.change); c.reason == nil && err != nil || !errors.Is(err, c.reason) || c.text != "" && err.Error() != c.text {
				t.Errorf("the gate says %v, want %v: %s", err, c.reason, c.text)
			}
			if _, err := m.Apply(m.Index+1, c.change); err != nil && c.reason != ErrLevel {
				t.Errorf("Apply looked at a value: %v", err)
			}
		})
	}
}

func TestNobodyFillsTheImageWithGroups(t *testing.T) {
	m := apply(t, three(t), SetLevel{Level: 2})
	for i := range MaxResources {
		m.resources = append(m.resources, resourceConfig{settings.Group, fmt.Sprintf("g%05d", i), map[string]string{"k": "v"}})
	}
	set := SetResourceConfig{Kind: settings.Group, Name: "one-more", Set: map[string]string{"k": "v"}}
	if _, err := m.Apply(m.Index+1, set); !errors.Is(err, ErrLimit) {
		t.Errorf("one more: %v", err)
	}
	set.Name = "g00007"
	if _, err := m.Apply(m.Index+1, set); err != nil {
		t.Errorf("one of them changed: %v", err)
	}
	next, err := m.Apply(m.Index+1, SetResourceConfig{Kind: settings.Group, Name: "g00007", Replace: true})
	if err != nil {
		t.Fatal(err)
	}
	set.Name = "one-more"
	if _, err := next.Apply(next.Index+1, set); err != nil {
		t.Errorf("one in the place of another: %v", err)
	}
}

// Few names with long values are as good as many to fill an image with.
func TestNobodyFillsTheImageWithSettingsOfGroups(t *testing.T) {
	m := apply(t, three(t), SetLevel{Level: 2})
	long := strings.Repeat("v", MaxConfigBytes-100)
	n := 0
	for {
		next, err := m.Apply(m.Index+1, SetResourceConfig{Kind: settings.Group, Name: fmt.Sprint("g", n), Set: map[string]string{"k": long}})
		if errors.Is(err, ErrLimit) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		m = next
		n++
	}
	if most := MaxResourceBytes / len(long); n < most-1 || n > most {
		t.Errorf("%d groups have settings of %d bytes, want at most %d", n, len(long), most)
	}
	// As much is left as without, and it is the same after the image was read back.
	if m.size > MaxImageBytes/2 {
		t.Errorf("the image takes %d bytes", m.size)
	}
	again, err := DecodeImage(m.Encode())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*Image{m, again} {
		if _, err := m.Apply(m.Index+1, SetResourceConfig{Kind: settings.Group, Name: "more", Set: map[string]string{"k": long}}); !errors.Is(err, ErrLimit) {
			t.Errorf("one more: %v", err)
		}
		next, err := m.Apply(m.Index+1, SetResourceConfig{Kind: settings.Group, Name: "g0", Replace: true})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := next.Apply(next.Index+1, SetResourceConfig{Kind: settings.Group, Name: "more", Set: map[string]string{"k": long}}); err != nil {
			t.Errorf("one in the place of another: %v", err)
		}
	}
}

// An image says by which settings a node works: those that were set for it, for the
// cluster, and its own. The default of the replicas is by how many brokers there are.
func TestImageSaysWhatIsSet(t *testing.T) {
	m, topic := configured(t, map[string]string{"log.retention.ms": "7"}, map[string]string{"flush.messages": "3"})
	m = apply(t, m, SetBrokerConfig{Broker: 1, Set: map[string]string{"log.retention.ms": "5"}})
	static := map[string]string{"log.retention.ms": "9", "log.segment.bytes": "2000000"}
	for node, want := range map[int32]int64{0: 7, 1: 5, 2: 7} {
		if s := m.Settings(node, static).Topic(topic.Config); s.RetentionMillis != want || s.SegmentBytes != 2000000 || s.FlushMessages != 3 {
			t.Errorf("on node %d: %+v, want a retention of %d", node, s, want)
		}
	}
	for brokers, want := range map[int]int{1: 1, 2: 2, 3: 3, 4: 3} {
		m := apply(t, new(Image), register(1))
		for id := 2; id <= brokers; id++ {
			m = apply(t, m, register(int32(id)))
		}
		if s := m.Settings(1, nil).Broker(); s.Topics.Replication != want || !s.Topics.Grows {
			t.Errorf("%d brokers: %+v", brokers, s.Topics)
		}
	}
}

// A setting may ask for as many replicas as Apply takes, and for no more.
func TestReplicationFactorIsBoundAsApplyBoundsIt(t *testing.T) {
	d, _ := settings.BrokerDefinition("default.replication.factor")
	if _, err := d.Validate(fmt.Sprint(MaxReplicas)); err != nil {
		t.Error(err)
	}
	if _, err := d.Validate(fmt.Sprint(MaxReplicas + 1)); err == nil {
		t.Errorf("%d are taken", MaxReplicas+1)
	}
}

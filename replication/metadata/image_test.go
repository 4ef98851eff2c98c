package metadata

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"millrace/replication/metadata/settings"
)

const testCluster = "MkU3OEVBNTcwNTJENDM2Qg"

// grown applies changes to the zero image and fails the test if one is refused.
func grown(t testing.TB, changes ...Change) *Image {
	t.Helper()
	m := new(Image)
	for _, c := range changes {
		m = apply(t, m, c)
	}
	return m
}

func apply(t testing.TB, m *Image, c Change) *Image {
	t.Helper()
	next, err := m.Apply(m.Index+1, c)
	if err != nil {
		t.Fatalf("apply %#v: %v", c, err)
	}
	return next
}

// register is the change by which broker id joins, in a rack if one is given.
func register(id int32, rack ...string) RegisterBroker {
	b := Broker{ID: id, Incarnation: fmt.Sprintf("i%d", id), Host: fmt.Sprintf("host%d", id), Port: 9092}
	if len(rack) > 0 {
		b.Rack = rack[0]
	}
	return RegisterBroker{Broker: b, ClusterID: testCluster}
}

// topicID is a fixed id for tests.
func topicID(n byte) TopicID { return TopicID{0: 7, 15: n} }

func three(t testing.TB) *Image { return grown(t, register(1), register(2), register(3)) }

func TestCreatedTopicIsFoundEveryWay(t *testing.T) {
	m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "orders", Assignment: [][]int32{{1, 2, 3}, {2, 3, 1}}, Config: map[string]string{"retention.ms": "5"}, Grow: true})
	want := &Topic{ID: topicID(1), Name: "orders", Grow: true, Config: map[string]string{"retention.ms": "5"}, Partitions: []Partition{
		{Group: 1, Replicas: []int32{1, 2, 3}, Bootstrap: []string{"1.i1", "2.i2", "3.i3"}},
		{Group: 2, Replicas: []int32{2, 3, 1}, Bootstrap: []string{"2.i2", "3.i3", "1.i1"}},
	}}
	byName, _ := m.Topic("orders")
	byID, _ := m.TopicByID(topicID(1))
	if !reflect.DeepEqual(byName, want) || byID != byName || len(m.Topics()) != 1 || m.Topics()[0] != byName {
		t.Fatalf("by name %+v, by id %+v, want %+v", byName, byID, want)
	}
	for group, want := range map[uint64]int32{0: -1, 1: 0, 2: 1, 3: -1} {
		id, ok := m.Group(group)
		if ok != (want >= 0) || ok && id != (PartitionID{topicID(1), want}) {
			t.Errorf("group %d is %v, %v; want partition %d", group, id, ok, want)
		}
	}
	if topic, p, ok := m.Partition(PartitionID{topicID(1), 1}); !ok || topic != byName || p.Group != 2 {
		t.Errorf("partition 1 is %v %v %v", topic, p, ok)
	}
	if _, _, ok := m.Partition(PartitionID{topicID(1), 2}); ok {
		t.Error("partition 2 was found")
	}
}

func TestGroupsAreNeverNumberedTwice(t *testing.T) {
	one := [][]int32{{1}}
	m := three(t)
	m = apply(t, m, CreateTopic{ID: topicID(1), Name: "a", Assignment: [][]int32{{1}, {1}, {1}}})
	m = apply(t, m, CreateTopic{ID: topicID(2), Name: "b", Assignment: one})
	m = apply(t, m, CreatePartitions{Topic: topicID(1), Count: 5, Assignment: [][]int32{{2}, {3}}})
	m = apply(t, m, DeleteTopic{Topic: topicID(2)})
	m = apply(t, m, CreateTopic{ID: topicID(3), Name: "b", Assignment: one})
	for group, want := range []string{"", "a 0", "a 1", "a 2", "", "a 3", "a 4", "b 0", ""} {
		got := ""
		if id, ok := m.Group(uint64(group)); ok {
			topic, p, _ := m.Partition(id)
			got = fmt.Sprintf("%s %d", topic.Name, id.Index)
			if p.Group != uint64(group) {
				t.Errorf("group %d leads to a partition of group %d", group, p.Group)
			}
		}
		if got != want {
			t.Errorf("group %d is %q, want %q", group, got, want)
		}
	}
	if m.LastGroup() != 7 {
		t.Errorf("last group is %d, want 7", m.LastGroup())
	}
}

func TestNewIncarnationTakesTheOldOnesPlaceButNotItsMembership(t *testing.T) {
	m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "a", Assignment: [][]int32{{1, 2}}})
	m = apply(t, m, RegisterBroker{Broker: Broker{ID: 2, Incarnation: "fresh", Host: "h", Port: 1}})
	m = apply(t, m, CreatePartitions{Topic: topicID(1), Count: 2, Assignment: [][]int32{{2, 1}}})
	b, _ := m.Broker(2)
	if b.Incarnation != "fresh" || b.ServerID() != "2.fresh" || len(m.Brokers()) != 3 {
		t.Errorf("broker 2 is %+v of %d", b, len(m.Brokers()))
	}
	topic, _ := m.Topic("a")
	if got, want := topic.Partitions[0].Bootstrap, []string{"1.i1", "2.i2"}; !slices.Equal(got, want) {
		t.Errorf("old partition begins with %v, want %v", got, want)
	}
	if got, want := topic.Partitions[1].Bootstrap, []string{"2.fresh", "1.i1"}; !slices.Equal(got, want) {
		t.Errorf("new partition begins with %v, want %v", got, want)
	}
	if found, ok := m.BrokerOf("fresh"); !ok || found != b {
		t.Errorf("incarnation fresh is %v, %v", found, ok)
	}
	if _, ok := m.BrokerOf("i2"); ok {
		t.Error("the old incarnation is still registered")
	}
}

func TestBrokerWithoutIDGetsOneThatNobodyEverHad(t *testing.T) {
	m := apply(t, three(t), UnregisterBroker{ID: 3})
	joins := RegisterBroker{Broker: Broker{Incarnation: "x", Host: "h", Port: 1}}
	m = apply(t, m, joins)
	if b, ok := m.BrokerOf("x"); !ok || b.ID != 4 {
		t.Fatalf("joined as %+v, want id 4: id 3 belonged to another", b)
	}
	joins.Broker.Port = 2
	m = apply(t, m, joins) // a retry whose first attempt did happen
	if b, _ := m.BrokerOf("x"); b.ID != 4 || b.Port != 2 || len(m.Brokers()) != 3 {
		t.Fatalf("joined again as %+v, brokers: %d", b, len(m.Brokers()))
	}
}

func TestProducerIDBlocksFollowEachOther(t *testing.T) {
	m := three(t)
	for i, broker := range []int32{1, 2, 1} {
		if got, want := m.NextProducerID(), int64(i*1000); got != want {
			t.Fatalf("next producer id is %d, want %d", got, want)
		}
		m = apply(t, m, AllocateProducerIDs{Broker: broker, Count: 1000})
		if b, ok := m.ProducerBlock(broker); !ok || b != (Block{int64(i * 1000), 1000}) {
			t.Fatalf("block of broker %d is %+v, %v", broker, b, ok)
		}
	}
	if b, _ := m.ProducerBlock(2); b.Start != 1000 {
		t.Errorf("another broker's block moved to %d", b.Start)
	}
	if _, ok := m.ProducerBlock(3); ok {
		t.Error("broker 3 has a block")
	}
}

func TestSettingsAreEditedKeyByKey(t *testing.T) {
	m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "a", Assignment: [][]int32{{1}}, Config: map[string]string{"a": "1", "b": "2"}})
	for _, step := range []struct {
		change SetTopicConfig
		want   map[string]string
	}{
		{SetTopicConfig{Set: map[string]string{"c": "3"}}, map[string]string{"a": "1", "b": "2", "c": "3"}},
		{SetTopicConfig{Delete: []string{"a", "nothing"}}, map[string]string{"b": "2", "c": "3"}},
		{SetTopicConfig{Delete: []string{"b"}, Set: map[string]string{"b": "9"}}, map[string]string{"b": "9", "c": "3"}},
		{SetTopicConfig{Set: map[string]string{"c": "33"}, Was: map[string]*string{"a": nil, "b": new("9")}}, map[string]string{"b": "9", "c": "33"}},
		{SetTopicConfig{Replace: true, Set: map[string]string{"d": ""}}, map[string]string{"d": ""}},
		{SetTopicConfig{Replace: true}, nil},
	} {
		step.change.Topic = topicID(1)
		m = apply(t, m, step.change)
		topic, _ := m.Topic("a")
		if !reflect.DeepEqual(topic.Config, step.want) {
			t.Errorf("after %+v: %v, want %v", step.change, topic.Config, step.want)
		}
	}
	m = apply(t, m, SetBrokerConfig{Set: map[string]string{"a": "all"}})
	m = apply(t, m, SetBrokerConfig{Broker: 2, Set: map[string]string{"a": "two"}})
	for _, was := range []*string{nil, new("two")} {
		if _, err := m.Apply(m.Index+1, SetBrokerConfig{Set: map[string]string{"a": "b"}, Was: map[string]*string{"a": was}}); !errors.Is(err, ErrConfigChanged) {
			t.Errorf("a change that began with another value: %v", err)
		}
	}
	if m.BrokerConfig(0)["a"] != "all" || m.BrokerConfig(2)["a"] != "two" || m.BrokerConfig(1) != nil {
		t.Errorf("broker settings: %v %v %v", m.BrokerConfig(0), m.BrokerConfig(2), m.BrokerConfig(1))
	}
	m = apply(t, m, UnregisterBroker{ID: 2})
	if m.BrokerConfig(2) != nil {
		t.Errorf("settings of a broker that left: %v", m.BrokerConfig(2))
	}
}

func TestReplicasMove(t *testing.T) {
	m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "a", Assignment: [][]int32{{1, 2}}, Grow: true})
	m = apply(t, m, SetReplicas{Partition: PartitionID{topicID(1), 0}, Replicas: []int32{3, 1, 2}})
	topic, _ := m.Topic("a")
	if p := topic.Partitions[0]; !slices.Equal(p.Replicas, []int32{3, 1, 2}) || p.Group != 1 || len(p.Bootstrap) != 2 || !topic.Grow {
		t.Errorf("moved: %+v, grows: %v", p, topic.Grow)
	}
	m = apply(t, m, SetReplicas{Partition: PartitionID{topicID(1), 0}, Replicas: []int32{3}, Manual: true})
	if topic, _ := m.Topic("a"); topic.Grow || m.Replicas() != 1 {
		t.Errorf("placed by hand, grows: %v, %d replicas", topic.Grow, m.Replicas())
	}
}

func TestRefusedChangeLeavesTheImageAndSaysWhy(t *testing.T) {
	base := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "a.b", Assignment: [][]int32{{1, 2}}})
	many := make([][]int32, 100_000)
	for i := range many {
		many[i] = []int32{1}
	}
	wide := make([]int32, 100)
	for i := range wide {
		wide[i] = int32(i + 1)
	}
	one := [][]int32{{1}}
	for _, c := range []struct {
		name   string
		change Change
		reason error
		text   string
	}{
		{"no broker id below zero", RegisterBroker{Broker: Broker{ID: -1, Incarnation: "x", Host: "h", Port: 1}}, ErrInvalidBroker, "broker id -1 is negative"},
		{"no incarnation", RegisterBroker{Broker: Broker{ID: 4, Host: "h", Port: 1}}, ErrInvalidBroker, ""},
		{"dot in incarnation", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "a.b", Host: "h", Port: 1}}, ErrInvalidBroker, ""},
		{"no host", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "x", Port: 1}}, ErrInvalidBroker, ""},
		{"port 0", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "x", Host: "h"}}, ErrInvalidBroker, ""},
		{"port 65536", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "x", Host: "h", Port: 65536}}, ErrInvalidBroker, ""},
		{"rack not UTF-8", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "x", Host: "h", Port: 1, Rack: "\xff"}}, ErrInvalidBroker, ""},
		{"other cluster", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "x", Host: "h", Port: 1}, ClusterID: "other"}, ErrOtherCluster, "broker 4 belongs to cluster other, this is cluster " + testCluster},
		{"incarnation of two", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "i1", Host: "h", Port: 1}}, ErrInvalidBroker, ""},
		{"stale", RegisterBroker{Broker: Broker{ID: 3, Incarnation: "x", Host: "h", Port: 1}, Replaces: "i2"}, ErrStaleBroker, ""},
		{"replaces nothing", RegisterBroker{Broker: Broker{ID: 4, Incarnation: "x", Host: "h", Port: 1}, Replaces: "i4"}, ErrStaleBroker, ""},
		{"unregister nobody", UnregisterBroker{ID: 9}, ErrUnknownBroker, "Broker ID 9 is not currently registered"},
		{"unregister stale", UnregisterBroker{ID: 3, Incarnation: "old"}, ErrStaleBroker, ""},
		{"unregister in use", UnregisterBroker{ID: 2}, ErrBrokerInUse, "broker 2 still holds 1 replicas; `millrace cluster remove 2` moves them to other brokers first"},
		{"topic exists", CreateTopic{ID: topicID(2), Name: "a.b", Assignment: one}, ErrTopicExists, "Topic 'a.b' already exists."},
		{"topic collides", CreateTopic{ID: topicID(2), Name: "a_b", Assignment: one}, ErrTopicCollision, "Topic 'a_b' collides with existing topic: a.b"},
		{"topic name", CreateTopic{ID: topicID(2), Name: "..", Assignment: one}, ErrInvalidTopic, "Topic name is invalid: '..' is not allowed"},
		{"topic id zero", CreateTopic{Name: "c", Assignment: one}, ErrInvalidTopicID, ""},
		{"topic id used", CreateTopic{ID: topicID(1), Name: "c", Assignment: one}, ErrInvalidTopicID, ""},
		{"no partitions", CreateTopic{ID: topicID(2), Name: "c"}, ErrInvalidPartitions, ""},
		{"100,000 partitions", CreateTopic{ID: topicID(2), Name: "c", Assignment: many}, ErrInvalidPartitions, "Topic 'c' would have 100000 partitions; a topic may have at most 10000."},
		{"replication 100", CreateTopic{ID: topicID(2), Name: "c", Assignment: [][]int32{wide}}, ErrInvalidReplication, "Replication factor 100 is larger than 15, the most a partition may have."},
		{"more replicas than the brokers can hold", CreateTopic{ID: topicID(2), Name: "c", Assignment: slices.Repeat([][]int32{{1, 2, 3}}, 4001)}, ErrLimit, "Topic 'c' needs 12003 more replicas; the cluster holds 2 and with 3 broker(s) may hold at most 12000."},
		{"empty replicas", CreateTopic{ID: topicID(2), Name: "c", Assignment: [][]int32{{}}}, ErrInvalidAssignment, ""},
		{"replica twice", CreateTopic{ID: topicID(2), Name: "c", Assignment: [][]int32{{1, 1}}}, ErrInvalidAssignment, "The manual partition assignment includes the broker 1 more than once."},
		{"unknown replica", CreateTopic{ID: topicID(2), Name: "c", Assignment: [][]int32{{1, 4}}}, ErrInvalidAssignment, "The manual partition assignment includes broker 4, but no such broker is registered."},
		{"uneven replicas", CreateTopic{ID: topicID(2), Name: "c", Assignment: [][]int32{{1}, {1, 2}}}, ErrInvalidAssignment, ""},
		{"setting without name", CreateTopic{ID: topicID(2), Name: "c", Assignment: one, Config: map[string]string{"": "1"}}, ErrInvalidConfig, ""},
		{"setting not UTF-8", CreateTopic{ID: topicID(2), Name: "c", Assignment: one, Config: map[string]string{"a": "\xff"}}, ErrInvalidConfig, ""},
		{"settings too large", CreateTopic{ID: topicID(2), Name: "c", Assignment: one, Config: map[string]string{"a": string(make([]byte, MaxConfigBytes))}}, ErrInvalidConfig, ""},
		{"delete nothing", DeleteTopic{Topic: topicID(9)}, ErrUnknownTopic, ""},
		{"partitions of nothing", CreatePartitions{Topic: topicID(9), Count: 2, Assignment: one}, ErrUnknownTopic, ""},
		{"as many partitions", CreatePartitions{Topic: topicID(1), Count: 1}, ErrInvalidPartitions, "Topic already has 1 partition(s)."},
		{"fewer partitions", CreatePartitions{Topic: topicID(1), Count: 0}, ErrInvalidPartitions, "The topic a.b currently has 1 partition(s); 0 would not be an increase."},
		{"count and assignment differ", CreatePartitions{Topic: topicID(1), Count: 3, Assignment: one}, ErrInvalidAssignment, ""},
		{"100,000 more partitions", CreatePartitions{Topic: topicID(1), Count: 100_001, Assignment: many}, ErrInvalidPartitions, ""},
		{"settings of nothing", SetTopicConfig{Topic: topicID(9)}, ErrUnknownTopic, ""},
		{"a setting that was none", SetTopicConfig{Topic: topicID(1), Was: map[string]*string{"a": new("1")}}, ErrConfigChanged, "a was changed by somebody else in the meantime"},
		{"a setting of all brokers that was one", SetBrokerConfig{Was: map[string]*string{"x": new("0")}}, ErrConfigChanged, ""},
		{"settings of no broker", SetBrokerConfig{Broker: 9}, ErrUnknownBroker, ""},
		{"replicas of nothing", SetReplicas{Partition: PartitionID{topicID(9), 0}, Replicas: []int32{1}}, ErrUnknownTopic, ""},
		{"replicas of partition -1", SetReplicas{Partition: PartitionID{topicID(1), -1}, Replicas: []int32{1}}, ErrUnknownPartition, ""},
		{"replicas of partition 1", SetReplicas{Partition: PartitionID{topicID(1), 1}, Replicas: []int32{1}}, ErrUnknownPartition, ""},
		{"no replicas", SetReplicas{Partition: PartitionID{topicID(1), 0}}, ErrInvalidAssignment, ""},
		{"replicas unknown", SetReplicas{Partition: PartitionID{topicID(1), 0}, Replicas: []int32{8}}, ErrInvalidAssignment, ""},
		{"ids for nobody", AllocateProducerIDs{Broker: 9, Count: 1}, ErrUnknownBroker, ""},
		{"no ids", AllocateProducerIDs{Broker: 1}, ErrInvalidBlock, ""},
		{"too many ids", AllocateProducerIDs{Broker: 1, Count: MaxBlock + 1}, ErrInvalidBlock, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := base.Encode()
			m, err := base.Apply(base.Index+1, c.change)
			if m != base || !errors.Is(err, c.reason) {
				t.Fatalf("image %p of %p, error %v, want %v", m, base, err, c.reason)
			}
			if c.text != "" && err.Error() != c.text {
				t.Errorf("says %q, want %q", err, c.text)
			}
			if !bytes.Equal(before, base.Encode()) {
				t.Error("the image changed")
			}
			far := ErrorFrom(ErrorCode(err), err.Error())
			if !errors.Is(far, c.reason) || far.Error() != err.Error() {
				t.Errorf("on another node: %v", far)
			}
			if err := base.Check(c.change); !errors.Is(err, c.reason) {
				t.Errorf("the gate says %v", err)
			}
		})
	}
}

func TestChangeIsAppliedOnce(t *testing.T) {
	m := three(t)
	for _, index := range []uint64{0, 1, m.Index} {
		if got, err := m.Apply(index, AllocateProducerIDs{Broker: 1, Count: 1}); got != m || !errors.Is(err, ErrStaleIndex) {
			t.Errorf("applied at %d over %d: %v", index, m.Index, err)
		}
	}
	if next, err := m.Apply(m.Index+10, AllocateProducerIDs{Broker: 1, Count: 1}); err != nil || next.Index != m.Index+10 {
		t.Errorf("indices need not be dense, but: %v", err)
	}
}

func TestClusterMustBeFoundedFirst(t *testing.T) {
	zero := new(Image)
	for _, c := range []Change{
		RegisterBroker{Broker: register(1).Broker},
		SetBrokerConfig{Set: map[string]string{"num.partitions": "2"}},
	} {
		if _, err := zero.Apply(1, c); !errors.Is(err, ErrNoCluster) {
			t.Errorf("%T: %v", c, err)
		}
	}
	if _, err := zero.Apply(1, RegisterBroker{Broker: register(1).Broker, ClusterID: "a\nb"}); !errors.Is(err, ErrInvalidBroker) {
		t.Errorf("cluster id with a line break: %v", err)
	}
}

func TestApplyCopiesWhatItTakes(t *testing.T) {
	config := map[string]string{"a": "1"}
	assignment := [][]int32{{1, 2}}
	m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: "a", Assignment: assignment, Config: config})
	before := m.Encode()
	config["a"], assignment[0][0] = "2", 3
	replicas := []int32{1}
	next := apply(t, m, SetReplicas{Partition: PartitionID{topicID(1), 0}, Replicas: replicas})
	after := next.Encode()
	replicas[0] = 3
	if !bytes.Equal(before, m.Encode()) || !bytes.Equal(after, next.Encode()) {
		t.Error("an image shares memory with a change")
	}
}

func TestStepSharesTopicsItDoesNotTouch(t *testing.T) {
	m := three(t)
	for i := range 1000 {
		m = apply(t, m, CreateTopic{ID: TopicID{1, byte(i >> 8), byte(i)}, Name: fmt.Sprintf("t%04d", i), Assignment: [][]int32{{1, 2, 3}, {2, 3, 1}}})
	}
	id := TopicID{1, 0, 5}
	next := apply(t, m, SetTopicConfig{Topic: id, Set: map[string]string{"a": "b"}})
	for i, topic := range m.Topics() {
		if same := topic == next.Topics()[i]; same != (topic.ID != id) {
			t.Fatalf("topic %s is shared: %v", topic.Name, same)
		}
	}
	was, _ := m.TopicByID(id)
	is, _ := next.TopicByID(id)
	if &was.Partitions[0] != &is.Partitions[0] {
		t.Error("a setting copied the partitions")
	}
	allocated := testing.AllocsPerRun(10, func() {
		if _, err := m.Apply(m.Index+1, SetTopicConfig{Topic: id, Set: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
	})
	if allocated > 20 {
		t.Errorf("a step over 1,000 topics allocates %v times, want a few", allocated)
	}
}

// randomChange makes a change that is mostly one that will be taken.
func randomChange(r *rand.Rand, m *Image) Change {
	pick := func() *Topic {
		if len(m.topics) == 0 {
			return &Topic{ID: topicID(byte(r.IntN(256)))}
		}
		return m.topics[r.IntN(len(m.topics))]
	}
	broker := func() int32 {
		if len(m.brokers) == 0 || r.IntN(20) == 0 {
			return int32(r.IntN(12))
		}
		return m.brokers[r.IntN(len(m.brokers))].ID
	}
	replicas := func() []int32 {
		var ids []int32
		for range 1 + r.IntN(3) {
			if id := broker(); !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		return ids
	}
	assignment := func(n int) [][]int32 {
		if r.IntN(4) > 0 {
			if placed, err := Place(m.brokers, n, 1+r.IntN(3), r.IntN(9)); err == nil {
				return placed
			}
		}
		all := make([][]int32, n)
		for i := range all {
			all[i] = replicas()
		}
		return all
	}
	texts := []string{"", "1", "a b", "\"quoted\\\"", "<&>", "\x01\t", "ü\u2028", "\ufffd", "−1"}
	config := func() map[string]string {
		values := make(map[string]string)
		for range r.IntN(3) {
			values[[]string{"retention.ms", "cleanup.policy", "log.retention.ms", "x", "ß"}[r.IntN(5)]] = texts[r.IntN(len(texts))]
		}
		return values
	}
	var unset []string
	if r.IntN(2) == 0 {
		unset = []string{"retention.ms", "x"}[:1+r.IntN(2)]
	}
	switch r.IntN(14) {
	case 12:
		kind := []settings.ResourceKind{settings.ClientMetrics, settings.Group}[r.IntN(2)]
		return SetResourceConfig{Kind: kind, Name: texts[r.IntN(len(texts))], Set: config(), Delete: unset, Replace: r.IntN(6) == 0}
	case 0, 1:
		b := Broker{ID: int32(r.IntN(10)), Incarnation: fmt.Sprintf("i%d", r.IntN(1000)), Host: texts[1+r.IntN(4)], Port: int32(1 + r.IntN(70000)), Rack: texts[r.IntN(len(texts))]}
		if r.IntN(4) > 0 {
			b.MinLevel, b.MaxLevel, b.Starts, b.Run = 1, int32(1+r.IntN(2)), uint64(r.IntN(3)), texts[r.IntN(len(texts))]
		}
		return RegisterBroker{Broker: b, ClusterID: []string{testCluster, ""}[r.IntN(2)]}
	case 2:
		return UnregisterBroker{ID: broker()}
	case 3, 4, 5:
		var id TopicID
		for i := range id {
			id[i] = byte(r.Uint32())
		}
		name := fmt.Sprintf("%c%s%d", 'a'+r.IntN(3), []string{"", ".", "_", "-"}[r.IntN(4)], r.IntN(40))
		return CreateTopic{ID: id, Name: name, Assignment: assignment(1 + r.IntN(5)), Config: config(), Internal: r.IntN(5) == 0, Grow: r.IntN(2) == 0}
	case 6:
		return DeleteTopic{Topic: pick().ID}
	case 7:
		topic, n := pick(), 1+r.IntN(3)
		return CreatePartitions{Topic: topic.ID, Count: int32(len(topic.Partitions) + n), Assignment: assignment(n)}
	case 8:
		return SetTopicConfig{Topic: pick().ID, Set: config(), Delete: unset, Replace: r.IntN(6) == 0}
	case 9:
		return SetBrokerConfig{Broker: []int32{0, broker()}[r.IntN(2)], Set: config(), Delete: unset, Replace: r.IntN(6) == 0}
	case 10:
		return SetReplicas{Partition: PartitionID{pick().ID, int32(r.IntN(6))}, Replicas: replicas(), Manual: r.IntN(2) == 0}
	case 13:
		return SetLevel{Level: int32(r.IntN(3))}
	default:
		return AllocateProducerIDs{Broker: broker(), Count: int32(r.IntN(2000))}
	}
}

// Whatever the changes: an image and a change that went over the network and
// back give what the originals give, no step touches the image it began with,
// and groups and producer ids are never given twice.
func TestRandomChangesGiveEqualImagesEverywhere(t *testing.T) {
	const seeds, steps = 15, 220
	taken := make(map[string]int)
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 1))
		m := new(Image)
		past, other := []*Image{m}, rand.New(rand.NewPCG(seed, 2))
		groups := make(map[uint64]PartitionID)
		for index := range uint64(steps) {
			c := randomChange(r, m)
			before := m.Encode()
			next, err := m.Apply(index+1, c)

			p, encodeErr := EncodeChange(c)
			if encodeErr != nil {
				t.Fatalf("seed %d: encode %#v: %v", seed, c, encodeErr)
			}
			sent, decodeErr := DecodeChange(p)
			if decodeErr != nil {
				t.Fatalf("seed %d: decode %s: %v", seed, p, decodeErr)
			}
			if again, _ := EncodeChange(sent); !bytes.Equal(p, again) {
				t.Fatalf("seed %d: %s became %s", seed, p, again)
			}
			copied, err2 := DecodeImage(before)
			if err2 != nil {
				t.Fatalf("seed %d: decode %s: %v", seed, before, err2)
			}
			if !reflect.DeepEqual(m, copied) {
				t.Fatalf("seed %d: image %#v\nbecame %#v", seed, m, copied)
			}
			elsewhere, err3 := copied.Apply(index+1, sent)
			if ErrorCode(err) != ErrorCode(err3) || fmt.Sprint(err) != fmt.Sprint(err3) {
				t.Fatalf("seed %d: %s: here %v, elsewhere %v", seed, p, err, err3)
			}
			if !reflect.DeepEqual(next, elsewhere) {
				t.Fatalf("seed %d: after %s: here %#v\nelsewhere %#v", seed, p, next, elsewhere)
			}
			if !bytes.Equal(before, m.Encode()) {
				t.Fatalf("seed %d: %s changed the image it was applied to", seed, p)
			}
			if err == nil {
				taken[c.kind()]++
				if next.nextProducer < m.nextProducer || next.lastGroup < m.lastGroup || next.lastBroker < m.lastBroker {
					t.Fatalf("seed %d: a counter went back", seed)
				}
			} else if code := ErrorCode(err); code == 0 || code == codeOther {
				t.Fatalf("seed %d: %s refused for no reason: %v", seed, p, err)
			}
			m = next
			consistent(t, m)
			for _, before := range []*Image{past[len(past)-1], past[other.IntN(len(past))], copied} {
				differs(t, m, before)
			}
			past = append(past, m)
			for group := uint64(1); group <= m.lastGroup; group++ {
				id, ok := m.Group(group)
				if was, known := groups[group]; ok && known && was != id {
					t.Fatalf("seed %d: group %d was %v and is %v", seed, group, was, id)
				}
				if ok {
					groups[group] = id
				}
			}
		}
	}
	for _, c := range []Change{RegisterBroker{}, UnregisterBroker{}, CreateTopic{}, DeleteTopic{}, CreatePartitions{}, SetTopicConfig{}, SetBrokerConfig{}, SetResourceConfig{}, SetLevel{}, SetReplicas{}, AllocateProducerIDs{}} {
		if taken[c.kind()] < 10 {
			t.Errorf("%s was taken %d times only: the test tests nothing", c.kind(), taken[c.kind()])
		}
	}
}

// differs checks what m says of its difference to an image before it.
func differs(t *testing.T, m, before *Image) {
	t.Helper()
	changed, gone := m.Difference(before)
	for _, topic := range m.Topics() {
		was, had := before.TopicByID(topic.ID)
		if same := had && was == topic; same == slices.Contains(changed, topic) {
			t.Fatalf("topic %s is the same in both: %v, and among the changed ones", topic.Name, same)
		}
		if had && m.SameBrokerConfigs(before) && !slices.Contains(changed, topic) {
			if now, then := m.Settings(1, nil).Topic(topic.Config), before.Settings(1, nil).Topic(was.Config); now != then {
				t.Fatalf("topic %s: its settings were %+v and are %+v, and nothing says so", topic.Name, then, now)
			}
		}
	}
	for _, topic := range before.Topics() {
		if _, there := m.TopicByID(topic.ID); there == slices.Contains(gone, topic) {
			t.Fatalf("topic %s is there: %v, and among the gone ones", topic.Name, there)
		}
	}
	if len(changed) > len(m.topics) || len(gone) > len(before.topics) {
		t.Fatal("a topic is listed twice")
	}
}

// consistent checks what holds for every image.
func consistent(t *testing.T, m *Image) {
	t.Helper()
	replicas := 0
	for _, topic := range m.Topics() {
		for i, p := range topic.Partitions {
			id := PartitionID{topic.ID, int32(i)}
			if got, ok := m.Group(p.Group); !ok || got != id {
				t.Fatalf("group %d is %v, want %v", p.Group, got, id)
			}
			for _, r := range p.Replicas {
				if _, ok := m.Broker(r); !ok {
					t.Fatalf("%v has a replica on broker %d, which is not registered", id, r)
				}
			}
			replicas += len(p.Replicas)
		}
	}
	if replicas != m.Replicas() {
		t.Fatalf("%d replicas counted as %d", replicas, m.Replicas())
	}
	if !slices.IsSortedFunc(m.topics, func(a, b *Topic) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) }) ||
		!slices.IsSortedFunc(m.byID, func(a, b *Topic) int { return a.ID.compare(b.ID) }) {
		t.Fatal("topics are out of order")
	}
	servers := make(map[string]bool)
	bound := m.size + 300*(len(m.brokers)+1)
	for _, topic := range m.Topics() {
		for _, p := range topic.Partitions {
			for _, server := range p.Bootstrap {
				if !servers[server] {
					servers[server] = true
					bound += len(server) + 3
				}
			}
		}
	}
	if n := len(m.Encode()); n > bound {
		t.Fatalf("image takes %d bytes, more than the %d it was thought to take", n, bound)
	}
}

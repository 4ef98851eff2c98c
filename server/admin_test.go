package server

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication/metadata/settings"
	"millrace/security/acl"
	"millrace/server/protocol"
)

func createRequest(version int16, topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	req := kmsg.NewPtrCreateTopicsRequest()
	req.SetVersion(version)
	req.TimeoutMillis = 20_000
	req.Topics = topics
	return req
}

func newTopic(name string, partitions int32, replicas int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = name, partitions, replicas
	for i := 0; i < len(configs); i += 2 {
		rc := kmsg.NewCreateTopicsRequestTopicConfig()
		rc.Name, rc.Value = configs[i], &configs[i+1]
		rt.Configs = append(rt.Configs, rc)
	}
	return rt
}

func assigned(name string, replicas ...[]int32) kmsg.CreateTopicsRequestTopic {
	rt := newTopic(name, -1, -1)
	for i, r := range replicas {
		ra := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		ra.Partition, ra.Replicas = int32(i), r
		rt.ReplicaAssignment = append(rt.ReplicaAssignment, ra)
	}
	return rt
}

// KIP-464, KIP-525.
func TestCreateTopicsInEveryVersion(t *testing.T) {
	b := startBroker(t, map[string]string{"num.partitions": "2"})
	w := b.dial()
	for version := int16(2); version <= 7; version++ {
		name := fmt.Sprint("t", version)
		valid := createRequest(version, newTopic(name, 3, 1, "retention.ms", "1000"))
		valid.ValidateOnly = true
		for _, req := range []*kmsg.CreateTopicsRequest{valid, createRequest(version, newTopic(name, 3, 1, "retention.ms", "1000"))} {
			got := ask[*kmsg.CreateTopicsResponse](w, req).Topics[0]
			if got.ErrorCode != 0 || got.Topic != name {
				t.Fatalf("version %d: %+v", version, got)
			}
			if version >= 5 {
				if got.NumPartitions != 3 || got.ReplicationFactor != 1 {
					t.Errorf("version %d: %d partitions, %d replicas", version, got.NumPartitions, got.ReplicationFactor)
				}
				i := slices.IndexFunc(got.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool { return c.Name == "retention.ms" })
				if len(got.Configs) < 30 || i < 0 || str(got.Configs[i].Value) != "1000" || got.Configs[i].Source != 1 {
					t.Errorf("version %d: %d settings, %+v", version, len(got.Configs), got.Configs[max(i, 0)])
				}
			}
			if version >= 7 && (got.TopicID != [16]byte{}) == req.ValidateOnly {
				t.Errorf("validate-only %v: id %x", req.ValidateOnly, got.TopicID)
			}
		}
		if got := ask[*kmsg.CreateTopicsResponse](w, createRequest(version, newTopic(name, 3, 1))).Topics[0]; got.ErrorCode != int16(protocol.TopicAlreadyExists) {
			t.Errorf("version %d: again: error %d", version, got.ErrorCode)
		}
		got := ask[*kmsg.CreateTopicsResponse](w, createRequest(version, newTopic(name+"-default", -1, -1))).Topics[0]
		if got.ErrorCode != 0 || version >= 5 && got.NumPartitions != 2 {
			t.Errorf("version %d: defaults: %+v", version, got)
		}
	}
}

func TestCreateTopicsRefusals(t *testing.T) {
	b := startBroker(t, nil)
	b.create("taken.name", 1, nil)
	null := newTopic("n", 1, 1)
	null.Configs = append(null.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: "retention.ms"})
	gap := assigned("n", []int32{1}, []int32{1})
	gap.ReplicaAssignment[1].Partition = 2
	twice := assigned("n", []int32{1}, []int32{1})
	twice.ReplicaAssignment[1].Partition = 0
	negative := assigned("n", []int32{1})
	negative.ReplicaAssignment[0].Partition = -1
	both := assigned("n", []int32{1})
	both.NumPartitions = 1
	w := b.dial()
	for _, c := range []struct {
		name  string
		topic kmsg.CreateTopicsRequestTopic
		want  protocol.Code
	}{
		{"empty name", newTopic("", 1, 1), protocol.InvalidTopic},
		{"..", newTopic("..", 1, 1), protocol.InvalidTopic},
		{"250 characters", newTopic(strings.Repeat("x", 250), 1, 1), protocol.InvalidTopic},
		{"NUL", newTopic("a\x00b", 1, 1), protocol.InvalidTopic},
		{"invalid UTF-8", newTopic("a\xffb", 1, 1), protocol.InvalidTopic},
		{"a collision of . and _", newTopic("taken_name", 1, 1), protocol.InvalidTopic},
		{"what is no topic", newTopic("__cluster_metadata", 1, 1), protocol.InvalidRequest},
		{"no partitions", newTopic("n", 0, 1), protocol.InvalidPartitions},
		{"-2 partitions", newTopic("n", -2, 1), protocol.InvalidPartitions},
		{"10⁵ partitions", newTopic("n", 100_000, 1), protocol.PolicyViolation},
		{"2³¹−1 partitions", newTopic("n", 1<<31-1, 1), protocol.PolicyViolation},
		{"no replicas", newTopic("n", 1, 0), protocol.InvalidReplicationFactor},
		{"-2 replicas", newTopic("n", 1, -2), protocol.InvalidReplicationFactor},
		{"two replicas on one broker", newTopic("n", 1, 2), protocol.InvalidReplicationFactor},
		{"100 replicas", newTopic("n", 1, 100), protocol.InvalidReplicationFactor},
		{"an unknown setting", newTopic("n", 1, 1, "no.such", "1"), protocol.InvalidConfig},
		{"a bad value", newTopic("n", 1, 1, "retention.ms", "soon"), protocol.InvalidConfig},
		{"a null value", null, protocol.InvalidConfig},
		{"an assignment with a gap", gap, protocol.InvalidReplicaAssignment},
		{"one partition assigned twice", twice, protocol.InvalidReplicaAssignment},
		{"partition −1 assigned", negative, protocol.InvalidReplicaAssignment},
		{"an unknown broker", assigned("n", []int32{7}), protocol.InvalidReplicaAssignment},
		{"a broker twice", assigned("n", []int32{1, 1}), protocol.InvalidReplicaAssignment},
		{"nobody", assigned("n", []int32{}), protocol.InvalidReplicaAssignment},
		{"an assignment and a count", both, protocol.InvalidRequest},
	} {
		req := createRequest(7, c.topic, newTopic("fine", 1, 1))
		req.ValidateOnly = true
		resp := ask[*kmsg.CreateTopicsResponse](w, req)
		if got := resp.Topics[0]; got.ErrorCode != int16(c.want) || got.ErrorMessage == nil {
			t.Errorf("%s: error %d (%s), want %d", c.name, got.ErrorCode, str(got.ErrorMessage), c.want)
		}
		// A bad topic is bad for itself alone, unless the sum is too much.
		if got := resp.Topics[1]; got.ErrorCode != 0 && c.want != protocol.PolicyViolation {
			t.Errorf("%s: its neighbour has error %d", c.name, got.ErrorCode)
		}
	}
	got := ask[*kmsg.CreateTopicsResponse](w, createRequest(7, newTopic("d", 1, 1), newTopic("e", 1, 1), newTopic("d", 1, 1))).Topics
	if len(got) != 2 || got[0].ErrorCode != int16(protocol.InvalidRequest) || got[1].ErrorCode != 0 {
		t.Errorf("a name given twice: %+v", got)
	}
}

func TestDeleteTopicsInEveryVersion(t *testing.T) {
	b := startBroker(t, map[string]string{"auto.create.topics.enable": "false"})
	w := b.dial()
	for version := int16(1); version <= 6; version++ {
		id := b.create("t", 1, nil)
		other := b.create("u", 1, nil)
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.SetVersion(version)
		req.TimeoutMillis = 20_000
		want := []protocol.Code{protocol.None, protocol.UnknownTopicOrPartition, protocol.None}
		if version < 6 {
			req.TopicNames = []string{"t", "nobody", "u"}
		} else {
			for _, name := range []string{"nobody"} {
				rt := kmsg.NewDeleteTopicsRequestTopic()
				rt.Topic = &name
				req.Topics = append(req.Topics, rt)
			}
			for _, id := range [][16]byte{other, {5}, id} {
				rt := kmsg.NewDeleteTopicsRequestTopic()
				rt.TopicID = id
				req.Topics = append(req.Topics, rt)
			}
			mixed := kmsg.NewDeleteTopicsRequestTopic()
			mixed.Topic, mixed.TopicID = kmsg.StringPtr("t"), id
			req.Topics = append(req.Topics, mixed)
			want = []protocol.Code{protocol.UnknownTopicOrPartition, protocol.None, protocol.UnknownTopicID, protocol.None, protocol.InvalidRequest}
		}
		resp := ask[*kmsg.DeleteTopicsResponse](w, req)
		for i, rt := range resp.Topics {
			if rt.ErrorCode != int16(want[i]) {
				t.Errorf("version %d, topic %d: error %d, want %d", version, i, rt.ErrorCode, want[i])
			}
		}
		if got := topicNames(ask[*kmsg.MetadataResponse](w, &kmsg.MetadataRequest{Version: 4})); len(got) != 0 {
			t.Errorf("version %d: left over: %v", version, got)
		}
	}
}

// As Kafka's ControllerApis.deleteTopics: what is named twice stays, whichever
// way it is named, and every refusal says why.
func TestDeleteTopicsRefusesWhatIsNamedTwice(t *testing.T) {
	b := startBroker(t, nil)
	ids := map[string][16]byte{}
	for _, name := range []string{"twice", "by-both", "by-id-twice", "once"} {
		ids[name] = b.create(name, 1, nil)
	}
	w := b.dial()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.SetVersion(6)
	req.TimeoutMillis = 20_000
	add := func(name string, id [16]byte) {
		rt := kmsg.NewDeleteTopicsRequestTopic()
		if rt.TopicID = id; name != "" {
			rt.Topic = &name
		}
		req.Topics = append(req.Topics, rt)
	}
	add("twice", [16]byte{})
	add("by-both", [16]byte{})
	add("twice", [16]byte{})
	add("", ids["by-both"])
	add("", ids["by-id-twice"])
	add("", ids["by-id-twice"])
	add("", [16]byte{})
	add("once", ids["once"])
	add("once", [16]byte{})
	add("nobody", [16]byte{})
	add("", [16]byte{9})
	got := map[string]int{}
	for _, rt := range ask[*kmsg.DeleteTopicsResponse](w, req).Topics {
		got[fmt.Sprintf("%s %d %s", str(rt.Topic), rt.ErrorCode, str(rt.ErrorMessage))]++
	}
	want := map[string]int{
		"twice 42 Duplicate topic name.":                                              1,
		"by-both 42 The provided topic name maps to an ID that was already supplied.": 1,
		"null 42 Duplicate topic id.":                                                 1,
		"null 42 Neither topic name nor id were specified.":                           1,
		"once 42 You may not specify both topic name and topic id.":                   1,
		"once 0 null": 1,
		"nobody 3 This server does not host this topic-partition.": 1,
		"null 100 This server does not host this topic ID.":        1,
	}
	if !maps.Equal(got, want) {
		t.Errorf("answers\n%v, want\n%v", got, want)
	}
	if left := topicNames(ask[*kmsg.MetadataResponse](w, &kmsg.MetadataRequest{Version: 4})); len(left) != len(ids)-1 {
		t.Errorf("left are %v", left)
	}
}

// Migrations create the cluster's own topics first, with partitions of their
// own number (MirrorMaker's runbooks); Kafka lets them, save for __cluster_metadata.
func TestTheClustersOwnTopicsCanBeCreatedByHand(t *testing.T) {
	b := startBroker(t, map[string]string{"group.initial.rebalance.delay.ms": "0"})
	w := b.dial()
	got := ask[*kmsg.CreateTopicsResponse](w, createRequest(7,
		newTopic(offsetsTopic, 7, 1, "segment.bytes", "2000000"), newTopic(transactionsTopic, -1, -1), newTopic(shareTopic, 3, 1), newTopic(metadataTopic, 1, 1))).Topics
	for i, want := range []struct {
		code       protocol.Code
		partitions int32
	}{{protocol.None, 7}, {protocol.None, 50}, {protocol.None, 3}, {protocol.InvalidRequest, -1}} {
		if got[i].ErrorCode != int16(want.code) || got[i].NumPartitions != want.partitions {
			t.Errorf("%s: error %d (%s), %d partitions; want %d, %d", got[i].Topic, got[i].ErrorCode, str(got[i].ErrorMessage), got[i].NumPartitions, want.code, want.partitions)
		}
	}
	values := map[string]string{}
	for _, c := range got[0].Configs {
		values[c.Name] = str(c.Value)
	}
	if values["cleanup.policy"] != "compact" || values["segment.bytes"] != "2000000" {
		t.Errorf("committed offsets are kept with %q, segments of %s", values["cleanup.policy"], values["segment.bytes"])
	}
	if rt := ask[*kmsg.MetadataResponse](w, metadataRequest(12, offsetsTopic)).Topics[0]; !rt.IsInternal || len(rt.Partitions) != 7 {
		t.Errorf("internal %v, %d partitions", rt.IsInternal, len(rt.Partitions))
	}
	b.coordinates("g") // groups use it
	req := kmsg.NewPtrCreatePartitionsRequest()
	req.SetVersion(3)
	req.TimeoutMillis = 10_000
	for _, name := range []string{offsetsTopic, shareTopic} {
		rt := kmsg.NewCreatePartitionsRequestTopic()
		rt.Topic, rt.Count = name, 51
		req.Topics = append(req.Topics, rt)
	}
	for _, rt := range ask[*kmsg.CreatePartitionsResponse](w, req).Topics {
		if rt.ErrorCode != int16(protocol.InvalidRequest) {
			t.Errorf("more partitions of %s: error %d", rt.Topic, rt.ErrorCode)
		}
	}
}

// Two replicas of committed offsets would make every group stand still with either
// broker: an even number becomes the odd one above, where there are the brokers.
func TestCommittedOffsetsHaveAnOddNumberOfReplicas(t *testing.T) {
	all := startClusterWith(t, 3, map[string]string{"offsets.topic.replication.factor": "2", "offsets.topic.num.partitions": "1", "group.initial.rebalance.delay.ms": "0"})
	coordinatorAmong(t, all, "g")
	top, ok := all[0].node.Image().Topic(offsetsTopic)
	if !ok || len(top.Partitions[0].Replicas) != 3 {
		t.Errorf("%+v", top)
	}
}

// KIP-664: kafka-transactions find-hanging asks the broker it was told, which
// need not lead.
func TestDescribeProducersIsAnsweredByAnyReplica(t *testing.T) {
	all := startCluster(t, 3)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("t", 1, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("%+v", got)
	}
	cl := all[0].client(kgo.SeedBrokers(all[0].addr, all[1].addr, all[2].addr))
	for range 2 { // the second tells the followers that the first is committed
		if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	id, epoch, err := cl.ProducerID(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range all {
		waitFor(t, "the replica to have the record", func() bool {
			req := kmsg.NewPtrDescribeProducersRequest()
			rt := kmsg.NewDescribeProducersRequestTopic()
			rt.Topic, rt.Partitions = "t", []int32{0}
			req.Topics = append(req.Topics, rt)
			p := ask[*kmsg.DescribeProducersResponse](b.dial(), req).Topics[0].Partitions[0]
			if p.ErrorCode != 0 {
				t.Fatalf("node %d: error %d", b.node.ID(), p.ErrorCode)
			}
			return len(p.ActiveProducers) == 1 && p.ActiveProducers[0].ProducerID == id && p.ActiveProducers[0].ProducerEpoch == int32(epoch)
		})
	}
}

func TestDeletionCanBeForbidden(t *testing.T) {
	b := startBroker(t, map[string]string{"delete.topic.enable": "false"})
	b.create("t", 1, nil)
	w := b.dial()
	for version, want := range map[int16]protocol.Code{1: protocol.InvalidRequest, 3: protocol.TopicDeletionDisabled} {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.SetVersion(version)
		req.TopicNames = []string{"t"}
		if got := ask[*kmsg.DeleteTopicsResponse](w, req).Topics[0].ErrorCode; got != int16(want) {
			t.Errorf("version %d: error %d, want %d", version, got, want)
		}
	}
}

// Every topic is answered.
func TestCreatePartitions(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 2, nil)
	b.create("u", 2, nil)
	w := b.dial()
	count := int32(2)
	for version := int16(0); version <= 3; version++ {
		count++
		req := kmsg.NewPtrCreatePartitionsRequest()
		req.SetVersion(version)
		req.TimeoutMillis = 20_000
		add := func(name string, n int32, assignment ...[]int32) {
			rt := kmsg.NewCreatePartitionsRequestTopic()
			rt.Topic, rt.Count = name, n
			for _, a := range assignment {
				rt.Assignment = append(rt.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: a})
			}
			req.Topics = append(req.Topics, rt)
		}
		want := []protocol.Code{protocol.None, protocol.InvalidPartitions, protocol.UnknownTopicOrPartition}
		add("t", count)
		add("u", 2)
		add("nobody", 9)
		for i, rt := range ask[*kmsg.CreatePartitionsResponse](w, req).Topics {
			if rt.ErrorCode != int16(want[i]) {
				t.Errorf("version %d, %s: error %d (%s), want %d", version, rt.Topic, rt.ErrorCode, str(rt.ErrorMessage), want[i])
			}
		}
		if got := ask[*kmsg.MetadataResponse](w, metadataRequest(12, "t")).Topics[0].Partitions; len(got) != int(count) || got[count-1].Leader != 1 {
			t.Errorf("version %d: partitions %+v", version, got)
		}
		for _, c := range []struct {
			name  string
			count int32
			rows  [][]int32
			want  protocol.Code
		}{
			{"fewer", 1, nil, protocol.InvalidPartitions},
			{"-1", -1, nil, protocol.InvalidPartitions},
			{"2³¹−1", 1<<31 - 1, nil, protocol.PolicyViolation},
			{"too few rows", count + 2, [][]int32{{1}}, protocol.InvalidReplicaAssignment},
			{"an unknown broker", count + 1, [][]int32{{5}}, protocol.InvalidReplicaAssignment},
			{"too many replicas", count + 1, [][]int32{{1, 1}}, protocol.InvalidReplicaAssignment},
		} {
			req.Topics = nil
			req.ValidateOnly = true
			add("t", c.count, c.rows...)
			if got := ask[*kmsg.CreatePartitionsResponse](w, req).Topics[0]; got.ErrorCode != int16(c.want) {
				t.Errorf("%s: error %d (%s), want %d", c.name, got.ErrorCode, str(got.ErrorMessage), c.want)
			}
		}
		req.Topics = nil
		add("t", count+1, []int32{1})
		if got := ask[*kmsg.CreatePartitionsResponse](w, req).Topics[0]; got.ErrorCode != 0 {
			t.Errorf("a valid assignment: error %d (%s)", got.ErrorCode, str(got.ErrorMessage))
		}
	}
}

// KIP-107.
func TestDeleteRecords(t *testing.T) {
	var said textLog
	b := startBrokerWith(t, nil, func(s *Server) { s.Logger = slog.New(slog.NewTextHandler(&said, nil)) })
	id := b.create("t", 1, nil)
	b.create("compacted", 1, map[string]string{"cleanup.policy": "compact"})
	b.produce("t", 0, "a", "b", "c", "d")
	w := b.dial()
	ten := func(version int16, topic string, partition int32, offset int64) kmsg.DeleteRecordsResponseTopicPartition {
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.SetVersion(version)
		req.TimeoutMillis = 20_000
		rt := kmsg.NewDeleteRecordsRequestTopic()
		rt.Topic = topic
		rp := kmsg.NewDeleteRecordsRequestTopicPartition()
		rp.Partition, rp.Offset = partition, offset
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.DeleteRecordsResponse](w, req).Topics[0].Partitions[0]
	}
	for _, c := range []struct {
		name      string
		version   int16
		topic     string
		partition int32
		offset    int64
		want      protocol.Code
		low       int64
	}{
		{"one", 0, "t", 0, 1, protocol.None, 1},
		{"one again", 1, "t", 0, 1, protocol.None, 1},
		{"back", 2, "t", 0, 0, protocol.None, 1},
		{"beyond", 2, "t", 0, 5, protocol.OffsetOutOfRange, -1},
		{"-2", 2, "t", 0, -2, protocol.OffsetOutOfRange, -1},
		{"2⁶³−1", 2, "t", 0, 1<<63 - 1, protocol.OffsetOutOfRange, -1},
		{"an unknown topic", 2, "nobody", 0, 0, protocol.UnknownTopicOrPartition, -1},
		{"an unknown partition", 2, "t", 3, 0, protocol.UnknownTopicOrPartition, -1},
		{"a compacted topic", 2, "compacted", 0, 0, protocol.PolicyViolation, -1},
		{"all", 2, "t", 0, -1, protocol.None, 4},
	} {
		if got := ten(c.version, c.topic, c.partition, c.offset); got.ErrorCode != int16(c.want) || got.LowWatermark != c.low {
			t.Errorf("%s: %+v, want error %d, %d", c.name, got, c.want, c.low)
		}
	}
	if p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(13, "", id, 3, 0))); p.ErrorCode != int16(protocol.OffsetOutOfRange) {
		t.Errorf("fetch below the start: error %d", p.ErrorCode)
	}
	if got := ask[*kmsg.ListOffsetsResponse](w, listRequest(10, "t", 0, earliestOffset)).Topics[0].Partitions[0].Offset; got != 4 {
		t.Errorf("earliest offset %d", got)
	}
	// Each request that deleted something is said, in a line a topic.
	if text := said.String(); strings.Count(text, "records deleted by a client") != 2 ||
		!strings.Contains(text, "topic=t partitions=1 records=1\n") || !strings.Contains(text, "topic=t partitions=1 records=3\n") {
		t.Errorf("%s", text)
	}
}

// A textLog keeps what is logged.
type textLog struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *textLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *textLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// KIP-226, KIP-569: all settings, with sources, synonyms and types.
func TestDescribeConfigs(t *testing.T) {
	b := startBroker(t, map[string]string{"log.retention.hours": "2"})
	b.create("t", 1, map[string]string{"cleanup.policy": "compact"})
	w := b.dial()
	describe := func(version int16, kind kmsg.ConfigResourceType, name string, names ...string) kmsg.DescribeConfigsResponseResource {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.SetVersion(version)
		req.IncludeSynonyms, req.IncludeDocumentation = true, true
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName, rr.ConfigNames = kind, name, names
		req.Resources = append(req.Resources, rr, rr)
		resp := ask[*kmsg.DescribeConfigsResponse](w, req)
		if len(resp.Resources) != 1 {
			t.Fatalf("a resource named twice is described %d times", len(resp.Resources))
		}
		return resp.Resources[0]
	}
	for version := int16(1); version <= 4; version++ {
		got := describe(version, kmsg.ConfigResourceTypeTopic, "t")
		if got.ErrorCode != 0 || len(got.Configs) != len(settings.TopicDefinitions()) {
			t.Errorf("version %d: error %d, %d settings", version, got.ErrorCode, len(got.Configs))
		}
		for _, c := range got.Configs {
			switch c.Name {
			case "cleanup.policy":
				if str(c.Value) != "compact" || c.Source != kmsg.ConfigSourceDynamicTopicConfig || len(c.ConfigSynonyms) < 2 {
					t.Errorf("version %d: %+v", version, c)
				}
			case "retention.ms":
				if str(c.Value) != "7200000" || c.Source != kmsg.ConfigSourceStaticBrokerConfig {
					t.Errorf("version %d: %+v", version, c)
				}
			}
			if version >= 3 && (c.ConfigType == 0 || c.Documentation == nil) {
				t.Errorf("version %d: %s has type %d, documentation %s", version, c.Name, c.ConfigType, str(c.Documentation))
			}
		}
		if got := describe(version, kmsg.ConfigResourceTypeTopic, "t", "retention.ms", "no.such"); len(got.Configs) != 1 {
			t.Errorf("version %d: one name asked for, %d answered", version, len(got.Configs))
		}
		if got := describe(version, kmsg.ConfigResourceTypeBroker, "1"); got.ErrorCode != 0 || len(got.Configs) < 50 {
			t.Errorf("version %d: broker: error %d, %d settings", version, got.ErrorCode, len(got.Configs))
		}
		for _, c := range []struct {
			kind kmsg.ConfigResourceType
			name string
			want protocol.Code
		}{
			{kmsg.ConfigResourceTypeTopic, "nobody", protocol.UnknownTopicOrPartition},
			{kmsg.ConfigResourceTypeTopic, "a/b", protocol.InvalidTopic},
			{kmsg.ConfigResourceTypeBroker, "2", protocol.InvalidRequest},
			{kmsg.ConfigResourceTypeBroker, "x", protocol.InvalidRequest},
			{kmsg.ConfigResourceTypeBroker, "", protocol.None},
			{kmsg.ConfigResourceTypeBrokerLogger, "1", protocol.None},
			{99, "1", protocol.InvalidRequest},
		} {
			if got := describe(version, c.kind, c.name); got.ErrorCode != int16(c.want) {
				t.Errorf("version %d, %d %q: error %d, want %d", version, c.kind, c.name, got.ErrorCode, c.want)
			}
		}
	}
}

// KIP-339, and AlterConfigs, which replaces.
func TestAlterConfigs(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, map[string]string{"retention.ms": "1", "segment.ms": "2"})
	adm := kadm.NewClient(b.client())
	ctx := testContext(t)
	value := func(name string) (string, kmsg.ConfigSource) {
		rs, err := adm.DescribeTopicConfigs(ctx, "t")
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range rs[0].Configs {
			if c.Key == name {
				return c.MaybeValue(), c.Source
			}
		}
		t.Fatalf("no %s", name)
		return "", 0
	}
	w := b.dial()
	for version := int16(0); version <= 1; version++ {
		alter := func(op kmsg.IncrementalAlterConfigOp, name string, v *string, validateOnly bool) protocol.Code {
			req := kmsg.NewPtrIncrementalAlterConfigsRequest()
			req.SetVersion(version)
			req.ValidateOnly = validateOnly
			rr := kmsg.NewIncrementalAlterConfigsRequestResource()
			rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
			rr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: name, Op: op, Value: v}}
			req.Resources = append(req.Resources, rr)
			return protocol.Code(ask[*kmsg.IncrementalAlterConfigsResponse](w, req).Resources[0].ErrorCode)
		}
		p := kmsg.StringPtr
		for _, c := range []struct {
			op    kmsg.IncrementalAlterConfigOp
			name  string
			value *string
			only  bool
			want  protocol.Code
			after string
		}{
			{0, "retention.ms", p("5"), false, protocol.None, "5"},
			{0, "retention.ms", p("6"), true, protocol.None, "5"},
			{0, "retention.ms", p("soon"), false, protocol.InvalidConfig, "5"},
			{0, "retention.ms", nil, false, protocol.InvalidRequest, "5"},
			{1, "retention.ms", nil, false, protocol.None, "604800000"},
			{2, "retention.ms", p("5"), false, protocol.InvalidConfig, "604800000"},
			{2, "cleanup.policy", p("compact"), false, protocol.None, "delete,compact"},
			{3, "cleanup.policy", p("delete"), false, protocol.None, "compact"},
			{3, "cleanup.policy", p("compact"), false, protocol.None, ""},
			{1, "cleanup.policy", nil, false, protocol.None, "delete"},
			{7, "cleanup.policy", p("compact"), false, protocol.InvalidRequest, "delete"},
		} {
			if got := alter(c.op, c.name, c.value, c.only); got != c.want {
				t.Errorf("version %d, op %d %s=%s: error %d, want %d", version, c.op, c.name, str(c.value), got, c.want)
			}
			if got, _ := value(c.name); got != c.after {
				t.Errorf("version %d, op %d %s=%s: now %q, want %q", version, c.op, c.name, str(c.value), got, c.after)
			}
		}
		if got := alter(0, "no.such", p("1"), false); got != protocol.InvalidConfig {
			t.Errorf("an unknown setting: error %d", got)
		}
	}
	for version := int16(0); version <= 2; version++ {
		req := kmsg.NewPtrAlterConfigsRequest()
		req.SetVersion(version)
		rr := kmsg.NewAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
		rr.Configs = []kmsg.AlterConfigsRequestResourceConfig{{Name: "segment.ms", Value: kmsg.StringPtr(fmt.Sprint(60000 + int(version)))}}
		req.Resources = append(req.Resources, rr)
		if got := ask[*kmsg.AlterConfigsResponse](w, req).Resources[0]; got.ErrorCode != 0 {
			t.Fatalf("version %d: error %d %s", version, got.ErrorCode, str(got.ErrorMessage))
		}
		if got, _ := value("segment.ms"); got != fmt.Sprint(60000+int(version)) {
			t.Errorf("version %d: segment.ms %s", version, got)
		}
		if _, source := value("retention.ms"); source != kmsg.ConfigSourceDefaultConfig {
			t.Errorf("version %d: what was not named is still from %d", version, source)
		}
		req.Resources = append(req.Resources, rr)
		for _, r := range ask[*kmsg.AlterConfigsResponse](w, req).Resources {
			if r.ErrorCode != int16(protocol.InvalidRequest) {
				t.Errorf("version %d: a resource named twice: error %d", version, r.ErrorCode)
			}
		}
	}
}

func TestBrokerSettingsChangeAtRunTime(t *testing.T) {
	b := startBroker(t, nil)
	adm := kadm.NewClient(b.client())
	ctx := testContext(t)
	set := func(name, value string, brokers ...int32) error {
		rs, err := adm.AlterBrokerConfigs(ctx, []kadm.AlterConfig{{Op: kadm.SetConfig, Name: name, Value: &value}}, brokers...)
		if err != nil {
			t.Fatal(err)
		}
		return rs[0].Err
	}
	if err := set("auto.create.topics.enable", "false"); err != nil {
		t.Fatal(err)
	}
	req := metadataRequest(12, "x")
	req.AllowAutoTopicCreation = true
	for range 2 { // asking once would create it, asking again show it
		if got := ask[*kmsg.MetadataResponse](b.dial(), req).Topics[0].ErrorCode; got != int16(protocol.UnknownTopicOrPartition) {
			t.Errorf("error %d: the setting has no effect", got)
		}
	}
	if err := set("socket.request.max.bytes", "5", 1); err == nil {
		t.Error("a read-only setting was set")
	}
	if err := set("my.plugin.threads", "5"); err != nil {
		t.Errorf("a setting of nobody's, which Kafka takes: %v", err)
	}
}

func TestDescribeCluster(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for version := int16(0); version <= 2; version++ {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.SetVersion(version)
		req.IncludeClusterAuthorizedOperations = true
		before := time.Now().UnixMilli()
		got := ask[*kmsg.DescribeClusterResponse](w, req)
		var clock int64
		got.UnknownTags.Each(func(key uint32, value []byte) {
			if key == ClockTag {
				clock = int64(binary.BigEndian.Uint64(value))
			}
		})
		if now := time.Now().UnixMilli(); clock < before || clock > now {
			t.Errorf("version %d: it is %d at the broker, between %d and %d here", version, clock, before, now)
		}
		if got.ErrorCode != 0 || len(got.ClusterID) != 22 || got.ControllerID != 1 || len(got.Brokers) != 1 || got.Brokers[0].IsFenced || got.ClusterAuthorizedOperations != allOf(acl.Cluster) {
			t.Errorf("version %d: %+v", version, got)
		}
		if version == 0 {
			continue
		}
		for kind, want := range map[int8]protocol.Code{2: protocol.MismatchedEndpointType, 3: protocol.UnsupportedEndpointType, -1: protocol.UnsupportedEndpointType} {
			req.EndpointType = kind
			if got := ask[*kmsg.DescribeClusterResponse](w, req); got.ErrorCode != int16(want) {
				t.Errorf("version %d, endpoint type %d: error %d, want %d", version, kind, got.ErrorCode, want)
			}
		}
	}
}

func TestDescribeLogDirs(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 2, nil)
	b.produce("t", 1, "x")
	w := b.dial()
	for version := int16(1); version <= 4; version++ {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.SetVersion(version)
		dir := ask[*kmsg.DescribeLogDirsResponse](w, req).Dirs[0]
		if dir.ErrorCode != 0 || dir.Dir != b.server.DataDir || len(dir.Topics) != 1 || len(dir.Topics[0].Partitions) != 2 || dir.Topics[0].Partitions[1].Size <= 0 {
			t.Errorf("version %d: %+v", version, dir)
		}
		if version >= 4 && (dir.TotalBytes <= 0 || dir.UsableBytes <= 0 || dir.UsableBytes > dir.TotalBytes) {
			t.Errorf("version %d: %d bytes, %d usable", version, dir.TotalBytes, dir.UsableBytes)
		}
		rt := kmsg.NewDescribeLogDirsRequestTopic()
		rt.Topic, rt.Partitions = "t", []int32{1, 1, 7, -1}
		req.Topics = append(req.Topics, rt, rt)
		dir = ask[*kmsg.DescribeLogDirsResponse](w, req).Dirs[0]
		if len(dir.Topics) != 1 || len(dir.Topics[0].Partitions) != 1 || dir.Topics[0].Partitions[0].Partition != 1 {
			t.Errorf("version %d: %+v", version, dir)
		}
		req.Topics = []kmsg.DescribeLogDirsRequestTopic{}
		if dir := ask[*kmsg.DescribeLogDirsResponse](w, req).Dirs[0]; len(dir.Topics) != 0 {
			t.Errorf("version %d: no topics asked for: %+v", version, dir)
		}
	}
}

// KIP-966: pages of partitions.
func TestDescribeTopicPartitionsInPages(t *testing.T) {
	b := startBroker(t, nil)
	b.create("a", 3, nil)
	b.create("b", 2, nil)
	b.create("c", 1, nil)
	w := b.dial()
	pages := func(limit int32, topics ...string) (all []string) {
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = limit
		for _, name := range topics {
			rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
			rt.Topic = name
			req.Topics = append(req.Topics, rt)
		}
		for range 20 {
			resp := ask[*kmsg.DescribeTopicPartitionsResponse](w, req)
			n := 0
			for _, rt := range resp.Topics {
				if rt.ErrorCode != 0 {
					all = append(all, fmt.Sprintf("%s!%d", *rt.Topic, rt.ErrorCode))
				}
				for _, p := range rt.Partitions {
					n++
					all = append(all, fmt.Sprintf("%s-%d", *rt.Topic, p.Partition))
					if p.LeaderID != 1 || p.ErrorCode != 0 || p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil {
						t.Errorf("%+v", p)
					}
				}
			}
			if n > int(limit) {
				t.Errorf("%d partitions with a limit of %d", n, limit)
			}
			if resp.NextCursor == nil {
				return all
			}
			cursor := kmsg.NewDescribeTopicPartitionsRequestCursor()
			cursor.Topic, cursor.Partition = resp.NextCursor.Topic, resp.NextCursor.Partition
			req.Cursor = &cursor
		}
		t.Fatalf("no end with a limit of %d", limit)
		return nil
	}
	want := []string{"a-0", "a-1", "a-2", "b-0", "b-1", "c-0"}
	for limit := int32(1); limit <= 7; limit++ {
		if got := pages(limit); !slices.Equal(got, want) {
			t.Errorf("limit %d: %v", limit, got)
		}
	}
	if got := pages(100, "c", "nobody", "a", "a/b"); !slices.Equal(got, []string{"a-0", "a-1", "a-2", "a/b!17", "c-0", "nobody!3"}) {
		t.Errorf("%v", got)
	}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.Topics = []kmsg.DescribeTopicPartitionsRequestTopic{{Topic: "a"}, {Topic: "c"}}
	req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: "b"}
	for _, rt := range ask[*kmsg.DescribeTopicPartitionsResponse](w, req).Topics {
		if rt.ErrorCode != int16(protocol.InvalidRequest) {
			t.Errorf("a cursor at a topic that is not named: %s has error %d", *rt.Topic, rt.ErrorCode)
		}
	}
}

func TestNoReassignmentIsUnderWay(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	rs, err := kadm.NewClient(b.client()).ListPartitionReassignments(testContext(t), nil)
	if err != nil || len(rs) != 0 {
		t.Errorf("%v, %v", rs, err)
	}
}

// Lists are read, changed and written through any broker, each of which may be
// behind: nothing that another client did to them is lost.
func TestListSettingsAreNeverOverwritten(t *testing.T) {
	t.Parallel()
	all := startCluster(t, 3)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("t", 1, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("created: %+v", got)
	}
	leaderOf(t, all, "t")
	const setting, rounds = "leader.replication.throttled.replicas", 10
	alter := func(w *wire, op kmsg.IncrementalAlterConfigOp, value string) {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.SetVersion(1)
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
		rr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: setting, Op: op, Value: &value}}
		req.Resources = append(req.Resources, rr)
		if got := ask[*kmsg.IncrementalAlterConfigsResponse](w, req).Resources[0]; got.ErrorCode != 0 {
			t.Errorf("op %d %s: error %d %s", op, value, got.ErrorCode, str(got.ErrorMessage))
		}
	}
	// One client, another broker each time.
	w := []*wire{all[0].dial(), all[1].dial(), all[2].dial()}
	for i := range 3 * rounds {
		alter(w[i%3], kmsg.IncrementalAlterConfigOpAppend, fmt.Sprintf("%d:1", i))
	}
	for i := range rounds {
		alter(w[(i+1)%3], kmsg.IncrementalAlterConfigOpSubtract, fmt.Sprintf("%d:1", i))
	}
	// Three clients at once.
	var clients sync.WaitGroup
	for i, w := range w {
		clients.Go(func() {
			for j := range rounds {
				alter(w, kmsg.IncrementalAlterConfigOpAppend, fmt.Sprintf("%d:2", 3*j+i))
			}
		})
	}
	clients.Wait()
	var want []string
	for i := range 3 * rounds {
		if i >= rounds {
			want = append(want, fmt.Sprintf("%d:1", i))
		}
		want = append(want, fmt.Sprintf("%d:2", i))
	}
	slices.Sort(want)
	for _, b := range all {
		waitFor(t, "all that was appended", func() bool {
			topic, _ := b.node.Image().Topic("t")
			got := strings.Split(topic.Config[setting], ",")
			slices.Sort(got)
			return slices.Equal(got, want)
		})
	}
}

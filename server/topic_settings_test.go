package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// alter changes settings of a topic while it is in use; "" deletes one.
func (b *testBroker) alter(topic string, settings ...string) {
	b.t.Helper()
	var changes []kadm.AlterConfig
	for i := 0; i < len(settings); i += 2 {
		c := kadm.AlterConfig{Op: kadm.SetConfig, Name: settings[i], Value: &settings[i+1]}
		if settings[i+1] == "" {
			c = kadm.AlterConfig{Op: kadm.DeleteConfig, Name: settings[i]}
		}
		changes = append(changes, c)
	}
	rs, err := kadm.NewClient(b.client()).AlterTopicConfigs(testContext(b.t), changes, topic)
	if err == nil {
		err = rs[0].Err
	}
	if err != nil {
		b.t.Fatalf("%v: %v", settings, err)
	}
}

// What is changed while a topic is in use holds for the next batch.
func TestTopicSettingsHoldFromTheNextBatch(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	w := b.dial()
	now := time.Now().UnixMilli()
	send := func(ms int64, key []byte, value string) kmsg.ProduceResponseTopicPartition {
		t.Helper()
		bu := record.Builder{}
		bu.Append(record.Record{Timestamp: ms, Key: key, Value: []byte(value)})
		batch, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		return producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batch)))
	}
	key, kilobyte := []byte("k"), string(make([]byte, 1000))
	codecOf := func(offset int64) record.Codec {
		t.Helper()
		stored := fetchedPartition(t, ask[*kmsg.FetchResponse](w, fetchRequest(13, "", id, offset, 0))).RecordBatches
		batch, _, err := record.Split(stored)
		if err != nil {
			t.Fatal(err)
		}
		return batch.Codec()
	}
	for _, c := range []struct {
		name, value string
		key         []byte
		time        int64
		want, after protocol.Code // with the setting, and once it is deleted again
	}{
		{"max.message.bytes", "500", key, now, protocol.MessageTooLarge, protocol.None},
		{"cleanup.policy", "compact", nil, now, protocol.InvalidRecord, protocol.None},
		{"cleanup.policy", "compact,delete", nil, now, protocol.InvalidRecord, protocol.None},
		{"message.timestamp.before.max.ms", "60000", key, now - 3_600_000, protocol.InvalidTimestamp, protocol.None},
		{"message.timestamp.after.max.ms", "7200000", key, now + 5_000_000, protocol.None, protocol.InvalidTimestamp},
		{"min.insync.replicas", "3", key, now, protocol.None, protocol.None}, // the quorum decides
	} {
		b.alter("t", c.name, c.value)
		if got := send(c.time, c.key, kilobyte).ErrorCode; got != int16(c.want) {
			t.Errorf("%s=%s: error %d, want %d", c.name, c.value, got, c.want)
		}
		b.alter("t", c.name, "")
		if got := send(c.time, c.key, kilobyte).ErrorCode; got != int16(c.after) {
			t.Errorf("without %s: error %d, want %d", c.name, got, c.after)
		}
	}

	for _, c := range []struct {
		name  string
		codec record.Codec
		level string
	}{{"gzip", record.Gzip, "1"}, {"snappy", record.Snappy, ""}, {"lz4", record.LZ4, "12"}, {"zstd", record.Zstd, "19"}, {"producer", record.None, ""}} {
		b.alter("t", "compression.type", c.name)
		if c.level != "" {
			b.alter("t", "compression."+c.name+".level", c.level)
		}
		if got := codecOf(send(now, key, kilobyte).BaseOffset); got != c.codec {
			t.Errorf("compression.type=%s: stored with %v", c.name, got)
		}
	}

	// The partition takes its settings up a moment after the metadata has them.
	settled := func(time int64, value string, want func(*kmsg.ProduceResponseTopicPartition) bool) *kmsg.ProduceResponseTopicPartition {
		for deadline := b.server.broker.clock.Now().Add(10e9); ; {
			p := send(time, key, value)
			if want(&p) || b.server.broker.clock.Now().After(deadline) {
				return &p
			}
		}
	}
	// On a follower's clock it would be another time: the leader's is in the batch.
	b.alter("t", "message.timestamp.type", "LogAppendTime", "message.timestamp.before.max.ms", "1")
	appended := func(p *kmsg.ProduceResponseTopicPartition) bool { return p.ErrorCode == 0 && p.LogAppendTime >= now }
	if p := settled(5, "x", appended); !appended(p) {
		t.Errorf("LogAppendTime: %+v", p)
	}
	b.alter("t", "message.timestamp.type", "CreateTime", "message.timestamp.before.max.ms", "")
	created := func(p *kmsg.ProduceResponseTopicPartition) bool { return p.ErrorCode == 0 && p.LogAppendTime == -1 }
	if p := settled(now, "x", created); !created(p) {
		t.Errorf("CreateTime: %+v", p)
	}
}

// Retention and the length of segments, changed while the topic is in use.
func TestRetentionChangesAtRunTime(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"log.retention.check.interval.ms": "1000", "log.segment.delete.delay.ms": "0"})
	w := b.dial()
	var values []string
	for range 200 {
		values = append(values, string(make([]byte, 1000)))
	}
	fill := func(id [16]byte, batches int) {
		t.Helper()
		for range batches { // of 200 KB
			if p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batchOf(t, record.None, nil, values...)))); p.ErrorCode != 0 {
				t.Fatalf("error %d", p.ErrorCode)
			}
		}
	}
	start := func(topic string) int64 {
		return ask[*kmsg.ListOffsetsResponse](w, listRequest(7, topic, 0, earliestOffset)).Topics[0].Partitions[0].Offset
	}
	bySize, byAge := b.create("size", 1, nil), b.create("age", 1, nil)
	fill(bySize, 10)
	fill(byAge, 1)
	if got := start("size"); got != 0 {
		t.Fatalf("%d before anything was asked for", got)
	}
	// One segment of 1 GiB until segment.bytes says otherwise; then a batch that
	// finds it longer begins another, and all of it is beyond retention.bytes.
	b.alter("size", "segment.bytes", "1048576", "retention.bytes", "1048576")
	fill(bySize, 10)
	b.alter("age", "segment.ms", "1", "retention.ms", "1")
	waitFor(t, "retention.bytes to take the first segment", func() bool { return start("size") >= 2000 })
	waitFor(t, "retention.ms to take what segment.ms has closed", func() bool { return start("age") == 200 })
	if end := ask[*kmsg.ListOffsetsResponse](w, listRequest(7, "size", 0, latestOffset)).Topics[0].Partitions[0].Offset; end != 4000 || start("size") == end {
		t.Errorf("retention.bytes left %d to %d", start("size"), end)
	}
}

// Who only asks whether a topic could be altered is told by each partition's leader
// what that would delete: whole segments, and no more than the settings that are
// there delete anyway.
func TestAnAlterationIsAskedWhatItDeletes(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 2, map[string]string{"internal.segment.bytes": "1000", "file.delete.delay.ms": "60000"})
	for range 10 { // several segments
		b.produce("t", 0, strings.Repeat("x", 400))
	}
	b.produce("t", 1, "x")
	type deletion struct {
		to uint64
		at time.Time
	}
	next := make(map[uint32]deletion)
	// What is deleted next by the settings as they are.
	nextIs := func(partition uint32, to uint64, wait time.Duration) {
		t.Helper()
		if n := next[partition]; n.to != to || (time.Until(n.at)-wait).Abs() > 30*time.Second {
			t.Errorf("partition %d is deleted up to %d in %v next, want %d in %v", partition, n.to, time.Until(n.at), to, wait)
		}
	}
	retained := func(settings ...string) string {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Version, req.ValidateOnly = 1, true
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
		for i := 0; i < len(settings); i += 2 {
			rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			rc.Name, rc.Value = settings[i], &settings[i+1]
			rr.Configs = append(rr.Configs, rc)
		}
		req.Resources = append(req.Resources, rr)
		resp := ask[*kmsg.IncrementalAlterConfigsResponse](b.dial(), req)
		var got []string
		resp.Resources[0].UnknownTags.Each(func(key uint32, b []byte) {
			for ; key == RetainedTag && len(b) >= RetainedBytes; b = b[RetainedBytes:] {
				next[binary.BigEndian.Uint32(b)] = deletion{binary.BigEndian.Uint64(b[20:]), time.UnixMilli(int64(binary.BigEndian.Uint64(b[28:])))}
				got = append(got, fmt.Sprint(binary.BigEndian.Uint32(b), ":", binary.BigEndian.Uint64(b[4:]), "→", binary.BigEndian.Uint64(b[12:])))
			}
		})
		return strings.Join(got, " ")
	}
	for _, test := range []struct {
		settings []string
		want     string
	}{
		{[]string{"retention.ms", "1000"}, "0:0→10 1:0→1"}, // a minute from now all of it is older
		{[]string{"retention.ms", "3600000"}, "0:0→0 1:0→0"},
		{[]string{"retention.bytes", "1000"}, "0:0→4 1:0→0"},
		{[]string{"retention.ms", "1000", "cleanup.policy", "compact"}, "0:0→0 1:0→0"}, // without delete no retention
		{[]string{"max.message.bytes", "1000"}, "0:0→0 1:0→0"},
		{[]string{"retention.ms", "soon"}, ""}, // refused
	} {
		if got := retained(test.settings...); got != test.want {
			t.Errorf("%v: the log would start at %s, want %s", test.settings, got, test.want)
		}
	}
	if got, want := retained(), "0:0→0 1:0→0"; got != want { // to alter nothing
		t.Errorf("%s, want %s", got, want)
	}
	nextIs(0, 4, 7*24*time.Hour)
	nextIs(1, 1, 7*24*time.Hour)
	b.alter("t", "retention.ms", "1000")
	if got, want := retained("retention.ms", "500"), "0:10→10 1:1→1"; got != want {
		t.Errorf("what goes anyway: %s, want %s", got, want)
	}
	waitFor(t, "the partitions to take the settings", func() bool { retained(); return time.Until(next[1].at) < time.Hour })
	nextIs(1, 1, time.Minute) // not before file.delete.delay.ms
	b.alter("t", "retention.ms", "-1")
	waitFor(t, "the partitions to delete nothing", func() bool { retained(); return next[0].at.UnixMilli() == 0 && next[1].at.UnixMilli() == 0 })
}

// KIP-226: what a broker refuses, and that bad values are INVALID_REQUEST there
// and INVALID_CONFIG for topics.
func TestBadSettingsAreRefusedInKafkasWords(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	adm := kadm.NewClient(b.client())
	ctx := testContext(t)
	for _, c := range []struct {
		broker      []int32 // nil: the topic; empty: the whole cluster
		name, value string
		err         error
		text        string
	}{
		{nil, "retention.ms", "soon", kerr.InvalidConfig, "Invalid value soon for configuration retention.ms: Not a number of type LONG"},
		{nil, "segment.bytes", "1", kerr.InvalidConfig, "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576"},
		{nil, "no.such", "1", kerr.InvalidConfig, "Unknown topic config name: no.such"},
		{[]int32{}, "log.retention.ms", "soon", kerr.InvalidRequest, "Invalid value soon for configuration log.retention.ms: Not a number of type LONG"},
		{[]int32{1}, "max.connections.per.ip", "-1", kerr.InvalidRequest, "Invalid value -1 for configuration max.connections.per.ip: Value must be at least 0"},
		{[]int32{1}, "broker.rack", "r", kerr.InvalidRequest, "Cannot update these configs dynamically: Set(broker.rack)"},
		{[]int32{}, "offsets.topic.num.partitions", "3", kerr.InvalidRequest, "Cannot update these configs dynamically: Set(offsets.topic.num.partitions)"},
	} {
		change := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: c.name, Value: &c.value}}
		var rs kadm.AlterConfigsResponses
		var err error
		if c.broker == nil {
			rs, err = adm.AlterTopicConfigs(ctx, change, "t")
		} else {
			rs, err = adm.AlterBrokerConfigs(ctx, change, c.broker...)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !errors.Is(rs[0].Err, c.err) || rs[0].ErrMessage != c.text {
			t.Errorf("%s=%s: %v %q, want %v %q", c.name, c.value, rs[0].Err, rs[0].ErrMessage, c.err, c.text)
		}
	}
}

// KIP-226, KIP-569: every setting says where it comes from, the nearest source
// first, of which type it is and what it means.
func TestSourcesOfASetting(t *testing.T) {
	b := startBroker(t, map[string]string{"log.retention.hours": "2"})
	b.create("t", 1, nil)
	adm := kadm.NewClient(b.client())
	ctx := testContext(t)
	value := func(s string) *string { return &s }
	for _, c := range []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "log.retention.ms", Value: value("7000")}} {
		if rs, err := adm.AlterBrokerConfigs(ctx, []kadm.AlterConfig{c}); err != nil || rs[0].Err != nil {
			t.Fatal(err, rs)
		}
	}
	b.alter("t", "retention.ms", "5000")
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.SetVersion(4)
	req.IncludeSynonyms, req.IncludeDocumentation = true, true
	for kind, name := range map[kmsg.ConfigResourceType]string{kmsg.ConfigResourceTypeTopic: "t", kmsg.ConfigResourceTypeBroker: "1"} {
		rr := kmsg.NewDescribeConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kind, name
		req.Resources = append(req.Resources, rr)
	}
	for _, r := range ask[*kmsg.DescribeConfigsResponse](b.dial(), req).Resources {
		for _, c := range r.Configs {
			if c.ConfigType == 0 || c.Documentation == nil || *c.Documentation == "" {
				t.Errorf("%s: type %d, documentation %q", c.Name, c.ConfigType, str(c.Documentation))
			}
			if len(c.ConfigSynonyms) > 0 && c.ConfigSynonyms[0].Source != c.Source {
				t.Errorf("%s: from %d, but the first synonym is from %d", c.Name, c.Source, c.ConfigSynonyms[0].Source)
			}
			if c.Name != "retention.ms" {
				continue
			}
			var from []string
			for _, s := range c.ConfigSynonyms {
				from = append(from, s.Name+"="+str(s.Value)+" "+s.Source.String())
			}
			want := []string{
				"retention.ms=5000 DYNAMIC_TOPIC_CONFIG", "log.retention.ms=7000 DYNAMIC_DEFAULT_BROKER_CONFIG",
				"log.retention.hours=2 STATIC_BROKER_CONFIG", "log.retention.hours=168 DEFAULT_CONFIG",
			}
			if !slices.Equal(from, want) {
				t.Errorf("retention.ms from\n%q, want\n%q", from, want)
			}
		}
	}
}

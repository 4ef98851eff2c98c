package settings

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// kafka41 has name, type and default of the settings of a topic in Apache Kafka
// 4.1, written down from its LogConfig: those defined there, less the internal
// one and less remote.copy.lag.*, which came later.
const kafka41 = `
cleanup.policy LIST delete
compression.gzip.level INT -1
compression.lz4.level INT 9
compression.type STRING producer
compression.zstd.level INT 3
delete.retention.ms LONG 86400000
file.delete.delay.ms LONG 60000
flush.messages LONG 9223372036854775807
flush.ms LONG 9223372036854775807
follower.replication.throttled.replicas LIST
index.interval.bytes INT 4096
leader.replication.throttled.replicas LIST
local.retention.bytes LONG -2
local.retention.ms LONG -2
max.compaction.lag.ms LONG 9223372036854775807
max.message.bytes INT 1048588
message.timestamp.after.max.ms LONG 3600000
message.timestamp.before.max.ms LONG 9223372036854775807
message.timestamp.type STRING CreateTime
min.cleanable.dirty.ratio DOUBLE 0.5
min.compaction.lag.ms LONG 0
min.insync.replicas INT 1
preallocate BOOLEAN false
remote.log.copy.disable BOOLEAN false
remote.log.delete.on.disable BOOLEAN false
remote.storage.enable BOOLEAN false
retention.bytes LONG -1
retention.ms LONG 604800000
segment.bytes INT 1073741824
segment.index.bytes INT 10485760
segment.jitter.ms LONG 0
segment.ms LONG 604800000
unclean.leader.election.enable BOOLEAN false
`

func TestTopicSettingsAreKafkasSaveForFsync(t *testing.T) {
	var got strings.Builder
	got.WriteString("\n")
	for _, d := range TopicDefinitions() {
		if !strings.HasPrefix(d.Name, "millrace.") { // ours
			fmt.Fprintln(&got, strings.TrimSpace(fmt.Sprintf("%s %s %s", d.Name, d.Type, d.Default)))
		}
	}
	want := strings.Replace(kafka41, "flush.messages LONG 9223372036854775807", "flush.messages LONG 1", 1)
	if got.String() != want {
		t.Errorf("settings: %s\nwant those of Kafka 4.1, and ours called millrace.…: %s", got.String(), want)
	}
}

func TestDefinitionsHoldTogether(t *testing.T) {
	for _, d := range slices.Concat(topicSettings, brokerSettings) {
		if d.Null && d.Default != "" {
			t.Errorf("%s has a default and none", d.Name)
		}
		if !d.Null {
			if v, err := d.Validate(d.Default); err != nil || v != d.Default {
				t.Errorf("%s does not accept its default: %v", d.Name, err)
			}
		}
		if d.Doc == "" || strings.Contains(d.Doc, "\n") || !strings.HasSuffix(d.Doc, ".") {
			t.Errorf("%s is described as %q", d.Name, d.Doc)
		}
	}
	// A topic's default and the defaults of its synonyms must agree, or what
	// DescribeConfigs shows would contradict itself.
	for _, d := range topicSettings {
		for _, s := range d.Synonyms {
			b, ok := BrokerDefinition(s.Name)
			if !ok {
				t.Errorf("%s has the synonym %s, which no broker has", d.Name, s.Name)
				continue
			}
			if b.Null {
				continue
			}
			if v, ok := s.scaled(b.Default); !ok || v != d.Default {
				t.Errorf("default of %s is %s, of its synonym %s %s", d.Name, d.Default, s.Name, v)
			}
			if !b.PerNode && !b.ReadOnly {
				t.Errorf("%s cannot be set for one broker; in Kafka it can", b.Name)
			}
			if s.Scale == 1 && b.Type != d.Type {
				t.Errorf("%s is %s, its synonym %s is %s", d.Name, d.Type, b.Name, b.Type)
			}
		}
	}
	for _, name := range strings.Fields(`listeners advertised.listeners auto.create.topics.enable num.partitions default.replication.factor
		message.max.bytes delete.topic.enable group.initial.rebalance.delay.ms group.min.session.timeout.ms group.max.session.timeout.ms
		offsets.retention.minutes connections.max.idle.ms socket.request.max.bytes log.retention.ms log.retention.minutes log.retention.hours
		log.retention.bytes log.segment.bytes log.cleaner.threads transaction.max.timeout.ms broker.rack`) {
		if _, ok := BrokerDefinition(name); !ok {
			t.Errorf("broker setting %s is missing", name)
		}
	}
}

func TestBadValueIsRefusedInKafkasWords(t *testing.T) {
	for _, c := range []struct{ name, value, text string }{
		{"retention.ms", "abc", "Not a number of type LONG"},
		{"retention.ms", "", "Not a number of type LONG"},
		{"retention.ms", "1.5", "Not a number of type LONG"},
		{"retention.ms", "9223372036854775808", "Not a number of type LONG"},
		{"retention.ms", "-2", "Value must be at least -1"},
		{"segment.bytes", "1048575", "Value must be at least 1048576"},
		{"segment.bytes", "2147483648", "Not a number of type INT"},
		{"internal.segment.bytes", "0", "Value must be at least 1"},
		{"flush.messages", "0", "Value must be at least 1"},
		{"max.message.bytes", "-1", "Value must be at least 0"},
		{"cleanup.policy", "burn", "String must be one of: compact, delete"},
		{"cleanup.policy", "delete,Compact", "String must be one of: compact, delete"},
		{"compression.type", "brotli", "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"},
		{"compression.type", "none", "String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer"},
		{"compression.gzip.level", "0", "Value must be between 1 and 9 or equal to -1"},
		{"compression.gzip.level", "10", "Value must be between 1 and 9 or equal to -1"},
		{"compression.lz4.level", "18", "Value must be no more than 17"},
		{"compression.zstd.level", "-131073", "Value must be at least -131072"},
		{"message.timestamp.type", "createtime", "String must be one of: CreateTime, LogAppendTime"},
		{"min.cleanable.dirty.ratio", "1.1", "Value must be no more than 1"},
		{"min.cleanable.dirty.ratio", "NaN", "Value must be a number"},
		{"min.cleanable.dirty.ratio", "half", "Not a number of type DOUBLE"},
		{"min.insync.replicas", "0", "Value must be at least 1"},
		{"preallocate", "yes", "Expected value to be either true or false"},
		{"remote.storage.enable", "true", "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."},
		{"leader.replication.throttled.replicas", "1:", "Value must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],..."},
	} {
		d, ok := TopicDefinition(c.name)
		if !ok {
			t.Fatalf("no setting %s", c.name)
		}
		want := fmt.Sprintf("Invalid value %s for configuration %s: %s", c.value, c.name, c.text)
		if _, err := d.Validate(c.value); !errors.Is(err, ErrInvalid) || err.Error() != want {
			t.Errorf("%v\nwant %s", err, want)
		}
		if err := ValidateTopic(map[string]string{c.name: c.value}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s=%s: %v", c.name, c.value, err)
		}
	}
	if err := ValidateTopic(map[string]string{"retention.mss": "1"}); !errors.Is(err, ErrInvalid) || err.Error() != "Unknown topic config name: retention.mss" {
		t.Errorf("unknown: %v", err)
	}
	d, _ := TopicDefinition("retention.ms")
	if _, err := d.Validate(strings.Repeat("9", 100000) + "\xff"); err == nil || len(err.Error()) > 500 {
		t.Errorf("a long value: %.100v", err)
	}
}

func TestGoodValueIsTrimmed(t *testing.T) {
	for _, c := range [][3]string{
		{"retention.ms", " -1 ", "-1"}, {"retention.ms", "+5", "+5"}, {"retention.bytes", "-7", "-7"},
		{"cleanup.policy", "compact, delete", "compact, delete"}, {"cleanup.policy", "", ""},
		{"preallocate", "TRUE", "TRUE"}, {"min.cleanable.dirty.ratio", "1e-1", "1e-1"},
		{"remote.storage.enable", "false", "false"},
		{"leader.replication.throttled.replicas", "*", "*"}, {"leader.replication.throttled.replicas", "0:1,12:3", "0:1,12:3"},
		{"compression.zstd.level", "-131072", "-131072"},
	} {
		d, _ := TopicDefinition(c[0])
		if got, err := d.Validate(c[1]); err != nil || got != c[2] {
			t.Errorf("%s=%q is %q: %v", c[0], c[1], got, err)
		}
	}
}

func TestListsGrowAndShrinkByElement(t *testing.T) {
	policy, _ := TopicDefinition("cleanup.policy")
	for _, c := range []struct{ op, current, values, want string }{
		{"append", "delete", "compact", "delete,compact"},
		{"append", "delete", "delete", "delete"},
		{"append", "", "compact,delete,compact", "compact,delete"},
		{"append", "delete", "", "delete"},
		{"append", " delete ,", " compact", "delete,compact"},
		{"subtract", "delete,compact", "delete", "compact"},
		{"subtract", "delete", "compact", "delete"},
		{"subtract", "delete", "delete", ""},
		{"subtract", "", "delete", ""},
	} {
		do := policy.Append
		if c.op == "subtract" {
			do = policy.Subtract
		}
		if got, err := do(c.current, c.values); err != nil || got != c.want {
			t.Errorf("%s %q to %q gives %q, want %q: %v", c.op, c.values, c.current, got, c.want, err)
		}
	}
	number, _ := TopicDefinition("retention.ms")
	if _, err := number.Append("1", "2"); !errors.Is(err, ErrInvalid) || err.Error() != "Can't APPEND to key retention.ms because its type is not LIST." {
		t.Errorf("append to a number: %v", err)
	}
	if _, err := number.Subtract("1", "2"); !errors.Is(err, ErrInvalid) {
		t.Errorf("subtract from a number: %v", err)
	}
}

func TestNearestSettingWins(t *testing.T) {
	for _, c := range []struct {
		name                   string
		topic, cluster, static map[string]string
		want                   int64
		source                 Source
		from                   string
	}{
		{name: "default", want: 604800000, source: SourceDefault, from: "5 log.retention.hours=168"},
		{name: "hours of the node", static: map[string]string{"log.retention.hours": "2"}, want: 7200000, source: SourceStatic,
			from: "4 log.retention.hours=2, 5 log.retention.hours=168"},
		{name: "minutes before hours", static: map[string]string{"log.retention.hours": "2", "log.retention.minutes": "3"}, want: 180000, source: SourceStatic,
			from: "4 log.retention.minutes=3, 4 log.retention.hours=2, 5 log.retention.hours=168"},
		{name: "milliseconds before minutes", static: map[string]string{"log.retention.ms": "7", "log.retention.minutes": "3"}, want: 7, source: SourceStatic,
			from: "4 log.retention.ms=7, 4 log.retention.minutes=3, 5 log.retention.hours=168"},
		{name: "the cluster before the node", cluster: map[string]string{"log.retention.ms": "9"}, static: map[string]string{"log.retention.ms": "7"}, want: 9, source: SourceCluster,
			from: "3 log.retention.ms=9, 4 log.retention.ms=7, 5 log.retention.hours=168"},
		{name: "the topic before the cluster", topic: map[string]string{"retention.ms": "11"}, cluster: map[string]string{"log.retention.ms": "9"}, want: 11, source: SourceTopic,
			from: "1 retention.ms=11, 3 log.retention.ms=9, 5 log.retention.hours=168"},
		{name: "spaces around", topic: map[string]string{"retention.ms": " 11 "}, static: map[string]string{"log.retention.hours": " 2 "}, want: 11, source: SourceTopic,
			from: "1 retention.ms=11, 4 log.retention.hours=2, 5 log.retention.hours=168"},
		{name: "no limit in hours", static: map[string]string{"log.retention.hours": "-1"}, want: -1, source: SourceStatic,
			from: "4 log.retention.hours=-1, 5 log.retention.hours=168"},
		{name: "hours that overflow", static: map[string]string{"log.retention.hours": "9223372036854775807"}, want: math.MaxInt64, source: SourceStatic,
			from: "4 log.retention.hours=9223372036854775807, 5 log.retention.hours=168"},
		{name: "garbage is passed over", topic: map[string]string{"retention.ms": "soon"}, cluster: map[string]string{"log.retention.ms": "-5"}, static: map[string]string{"log.retention.hours": "1h", "log.retention.minutes": "1"}, want: 60000, source: SourceStatic,
			from: "4 log.retention.minutes=1, 5 log.retention.hours=168"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := Layers{Cluster: c.cluster, Static: c.static}
			if got := l.Topic(c.topic).RetentionMillis; got != c.want {
				t.Errorf("retention is %d, want %d", got, c.want)
			}
			for _, v := range l.DescribeTopic(c.topic) {
				if v.Name != "retention.ms" {
					continue
				}
				var from []string
				for _, o := range v.From {
					from = append(from, fmt.Sprintf("%d %s=%s", o.Source, o.Name, o.Value))
				}
				if v.Null || v.Value != fmt.Sprint(c.want) || v.Source != c.source || strings.Join(from, ", ") != c.from {
					t.Errorf("described as %s of source %d from %v; want %d of %d from %s", v.Value, v.Source, from, c.want, c.source, c.from)
				}
			}
		})
	}
}

// sameFields says which fields of a view are not as they should be.
func sameFields(t *testing.T, got, want Topic) {
	t.Helper()
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		if !g.Field(i).Equal(w.Field(i)) {
			t.Errorf("%s is %v, want %v here", g.Type().Field(i).Name, g.Field(i), w.Field(i))
		}
	}
}

func TestTypedViewOfDefaults(t *testing.T) {
	want := Topic{
		RetentionMillis: 604800000, RetentionBytes: -1, SegmentBytes: 1 << 30, SegmentMillis: 604800000,
		FileDeleteDelayMillis: 60000,
		CleanupDelete:         true, MinCleanableDirtyRatio: 0.5, MaxCompactionLagMillis: math.MaxInt64, DeleteRetentionMillis: 86400000,
		MaxMessageBytes: 1048588, CompressionType: CompressionProducer, TimestampType: CreateTime,
		TimestampBeforeMaxMillis: math.MaxInt64, TimestampAfterMaxMillis: 3600000,
		FlushMessages: 1, FlushMillis: math.MaxInt64,
	}
	sameFields(t, (Layers{}).Topic(nil), want)
}

func TestTypedViewOfEverySetting(t *testing.T) {
	config := map[string]string{
		"retention.ms": "1", "retention.bytes": "-9", "segment.bytes": "2000000", "segment.ms": "3", "segment.jitter.ms": "4",
		"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.25", "min.compaction.lag.ms": "5", "max.compaction.lag.ms": "6", "delete.retention.ms": "7",
		"max.message.bytes": "8", "compression.type": "zstd", "compression.zstd.level": "-9", "message.timestamp.type": "LogAppendTime",
		"message.timestamp.before.max.ms": "10", "message.timestamp.after.max.ms": "11", "flush.messages": "12", "flush.ms": "13", "min.insync.replicas": "14",
		"file.delete.delay.ms": "15",
	}
	want := Topic{
		RetentionMillis: 1, RetentionBytes: -1, SegmentBytes: 2000000, SegmentMillis: 3, SegmentJitterMillis: 4,
		CleanupCompact: true, MinCleanableDirtyRatio: 0.25, MinCompactionLagMillis: 5, MaxCompactionLagMillis: 6, DeleteRetentionMillis: 7,
		MaxMessageBytes: 8, CompressionType: CompressionZstd, CompressionLevel: -9, TimestampType: LogAppendTime,
		TimestampBeforeMaxMillis: 10, TimestampAfterMaxMillis: 11, FlushMessages: 12, FlushMillis: 13, FileDeleteDelayMillis: 15,
	}
	sameFields(t, (Layers{}).Topic(config), want)
	for value, want := range map[string]CompressionType{"uncompressed": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4, "producer": -1} {
		if got := (Layers{}).Topic(map[string]string{"compression.type": value}).CompressionType; got != want {
			t.Errorf("%s is %d, want %d", value, got, want)
		}
	}
	config = map[string]string{"cleanup.policy": "", "internal.segment.bytes": "100"}
	if s := (Layers{}).Topic(config); s.CleanupCompact || s.CleanupDelete || s.SegmentBytes != 100 {
		t.Errorf("neither policy, small segments: %+v", s)
	}
	shown := Layers{}.DescribeTopic(config)
	if i := slices.IndexFunc(shown, func(v Value) bool { return v.Name == "internal.segment.bytes" }); i < 0 || shown[i].Value != "100" || len(shown) != len(TopicDefinitions())+1 {
		t.Errorf("a hidden setting that is set must be described")
	}
}

func TestBrokerSettingsResolve(t *testing.T) {
	s := Layers{Brokers: 3}.Broker()
	if s.Topics.Replication != 3 || !s.Topics.Grows || s.Topics.Partitions != 1 || !s.Topics.AutoCreate || s.Offsets.RetentionMillis != 604800000 || s.Connections.MaxRequestBytes != 100<<20 {
		t.Errorf("defaults: %+v", s)
	}
	if s := (Layers{Brokers: 1}).Broker(); s.Topics.Replication != 1 || !s.Topics.Grows {
		t.Errorf("one broker: %d, grows %v", s.Topics.Replication, s.Topics.Grows)
	}
	l := Layers{Brokers: 3,
		Cluster: map[string]string{"default.replication.factor": "2", "log.cleaner.threads": "3"},
		Static:  map[string]string{"default.replication.factor": "1", "num.partitions": "6", "auto.create.topics.enable": "False", "broker.rack": "r"},
	}
	if s := l.Broker(); s.Topics.Replication != 2 || s.Topics.Grows || s.Topics.Partitions != 6 || s.Topics.AutoCreate {
		t.Errorf("with settings: %+v", s)
	}
	of := map[int32]map[string]string{2: {"log.cleaner.threads": "4"}}
	for broker, want := range map[int32]string{1: "3 of 3", 2: "4 of 2"} {
		l.Node = of[broker]
		for _, v := range l.DescribeBroker() {
			switch v.Name {
			case "log.cleaner.threads":
				if got := fmt.Sprintf("%s of %d", v.Value, v.Source); got != want {
					t.Errorf("broker %d: threads %s, want %s", broker, got, want)
				}
			case "log.retention.ms":
				if !v.Null || v.Source != SourceDefault || v.From != nil {
					t.Errorf("log.retention.ms is %+v, want null", v)
				}
			case "broker.rack":
				if v.Value != "r" || v.Source != SourceStatic || !v.ReadOnly {
					t.Errorf("rack is %+v", v)
				}
			}
		}
	}
}

func TestTypesHaveKafkasNamesAndNumbers(t *testing.T) {
	want := []string{"UNKNOWN", "BOOLEAN", "STRING", "INT", "SHORT", "LONG", "DOUBLE", "LIST", "CLASS", "PASSWORD", "UNKNOWN"}
	var got []string
	for i := range Type(11) {
		got = append(got, i.String())
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// As in Kafka a broker may keep its replicas otherwise than the others do, and
// takes settings that nobody knows.
func TestOneBrokersSettingsHoldForItsReplicas(t *testing.T) {
	elsewhere := Layers{Cluster: map[string]string{"log.retention.ms": "7"}}
	there := elsewhere
	there.Node = map[string]string{"log.retention.ms": "5", "message.max.bytes": "600", "num.io.threads": "12"}
	if s := there.Topic(nil); s.RetentionMillis != 5 || s.MaxMessageBytes != 600 {
		t.Errorf("on the broker: %+v", s)
	}
	if s := elsewhere.Topic(nil); s.RetentionMillis != 7 {
		t.Errorf("elsewhere: %+v", s)
	}
	for _, v := range there.DescribeTopic(nil) {
		if v.Name == "retention.ms" && (v.Value != "5" || v.Source != SourceBroker) {
			t.Errorf("described as %s of source %d", v.Value, v.Source)
		}
	}
	there.Static = map[string]string{"only.in.a.file": "x"}
	all := there.DescribeBroker()
	last := all[len(all)-1]
	if last.Name != "num.io.threads" || last.Value != "12" || last.Source != SourceBroker || !last.Sensitive() {
		t.Errorf("the last setting is %s=%s of source %d", last.Name, last.Value, last.Source)
	}
}

func TestGroupsHaveSettings(t *testing.T) {
	static := map[string]string{"group.consumer.session.timeout.ms": "55000"}
	set := map[string]map[string]string{"g": {"consumer.heartbeat.interval.ms": "6000"}}
	for group, want := range map[string]string{
		"g":     "consumer.heartbeat.interval.ms=6000 8, consumer.session.timeout.ms=55000 5",
		"other": "consumer.heartbeat.interval.ms=5000 5, consumer.session.timeout.ms=55000 5",
	} {
		var got []string
		for _, v := range (Layers{Static: static}).DescribeResource(Group, set[group]) {
			if strings.HasPrefix(v.Name, "consumer.") {
				got = append(got, fmt.Sprintf("%s=%s %d", v.Name, v.Value, v.Source))
			}
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %v, want %s", group, got, want)
		}
	}
	if session, beat := GroupTimes(set["g"]); session != 0 || beat != 6000 {
		t.Errorf("the group's own are %d and %d", session, beat)
	}
	for values, want := range map[[2]string]string{
		{"50000", ""}:      "",
		{"30000", ""}:      "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
		{"70000", ""}:      "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
		{"", "100"}:        "consumer.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms",
		{"", "20000"}:      "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms",
		{"50000", "14000"}: "",
	} {
		config := map[string]string{}
		for i, name := range []string{"consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"} {
			if values[i] != "" {
				config[name] = values[i]
			}
		}
		node := Layers{}.Broker().ConsumerGroups
		err := node.Validate(config)
		if (err == nil) != (want == "") || err != nil && err.Error() != want {
			t.Errorf("%v: %v, want %q", values, err, want)
		}
	}
	wide := Layers{Static: map[string]string{"group.consumer.min.session.timeout.ms": "1000", "group.consumer.min.heartbeat.interval.ms": "1000"}}.Broker().ConsumerGroups
	if err := wide.Validate(map[string]string{"consumer.session.timeout.ms": "4000"}); err == nil || err.Error() != "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms" {
		t.Errorf("a session shorter than a heartbeat: %v", err)
	}
}

func TestCoordinatorSettingsResolve(t *testing.T) {
	s := Layers{}.Broker()
	if s.Offsets.TopicReplication != 3 || s.Offsets.TopicPartitions != 50 || s.Offsets.TopicSegmentBytes != 100<<20 || s.Offsets.RetentionCheckMillis != 600_000 {
		t.Errorf("offsets topic: %+v", s)
	}
	if !slices.Equal(s.Groups.Protocols, []string{"classic", "consumer"}) || !slices.Equal(s.ConsumerGroups.Assignors, []string{"uniform", "range"}) || s.ConsumerGroups.MigrationPolicy != "bidirectional" {
		t.Errorf("groups: %+v", s)
	}
	if s.ConsumerGroups.MinSessionTimeoutMillis != 45_000 || s.ConsumerGroups.MaxSessionTimeoutMillis != 60_000 || s.ConsumerGroups.MinHeartbeatIntervalMillis != 5000 || s.ConsumerGroups.MaxHeartbeatIntervalMillis != 15_000 {
		t.Errorf("consumer groups: %+v", s)
	}
	if !s.Cleaner.Enable || s.Cleaner.BackoffMillis != 15_000 || s.Cleaner.DedupeBytes != 128<<20 || s.Cleaner.BytesPerSecond != math.MaxFloat64 {
		t.Errorf("cleaner: %+v", s)
	}
	s = Layers{Static: map[string]string{
		"offsets.topic.replication.factor": "1", "group.coordinator.rebalance.protocols": "classic",
		"group.consumer.assignors": "range", "log.cleaner.io.max.bytes.per.second": "1e6", "log.cleaner.enable": "false",
	}}.Broker()
	if s.Offsets.TopicReplication != 1 || !slices.Equal(s.Groups.Protocols, []string{"classic"}) || !slices.Equal(s.ConsumerGroups.Assignors, []string{"range"}) || s.Cleaner.BytesPerSecond != 1e6 || s.Cleaner.Enable {
		t.Errorf("a node's own: %+v", s)
	}
}

// Units that people write work where their meaning is plain, and nowhere else.
func TestValuesWithUnits(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"log.retention.hours", "7d", "168"}, {"log.retention.hours", "2w", "336"}, {"log.retention.hours", "90m", "90m"}, {"log.retention.hours", "120 min", "2"},
		{"log.retention.minutes", "1h", "60"}, {"log.retention.ms", "7d", "604800000"}, {"log.retention.ms", "-1", "-1"}, {"log.retention.ms", "10s", "10000"},
		{"log.retention.ms", "-7d", "-7d"}, {"log.retention.ms", "7 days", "7 days"}, {"log.retention.ms", "7dd", "7dd"}, {"log.retention.ms", "1.5h", "1.5h"},
		{"message.max.bytes", "10MB", "10485760"}, {"log.segment.bytes", "1 GiB", "1073741824"}, {"log.retention.bytes", "10g", "10737418240"}, {"message.max.bytes", "512k", "524288"},
		{"message.max.bytes", "10s", "10s"}, {"log.retention.ms", "10MB", "10MB"}, {"log.cleaner.dedupe.buffer.size", "128mb", "134217728"},
		{"num.partitions", "3k", "3k"}, {"group.max.size", "10k", "10k"}, {"log.retention.bytes", "9223372036854775807t", "9223372036854775807t"},
		{"auto.create.topics.enable", "no", "no"}, {"log.cleanup.policy", "7d", "7d"}, {"log.retention.ms", "", ""}, {"log.retention.ms", "d", "d"},
	} {
		d, ok := BrokerDefinition(c.name)
		if got := d.Plain(c.value); !ok || got != c.want {
			t.Errorf("%s=%s is %s, want %s", c.name, c.value, got, c.want)
		}
	}
}

func TestEverySettingSaysWhatItMayBe(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"log.retention.hours", "a whole number of hours"}, {"log.segment.bytes", "a whole number of bytes, 1048576 or more"},
		{"log.cleanup.policy", "any of compact, delete, with commas between them"}, {"auto.create.topics.enable", "true or false"},
		{"compression.type", "one of uncompressed, zstd, lz4, snappy, gzip, producer"}, {"compression.gzip.level", "a whole number, 1 to 9, or -1"},
		{"log.cleaner.min.cleanable.ratio", "a number, 0 to 1"}, {"default.replication.factor", "a whole number, 1 to 15, or -1"}, {"broker.rack", "text"},
	} {
		if d, _ := BrokerDefinition(c.name); d.Allowed() != c.want {
			t.Errorf("%s is %s, want %s", c.name, d.Allowed(), c.want)
		}
	}
	for _, d := range slices.Concat(topicSettings, brokerSettings) {
		if d.valid.wrong != nil && d.valid.allowed == "" {
			t.Errorf("nobody is told what %s may be", d.Name)
		}
	}
}

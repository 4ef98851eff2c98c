package server

import (
	"bytes"
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
)

const (
	loggerResource  = kmsg.ConfigResourceTypeBrokerLogger
	metricsResource = kmsg.ConfigResourceTypeClientMetrics
	groupResource   = kmsg.ConfigResourceTypeGroupConfig
	brokerResource  = kmsg.ConfigResourceTypeBroker
)

const (
	opSet = iota
	opDelete
	opAppend
	opSubtract
)

// An alteration is one setting of IncrementalAlterConfigs.
type alteration struct {
	op          int
	name, value string
}

func (w *wire) alter(kind kmsg.ConfigResourceType, name string, validateOnly bool, all ...alteration) kmsg.IncrementalAlterConfigsResponseResource {
	w.t.Helper()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	req.SetVersion(1)
	req.ValidateOnly = validateOnly
	rr := kmsg.NewIncrementalAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kind, name
	for _, a := range all {
		rc := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		rc.Name, rc.Op = a.name, kmsg.IncrementalAlterConfigOp(a.op)
		if a.op != opDelete {
			rc.Value = &a.value
		}
		rr.Configs = append(rr.Configs, rc)
	}
	req.Resources = append(req.Resources, rr)
	return ask[*kmsg.IncrementalAlterConfigsResponse](w, req).Resources[0]
}

func (w *wire) replace(kind kmsg.ConfigResourceType, name string, values map[string]string) kmsg.AlterConfigsResponseResource {
	w.t.Helper()
	req := kmsg.NewPtrAlterConfigsRequest()
	req.SetVersion(2)
	rr := kmsg.NewAlterConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kind, name
	for _, name := range slices.Sorted(maps.Keys(values)) {
		rc := kmsg.NewAlterConfigsRequestResourceConfig()
		rc.Name, rc.Value = name, kmsg.StringPtr(values[name])
		rr.Configs = append(rr.Configs, rc)
	}
	req.Resources = append(req.Resources, rr)
	return ask[*kmsg.AlterConfigsResponse](w, req).Resources[0]
}

// described returns settings as "value source", by name.
func (w *wire) described(kind kmsg.ConfigResourceType, name string) (map[string]string, protocol.Code) {
	w.t.Helper()
	req := kmsg.NewPtrDescribeConfigsRequest()
	req.SetVersion(4)
	req.IncludeSynonyms, req.IncludeDocumentation = true, true
	rr := kmsg.NewDescribeConfigsRequestResource()
	rr.ResourceType, rr.ResourceName = kind, name
	req.Resources = append(req.Resources, rr)
	r := ask[*kmsg.DescribeConfigsResponse](w, req).Resources[0]
	all := map[string]string{}
	for _, c := range r.Configs {
		all[c.Name] = fmt.Sprintf("%s %d", str(c.Value), c.Source)
	}
	return all, protocol.Code(r.ErrorCode)
}

// KIP-848's group settings (GroupConfig): for groups that are there and others,
// kept in the metadata, bounded by the broker's settings.
func TestGroupsHaveConfigs(t *testing.T) {
	dir := t.TempDir()
	b := startBrokerIn(t, dir, map[string]string{"group.consumer.session.timeout.ms": "46000"}, nil)
	w := b.dial()
	got, code := w.described(groupResource, "nobody")
	if code != protocol.None || len(got) != 10 || got["consumer.session.timeout.ms"] != "46000 5" || got["consumer.heartbeat.interval.ms"] != "5000 5" || got["share.auto.offset.reset"] != "latest 5" {
		t.Errorf("a group that is not there: error %d, %v", code, got)
	}
	if r := w.alter(groupResource, "g", true, alteration{opSet, "consumer.session.timeout.ms", "50000"}); r.ErrorCode != 0 {
		t.Errorf("validate only: %+v", r)
	}
	if got, _ := w.described(groupResource, "g"); got["consumer.session.timeout.ms"] != "46000 5" {
		t.Errorf("validate only changed it to %s", got["consumer.session.timeout.ms"])
	}
	if r := w.alter(groupResource, "g", false, alteration{opSet, "consumer.session.timeout.ms", "50000"}, alteration{opSet, "share.isolation.level", "read_committed"}); r.ErrorCode != 0 {
		t.Errorf("%+v %s", r, str(r.ErrorMessage))
	}
	if got, _ := w.described(groupResource, "g"); got["consumer.session.timeout.ms"] != "50000 8" || got["share.isolation.level"] != "read_committed 8" {
		t.Errorf("set: %v", got)
	}
	for _, c := range []struct {
		name    string
		group   string
		changes []alteration
		want    int16
		message string
	}{
		{"an unknown name", "g", []alteration{{opSet, "session.timeout", "1"}}, 40, "Unknown group config name: session.timeout"},
		{"no number", "g", []alteration{{opSet, "consumer.session.timeout.ms", "long"}}, 40, "Invalid value long for configuration consumer.session.timeout.ms: Not a number of type INT"},
		{"below the bound", "g", []alteration{{opSet, "consumer.session.timeout.ms", "30000"}}, 40, "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{"above the bound", "g", []alteration{{opSet, "consumer.heartbeat.interval.ms", "15001"}}, 40, "consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms"},
		{"append", "g", []alteration{{opAppend, "consumer.session.timeout.ms", "1"}}, 40, "Can't APPEND to key consumer.session.timeout.ms because its type is not LIST."},
		{"no group", "", []alteration{{opSet, "consumer.session.timeout.ms", "50000"}}, 42, "Default group resources are not allowed."},
	} {
		if r := w.alter(groupResource, c.group, false, c.changes...); r.ErrorCode != c.want || str(r.ErrorMessage) != c.message {
			t.Errorf("%s: error %d, %s; want %d, %s", c.name, r.ErrorCode, str(r.ErrorMessage), c.want, c.message)
		}
	}
	if r := w.replace(groupResource, "g", map[string]string{"consumer.heartbeat.interval.ms": "6000"}); r.ErrorCode != 0 {
		t.Errorf("AlterConfigs: %+v", r)
	}
	if got, _ := w.described(groupResource, "g"); got["consumer.session.timeout.ms"] != "46000 5" || got["consumer.heartbeat.interval.ms"] != "6000 8" {
		t.Errorf("AlterConfigs replaces: %v", got)
	}
	if _, code := w.described(groupResource, ""); code != protocol.InvalidRequest {
		t.Errorf("describing no group: error %d", code)
	}
}

// What is set for a group, its members are told at their next heartbeat.
func TestAGroupsConfigsHoldForItsMembers(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	b.coordinates("g")
	w := b.dial()
	beat := func(epoch int32) *kmsg.ConsumerGroupHeartbeatResponse {
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.SetVersion(1)
		req.Group, req.MemberID, req.MemberEpoch = "g", "AAAAAAAAAAAAAAAAAAAAAA", epoch
		if epoch == 0 {
			req.RebalanceTimeoutMillis = 60_000
			req.SubscribedTopicNames = []string{"t"}
			req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		}
		resp := ask[*kmsg.ConsumerGroupHeartbeatResponse](w, req)
		if resp.ErrorCode != 0 {
			t.Fatalf("error %d, %s", resp.ErrorCode, str(resp.ErrorMessage))
		}
		return resp
	}
	first := beat(0)
	if first.HeartbeatIntervalMillis != 5000 {
		t.Errorf("heartbeats every %d ms at first", first.HeartbeatIntervalMillis)
	}
	if r := w.alter(groupResource, "g", false, alteration{opSet, "consumer.heartbeat.interval.ms", "7000"}); r.ErrorCode != 0 {
		t.Fatalf("%+v", r)
	}
	if resp := beat(first.MemberEpoch); resp.HeartbeatIntervalMillis != 7000 {
		t.Errorf("heartbeats every %d ms, want 7000", resp.HeartbeatIntervalMillis)
	}
}

// KIP-714: subscriptions to clients' metrics are kept, although nothing is
// collected.
func TestClientMetricsAreKept(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for _, c := range []struct {
		name    string
		changes []alteration
		want    int16
	}{
		{"s", []alteration{{opSet, "interval.ms", "60000"}, {opSet, "metrics", "org.apache.kafka.producer."}, {opSet, "match", "client_software_name=.*go.*"}}, 0},
		{"s", []alteration{{opAppend, "metrics", "org.apache.kafka.consumer."}}, 0},
		{"s", []alteration{{opSet, "interval.ms", "99"}}, 42},
		{"s", []alteration{{opSet, "interval.ms", "soon"}}, 40},
		{"s", []alteration{{opSet, "color", "red"}}, 42},
		{"s", []alteration{{opSet, "match", "client_id=("}}, 40},
		{"", []alteration{{opSet, "interval.ms", "60000"}}, 42},
	} {
		if r := w.alter(metricsResource, c.name, false, c.changes...); r.ErrorCode != c.want {
			t.Errorf("%v: error %d, %s; want %d", c.changes, r.ErrorCode, str(r.ErrorMessage), c.want)
		}
	}
	got, code := w.described(metricsResource, "s")
	want := map[string]string{"interval.ms": "60000 7", "metrics": "org.apache.kafka.producer.,org.apache.kafka.consumer. 7", "match": "client_software_name=.*go.* 7"}
	if code != protocol.None || !maps.Equal(got, want) {
		t.Errorf("error %d, %v, want %v", code, got, want)
	}
}

// KIP-412 and Kafka's RuntimeLoggerManager: levels change what is written, at once.
func TestLevelsOfLoggersChangeWhatIsWritten(t *testing.T) {
	var mu sync.Mutex
	var out bytes.Buffer
	levels := NewLevels(slog.LevelInfo)
	logger := slog.New(levels.Handler(slog.NewTextHandler(writerFunc(func(p []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(p)
	}), &slog.HandlerOptions{Level: slog.Level(-100)})))
	b := startBrokerWith(t, nil, func(s *Server) { s.Levels, s.Logger = levels, logger })
	w := b.dial()
	written := func(level slog.Level) bool {
		mu.Lock()
		out.Reset()
		mu.Unlock()
		logger.Log(context.Background(), level, "line of a test") // which is of the package server
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(out.String(), "line of a test")
	}
	if written(slog.LevelDebug) || !written(slog.LevelInfo) {
		t.Fatal("the level is not INFO at first")
	}
	for _, c := range []struct {
		change alteration
		debug  bool
		info   bool
	}{
		{alteration{opSet, "millrace.server", "DEBUG"}, true, true},
		{alteration{opSet, "millrace.server", "ERROR"}, false, false},
		{alteration{opSet, "root", "TRACE"}, false, false},
		{alteration{opDelete, "millrace.server", ""}, true, true},
		{alteration{opSet, "millrace", "WARN"}, false, false},
		{alteration{opSet, "millrace.server.group", "TRACE"}, false, false},
		{alteration{opDelete, "millrace", ""}, true, true},
		{alteration{opSet, "root", "INFO"}, false, true},
	} {
		if r := w.alter(loggerResource, "1", false, c.change); r.ErrorCode != 0 {
			t.Fatalf("%v: error %d, %s", c.change, r.ErrorCode, str(r.ErrorMessage))
		}
		if written(slog.LevelDebug) != c.debug || written(slog.LevelInfo) != c.info {
			t.Errorf("after %v: debug lines written %v, info lines %v; want %v, %v", c.change, written(slog.LevelDebug), written(slog.LevelInfo), c.debug, c.info)
		}
	}
	got, code := w.described(loggerResource, "1")
	if code != protocol.None || len(got) != len(loggers) || got["root"] != "INFO 6" || got["millrace.server.group"] != "TRACE 6" || got["millrace.log"] != "INFO 6" {
		t.Errorf("error %d, %v", code, got)
	}
	for _, c := range []struct {
		name    string
		node    string
		changes []alteration
		want    int16
		message string
	}{
		{"a logger that is not there", "1", []alteration{{opSet, "kafka.server", "INFO"}}, 40, "Logger kafka.server does not exist!"},
		{"an unknown level", "1", []alteration{{opSet, "root", "LOUD"}}, 40, "Cannot set the log level of root to LOUD as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"},
		{"the root's taken away", "1", []alteration{{opDelete, "root", ""}}, 42, "Removing the log level of the root logger is not allowed"},
		{"append", "1", []alteration{{opAppend, "root", "INFO"}}, 42, "APPEND operation is not allowed for the BROKER_LOGGER resource"},
		{"twice", "1", []alteration{{opSet, "root", "INFO"}, {opSet, "root", "DEBUG"}}, 42, "Error due to duplicate config keys"},
		{"one bad spoils all", "1", []alteration{{opSet, "root", "TRACE"}, {opSet, "x", "INFO"}}, 40, "Logger x does not exist!"},
		{"another node's", "2", []alteration{{opSet, "root", "INFO"}}, 42, "Unexpected broker id, expected 1 but received 2"},
		{"nobody's", "", []alteration{{opSet, "root", "INFO"}}, 42, "Broker id must not be empty"},
		{"no number", "x", []alteration{{opSet, "root", "INFO"}}, 42, "Node id must be an integer, but it is: x"},
	} {
		if r := w.alter(loggerResource, c.node, false, c.changes...); r.ErrorCode != c.want || str(r.ErrorMessage) != c.message {
			t.Errorf("%s: error %d, %s; want %d, %s", c.name, r.ErrorCode, str(r.ErrorMessage), c.want, c.message)
		}
	}
	if r := w.alter(loggerResource, "1", true, alteration{opSet, "root", "TRACE"}); r.ErrorCode != 0 || written(slog.LevelDebug) {
		t.Errorf("validate only: error %d, or it was set", r.ErrorCode)
	}
	if r := w.replace(loggerResource, "1", map[string]string{"root": "INFO"}); r.ErrorCode != 42 || str(r.ErrorMessage) != "Unknown resource type 8" {
		t.Errorf("AlterConfigs: error %d, %s", r.ErrorCode, str(r.ErrorMessage))
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Every package that logs is a logger, and every logger a package that does.
func TestLoggersAreThePackagesThatLog(t *testing.T) {
	found := map[string]bool{rootLogger: true, "millrace": true}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		// What is in internal logs on behalf of others, and brokertest is for others' tests.
		if err != nil || d.IsDir() && slices.Contains([]string{"testdata", ".git", "internal", "brokertest"}, d.Name()) {
			if err == nil {
				err = filepath.SkipDir
			}
			return err
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, i := range f.Imports {
			if i.Path.Value == `"log/slog"` {
				dir, err := filepath.Rel("..", filepath.Dir(path))
				if err != nil {
					return err
				}
				name := "millrace"
				if dir != "." {
					name += "." + strings.ReplaceAll(filepath.ToSlash(dir), "/", ".")
				}
				found[name] = true
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(found)); !slices.Equal(got, slices.Sorted(slices.Values(loggers))) {
		t.Errorf("packages that log: %v, loggers: %v", got, loggers)
	}
}

// KIP-1142.
func TestListConfigResources(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	w := b.dial()
	w.alter(groupResource, "g", false, alteration{opSet, "consumer.session.timeout.ms", "50000"})
	w.alter(metricsResource, "s", false, alteration{opSet, "interval.ms", "60000"})
	for _, c := range []struct {
		version int16
		types   []int8
		want    []string
		code    protocol.Code
	}{
		{0, nil, []string{"s"}, protocol.None},
		{1, nil, []string{"32 g", "16 s", "8 1", "4 1", "2 t"}, protocol.None},
		{1, []int8{2, 32}, []string{"32 g", "2 t"}, protocol.None},
		{1, []int8{2, 3}, nil, protocol.UnsupportedVersion},
		{1, []int8{0}, nil, protocol.UnsupportedVersion},
	} {
		req := kmsg.NewPtrListConfigResourcesRequest()
		req.SetVersion(c.version)
		req.ResourceTypes = c.types
		resp := ask[*kmsg.ListConfigResourcesResponse](w, req)
		var got []string
		for _, r := range resp.ConfigResources {
			if c.version == 0 {
				got = append(got, r.Name)
			} else {
				got = append(got, fmt.Sprintf("%d %s", r.Type, r.Name))
			}
		}
		if resp.ErrorCode != int16(c.code) || !slices.Equal(got, c.want) {
			t.Errorf("version %d, types %v: error %d, %v; want %d, %v", c.version, c.types, resp.ErrorCode, got, c.code, c.want)
		}
	}
	for _, a := range []struct {
		kind kmsg.ConfigResourceType
		name string
		key  string
	}{{groupResource, "g", "consumer.session.timeout.ms"}, {metricsResource, "s", "interval.ms"}} {
		w.alter(a.kind, a.name, false, alteration{opDelete, a.key, ""})
	}
	req := kmsg.NewPtrListConfigResourcesRequest()
	req.SetVersion(1)
	req.ResourceTypes = []int8{32, 16}
	if resp := ask[*kmsg.ListConfigResourcesResponse](w, req); len(resp.ConfigResources) != 0 {
		t.Errorf("without settings left: %v", resp.ConfigResources)
	}
}

// As Kafka's DynamicBrokerConfig: one broker's retention, batch size and codec,
// and names nobody knows, whose values are secrets.
func TestABrokerHasSettingsOfItsOwn(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	w := b.dial()
	if r := w.alter(brokerResource, "1", false, alteration{opSet, "log.retention.ms", "5000"}, alteration{opSet, "message.max.bytes", "200"},
		alteration{opSet, "compression.type", "zstd"}, alteration{opSet, "num.io.threads", "12"}); r.ErrorCode != 0 {
		t.Fatalf("error %d, %s", r.ErrorCode, str(r.ErrorMessage))
	}
	if got, _ := w.described(kmsg.ConfigResourceTypeTopic, "t"); got["retention.ms"] != "5000 2" || got["max.message.bytes"] != "200 2" {
		t.Errorf("a topic: retention.ms %s, max.message.bytes %s", got["retention.ms"], got["max.message.bytes"])
	}
	if got, _ := w.described(brokerResource, "1"); got["num.io.threads"] != "null 2" || got["log.retention.ms"] != "5000 2" {
		t.Errorf("the broker: num.io.threads %s, log.retention.ms %s", got["num.io.threads"], got["log.retention.ms"])
	}
	cl := b.client(kgo.ProducerBatchCompression(kgo.NoCompression()))
	if err := cl.ProduceSync(testContext(t), &kgo.Record{Topic: "t", Value: []byte(strings.Repeat("x", 300))}).FirstErr(); err == nil {
		t.Error("a batch above the broker's message.max.bytes is taken")
	}
}

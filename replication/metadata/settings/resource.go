package settings

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
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

// resourceSettings are the settings of what is neither a topic nor a broker, as
// Kafka 4.1 has them (GroupConfig, ClientMetricsConfigs).
var resourceSettings = map[ResourceKind][]*Definition{
	Group: sorted([]*Definition{
		{Name: "consumer.session.timeout.ms", Type: Int, Default: "45000", valid: atLeast(1), Synonyms: other("group.consumer.session.timeout.ms"),
			Doc: "Session timeout of the group's members (KIP-848)."},
		{Name: "consumer.heartbeat.interval.ms", Type: Int, Default: "5000", valid: atLeast(1), Synonyms: other("group.consumer.heartbeat.interval.ms"),
			Doc: "Time between heartbeats of the group's members (KIP-848)."},
		{Name: "share.session.timeout.ms", Type: Int, Default: "45000", valid: between(45000, 60000), Doc: noShareGroups},
		{Name: "share.heartbeat.interval.ms", Type: Int, Default: "5000", valid: between(5000, 15000), Doc: noShareGroups},
		{Name: "share.record.lock.duration.ms", Type: Int, Default: "30000", valid: between(15000, 60000), Doc: noShareGroups},
		{Name: "share.auto.offset.reset", Type: String, Default: "latest", valid: rule{"latest, earliest or by_duration:PT…", offsetReset}, Doc: noShareGroups},
		{Name: "share.isolation.level", Type: String, Default: "read_uncommitted", valid: oneOf("read_committed", "read_uncommitted"), Doc: noShareGroups},
		{Name: "streams.session.timeout.ms", Type: Int, Default: "45000", valid: between(45000, 60000), Doc: noStreamsGroups},
		{Name: "streams.heartbeat.interval.ms", Type: Int, Default: "5000", valid: between(5000, 15000), Doc: noStreamsGroups},
		{Name: "streams.num.standby.replicas", Type: Int, Default: "0", valid: between(0, 2), Doc: noStreamsGroups},
	}),
	ClientMetrics: sorted([]*Definition{
		{Name: "metrics", Type: List, Doc: noTelemetry},
		{Name: "interval.ms", Type: Int, Default: "300000", valid: rule{"100 to 3600000, or 0", pushInterval}, Doc: noTelemetry},
		{Name: "match", Type: List, valid: rule{"NAME=EXPRESSION,…", clientMatch}, Doc: noTelemetry},
	}),
}

const (
	noShareGroups   = "Accepted without effect: there are no share groups (KIP-932)."
	noStreamsGroups = "Accepted without effect: there are no streams groups (KIP-1071)."
	noTelemetry     = "Accepted without effect: clients' metrics are not collected (KIP-714)."
)

// ResourceDefinition finds a setting of a kind of resource.
func ResourceDefinition(kind ResourceKind, name string) (*Definition, bool) {
	return find(resourceSettings[kind], name)
}

// ResourceDefinitions lists the settings of a kind of resource, by name.
func ResourceDefinitions(kind ResourceKind) []*Definition { return visible(resourceSettings[kind]) }

// ValidateResource checks settings given for a resource, each by itself. The error is
// ErrInvalid. What nodes bound in their configuration files is no part of it: see
// [ConsumerGroups.Validate].
func ValidateResource(kind ResourceKind, config map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(config)) {
		d, ok := ResourceDefinition(kind, name)
		if !ok && kind == ClientMetrics {
			return invalid("Unknown client metrics configuration: %s", Shown(name))
		}
		if !ok {
			return invalid("Unknown group config name: %s", Shown(name))
		}
		if _, err := d.Validate(config[name]); err != nil {
			return err
		}
	}
	return nil
}

// Validate checks whether a group may have these settings, all of those it would have, on
// a node with the settings s. The error is ErrInvalid, in the words of Kafka's GroupConfig.
func (s *ConsumerGroups) Validate(config map[string]string) error {
	number := func(name string, standard int32) int32 {
		if n, err := strconv.ParseInt(strings.TrimSpace(config[name]), 10, 32); err == nil {
			return int32(n)
		}
		return standard
	}
	const session, interval = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
	timeout, beat := number(session, s.SessionTimeoutMillis), number(interval, s.HeartbeatIntervalMillis)
	_, timed := config[session]
	_, beats := config[interval]
	switch {
	case beats && beat < s.MinHeartbeatIntervalMillis:
		return invalid("%s must be greater than or equal to group.consumer.min.heartbeat.interval.ms", interval)
	case beats && beat > s.MaxHeartbeatIntervalMillis:
		return invalid("%s must be less than or equal to group.consumer.max.heartbeat.interval.ms", interval)
	case timed && timeout < s.MinSessionTimeoutMillis:
		return invalid("%s must be greater than or equal to group.consumer.min.session.timeout.ms", session)
	case timed && timeout > s.MaxSessionTimeoutMillis:
		return invalid("%s must be less than or equal to group.consumer.max.session.timeout.ms", session)
	case (timed || beats) && timeout <= beat:
		return invalid("%s must be greater than %s", session, interval)
	}
	return nil
}

// GroupTimes are what was set for a consumer group, config, as numbers; 0 for what is not.
func GroupTimes(config map[string]string) (sessionMillis, heartbeatMillis int32) {
	number := func(name string) int32 {
		n, err := strconv.ParseInt(strings.TrimSpace(config[name]), 10, 32)
		if err != nil || n < 1 {
			return 0
		}
		return int32(n)
	}
	return number("consumer.session.timeout.ms"), number("consumer.heartbeat.interval.ms")
}

var duration = regexp.MustCompile(`^by_duration:P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$`)

func offsetReset(value string) string {
	if value == "latest" || value == "earliest" || duration.MatchString(value) && !strings.HasSuffix(value, "P") && !strings.HasSuffix(value, "T") {
		return ""
	}
	return "Value must be latest, earliest or by_duration:PnDTnHnMn.nS"
}

func pushInterval(value string) string {
	if between(100, 3_600_000).wrong(value) != "" {
		return "interval must be between 100 and 3600000 (1 hour)"
	}
	return ""
}

// clientMatch looks at patterns as Kafka's ClientMetricsConfigs does. They are Java's
// there and Go's here: what only Java can read is refused.
func clientMatch(value string) string {
	params := []string{"client_instance_id", "client_id", "client_software_name", "client_software_version", "client_source_address", "client_source_port"}
	for _, pattern := range elements(value) {
		param, text, _ := strings.Cut(pattern, "=")
		_, err := regexp.Compile(strings.TrimSpace(text))
		if !slices.Contains(params, strings.TrimSpace(param)) || text == "" || strings.Contains(text, "=") || err != nil {
			return "Illegal client matching pattern: " + pattern
		}
	}
	return ""
}

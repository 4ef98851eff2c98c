package group

import (
	"math"
	"strings"
	"time"
)

// A SettingsSource says what is set. It is asked at each use, so that settings can
// change while groups live, and does not block.
type SettingsSource interface {
	// Settings are those of all groups.
	Settings() Settings
	// OfGroup are those of one group, by its name.
	OfGroup(id string) GroupSettings
}

// defaults is a source where nothing is set.
type defaults struct{}

func (defaults) Settings() Settings           { return Settings{} }
func (defaults) OfGroup(string) GroupSettings { return GroupSettings{} }

// Settings are the settings of groups. The zero value of each field means Kafka's
// default.
type Settings struct {
	MinSessionTimeout time.Duration // group.min.session.timeout.ms, 6 s
	MaxSessionTimeout time.Duration // group.max.session.timeout.ms, 30 min

	// InitialRebalanceDelay is how long a group that had no members waits for more
	// after the first: group.initial.rebalance.delay.ms, 3 s. Negative: not at all.
	InitialRebalanceDelay time.Duration

	MaxSize int // members a group: group.max.size, no limit but MaxGroupBytes

	// MaxGroupBytes bounds what the members of one group hold: names, subscriptions
	// and assignments, which is also what its metadata record and the leader's
	// JoinGroup response carry. 8 MiB. A join beyond it gets GROUP_MAX_SIZE_REACHED.
	MaxGroupBytes int

	// MaxBytes bounds the same over all groups of the node, those about to join
	// included. 256 MiB.
	MaxBytes int

	OffsetRetention        time.Duration // offsets.retention.minutes, 7 days
	RetentionCheckInterval time.Duration // offsets.retention.check.interval.ms, 10 min
	MaxMetadataBytes       int           // of one offset: offset.metadata.max.bytes, 4096

	Consumer ConsumerSettings
}

// ConsumerSettings are those of KIP-848: group.consumer.*.
type ConsumerSettings struct {
	SessionTimeout       time.Duration // group.consumer.session.timeout.ms, 45 s
	MinSessionTimeout    time.Duration // group.consumer.min.session.timeout.ms, 45 s
	MaxSessionTimeout    time.Duration // group.consumer.max.session.timeout.ms, 60 s
	HeartbeatInterval    time.Duration // group.consumer.heartbeat.interval.ms, 5 s
	MinHeartbeatInterval time.Duration // group.consumer.min.heartbeat.interval.ms, 5 s
	MaxHeartbeatInterval time.Duration // group.consumer.max.heartbeat.interval.ms, 15 s
	MaxSize              int           // group.consumer.max.size, no limit
	Assignors            []string      // group.consumer.assignors, uniform and range; the first is the default
	RegexRefresh         time.Duration // group.consumer.regex.refresh.interval.ms, 10 min

	// MigrationPolicy says which groups change their type while members are in them:
	// group.consumer.migration.policy, "disabled" (none), "upgrade" (classic ones, when
	// a consumer joins), "downgrade" (consumer ones, when the last consumer goes) or
	// "bidirectional". Letter case does not count; "disabled".
	MigrationPolicy string
}

// GroupSettings are what is set for one group of the consumer protocol: the config
// resource GROUP (KIP-848). Zero means the broker's default; values beyond the
// bounds of ConsumerSettings count as the bound, since bounds may change later.
type GroupSettings struct {
	SessionTimeout    time.Duration // consumer.session.timeout.ms
	HeartbeatInterval time.Duration // consumer.heartbeat.interval.ms
}

// of returns what holds for a group for which g is set.
func (c ConsumerSettings) of(g GroupSettings) GroupSettings {
	if g.SessionTimeout <= 0 {
		g.SessionTimeout = c.SessionTimeout
	}
	if g.HeartbeatInterval <= 0 {
		g.HeartbeatInterval = c.HeartbeatInterval
	}
	g.SessionTimeout = min(max(g.SessionTimeout, c.MinSessionTimeout), c.MaxSessionTimeout)
	g.HeartbeatInterval = min(max(g.HeartbeatInterval, c.MinHeartbeatInterval), c.MaxHeartbeatInterval)
	return g
}

// upgrades and downgrades tell what the migration policy allows.
func (c ConsumerSettings) upgrades() bool {
	return strings.EqualFold(c.MigrationPolicy, "upgrade") || strings.EqualFold(c.MigrationPolicy, "bidirectional")
}

func (c ConsumerSettings) downgrades() bool {
	return strings.EqualFold(c.MigrationPolicy, "downgrade") || strings.EqualFold(c.MigrationPolicy, "bidirectional")
}

func (s Settings) withDefaults() Settings {
	fill(&s.MinSessionTimeout, 6*time.Second)
	fill(&s.MaxSessionTimeout, 30*time.Minute)
	fill(&s.InitialRebalanceDelay, 3*time.Second)
	s.InitialRebalanceDelay = max(s.InitialRebalanceDelay, 0)
	fill(&s.MaxSize, math.MaxInt32)
	fill(&s.MaxGroupBytes, 8<<20)
	fill(&s.MaxBytes, 256<<20)
	fill(&s.OffsetRetention, 7*24*time.Hour)
	fill(&s.RetentionCheckInterval, 10*time.Minute)
	fill(&s.MaxMetadataBytes, 4096)

	c := &s.Consumer
	fill(&c.SessionTimeout, 45*time.Second)
	fill(&c.MinSessionTimeout, 45*time.Second)
	fill(&c.MaxSessionTimeout, 60*time.Second)
	fill(&c.HeartbeatInterval, 5*time.Second)
	fill(&c.MinHeartbeatInterval, 5*time.Second)
	fill(&c.MaxHeartbeatInterval, 15*time.Second)
	fill(&c.MaxSize, math.MaxInt32)
	fill(&c.RegexRefresh, 10*time.Minute)
	fill(&c.MigrationPolicy, "disabled")
	if len(c.Assignors) == 0 {
		c.Assignors = []string{"uniform", "range"}
	}
	return s
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

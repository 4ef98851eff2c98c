package settings

import (
	"maps"
	"slices"
)

const (
	minute = 60 * 1000
	hour   = 60 * minute
	day    = 24 * hour

	maxLong = "9223372036854775807"
	maxInt  = "2147483647"
)

// topicSettings are all settings a topic has in Kafka 4.1, with its defaults
// save where the comment says so. Settings that have no effect here say it in
// their Doc; they are kept all the same, because tools set and compare them.
var topicSettings = sorted(named([]*Definition{
	{Name: "cleanup.policy", Type: List, Default: "delete", valid: eachOneOf("compact", "delete"), Synonyms: same("log."),
		Doc: "What is done with old segments: delete them, compact them to the last record of each key, or both; empty keeps everything."},
	{Name: "compression.gzip.level", Type: Int, Default: "-1", valid: gzipLevel, Synonyms: same(""),
		Doc: "Level used when compression.type is gzip: 1 to 9, or -1 for the codec's own."},
	{Name: "compression.lz4.level", Type: Int, Default: "9", valid: between(1, 17), Synonyms: same(""),
		Doc: "Level used when compression.type is lz4."},
	{Name: "compression.type", Type: String, Default: "producer", valid: oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"), Synonyms: same(""),
		Doc: "Codec batches are stored with; producer keeps the one they arrive with."},
	{Name: "compression.zstd.level", Type: Int, Default: "3", valid: between(-131072, 22), Synonyms: same(""),
		Doc: "Level used when compression.type is zstd."},
	{Name: "delete.retention.ms", Type: Long, Default: "86400000", valid: atLeast(0), Synonyms: same("log.cleaner."),
		Doc: "How long compaction keeps a record that deletes its key, so that readers can see it."},
	{Name: "file.delete.delay.ms", Type: Long, Default: "60000", valid: atLeast(0), Synonyms: other("log.segment.delete.delay.ms"),
		Doc: "How long deletion and compaction wait after a change of the topic's retention, cleanup or segment settings: changing them back in this time saves what they would have deleted."},
	// Kafka's default is to leave flushing to the page cache. Ours is to acknowledge nothing that a power loss could take.
	{Name: "flush.messages", Type: Long, Default: "1", valid: atLeast(1), Synonyms: other("log.flush.interval.messages"),
		Doc: "1: records are fsynced before they are acknowledged, concurrent writes together. More: after that many records, which trades safety of a power loss for speed."},
	{Name: "flush.ms", Type: Long, Default: maxLong, valid: atLeast(0), Synonyms: []Synonym{{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}},
		Doc: "Longest time a record stays unsynced where flush.messages is more than 1."},
	{Name: "follower.replication.throttled.replicas", Type: List, Default: "", valid: throttledReplicas,
		Doc: "Accepted without effect: catching up is limited for each node as a whole."},
	{Name: "index.interval.bytes", Type: Int, Default: "4096", valid: atLeast(0), Synonyms: same("log."),
		Doc: "Accepted without effect: every entry is indexed."},
	{Name: "internal.segment.bytes", Type: Int, Null: true, valid: atLeast(1), Hidden: true,
		Doc: "Size of a segment below the bound of segment.bytes, for tests."},
	{Name: "leader.replication.throttled.replicas", Type: List, Default: "", valid: throttledReplicas,
		Doc: "Accepted without effect: catching up is limited for each node as a whole."},
	{Name: "local.retention.bytes", Type: Long, Default: "-2", valid: atLeast(-2), Synonyms: same("log."),
		Doc: "Accepted without effect: there is no remote storage."},
	{Name: "local.retention.ms", Type: Long, Default: "-2", valid: atLeast(-2), Synonyms: same("log."),
		Doc: "Accepted without effect: there is no remote storage."},
	{Name: "max.compaction.lag.ms", Type: Long, Default: maxLong, valid: atLeast(1), Synonyms: same("log.cleaner."),
		Doc: "Longest time a record may stay uncompacted."},
	{Name: "max.message.bytes", Type: Int, Default: "1048588", valid: atLeast(0), Synonyms: other("message.max.bytes"),
		Doc: "Largest batch that is accepted, compressed, with its header."},
	{Name: "message.timestamp.after.max.ms", Type: Long, Default: "3600000", valid: atLeast(0), Synonyms: same("log."),
		Doc: "How far a record's own timestamp may lie in the future; ignored with LogAppendTime."},
	{Name: "message.timestamp.before.max.ms", Type: Long, Default: maxLong, valid: atLeast(0), Synonyms: same("log."),
		Doc: "How far a record's own timestamp may lie in the past; ignored with LogAppendTime."},
	{Name: "message.timestamp.type", Type: String, Default: "CreateTime", valid: oneOf("CreateTime", "LogAppendTime"), Synonyms: same("log."),
		Doc: "Whether a record carries the time its producer gave it or the time it was appended."},
	{Name: "min.cleanable.dirty.ratio", Type: Double, Default: "0.5", valid: between(0, 1), Synonyms: other("log.cleaner.min.cleanable.ratio"),
		Doc: "Share of a log that must be uncompacted before compaction is worth it."},
	{Name: "min.compaction.lag.ms", Type: Long, Default: "0", valid: atLeast(0), Synonyms: same("log.cleaner."),
		Doc: "Shortest time a record stays uncompacted."},
	{Name: "min.insync.replicas", Type: Int, Default: "1", valid: atLeast(1), Synonyms: same(""),
		Doc: "Accepted without effect: a write is acknowledged by a majority of its partition's replicas, whatever this says and whatever acks asks for."},
	{Name: "preallocate", Type: Boolean, Default: "false", Synonyms: same("log."),
		Doc: "Accepted without effect: segments are always preallocated, in steps."},
	{Name: "remote.log.copy.disable", Type: Boolean, Default: "false",
		Doc: "Accepted without effect: there is no remote storage."},
	{Name: "remote.log.delete.on.disable", Type: Boolean, Default: "false",
		Doc: "Accepted without effect: there is no remote storage."},
	{Name: "remote.storage.enable", Type: Boolean, Default: "false",
		valid: never("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."),
		Doc:   "Only false: there is no remote storage."},
	{Name: "retention.bytes", Type: Long, Default: "-1", Synonyms: same("log."),
		Doc: "Bytes of a partition above which its oldest segments are deleted; -1 is no limit."},
	{Name: "retention.ms", Type: Long, Default: "604800000", valid: atLeast(-1),
		Synonyms: []Synonym{{"log.retention.ms", 1}, {"log.retention.minutes", minute}, {"log.retention.hours", hour}},
		Doc:      "Age at which segments are deleted; -1 is no limit."},
	{Name: "segment.bytes", Type: Int, Default: "1073741824", valid: atLeast(1 << 20), Synonyms: same("log."),
		Doc: "Size of a segment. Retention deletes and compaction rewrites whole segments."},
	{Name: "segment.index.bytes", Type: Int, Default: "10485760", valid: atLeast(4), Synonyms: other("log.index.size.max.bytes"),
		Doc: "Accepted without effect: an index has the size its segment needs."},
	{Name: "segment.jitter.ms", Type: Long, Default: "0", valid: atLeast(0), Synonyms: []Synonym{{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hour}},
		Doc: "Largest random time by which a segment is closed before segment.ms is up."},
	{Name: "segment.ms", Type: Long, Default: "604800000", valid: atLeast(1), Synonyms: []Synonym{{"log.roll.ms", 1}, {"log.roll.hours", hour}},
		Doc: "Age at which a segment is closed even if it is not full, so that retention can have it."},
	{Name: "unclean.leader.election.enable", Type: Boolean, Default: "false", Synonyms: same(""),
		Doc: "Accepted without effect: a replica that lacks acknowledged records never leads."},
}))

// same names a synonym like the setting itself, with a prefix; named completes it.
func same(prefix string) []Synonym { return []Synonym{{prefix, 0}} }

func other(name string) []Synonym { return []Synonym{{name, 1}} }

func named(all []*Definition) []*Definition {
	for _, d := range all {
		for i, s := range d.Synonyms {
			if s.Scale == 0 {
				d.Synonyms[i] = Synonym{s.Name + d.Name, 1}
			}
		}
	}
	return all
}

// A CompressionType is what batches are stored with, under the number a batch's
// attributes use.
type CompressionType int8

// The values of compression.type.
const (
	CompressionProducer CompressionType = -1 // as they arrive
	CompressionNone     CompressionType = 0
	CompressionGzip     CompressionType = 1
	CompressionSnappy   CompressionType = 2
	CompressionLZ4      CompressionType = 3
	CompressionZstd     CompressionType = 4
)

// A TimestampType says whose clock a record's timestamp is from, under the
// number a batch's attributes use.
type TimestampType int8

// The values of message.timestamp.type.
const (
	CreateTime    TimestampType = 0
	LogAppendTime TimestampType = 1
)

// A Topic is the settings of a topic as numbers, each in force whatever its source.
// Settings without effect are not among them.
type Topic struct {
	RetentionMillis     int64 // -1: no limit
	RetentionBytes      int64 // of a partition; -1: no limit
	SegmentBytes        int64
	SegmentMillis       int64
	SegmentJitterMillis int64

	FileDeleteDelayMillis int64 // after a change of what decides about deletion

	CleanupDelete          bool // cleanup.policy; both may be true, or neither
	CleanupCompact         bool
	MinCleanableDirtyRatio float64
	MinCompactionLagMillis int64
	MaxCompactionLagMillis int64
	DeleteRetentionMillis  int64

	MaxMessageBytes          int32
	CompressionType          CompressionType
	CompressionLevel         int // of CompressionType; 0 where the codec has none. -1 is gzip's own, zstd's may be negative
	TimestampType            TimestampType
	TimestampBeforeMaxMillis int64
	TimestampAfterMaxMillis  int64

	FlushMessages int64 // 1: fsync before every acknowledgement
	FlushMillis   int64
}

// Topic resolves the settings of a topic: what was set for it, config, else for the
// broker at run time, else for the cluster, else in the node's own settings, else the
// default. It takes a few microseconds: keep the result while the image is the same.
func (l Layers) Topic(config map[string]string) Topic {
	r := resolver{topic: config, layers: l}
	s := Topic{
		RetentionMillis:     r.long("retention.ms"),
		RetentionBytes:      r.long("retention.bytes"),
		SegmentBytes:        r.long("segment.bytes"),
		SegmentMillis:       r.long("segment.ms"),
		SegmentJitterMillis: r.long("segment.jitter.ms"),

		FileDeleteDelayMillis: r.long("file.delete.delay.ms"),

		MinCleanableDirtyRatio: r.float("min.cleanable.dirty.ratio"),
		MinCompactionLagMillis: r.long("min.compaction.lag.ms"),
		MaxCompactionLagMillis: r.long("max.compaction.lag.ms"),
		DeleteRetentionMillis:  r.long("delete.retention.ms"),

		MaxMessageBytes:          int32(r.long("max.message.bytes")),
		TimestampBeforeMaxMillis: r.long("message.timestamp.before.max.ms"),
		TimestampAfterMaxMillis:  r.long("message.timestamp.after.max.ms"),

		FlushMessages: r.long("flush.messages"),
		FlushMillis:   r.long("flush.ms"),
	}
	s.RetentionBytes = max(s.RetentionBytes, -1) // Kafka takes any negative number
	if small := r.text("internal.segment.bytes"); small != "" {
		s.SegmentBytes = r.long("internal.segment.bytes")
	}
	for _, policy := range elements(r.text("cleanup.policy")) {
		switch policy {
		case "delete":
			s.CleanupDelete = true
		case "compact":
			s.CleanupCompact = true
		}
	}
	switch r.text("compression.type") {
	case "uncompressed":
		s.CompressionType = CompressionNone
	case "gzip":
		s.CompressionType, s.CompressionLevel = CompressionGzip, int(r.long("compression.gzip.level"))
	case "snappy":
		s.CompressionType = CompressionSnappy
	case "lz4":
		s.CompressionType, s.CompressionLevel = CompressionLZ4, int(r.long("compression.lz4.level"))
	case "zstd":
		s.CompressionType, s.CompressionLevel = CompressionZstd, int(r.long("compression.zstd.level"))
	default:
		s.CompressionType = CompressionProducer
	}
	if r.text("message.timestamp.type") == "LogAppendTime" {
		s.TimestampType = LogAppendTime
	}
	return s
}

// ValidateTopic checks settings given for a topic, each by itself. The error is ErrInvalid.
// What they mean together says [Topic.Validate].
func ValidateTopic(config map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(config)) {
		d, ok := TopicDefinition(name)
		if !ok {
			return invalid("Unknown topic config name: %s", Shown(name))
		}
		if _, err := d.Validate(config[name]); err != nil {
			return err
		}
	}
	return nil
}

// Validate checks that settings do not contradict each other. The error is ErrInvalid.
func (s *Topic) Validate() error {
	if s.MinCompactionLagMillis > s.MaxCompactionLagMillis {
		return invalid("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", s.MinCompactionLagMillis, s.MaxCompactionLagMillis)
	}
	return nil
}

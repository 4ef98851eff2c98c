package group

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
)

// The records of __consumer_offsets. Keys of version 0 and 1 are committed
// offsets, of version 2 a classic group's metadata; a null value ends what the key
// names. We write what Kafka 4.1 writes: offsets in version 4, which carries the
// topic's id (1 if the client asked for a retention of its own), and metadata in
// version 3.

// A key is the key of a record.
type key struct {
	version   int16
	group     string
	topic     string // 0, 1
	partition int32  // 0, 1
	rest      []byte // of other versions, everything behind the version
}

func parseKey(p []byte) (key, error) {
	r := kbin.Reader{Src: p}
	k := key{version: r.Int16()}
	switch k.version {
	case 0, 1:
		k.group, k.topic, k.partition = r.String(), r.String(), r.Int32()
	case 2:
		k.group = r.String()
	default:
		k.rest = r.Src
		r.Src = nil
	}
	if err := complete(&r); err != nil {
		return key{}, fmt.Errorf("key %.100x: %w", p, err)
	}
	return k, nil
}

// complete is an error if r has read too much or too little.
func complete(r *kbin.Reader) error {
	if err := r.Complete(); err != nil {
		return err
	}
	if len(r.Src) > 0 {
		return fmt.Errorf("%d bytes too many", len(r.Src))
	}
	return nil
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func offsetKey(group string, p place) []byte {
	k := kmsg.OffsetCommitKey{Version: 1, Group: group, Topic: p.topic, Partition: p.partition}
	return k.AppendTo(nil)
}

func offsetRecord(now time.Time, group string, p place, o committed) record.Record {
	v := kmsg.OffsetCommitValue{
		Version: 4, Offset: o.offset, LeaderEpoch: o.leaderEpoch, Metadata: o.metadata,
		CommitTimestamp: o.committedAt, TopicID: o.topicID,
	}
	if o.expiresAt != never {
		v.Version, v.ExpireTimestamp = 1, o.expiresAt
	}
	return record.Record{Timestamp: millis(now), Key: offsetKey(group, p), Value: v.AppendTo(nil)}
}

func offsetTombstone(now time.Time, group string, p place) record.Record {
	return record.Record{Timestamp: millis(now), Key: offsetKey(group, p)}
}

// parseOffset reads the value of an offset record. kmsg would do, but for the
// tagged fields of version 4: it loops as often as their count says.
func parseOffset(p []byte) (committed, error) {
	r := kbin.Reader{Src: p}
	o := committed{leaderEpoch: -1, expiresAt: never}
	version := r.Int16()
	if version < 0 || version > 4 {
		return o, fmt.Errorf("offset of unknown version %d", version)
	}
	o.offset = r.Int64()
	if version >= 3 {
		o.leaderEpoch = r.Int32()
	}
	if version >= 4 {
		o.metadata = r.CompactString()
	} else {
		o.metadata = r.String()
	}
	o.committedAt = r.Int64()
	if version == 1 {
		o.expiresAt = r.Int64()
	}
	if version >= 4 {
		for n := r.Uvarint(); n > 0 && r.Ok(); n-- {
			tag, body := r.Uvarint(), kbin.Reader{}
			body.Src = r.Span(int(r.Uvarint()))
			if tag == 0 {
				o.topicID = body.Uuid()
				if err := complete(&body); err != nil {
					return o, fmt.Errorf("offset's topic id: %w", err)
				}
			}
		}
	}
	if err := complete(&r); err != nil {
		return o, fmt.Errorf("offset: %w", err)
	}
	return o, nil
}

func classicKey(group string) []byte {
	k := kmsg.GroupMetadataKey{Version: 2, Group: group}
	return k.AppendTo(nil)
}

func classicTombstone(now time.Time, group string) record.Record {
	return record.Record{Timestamp: millis(now), Key: classicKey(group)}
}

// parseClassic reads the value of a classic group's metadata. Version 4, which
// nobody writes, has tagged fields, and kmsg would loop over them.
func parseClassic(p []byte) (*kmsg.GroupMetadataValue, error) {
	r := kbin.Reader{Src: p}
	if v := r.Int16(); len(p) < 2 || v < 0 || v > 3 {
		return nil, fmt.Errorf("metadata of unknown version %d", v)
	}
	v := kmsg.NewGroupMetadataValue()
	if err := v.ReadFrom(p); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	return &v, nil
}

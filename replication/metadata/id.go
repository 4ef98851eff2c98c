package metadata

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
)

// A TopicID names a topic for good. A topic that is deleted and created again
// under its old name has another id. (KIP-516)
type TopicID [16]byte

// Strict: two texts never mean the same id, so an id may be compared as text.
var idText = base64.RawURLEncoding.Strict()

// NewTopicID reads a random id from random, which is crypto/rand.Reader outside
// of tests. Like Kafka's, it is never one of the ids kept for other purposes
// and its text never begins with '-', so that it can be given as an argument.
func NewTopicID(random io.Reader) (TopicID, error) {
	for {
		var id TopicID
		if _, err := io.ReadFull(random, id[:]); err != nil {
			return TopicID{}, fmt.Errorf("new topic id: %w", err)
		}
		if !id.reserved() && id.String()[0] != '-' {
			return id, nil
		}
	}
}

// ParseTopicID reads what String wrote.
func ParseTopicID(s string) (TopicID, error) {
	var id TopicID
	if err := id.UnmarshalText([]byte(s)); err != nil {
		return TopicID{}, err
	}
	return id, nil
}

// String is the id in base64, URL-safe and unpadded, 22 characters: the text of Kafka's Uuid.
func (id TopicID) String() string { return idText.EncodeToString(id[:]) }

// IsZero reports whether the id is the one that stands for "no id" on the wire.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// MarshalText writes String.
func (id TopicID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *TopicID) UnmarshalText(text []byte) error {
	if len(text) != 22 {
		return fmt.Errorf("metadata: topic id has %d characters, must have 22", len(text))
	}
	var read TopicID
	// The decoder skips line breaks, which is the other way for 22 characters not to be an id.
	if n, err := idText.Decode(read[:], text); err != nil || n != len(read) {
		return fmt.Errorf("metadata: topic id %q is not base64", text)
	}
	*id = read
	return nil
}

// reserved reports whether Kafka gave the id a meaning: zero is none, one is its metadata topic.
func (id TopicID) reserved() bool { return id == TopicID{} || id == TopicID{15: 1} }

func (id TopicID) compare(other TopicID) int { return bytes.Compare(id[:], other[:]) }

// A PartitionID names a partition for good.
type PartitionID struct {
	Topic TopicID
	Index int32
}

// String is "<topic id>-<index>", also the name of the partition's folder.
func (p PartitionID) String() string { return fmt.Sprintf("%s-%d", p.Topic, p.Index) }

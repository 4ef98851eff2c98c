package metadata

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestTopicIDReadsLikeKafkasUuid(t *testing.T) {
	// The pairs are from org.apache.kafka.common.Uuid: MAX and METADATA_TOPIC_ID and one by hand.
	for text, id := range map[string]TopicID{
		"AAAAAAAAAAAAAAAAAAAAAA": {},
		"AAAAAAAAAAAAAAAAAAAAAQ": {15: 1},
		"_____________________w": {255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255},
		"AAECAwQFBgcICQoLDA0ODw": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	} {
		if id.String() != text {
			t.Errorf("%x is %s, want %s", id[:], id, text)
		}
		if got, err := ParseTopicID(text); err != nil || got != id {
			t.Errorf("%s is %x: %v", text, got[:], err)
		}
	}
	if got := (PartitionID{TopicID{15: 1}, 12}).String(); got != "AAAAAAAAAAAAAAAAAAAAAQ-12" {
		t.Errorf("partition is %s", got)
	}
}

func TestOnlyOneTextIsATopicID(t *testing.T) {
	for _, text := range []string{
		"", "A", strings.Repeat("A", 21), strings.Repeat("A", 23), strings.Repeat("A", 20) + "==",
		"AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+A", "AAAAAAAAAAAAAAAAAAAA/A", "AAAAAAAAAAA\nAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAA\r\n",
	} {
		if id, err := ParseTopicID(text); err == nil {
			t.Errorf("%q is %s", text, id)
		}
	}
}

func TestNewTopicIDAvoidsReservedOnesAndDashes(t *testing.T) {
	dash, _ := ParseTopicID("-AAAAAAAAAAAAAAAAAAAAA")
	good := TopicID{9}
	drawn := bytes.Join([][]byte{make([]byte, 16), {15: 1}, dash[:], good[:]}, nil)
	if id, err := NewTopicID(bytes.NewReader(drawn)); err != nil || id != good {
		t.Errorf("%s, %v", id, err)
	}
	if _, err := NewTopicID(bytes.NewReader(drawn[:40])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("out of randomness: %v", err)
	}
	seen := make(map[TopicID]bool)
	for range 1000 {
		id, err := NewTopicID(rand.Reader)
		if err != nil || seen[id] || id.IsZero() {
			t.Fatalf("%s again: %v", id, err)
		}
		seen[id] = true
	}
}

func TestTopicNamesAreKafkas(t *testing.T) {
	for _, name := range []string{"a", "A-Z.a_z", "...", "0", "__consumer_offsets", strings.Repeat("x", 249)} {
		if err := ValidateTopicName(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"":                        "Topic name is invalid: the empty string is not allowed",
		".":                       "Topic name is invalid: '.' is not allowed",
		"..":                      "Topic name is invalid: '..' is not allowed",
		"a/b":                     "Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
		"../../etc/passwd":        "",
		"a b":                     "",
		"a\x00":                   "Topic name is invalid: 'a?' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
		"a\n":                     "",
		"\xff\xfe":                "Topic name is invalid: '?' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
		"ünder":                   "",
		"Κ":                       "",
		strings.Repeat("x", 250):  "Topic name is invalid: the length of '" + strings.Repeat("x", 249) + "…' is longer than the max allowed length 249",
		strings.Repeat("ä", 9999): "",
	} {
		err := ValidateTopicName(name)
		if !errors.Is(err, ErrInvalidTopic) || text != "" && err.Error() != text {
			t.Errorf("%.30q: %v", name, err)
		}
		if err != nil && len(err.Error()) > 500 {
			t.Errorf("%.30q: the message has %d bytes", name, len(err.Error()))
		}
	}
}

func TestNamesThatShareAMetricCollide(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a.b", "a_b", true}, {"a_b.c", "a.b_c", true}, {"..._", "___.", true},
		{"a.b", "a-b", false}, {"a.b", "A_b", false}, {"a.b", "a_bc", false}, {"ab", "a_b", false},
	} {
		if collides(c.a, c.b) != c.want || collides(c.b, c.a) != c.want {
			t.Errorf("%s and %s: want %v", c.a, c.b, c.want)
		}
		m := apply(t, three(t), CreateTopic{ID: topicID(1), Name: c.a, Assignment: [][]int32{{1}}})
		if _, err := m.Apply(m.Index+1, CreateTopic{ID: topicID(2), Name: c.b, Assignment: [][]int32{{1}}}); errors.Is(err, ErrTopicCollision) != c.want {
			t.Errorf("%s beside %s: %v", c.b, c.a, err)
		}
	}
}

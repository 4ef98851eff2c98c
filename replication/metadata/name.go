package metadata

import "millrace/replication/metadata/settings"

// maxTopicName is Kafka's: a file name of 255 bytes less room for a suffix.
const maxTopicName = 249

// ValidateTopicName applies Kafka's rules (org.apache.kafka.common.internals.Topic):
// 1 to 249 of the ASCII letters and digits, '.', '_' and '-', and neither "."
// nor "..". The error is ErrInvalidTopic.
func ValidateTopicName(name string) error {
	switch {
	case name == "":
		return refuse(ErrInvalidTopic, "Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return refuse(ErrInvalidTopic, "Topic name is invalid: '%s' is not allowed", name)
	case len(name) > maxTopicName:
		return refuse(ErrInvalidTopic, "Topic name is invalid: the length of '%s' is longer than the max allowed length %d", settings.Shown(name), maxTopicName)
	}
	for i := range len(name) {
		if !topicChar(name[i]) {
			return refuse(ErrInvalidTopic, "Topic name is invalid: '%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", settings.Shown(name))
		}
	}
	return nil
}

func topicChar(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-'
}

// collides reports whether two names would be the same metric name, where '.'
// becomes '_'. Kafka refuses such pairs, and tools rely on it. Case is not folded.
func collides(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if a[i] != b[i] && !(dotted(a[i]) && dotted(b[i])) {
			return false
		}
	}
	return true
}

func dotted(c byte) bool { return c == '.' || c == '_' }

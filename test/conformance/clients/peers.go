// Package conformance pins the versions of the suites that are run as they are:
// `go test -c` builds them from here.
package conformance

import (
	_ "github.com/segmentio/kafka-go"
	_ "github.com/twmb/franz-go/pkg/kgo"
)

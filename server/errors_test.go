package server

import (
	"fmt"
	"strings"
	"testing"
)

// Clients log what they are told beside a code; nothing of it may be our own
// names of things.
func TestClientsAreToldNothingOfOurInsides(t *testing.T) {
	for _, c := range codes {
		if c.err == nil {
			continue
		}
		text := *message(fmt.Errorf("append to t/1: %w", c.err))
		for _, inside := range []string{"replication:", "partition:", "raftgroup:", "controller:", "coordinator:", "context"} {
			if strings.Contains(text, inside) {
				t.Errorf("%v is told as %q", c.err, text)
			}
		}
	}
}

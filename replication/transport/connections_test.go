package transport

import (
	"errors"
	"net"
	"testing"

	"millrace/internal/memnet"
)

// A connection that arrives while the transport closes is let in before, and closed with the
// others, or not at all: one let in behind that would be closed by nobody, and Close would
// wait for it.
func TestNobodyIsLetInOnceConnectionsAreClosed(t *testing.T) {
	cs := connections{limit: 8, conns: make(map[net.Conn]struct{}), present: make(map[Peer]*presence)}
	cs.evidence.ready.L = &cs.evidence.mu
	early, late := net.Conn(nowhere{}), net.Conn(new(memnet.Conn))
	if _, _, err := cs.enter(early); err != nil {
		t.Fatal(err)
	}
	if open := cs.close(); len(open) != 1 || open[0] != early {
		t.Errorf("%d connections are to be closed, want the early one", len(open))
	}
	if _, _, err := cs.enter(late); !errors.Is(err, ErrClosed) {
		t.Errorf("a stranger is let in: %v", err)
	}
	if _, err := cs.join(&tracked{Conn: late}, Peer{Node: 2, Incarnation: "bb"}, 1); !errors.Is(err, ErrClosed) {
		t.Errorf("a peer is let in: %v", err)
	}
	if len(cs.conns) != 1 || len(cs.present) != 0 {
		t.Errorf("%d connections and %d peers are counted, want the early one alone", len(cs.conns), len(cs.present))
	}
}

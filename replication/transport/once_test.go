package transport

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/internal/memnet"
)

// A bookedConn is one from a listener that keeps strangers apart.
type bookedConn struct {
	net.Conn
	known atomic.Bool
}

func (c *bookedConn) Known() { c.known.Store(true) }

func (n *node) strangersAndConns() (strangers, conns int) {
	n.connections.mu.Lock()
	defer n.connections.mu.Unlock()
	return n.connections.strangers.Len(), len(n.connections.conns)
}

// once says hello to n for one call, as anybody may: without a name or a cluster.
func once(t *testing.T, n *node) (*stranger, *bookedConn) {
	t.Helper()
	near, far := net.Pipe()
	booked := &bookedConn{Conn: far}
	go n.Serve(booked)
	t.Cleanup(func() { near.Close() })
	s := &stranger{t: t, conn: near}
	s.raw(hello{kind: kindOnce, low: 1, high: 1, session: 99}.encode())
	if a := s.ack(); a.status != statusWelcome {
		t.Fatalf("refused: %s", a.reason)
	}
	s.in = &intake{r: newReader(s.conn), kind: kindOnce, answers: true}
	return s, booked
}

// Who opens a connection for one call has shown nothing: it stays a stranger, with as much
// time as a call takes.
func TestConnectionForOneCallIsAStrangersAndEnds(t *testing.T) {
	bubble(t, 1, nil, func(t *testing.T, c *cluster, _ *memnet.Network) {
		n := c.nodes[0]
		s, booked := once(t, n)
		synctest.Wait() // until Serve has gone on
		begin := time.Now()
		if strangers, conns := n.strangersAndConns(); booked.known.Load() || strangers != 1 || conns != 1 {
			t.Errorf("known %v, %d strangers of %d connections; want a stranger", booked.known.Load(), strangers, conns)
		}
		s.closed()
		if took := time.Since(begin); took != onceTime {
			t.Errorf("it was closed after %v without a call, want %v", took, onceTime)
		}
		time.Sleep(time.Second)
		if strangers, conns := n.strangersAndConns(); strangers != 0 || conns != 0 {
			t.Errorf("%d strangers, %d connections are left", strangers, conns)
		}
	})
}

// The connection ends with the answer, whatever that is, and though the caller keeps it.
func TestConnectionForOneCallEndsWithItsAnswer(t *testing.T) {
	bubble(t, 1, func(cfg *Config) {
		cfg.Handler = handler(func(ctx context.Context, _ Peer, kind uint8, req []byte) ([]byte, error) {
			switch kind {
			case 1:
				return req, nil
			case 2:
				return nil, errors.New("no such luck")
			default:
				<-ctx.Done()
				return nil, ctx.Err()
			}
		})
	}, func(t *testing.T, c *cluster, _ *memnet.Network) {
		n := c.nodes[0]
		begin := time.Now()
		request := make([]byte, 2*readBuffer)
		for kind, want := range map[uint8]uint8{1: typeCallAnswer, 2: typeFailure} {
			s, _ := once(t, n)
			s.send(callFrame(kind, request), 7, request)
			if h, _, payload := s.answer(); h.typ != want || h.request != 7 || want == typeCallAnswer && len(payload) != len(request) {
				t.Errorf("kind %d: an answer of type %d to %d with %d bytes", kind, h.typ, h.request, len(payload))
			}
			s.closed()
		}
		n.cfg.Handler = nil
		s, _ := once(t, n)
		s.send(callFrame(1, request), 7, request)
		if _, code, _ := s.failure(); code != codeUnsupported {
			t.Errorf("refused with code %d, want %d", code, codeUnsupported)
		}
		s.closed()
		if took := time.Since(begin); took != 0 {
			t.Errorf("they were closed after %v, want at once", took)
		}
	})
}

// A request that waits as long as it likes is waited for no longer than onceTime, and one
// connection carries one.
func TestConnectionForOneCallIsForOne(t *testing.T) {
	bubble(t, 1, func(cfg *Config) {
		cfg.Handler = handler(func(ctx context.Context, _ Peer, _ uint8, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
	}, func(t *testing.T, c *cluster, _ *memnet.Network) {
		n := c.nodes[0]
		for calls, want := range map[int]time.Duration{1: onceTime, 2: 0} {
			begin := time.Now()
			s, _ := once(t, n)
			for range calls {
				frame := callFrame(1, nil)
				seal(frame, 7, largestTimeout)
				s.raw(frame)
			}
			s.closed()
			if took := time.Since(begin); took != want {
				t.Errorf("with %d calls it was closed after %v, want %v", calls, took, want)
			}
		}
	})
}

// However many there are, they leave room for peers.
func TestConnectionsForOneCallLeaveRoomForPeers(t *testing.T) {
	n := alone(t, func(cfg *Config) { cfg.Limits.MaxConnections = 16 })
	for range 40 {
		once(t, n)
	}
	if strangers, _ := n.strangersAndConns(); strangers != 4 {
		t.Errorf("%d strangers, want 4 of 16 connections", strangers)
	}
	connect(t, n, kindControl)
}

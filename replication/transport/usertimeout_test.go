//go:build linux

package transport

import (
	"context"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Every connection between nodes, on either side, ends when what was sent on it has
// not arrived for PeerTimeout.
func TestConnectionsGiveUpOnWhatDoesNotArrive(t *testing.T) {
	const patience = 1234 * time.Millisecond
	addrs := make(map[int32]string)
	var all []*Transport
	for node := int32(1); node <= 2; node++ {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		addrs[node] = l.Addr().String()
		tr := New(Config{
			Cluster:    "test",
			Local:      Peer{node, "aa"},
			Membership: &hooks{resolve: func(node int32) (string, bool) { return addrs[node], true }},
			Timers:     Timers{PeerTimeout: patience},
			Handler:    handler(func(context.Context, Peer, uint8, []byte) ([]byte, error) { return nil, nil }),
		})
		defer tr.Close()
		all = append(all, tr)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go tr.Serve(conn)
			}
		}()
	}
	if _, err := all[0].Call(context.Background(), 2, 1, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := all[0].CallBulk(context.Background(), 2, 1, nil); err != nil {
		t.Fatal(err)
	}
	for i, tr := range all {
		checked := 0
		tr.connections.mu.Lock()
		for conn := range tr.connections.conns {
			raw, err := conn.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			raw.Control(func(fd uintptr) {
				ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
				if err != nil || ms != int(patience.Milliseconds()) {
					t.Errorf("node %d: TCP_USER_TIMEOUT is %d ms, %v; want %v", i+1, ms, err, patience)
				}
			})
			checked++
		}
		tr.connections.mu.Unlock()
		if checked < 2 {
			t.Errorf("node %d: %d connections, want 2 at least", i+1, checked)
		}
	}
}

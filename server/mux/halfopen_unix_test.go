//go:build unix

package mux

import (
	"crypto/tls"
	"io"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"millrace/replication/identity"
)

// Thousands who begin a handshake and do not go on cost a bounded number of bytes each, for as
// long as Patience says, and keep neither a node nor a client from theirs.
func TestHalfOpenHandshakesKeepNobodyOut(t *testing.T) {
	const many = 5000
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 2*many+200 {
		t.Skipf("%d descriptors are too few: %v", limit.Cur, err)
	}
	for _, limits := range []Limits{{Connections: 2 * many, PerIP: 2 * many}, {Connections: 200, PerIP: 2 * many}} {
		nodes := credentialsOf(t, "one", 2)
		a, err := identity.NewAuthority("one", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		own, err := a.IssueServer([]string{"127.0.0.1"}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		h := newHallWith(t, limits, Config{Nodes: muxNode{nodes[0]}, TLS: &tls.Config{Certificates: []tls.Certificate{own}}})
		kafka, peers := h.Kafka(), h.Peers()
		h.dial(kafkaHello)
		h.accepts(kafka, kafkaHello).(interface{ Known() }).Known()
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		began := "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + strings.Repeat("x", 400) // of 512 bytes
		for range many {
			h.dial(began)
		}
		if limits.Connections > many {
			h.becomes("all to be there", func(s Stats) bool { return s.Connections == many+1 })
			runtime.GC()
			runtime.ReadMemStats(&after)
			if each := int(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse) / many; each > 32<<10 {
				t.Errorf("each takes %d bytes", each)
			}
		}
		came := make(chan error, 1)
		go func() {
			conn, err := peers.Accept()
			if err == nil {
				defer conn.Close()
				_, err = io.ReadFull(conn, make([]byte, 1))
			}
			came <- err
		}()
		over, _, err := h.dialNode(nodes[1].Client(nil))
		if err != nil {
			t.Fatal(err)
		}
		over.Write([]byte{1})
		if err := <-came; err != nil {
			t.Error(err)
		}
		if limits.Connections > many {
			client := tls.Client(h.dial(""), &tls.Config{InsecureSkipVerify: true})
			go io.WriteString(client, kafkaHello)
			h.accepts(kafka, kafkaHello)
		}
		h.Close()
	}
}

//go:build unix

package transport

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/replication/identity"
)

// BenchmarkAppend measures one append at a time, from call to answer, without encryption as
// between loopback addresses, and with it as between machines.
// BenchmarkBare is what the machine allows.
func BenchmarkAppend(b *testing.B) {
	a, err := identity.NewAuthority("test", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	sealed := func(cfg *Config) {
		own, err := identity.NewCredentials(identity.Name{Cluster: cfg.Cluster, Node: cfg.Local.Node, Incarnation: cfg.Local.Incarnation}, []identity.Authority{a}, time.Now())
		if err != nil {
			b.Fatal(err)
		}
		cfg.Guard = guard{own: own, protocol: identity.Sealed, bare: errUnproved}
	}
	for i, size := range []int{200, 100 << 10, 1 << 20, 200, 100 << 10, 1 << 20} {
		adjust, name := sealed, fmt.Sprint("sealed/", size)
		if i < 3 {
			adjust, name = nil, fmt.Sprint(size)
		}
		b.Run(name, func(b *testing.B) {
			_, port, to := pair(b, adjust)
			req := appendOf(0, 1, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if err := port.AppendEntries(to, "", req, &raft.AppendEntriesResponse{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAppendGroups has 16 groups append at once over one connection.
func BenchmarkAppendGroups(b *testing.B) {
	const groups, size = 16, 100 << 10
	c := newCluster(b, &loopback{}, 2, nil)
	var ports []*Port
	for id := range uint64(groups) {
		ports = append(ports, c.nodes[0].Group(id, c.nodes[0].peer.ServerID()))
		defer answerer(c.nodes[1].Group(id, c.nodes[1].peer.ServerID()))()
	}
	defer c.close()
	to := c.nodes[1].peer.ServerID()
	b.SetBytes(size)
	var wg sync.WaitGroup
	turns := make(chan struct{})
	for _, p := range ports {
		wg.Go(func() {
			req := appendOf(0, 1, size)
			for range turns {
				if err := p.AppendEntries(to, "", req, &raft.AppendEntriesResponse{}); err != nil {
					b.Error(err)
				}
			}
		})
	}
	for b.Loop() {
		turns <- struct{}{}
	}
	close(turns)
	wg.Wait()
}

// BenchmarkBare writes the same bytes as BenchmarkAppend with writev to a peer
// that reads them into one allocation and answers 56 bytes.
func BenchmarkBare(b *testing.B) {
	for _, size := range []int{200, 100 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer ln.Close()
			go func() {
				conn, err := ln.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				var head [headerSize + appendHead + entrySize]byte
				answer := make([]byte, headerSize+appendAnswerHead)
				for {
					if _, err := io.ReadFull(conn, head[:]); err != nil {
						return
					}
					data := make([]byte, binary.BigEndian.Uint32(head[:]))
					if _, err := io.ReadFull(conn, data); err != nil {
						return
					}
					conn.Write(answer)
				}
			}()
			conn, err := net.Dial("tcp", ln.Addr().String())
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			head := make([]byte, headerSize+appendHead+entrySize)
			binary.BigEndian.PutUint32(head, uint32(size))
			data := make([]byte, size)
			answer := make([]byte, headerSize+appendAnswerHead)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				parts := net.Buffers{head, data}
				if _, err := parts.WriteTo(conn); err != nil {
					b.Fatal(err)
				}
				if _, err := io.ReadFull(conn, answer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIdleHeartbeats is what 1,000 groups cost two nodes, leader and
// follower together, while nobody appends: each sends a heartbeat every 450 ms on
// average, as Raft does with a heartbeat timeout of 3 s. cpu% is of one core.
func BenchmarkIdleHeartbeats(b *testing.B) {
	const groups = 1000
	c := newCluster(b, &loopback{}, 2, nil)
	to := c.nodes[1].peer.ServerID()
	done := make(chan struct{})
	var wg sync.WaitGroup
	var stops []func()
	for id := range uint64(groups) {
		port := c.nodes[0].Group(id, c.nodes[0].peer.ServerID())
		stops = append(stops, answerer(c.nodes[1].Group(id, c.nodes[1].peer.ServerID())))
		wg.Go(func() {
			req := raft.AppendEntriesRequest{Term: 1}
			var resp raft.AppendEntriesResponse
			for {
				wait := 300*time.Millisecond + time.Duration(id%300)*time.Millisecond
				select {
				case <-time.After(wait):
				case <-done:
					return
				}
				if err := port.AppendEntries(to, "", &req, &resp); err != nil {
					b.Error(err)
				}
			}
		})
	}
	time.Sleep(time.Second)
	before, cpu, began := c.nodes[0].Stats(), cpuTime(), time.Now()
	for b.Loop() {
		time.Sleep(100 * time.Millisecond)
	}
	spent, took, after := cpuTime()-cpu, time.Since(began), c.nodes[0].Stats()
	b.ReportMetric(100*spent.Seconds()/took.Seconds(), "cpu%")
	b.ReportMetric(float64(after.Heartbeats-before.Heartbeats)/took.Seconds(), "heartbeats/s")
	b.ReportMetric(float64(after.HeartbeatFrames-before.HeartbeatFrames)/took.Seconds(), "frames/s")
	close(done)
	wg.Wait()
	c.close()
	for _, stop := range stops {
		stop()
	}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDial is what a node pays for each connection when it comes back: to connect, to
// shake hands and to be answered a call, on both sides. none: without a handshake of TLS.
func BenchmarkDial(b *testing.B) {
	a, err := identity.NewAuthority("test", time.Now())
	if err != nil {
		b.Fatal(err)
	}
	for _, protocol := range []string{"none", identity.Bare, identity.Sealed} {
		b.Run(protocol, func(b *testing.B) {
			c := newCluster(b, &loopback{}, 2, func(cfg *Config) {
				cfg.Handler = handler(func(_ context.Context, _ Peer, _ uint8, req []byte) ([]byte, error) { return req, nil })
				if protocol == "none" {
					return
				}
				own, err := identity.NewCredentials(identity.Name{Cluster: cfg.Cluster, Node: cfg.Local.Node, Incarnation: cfg.Local.Incarnation}, []identity.Authority{a}, time.Now())
				if err != nil {
					b.Fatal(err)
				}
				cfg.Guard = guard{own: own, protocol: protocol, bare: errUnproved}
			})
			defer c.close()
			addr, _ := c.resolve(2)
			for b.Loop() {
				if _, err := c.nodes[0].CallAddr(context.Background(), addr, 1, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

package server

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/segment/record"
	"millrace/server/protocol"
)

// nowhere takes everything that is written to it.
type nowhere struct{ pipeEnd }

func (nowhere) Write(p []byte) (int, error)      { return len(p), nil }
func (nowhere) Read([]byte) (int, error)         { return 0, io.EOF }
func (nowhere) SetReadDeadline(time.Time) error  { return nil }
func (nowhere) SetWriteDeadline(time.Time) error { return nil }
func (nowhere) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(10, 1, 2, 4), Port: 1} }
func (nowhere) Close() error                     { return nil }

// An idle consumer of a thousand partitions asks twice a second: that must not
// keep the collector busy.
func TestIdleFetchSessionAllocatesNothing(t *testing.T) {
	b := startBroker(t, nil)
	const n = 64
	id := b.create("t", n, nil)
	c := newConnection(b.server, nowhere{})
	defer c.close()
	var all []int32
	for i := range int32(n) {
		all = append(all, i)
	}
	first := fetchRequest(13, "", id, 0, all...)
	asked := func(req *kmsg.FetchRequest) *call {
		return &call{Header: protocol.Header{Key: kmsg.Fetch, Version: 13}, ctx: context.Background(), conn: c, body: req.AppendTo(nil)}
	}
	if err := b.server.handlers.fetches.fetch(asked(first)); err != nil {
		t.Fatal(err)
	}
	again := fetchRequest(13, "", id, 0)
	again.MaxWaitMillis = 0
	again.SessionID = c.session.id
	var calls []*call
	for epoch := int32(1); epoch < 200; epoch++ {
		again.SessionEpoch = epoch
		calls = append(calls, asked(again))
	}
	i := 0
	if got := testing.AllocsPerRun(100, func() {
		if err := b.server.handlers.fetches.fetch(calls[i]); err != nil {
			t.Fatal(err)
		}
		i++
	}); got > 3 {
		t.Errorf("%v allocations for %d partitions with nothing new", got, n)
	}
	if c.session == nil || c.session.epoch < 100 {
		t.Error("the session broke")
	}
}

// BenchmarkIdleFetchSession is one fetch of a session in which nothing happens.
func BenchmarkIdleFetchSession(b *testing.B) {
	br := startBroker(b, nil)
	const n = 100
	id := br.create("t", n, nil)
	var all []int32
	for i := range int32(n) {
		all = append(all, i)
	}
	w := br.dial()
	session := ask[*kmsg.FetchResponse](w, fetchRequest(13, "", id, 0, all...)).SessionID
	epoch := int32(0)
	b.ReportAllocs()
	for b.Loop() {
		epoch++
		req := fetchRequest(13, "", id, 0)
		req.SessionID, req.SessionEpoch = session, epoch
		ask[*kmsg.FetchResponse](w, req)
	}
}

// BenchmarkProduce keeps five requests of one batch in flight over one connection.
func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 1<<20 - 200} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			br := startBroker(b, map[string]string{"log.flush.interval.messages": "9223372036854775807"})
			id := br.create("t", 1, nil)
			conn, err := net.Dial("tcp", br.addr)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			var values []string
			for range max(size/1024, 1) {
				values = append(values, string(bytes.Repeat([]byte("x"), min(size, 1000))))
			}
			frame := kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(13, "", id, batchOf(b, record.None, nil, values...)), 1)
			b.SetBytes(int64(len(frame)))
			b.ReportAllocs()
			inFlight := make(chan struct{}, 5)
			done := make(chan error, 1)
			go func() {
				for range inFlight {
					if _, _, err := readResponse(conn); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
			for b.Loop() {
				inFlight <- struct{}{}
				if _, err := conn.Write(frame); err != nil {
					b.Fatal(err)
				}
			}
			close(inFlight)
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkFetch reads ten megabytes again and again over one connection.
func BenchmarkFetch(b *testing.B) {
	br := startBroker(b, nil)
	id := br.create("t", 1, nil)
	w := br.dial()
	value := string(bytes.Repeat([]byte("x"), 1000))
	var values []string
	for range 500 {
		values = append(values, value)
	}
	for range 20 {
		if p := ask[*kmsg.ProduceResponse](w, produceRequest(13, "", id, batchOf(b, record.None, nil, values...))).Topics[0].Partitions[0]; p.ErrorCode != 0 {
			b.Fatal(p.ErrorCode)
		}
	}
	req := fetchRequest(13, "", id, 0, 0)
	req.MaxBytes, req.SessionEpoch = 10<<20, finalEpoch
	req.Topics[0].Partitions[0].PartitionMaxBytes = 10 << 20
	frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
	buf := make([]byte, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		w.conn.SetDeadline(time.Now().Add(30 * time.Second))
		w.write(frame)
		if _, err := io.ReadFull(w.conn, buf[:4]); err != nil {
			b.Fatal(err)
		}
		n := int64(uint32(buf[0])<<24 | uint32(buf[1])<<16 | uint32(buf[2])<<8 | uint32(buf[3]))
		b.SetBytes(n)
		if _, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, io.LimitReader(struct{ io.Reader }{w.conn}, n), buf); err != nil {
			b.Fatal(err)
		}
	}
}

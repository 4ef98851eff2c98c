package server

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/server/protocol"
	"millrace/server/protocol/protocoltest"
)

// bystander is a well-behaved client, to be asked whether it noticed anything.
type bystander struct {
	t  testing.TB
	cl *kgo.Client
	n  int
}

func (b *testBroker) bystander() *bystander {
	b.create("bystander", 1, nil)
	return &bystander{b.t, b.client(kgo.DefaultProduceTopic("bystander"), kgo.ConsumeTopics("bystander")), 0}
}

func (y *bystander) unaffected() {
	y.t.Helper()
	ctx := testContext(y.t)
	y.n++
	if err := y.cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(y.n))).FirstErr(); err != nil {
		y.t.Errorf("the bystander cannot produce: %v", err)
		return
	}
	for _, r := range y.cl.PollRecords(ctx, 1).Records() {
		if string(r.Value) != fmt.Sprint(y.n) {
			y.t.Errorf("the bystander consumed %q, want %d", r.Value, y.n)
		}
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// Declared lengths cost nothing.
func TestDeclaredLengthsAreNotBelieved(t *testing.T) {
	b := startBroker(t, nil)
	y := b.bystander()
	for _, c := range []struct {
		name string
		size int64
	}{{"0", 0}, {"7", 7}, {"-1", -1}, {"2³¹−1", 1<<31 - 1}, {"limit+1", 100<<20 + 1}} {
		w := b.dial()
		w.write(binary.BigEndian.AppendUint32(nil, uint32(c.size)))
		w.closed()
		// And after a request that was in order.
		w = b.dial()
		ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
		w.write(binary.BigEndian.AppendUint32(nil, uint32(c.size)))
		w.closed()
	}
	y.unaffected()

	before := heap()
	const n = 200
	for range n {
		w := b.dial()
		w.write(binary.BigEndian.AppendUint32(nil, 100<<20))
		w.write(protocoltest.Frame(kmsg.Produce, 11)[:4])
	}
	y.unaffected()
	// The first piece, goroutines and the test's own end of it.
	if grown := heap() - before; grown > n*(firstRead+32<<10) {
		t.Errorf("%d connections that declare 100 MiB and send 8 bytes take %d KiB", n, grown>>10)
	}
}

// Memory doubles as bytes arrive, so at most twice what came is held.
func TestMemoryFollowsTheBytesThatArrived(t *testing.T) {
	b := startBroker(t, nil)
	before := heap()
	const n, sent = 20, 1 << 20
	for range n {
		w := b.dial()
		w.write(binary.BigEndian.AppendUint32(nil, 100<<20))
		w.write(append(protocoltest.Frame(kmsg.Produce, 11), make([]byte, sent-protocol.HeaderSize)...))
	}
	time.Sleep(300 * time.Millisecond) // let it arrive: less would only be less memory
	if grown := heap() - before; grown > n*(2*sent+128<<10) {
		t.Errorf("%d connections that sent %d KiB take %d KiB", n, n*sent>>10, grown>>10)
	}
}

// A producer that has sent large frames gets the memory for the next at once;
// what is declared beyond that is again not believed.
func TestFramesLargerThanEverAreRead(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"max.message.bytes": fmt.Sprint(32 << 20)})
	w := b.dial()
	for i, size := range []int{10, 70_000, 200_000, 1 << 20, 5 << 20, 20 << 20, 100} {
		value := string(bytes.Repeat([]byte{byte('a' + i)}, size))
		p := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "t", id, batchOf(t, 0, nil, value))))
		if p.ErrorCode != 0 {
			t.Fatalf("%d bytes: error %d", size, p.ErrorCode)
		}
		req := fetchRequest(13, "", id, p.BaseOffset, 0)
		req.MaxBytes = 64 << 20
		got := fetchedPartition(t, ask[*kmsg.FetchResponse](w, req)).RecordBatches
		if !bytes.Contains(got, []byte(value)) {
			t.Errorf("%d bytes did not come back", size)
		}
	}
}

// Other protocols on this address.
func TestOtherProtocols(t *testing.T) {
	b := startBroker(t, nil)
	y := b.bystander()
	t.Run("HTTP is told what this is", func(t *testing.T) {
		for _, verb := range []string{"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"} {
			req, _ := http.NewRequest(verb, "http://"+b.addr+"/", strings.NewReader(strings.Repeat("x", 1000)))
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", verb, err)
			}
			if resp.StatusCode != http.StatusMisdirectedRequest {
				t.Errorf("%s: %s", verb, resp.Status)
			}
			resp.Body.Close()
		}
	})
	t.Run("the rest is closed", func(t *testing.T) {
		for _, hello := range []string{
			"SSH-2.0-OpenSSH_9.6\r\n", "EHLO x\r\n", "\r\n\r\n", "\x00\x00\x00\x00", "\xff\xff\xff\xff", "*1\r\n$4\r\nPING\r\n", "AMQP\x00\x00\x09\x01",
		} {
			w := b.dial()
			w.write([]byte(hello))
			w.closed()
		}
	})
	t.Run("TLS has no certificate", func(t *testing.T) {
		w := b.dial()
		err := tls.Client(w.conn, &tls.Config{InsecureSkipVerify: true}).Handshake()
		var slow net.Error
		if err == nil || errors.As(err, &slow) && slow.Timeout() {
			t.Errorf("a handshake ends with %v", err)
		}
	})
	t.Run("the bytes may come one by one", func(t *testing.T) {
		w := b.dial()
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.ApiVersionsRequest{}, 9)
		for _, c := range frame {
			w.write([]byte{c})
			time.Sleep(time.Millisecond)
		}
		if id, _ := w.read(); id != 9 {
			t.Errorf("response %d", id)
		}
	})
	t.Run("nothing, or too little, is no offence", func(t *testing.T) {
		before := b.server.Stats().Refused
		for _, n := range []int{0, 1, 3} {
			w := b.dial()
			w.write(make([]byte, n))
			w.conn.(*net.TCPConn).CloseWrite()
			if n == 0 {
				w.closed()
			}
			w.conn.Close()
		}
		if after := b.server.Stats().Refused; after != before {
			t.Errorf("%d refusals", after-before)
		}
	})
	y.unaffected()
}

func TestKafkaOverTLS(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	b := startBrokerWith(t, nil, func(s *Server) {
		s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	})
	b.create("t", 1, nil) // without TLS, on the same address
	cl := b.client(kgo.DialTLSConfig(&tls.Config{InsecureSkipVerify: true}), kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"))
	if err := cl.ProduceSync(testContext(t), kgo.StringRecord(strings.Repeat("x", 100_000))).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if r := cl.PollRecords(testContext(t), 1).Records(); len(r) != 1 || len(r[0].Value) != 100_000 {
		t.Errorf("consumed %d records", len(r))
	}
	// A handshake that is not finished ends with its deadline or its client.
	w := b.dial()
	w.write([]byte("\x16\x03\x01\x02\x00"))
	w.conn.Close()
}

// Over a connection: every request in every version with
// absurd counts at every few places. It is closed or answered, and nobody else
// notices.
func TestAbsurdRequestsOverTheWire(t *testing.T) {
	b := startBroker(t, nil)
	y := b.bystander()
	before := heap()
	for _, a := range b.server.handlers.apis {
		for version := a.min; version <= a.max; version++ {
			body := protocoltest.NewFiller(uint64(version)).Request(a.key, version).AppendTo(nil)
			if a.key == kmsg.Produce && version >= 3 {
				continue // its answer may rightly take its timeout
			}
			for at := int(version) % 5; at < len(body); at += 1 + len(body)/8 {
				for _, count := range protocoltest.Absurd[:7] {
					w := b.dial()
					frame := protocoltest.Frame(a.key, version, 0xff, 0xff)
					if protocol.IsFlexible(a.key, version) {
						frame = append(frame, 0)
					}
					frame = append(append(append(frame, body[:at]...), count...), body[min(at+len(count), len(body)):]...)
					w.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
					w.conn.Close()
				}
			}
		}
	}
	y.unaffected()
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
}

// KIP-511.
func TestApiVersions(t *testing.T) {
	b := startBroker(t, nil)
	w := b.dial()
	for version := int16(0); version <= 4; version++ {
		req := kmsg.NewPtrApiVersionsRequest()
		req.SetVersion(version)
		req.ClientSoftwareName, req.ClientSoftwareVersion = "test", "1.0-x"
		got := ask[*kmsg.ApiVersionsResponse](w, req)
		if got.ErrorCode != 0 || len(got.ApiKeys) != len(b.server.handlers.apis) {
			t.Fatalf("version %d: %+v", version, got)
		}
		if version >= 3 {
			if len(got.FinalizedFeatures) != 2 || got.FinalizedFeatures[1].Name != "group.version" || got.FinalizedFeatures[1].MaxVersionLevel != 1 ||
				len(got.SupportedFeatures) != 1+max(0, int(version)-3) || got.FinalizedFeatures[0].Name != "metadata.version" || got.FinalizedFeatures[0].MaxVersionLevel != 27 || got.FinalizedFeaturesEpoch < 0 {
				t.Errorf("version %d: features %+v", version, got.FinalizedFeatures)
			}
			for _, f := range got.SupportedFeatures {
				if f.MinVersion == 0 && version < 4 {
					t.Errorf("version %d: %s begins at 0", version, f.Name)
				}
			}
		}
		for _, bad := range []string{"", "-x", "x-", "a b", "a\x00b", "ü"} {
			req.ClientSoftwareName = bad
			if got := ask[*kmsg.ApiVersionsResponse](w, req); version >= 3 && got.ErrorCode != int16(protocol.InvalidRequest) {
				t.Errorf("version %d: software %q: error %d", version, bad, got.ErrorCode)
			}
		}
	}
	for _, version := range []int16{5, 100, 32767, -1} {
		frame := append(protocoltest.Frame(kmsg.ApiVersions, version, 0, 1, 'x'), 0, 5, 't', 'e', 's', 't', 2, '1', 0)
		w.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
		_, body := w.read()
		var got kmsg.ApiVersionsResponse
		if err := got.ReadFrom(body); err != nil || got.ErrorCode != int16(protocol.UnsupportedVersion) {
			t.Fatalf("version %d: %+v, %v", version, got, err)
		}
		found := false
		for _, k := range got.ApiKeys {
			found = found || k.ApiKey == 18 && k.MaxVersion == 4
		}
		if !found {
			t.Errorf("version %d: %+v does not say how to ask", version, got.ApiKeys)
		}
	}
	// The connection stays.
	ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
}

// What is not served closes the connection.
func TestUnknownRequestsClose(t *testing.T) {
	b := startBroker(t, nil)
	for _, frame := range [][]byte{
		protocoltest.Frame(1000, 0, 0xff, 0xff),
		protocoltest.Frame(-1, 0, 0xff, 0xff),
		protocoltest.Frame(4, 0, 0xff, 0xff), // LeaderAndIsr
		protocoltest.Frame(7, 0),             // ControlledShutdown
		protocoltest.Frame(kmsg.Vote, 0, 0xff, 0xff, 0),
		protocoltest.Frame(kmsg.Metadata, 14, 0xff, 0xff),
		protocoltest.Frame(kmsg.Metadata, -1, 0xff, 0xff),
		protocoltest.Frame(kmsg.Fetch, 3, 0xff, 0xff),
		protocoltest.Frame(kmsg.Metadata, 1, 0xff, 0xff, 0, 0, 0, 0, 9), // a byte too many
	} {
		w := b.dial()
		ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
		w.write(append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...))
		w.closed()
	}
}

// A client that sends requests and never reads.
func TestUnreadResponsesAreNotPiledUp(t *testing.T) {
	b := startBroker(t, nil)
	id := b.create("t", 1, map[string]string{"max.message.bytes": fmt.Sprint(8 << 20)})
	y := b.bystander()
	value := string(bytes.Repeat([]byte("x"), 4<<20))
	b.dialAndProduce(t, id, value)
	before := heap()
	for range 20 {
		w := b.dial()
		req := fetchRequest(13, "", id, 0, 0)
		req.MaxBytes = 8 << 20
		req.Topics[0].Partitions[0].PartitionMaxBytes = 8 << 20
		frame := kmsg.NewRequestFormatter().AppendRequest(nil, req, 1)
		for range 50 {
			w.write(frame)
		}
	}
	y.unaffected()
	if grown := heap() - before; grown > 32<<20 {
		t.Errorf("the heap grew by %d KiB for a thousand unread answers of 4 MiB", grown>>10)
	}
}

func (b *testBroker) dialAndProduce(t *testing.T, id [16]byte, value string) {
	t.Helper()
	if p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, "", id, batchOf(t, 0, nil, value)))); p.ErrorCode != 0 {
		t.Fatalf("error %d", p.ErrorCode)
	}
}

// A client that sends a byte now and then never stalls, and never ends.
func TestDrippingClientsAreCutOff(t *testing.T) {
	b := startBrokerWith(t, nil, func(s *Server) { s.StallTimeout = 300 * time.Millisecond })
	w := b.dial()
	w.write(append(binary.BigEndian.AppendUint32(nil, 1000), protocoltest.Frame(kmsg.Metadata, 0, 0xff, 0xff)...))
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if _, err := w.conn.Write([]byte{0}); err != nil {
			return
		}
		if time.Since(begin) > 20*time.Second {
			t.Fatal("still connected")
		}
	}
}

func TestStalledClientsAreCutOff(t *testing.T) {
	const stall = 500 * time.Millisecond // no pause of this process lasts as long
	b := startBrokerWith(t, nil, func(s *Server) { s.StallTimeout = stall })
	y := b.bystander()
	stalled := make(map[string]*wire)
	for name, sent := range map[string][]byte{
		"nothing":          nil,
		"half a length":    {0, 0},
		"a length":         {0, 0, 0, 20},
		"half a request":   append([]byte{0, 0, 0, 20}, protocoltest.Frame(kmsg.Metadata, 0)...),
		"half a large one": append([]byte{0, 0x10, 0, 0}, make([]byte, 1000)...),
	} {
		w := b.dial()
		w.write(sent)
		stalled[name] = w
	}
	for name, w := range stalled {
		w.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := w.conn.Read(make([]byte, 1)); isTimeout(err) || err == nil {
			t.Errorf("%s: %v; want it cut off", name, err)
		}
	}
	// Between requests a client may be as slow as connections.max.idle.ms says.
	w := b.dial()
	ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
	time.Sleep(2 * stall)
	ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
	y.unaffected()
}

func TestIdleConnectionsAreClosed(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"connections.max.idle.ms": "1000"})
	w := b.dial()
	ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
	w.closed()
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"max.connections": "20"})
	var first *wire
	for i := range 20 {
		w := b.dial()
		ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
		if i == 0 {
			first = w
		}
	}
	b.dial().closed()
	ask[*kmsg.ApiVersionsResponse](first, &kmsg.ApiVersionsRequest{})
}

// When all places are taken, those who came and said nothing make room, clients
// that are at work keep theirs, and another node is let in: package mux's part, of which
// the server says who is at work, and the node who is a node.
func TestAFloodOfConnectionsKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	all := startClusterWith(t, 2, map[string]string{"max.connections": "20"})
	b := all[0]
	working := b.dial()
	ask[*kmsg.ApiVersionsResponse](working, &kmsg.ApiVersionsRequest{})
	flood := func(n int) {
		for range n {
			b.dial()
		}
	}
	flood(20)
	waitFor(t, "an honest client to be let in", func() bool {
		w := b.dial()
		w.conn.SetDeadline(time.Now().Add(time.Second))
		w.conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.ApiVersionsRequest{}, 1))
		_, _, err := readResponse(w.conn)
		return err == nil
	})
	ask[*kmsg.ApiVersionsResponse](working, &kmsg.ApiVersionsRequest{})

	// Clients at work in all places: no further client, but another node.
	waitFor(t, "clients in all places", func() bool {
		w := b.dial()
		w.conn.SetDeadline(time.Now().Add(10 * time.Second))
		w.conn.Write(kmsg.NewRequestFormatter().AppendRequest(nil, &kmsg.ApiVersionsRequest{}, 1))
		readResponse(w.conn)
		stats := b.server.Quotas().Stats()
		return stats.Strangers == 0 && stats.Connections-stats.Probation >= 20
	})
	b.dial().closed()
	flood(100) // who says nothing is no hindrance
	all[1].peers.isolate(all[1].addr)
	waitFor(t, "the other node to be lost", func() bool { return !b.node.Live(2) })
	all[1].peers.heal()
	waitFor(t, "the other node to be let in", func() bool { return b.node.Live(2) && all[1].node.Live(1) })
	ask[*kmsg.ApiVersionsResponse](working, &kmsg.ApiVersionsRequest{})
}

// Connections leave the logs their descriptors.
func TestConnectionsLeaveTheLogsTheirDescriptors(t *testing.T) {
	for _, c := range []struct{ descriptors, replicas, want int }{
		{20_000, 0, 19_744}, {20_000, 4000, 11_744}, {1024, 100, 568}, {1024, 400, fewest}, {256, 0, fewest},
	} {
		if got := roomFor(c.descriptors, c.replicas); got != c.want {
			t.Errorf("%d descriptors, %d replicas: room for %d connections, want %d", c.descriptors, c.replicas, got, c.want)
		}
	}
	if n := descriptors(); n < 256 {
		t.Errorf("%d descriptors", n)
	}
	b := startBroker(t, nil)
	if n := b.server.broker.maxConnections(); n > descriptors()-otherFiles {
		t.Errorf("%d connections of %d descriptors", n, descriptors())
	}
	b.create("t", 3, nil)
	waitFor(t, "the topic's files to be counted", func() bool { return b.server.broker.settings().room <= descriptors()-otherFiles-3*eachReplica })
}

func TestConnectionsFromOneAddressAreBounded(t *testing.T) {
	t.Parallel()
	b := startBroker(t, nil)
	first := b.dial()
	limit := func(n string) {
		t.Helper()
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.SetVersion(1)
		rr := kmsg.NewIncrementalAlterConfigsRequestResource()
		rr.ResourceType, rr.ResourceName = kmsg.ConfigResourceTypeBroker, "1"
		rr.Configs = []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "max.connections.per.ip", Value: &n}}
		req.Resources = append(req.Resources, rr)
		if got := ask[*kmsg.IncrementalAlterConfigsResponse](first, req).Resources[0]; got.ErrorCode != 0 {
			t.Fatalf("error %d %s", got.ErrorCode, str(got.ErrorMessage))
		}
	}
	limit("2")
	second := b.dial()
	ask[*kmsg.ApiVersionsResponse](second, &kmsg.ApiVersionsRequest{})
	b.dial().closed()
	// Others are none of its business, and who leaves makes room.
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	conn, err := dialer.Dial("tcp4", b.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask[*kmsg.ApiVersionsResponse](&wire{t: t, conn: conn}, &kmsg.ApiVersionsRequest{})
	second.conn.Close()
	waitFor(t, "room for another connection", func() bool {
		return b.server.Quotas().From(netip.MustParseAddr("127.0.0.1")) == 1
	})
	ask[*kmsg.ApiVersionsResponse](b.dial(), &kmsg.ApiVersionsRequest{})
}

// Idle connections cost little, and leave nothing behind.
func TestManyIdleConnections(t *testing.T) {
	b := startBroker(t, nil)
	y := b.bystander()
	y.unaffected()
	memory, goroutines := heap(), runtime.NumGoroutine()
	const n = 1000
	var wires []*wire
	for range n {
		w := b.dial()
		ask[*kmsg.ApiVersionsResponse](w, &kmsg.ApiVersionsRequest{})
		wires = append(wires, w)
	}
	if grown := heap() - memory; grown > n*24<<10 {
		t.Errorf("%d bytes for each idle connection", grown/n)
	}
	if more := runtime.NumGoroutine() - goroutines; more > n+20 {
		t.Errorf("%d goroutines for %d idle connections", more, n)
	}
	y.unaffected()
	for _, w := range wires {
		w.conn.Close()
	}
	waitFor(t, "the connections' end", func() bool { return b.server.Stats().Connections <= 10 && runtime.NumGoroutine() < goroutines+20 })
}

// waitFor waits until done, which must come without anything being done for it.
func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// Shutdown answers what was read, wakes fetches that wait and returns soon.
func TestShutdownAnswersWhatItHasRead(t *testing.T) {
	t.Parallel()
	b := startBroker(t, nil)
	id := b.create("t", 1, nil)
	idle := b.dial()
	ask[*kmsg.ApiVersionsResponse](idle, &kmsg.ApiVersionsRequest{})
	fetching := b.dial()
	req := fetchRequest(13, "", id, 0, 0)
	req.MinBytes, req.MaxWaitMillis, req.MaxBytes = 1<<30, 60_000, 1<<30
	before := b.server.Stats().Requests
	sent := fetching.send(req)
	waitFor(t, "the fetch to be read", func() bool { return b.server.Stats().Requests > before })
	producing := b.dial()
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		for i := int32(0); ; i++ {
			p := kmsg.NewRequestFormatter().AppendRequest(nil, produceRequest(13, "", id, batchOf(t, 0, nil, fmt.Sprint(i))), i)
			if _, err := producing.conn.Write(p); err != nil {
				return
			}
		}
	}()
	answered := int32(0)
	for ; answered < 20; answered++ {
		producing.receive(produceRequest(13, "", id), answered)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	wg.Add(1)
	go func() {
		defer wg.Done()
		// What was read is answered, in order; then the connection ends, and not
		// by a reset that would take answers with it.
		for {
			id, _, err := readResponse(producing.conn)
			if err != nil {
				if err != io.EOF {
					t.Errorf("after %d responses: %v", answered, err)
				}
				return
			}
			if id != answered {
				t.Errorf("response %d, want %d", id, answered)
			}
			answered++
		}
	}()
	if err := b.server.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if id, body, err := readResponse(fetching.conn); err != nil || id != sent || len(body) < 10 {
		t.Errorf("the waiting fetch got response %d, %v", id, err)
	}
	idle.closed()
	if _, err := net.Dial("tcp", b.addr); err == nil {
		t.Error("the listener is open")
	}
}

// Requests of all connections together hold a bounded number of bytes.
// Whoever sends a large one meanwhile waits; small ones do not.
func TestRequestsTogetherHoldABoundedNumberOfBytes(t *testing.T) {
	const request, held = 1 << 20, 4 << 20
	b := startBrokerWith(t, map[string]string{"socket.request.max.bytes": fmt.Sprint(request)}, func(s *Server) { s.MaxHeldBytes = held })
	y := b.bystander()
	// Twenty clients send all but the last byte of a request.
	var all []*wire
	var wg sync.WaitGroup
	for range 20 {
		w := b.dial()
		all = append(all, w)
		frame := binary.BigEndian.AppendUint32(nil, request)
		frame = append(append(frame, protocoltest.Frame(kmsg.Produce, 11)...), make([]byte, request-protocol.HeaderSize-1)...)
		wg.Add(1)
		go func() {
			defer wg.Done()
			w.conn.Write(frame) // the kernel may not take all of it
		}()
	}
	waitFor(t, "the bytes to be held", func() bool { return b.server.shared.budget.holds() > held-request })
	for range 20 {
		y.unaffected()
		// 4 MiB × (1 + 1/2 … 1/20), and one request.
		if n := b.server.shared.budget.holds(); n > held*36/10+request {
			t.Fatalf("%d bytes are held", n)
		}
	}
	for _, w := range all {
		w.conn.Close()
	}
	wg.Wait()
	waitFor(t, "them to be let go", func() bool { return b.server.shared.budget.holds() <= 64<<10 })
}

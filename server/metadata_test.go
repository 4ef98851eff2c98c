package server

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/security/acl"
	"millrace/server/protocol"
)

func metadataRequest(version int16, topics ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.SetVersion(version)
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, topic := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = &topic
		req.Topics = append(req.Topics, rt)
	}
	return req
}

func topicNames(resp *kmsg.MetadataResponse) (names []string) {
	for _, t := range resp.Topics {
		names = append(names, *t.Topic)
	}
	return names
}

// KIP-4, KIP-516.
func TestMetadataInEveryVersion(t *testing.T) {
	b := startBroker(t, map[string]string{"auto.create.topics.enable": "false"})
	id := b.create("b", 2, nil)
	b.create("a", 1, nil)
	w := b.dial()
	host, port, _ := net.SplitHostPort(b.addr)
	for version := int16(0); version <= 13; version++ {
		all := metadataRequest(version)
		all.Topics = nil
		resp := ask[*kmsg.MetadataResponse](w, all)
		if got := topicNames(resp); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("version %d: all topics are %v", version, got)
		}
		if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 || resp.Brokers[0].Host != host || strconv.Itoa(int(resp.Brokers[0].Port)) != port {
			t.Errorf("version %d: brokers %+v", version, resp.Brokers)
		}
		if version >= 1 && resp.ControllerID != 1 {
			t.Errorf("version %d: controller %d", version, resp.ControllerID)
		}
		if version >= 2 && (resp.ClusterID == nil || len(*resp.ClusterID) != 22) {
			t.Errorf("version %d: cluster %s", version, str(resp.ClusterID))
		}
		for _, rt := range resp.Topics {
			for i, p := range rt.Partitions {
				if p.ErrorCode != 0 || int(p.Partition) != i || p.Leader != 1 || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) || len(p.OfflineReplicas) > 0 || version >= 7 && p.LeaderEpoch < 1 {
					t.Errorf("version %d: %s-%d %+v", version, *rt.Topic, i, p)
				}
			}
		}
		// An empty list is all in version 0 and none after it.
		want := []string(nil)
		if version == 0 {
			want = []string{"a", "b"}
		}
		if got := topicNames(ask[*kmsg.MetadataResponse](w, metadataRequest(version))); !slices.Equal(got, want) {
			t.Errorf("version %d: no topics are %v", version, got)
		}
		resp = ask[*kmsg.MetadataResponse](w, metadataRequest(version, "nobody", "b", "b", "../x", ""))
		if got := topicNames(resp); !slices.Equal(got, []string{"nobody", "b", "../x", ""}) {
			t.Errorf("version %d: %v", version, got)
		}
		for i, want := range []protocol.Code{protocol.UnknownTopicOrPartition, protocol.None, protocol.InvalidTopic, protocol.InvalidTopic} {
			if got := resp.Topics[i].ErrorCode; got != int16(want) {
				t.Errorf("version %d: topic %q has error %d, want %d", version, *resp.Topics[i].Topic, got, want)
			}
		}
		if version < 10 {
			continue
		}
		byID := metadataRequest(version)
		// An id goes before a name: Kafka's Admin sends the empty one with it.
		for _, id := range [][16]byte{id, {1, 2, 3}} {
			rt := kmsg.NewMetadataRequestTopic()
			rt.TopicID = id
			if version == 13 {
				rt.Topic = new(string)
			}
			byID.Topics = append(byID.Topics, rt)
		}
		resp = ask[*kmsg.MetadataResponse](w, byID)
		codes := []protocol.Code{protocol.None, protocol.UnknownTopicID}
		if version < 12 {
			codes = []protocol.Code{protocol.InvalidRequest, protocol.InvalidRequest}
		}
		for i, want := range codes {
			if got := resp.Topics[i].ErrorCode; got != int16(want) {
				t.Errorf("version %d: id %d has error %d, want %d", version, i, got, want)
			}
		}
		if version >= 12 && (*resp.Topics[0].Topic != "b" || resp.Topics[1].Topic != nil) {
			t.Errorf("version %d: names %s, %s", version, str(resp.Topics[0].Topic), str(resp.Topics[1].Topic))
		}
	}
}

// Implied below version 4, asked for from it on.
// What librdkafka 2.16 sends for all topics: four zero bytes, of which the first
// is the null array, then 1, 0, 0 for the three fields that Kafka has read by then.
func TestMetadataOfAllTopicsForLibrdkafka(t *testing.T) {
	b := startBroker(t, nil)
	b.create("a", 1, nil)
	w := b.dial()
	for version := byte(9); version <= 13; version++ {
		body := []byte{0, 0, 0, 0, 1, 0, 0}
		if version <= 10 {
			body = append(body, 0) // include_cluster_authorized_operations
		}
		frame := append([]byte{0, 0, 0, 0, 0, 3, 0, version, 0, 0, 0, version, 0xff, 0xff, 0}, body...)
		binary.BigEndian.PutUint32(frame, uint32(len(frame)-4))
		w.write(frame)
		req := metadataRequest(int16(version))
		if got := topicNames(w.receive(req, int32(version)).(*kmsg.MetadataResponse)); !slices.Equal(got, []string{"a"}) {
			t.Errorf("version %d: all topics are %v", version, got)
		}
	}
}

func TestMetadataCreatesTopicsWhereAllowed(t *testing.T) {
	t.Parallel()
	b := startBroker(t, map[string]string{"num.partitions": "3"})
	w := b.dial()
	for version := int16(0); version <= 13; version++ {
		for _, allow := range []bool{false, true} {
			name := fmt.Sprintf("t-%d-%v", version, allow)
			req := metadataRequest(version, name)
			req.AllowAutoTopicCreation = allow
			created := version < 4 || allow
			rt := ask[*kmsg.MetadataResponse](w, req).Topics[0]
			switch {
			case !created && rt.ErrorCode != int16(protocol.UnknownTopicOrPartition):
				t.Errorf("%s: error %d", name, rt.ErrorCode)
			case created && (rt.ErrorCode != int16(protocol.UnknownTopicOrPartition) || len(rt.Partitions) != 0):
				t.Errorf("%s when it is created: %+v", name, rt)
			}
			if !created {
				continue
			}
			if rt = ask[*kmsg.MetadataResponse](w, req).Topics[0]; rt.ErrorCode != 0 || len(rt.Partitions) != 3 || rt.Partitions[0].Leader != 1 {
				t.Errorf("%s: %+v", name, rt)
			}
		}
	}
	for _, name := range []string{"..", "a/b", "", "ümlaut", string(make([]byte, 250)), metadataTopic} {
		req := metadataRequest(12, name)
		req.AllowAutoTopicCreation = true
		for range 2 {
			if rt := ask[*kmsg.MetadataResponse](w, req).Topics[0]; rt.ErrorCode != int16(protocol.InvalidTopic) && rt.ErrorCode != int16(protocol.UnknownTopicOrPartition) {
				t.Errorf("%q: error %d", name, rt.ErrorCode)
			}
		}
	}
	// The cluster's own topics are made as the cluster makes them, whoever asks
	// first (AutoTopicCreationManager.creatableTopic).
	for name, partitions := range map[string]int{offsetsTopic: 50, transactionsTopic: 50, shareTopic: 50} {
		req := metadataRequest(12, name)
		req.AllowAutoTopicCreation = true
		ask[*kmsg.MetadataResponse](w, req)
		if rt := ask[*kmsg.MetadataResponse](w, req).Topics[0]; rt.ErrorCode != 0 || len(rt.Partitions) != partitions || !rt.IsInternal {
			t.Errorf("%s: error %d, %d partitions, internal %v", name, rt.ErrorCode, len(rt.Partitions), rt.IsInternal)
		}
	}
}

// Ten thousand topics that are not there, in one request.
func TestMetadataCreatesAFewTopicsAtATime(t *testing.T) {
	t.Parallel()
	b := startBroker(t, nil)
	var names []string
	for i := range 10_000 {
		names = append(names, fmt.Sprint("t", i))
	}
	req := metadataRequest(12, names...)
	req.AllowAutoTopicCreation = true
	resp := ask[*kmsg.MetadataResponse](b.dial(), req)
	for _, rt := range resp.Topics {
		if protocol.Code(rt.ErrorCode) != protocol.UnknownTopicOrPartition {
			t.Fatalf("%s: error %d", *rt.Topic, rt.ErrorCode)
		}
	}
	if made := len(b.node.Image().Topics()); made == 0 || made > maxAutoCreate || len(resp.Topics) != len(names) {
		t.Errorf("%d of %d topics made", made, len(resp.Topics))
	}
}

func TestRecreatedTopicHasAnotherID(t *testing.T) {
	b := startBroker(t, nil)
	first := b.create("t", 1, nil)
	w := b.dial()
	del := kmsg.NewPtrDeleteTopicsRequest()
	del.SetVersion(6)
	rt := kmsg.NewDeleteTopicsRequestTopic()
	rt.Topic = kmsg.StringPtr("t")
	del.Topics = append(del.Topics, rt)
	if got := ask[*kmsg.DeleteTopicsResponse](w, del).Topics[0]; got.ErrorCode != 0 || got.TopicID != first {
		t.Fatalf("%+v", got)
	}
	if second := b.create("t", 1, nil); second == first {
		t.Error("the same id")
	}
	if got := producedPartition(t, ask[*kmsg.ProduceResponse](w, produceRequest(13, "", first, batchOf(t, 0, nil, "x")))); got.ErrorCode != int16(protocol.UnknownTopicID) {
		t.Errorf("produce to the old id: error %d", got.ErrorCode)
	}
}

func TestClientsAreToldWhereTheyCameIn(t *testing.T) {
	b := startBroker(t, nil)
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("no second loopback address here: ", err)
	}
	go b.server.Serve(l)
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	w := &wire{t: t, conn: conn}
	got := ask[*kmsg.MetadataResponse](w, metadataRequest(12)).Brokers[0]
	if a := net.JoinHostPort(got.Host, strconv.Itoa(int(got.Port))); a != l.Addr().String() {
		t.Errorf("told %s, came in by %s", a, l.Addr())
	}
}

func TestAddressesOfListeners(t *testing.T) {
	for _, c := range []struct {
		addr string
		host string
		port int32
		ok   bool
	}{
		{"10.1.2.3:9092", "10.1.2.3", 9092, true},
		{"[::1]:9092", "::1", 9092, true},
		{"[::ffff:10.1.2.3]:9092", "10.1.2.3", 9092, true},
		{"[fe80::1%eth0]:9092", "fe80::1", 9092, true},
		{"pipe", "", 0, false},
	} {
		host, port, ok := splitAddr(addr(c.addr))
		if host != c.host || port != c.port || ok != c.ok {
			t.Errorf("%s: %s, %d, %v", c.addr, host, port, ok)
		}
	}
}

type addr string

func (addr) Network() string  { return "test" }
func (a addr) String() string { return string(a) }

// A client is told where all brokers are for the listener that it came in by, by
// whichever broker and in whatever answer.
func TestClientsAreToldTheAddressesOfTheirListener(t *testing.T) {
	t.Parallel()
	all := startClusterOf(t, 2, nil, []string{"EXTERNAL", "VPN"})
	waitFor(t, "listeners to be registered and known everywhere", func() bool {
		for _, b := range all {
			for _, o := range b.node.Image().Brokers() {
				if o.Listeners == "" {
					return false
				}
			}
		}
		return true
	})
	group := kmsg.NewPtrFindCoordinatorRequest()
	group.CoordinatorKeys = []string{"g"}
	for _, b := range all {
		for i, name := range []string{"", "external", "vpn"} {
			client, err := kgo.NewClient(kgo.SeedBrokers(b.listeners[i]))
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			seed := client.SeedBrokers()[0]
			want := map[int32]string{}
			for j, o := range all {
				want[o.node.ID()] = o.addr
				if name != "" {
					want[o.node.ID()] = fmt.Sprintf("%s-%d.example:9092", name, j+1)
				}
			}
			check := func(answer string, id int32, host string, port int32) {
				t.Helper()
				if got := net.JoinHostPort(host, strconv.Itoa(int(port))); got != want[id] {
					t.Errorf("%s of broker %d by listener %q: broker %d is at %s, want %s", answer, b.node.ID(), name, id, got, want[id])
				}
			}
			m, err := seed.Request(testContext(t), kmsg.NewPtrMetadataRequest())
			if err != nil || len(m.(*kmsg.MetadataResponse).Brokers) != len(all) {
				t.Fatal(m, err)
			}
			for _, o := range m.(*kmsg.MetadataResponse).Brokers {
				check("Metadata", o.NodeID, o.Host, o.Port)
			}
			d, err := seed.Request(testContext(t), kmsg.NewPtrDescribeClusterRequest())
			if err != nil || len(d.(*kmsg.DescribeClusterResponse).Brokers) != len(all) {
				t.Fatal(d, err)
			}
			for _, o := range d.(*kmsg.DescribeClusterResponse).Brokers {
				check("DescribeCluster", o.NodeID, o.Host, o.Port)
			}
			waitFor(t, "a coordinator", func() bool {
				f, err := seed.Request(testContext(t), group)
				if err != nil {
					t.Fatal(err)
				}
				c := f.(*kmsg.FindCoordinatorResponse).Coordinators[0]
				if c.ErrorCode != 0 {
					return false
				}
				check("FindCoordinator", c.NodeID, c.Host, c.Port)
				return true
			})
		}
	}
}

// A broker that starts tells of no topic that it is not there before it has caught up with
// what it knew when it ended.
func TestATopicIsThereRightAfterAStart(t *testing.T) {
	dir := t.TempDir()
	patient := func(s *Server) { s.broker.image.patience = time.Hour }
	t.Run("before", func(t *testing.T) { startBrokerIn(t, dir, nil, patient).create("flights", 1, nil) })
	b := serveBroker(t, dir, nil, patient)
	client, served := net.Pipe()
	w := &wire{t: t, conn: client}
	go newConnection(b.server, served).serve()
	req := metadataRequest(12, "flights")
	id := w.send(req)
	for deadline := time.Now().Add(time.Minute); b.server.broker.image.waiting.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request does not wait")
		}
	}
	b.start()
	resp := w.receive(req, id).(*kmsg.MetadataResponse)
	if len(resp.Topics) != 1 || resp.Topics[0].ErrorCode != 0 || len(resp.Topics[0].Partitions) != 1 {
		t.Errorf("asked before the start: %+v", resp.Topics)
	}
	client.Close()
}

// Where access is controlled, nobody is let do by rules that a node had when it ended what
// has been forbidden since, as far as it knows: requests wait for the image.
func TestRightsAreNotThoseOfAStart(t *testing.T) {
	b := serveBroker(t, t.TempDir(), nil, func(s *Server) { s.broker.image.patience = time.Hour })
	rules := b.guard()
	const group = "g"
	rules.set(let(acl.Anonymous, acl.Read, acl.Group, group))
	client, served := net.Pipe()
	w := &wire{t: t, conn: client}
	go newConnection(b.server, served).serve()
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID = group, "m"
	id := w.send(req)
	for deadline := time.Now().Add(time.Minute); b.server.broker.image.waiting.Load() == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the request does not wait")
		}
	}
	rules.set()
	b.start()
	if got := w.receive(req, id).(*kmsg.HeartbeatResponse); got.ErrorCode != noGroup {
		t.Errorf("%+v", got)
	}
	client.Close()
}

// Where there is no controller to catch up with, requests wait once and not each.
func TestTheWaitForTheImageEnds(t *testing.T) {
	b := serveBroker(t, t.TempDir(), nil, func(s *Server) { s.broker.image.patience = time.Millisecond })
	for range 3 {
		b.server.broker.awaitImage(t.Context())
	}
	select {
	case <-b.node.Replayed():
		t.Error("it has caught up before its start")
	default:
	}
	b.start()
}

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/server/protocol"
)

// startCluster founds a cluster of n nodes, each with a server on an address of
// its own, and waits until every node knows all of them.
func startCluster(t *testing.T, n int) []*testBroker {
	t.Helper()
	return startClusterWith(t, n, nil)
}

func startClusterWith(t *testing.T, n int, settings map[string]string) []*testBroker {
	t.Helper()
	return startClusterOf(t, n, settings, nil)
}

// A switchboard joins the nodes of a cluster, until one is cut off. Clients
// still reach everyone.
type switchboard struct {
	mu    sync.Mutex
	cut   map[string]bool // addresses
	conns map[net.Conn][2]string
}

// A caller dials for the node at an address.
type caller struct {
	*switchboard
	from string
}

// DialContext implements transport.Dialer.
func (s caller) DialContext(ctx context.Context, network, to string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, to)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut[s.from] || s.cut[to] {
		conn.Close()
		return nil, errors.New("cut off")
	}
	s.conns[conn] = [2]string{s.from, to}
	return conn, nil
}

// isolate cuts a node off from the others.
func (s *switchboard) isolate(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cut[addr] = true
	for conn, ends := range s.conns {
		if ends[0] == addr || ends[1] == addr {
			conn.Close()
			delete(s.conns, conn)
		}
	}
}

func (s *switchboard) heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.cut)
}

// startClusterOf starts one whose nodes have further listeners for clients, by name;
// each is advertised as "<name in lower case>-<node>.example", port 9092.
func startClusterOf(t *testing.T, n int, settings map[string]string, names []string) []*testBroker {
	t.Helper()
	var all []*testBroker
	peers := &switchboard{cut: map[string]bool{}, conns: map[net.Conn][2]string{}}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		logger := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError}))
		cfg := replication.Config{
			DataDir: t.TempDir(), Advertise: l.Addr().String(), Settings: settings, Logger: logger,
			Dialer: caller{peers, l.Addr().String()},
		}
		if i > 0 {
			cfg.Join = []string{all[0].addr}
		}
		listeners := []*Listener{{Listener: l, Name: "PLAINTEXT"}}
		if len(names) > 0 {
			cfg.Listeners = []metadata.Listener{{Name: "PLAINTEXT", Address: cfg.Advertise}}
		}
		for _, name := range names {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			advertised := fmt.Sprintf("%s-%d.example:9092", strings.ToLower(name), i+1)
			listeners = append(listeners, &Listener{Listener: l, Name: name, Advertised: advertised})
			cfg.Listeners = append(cfg.Listeners, metadata.Listener{Name: name, Address: advertised})
		}
		node, err := replication.Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		b := &testBroker{t: t, node: node, addr: l.Addr().String(), peers: peers}
		b.server = &Server{Node: node, DataDir: cfg.DataDir, Logger: logger}
		served := make(chan error, 2*len(listeners))
		for _, l := range listeners {
			m := b.server.Mux(l.Listener)
			peers, clients := m.Peers(), m.Kafka()
			if len(names) > 0 {
				clients = &Listener{Listener: clients, Name: l.Name, Advertised: l.Advertised}
			}
			go func() { served <- node.Serve(peers) }()
			go func() { served <- b.server.Serve(clients) }()
			b.listeners = append(b.listeners, l.Addr().String())
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			if err := node.Shutdown(ctx); err != nil {
				t.Errorf("node shutdown: %v", err)
			}
			if err := b.server.Shutdown(ctx); err != nil {
				t.Errorf("shutdown: %v", err)
			}
			for range cap(served) {
				if err := <-served; err != ErrClosed && err != nil {
					t.Errorf("Serve returned %v", err)
				}
			}
		})
		if err := node.Start(ctx); err != nil {
			t.Fatal(err)
		}
		all = append(all, b)
	}
	waitFor(t, "all nodes to know each other", func() bool {
		for _, b := range all {
			if len(b.node.Image().Brokers()) < n {
				return false
			}
			for _, o := range b.node.Image().Brokers() {
				if !b.node.Live(o.ID) {
					return false
				}
			}
		}
		return true
	})
	return all
}

// leaderOf returns the brokers that lead and follow a topic's partition 0, once
// all agree on who leads.
func leaderOf(t *testing.T, all []*testBroker, topic string) (leader, follower *testBroker, epoch int32) {
	t.Helper()
	waitFor(t, "agreement on who leads", func() bool {
		var first kmsg.MetadataResponseTopicPartition
		for i, b := range all {
			rt := ask[*kmsg.MetadataResponse](b.dial(), metadataRequest(12, topic)).Topics[0]
			if rt.ErrorCode != 0 || rt.Partitions[0].ErrorCode != 0 || len(rt.Partitions[0].ISR) < len(all) {
				return false
			}
			p := rt.Partitions[0]
			if i == 0 {
				first = p
			}
			if p.Leader != first.Leader || p.LeaderEpoch != first.LeaderEpoch {
				return false
			}
			epoch = p.LeaderEpoch
		}
		for _, b := range all {
			if b.node.ID() == first.Leader {
				leader = b
			} else {
				follower = b
			}
		}
		return true
	})
	return leader, follower, epoch
}

func TestClusterOfThree(t *testing.T) {
	t.Parallel()
	all := startCluster(t, 3)
	ctx := testContext(t)

	// Whoever is asked, everyone knows: changes go where they must.
	for i, b := range all {
		if got := ask[*kmsg.CreateTopicsResponse](b.dial(), createRequest(7, newTopic(fmt.Sprint("t", i), 1, 3))).Topics[0]; got.ErrorCode != 0 || got.ReplicationFactor != 3 {
			t.Fatalf("created through node %d: %+v", b.node.ID(), got)
		}
	}
	leader, follower, epoch := leaderOf(t, all, "t1")

	t.Run("everyone lists everyone, where they are reached", func(t *testing.T) {
		for _, b := range all {
			resp := ask[*kmsg.MetadataResponse](b.dial(), metadataRequest(12))
			var got, want []string
			for _, r := range resp.Brokers {
				got = append(got, net.JoinHostPort(r.Host, strconv.Itoa(int(r.Port))))
			}
			for _, o := range all {
				want = append(want, o.addr)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Errorf("node %d lists %v, want %v", b.node.ID(), got, want)
			}
			if resp.ControllerID < 1 || resp.ControllerID > 3 {
				t.Errorf("node %d names controller %d", b.node.ID(), resp.ControllerID)
			}
		}
	})
	top, _ := leader.node.Image().Topic("t1")

	// KIP-951: a follower says who leads now, since when, and where that is.
	t.Run("followers name the leader", func(t *testing.T) {
		host, port, _ := net.SplitHostPort(leader.addr)
		for _, version := range []int16{9, 10, 12, 13} {
			resp := ask[*kmsg.ProduceResponse](follower.dial(), produceRequest(version, "t1", top.ID, batchOf(t, 0, nil, "x")))
			p := producedPartition(t, resp)
			if p.ErrorCode != int16(protocol.NotLeaderOrFollower) {
				t.Fatalf("Produce version %d: error %d", version, p.ErrorCode)
			}
			if version < 10 {
				continue
			}
			if p.CurrentLeader.LeaderID != leader.node.ID() || p.CurrentLeader.LeaderEpoch != epoch ||
				len(resp.Brokers) != 1 || resp.Brokers[0].Host != host || strconv.Itoa(int(resp.Brokers[0].Port)) != port {
				t.Errorf("Produce version %d: leader %+v at %+v, want node %d since %d", version, p.CurrentLeader, resp.Brokers, leader.node.ID(), epoch)
			}
		}
		for _, version := range []int16{4, 12, 16, 18} {
			resp := ask[*kmsg.FetchResponse](follower.dial(), fetchRequest(version, "t1", top.ID, 0, 0))
			p := fetchedPartition(t, resp)
			if p.ErrorCode != int16(protocol.NotLeaderOrFollower) {
				t.Fatalf("Fetch version %d: error %d", version, p.ErrorCode)
			}
			if version < 16 {
				continue
			}
			if p.CurrentLeader.LeaderID != leader.node.ID() || p.CurrentLeader.LeaderEpoch != epoch ||
				len(resp.Brokers) != 1 || resp.Brokers[0].Host != host || strconv.Itoa(int(resp.Brokers[0].Port)) != port {
				t.Errorf("Fetch version %d: leader %+v at %+v", version, p.CurrentLeader, resp.Brokers)
			}
		}
		if got := ask[*kmsg.ListOffsetsResponse](follower.dial(), listRequest(10, "t1", 0, latestOffset)).Topics[0].Partitions[0]; got.ErrorCode != int16(protocol.NotLeaderOrFollower) {
			t.Errorf("ListOffsets: %+v", got)
		}
	})

	t.Run("producer ids are given once in the cluster", func(t *testing.T) {
		seen := map[int64]bool{}
		for range 3 {
			for _, b := range all {
				init := kmsg.NewPtrInitProducerIDRequest()
				init.SetVersion(4)
				got := ask[*kmsg.InitProducerIDResponse](b.dial(), init)
				if got.ErrorCode != 0 || seen[got.ProducerID] {
					t.Errorf("node %d: %+v", b.node.ID(), got)
				}
				seen[got.ProducerID] = true
			}
		}
	})

	// A node goes: a waiting fetch and an idempotent producer go on elsewhere.
	t.Run("clients follow the leader", func(t *testing.T) {
		cl := follower.client(kgo.SeedBrokers(all[0].addr, all[1].addr, all[2].addr), kgo.DefaultProduceTopic("t1"), kgo.ConsumeTopics("t1"), kgo.FetchMaxWait(time.Second))
		for i := range 50 {
			if i == 25 {
				stop, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				if err := leader.node.Shutdown(stop); err != nil {
					t.Fatal(err)
				}
				if err := leader.server.Shutdown(stop); err != nil {
					t.Fatal(err)
				}
			}
			if err := cl.ProduceSync(ctx, kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
		}
		for want := 0; want < 50; {
			f := cl.PollFetches(ctx)
			if ctx.Err() != nil {
				t.Fatal(ctx.Err())
			}
			f.EachRecord(func(r *kgo.Record) {
				if string(r.Value) != fmt.Sprint(want) || r.Offset != int64(want) {
					t.Fatalf("record %d is %q at %d", want, r.Value, r.Offset)
				}
				want++
			})
		}
		waitFor(t, "the follower to say that the leader is gone", func() bool {
			resp := ask[*kmsg.MetadataResponse](follower.dial(), metadataRequest(12, "t1"))
			p := resp.Topics[0].Partitions[0]
			return len(resp.Brokers) == 2 && slices.Equal(p.OfflineReplicas, []int32{leader.node.ID()}) && p.LeaderEpoch > epoch
		})
		cluster := kmsg.NewPtrDescribeClusterRequest()
		cluster.SetVersion(2)
		cluster.IncludeFencedBrokers = true
		fenced := 0
		for _, b := range ask[*kmsg.DescribeClusterResponse](follower.dial(), cluster).Brokers {
			if b.IsFenced {
				fenced++
			}
		}
		if fenced != 1 {
			t.Errorf("%d fenced brokers (KIP-1073)", fenced)
		}
	})
}

// A broker that is cut off sends its clients to the others: it goes on listing them,
// and after a while no longer says who leads what. The others do not list it.
func TestABrokerThatIsCutOffListsTheOthers(t *testing.T) {
	t.Parallel()
	all := startCluster(t, 3)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("t1", 1, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("created: %+v", got)
	}
	leader, _, _ := leaderOf(t, all, "t1")
	alone := all[0]
	if alone == leader {
		alone = all[1]
	}
	other := all[2]
	if other == leader {
		other = all[1]
	}
	alone.peers.isolate(alone.addr)
	brokersOf := func(b *testBroker) (brokers int, leader int32) {
		resp := ask[*kmsg.MetadataResponse](b.dial(), metadataRequest(12, "t1"))
		return len(resp.Brokers), resp.Topics[0].Partitions[0].Leader
	}
	if brokers, led := brokersOf(alone); brokers != 3 || led != leader.node.ID() {
		t.Errorf("cut off, it lists %d brokers, and %d leads; want 3 and %d", brokers, led, leader.node.ID())
	}
	waitFor(t, "the broker to know that it is cut off", alone.node.Isolated)
	if brokers, led := brokersOf(alone); brokers != 3 || led != -1 {
		t.Errorf("cut off for long, it lists %d brokers, and %d leads; want 3 and -1", brokers, led)
	}
	if id := ask[*kmsg.MetadataResponse](alone.dial(), metadataRequest(12)).ControllerID; id == alone.node.ID() || id < 1 {
		t.Errorf("cut off for long, node %d names %d for what only the controller can do", alone.node.ID(), id)
	}
	describe := kmsg.NewPtrDescribeClusterRequest()
	describe.SetVersion(2)
	if got := ask[*kmsg.DescribeClusterResponse](alone.dial(), describe); len(got.Brokers) != 3 || got.ControllerID == alone.node.ID() {
		t.Errorf("cut off for long, DescribeCluster lists %d brokers, controller %d", len(got.Brokers), got.ControllerID)
	}
	waitFor(t, "the others to miss it", func() bool { brokers, _ := brokersOf(other); return brokers == 2 })
	alone.peers.heal()
	waitFor(t, "the broker to be back", func() bool {
		brokers, led := brokersOf(alone)
		return brokers == 3 && led == leader.node.ID()
	})
}

// A leader that was cut off and deposed, and does not know it yet, knows nothing of what
// its heir has committed. It must not tell a client that is ahead of it that there is
// nothing, since the client would go back, or reset; to read on at the end costs nothing.
func TestDeposedLeaderDoesNotSayWhereTheLogEnds(t *testing.T) {
	t.Parallel()
	all := startCluster(t, 3)
	if got := ask[*kmsg.CreateTopicsResponse](all[0].dial(), createRequest(7, newTopic("t", 1, 3))).Topics[0]; got.ErrorCode != 0 {
		t.Fatalf("create: %+v", got)
	}
	old, follower, epoch := leaderOf(t, all, "t")
	top, _ := old.node.Image().Topic("t")
	id := metadata.PartitionID{Topic: top.ID}
	produce := func(b *testBroker) {
		t.Helper()
		p := producedPartition(t, ask[*kmsg.ProduceResponse](b.dial(), produceRequest(13, "", top.ID, batchOf(t, 0, nil, "x"))))
		if p.ErrorCode != 0 {
			t.Fatalf("produce at node %d: error %d", b.node.ID(), p.ErrorCode)
		}
	}
	produce(old)

	w := old.dial()
	list := func(timestamp int64) int16 {
		return ask[*kmsg.ListOffsetsResponse](w, listRequest(10, "t", 0, timestamp)).Topics[0].Partitions[0].ErrorCode
	}
	fetch := func(offset int64, lastEpoch int32) kmsg.FetchResponseTopicPartition {
		req := fetchRequest(13, "", top.ID, offset, 0)
		req.Topics[0].Partitions[0].LastFetchedEpoch = lastEpoch
		return fetchedPartition(t, ask[*kmsg.FetchResponse](w, req))
	}
	epochEnd := func() int16 {
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		req.SetVersion(4)
		req.ReplicaID = -1
		rt := kmsg.NewOffsetForLeaderEpochRequestTopic()
		rt.Topic = "t"
		rp := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rp.CurrentLeaderEpoch, rp.LeaderEpoch = -1, epoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		return ask[*kmsg.OffsetForLeaderEpochResponse](w, req).Topics[0].Partitions[0].ErrorCode
	}
	check := func(what string, got int16, want protocol.Code) {
		t.Helper()
		if got != int16(want) {
			t.Errorf("%s: error %d, want %d", what, got, want)
		}
	}
	// While it leads it says so.
	check("latest", list(latestOffset), protocol.None)
	check("a time", list(1<<60), protocol.None)
	check("the end of its epoch", epochEnd(), protocol.None)
	check("past the end", fetch(5, -1).ErrorCode, protocol.OffsetOutOfRange)
	if p := fetch(5, epoch); p.ErrorCode != 0 || p.DivergingEpoch.EndOffset != 1 {
		t.Errorf("past the end of its epoch: %+v", p)
	}

	old.peers.isolate(old.addr)
	var heir *testBroker
	waitFor(t, "another leader", func() bool {
		for _, b := range all {
			p, err := b.node.Partition(id)
			if err != nil || b == old {
				continue
			}
			if _, err := p.Serving(); err == nil {
				heir = b
			}
		}
		return heir != nil
	})
	for range 5 {
		produce(heir)
	}
	p, _ := old.node.Partition(id)
	if now, err := p.Serving(); err != nil || now != epoch {
		t.Fatalf("node %d knows already (%d, %v; %v): the test shows nothing", old.node.ID(), now, err, follower.addr)
	}
	check("latest, deposed", list(latestOffset), protocol.NotLeaderOrFollower)
	check("a time, deposed", list(1<<60), protocol.NotLeaderOrFollower)
	check("the end of its epoch, deposed", epochEnd(), protocol.NotLeaderOrFollower)
	check("past its end, deposed", fetch(5, -1).ErrorCode, protocol.NotLeaderOrFollower)
	check("after an epoch it has not heard of, deposed", fetch(1, epoch+1).ErrorCode, protocol.NotLeaderOrFollower)
	if p := fetch(5, epoch); p.ErrorCode != int16(protocol.NotLeaderOrFollower) || p.DivergingEpoch.EndOffset >= 0 {
		t.Errorf("past the end of its epoch, deposed: %+v", p)
	}
	delete := kmsg.NewPtrDeleteRecordsRequest()
	delete.SetVersion(2)
	delete.TimeoutMillis = 5000
	dt := kmsg.NewDeleteRecordsRequestTopic()
	dt.Topic = "t"
	dp := kmsg.NewDeleteRecordsRequestTopicPartition()
	dp.Offset = 5
	dt.Partitions = append(dt.Partitions, dp)
	delete.Topics = append(delete.Topics, dt)
	check("delete past its end, deposed", ask[*kmsg.DeleteRecordsResponse](w, delete).Topics[0].Partitions[0].ErrorCode, protocol.NotLeaderOrFollower)
	if now, err := p.Serving(); err != nil || now != epoch {
		t.Fatalf("node %d has learned of it meanwhile (%d, %v): the test shows nothing", old.node.ID(), now, err)
	}
	// What it has it may read. At its end it waits for more, until it is cut off for long.
	check("below its end, deposed", fetch(0, epoch).ErrorCode, protocol.None)
	wait := fetchRequest(13, "", top.ID, 1, 0)
	wait.MaxWaitMillis = 60_000
	begun := time.Now()
	if p := fetchedPartition(t, ask[*kmsg.FetchResponse](w, wait)); p.ErrorCode != int16(protocol.NotLeaderOrFollower) {
		t.Errorf("who waited at its end was answered %d after %v, want %d", p.ErrorCode, time.Since(begun), protocol.NotLeaderOrFollower)
	}
	if _, _, ok := old.node.Leader(id); ok {
		t.Error("and is told by the same node's metadata that somebody leads")
	}
	check("at its end, cut off", fetch(1, epoch).ErrorCode, protocol.NotLeaderOrFollower)
	check("below its end, cut off", fetch(0, epoch).ErrorCode, protocol.None)
	if now, err := p.Serving(); err != nil || now != epoch {
		t.Fatalf("node %d has learned of it meanwhile (%d, %v): the test shows nothing", old.node.ID(), now, err)
	}
}

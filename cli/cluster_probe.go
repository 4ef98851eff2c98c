package cli

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"millrace/cli/kafka"
	"millrace/cli/term"
	"millrace/server"
)

// What one node is asked beyond its topics and its disk, for what it alone knows.
// A broker that is not one of ours serves less of it, and that stays unknown.

// A registered broker is one of the cluster's as another sees it.
type registered struct {
	node    int32
	address string
	rack    string
	missed  time.Time // since when it has been missed, if it is; zero also when nobody tells
}

// registeredBrokers asks for all brokers of the cluster, there or not.
func registeredBrokers(ctx context.Context, b kmsg.Requestor) (all []registered) {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.IncludeFencedBrokers = true
	resp, err := req.RequestWith(ctx, b)
	if err != nil {
		return nil
	}
	for _, rb := range resp.Brokers {
		one := registered{node: rb.NodeID, address: net.JoinHostPort(rb.Host, strconv.Itoa(int(rb.Port)))}
		if rb.Rack != nil {
			one.rack = *rb.Rack
		}
		rb.UnknownTags.Each(func(key uint32, value []byte) {
			if key == server.DownTag && len(value) == 8 {
				one.missed = time.UnixMilli(int64(binary.BigEndian.Uint64(value)))
			}
		})
		all = append(all, one)
	}
	return all
}

// controllerLeader asks who leads the controllers, -1 for nobody; told says whether
// there was an answer. Metadata always names a broker, because clients want one.
func controllerLeader(ctx context.Context, b *kgo.Broker) (leader int32, told bool) {
	rt := kmsg.NewDescribeQuorumRequestTopic()
	rt.Topic = "__cluster_metadata"
	rt.Partitions = append(rt.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
	req := kmsg.NewPtrDescribeQuorumRequest()
	req.Topics = append(req.Topics, rt)
	resp, err := b.Request(ctx, req)
	if err != nil {
		return -1, false
	}
	q := resp.(*kmsg.DescribeQuorumResponse)
	if q.ErrorCode != 0 || len(q.Topics) != 1 || len(q.Topics[0].Partitions) != 1 {
		return -1, false
	}
	return q.Topics[0].Partitions[0].LeaderID, true
}

// metadataIndex asks how far a node's metadata is: the epoch of its features is the
// number of the last change it has applied. -1: it does not say.
func metadataIndex(ctx context.Context, b *kgo.Broker) int64 {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "millrace", "1"
	resp, err := b.Request(ctx, req)
	if err != nil {
		return -1
	}
	return resp.(*kmsg.ApiVersionsResponse).FinalizedFeaturesEpoch
}

// judge says of each broker whether it is there and what is wrong with it, and who
// leads the controllers, from what all of those that answered say.
func (s *clusterState) judge(ctx context.Context, views brokerViews) {
	newest, told, leader := int64(-1), false, int32(-1)
	missed := make(map[int32]time.Time) // by who heard it last
	for _, v := range views {
		newest = max(newest, v.index)
		told = told || v.quorum
		leader = max(leader, v.leader)
		for _, r := range v.registered {
			if r.missed.After(missed[r.node]) {
				missed[r.node] = r.missed
			}
		}
	}
	if told {
		s.Controller = leader
	}
	for i := range s.Brokers {
		b := &s.Brokers[i]
		b.Controller = b.Node == s.Controller
		v := views[b.Node]
		if b.Up = v != nil; b.Up {
			b.behind = behind(ctx, b.Address, v.index, newest)
		} else if since := missed[b.Node]; !since.IsZero() {
			b.DownFor = max(time.Since(since).Seconds(), 1)
		}
	}
}

// missing says which of the brokers that a command line names are no brokers of the
// cluster, or not yet, whether there are fewer than some number, and who has not heard of
// all of them: a topic could not be given replicas on what its broker does not know.
func (s *clusterState) missing(ctx context.Context, named []string, nodes int) (all []string) {
	views, failed := make([]*brokerView, len(named)), make([]error, len(named))
	var asked sync.WaitGroup
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	for i, address := range named {
		asked.Go(func() { views[i], failed[i] = viewOf(ctx, address) })
	}
	asked.Wait()
	for i, address := range named {
		switch v := views[i]; {
		case failed[i] != nil && slices.ContainsFunc(s.Brokers, func(b brokerItem) bool { return !b.Up && b.Address == address }):
			// It has a name, and is called down by it.
		case failed[i] != nil:
			all = append(all, fmt.Sprintf("no broker answers at %s, which --brokers names", address))
		case v.cluster != s.Cluster:
			all = append(all, fmt.Sprintf("the broker at %s, which --brokers names, is of another cluster, %s", address, v.cluster))
		case v.registered != nil && len(v.registered) < len(s.Brokers):
			all = append(all, fmt.Sprintf("the broker at %s has heard of %d of %s", address, len(v.registered), term.Count(len(s.Brokers), "broker")))
		}
	}
	if have := len(s.Brokers); have < nodes {
		all = append(all, fmt.Sprintf("the cluster has %s, and --nodes asks for %d", term.Count(have, "broker"), nodes))
	}
	return all
}

// behind says whether a node's metadata stands still while that of others goes on.
// A change takes milliseconds to get everywhere, so it is given two seconds.
func behind(ctx context.Context, address string, index, newest int64) string {
	for tries := 0; index >= 0 && index < newest; tries++ {
		if tries == 20 || ctx.Err() != nil {
			return fmt.Sprintf("its metadata stands at change %d, others are at %d", index, newest)
		}
		time.Sleep(100 * time.Millisecond)
		if client, err := kafka.Sole(ctx, address); err == nil {
			if now := metadataIndex(ctx, client.SeedBrokers()[0]); now >= 0 {
				index = now
			}
			client.Close()
		}
	}
	return ""
}

// lasting prints seconds as people say them, rounded: 12 s, 3 min, 5 h, 7 days.
func lasting(s float64) string {
	switch {
	case s < 119.5:
		return fmt.Sprintf("%.0f s", s)
	case s < 119.5*60:
		return fmt.Sprintf("%.0f min", s/60)
	case s < 71.5*3600:
		return fmt.Sprintf("%.0f h", s/3600)
	}
	return fmt.Sprintf("%.0f days", s/(24*3600))
}

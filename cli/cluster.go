package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func clusterCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "cluster",
		Usage: "status, health and metadata of the cluster",
		Subcommands: []*urfave.Command{
			clusterStatusCommand(),
			clusterHealthCommand(),
			clusterMetadataCommand(),
		},
	}
}

// A clusterState is the cluster as its metadata and its brokers tell it.
type clusterState struct {
	Cluster         string       `json:"cluster"`
	Controller      int32        `json:"controller"` // -1: none
	Brokers         []brokerItem `json:"brokers"`
	Topics          int          `json:"topics"`
	Partitions      int          `json:"partitions"`
	UnderReplicated []string     `json:"under_replicated"` // topic/partition
	Leaderless      []string     `json:"leaderless"`
}

type brokerItem struct {
	Node       int32  `json:"node"`
	Address    string `json:"address"`
	Rack       string `json:"rack,omitempty"`
	Controller bool   `json:"controller"`
	Leaders    int    `json:"leaders"`
	Replicas   int    `json:"replicas"`
	Up         bool   `json:"up"` // it answers
}

// troubles lists, a sentence each, why the cluster is not healthy.
func (s *clusterState) troubles() (all []string) {
	for _, b := range s.Brokers {
		if !b.Up {
			all = append(all, fmt.Sprintf("broker %d at %s does not answer", b.Node, b.Address))
		}
	}
	if s.Controller < 0 {
		all = append(all, "there is no controller")
	}
	if n := len(s.Leaderless); n > 0 {
		all = append(all, fmt.Sprintf("%s without a leader: %s", count(n, "partition"), some(s.Leaderless)))
	}
	if n := len(s.UnderReplicated); n > 0 {
		all = append(all, fmt.Sprintf("%s under-replicated: %s", count(n, "partition"), some(s.UnderReplicated)))
	}
	return all
}

// some names the first few of many.
func some(names []string) string {
	s := ""
	for i, n := range names {
		if i == 5 {
			return s + ", …"
		}
		if i > 0 {
			s += ", "
		}
		s += n
	}
	return s
}

// readCluster asks for the cluster's state, and every broker that the metadata
// names for its own view of it, all at once: whether it answers, and which
// replicas are in sync in the partitions it leads. Only a leader knows that at
// first hand.
func readCluster(ctx context.Context, client *kgo.Client) (*clusterState, error) {
	metadata, err := kadm.NewClient(client).Metadata(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for the metadata: %w", err)
	}
	s := &clusterState{
		Cluster: metadata.Cluster, Controller: metadata.Controller, Topics: len(metadata.Topics),
		Brokers: []brokerItem{}, UnderReplicated: []string{}, Leaderless: []string{},
	}
	var mu sync.Mutex
	views := make(map[int32]kadm.TopicDetails)
	probe, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var asked sync.WaitGroup
	for _, b := range metadata.Brokers {
		asked.Go(func() {
			if topics, err := viewOf(probe, address(b)); err == nil {
				mu.Lock()
				views[b.NodeID] = topics
				mu.Unlock()
			}
		})
	}
	asked.Wait()
	leaders, replicas := make(map[int32]int), make(map[int32]int)
	for _, t := range metadata.Topics.Sorted() {
		for _, p := range t.Partitions.Sorted() {
			if own, ok := views[p.Leader][p.Topic].Partitions[p.Partition]; ok && own.Leader == p.Leader {
				p = own
			}
			s.Partitions++
			for _, r := range p.Replicas {
				replicas[r]++
			}
			name := fmt.Sprintf("%s/%d", p.Topic, p.Partition)
			if p.Leader < 0 {
				s.Leaderless = append(s.Leaderless, name)
			} else {
				leaders[p.Leader]++
			}
			if len(p.ISR) < len(p.Replicas) {
				s.UnderReplicated = append(s.UnderReplicated, name)
			}
		}
	}
	for _, b := range metadata.Brokers {
		item := brokerItem{
			Node: b.NodeID, Address: address(b), Controller: b.NodeID == metadata.Controller,
			Leaders: leaders[b.NodeID], Replicas: replicas[b.NodeID],
		}
		_, item.Up = views[b.NodeID]
		if b.Rack != nil {
			item.Rack = *b.Rack
		}
		s.Brokers = append(s.Brokers, item)
	}
	slices.SortFunc(s.Brokers, func(a, b brokerItem) int { return cmp.Compare(a.Node, b.Node) })
	return s, nil
}

func address(b kadm.BrokerDetail) string {
	return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
}

// viewOf returns the topics as one broker sees them. A client that knows no other
// broker yet can ask no other.
func viewOf(ctx context.Context, address string) (kadm.TopicDetails, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.ClientID("millrace"), kgo.DialTimeout(2*time.Second), kgo.RequestRetries(0))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	metadata, err := kadm.NewClient(client).Metadata(ctx)
	return metadata.Topics, err
}

package cli

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

func clusterCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "cluster",
		Usage: "status, health, metadata, settings, join tokens, authority and rescue of the cluster",
		Subcommands: []*urfave.Command{
			clusterStatusCommand(),
			clusterHealthCommand(),
			clusterMetadataCommand(),
			clusterConfigCommand(),
			clusterTokenCommand(),
			clusterCACommand(),
			clusterRemoveCommand(),
			clusterRescueCommand(),
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
	Internal        int          `json:"internal_partitions"` // of those
	UnderReplicated []string     `json:"under_replicated"`    // topic/partition
	Leaderless      []string     `json:"leaderless"`
	Down            []string     `json:"down"` // topic/partition on broker: a replica its own broker calls down

	internalTopics int
}

// ownLast sorts topics by name, and the cluster's own behind the others: of many in
// trouble only the first are named.
func ownLast(topics kadm.TopicDetails) []kadm.TopicDetail {
	sorted := topics.Sorted()
	slices.SortStableFunc(sorted, func(a, b kadm.TopicDetail) int {
		switch {
		case a.IsInternal == b.IsInternal:
			return 0
		case a.IsInternal:
			return 1
		}
		return -1
	})
	return sorted
}

type brokerItem struct {
	Node       int32  `json:"node"`
	Address    string `json:"address"`
	Rack       string `json:"rack,omitempty"`
	Controller bool   `json:"controller"`
	Leaders    int    `json:"leaders"`
	Replicas   int    `json:"replicas"`
	Up         bool   `json:"up"` // it answers
	// DownFor is how many seconds ago the others missed it; 0: they do not, or cannot tell.
	DownFor float64 `json:"down_for,omitempty"`
	// The file system of its data folder, bytes; -1: not known.
	DiskBytes int64 `json:"disk_bytes"`
	DiskFree  int64 `json:"disk_free"`
	dataDir   string
	behind    string // how its metadata is, if that stands still
	stranger  string // the other cluster, if a node of one answers at its address
}

// state is a word or two for the table.
func (b *brokerItem) state() string {
	switch {
	case b.stranger != "":
		return "down, another cluster's node there"
	case !b.Up && b.DownFor > 0:
		return "down " + lasting(b.DownFor)
	case !b.Up:
		return "down"
	case b.diskFull():
		return "up, disk full"
	case b.behind != "":
		return "up, behind"
	case b.Controller:
		return "up, controller"
	}
	return "up"
}

// diskFull reports whether a broker soon refuses to write: a busy partition takes up to
// 16 MiB of room at a time.
func (b *brokerItem) diskFull() bool {
	return b.DiskBytes > 0 && b.DiskFree < min(16<<20, b.DiskBytes/20)
}

// troubles lists, a sentence each, why the cluster is not healthy.
func (s *clusterState) troubles() (all []string) {
	for _, b := range s.Brokers {
		switch {
		case b.stranger != "":
			all = append(all, fmt.Sprintf("broker %d is away, and a node of another cluster, %s, answers at %s; if its folder was lost, it starts with an empty one, --node-id %d and --join", b.Node, b.stranger, b.Address, b.Node))
		case !b.Up && b.DownFor > 0:
			all = append(all, fmt.Sprintf("broker %d at %s is down, for %s", b.Node, b.Address, lasting(b.DownFor)))
		case !b.Up:
			all = append(all, fmt.Sprintf("broker %d at %s does not answer", b.Node, b.Address))
		case b.behind != "":
			all = append(all, fmt.Sprintf("broker %d: %s", b.Node, b.behind))
		}
		if b.diskFull() {
			all = append(all, fmt.Sprintf("the disk of broker %d is full: %d KiB are left below %s; delete or trim topics, or make room", b.Node, b.DiskFree>>10, b.dataDir))
		}
	}
	if n := len(s.Down); n > 0 {
		all = append(all, fmt.Sprintf("%s down, since a disk failed, data is damaged or something ran out, as the broker's log says: %s", term.Count(n, "replica"), term.Some(s.Down)))
	}
	if s.Controller < 0 {
		text := "the controllers have no leader"
		up := 0
		for _, b := range s.Brokers {
			if b.Up {
				up++
			}
		}
		if up <= len(s.Brokers)/2 { // else they elect one, and it takes a second
			text += "; if a majority of the nodes is gone for good, see `millrace cluster rescue --help`"
		}
		all = append(all, text)
	}
	if n := len(s.Leaderless); n > 0 {
		all = append(all, fmt.Sprintf("%s without a leader: %s", term.Count(n, "partition"), term.Some(s.Leaderless)))
	}
	if n := len(s.UnderReplicated); n > 0 {
		all = append(all, fmt.Sprintf("%s under-replicated: %s", term.Count(n, "partition"), term.Some(s.UnderReplicated)))
	}
	return all
}

// readCluster asks for the cluster's state, at first hand: whichever of the named brokers
// answers first tells whom else to ask.
func readCluster(ctx context.Context, named []string) (*clusterState, error) {
	metadata, err := metadataOf(ctx, named)
	if err != nil {
		return nil, kafka.Unreachable(ctx, named, err)
	}
	return clusterOf(ctx, metadata), nil
}

// metadataOf asks the brokers at some addresses, all at once, for all topics of their
// cluster, and returns what the first says that answers. An ordinary client would go on to
// brokers that this one tells it of, and wait for those that are away.
func metadataOf(ctx context.Context, addresses []string) (kadm.Metadata, error) {
	type answer struct {
		kadm.Metadata
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	answers := make(chan answer, len(addresses))
	for _, address := range addresses {
		go func() { // ends with the answer, or with ctx
			client, err := soleClient(ctx, address)
			if err != nil {
				answers <- answer{err: err}
				return
			}
			defer client.Close()
			m, err := kadm.NewClient(client).Metadata(ctx)
			answers <- answer{m, err}
		}()
	}
	var last answer
	for range addresses {
		if last = <-answers; last.err == nil {
			break
		}
	}
	return last.Metadata, last.err
}

// clusterOf completes what one broker says of the cluster. It asks every broker that is
// registered, whether the others hear it or not, for its own view of it, all at once:
// whether it answers, which replicas are in sync in the partitions it leads, which
// only a leader knows at first hand, and what it alone knows of itself.
func clusterOf(ctx context.Context, metadata kadm.Metadata) *clusterState {
	s := &clusterState{
		Cluster: metadata.Cluster, Controller: metadata.Controller, Topics: len(metadata.Topics),
		Brokers: []brokerItem{}, UnderReplicated: []string{}, Leaderless: []string{}, Down: []string{},
	}
	brokers := slices.Clone(metadata.Brokers)
	views := viewsOf(ctx, brokers)
	if gone := views.unlisted(brokers); len(gone) > 0 {
		maps.Copy(views, viewsOf(ctx, gone))
		brokers = append(brokers, gone...)
	}
	strangers := views.dropStrangers(s.Cluster)
	leaders, replicas := make(map[int32]int), make(map[int32]int)
	for _, t := range ownLast(metadata.Topics) {
		if t.IsInternal {
			s.internalTopics++
		}
		for _, p := range t.Partitions.Sorted() {
			p, down := views.firstHand(p)
			if s.Partitions++; t.IsInternal {
				s.Internal++
			}
			name := fmt.Sprintf("%s/%d", p.Topic, p.Partition)
			for _, r := range p.Replicas {
				replicas[r]++
			}
			for _, r := range down {
				s.Down = append(s.Down, fmt.Sprintf("%s on %d", name, r))
			}
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
	for _, b := range brokers {
		item := brokerItem{
			Node: b.NodeID, Address: kafka.Address(b),
			Leaders: leaders[b.NodeID], Replicas: replicas[b.NodeID], DiskBytes: -1, DiskFree: -1,
			stranger: strangers[b.NodeID],
		}
		if view, ok := views[b.NodeID]; ok {
			item.DiskBytes, item.DiskFree, item.dataDir = view.disk.TotalBytes, view.disk.UsableBytes, view.disk.Dir
		}
		if b.Rack != nil {
			item.Rack = *b.Rack
		}
		s.Brokers = append(s.Brokers, item)
	}
	slices.SortFunc(s.Brokers, func(a, b brokerItem) int { return cmp.Compare(a.Node, b.Node) })
	s.judge(ctx, views)
	return s
}

// A brokerView is what one broker says of itself.
type brokerView struct {
	cluster string
	topics  kadm.TopicDetails
	disk    kmsg.DescribeLogDirsResponseDir

	registered []registered // brokers, there or not
	index      int64        // of its metadata's last change; -1 not known
	leader     int32        // of the controllers; -1 none
	quorum     bool         // it told who leads the controllers
}

// brokerViews are those of the brokers that answered, by id.
type brokerViews map[int32]*brokerView

// viewTimeout is how long a broker may take to tell its view.
const viewTimeout = 3 * time.Second

// viewsOf asks all brokers at once.
func viewsOf(ctx context.Context, brokers kadm.BrokerDetails) brokerViews {
	ctx, cancel := context.WithTimeout(ctx, viewTimeout)
	defer cancel()
	var mu sync.Mutex
	var asked sync.WaitGroup
	views := make(brokerViews)
	for _, b := range brokers {
		asked.Go(func() {
			if view, err := viewOf(ctx, kafka.Address(b)); err == nil {
				mu.Lock()
				views[b.NodeID] = view
				mu.Unlock()
			}
		})
	}
	asked.Wait()
	return views
}

// dropStrangers removes the views of nodes that are of another cluster than the given
// one and have only the address of one of its brokers; it returns which, by broker.
func (v brokerViews) dropStrangers(cluster string) map[int32]string {
	strangers := make(map[int32]string)
	for broker, view := range v {
		if view.cluster != "" && cluster != "" && view.cluster != cluster {
			strangers[broker] = view.cluster
			delete(v, broker)
		}
	}
	return strangers
}

// unlisted are the brokers that are registered, as somebody says, and not in a list.
func (v brokerViews) unlisted(brokers kadm.BrokerDetails) (more kadm.BrokerDetails) {
	for _, view := range v {
		for _, r := range view.registered {
			known := func(b kadm.BrokerDetail) bool { return b.NodeID == r.node }
			if slices.ContainsFunc(brokers, known) || slices.ContainsFunc(more, known) {
				continue
			}
			host, port, _ := net.SplitHostPort(r.address)
			n, _ := strconv.Atoi(port)
			b := kadm.BrokerDetail{NodeID: r.node, Host: host, Port: int32(n)}
			if r.rack != "" {
				b.Rack = &r.rack
			}
			more = append(more, b)
		}
	}
	return more
}

// firstHand returns a partition as its leader sees it, if that can be had, and which
// replicas their own brokers call down.
func (v brokerViews) firstHand(p kadm.PartitionDetail) (own kadm.PartitionDetail, down []int32) {
	of := func(broker int32) (kadm.PartitionDetail, bool) {
		if v[broker] == nil {
			return p, false
		}
		own, ok := v[broker].topics[p.Topic].Partitions[p.Partition]
		return own, ok
	}
	for _, r := range p.Replicas {
		if seen, ok := of(r); ok && slices.Contains(seen.OfflineReplicas, r) {
			down = append(down, r)
		}
	}
	if seen, ok := of(p.Leader); ok && seen.Leader == p.Leader {
		return seen, down
	}
	return p, down
}

// soleClient returns a client of one broker that waits for it no longer than a view may take.
func soleClient(ctx context.Context, address string) (*kgo.Client, error) {
	// How a connection begins no context ends, only the time that a request may take.
	return kafka.Sole(ctx, address, kgo.DialTimeout(2*time.Second), kgo.RequestTimeoutOverhead(viewTimeout))
}

// viewOf returns the topics as one broker sees them, and how full its disk is.
func viewOf(ctx context.Context, address string) (*brokerView, error) {
	client, err := soleClient(ctx, address)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	metadata, err := kadm.NewClient(client).Metadata(ctx)
	if err != nil {
		return nil, err
	}
	v := &brokerView{cluster: metadata.Cluster, topics: metadata.Topics, disk: kmsg.DescribeLogDirsResponseDir{TotalBytes: -1, UsableBytes: -1}}
	seed := client.SeedBrokers()[0]
	v.registered, v.index = registeredBrokers(ctx, seed), metadataIndex(ctx, seed)
	v.leader, v.quorum = controllerLeader(ctx, seed)
	req := kmsg.NewPtrDescribeLogDirsRequest()
	req.Topics = []kmsg.DescribeLogDirsRequestTopic{} // none
	if resp, err := seed.Request(ctx, req); err == nil {
		if dirs := resp.(*kmsg.DescribeLogDirsResponse).Dirs; len(dirs) == 1 {
			v.disk = dirs[0]
		}
	}
	return v, nil
}

package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"millrace/segment/record"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A Probe is the lightest of clients of a cluster that speaks Kafka's protocol.
// It sends single requests, believes no metadata but what it has just been told,
// and tries again every 5 ms, so that how long a cluster is away is the cluster's
// doing and not that of a client's pauses. It is used by one goroutine.
type Probe struct {
	cluster *Cluster
	client  *kgo.Client
	seeds   map[string]*kgo.Broker // by address
	next    int                    // which seed is asked next
}

// probeTimeout bounds one request of a probe.
const probeTimeout = 2 * time.Second

// Probe returns a probe, which the caller closes. The brokers need not serve yet.
func (c *Cluster) Probe() (*Probe, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Addresses()...), kgo.ClientID("millrace-peers"), kgo.DialTimeout(probeTimeout),
		kgo.RequestRetries(0), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		return nil, err
	}
	p := &Probe{cluster: c, client: client, seeds: make(map[string]*kgo.Broker)}
	for i, b := range client.SeedBrokers() {
		p.seeds[c.Brokers[i].Address] = b
	}
	return p, nil
}

// Close closes the probe's connections.
func (p *Probe) Close() { p.client.Close() }

// ask sends a request to one broker after another, of those that run.
func (p *Probe) ask(ctx context.Context, request kmsg.Request) (kmsg.Response, error) {
	for range p.cluster.Brokers {
		b := p.cluster.Brokers[p.next%Size]
		p.next++
		if b.Running() {
			ctx, cancel := context.WithTimeout(ctx, probeTimeout)
			defer cancel()
			return p.seeds[b.Address].Request(ctx, request)
		}
	}
	return nil, errors.New("no broker runs")
}

// CreateTopic creates a topic with three replicas, and tries until there is one.
// It does not wait for leaders.
func (p *Probe) CreateTopic(ctx context.Context, name string, partitions int) error {
	return p.cluster.await(ctx, probeInterval, func() error { return p.createTopic(ctx, name, partitions) })
}

func (p *Probe) createTopic(ctx context.Context, name string, partitions int) error {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = int32(probeTimeout / time.Millisecond)
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, int32(partitions), Size
	c := kmsg.NewCreateTopicsRequestTopicConfig()
	c.Name, c.Value = "min.insync.replicas", kmsg.StringPtr("2")
	t.Configs = append(t.Configs, c)
	request.Topics = append(request.Topics, t)
	answer, err := p.ask(ctx, request)
	if err != nil {
		return err
	}
	for _, t := range answer.(*kmsg.CreateTopicsResponse).Topics {
		if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
			return err
		}
	}
	return nil
}

// DeleteTopic deletes a topic.
func (p *Probe) DeleteTopic(ctx context.Context, name string) error {
	return p.cluster.await(ctx, probeInterval, func() error {
		request := kmsg.NewPtrDeleteTopicsRequest()
		request.TimeoutMillis = int32(probeTimeout / time.Millisecond)
		request.TopicNames = []string{name}
		t := kmsg.NewDeleteTopicsRequestTopic()
		t.Topic = kmsg.StringPtr(name)
		request.Topics = append(request.Topics, t)
		answer, err := p.ask(ctx, request)
		if err != nil {
			return err
		}
		for _, t := range answer.(*kmsg.DeleteTopicsResponse).Topics {
			if err := kerr.ErrorForCode(t.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
				return err
			}
		}
		return nil
	})
}

// A topic is what a broker's metadata says of one.
type topic struct {
	name       string
	id         [16]byte
	partitions []partition // by number
}

type partition struct {
	leader string // its address; "": none, or one that is not known
	inSync int    // replicas
}

func (p *Probe) describe(ctx context.Context, name string) (topic, error) {
	request := kmsg.NewPtrMetadataRequest()
	t := kmsg.NewMetadataRequestTopic()
	t.Topic = kmsg.StringPtr(name)
	request.Topics = append(request.Topics, t)
	answer, err := p.ask(ctx, request)
	if err != nil {
		return topic{}, err
	}
	response := answer.(*kmsg.MetadataResponse)
	addresses := make(map[int32]string)
	for _, b := range response.Brokers {
		addresses[b.NodeID] = net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
	}
	if len(response.Topics) != 1 {
		return topic{}, kerr.UnknownTopicOrPartition
	}
	found := response.Topics[0]
	if err := kerr.ErrorForCode(found.ErrorCode); err != nil {
		return topic{}, err
	}
	described := topic{name: name, id: found.TopicID, partitions: make([]partition, len(found.Partitions))}
	for _, q := range found.Partitions {
		if q.Partition < 0 || int(q.Partition) >= len(found.Partitions) {
			return topic{}, fmt.Errorf("partition %d of %d", q.Partition, len(found.Partitions))
		}
		described.partitions[q.Partition] = partition{addresses[q.Leader], len(q.ISR)}
	}
	return described, nil
}

// AwaitInSync waits until every broker says that all replicas of a topic of so
// many partitions are in sync and their leaders run. One that has just been
// started answers late, so it is not taken for in sync because nobody has missed
// it yet.
func (p *Probe) AwaitInSync(ctx context.Context, name string, partitions int) error {
	return p.cluster.await(ctx, settleInterval, func() error {
		for range Size {
			t, err := p.describe(ctx, name)
			if err != nil {
				return err
			}
			if len(t.partitions) != partitions {
				return fmt.Errorf("topic %s has %d partitions", name, len(t.partitions))
			}
			for i, q := range t.partitions {
				if q.inSync < Size || !p.cluster.runs(q.leader) {
					return fmt.Errorf("%s/%d: %d replicas are in sync, the leader is %q", name, i, q.inSync, q.leader)
				}
			}
		}
		return nil
	})
}

func (c *Cluster) runs(address string) bool {
	for _, b := range c.Brokers {
		if b.Address == address {
			return b.Running()
		}
	}
	return false
}

// Leader returns the broker that leads a partition.
func (p *Probe) Leader(ctx context.Context, name string, number int) (*Broker, error) {
	t, err := p.describe(ctx, name)
	if err != nil {
		return nil, err
	}
	if number < len(t.partitions) {
		for _, b := range p.cluster.Brokers {
			if b.Address == t.partitions[number].leader {
				return b, nil
			}
		}
	}
	return nil, fmt.Errorf("%s/%d has no leader", name, number)
}

// Produce produces a small record to a partition with acks=all, and tries until
// one is acknowledged. Brokers may die meanwhile, and not run.
func (p *Probe) Produce(ctx context.Context, name string, number int) error {
	return retry(ctx, probeInterval, func() error { return p.produce(ctx, name, number) })
}

func (p *Probe) produce(ctx context.Context, name string, number int) error {
	t, err := p.describe(ctx, name)
	if err != nil {
		return err
	}
	if number >= len(t.partitions) || !p.cluster.runs(t.partitions[number].leader) {
		return fmt.Errorf("%s/%d has no leader", name, number)
	}
	batch, err := record.Build(record.None, record.Record{Timestamp: time.Now().UnixMilli(), Value: []byte("are you there?")})
	if err != nil {
		return err
	}
	request := kmsg.NewPtrProduceRequest()
	request.Acks = -1
	request.TimeoutMillis = int32(probeTimeout / time.Millisecond)
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = t.name, t.id
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = int32(number), batch
	rt.Partitions = append(rt.Partitions, rp)
	request.Topics = append(request.Topics, rt)
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	answer, err := p.seeds[t.partitions[number].leader].Request(ctx, request)
	if err != nil {
		return err
	}
	topics := answer.(*kmsg.ProduceResponse).Topics
	if len(topics) != 1 || len(topics[0].Partitions) != 1 {
		return errors.New("the answer is not about the partition that was produced to")
	}
	return kerr.ErrorForCode(topics[0].Partitions[0].ErrorCode)
}

// FirstAck waits until the cluster has acknowledged a record to a topic of one
// partition and three replicas, which it creates.
func (c *Cluster) FirstAck(ctx context.Context) error {
	const name = "first"
	if c.System == NATS {
		return c.firstAckNATS(ctx, name)
	}
	p, err := c.Probe()
	if err != nil {
		return err
	}
	defer p.Close()
	if err := p.CreateTopic(ctx, name, 1); err != nil {
		return err
	}
	return c.await(ctx, probeInterval, func() error { return p.produce(ctx, name, 0) })
}

func (c *Cluster) firstAckNATS(ctx context.Context, name string) error {
	var js jetstream.JetStream
	return c.await(ctx, probeInterval, func() error {
		if js == nil {
			conn, err := nats.Connect(c.Servers(), nats.Timeout(probeTimeout))
			if err != nil {
				return err
			}
			context.AfterFunc(ctx, conn.Close)
			if js, err = jetstream.New(conn); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, probeTimeout)
		defer cancel()
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: Size, Storage: jetstream.FileStorage})
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return err
		}
		_, err = js.Publish(ctx, name, []byte("are you there?"))
		return err
	})
}

// Servers is where NATS clients find the servers.
func (c *Cluster) Servers() (list string) {
	for i, b := range c.Brokers {
		if i > 0 {
			list += ","
		}
		list += "nats://" + b.Address
	}
	return list
}

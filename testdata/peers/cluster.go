package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// connect returns a client that looks for new leaders often: every 20 ms at
// first. It is the same for Kafka and for Millrace.
func (s *system) connect(options ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(s.addresses()...),
		kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 20 * time.Millisecond }),
		kgo.DialTimeout(time.Second),
		kgo.UnknownTopicRetries(-1),
		kgo.ProducerLinger(0),
	}, options...)...)
}

// create makes a topic on all brokers, trying again until the cluster is there.
func create(ctx context.Context, admin *kadm.Client, topic string, partitions int32, settings map[string]string) error {
	config := make(map[string]*string)
	for name, value := range settings {
		config[name] = &value
	}
	for {
		try, cancel := context.WithTimeout(ctx, 30*time.Second)
		r, err := admin.CreateTopic(try, partitions, nodes, config, topic)
		cancel()
		if err == nil && r.Err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("create topic %s: %w", topic, errors.Join(err, r.Err))
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// firstAck waits until a record is acknowledged by all replicas' quorum.
func (s *system) firstAck(ctx context.Context) (time.Duration, error) {
	client, err := s.connect()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if err := create(ctx, kadm.NewClient(client), "first", 1, nil); err != nil {
		return 0, err
	}
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "first", Value: []byte("x")}).FirstErr(); err != nil {
		return 0, err
	}
	return time.Since(s.began), nil
}

// inSync waits until every partition of the cluster has all its replicas in sync.
func (s *system) inSync(ctx context.Context, admin *kadm.Client) error {
	for {
		try, cancel := context.WithTimeout(ctx, 5*time.Second)
		m, err := admin.Metadata(try)
		cancel()
		if err == nil && len(m.Brokers) == nodes && allInSync(m) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not all replicas get in sync: %w", s.kind.name(), ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func allInSync(m kadm.Metadata) bool {
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.Err != nil || p.Leader < 0 || len(p.ISR) < len(p.Replicas) {
				return false
			}
		}
	}
	return true
}

// failovers kills the leader of a partition again and again, and returns how
// long it took each time until a record sent after the kill was acknowledged.
func (s *system) failovers(ctx context.Context, kills int) ([]time.Duration, error) {
	client, err := s.connect()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	const topic = "failover"
	if err := create(ctx, admin, topic, 1, nil); err != nil {
		return nil, err
	}
	var all []time.Duration
	for range kills {
		if err := s.inSync(ctx, admin); err != nil {
			return all, err
		}
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("before")}).FirstErr(); err != nil {
			return all, err
		}
		m, err := admin.Metadata(ctx, topic)
		if err != nil {
			return all, err
		}
		leader := int(m.Topics[topic].Partitions[0].Leader) - 1
		if leader < 0 || leader >= nodes {
			return all, fmt.Errorf("%s: partition led by node %d", s.kind.name(), leader+1)
		}
		s.brokers[leader].kill()
		killed := time.Now()
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("after")}).FirstErr(); err != nil {
			return all, err
		}
		all = append(all, time.Since(killed))
		if err := s.launch(leader, true); err != nil {
			return all, err
		}
	}
	return all, s.inSync(ctx, admin)
}

// restart kills all brokers, starts them again on what they have, and returns how
// long it took until a record was acknowledged.
func (s *system) restart(ctx context.Context) (time.Duration, error) {
	for _, p := range s.brokers {
		p.kill()
	}
	if err := s.start(ctx, true); err != nil {
		return 0, err
	}
	client, err := s.connect()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	if err := client.ProduceSync(ctx, &kgo.Record{Topic: "first", Value: []byte("again")}).FirstErr(); err != nil {
		return 0, err
	}
	return time.Since(s.began), nil
}

// idle returns the share of a core that the busiest broker uses while nothing
// happens, and the memory of the largest.
func (s *system) idle(ctx context.Context, d time.Duration) (share float64, memory int64) {
	var before [nodes]time.Duration
	for i, p := range s.brokers {
		before[i] = cpuOf(p.pid())
	}
	began := time.Now()
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	took := time.Since(began)
	for i, p := range s.brokers {
		share = max(share, float64(cpuOf(p.pid())-before[i])/float64(took))
	}
	return share, s.memory("VmRSS")
}

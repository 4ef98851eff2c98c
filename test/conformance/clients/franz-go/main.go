// franz-go does what abilities ask with github.com/twmb/franz-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/conformance/ability"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

func main() {
	ability.Main(func(brokers []string, login ability.Login) (ability.Client, error) {
		base, err := options(brokers, login)
		if err != nil {
			return nil, err
		}
		c, err := kgo.NewClient(base...)
		if err != nil {
			return nil, err
		}
		return client{base, kadm.NewClient(c), c}, nil
	})
}

// options are those of every client.
func options(brokers []string, login ability.Login) ([]kgo.Opt, error) {
	all := []kgo.Opt{kgo.SeedBrokers(brokers...)}
	config, err := login.TLS()
	if config != nil {
		all = append(all, kgo.DialTLSConfig(config))
	}
	var m sasl.Mechanism
	switch login.Mechanism {
	case "":
		return all, err
	case "PLAIN":
		m = plain.Auth{User: login.User, Pass: login.Password}.AsMechanism()
	case "SCRAM-SHA-256":
		m = scram.Auth{User: login.User, Pass: login.Password}.AsSha256Mechanism()
	case "SCRAM-SHA-512":
		m = scram.Auth{User: login.User, Pass: login.Password}.AsSha512Mechanism()
	case "OAUTHBEARER":
		m = oauth.Auth{Token: login.Token}.AsMechanism()
	}
	return append(all, kgo.SASL(m)), err
}

type client struct {
	base  []kgo.Opt
	admin *kadm.Client
	plain *kgo.Client
}

func (c client) Enter(string) error { return c.plain.Ping(ctx) }

// KeptOut: what the broker has to say of a token is more than the library expects.
func (c client) KeptOut(err error) bool {
	return errors.Is(err, kerr.SaslAuthenticationFailed) || ability.RefusedByTLS(err) || err != nil && err.Error() == "unexpected data in oauth response"
}

var ctx = context.Background()

func (c client) Produce(topic string, how ability.Producing, records []ability.Record) error {
	options := append(slices.Clone(c.base), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.DefaultProduceTopic(topic))
	if !how.Idempotent {
		options = append(options, kgo.DisableIdempotentWrite())
	}
	codec := map[string]kgo.CompressionCodec{
		"": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}[how.Codec]
	options = append(options, kgo.ProducerBatchCompression(codec))
	if how.MaxBytes > 0 {
		options = append(options, kgo.ProducerBatchMaxBytes(int32(how.MaxBytes)))
	}
	p, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer p.Close()
	sent := make([]*kgo.Record, len(records))
	for i, r := range records {
		sent[i] = &kgo.Record{Partition: r.Partition, Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			sent[i].Headers = append(sent[i].Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
	}
	if err := p.ProduceSync(ctx, sent...).FirstErr(); err != nil {
		return err
	}
	for i, s := range sent {
		records[i].Partition, records[i].Offset = s.Partition, s.Offset
	}
	return nil
}

func converted(r *kgo.Record) ability.Record {
	to := ability.Record{Partition: r.Partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: r.Timestamp.UnixMilli()}
	for _, h := range r.Headers {
		to.Headers = append(to.Headers, ability.Header{Key: h.Key, Value: h.Value})
	}
	return to
}

func (c client) Read(topic string, from map[int32]int64, n int) ([]ability.Record, error) {
	offsets := map[int32]kgo.Offset{}
	for p, o := range from {
		offsets[p] = kgo.NewOffset().At(o)
	}
	r, err := kgo.NewClient(append(slices.Clone(c.base), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: offsets}))...)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	var all []ability.Record
	for len(all) < n {
		fetches := r.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			return nil, err
		}
		fetches.EachRecord(func(r *kgo.Record) { all = append(all, converted(r)) })
	}
	return all, nil
}

func (c client) OffsetsAt(topic string, ms int64) (map[int32]int64, error) {
	listed, err := c.admin.ListOffsetsAfterMilli(ctx, ms, topic)
	if err == nil {
		err = listed.Error()
	}
	offsets := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) {
		offsets[o.Partition] = o.Offset
		if o.Timestamp == -1 {
			offsets[o.Partition] = -1 // kadm puts the end there
		}
	})
	return offsets, err
}

type member struct {
	client *kgo.Client
	next   bool

	mu       sync.Mutex
	assigned []int32
}

func (c client) Join(group, topic string, how ability.Joining) (ability.Member, error) {
	m := &member{next: how.Next}
	change := func(topics map[string][]int32, apply func([]int32)) {
		m.mu.Lock()
		defer m.mu.Unlock()
		apply(topics[topic])
	}
	remove := func(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
		change(lost, func(ps []int32) {
			m.assigned = slices.DeleteFunc(m.assigned, func(p int32) bool { return slices.Contains(ps, p) })
		})
	}
	options := append(slices.Clone(c.base),
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			change(got, func(ps []int32) { m.assigned = append(m.assigned, ps...) })
		}),
		kgo.OnPartitionsRevoked(remove), kgo.OnPartitionsLost(remove),
	)
	if how.Next {
		options = append(options, kgo.ServerSideBalancer())
	} else {
		options = append(options, kgo.SessionTimeout(6*time.Second), kgo.HeartbeatInterval(500*time.Millisecond))
	}
	if how.Eager && !how.Next {
		options = append(options, kgo.Balancers(kgo.RangeBalancer()))
	}
	if how.Instance != "" {
		options = append(options, kgo.InstanceID(how.Instance))
	}
	var err error
	m.client, err = kgo.NewClient(options...)
	return m, err
}

func (m *member) Poll(most int) ([]ability.Record, error) {
	wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	fetches := m.client.PollRecords(wait, most)
	if err := fetches.Err(); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	var all []ability.Record
	fetches.EachRecord(func(r *kgo.Record) { all = append(all, converted(r)) })
	return all, nil
}

func (m *member) Assigned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.assigned)
}

func (c client) Generation(m ability.Member) int32 {
	_, generation := m.(*member).client.GroupMetadata()
	return generation
}

func (m *member) Commit() error { return m.client.CommitUncommittedOffsets(ctx) }

func (m *member) Close() error {
	if _, epoch := m.client.GroupMetadata(); epoch < 0 {
		return fmt.Errorf("the member has generation %d", epoch)
	}
	m.client.Close()
	return nil
}

// code is Kafka's code of an error.
func code(err error) int16 {
	var k *kerr.Error
	if errors.As(err, &k) {
		return k.Code
	}
	return 0
}

func (c client) CreateTopic(name string, partitions int32, replicas int16, settings map[string]string) (int16, error) {
	all := map[string]*string{}
	for k, v := range settings {
		all[k] = &v
	}
	r, err := c.admin.CreateTopic(ctx, partitions, replicas, all, name)
	if err == nil {
		err = r.Err
	}
	return code(err), err
}

func (c client) Alter(topic string, set map[string]string, reset []string) error {
	var changes []kadm.AlterConfig
	for k, v := range set {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: &v})
	}
	for _, k := range reset {
		changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
	}
	all, err := c.admin.AlterTopicConfigs(ctx, changes, topic)
	if err != nil {
		return err
	}
	_, err = all.On(topic, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	return err
}

func (c client) Grow(topic string, partitions int32) error {
	all, err := c.admin.UpdatePartitions(ctx, int(partitions), topic)
	if err != nil {
		return err
	}
	return all.Error()
}

func (c client) Describe(topic string) (ability.Description, error) {
	d := ability.Description{Replicas: map[int32][]int32{}, Leaders: map[int32]int32{}, Settings: map[string]ability.Setting{}}
	m, err := c.admin.Metadata(ctx, topic)
	if err == nil {
		err = m.Topics.Error()
	}
	if err != nil {
		return d, err
	}
	d.Brokers, d.Controller, d.ClusterID = m.Brokers.NodeIDs(), m.Controller, m.Cluster
	for _, p := range m.Topics[topic].Partitions {
		d.Replicas[p.Partition], d.Leaders[p.Partition] = p.Replicas, p.Leader
	}
	all, err := c.admin.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return d, err
	}
	r, err := all.On(topic, func(r *kadm.ResourceConfig) error { return r.Err })
	for _, s := range r.Configs {
		d.Settings[s.Key] = ability.Setting{Value: s.MaybeValue(), OnTopic: s.Source == 1}
	}
	return d, err
}

func (c client) DeleteTopic(topic string) error {
	r, err := c.admin.DeleteTopic(ctx, topic)
	if err == nil {
		err = r.Err
	}
	return err
}

func (c client) Topics() ([]string, error) {
	all, err := c.admin.ListTopics(ctx)
	return all.Names(), err
}

func (c client) DeleteRecords(topic string, before map[int32]int64) error {
	offsets := kadm.Offsets{}
	for p, o := range before {
		offsets.AddOffset(topic, p, o, -1)
	}
	all, err := c.admin.DeleteRecords(ctx, offsets)
	if err != nil {
		return err
	}
	return all.Error()
}

func (c client) Groups() ([]string, error) {
	all, err := c.admin.ListGroups(ctx)
	return all.Groups(), err
}

func (c client) DescribeGroup(group string) (string, error) {
	all, err := c.admin.DescribeGroups(ctx, group)
	if err != nil {
		return "", err
	}
	d, err := all.On(group, func(g *kadm.DescribedGroup) error { return g.Err })
	return d.State, err
}

func (c client) GroupOffsets(group, topic string) (map[int32]int64, error) {
	all, err := c.admin.FetchOffsets(ctx, group)
	offsets := map[int32]int64{}
	for p, o := range all[topic] {
		offsets[p] = o.At
		err = errors.Join(err, o.Err)
	}
	return offsets, err
}

func (c client) DeleteGroup(group string) error {
	all, err := c.admin.DeleteGroups(ctx, group)
	if err != nil {
		return err
	}
	return all.Error()
}

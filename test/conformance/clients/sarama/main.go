// sarama does what abilities ask with github.com/IBM/sarama.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"millrace/conformance/ability"

	"github.com/IBM/sarama"
	"github.com/xdg-go/scram"
)

func main() {
	ability.Main(func(brokers []string, login ability.Login) (ability.Client, error) {
		c := client{brokers: brokers, login: login}
		var err error
		if c.tls, err = login.TLS(); err == nil {
			c.admin, err = sarama.NewClusterAdmin(brokers, c.config())
		}
		return c, err
	})
}

type client struct {
	brokers []string
	login   ability.Login
	tls     *tls.Config
	admin   sarama.ClusterAdmin
}

// Enter does nothing: opening a client asks for the brokers.
func (c client) Enter(string) error { return nil }

func (c client) KeptOut(err error) bool {
	return errors.Is(err, sarama.ErrSASLAuthenticationFailed) || ability.RefusedByTLS(err)
}

// exchange is SCRAM, which the library has its users bring along.
type exchange struct {
	*scram.ClientConversation
	hash scram.HashGeneratorFcn
}

func (e *exchange) Begin(user, password, authorize string) error {
	c, err := e.hash.NewClient(user, password, authorize)
	if err == nil {
		e.ClientConversation = c.NewConversation()
	}
	return err
}

// token is a provider of one.
type token string

func (t token) Token() (*sarama.AccessToken, error) {
	return &sarama.AccessToken{Token: string(t)}, nil
}

// secure is what a configuration has of the log-in.
func (c client) secure(conf *sarama.Config) {
	conf.Net.TLS.Enable, conf.Net.TLS.Config = c.tls != nil, c.tls
	if c.login.Mechanism == "" {
		return
	}
	s := &conf.Net.SASL
	s.Enable, s.Mechanism, s.User, s.Password = true, sarama.SASLMechanism(c.login.Mechanism), c.login.User, c.login.Password
	s.TokenProvider = token(c.login.Token)
	hash := scram.SHA256
	if s.Mechanism == sarama.SASLTypeSCRAMSHA512 {
		hash = scram.SHA512
	}
	s.SCRAMClientGeneratorFunc = func() sarama.SCRAMClient { return &exchange{hash: hash} }
}

// config is sarama's own, for the release of Kafka that the cluster says it is.
func (c client) config() *sarama.Config {
	conf := sarama.NewConfig()
	c.secure(conf)
	conf.Version = sarama.V4_1_0_0
	conf.Producer.Return.Successes = true
	conf.Producer.RequiredAcks = sarama.WaitForAll
	conf.Producer.Partitioner = sarama.NewManualPartitioner
	conf.Consumer.Offsets.Initial = sarama.OffsetOldest
	conf.Consumer.Offsets.AutoCommit.Enable = false
	conf.Consumer.Return.Errors = true
	conf.Consumer.Group.Session.Timeout = 6 * time.Second
	conf.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	return conf
}

func (c client) Produce(topic string, how ability.Producing, records []ability.Record) error {
	conf := c.config()
	if how.Idempotent {
		conf.Producer.Idempotent = true
		conf.Net.MaxOpenRequests = 1
	}
	conf.Producer.Compression = map[string]sarama.CompressionCodec{
		"": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}[how.Codec]
	if how.MaxBytes > 0 {
		conf.Producer.MaxMessageBytes = how.MaxBytes
	}
	p, err := sarama.NewSyncProducer(c.brokers, conf)
	if err != nil {
		return err
	}
	var sent []*sarama.ProducerMessage
	for _, r := range records {
		m := &sarama.ProducerMessage{Topic: topic, Partition: r.Partition}
		if r.Key != nil {
			m.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			m.Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		sent = append(sent, m)
	}
	if err := p.SendMessages(sent); err != nil {
		return err
	}
	for i, m := range sent {
		records[i].Partition, records[i].Offset = m.Partition, m.Offset
	}
	return p.Close()
}

func converted(m *sarama.ConsumerMessage) ability.Record {
	r := ability.Record{Partition: m.Partition, Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Timestamp.UnixMilli()}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, ability.Header{Key: string(h.Key), Value: h.Value})
	}
	return r
}

func (c client) Read(topic string, from map[int32]int64, n int) ([]ability.Record, error) {
	consumer, err := sarama.NewConsumer(c.brokers, c.config())
	if err != nil {
		return nil, err
	}
	messages := make(chan *sarama.ConsumerMessage)
	failures := make(chan error)
	for p, o := range from {
		part, err := consumer.ConsumePartition(topic, p, o)
		if err != nil {
			return nil, err
		}
		go func() { // two readers: end with the process
			for m := range part.Messages() {
				messages <- m
			}
		}()
		go func() {
			for err := range part.Errors() {
				failures <- err
			}
		}()
	}
	var all []ability.Record
	for len(all) < n {
		select {
		case m := <-messages:
			all = append(all, converted(m))
		case err := <-failures:
			return nil, err
		}
	}
	return all, nil
}

func (c client) OffsetsAt(topic string, ms int64) (map[int32]int64, error) {
	cl, err := sarama.NewClient(c.brokers, c.config())
	if err != nil {
		return nil, err
	}
	defer cl.Close()
	offsets := map[int32]int64{}
	for p := range int32(3) {
		if offsets[p], err = cl.GetOffset(topic, p, ms); err != nil {
			return nil, err
		}
	}
	return offsets, nil
}

// A member is also the handler of its consumer group.
type member struct {
	group  sarama.ConsumerGroup
	got    chan polled
	failed chan error
	leave  context.CancelFunc

	mu      sync.Mutex
	session sarama.ConsumerGroupSession
}

type polled struct {
	message *sarama.ConsumerMessage
	session sarama.ConsumerGroupSession
}

func (c client) Join(group, topic string, how ability.Joining) (ability.Member, error) {
	if how.Next {
		return nil, errors.New("no KIP-848")
	}
	g, err := sarama.NewConsumerGroup(c.brokers, group, c.config())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &member{group: g, got: make(chan polled), failed: make(chan error, 100), leave: cancel}
	go func() { // the sessions: ended by Close
		for ctx.Err() == nil {
			if err := g.Consume(ctx, []string{topic}, m); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
				m.failed <- fmt.Errorf("consume: %w", err)
				return
			}
		}
	}()
	go func() { // the errors: end when the group is closed
		for err := range g.Errors() {
			m.failed <- err
		}
	}()
	return m, nil
}

func (m *member) set(s sarama.ConsumerGroupSession) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.session = s
}

func (m *member) Setup(s sarama.ConsumerGroupSession) error   { m.set(s); return nil }
func (m *member) Cleanup(s sarama.ConsumerGroupSession) error { m.set(nil); return nil }

func (m *member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case message, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			select {
			case m.got <- polled{message, s}:
			case <-s.Context().Done():
				return nil
			}
		case <-s.Context().Done():
			return nil
		}
	}
}

func (m *member) Poll(most int) ([]ability.Record, error) {
	var all []ability.Record
	timeout := time.After(200 * time.Millisecond)
	for len(all) < most {
		select {
		case p := <-m.got:
			p.session.MarkMessage(p.message, "")
			all = append(all, converted(p.message))
		case err := <-m.failed:
			return nil, err
		case <-timeout:
			return all, nil
		}
	}
	return all, nil
}

func (m *member) Assigned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return nil
	}
	for _, partitions := range m.session.Claims() {
		return slices.Clone(partitions)
	}
	return nil
}

func (m *member) Commit() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.session == nil {
		return errors.New("no session to commit in")
	}
	m.session.Commit()
	return nil
}

func (m *member) Close() error {
	m.leave()
	return m.group.Close()
}

func (c client) CreateTopic(name string, partitions int32, replicas int16, settings map[string]string) (int16, error) {
	d := &sarama.TopicDetail{NumPartitions: partitions, ReplicationFactor: replicas, ConfigEntries: map[string]*string{}}
	for k, v := range settings {
		d.ConfigEntries[k] = &v
	}
	err := c.admin.CreateTopic(name, d, false)
	var refused *sarama.TopicError
	if errors.As(err, &refused) {
		return int16(refused.Err), err
	}
	return 0, err
}

func (c client) Alter(topic string, set map[string]string, reset []string) error {
	changes := map[string]sarama.IncrementalAlterConfigsEntry{}
	for k, v := range set {
		changes[k] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationSet, Value: &v}
	}
	for _, k := range reset {
		changes[k] = sarama.IncrementalAlterConfigsEntry{Operation: sarama.IncrementalAlterConfigsOperationDelete}
	}
	return c.admin.IncrementalAlterConfig(sarama.TopicResource, topic, changes, false)
}

func (c client) Grow(topic string, partitions int32) error {
	return c.admin.CreatePartitions(topic, partitions, nil, false)
}

func (c client) Describe(topic string) (ability.Description, error) {
	d := ability.Description{Replicas: map[int32][]int32{}, Leaders: map[int32]int32{}, Settings: map[string]ability.Setting{}, ClusterID: ability.Unknown}
	brokers, controller, err := c.admin.DescribeCluster()
	if err != nil {
		return d, err
	}
	d.Controller = controller
	for _, b := range brokers {
		d.Brokers = append(d.Brokers, b.ID())
	}
	topics, err := c.admin.DescribeTopics([]string{topic})
	if err != nil {
		return d, err
	}
	if topics[0].Err != sarama.ErrNoError {
		return d, topics[0].Err
	}
	for _, p := range topics[0].Partitions {
		d.Replicas[p.ID], d.Leaders[p.ID] = p.Replicas, p.Leader
	}
	all, err := c.admin.DescribeConfigs([]*sarama.ConfigResource{{Type: sarama.TopicResource, Name: topic}}, sarama.DescribeConfigsOptions{IncludeSynonyms: true})
	if err != nil {
		return d, err
	}
	if all[0].ErrorCode != sarama.ErrNoError {
		return d, all[0].ErrorCode
	}
	for _, s := range all[0].Configs {
		d.Settings[s.Name] = ability.Setting{Value: s.Value, OnTopic: s.Source == sarama.SourceTopic}
	}
	return d, nil
}

func (c client) DeleteTopic(topic string) error { return c.admin.DeleteTopic(topic) }

func (c client) Topics() ([]string, error) {
	all, err := c.admin.ListTopics()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	return names, err
}

func (c client) DeleteRecords(topic string, before map[int32]int64) error {
	return c.admin.DeleteRecords(topic, before)
}

func (c client) Groups() ([]string, error) {
	all, err := c.admin.ListConsumerGroups()
	var names []string
	for name := range all {
		names = append(names, name)
	}
	return names, err
}

func (c client) DescribeGroup(group string) (string, error) {
	all, err := c.admin.DescribeConsumerGroups([]string{group})
	if err != nil {
		return "", err
	}
	if all[0].Err != sarama.ErrNoError {
		return "", all[0].Err
	}
	return all[0].State, nil
}

func (c client) GroupOffsets(group, topic string) (map[int32]int64, error) {
	all, err := c.admin.ListConsumerGroupOffsets(group, map[string][]int32{topic: {0, 1, 2}})
	if err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for p := range int32(3) {
		b := all.GetBlock(topic, p)
		if b == nil || b.Err != sarama.ErrNoError {
			return nil, fmt.Errorf("partition %d: %v", p, b)
		}
		offsets[p] = b.Offset
	}
	return offsets, nil
}

func (c client) DeleteGroup(group string) error { return c.admin.DeleteConsumerGroup(group) }

// kafka-go does what abilities ask with github.com/segmentio/kafka-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/conformance/ability"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

func main() {
	ability.Main(func(brokers []string, login ability.Login) (ability.Client, error) {
		transport := &kafka.Transport{}
		var err error
		if transport.TLS, err = login.TLS(); err != nil {
			return nil, err
		}
		switch login.Mechanism {
		case "":
		case "PLAIN":
			transport.SASL = plain.Mechanism{Username: login.User, Password: login.Password}
		case "SCRAM-SHA-256":
			transport.SASL, err = scram.Mechanism(scram.SHA256, login.User, login.Password)
		case "SCRAM-SHA-512":
			transport.SASL, err = scram.Mechanism(scram.SHA512, login.User, login.Password)
		default:
			err = fmt.Errorf("no %s", login.Mechanism)
		}
		return client{brokers, transport, &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}}, err
	})
}

type client struct {
	brokers   []string
	transport *kafka.Transport
	plain     *kafka.Client
}

func (c client) Enter(topic string) error {
	_, err := c.plain.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	return err
}

func (c client) KeptOut(err error) bool {
	return errors.Is(err, kafka.SASLAuthenticationFailed) || ability.RefusedByTLS(err)
}

// dialer is for readers what the transport is for everything else.
func (c client) dialer() *kafka.Dialer {
	return &kafka.Dialer{Timeout: 10 * time.Second, DualStack: true, TLS: c.transport.TLS, SASLMechanism: c.transport.SASL}
}

// ReadsEmptyAsNull: the library's Reader has nil for both. What it writes differs.
func (c client) ReadsEmptyAsNull() {}

var ctx = context.Background()

func (c client) Produce(topic string, how ability.Producing, records []ability.Record) error {
	if how.Idempotent {
		return errors.New("no idempotent producer")
	}
	var mu sync.Mutex
	w := &kafka.Writer{
		Addr: kafka.TCP(c.brokers...), Transport: c.transport, Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 10 * time.Millisecond,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return int(records[m.WriterData.(int)].Partition) }),
		Completion: func(sent []kafka.Message, err error) {
			mu.Lock()
			defer mu.Unlock()
			for _, m := range sent {
				if err == nil {
					i := m.WriterData.(int)
					records[i].Partition, records[i].Offset = int32(m.Partition), m.Offset
				}
			}
		},
	}
	if how.Codec != "" {
		if err := w.Compression.UnmarshalText([]byte(how.Codec)); err != nil {
			return err
		}
	}
	if how.MaxBytes > 0 {
		w.BatchBytes = int64(how.MaxBytes)
	}
	var all []kafka.Message
	for i, r := range records {
		m := kafka.Message{Key: r.Key, Value: r.Value, WriterData: i}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		all = append(all, m)
	}
	if err := w.WriteMessages(ctx, all...); err != nil {
		return err
	}
	return w.Close()
}

func converted(m kafka.Message) ability.Record {
	r := ability.Record{Partition: int32(m.Partition), Offset: m.Offset, Key: m.Key, Value: m.Value, Time: m.Time.UnixMilli()}
	for _, h := range m.Headers {
		r.Headers = append(r.Headers, ability.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

func (c client) Read(topic string, from map[int32]int64, n int) ([]ability.Record, error) {
	messages := make(chan kafka.Message)
	failed := make(chan error, len(from))
	for p, o := range from {
		r := kafka.NewReader(kafka.ReaderConfig{Brokers: c.brokers, Dialer: c.dialer(), Topic: topic, Partition: int(p), MaxBytes: 10 << 20, MaxWait: 100 * time.Millisecond})
		if err := r.SetOffset(o); err != nil {
			return nil, err
		}
		go func() { // the reader: ends with the process
			for {
				m, err := r.ReadMessage(ctx)
				if err != nil {
					failed <- err
					return
				}
				messages <- m
			}
		}()
	}
	var all []ability.Record
	for len(all) < n {
		select {
		case m := <-messages:
			all = append(all, converted(m))
		case err := <-failed:
			return nil, err
		}
	}
	return all, nil
}

func (c client) OffsetsAt(topic string, ms int64) (map[int32]int64, error) {
	var requests []kafka.OffsetRequest
	for p := range 3 {
		requests = append(requests, kafka.TimeOffsetOf(p, time.UnixMilli(ms)))
	}
	answer, err := c.plain.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: requests}})
	if err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	for _, p := range answer.Topics[topic] {
		err = errors.Join(err, p.Error)
		for o := range p.Offsets {
			offsets[int32(p.Partition)] = o
		}
	}
	return offsets, err
}

type member struct {
	reader *kafka.Reader
	polled []kafka.Message

	mu       sync.Mutex
	assigned []int32
}

// subscribed is the one place where a Reader tells what it was assigned.
var subscribed = regexp.MustCompile(`partition:(\d+)`)

func (c client) Join(group, topic string, how ability.Joining) (ability.Member, error) {
	if how.Next {
		return nil, errors.New("no KIP-848")
	}
	m := &member{}
	m.reader = kafka.NewReader(kafka.ReaderConfig{
		Brokers: c.brokers, Dialer: c.dialer(), GroupID: group, GroupTopics: []string{topic}, StartOffset: kafka.FirstOffset,
		MaxWait: 100 * time.Millisecond, SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond,
		Logger: kafka.LoggerFunc(func(format string, args ...any) {
			line := fmt.Sprintf(format, args...)
			if !strings.HasPrefix(line, "subscribed to topics and partitions") {
				return
			}
			m.mu.Lock()
			defer m.mu.Unlock()
			m.assigned = nil
			for _, found := range subscribed.FindAllStringSubmatch(line, -1) {
				p, _ := strconv.Atoi(found[1])
				m.assigned = append(m.assigned, int32(p))
			}
		}),
	})
	return m, nil
}

func (m *member) Poll(most int) ([]ability.Record, error) {
	wait, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	var all []ability.Record
	for len(all) < most {
		got, err := m.reader.FetchMessage(wait)
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if err != nil {
			return nil, err
		}
		m.polled = append(m.polled, got)
		all = append(all, converted(got))
	}
	return all, nil
}

func (m *member) Assigned() []int32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.assigned)
}

func (m *member) Commit() error { return m.reader.CommitMessages(ctx, m.polled...) }
func (m *member) Close() error  { return m.reader.Close() }

func (c client) CreateTopic(name string, partitions int32, replicas int16, settings map[string]string) (int16, error) {
	t := kafka.TopicConfig{Topic: name, NumPartitions: int(partitions), ReplicationFactor: int(replicas)}
	for k, v := range settings {
		t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
	}
	answer, err := c.plain.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{t}})
	if err != nil {
		return 0, err
	}
	var code kafka.Error
	errors.As(answer.Errors[name], &code)
	return int16(code), answer.Errors[name]
}

func (c client) Alter(topic string, set map[string]string, reset []string) error {
	r := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}
	for k, v := range set {
		r.Configs = append(r.Configs, kafka.IncrementalAlterConfigsRequestConfig{Name: k, Value: v, ConfigOperation: kafka.ConfigOperationSet})
	}
	for _, k := range reset {
		r.Configs = append(r.Configs, kafka.IncrementalAlterConfigsRequestConfig{Name: k, ConfigOperation: kafka.ConfigOperationDelete})
	}
	answer, err := c.plain.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{r}})
	if err != nil {
		return err
	}
	return answer.Resources[0].Error
}

func (c client) Grow(topic string, partitions int32) error {
	answer, err := c.plain.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: partitions}}})
	if err != nil {
		return err
	}
	return answer.Errors[topic]
}

func (c client) Describe(topic string) (ability.Description, error) {
	d := ability.Description{Replicas: map[int32][]int32{}, Leaders: map[int32]int32{}, Settings: map[string]ability.Setting{}}
	m, err := c.plain.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return d, err
	}
	if m.Topics[0].Error != nil {
		return d, m.Topics[0].Error
	}
	d.Controller, d.ClusterID = int32(m.Controller.ID), m.ClusterID
	for _, b := range m.Brokers {
		d.Brokers = append(d.Brokers, int32(b.ID))
	}
	for _, p := range m.Topics[0].Partitions {
		for _, b := range p.Replicas {
			d.Replicas[int32(p.ID)] = append(d.Replicas[int32(p.ID)], int32(b.ID))
		}
		d.Leaders[int32(p.ID)] = int32(p.Leader.ID)
	}
	all, err := c.plain.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{ResourceType: kafka.ResourceTypeTopic, ResourceName: topic}}})
	if err != nil {
		return d, err
	}
	for _, s := range all.Resources[0].ConfigEntries {
		d.Settings[s.ConfigName] = ability.Setting{Value: s.ConfigValue, OnTopic: s.ConfigSource == 1}
	}
	return d, all.Resources[0].Error
}

func (c client) DeleteTopic(topic string) error {
	answer, err := c.plain.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	if err != nil {
		return err
	}
	return answer.Errors[topic]
}

func (c client) Topics() ([]string, error) {
	m, err := c.plain.Metadata(ctx, &kafka.MetadataRequest{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, t := range m.Topics {
		names = append(names, t.Name)
	}
	return names, nil
}

// Groups asks every broker: ListGroups goes to the one it is addressed to.
func (c client) Groups() ([]string, error) {
	names := map[string]bool{}
	for _, b := range c.brokers {
		answer, err := c.plain.ListGroups(ctx, &kafka.ListGroupsRequest{Addr: kafka.TCP(b)})
		if err == nil {
			err = answer.Error
		}
		if err != nil {
			return nil, err
		}
		for _, g := range answer.Groups {
			names[g.GroupID] = true
		}
	}
	return slices.Collect(maps.Keys(names)), nil
}

func (c client) DescribeGroup(group string) (string, error) {
	answer, err := c.plain.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return "", err
	}
	return answer.Groups[0].GroupState, answer.Groups[0].Error
}

func (c client) GroupOffsets(group, topic string) (map[int32]int64, error) {
	answer, err := c.plain.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0, 1, 2}}})
	if err != nil {
		return nil, err
	}
	offsets := map[int32]int64{}
	err = answer.Error
	for _, p := range answer.Topics[topic] {
		offsets[int32(p.Partition)] = p.CommittedOffset
		err = errors.Join(err, p.Error)
	}
	return offsets, err
}

func (c client) DeleteGroup(group string) error {
	answer, err := c.plain.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return err
	}
	return answer.Errors[group]
}

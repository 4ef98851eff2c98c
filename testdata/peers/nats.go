package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"millrace/cli/load"
)

// A natsSender publishes to the streams of one topic in turn: a stream is what
// NATS has for a partition. It is one connection.
type natsSender struct {
	js       jetstream.JetStream
	subjects []string
	next     atomic.Int64
}

// maxPending is how many messages of a connection wait for their acknowledgement.
const maxPending = 4096

// Send implements load.Sender.
func (n *natsSender) Send(_ context.Context, r *load.Record) {
	subject := n.subjects[int(n.next.Add(1))%len(n.subjects)]
	// JetStream keeps the payload to send it again; the record is used again.
	future, err := n.js.PublishMsgAsync(&nats.Msg{Subject: subject, Data: append([]byte(nil), r.Value...)}, jetstream.WithStallWait(time.Minute))
	if err != nil {
		r.Done(err)
		return
	}
	go func() { // ends with the acknowledgement, or with the client's patience
		select {
		case <-future.Ok():
			r.Done(nil)
		case err := <-future.Err():
			r.Done(err)
		}
	}()
}

// Flush implements load.Sender.
func (n *natsSender) Flush(ctx context.Context) error {
	select {
	case <-n.js.PublishAsyncComplete():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// natsLoad is the program that makes a plan's load on NATS and prints the result,
// as millrace bench does on Kafka: a process of its own, measured alike.
func natsLoad(ctx context.Context, addresses, topic string, partitions, clients int, plan load.Plan) error {
	urls := "nats://" + strings.ReplaceAll(addresses, ",", ",nats://")
	var senders []load.Sender
	for range clients {
		conn, err := nats.Connect(urls, nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true))
		if err != nil {
			return err
		}
		defer conn.Close()
		js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(maxPending), jetstream.WithPublishAsyncTimeout(30*time.Second))
		if err != nil {
			return err
		}
		senders = append(senders, &natsSender{js: js})
	}
	subjects, err := natsTopic(ctx, senders[0].(*natsSender).js, topic, partitions)
	if err != nil {
		return err
	}
	for _, s := range senders {
		s.(*natsSender).subjects = subjects
	}
	plan.Topic, plan.Partitions = topic, partitions
	result, err := load.Produce(ctx, plan, senders, nil)
	if err != nil {
		return err
	}
	for i := range partitions {
		_ = senders[0].(*natsSender).js.DeleteStream(ctx, fmt.Sprintf("%s-%d", topic, i))
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// natsTopic makes a stream of three replicas, on disk, for each partition.
func natsTopic(ctx context.Context, js jetstream.JetStream, topic string, partitions int) (subjects []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i := range partitions {
		name := fmt.Sprintf("%s-%d", topic, i)
		for {
			_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{name}, Replicas: nodes, Storage: jetstream.FileStorage})
			if err == nil || errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
				break
			}
			select {
			case <-ctx.Done():
				return nil, fmt.Errorf("create stream %s: %w", name, err)
			case <-time.After(5 * time.Millisecond):
			}
		}
		subjects = append(subjects, name)
	}
	return subjects, nil
}

// natsFirstAck waits until a message is acknowledged by a quorum.
func natsFirstAck(ctx context.Context, s *system) (time.Duration, error) {
	conn, err := nats.Connect("nats://"+strings.Join(s.addresses(), ",nats://"), nats.MaxReconnects(-1), nats.RetryOnFailedConnect(true), nats.ReconnectWait(5*time.Millisecond))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		return 0, err
	}
	if _, err := natsTopic(ctx, js, "first", 1); err != nil {
		return 0, err
	}
	for {
		try, cancel := context.WithTimeout(ctx, time.Second)
		_, err := js.Publish(try, "first-0", []byte("x"))
		cancel()
		if err == nil {
			return time.Since(s.began), nil
		}
		if ctx.Err() != nil {
			return 0, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

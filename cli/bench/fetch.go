package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/segment/record"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A fetching is one reading of a topic by fetch requests.
type fetching struct {
	b     *bench
	meter *load.Meter
	to    map[int32]int64

	mu   sync.Mutex
	next map[int32]int64 // by partition; those read to their end are left out
}

// run asks each leader for its partitions, all leaders at the same time, until
// all are read. Where a leadership has moved it asks again who leads.
func (f *fetching) run(ctx context.Context) error {
	for attempt := 1; ctx.Err() == nil; attempt++ {
		topic, err := kafka.DescribeTopic(ctx, f.b.admin, f.b.topic)
		if err != nil {
			return err
		}
		cluster, err := f.b.admin.BrokerMetadata(ctx)
		if err != nil {
			return fmt.Errorf("ask for the brokers' addresses: %w", err)
		}
		led := make(map[int32][]int32)
		for _, p := range topic.Partitions.Numbers() {
			if _, wanted := f.next[p]; wanted {
				led[topic.Partitions[p].Leader] = append(led[topic.Partitions[p].Leader], p)
			}
		}
		if len(led) == 0 {
			return nil
		}
		errs := make(chan error, len(led))
		for leader, partitions := range led {
			go func() { errs <- f.ask(ctx, topic, addressOf(cluster.Brokers, leader), partitions) }() // ends with the partitions, or an error
		}
		for range led {
			if e := <-errs; e != nil && (err == nil || !retried(e)) {
				err = e
			}
		}
		if err != nil && (!retried(err) || attempt > kafka.UnknownRetries) {
			return err
		}
		if err != nil {
			select {
			case <-time.After(kafka.Backoff(attempt)):
			case <-ctx.Done():
			}
		}
	}
	return nil
}

// addressOf is where a broker is reached; "" while nobody knows.
func addressOf(brokers kadm.BrokerDetails, id int32) string {
	for _, b := range brokers {
		if b.NodeID == id {
			return kafka.Address(b)
		}
	}
	return ""
}

// retried reports whether asking again, perhaps somebody else, may help.
func retried(err error) bool {
	var broker *kerr.Error
	return kerr.IsRetriable(err) || !errors.As(err, &broker)
}

// ask fetches partitions from their leader until they are read to their ends.
func (f *fetching) ask(ctx context.Context, topic kadm.TopicDetail, leader string, partitions []int32) error {
	if leader == "" {
		return kerr.LeaderNotAvailable
	}
	broker, err := dialFetcher(ctx, leader)
	if err != nil {
		return err
	}
	defer broker.close()
	for len(partitions) > 0 && ctx.Err() == nil {
		request := kmsg.NewPtrFetchRequest()
		request.MaxWaitMillis = 500
		request.MinBytes = 1
		request.MaxBytes = int32(min(f.b.c.Int("fetch-bytes"), 1<<30))
		t := kmsg.NewFetchRequestTopic()
		t.Topic = topic.Topic
		f.mu.Lock()
		for _, p := range partitions {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.FetchOffset = p, f.next[p]
			part.PartitionMaxBytes = int32(min(f.b.c.Int("partition-bytes"), 1<<30))
			t.Partitions = append(t.Partitions, part)
		}
		f.mu.Unlock()
		request.Topics = append(request.Topics, t)
		response, err := broker.fetch(request)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := kerr.ErrorForCode(response.ErrorCode); err != nil {
			return err
		}
		for _, t := range response.Topics {
			for _, p := range t.Partitions {
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("fetch %s/%d: %w", topic.Topic, p.Partition, err)
				}
				f.take(p.Partition, p.RecordBatches)
			}
		}
		// Who was first in one request is last in the next: an answer has an end.
		partitions = append(partitions[1:len(partitions):len(partitions)], partitions[0])
		f.mu.Lock()
		partitions = slices.DeleteFunc(partitions, func(p int32) bool { _, wanted := f.next[p]; return !wanted })
		f.mu.Unlock()
	}
	return nil
}

// take counts the whole batches of an answer.
func (f *fetching) take(partition int32, batches []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	next, wanted := f.next[partition]
	if !wanted {
		return
	}
	end := f.to[partition]
	n, bytes := int64(0), int64(0)
	for len(batches) >= record.HeaderSize && next < end {
		batch := record.Batch(batches)
		size := batch.Size()
		if size < record.HeaderSize || size > len(batches) {
			break // the last one is cut: answers are, at their limit
		}
		if batch.NextOffset() > next {
			next = batch.NextOffset()
			bytes += int64(size)
			if !batch.IsControl() {
				n += int64(batch.Count())
			}
		}
		batches = batches[size:]
	}
	f.meter.Got(n, bytes)
	f.next[partition] = next
	if next >= end {
		delete(f.next, partition)
	}
}

// A fetcher is a connection to one broker that only fetches, one request after
// another. The client library makes new memory for every answer, which the
// runtime clears first: a tenth of both cores when ten consumers read what is
// cached. A fetcher reads all answers into the same. It is not safe for
// concurrent use.
type fetcher struct {
	ctx    context.Context // of one run; its end ends the connection
	cancel context.CancelFunc
	conn   net.Conn
	format *kmsg.RequestFormatter
	sent   int32  // correlation of the last request
	out    []byte // reused
	in     []byte // reused: the last answer
}

const (
	// fetcherVersion is the last version of Fetch that names topics. Kafka has it
	// since 2.7.
	fetcherVersion = 12
	// maxAnswer is the largest answer that is read: --fetch-bytes is 1 GiB at the
	// most, and one batch may go beyond it.
	maxAnswer = 1<<30 + 256<<20
)

// dialFetcher connects to a broker. When ctx ends so does the connection.
func dialFetcher(ctx context.Context, broker string) (*fetcher, error) {
	dialer := net.Dialer{Timeout: 3 * time.Second}
	conn, err := dialer.DialContext(ctx, "tcp", broker)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) }) // which does nothing to one that is closed
	return &fetcher{
		ctx: ctx, cancel: cancel, conn: conn,
		format: kmsg.NewRequestFormatter(kmsg.FormatterClientID("millrace-bench")),
	}, nil
}

func (f *fetcher) close() {
	f.cancel()
	f.conn.Close()
}

// patience gives the broker so long for what comes next.
func (f *fetcher) patience(d time.Duration) error {
	f.conn.SetDeadline(time.Now().Add(d))
	return f.ctx.Err() // asked afterwards: its end may have come before, and was overwritten
}

// fetch asks and returns the answer, whose records are valid until the next call.
func (f *fetcher) fetch(request *kmsg.FetchRequest) (*kmsg.FetchResponse, error) {
	request.SetVersion(fetcherVersion)
	f.sent++
	f.out = f.format.AppendRequest(f.out[:0], request, f.sent)
	if err := f.patience(time.Minute); err != nil {
		return nil, err
	}
	if _, err := f.conn.Write(f.out); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(f.conn, length[:]); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(length[:]))
	if size < 5 || size > maxAnswer {
		return nil, fmt.Errorf("%s sends an answer of %d bytes to a fetch; at most %d are read", f.conn.RemoteAddr(), size, maxAnswer)
	}
	if cap(f.in) < size {
		f.in = make([]byte, size)
	}
	if err := f.patience(time.Minute + time.Duration(size>>20)*time.Second); err != nil {
		return nil, err
	}
	answer := f.in[:size]
	if _, err := io.ReadFull(f.conn, answer); err != nil {
		return nil, err
	}
	if got := int32(binary.BigEndian.Uint32(answer)); got != f.sent || answer[4] != 0 {
		return nil, fmt.Errorf("%s answers request %d when %d was asked, with %d tags", f.conn.RemoteAddr(), got, f.sent, answer[4])
	}
	response := kmsg.NewPtrFetchResponse()
	response.SetVersion(fetcherVersion)
	if err := response.ReadFrom(answer[5:]); err != nil {
		return nil, fmt.Errorf("%s answers a fetch: %w", f.conn.RemoteAddr(), err)
	}
	return response, nil
}

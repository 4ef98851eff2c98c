//go:build faults

package faults

import (
	"context"
	"fmt"
	"testing"
	"time"

	"millrace/segment/record"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// produceRaw sends one batch, without retries, to a broker that may or may not
// lead the partition, and returns the broker's answer.
func produceRaw(ctx context.Context, client *kgo.Client, broker int32, topic string, partition int32, value []byte) (kmsg.ProduceResponseTopicPartition, error) {
	b, err := record.Build(record.None, record.Record{Timestamp: time.Now().UnixMilli(), Key: []byte("raw"), Value: value})
	if err != nil {
		return kmsg.ProduceResponseTopicPartition{}, err
	}
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, b
	topics := kmsg.NewProduceRequestTopic()
	topics.Topic, topics.Partitions = topic, []kmsg.ProduceRequestTopicPartition{p}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 20_000
	req.Topics = []kmsg.ProduceRequestTopic{topics}
	resp, err := client.Broker(int(broker)).Request(ctx, req)
	if err != nil {
		return kmsg.ProduceResponseTopicPartition{}, err
	}
	answer := resp.(*kmsg.ProduceResponse)
	if len(answer.Topics) != 1 || len(answer.Topics[0].Partitions) != 1 {
		return kmsg.ProduceResponseTopicPartition{}, fmt.Errorf("%d topics answered", len(answer.Topics))
	}
	return answer.Topics[0].Partitions[0], nil
}

// S6. A paused leader is replaced. When it goes on it acknowledges nothing that
// the cluster does not have: the requests that waited in its sockets are refused
// or are where it says.
func TestPausedLeaderAcknowledgesNothingStale(t *testing.T) {
	c := startCluster(t, 3, nil)
	c.createTopic("s6", 1)
	c.createTopic("s6-raw", 1)
	// Both topics led by one node, so that a pause of it hits both.
	l := newLedger(c, "s6", 1)
	p := l.produce(2 * time.Millisecond)
	l.awaitAcknowledged(200)

	leader := c.leader("s6-raw", 0)
	var raw []*kgo.Client // connections that are open before the pause
	for i := range 4 {
		client := c.client(kgo.MaxVersions(produceTwelve()))
		if a, err := produceRaw(context.Background(), client, leader.ID, "s6-raw", 0, fmt.Appendf(nil, "before-%d", i)); err != nil || a.ErrorCode != 0 {
			t.Fatalf("produce before the pause: %v, %v", err, kerr.ErrorForCode(a.ErrorCode))
		}
		raw = append(raw, client)
	}
	type answer struct {
		value string
		kmsg.ProduceResponseTopicPartition
		err error
	}
	answers := make(chan answer, len(raw))
	paused := time.Now()
	leader.Pause()
	for i, client := range raw {
		go func() { // ends with its answer, or its deadline
			value := fmt.Sprintf("stale-%d", i)
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			a, err := produceRaw(ctx, client, leader.ID, "s6-raw", 0, []byte(value))
			answers <- answer{value, a, err}
		}()
	}
	// Service goes on: another node leads, and acknowledges.
	var took time.Duration
	// The client must not wait for the paused node: it gives a request two seconds.
	other := c.client(kgo.DefaultProduceTopic("s6-raw"), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(time.Second))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for i := range 3 {
		r, err := other.ProduceSync(ctx, &kgo.Record{Value: fmt.Appendf(nil, "meanwhile-%d", i)}).First()
		if err != nil {
			t.Fatalf("produce while the leader is paused: %v", err)
		}
		if i == 0 {
			took = time.Since(paused)
			t.Logf("offset %d in epoch %d", r.Offset, r.LeaderEpoch)
		}
	}
	if left := 5*time.Second - time.Since(paused); left > 0 {
		time.Sleep(left)
	}
	leader.Resume()
	resumed := time.Since(paused)

	acked := make(map[string]int64)
	codes := make(map[string]int)
	for range raw {
		a := <-answers
		switch {
		case a.err != nil:
			codes[a.err.Error()]++
		case a.ErrorCode == 0:
			acked[a.value] = a.BaseOffset
			codes["acknowledged"]++
		default:
			codes[kerr.ErrorForCode(a.ErrorCode).(*kerr.Error).Message]++
			if !retriable(a.ErrorCode) {
				t.Errorf("%s was answered with %v, which clients do not retry", a.value, kerr.ErrorForCode(a.ErrorCode))
			}
		}
	}
	p.finish()
	y := l.check()
	c.awaitInSync("s6")
	c.awaitInSync("s6-raw")
	rawLedger := newLedger(c, "s6-raw", 1)
	for value, offset := range acked {
		all := rawLedger.readAll()[0]
		if offset >= int64(len(all)) || string(all[offset].Value) != value {
			t.Errorf("%s was acknowledged at offset %d, where it is not", value, offset)
		}
	}
	c.Stop()
	c.checkAtRest()
	figure(t, "leader paused for %.1f s: the next acknowledgement by another leader after %s; %d requests that waited in its sockets: %v; %v",
		resumed.Seconds(), millis(took), len(raw), codes, y)
}

// S6, again and again. A leader gets requests while its followers stand still, and is
// stopped with entries in its log that nobody else has. The others elect a leader,
// which puts records of its own in their place; then the old one goes on, with the
// requests in flight and all the news in its sockets at once: it must learn that it is
// deposed before it answers. What it acknowledges must be there.
func TestLeaderPausedAgainAndAgainAcknowledgesNothingThatIsLost(t *testing.T) {
	rounds := setting("FAULTS_PAUSE_ROUNDS", 8)
	const partitions, clients, each = 3, 4, 5
	c := startCluster(t, 3, nil)
	c.createTopic("s6-again", partitions)
	l := newLedger(c, "s6-again", partitions)
	// Requests to the stopped node are given up soon, so that the next leader is found.
	p := l.produce(10*time.Millisecond, kgo.ProduceRequestTimeout(time.Second), kgo.RequestTimeoutOverhead(time.Second))
	var raw []*kgo.Client
	for range clients {
		raw = append(raw, c.client(kgo.MaxVersions(produceTwelve())))
	}
	type answer struct {
		value string
		kmsg.ProduceResponseTopicPartition
		err error
	}
	// How soon somebody serves tells one that asks the others in turn. The producer above
	// sends what it had in flight to the stopped node again, one request after the other
	// and two seconds each, before it looks for another leader.
	asker := c.client(kgo.MaxVersions(produceTwelve()))
	serves := func(others []*node, partition int32, since time.Time) <-chan time.Duration {
		took := make(chan time.Duration, 1)
		go func() { // ends with an acknowledgement, or after patience
			for try := 0; time.Since(since) < patience; try++ {
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				a, err := produceRaw(ctx, asker, others[try%len(others)].ID, "s6-again", partition, fmt.Appendf(nil, "%d/asked", rawProducer))
				cancel()
				if err == nil && a.ErrorCode == 0 {
					break
				}
				time.Sleep(20 * time.Millisecond)
			}
			took <- time.Since(since)
		}()
		return took
	}
	acked := make(map[string]place)
	codes := make(map[string]int)
	var gaps, served []time.Duration
	alone := 0
	began := time.Now()
	for round := range rounds {
		partition := int32(round % partitions)
		l.awaitAck(partition, "before a pause")
		leader := c.leader("s6-again", partition)
		followers := func(f func(*node)) {
			c.each(func(n *node) {
				if n != leader {
					f(n)
				}
			})
		}
		var others []*node
		followers(func(n *node) { others = append(others, n) })
		answers := make(chan answer, clients*each)
		followers((*node).Pause)
		for i := range each {
			for j, client := range raw {
				value := fmt.Sprintf("%d/%d/%d-%d", rawProducer, round, i, j)
				go func() { // ends with its answer, or its deadline
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					a, err := produceRaw(ctx, client, leader.ID, "s6-again", partition, []byte(value))
					answers <- answer{value, a, err}
				}()
			}
			time.Sleep(4 * time.Millisecond) // one entry each, or two
		}
		next := l.mark(partition)
		leader.Pause()
		followers((*node).Resume)
		took := serves(others, partition, next.since)
		select {
		case at := <-next.acked:
			gaps = append(gaps, at.Sub(next.since))
			if took := at.Sub(next.since); took > 10*time.Second {
				t.Logf("round %d: partition %d of node %d was without an acknowledgement for %.1f s, until %s", round, partition, leader.ID, took.Seconds(), at.UTC().Format(time.TimeOnly))
			}
		case <-time.After(20 * time.Second): // that somebody takes over is for other tests
			alone++
		}
		leader.Resume()
		for range clients * each {
			a := <-answers
			switch {
			case a.err != nil:
				codes[a.err.Error()]++
			case a.ErrorCode == 0:
				acked[a.value] = place{partition, a.BaseOffset}
				codes["acknowledged"]++
			default:
				codes[kerr.ErrorForCode(a.ErrorCode).(*kerr.Error).Message]++
				if !retriable(a.ErrorCode) {
					t.Errorf("%s was answered with %v, which clients do not retry", a.value, kerr.ErrorForCode(a.ErrorCode))
				}
			}
		}
		served = append(served, <-took)
		c.awaitInSync("s6-again")
	}
	elapsed := time.Since(began)
	p.finish()
	y := l.check()
	there := make(map[place]string)
	for _, all := range l.readAll() {
		for _, r := range all {
			there[place{r.Partition, r.Offset}] = string(r.Value)
		}
	}
	for value, at := range acked {
		if there[at] != value {
			t.Errorf("%s was acknowledged at offset %d of partition %d, where %.40q is", value, at.offset, at.partition, there[at])
		}
	}
	c.Stop()
	compared := c.checkAtRest()
	figure(t, "%d rounds of a leader that is stopped and deposed in %.0f s: %d requests in flight were answered %v; %v; %d partitions identical",
		rounds, elapsed.Seconds(), rounds*clients*each, codes, y, compared)
	figure(t, "from the stop to the next acknowledgement, of who asks the others: p50 %s, max %s; of a producer: p50 %s, max %s, none within 20 s in %d rounds",
		millis(percentile(served, 50)), millis(percentile(served, 100)), millis(percentile(gaps, 50)), millis(percentile(gaps, 100)), alone)
}

// produceTwelve are versions in which Produce names topics and not their ids.
func produceTwelve() *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(int16(kmsg.Produce), 12)
	return v
}

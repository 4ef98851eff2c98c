//go:build faults

package faults

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A producer and a consumer that go as fast as they can for half a minute, at the same time,
// get what their quotas allow, within a twentieth of it.
func TestClientsAreHeldToTheirQuotas(t *testing.T) {
	const (
		window  = 30 * time.Second
		produce = 10 << 20 // bytes a second
		consume = 20 << 20
		value   = 64 << 10
	)
	c := startCluster(t, 1, nil)
	admin := c.admin()
	for _, topic := range []string{"in", "out"} {
		if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
		c.awaitAll(admin, topic, -1)
	}
	client := func(id string, more ...kgo.Opt) *kgo.Client {
		t.Helper()
		k, err := kgo.NewClient(append(more, kgo.SeedBrokers(c.Addresses()...), kgo.ClientID(id), kgo.ProducerBatchCompression(kgo.NoCompression()))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(k.Close)
		return k
	}
	payload := make([]byte, value)

	// Enough to read for the whole time, written by a client that has no quota.
	filler := client("filler")
	for range consume * (int(window/time.Second) + 10) / value {
		filler.Produce(t.Context(), &kgo.Record{Topic: "out", Value: payload}, nil)
	}
	if err := filler.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	quota := func(id, key string, rate float64) {
		t.Helper()
		answers, err := admin.AlterClientQuotas(t.Context(), []kadm.AlterClientQuotaEntry{{
			Entity: kadm.ClientQuotaEntity{{Type: "client-id", Name: &id}},
			Ops:    []kadm.AlterClientQuotaOp{{Key: key, Value: rate}},
		}})
		if err != nil || len(answers) != 1 || answers[0].Err != nil {
			t.Fatalf("%s: %+v, %v", id, answers, err)
		}
	}
	quota("producer", "producer_byte_rate", produce)
	quota("consumer", "consumer_byte_rate", consume)

	producer := client("producer")
	consumer := client("consumer", kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"out": {0: kgo.NewOffset().AtStart()}}))
	var produced, consumed atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	var running sync.WaitGroup
	running.Go(func() {
		for ctx.Err() == nil {
			producer.Produce(ctx, &kgo.Record{Topic: "in", Value: payload}, func(r *kgo.Record, err error) {
				if err == nil {
					produced.Add(int64(len(r.Value)))
				} else if ctx.Err() == nil {
					t.Error(err)
				}
			})
		}
	})
	running.Go(func() {
		for ctx.Err() == nil {
			fetches := consumer.PollFetches(ctx)
			fetches.EachRecord(func(r *kgo.Record) { consumed.Add(int64(len(r.Value))) })
			if err := fetches.Err(); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	time.Sleep(window)
	took, in, out := time.Since(began), produced.Load(), consumed.Load()
	cancel()
	running.Wait()
	for _, is := range []struct {
		what  string
		bytes int64
		quota float64
	}{{"produced", in, produce}, {"consumed", out, consume}} {
		allowed := is.quota * took.Seconds()
		off := 100 * (float64(is.bytes)/allowed - 1)
		figure(t, "%s %.1f MiB in %.1f s, %.2f MiB/s of the %.0f that the quota allows: %+.1f %%",
			is.what, float64(is.bytes)/(1<<20), took.Seconds(), float64(is.bytes)/took.Seconds()/(1<<20), is.quota/(1<<20), off)
		if math.Abs(off) > 5 {
			t.Errorf("%s is %.1f %% off its quota", is.what, off)
		}
	}
}

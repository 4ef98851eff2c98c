//go:build faults

package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A million updates of a thousand keys to a compacted topic, nodes killed while
// they clean: the last value of each key is readable from the start, on every
// replica, and the log becomes as small as its keys.
func TestCompactedTopicKeepsTheLastOfEachKey(t *testing.T) {
	const keys, partitions, rounds = 1000, 3, 10
	updates := setting("FAULTS_UPDATES", 1_000_000)
	c := startConfigured(t, "log.cleaner.backoff.ms=100")
	c.createTopic("compacted", partitions, "cleanup.policy=compact", "segment.bytes=4194304",
		"min.cleanable.dirty.ratio=0.3", "max.compaction.lag.ms=2000", "delete.retention.ms=1000")
	filler := strings.Repeat("v", 250)
	value := func(key, i int) string { return fmt.Sprintf("%d %d %s", key, i, filler) }

	client := c.client(kgo.MaxBufferedRecords(20_000), kgo.ProducerLinger(5*time.Millisecond),
		kgo.ProducerBatchCompression(kgo.NoCompression()))
	last, next := make([]int, keys), 0
	var failed atomic.Int64
	began := time.Now()
	kills, busy := 0, 0
	for range rounds {
		sent := make(chan struct{})
		go func() { // the producer: ends with the round's last update
			defer close(sent)
			for range updates / rounds {
				i := next
				next++
				key := rand.IntN(keys)
				last[key] = i
				r := &kgo.Record{Topic: "compacted", Key: fmt.Appendf(nil, "key-%d", key), Value: []byte(value(key, i))}
				client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
					if err != nil {
						failed.Add(1)
					}
				})
			}
		}()
		time.Sleep(time.Duration(100+rand.IntN(400)) * time.Millisecond)
		n := c.nodes[rand.IntN(len(c.nodes))]
		if len(n.GrepLog("msg=compacted")) > 0 {
			busy++
		}
		n.Kill()
		kills++
		c.restart(n)
		c.awaitInSync("compacted")
		<-sent
	}
	if err := client.Flush(context.Background()); err != nil || failed.Load() > 0 {
		t.Fatalf("%d updates failed: %v", failed.Load(), err)
	}
	took := time.Since(began)
	live := int64(0)
	for key, i := range last {
		live += int64(len(fmt.Sprintf("key-%d", key)) + len(value(key, i)))
	}

	// Once more after the last update, then the logs must shrink.
	id := c.topicID("compacted")
	var most int64
	eventually(t, 3*patience, "the logs are small", func() error {
		most = 0
		for _, n := range c.nodes {
			used := int64(0)
			for i := range int32(partitions) {
				used += diskUsed(n.folder(id, i))
			}
			most = max(most, used)
		}
		if most > 3*live {
			return fmt.Errorf("%d bytes on a node's disk for %d bytes of live data", most, live)
		}
		return nil
	})
	read := func(where string) (records int) {
		got := c.lastValues("compacted")
		for key, i := range last {
			k := fmt.Sprintf("key-%d", key)
			if got.values[k] != value(key, i) {
				t.Errorf("%s: %s is %.20q, want %.20q", where, k, got.values[k], value(key, i))
			}
		}
		return got.records
	}
	records := read("all nodes up")
	for _, n := range c.nodes {
		n.Kill()
		read(fmt.Sprintf("node %d down", n.ID))
		c.restart(n)
		c.awaitInSync("compacted")
	}
	cleanings := 0
	c.each(func(n *node) { cleanings += len(n.GrepLog("msg=compacted")) })
	figure(t, "%d updates over %d keys in %.0f s, %d kills, %d of them of a node that had cleaned, %d cleanings: %d records left, %d KiB on a node's disk for %d KiB of live data (%.1f times)",
		updates, keys, took.Seconds(), kills, busy, cleanings, records, most>>10, live>>10, float64(most)/float64(live))
	if cleanings == 0 {
		t.Error("nothing was ever cleaned")
	}
}

// values are the last of each key in a topic, read from its start.
type values struct {
	values  map[string]string
	records int
}

func (c *cluster) lastValues(topic string) values {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	client := c.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	var ends kadm.ListedOffsets
	eventually(c.t, patience, "the ends are known", func() (err error) {
		if ends, err = kadm.NewClient(client).ListEndOffsets(ctx, topic); err == nil {
			err = ends.Error()
		}
		return err
	})
	left := make(map[int32]int64)
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	v := values{values: make(map[string]string)}
	at := make(map[int32]int64)
	for len(left) > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			c.t.Fatalf("%s was not read to its end: %v left, read up to %v", topic, left, at)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if before, ok := at[r.Partition]; ok && r.Offset <= before {
				c.t.Errorf("I6 %s/%d: offset %d after %d", topic, r.Partition, r.Offset, before)
			}
			at[r.Partition] = r.Offset
			v.values[string(r.Key)] = string(r.Value)
			v.records++
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
	}
	return v
}

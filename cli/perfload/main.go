package main

import (
	"context"
	"flag"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	b := flag.String("b", "127.0.0.1:9092", "")
	topic := flag.String("t", "perf", "")
	parts := flag.Int("p", 6, "")
	clients := flag.Int("c", 3, "")
	size := flag.Int("s", 1024, "")
	secs := flag.Float64("d", 10, "")
	linger := flag.Duration("l", 0, "")
	mode := flag.String("m", "produce", "")
	flag.Parse()
	ctx := context.Background()
	seeds := strings.Split(*b, ",")
	adm, _ := kgo.NewClient(kgo.SeedBrokers(seeds...))
	ka := kadm.NewClient(adm)
	ka.CreateTopic(ctx, int32(*parts), 3, nil, *topic)
	time.Sleep(time.Second)
	if *mode == "consume" {
		var n, by atomic.Int64
		var wg sync.WaitGroup
		start := time.Now()
		ends, _ := ka.ListEndOffsets(ctx, *topic)
		var total int64
		ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
		for i := 0; i < *clients; i++ {
			wg.Add(1)
			go func() {
				defer wg.Done()
				cl, _ := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.ConsumeTopics(*topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(50<<20), kgo.FetchMaxPartitionBytes(10<<20))
				var got int64
				for got < total {
					f := cl.PollFetches(ctx)
					f.EachRecord(func(r *kgo.Record) { got++; by.Add(int64(len(r.Value))) })
				}
				n.Add(got)
				cl.Close()
			}()
		}
		wg.Wait()
		el := time.Since(start).Seconds()
		fmt.Printf("consumed %d records %.1f MB/s in %.1fs\n", n.Load(), float64(by.Load())/el/1e6, el)
		return
	}
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	val := []byte(strings.Repeat("abcdefghijklmnop", (*size+15)/16))[:*size]
	for i := 0; i < *clients; i++ {
		wg.Add(1)
		go func() {
			defer wg.Done()
			cl, err := kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.DefaultProduceTopic(*topic), kgo.MaxBufferedRecords(50000), kgo.ProducerLinger(*linger), kgo.ProducerBatchCompression(kgo.NoCompression()))
			if err != nil {
				panic(err)
			}
			for time.Since(start).Seconds() < *secs {
				for k := 0; k < 100; k++ {
					cl.Produce(ctx, &kgo.Record{Value: val}, func(r *kgo.Record, err error) {
						if err != nil {
							panic(err)
						}
						n.Add(1)
					})
				}
			}
			cl.Flush(ctx)
			cl.Close()
		}()
	}
	wg.Wait()
	el := time.Since(start).Seconds()
	fmt.Printf("produced %d records: %.0f/s, %.1f MB/s\n", n.Load(), float64(n.Load())/el, float64(n.Load())*float64(*size)/el/1e6)
}

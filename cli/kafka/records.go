package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// EachRecord calls f for every record of a span of a topic, up to its present end. whole
// is false when ctx ended before.
func EachRecord(ctx context.Context, brokers []string, topic string, what Span, f func(*kgo.Record)) (whole bool, err error) {
	client, err := DialBrokers(ctx, brokers, kgo.KeepControlRecords())
	if err != nil {
		return false, err
	}
	defer client.Close()
	var ends map[string]map[int32]Bounds
	err = Settle(ctx, func(ctx context.Context) error {
		var err error
		ends, err = what.Resolve(ctx, kadm.NewClient(client), []string{topic}, true, false)
		return err
	})
	if err != nil {
		return false, err
	}
	left := 0
	for i, b := range ends[topic] {
		if b.From < b.To {
			left++
			client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {i: kgo.NewOffset().At(b.From)}})
		}
	}
	for left > 0 {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return false, nil
		}
		for it := fetches.RecordIter(); !it.Done(); {
			r := it.Next()
			end := ends[topic][r.Partition].To
			if r.Offset < end && !r.Attrs.IsControl() {
				f(r)
			}
			if r.Offset == end-1 {
				left--
			}
		}
	}
	return true, nil
}

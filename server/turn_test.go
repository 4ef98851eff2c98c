package server

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// So many are at work at a time as there are places, and a place stays empty for as long
// as the work took. Who has none in time, or leaves, takes none with them.
func TestTurnsLeaveHalfOfTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := turns{}
		line.once.Do(func() { line.places = make(chan struct{}, 1) })
		began := time.Now()
		var ended []time.Duration
		for range 3 {
			if err := line.take(t.Context(), time.Minute); err != nil {
				t.Fatal(err)
			}
			at := time.Now()
			time.Sleep(100 * time.Millisecond) // its work
			ended = append(ended, time.Since(began))
			line.leave(at)
		}
		if want := "[100ms 300ms 500ms]"; fmt.Sprint(ended) != want {
			t.Errorf("they ended after %v, want %s", ended, want)
		}
		if err := line.take(t.Context(), 10*time.Millisecond); !errors.Is(err, errNoTurn) {
			t.Errorf("in the rest: %v", err)
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if err := line.take(ctx, time.Minute); !errors.Is(err, errBye) {
			t.Errorf("who left: %v", err)
		}
		if err := line.take(t.Context(), time.Second); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		line.leave(began)
		if err := line.take(t.Context(), 2*maxRest); err != nil {
			t.Errorf("after an hour of work the rest is %v at most: %v", maxRest, err)
		}
	})
}

// No request keeps its turn while it waits for somebody: not for records, nor for a
// client that reads nothing. Others that are as large are served, and more of them at
// once than there are places.
func TestNobodyWaitsInTheirTurn(t *testing.T) {
	b := startBroker(t, nil)
	b.create("t", 1, nil)
	const n = 2 * turnElements
	waits := kmsg.NewPtrFetchRequest()
	waits.SetVersion(4)
	waits.MaxWaitMillis, waits.MinBytes, waits.MaxBytes = 300_000, 1, 1<<20
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = "t"
	rt.Partitions = make([]kmsg.FetchRequestTopicPartition, n)
	for i := range rt.Partitions {
		rt.Partitions[i].Default()
		rt.Partitions[i].PartitionMaxBytes = 1 << 20
	}
	waits.Topics = append(waits.Topics, rt)
	names := kmsg.NewPtrDescribeTopicPartitionsRequest()
	for i := range n {
		names.Topics = append(names.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: fmt.Sprintf("%0200d", i)})
	}
	format := kmsg.NewRequestFormatter()
	for range 8 {
		b.dial().write(format.AppendRequest(nil, waits, 1))
		b.dial().write(format.AppendRequest(nil, names, 1)) // answered with more than the kernel takes
	}
	for range 3 {
		got := ask[*kmsg.DescribeTopicPartitionsResponse](b.dial(), names)
		if len(got.Topics) == 0 {
			t.Error("an answer without topics")
		}
	}
	for i := 0; len(b.server.turns.places) > 0; i++ {
		if i == 1000 {
			t.Fatalf("%d turns are not over", len(b.server.turns.places))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

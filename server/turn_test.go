package server

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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
			mine, err := line.take(t.Context(), time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond) // its work
			ended = append(ended, time.Since(began))
			line.leave(mine)
		}
		if want := "[100ms 300ms 500ms]"; fmt.Sprint(ended) != want {
			t.Errorf("they ended after %v, want %s", ended, want)
		}
		if _, err := line.take(t.Context(), 10*time.Millisecond); !errors.Is(err, errNoTurn) {
			t.Errorf("in the rest: %v", err)
		}
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if _, err := line.take(ctx, time.Minute); !errors.Is(err, errBye) {
			t.Errorf("who left: %v", err)
		}
		mine, err := line.take(t.Context(), time.Second)
		if err != nil {
			t.Error(err)
		}
		time.Sleep(3 * maxRest / 2)
		line.leave(mine)
		rested := time.Now()
		if mine, err = line.take(t.Context(), time.Minute); err != nil || time.Since(rested) != maxRest {
			t.Errorf("after long work the rest is %v, %v; want %v", time.Since(rested), err, maxRest)
		}

		// Work that does not end, since it waits for somebody, keeps a place for so long
		// only, and gives it back once.
		kept := time.Now()
		next, err := line.take(t.Context(), time.Minute)
		if err != nil || time.Since(kept) != maxTurn {
			t.Errorf("a turn of no end was over after %v, %v; want %v", time.Since(kept), err, maxTurn)
		}
		line.leave(mine)
		if _, err := line.take(t.Context(), maxTurn/2); !errors.Is(err, errNoTurn) {
			t.Errorf("beside one that has the only place: %v", err)
		}
		line.leave(next)
	})
}

// Work in a turn pauses for as long as it took, after each stretch. It keeps its turn
// however long that makes it, as long as it goes on; the rest after it is short.
func TestWorkPausesForAsLongAsItTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		line := turns{}
		line.once.Do(func() { line.places = make(chan struct{}, 1) })
		mine, err := line.take(t.Context(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		const element = stretch / stepsAtOnce / 4
		longest, since := time.Duration(0), began
		n := int(3 * maxTurn / element)
		for range n {
			time.Sleep(element) // its work
			before := time.Now()
			if mine.step(); time.Since(before) > 0 {
				longest, since = max(longest, before.Sub(since)), time.Now()
			}
		}
		work := time.Duration(n) * element
		if took := time.Since(began); took < 2*work-stretch || took > 2*work {
			t.Errorf("%v of work took %v with its pauses", work, took)
		}
		if longest > stretch+stepsAtOnce*element {
			t.Errorf("it worked for %v without a pause", longest)
		}
		if len(line.places) != 1 {
			t.Error("it lost its turn while it worked")
		}
		line.leave(mine)
		left := time.Now()
		next, err := line.take(t.Context(), time.Minute)
		if err != nil || time.Since(left) > stretch+stepsAtOnce*element {
			t.Errorf("the rest after it was %v, %v", time.Since(left), err)
		}
		line.leave(next)

		before := time.Now()
		var none turn
		for range 10 * stepsAtOnce {
			time.Sleep(stretch)
			none.step()
		}
		if took := time.Since(before); took != 10*stepsAtOnce*stretch {
			t.Errorf("without a turn it pauses as well: %v", took)
		}
	})
}

// No request keeps its turn while it waits for somebody: not for records, nor for a
// client that reads nothing. Others that are as large are served, and more of them at
// once than there are places.
func TestNobodyWaitsInTheirTurn(t *testing.T) {
	t.Parallel()
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
	waiting := 8
	if testing.Short() {
		waiting = min(waiting, max(1, runtime.GOMAXPROCS(0)/2)+1) // one more than there are places
	}
	for range waiting {
		b.dial().write(format.AppendRequest(nil, waits, 1))
		b.dial().write(format.AppendRequest(nil, names, 1)) // answered with more than the kernel takes
	}
	for range 3 {
		got := ask[*kmsg.DescribeTopicPartitionsResponse](b.dial(), names)
		if len(got.Topics) == 0 {
			t.Error("an answer without topics")
		}
	}
	for i := 0; len(b.server.shared.turns.places) > 0; i++ {
		if i == 1000 {
			t.Fatalf("%d turns are not over", len(b.server.shared.turns.places))
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// A request that waits for the answers to its client's Produce requests has no turn yet.
func TestNobodyWaitsForAnswersInTheirTurn(t *testing.T) {
	b := startBroker(t, nil)
	names := kmsg.NewPtrDescribeTopicPartitionsRequest()
	for i := range 2 * turnElements {
		names.Topics = append(names.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: fmt.Sprint(i)})
	}
	one := b.dial()
	ask[*kmsg.ApiVersionsResponse](one, kmsg.NewPtrApiVersionsRequest())
	var c *connection
	b.server.mu.Lock()
	for _, c = range b.server.open { // it has answered, so it is there
	}
	b.server.mu.Unlock()
	unanswered := func(n int) {
		c.flight.mu.Lock()
		c.flight.requests += n
		c.flight.changed.Broadcast()
		c.flight.mu.Unlock()
	}
	unanswered(1)
	id := one.send(names)
	for i := 0; c.server.stats.requests.Load() < 2; i++ {
		if i == 1000 {
			t.Fatal("the request has not come")
		}
		time.Sleep(10 * time.Millisecond)
	}
	time.Sleep(50 * time.Millisecond)
	if n := len(b.server.shared.turns.places); n > 0 {
		t.Errorf("%d turns are taken while an answer is waited for", n)
	}
	unanswered(-1)
	one.receive(names, id)
}

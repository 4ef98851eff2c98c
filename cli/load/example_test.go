package load_test

import (
	"context"
	"fmt"

	"millrace/cli/load"
)

// A queue is something to send records to: here a channel.
type queue chan []byte

// Send hands a record over. The value belongs to it until Done.
func (q queue) Send(_ context.Context, r *load.Record) {
	q <- append([]byte(nil), r.Value...)
	r.Done(nil)
}

// Flush has nothing to do: nothing lingers.
func (q queue) Flush(context.Context) error { return nil }

func ExampleEndToEnd() {
	q := make(queue, 100)
	receiver := load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error {
		for {
			select {
			case value := <-q:
				m.GotRecord(nil, value)
			case <-ctx.Done():
				return nil
			}
		}
	})
	plan := load.Plan{Producers: 2, Records: 1000, RecordBytes: 100, Rate: 20_000}
	received, sent, err := load.EndToEnd(context.Background(), plan, []load.Sender{q}, []load.Receiver{receiver}, nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(sent.Records, "sent,", received.Records, "received,", received.Lost, "lost")
	// Output: 1000 sent, 1000 received, 0 lost
}

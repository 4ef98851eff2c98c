package natsload

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"time"

	"millrace/cli/load"
)

// Command is `millrace bench` for NATS, as far as the comparison needs it: it
// runs produce, consume or e2e and writes a load.Result as JSON. A topic that is
// produced to is left behind unless it is asked to be deleted.
func Command(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("nats-bench takes produce, consume or e2e")
	}
	kind, f := args[0], flag.NewFlagSet("nats-bench", flag.ContinueOnError)
	servers := f.String("b", "", "servers, `nats://HOST:PORT,…`")
	name := f.String("t", "bench", "`TOPIC`")
	partitions := f.Int("p", 6, "its streams, `N`")
	producers := f.Int("producers", 1, "connections that publish, `N`")
	consumers := f.Int("consumers", 1, "connections that read everything, `N`")
	records := f.Int64("n", 0, "records to publish, `N`; 0: no limit")
	bytes := f.Int("size", 1024, "`BYTES` of a record")
	rate := f.Float64("rate", 0, "records a second, `N`; 0: as fast as possible")
	duration := f.Duration("duration", 0, "how long, `DURATION`; 0: no limit")
	warmUp := f.Duration("warm-up", 0, "before anything counts, `DURATION`")
	keep := f.Bool("keep", false, "do not delete the topic")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	setUp, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	t, err := Open(setUp, strings.Split(*servers, ","), *name, *partitions)
	if err != nil {
		return err
	}
	defer t.Close()
	if !*keep {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			t.Delete(ctx)
		}()
	}
	plan := load.Plan{
		Producers: *producers, Records: *records, RecordBytes: *bytes, Rate: *rate, Duration: *duration, WarmUp: *warmUp,
		InFlight: InFlight, Seed: 1, Topic: *name, Partitions: *partitions,
	}
	var result *load.Result
	switch kind {
	case "produce":
		senders, err := t.Senders(*producers, InFlight)
		if err != nil {
			return err
		}
		if result, err = load.Produce(ctx, plan, senders, nil); err != nil {
			return err
		}
	case "consume":
		readers, err := t.Readers(*consumers)
		if err != nil {
			return err
		}
		if result, err = load.Consume(ctx, load.Plan{Duration: *duration, WarmUp: *warmUp, Topic: *name, Partitions: *partitions}, readers, nil); err != nil {
			return err
		}
	case "e2e":
		senders, err := t.Senders(*producers, InFlight)
		if err != nil {
			return err
		}
		follower, err := t.Follower(setUp)
		if err != nil {
			return err
		}
		if result, _, err = load.EndToEnd(ctx, plan, senders, []load.Receiver{follower}, nil); err != nil {
			return err
		}
	default:
		return fmt.Errorf("nats-bench %q: it takes produce, consume or e2e", kind)
	}
	return result.WriteJSON(stdout)
}

package bench

import (
	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

func benchProduceCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "produce",
		Usage: "how many records a second are acknowledged, how soon",
		Description: `   Produces for --duration, or -n records, and says how fast they were acknowledged. The
   latency of a record is the time from its being produced to its acknowledgement; with
   --rate, from the moment the rate has for it, even if the producer was late: a stall is
   seen in every record it held up. Without a rate the producers keep as much in flight as
   they may, and latency is mostly the time spent waiting in their own queues.

   The producers are franz-go's, idempotent, and choose partitions as it does by itself: 64 KiB
   to one, then to another; by key where there are keys. --linger and --batch-size are theirs
   too. What is deleted afterwards is only a topic that was made.

   -o json has the keys kind, topic, partitions, records, bytes (of keys and values), seconds,
   errors, first_error, unsent (of the schedule, when the rate was not reached), unacknowledged,
   interrupted, records_per_second, mib_per_second (1,048,576 bytes), latency_millis {p50, p90,
   p99, p99_9, max, mean}, series [{second, records, bytes, errors, p50_millis, p99_millis,
   max_millis}], percentiles [{percentile, millis}] and plan (what was asked, durations in
   seconds). The warm-up is in none of them.

EXAMPLES:
   $ millrace bench produce -n 5000
   $ millrace bench produce -n 1000 --rate 400/s --size 200 --keys 100 --html bench.html
   $ millrace bench produce -n 5000 --producers 3 -z zstd -p 3 -c flush.messages=1 -o json
   $ millrace bench produce -t flights-bench -n 5000 --keys 50 --distribution zipf --keep`,
		Flags:  kafka.Flags(benchTopicFlags(), benchLoadFlags("max"), benchOutputFlags()),
		Action: benchProduce,
	}
}

func benchProduce(c *urfave.Context) error {
	plan, err := benchPlan(c)
	if err != nil {
		return err
	}
	b, err := openBench(c)
	if err != nil {
		return err
	}
	defer b.close()
	plan.Topic, plan.Partitions = b.topic, b.partitions
	senders, closeAll, err := b.senders(plan)
	if err != nil {
		return err
	}
	defer closeAll()
	result, err := load.Produce(c.Context, plan, senders, b.tell)
	if err != nil {
		return term.Usage("%v", err)
	}
	if err := b.print(result, benchColumns(true)); err != nil {
		return err
	}
	return b.verdict(result)
}

package bench

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

// Command is `millrace bench` with its subcommands.
func Command() *urfave.Command {
	return &urfave.Command{
		Name:  "bench",
		Usage: "measure a cluster, this one or any other Kafka's",
		Subcommands: []*urfave.Command{
			benchProduceCommand(),
			benchConsumeCommand(),
			benchEndToEndCommand(),
			benchTutorialCommand(),
		},
	}
}

// Unless told otherwise, bench measures for ten seconds, after one in which
// connections are made and producers get their ids.
const (
	benchDuration = 10 * time.Second
	benchWarmUp   = time.Second
)

// benchTopicFlags say which topic is used, and how it is made if it is missing.
func benchTopicFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "topic", Aliases: []string{"t"}, Usage: "the `TOPIC`; it is made if it is missing, and deleted afterwards", DefaultText: "one of its own, bench-…"},
		&urfave.IntFlag{Name: "partitions", Aliases: []string{"p"}, Value: 6, DefaultText: "6", Usage: "of a topic that is made, `N`"},
		&urfave.IntFlag{Name: "replicas", Aliases: []string{"r"}, Value: -1, DefaultText: "the cluster's", Usage: "of a topic that is made, `N`"},
		kafka.ConfigFlag(),
		&urfave.BoolFlag{Name: "keep", Usage: "do not delete a topic that was made"},
	}
}

// benchLoadFlags say what is produced.
func benchLoadFlags(rate string) []urfave.Flag {
	flags := []urfave.Flag{
		&urfave.IntFlag{Name: "producers", Value: 1, DefaultText: "1", Usage: "goroutines that produce, `N`"},
		&urfave.IntFlag{Name: "clients", Usage: "clients with connections of their own, which the producers share, `N`", DefaultText: "one each, at most 16"},
		&urfave.Int64Flag{Name: "records", Aliases: []string{"n"}, Usage: "stop after `N` records of all producers together", DefaultText: "no limit"},
		&urfave.DurationFlag{Name: "duration", Usage: "stop after this time, `DURATION`", DefaultText: "10s, or with -n no limit"},
		&urfave.IntFlag{Name: "size", Value: 1024, DefaultText: "1024", Usage: "`BYTES` of a value: JSON, about as compressible as real data"},
		&urfave.IntFlag{Name: "keys", Usage: "`N` different keys; each has its partition", DefaultText: "none"},
		&urfave.StringFlag{Name: "distribution", Value: "uniform", DefaultText: "uniform", Usage: "how often each key comes, `HOW`: uniform, round-robin or zipf"},
		&urfave.StringFlag{Name: "rate", Value: rate, DefaultText: rate, Usage: "records a second of all producers together, `N/s`; max: as fast as possible"},
		&urfave.DurationFlag{Name: "warm-up", Usage: "leave out what comes in the first `DURATION`", DefaultText: "1s, or with -n none"},
		&urfave.Uint64Flag{Name: "seed", Value: 1, DefaultText: "1", Usage: "`N`: the same seed, the same payloads and keys"},
	}
	return append(flags, benchClientFlags()...)
}

// benchClientFlags are a producing client's settings.
func benchClientFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.DurationFlag{Name: "linger", Value: 10 * time.Millisecond, DefaultText: "10ms", Usage: "how long a record waits for others to share its batch, `DURATION`"},
		&urfave.IntFlag{Name: "batch-size", Value: 1_000_012, DefaultText: "1000012", Usage: "largest batch, `BYTES`"},
		&urfave.StringFlag{Name: "acks", Value: "all", DefaultText: "all", Usage: "`ACKS`: all, 1 or 0; anything but all is not idempotent"},
		&urfave.StringFlag{Name: "compression", Aliases: []string{"z"}, Value: "none", DefaultText: "none", Usage: "`CODEC`: none, gzip, snappy, lz4 or zstd"},
		&urfave.IntFlag{Name: "in-flight", Usage: "records a producer has sent and not heard of, at most, `N`", DefaultText: "32 MiB of them, at most 100,000"},
		&urfave.DurationFlag{Name: "timeout", Usage: "count a record as failed that is not acknowledged after this time, `DURATION`", DefaultText: "never"},
	}
}

// benchOutputFlags say what is written.
func benchOutputFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", DefaultText: "table", Usage: "`FORMAT`: table, json, or csv, which has a row a second"},
		&urfave.BoolFlag{Name: "no-headers", Usage: "leave out the headers of tables"},
		&urfave.BoolFlag{Name: "wide", Usage: "all columns of tables in full, however narrow the terminal is"},
		&urfave.StringFlag{Name: "html", Usage: "write a page with charts to this `FILE`"},
	}
}

// A bench is one run of a bench command: the cluster, the topic, and where the
// figures go.
type bench struct {
	c       *urfave.Context
	brokers []string
	client  *kgo.Client
	admin   *kadm.Client

	topic      string
	partitions int
	made       bool // the topic, by us

	page     *os.File // --html; nil: none
	written  bool     // there is something in it
	progress term.Progress
}

// collectLate trades memory for processor time, which the load takes from the
// brokers it measures, unless GOGC says otherwise: reading 1 GiB by fetch requests
// reaches 2,060 MiB/s so, and 1,310 with a collection for every few answers.
func collectLate() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(1600)
	}
}

// openBench looks at the flags, reaches the cluster and finds the topic, or makes
// it. The caller closes it.
func openBench(c *urfave.Context) (_ *bench, err error) {
	collectLate()
	if c.NArg() > 0 {
		return nil, term.Usage("%q: bench %s takes flags only; a topic is named with -t", c.Args().First(), c.Command.Name)
	}
	switch c.String("output") {
	case "table", "json", "csv":
	default:
		return nil, term.Usage("--output %q: it is one of table, json, csv", c.String("output"))
	}
	given, err := kafka.GivenSettings(c)
	if err != nil {
		return nil, err
	}
	partitions, replicas := c.Int("partitions"), c.Int("replicas")
	if partitions < 1 || partitions > 1<<20 {
		return nil, term.Usage("-p %d: a topic has 1 partition or more", partitions)
	}
	if c.IsSet("replicas") && replicas < 1 || replicas > 1<<10 {
		return nil, term.Usage("-r %d: a partition has 1 replica or more", replicas)
	}
	b := &bench{c: c, topic: c.String("topic"), progress: term.NewProgress(c.App.ErrWriter, true)}
	if b.topic == "" {
		b.topic = fmt.Sprintf("bench-%08x", rand.Uint32())
	}
	if b.brokers, err = kafka.BrokersNamed(c); err != nil {
		return nil, err
	}
	if b.client, err = kafka.DialBrokers(c.Context, b.brokers); err != nil {
		return nil, err
	}
	b.admin = kadm.NewClient(b.client)
	b.admin.SetTimeoutMillis(15_000)
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if name := c.String("html"); name != "" {
		// Now, so that nobody waits for a run whose page cannot be written.
		if b.page, err = os.Create(name); err != nil {
			return nil, err
		}
	}
	return b, b.findTopic(c.Context, int32(partitions), int16(replicas), given)
}

// findTopic makes the topic unless it exists, and waits until all its partitions
// have leaders.
func (b *bench) findTopic(ctx context.Context, partitions int32, replicas int16, given map[string]string) error {
	configs := make(map[string]*string, len(given))
	for k, v := range given {
		configs[k] = &v
	}
	answer, err := b.admin.CreateTopic(ctx, partitions, replicas, configs, b.topic)
	switch {
	case err == nil:
		b.made = true
	case errors.Is(err, kerr.TopicAlreadyExists):
		if len(given) > 0 || b.c.IsSet("partitions") || b.c.IsSet("replicas") {
			return term.Usage("topic %q exists already, and -p, -r and -c are for one that is made", b.topic)
		}
	default:
		return kafka.TopicError(b.topic, err, answer.ErrMessage)
	}
	ctx, cancel := context.WithTimeout(ctx, kafka.SettleTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		t, err := kafka.DescribeTopic(ctx, b.admin, b.topic)
		if err == nil && t.Partitions.Numbers() != nil {
			b.partitions = len(t.Partitions)
			for _, p := range t.Partitions {
				if p.Err != nil || p.Leader < 0 {
					err = term.Fail(term.StatusUnhealthy, "topic %q: partition %d has no leader", b.topic, p.Partition)
				}
			}
			if err == nil {
				return nil
			}
		}
		select {
		case <-time.After(kafka.Backoff(attempt)):
		case <-ctx.Done():
			if err == nil {
				err = ctx.Err()
			}
			return err
		}
	}
}

// close deletes the topic if it was made, and an empty page, and goes.
func (b *bench) close() {
	if b.made && !b.c.Bool("keep") {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(b.c.Context), kafka.SettleTimeout)
		if _, err := b.admin.DeleteTopic(ctx, b.topic); err != nil {
			fmt.Fprintf(b.c.App.ErrWriter, "millrace: topic %s is left behind: %s\n", b.topic, kafka.BrokerSaid(err, ""))
		}
		cancel()
	}
	if b.page != nil {
		b.page.Close()
		if !b.written {
			os.Remove(b.page.Name())
		}
	}
	b.client.Close()
}

// benchPlan reads the flags of the load, before anything is asked of the cluster.
func benchPlan(c *urfave.Context) (load.Plan, error) {
	if _, err := kafka.ProducerOptions(c); err != nil {
		return load.Plan{}, err
	}
	rate, err := benchRate(c.String("rate"))
	if err != nil {
		return load.Plan{}, err
	}
	for _, f := range []string{"producers", "size", "batch-size"} {
		if c.Int(f) < 1 {
			return load.Plan{}, term.Usage("--%s %d: it is 1 or more", f, c.Int(f))
		}
	}
	for _, f := range []string{"clients", "keys", "in-flight"} {
		if c.Int(f) < 0 {
			return load.Plan{}, term.Usage("--%s %d: it is 0 or more", f, c.Int(f))
		}
	}
	for _, f := range []string{"duration", "warm-up", "linger", "timeout"} {
		if c.Duration(f) < 0 {
			return load.Plan{}, term.Usage("--%s %v: it is 0 or more", f, c.Duration(f))
		}
	}
	if c.IsSet("records") && c.Int64("records") < 1 {
		return load.Plan{}, term.Usage("-n %d: it is 1 or more", c.Int64("records"))
	}
	how := load.Distribution(c.String("distribution"))
	switch {
	case how != load.Uniform && how != load.RoundRobin && how != load.Zipf:
		return load.Plan{}, term.Usage("--distribution %q: it is one of uniform, round-robin, zipf", how)
	case c.IsSet("distribution") && c.Int("keys") == 0:
		return load.Plan{}, term.Usage("--distribution is that of keys; say how many with --keys")
	case c.Int("keys") == 0:
		how = ""
	}
	p := load.Plan{
		Producers:    c.Int("producers"),
		Records:      c.Int64("records"),
		RecordBytes:  c.Int("size"),
		Keys:         c.Int("keys"),
		Distribution: how,
		Rate:         rate,
		Duration:     benchDuration,
		WarmUp:       benchWarmUp,
		InFlight:     c.Int("in-flight"),
		Seed:         c.Uint64("seed"),
		Settings:     benchSettings(c),
	}
	if c.IsSet("duration") || p.Records > 0 {
		p.Duration = c.Duration("duration")
	}
	if c.IsSet("warm-up") || p.Records > 0 {
		p.WarmUp = c.Duration("warm-up")
	}
	return p, nil
}

// benchRate reads records a second; "max" is 0, as fast as possible.
func benchRate(s string) (float64, error) {
	if s == "max" || s == "0" {
		return 0, nil
	}
	rate, err := kafka.ParseRate(s)
	if err == nil && rate == 0 {
		err = term.Usage("--rate is empty; it is a number of records a second, such as 100/s, or max")
	}
	return rate, err
}

// benchSettings says how the clients are set up, and the topic that is made.
func benchSettings(c *urfave.Context) map[string]string {
	s := map[string]string{
		"acks":        c.String("acks"),
		"compression": c.String("compression"),
		"linger":      c.Duration("linger").String(),
		"batch.size":  strconv.Itoa(c.Int("batch-size")),
	}
	if given, err := kafka.GivenSettings(c); err == nil {
		for k, v := range given {
			s["topic."+k] = v
		}
	}
	return s
}

// producing is one client for some producers of a plan, as a load.Sender.
//
// What a record needs it carries itself, and takes along when it is used again:
// nothing is allocated for each.
type producing struct {
	client *kgo.Client
	topic  string
}

// carried is a load.Record's other half.
type carried struct {
	kgo.Record
	promise func(*kgo.Record, error)
}

// Send produces a record. It never waits for room: the client has more of it than
// the plan lets be in flight. An interruption does not take back what was sent.
func (p *producing) Send(_ context.Context, r *load.Record) {
	k, _ := r.Carrier.(*carried)
	if k == nil {
		k = &carried{promise: func(_ *kgo.Record, err error) { r.Done(err) }}
		r.Carrier = k
	}
	k.Record = kgo.Record{Topic: p.topic, Key: r.Key, Value: r.Value}
	p.client.Produce(context.Background(), &k.Record, k.promise)
}

// Flush sends what lingers and waits for its end.
func (p *producing) Flush(ctx context.Context) error { return p.client.Flush(ctx) }

// senders returns the clients that carry a plan's records, and how to close them.
func (b *bench) senders(plan load.Plan) ([]load.Sender, func(), error) {
	n := b.c.Int("clients")
	if n == 0 {
		n = 16
	}
	n = min(n, plan.Producers)
	inFlight := plan.InFlight
	if inFlight == 0 {
		inFlight = 100_000
	}
	// ProducerOptions is how `millrace produce` sets its client up; here a topic is
	// there, and room is bounded by the plan.
	options, err := kafka.ProducerOptions(b.c)
	if err != nil {
		return nil, nil, err
	}
	options = append(options,
		kgo.MaxBufferedRecords(2*inFlight*((plan.Producers+n-1)/n)),
		kgo.MaxBufferedBytes(0),
		kgo.ProducerLinger(b.c.Duration("linger")),
		kgo.ProducerBatchMaxBytes(int32(min(b.c.Int("batch-size"), 1<<30))),
		kgo.ClientID("millrace-bench"),
	)
	var clients []*kgo.Client
	closeAll := func() {
		for _, c := range clients {
			c.Close()
		}
	}
	var senders []load.Sender
	for range n {
		client, err := kafka.DialBrokers(b.c.Context, b.brokers, options...)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		clients = append(clients, client)
		senders = append(senders, &producing{client, b.topic})
	}
	return senders, closeAll, nil
}

// tell is the progress line of a run.
func (b *bench) tell(p load.Progress) {
	b.progress.Show(func() string {
		if p.Elapsed < 0 {
			return fmt.Sprintf("warming up, %.0f s to go", (-p.Elapsed).Seconds())
		}
		s := fmt.Sprintf("%.0f s: %s, %s records/s, %s/s", p.Elapsed.Seconds(), term.Count(p.Records, "record"), term.Number(p.Last.Records), term.Size(p.Last.Bytes))
		if p.Last.P99 > 0 {
			s += ", p99 " + millis(p.Last.P99)
		}
		if p.Errors > 0 {
			s += ", " + term.Red(b.c.App.ErrWriter, term.Count(p.Errors, "error"))
		}
		return s
	})
}

// print writes a result as the flags ask for, and its page.
func (b *bench) print(r *load.Result, columns []term.Column[*load.Result]) error {
	b.progress.Clear()
	if err := b.writePage(func(w io.Writer) error { return load.ResultPage(r).Write(w) }); err != nil {
		return err
	}
	if b.page != nil && len(r.Series) < 2 {
		fmt.Fprintf(b.c.App.ErrWriter, "millrace: the run took %s, which is too short for charts by the second; --duration 10s has some\n", term.Seconds(time.Duration(r.Seconds*float64(time.Second))))
	}
	switch b.c.String("output") {
	case "json":
		return r.WriteJSON(b.c.App.Writer)
	case "csv":
		return b.printSeconds(r.Series)
	}
	return term.PrintTable(b.c, []*load.Result{r}, columns)
}

// printSeconds writes a series as CSV, with the names it has in JSON.
func (b *bench) printSeconds(series []load.Second) error {
	rows := [][]string{{"second", "records", "bytes", "errors", "p50_millis", "p99_millis", "max_millis"}}
	if b.c.Bool("no-headers") {
		rows = nil
	}
	number := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
	for _, s := range series {
		rows = append(rows, []string{strconv.Itoa(s.Second), strconv.FormatInt(s.Records, 10), strconv.FormatInt(s.Bytes, 10),
			strconv.FormatInt(s.Errors, 10), number(s.P50), number(s.P99), number(s.Max)})
	}
	return csv.NewWriter(b.c.App.Writer).WriteAll(rows)
}

// writePage writes the page, if one is wanted.
func (b *bench) writePage(write func(io.Writer) error) error {
	if b.page == nil {
		return nil
	}
	var page bytes.Buffer
	if err := write(&page); err != nil {
		return err
	}
	if _, err := b.page.Write(page.Bytes()); err != nil {
		return err
	}
	b.written = true
	return nil
}

// verdict is the error that a run's result amounts to: nil when everything asked
// for was done.
func (b *bench) verdict(r *load.Result) error {
	switch {
	case r.Lost > 0:
		return term.Fail(term.StatusFailed, "%s acknowledged and not received", term.Count(r.Lost, "record"))
	case r.Errors > 0:
		return term.Fail(term.StatusFailed, "%s, the first: %s", term.Count(r.Errors, "error"), r.FirstError)
	case r.Interrupted:
		return term.Fail(term.StatusFailed, "interrupted; the figures are those of what was done")
	case r.Unacknowledged > 0:
		return term.Fail(term.StatusFailed, "%s not acknowledged; whether they are stored is not known", term.Count(r.Unacknowledged, "record"))
	}
	if r.Unsent > 0 {
		fmt.Fprintf(b.c.App.ErrWriter, "The rate was not reached: %s of the schedule not sent.\n", term.Count(r.Unsent, "record"))
	}
	return nil
}

// benchColumns are the columns of a result's table. what are those between the
// throughput and the latencies.
func benchColumns(latency bool, what ...term.Column[*load.Result]) []term.Column[*load.Result] {
	type r = *load.Result
	columns := []term.Column[r]{
		{Header: "TOPIC", Cell: func(r r) string { return r.Topic }},
		{Header: "PARTITIONS", Cell: func(r r) string { return strconv.Itoa(r.Partitions) }},
		{Header: "RECORDS", Cell: func(r r) string { return term.Number(r.Records) }},
		{Header: "SECONDS", Cell: func(r r) string { return strconv.FormatFloat(r.Seconds, 'f', 2, 64) }},
		{Header: "RECORDS/S", Cell: func(r r) string { return term.Number(int64(r.RecordsPerSecond)) }},
		{Header: "MIB/S", Cell: func(r r) string { return strconv.FormatFloat(r.MiBPerSecond, 'f', 2, 64) }},
	}
	columns = append(columns, what...)
	if latency {
		at := func(header string, pick func(*load.Latency) float64) {
			columns = append(columns, term.Column[r]{Header: header, Cell: func(r r) string {
				if r.Latency == nil {
					return ""
				}
				return millis(pick(r.Latency))
			}})
		}
		at("P50", func(l *load.Latency) float64 { return l.P50 })
		at("P90", func(l *load.Latency) float64 { return l.P90 })
		at("P99", func(l *load.Latency) float64 { return l.P99 })
		at("P99.9", func(l *load.Latency) float64 { return l.P999 })
		at("MAX", func(l *load.Latency) float64 { return l.Max })
		at("MEAN", func(l *load.Latency) float64 { return l.Mean })
	}
	return append(columns, term.Column[r]{Header: "ERRORS", Cell: func(r r) string { return term.Number(r.Errors) }})
}

// millis writes milliseconds with three digits: "0.42 ms", "12.3 ms", "1.70 s".
func millis(f float64) string {
	switch {
	case f < 9.995:
		return fmt.Sprintf("%.2f ms", f)
	case f < 99.95:
		return fmt.Sprintf("%.1f ms", f)
	case f < 999.5:
		return fmt.Sprintf("%.0f ms", f)
	}
	return fmt.Sprintf("%.2f s", f/1000)
}

// An extent is a topic's records as they are now: from the first to before the last.
type extent struct {
	from, to map[int32]int64 // by partition; partitions without records are left out
	records  int64
}

// extent asks for the topic's.
func (b *bench) extent(ctx context.Context) (e extent, err error) {
	e = extent{from: make(map[int32]int64), to: make(map[int32]int64)}
	err = kafka.Settle(ctx, func(ctx context.Context) error {
		starts, err := kafka.Listed(b.admin.ListStartOffsets(ctx, b.topic))
		if err != nil {
			return err
		}
		ends, err := kafka.Listed(b.admin.ListEndOffsets(ctx, b.topic))
		if err != nil {
			return err
		}
		for p, end := range ends[b.topic] {
			if start := starts[b.topic][p].Offset; start < end.Offset {
				e.from[p], e.to[p] = start, end.Offset
				e.records += end.Offset - start
			}
		}
		return nil
	})
	return e, err
}

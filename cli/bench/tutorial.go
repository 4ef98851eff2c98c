package bench

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/load"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func benchTutorialCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "tutorial",
		Usage: "a spike of load, through a log and by HTTP calls",
		Description: `   Why a log: several producers send more, for a few seconds, than a service can handle. First
   through a topic, which takes everything at once, and from which the service works off what
   is left when the spike is over. Then by HTTP calls to a server with the very same service,
   which has a queue and answers 503 when that is full, as servers do.

   The service has --workers, each of which is busy for --service-time with a record, whoever
   asks. Success is counted, not assumed: through the topic, a record is a success when it was
   acknowledged and then handled, once, which is checked record by record; by HTTP, when it was
   answered with 200 before its sender's --patience ended; TIMED-OUT are calls without an answer,
   GIVEN-UP those whose patience ended before one of the callers was free to make them. MEAN and P99 are what the senders of
   successful records waited, from the moment each was to be sent; HANDLED-P99 is the same until
   the service was done with it. The exit status is 0 only if everything sent to
   the topic was handled, and if this machine could make the calls: when the service had less
   than half of the work it had time for, nothing is compared.

   -o json is {service: {workers, service_millis, queue, patience_seconds}, ways: [{way (log or
   http), sent, succeeded, success_percent, seconds, records_per_second, mean_millis, p99_millis,
   handled_p99_millis, refused, timed_out, given_up, lost, duplicates, sending, handling}],
   starved}; sending and
   handling are results as bench produce and bench e2e write them.

EXAMPLES:
   $ millrace bench tutorial -n 500 --within 250ms --html tutorial.html
   $ millrace bench tutorial -n 100 --producers 2 --within 100ms --workers 1 -o json`,
		Flags: kafka.Flags(benchTopicFlags(), []urfave.Flag{
			&urfave.IntFlag{Name: "producers", Value: 5, DefaultText: "5", Usage: "that send at the same time, `N`"},
			&urfave.IntFlag{Name: "clients", Usage: "clients with connections of their own, which the producers share, `N`", DefaultText: "one each, at most 16"},
			&urfave.Int64Flag{Name: "records", Aliases: []string{"n"}, Value: 20_000, DefaultText: "20000", Usage: "of each producer, `N`"},
			&urfave.DurationFlag{Name: "within", Value: 10 * time.Second, DefaultText: "10s", Usage: "the length of the spike, `DURATION`"},
			&urfave.IntFlag{Name: "size", Value: 256, DefaultText: "256", Usage: "`BYTES` of a value"},
			&urfave.IntFlag{Name: "workers", Value: 4, DefaultText: "4", Usage: "of the service, `N`"},
			&urfave.DurationFlag{Name: "service-time", Value: time.Millisecond, DefaultText: "1ms", Usage: "a worker is busy with a record, `DURATION`"},
			&urfave.IntFlag{Name: "queue", Value: 256, DefaultText: "256", Usage: "HTTP calls that may wait for a worker, `N`"},
			&urfave.IntFlag{Name: "callers", Value: 100, DefaultText: "100", Usage: "HTTP calls a producer has under way at most, `N`"},
			&urfave.DurationFlag{Name: "patience", Value: time.Second, DefaultText: "1s", Usage: "a sender waits for an HTTP answer, `DURATION`"},
			&urfave.Uint64Flag{Name: "seed", Value: 1, DefaultText: "1", Usage: "`N`: the same seed, the same payloads"},
		}, benchClientFlags(), benchOutputFlags()),
		Action: benchTutorial,
	}
}

// A tutorial is what came of both ways. Its fields are the JSON that the help
// describes.
type tutorial struct {
	Service tutorialService `json:"service"`
	Ways    []*tutorialWay  `json:"ways"`
	Starved bool            `json:"starved"` // this machine could not send what the HTTP calls were to be: they compare with nothing
}

type tutorialService struct {
	Workers  int     `json:"workers"`
	Millis   float64 `json:"service_millis"`
	Queue    int     `json:"queue"`
	Patience float64 `json:"patience_seconds"`
}

type tutorialWay struct {
	Way        string       `json:"way"`
	Sent       int64        `json:"sent"`
	Succeeded  int64        `json:"succeeded"`
	Percent    float64      `json:"success_percent"`
	Seconds    float64      `json:"seconds"`
	PerSecond  float64      `json:"records_per_second"`
	Mean       float64      `json:"mean_millis"`
	P99        float64      `json:"p99_millis"`
	HandledP99 float64      `json:"handled_p99_millis"`
	Refused    int64        `json:"refused"`
	TimedOut   int64        `json:"timed_out"`
	GivenUp    int64        `json:"given_up"` // before they were sent
	Lost       int64        `json:"lost"`
	Duplicates int64        `json:"duplicates"`
	Sending    *load.Result `json:"sending"`
	Handling   *load.Result `json:"handling,omitempty"`

	handled int64 // by the service, in time or not
}

// starved reports whether calls failed for want of a machine to make them, not of a service:
// it had worked off less than half of what it had time for. Less than a second of load
// shows nothing.
func (w *tutorialWay) starved(workers int, each, within time.Duration) bool {
	could := int64(float64(workers) * within.Seconds() / each.Seconds())
	return within >= time.Second && w.handled < min(w.Sent, could)/2
}

// sum sets what follows from a way's two results: that of the senders and that of
// the handling. By HTTP they are the same.
func (w *tutorialWay) sum(sent int64, sending, handling *load.Result) {
	w.Sent, w.Succeeded, w.Sending = sent, handling.Records, sending
	w.Seconds, w.PerSecond = handling.Seconds, handling.RecordsPerSecond
	if sent > 0 {
		w.Percent = 100 * float64(w.Succeeded) / float64(sent)
	}
	if l := sending.Latency; l != nil {
		w.Mean, w.P99 = l.Mean, l.P99
	}
	if l := handling.Latency; l != nil {
		w.HandledP99 = l.P99
	}
}

func benchTutorial(c *urfave.Context) error {
	for _, f := range []string{"producers", "workers", "queue", "callers", "size", "batch-size"} {
		if c.Int(f) < 1 {
			return term.Usage("--%s %d: it is 1 or more", f, c.Int(f))
		}
	}
	for _, f := range []string{"within", "service-time", "patience"} {
		if c.Duration(f) <= 0 {
			return term.Usage("--%s %v: it is more than 0", f, c.Duration(f))
		}
	}
	if c.Int64("records") < 1 {
		return term.Usage("-n %d: it is 1 or more", c.Int64("records"))
	}
	if c.Int("size") < load.MinStamped {
		return term.Usage("--size %d: the stamp by which records are told apart needs %d", c.Int("size"), load.MinStamped)
	}
	if _, err := kafka.ProducerOptions(c); err != nil {
		return err
	}
	b, err := openBench(c)
	if err != nil {
		return err
	}
	defer b.close()
	all := int64(c.Int("producers")) * c.Int64("records")
	plan := load.Plan{
		Producers: c.Int("producers"), Records: all, RecordBytes: c.Int("size"), Rate: float64(all) / c.Duration("within").Seconds(),
		Seed: c.Uint64("seed"), Topic: b.topic, Partitions: b.partitions, InFlight: c.Int("in-flight"), Settings: benchSettings(c),
	}
	t := &tutorial{Service: tutorialService{c.Int("workers"), float64(c.Duration("service-time")) / float64(time.Millisecond), c.Int("queue"), c.Duration("patience").Seconds()}}
	throughLog, err := b.throughLog(plan)
	if err != nil {
		return err
	}
	t.Ways = append(t.Ways, throughLog)
	if c.Context.Err() == nil {
		byHTTP, err := b.byHTTP(plan)
		if err != nil {
			return err
		}
		t.Ways = append(t.Ways, byHTTP)
		t.Starved = byHTTP.starved(c.Int("workers"), c.Duration("service-time"), c.Duration("within"))
	}
	b.progress.Clear()
	if err := b.printTutorial(t); err != nil {
		return err
	}
	if err := b.verdict(throughLog.Handling); err != nil {
		return err
	}
	if throughLog.Succeeded != throughLog.Sent {
		return term.Fail(term.StatusFailed, "%s sent to the topic, %s handled", term.Count(throughLog.Sent, "record"), term.Number(throughLog.Succeeded))
	}
	if t.Starved {
		w := t.Ways[1]
		return term.Fail(term.StatusFailed, "the HTTP calls are compared with nothing: this machine was too busy to make them, so that the service handled %s of %s, while %s were given up before they were sent; run it on an idle machine, or with a smaller -n",
			term.Number(w.handled), term.Count(w.Sent, "call"), term.Number(w.GivenUp))
	}
	return nil
}

// throughLog sends the load to the topic, and handles it as fast as the service
// allows.
func (b *bench) throughLog(plan load.Plan) (*tutorialWay, error) {
	senders, closeSenders, err := b.senders(plan)
	if err != nil {
		return nil, err
	}
	defer closeSenders()
	clients, err := b.followers(1)
	if err != nil {
		return nil, err
	}
	defer clients[0].Close()
	service := b.service()
	handler := load.ReceiverFunc(func(ctx context.Context, m *load.Meter) error {
		// As many hands as the service has workers; polling waits for them.
		work := make(chan *kgo.Record)
		var workers sync.WaitGroup
		for range b.c.Int("workers") {
			workers.Go(func() { // a hand: ends with the records
				for r := range work {
					service.handle()
					m.GotRecord(r.Key, r.Value)
				}
			})
		}
		err := b.follow(ctx, clients[0], func(r *kgo.Record) {
			select {
			case work <- r:
			case <-ctx.Done():
			}
		})
		close(work)
		workers.Wait()
		return err
	})
	received, sent, err := load.EndToEnd(b.c.Context, plan, senders, []load.Receiver{handler}, func(p load.Progress) {
		b.progress.Show(func() string {
			return fmt.Sprintf("log: %s acknowledged, %s handled", term.Number(p.Acknowledged), term.Number(p.Records))
		})
	})
	if err != nil {
		return nil, term.Usage("%v", err)
	}
	w := &tutorialWay{Way: "log", Handling: received, Lost: received.Lost, Duplicates: received.Duplicates}
	w.sum(sent.Records+sent.Errors+sent.Unacknowledged, sent, received)
	return w, nil
}

// byHTTP sends the same load by synchronous calls.
func (b *bench) byHTTP(plan load.Plan) (*tutorialWay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	desk := &desk{service: b.service(), places: int64(b.c.Int("workers") + b.c.Int("queue"))}
	server := &http.Server{Handler: desk}
	go server.Serve(l) // ends with Close
	defer server.Close()

	plan.InFlight = b.c.Int("callers")
	connections := plan.InFlight * plan.Producers
	transport := &http.Transport{MaxIdleConns: connections, MaxIdleConnsPerHost: connections, MaxConnsPerHost: connections}
	defer transport.CloseIdleConnections()
	caller := &caller{url: "http://" + l.Addr().String() + "/", client: &http.Client{Transport: transport}, patience: b.c.Duration("patience")}
	result, err := load.Produce(b.c.Context, plan, []load.Sender{caller}, func(p load.Progress) {
		b.progress.Show(func() string {
			return fmt.Sprintf("http: %s answered, %s refused, %s timed out", term.Number(p.Records), term.Number(caller.refused.Load()), term.Number(caller.timedOut.Load()))
		})
	})
	if err != nil {
		return nil, term.Usage("%v", err)
	}
	result.Topic, result.Partitions, result.Plan.Settings = "", 0, nil
	w := &tutorialWay{Way: "http", Refused: caller.refused.Load(), TimedOut: caller.timedOut.Load(), GivenUp: caller.givenUp.Load(), handled: desk.handled.Load()}
	w.sum(result.Records+result.Errors+result.Unacknowledged, result, result)
	return w, nil
}

// A service is a number of workers, each busy for the same time with one record.
type service struct {
	time    time.Duration
	workers chan time.Time // each worker, as the moment from which it is free
}

func (b *bench) service() *service {
	s := &service{b.c.Duration("service-time"), make(chan time.Time, b.c.Int("workers"))}
	for range b.c.Int("workers") {
		s.workers <- time.Time{}
	}
	return s
}

// serviceSlack is what a worker may make up for after having slept too long: the
// timers of an idle process are 1 ms late, and its speed is to be exact.
const serviceSlack = 2 * time.Millisecond

// handle waits for a worker and for its work.
func (s *service) handle() {
	free := <-s.workers
	if earliest := time.Now().Add(-serviceSlack); free.Before(earliest) {
		free = earliest
	}
	free = free.Add(s.time)
	time.Sleep(time.Until(free))
	s.workers <- free
}

// A desk is an HTTP server's handler before a service: there are places for those
// who are served or wait, and who finds none is refused.
type desk struct {
	service *service
	places  int64
	taken   atomic.Int64
	handled atomic.Int64
}

func (d *desk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	io.Copy(io.Discard, r.Body)
	defer d.taken.Add(-1)
	if d.taken.Add(1) > d.places {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	d.service.handle()
	d.handled.Add(1)
	w.WriteHeader(http.StatusOK)
}

// A caller is a load.Sender that makes an HTTP call of every record and waits for
// its answer.
type caller struct {
	url      string
	client   *http.Client
	patience time.Duration
	calls    sync.WaitGroup

	refused, timedOut, givenUp atomic.Int64
}

// Send calls, in a goroutine of its own: the plan bounds how many there are.
func (c *caller) Send(ctx context.Context, r *load.Record) {
	c.calls.Go(func() { r.Done(c.call(context.WithoutCancel(ctx), r)) })
}

// Flush waits for the answers.
func (c *caller) Flush(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the calls, each of which ends in time
		c.calls.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

var (
	errRefused = errors.New("503 Service Unavailable")
	errGivenUp = errors.New("given up before it was sent")
)

func (c *caller) call(ctx context.Context, r *load.Record) error {
	if time.Since(r.Due()) >= c.patience { // it waited for its turn among the callers
		c.givenUp.Add(1)
		return errGivenUp
	}
	ctx, cancel := context.WithDeadline(ctx, r.Due().Add(c.patience))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, bytes.NewReader(r.Value))
	if err != nil {
		return err
	}
	response, err := c.client.Do(request)
	if err != nil {
		if ctx.Err() != nil {
			c.timedOut.Add(1)
			return fmt.Errorf("no answer within %v", c.patience)
		}
		return err
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusServiceUnavailable:
		c.refused.Add(1)
		return errRefused
	}
	return errors.New(response.Status)
}

var tutorialColumns = []term.Column[*tutorialWay]{
	{Header: "WAY", Cell: func(w *tutorialWay) string { return w.Way }},
	{Header: "SENT", Cell: func(w *tutorialWay) string { return term.Number(w.Sent) }},
	{Header: "SUCCEEDED", Cell: func(w *tutorialWay) string { return term.Number(w.Succeeded) }},
	{Header: "SUCCESS", Cell: func(w *tutorialWay) string { return percent(w.Percent) }},
	{Header: "SECONDS", Cell: func(w *tutorialWay) string { return strconv.FormatFloat(w.Seconds, 'f', 2, 64) }},
	{Header: "RECORDS/S", Cell: func(w *tutorialWay) string { return term.Number(int64(w.PerSecond)) }},
	{Header: "MEAN", Cell: func(w *tutorialWay) string { return millis(w.Mean) }},
	{Header: "P99", Cell: func(w *tutorialWay) string { return millis(w.P99) }},
	{Header: "HANDLED-P99", Cell: func(w *tutorialWay) string { return millis(w.HandledP99) }},
	{Header: "REFUSED", Cell: func(w *tutorialWay) string { return term.Number(w.Refused) }},
	{Header: "TIMED-OUT", Cell: func(w *tutorialWay) string { return term.Number(w.TimedOut) }},
	{Header: "GIVEN-UP", Cell: func(w *tutorialWay) string { return term.Number(w.GivenUp) }},
	{Header: "LOST", Cell: func(w *tutorialWay) string { return term.Number(w.Lost) }},
}

// percent writes a share of a hundred: never 100 % of what is less.
func percent(f float64) string {
	s := strconv.FormatFloat(f, 'f', 2, 64)
	if s == "100.00" && f < 100 {
		s = "99.99"
	}
	return s + "%"
}

// printTutorial writes both ways as the flags ask for, and the page.
func (b *bench) printTutorial(t *tutorial) error {
	page := *t
	if t.Starved {
		page.Ways = t.Ways[:1]
	}
	if err := b.writePage(page.page(b).Write); err != nil {
		return err
	}
	switch b.c.String("output") {
	case "json":
		return term.PrintValue(b.c.App.Writer, "json", t)
	case "csv":
		rows := [][]string{{"way", "sent", "succeeded", "success_percent", "seconds", "records_per_second", "mean_millis", "p99_millis", "handled_p99_millis", "refused", "timed_out", "given_up", "lost", "duplicates"}}
		if b.c.Bool("no-headers") {
			rows = nil
		}
		float := func(f float64) string { return strconv.FormatFloat(f, 'f', -1, 64) }
		whole := func(n int64) string { return strconv.FormatInt(n, 10) }
		for _, w := range t.Ways {
			rows = append(rows, []string{w.Way, whole(w.Sent), whole(w.Succeeded), float(w.Percent), float(w.Seconds), float(w.PerSecond), float(w.Mean),
				float(w.P99), float(w.HandledP99), whole(w.Refused), whole(w.TimedOut), whole(w.GivenUp), whole(w.Lost), whole(w.Duplicates)})
		}
		return csv.NewWriter(b.c.App.Writer).WriteAll(rows)
	}
	ways := t.Ways
	if t.Starved {
		ways = ways[:1]
	}
	return term.PrintTable(b.c, ways, tutorialColumns)
}

// page is the tutorial as a page: what came in and what was worked off, second by
// second.
func (t *tutorial) page(b *bench) load.Page {
	c := b.c
	p := load.Page{
		Title: "A spike of load, through a log and by synchronous calls",
		Lead: fmt.Sprintf("%d producers send %s each within %v. The service has %s, each busy for %v with a record: %s records/s at most.",
			c.Int("producers"), term.Count(c.Int64("records"), "record"), c.Duration("within"), term.Count(c.Int("workers"), "worker"), c.Duration("service-time"),
			term.Number(int64(float64(c.Int("workers"))/c.Duration("service-time").Seconds()))),
	}
	for _, w := range t.Ways {
		p.Facts = append(p.Facts, load.Fact{Name: w.Way + ": success", Value: percent(w.Percent)}, load.Fact{Name: w.Way + ": p99", Value: millis(w.P99)})
	}
	log := t.Ways[0]
	chart := load.Chart{Title: "Records each second", XLabel: "seconds", YLabel: "records/s",
		Bar: "acknowledged by the log", Bars: log.Sending.Throughput(),
		Lines: []load.Line{{Name: "handled, from the log", Points: log.Handling.Throughput()}}}
	behind := load.Chart{Title: "Waiting in the log", XLabel: "seconds", YLabel: "records",
		Lines: []load.Line{{Name: "acknowledged and not yet handled", Points: []load.XY{{}}}}}
	waiting := int64(0)
	for i := range max(len(log.Sending.Series), len(log.Handling.Series)) {
		if i < len(log.Sending.Series) {
			waiting += log.Sending.Series[i].Records
		}
		if i < len(log.Handling.Series) {
			waiting -= log.Handling.Series[i].Records
		}
		behind.Lines[0].Points = append(behind.Lines[0].Points, load.XY{X: min(float64(i+1), log.Handling.Seconds), Y: float64(max(0, waiting))})
	}
	if len(t.Ways) > 1 {
		http := t.Ways[1]
		chart.Lines = append(chart.Lines,
			load.Line{Name: "answered, by HTTP", Points: http.Sending.Throughput()},
			load.Line{Name: "failed, by HTTP", Points: http.Sending.Rates(func(s load.Second) int64 { return s.Errors })})
	}
	p.Charts = []load.Chart{chart, behind}
	table := load.Table{Caption: "Both ways", Headers: []string{""}, Numbers: true}
	for _, w := range t.Ways {
		table.Headers = append(table.Headers, w.Way)
	}
	for _, col := range tutorialColumns[1:] {
		row := []string{strings.ToLower(col.Header)}
		for _, w := range t.Ways {
			row = append(row, col.Cell(w))
		}
		table.Rows = append(table.Rows, row)
	}
	p.Tables = []load.Table{table}
	p.Notes = []string{
		"Mean and p99 are what the senders of successful records waited, from the moment each was to be sent; handled is the 99th percentile of the time until the service was done with it.",
		fmt.Sprintf("By HTTP %s may wait for a worker; who finds the queue full is refused with 503, and a sender waits %v.", term.Count(c.Int("queue"), "call"), c.Duration("patience")),
	}
	return p
}

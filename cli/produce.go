package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func produceCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "produce",
		Usage:        "write records: arguments, lines or a file",
		ArgsUsage:    "TOPIC [VALUE…]",
		BashComplete: completeTopics,
		Description: `   A record for each VALUE; without any, for each line of standard input or of --file.

   The producer is idempotent and retries until every record is acknowledged by a
   quorum, so a broker that dies meanwhile costs some milliseconds and no record:
   exit status 0 means that each of them is stored, once, in order. It ends at the
   first record that is refused.

   For each record it prints TOPIC/PARTITION@OFFSET, in the order of the input,
   and at the end on standard error how many they were and how fast it went; neither
   with -q. When nothing is acknowledged for some seconds, it says there what it waits for.

   The percent language of -f reads what consume's writes: %k key, %v value, %t topic,
   %p partition, %d time, %h{%k=%v } headers; sizes and delimiters as in rpk.

EXAMPLES:
   $ millrace produce orders 'one espresso' 'two teas'
   $ echo 'one espresso' | millrace produce orders -k table-4 -H waiter=ada
   $ millrace produce flights --file testdata/flights.jsonl --key-field origin -q
   $ millrace produce orders -k table-4 -Z
   $ printf 'k1 v1\nk2 v2\n' | millrace produce orders -f '%k %v\n' -z zstd
   $ millrace consume orders -e --format json | millrace produce copies --jsonl -q`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.StringFlag{Name: "file", Usage: "read lines from this `FILE`; - is standard input"},
			&urfave.StringFlag{Name: "key", Aliases: []string{"k"}, Usage: "`KEY`: the key of every record"},
			&urfave.StringFlag{Name: "key-field", Usage: "take the key from this `FIELD` of the JSON object on each line (a.b for a field within a field)"},
			&urfave.StringSliceFlag{Name: "header", Aliases: []string{"H"}, Usage: "`NAME=VALUE`: a header for every record; may be repeated"},
			&urfave.IntFlag{Name: "partition", Aliases: []string{"p"}, Value: -1, DefaultText: "by key", Usage: "write to this partition, `N`"},
			&urfave.StringFlag{Name: "compression", Aliases: []string{"z"}, Value: "none", DefaultText: "none", Usage: "`CODEC`: none, gzip, snappy, lz4 or zstd"},
			&urfave.StringFlag{Name: "acks", Value: "all", DefaultText: "all", Usage: "`ACKS`: all, 1 or 0; anything but all gives up that a record is stored exactly once"},
			&urfave.BoolFlag{Name: "null-value", Aliases: []string{"Z"}, Usage: "one record without a value, a tombstone for the key; with -f, empty values are null"},
			&urfave.BoolFlag{Name: "jsonl", Usage: "lines are records as consume --format json prints them, and no other JSON; key, value, headers and timestamp are taken over"},
			&urfave.StringFlag{Name: "format", Aliases: []string{"f"}, Usage: "`FORMAT`: how to read records, in the percent language"},
			&urfave.StringFlag{Name: "rate", Usage: "at most so many records a second, `N/s`"},
			&urfave.StringFlag{Name: "timestamp-field", Usage: "take the timestamp from this `FIELD` of the JSON object on each line: a number of ms or s since 1970, or text such as 2006-01-02T15:04:05Z"},
			&urfave.DurationFlag{Name: "timeout", Usage: "give up when a record is not acknowledged after this time, `DURATION`", DefaultText: "never"},
			&urfave.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print nothing when all goes well"},
		}),
		Action: produce,
	}
}

func produce(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("produce to which topic? see `millrace produce --help`")
	}
	topic := c.Args().First()
	options, err := kafka.ProducerOptions(c)
	if err != nil {
		return err
	}
	rate, err := kafka.ParseRate(c.String("rate"))
	if err != nil {
		return err
	}
	input, closeInput, err := openInput(c, topic)
	if err != nil {
		return err
	}
	defer closeInput()
	// Asked for with the first record, when the topic's settings are known.
	largest := int32(defaultBatch)
	client, err := kafka.Dial(c, append(options, kgo.ProducerBatchMaxBytesFn(func(string) int32 { return largest }))...)
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(c.Context)
	defer cancel()
	acks := newAcks(c)
	waiting := acks.vigil(c)
	go waiting.keep(ctx)
	existed, err := checkPartition(c, client, topic)
	if err != nil {
		return err
	}
	settings := settingsOf(c.Context, client, topic, existed)
	largest = largestBatch(settings)
	acks.asked()

	expiry := &expiry{}
	if c.IsSet("timestamp-field") || c.Bool("jsonl") || strings.Contains(c.String("format"), "%d") { // records have times of their own
		expiry = newExpiry(c.App.ErrWriter, topic, settings)
	}
	records := make(chan *kgo.Record, 1024)
	var inputErr error // written before records is closed
	go func() {        // the reader: ends with the input, or when the records are no longer wanted
		defer close(records)
		for {
			r, err := input()
			if err != nil {
				if err != io.EOF {
					inputErr = err
				}
				return
			}
			select {
			case records <- r:
			case <-ctx.Done():
				return
			}
		}
	}()

	pace := time.NewTimer(0)
	defer pace.Stop()
	<-pace.C
	start := time.Now()
send:
	for n := int64(0); ; n++ {
		if rate > 0 {
			if wait := time.Until(start.Add(time.Duration(float64(n) / rate * float64(time.Second)))); wait > 0 {
				pace.Reset(wait)
				select {
				case <-pace.C:
				case <-ctx.Done():
					break send
				case <-acks.failed:
					break send
				}
			}
		}
		select {
		case r, ok := <-records:
			if !ok {
				break send
			}
			acks.wait()
			expiry.note(r)
			client.Produce(ctx, r, acks.expect())
		case <-acks.failed:
			break send
		case <-ctx.Done():
			break send
		}
	}
	// What is in flight is worth waiting for even after a failure: it says what is stored.
	flushErr := client.Flush(ctx)
	if !existed && acks.some() && c.Context.Err() == nil {
		kafka.Changed(c.Context)
		tellCreated(c, client, topic)
	}
	cancel()
	client.Close() // every promise has been kept after it
	failed := acks.err != nil || c.Context.Err() != nil || flushErr != nil
	acks.finish(c, time.Since(start), !failed && inputErr != nil || c.Context.Err() != nil)
	expiry.finish()
	switch {
	case c.Context.Err() != nil:
		return term.Fail(term.StatusFailed, "interrupted; %s%s", acks.outcome(), waiting.because())
	case acks.err != nil && !existed:
		return notMade(c, topic, acks.err)
	case acks.err != nil:
		return acks.err
	case flushErr != nil:
		return flushErr
	}
	return inputErr
}

// defaultBatch is max.message.bytes of a topic that does not say, bytes.
const defaultBatch = 1_048_588

// largestBatch is how large a batch may be for a topic with some settings, bytes. A client
// by itself takes a megabyte, and refuses larger records that the topic would take.
func largestBatch(settings map[string]string) int32 {
	for _, name := range []string{"max.message.bytes", "message.max.bytes"} {
		// The client takes no less than 512.
		if n, err := strconv.ParseInt(settings[name], 10, 32); err == nil {
			return int32(max(512, min(n, kafka.MaxBufferedBytes)))
		}
	}
	return defaultBatch
}

// checkPartition refuses a partition the topic does not have. A topic that does
// not exist is left to the broker, which may create it; existed says whether it did.
func checkPartition(c *urfave.Context, client *kgo.Client, topic string) (existed bool, err error) {
	topics, err := kafka.FindTopics(c.Context, kadm.NewClient(client), topic)
	if err != nil {
		return true, kafka.Asked(topic, err)
	}
	n := len(topics[topic].Partitions)
	if c.IsSet("partition") && topics[topic].Err == nil && n > 0 && c.Int("partition") >= n {
		return true, term.Fail(term.StatusNotFound, "topic %q has no partition %d: it has %d, counted from 0", topic, c.Int("partition"), n)
	}
	return !errors.Is(topics[topic].Err, kerr.UnknownTopicOrPartition), nil
}

// tellCreated says that the broker has created a topic for the first record, and what
// its default means.
func tellCreated(c *urfave.Context, client *kgo.Client, topic string) {
	topics, err := kadm.NewClient(client).ListTopicsWithInternal(c.Context, topic)
	if err != nil || topics[topic].Err != nil {
		return // the records are there, which is what was asked for
	}
	said := fmt.Sprintf("topic %s was not there and has been created: %s", topic, term.Count(len(topics[topic].Partitions), "partition"))
	if len(topics[topic].Partitions) == 1 {
		said += fmt.Sprintf(", strict order, one worker of a group at a time; `millrace topic alter %s -p 6` makes six", topic)
	}
	fmt.Fprintln(c.App.ErrWriter, said)
}

// openInput returns what to read records from, and how to be done with it.
func openInput(c *urfave.Context, topic string) (source, func(), error) {
	fill, err := filler(c, topic)
	if err != nil {
		return nil, nil, err
	}
	values := c.Args().Tail()
	ways := 0
	tombstones := c.Bool("null-value") && !c.IsSet("format")
	for _, set := range []bool{len(values) > 0, c.IsSet("file"), tombstones} {
		if set {
			ways++
		}
	}
	switch {
	case ways > 1:
		return nil, nil, term.Usage("values as arguments, --file and -Z exclude each other")
	case c.Bool("jsonl") && c.IsSet("format"):
		return nil, nil, term.Usage("--jsonl and -f exclude each other")
	case tombstones && c.Bool("jsonl"):
		return nil, nil, term.Usage("-Z reads no lines, and --jsonl does: there, a tombstone is a line with \"value\":null")
	case len(values) > 0 && (c.Bool("jsonl") || c.IsSet("format")):
		return nil, nil, term.Usage("--jsonl and -f read lines, not arguments")
	case tombstones:
		return tombstone(fill), func() {}, nil
	case len(values) > 0:
		return arguments(values, fill), func() {}, nil
	}
	in, done := c.App.Reader, func() {}
	if name := c.String("file"); name != "" && name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, nil, err
		}
		in, done = f, func() { f.Close() }
	} else if term.IsTerminal(in) && term.IsTerminal(c.App.ErrWriter) {
		fmt.Fprintln(c.App.ErrWriter, "A record a line; Ctrl-D ends.")
	}
	switch {
	case c.IsSet("format"):
		s, err := formatted(in, c.String("format"), fill)
		return s, done, err
	case c.Bool("jsonl"):
		return jsonLines(in, fill), done, nil
	}
	return lines(in, fill), done, nil
}

// acks puts acknowledgements, which arrive in any order across partitions, back
// into the order of the records, and prints them.
//
// It holds at most kafka.MaxBuffered of them: a partition without a leader must not
// make those of all others pile up.
type acks struct {
	topic   string
	print   bool
	timeout time.Duration // of a record, 0: never
	w       io.Writer     // what is said about them
	failed  chan struct{} // closed at the first record that failed

	mu       sync.Mutex
	asking   bool // the cluster, about the topic, before the first record
	turned   sync.Cond
	out      *bufio.Writer
	ring     []ack // ring[i%len] is record i, from first up to next
	first    int64 // the oldest record not yet printed
	next     int64 // the record to be sent next
	done     int64 // acknowledged
	bytes    int64 // of keys and values acknowledged
	err      error // of the first record that failed
	errAt    int64
	progress term.Progress
}

type ack struct {
	kept      bool
	failed    bool
	partition int32
	offset    int64
}

func newAcks(c *urfave.Context) *acks {
	a := &acks{
		topic:   c.Args().First(),
		print:   !c.Bool("quiet"),
		timeout: c.Duration("timeout"),
		w:       c.App.ErrWriter,
		failed:  make(chan struct{}),
		asking:  true,
		out:     bufio.NewWriterSize(c.App.Writer, 64<<10),
		ring:    make([]ack, kafka.MaxBuffered),
	}
	a.turned.L = &a.mu
	a.progress = term.NewProgress(a.w, a.print && !term.IsTerminal(c.App.Writer))
	return a
}

// asked says that the cluster has told what has to be known of the topic.
func (a *acks) asked() {
	a.mu.Lock()
	a.asking = false
	a.mu.Unlock()
}

// vigil returns the vigil over acknowledgements.
func (a *acks) vigil(c *urfave.Context) *vigil { return &vigil{awaited: &awaitedAcks{a, c}} }

// awaitedAcks are those that have not come.
type awaitedAcks struct {
	a *acks
	c *urfave.Context
}

func (w *awaitedAcks) progress() (waits bool, done int64) {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	return w.a.asking || w.a.first < w.a.next, w.a.done
}

func (w *awaitedAcks) look(ctx context.Context) string {
	brokers, err := kafka.BrokersNamed(w.c)
	if err != nil {
		return ""
	}
	if why := findOutage(ctx, brokers, ofTopics(w.a.topic)).String(); why != "" {
		return why
	}
	return fmt.Sprintf("every broker answers, and topic %s has its leaders; their logs may say more", w.a.topic)
}

func (w *awaitedAcks) say(why string) {
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	w.a.progress.Clear()
	what := "topic " + w.a.topic
	if !w.a.asking {
		what = term.Count(w.a.next-w.a.first, "record") + " to be acknowledged"
	}
	fmt.Fprintf(w.a.w, "millrace: waiting for %s: %s\n", what, why)
}

// wait blocks while the ring is full.
func (a *acks) wait() {
	a.mu.Lock()
	for a.next-a.first == int64(len(a.ring)) {
		a.turned.Wait()
	}
	a.mu.Unlock()
}

// expect returns the promise for the record sent next. wait comes before it.
func (a *acks) expect() func(*kgo.Record, error) {
	a.mu.Lock()
	n := a.next
	a.next++
	a.ring[n%int64(len(a.ring))] = ack{}
	a.mu.Unlock()
	return func(r *kgo.Record, err error) { a.keep(n, r, err) }
}

func (a *acks) keep(n int64, r *kgo.Record, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	slot := &a.ring[n%int64(len(a.ring))]
	*slot = ack{kept: true, failed: err != nil, partition: r.Partition, offset: r.Offset}
	if err == nil {
		a.done++
		a.bytes += int64(len(r.Key) + len(r.Value))
	} else if a.err == nil || n < a.errAt && !errors.Is(err, context.Canceled) {
		if a.err == nil {
			close(a.failed)
		}
		a.err, a.errAt = recordError(n, r, err, a.timeout), n
	}
	for a.first < a.next {
		slot := a.ring[a.first%int64(len(a.ring))]
		if !slot.kept {
			break
		}
		if a.print && !slot.failed {
			a.printLocked(slot)
		}
		a.first++
		a.turned.Signal()
	}
	if a.first == a.next {
		a.out.Flush() // nothing else is on its way: somebody may be waiting for this line
	}
	a.progress.Show(func() string { return term.Count(a.done, "record") + " acknowledged" })
}

func (a *acks) printLocked(k ack) {
	a.out.WriteString(a.topic)
	a.out.WriteByte('/')
	a.out.Write(strconv.AppendInt(a.out.AvailableBuffer(), int64(k.partition), 10))
	if k.offset >= 0 { // acks=0 never learns it
		a.out.WriteByte('@')
		a.out.Write(strconv.AppendInt(a.out.AvailableBuffer(), k.offset, 10))
	}
	a.out.WriteByte('\n')
}

// some reports whether any record has been acknowledged.
func (a *acks) some() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done > 0
}

// finish prints what is left, and the line that sums it up, unless an error says it all.
func (a *acks) finish(c *urfave.Context, took time.Duration, noInput bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.out.Flush(); err != nil && a.err == nil {
		a.err = fmt.Errorf("write to standard output: %w", err)
	}
	a.progress.Clear()
	if !a.print || a.done == 0 && (a.err != nil || noInput) {
		return
	}
	fmt.Fprintln(c.App.ErrWriter, term.Tally(a.done, a.bytes, took))
}

// outcome is what became of the records of a run that was interrupted.
func (a *acks) outcome() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if left := a.next - a.done; left > 0 {
		return fmt.Sprintf("%s acknowledged, %s not", term.Count(a.done, "record"), term.Number(left))
	}
	return term.Count(a.done, "record") + " acknowledged"
}

// recordError explains why a record was refused. n counts from 0; timeout is what it was
// given, 0 is for ever.
func recordError(n int64, r *kgo.Record, err error, timeout time.Duration) error {
	which := fmt.Sprintf("record %s", term.Number(n+1))
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.InvalidTopicException), errors.Is(err, kerr.TopicAuthorizationFailed):
		return kafka.TopicError(r.Topic, err, "")
	case errors.Is(err, kerr.MessageTooLarge):
		return term.Fail(term.StatusFailed, "%s is too large (%s): raise the topic's max.message.bytes with `millrace topic alter %s -c max.message.bytes=…`",
			which, term.Size(int64(len(r.Key)+len(r.Value))), r.Topic)
	case errors.Is(err, context.Canceled):
		return term.Fail(term.StatusFailed, "interrupted; %s was not acknowledged", which)
	case errors.Is(err, kgo.ErrRecordTimeout), timeout > 0 && wanting(err):
		// The client may report why it went on trying, instead of the time it had.
		err = &term.Failure{Status: term.StatusTimedOut, Err: &term.Explained{Words: fmt.Sprintf("%s was not acknowledged within %s; whether it is stored is not known", which, timeout), Err: err}}
	default:
		err = term.Explain(err, "%s: %s", which, kafka.BrokerSaid(err, ""))
	}
	return &needing{err, ofTopics(r.Topic)}
}

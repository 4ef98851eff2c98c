package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

func consumeCommand() *urfave.Command {
	return &urfave.Command{
		Name:         "consume",
		Usage:        "read records, from anywhere, and follow",
		ArgsUsage:    "TOPIC…",
		BashComplete: completeTopics,
		Description: `   Prints the records of topics and waits for more; partitions and, with -r, topics
   that are created meanwhile are joined from their beginning. Within a partition records
   come in order; between partitions there is none.

   -o says where to begin and end:
      start, end        the beginning (default); what comes from now on
      N, N:M, :N, :end  from offset N; from N up to before M; up to N; up to
                        the end as it is now
      +N, -N            from N records after the start; from N before the end
      @T, @T:@U, @:@T   from time T; from T up to U; up to T
   A time is seconds or milliseconds since 1970, a day, an RFC 3339 time, or -1h: so long ago;
   as the second of two also end, or 1h: so long after the first.

   --format is one of
      text    TOPIC/PARTITION@OFFSET  TIME  KEY  VALUE  (times in UTC; what is
              not plain text is quoted)
      json    an object a line: topic, partition, offset, timestamp, key,
              value, headers; what is not UTF-8 is in key_base64 and
              value_base64
      value   the values, a line each, byte for byte
      or the percent language of rpk: %t topic, %p partition, %o offset,
      %k key, %v value, %d time in ms, %d{go#2006-01-02T15:04:05Z07:00#},
      %h{%k=%v } headers, %K %V %H their sizes

   With -g it reads as a member of a group: the members share the partitions, and the group
   remembers how far it is. What was printed is committed, after it was printed, so every
   record is seen at least once; those seen twice after a kill come after the last commit.
   -o then says where the group begins in a partition of which it remembers nothing.

   --exec runs CMD, by the shell, for each record, its value on standard input; partitions go
   on beside each other, each in order. In its environment are MILLRACE_TOPIC, _PARTITION,
   _OFFSET, _TIMESTAMP (ms), _KEY and _ATTEMPT. Exit status 0: committed. Anything else: run
   again after --backoff, then twice that, and so on; after --max-retries the record goes to
   the --dead-letter topic, with its headers and millrace.reason, .attempts, .topic,
   .partition, .offset and .timestamp, or, without one, consume stops there.

EXAMPLES:
   $ millrace consume flights -n 5
   $ millrace consume flights -o start -e --format value
   $ millrace consume flights -o -3 -e -p 0,1
   $ millrace consume flights -o @-1h:end --format json
   $ millrace consume flights -e -n 3 --format '%t %p %o %k %v\n'
   $ millrace consume -r '^fl.*s$' -o :end -n 1
   $ millrace consume flights -g audit -n 100
   $ millrace consume flights -g mailer -n 100 --exec 'cat >/dev/null' --dead-letter flights-dead`,
		Flags: kafka.Flags(groupFlags(), execFlags(), []urfave.Flag{
			&urfave.StringFlag{Name: "offset", Aliases: []string{"o"}, Value: "start", DefaultText: "start", Usage: "where to begin, and end, `OFFSET`"},
			&urfave.Int64Flag{Name: "num", Aliases: []string{"n"}, Usage: "stop after `N` records", DefaultText: "no limit"},
			&urfave.BoolFlag{Name: "exit", Aliases: []string{"e"}, Usage: "stop at the end, as it is at the start"},
			&urfave.StringFlag{Name: "partitions", Aliases: []string{"p"}, Usage: "only these partitions, `0,2,5-7`", DefaultText: "all"},
			&urfave.BoolFlag{Name: "regex", Aliases: []string{"r"}, Usage: "the topics are regular expressions"},
			&urfave.BoolFlag{Name: "read-committed", Usage: "leave out records of aborted transactions, and wait for open ones"},
			&urfave.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "text", DefaultText: "text", Usage: "`FORMAT`: text, json, value or the percent language"},
		}),
		Action: consume,
	}
}

const (
	// joinInterval is how often a consumer looks whether partitions were added or
	// what it waits for was deleted.
	joinInterval = 5 * time.Second
	// forEver is the patience of who follows.
	forEver = 100 * 365 * 24 * time.Hour
)

func consume(c *urfave.Context) error {
	if c.NArg() == 0 {
		return term.Usage("consume which topic? see `millrace consume --help`")
	}
	if c.IsSet("num") && c.Int64("num") <= 0 {
		return term.Usage("-n %d: it is 1 or more", c.Int64("num"))
	}
	what, err := kafka.ParseSpan("-o", c.String("offset"), time.Now())
	if err != nil {
		return err
	}
	print, err := newPrinter(c.String("format"))
	if err != nil {
		return err
	}
	if !c.IsSet("exec") {
		for _, f := range []string{"max-retries", "backoff", "dead-letter"} {
			if c.IsSet(f) {
				return term.Usage("--%s is about a command that is run for each record; say --exec CMD", f)
			}
		}
	} else if c.IsSet("format") {
		return term.Usage("--exec and -f do not go together: CMD is given the value of each record as it is, and prints what it likes")
	}
	if c.IsSet("group") {
		if c.String("group") == "" {
			return term.Usage("-g: a group has a name")
		}
		return consumeInGroup(c, what, print)
	}
	for _, f := range []string{"instance", "session-timeout", "exec"} {
		if c.IsSet(f) {
			return term.Usage("--%s needs a group; say -g GROUP", f)
		}
	}
	r := &reading{c: c, span: what, remaining: make(map[string]map[int32]int64), first: make(map[string]map[int32]int64), limit: c.Int64("num"), print: print}
	if r.partitions, err = parsePartitions(c.String("partitions")); err != nil {
		return err
	}
	if c.Bool("regex") {
		for _, pattern := range c.Args().Slice() {
			p, err := regexp.Compile(pattern)
			if err != nil {
				return term.Usage("-r: %v", err)
			}
			r.patterns = append(r.patterns, p)
		}
	}
	options := []kgo.Opt{
		kgo.FetchMaxWait(time.Second),
		kgo.FetchMaxBytes(16 << 20),
		kgo.FetchMaxPartitionBytes(4 << 20),
		// Control records are not printed, but they count: the end of a partition
		// may be one.
		kgo.KeepControlRecords(),
	}
	if c.Bool("read-committed") {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if r.client, err = kafka.Dial(c, options...); err != nil {
		return err
	}
	defer r.client.Close()
	r.admin = kadm.NewClient(r.client)
	ctx, stop := whileRead(c.Context, c.App.Writer)
	defer stop()
	r.vigil = watchOver(c, r.client, need{topics: r.names(), wanted: r}, &r.polled, r)
	go r.vigil.keep(ctx)
	return r.run(ctx)
}

// watchOver returns the vigil over records that come only if a cluster has what is needed;
// polled counts those that have come.
func watchOver(c *urfave.Context, client *kgo.Client, n need, polled *atomic.Int64, of troubled) *vigil {
	return &vigil{awaited: &awaitedRecords{c, client, n, polled, of}}
}

// Who is troubled says what is known to be wrong without asking the cluster, "" for nothing.
type troubled interface {
	trouble() string
}

// awaitedRecords are those that a consumer waits for. To wait for records is no trouble while
// everything has its leader, and so that is all that is looked at.
type awaitedRecords struct {
	c      *urfave.Context
	client *kgo.Client
	need   need
	polled *atomic.Int64
	of     troubled
}

func (a *awaitedRecords) progress() (waits bool, done int64) { return true, a.polled.Load() }

func (a *awaitedRecords) look(ctx context.Context) string {
	why := a.of.trouble()
	if brokers, err := kafka.BrokersNamed(a.c); err == nil && (why != "" || a.need.standstill(ctx, a.client)) {
		why = cmp.Or(findOutage(ctx, brokers, a.need).String(), why)
	}
	return why
}

func (a *awaitedRecords) say(why string) {
	fmt.Fprintf(a.c.App.ErrWriter, "millrace: waiting: %s\n", why)
}

// errNobodyReads is why a context of whileRead ended.
var errNobodyReads = errors.New("nobody reads the output any more")

// whileRead returns a context that ends with ctx, or when the reader of a pipe that is
// written to has gone, as head does when it has its lines. Without that, who waits for
// records finds out with the next one, which may never come.
func whileRead(ctx context.Context, w io.Writer) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	if f, ok := w.(*os.File); ok && !term.IsTerminal(f) {
		go func() { // the watcher of the output: ends with it, or with ctx
			if readerGone(ctx, f) {
				cancel(errNobodyReads)
			}
		}()
	}
	return ctx, func() { cancel(nil) }
}

// A reading is one run of consume: what is to be read, and how far it is.
type reading struct {
	c          *urfave.Context
	client     *kgo.Client
	admin      *kadm.Client
	span       kafka.Span
	partitions partitionSet
	patterns   []*regexp.Regexp // nil: the arguments are names
	limit      int64            // records to print, 0: all
	print      printer

	printed   int64
	polled    atomic.Int64 // records that came
	vigil     *vigil
	remaining map[string]map[int32]int64 // where each partition ends that is being read
	first     map[string]map[int32]int64 // and where it begins
	known     map[string]int             // partitions of each topic already begun with
}

func (r *reading) run(ctx context.Context) error {
	if err := r.begin(ctx); err != nil {
		if context.Cause(ctx) == errNobodyReads {
			return nil
		} else if ctx.Err() != nil {
			return r.interrupted()
		}
		return err
	}
	out := bufio.NewWriterSize(r.c.App.Writer, 64<<10)
	follows := r.follows()
	looked := time.Now()
	waiting := newNotice(r.c, follows)
	for follows || r.open() > 0 {
		poll, cancel := context.WithTimeout(ctx, waiting.within(joinInterval))
		fetches := r.client.PollRecords(poll, 10_000)
		cancel()
		if n := fetches.NumRecords(); n > 0 {
			r.polled.Add(int64(n))
		} else if ctx.Err() == nil {
			waiting.say()
		}
		for it := fetches.RecordIter(); !it.Done(); {
			done, err := r.take(out, it.Next())
			if err != nil {
				return fmt.Errorf("write to standard output: %w", err)
			}
			if done {
				return out.Flush()
			}
		}
		if err := out.Flush(); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
		if err := kafka.CheckFetches(r.c, fetches); err != nil {
			return err
		}
		if ctx.Err() != nil {
			if follows && r.limit == 0 || context.Cause(ctx) == errNobodyReads {
				return nil // following ends this way and no other
			}
			return r.interrupted()
		}
		if time.Since(looked) >= joinInterval {
			if follows {
				r.join(ctx)
			} else {
				r.giveUp(ctx)
			}
			looked = time.Now()
		}
	}
	return out.Flush()
}

// interrupted is the end of what had not come to its own.
func (r *reading) interrupted() error {
	return term.Fail(term.StatusFailed, "interrupted after %s%s", term.Count(r.printed, "record"), r.vigil.because())
}

// A notice tells somebody at a terminal, once, that a command waits and has not hung.
type notice struct {
	w io.Writer // nil: said, or nobody is there
}

// quietFor is how long nothing comes before a notice is due.
const quietFor = time.Second

func newNotice(c *urfave.Context, wanted bool) notice {
	if !wanted || !term.IsTerminal(c.App.Writer) || !term.IsTerminal(c.App.ErrWriter) {
		return notice{}
	}
	return notice{c.App.ErrWriter}
}

// within is how long to wait for records: less than d while the notice is to come.
func (n *notice) within(d time.Duration) time.Duration {
	if n.w == nil {
		return d
	}
	return min(d, quietFor)
}

func (n *notice) say() {
	if n.w != nil {
		fmt.Fprintln(n.w, "waiting for records; Ctrl-C ends")
		n.w = nil
	}
}

// names are the topics by name, nil where patterns name them.
func (r *reading) names() []string {
	if r.patterns != nil {
		return nil
	}
	return r.c.Args().Slice()
}

// trouble is none that the cluster does not tell.
func (r *reading) trouble() string { return "" }

// wants reports whether a partition is one of those to read.
func (r *reading) wants(topic string, partition int32) bool {
	return r.partitions.has(partition) && (r.patterns == nil || matchesAny(r.patterns, topic))
}

// matchesAny reports whether a topic fits any of some patterns.
func matchesAny(patterns []*regexp.Regexp, topic string) bool {
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(topic) })
}

// take prints a record if it is wanted, and says whether that was all.
func (r *reading) take(out *bufio.Writer, record *kgo.Record) (done bool, err error) {
	end, ok := r.remaining[record.Topic][record.Partition]
	if !ok {
		return false, nil // past its end, fetched before that was known
	}
	if record.Offset < end && record.Offset >= r.first[record.Topic][record.Partition] && !record.Attrs.IsControl() {
		b := r.print(out.AvailableBuffer(), record)
		if _, err := out.Write(b); err != nil {
			return false, err
		}
		r.printed++
		if r.printed == r.limit {
			return true, nil
		}
	}
	if record.Offset+1 >= end {
		delete(r.remaining[record.Topic], record.Partition)
		r.client.PauseFetchPartitions(map[string][]int32{record.Topic: {record.Partition}})
	}
	return false, nil
}

// open counts the partitions that have not reached their end.
func (r *reading) open() (n int) {
	for _, partitions := range r.remaining {
		n += len(partitions)
	}
	return n
}

// begin starts with everything the command line asks for, as it is now.
func (r *reading) begin(ctx context.Context) error {
	return kafka.SettleFor(ctx, r.patience(), func(ctx context.Context) error {
		topics, err := r.topics(ctx)
		if err != nil {
			return err
		}
		all, err := r.span.Resolve(ctx, r.admin, slices.Sorted(maps.Keys(topics)), r.c.Bool("exit"), r.c.Bool("read-committed"))
		if err != nil {
			return err
		}
		if err := kafka.Beyond("-o", all, r.partitions.has); err != nil {
			return err
		}
		wanted := 0
		for topic, partitions := range all {
			for i, b := range partitions {
				if r.partitions.has(i) {
					r.add(topic, i, b)
					wanted++
				}
			}
		}
		if wanted == 0 && len(r.patterns) == 0 {
			most := 0
			for _, n := range topics {
				most = max(most, n)
			}
			return noPartition(strings.Join(r.c.Args().Slice(), ", "), most, r.c.String("partitions"))
		}
		r.known = topics
		return r.tellNothing(all)
	})
}

// patience is how long the cluster may take to say where to begin: who follows waits for it
// as for records, until it is interrupted.
func (r *reading) patience() time.Duration {
	if r.follows() {
		return forEver
	}
	return kafka.SettleTimeout
}

// follows reports whether this reading goes on with what is written later.
func (r *reading) follows() bool { return r.span.To == nil && !r.c.Bool("exit") }

// tellNothing says why there is nothing to print where somebody may wonder, of what is
// not followed: no topic has a name that fits, or what there is lies outside of -o.
func (r *reading) tellNothing(all map[string]map[int32]kafka.Bounds) error {
	if r.open() > 0 || r.follows() {
		return nil
	}
	if len(all) == 0 {
		return term.Fail(term.StatusNotFound, "no topic fits -r %s; see `millrace topic list`", strings.Join(r.c.Args().Slice(), ", "))
	}
	for _, partitions := range all {
		for i, b := range partitions {
			if r.partitions.has(i) && b.End > 0 && r.c.IsSet("offset") {
				fmt.Fprintf(r.c.App.ErrWriter, "nothing to read: no record lies within -o %s\n", r.c.String("offset"))
				return nil
			}
		}
	}
	return nil
}

// join begins with partitions that appeared since, from their start. Not
// succeeding is no harm: it will be tried again.
func (r *reading) join(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	topics, err := r.topics(ctx)
	if err != nil {
		return
	}
	for topic, n := range topics {
		for i := r.known[topic]; i < n; i++ {
			if r.partitions.has(int32(i)) {
				r.add(topic, int32(i), kafka.Bounds{To: kafka.Unbounded, End: kafka.Unbounded})
			}
		}
		r.known[topic] = max(r.known[topic], n)
	}
}

// giveUp ends partitions whose wanted part has been deleted meanwhile: their end
// would never be read. Not being told is no harm: it will be asked again.
func (r *reading) giveUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var topics []string
	for topic, partitions := range r.remaining {
		if len(partitions) > 0 {
			topics = append(topics, topic)
		}
	}
	if len(topics) == 0 {
		return // no topics would mean all topics
	}
	starts, err := kafka.Listed(r.admin.ListStartOffsets(ctx, topics...))
	if err != nil {
		return
	}
	for topic, partitions := range r.remaining {
		for i, end := range partitions {
			if s, ok := starts[topic][i]; ok && s.Offset >= end {
				delete(partitions, i)
			}
		}
	}
}

func (r *reading) add(topic string, partition int32, b kafka.Bounds) {
	if b.From >= b.To {
		return
	}
	if r.remaining[topic] == nil {
		r.remaining[topic], r.first[topic] = make(map[int32]int64), make(map[int32]int64)
	}
	// A fetch beyond the end would be sent to the beginning. What lies between the end
	// and where to begin is passed over when it comes.
	r.remaining[topic][partition], r.first[topic][partition] = b.To, b.From
	r.client.AddConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(min(b.From, b.End))}})
}

// topics returns the topics to read, with their numbers of partitions.
func (r *reading) topics(ctx context.Context) (map[string]int, error) {
	topics := make(map[string]int)
	if r.patterns == nil {
		details, err := kafka.FindTopics(ctx, r.admin, r.c.Args().Slice()...)
		if err != nil {
			return nil, err
		}
		for _, t := range details.Sorted() {
			if t.Err != nil {
				return nil, kafka.TopicError(t.Topic, t.Err, "")
			}
			topics[t.Topic] = len(t.Partitions)
		}
		return topics, nil
	}
	details, err := r.admin.ListTopics(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range details {
		if t.Err == nil && matchesAny(r.patterns, t.Topic) {
			topics[t.Topic] = len(t.Partitions)
		}
	}
	return topics, nil
}

// noPartition says of a topic that it has none of the partitions that were asked for.
func noPartition(topic string, has int, which string) error {
	return term.Fail(term.StatusNotFound, "topic %s has no partition %s: it has %d, counted from 0", topic, which, has)
}

// A partitionSet is some partitions, as intervals; nil is all.
type partitionSet []partitionInterval

type partitionInterval struct{ first, last int32 }

// has reports whether a partition is one of the set.
func (s partitionSet) has(p int32) bool {
	return s == nil || slices.ContainsFunc(s, func(i partitionInterval) bool { return i.first <= p && p <= i.last })
}

// parsePartitions reads "0,2,5-7" as a set. "" is the set of all.
func parsePartitions(s string) (set partitionSet, err error) {
	if s == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, two := strings.Cut(strings.TrimSpace(part), "-")
		if !two {
			last = first
		}
		from, err1 := strconv.ParseInt(first, 10, 32)
		to, err2 := strconv.ParseInt(last, 10, 32)
		if err1 != nil || err2 != nil || from < 0 || to < from {
			return nil, term.Usage("-p %q: it is a list of partitions, such as 0,2,5-7", s)
		}
		set = append(set, partitionInterval{int32(from), int32(to)})
	}
	return set, nil
}

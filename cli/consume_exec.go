package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/local"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

const (
	// maxBackoff bounds the wait between two runs for one record.
	maxBackoff = time.Minute
	// maxReason bounds what a dead letter quotes of a command's last words, in bytes.
	maxReason = 1 << 10
	// commitInterval is how often what was handled is committed while other
	// records are still being handled.
	commitInterval = 250 * time.Millisecond
)

// The headers that say how a record came to be a dead letter.
const (
	headerReason    = "millrace.reason"    // how the last run ended, and its last line on standard error
	headerAttempts  = "millrace.attempts"  // how often the command was run
	headerTopic     = "millrace.topic"     // where the record was
	headerPartition = "millrace.partition" //
	headerOffset    = "millrace.offset"    //
	headerTimestamp = "millrace.timestamp" // its timestamp there, milliseconds since 1970
)

// execFlags are those of consume --exec.
func execFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "exec", Usage: "with -g: run `CMD` for each record, and commit it when that succeeds"},
		&urfave.IntFlag{Name: "max-retries", Value: 3, DefaultText: "3", Usage: "run CMD again at most `N` times for a record"},
		&urfave.DurationFlag{Name: "backoff", Value: time.Second, DefaultText: "1s", Usage: "`TIME` before the first retry; doubled for each further one, up to 1m"},
		&urfave.StringFlag{Name: "dead-letter", Usage: "`TOPIC` for records that failed every time; made if it is not there"},
	}
}

// A commandRunner runs a command for records: of each partition one after
// another, of several partitions beside each other.
type commandRunner struct {
	c          *urfave.Context
	command    string
	maxRetries int
	backoff    time.Duration
	deadLetter string // "": stop at a record that fails every time

	// hurry is set when the group wants to move partitions: records that have not
	// been begun are then left to whoever gets their partition.
	hurry chan struct{}

	fork     *local.Forker // starts commands, which die with this process
	write    sync.Mutex    // one command's output at a time
	retried  atomic.Int64
	buried   atomic.Int64
	attempts atomic.Int64
}

func newCommandRunner(c *urfave.Context) (*commandRunner, error) {
	r := &commandRunner{
		c: c, command: c.String("exec"), maxRetries: c.Int("max-retries"),
		backoff: c.Duration("backoff"), deadLetter: c.String("dead-letter"),
		hurry: make(chan struct{}, 1), fork: local.NewForker(),
	}
	switch {
	case strings.TrimSpace(r.command) == "":
		return nil, term.Usage("--exec: which command?")
	case r.maxRetries < 0:
		return nil, term.Usage("--max-retries %d: it is 0 or more", r.maxRetries)
	case r.backoff < 0:
		return nil, term.Usage("--backoff %v: it is 0 or more", r.backoff)
	case c.IsSet("dead-letter") && r.deadLetter == "":
		return nil, term.Usage("--dead-letter: which topic?")
	}
	for _, topic := range c.Args().Slice() {
		if topic == r.deadLetter {
			return nil, term.Usage("--dead-letter %s is the topic being consumed: its records would go round for ever", topic)
		}
	}
	return r, nil
}

// prepare makes the dead-letter topic, unless it is there: a record that cannot
// be handled must not find out that its letter cannot be delivered.
func (r *commandRunner) prepare(ctx context.Context, admin *kadm.Client) error {
	if r.deadLetter == "" {
		return nil
	}
	_, err := admin.CreateTopic(ctx, -1, -1, nil, r.deadLetter)
	if err != nil && !errors.Is(err, kerr.TopicAlreadyExists) {
		return kafka.TopicError(r.deadLetter, err, "")
	}
	return nil
}

// yield asks the runs under way to be the last before partitions move.
func (r *commandRunner) yield(context.Context, *kgo.Client) {
	select {
	case r.hurry <- struct{}{}:
	default:
	}
}

// A handled is what became of one record. err ends the run: the record was
// neither handled nor buried.
type handled struct {
	record *kgo.Record
	err    error
}

// runCommands is consume --exec: poll, run, commit.
func (m *membership) runCommands(ctx context.Context) error {
	began := time.Now()
	err := m.handleAll(ctx)
	retried, buried := m.reader.retried.Load(), m.reader.buried.Load()
	where := ""
	if m.reader.deadLetter != "" {
		where = ", " + term.Count(buried, "record") + " to " + m.reader.deadLetter
	}
	fmt.Fprintf(m.c.App.ErrWriter, "%s in %s: %s at the first attempt, %s after retries%s\n", term.Count(m.done, "record"),
		term.Seconds(time.Since(began)), term.Number(m.done-retried-buried), term.Number(retried), where)
	return err
}

func (m *membership) handleAll(ctx context.Context) error {
	for {
		records, over, err := m.next(ctx, groupPoll)
		if over {
			return m.ended(ctx, err)
		}
		if err := m.handle(ctx, records); err != nil {
			return err
		}
		m.client.AllowRebalance()
	}
}

// handle runs the command for records and commits as it goes. When the group
// wants its partitions back, or the run is interrupted, what has not been begun
// is left: the client goes back to it, should it keep the partition.
func (m *membership) handle(ctx context.Context, records []*kgo.Record) error {
	type partition struct {
		topic string
		index int32
	}
	queues := make(map[partition][]*kgo.Record)
	for _, r := range records {
		p := partition{r.Topic, r.Partition}
		queues[p] = append(queues[p], r)
	}
	select {
	case <-m.reader.hurry: // of an earlier rebalance
	default:
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	results := make(chan handled, len(records))
	left := make(map[partition]*kgo.Record)
	var leftMu sync.Mutex
	var workers sync.WaitGroup
	for p, queue := range queues {
		workers.Add(1)
		go func() { // a worker: ends with its partition's records, or when told to stop
			defer workers.Done()
			for _, r := range queue {
				if work.Err() == nil {
					err := m.reader.handle(work, m.client, r)
					if err == nil {
						results <- handled{record: r}
						continue
					}
					if work.Err() == nil {
						results <- handled{record: r, err: err}
					}
				}
				leftMu.Lock()
				left[p] = r
				leftMu.Unlock()
				return
			}
		}()
	}
	go func() { // ends with the workers
		workers.Wait()
		close(results)
	}()

	var uncommitted []*kgo.Record
	var failed error
	tick := time.NewTicker(commitInterval)
	defer tick.Stop()
	commit := func() {
		if err := m.commit(ctx, uncommitted...); err != nil && failed == nil {
			failed = err
			stop()
		}
		uncommitted = nil
	}
	for open := true; open; {
		select {
		case h, ok := <-results:
			switch {
			case !ok:
				open = false
			case h.err != nil:
				if failed == nil {
					failed = h.err
				}
				stop()
			default:
				m.done++
				uncommitted = append(uncommitted, h.record)
			}
		case <-m.reader.hurry:
			stop()
		case <-tick.C:
			commit()
		}
	}
	commit()
	if len(left) > 0 && failed == nil {
		back := make(map[string]map[int32]kgo.EpochOffset)
		for p, r := range left {
			if back[p.topic] == nil {
				back[p.topic] = make(map[int32]kgo.EpochOffset)
			}
			back[p.topic][p.index] = kgo.EpochOffset{Epoch: r.LeaderEpoch, Offset: r.Offset}
		}
		m.client.SetOffsets(back)
	}
	return failed
}

// handle runs the command for one record until it succeeds, or buries the
// record. An error means neither: ctx ended, or there is nowhere to bury it.
func (r *commandRunner) handle(ctx context.Context, client *kgo.Client, record *kgo.Record) error {
	var why error
	for attempt := 1; ; attempt++ {
		// A command that has begun is let finish: to stop between two is what an
		// interrupt, or a rebalance, means.
		why = r.run(context.WithoutCancel(ctx), record, attempt)
		if why == nil {
			if attempt > 1 {
				r.retried.Add(1)
			}
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if attempt > r.maxRetries {
			return r.bury(ctx, client, record, attempt, why)
		}
		select {
		case <-time.After(r.wait(attempt)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// wait is how long to wait after an attempt failed, the first being 1. It varies
// by a fifth, so that what failed together does not come back together.
func (r *commandRunner) wait(attempt int) time.Duration {
	d := r.backoff
	for range attempt - 1 {
		if d *= 2; d >= maxBackoff {
			d = maxBackoff
			break
		}
	}
	return time.Duration(float64(min(d, maxBackoff)) * (0.8 + 0.4*rand.Float64()))
}

// run runs the command once.
func (r *commandRunner) run(ctx context.Context, record *kgo.Record, attempt int) error {
	r.attempts.Add(1)
	cmd := shell(ctx, r.command)
	cmd.Env = append(os.Environ(),
		"MILLRACE_TOPIC="+record.Topic,
		"MILLRACE_PARTITION="+strconv.Itoa(int(record.Partition)),
		"MILLRACE_OFFSET="+strconv.FormatInt(record.Offset, 10),
		"MILLRACE_TIMESTAMP="+strconv.FormatInt(record.Timestamp.UnixMilli(), 10),
		// An environment cannot hold NUL; a key that has some is cut there.
		"MILLRACE_KEY="+string(bytes.SplitN(record.Key, []byte{0}, 2)[0]),
		"MILLRACE_ATTEMPT="+strconv.Itoa(attempt),
	)
	cmd.Stdin = bytes.NewReader(record.Value)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	// What the command leaves running must not keep the record waiting.
	cmd.WaitDelay = 5 * time.Second
	// Killed with -9, this process hands its records to another member at once: the
	// command must not go on with one of them beside it.
	local.DieWithParent(cmd.SysProcAttr)
	err := r.fork.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	// A command that does not read its standard input has not failed by that.
	if cmd.ProcessState != nil && cmd.ProcessState.Success() {
		err = nil
	}
	r.write.Lock()
	io.Copy(r.c.App.Writer, &out)
	last := lastLine(errs.Bytes())
	io.Copy(r.c.App.ErrWriter, &errs)
	r.write.Unlock()
	if err == nil {
		return nil
	}
	if last != "" {
		return fmt.Errorf("%w: %s", err, last)
	}
	return err
}

// lastLine returns the last line that says something, cut to maxReason bytes.
func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	b = bytes.TrimSpace(b[bytes.LastIndexByte(b, '\n')+1:])
	return strings.ToValidUTF8(string(b[:min(len(b), maxReason)]), "�")
}

// bury produces a record to the dead-letter topic, and returns when a quorum has
// it: only then may its offset be committed.
func (r *commandRunner) bury(ctx context.Context, client *kgo.Client, record *kgo.Record, attempts int, why error) error {
	if r.deadLetter == "" {
		return term.Fail(term.StatusFailed, "%s/%d@%d: %q failed %s: %v; the record is not committed: mend the command, or give --dead-letter TOPIC",
			record.Topic, record.Partition, record.Offset, r.command, times(attempts), why)
	}
	letter := &kgo.Record{Topic: r.deadLetter, Key: record.Key, Value: record.Value}
	letter.Headers = append(letter.Headers, record.Headers...)
	for _, h := range []struct{ key, value string }{
		{headerReason, why.Error()},
		{headerAttempts, strconv.Itoa(attempts)},
		{headerTopic, record.Topic},
		{headerPartition, strconv.Itoa(int(record.Partition))},
		{headerOffset, strconv.FormatInt(record.Offset, 10)},
		{headerTimestamp, strconv.FormatInt(record.Timestamp.UnixMilli(), 10)},
	} {
		letter.Headers = append(letter.Headers, kgo.RecordHeader{Key: h.key, Value: []byte(h.value)})
	}
	// Begun is done: a letter that was given up half-way might arrive all the same,
	// and once more later.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	if err := client.ProduceSync(ctx, letter).FirstErr(); err != nil {
		return kafka.TopicError(r.deadLetter, err, "")
	}
	r.buried.Add(1)
	return nil
}

// times writes a number of times: "once", "4 times".
func times(n int) string {
	if n == 1 {
		return "once"
	}
	return term.Count(n, "time")
}

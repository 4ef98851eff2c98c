package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

const (
	// groupSession is how long a member that died without a word keeps its
	// partitions from the others: the least a broker allows by default.
	groupSession = 6 * time.Second
	// groupPoll is the most records printed, or handed to commands, between two
	// commits. What a kill makes a group see twice is never more.
	groupPoll = 1000
)

// groupFlags are those that make consume a member of a group.
func groupFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "group", Aliases: []string{"g"}, Usage: "as a member of `GROUP`, which shares the partitions and remembers how far it is"},
		&urfave.StringFlag{Name: "instance", Usage: "be the group's static member `ID`: a restart takes up where it was, without a rebalance"},
		&urfave.DurationFlag{Name: "session-timeout", Value: groupSession, DefaultText: "6s", Usage: "a member silent for `TIME` has died"},
	}
}

// A membership is one run of consume -g. Records are printed, or handled by a
// command, and committed only then; partitions are given up only in between. So
// whatever happens, every record is seen at least once, and those seen twice
// come after the last commit.
type membership struct {
	c      *urfave.Context
	client *kgo.Client
	admin  *kadm.Client
	group  string
	topics []string         // none: patterns
	match  []*regexp.Regexp // what the patterns are
	begin  kafka.Point      // where nothing was committed
	limit  int64            // records, 0: all
	done   int64            // records printed or handled
	polled atomic.Int64     // records that came
	astray atomic.Value     // string: why the group cannot be had just now, "" once it can
	vigil  *vigil

	until  map[string]map[int32]int64 // with --exit: where each partition ended at the start
	reader *commandRunner             // with --exec

	waiting  notice
	joined   atomic.Bool  // the group has given this member its partitions, perhaps none
	assigned atomic.Int32 // how many it has
	idle     bool         // it was said that it has none
}

// consumeInGroup is consume with -g.
func consumeInGroup(c *urfave.Context, what kafka.Span, print printer) error {
	m := &membership{c: c, group: c.String("group"), limit: c.Int64("num"), begin: what.From}
	switch {
	case c.IsSet("partitions"):
		return term.Usage("-p and -g do not go together: the group shares out the partitions")
	case what.To != nil:
		return term.Usage("-o %s and -g do not go together: a group goes on for ever; end it with -n or -e", c.String("offset"))
	case c.Duration("session-timeout") <= 0:
		return term.Usage("--session-timeout %v: it is more than 0", c.Duration("session-timeout"))
	}
	reset, err := what.From.Reset()
	if err != nil {
		return err
	}
	options := []kgo.Opt{
		kgo.ConsumerGroup(m.group),
		kgo.Balancers(kgo.CooperativeStickyBalancer()),
		kgo.ConsumeTopics(c.Args().Slice()...),
		kgo.ConsumeResetOffset(reset),
		kgo.DisableAutoCommit(),
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, new map[string][]int32) {
			m.assigned.Add(partitionsIn(new))
			m.joined.Store(true)
			m.astray.Store("")
		}),
		kgo.OnPartitionsRevoked(m.gone),
		kgo.OnPartitionsLost(m.gone),
		kgo.SessionTimeout(c.Duration("session-timeout")),
		kgo.HeartbeatInterval(max(c.Duration("session-timeout")/3, time.Millisecond)),
		kgo.FetchMaxWait(time.Second),
		kgo.FetchMaxBytes(16 << 20),
		kgo.FetchMaxPartitionBytes(4 << 20),
	}
	if c.Bool("regex") {
		options = append(options, kgo.ConsumeRegex())
		for _, pattern := range c.Args().Slice() {
			p, err := regexp.Compile(pattern)
			if err != nil {
				return term.Usage("-r: %v", err)
			}
			m.match = append(m.match, p)
		}
	} else {
		m.topics = c.Args().Slice()
	}
	if id := c.String("instance"); id != "" {
		options = append(options, kgo.InstanceID(id))
	}
	if c.Bool("read-committed") {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if c.IsSet("exec") {
		if m.reader, err = newCommandRunner(c); err != nil {
			return err
		}
		options = append(options, kgo.OnPartitionsCallbackBlocked(m.reader.yield))
	}
	// Who the topics and the group are is asked before the group is joined: a
	// member that only finds out that its topic is misspelt disturbs the others.
	admin, err := kafka.Dial(c)
	if err != nil {
		return err
	}
	defer admin.Close()
	m.admin = kadm.NewClient(admin)
	ctx, stop := whileRead(c.Context, c.App.Writer)
	defer stop()
	m.vigil = watchOver(c, admin, need{topics: m.topics, wanted: m, group: m.group}, &m.polled, m)
	go m.vigil.keep(ctx)
	if err := m.prepare(ctx); err != nil {
		if context.Cause(ctx) == errNobodyReads {
			return nil
		} else if ctx.Err() != nil {
			return m.interrupted()
		}
		return err
	}
	if m.client, err = kafka.Dial(c, options...); err != nil {
		return err
	}
	defer m.client.CloseAllowingRebalance()
	m.waiting = newNotice(c, !c.Bool("exit"))
	if m.reader != nil {
		return m.runCommands(ctx)
	}
	return m.print(ctx, print)
}

// interrupted is the end of what had not come to its own.
func (m *membership) interrupted() error {
	return term.Fail(term.StatusFailed, "interrupted after %s%s", term.Count(m.done, "record"), m.vigil.because())
}

// trouble is why the group cannot be had just now, "" if it can.
func (m *membership) trouble() string {
	why, _ := m.astray.Load().(string)
	return why
}

// wants reports whether a partition is of the topics to read.
func (m *membership) wants(topic string, _ int32) bool {
	return m.match == nil || matchesAny(m.match, topic)
}

func partitionsIn(all map[string][]int32) (n int32) {
	for _, partitions := range all {
		n += int32(len(partitions))
	}
	return n
}

// gone takes away partitions that other members have now.
func (m *membership) gone(_ context.Context, _ *kgo.Client, old map[string][]int32) {
	m.assigned.Add(-partitionsIn(old))
}

// sayIdle tells a member's operator that it has nothing to do, and why. Not being able to
// find out is no harm.
func (m *membership) sayIdle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, members, err := groupState(ctx, m.admin, m.group)
	if err != nil || len(m.topics) == 0 {
		return
	}
	topics, err := m.admin.ListTopicsWithInternal(ctx, m.topics...)
	if err != nil {
		return
	}
	all := 0
	for _, t := range topics {
		all += len(t.Partitions)
	}
	if all >= len(members) {
		return // it will get some
	}
	what := "topic " + m.topics[0] + " has"
	if len(m.topics) > 1 {
		what = "topics " + strings.Join(m.topics, ", ") + " have"
	}
	fmt.Fprintf(m.c.App.ErrWriter, "nothing to do here: %s %s, the group %s; `millrace topic alter %s -p %d` gives each one\n",
		what, term.Count(all, "partition"), term.Count(len(members), "member"), m.topics[0], len(members))
}

// prepare checks that the topics are there, and notes their ends for --exit.
func (m *membership) prepare(ctx context.Context) error {
	patience := forEver // as for records
	if m.c.Bool("exit") {
		patience = kafka.SettleTimeout
	}
	return kafka.SettleFor(ctx, patience, func(ctx context.Context) error {
		for _, t := range m.topics {
			if _, err := kafka.DescribeTopic(ctx, m.admin, t); err != nil {
				return err
			}
		}
		if m.reader != nil {
			if err := m.reader.prepare(ctx, m.admin); err != nil {
				return err
			}
		}
		if m.begin.Kind == kafka.AtOffset && len(m.topics) > 0 {
			all, err := kafka.Span{From: m.begin}.Resolve(ctx, m.admin, m.topics, false, false)
			if err != nil {
				return err
			}
			if err := kafka.Beyond("-o", all, func(int32) bool { return true }); err != nil {
				return err
			}
		}
		if !m.c.Bool("exit") {
			return nil
		}
		topics := m.topics
		if topics == nil {
			all, err := m.admin.ListTopics(ctx)
			if err != nil {
				return err
			}
			for _, name := range all.Names() {
				if matchesAny(m.match, name) {
					topics = append(topics, name)
				}
			}
		}
		all, err := kafka.Span{}.Resolve(ctx, m.admin, topics, true, m.c.Bool("read-committed"))
		if err != nil {
			return err
		}
		m.until = make(map[string]map[int32]int64)
		for topic, partitions := range all {
			m.until[topic] = make(map[int32]int64)
			for i, b := range partitions {
				if b.From < b.To {
					m.until[topic][i] = b.To
				}
			}
		}
		return nil
	})
}

// next polls for records, at most as many as are still wanted. It returns none
// when the run is over: done, interrupted, or failed.
func (m *membership) next(ctx context.Context, most int64) (records []*kgo.Record, over bool, err error) {
	if m.limit > 0 {
		most = min(most, m.limit-m.done)
	}
	looked := time.Now()
	for {
		if m.limit > 0 && m.done == m.limit {
			return nil, true, nil
		}
		if ctx.Err() != nil {
			return nil, true, nil
		}
		poll, cancel := context.WithTimeout(ctx, time.Second)
		fetches := m.client.PollRecords(poll, int(most))
		cancel()
		if err := kafka.CheckFetches(m.c, fetches); err != nil {
			return nil, true, err
		}
		fetches.EachError(func(_ string, _ int32, err error) {
			if refused := kafka.JoinRefused(err); refused != nil {
				m.astray.Store(term.OneLine(kafka.GroupError(m.group, refused)))
			}
		})
		if records = fetches.Records(); len(records) > 0 {
			m.polled.Add(int64(len(records)))
			m.astray.Store("")
			return records, false, nil
		}
		m.client.AllowRebalance()
		switch {
		case ctx.Err() != nil || !m.joined.Load():
		case m.assigned.Load() > 0:
			m.waiting.say()
			m.idle = false
		case !m.idle:
			m.idle = true
			m.sayIdle(ctx)
		}
		if m.until != nil && time.Since(looked) > 500*time.Millisecond {
			if m.reachedEnd(ctx) {
				return nil, true, nil
			}
			looked = time.Now()
		}
	}
}

// reachedEnd reports whether the group has committed everything there was at the
// start. Not being told is no harm: it will be asked again.
func (m *membership) reachedEnd(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	committed, err := m.admin.FetchOffsets(ctx, m.group)
	if err != nil {
		return false
	}
	for topic, partitions := range m.until {
		for i, end := range partitions {
			if o, ok := committed.Lookup(topic, i); !ok || o.Err != nil || o.At < end {
				return false
			}
		}
	}
	return true
}

// print prints records and commits them once they are written.
func (m *membership) print(ctx context.Context, print printer) error {
	out := bufio.NewWriterSize(m.c.App.Writer, 64<<10)
	for {
		records, over, err := m.next(ctx, groupPoll)
		if over {
			return m.ended(ctx, err)
		}
		for _, r := range records {
			if _, err := out.Write(print(out.AvailableBuffer(), r)); err != nil {
				return fmt.Errorf("write to standard output: %w", err)
			}
		}
		// What is committed must have been printed, not buffered.
		if err := out.Flush(); err != nil {
			return fmt.Errorf("write to standard output: %w", err)
		}
		m.done += int64(len(records))
		if err := m.commit(ctx, records...); err != nil {
			return err
		}
		m.client.AllowRebalance()
	}
}

// ended is how a run ends that did not fail: done, or interrupted.
func (m *membership) ended(ctx context.Context, err error) error {
	if err == nil && ctx.Err() != nil && m.limit > 0 && context.Cause(ctx) != errNobodyReads {
		return m.interrupted()
	}
	return err
}

// commit commits records that were seen. An interrupt does not hinder it: they
// were. It goes on for as long as the group has no coordinator, as reading does where
// there is no leader. A group that moved on has given the partitions to another member,
// which will see the records again.
func (m *membership) commit(ctx context.Context, records ...*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	var err error
	for attempt := 1; ; attempt++ {
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
		err = m.client.CommitRecords(one, records...)
		cancel()
		if err == nil || ctx.Err() != nil || !wanting(err) {
			break
		}
		m.astray.Store(term.OneLine(kafka.GroupError(m.group, err)))
		select {
		case <-time.After(kafka.Backoff(attempt)):
		case <-ctx.Done():
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.UnknownMemberID),
		errors.Is(err, kerr.StaleMemberEpoch), errors.Is(err, kerr.FencedMemberEpoch):
		fmt.Fprintf(m.c.App.ErrWriter, "millrace: group %q took partitions away before %s could be committed: another member sees them again\n",
			m.group, term.Count(len(records), "record"))
		return nil
	}
	return kafka.GroupError(m.group, fmt.Errorf("commit: %w", err))
}

package brokertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"millrace"
)

// until waits for what must come without anything being done for it.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func client(t *testing.T, b *Broker, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.Addr()), kgo.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// descriptors counts what the process has open, and below counts its mappings of files
// there; 0 where the system does not tell.
func descriptors() int {
	open, _ := os.ReadDir("/proc/self/fd")
	return len(open)
}

func mappings(below string) int {
	maps, _ := os.ReadFile("/proc/self/maps")
	return strings.Count(string(maps), below)
}

// Brokers in one process know nothing of each other, and leave nothing behind.
func TestAHundredBrokersLeaveNothing(t *testing.T) {
	n := 100
	if testing.Short() {
		n = 10
	}
	below := t.TempDir()
	t.Setenv("TMPDIR", below)
	warm(t)
	goroutines, open := runtime.NumGoroutine(), descriptors()
	t.Run("brokers", func(t *testing.T) {
		var took []time.Duration
		var all []*Broker
		for range n {
			begin := time.Now()
			all = append(all, Start(t))
			took = append(took, time.Since(begin))
		}
		for i, b := range all {
			if i%10 > 0 {
				continue
			}
			cl := client(t, b, kgo.DefaultProduceTopic("t"), kgo.ConsumeTopics("t"))
			if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
				t.Fatal(err)
			}
			if r := cl.PollFetches(t.Context()).Records(); len(r) != 1 || string(r[0].Value) != fmt.Sprint(i) {
				t.Errorf("broker %d: consumed %v", i, r)
			}
		}
		clusters := make(map[string]bool)
		for _, b := range all {
			clusters[b.ClusterID()] = true
		}
		if len(clusters) != n {
			t.Errorf("%d clusters", len(clusters))
		}
		slices.Sort(took)
		t.Logf("%d brokers: ready after %v in the median, %v at most; %d goroutines and %d descriptors each", n,
			took[n/2].Round(time.Millisecond), took[n-1].Round(time.Millisecond), (runtime.NumGoroutine()-goroutines)/n, (descriptors()-open)/n)
	})
	if n := runtime.NumGoroutine(); n > goroutines {
		// Connections that clients closed are seen to have ended a moment later.
		until(t, "goroutines to end", func() bool { return runtime.NumGoroutine() <= goroutines })
	}
	until(t, "descriptors to be closed", func() bool { return descriptors() <= open })
	if n := mappings(below); n > 0 {
		t.Errorf("%d mappings are left", n)
	}
	filepath.WalkDir(below, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			t.Errorf("%s is left, %v", path, err)
		}
		return nil
	})
}

// warm has the process begin what it begins once: the poller, resolvers.
func warm(t *testing.T) {
	t.Run("warm", func(t *testing.T) {
		cl := client(t, Start(t))
		if err := cl.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// A month later the records of a topic with a week's retention are gone, and so are the
// offsets of a group that has had no members since.
func TestAMonthLater(t *testing.T) {
	b := Start(t)
	cl := client(t, b, kgo.DefaultProduceTopic("t"))
	for i := range 10 {
		if err := cl.ProduceSync(t.Context(), kgo.StringRecord(fmt.Sprint(i))).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	member := client(t, b, kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g"), kgo.DisableAutoCommit())
	if f := member.PollFetches(t.Context()); f.NumRecords() == 0 {
		t.Fatalf("nothing consumed: %v", f.Err())
	}
	if err := member.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Fatal(err)
	}
	member.Close()

	adm := kadm.NewClient(cl)
	start := func() int64 {
		offsets, err := adm.ListStartOffsets(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		o, _ := offsets.Lookup("t", 0)
		return o.Offset
	}
	committed := func() int64 {
		offsets, err := adm.FetchOffsets(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		o, ok := offsets.Lookup("t", 0)
		if !ok {
			return -1
		}
		return o.At
	}
	b.Clock.Advance(6 * 24 * time.Hour)
	if at := start(); at != 0 || committed() < 1 {
		t.Errorf("within a week: starts at %d, committed %d", at, committed())
	}
	b.Clock.Advance(24 * 24 * time.Hour)
	until(t, "records to expire", func() bool { return start() == 10 })
	until(t, "the committed offset to expire", func() bool { return committed() == -1 })

	// And it goes on.
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("late")).FirstErr(); err != nil {
		t.Fatal(err)
	}
	later := client(t, b, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	r := later.PollFetches(t.Context()).Records()
	if len(r) != 1 || r[0].Offset != 10 || string(r[0].Value) != "late" {
		t.Errorf("consumed %v", r)
	}
}

// A member that is gone without a word has its session, by the clock.
func TestSessionsGoByTheClock(t *testing.T) {
	b := Start(t)
	adm := kadm.NewClient(client(t, b))
	if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	// A static member leaves nothing when its client closes.
	member := client(t, b, kgo.ConsumeTopics("t"), kgo.ConsumerGroup("g"), kgo.InstanceID("one"), kgo.SessionTimeout(10*time.Minute))
	state := func() string {
		groups, err := adm.DescribeGroups(t.Context(), "g")
		if err != nil {
			t.Fatal(err)
		}
		return groups["g"].State
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go member.PollFetches(ctx)
	until(t, "the member to join", func() bool { return state() == "Stable" })
	member.CloseAllowingRebalance()
	if got := state(); got != "Stable" {
		t.Errorf("when the client has closed: %s", got)
	}
	b.Clock.Advance(11 * time.Minute)
	until(t, "the member's session to end", func() bool { return state() == "Empty" })
}

// A cluster's brokers may share a clock.
func TestBrokersJoin(t *testing.T) {
	first := Start(t)
	join := func(c *millrace.Config) { c.Join, c.Clock = []string{first.Addr()}, first.Clock }
	second, third := Start(t, join), Start(t, join)
	if second.Clock != first.Clock {
		t.Error("a broker has another clock than the one it was given")
	}
	if first.ClusterID() != second.ClusterID() || second.ClusterID() != third.ClusterID() || third.ID() == second.ID() {
		t.Errorf("%d of %s, %d of %s, %d of %s", first.ID(), first.ClusterID(), second.ID(), second.ClusterID(), third.ID(), third.ClusterID())
	}
	cl := client(t, third, kgo.DefaultProduceTopic("t"))
	if err := cl.ProduceSync(t.Context(), kgo.StringRecord("x")).FirstErr(); err != nil {
		t.Error(err)
	}
}

func TestAClocksTimersGoOffOnce(t *testing.T) {
	var c Clock
	begin := c.Now()
	fired := make(chan string, 10)
	c.AfterFunc(time.Hour, func() { fired <- "an hour" })
	c.AfterFunc(3*time.Hour, func() { fired <- "three" })
	stopped := c.AfterFunc(time.Hour, func() { fired <- "stopped" })
	if !stopped.Stop() || stopped.Stop() {
		t.Error("Stop does not say whether it had an effect")
	}
	c.Advance(2 * time.Hour)
	c.Advance(0)
	if got := <-fired; got != "an hour" {
		t.Errorf("after two hours: %s", got)
	}
	if ahead := c.Now().Sub(begin); ahead < 2*time.Hour || ahead > 3*time.Hour {
		t.Errorf("%v ahead", ahead)
	}
	if !stopped.Reset(-time.Second) {
		if got := <-fired; got != "stopped" {
			t.Errorf("a timer that was set anew: %s", got)
		}
	} else {
		t.Error("a stopped timer was pending")
	}
	soon := c.AfterFunc(0, func() { fired <- "soon" })
	if got := <-fired; got != "soon" || soon.Stop() {
		t.Errorf("at once: %s", got)
	}
	c.Advance(time.Hour)
	if got := <-fired; got != "three" {
		t.Errorf("after three hours: %s", got)
	}
	if len(fired) > 0 {
		t.Errorf("%s, again", <-fired)
	}
}

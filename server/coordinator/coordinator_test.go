package coordinator_test

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/coordinator/coordinatortest"
)

// A node is one that leads the journal's partition, until the next does.
type node struct {
	*kv
	journal *coordinatortest.Journal
	epoch   int32
}

// lost is the node's epoch if it has unloaded that by itself, or 0.
func (n *node) lost() int32 {
	if slices.Contains(n.journal.LostEpochs(), n.epoch) {
		return n.epoch
	}
	return 0
}

// An outcome is an Appender that is a function, a bell such a Ringer, fates such
// coordinatortest.Fates.
type (
	outcome func(error)
	bell    func(time.Time)
	fates   func() error
)

func (f outcome) AppendedLocked(err error) { f(err) }
func (f bell) RingLocked(now time.Time)    { f(now) }
func (f fates) Next() error                { return f() }

// A wide journal has n partitions.
type wide struct {
	coordinatortest.Journal
	n int32
}

func (j *wide) Partitions() int32 { return j.n }

// lead makes a node the leader of j, and loads it.
func lead(t testing.TB, j *coordinatortest.Journal, log ...*strings.Builder) *node {
	t.Helper()
	n := &node{journal: j, epoch: j.NewEpoch()}
	cfg := coordinator.Config{Journal: j}
	if len(log) > 0 {
		cfg.Logger = slog.New(slog.NewTextHandler(log[0], nil))
	}
	n.kv = newKV(cfg)
	t.Cleanup(n.runtime.Close)
	if err := n.runtime.Load(0, n.epoch, j.Records()); err != nil {
		t.Fatal(err)
	}
	return n
}

func (n *node) has(t testing.TB, key, want string) {
	t.Helper()
	if got, err := n.get(t.Context(), key); err != nil || got != want {
		t.Errorf("%s is %q, %v; want %q", key, got, err, want)
	}
}

func (n *node) put(t testing.TB, key, value string) {
	t.Helper()
	if err := n.set(key, value, time.Time{}); err != nil {
		t.Errorf("set %s to %s: %v", key, value, err)
	}
}

// story runs f in virtual time with an empty journal and its first leader.
func story(t *testing.T, f func(t *testing.T, j *coordinatortest.Journal, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		j := new(coordinatortest.Journal)
		f(t, j, lead(t, j))
	})
}

func want(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) || want == nil && got != nil {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestAValueIsSeenWhenAQuorumHasItAndNotBefore(t *testing.T) {
	story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
		n.put(t, "a", "1")
		j.Hold()
		answers := make(chan error, 2)
		go func() { answers <- n.set("a", "2", time.Time{}) }()
		synctest.Wait()
		n.has(t, "a", "1")
		if len(answers) > 0 {
			t.Error("an append is acknowledged before its outcome is known")
		}
		j.Release()
		want(t, "the append", <-answers, nil)
		n.has(t, "a", "2")

		full := errors.New("disk full")
		j.Fail(full)
		want(t, "an append that is refused", n.set("a", "3", time.Time{}), full)
		n.has(t, "a", "2")
		j.Fail(nil)
		n.put(t, "a", "4") // a refusal is no reason to be loaded again
		lead(t, j).has(t, "a", "4")
	})
}

// Between an append and its outcome another node takes over. What the append left in
// the journal is there for the next, whatever the first leader is told.
func TestTheLeadershipIsLostBetweenAnAppendAndItsOutcome(t *testing.T) {
	story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
		n.put(t, "a", "1")
		j.Hold()
		set := func(value string) <-chan error {
			answer := make(chan error, 1)
			go func() { answer <- n.set("a", value, time.Time{}) }()
			synctest.Wait()
			return answer
		}
		stands := set("2")
		next := lead(t, j)
		next.has(t, "a", "2")
		if _, err := n.get(t.Context(), "a"); !errors.Is(err, coordinator.ErrNotLeader) {
			t.Errorf("the former leader answers %v to a read", err)
		}
		refused, behind := set("3"), set("4")
		if n.lost() != 0 {
			t.Error("a shard is unloaded before it knows that it lost the leadership")
		}
		j.Release()
		want(t, "the append that stands", <-stands, nil)
		want(t, "the append after the loss", <-refused, coordinator.ErrUnloaded)
		want(t, "the append behind it", <-behind, coordinator.ErrUnloaded)
		synctest.Wait()
		if got := n.lost(); got != n.epoch {
			t.Errorf("epoch %d is said to be lost, want %d", got, n.epoch)
		}
		want(t, "a later request", n.set("a", "5", time.Time{}), coordinator.ErrNotCoordinator)
		next.has(t, "a", "2")

		epoch := j.NewEpoch() // and back
		if err := n.runtime.Load(0, epoch, j.Records()); err != nil {
			t.Fatal(err)
		}
		n.has(t, "a", "2")
		n.put(t, "a", "6")
	})
}

// The journal may or may not have it: only a load can tell.
func TestAnUnknownOutcomeUnloads(t *testing.T) {
	story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
		n.put(t, "a", "1")
		j.Fail(fmt.Errorf("timeout: %w", coordinator.ErrUnknownOutcome))
		want(t, "the append", n.set("a", "2", time.Time{}), coordinator.ErrUnloaded)
		synctest.Wait()
		if n.lost() != n.epoch {
			t.Error("nobody is told that the partition is to be loaded again")
		}
		want(t, "a read", func() error { _, err := n.get(t.Context(), "a"); return err }(), coordinator.ErrNotCoordinator)
	})
}

// A late journal answers appends in any order; the state machine hears in that of the
// calls.
func TestOutcomesAreToldInTheOrderOfTheAppends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := new(backwards)
		k := newKV(coordinator.Config{Journal: j})
		defer k.runtime.Close()
		if err := k.runtime.Load(k.runtime.PartitionOf("a"), 1, none); err != nil {
			t.Fatal(err)
		}
		s, err := k.runtime.Enter("a")
		if err != nil {
			t.Fatal(err)
		}
		var told []int
		for i := range 5 {
			s.AppendLocked(nil, outcome(func(error) { told = append(told, i) }))
		}
		s.Unlock()
		for i, done := range slices.Backward(j.dones) {
			if synctest.Wait(); len(told) > 0 {
				t.Errorf("with the outcomes from %d on known, %v are told", i+1, told)
			}
			done(nil)
		}
		synctest.Wait()
		if !slices.Equal(told, []int{0, 1, 2, 3, 4}) {
			t.Errorf("told in the order %v", told)
		}
	})
}

// A backwards journal gives its calls of done to the test.
type backwards struct {
	coordinatortest.Journal
	dones []func(error)
}

func (j *backwards) Append(_, _ int32, _ []record.Record, done func(error)) {
	j.dones = append(j.dones, done)
}

func none(func(record.Record, error) bool) {}

// Whoever hears of an unload and tries once more, as a step that waits does, writes
// nothing behind the back of the next load, which may be for the same epoch.
func TestAShardThatIsUnloadedAppendsNothing(t *testing.T) {
	story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
		s, err := n.runtime.Enter("a")
		if err != nil {
			t.Fatal(err)
		}
		j.Hold()
		answers := make(chan error, 1)
		s.setLocked("a", "1", time.Time{}, outcome(func(error) {
			s.setLocked("a", "2", time.Time{}, outcome(func(err error) { answers <- err }))
		}))
		s.Unlock()
		n.runtime.Unload(0)
		want(t, "the second append", <-answers, coordinator.ErrUnloaded)
		j.Release()
		if n := j.Len(); n != 1 {
			t.Errorf("%d records are in the journal, want the first", n)
		}
	})
}

// A panic under the lock costs the shard what it knows, and neither its lock nor the
// process: after the next load all is as the journal says.
func TestAPanicUnloads(t *testing.T) {
	for how, panics := range map[string]func(t *testing.T, n *node){
		"in a request": func(t *testing.T, n *node) {
			s, err := n.runtime.Enter("a")
			if err != nil {
				t.Fatal(err)
			}
			if s.Do(func() { panic("request") }) {
				t.Error("it is not said")
			}
		},
		"in an alarm": func(t *testing.T, n *node) {
			s, err := n.runtime.Enter("a")
			if err != nil {
				t.Fatal(err)
			}
			s.SetLocked(&coordinator.Alarm{Ringer: bell(func(time.Time) { panic("alarm") })}, time.Now().Add(time.Second))
			s.Unlock()
			time.Sleep(time.Second)
			synctest.Wait()
		},
		"in an outcome": func(t *testing.T, n *node) {
			s, err := n.runtime.Enter("a")
			if err != nil {
				t.Fatal(err)
			}
			var behind, after error
			s.AppendLocked(nil, outcome(func(error) { panic("outcome") }))
			s.AppendLocked(nil, outcome(func(err error) { behind = err }))
			s.Unlock()
			synctest.Wait()
			want(t, "the append behind it", behind, coordinator.ErrUnloaded)
			s.Lock()
			s.AppendLocked(nil, outcome(func(err error) { after = err }))
			s.Unlock()
			synctest.Wait()
			want(t, "an append after it", after, coordinator.ErrUnloaded)
		},
	} {
		t.Run(how, func(t *testing.T) {
			story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
				n.put(t, "a", "1")
				panics(t, n)
				if n.lost() != n.epoch {
					t.Error("nobody is told that the partition is to be loaded again")
				}
				want(t, "a request", n.set("a", "2", time.Time{}), coordinator.ErrNotCoordinator)
				lead(t, j).has(t, "a", "1")
			})
		})
	}
}

// Records that cannot be read, or that make the state machine panic, keep no others
// from being served.
func TestRecordsThatCannotBeReplayedAreSkipped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := new(coordinatortest.Journal)
		lead(t, j).put(t, "a", "1")
		j.Put(record.Record{Key: []byte("short"), Value: []byte("x")})
		var log strings.Builder
		lead(t, j, &log).has(t, "a", "1")
		if !strings.Contains(log.String(), "skipping a record of the journal of values") {
			t.Errorf("the log says %s", &log)
		}
	})
}

// Some alarms are to go off after a failover at the time they were to go off before it,
// and are set by what the journal says; others are the patience of one coordinator.
func TestAlarmsAfterAFailover(t *testing.T) {
	story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
		want(t, "set", n.set("until", "1", time.Now().Add(90*time.Second)), nil)
		n.put(t, "idle", "1")
		time.Sleep(50 * time.Second)
		next := lead(t, j)
		time.Sleep(40*time.Second - time.Millisecond) // 90 s, less one millisecond
		next.has(t, "until", "1")
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		next.has(t, "until", "")
		next.has(t, "idle", "1") // read after 40 s: it has another minute
		time.Sleep(idleFor - time.Millisecond)
		synctest.Wait()
		if n := j.Len(); n != 3 {
			t.Errorf("%d records before the minute is over, want 3", n)
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		next.has(t, "idle", "")
		lead(t, j).has(t, "idle", "")
	})
}

func TestAlarmsRingInOrderAndOnce(t *testing.T) {
	story(t, func(t *testing.T, j *coordinatortest.Journal, n *node) {
		s, err := n.runtime.Enter("a")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		var rang []string
		alarm := func(name string) *coordinator.Alarm {
			return &coordinator.Alarm{Ringer: bell(func(now time.Time) { rang = append(rang, fmt.Sprint(name, " ", now.Sub(began))) })}
		}
		late, early, stopped, moved := alarm("late"), alarm("early"), alarm("stopped"), alarm("moved")
		s.SetLocked(late, began.Add(3*time.Second))
		s.SetLocked(early, began.Add(time.Second))
		s.SetLocked(stopped, began.Add(time.Second))
		s.SetLocked(moved, began.Add(time.Second))
		s.SetLocked(moved, began.Add(2*time.Second))
		s.StopLocked(stopped)
		if stopped.IsSet() || !moved.IsSet() || !moved.At().Equal(began.Add(2*time.Second)) || s.AlarmsLocked() != 3 {
			t.Errorf("%d alarms are set", s.AlarmsLocked())
		}
		pieces := 0
		var again coordinator.Alarm
		again.Ringer = bell(func(now time.Time) { // as one does that has more to do than is good for others
			if pieces++; pieces < 10 {
				s.SetLocked(&again, now)
			}
		})
		s.SetLocked(&again, began)
		s.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := strings.Join(rang, ", "); got != "early 1s, moved 2s, late 3s" || pieces != 10 {
			t.Errorf("rang: %s; %d pieces", got, pieces)
		}
		s.Lock()
		s.SetLocked(early, time.Now().Add(time.Second))
		s.Unlock()
		n.runtime.Unload(0)
		time.Sleep(time.Minute)
		synctest.Wait()
		s.Lock()
		defer s.Unlock()
		s.StopLocked(early) // does no harm
		s.SetLocked(early, time.Now())
		if len(rang) != 3 || early.IsSet() {
			t.Errorf("an alarm of a shard that is unloaded rang, or is set: %v", rang)
		}
	})
}

// A handClock stands still but for advance.
type handClock struct {
	mu     sync.Mutex
	now    time.Time
	timers []*handTimer
}

type handTimer struct {
	clock *handClock
	at    time.Time // zero: it does not go off
	f     func()
}

func (c *handClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *handClock) AfterFunc(d time.Duration, f func()) coordinator.Timer {
	t := &handTimer{clock: c, f: f}
	c.mu.Lock()
	c.timers = append(c.timers, t)
	c.mu.Unlock()
	t.Reset(d)
	return t
}

func (c *handClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	for _, t := range c.timers {
		if !t.at.IsZero() && !t.at.After(c.now) {
			t.at = time.Time{}
			go t.f()
		}
	}
}

func (t *handTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	pending := !t.at.IsZero()
	t.at = time.Time{}
	return pending
}

func (t *handTimer) Reset(d time.Duration) bool {
	pending := t.Stop()
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.at = t.clock.now.Add(d)
	return pending
}

// Alarms go by the clock that the runtime is given, and by no other.
func TestAlarmsGoByTheGivenClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clock := &handClock{now: time.Now()}
		j := new(coordinatortest.Journal)
		k := newKV(coordinator.Config{Journal: j, Clock: clock})
		defer k.runtime.Close()
		want(t, "load", k.runtime.Load(0, j.NewEpoch(), j.Records()), nil)
		s, err := k.runtime.Enter("a")
		if err != nil {
			t.Fatal(err)
		}
		var rang []string
		for i := range 2 {
			at := clock.Now().Add(time.Duration(i+1) * time.Hour)
			s.SetLocked(&coordinator.Alarm{Ringer: bell(func(time.Time) { rang = append(rang, fmt.Sprint(i+1)) })}, at)
		}
		s.Unlock()
		heard := func() string {
			synctest.Wait()
			s.Lock()
			defer s.Unlock()
			return strings.Join(rang, " ")
		}
		time.Sleep(24 * time.Hour)
		if got := heard(); got != "" {
			t.Errorf("rang by another clock: %s", got)
		}
		clock.advance(time.Hour)
		if got := heard(); got != "1" {
			t.Errorf("after an hour rang: %q", got)
		}
		clock.advance(time.Hour)
		if got := heard(); got != "1 2" {
			t.Errorf("after two hours rang: %q", got)
		}
	})
}

func TestLoadAndUnload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := new(coordinatortest.Journal)
		n := lead(t, j) // in epoch 1
		n.put(t, "a", "1")
		load := func(epoch int32, records iter.Seq2[record.Record, error]) error {
			return n.runtime.Load(0, epoch, records)
		}
		during := func(do func()) iter.Seq2[record.Record, error] {
			return func(yield func(record.Record, error) bool) {
				do()
				j.Records()(yield)
			}
		}
		want(t, "a load for the epoch that is loaded", load(1, none), coordinator.ErrUnloaded)
		n.has(t, "a", "1")

		broken := errors.New("broken")
		want(t, "a load that cannot read", load(2, func(yield func(record.Record, error) bool) { yield(record.Record{}, broken) }), broken)
		want(t, "a request after it", n.set("a", "2", time.Time{}), coordinator.ErrNotCoordinator)

		want(t, "a load that is asked for something", load(3, during(func() {
			want(t, "a request while it loads", n.set("a", "2", time.Time{}), coordinator.ErrLoadInProgress)
			if machines, loading := n.runtime.Loaded(); len(machines) != 0 || !loading {
				t.Errorf("%d are loaded, and one that loads: %v", len(machines), loading)
			}
		})), nil)
		if machines, loading := n.runtime.Loaded(); len(machines) != 1 || loading {
			t.Errorf("%d are loaded, and one that loads: %v", len(machines), loading)
		}

		want(t, "a load that is overtaken", load(4, during(func() {
			want(t, "the next load", load(5, j.Records()), nil)
		})), coordinator.ErrUnloaded)
		if s, err := n.runtime.Enter("a"); err != nil || s.Epoch != 5 {
			t.Errorf("epoch %d, %v; want 5", s.Epoch, err)
		} else {
			s.Unlock()
		}
		want(t, "a load that is given up", load(6, during(func() { n.runtime.Unload(0) })), coordinator.ErrUnloaded)
		n.runtime.Unload(0) // does no harm
		n.runtime.Close()
		want(t, "a load after the end", load(7, none), coordinator.ErrUnloaded)

		k := newKV(coordinator.Config{Journal: new(wide)})
		want(t, "without a topic", k.set("a", "1", time.Time{}), coordinator.ErrNotAvailable)
	})
}

// One register, whose leaders follow one another while the journal fails in every way
// it may: an acknowledged value is never read older, nor is what was read.
func TestNothingGoesBackWhateverFails(t *testing.T) {
	acknowledged := 0
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) { acknowledged += register(t, seed) })
	}
	if acknowledged < 2000 {
		t.Errorf("only %d values were acknowledged: the test does not test", acknowledged)
	}
}

func register(t *testing.T, seed uint64) int {
	var mu sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1))
	draw := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return random.IntN(n)
	}
	j := new(coordinatortest.Journal)
	var current atomic.Pointer[node]
	current.Store(lead(t, j))
	j.FailBy(fates(func() error {
		switch n := draw(60); {
		case n < 4:
			return errors.New("refused")
		case n == 4:
			return coordinator.ErrUnknownOutcome
		}
		return nil
	}))
	var wg sync.WaitGroup
	var newest atomic.Int64
	acknowledged := 0
	stop := make(chan struct{})
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	wg.Go(func() {
		for i := int64(1); !stopped(); i++ {
			if current.Load().set("a", strconv.FormatInt(i, 10), time.Time{}) == nil {
				newest.Store(i)
				acknowledged++
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	wg.Go(func() {
		highest := int64(0)
		for !stopped() {
			before := newest.Load()
			if value, err := current.Load().get(t.Context(), "a"); err == nil {
				got, _ := strconv.ParseInt(value, 10, 64)
				if got < before || got < highest {
					t.Errorf("seed %d: read %d, %d was acknowledged and %d seen", seed, got, before, highest)
				}
				highest = max(highest, got)
			}
			time.Sleep(130 * time.Millisecond)
		}
	})
	for range 20 {
		time.Sleep(time.Duration(1+draw(15)) * time.Second)
		if draw(2) == 0 {
			j.Hold()
			time.Sleep(200 * time.Millisecond)
		}
		old := current.Load()
		current.Store(lead(t, j))
		j.Release()
		if draw(2) == 0 {
			old.runtime.Unload(0)
		}
	}
	close(stop)
	wg.Wait()
	return acknowledged
}

// The hashes are Java's: "abc".hashCode() is 96354, of "😀" 1772899, and of
// "polygenelubricants" the smallest int, whose absolute value Kafka masks to 0.
func TestPartitionIsJavasHash(t *testing.T) {
	for key, hash := range map[string]int32{"": 0, "abc": 96354, "😀": 1772899, "polygenelubricants": 0, "é": 233} {
		for _, n := range []int32{1, 7, 50} {
			k := newKV(coordinator.Config{Journal: &wide{n: n}})
			if got := k.runtime.PartitionOf(key); got != hash%n {
				t.Errorf("%q of %d: partition %d, want %d", key, n, got, hash%n)
			}
		}
	}
}

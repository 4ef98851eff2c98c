// Package brokertest starts brokers for tests, in the test's own process:
//
//	func TestOrders(t *testing.T) {
//		broker := brokertest.Start(t)
//		client, err := kgo.NewClient(kgo.SeedBrokers(broker.Addr()))
//		…
//		broker.Clock.Advance(30 * 24 * time.Hour) // and what was written a month ago is gone
//	}
//
// A broker has a folder of its own and a free port, and goes with the test. It is no
// stand-in: what is tested against is the broker itself, with its logs on the disk.
//
// Its clock runs with the system's, ahead of it by what Advance was called with. These
// follow it:
//
//   - timestamps that the broker gives, and message.timestamp.type=LogAppendTime
//   - retention (retention.ms), segment.ms, compaction's lags, delete.retention.ms
//   - sessions, rebalances and static members of groups, in both protocols
//   - the expiry of committed offsets, producer ids and deleted topics
//
// These do not: elections of leaders, which Raft times itself; connections that are idle
// or stall; the time-outs that clients ask for (fetch.max.wait.ms, request time-outs); the
// pauses of the compaction (log.cleaner.backoff.ms); and the clients themselves, which go by
// the system's clock in their heartbeats. A consumer at work whose session is shorter than
// a step of the clock is taken for dead, and joins again.
package brokertest

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"time"

	"millrace"
)

// A Broker is a broker of a test.
type Broker struct {
	*millrace.Broker
	// Clock is the broker's; nil if a change gave it another that is no *Clock.
	Clock *Clock
}

// stopTimeout bounds how long a broker takes to end with its test. It guards against
// hanging; a broker alone takes milliseconds.
const stopTimeout = time.Minute

// Start starts a broker that ends with the test. Whatever of its configuration shall be
// otherwise, change it: the brokers of a cluster Join the first one's Addr.
//
// Where nothing else is said, it is alone on 127.0.0.1, warns through t.Log, and has
// settings for tests: one partition for committed offsets, so that the first consumer of a
// group does not wait for fifty to be made, and no delay before a group's first rebalance.
func Start(t testing.TB, change ...func(*millrace.Config)) *Broker {
	t.Helper()
	clock := &Clock{}
	cfg := millrace.Config{
		DataDir: t.TempDir(),
		Clock:   clock,
		Logger:  slog.New(slog.NewTextHandler(writer{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, f := range change {
		f(&cfg)
	}
	settings := map[string]string{
		"offsets.topic.num.partitions":     "1",
		"group.initial.rebalance.delay.ms": "0",
	}
	maps.Copy(settings, cfg.Settings)
	cfg.Settings = settings
	b, err := millrace.Start(t.Context(), cfg)
	if err != nil {
		t.Fatalf("a broker did not start: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Err(); err != nil {
			t.Errorf("a broker has failed: %v", err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Errorf("a broker did not stop in order: %v", err)
		}
	})
	clock, _ = cfg.Clock.(*Clock)
	return &Broker{b, clock}
}

// writer sends a broker's diagnostics to the test's log, as long as the test runs.
type writer struct{ t testing.TB }

func (w writer) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

// A Clock runs with the system's, and may be set ahead. It is safe for concurrent use;
// several brokers may share one. The zero Clock is ready for use.
type Clock struct {
	mu     sync.Mutex
	ahead  time.Duration
	timers map[*timer]struct{} // that have not gone off
}

// Now implements millrace.Clock.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nowLocked()
}

func (c *Clock) nowLocked() time.Time { return time.Now().Add(c.ahead) }

// Advance sets the clock ahead by d, 0 or more, and has whatever is due by then begin. It does
// not wait for that to be done: brokers look about every quarter of a second for records
// that have expired.
func (c *Clock) Advance(d time.Duration) {
	if d < 0 {
		panic("brokertest: a clock is set back by " + (-d).String())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ahead += d
	now := c.nowLocked()
	for t := range c.timers {
		t.system.Reset(max(t.at.Sub(now), 0))
	}
}

// AfterFunc implements millrace.Clock.
func (c *Clock) AfterFunc(d time.Duration, f func()) millrace.Timer {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &timer{clock: c}
	t.setLocked(d) // first: the system's timer must not go off before it is due
	t.system = time.AfterFunc(d, func() {
		if t.due() {
			f()
		}
	})
	return t
}

// A timer is one of a Clock.
type timer struct {
	clock  *Clock
	system *time.Timer
	at     time.Time // under Clock.mu
}

func (t *timer) setLocked(d time.Duration) {
	t.at = t.clock.nowLocked().Add(d)
	if t.clock.timers == nil {
		t.clock.timers = make(map[*timer]struct{})
	}
	t.clock.timers[t] = struct{}{}
}

// due says whether the timer goes off now: Advance may have had the system's do so
// twice, or Reset have come in between.
func (t *timer) due() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	if _, pending := t.clock.timers[t]; !pending {
		return false
	}
	if early := t.at.Sub(t.clock.nowLocked()); early > 0 {
		t.system.Reset(early) // else nobody would
		return false
	}
	delete(t.clock.timers, t)
	return true
}

// Stop implements millrace.Timer.
func (t *timer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	t.system.Stop()
	_, pending := t.clock.timers[t]
	delete(t.clock.timers, t)
	return pending
}

// Reset implements millrace.Timer.
func (t *timer) Reset(d time.Duration) bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	_, pending := t.clock.timers[t]
	t.setLocked(d)
	t.system.Reset(d)
	return pending
}

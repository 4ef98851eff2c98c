package group

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	"millrace/segment/record"
	"millrace/server/coordinator"
	"millrace/server/protocol"
)

// Config is what a Coordinator works with. Journal must be set; everything else
// has a default.
type Config struct {
	Journal coordinator.Journal

	// Topics says which topics there are. Nil: every topic exists, and none is
	// ever deleted.
	Topics Topics

	Settings SettingsSource // nil: all defaults

	Logger *slog.Logger      // nil: discards
	Clock  coordinator.Clock // nil: the system's
}

// A Client is who sent a request: the client.id it goes by and its address in
// Kafka's notation, "/192.0.2.1".
type Client struct{ ID, Host string }

// A Coordinator serves the groups of the partitions that were loaded into it. All
// methods may be called at once from many goroutines.
type Coordinator struct {
	cfg     Config
	memory  memory       // what members hold, of all groups
	pending atomic.Int64 // what those about to join hold, of all groups

	workers   sync.WaitGroup
	working   chan struct{} // one token a plan under way
	matching  door          // of those that match an expression
	assignors map[string]assignor

	planAtOnce  int // see planAtOnce
	sweepAtOnce int // see sweepAtOnce

	shards *coordinator.Runtime[*shard]

	closing sync.Once
	done    chan struct{} // closed by Close
	watcher sync.WaitGroup
}

// New returns a coordinator that serves nothing until Load. Close it.
func New(cfg Config) *Coordinator {
	if cfg.Settings == nil {
		cfg.Settings = defaults{}
	}
	c := &Coordinator{
		cfg: cfg, done: make(chan struct{}),
		working:    make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		assignors:  map[string]assignor{"uniform": uniformAssignor{}, "range": rangeAssignor{}},
		planAtOnce: planAtOnce, sweepAtOnce: sweepAtOnce,
	}
	c.shards = coordinator.New(coordinator.Config{
		Things: "groups", Journal: cfg.Journal, Logger: cfg.Logger, Clock: cfg.Clock,
	}, shards{c})
	if cfg.Topics != nil {
		c.watcher.Go(c.watchTopics)
	}
	return c
}

// Close unloads everything and stops the coordinator's goroutine and timers.
// Requests that wait are answered NOT_COORDINATOR, as all later ones are.
func (c *Coordinator) Close() {
	c.closing.Do(func() { close(c.done) })
	c.shards.Close()
	c.watcher.Wait()
	c.workers.Wait()
}

// work waits for a turn to use a core for long; false: the coordinator closes.
func (c *Coordinator) work() (release func(), ok bool) {
	select {
	case c.working <- struct{}{}:
		return func() { <-c.working }, true
	case <-c.done:
		return nil, false
	}
}

// groupSettings returns what holds for one group.
func (c *Coordinator) groupSettings(id string) GroupSettings {
	return c.settings().Consumer.of(c.cfg.Settings.OfGroup(id))
}

func (c *Coordinator) settings() Settings { return c.cfg.Settings.Settings().withDefaults() }

// Load replays the records of a partition of __consumer_offsets that this node leads in
// epoch, and serves its groups from then on: see coordinator.Runtime.
func (c *Coordinator) Load(partition, epoch int32, records iter.Seq2[record.Record, error]) error {
	return c.shards.Load(partition, epoch, records)
}

// Unload stops serving a partition: see coordinator.Runtime. Requests that wait are
// answered NOT_COORDINATOR.
func (c *Coordinator) Unload(partition int32) { c.shards.Unload(partition) }

// Partition returns the partition of __consumer_offsets that a group belongs to.
func (c *Coordinator) Partition(group string) int32 { return c.shards.PartitionOf(group) }

// shardOf returns the shard of a group with its lock held, or a code. The caller
// defers shard.Unlock.
func (c *Coordinator) shardOf(group string) (*shard, protocol.Code) {
	s, err := c.shards.Enter(group)
	return s, codeOf(err)
}

// codeOf is what a client gets where an append ended so, or no shard was entered.
func codeOf(err error) protocol.Code {
	switch {
	case err == nil:
		return protocol.None
	case coordinator.Lost(err), errors.Is(err, coordinator.ErrNotCoordinator):
		return protocol.NotCoordinator
	case errors.Is(err, coordinator.ErrTooLarge):
		return protocol.UnknownServerError // as Kafka
	case errors.Is(err, coordinator.ErrLoadInProgress):
		return protocol.CoordinatorLoadInProgress
	default:
		return protocol.CoordinatorNotAvailable
	}
}

// await returns what answer is given, or otherwise() if ctx ends first.
func await[T any](ctx context.Context, answer <-chan T, otherwise func() T) T {
	select {
	case a := <-answer:
		return a
	case <-ctx.Done():
		return otherwise()
	}
}

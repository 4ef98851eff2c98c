// Package group is the group coordinator: who is in a consumer group, who reads
// which partition, and how far each group has read.
//
// It is pure of network and replication. What it decides goes through a Journal,
// one sequence of records a partition of __consumer_offsets, in Kafka's own
// record formats; what it knows is what those records say, plus timers and the
// requests that wait. A partition is served between Load and Unload by a shard:
// one mutex, one map of groups, one timer.
//
// # How it is built
//
//	Coordinator   finds the shard of a group, and speaks kmsg both ways
//	shard         lock, epoch, groups, alarms; appends to the journal and learns, in order, what came of it
//	group         a name, its committed offsets and its membership
//	membership    classic (classic.go) or consumer (KIP-848): a state machine under the shard's lock
//
// A state machine calls three things of its shard, all with the lock held:
// setLocked and stopLocked for alarms, appendLocked for records. The function
// given to appendLocked runs later, with the lock held again, in the order of the
// appends; what must not be seen before it is durable changes there and nowhere
// else. Replay, at Load, is dispatched by the version of the record's key in
// shard.replayLocked.
//
// # What is promised
//
// A committed offset is visible, and acknowledged, only when a quorum has it, and
// OffsetFetch answers only after Journal.Confirm: committed offsets are a
// linearizable register, across failovers too. An append whose outcome is not
// known unloads the shard, so that memory never holds what the journal may not.
package group

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf16"

	"millrace/segment/record"
)

// Config is what a Coordinator works with. Journal must be set; everything else
// has a default.
type Config struct {
	Journal Journal

	// Topics says which topics there are. Nil: every topic exists, and none is
	// ever deleted.
	Topics Topics

	// Settings is asked at each use, so that settings can change while groups
	// live. Nil: all defaults.
	Settings func() Settings

	// Group is asked for what is set for one group by name, at each heartbeat. It
	// does not block. Nil: nothing is.
	Group func(id string) GroupSettings

	// Partitions is the number of partitions of __consumer_offsets; 0: not created
	// yet, requests get COORDINATOR_NOT_AVAILABLE. Nil: 50.
	Partitions func() int32

	// Lost, if set, is called when the coordinator unloaded a partition by itself,
	// because an append's outcome is unknown or the journal said that this node
	// leads no more. Whoever calls Load should do so again if the node still leads.
	// It must not block and holds no lock of the coordinator.
	Lost func(partition, epoch int32)

	Logger *slog.Logger     // nil: discards
	Now    func() time.Time // nil: time.Now. Its times carry a monotonic reading, so that a clock that is set ends no session.
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

	workers  sync.WaitGroup
	working  chan struct{} // one token a plan under way
	matching door          // of those that match an expression

	mu     sync.RWMutex // taken with a shard's lock held, never the other way round
	shards map[int32]*shard
	closed bool

	done    chan struct{} // closed by Close
	watcher sync.WaitGroup
}

// New returns a coordinator that serves nothing until Load. Close it.
func New(cfg Config) *Coordinator {
	if cfg.Settings == nil {
		cfg.Settings = func() Settings { return Settings{} }
	}
	if cfg.Partitions == nil {
		cfg.Partitions = func() int32 { return 50 }
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	c := &Coordinator{
		cfg: cfg, shards: make(map[int32]*shard), done: make(chan struct{}),
		working: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	if cfg.Topics != nil {
		c.watcher.Go(c.watchTopics)
	}
	return c
}

// Close unloads everything and stops the coordinator's goroutine and timers.
// Requests that wait are answered NOT_COORDINATOR, as all later ones are.
func (c *Coordinator) Close() {
	c.mu.Lock()
	was := c.closed
	c.closed = true
	shards := c.shards
	c.shards = make(map[int32]*shard)
	c.mu.Unlock()
	if was {
		return
	}
	close(c.done)
	for _, s := range shards {
		s.unload()
	}
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
	var own GroupSettings
	if c.cfg.Group != nil {
		own = c.cfg.Group(id)
	}
	return c.settings().Consumer.of(own)
}

func (c *Coordinator) settings() Settings { return c.cfg.Settings().withDefaults() }

// Partition returns the partition of __consumer_offsets that a group belongs to:
// Java's String.hashCode without its sign, modulo their number. 0 when there are
// none yet.
func (c *Coordinator) Partition(group string) int32 {
	n := c.cfg.Partitions()
	if n <= 0 {
		return 0
	}
	return partitionOf(group, n)
}

func partitionOf(group string, n int32) int32 {
	var h int32
	for _, r := range group {
		if hi, lo := utf16.EncodeRune(r); hi != '\uFFFD' {
			h = 31*(31*h+hi) + lo
		} else {
			h = 31*h + r
		}
	}
	return h & 0x7fffffff % n
}

// ErrUnloaded is what Load returns when its partition was unloaded, or loaded for
// another epoch, before it was done.
var ErrUnloaded = errors.New("group: unloaded")

// Load replays the records of a partition that this node leads in epoch, oldest
// first, and serves its groups from then on. Until it returns, requests for them
// get COORDINATOR_LOAD_IN_PROGRESS. records must hold everything that was
// committed before epoch began; their bytes are not retained. An error they yield
// ends the load, and nothing of the partition is served.
//
// A partition that is loaded for an older epoch is unloaded first; one that is
// loaded for this or a newer epoch stays as it is, with ErrUnloaded.
func (c *Coordinator) Load(partition, epoch int32, records iter.Seq2[record.Record, error]) error {
	s := newShard(c, partition, epoch)
	c.mu.Lock()
	old := c.shards[partition]
	if c.closed || old != nil && old.epoch >= epoch {
		c.mu.Unlock()
		return fmt.Errorf("%w: partition %d is not to be loaded for epoch %d", ErrUnloaded, partition, epoch)
	}
	c.shards[partition] = s
	c.mu.Unlock()
	if old != nil {
		old.unload()
	}
	err := s.load(records)
	if err != nil {
		c.remove(s)
		s.unload()
	}
	return err
}

// Unload stops serving a partition and drops its state. Requests that wait are
// answered NOT_COORDINATOR. It may be called for a partition that is not loaded.
func (c *Coordinator) Unload(partition int32) {
	c.mu.Lock()
	s := c.shards[partition]
	delete(c.shards, partition)
	c.mu.Unlock()
	if s != nil {
		s.unload()
	}
}

// remove takes s out of the map unless another took its place.
func (c *Coordinator) remove(s *shard) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shards[s.partition] == s {
		delete(c.shards, s.partition)
	}
}

// shardOf returns the shard of a group with its lock held, or a code. The caller
// defers shard.leave.
func (c *Coordinator) shardOf(group string) (*shard, int16) {
	n := c.cfg.Partitions()
	if n <= 0 {
		return nil, coordinatorNotAvailable
	}
	c.mu.RLock()
	s := c.shards[partitionOf(group, n)]
	c.mu.RUnlock()
	if s == nil {
		return nil, notCoordinator
	}
	if s.loading.Load() {
		return nil, coordinatorLoadInProgress // without waiting for the lock, which the load holds
	}
	s.mu.Lock()
	if s.unloaded {
		s.mu.Unlock()
		return nil, notCoordinator
	}
	return s, none
}

// loaded returns the shards, in no order, and whether some are being loaded.
func (c *Coordinator) loaded() (shards []*shard, loading bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	for _, s := range c.shards {
		if s.loading.Load() {
			loading = true
		} else {
			shards = append(shards, s)
		}
	}
	return shards, loading
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

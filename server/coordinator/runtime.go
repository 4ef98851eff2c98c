package coordinator

import (
	"fmt"
	"io"
	"iter"
	"log/slog"
	"sync"
	"unicode/utf16"

	"millrace/segment/record"
)

// A StateMachine is what a coordinator knows of one partition. It embeds the *Shard
// it was made for. Its methods are called with the shard's lock held.
type StateMachine interface {
	// ReplayLocked applies one record: of those in the journal at Load, and of each
	// that WriteLocked has appended. A record with an error is logged and skipped, as
	// is one that makes it panic: what an operator or a newer release wrote must not
	// keep the rest from being served.
	ReplayLocked(r record.Record) error

	// LoadedLocked is called once, when the whole journal is replayed and before any
	// request: alarms are set here. It returns how many things it knows, for the log.
	LoadedLocked() int

	// UnloadedLocked is called once, last of all: it answers whoever waits and gives
	// back what is counted elsewhere. Pending appends have their outcome by then,
	// alarms do not go off any more, and nothing can be appended. It is also called
	// when Load fails, and after a panic, with whatever state there is.
	UnloadedLocked()
}

// Machines makes the state machines of a coordinator.
type Machines[S StateMachine] interface {
	// New returns a state machine for a partition that is about to be loaded. It knows
	// nothing yet.
	New(s *Shard) S
}

// Config is what a Runtime works with. Journal must be set; everything else has a
// default.
type Config struct {
	// Things is what the state machines know, in the plural: "groups". It is said in
	// the log. "": "things".
	Things string

	Journal Journal

	Logger *slog.Logger // nil: discards
	Clock  Clock        // nil: the system's
}

// A Runtime holds the shards of one coordinator, by partition: those between Load and
// Unload. All methods may be called at once from many goroutines.
type Runtime[S StateMachine] struct {
	cfg      Config
	machines Machines[S]

	mu     sync.RWMutex // taken with a shard's lock held, never the other way round
	shards map[int32]hosted[S]
	closed bool
}

// hosted is a shard with its state machine.
type hosted[S StateMachine] struct {
	*Shard
	machine S
}

// New returns a runtime that serves nothing until Load. Close it.
func New[S StateMachine](cfg Config, machines Machines[S]) *Runtime[S] {
	if cfg.Things == "" {
		cfg.Things = "things"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	if cfg.Clock == nil {
		cfg.Clock = SystemClock{}
	}
	return &Runtime[S]{cfg: cfg, machines: machines, shards: make(map[int32]hosted[S])}
}

// Close unloads everything, for good.
func (rt *Runtime[S]) Close() {
	rt.mu.Lock()
	rt.closed = true
	shards := rt.shards
	rt.shards = make(map[int32]hosted[S])
	rt.mu.Unlock()
	for _, h := range shards {
		h.unload()
	}
}

// PartitionOf returns the partition of the topic that a key belongs to: Java's
// String.hashCode without its sign, modulo their number, as for all of Kafka's
// coordinators. 0 when there are none yet.
func (rt *Runtime[S]) PartitionOf(key string) int32 {
	n := rt.cfg.Journal.Partitions()
	if n <= 0 {
		return 0
	}
	return partitionOf(key, n)
}

func partitionOf(key string, n int32) int32 {
	var h int32
	for _, r := range key {
		if hi, lo := utf16.EncodeRune(r); hi != '\uFFFD' {
			h = 31*(31*h+hi) + lo
		} else {
			h = 31*h + r
		}
	}
	return h & 0x7fffffff % n
}

// Enter returns the state machine of a key, with its shard's lock held: the caller
// defers Unlock. It does not wait for a load.
func (rt *Runtime[S]) Enter(key string) (s S, err error) {
	n := rt.cfg.Journal.Partitions()
	if n <= 0 {
		return s, ErrNotAvailable
	}
	rt.mu.RLock()
	h, ok := rt.shards[partitionOf(key, n)]
	rt.mu.RUnlock()
	if !ok {
		return s, ErrNotCoordinator
	}
	if h.loading.Load() {
		return s, ErrLoadInProgress // without waiting for the lock, which the load holds
	}
	h.Lock()
	if h.unloaded {
		h.mu.Unlock()
		return s, ErrNotCoordinator
	}
	return h.machine, nil
}

// Loaded returns the state machines of all shards, in no order and not locked, and
// whether some partition is being loaded.
func (rt *Runtime[S]) Loaded() (machines []S, loading bool) {
	rt.mu.RLock()
	defer rt.mu.RUnlock()
	for _, h := range rt.shards {
		if h.loading.Load() {
			loading = true
		} else {
			machines = append(machines, h.machine)
		}
	}
	return machines, loading
}

// Load replays the records of a partition that this node leads in epoch, oldest
// first, and serves its keys from then on. Until it returns, requests for them get
// ErrLoadInProgress. records must hold everything that was committed before epoch
// began; their bytes are not retained. An error they yield ends the load, and nothing
// of the partition is served.
//
// A partition that is loaded for an older epoch is unloaded first; one that is loaded
// for this or a newer epoch stays as it is, with ErrUnloaded.
func (rt *Runtime[S]) Load(partition, epoch int32, records iter.Seq2[record.Record, error]) error {
	s := &Shard{
		Partition: partition, Epoch: epoch,
		Log: rt.cfg.Logger.With("partition", partition, "epoch", epoch),
		cfg: &rt.cfg, host: rt,
	}
	s.loading.Store(true)
	machine := rt.machines.New(s)
	s.machine = machine
	rt.mu.Lock()
	old, was := rt.shards[partition]
	if rt.closed || was && old.Epoch >= epoch {
		rt.mu.Unlock()
		return fmt.Errorf("%w: partition %d is not to be loaded for epoch %d", ErrUnloaded, partition, epoch)
	}
	rt.shards[partition] = hosted[S]{s, machine}
	rt.mu.Unlock()
	if was {
		old.unload()
	}
	err := s.load(records)
	if err != nil {
		rt.remove(s)
		s.unload()
	}
	return err
}

// Unload stops serving a partition and drops its state. Whoever waits is answered,
// pending appends end with ErrUnloaded. It may be called for a partition that is not
// loaded.
func (rt *Runtime[S]) Unload(partition int32) {
	rt.mu.Lock()
	h, ok := rt.shards[partition]
	delete(rt.shards, partition)
	rt.mu.Unlock()
	if ok {
		h.unload()
	}
}

// remove takes s out of the map unless another took its place.
func (rt *Runtime[S]) remove(s *Shard) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.shards[s.Partition].Shard == s {
		delete(rt.shards, s.Partition)
	}
}

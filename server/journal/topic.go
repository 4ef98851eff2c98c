// Package journal makes a topic of the cluster's own the journal of a coordinator: the
// topic is created when it is first needed, each partition that this node leads is
// loaded into the coordinator and unloaded when it leads it no more, and what the
// coordinator decides is appended, in the epoch that was loaded.
//
// Package coordinator says what is kept in a partition and what that means; this one
// knows nodes, replicas and batches, and nothing of what records say. A coordinator has
// a topic of its own: __consumer_offsets, __transaction_state, __share_group_state.
//
// # What is promised
//
// A partition is loaded for an epoch only with all that was committed before it, and
// no append of an earlier load can come to stand behind what was read: a load waits
// until those on their way have an outcome. A load that fails is tried again as long
// as this node leads. When Run returns, nothing is loaded any more.
package journal

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"

	"millrace/internal/slowlog"
	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/segment/record"
	"millrace/server/coordinator"
)

// Config is what a Topic works with.
type Config struct {
	Node *replication.Node
	Name string // of the topic

	Spec Spec

	Logger *slog.Logger
	Clock  coordinator.Clock // stamps records; nil: the system's
}

// A Spec says how a topic is, by the settings now in force.
type Spec interface {
	// Request is how the topic is made, by whoever is first to need it.
	Request() replication.TopicRequest
	// Codec compresses what is appended.
	Codec() record.Codec
}

// A Coordinator is who the partitions are loaded into: see coordinator.Runtime.
type Coordinator interface {
	Load(partition, epoch int32, records iter.Seq2[record.Record, error]) error
	Unload(partition int32)
}

// A Topic is a journal: it implements coordinator.Journal. All methods may be called at
// once from many goroutines, Run once.
type Topic struct {
	cfg      Config
	slow     slowlog.Limit // of warnings
	creating sync.Mutex    // held while the topic is created

	ctx     context.Context // Run's
	into    Coordinator     // Run's
	kick    chan struct{}   // a look is due
	loads   chan struct{}   // one token a load under way
	loaders sync.WaitGroup

	mu    sync.Mutex
	parts map[int32]*hosted
	turns map[int32]*sync.Mutex // held by a partition's loader
}

// New returns the journal that a topic is, before it is run and whether or not the
// topic is there yet.
func New(cfg Config) *Topic {
	if cfg.Clock == nil {
		cfg.Clock = coordinator.SystemClock{}
	}
	return &Topic{
		cfg:   cfg,
		kick:  make(chan struct{}, 1),
		loads: make(chan struct{}, loadsAtOnce),
		parts: make(map[int32]*hosted),
		turns: make(map[int32]*sync.Mutex),
	}
}

// Metadata returns the topic as the node's image has it; one without partitions while
// it is not there.
func (t *Topic) Metadata() *metadata.Topic {
	if topic, ok := t.cfg.Node.Image().Topic(t.cfg.Name); ok {
		return topic
	}
	return &metadata.Topic{}
}

// Partitions implements coordinator.Journal. 0: the topic is not there yet.
func (t *Topic) Partitions() int32 { return int32(len(t.Metadata().Partitions)) }

// Create creates the topic unless it is there. Many may do so at once, on one node or
// on several: the controller takes the first. The node's image may have it only later.
func (t *Topic) Create(ctx context.Context) error {
	t.creating.Lock()
	defer t.creating.Unlock()
	if t.Partitions() > 0 {
		return nil
	}
	_, err := t.cfg.Node.CreateTopic(ctx, t.cfg.Spec.Request())
	if errors.Is(err, metadata.ErrTopicExists) {
		return nil
	}
	return err
}

func (t *Topic) warn(message string, args ...any) {
	t.slow.Warn(t.cfg.Logger, message, message, append(args, "topic", t.cfg.Name)...)
}

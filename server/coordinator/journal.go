package coordinator

import (
	"context"
	"errors"

	"millrace/segment/record"
)

// A Journal is a coordinator's topic: it keeps what is decided, one sequence of records
// a partition, and sees to it that the partitions that this node leads are loaded.
// *journal.Topic is one, coordinatortest.Journal another for tests.
type Journal interface {
	// Partitions is the number of partitions of the topic; 0: it has not been created
	// yet.
	Partitions() int32

	// Append appends records, as one batch, wholly or not at all, to partition while
	// this node leads it in epoch. Batches stand in the order of the calls. done is
	// called exactly once, on any goroutine and possibly before Append returns; it
	// does not block. nil: a quorum has them. An error that wraps ErrUnknownOutcome:
	// they may or may not survive. Any other error: surely not appended; ErrNotLeader
	// and ErrTooLarge are told apart.
	//
	// Append does not block. It must not call into the coordinator. The records are
	// not written to by either side afterwards.
	Append(partition, epoch int32, records []record.Record, done func(error))

	// Confirm returns nil if this node led partition in epoch at some moment after
	// the call, a quorum being the witness.
	Confirm(ctx context.Context, partition, epoch int32) error

	// Lost says that the coordinator has unloaded a partition by itself: an append's
	// outcome is unknown, the journal said that this node leads no more, or there was a
	// panic. Who calls Runtime.Load is to do so again if this node still leads. Lost
	// does not block, and is called without any lock of the runtime.
	Lost(partition, epoch int32)
}

// What a Journal's errors may wrap.
var (
	ErrUnknownOutcome = errors.New("coordinator: append may or may not survive")
	ErrNotLeader      = errors.New("coordinator: not the leader in this epoch")
	ErrTooLarge       = errors.New("coordinator: records too large for one batch")
)

// What Runtime.Enter returns where there is no shard to enter; each is an error code
// of Kafka's.
var (
	ErrNotAvailable   = errors.New("coordinator: its topic has not been created")
	ErrNotCoordinator = errors.New("coordinator: the partition is not loaded here")
	ErrLoadInProgress = errors.New("coordinator: the partition is being loaded")
)

// ErrUnloaded is the outcome of an append whose shard was unloaded meanwhile: only
// the journal knows what became of it. Load returns it when its partition was
// unloaded, or loaded for another epoch, before it was done.
var ErrUnloaded = errors.New("coordinator: unloaded")

// Lost reports whether a shard cannot go on after an append that ended so. It is
// unloaded by the time its Appender is told.
func Lost(err error) bool {
	return errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnloaded)
}

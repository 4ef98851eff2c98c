package coordinator

import (
	"context"
	"errors"

	"millrace/segment/record"
)

// A Journal keeps what a coordinator decides: one sequence of records a partition of
// its topic.
type Journal interface {
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
// unloaded by the time its done is called.
func Lost(err error) bool {
	return errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnloaded)
}

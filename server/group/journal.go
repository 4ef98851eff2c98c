package group

import (
	"context"
	"errors"

	"millrace/segment/record"
)

// A Journal keeps what the coordinator decides: one sequence of records a
// partition of __consumer_offsets.
type Journal interface {
	// Append appends records, as one batch, wholly or not at all, to partition while
	// this node leads it in epoch. Batches land in the order of the calls. done is
	// called exactly once, on any goroutine and possibly before Append returns; it
	// does not block. nil: a quorum has them. An error that wraps ErrUnknownOutcome:
	// they may or may not survive. Any other error: surely not appended; ErrNotLeader
	// and ErrTooLarge are told apart.
	//
	// Append does not block. It must not call into the coordinator. The records are
	// not written to by either side afterwards.
	Append(partition, epoch int32, records []record.Record, done func(error))

	// Confirm returns nil if this node led partition in epoch at some moment after
	// the call, a quorum being the witness. Reads of committed offsets wait for it.
	Confirm(ctx context.Context, partition, epoch int32) error
}

// What a Journal's errors may wrap.
var (
	ErrUnknownOutcome = errors.New("group: append may or may not survive")
	ErrNotLeader      = errors.New("group: not the leader in this epoch")
	ErrTooLarge       = errors.New("group: records too large for one batch")
)

// Topics is what the coordinator may know about topics. Its methods answer from
// one image of the cluster's metadata at a time, and images only get newer.
type Topics interface {
	Topic(name string) (id [16]byte, partitions int32, ok bool)
	TopicByID(id [16]byte) (name string, partitions int32, ok bool)
	Names() []string
	Changed() <-chan struct{} // closed when a newer image comes
}

// codeOf is what a client gets for an append that ended so.
func codeOf(err error) int16 {
	switch {
	case err == nil:
		return none
	case lost(err):
		return notCoordinator
	case errors.Is(err, ErrTooLarge):
		return unknownServerError // as Kafka
	default:
		return coordinatorNotAvailable
	}
}

// lost tells whether a shard must not go on after an append that ended so.
func lost(err error) bool {
	return errors.Is(err, ErrUnknownOutcome) || errors.Is(err, ErrNotLeader) || errors.Is(err, ErrUnloaded)
}

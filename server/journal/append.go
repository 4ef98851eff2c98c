package journal

import (
	"context"
	"errors"
	"fmt"

	"millrace/replication"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/server/coordinator"
)

// maxBatch bounds the records of one decision. They wait in memory on
// three nodes, and become one entry of the log.
const maxBatch = 32 << 20

// Append implements coordinator.Journal.
func (t *Topic) Append(index, epoch int32, records []record.Record, done func(error)) {
	h := t.hosted(index)
	if h == nil {
		done(coordinatorError(replication.ErrNotHosted))
		return
	}
	b, err := t.batch(records)
	if err != nil {
		done(err)
		return
	}
	h.pending.Add(1)
	err = h.partition.AppendIn(epoch, []record.Batch{b}, decision(func(err error) {
		h.pending.Add(-1)
		done(err)
	}))
	if err != nil {
		h.pending.Add(-1)
		done(coordinatorError(err))
	}
}

// A decision is told what came of it. It implements partition.Appender.
type decision func(error)

// Appended implements partition.Appender.
func (d decision) Appended(_ partition.Ack, err error) { d(coordinatorError(err)) }

// batch makes one batch of records, stamped with the time if they are not yet.
func (t *Topic) batch(records []record.Record) (record.Batch, error) {
	bu := record.Builder{Codec: t.cfg.Spec.Codec()}
	now := t.cfg.Clock.Now().UnixMilli()
	for _, r := range records {
		if r.Timestamp <= 0 {
			r.Timestamp = now
		}
		bu.Append(r)
		if bu.Size() > maxBatch {
			return nil, fmt.Errorf("%w: more than %d bytes", coordinator.ErrTooLarge, maxBatch)
		}
	}
	return bu.Batch()
}

// Confirm implements coordinator.Journal.
func (t *Topic) Confirm(ctx context.Context, index, epoch int32) error {
	h := t.hosted(index)
	if h == nil {
		return coordinatorError(replication.ErrNotHosted)
	}
	now, err := h.partition.Confirm(ctx)
	if err == nil && now != epoch {
		err = partition.ErrNotLeader
	}
	return coordinatorError(err)
}

// coordinatorError says an error of a partition as coordinators know it.
func coordinatorError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replication.ErrUnknown):
		return fmt.Errorf("%w: %w", coordinator.ErrUnknownOutcome, err)
	case errors.Is(err, partition.ErrNotLeader), errors.Is(err, replication.ErrNotHosted),
		errors.Is(err, partition.ErrQuarantined), errors.Is(err, replication.ErrClosed):
		return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
	}
	return err
}

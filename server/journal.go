package server

import (
	"context"
	"errors"
	"fmt"

	"millrace/replication"
	"millrace/segment/record"
	"millrace/server/coordinator"
)

// A journal is the partitions of __consumer_offsets as group coordinators see
// them: they append while they lead, in the epoch in which they read what was
// there before, and ask whether they still do.
type journal struct{ *Server }

// maxJournalBatch bounds the records of one decision. They wait in memory on
// three nodes, and become one entry of the log.
const maxJournalBatch = 32 << 20

// Append implements coordinator.Journal.
func (j journal) Append(partition, epoch int32, records []record.Record, done func(error)) {
	l := j.watch.led(partition)
	if l == nil {
		done(journalError(replication.ErrNotHosted))
		return
	}
	b, err := j.batch(records)
	if err != nil {
		done(err)
		return
	}
	l.flying.Add(1)
	err = l.partition.AppendIn(epoch, []record.Batch{b}, func(_ replication.Ack, err error) {
		l.flying.Add(-1)
		done(journalError(err))
	})
	if err != nil {
		l.flying.Add(-1)
		done(journalError(err))
	}
}

// batch makes one batch of records, stamped with the time if they are not yet.
func (j journal) batch(records []record.Record) (record.Batch, error) {
	bu := record.Builder{Codec: record.Codec(j.settings().broker.OffsetsCodec)}
	now := j.now().UnixMilli()
	for _, r := range records {
		if r.Timestamp <= 0 {
			r.Timestamp = now
		}
		bu.Append(r)
		if bu.Size() > maxJournalBatch {
			return nil, fmt.Errorf("%w: more than %d bytes", coordinator.ErrTooLarge, maxJournalBatch)
		}
	}
	return bu.Batch()
}

// Confirm implements coordinator.Journal.
func (j journal) Confirm(ctx context.Context, partition, epoch int32) error {
	l := j.watch.led(partition)
	if l == nil {
		return journalError(replication.ErrNotHosted)
	}
	now, err := l.partition.Confirm(ctx)
	if err == nil && now != epoch {
		err = replication.ErrNotLeader
	}
	return journalError(err)
}

// journalError says an error of a partition as groups know it.
func journalError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, replication.ErrUnknown):
		return fmt.Errorf("%w: %w", coordinator.ErrUnknownOutcome, err)
	case errors.Is(err, replication.ErrNotLeader), errors.Is(err, replication.ErrNotHosted),
		errors.Is(err, replication.ErrQuarantined), errors.Is(err, replication.ErrClosed):
		return fmt.Errorf("%w: %w", coordinator.ErrNotLeader, err)
	}
	return err
}

package record

import (
	"errors"
	"fmt"
)

// What can be wrong with a batch. Validate wraps them with the detail; the
// number is the Kafka error code that fits.
var (
	// ErrShort means that the bytes end before the batch does. Only Split
	// returns it: the end of a fetched response is often a piece of a batch.
	ErrShort = errors.New("record: batch cut short")

	// ErrCorrupt means that the bytes are no batch: an impossible length, an
	// unknown magic, a wrong checksum. CORRUPT_MESSAGE (2); a client retries.
	ErrCorrupt = errors.New("record: corrupt batch")

	// ErrChecksum is the ErrCorrupt of a batch whose CRC-32C is not its own.
	ErrChecksum = fmt.Errorf("%w: wrong checksum", ErrCorrupt)

	// ErrMagic means a message set of before Kafka 0.11, magic 0 or 1.
	// UNSUPPORTED_FOR_MESSAGE_FORMAT (43).
	ErrMagic = errors.New("record: message format older than v2")

	// ErrTooLarge means more bytes than the limit, either as they are or
	// expanded. MESSAGE_TOO_LARGE (10); the Java client splits the batch and
	// tries again.
	ErrTooLarge = errors.New("record: batch too large")

	// ErrCodec means a codec that Kafka does not know.
	// UNSUPPORTED_COMPRESSION_TYPE (76).
	ErrCodec = errors.New("record: unknown compression codec")

	// ErrInvalid means a batch that arrived whole and contradicts itself or the
	// protocol. INVALID_RECORD (87); to send it again would not help.
	ErrInvalid = errors.New("record: invalid batch")

	// ErrControl is the ErrInvalid of a control batch, which only the broker
	// may write.
	ErrControl = fmt.Errorf("%w: control batch from a client", ErrInvalid)

	// ErrTimestamp means that the producer claims append time. Validate has cleared
	// the claim and returns the batch beside this error: Kafka takes it where
	// the topic keeps the producers' times. INVALID_TIMESTAMP (32).
	ErrTimestamp = errors.New("record: append time set by a client")

	// ErrTransactional means a batch that belongs to a transaction and is
	// otherwise in order: Validate returns the batch beside this error, so that
	// whoever holds transactions can go on with it.
	ErrTransactional = errors.New("record: transactional batch")
)

// A RecordError is the ErrInvalid of one record in a batch.
type RecordError struct {
	Index  int    // of the record in its batch, from 0
	Reason string // a clause: "negative key length -5"
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("%v: record %d: %s", ErrInvalid, e.Index, e.Reason)
}

// Unwrap returns ErrInvalid.
func (e *RecordError) Unwrap() error { return ErrInvalid }

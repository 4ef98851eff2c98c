package partition

import "errors"

// Errors a caller can act on, beside raftgroup.ErrUnknown and raftgroup.ErrClosed.
var (
	// ErrNotLeader: the replica here does not lead, or may not serve yet. What was asked was not done.
	ErrNotLeader = errors.New("partition: not the leader of the partition")
	// ErrNoSpace: the disk is full. Nothing was written; the same append may succeed once there is room.
	ErrNoSpace = errors.New("partition: no space left for the partition")
	// ErrRefused: the node lacks descriptors, mappings or memory. Nothing was done; the same call may succeed soon.
	ErrRefused = errors.New("partition: refused for want of descriptors, mappings or memory; raise the limits of the process (ulimit -n, vm.max_map_count) or close connections")
	// ErrQuarantined: the replica's data is damaged, or it failed too often; it neither votes nor serves.
	ErrQuarantined = errors.New("partition: partition is quarantined")
	// ErrOutOfRange: the offset lies before the log start or past the high watermark.
	ErrOutOfRange = errors.New("partition: offset out of range")
	// ErrBusy: too many bytes wait to be appended to the partition.
	ErrBusy = errors.New("partition: too many appends are waiting")

	// ErrSequence: an idempotent producer's batch does not follow its last one (KIP-98; Kafka error 45).
	ErrSequence = errors.New("partition: out of order sequence number")
	// ErrProducerFenced: a newer epoch of the producer id has written (KIP-360; Kafka error 47).
	ErrProducerFenced = errors.New("partition: producer epoch is older than the last one seen")
)

package server

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/replication/partition"
	"millrace/segment/record"
	"millrace/server/protocol"
)

// codeOf is the one place where our errors become Kafka's codes. Where the
// outcome is unknown, or may be better elsewhere or later, the code is one that
// clients retry.
func codeOf(err error) protocol.Code {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	if err == nil {
		return protocol.None
	}
	return protocol.UnknownServerError
}

// adminCodeOf is codeOf for changes of metadata, which no partition's leader
// decides: what may or may not have happened has timed out.
func adminCodeOf(err error) protocol.Code {
	switch c := codeOf(err); c {
	case protocol.NotLeaderOrFollower:
		return protocol.RequestTimedOut
	default:
		return c
	}
}

// coordinatorCodeOf is codeOf for what clients ask of a coordinator: they try
// again, elsewhere if need be.
func coordinatorCodeOf(err error) protocol.Code {
	switch c := codeOf(err); c {
	case protocol.NotLeaderOrFollower, protocol.RequestTimedOut:
		return protocol.CoordinatorNotAvailable
	default:
		return c
	}
}

// codes is searched in order: what is a special case of another comes first.
var codes = []struct {
	err  error
	code protocol.Code
}{
	{nil, protocol.None},

	{replication.ErrNotHosted, protocol.NotLeaderOrFollower},
	{partition.ErrNotLeader, protocol.NotLeaderOrFollower},
	{replication.ErrUnknown, protocol.NotLeaderOrFollower}, // it may have been appended; idempotent producers find out
	{partition.ErrNoSpace, protocol.KafkaStorageError},
	{partition.ErrRefused, protocol.KafkaStorageError}, // retriable, for readers too
	{partition.ErrQuarantined, protocol.KafkaStorageError},
	{partition.ErrOutOfRange, protocol.OffsetOutOfRange},
	{partition.ErrBusy, protocol.NotEnoughReplicas}, // retriable, and says that nothing was appended
	{replication.ErrNoController, protocol.RequestTimedOut},
	{replication.ErrClosed, protocol.NotLeaderOrFollower},
	{partition.ErrSequence, protocol.OutOfOrderSequence},
	{partition.ErrProducerFenced, protocol.InvalidProducerEpoch},

	{metadata.ErrTopicCollision, protocol.InvalidTopic},
	{metadata.ErrTopicExists, protocol.TopicAlreadyExists},
	{metadata.ErrUnknownTopic, protocol.UnknownTopicOrPartition},
	{metadata.ErrInvalidTopic, protocol.InvalidTopic},
	{metadata.ErrInvalidPartitions, protocol.InvalidPartitions},
	{metadata.ErrInvalidReplication, protocol.InvalidReplicationFactor},
	{metadata.ErrInvalidAssignment, protocol.InvalidReplicaAssignment},
	{metadata.ErrReadOnlyConfig, protocol.InvalidRequest},
	{metadata.ErrInvalidConfig, protocol.InvalidConfig},
	{metadata.ErrUnknownBroker, protocol.BrokerIDNotRegistered},
	{metadata.ErrBrokerInUse, protocol.InvalidRequest},
	{metadata.ErrStaleBroker, protocol.StaleBrokerEpoch},
	{metadata.ErrOtherCluster, protocol.InconsistentClusterID},
	{metadata.ErrLimit, protocol.PolicyViolation},
	{metadata.ErrLevel, protocol.UnsupportedVersion},
	{metadata.ErrUnknownUser, protocol.ResourceNotFound},
	{metadata.ErrInvalidACL, protocol.InvalidRequest},
	{metadata.ErrInvalidQuota, protocol.InvalidRequest},

	{record.ErrMagic, protocol.UnsupportedForFormat},
	{record.ErrTooLarge, protocol.MessageTooLarge},
	{record.ErrCodec, protocol.UnsupportedCompression},
	{record.ErrTimestamp, protocol.InvalidTimestamp},
	{record.ErrTransactional, protocol.TransactionalIDAuthorizationFailed}, // a batch of a transaction in a request without one: as Kafka
	{record.ErrInvalid, protocol.InvalidRecord},
	{record.ErrCorrupt, protocol.CorruptMessage},

	{context.DeadlineExceeded, protocol.RequestTimedOut},
	{context.Canceled, protocol.RequestTimedOut},
}

// A sentence is what a client is told went wrong, in Kafka's own words where
// Kafka has some: people and tools search for them.
type sentence string

func (s sentence) Error() string { return string(s) }

func sentencef(format string, args ...any) error { return sentence(fmt.Sprintf(format, args...)) }

// words are what clients are told of errors that are ours: clients log them, and
// their users search for Kafka's. Searched in order, like codes.
var words = []struct {
	err  error
	text string
}{
	{replication.ErrNoController, "The request timed out: the controllers have no leader now."},
	{replication.ErrNotHosted, notLeaderText},
	{partition.ErrNotLeader, notLeaderText},
	{replication.ErrClosed, notLeaderText},
	{replication.ErrUnknown, "The request timed out; whether it took effect is not known."},
	{partition.ErrNoSpace, "Disk error when trying to access log file on the disk: there is no space left on it."},
	{partition.ErrRefused, "Disk error when trying to access log file on the disk: the broker is out of descriptors, mappings or memory."},
	{partition.ErrQuarantined, "Disk error when trying to access log file on the disk."},
	{partition.ErrOutOfRange, "The requested offset is not within the range of offsets maintained by the server."},
	{partition.ErrBusy, "The partition has too many appends under way; nothing was appended."},
	{partition.ErrSequence, "The broker received an out of order sequence number."},
	{partition.ErrProducerFenced, "Producer attempted to produce with an old epoch."},
	{context.DeadlineExceeded, "The request timed out."},
	{context.Canceled, "The request timed out."},
}

// What Kafka says beside the codes of what is denied. They name nothing: who may not know
// of a topic does not learn its name here.
const (
	errTopicDenied         = sentence("Topic authorization failed.")
	errGroupDenied         = sentence("Group authorization failed.")
	errClusterDenied       = sentence("Cluster authorization failed.")
	errTransactionalDenied = sentence("Transactional Id authorization failed.")
)

const notLeaderText = "For requests intended only for the leader, this error indicates that the broker is not the current leader. " +
	"For requests intended for any replica, this error indicates that the broker is not a replica of the topic partition."

// message is what a client is told beside a code, nil for none.
func message(err error) *string {
	if err == nil {
		return nil
	}
	text := err.Error()
	var refusal *metadata.Refusal
	if errors.As(err, &refusal) {
		text = refusal.Message // Kafka's own sentence
	} else {
		for _, w := range words {
			if errors.Is(err, w.err) {
				text = w.text
				break
			}
		}
	}
	return &text
}

// isReset reports whether the client cut the connection.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

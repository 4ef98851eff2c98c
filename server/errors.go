package server

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"millrace/replication"
	"millrace/replication/metadata"
	"millrace/segment/record"
)

// A code is one of Kafka's error codes
// (https://kafka.apache.org/protocol.html#protocol_error_codes).
type code int16

const (
	none                               code = 0
	unknownServerError                 code = -1
	offsetOutOfRange                   code = 1
	corruptMessage                     code = 2
	unknownTopicOrPartition            code = 3
	leaderNotAvailable                 code = 5
	notLeaderOrFollower                code = 6
	requestTimedOut                    code = 7
	messageTooLarge                    code = 10
	coordinatorLoadInProgress          code = 14
	coordinatorNotAvailable            code = 15
	notCoordinator                     code = 16
	invalidTopic                       code = 17
	notEnoughReplicas                  code = 19
	invalidRequiredAcks                code = 21
	clusterAuthorizationFailed         code = 31
	invalidTimestamp                   code = 32
	unsupportedSASLMechanism           code = 33
	unsupportedVersion                 code = 35
	topicAlreadyExists                 code = 36
	invalidPartitions                  code = 37
	invalidReplicationFactor           code = 38
	invalidReplicaAssignment           code = 39
	invalidConfig                      code = 40
	notController                      code = 41
	invalidRequest                     code = 42
	unsupportedForFormat               code = 43
	policyViolation                    code = 44
	outOfOrderSequence                 code = 45
	duplicateSequence                  code = 46
	invalidProducerEpoch               code = 47
	invalidTxnState                    code = 48
	transactionalIDAuthorizationFailed code = 53
	securityDisabled                   code = 54
	kafkaStorageError                  code = 56
	unknownProducerID                  code = 59
	fetchSessionNotFound               code = 70
	invalidFetchSessionEpoch           code = 71
	topicDeletionDisabled              code = 73
	fencedLeaderEpoch                  code = 74
	unknownLeaderEpoch                 code = 75
	unsupportedCompression             code = 76
	staleBrokerEpoch                   code = 77
	preferredNotAvailable              code = 80
	eligibleNotAvailable               code = 83
	electionNotNeeded                  code = 84
	noReassignmentInProgress           code = 85
	invalidRecord                      code = 87
	throttlingQuotaExceeded            code = 89
	resourceNotFound                   code = 91
	duplicateResource                  code = 92
	unknownTopicID                     code = 100
	brokerIDNotRegistered              code = 102
	inconsistentTopicID                code = 103
	inconsistentClusterID              code = 104
	fetchSessionTopicIDError           code = 106
	mismatchedEndpointType             code = 114
	unsupportedEndpointType            code = 115
)

// codeOf is the one place where our errors become Kafka's codes. Where the
// outcome is unknown, or may be better elsewhere or later, the code is one that
// clients retry.
func codeOf(err error) code {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code
		}
	}
	if err == nil {
		return none
	}
	return unknownServerError
}

// adminCodeOf is codeOf for changes of metadata, which no partition's leader
// decides: what may or may not have happened has timed out.
func adminCodeOf(err error) code {
	switch c := codeOf(err); c {
	case notLeaderOrFollower:
		return requestTimedOut
	default:
		return c
	}
}

// coordinatorCodeOf is codeOf for what clients ask of a coordinator: they try
// again, elsewhere if need be.
func coordinatorCodeOf(err error) code {
	switch c := codeOf(err); c {
	case notLeaderOrFollower, requestTimedOut:
		return coordinatorNotAvailable
	default:
		return c
	}
}

// codes is searched in order: what is a special case of another comes first.
var codes = []struct {
	err  error
	code code
}{
	{nil, none},

	{replication.ErrNotHosted, notLeaderOrFollower},
	{replication.ErrNotLeader, notLeaderOrFollower},
	{replication.ErrUnknown, notLeaderOrFollower}, // it may have been appended; idempotent producers find out
	{replication.ErrNoSpace, kafkaStorageError},
	{replication.ErrRefused, kafkaStorageError}, // retriable, for readers too
	{replication.ErrQuarantined, kafkaStorageError},
	{replication.ErrOutOfRange, offsetOutOfRange},
	{replication.ErrBusy, notEnoughReplicas}, // retriable, and says that nothing was appended
	{replication.ErrNoController, requestTimedOut},
	{replication.ErrClosed, notLeaderOrFollower},
	{replication.ErrSequence, outOfOrderSequence},
	{replication.ErrProducerFenced, invalidProducerEpoch},

	{metadata.ErrTopicCollision, invalidTopic},
	{metadata.ErrTopicExists, topicAlreadyExists},
	{metadata.ErrUnknownTopic, unknownTopicOrPartition},
	{metadata.ErrInvalidTopic, invalidTopic},
	{metadata.ErrInvalidPartitions, invalidPartitions},
	{metadata.ErrInvalidReplication, invalidReplicationFactor},
	{metadata.ErrInvalidAssignment, invalidReplicaAssignment},
	{metadata.ErrReadOnlyConfig, invalidRequest},
	{metadata.ErrInvalidConfig, invalidConfig},
	{metadata.ErrUnknownBroker, brokerIDNotRegistered},
	{metadata.ErrBrokerInUse, invalidRequest},
	{metadata.ErrStaleBroker, staleBrokerEpoch},
	{metadata.ErrOtherCluster, inconsistentClusterID},
	{metadata.ErrLimit, policyViolation},
	{metadata.ErrLevel, unsupportedVersion},

	{record.ErrMagic, unsupportedForFormat},
	{record.ErrTooLarge, messageTooLarge},
	{record.ErrCodec, unsupportedCompression},
	{record.ErrTimestamp, invalidTimestamp},
	{record.ErrTransactional, transactionalIDAuthorizationFailed}, // a batch of a transaction in a request without one: as Kafka
	{record.ErrInvalid, invalidRecord},
	{record.ErrCorrupt, corruptMessage},

	{context.DeadlineExceeded, requestTimedOut},
	{context.Canceled, requestTimedOut},
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
	{replication.ErrNotLeader, notLeaderText},
	{replication.ErrClosed, notLeaderText},
	{replication.ErrUnknown, "The request timed out; whether it took effect is not known."},
	{replication.ErrNoSpace, "Disk error when trying to access log file on the disk: there is no space left on it."},
	{replication.ErrRefused, "Disk error when trying to access log file on the disk: the broker is out of descriptors, mappings or memory."},
	{replication.ErrQuarantined, "Disk error when trying to access log file on the disk."},
	{replication.ErrOutOfRange, "The requested offset is not within the range of offsets maintained by the server."},
	{replication.ErrBusy, "The partition has too many appends under way; nothing was appended."},
	{replication.ErrSequence, "The broker received an out of order sequence number."},
	{replication.ErrProducerFenced, "Producer attempted to produce with an old epoch."},
	{context.DeadlineExceeded, "The request timed out."},
	{context.Canceled, "The request timed out."},
}

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

// isReset tells whether the client cut the connection.
func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

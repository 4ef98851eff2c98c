package group

import (
	"errors"

	"millrace/server/coordinator"
)

// Kafka's error codes, as far as groups use them
// (https://kafka.apache.org/protocol.html#protocol_error_codes).
const (
	none                      int16 = 0
	unknownServerError        int16 = -1
	unknownTopicOrPartition   int16 = 3
	offsetMetadataTooLarge    int16 = 12
	coordinatorLoadInProgress int16 = 14
	coordinatorNotAvailable   int16 = 15
	notCoordinator            int16 = 16
	illegalGeneration         int16 = 22
	inconsistentGroupProtocol int16 = 23
	invalidGroupID            int16 = 24
	unknownMemberID           int16 = 25
	invalidSessionTimeout     int16 = 26
	rebalanceInProgress       int16 = 27
	invalidCommitOffsetSize   int16 = 28
	nonEmptyGroup             int16 = 68
	groupIDNotFound           int16 = 69
	memberIDRequired          int16 = 79
	groupMaxSizeReached       int16 = 81
	fencedInstanceID          int16 = 82
	groupSubscribedToTopic    int16 = 86
)

// Codes of KIP-848.
const (
	invalidRequest           int16 = 42
	fencedMemberEpoch        int16 = 110
	unreleasedInstanceID     int16 = 111
	unsupportedAssignor      int16 = 112
	staleMemberEpoch         int16 = 113
	invalidRegularExpression int16 = 128
)

// codeOf is what a client gets where an append ended so, or no shard was entered.
func codeOf(err error) int16 {
	switch {
	case err == nil:
		return none
	case coordinator.Lost(err), errors.Is(err, coordinator.ErrNotCoordinator):
		return notCoordinator
	case errors.Is(err, coordinator.ErrTooLarge):
		return unknownServerError // as Kafka
	case errors.Is(err, coordinator.ErrLoadInProgress):
		return coordinatorLoadInProgress
	default:
		return coordinatorNotAvailable
	}
}

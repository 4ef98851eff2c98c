package protocol

// A Code is one of Kafka's error codes
// (https://kafka.apache.org/protocol.html#protocol_error_codes).
type Code int16

// The codes that are answered, by Kafka's names.
const (
	None                               Code = 0
	UnknownServerError                 Code = -1
	OffsetOutOfRange                   Code = 1
	CorruptMessage                     Code = 2
	UnknownTopicOrPartition            Code = 3
	LeaderNotAvailable                 Code = 5
	NotLeaderOrFollower                Code = 6
	RequestTimedOut                    Code = 7
	MessageTooLarge                    Code = 10
	OffsetMetadataTooLarge             Code = 12
	CoordinatorLoadInProgress          Code = 14
	CoordinatorNotAvailable            Code = 15
	NotCoordinator                     Code = 16
	InvalidTopic                       Code = 17
	NotEnoughReplicas                  Code = 19
	InvalidRequiredAcks                Code = 21
	IllegalGeneration                  Code = 22
	InconsistentGroupProtocol          Code = 23
	InvalidGroupID                     Code = 24
	UnknownMemberID                    Code = 25
	InvalidSessionTimeout              Code = 26
	RebalanceInProgress                Code = 27
	InvalidCommitOffsetSize            Code = 28
	TopicAuthorizationFailed           Code = 29
	GroupAuthorizationFailed           Code = 30
	ClusterAuthorizationFailed         Code = 31
	InvalidTimestamp                   Code = 32
	UnsupportedSASLMechanism           Code = 33
	IllegalSASLState                   Code = 34
	UnsupportedVersion                 Code = 35
	TopicAlreadyExists                 Code = 36
	InvalidPartitions                  Code = 37
	InvalidReplicationFactor           Code = 38
	InvalidReplicaAssignment           Code = 39
	InvalidConfig                      Code = 40
	NotController                      Code = 41
	InvalidRequest                     Code = 42
	UnsupportedForFormat               Code = 43
	PolicyViolation                    Code = 44
	OutOfOrderSequence                 Code = 45
	DuplicateSequence                  Code = 46
	InvalidProducerEpoch               Code = 47
	InvalidTxnState                    Code = 48
	TransactionalIDAuthorizationFailed Code = 53
	SecurityDisabled                   Code = 54
	KafkaStorageError                  Code = 56
	SASLAuthenticationFailed           Code = 58
	UnknownProducerID                  Code = 59
	NonEmptyGroup                      Code = 68
	GroupIDNotFound                    Code = 69
	FetchSessionNotFound               Code = 70
	InvalidFetchSessionEpoch           Code = 71
	TopicDeletionDisabled              Code = 73
	FencedLeaderEpoch                  Code = 74
	UnknownLeaderEpoch                 Code = 75
	UnsupportedCompression             Code = 76
	StaleBrokerEpoch                   Code = 77
	MemberIDRequired                   Code = 79
	PreferredNotAvailable              Code = 80
	GroupMaxSizeReached                Code = 81
	FencedInstanceID                   Code = 82
	EligibleNotAvailable               Code = 83
	ElectionNotNeeded                  Code = 84
	NoReassignmentInProgress           Code = 85
	GroupSubscribedToTopic             Code = 86
	InvalidRecord                      Code = 87
	ThrottlingQuotaExceeded            Code = 89
	ResourceNotFound                   Code = 91
	DuplicateResource                  Code = 92
	DelegationTokenNotFound            Code = 62
	DelegationTokenOwnerMismatch       Code = 63
	DelegationTokenRequestNotAllowed   Code = 64
	DelegationTokenAuthorizationFailed Code = 65
	DelegationTokenExpired             Code = 66
	InvalidPrincipalType               Code = 67
	UnacceptableCredential             Code = 93
	UnknownTopicID                     Code = 100
	BrokerIDNotRegistered              Code = 102
	InconsistentTopicID                Code = 103
	InconsistentClusterID              Code = 104
	FetchSessionTopicIDError           Code = 106
	FencedMemberEpoch                  Code = 110
	UnreleasedInstanceID               Code = 111
	UnsupportedAssignor                Code = 112
	StaleMemberEpoch                   Code = 113
	MismatchedEndpointType             Code = 114
	UnsupportedEndpointType            Code = 115
	InvalidRegularExpression           Code = 128
)

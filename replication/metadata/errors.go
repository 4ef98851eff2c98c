package metadata

import (
	"errors"
	"fmt"

	"millrace/replication/metadata/settings"
)

// Reasons for which a change is refused. Errors of this package are [*Refusal]s
// that wrap one of them; the text is for people. The comment says which of
// Kafka's errors a client should be told.
var (
	ErrTopicExists        = errors.New("metadata: topic already exists")                                // TOPIC_ALREADY_EXISTS
	ErrTopicCollision     = reason("metadata: topic name collides with another", ErrTopicExists)        // INVALID_TOPIC_EXCEPTION; also is ErrTopicExists, so ask for it first
	ErrUnknownTopic       = errors.New("metadata: unknown topic")                                       // UNKNOWN_TOPIC_OR_PARTITION, or UNKNOWN_TOPIC_ID if asked by id
	ErrUnknownPartition   = reason("metadata: unknown partition", ErrUnknownTopic)                      // UNKNOWN_TOPIC_OR_PARTITION
	ErrInvalidTopic       = errors.New("metadata: invalid topic name")                                  // INVALID_TOPIC_EXCEPTION
	ErrInvalidTopicID     = errors.New("metadata: topic id cannot be used")                             // none: whoever makes ids made a bad one
	ErrInvalidPartitions  = errors.New("metadata: invalid number of partitions")                        // INVALID_PARTITIONS
	ErrInvalidReplication = errors.New("metadata: invalid replication factor")                          // INVALID_REPLICATION_FACTOR
	ErrNotEnoughBrokers   = reason("metadata: not enough brokers", ErrInvalidReplication)               // INVALID_REPLICATION_FACTOR
	ErrInvalidAssignment  = errors.New("metadata: invalid replica assignment")                          // INVALID_REPLICA_ASSIGNMENT
	ErrInvalidConfig      = settings.ErrInvalid                                                         // INVALID_CONFIG
	ErrReadOnlyConfig     = reason("metadata: setting cannot be changed at run time", ErrInvalidConfig) // INVALID_REQUEST
	ErrConfigChanged      = errors.New("metadata: setting was changed in the meantime")                 // none: the caller looks again
	ErrUnknownBroker      = errors.New("metadata: unknown broker")                                      // BROKER_ID_NOT_REGISTERED
	ErrInvalidBroker      = errors.New("metadata: invalid broker")                                      // INVALID_REGISTRATION
	ErrStaleBroker        = errors.New("metadata: another incarnation of the broker is registered")     // STALE_BROKER_EPOCH
	ErrBrokerInUse        = errors.New("metadata: broker still holds replicas")                         // INVALID_REQUEST
	ErrOtherCluster       = errors.New("metadata: belongs to another cluster")                          // INCONSISTENT_CLUSTER_ID
	ErrNoCluster          = errors.New("metadata: the cluster has no id yet")                           // none: a node acted before it had joined
	ErrLimit              = errors.New("metadata: the cluster holds as much as it may")                 // POLICY_VIOLATION
	ErrInvalidBlock       = errors.New("metadata: invalid block of producer ids")                       // none
	ErrStaleIndex         = errors.New("metadata: change was applied before")                           // none: replayed twice, a bug of the caller
	ErrLevel              = errors.New("metadata: not all brokers are upgraded")                        // INVALID_REGISTRATION, or UNSUPPORTED_VERSION of a change
	ErrOldDisk            = reason("metadata: the broker's data folder is an old copy", ErrStaleBroker) // STALE_BROKER_EPOCH
	ErrInvalidUser        = errors.New("metadata: invalid user")                                        // UNACCEPTABLE_CREDENTIAL
	ErrUnknownUser        = errors.New("metadata: unknown user")                                        // RESOURCE_NOT_FOUND
	ErrInvalidACL         = errors.New("metadata: invalid ACL")                                         // INVALID_REQUEST
	ErrInvalidQuota       = errors.New("metadata: invalid quota")                                       // INVALID_REQUEST
	ErrInvalidAuthority   = errors.New("metadata: invalid authority")                                   // none: nodes make them
	ErrInvalidToken       = errors.New("metadata: invalid token")                                       // INVALID_REQUEST
	ErrUnknownToken       = errors.New("metadata: unknown token")                                       // DELEGATION_TOKEN_NOT_FOUND
	ErrTokenSpent         = errors.New("metadata: token expired or used up")                            // none: of join tokens
	ErrVersion            = errors.New("metadata: written by another version")                          // none: the node must be upgraded
	ErrDamaged            = errors.New("metadata: bytes are not what was written")                      // none
)

// codes number the reasons between nodes. A number is never given to another
// reason; a new reason gets the next.
var codes = [...]error{
	1:  ErrTopicExists,
	2:  ErrTopicCollision,
	3:  ErrUnknownTopic,
	4:  ErrUnknownPartition,
	5:  ErrInvalidTopic,
	6:  ErrInvalidTopicID,
	7:  ErrInvalidPartitions,
	8:  ErrInvalidReplication,
	9:  ErrNotEnoughBrokers,
	10: ErrInvalidAssignment,
	11: ErrInvalidConfig,
	12: ErrReadOnlyConfig,
	13: ErrUnknownBroker,
	14: ErrInvalidBroker,
	15: ErrStaleBroker,
	16: ErrBrokerInUse,
	17: ErrOtherCluster,
	18: ErrNoCluster,
	19: ErrLimit,
	20: ErrInvalidBlock,
	21: ErrStaleIndex,
	22: ErrVersion,
	23: ErrDamaged,
	24: ErrConfigChanged,
	25: ErrLevel,
	26: ErrOldDisk,
	27: ErrInvalidUser,
	28: ErrUnknownUser,
	29: ErrInvalidACL,
	30: ErrInvalidQuota,
	31: ErrInvalidAuthority,
	32: ErrInvalidToken,
	33: ErrUnknownToken,
	34: ErrTokenSpent,
}

// codeOther stands for an error that is none of ours: only its text arrives.
const codeOther = 0xffff

// A Refusal is why a change was refused, an encoding not understood or a
// placement impossible.
type Refusal struct {
	Reason  error  // one of the Err… of this package; nil for one this release does not know
	Message string // a sentence a client can be shown; Kafka's own where Kafka has one
}

// Error is the sentence.
func (r *Refusal) Error() string { return r.Message }

// Unwrap is the reason.
func (r *Refusal) Unwrap() error { return r.Reason }

// ErrorCode numbers the reason of err, to be sent with err.Error() to another
// node: 0 for nil, and a code of its own for any error that is not of this package.
func ErrorCode(err error) uint16 {
	if err == nil {
		return 0
	}
	// The reason itself before what it is a kind of: ErrTopicCollision is ErrTopicExists as well.
	code := uint16(codeOther)
	for i, reason := range codes {
		if reason == nil || !errors.Is(err, reason) {
			continue
		}
		if code == codeOther || errors.Is(reason, codes[code]) {
			code = uint16(i)
		}
	}
	return code
}

// ErrorFrom makes the error again on the node it was sent to, so that errors.Is
// says of it what it said where it happened. It is nil for code 0. A code this
// release does not know, or none at all, makes an error with that text alone.
func ErrorFrom(code uint16, text string) error {
	if code == 0 {
		return nil
	}
	r := &Refusal{Message: text}
	if int(code) < len(codes) {
		r.Reason = codes[code]
	}
	return r
}

func refuse(reason error, format string, args ...any) error {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// kind is a sentinel that is a special case of another.
type kind struct {
	text   string
	parent error
}

func (k *kind) Error() string { return k.text }
func (k *kind) Unwrap() error { return k.parent }

func reason(text string, parent error) error { return &kind{text: text, parent: parent} }

package transport

import (
	"errors"
	"fmt"
)

// Conditions a caller can act on. All but ErrTooLarge and ErrInvalid are worth a
// later try.
var (
	ErrClosed       = errors.New("transport: closed")
	ErrUnreachable  = errors.New("transport: peer unreachable")
	ErrTimeout      = errors.New("transport: no answer in time")
	ErrBusy         = errors.New("transport: peer is busy")
	ErrUnknownGroup = errors.New("transport: peer does not have the group")
	ErrStalled      = errors.New("transport: group is stalled")
	ErrInvalid      = errors.New("transport: peer found the request invalid")
	ErrTooLarge     = errors.New("transport: message too large")
	ErrUnsupported  = errors.New("transport: peer does not serve such requests")

	// Refusals of a whole connection; errors.Is finds them in a RefusedError.
	ErrWrongCluster     = errors.New("transport: wrong cluster")
	ErrWrongNode        = errors.New("transport: wrong node")
	ErrWrongIncarnation = errors.New("transport: wrong incarnation")
	ErrVersion          = errors.New("transport: no version of the protocol in common")
	ErrStranger         = errors.New("transport: not a member of the cluster") // Membership.Judge's, or a peer's
	ErrOldDisk          = errors.New("transport: an old copy of the peer's data folder")
	ErrReplaced         = errors.New("transport: another incarnation took the peer's place") // of a ReplacedError, or a peer's
)

// A ReplacedError is Membership.Judge's where another incarnation has the peer's place. At is
// the metadata change that Judge knows it at.
type ReplacedError struct {
	Peer Peer
	At   uint64
}

func (e *ReplacedError) Error() string {
	return fmt.Sprintf("%v: it is not %s any more", ErrReplaced, e.Peer)
}

// Unwrap returns ErrReplaced.
func (e *ReplacedError) Unwrap() error { return ErrReplaced }

// A RemoteError is what the other node's Handle returned.
type RemoteError struct {
	Peer    Peer
	Message string
}

func (e *RemoteError) Error() string { return "transport: node " + e.Peer.String() + ": " + e.Message }

// A RefusedError is a connection turned away by the node that answered.
type RefusedError struct {
	Peer   Peer   // who answered
	Reason string // in its words
	status uint8
}

func (e *RefusedError) Error() string {
	return fmt.Sprintf("transport: node %s refused the connection: %s", e.Peer, e.Reason)
}

// Unwrap gives the condition the refusal stands for.
func (e *RefusedError) Unwrap() error {
	switch e.status {
	case statusCluster:
		return ErrWrongCluster
	case statusNode:
		return ErrWrongNode
	case statusIncarnation:
		return ErrWrongIncarnation
	case statusVersion:
		return ErrVersion
	case statusStranger:
		return ErrStranger
	case statusOldDisk:
		return ErrOldDisk
	case statusReplaced:
		return ErrReplaced
	}
	return ErrUnreachable
}

// A malformed error says which rule of the protocol received bytes break. It
// never leaves the package: it closes a connection or refuses a request.
type malformed string

func (m malformed) Error() string { return "transport: malformed " + string(m) }

func malformedf(format string, args ...any) error { return malformed(fmt.Sprintf(format, args...)) }

// Codes of a failure frame and of one group's answer in a heartbeat answer.
const (
	codeAnswered     uint8 = iota // heartbeat answers only
	codeBusy                      // queue full
	codeUnknownGroup              // no such group here
	codeExpired                   // waited here longer than the caller would
	codeInvalid                   // breaks a rule of the protocol; text says which
	codeClosed                    // group or node is shutting down
	codeUnsupported               // nobody handles this kind of request
	codeRaft                      // Raft answered with an error; text is its own
	codeHandler                   // Handle returned an error; text is its own
)

// failureOf maps a failure to the error its caller sees.
func failureOf(from Peer, code uint8, text string) error {
	switch code {
	case codeBusy:
		return ErrBusy
	case codeUnknownGroup:
		return ErrUnknownGroup
	case codeExpired:
		return ErrTimeout
	case codeInvalid:
		return fmt.Errorf("%w: %s", ErrInvalid, text)
	case codeClosed:
		return fmt.Errorf("%w at %s", ErrClosed, from)
	case codeUnsupported:
		return ErrUnsupported
	case codeRaft:
		return fmt.Errorf("transport: raft of %s: %s", from, text)
	case codeHandler:
		return &RemoteError{Peer: from, Message: text}
	}
	return fmt.Errorf("transport: %s answered with unknown failure %d", from, code)
}

// codeOf is the inverse, for what our own side answers.
func codeOf(err error) (code uint8, text string) {
	var bad malformed
	switch {
	case errors.Is(err, ErrBusy):
		return codeBusy, ""
	case errors.Is(err, ErrUnknownGroup):
		return codeUnknownGroup, ""
	case errors.Is(err, ErrTimeout):
		return codeExpired, ""
	case errors.Is(err, ErrClosed):
		return codeClosed, ""
	case errors.Is(err, ErrUnsupported):
		return codeUnsupported, ""
	case errors.As(err, &bad):
		return codeInvalid, string(bad)
	}
	return codeRaft, err.Error()
}

package admission

import (
	"errors"
	"fmt"
)

// Why a folder's node does not become a member of a cluster, or of this one. What these
// errors say of a folder or a node is in the text of the error that is of their kind; what
// to do about it depends on how the node is started, and is for whoever shows them.
var (
	// ErrNoIdentity: the folder holds partitions, and not whose they are.
	ErrNoIdentity = errors.New("admission: the folder has lost its node.json")
	// ErrStrangeFolder: the folder is for something else.
	ErrStrangeFolder = errors.New("admission: the folder is no node's")
	// ErrOtherNode: the folder belongs to a node of another id than was asked for.
	ErrOtherNode = errors.New("admission: the folder belongs to another node")
	// ErrJoinUnread: the folder does not say whom a join asked that was begun there.
	ErrJoinUnread = errors.New("admission: whom a join asked cannot be read")
	// ErrNobodyKnown: the node has to join anew, and knows nobody to join through.
	ErrNobodyKnown = errors.New("admission: no other node is known")
	// ErrIDTaken: another node has the id and is alive.
	ErrIDTaken = errors.New("admission: the node id is taken")
	// ErrFoundElsewhere ends a node that would found a cluster, or just has, at an address
	// where the nodes of another look for it.
	ErrFoundElsewhere = errors.New("admission: nodes of another cluster look for this one")
)

// A kindError is an error of a kind, with a text of its own.
type kindError struct {
	error
	kind error
}

// Is implements what errors.Is asks.
func (e kindError) Is(target error) bool { return target == e.kind }

// Unwrap returns what the text wraps.
func (e kindError) Unwrap() error { return errors.Unwrap(e.error) }

// ofKind makes an error of a kind.
func ofKind(kind error, format string, args ...any) error {
	return kindError{fmt.Errorf(format, args...), kind}
}

// Elsewhere is the error for a cluster whose nodes look for this one.
func Elsewhere(cluster string) error {
	return fmt.Errorf("%w: they are of cluster %s", ErrFoundElsewhere, cluster)
}

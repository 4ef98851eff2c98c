package segment

import (
	"errors"
	"syscall"
)

// A RefusedError says that the system lacks something that comes back by itself:
// room on the disk, descriptors, mappings or memory. Nothing has changed, and the
// same call can be made again. It says nothing about the disk's health.
type RefusedError struct {
	Err error // what was tried, where, and what the system said
}

func (e *RefusedError) Error() string { return e.Err.Error() + " (nothing has changed)" }

func (e *RefusedError) Unwrap() error { return e.Err }

// Is makes a refusal for want of room an ErrNoSpace.
func (e *RefusedError) Is(target error) bool { return target == ErrNoSpace && IsNoSpace(e.Err) }

// Refused returns err as a *RefusedError if it is scarce, and as it is otherwise. It
// is for where nothing has changed yet, or what has does not count: a caller who
// cannot say that must not ask.
func Refused(err error) error {
	var refused *RefusedError
	if !Scarce(err) || errors.As(err, &refused) {
		return err
	}
	return &RefusedError{Err: err}
}

// IsRefused reports whether err is or wraps a *RefusedError.
func IsRefused(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused)
}

// scarcities are the answers of a system that is sound and has run out of something,
// or was interrupted.
var scarcities = []error{
	syscall.ENOSPC, syscall.EDQUOT, // the disk or a quota is full
	syscall.EMFILE, syscall.ENFILE, // descriptors
	syscall.ENOMEM, syscall.EAGAIN, // memory; mappings, of which a process may have so many
	syscall.EINTR,
}

// Scarce reports whether err is such an answer. Whether something has changed, it
// does not tell: a write may have stopped half-way for want of room.
func Scarce(err error) bool {
	for _, s := range scarcities {
		if errors.Is(err, s) {
			return !IsCorrupt(err)
		}
	}
	return false
}

package segment

import (
	"errors"
	"fmt"
)

// A CorruptError says that bytes on disk cannot be what we wrote. Nothing was
// changed; the replica must neither serve nor vote with them, and repairs them
// from a peer.
type CorruptError struct {
	Path     string
	Position int64 // of the frame or field in the file; -1 when unknown
	Found    string
	Expected string
	Err      error // what the system said, if it did
}

func (e *CorruptError) Error() string {
	s := fmt.Sprintf("corrupt: %s at %d: found %s, expected %s", e.Path, e.Position, e.Found, e.Expected)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *CorruptError) Unwrap() error { return e.Err }

// IsCorrupt reports whether err is or wraps a *CorruptError.
func IsCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

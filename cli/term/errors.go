package term

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"regexp"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	urfave "github.com/urfave/cli/v2"
)

// A Failure is an error that knows the exit status it ends the program with.
type Failure struct {
	Status int
	Err    error
}

func (f *Failure) Error() string { return f.Err.Error() }

func (f *Failure) Unwrap() error { return f.Err }

// Fail returns an error that ends the program with the given status.
func Fail(status int, format string, args ...any) error {
	return &Failure{status, fmt.Errorf(format, args...)}
}

// Explain returns an error with words of ours that ends the program as err would.
// It is err all the same, for who asks again when that may help.
func Explain(err error, format string, args ...any) error {
	return &Failure{StatusOf(err), &Explained{fmt.Sprintf(format, args...), err}}
}

// An Explained error is another one, in other words.
type Explained struct {
	Words string
	Err   error
}

func (e *Explained) Error() string { return e.Words }

func (e *Explained) Unwrap() error { return e.Err }

// Usage returns an error in the command line itself.
func Usage(format string, args ...any) error { return Fail(StatusUsage, format, args...) }

// badValuePattern is how package flag says that a flag's value cannot be read.
var badValuePattern = regexp.MustCompile(`^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-(\S+?): `)

// badValue says what a flag's value should have been.
func badValue(c *urfave.Command, err error) error {
	m := badValuePattern.FindStringSubmatch(err.Error())
	if m == nil {
		return Usage("%v", err)
	}
	kind := "something else"
	switch Lookup(c, m[2]).(type) {
	case *urfave.IntFlag, *urfave.Int64Flag, *urfave.UintFlag, *urfave.Uint64Flag:
		kind = "a whole number"
	case *urfave.Float64Flag:
		kind = "a number"
	case *urfave.DurationFlag:
		kind = "a time with its unit, such as 500ms, 30s or 5m"
	case *urfave.BoolFlag:
		kind = "true or false, or nothing"
	}
	return Usage("--%s %s: it is %s; see `%s --help`", m[2], m[1], kind, c.HelpName)
}

// Silent is an ending that has been explained already.
type Silent struct{ Status int }

func (s *Silent) Error() string { return fmt.Sprintf("exit status %d", s.Status) }

// StatusOf returns the exit status an error stands for.
func StatusOf(err error) int {
	var f *Failure
	var s *Silent
	var timeout net.Error
	switch {
	case err == nil:
		return StatusDone
	case errors.As(err, &f):
		return f.Status
	case errors.As(err, &s):
		return s.Status
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID),
		errors.Is(err, kerr.GroupIDNotFound), errors.Is(err, fs.ErrNotExist):
		return StatusNotFound
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed),
		errors.Is(err, kerr.ClusterAuthorizationFailed), errors.Is(err, kerr.TransactionalIDAuthorizationFailed),
		errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, fs.ErrPermission):
		return StatusNotAllowed
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, kerr.RequestTimedOut),
		errors.As(err, &timeout) && timeout.Timeout():
		return StatusTimedOut
	}
	return StatusFailed
}

// OneLine is the text of an error, without line breaks.
func OneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// The exit statuses.
const (
	StatusDone       = 0
	StatusFailed     = 1
	StatusUsage      = 2  // the command line itself is wrong
	StatusNotFound   = 3  // no such topic, partition, group or file
	StatusNotAllowed = 4  // not authorized
	StatusTimedOut   = 5  // --timeout or --wait ran out
	StatusUnhealthy  = 10 // cluster health
	StatusLag        = 11 // lag over the threshold
)

// A Mistakes error is everything that is wrong with a configuration, a sentence each.
type Mistakes []string

func (m Mistakes) Error() string { return strings.Join(m, "\n") }

package cli

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

// A failure is an error that knows the exit status it ends the program with.
type failure struct {
	status int
	err    error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// fail returns an error that ends the program with the given status.
func fail(status int, format string, args ...any) error {
	return &failure{status, fmt.Errorf(format, args...)}
}

// explain returns an error with words of ours that ends the program as err would.
// It is err all the same, for who asks again when that may help.
func explain(err error, format string, args ...any) error {
	return &failure{statusOf(err), &explained{fmt.Sprintf(format, args...), err}}
}

// An explained error is another one, in other words.
type explained struct {
	words string
	err   error
}

func (e *explained) Error() string { return e.words }
func (e *explained) Unwrap() error { return e.err }

// usage returns an error in the command line itself.
func usage(format string, args ...any) error { return fail(StatusUsage, format, args...) }

// badValuePattern is how package flag says that a flag's value cannot be read.
var badValuePattern = regexp.MustCompile(`^invalid (?:boolean )?value ("(?:[^"\\]|\\.)*") for (?:flag )?-(\S+?): `)

// badValue says what a flag's value should have been.
func badValue(c *urfave.Command, err error) error {
	m := badValuePattern.FindStringSubmatch(err.Error())
	if m == nil {
		return usage("%v", err)
	}
	kind := "something else"
	switch lookup(c, m[2]).(type) {
	case *urfave.IntFlag, *urfave.Int64Flag, *urfave.UintFlag, *urfave.Uint64Flag:
		kind = "a whole number"
	case *urfave.Float64Flag:
		kind = "a number"
	case *urfave.DurationFlag:
		kind = "a time with its unit, such as 500ms, 30s or 5m"
	case *urfave.BoolFlag:
		kind = "true or false, or nothing"
	}
	return usage("--%s %s: it is %s; see `%s --help`", m[2], m[1], kind, c.HelpName)
}

// silent is an ending that has been explained already.
type silent struct{ status int }

func (s *silent) Error() string { return fmt.Sprintf("exit status %d", s.status) }

// statusOf returns the exit status an error stands for.
func statusOf(err error) int {
	var f *failure
	var s *silent
	var timeout net.Error
	switch {
	case err == nil:
		return StatusDone
	case errors.As(err, &f):
		return f.status
	case errors.As(err, &s):
		return s.status
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

// oneLine is the text of an error, without line breaks.
func oneLine(err error) string {
	return strings.Join(strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// unreachable says that no broker answers, and what to do about it.
func unreachable(brokers []string, err error) error {
	where := strings.Join(brokers, ", ")
	status := StatusFailed
	switch {
	case errors.Is(err, errnoRefused):
	case errors.Is(err, context.Canceled):
		return fail(StatusFailed, "interrupted while connecting to %s", where)
	case errors.Is(err, context.DeadlineExceeded):
		status = StatusTimedOut
	}
	doctor := "`millrace doctor -b " + strings.Join(brokers, ",") + "`"
	switch why := whyNoAnswer(err); why {
	case noBroker:
		return fail(status, "cannot reach a broker at %s: %s; %s says what it is", where, why, doctor)
	case noAnswer:
		return fail(status, "cannot reach a broker at %s: %s; it hangs, or is no Kafka broker: %s says more", where, why, doctor)
	default:
		return fail(status, "cannot reach a broker at %s: %s; start one with `millrace serve` or name others with --brokers", where, why)
	}
}

const (
	noAnswer = "no answer"
	noBroker = "what answers there is no Kafka broker"
)

// foreignPattern is how the client says that the first four bytes of an answer, which are
// its length in Kafka's protocol, are none. It has no error of its own for that.
var foreignPattern = regexp.MustCompile(`invalid (?:large|negative) response size`)

// whyNoAnswer says why a broker did not answer.
func whyNoAnswer(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, errnoRefused):
		return "connection refused"
	case errors.As(err, &dns):
		return "no such host " + dns.Name
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return noAnswer
	case foreignPattern.MatchString(err.Error()):
		return noBroker
	}
	return err.Error()
}

// topicError explains a broker's refusal concerning a topic.
// detail is what the broker said itself, often "".
func topicError(topic string, err error, detail string) error {
	status := statusOf(err)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return fail(status, "topic %q does not exist; see `millrace topic list`, or create it with `millrace topic create %s`", topic, topic)
	case errors.Is(err, kerr.TopicAlreadyExists):
		return fail(status, "topic %q exists already; --if-not-exists accepts that", topic)
	case errors.Is(err, kerr.InvalidTopicException) && detail == "":
		return explain(err, "topic %q: a name has letters, digits, '.', '_' and '-', 249 at most, and is not '.' or '..'", topic)
	case errors.Is(err, kerr.PolicyViolation) && detail == "":
		return explain(err, "topic %q: the cluster's policy does not allow it (POLICY_VIOLATION)", topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return fail(status, "not allowed on topic %q; ask for the permission with an ACL", topic)
	}
	return explain(err, "topic %q: %s", topic, brokerSaid(err, detail))
}

// healthSays ends a sentence about what a command cannot find out itself.
const healthSays = "; `millrace cluster health` says why"

// brokerSaid is a broker's error in words: its own message when it sent one,
// else the sentence the protocol has for the code.
func brokerSaid(err error, detail string) string {
	if detail != "" {
		return detail
	}
	var code *kerr.Error
	if errors.Is(err, kerr.LeaderNotAvailable) {
		return "no leader now (LEADER_NOT_AVAILABLE)" + healthSays
	}
	if errors.As(err, &code) {
		return strings.TrimSuffix(code.Description, ".") + " (" + code.Message + ")"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		return whyNoAnswer(err) + " at " + op.Addr.String()
	}
	return whyNoAnswer(err)
}

package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// Unreachable says that no broker answers, and what to do about it.
func Unreachable(ctx context.Context, brokers []string, err error) error {
	if refused := Refused(ctx, brokers, err); refused != nil {
		return refused
	}
	where := strings.Join(brokers, ", ")
	status := term.StatusFailed
	switch {
	case errors.Is(err, term.ErrnoRefused):
	case errors.Is(err, context.Canceled):
		return term.Fail(term.StatusFailed, "interrupted while connecting to %s", where)
	case errors.Is(err, context.DeadlineExceeded):
		status = term.StatusTimedOut
	}
	doctor := "`millrace doctor -b " + strings.Join(brokers, ",") + "`"
	switch why := WhyNoAnswer(err); why {
	case NoBroker:
		return term.Fail(status, "cannot reach a broker at %s: %s; %s says what it is", where, why, doctor)
	case NoAnswer:
		return term.Fail(status, "cannot reach a broker at %s: %s; it hangs, or is no Kafka broker: %s says more", where, why, doctor)
	default:
		return term.Fail(status, "cannot reach a broker at %s: %s; start one with `millrace serve` or name others with --brokers", where, why)
	}
}

const (
	NoAnswer = "no answer"
	NoBroker = "what answers there is no Kafka broker"
)

// foreignPattern is how the client says that the first four bytes of an answer, which are
// its length in Kafka's protocol, are none. It has no error of its own for that.
var foreignPattern = regexp.MustCompile(`invalid (?:large|negative) response size`)

// WhyNoAnswer says why a broker did not answer.
func WhyNoAnswer(err error) string {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case errors.Is(err, term.ErrnoRefused):
		return "connection refused"
	case errors.As(err, &dns):
		return "no such host " + dns.Name
	case err == nil, errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return NoAnswer
	case foreignPattern.MatchString(err.Error()):
		return NoBroker
	}
	return err.Error()
}

// Asked explains why a topic could not be asked for.
func Asked(topic string, err error) error {
	if errors.Is(err, kerr.TopicAuthorizationFailed) {
		return TopicError(topic, err, "")
	}
	return fmt.Errorf("ask for topic %q: %w", topic, err)
}

// TopicError explains a broker's refusal concerning a topic.
// detail is what the broker said itself, often "".
func TopicError(topic string, err error, detail string) error {
	status := term.StatusOf(err)
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		return term.Fail(status, "topic %q does not exist; see `millrace topic list`, or create it with `millrace topic create %s`", topic, topic)
	case errors.Is(err, kerr.TopicAlreadyExists):
		return term.Fail(status, "topic %q exists already; --if-not-exists accepts that", topic)
	case errors.Is(err, kerr.InvalidTopicException) && detail == "":
		return term.Explain(err, "topic %q: a name has letters, digits, '.', '_' and '-', 249 at most, and is not '.' or '..'", topic)
	case errors.Is(err, kerr.PolicyViolation) && detail == "":
		return term.Explain(err, "topic %q: the cluster's policy does not allow it (POLICY_VIOLATION)", topic)
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		return term.Fail(status, "not allowed on topic %q; ask for the permission with an ACL", topic)
	}
	return term.Explain(err, "topic %q: %s", topic, BrokerSaid(err, detail))
}

// HealthSays ends a sentence about what a command cannot find out itself.
const HealthSays = "; `millrace cluster health` says why"

// BrokerSaid is a broker's error in words: its own message when it sent one,
// else the sentence the protocol has for the code.
func BrokerSaid(err error, detail string) string {
	if detail != "" {
		return detail
	}
	var code *kerr.Error
	if errors.Is(err, kerr.LeaderNotAvailable) {
		return "no leader now (LEADER_NOT_AVAILABLE)" + HealthSays
	}
	if errors.As(err, &code) {
		return strings.TrimSuffix(code.Description, ".") + " (" + code.Message + ")"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Addr != nil {
		return WhyNoAnswer(err) + " at " + op.Addr.String()
	}
	return WhyNoAnswer(err)
}

// GroupError explains a coordinator's refusal.
func GroupError(group string, err error) error {
	status := term.StatusOf(err)
	switch {
	case errors.Is(err, kerr.GroupIDNotFound):
		return term.Fail(status, "group %q does not exist; see `millrace group list`", group)
	case errors.Is(err, kerr.NonEmptyGroup):
		return term.Fail(status, "group %q has members; stop its consumers first", group)
	case errors.Is(err, kerr.FencedInstanceID):
		return term.Fail(status, "group %q: another process is this static member now; each needs an --instance of its own", group)
	case errors.Is(err, kerr.InvalidSessionTimeout):
		return term.Fail(term.StatusUsage, "group %q: the broker does not allow this --session-timeout; see group.min.session.timeout.ms and group.max.session.timeout.ms", group)
	case errors.Is(err, kerr.InconsistentGroupProtocol):
		return term.Fail(status, "group %q is in use by consumers that share partitions in another way (or by something that is no consumer); choose another --group", group)
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		return term.Fail(status, "not allowed on group %q; ask for the permission with an ACL", group)
	case errors.Is(err, kerr.InvalidGroupID):
		return term.Fail(term.StatusUsage, "%q is not the name of a group", group)
	}
	var shards *kadm.ShardErrors
	if errors.As(err, &shards) && len(shards.Errs) > 0 { // of its coordinator
		if first := shards.Errs[0]; first.Broker.NodeID >= 0 && !answered(first.Err) {
			return term.Explain(err, "group %q: its coordinator, broker %d at %s, does not answer: %s%s",
				group, first.Broker.NodeID, net.JoinHostPort(first.Broker.Host, fmt.Sprint(first.Broker.Port)), WhyNoAnswer(first.Err), HealthSays)
		}
		err = shards.Errs[0].Err
	}
	return term.Explain(err, "group %q: %s", group, strings.TrimSpace(BrokerSaid(err, "")))
}

// answered reports whether an error is what a broker said.
func answered(err error) bool {
	var code *kerr.Error
	return errors.As(err, &code)
}

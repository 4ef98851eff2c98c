package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

// SettleTimeout bounds how long a question is asked again while the cluster
// elects leaders.
const SettleTimeout = 15 * time.Second

// Settle asks again while the answer is one that passes by itself: an election.
func Settle(ctx context.Context, f func(context.Context) error) error {
	return SettleFor(ctx, SettleTimeout, f)
}

// SettleFor is Settle with another patience than everybody's. An attempt has its own limit,
// so that what does not answer is asked anew, and what answers is found.
func SettleFor(ctx context.Context, patience time.Duration, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for attempt := 1; ; attempt++ {
		one, done := context.WithTimeout(ctx, SettleTimeout)
		err := f(one)
		late := ctx.Err() == nil && one.Err() != nil
		done()
		if err == nil || !Passes(err) && !late {
			return err
		}
		select {
		case <-time.After(Backoff(attempt)):
		case <-ctx.Done():
			return err
		}
	}
}

// Passes reports whether an error is of a kind that an election or a restart ends.
func Passes(err error) bool {
	var f *term.Failure
	if errors.As(err, &f) && f.Status == term.StatusNotFound {
		return false
	}
	// Who does not answer may have died just now, and what was its is another's soon.
	gone := errors.Is(err, term.ErrnoRefused) || kgo.IsRetryableBrokerErr(err)
	return gone || kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition)
}

// CheckFetches returns an error that waiting does not mend.
func CheckFetches(c *urfave.Context, fetches kgo.Fetches) error {
	var found error
	fetches.EachError(func(topic string, partition int32, err error) {
		var lost *kgo.ErrDataLoss
		switch {
		case found != nil, errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		case errors.As(err, &lost):
			fmt.Fprintf(c.App.ErrWriter, "millrace: %s/%d lost its records from offset %d on; continuing at %d\n",
				topic, partition, lost.ConsumedTo, lost.ResetTo)
		case kerr.IsRetriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition):
		case topic != "" && partition >= 0:
			found = TopicError(topic, err, "")
		case JoinRefused(err) != nil && Passes(JoinRefused(err)): // the client goes on trying
		case JoinRefused(err) != nil:
			found = GroupError(c.String("group"), JoinRefused(err))
		default:
			found = err
		}
	})
	return found
}

// JoinRefused returns why the coordinator does not let this member in, nil if
// that is not what happened.
func JoinRefused(err error) error {
	var session *kgo.ErrGroupSession
	if errors.As(err, &session) {
		return session.Err
	}
	return nil
}

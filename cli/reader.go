package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	urfave "github.com/urfave/cli/v2"
)

// withReader is kafka.WithClient for a command that shows what there is. It finds out first, of
// all brokers at once, who does not answer: they are not asked again, so that what the others
// know is there within seconds, and in the end it is said who was left out, and once.
func withReader(c *urfave.Context, f func(ctx context.Context, r *reader) error) error {
	brokers, err := kafka.BrokersNamed(c)
	if err != nil {
		return err
	}
	r := &reader{outage: findOutage(c.Context, brokers, need{})}
	if r.unreached != nil {
		return r.unreached
	}
	if r.client, err = kafka.DialBrokers(kafka.Reading(c.Context), brokers, r.passBy(c.Context)...); err != nil {
		return err
	}
	defer r.client.Close()
	r.admin = kadm.NewClient(r.client)
	r.admin.SetTimeoutMillis(15_000)
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	if err := f(ctx, r); err != nil {
		return err
	}
	if why := r.String(); len(r.away) > 0 {
		fmt.Fprintf(c.App.ErrWriter, "millrace: not everything can be told: %s\n", why)
	}
	return nil
}

// A reader is the clients of withReader, and what keeps their cluster from telling all.
type reader struct {
	*outage
	client *kgo.Client
	admin  *kadm.Client
}

// passBy makes a client fail at once, and not try for long, where a broker does not answer.
// One that is paused takes connections, and each would be waited for.
func (o *outage) passBy(ctx context.Context) []kgo.Opt {
	if len(o.away) == 0 {
		return nil
	}
	dial := kafka.Dialer(ctx, 3*time.Second)
	return []kgo.Opt{
		kgo.RetryTimeout(3 * time.Second),
		kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
			if slices.ContainsFunc(o.away, func(b registered) bool { return b.address == address }) {
				return nil, &net.OpError{Op: "dial", Net: network, Err: term.ErrnoRefused}
			}
			return dial(ctx, network, address)
		}),
	}
}

// isAway reports whether a broker is one of those that do not answer.
func (o *outage) isAway(node int32) bool {
	return slices.ContainsFunc(o.away, func(b registered) bool { return b.node == node })
}

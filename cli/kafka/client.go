package kafka

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	urfave "github.com/urfave/cli/v2"
)

// DefaultBroker is where a broker is looked for that nobody names.
const DefaultBroker = "127.0.0.1:9092"

// brokerFlag is the flag of every command that talks to a cluster.
func brokerFlag() urfave.Flag {
	return &urfave.StringFlag{
		Name: "brokers", Aliases: []string{"b"}, EnvVars: []string{"MILLRACE_BROKERS"},
		Value: DefaultBroker, DefaultText: DefaultBroker,
		Usage: "brokers to begin with, `HOST:PORT,…`",
	}
}

// Flags joins the flags every client command has to its own.
func Flags(own ...[]urfave.Flag) []urfave.Flag {
	flags := []urfave.Flag{brokerFlag()}
	for _, f := range own {
		flags = append(flags, f...)
	}
	command := &urfave.Command{Flags: flags}
	for _, f := range connectionFlags() {
		if term.Lookup(command, f.Names()[0]) == nil {
			flags = append(flags, f)
		}
	}
	return flags
}

// ParseBrokers returns the brokers a command line names with some flag. A port left out is
// 9092.
func ParseBrokers(flag, list string) ([]string, error) {
	var brokers []string
	for b := range strings.SplitSeq(list, ",") {
		b = strings.TrimSpace(b)
		if b == "" {
			continue
		}
		// What may be a password is not repeated.
		if scheme, rest, ok := strings.Cut(b, "://"); ok {
			return nil, term.Usage("%s: brokers speak Kafka's protocol, which has no scheme such as %s; it is %s", flag, scheme, bareAddress(scheme, rest))
		}
		if strings.Contains(b, "@") {
			return nil, term.Usage("%s: an address has no user or password; it is %s", flag, bareAddress("", b))
		}
		if strings.ContainsAny(b, " \t\r\n;") {
			return nil, term.Usage("%s %q: commas separate brokers, HOST:PORT,HOST:PORT", flag, b)
		}
		host, port, err := net.SplitHostPort(b)
		if err != nil {
			host, port = strings.Trim(b, "[]"), "9092"
		}
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ":") {
			return nil, term.Usage("%s %q: it is no HOST:PORT, nor an IPv6 address, which stands in brackets before a port: [::1]:9092", flag, b)
		}
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return nil, term.Usage("%s %q: %q is not a port", flag, b, port)
		}
		brokers = append(brokers, net.JoinHostPort(host, port))
	}
	if len(brokers) == 0 {
		return nil, term.Usage("%s is empty; it is HOST:PORT,…", flag)
	}
	return brokers, nil
}

// bareAddress is what a broker's address may be where somebody wrote a URL: its host, and
// its port, if that is not another protocol's.
func bareAddress(scheme, rest string) string {
	rest = rest[strings.LastIndexByte(rest, '@')+1:]
	if end := strings.IndexAny(rest, "/?#"); end >= 0 {
		rest = rest[:end]
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), "9092"
	}
	switch {
	case host == "":
		return "HOST:PORT"
	case slices.Contains([]string{"amqp", "amqps", "http", "https", "mqtt", "mqtts", "nats", "redis"}, strings.ToLower(scheme)):
		port = "9092"
	}
	return net.JoinHostPort(host, port)
}

// Dial returns a client of the cluster named by the command line, after a
// broker has answered it. The caller closes it.
func Dial(c *urfave.Context, options ...kgo.Opt) (*kgo.Client, error) {
	brokers, err := BrokersNamed(c)
	if err != nil {
		return nil, err
	}
	return DialBrokers(c.Context, brokers, options...)
}

// BrokersNamed returns the brokers of the command line, or else of the environment, where
// a variable that is empty names none.
func BrokersNamed(c *urfave.Context) ([]string, error) {
	list := c.String("brokers")
	if others := accessIn(c.Context).brokers; others != "" && !brokersFlagged(c) {
		return ParseBrokers("bootstrap.servers", others)
	}
	if empty, set := os.LookupEnv("MILLRACE_BROKERS"); list == "" && set && empty == "" {
		list = DefaultBroker
	}
	return ParseBrokers("--brokers", list)
}

// newClient makes every client of the program. How the cluster is reached, and as whom, ctx
// says.
func newClient(ctx context.Context, brokers []string, options ...kgo.Opt) (*kgo.Client, error) {
	all := append([]kgo.Opt{kgo.SeedBrokers(brokers...), kgo.ClientID("millrace")}, accessIn(ctx).options(ctx)...)
	return kgo.NewClient(append(all, options...)...)
}

// Sole returns a client that knows one broker, and so asks no other before that has told it
// of them. It does not ask again, and the broker need not be there.
func Sole(ctx context.Context, address string, options ...kgo.Opt) (*kgo.Client, error) {
	return newClient(ctx, []string{address}, append([]kgo.Opt{kgo.RequestRetries(0)}, options...)...)
}

// DialBrokers is Dial for addresses already known.
//
// The settings are those of a client that expects brokers to die: it looks for a
// new leader every 20 ms at first, backing off to 500 ms, and never believes its
// metadata for longer than 10 s.
func DialBrokers(ctx context.Context, brokers []string, options ...kgo.Opt) (*kgo.Client, error) {
	options = append([]kgo.Opt{
		kgo.SoftwareNameAndVersion("millrace", term.Version),
		kgo.DialTimeout(3 * time.Second),
		kgo.MetadataMinAge(20 * time.Millisecond),
		kgo.MetadataMaxAge(10 * time.Second),
		kgo.RetryBackoffFn(Backoff),
		kgo.RetryTimeout(20 * time.Second),
		kgo.AlwaysRetryEOF(), // a broker that dies takes connections for a moment more
	}, options...)
	client, err := newClient(ctx, brokers, append(options, noting(ctx)...)...)
	if err != nil {
		return nil, term.Usage("%v", err)
	}
	// A client retries for ever; somebody at a terminal who forgot to start a
	// broker wants to hear so at once. Ping asks each broker once, in order.
	ping, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	preferAnswering(ping, client, brokers)
	if err := client.Ping(ping); err != nil {
		client.Close()
		return nil, Unreachable(ctx, brokers, err)
	}
	return client, nil
}

// preferAnswering puts the broker that answers first before the others, if one does.
// A process that is paused, or whose machine hangs, takes connections and says nothing:
// asked in order, it would use up the time of all that are named after it.
func preferAnswering(ctx context.Context, client *kgo.Client, brokers []string) {
	if len(brokers) < 2 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answered := make(chan int, len(brokers))
	for i, b := range client.SeedBrokers() {
		go func() { // ends with the answer, or with ctx
			if _, err := b.Request(ctx, kmsg.NewPtrApiVersionsRequest()); err != nil {
				i = -1
			}
			answered <- i
		}()
	}
	for range brokers {
		if i := <-answered; i == 0 {
			return
		} else if i > 0 {
			first := append([]string{brokers[i]}, brokers[:i]...)
			client.UpdateSeedBrokers(append(first, brokers[i+1:]...)...) // of addresses that were taken before
			return
		}
	}
}

// Backoff is the wait before the given attempt, counted from 1: a new leader
// exists a few milliseconds after the old one died, so asking often at first
// is what makes failover quick; a cluster that is down is asked twice a second.
func Backoff(attempt int) time.Duration {
	switch {
	case attempt <= 25: // the first half second
		return 20 * time.Millisecond
	case attempt <= 45:
		return 100 * time.Millisecond
	}
	return 500 * time.Millisecond
}

// WithAdmin runs f with an administrator's client of the cluster the command
// line names.
func WithAdmin(c *urfave.Context, f func(ctx context.Context, admin *kadm.Client) error) error {
	return WithClient(c, func(ctx context.Context, _ *kgo.Client, admin *kadm.Client) error { return f(ctx, admin) })
}

// WithClient is WithAdmin for who also asks what an administrator's client does not.
func WithClient(c *urfave.Context, f func(ctx context.Context, client *kgo.Client, admin *kadm.Client) error) error {
	client, err := Dial(c)
	if err != nil {
		return err
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	admin.SetTimeoutMillis(15_000)
	ctx, cancel := context.WithTimeout(c.Context, 30*time.Second)
	defer cancel()
	return f(ctx, client, admin)
}

// Address is where a broker is reached, HOST:PORT.
func Address(b kadm.BrokerDetail) string {
	return net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))
}

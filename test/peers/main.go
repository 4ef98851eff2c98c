// Peers measures Millrace beside Apache Kafka and NATS JetStream: three brokers
// of each in turn on this machine, the same loads, several rounds.
//
//	go run . compare -o ../../BENCHMARKS.md
//	go run . compare -quick
//	go run . curves -o ../../BENCHMARKS.md
//	go run . security -o ../../BENCHMARKS.md
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"millrace/peers/natsload"
)

func main() {
	// The first signal ends everything in an orderly way, a second one at once; no
	// process is left behind in either case.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := command(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage): // which has been said
		os.Exit(2)
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "peers: interrupted")
		os.Exit(1)
	default:
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

const usageText = `peers measures Millrace beside Apache Kafka and NATS JetStream.

  peers compare [-h | flags]   the same loads for all three, side by side
  peers curves [-h | flags]    how Millrace scales
  peers security [-h | flags]  what it costs Millrace to be safe
`

// errUsage is a mistake in the command line.
var errUsage = errors.New("the command line is wrong")

func command(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usageText)
		return errUsage
	}
	switch name, args := args[0], args[1:]; name {
	case "-h", "--help":
		fmt.Fprint(stdout, usageText)
		return nil
	case "compare":
		return compare(ctx, args, stdout, stderr)
	case "curves":
		return runCurves(ctx, args, stdout, stderr)
	case "security":
		return runSecurity(ctx, args, stdout, stderr)
	// The rest is what this program starts itself as.
	case "nats-bench":
		return natsload.Command(ctx, args, stdout)
	case "limit-send":
		return limitSend(args, stdout)
	case "limit-read":
		return limitRead(args, stdout)
	}
	fmt.Fprint(stderr, usageText)
	return fmt.Errorf("there is no command %q", args[0])
}

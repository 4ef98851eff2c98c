// Package cli is the command line of Millrace: one binary, server and client.
//
// serve, up, demo, segment, cluster rescue and doctor --data-dir work on this machine's
// processes and files; version, completion and man need nothing but the program; every
// other command is an ordinary Kafka client (franz-go) and so works against any Kafka
// cluster. Each command lives in a file of its own, its help beside its flags: here,
// those that run brokers in package local, and bench in package bench. All clients are
// made in one place, kafka.DialBrokers.
//
// Three things hold for all of them, and are package term's:
//
//   - Flags may stand before, between and after arguments, short ones may be
//     joined ("-n5", "-eq"), and "--" ends them.
//   - Results go to standard output, everything said about them to standard
//     error, and an error is one line: what, where, what to do.
//   - The exit status says which kind of ending it was; its Status constants
//     list them.
package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"millrace/cli/bench"
	"millrace/cli/kafka"
	"millrace/cli/local"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

// Main runs the process's command line and returns its exit status.
//
// The first SIGINT or SIGTERM ends the command in an orderly way, a second one
// ends the process at once.
func Main() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Give the signals back their default meaning once the first has come.
	context.AfterFunc(ctx, stop)
	return Run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// Run runs one command line, without the program's name, and returns its exit
// status. It ends early, in an orderly way, when ctx does. The error, if there is
// one, has been written to stderr.
func Run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	return term.Report(stderr, run(ctx, args, stdin, stdout, stderr))
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == completeWord {
		return complete(ctx, args[1:], stdout)
	}
	return term.Run(ctx, &urfave.App{
		Usage:                 "a Kafka-compatible log broker, and its command line",
		Commands:              commands(),
		Reader:                stdin,
		Writer:                stdout,
		ErrWriter:             stderr,
		CustomAppHelpTemplate: appHelp,
	}, args)
}

// commands returns a fresh tree of all commands; urfave writes into it while it runs.
func commands() []*urfave.Command {
	all := written()
	reachCluster(all)
	term.Prepare(all)
	return all
}

// written returns the tree with its texts as they are written.
func written() []*urfave.Command {
	return []*urfave.Command{
		local.ServeCommand(),
		local.UpCommand(),
		local.DemoCommand(),
		produceCommand(),
		consumeCommand(),
		topicCommand(),
		groupCommand(),
		aclCommand(),
		userCommand(),
		quotaCommand(),
		contextCommand(),
		clusterCommand(),
		doctorCommand(),
		segmentCommand(),
		bench.Command(),
		versionCommand(),
		completionCommand(),
		manCommand(),
	}
}

// reachCluster has every command of a tree that asks brokers reach them as its flags say, say
// why they did not answer, and end when all of them know what it changed.
func reachCluster(commands []*urfave.Command) {
	for _, c := range commands {
		if action := c.Action; action != nil && kafka.IsClient(c) {
			c.Action = kafka.Reach(func(ctx *urfave.Context) error { return whyNot(ctx, action(ctx)) })
		}
		reachCluster(c.Subcommands)
	}
}

// appHelp is the text of `millrace --help`, one of urfave's templates.
const appHelp = `millrace - {{.Usage}}

USAGE:
   millrace COMMAND [FLAGS] [ARGUMENTS]

COMMANDS:{{range .VisibleCommands}}
   {{printf "%-12s" .Name}}{{.Usage}}{{end}}

   millrace COMMAND --help says more. The brokers to talk to are given by -b or
   MILLRACE_BROKERS; 127.0.0.1:9092 by default.

EXIT STATUS:
   0 done · 1 failed · 2 usage · 3 not found · 4 not allowed · 5 timed out ·
   10 cluster unhealthy · 11 lag over the threshold

START HERE:
   $ millrace demo
   $ millrace up
`

// Package cli is the command line of Millrace: one binary, server and client.
//
// serve, up, demo, segment, cluster rescue and doctor --data-dir work on this machine's
// processes and files; version, completion and man need nothing but the program; every
// other command is an ordinary Kafka client (franz-go) and so works against any Kafka
// cluster. Each command lives in a file of its own, its help beside its flags.
//
// Three things hold for all of them:
//
//   - Flags may stand before, between and after arguments, short ones may be
//     joined ("-n5", "-eq"), and "--" ends them (args.go).
//   - Results go to standard output, everything said about them to standard
//     error, and an error is one line: what, where, what to do (errors.go).
//   - The exit status says which kind of ending it was; the Status constants
//     list them.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	urfave "github.com/urfave/cli/v2"
)

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
	err := run(ctx, args, stdin, stdout, stderr)
	if err == nil {
		return StatusDone
	}
	var said *silent
	if !errors.As(err, &said) {
		var several mistakes
		if !errors.As(err, &several) {
			several = mistakes{oneLine(err)}
		}
		for _, m := range several {
			fmt.Fprintf(stderr, "millrace: %s\n", m)
		}
	}
	return statusOf(err)
}

func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) > 0 && args[0] == completeWord {
		return complete(ctx, args[1:], stdout)
	}
	commands := commands()
	args, err := arrange(commands, args)
	if err != nil {
		return err
	}
	app := &urfave.App{
		Name:                      "millrace",
		Usage:                     "a Kafka-compatible log broker, and its command line",
		Version:                   versionLine(),
		Commands:                  commands,
		Reader:                    stdin,
		Writer:                    stdout,
		ErrWriter:                 stderr,
		HideHelpCommand:           true,
		HideVersion:               false,
		DisableSliceFlagSeparator: true, // a comma belongs to the value: -H list=a,b
		ExitErrHandler:            func(*urfave.Context, error) {},
		CustomAppHelpTemplate:     appHelp,
	}
	return app.RunContext(ctx, append([]string{app.Name}, args...))
}

// commands returns a fresh tree of all commands; urfave writes into it while it runs.
func commands() []*urfave.Command {
	all := written()
	prepare(all)
	return all
}

// written returns the tree with its texts as they are written.
func written() []*urfave.Command {
	return []*urfave.Command{
		serveCommand(),
		upCommand(),
		demoCommand(),
		produceCommand(),
		consumeCommand(),
		topicCommand(),
		groupCommand(),
		clusterCommand(),
		doctorCommand(),
		segmentCommand(),
		benchCommand(),
		versionCommand(),
		completionCommand(),
		manCommand(),
	}
}

// prepare gives every command of a tree the same manners.
func prepare(commands []*urfave.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = func(_ *urfave.Context, err error, _ bool) error { return badValue(c, err) }
		c.Description = fold(c.Description)
		c.CustomHelpTemplate = helpOf(c)
		if action := c.Action; action != nil && lookup(c, "brokers") != nil {
			c.Action = func(ctx *urfave.Context) error { return whyNot(ctx, action(ctx)) }
		}
		prepare(c.Subcommands)
	}
}

package term

import (
	"context"
	"errors"
	"fmt"
	"io"

	urfave "github.com/urfave/cli/v2"
)

// Run runs one command line, without the program's name, of an app with prepared
// commands, which urfave writes into.
func Run(ctx context.Context, app *urfave.App, args []string) error {
	args, err := Arrange(app.Commands, args)
	if err != nil {
		return err
	}
	app.Name = "millrace"
	app.Version = VersionLine()
	app.HideHelpCommand = true
	app.DisableSliceFlagSeparator = true // a comma belongs to the value: -H list=a,b
	app.ExitErrHandler = func(*urfave.Context, error) {}
	return app.RunContext(ctx, append([]string{app.Name}, args...))
}

// Report writes an error to stderr, unless that has been done, a line for each mistake, and
// returns the exit status it ends the program with.
func Report(stderr io.Writer, err error) int {
	if err == nil {
		return StatusDone
	}
	var said *Silent
	if !errors.As(err, &said) {
		var several Mistakes
		if !errors.As(err, &several) {
			several = Mistakes{OneLine(err)}
		}
		for _, m := range several {
			fmt.Fprintf(stderr, "millrace: %s\n", m)
		}
	}
	return StatusOf(err)
}

// Prepare gives every command of a tree the same manners.
func Prepare(commands []*urfave.Command) {
	for _, c := range commands {
		c.HideHelpCommand = true
		c.OnUsageError = func(_ *urfave.Context, err error, _ bool) error { return badValue(c, err) }
		c.Description = Fold(c.Description)
		c.CustomHelpTemplate = helpOf(c)
		Prepare(c.Subcommands)
	}
}

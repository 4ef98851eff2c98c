package cli

import (
	"fmt"

	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

func versionCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "version",
		Usage: "print the version",
		Description: `   Prints version, commit, Go release and platform in one line. A commit is known of what was
   built in a clone of the repository, or as a package; "+changes" says that it had others.

   JSON: {version, commit, go, platform}.

EXAMPLES:
   $ millrace version
   $ millrace version -o json`,
		Flags: term.OutputFlags(true)[:1], // a line has no headers
		Action: func(c *urfave.Context) error {
			if c.NArg() > 0 {
				return term.Usage("version takes no arguments, but %q was given", c.Args().First())
			}
			return term.PrintObject(c, term.Build(), term.Version, func() error {
				_, err := fmt.Fprintln(c.App.Writer, "millrace", term.VersionLine())
				return err
			})
		},
	}
}

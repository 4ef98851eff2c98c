package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	urfave "github.com/urfave/cli/v2"
)

// version is what this tree becomes when it is released.
const version = "0.1.0"

func versionCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "version",
		Usage: "print the version",
		Description: `   Prints version, commit, Go release and platform in one line.

EXAMPLES:
   $ millrace version`,
		Action: func(c *urfave.Context) error {
			_, err := fmt.Fprintln(c.App.Writer, "millrace", versionLine())
			return err
		},
	}
}

// versionLine says what was built: "0.1.0 (1a2b3c4d5e6f, go1.26.8, linux/amd64)".
func versionLine() string {
	commit, dirty := "", ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				commit = s.Value[:min(12, len(s.Value))]
			case "vcs.modified":
				if s.Value == "true" {
					dirty = "+changes"
				}
			}
		}
	}
	if commit != "" {
		commit += dirty + ", "
	}
	return fmt.Sprintf("%s (%s%s, %s/%s)", version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

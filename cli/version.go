package cli

import (
	"fmt"
	"runtime"
	"runtime/debug"

	urfave "github.com/urfave/cli/v2"
)

// version is what this tree becomes when it is released, unless who packages it says
// otherwise by -ldflags "-X millrace/cli.version=…".
var version = "0.1.0"

// commit is what was built, where the Go command does not know it: packages set it by
// -ldflags "-X millrace/cli.commit=…".
var commit string

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
		Flags: outputFlags(true)[:1], // a line has no headers
		Action: func(c *urfave.Context) error {
			if c.NArg() > 0 {
				return usage("version takes no arguments, but %q was given", c.Args().First())
			}
			return printObject(c, build(), version, func() error {
				_, err := fmt.Fprintln(c.App.Writer, "millrace", versionLine())
				return err
			})
		},
	}
}

// A buildInfo is what was built.
type buildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // "" where nobody said
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func build() buildInfo {
	b := buildInfo{version, commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		b.Commit = commitOf(info.Settings)
	}
	return b
}

// commitOf is the commit that the Go command has put into a program.
func commitOf(settings []debug.BuildSetting) (commit string) {
	dirty := ""
	for _, s := range settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	if commit == "" {
		return ""
	}
	return commit + dirty
}

// software is the program and what it was built of, as a broker tells it.
func software() string {
	b := build()
	if b.Commit == "" {
		return "millrace " + b.Version
	}
	return fmt.Sprintf("millrace %s (%s)", b.Version, b.Commit)
}

// versionLine says what was built: "0.1.0 (1a2b3c4d5e6f, go1.26.8, linux/amd64)".
func versionLine() string {
	b := build()
	of := b.Commit
	if of == "" {
		of = "commit not known"
	}
	return fmt.Sprintf("%s (%s, %s, %s)", b.Version, of, b.Go, b.Platform)
}

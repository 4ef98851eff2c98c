package term

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version is what this tree becomes when it is released, unless who packages it says
// otherwise by -ldflags "-X millrace/cli/term.Version=…".
var Version = "0.1.0"

// Commit is what was built, where the Go command does not know it: packages set it by
// -ldflags "-X millrace/cli/term.Commit=…".
var Commit string

// A BuildInfo is what was built.
type BuildInfo struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"` // "" where nobody said
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// Build says what this program was built of.
func Build() BuildInfo {
	b := BuildInfo{Version, Commit, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		b.Commit = CommitOf(info.Settings)
	}
	return b
}

// CommitOf is the commit that the Go command has put into a program.
func CommitOf(settings []debug.BuildSetting) (commit string) {
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

// Software is the program and what it was built of, as a broker tells it.
func Software() string {
	b := Build()
	if b.Commit == "" {
		return "millrace " + b.Version
	}
	return fmt.Sprintf("millrace %s (%s)", b.Version, b.Commit)
}

// VersionLine says what was built: "0.1.0 (1a2b3c4d5e6f, go1.26.8, linux/amd64)".
func VersionLine() string {
	b := Build()
	of := b.Commit
	if of == "" {
		of = "commit not known"
	}
	return fmt.Sprintf("%s (%s, %s, %s)", b.Version, of, b.Go, b.Platform)
}

package cli

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"millrace/cli/clitest"
	"millrace/cli/term"

	urfave "github.com/urfave/cli/v2"
)

// eachCommand calls f for every command that does something, with its words and
// the names of its flags.
func eachCommand(all []*urfave.Command, words []string, f func(words, flags []string)) {
	for _, c := range all {
		words := append(words[:len(words):len(words)], c.Name)
		if len(c.Subcommands) > 0 {
			eachCommand(c.Subcommands, words, f)
			continue
		}
		var flags []string
		for _, flag := range c.Flags {
			flags = append(flags, flag.Names()...)
		}
		f(words, flags)
	}
}

// examples returns the lines of a help text that begin with "$ ".
func examples(help string) (lines []string) {
	help = regexp.MustCompile(` \\\n +`).ReplaceAllString(help, " ") // what was broken
	for line := range strings.Lines(help) {
		if example, ok := strings.CutPrefix(strings.TrimSpace(line), "$ "); ok {
			lines = append(lines, example)
		}
	}
	return lines
}

// oneAtATime is held by tests that run commands in this process beside others: all command
// trees share the flag of --help, which the library writes to.
var oneAtATime sync.Mutex

func helpText(t *testing.T, words []string) string {
	t.Helper()
	oneAtATime.Lock()
	defer oneAtATime.Unlock()
	var out strings.Builder
	if status := Run(t.Context(), append(words, "--help"), strings.NewReader(""), &out, &out); status != term.StatusDone {
		t.Fatalf("millrace %s --help: status %d: %s", strings.Join(words, " "), status, out.String())
	}
	return out.String()
}

func TestEveryCommandHasHelpWithExamplesAndAllItsFlags(t *testing.T) {
	eachCommand(commands(), nil, func(words, flags []string) {
		name := "millrace " + strings.Join(words, " ")
		help := helpText(t, words)
		if !strings.HasPrefix(help, name+" - ") {
			t.Errorf("%s: help begins with %q", name, strings.SplitN(help, "\n", 2)[0])
		}
		if len(examples(help)) == 0 {
			t.Errorf("%s: no example", name)
		}
		for _, flag := range flags {
			dashed := "--" + flag
			if len(flag) == 1 {
				dashed = "-" + flag
			}
			if !strings.Contains(help, dashed) {
				t.Errorf("%s: %s is not in its help", name, dashed)
			}
		}
		for line := range strings.Lines(help) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > term.HelpWidth {
				t.Errorf("%s: a line of help is %d wide: %s", name, n, line)
			}
			if strings.Contains(line, "`") {
				t.Errorf("%s: a back quote is left: %s", name, line)
			}
		}
	})
}

// What the Go command says of a build is its commit; what nobody says is not made up.
func TestVersionNamesTheCommit(t *testing.T) {
	revision := debug.BuildSetting{Key: "vcs.revision", Value: "0123456789abcdef"}
	for want, settings := range map[string][]debug.BuildSetting{
		"":                     {{Key: "vcs", Value: "git"}},
		"0123456789ab":         {revision, {Key: "vcs.modified", Value: "false"}},
		"0123456789ab+changes": {revision, {Key: "vcs.modified", Value: "true"}},
	} {
		if got := term.CommitOf(settings); got != want {
			t.Errorf("%v: %q, want %q", settings, got, want)
		}
	}
	defer func() { term.Commit = "" }()
	term.Commit = "feedbeef"
	for args, want := range map[string]string{
		"version":         "millrace " + term.Version + " (feedbeef, " + runtime.Version() + ", " + runtime.GOOS + "/" + runtime.GOARCH + ")\n",
		"version -o name": term.Version + "\n",
		"version -o jsonl": `{"version":"` + term.Version + `","commit":"feedbeef","go":"` + runtime.Version() + `","platform":"` +
			runtime.GOOS + "/" + runtime.GOARCH + `"}` + "\n",
	} {
		var out strings.Builder
		if status := Run(t.Context(), strings.Fields(args), strings.NewReader(""), &out, &out); status != term.StatusDone || out.String() != want {
			t.Errorf("millrace %s: status %d, %q, want %q", args, status, out.String(), want)
		}
	}
}

// Each example at least is a command line that can be understood; those that
// need a cluster are run against one in cluster_test.go.
func TestExamplesParse(t *testing.T) {
	eachCommand(commands(), nil, func(words, _ []string) {
		for _, example := range examples(helpText(t, words)) {
			if strings.HasSuffix(example, `\`) {
				t.Errorf("$ %s: an example is not put together again", example)
			}
			for part := range strings.SplitSeq(example, " | ") {
				line, ok := strings.CutPrefix(strings.TrimSpace(part), "millrace ")
				if !ok {
					continue
				}
				if _, err := term.Arrange(commands(), strings.Fields(line)); err != nil {
					t.Errorf("$ %s: %v", example, err)
				}
			}
		}
	})
}

// Prose is set anew, examples are continued before a flag, and lists stay.
func TestHelpIsFoldedAtTheTerminalsWidth(t *testing.T) {
	word := strings.Repeat("x", 30)
	got := term.Fold("   " + word + " " + word + "\n   " + word + "\n\n      a list stays\nEXAMPLES:\n   $ " + word + " --" + word + " --" + word)
	want := "   " + word + " " + word + "\n   " + word + "\n\n      a list stays\nEXAMPLES:\n   $ " + word + " --" + word + " \\\n       --" + word
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFlagsHelpSetsTwoColumns(t *testing.T) {
	got := term.FlagsHelp([]urfave.Flag{
		&urfave.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "read this `FILE`"},
		&urfave.StringFlag{Name: "codec", Usage: "`CODEC`: one of many", DefaultText: "none"},
		&urfave.BoolFlag{Name: "quiet", Usage: "say " + strings.Repeat("nothing ", 12)},
	})
	want := `   -f, --file FILE    read this FILE
       --codec CODEC  one of many (default none)
       --quiet        say nothing nothing nothing nothing nothing nothing
                      nothing nothing nothing nothing nothing nothing
   -h, --help         show this
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// runExamples runs the examples of a command's help in a folder, each by a shell that finds the
// program and the brokers; more are variables that it has besides.
func runExamples(t *testing.T, dir string, brokers []string, words []string, more ...string) {
	t.Helper()
	for _, example := range examples(helpText(t, words)) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // one that waits for ever is named
		cmd := exec.CommandContext(ctx, "sh", "-e", "-c", example)
		cmd.WaitDelay = time.Second
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(clitest.Program(t))+":"+os.Getenv("PATH"), "MILLRACE_BROKERS="+strings.Join(brokers, ","))
		cmd.Env = append(cmd.Env, more...)
		out, err := cmd.CombinedOutput()
		if cancel(); err != nil {
			t.Errorf("$ %s\n%s%v", example, out, err)
		}
	}
}

package cli

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/twmb/franz-go/pkg/kadm"
	urfave "github.com/urfave/cli/v2"
)

// completeWord is the hidden command the completion scripts call, with the words
// typed so far; the last one is the one to complete and may be "".
// It prints candidates, a line each: word, tab, description.
const completeWord = "__complete"

// completeTimeout bounds a question to the cluster: nobody waits longer for a Tab.
const completeTimeout = 800 * time.Millisecond

func completionCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "completion",
		Usage:     "print a completion script for bash, zsh or fish",
		ArgsUsage: "SHELL",
		Description: `   Commands, flags and their values, and the names of the topics and groups that exist now.

      bash  source <(millrace completion bash)   in ~/.bashrc
      zsh   source <(millrace completion zsh)    in ~/.zshrc, after compinit
      fish  millrace completion fish | source    in ~/.config/fish/config.fish

EXAMPLES:
   $ millrace completion bash
   $ millrace completion zsh
   $ millrace completion fish`,
		Action: func(c *urfave.Context) error {
			script, ok := completionScripts[c.Args().First()]
			if !ok || c.NArg() != 1 {
				return term.Usage("completion for which shell? bash, zsh or fish")
			}
			_, err := io.WriteString(c.App.Writer, script)
			return err
		},
	}
}

// The words are taken from the line itself, not from the shell's own list, which
// bash splits at the colon of a broker's address.
var completionScripts = map[string]string{
	"bash": `# bash completion for millrace
_millrace() {
  local line="${COMP_LINE:0:COMP_POINT}" word
  local -a words
  read -ra words <<< "$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  COMPREPLY=()
  while IFS=$'\t' read -r word _; do
    COMPREPLY+=("$word")
  done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -o default -F _millrace millrace
`,
	"zsh": `#compdef millrace
_millrace() {
  local -a candidates
  local word description
  while IFS=$'\t' read -r word description; do
    candidates+=("${word//:/\\:}:${description}")
  done < <("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
  if (( ${#candidates} )); then
    _describe millrace candidates
  else
    _files
  fi
}
compdef _millrace millrace
`,
	"fish": `# fish completion for millrace
function __millrace_complete
    set -l words (commandline -opc)
    set -l candidates ($words[1] __complete $words[2..-1] (commandline -ct) 2>/dev/null)
    if test (count $candidates) -eq 0
        __fish_complete_path (commandline -ct)
    else
        printf '%s\n' $candidates
    end
end
complete -c millrace -f -a '(__millrace_complete)'
`,
}

// flagValues are the values of flags that take one of a few words.
var flagValues = map[string][]string{
	"output":       {"table", "json", "yaml", "jsonl", "name"},
	"compression":  {"none", "gzip", "snappy", "lz4", "zstd"},
	"acks":         {"all", "1", "0"},
	"format":       {"text", "json", "value"},
	"offset":       {"start", "end", ":end"},
	"distribution": {"uniform", "round-robin", "zipf"},
	"log-level":    {"debug", "info", "warn", "error"},
}

// complete prints the candidates for the last of words.
func complete(ctx context.Context, words []string, w io.Writer) error {
	if len(words) == 0 {
		words = []string{""}
	}
	before, partial := words[:len(words)-1], words[len(words)-1]
	all := commands()
	path, command, _, rest := term.Split(all, before)
	say := func(word, description string) {
		if strings.HasPrefix(word, partial) {
			fmt.Fprintf(w, "%s\t%s\n", word, description)
		}
	}
	if command == nil {
		if len(rest) > 0 {
			return nil // a word that is no command: nothing fits behind it
		}
		for _, c := range term.Subcommands(all, path) {
			if !c.Hidden {
				say(c.Name, c.Usage)
			}
		}
		return nil
	}
	if len(before) > 0 {
		if f := flagNamed(command, before[len(before)-1]); f != nil && term.TakesValue(f) {
			for _, v := range flagValues[f.Names()[0]] {
				say(v, "")
			}
			if live := liveValues[f.Names()[0]]; live != nil {
				live(liveContext(ctx, w, command, before, partial))
			}
			return nil // without candidates the shell offers files
		}
	}
	if strings.HasPrefix(partial, "-") {
		for _, f := range command.Flags {
			say("--"+f.Names()[0], description(f))
		}
		say("--help", "show help")
		return nil
	}
	if command.BashComplete == nil {
		return nil
	}
	command.BashComplete(liveContext(ctx, w, command, before, append([]string{partial}, rest...)...))
	return nil
}

// liveContext is what a completion that asks the cluster is called with; its
// first argument is the word to complete.
func liveContext(ctx context.Context, w io.Writer, command *urfave.Command, before []string, args ...string) *urfave.Context {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.String("brokers", brokersTyped(before), "")
	c := urfave.NewContext(&urfave.App{Writer: w}, set, nil)
	c.Context = ctx
	c.Command = command
	set.Parse(append([]string{"--"}, args...))
	return c
}

// liveValues are the flags whose values the cluster knows.
var liveValues = map[string]urfave.BashCompleteFunc{
	"group":       completeGroups,
	"topic":       completeTopics,
	"topics":      completeTopics,
	"dead-letter": completeTopics,
}

// flagNamed finds the flag a word of the command line is: "-o", "--output".
func flagNamed(c *urfave.Command, word string) urfave.Flag {
	if !strings.HasPrefix(word, "-") || strings.Contains(word, "=") {
		return nil
	}
	return term.Lookup(c, strings.TrimLeft(word, "-"))
}

func description(f urfave.Flag) string {
	if d, ok := f.(urfave.DocGenerationFlag); ok {
		_, text := term.UnquoteUsage(d.GetUsage())
		return text
	}
	return ""
}

// brokersTyped finds the brokers of an unfinished command line.
func brokersTyped(words []string) string {
	for i, w := range words {
		switch {
		case (w == "-b" || w == "--brokers") && i+1 < len(words):
			return words[i+1]
		case strings.HasPrefix(w, "--brokers="):
			return strings.TrimPrefix(w, "--brokers=")
		}
	}
	if b := os.Getenv("MILLRACE_BROKERS"); b != "" {
		return b
	}
	return kafka.DefaultBroker
}

// completeTopics prints the topics that begin with the first argument.
func completeTopics(c *urfave.Context) {
	completeLive(c, func(ctx context.Context, admin *kadm.Client, say func(word, description string)) error {
		topics, err := admin.ListTopics(ctx)
		for _, t := range topics.Sorted() {
			say(t.Topic, term.Count(len(t.Partitions), "partition"))
		}
		return err
	})
}

// completeGroups prints the groups that begin with the first argument.
func completeGroups(c *urfave.Context) {
	completeLive(c, func(ctx context.Context, admin *kadm.Client, say func(word, description string)) error {
		groups, err := admin.ListGroups(ctx)
		for _, g := range groups.Sorted() {
			say(g.Group, g.State)
		}
		return err
	})
}

// completeLive asks the cluster for candidates. Whatever goes wrong, it says
// nothing: an error has no place in a completion.
func completeLive(c *urfave.Context, list func(ctx context.Context, admin *kadm.Client, say func(word, description string)) error) {
	ctx, cancel := context.WithTimeout(c.Context, completeTimeout)
	defer cancel()
	c.Context = ctx
	ctx, err := kafka.WithAccess(c)
	if err != nil {
		return
	}
	c.Context = ctx
	brokers, err := kafka.BrokersNamed(c)
	if err != nil {
		return
	}
	client, err := kafka.DialBrokers(ctx, brokers)
	if err != nil {
		return
	}
	defer client.Close()
	list(ctx, kadm.NewClient(client), func(word, description string) {
		if strings.HasPrefix(word, c.Args().First()) {
			fmt.Fprintf(c.App.Writer, "%s\t%s\n", word, description)
		}
	})
}

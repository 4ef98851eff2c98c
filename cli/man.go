package cli

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"millrace/cli/kafka"
	"millrace/cli/term"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	urfave "github.com/urfave/cli/v2"
)

func manCommand() *urfave.Command {
	return &urfave.Command{
		Name:      "man",
		Usage:     "show a manual page, or write all of them",
		ArgsUsage: "[COMMAND…]",
		Description: `   The page of a command, of the program itself without one. On a terminal man shows it, or,
   where there is no man, it is the text of --help. In a pipe, and with --roff, it is as man
   reads it. Packages have the pages installed already: man millrace-topic-create.

   SOURCE_DATE_EPOCH, in seconds, is the date that stands on them.

EXAMPLES:
   $ millrace man topic create
   $ millrace man topic create >topic-create.1
   $ millrace man --dir ./man1`,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "dir", Usage: "write all pages into this folder, `DIR`"},
			&urfave.BoolFlag{Name: "roff", Usage: "print the page as man reads it, on a terminal too"},
		},
		Action: man,
	}
}

func man(c *urfave.Context) error {
	date, err := dateOfSource()
	if err != nil {
		return err
	}
	pages := manPages(date)
	dir := c.String("dir")
	if dir == "" && c.IsSet("dir") {
		return term.Usage("--dir is empty; it is a folder, such as ./man1")
	}
	if dir != "" {
		if c.NArg() > 0 {
			return term.Usage("--dir writes every page, and takes no command")
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, p := range pages {
			if err := os.WriteFile(filepath.Join(dir, p.name+".1"), p.roff, 0o644); err != nil {
				return err
			}
		}
		fmt.Fprintf(c.App.ErrWriter, "%s in %s\n", term.Count(len(pages), "page"), dir)
		return nil
	}
	name := strings.Join(append([]string{c.App.Name}, c.Args().Slice()...), "-")
	for _, p := range pages {
		switch {
		case p.name != name:
			continue
		case term.IsTerminal(c.App.Writer) && !c.Bool("roff"):
			return showPage(c, p)
		}
		_, err := c.App.Writer.Write(p.roff)
		return err
	}
	return term.Usage("there is no command %q; see `millrace --help`", strings.Join(c.Args().Slice(), " "))
}

// showPage lets man format a page for the terminal, and page through it. What man there is
// may not take a page from its input, as those of BSD do not: then it is the help.
func showPage(c *urfave.Context, p manPage) error {
	if path, err := exec.LookPath("man"); err == nil {
		cmd := exec.CommandContext(c.Context, path, "-l", "-")
		cmd.Stdin, cmd.Stdout = bytes.NewReader(p.roff), c.App.Writer
		if err := cmd.Run(); err == nil || c.Context.Err() != nil {
			return nil
		}
	}
	return run(c.Context, append(c.Args().Slice(), "--help"), c.App.Reader, c.App.Writer, c.App.ErrWriter)
}

// dateOfSource is the day that SOURCE_DATE_EPOCH names, "" without one
// (https://reproducible-builds.org/specs/source-date-epoch/).
func dateOfSource() (string, error) {
	epoch := os.Getenv("SOURCE_DATE_EPOCH")
	if epoch == "" {
		return "", nil
	}
	seconds, err := strconv.ParseInt(epoch, 10, 64)
	if err != nil {
		return "", term.Usage("environment: SOURCE_DATE_EPOCH=%s: it is a number of seconds since 1970", epoch)
	}
	return time.Unix(seconds, 0).UTC().Format(time.DateOnly), nil
}

// A manPage is one page of section 1.
type manPage struct {
	name string // millrace-topic-create
	roff []byte
}

// manPages are the pages of the program and of all its commands. Each is written in
// Markdown, which md2man turns into what man reads.
func manPages(date string) (pages []manPage) {
	page := func(name, usage, text string) {
		title := fmt.Sprintf("%% %q %q %q %q %q\n", strings.ToUpper(name), "1", date, "Millrace "+term.Version, "Millrace")
		text = title + "\n# NAME\n\n" + name + ` \- ` + escape(usage) + "\n\n" + text
		pages = append(pages, manPage{name, md2man.Render([]byte(text))})
	}
	var walk func(above []string, all []*urfave.Command)
	walk = func(above []string, all []*urfave.Command) {
		for _, c := range all {
			if c.Hidden {
				continue
			}
			words := append(above[:len(above):len(above)], c.Name)
			var b strings.Builder
			synopsis := "**" + strings.Join(words, " ") + "**"
			switch {
			case len(c.Subcommands) > 0:
				synopsis += " COMMAND [FLAGS] [ARGUMENTS]"
			case c.ArgsUsage != "":
				synopsis += " " + escape(c.ArgsUsage) + " [FLAGS]"
			default:
				synopsis += " [FLAGS]"
			}
			fmt.Fprintf(&b, "# SYNOPSIS\n\n%s\n\n", synopsis)
			prose(&b, "DESCRIPTION", c.Description)
			if len(c.Subcommands) > 0 {
				listCommands(&b, words, c.Subcommands)
			} else {
				options(&b, c.Flags)
			}
			fmt.Fprintf(&b, "# SEE ALSO\n\n**%s**(1)\n", strings.Join(above, "-"))
			page(strings.Join(words, "-"), c.Usage, b.String())
			walk(words, c.Subcommands)
		}
	}
	all := written()
	program := []string{"millrace"}
	var b strings.Builder
	b.WriteString("# SYNOPSIS\n\n**millrace** COMMAND [FLAGS] [ARGUMENTS]\n\n# DESCRIPTION\n\n" +
		"One program, server and client. Flags may stand before, between and after arguments, and `--` ends them.\n\n")
	listCommands(&b, program, all)
	b.WriteString("# EXIT STATUS\n\n")
	for _, s := range exitStatuses {
		fmt.Fprintf(&b, "**%d**\n: %s\n\n", s.status, s.means)
	}
	b.WriteString("# ENVIRONMENT\n\n**MILLRACE\\_BROKERS**\n: the brokers that commands talk to, HOST:PORT,…; " + kafka.DefaultBroker + " without it\n\n" +
		"**MILLRACE\\_**…, **KAFKA\\_**…\n: the configuration of a broker: **millrace-serve**(1)\n")
	page("millrace", "a Kafka-compatible log broker, and its command line", b.String())
	walk(program, all)
	return pages
}

// exitStatuses is what the exit statuses mean.
var exitStatuses = []struct {
	status int
	means  string
}{
	{term.StatusDone, "done"},
	{term.StatusFailed, "failed"},
	{term.StatusUsage, "the command line or the configuration is wrong"},
	{term.StatusNotFound, "no such topic, partition, group or file"},
	{term.StatusNotAllowed, "not allowed"},
	{term.StatusTimedOut, "timed out"},
	{term.StatusUnhealthy, "the cluster is not healthy"},
	{term.StatusLag, "the lag is over the threshold"},
}

// manWidth is how wide a line may be that is not broken: man sets it in by seven columns.
const manWidth = 80 - 7

// prose writes a command's description as sections: lines that are indented by three
// spaces are prose, save examples; a line without indent begins a section; what is
// indented further stays as it is. Examples are broken where they are too wide.
func prose(b *strings.Builder, section, text string) {
	if text == "" {
		return
	}
	fmt.Fprintf(b, "# %s\n\n", section)
	verbatim, blank := false, 0
	fence := func(on bool) {
		if on && verbatim {
			b.WriteString(strings.Repeat("\n", blank))
		} else if blank > 0 && !verbatim {
			b.WriteByte('\n')
		}
		blank = 0
		if on != verbatim {
			b.WriteString("```\n")
			if !on {
				b.WriteByte('\n')
			}
		}
		verbatim = on
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case line == "":
			blank++ // within an example, or before what ends it
		case indent == 0:
			fence(false)
			fmt.Fprintf(b, "# %s\n\n", strings.TrimSuffix(line, ":"))
		case indent == 3 && !strings.HasPrefix(line, "   $ "):
			fence(false)
			b.WriteString(escape(strings.TrimSpace(line)) + "\n")
		default:
			fence(true)
			line = strings.TrimPrefix(line, "   ")
			lines := []string{strings.TrimPrefix(line, "   ")}
			if strings.HasPrefix(line, "$ ") {
				lines = term.FoldExample(line, manWidth)
			}
			b.WriteString(strings.Join(lines, "\n") + "\n")
		}
	}
	fence(false)
	b.WriteByte('\n')
}

// listCommands writes a list of commands.
func listCommands(b *strings.Builder, above []string, all []*urfave.Command) {
	b.WriteString("# COMMANDS\n\n")
	for _, c := range all {
		if !c.Hidden {
			fmt.Fprintf(b, "**%s-%s**(1)\n: %s\n\n", strings.Join(above, "-"), c.Name, escape(c.Usage))
		}
	}
}

// options writes a list of flags.
func options(b *strings.Builder, flags []urfave.Flag) {
	b.WriteString("# OPTIONS\n\n")
	for _, f := range flags {
		d, ok := f.(urfave.DocGenerationFlag)
		if !ok {
			continue
		}
		names := f.Names()
		item := "**--" + names[0] + "**"
		if len(names) > 1 {
			item = "**-" + names[1] + "**, " + item
		}
		value, use := term.FlagUse(d)
		if value != "" {
			item += " *" + escape(value) + "*"
		}
		fmt.Fprintf(b, "%s\n: %s\n\n", item, escape(use))
	}
	b.WriteString("**-h**, **--help**\n: show help\n\n")
}

// escape makes text mean itself in Markdown.
func escape(text string) string { return markdown.Replace(text) }

var markdown = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", "*", `\*`, "_", `\_`, "{", `\{`, "}", `\}`, "[", `\[`, "]", `\]`,
	"(", `\(`, ")", `\)`, "#", `\#`, "+", `\+`, "!", `\!`, "<", `\<`, ">", `\>`, "|", `\|`, "~", `\~`,
)

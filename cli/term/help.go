package term

import (
	"strings"

	"github.com/mattn/go-runewidth"
	urfave "github.com/urfave/cli/v2"
)

// HelpWidth is where the lines of help end: the width of a terminal nobody resized.
const HelpWidth = 80

// Fold sets the text of a command's help in lines of HelpWidth. What is indented by three
// spaces is prose, whose lines are joined and broken again; an example that is too long is
// continued behind a backslash, before a flag or a pipe; anything else stays as it is.
func Fold(text string) string {
	var out, prose []string
	flush := func() {
		line := "  "
		for _, word := range prose {
			if runewidth.StringWidth(line+" "+word) > HelpWidth {
				out = append(out, line)
				line = "  "
			}
			line += " " + word
		}
		if len(prose) > 0 {
			out, prose = append(out, line), nil
		}
	}
	for line := range strings.SplitSeq(text, "\n") {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		switch {
		case indent == 3 && strings.HasPrefix(line, "   $ "):
			flush()
			out = append(out, FoldExample(line, HelpWidth)...)
		case indent == 3:
			prose = append(prose, strings.Fields(line)...)
		default:
			flush()
			out = append(out, line)
		}
	}
	flush()
	return strings.Join(out, "\n")
}

// FoldExample breaks a command line that is wider than a page behind backslashes, before a
// flag or a pipe, if it has any.
func FoldExample(line string, width int) (out []string) {
	indent := line[:len(line)-len(strings.TrimLeft(line, " "))]
	for runewidth.StringWidth(line) > width {
		cut := 0
		for i := range line {
			if rest := line[i:]; i < width-2 && (strings.HasPrefix(rest, " -") || strings.HasPrefix(rest, " | ")) {
				cut = i
			}
		}
		if cut <= len(indent)+5 {
			break
		}
		out, line = append(out, line[:cut]+" \\"), indent+"    "+line[cut+1:]
	}
	return append(out, line)
}

// The texts of commands' help are urfave's templates. A command's Description ends with its
// examples, each a line that begins with "$ "; a test runs them.
const (
	nounHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}} COMMAND [FLAGS] [ARGUMENTS]

COMMANDS:{{range .VisibleCommands}}
   {{printf "%-12s" .Name}}{{.Usage}}{{end}}
`
	commandHelp = `{{.HelpName}} - {{.Usage}}

USAGE:
   {{.HelpName}}{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}{{if .VisibleFlags}} [FLAGS]{{end}}

{{.Description}}
`
)

// helpOf returns the help template of one command: its text, and its flags as
// FlagsHelp sets them.
func helpOf(c *urfave.Command) string {
	if len(c.Subcommands) > 0 {
		return nounHelp
	}
	if len(c.Flags) == 0 {
		return commandHelp
	}
	// The flags' text is data, not template: what looks like an action is quoted.
	own, shared := flagsByUse(c.Flags)
	text := commandHelp + "\nFLAGS:\n" + strings.ReplaceAll(FlagsHelp(own), "{{", "{{`{{`}}")
	if len(shared) > 0 {
		text += "\nWHICH CLUSTER, AND AS WHOM:\n" + flagsHelp(shared)
	}
	return text
}

// flagsByUse splits a command's own flags from those that many commands share, which have a
// category.
func flagsByUse(flags []urfave.Flag) (own, shared []urfave.Flag) {
	for _, f := range flags {
		if d, ok := f.(urfave.CategorizableFlag); ok && d.GetCategory() == "connection" {
			shared = append(shared, f)
		} else {
			own = append(own, f)
		}
	}
	return own, shared
}

// FlagsHelp sets flags in two columns, the second wrapped:
//
//	-b, --brokers HOST:PORT,…   brokers to begin with (default 127.0.0.1:9092; MILLRACE_BROKERS)
func FlagsHelp(flags []urfave.Flag) string {
	return flagsHelp(flags, "-h, --help", "show this")
}

// flagsHelp does so, and adds one that is no flag: its name and use.
func flagsHelp(flags []urfave.Flag, more ...string) string {
	var names, uses []string
	wide := 0
	for _, f := range flags {
		d, ok := f.(urfave.DocGenerationFlag)
		if !ok {
			continue
		}
		name := "    "
		if n := f.Names(); len(n) > 1 {
			name = "-" + n[1] + ", "
		}
		name += "--" + f.Names()[0]
		value, use := FlagUse(d)
		if value != "" {
			name += " " + value
		}
		names, uses = append(names, name), append(uses, use)
		wide = max(wide, runewidth.StringWidth(name))
	}
	if len(more) == 2 {
		names, uses = append(names, more[0]), append(uses, more[1])
	}
	var b strings.Builder
	for i, name := range names {
		b.WriteString("   " + name + strings.Repeat(" ", wide-runewidth.StringWidth(name)))
		at := 3 + wide
		for j, word := range strings.Fields(uses[i]) {
			if n := runewidth.StringWidth(word); j == 0 {
				b.WriteString("  ")
				at += 2
			} else if at+1+n > HelpWidth {
				b.WriteString("\n" + strings.Repeat(" ", 5+wide))
				at = 5 + wide
			} else {
				b.WriteByte(' ')
				at++
			}
			b.WriteString(word)
			at += runewidth.StringWidth(word)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// FlagUse is the word for a flag's value, "" when it takes none, and what the flag is
// for, with its default and its variables.
func FlagUse(d urfave.DocGenerationFlag) (value, use string) {
	value, use = UnquoteUsage(d.GetUsage())
	if !d.TakesValue() {
		return "", use
	}
	var hints []string
	if text := d.GetDefaultText(); text != "" && text != `""` {
		hints = append(hints, "default "+text)
	}
	hints = append(hints, d.GetEnvVars()...)
	if len(hints) > 0 {
		use += " (" + strings.Join(hints, "; ") + ")"
	}
	return value, use
}

// UnquoteUsage splits a flag's usage into the word for its value, which stands
// in back quotes, and the text. The word is part of the text, unless the text
// only names it: "`FILE`: read it" and "read this, `FILE`".
func UnquoteUsage(usage string) (value, text string) {
	_, rest, ok := strings.Cut(usage, "`")
	value, _, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		return "VALUE", usage
	}
	quoted := "`" + value + "`"
	text = strings.TrimSuffix(strings.TrimPrefix(usage, quoted+": "), ", "+quoted)
	return value, strings.Replace(text, quoted, value, 1)
}

package term

import (
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"
)

// Arrange turns a command line as people write it into the one order package
// flag understands: the command's words, its flags in long form with "=", "--",
// its arguments.
//
//	-b h:1 topic create orders -p3 -eq   →   topic create --brokers=h:1 --partitions=3 --exit --quiet -- orders
//
// Package flag alone stops at the first argument, so "consume flights -e" would
// read a topic called -e.
func Arrange(commands []*urfave.Command, args []string) ([]string, error) {
	if len(args) > 0 && args[0] == "help" {
		args = append(append([]string(nil), args[1:]...), "--help")
	}
	words, command, flags, rest := Split(commands, args)
	if command == nil {
		for _, a := range flags { // before a word that is no command; what follows one is about it
			switch a {
			case "-h", "--help":
				return append(words, "--help"), nil
			case "-v", "--version":
				return []string{"version"}, nil
			}
		}
		at := strings.Join(append([]string{"millrace"}, words...), " ")
		if len(rest) == 0 {
			if len(flags) > 0 {
				return nil, Usage("%s: which command? see `%s --help`", flags[0], at)
			}
			return append(words, "--help"), nil
		}
		candidates := names(Subcommands(commands, words))
		if len(words) == 0 {
			candidates = append(candidates, "help")
		}
		return nil, Usage("%q is not a command of %s%s; see `%s --help`", rest[0], at, DidYouMean(rest[0], candidates), at)
	}

	var arranged, arguments []string
	for rest := append(flags, rest...); len(rest) > 0; {
		a := rest[0]
		rest = rest[1:]
		switch {
		case a == "--":
			arguments = append(arguments, rest...)
			rest = nil
		case a == "-" || !strings.HasPrefix(a, "-"):
			arguments = append(arguments, a)
		case strings.HasPrefix(a, "--"):
			name, value, given := strings.Cut(a[2:], "=")
			f := Lookup(command, name)
			switch {
			case name == "help":
				return append(words, "--help"), nil
			case f == nil && name == "password":
				return nil, Usage("--password: what stands in a command line everybody on the machine can read (ps); write the password into a file, --password-file FILE, or set MILLRACE_PASSWORD")
			case f == nil || len(name) < 2:
				return nil, Usage("--%s is not a flag of %s%s; see `millrace %s --help`", name, strings.Join(words, " "),
					DidYouMean("--"+name, flagNames(command)), strings.Join(words, " "))
			case given:
				arranged = append(arranged, "--"+f.Names()[0]+"="+value)
			case !TakesValue(f):
				arranged = append(arranged, "--"+f.Names()[0])
			case len(rest) == 0:
				return nil, Usage("--%s needs a value; see `millrace %s --help`", name, strings.Join(words, " "))
			default:
				arranged = append(arranged, "--"+f.Names()[0]+"="+rest[0])
				rest = rest[1:]
			}
		default: // -n 5, -n5, -eq
			for short := a[1:]; short != ""; {
				name := short[:1]
				short = short[1:]
				f := Lookup(command, name)
				switch {
				case name == "h" && f == nil:
					return append(words, "--help"), nil
				case f == nil:
					return nil, Usage("-%s is not a flag of %s; see `millrace %s --help`, and put `--` before an argument that begins with a dash",
						name, strings.Join(words, " "), strings.Join(words, " "))
				case !TakesValue(f):
					arranged = append(arranged, "--"+f.Names()[0])
					continue
				case short != "":
					arranged = append(arranged, "--"+f.Names()[0]+"="+strings.TrimPrefix(short, "="))
				case len(rest) == 0:
					return nil, Usage("-%s needs a value; see `millrace %s --help`", name, strings.Join(words, " "))
				default:
					arranged = append(arranged, "--"+f.Names()[0]+"="+rest[0])
					rest = rest[1:]
				}
				break
			}
		}
	}
	arranged = append(append([]string(nil), words...), arranged...)
	if len(arguments) > 0 {
		arranged = append(append(arranged, "--"), arguments...)
	}
	return arranged, nil
}

// valued are the flags that many commands share, and that take a value.
var valued = []string{"-b", "--brokers", "-X", "--property", "--context", "--user", "--password-file", "--tls-ca", "--tls-cert", "--tls-key", "--command-config"}

// Split finds the command a line names. words are its canonical names, flags the
// flags that stood before them, rest what follows. command is nil when the line
// stops at a noun or names none; rest then begins with the word that fitted nothing.
func Split(commands []*urfave.Command, args []string) (words []string, command *urfave.Command, flags, rest []string) {
	for len(args) > 0 {
		a := args[0]
		if strings.HasPrefix(a, "-") && a != "-" && a != "--" {
			// Before the command is known, only those of which cluster, and as whom, are known to
			// take a value.
			flags = append(flags, a)
			args = args[1:]
			if slices.Contains(valued, a) && len(args) > 0 {
				flags = append(flags, args[0])
				args = args[1:]
			}
			continue
		}
		c := find(commands, a)
		if c == nil {
			return words, nil, flags, args
		}
		words = append(words, c.Name)
		args = args[1:]
		if len(c.Subcommands) == 0 {
			return words, c, flags, args
		}
		commands = c.Subcommands
	}
	return words, nil, flags, nil
}

// Subcommands returns what may follow words.
func Subcommands(commands []*urfave.Command, words []string) []*urfave.Command {
	for _, w := range words {
		commands = find(commands, w).Subcommands
	}
	return commands
}

func find(commands []*urfave.Command, name string) *urfave.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// Lookup finds a command's flag by one of its names, nil if it has none of that name.
func Lookup(c *urfave.Command, name string) urfave.Flag {
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if n == name {
				return f
			}
		}
	}
	return nil
}

// TakesValue reports whether a flag is followed by a value.
func TakesValue(f urfave.Flag) bool {
	d, ok := f.(urfave.DocGenerationFlag)
	return !ok || d.TakesValue()
}

func names(commands []*urfave.Command) (names []string) {
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return names
}

func flagNames(c *urfave.Command) (names []string) {
	for _, f := range c.Flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				names = append(names, "--"+n)
			}
		}
	}
	return append(names, "--help")
}

// DidYouMean is a hint at the nearest of some words, "" when none is near.
func DidYouMean(word string, words []string) string {
	const far = 3 // edits: at most two, and at most half of the word
	best, at := "", min(far, 1+len(strings.TrimLeft(word, "-"))/2)
	for _, w := range words {
		if d := Edits(word, w); d < at || strings.HasPrefix(w, word) && best == "" && len(word) > 2 {
			best, at = w, min(d, at)
		}
	}
	if best == "" {
		return ""
	}
	return " (did you mean " + best + "?)"
}

// Edits counts the insertions, deletions and replacements between two words.
func Edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		corner := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := corner
			if a[i] != b[j] {
				cost++
			}
			corner = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

package cli

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
	"unicode"

	urfave "github.com/urfave/cli/v2"
)

func doctorCommand() *urfave.Command {
	return &urfave.Command{
		Name:  "doctor",
		Usage: "find out why clients do not get through, and what to change",
		Description: `   Looks at what lies between this machine and the brokers, and at the brokers, a line each: ok;
   warn, for what works and will surprise; fail; or skip, for what cannot be told. Behind what
   is wrong stands what to change.

      name        each address of -b resolves here
      connect     something listens there, at each of its IP addresses
      protocol    what listens there is a Kafka broker
      cluster     all addresses of -b are of one cluster
      advertised  the address that clients are told for every broker resolves,
                  is reached from here, and that very broker answers there
      version     all brokers run one version
      clock       this machine's and the brokers' agree
      health      what cluster health says
      disk        room for every broker's data
      limits      files and mappings of brokers that run on this machine

   With --data-dir it looks at a folder and at this machine as well, as what millrace serve
   would find: its file system, room, files, limits, and how long an fsync takes. Without -b
   and MILLRACE_BROKERS it then looks at nothing else, so before the first start too.

   Works with every Kafka cluster; it changes nothing. Exit status 1 if a line says fail.
   JSON: [{verdict, check, subject, found, change}].

EXAMPLES:
   $ millrace doctor
   $ millrace doctor -b $MILLRACE_BROKERS -o json
   $ millrace doctor --data-dir ./millrace-data`,
		Flags: clientFlags([]urfave.Flag{
			&urfave.PathFlag{Name: "data-dir", Usage: "also look at this `DIR`, for a broker's data, and at this machine"},
		}, outputFlags(true)[:1]), // lines have no headers, and are broken instead of left out
		Action: diagnose,
	}
}

func diagnose(c *urfave.Context) error {
	if c.NArg() > 0 {
		return usage("doctor takes no arguments, but %q was given; the brokers are named by -b", c.Args().First())
	}
	ctx, cancel := context.WithTimeout(c.Context, time.Minute)
	defer cancel()
	d := &doctor{lookup: net.DefaultResolver.LookupHost, patience: 3 * time.Second}
	folder := c.Path("data-dir")
	if folder == "" || c.IsSet("brokers") && c.String("brokers") != "" {
		brokers, err := brokersNamed(c)
		if err != nil {
			return err
		}
		d.examineBrokers(ctx, brokers)
	}
	if folder != "" {
		d.examineFolder(folder)
	}
	if c.Context.Err() != nil {
		return fail(StatusFailed, "interrupted")
	}
	if err := d.print(c); err != nil {
		return err
	}
	for _, f := range d.findings {
		if f.Verdict == failed {
			return &silent{StatusFailed}
		}
	}
	return nil
}

// The verdicts of a diagnosis.
const (
	fine     = "ok"
	worrying = "warn"
	failed   = "fail"
	untold   = "skip"
)

// A finding is one line of a diagnosis.
type finding struct {
	Verdict string `json:"verdict"`
	Check   string `json:"check"`
	Subject string `json:"subject,omitempty"` // an address, a broker, a folder
	Found   string `json:"found"`
	Change  string `json:"change,omitempty"` // what to do about it
}

// A doctor collects findings, in the order in which they are printed.
type doctor struct {
	lookup func(ctx context.Context, host string) ([]string, error) // the IP addresses of a name, in the order clients try them
	// patience is how long something may take to let a connection in, and to answer a
	// request: what takes longer looks broken to whoever waits.
	patience time.Duration
	findings []finding
}

func (d *doctor) say(verdict, check, subject, change, format string, args ...any) {
	d.findings = append(d.findings, finding{verdict, check, harmless(subject), harmless(fmt.Sprintf(format, args...)), harmless(change)})
}

// harmless escapes what a terminal would act upon: much of what is found somebody else says.
func harmless(text string) string {
	if !strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return text
	}
	var b strings.Builder
	for _, c := range text {
		if unicode.IsPrint(c) {
			b.WriteRune(c)
			continue
		}
		quoted := strconv.QuoteRune(c)
		b.WriteString(quoted[1 : len(quoted)-1])
	}
	return b.String()
}

// print writes the findings as the flags of c ask for: by default a line each, which a
// terminal gets broken where it ends.
func (d *doctor) print(c *urfave.Context) error {
	if format := c.String("output"); format != "table" && format != "" {
		return printList(c, d.findings, []column[finding]{{"CHECK", func(f finding) string { return f.Check }}})
	}
	w := c.App.Writer
	wide := 0
	for _, f := range d.findings {
		wide = max(wide, len(f.Check))
	}
	width := terminalWidth(w)
	var b bytes.Buffer
	for _, f := range d.findings {
		text := f.Found
		if f.Subject != "" {
			text = f.Subject + ": " + text
		}
		if f.Change != "" {
			text += "; " + f.Change
		}
		verdict := fmt.Sprintf("%-4s", f.Verdict)
		if f.Verdict == failed {
			verdict = red(w, verdict)
		}
		indent := 4 + 2 + wide + 2
		fmt.Fprintf(&b, "%s  %-*s  %s\n", verdict, wide, f.Check, hang(text, width, indent))
	}
	_, err := w.Write(b.Bytes())
	return err
}

// hang breaks a text between words where a terminal of some width ends, and indents all
// of its lines but the first, which begins at the indent. A width of 0 has no end.
func hang(text string, width, indent int) string {
	if width < indent+20 {
		return text
	}
	return strings.TrimSpace(wrapped(text, indent, width))
}

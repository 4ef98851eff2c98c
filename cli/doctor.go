package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"millrace/cli/kafka"
	"millrace/cli/term"

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

   What it finds it says at once. It looks at all addresses at the same time, and waits 3
   seconds at most for a name, a connection or an answer, 30 for all of it.

   With --data-dir it looks at a folder and at this machine as well, as what millrace serve
   would find: its file system, room, files, limits, and how long an fsync takes. Without -b
   and MILLRACE_BROKERS it then looks at nothing else, so before the first start too.

   Works with every Kafka cluster; it changes nothing. Exit status 1 if a line says fail.
   -o name prints VERDICT CHECK SUBJECT. JSON: [{verdict, check, subject, found, change}].

EXAMPLES:
   $ millrace doctor
   $ millrace doctor -b $MILLRACE_BROKERS -o json
   $ millrace doctor --data-dir ./millrace-data`,
		Flags: kafka.Flags([]urfave.Flag{
			&urfave.PathFlag{Name: "data-dir", Usage: "also look at this `DIR`, for a broker's data, and at this machine"},
		}, term.OutputFlags(true)[:1]), // lines have no headers, and are broken instead of left out
		Action: diagnose,
	}
}

func diagnose(c *urfave.Context) error {
	if c.NArg() > 0 {
		return term.Usage("doctor takes no arguments, but %q was given; the brokers are named by -b", c.Args().First())
	}
	format := c.String("output")
	if !slices.Contains([]string{"", "table", "name", "json", "jsonl", "yaml"}, format) {
		return term.PrintValue(c.App.Writer, format, nil) // refuses it now, not behind what takes seconds
	}
	folder := c.Path("data-dir")
	if folder == "" && c.IsSet("data-dir") {
		return term.Usage("--data-dir is empty; it is a folder, such as ./millrace-data")
	}
	ctx, cancel := context.WithTimeout(c.Context, wholeDiagnosis)
	defer cancel()
	sink := &findingWriter{w: c.App.Writer, width: term.TerminalWidth(c.App.Writer), format: format}
	d := &doctor{names: net.DefaultResolver, patience: 3 * time.Second, shown: sink}
	if folder == "" || c.IsSet("brokers") && c.String("brokers") != "" {
		brokers, err := kafka.BrokersNamed(c)
		if err != nil {
			return err
		}
		d.examineBrokers(ctx, brokers)
	}
	if folder != "" && c.Context.Err() == nil {
		d.examineFolder(folder)
	}
	if c.Context.Err() != nil {
		return term.Fail(term.StatusFailed, "interrupted")
	}
	if sink.err != nil {
		return sink.err
	}
	if format == "json" || format == "yaml" { // a list is whole or not one
		if err := term.PrintList[finding](c, d.findings, nil); err != nil {
			return err
		}
	}
	for _, f := range d.findings {
		if f.Verdict == failed {
			return &term.Silent{Status: term.StatusFailed}
		}
	}
	return nil
}

// wholeDiagnosis is how long all of a diagnosis may take. Twice somebody may be slow to be
// found, to let a connection in and to answer, and be somebody else then: those that the
// command line names, and those that these tell of.
const wholeDiagnosis = 30 * time.Second

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

// A resolver tells the IP addresses of a name, in the order clients try them.
type resolver interface {
	LookupHost(ctx context.Context, host string) ([]string, error)
}

// A findingSink takes findings as they are made, from several goroutines at once.
type findingSink interface {
	write(f finding)
}

// A doctor collects findings, in the order of what it is asked to examine, and shows each
// as soon as it is found.
type doctor struct {
	names resolver
	// patience is how long something may take to let a connection in, and to answer a
	// request: what takes longer looks broken to whoever waits.
	patience time.Duration
	shown    findingSink
	findings []finding
	clusters int // that were found; with several, a broker's number is not its name
}

// say adds a finding. What has failed has a change behind it.
func (d *doctor) say(verdict, check, subject, change, format string, args ...any) {
	f := finding{verdict, check, harmless(subject), harmless(fmt.Sprintf(format, args...)), harmless(change)}
	d.findings = append(d.findings, f)
	d.shown.write(f)
}

// together makes examinations at the same time, each with a doctor of its own, and adds
// what they find, in their order.
func (d *doctor) together(examinations ...func(*doctor)) {
	doctors := make([]doctor, len(examinations))
	var made sync.WaitGroup
	for i, examine := range examinations {
		doctors[i] = *d
		doctors[i].findings = nil
		made.Go(func() { examine(&doctors[i]) })
	}
	made.Wait()
	for i := range doctors {
		d.findings = append(d.findings, doctors[i].findings...)
	}
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

// A findingWriter writes findings as they come, in the formats that have a line for each.
// Several goroutines may use it at once.
type findingWriter struct {
	w      io.Writer
	width  int // of the terminal, where lines are broken; 0: none
	format string

	mu  sync.Mutex
	err error // the first one, after which nothing is written
}

// checkWidth is the width of the column of checks. Lines that are printed one by one
// cannot have the width of what will come.
const checkWidth = len("descriptors")

func (o *findingWriter) write(f finding) {
	var line bytes.Buffer
	switch o.format {
	case "json", "yaml":
		return
	case "jsonl":
		e := json.NewEncoder(&line)
		e.SetEscapeHTML(false)
		e.Encode(f) // which fails with nothing that a finding has
	case "name":
		words := []string{f.Verdict, strings.ReplaceAll(f.Check, " ", "-"), f.Subject}
		fmt.Fprintln(&line, strings.TrimSpace(strings.Join(words, " ")))
	default:
		text := f.Found
		if f.Subject != "" {
			text = f.Subject + ": " + text
		}
		if f.Change != "" {
			text += "; " + f.Change
		}
		verdict := fmt.Sprintf("%-4s", f.Verdict)
		if f.Verdict == failed {
			verdict = term.Red(o.w, verdict)
		}
		fmt.Fprintf(&line, "%s  %-*s  %s\n", verdict, checkWidth, f.Check, hang(text, o.width, 4+2+checkWidth+2))
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		_, o.err = o.w.Write(line.Bytes())
	}
}

// hang breaks a text between words where a terminal of some width ends, and indents all
// of its lines but the first, which begins at the indent. A width of 0 has no end.
func hang(text string, width, indent int) string {
	if width < indent+20 {
		return text
	}
	return strings.TrimSpace(term.Wrapped(text, indent, width))
}

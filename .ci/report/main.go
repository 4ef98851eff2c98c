// Command report reads what `go test -json` wrote. It prints the output of
// tests that failed, the reasons of those that were skipped, and every line that
// begins with "figure ", which is how tests say what they measured; with -count
// only the line "N passed, N failed, N skipped" over all files.
//
// Of a long output often only the end is kept, and a failed test writes the logs of its
// nodes behind its reasons. So these come once more after the output of each test, and at
// the very end every failed test with the first of them.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

func main() {
	count := flag.Bool("count", false, "print only the totals")
	flag.Parse()
	r := &report{w: os.Stdout, silent: *count}
	for _, path := range flag.Args() {
		f, err := os.Open(path)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		r.read(f)
		f.Close()
	}
	r.end()
}

// An event is one that `go test -json` writes.
type event struct {
	Action, Package, Test, Output string
}

// A report is what is said of the tests of some files.
type report struct {
	w      io.Writer
	silent bool // only the totals are said

	passed, failed, skipped int
	failures                []string // a line for each test that failed by itself
}

// read takes the events of one file.
func (r *report) read(f io.Reader) {
	output := make(map[string][]string)
	failedTests := make(map[string]bool)
	say := func(format string, args ...any) {
		if !r.silent {
			fmt.Fprintf(r.w, format, args...)
		}
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
			if strings.HasPrefix(e.Output, "figure ") {
				say("%s", e.Output)
			}
		case "pass":
			if e.Test != "" {
				r.passed++
			}
			delete(output, key)
		case "fail":
			if e.Test != "" {
				r.failed++
				failedTests[e.Package] = true
			} else if !failedTests[e.Package] {
				r.failed++ // the package did not build, or ended early
			}
			why := reasons(output[key])
			say("FAIL %s\n%s", key, strings.Join(output[key], ""))
			if len(why) > 0 {
				say("because %s\n%s\n", key, strings.Join(why, "\n"))
				r.failures = append(r.failures, key+": "+strings.TrimSpace(why[0]))
			} else if e.Test == "" && !failedTests[e.Package] {
				r.failures = append(r.failures, e.Package+": it did not build, or ended early")
			}
		case "build-fail":
			for _, lines := range output {
				say("%s", strings.Join(lines, ""))
			}
		case "skip":
			if e.Test == "" {
				continue // a package without tests
			}
			r.skipped++
			say("skip %s\n%s", key, strings.Join(output[key], ""))
		}
	}
}

// end says the totals, and before them what failed.
func (r *report) end() {
	if r.silent {
		fmt.Fprintf(r.w, "%d passed, %d failed, %d skipped\n", r.passed, r.failed, r.skipped)
		return
	}
	fmt.Fprintf(r.w, "%d passed, %d failed, %d skipped so far in this suite\n", r.passed, r.failed, r.skipped)
	for _, line := range r.failures {
		fmt.Fprintln(r.w, "FAILED", line)
	}
}

// reasonPattern is a line that t.Error, t.Fatal or t.Log wrote, or what ends a process.
// A log that is shown is called one: its first line is no reason.
var reasonPattern = regexp.MustCompile(`^\s*\S+\.go:\d+: |^panic: |^fatal error: |^WARNING: DATA RACE`)

// reasons are the lines of an output that say why its test failed, each once.
func reasons(output []string) (why []string) {
	seen := make(map[string]bool)
	for _, line := range output {
		line = strings.TrimRight(line, "\n")
		if reasonPattern.MatchString(line) && !strings.HasSuffix(line, "log:") && !seen[line] {
			seen[line] = true
			why = append(why, line)
		}
	}
	return why
}

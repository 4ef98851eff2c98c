package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// A sample is what was measured of one thing, a value a round.
type sample []float64

// median of the values; of an even number the mean of the middle two.
func (s sample) median() float64 {
	if len(s) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(s))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// cell writes a sample for a table: the median, and how far the rounds lie apart.
func (s sample) cell(format string) string {
	switch {
	case len(s) == 0:
		return "-"
	case len(s) == 1:
		return fmt.Sprintf(format, s[0])
	}
	return fmt.Sprintf(format+" ("+format+"–"+format+")", s.median(), slices.Min(s), slices.Max(s))
}

// A demand is what a result is held against.
type demand struct {
	what   string // "produce 1 KiB: millrace / kafka"
	got    float64
	wanted float64
	most   bool // got may be at most wanted; else it is at least
	format string
	none   bool // nothing was measured
}

// verdict says whether the demand is met.
func (d demand) verdict() string {
	switch {
	case d.none:
		return "not measured"
	case d.most && d.got <= d.wanted, !d.most && d.got >= d.wanted:
		return "held"
	}
	return "**missed**"
}

func (d demand) row() []string {
	sign := "≥ "
	if d.most {
		sign = "≤ "
	}
	got := fmt.Sprintf(d.format, d.got)
	if d.none {
		got = "-"
	}
	return []string{d.what, got, sign + fmt.Sprintf(d.format, d.wanted), d.verdict()}
}

// ratio holds one sample against another: the medians' ratio.
func ratio(what string, ours, theirs sample, wanted float64, most bool) demand {
	d := demand{what: what, wanted: wanted, most: most, format: "%.2f", none: len(ours) == 0 || theirs.median() == 0}
	if !d.none {
		d.got = ours.median() / theirs.median()
	}
	return d
}

// absolute holds a sample's median against a number.
func absolute(what, format string, ours sample, wanted float64, most bool) demand {
	return demand{what: what, got: ours.median(), wanted: wanted, most: most, format: format, none: len(ours) == 0}
}

// table writes rows, the first of which is the header, as Markdown.
func table(rows [][]string) string {
	var b strings.Builder
	for i, row := range rows {
		b.WriteString("| " + strings.Join(row, " | ") + " |\n")
		if i == 0 {
			b.WriteString(strings.Repeat("|---", len(row)) + "|\n")
		}
	}
	return b.String()
}

// replaceSection puts text between the markers of a section, which are added at
// the end if they are not there. Everything else stays.
func replaceSection(document, section, text string) string {
	begin, end := "<!-- "+section+": written by a command, not by hand -->\n", "<!-- end of "+section+" -->\n"
	text = begin + strings.TrimRight(text, "\n") + "\n" + end
	before, rest, ok := strings.Cut(document, begin)
	if !ok {
		if document != "" {
			document = strings.TrimRight(document, "\n") + "\n\n"
		}
		return document + text
	}
	_, after, _ := strings.Cut(rest, end)
	return before + text + after
}

// writeSection replaces a section of a file.
func writeSection(path, section, text string) error {
	b, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(path, []byte(replaceSection(string(b), section, text)), 0o644)
}

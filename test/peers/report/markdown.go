package report

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// A Column is a metric in a table.
type Column struct{ Header, Metric string }

// A Row is what one row of a table is about, and a word on it.
type Row struct{ Name, Note string }

// A Table shows a scenario's figures.
type Table struct {
	Scenario string
	Head     string // the header of the rows' names
	Note     string // that of their notes; "": they have none
	Rows     []Row
	Columns  []Column
}

// Markdown writes the table: each cell a median and, where it was measured more
// than once, its spread. Rows and columns without figures are left out; "" if
// nothing is left.
func (t Table) Markdown(f *Figures) string {
	has := func(row Row, c Column) bool { return len(f.Of(Key{t.Scenario, row.Name, c.Metric})) > 0 }
	var rows []Row
	for _, r := range t.Rows {
		for _, c := range t.Columns {
			if has(r, c) {
				rows = append(rows, r)
				break
			}
		}
	}
	var columns []Column
	for _, c := range t.Columns {
		for _, r := range rows {
			if has(r, c) {
				columns = append(columns, c)
				break
			}
		}
	}
	if len(rows) == 0 {
		return ""
	}
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	head, rule := []string{t.Head}, []string{"---"}
	if t.Note != "" {
		head, rule = append(head, t.Note), append(rule, "---")
	}
	for _, c := range columns {
		head, rule = append(head, c.Header), append(rule, "---:")
	}
	line(head)
	fmt.Fprintf(&b, "|%s|\n", strings.Join(rule, "|"))
	for _, r := range rows {
		cells := []string{r.Name}
		if t.Note != "" {
			cells = append(cells, r.Note)
		}
		for _, c := range columns {
			cells = append(cells, Summarize(f.Of(Key{t.Scenario, r.Name, c.Metric})).String())
		}
		line(cells)
	}
	return b.String()
}

// Wants writes a table of wants and what came of them, "" if there are none.
func Wants(f *Figures, wants []Want) string {
	if len(wants) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("| | wanted | measured | |\n|---|---:|---:|---|\n")
	for _, w := range wants {
		measured, verdict := f.Judge(w)
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", w.What, w.Bounds(), strings.TrimSpace(measured.String()), verdict)
	}
	return b.String()
}

// String writes a median with its spread: "1,234 (1,200–1,310)".
func (s Summary) String() string {
	switch s.N {
	case 0:
		return ""
	case 1:
		return Number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", Number(s.Median), Number(s.Min), Number(s.Max))
}

// Number writes a number with three digits that mean something: 0.0123, 1.53,
// 12.3, 123, 123,456.
func Number(v float64) string {
	a := math.Abs(v)
	if a == 0 {
		return "0"
	}
	if math.IsInf(a, 0) || math.IsNaN(a) {
		return "–"
	}
	decimals := 2 - int(math.Floor(math.Log10(a)))
	if decimals > 0 {
		s := strconv.FormatFloat(v, 'f', min(decimals, 6), 64)
		return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
	}
	s := strconv.FormatFloat(a, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if v < 0 {
		s = "-" + s
	}
	return s
}

// Preamble begins a file that does not exist yet.
const Preamble = `# Benchmarks

What stands between the markers is written by the command they name, never by hand; what stands outside of them stays.
`

func markers(section string) (begin, end string) {
	return "<!-- " + section + ": begin -->", "<!-- " + section + ": end -->"
}

// Replace returns the text with the content of a section replaced, or with the
// section at its end if it has none. Everything outside of the markers stays as
// it is, byte by byte.
func Replace(text, section, content string) (string, error) {
	begin, end := markers(section)
	switch strings.Count(text, begin) + strings.Count(text, end) {
	case 0:
		text = strings.TrimRight(text, "\n")
		if text != "" {
			text += "\n\n"
		}
		return text + begin + "\n" + strings.TrimSpace(content) + "\n" + end + "\n", nil
	case 2:
		before, rest, ok := strings.Cut(text, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if ok && ok2 {
			return before + begin + "\n" + strings.TrimSpace(content) + "\n" + end + after, nil
		}
	}
	return "", errors.New("the section's markers are not one " + begin + " and behind it one " + end)
}

// WriteSection replaces a section of a file, or makes both. The file is changed
// as a whole or not at all.
func WriteSection(path, section, content string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte(Preamble), nil
	}
	if err != nil {
		return err
	}
	changed, err := Replace(string(text), section, content)
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path+".new", []byte(changed), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

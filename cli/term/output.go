package term

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/mattn/go-runewidth"
	urfave "github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"
	"golang.org/x/term"
)

// OutputFlags are the flags of whatever lists or describes. short is false where
// -o means an offset.
func OutputFlags(short bool) []urfave.Flag {
	output := &urfave.StringFlag{Name: "output", Value: "table", Usage: "`FORMAT`: table, json, yaml, jsonl or name", DefaultText: "table"}
	if short {
		output.Aliases = []string{"o"}
	}
	return []urfave.Flag{
		output,
		&urfave.BoolFlag{Name: "no-headers", Usage: "leave out the headers of tables"},
		&urfave.BoolFlag{Name: "wide", Usage: "all columns of tables in full, however narrow the terminal is"},
	}
}

// A Column is one column of a table: its upper-case header and the cell of a row.
type Column[T any] struct {
	Header string
	Cell   func(T) string
}

// PrintList writes items as the flags of c ask for: a table, a JSON or YAML list,
// a JSON object a line, or the first column alone.
func PrintList[T any](c *urfave.Context, items []T, columns []Column[T]) error {
	if items == nil {
		items = []T{} // [] in JSON, not null
	}
	w := c.App.Writer
	switch format := c.String("output"); format {
	case "table", "":
		return PrintTable(c, items, columns)
	case "name":
		var b bytes.Buffer
		for _, item := range items {
			fmt.Fprintln(&b, columns[0].Cell(item))
		}
		_, err := w.Write(b.Bytes())
		return err
	case "jsonl":
		e := json.NewEncoder(w)
		e.SetEscapeHTML(false)
		for _, item := range items {
			if err := e.Encode(item); err != nil {
				return err
			}
		}
		return nil
	default:
		return PrintValue(w, format, items)
	}
}

// PrintObject writes one thing described as JSON or YAML, or leaves it to table.
func PrintObject(c *urfave.Context, object any, name string, table func() error) error {
	switch format := c.String("output"); format {
	case "table", "":
		return table()
	case "name":
		_, err := fmt.Fprintln(c.App.Writer, name)
		return err
	case "jsonl":
		e := json.NewEncoder(c.App.Writer)
		e.SetEscapeHTML(false)
		return e.Encode(object)
	default:
		return PrintValue(c.App.Writer, format, object)
	}
}

// PrintValue writes a value as JSON or YAML.
func PrintValue(w io.Writer, format string, value any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(value); err != nil {
		return err
	}
	switch format {
	case "json":
		_, err := w.Write(b.Bytes())
		return err
	case "yaml":
		// JSON is YAML: read it as such, so that both have the same keys in the same order.
		var node yaml.Node
		if err := yaml.Unmarshal(b.Bytes(), &node); err != nil {
			return err
		}
		block(&node)
		e := yaml.NewEncoder(w)
		e.SetIndent(2)
		defer e.Close()
		return e.Encode(&node)
	}
	return Usage("--output %q: it is one of table, json, yaml, jsonl, name", format)
}

// block drops the style a node was read in, so that it is written as YAML usually is.
func block(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = 0 // the encoder quotes what would read as something else
	}
	for _, child := range n.Content {
		block(child)
	}
}

// PrintTable writes rows under their headers, columns two spaces apart. An empty cell is
// a dash, so that columns can be counted. On a terminal that is too narrow for it, ids are
// shortened, and then columns left out, the least wanted first; a last line says which.
// With --wide, and in a pipe, nothing is.
func PrintTable[T any](c *urfave.Context, items []T, columns []Column[T]) error {
	width := 0 // no limit
	if !c.Bool("wide") {
		width = TerminalWidth(c.App.Writer)
	}
	names := make([]string, len(columns))
	for i, col := range columns {
		names[i] = col.Header
	}
	var rows [][]string
	if !c.Bool("no-headers") {
		rows = append(rows, slices.Clone(names))
	}
	for _, item := range items {
		row := make([]string, len(columns))
		for i, col := range columns {
			if row[i] = col.Cell(item); row[i] == "" {
				row[i] = "-"
			}
		}
		rows = append(rows, row)
	}
	left := Fit(names, rows, width)
	if err := printRows(c.App.Writer, rows); err != nil || len(left) == 0 {
		return err
	}
	_, err := fmt.Fprintf(c.App.Writer, "(%s: --wide)\n", strings.Join(left, ", "))
	return err
}

// shortened are the columns of ids, of which the ends suffice to tell them apart.
var shortened = []string{"MEMBER-ID", "LOG"}

// leftOut are the columns that a narrow terminal does without, the least wanted first.
var leftOut = []string{
	"HOST", "CLIENT-ID", "RACK", "COORDINATOR", "LOG-START-OFFSET", "EPOCH", "SEGMENTS", "ENTRIES", "BYTES", "ISR", "MEMBER-ID",
	"SOURCE", "REPLICAS", "HANDLED-P99", "TIMED-OUT", "MEAN", "P99.9", "P90", "PARTITIONS", "SECONDS", "RECORDS/S",
}

// shortWidth is how wide an id is that was shortened.
const shortWidth = 17

// Fit makes rows with columns of some names fit into a width, as far as that goes; 0 is
// any. It returns the names of the columns that were left out.
func Fit(names []string, rows [][]string, width int) (left []string) {
	if width <= 0 || TableWidth(rows) <= width {
		return nil
	}
	for i, name := range names {
		if slices.Contains(shortened, name) {
			for _, row := range rows {
				row[i] = shorten(row[i], shortWidth)
			}
		}
	}
	for _, header := range leftOut {
		if TableWidth(rows) <= width {
			break
		}
		// Never the first, which names the row.
		i := slices.Index(names, header)
		if i <= 0 {
			continue
		}
		names = slices.Delete(names, i, i+1)
		for n, row := range rows {
			rows[n] = slices.Delete(row, i, i+1)
		}
		left = append(left, header)
	}
	return left
}

// shorten leaves out the middle of what is wider than a width.
func shorten(s string, width int) string {
	if CellWidth(s) <= width {
		return s
	}
	end := width / 2
	return runewidth.Truncate(s, width-end, "…") + runewidth.TruncateLeft(s, CellWidth(s)-end, "")
}

// columnWidths are the widths of the columns of some rows.
func columnWidths(rows [][]string) (widths []int) {
	for _, row := range rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], CellWidth(cell))
		}
	}
	return widths
}

// TableWidth is how many columns of a terminal rows take as a table.
func TableWidth(rows [][]string) int {
	width := -2
	for _, w := range columnWidths(rows) {
		width += w + 2
	}
	return width
}

// colourPattern is what red puts around a text.
var colourPattern = regexp.MustCompile("\x1b\\[[0-9]*m")

// CellWidth is how many columns of a terminal a text takes: two for a character of
// Chinese, none for a colour.
func CellWidth(s string) int { return runewidth.StringWidth(colourPattern.ReplaceAllString(s, "")) }

func printRows(w io.Writer, rows [][]string) error {
	widths := columnWidths(rows)
	var b bytes.Buffer
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-CellWidth(cell)+2))
			}
		}
		b.WriteByte('\n')
	}
	_, err := w.Write(b.Bytes())
	return err
}

// TerminalWidth is how many columns a terminal has, 0 for what is none or does not say.
func TerminalWidth(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0
	}
	return width
}

// IsTerminal reports whether a reader or writer is a terminal.
func IsTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Red marks text as alarming where colour is welcome: on a terminal, unless
// NO_COLOR is set (no-color.org).
func Red(w io.Writer, text string) string {
	if !IsTerminal(w) || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return text
	}
	return "\x1b[31m" + text + "\x1b[0m"
}

// Confirm makes sure that something destructive is meant. what completes the
// question "Really …?". With --yes it is; on a terminal it asks; in a pipe it
// refuses.
func Confirm(c *urfave.Context, what string) error {
	if c.Bool("yes") {
		return nil
	}
	if !IsTerminal(c.App.Reader) || !IsTerminal(c.App.ErrWriter) {
		return Usage("refusing to %s: there is no terminal to ask on; say --yes", what)
	}
	fmt.Fprintf(c.App.ErrWriter, "Really %s? [y/N] ", what)
	answered := make(chan string, 1)
	go func() { // the reader of the answer: ends with the line, or with the program
		var answer string
		fmt.Fscanln(c.App.Reader, &answer)
		answered <- strings.ToLower(answer)
	}()
	select {
	case a := <-answered:
		if c.Context.Err() == nil && (a == "y" || a == "yes") {
			return nil
		}
	case <-c.Context.Done():
		fmt.Fprintln(c.App.ErrWriter)
	}
	return Fail(StatusFailed, "nothing was done")
}

// DestructiveFlags are the flags of commands that cannot be undone.
func DestructiveFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"},
		&urfave.BoolFlag{Name: "dry-run", Usage: "say what would be done, do nothing"},
	}
}

// Number writes n with separators: 20,000.
func Number[N int | int32 | int64](n N) string {
	s := strconv.FormatInt(int64(n), 10)
	digits := len(strings.TrimPrefix(s, "-"))
	for i := len(s) - 3; digits > 3; i, digits = i-3, digits-3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// CellNumber writes how many there are in a table, nothing for a negative number: with
// separators, as sentences do, where people read it; in a pipe as digits alone, which
// scripts add up. Offsets and ids are digits alone everywhere: they are typed again.
func CellNumber(w io.Writer, n int64) string {
	switch {
	case n < 0:
		return ""
	case IsTerminal(w):
		return Number(n)
	}
	return strconv.FormatInt(n, 10)
}

// CellSize is the same of a number of bytes. In a pipe a cell has no spaces, so that
// columns can be counted.
func CellSize(w io.Writer, bytes int64) string {
	switch {
	case bytes < 0:
		return ""
	case IsTerminal(w):
		return Size(bytes)
	}
	return strings.ReplaceAll(Size(bytes), " ", "")
}

// Count writes a number with its noun: "1 record", "20,000 records".
func Count[N int | int32 | int64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return Number(n) + " " + noun + "s"
}

// IDs writes node ids as Kafka's tools do: 1,2,3.
func IDs(ids []int32) string {
	words := make([]string, len(ids))
	for i, id := range ids {
		words[i] = strconv.Itoa(int(id))
	}
	return strings.Join(words, ",")
}

package load

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strconv"
	"strings"
)

// A Page is one HTML file that needs no other: facts, tables, charts. Its texts
// are plain, whoever wrote them; the page escapes them.
type Page struct {
	Title  string
	Lead   string // a sentence or two
	Facts  []Fact
	Tables []Table
	Charts []Chart
	Notes  []string // small print
}

// A Fact is a figure with its name.
type Fact struct{ Name, Value string }

// A Table has a caption and rows of as many cells as there are headers. A folded
// one is opened by its caption.
type Table struct {
	Caption string
	Headers []string
	Rows    [][]string
	Numbers bool // all columns but the first are
	Folded  bool
}

//go:embed page.html
var pageSource string

var pageTemplate = template.Must(template.New("page").Parse(pageSource))

// Write writes the page.
func (p Page) Write(w io.Writer) error {
	type chart struct {
		ID int
		*drawing
	}
	data := struct {
		Page
		Drawings []chart
	}{Page: p}
	for i, c := range p.Charts {
		data.Drawings = append(data.Drawings, chart{i, c.draw()})
	}
	return pageTemplate.Execute(w, data)
}

// ResultPage is the page of one result: throughput and latency over time, and the
// percentile curve.
func ResultPage(r *Result) Page {
	kinds := map[string]string{"produce": "Producing to", "consume": "Consuming", "e2e": "From producer to consumer through"}
	p := Page{Title: fmt.Sprintf("%s %s", kinds[r.Kind], r.Topic)}
	if kinds[r.Kind] == "" {
		p.Title = r.Kind + " " + r.Topic
	}
	p.Lead = fmt.Sprintf("%s records in %.2f s, %s.", grouped(float64(r.Records)), r.Seconds, r.Start.UTC().Format("2 January 2006, 15:04:05 UTC"))
	p.Facts = []Fact{
		{"records/s", grouped(r.RecordsPerSecond)},
		{"MiB/s", figure(r.MiBPerSecond)},
	}
	if l := r.Latency; l != nil {
		p.Facts = append(p.Facts, Fact{"p50", figure(l.P50) + " ms"}, Fact{"p99", figure(l.P99) + " ms"}, Fact{"p99.9", figure(l.P999) + " ms"},
			Fact{"max", figure(l.Max) + " ms"}, Fact{"mean", figure(l.Mean) + " ms"})
	}
	p.Facts = append(p.Facts, Fact{"errors", grouped(float64(r.Errors))})
	if r.Kind == "e2e" {
		p.Facts = append(p.Facts, Fact{"lost", grouped(float64(r.Lost))}, Fact{"duplicates", grouped(float64(r.Duplicates))})
	}
	// A point a second: less than two are no line.
	if len(r.Series) > 1 {
		p.Charts = append(p.Charts, Chart{Title: "Throughput", XLabel: "seconds", YLabel: "records/s", Lines: []Line{{Name: "records/s", Points: r.Throughput()}}})
		if r.Latency != nil {
			p.Charts = append(p.Charts, r.latencyChart())
		}
	}
	if r.Latency != nil {
		p.Charts = append(p.Charts, r.curveChart())
	}
	p.Tables = []Table{r.planTable(), r.seriesTable()}
	if r.FirstError != "" {
		p.Notes = append(p.Notes, "The first error: "+r.FirstError)
	}
	if r.Unsent > 0 {
		p.Notes = append(p.Notes, fmt.Sprintf("The rate was not reached: %s records of the schedule were not sent.", grouped(float64(r.Unsent))))
	}
	if r.Interrupted {
		p.Notes = append(p.Notes, "The run was interrupted.")
	}
	if r.Latency != nil {
		if r.Plan.Rate > 0 {
			p.Notes = append(p.Notes, "Latency runs from the moment at which a record was to be sent, so that a stall is seen in all records it held up.")
		} else {
			p.Notes = append(p.Notes, "Without a rate, latency runs from the moment a record was handed to the client, and is mostly time spent in its queue.")
		}
	}
	return p
}

// Throughput is the series as records a second.
func (r *Result) Throughput() []XY { return r.Rates(func(s Second) int64 { return s.Records }) }

// Rates is something of the series as a rate a second. The last second may be
// shorter; a small rest of one says nothing and is left out.
func (r *Result) Rates(pick func(Second) int64) []XY {
	var points []XY
	for i, s := range r.Series {
		length := 1.0
		if i == len(r.Series)-1 {
			length = max(0, min(1, r.Seconds-float64(s.Second)))
			if length < 0.2 && i > 0 {
				break
			}
		}
		if length > 0 {
			points = append(points, XY{float64(s.Second), float64(pick(s)) / length})
		}
	}
	return points
}

func (r *Result) latencyChart() Chart {
	c := Chart{Title: "Latency over time", XLabel: "seconds", YLabel: "ms", LogY: true}
	pick := func(name string, f func(Second) float64) {
		l := Line{Name: name}
		for _, s := range r.Series {
			if s.Records > 0 && f(s) > 0 {
				l.Points = append(l.Points, XY{float64(s.Second), f(s)})
			}
		}
		c.Lines = append(c.Lines, l)
	}
	pick("max", func(s Second) float64 { return s.Max })
	pick("p99", func(s Second) float64 { return s.P99 })
	pick("p50", func(s Second) float64 { return s.P50 })
	return c
}

func (r *Result) curveChart() Chart {
	c := Chart{Title: "Latency by percentile", XLabel: "percentile", YLabel: "ms", Percentiles: true, Lines: []Line{{Name: "latency"}}}
	for _, p := range r.Percentiles {
		x := p.Percentile
		if x == 100 {
			// The slowest record stands where one in all lies above.
			x = 100 - 100/float64(max(2, r.Records))
		}
		c.Lines[0].Points = append(c.Lines[0].Points, XY{x, p.Millis})
	}
	slices.SortStableFunc(c.Lines[0].Points, func(a, b XY) int {
		switch {
		case a.X < b.X:
			return -1
		case a.X > b.X:
			return 1
		}
		return 0
	})
	return c
}

// planTable says what was asked.
func (r *Result) planTable() Table {
	t := Table{Caption: "What was asked", Headers: []string{"Setting", "Value"}}
	add := func(name, value string) {
		if value != "" && value != "0" {
			t.Rows = append(t.Rows, []string{name, value})
		}
	}
	p := r.Plan
	add("topic", r.Topic)
	add("partitions", strconv.Itoa(r.Partitions))
	add("producers", strconv.Itoa(p.Producers))
	add("consumers", strconv.Itoa(p.Consumers))
	if p.Records > 0 {
		add("records", grouped(float64(p.Records)))
	}
	if p.RecordBytes > 0 {
		add("record size", grouped(float64(p.RecordBytes))+" B")
	}
	if p.Keys > 0 {
		add("keys", grouped(float64(p.Keys))+", "+string(p.Distribution))
	}
	if p.Rate > 0 {
		add("rate", grouped(p.Rate)+" records/s")
	} else if r.Kind != "consume" {
		add("rate", "as fast as possible")
	}
	if p.Duration > 0 {
		add("duration", p.Duration.String())
	}
	if p.WarmUp > 0 {
		add("warm-up", p.WarmUp.String()+", not counted")
	}
	if p.InFlight > 0 {
		add("in flight", "at most "+grouped(float64(p.InFlight))+" records a producer")
	}
	names := make([]string, 0, len(p.Settings))
	for name := range p.Settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add(name, p.Settings[name])
	}
	return t
}

// seriesTable is what the charts show, in figures.
func (r *Result) seriesTable() Table {
	t := Table{Caption: "Second by second", Folded: true, Numbers: true, Headers: []string{"Second", "Records", "MiB", "Errors"}}
	if r.Latency != nil {
		t.Headers = append(t.Headers, "p50 (ms)", "p99 (ms)", "Max (ms)")
	}
	for _, s := range r.Series {
		row := []string{strconv.Itoa(s.Second), grouped(float64(s.Records)), figure(float64(s.Bytes) / (1 << 20)), grouped(float64(s.Errors))}
		if r.Latency != nil {
			row = append(row, figure(s.P50), figure(s.P99), figure(s.Max))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// grouped writes a whole number with separators: 20,000.
func grouped(f float64) string {
	s := strconv.FormatFloat(f, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// figure writes a number with three significant digits, and whole from 100 on.
func figure(f float64) string {
	switch {
	case f >= 99.95:
		return grouped(f)
	case f >= 9.995:
		return strconv.FormatFloat(f, 'f', 1, 64)
	case f >= 0.9995 || f == 0:
		return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 2, 64), ".00")
	}
	return strconv.FormatFloat(f, 'g', 3, 64)
}

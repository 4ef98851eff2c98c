// Package report turns measurements into medians, spreads, ratios and verdicts,
// and writes them into the generated sections of a Markdown file.
package report

import (
	"encoding/json"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
)

// A Key names what is measured: the metric of one row of a scenario's table.
type Key struct{ Scenario, Row, Metric string }

// Figures are all measurements of a run, each repeated. The zero value is empty
// and ready. It is safe for concurrent use.
type Figures struct {
	mu     sync.Mutex
	keys   []Key // in the order of their first measurement
	values map[Key][]float64
}

// Add adds a measurement.
func (f *Figures) Add(k Key, value float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.values == nil {
		f.values = make(map[Key][]float64)
	}
	if _, ok := f.values[k]; !ok {
		f.keys = append(f.keys, k)
	}
	f.values[k] = append(f.values[k], value)
}

// Of returns the measurements of a key, in their order.
func (f *Figures) Of(k Key) []float64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.values[k])
}

// WriteJSON writes all measurements, [{scenario, row, metric, values}].
func (f *Figures) WriteJSON(w io.Writer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	type line struct {
		Scenario string    `json:"scenario"`
		Row      string    `json:"row"`
		Metric   string    `json:"metric"`
		Values   []float64 `json:"values"`
	}
	lines := []line{}
	for _, k := range f.keys {
		lines = append(lines, line{k.Scenario, k.Row, k.Metric, f.values[k]})
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(lines)
}

// A Summary is what is told of repeated measurements. N is 0 if there were none.
type Summary struct {
	N                int
	Median, Min, Max float64
}

// Summarize sums values up.
func Summarize(values []float64) Summary {
	n := len(values)
	if n == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	// Between the two in the middle of an even number.
	return Summary{n, (sorted[(n-1)/2] + sorted[n/2]) / 2, sorted[0], sorted[n-1]}
}

// Ratio is the ratio of two medians. Its spread is that of the ratios round by
// round, where there are as many measurements of both; otherwise the widest there
// can be. N is 0 if there is none.
func Ratio(of, to []float64) Summary {
	a, b := Summarize(of), Summarize(to)
	if a.N == 0 || b.N == 0 || b.Min <= 0 {
		return Summary{}
	}
	r := Summary{N: min(a.N, b.N), Median: a.Median / b.Median, Min: a.Min / b.Max, Max: a.Max / b.Min}
	if a.N == b.N {
		r.Min, r.Max = math.Inf(1), math.Inf(-1)
		for i := range of {
			r.Min, r.Max = min(r.Min, of[i]/to[i]), max(r.Max, of[i]/to[i])
		}
	}
	return r
}

// A Want is what a result is held against.
type Want struct {
	What    string // what is compared: "records/s, millrace / kafka"
	Of      Key
	To      Key     // the zero Key: Of is held against the bound itself
	AtLeast bool    // Of (or Of/To) is to be Bound or more; otherwise Bound or less
	Strict  bool    // and not Bound itself
	Bound   float64 // of a ratio, or in Unit
	Unit    string  // of a bound that is not a ratio's
}

// A Verdict is what came of a Want.
type Verdict string

// The verdicts.
const (
	Held        Verdict = "held"
	Missed      Verdict = "missed"
	NotMeasured Verdict = "not measured"
)

// Judge holds the figures against a want. What was measured, not its digits as
// they are printed, decides.
func (f *Figures) Judge(w Want) (Summary, Verdict) {
	measured := Summarize(f.Of(w.Of))
	if w.To != (Key{}) {
		measured = Ratio(f.Of(w.Of), f.Of(w.To))
	}
	held := measured.Median <= w.Bound
	if w.AtLeast {
		held = measured.Median >= w.Bound
	}
	if w.Strict && measured.Median == w.Bound {
		held = false
	}
	switch {
	case measured.N == 0:
		return measured, NotMeasured
	case held:
		return measured, Held
	}
	return measured, Missed
}

// Bounds writes what is wanted: "≥ 1.5", "< 150 ms".
func (w Want) Bounds() string {
	sign := map[[2]bool]string{{true, false}: "≥", {true, true}: ">", {false, false}: "≤", {false, true}: "<"}[[2]bool{w.AtLeast, w.Strict}]
	return strings.TrimSpace(sign + " " + Number(w.Bound) + " " + w.Unit)
}

package load

import (
	"encoding/json"
	"io"
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Result is what became of a plan. The package comment has its JSON.
type Result struct {
	Kind             string    `json:"kind"`
	Topic            string    `json:"topic"`
	Partitions       int       `json:"partitions"`
	Records          int64     `json:"records"`
	Bytes            int64     `json:"bytes"`
	Seconds          float64   `json:"seconds"`
	Errors           int64     `json:"errors"`
	FirstError       string    `json:"first_error,omitempty"`
	Unsent           int64     `json:"unsent,omitempty"`
	Unacknowledged   int64     `json:"unacknowledged,omitempty"`
	Lost             int64     `json:"lost,omitempty"`
	Duplicates       int64     `json:"duplicates,omitempty"`
	Interrupted      bool      `json:"interrupted,omitempty"`
	RecordsPerSecond float64   `json:"records_per_second"`
	MiBPerSecond     float64   `json:"mib_per_second"`
	Latency          *Latency  `json:"latency_millis,omitempty"`
	Series           []Second  `json:"series"`
	Percentiles      []Point   `json:"percentiles,omitempty"`
	Plan             Plan      `json:"plan"`
	Start            time.Time `json:"-"` // the end of the warm-up

	latencies *hdrhistogram.Histogram
}

// A Latency sums up a distribution, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
	Mean float64 `json:"mean"`
}

// A Second is a point of a series: what came in one second of a run. Latencies
// are in milliseconds, and those of what came in this second.
type Second struct {
	Second  int     `json:"second"` // from 0, the end of the warm-up
	Records int64   `json:"records"`
	Bytes   int64   `json:"bytes"`
	Errors  int64   `json:"errors"`
	P50     float64 `json:"p50_millis,omitempty"`
	P99     float64 `json:"p99_millis,omitempty"`
	Max     float64 `json:"max_millis,omitempty"`
}

// A Point is one of a percentile curve: so many percent of the records had this
// latency or less.
type Point struct {
	Percentile float64 `json:"percentile"`
	Millis     float64 `json:"millis"`
}

// result sums up what was collected. finish comes before it.
func (c *collector) result(kind string, plan Plan) *Result {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := &c.total
	r := &Result{
		Kind: kind, Topic: plan.Topic, Partitions: plan.Partitions, Plan: plan, Start: c.start,
		Records: t.records, Bytes: t.bytes, Errors: t.errors, Seconds: t.last.Round(time.Microsecond).Seconds(),
		Series: append([]Second{}, c.closed...), latencies: t.latencies,
	}
	if t.first != nil {
		r.FirstError = t.first.Error()
	}
	if r.Seconds > 0 {
		r.RecordsPerSecond = thousandths(float64(r.Records) / r.Seconds)
		r.MiBPerSecond = thousandths(float64(r.Bytes) / r.Seconds / (1 << 20))
	}
	if h := t.latencies; h != nil && h.TotalCount() > 0 {
		v := h.ValueAtPercentiles([]float64{50, 90, 99, 99.9})
		r.Latency = &Latency{millis(v[50]), millis(v[90]), millis(v[99]), millis(v[99.9]), millis(h.Max()), thousandths(h.Mean() / 1000)}
		r.Percentiles = curve(h)
	}
	return r
}

// thousandths leaves three digits behind the point.
func thousandths(f float64) float64 { return math.Round(f*1000) / 1000 }

// curve returns a percentile curve: from 0 to 100, points closer the closer to
// 100 they are, no more of them than the number of records gives meaning to.
func curve(h *hdrhistogram.Histogram) []Point {
	var at []float64
	n := float64(h.TotalCount())
	for _, p := range []float64{0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 85, 90, 92.5, 95, 96, 97, 98, 98.5, 99, 99.25, 99.5, 99.75,
		99.9, 99.925, 99.95, 99.975, 99.99, 99.995, 99.999, 99.9995, 99.9999, 99.99999} {
		if p > 0 && n*(100-p)/100 < 1 {
			break // fewer than one record lies above
		}
		at = append(at, p)
	}
	values := h.ValueAtPercentiles(at)
	var points []Point
	for _, p := range at {
		points = append(points, Point{p, millis(values[p])})
	}
	return append(points, Point{100, millis(h.Max())})
}

// WriteJSON writes the result as indented JSON, a line break behind it.
func (r *Result) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// plan is a Plan as JSON.
type plan struct {
	Producers    int               `json:"producers,omitempty"`
	Consumers    int               `json:"consumers,omitempty"`
	Records      int64             `json:"records,omitempty"`
	RecordBytes  int               `json:"record_bytes,omitempty"`
	Keys         int               `json:"keys,omitempty"`
	Distribution Distribution      `json:"distribution,omitempty"`
	Rate         float64           `json:"rate,omitempty"`
	Duration     float64           `json:"duration_seconds,omitempty"`
	WarmUp       float64           `json:"warm_up_seconds,omitempty"`
	InFlight     int               `json:"in_flight,omitempty"`
	Seed         uint64            `json:"seed,omitempty"`
	Settings     map[string]string `json:"settings,omitempty"`
}

// MarshalJSON writes the plan with its durations in seconds.
func (p Plan) MarshalJSON() ([]byte, error) {
	return json.Marshal(plan{p.Producers, p.Consumers, p.Records, p.RecordBytes, p.Keys, p.Distribution, p.Rate,
		p.Duration.Seconds(), p.WarmUp.Seconds(), p.InFlight, p.Seed, p.Settings})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (p *Plan) UnmarshalJSON(b []byte) error {
	var j plan
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*p = Plan{Producers: j.Producers, Consumers: j.Consumers, Records: j.Records, RecordBytes: j.RecordBytes, Keys: j.Keys,
		Distribution: j.Distribution, Rate: j.Rate, Duration: time.Duration(j.Duration * float64(time.Second)),
		WarmUp: time.Duration(j.WarmUp * float64(time.Second)), InFlight: j.InFlight, Seed: j.Seed, Settings: j.Settings}
	return nil
}

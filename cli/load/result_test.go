package load

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the golden files")

// sample is a result that is the same every time.
func sample(t *testing.T) (r *Result) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &carrier{fate: func(n int, _ *Record) (time.Duration, error) {
			if n == 1500 {
				return 20 * time.Millisecond, errors.New("NOT_ENOUGH_REPLICAS")
			}
			return time.Duration(1000+n%700*3) * time.Microsecond, nil
		}}
		plan := Plan{
			Producers: 2, Rate: 500, Duration: 2500 * time.Millisecond, WarmUp: time.Second, RecordBytes: 128, Keys: 10, Seed: 42,
			Topic: "orders", Partitions: 6, Settings: map[string]string{"acks": "all", "compression": "zstd"},
		}
		r = produce(t, t.Context(), plan, s)
	})
	return r
}

// The JSON of a result, key by key. Somebody reads it: keys are added, never
// renamed.
func TestResultsAreWrittenAsTheyAlwaysWere(t *testing.T) {
	r := sample(t)
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join("testdata", "result.json")
	if *rewrite {
		if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), want) {
		t.Errorf("%s has\n%s\nwant\n%s", name, b.Bytes(), want)
	}
	var again Result
	if err := json.Unmarshal(want, &again); err != nil {
		t.Fatal(err)
	}
	var c bytes.Buffer
	if again.WriteJSON(&c); !bytes.Equal(c.Bytes(), want) {
		t.Errorf("read and written again:\n%s", c.Bytes())
	}
}

// Every key of the JSON is explained in the package comment.
func TestEveryKeyIsDocumented(t *testing.T) {
	source, err := os.ReadFile("load.go")
	if err != nil {
		t.Fatal(err)
	}
	comment, _, _ := strings.Cut(string(source), "\npackage load")
	for _, of := range []any{Result{}, Latency{}, Second{}, Point{}, plan{}} {
		for i := range reflect.TypeOf(of).NumField() {
			key, _, _ := strings.Cut(reflect.TypeOf(of).Field(i).Tag.Get("json"), ",")
			if key != "-" && !strings.Contains(comment, key) {
				t.Errorf("%s is not explained", key)
			}
		}
	}
}

// mustBePage fails unless a page is well formed, asks for nothing from elsewhere,
// and has every number drawn.
func mustBePage(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	d.Strict, d.AutoClose, d.Entity = false, xml.HTMLAutoClose, xml.HTMLEntity
	open := 0
	for {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("not well formed: %v", err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			open++
			for _, a := range e.Attr {
				if n := a.Name.Local; n == "src" || n == "href" || strings.HasPrefix(n, "on") {
					t.Errorf("<%s %s=%q>", e.Name.Local, n, a.Value)
				}
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
				}
			}
			if e.Name.Local == "script" {
				t.Error("a script")
			}
		case xml.EndElement:
			open--
		}
	}
	if open != 0 {
		t.Errorf("%d elements are left open", open)
	}
	for _, bad := range []string{"url(", "@import", ">-0<", "NaN", "Inf<", "ZgotmplZ", "%!"} {
		if strings.Contains(page, bad) {
			t.Errorf("%s is in it", bad)
		}
	}
}

func TestPagesAreWellFormedWhateverTheTopic(t *testing.T) {
	write := func(r *Result) string {
		var b bytes.Buffer
		if err := ResultPage(r).Write(&b); err != nil {
			t.Fatal(err)
		}
		mustBePage(t, b.String())
		return b.String()
	}
	r := sample(t)
	page := write(r)
	for _, want := range []string{"orders", "records/s", "p99.9", "Latency by percentile", "99.9 %", "prefers-color-scheme: dark", "NOT_ENOUGH_REPLICAS"} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	evil := `</title><script>alert(1)</script>"'&<!--`
	r.Topic, r.FirstError, r.Plan.Settings = evil, evil, map[string]string{evil: evil}
	if page := write(r); strings.Contains(page, "<script") || strings.Contains(page, "<!--") {
		t.Error("the topic's name became part of the page")
	}
	// Nothing at all, one record, and no latency are pages too.
	write(&Result{Kind: "produce", Topic: "t"})
	write(&Result{Kind: "consume", Topic: "t", Records: 1, Seconds: 0.001, Series: []Second{{Records: 1}}})
	write(&Result{Kind: "e2e", Records: 1, Seconds: 0.001, Series: []Second{{Records: 1, P50: 0.001, P99: 0.001, Max: 600_000}},
		Latency: &Latency{Max: 600_000}, Percentiles: []Point{{0, 0.001}, {100, 600_000}}})
}

func TestAxesHaveRoundNumbers(t *testing.T) {
	for _, test := range []struct {
		high float64
		want string
	}{
		{131_000, "0 20,000 40,000 60,000 80,000 100,000 120,000 140,000"},
		{999, "0 200 400 600 800 1,000 1,200"},
		{17.1, "0 5 10 15 20"},
		{1, "0 0.2 0.4 0.6 0.8 1.0 1.2"},
		{0.037, "0 0.01 0.02 0.03 0.04"},
	} {
		d := Chart{Lines: []Line{{Points: []XY{{0, test.high}}}}}.draw()
		var labels []string
		for _, tick := range d.YTicks {
			labels = append(labels, tick.Label)
			if tick.At < d.Top-0.1 || tick.At > d.Bottom+0.1 {
				t.Errorf("%v: %s stands at %v, outside", test.high, tick.Label, tick.At)
			}
		}
		if got := strings.Join(labels, " "); got != test.want {
			t.Errorf("%v: %s, want %s", test.high, got, test.want)
		}
	}
}

package report

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSummaries(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   Summary
		text   string
	}{
		{nil, Summary{}, ""},
		{[]float64{7}, Summary{1, 7, 7, 7}, "7"},
		{[]float64{3, 1}, Summary{2, 2, 1, 3}, "2 (1–3)"},
		{[]float64{30, 10, 20}, Summary{3, 20, 10, 30}, "20 (10–30)"},
		{[]float64{4, 1, 3, 2}, Summary{4, 2.5, 1, 4}, "2.5 (1–4)"},
		{[]float64{5, 5, 100}, Summary{3, 5, 5, 100}, "5 (5–100)"},
	} {
		got := Summarize(c.values)
		if got != c.want || got.String() != c.text {
			t.Errorf("of %v: %+v, %q", c.values, got, got)
		}
	}
}

func TestSummarizeLeavesTheOrderOfItsValues(t *testing.T) {
	values := []float64{3, 1, 2}
	Summarize(values)
	if values[0] != 3 || values[1] != 1 {
		t.Error(values)
	}
}

func TestRatios(t *testing.T) {
	for name, c := range map[string]struct {
		of, to []float64
		want   Summary
	}{
		"round by round": {[]float64{20, 30, 40}, []float64{10, 10, 10}, Summary{3, 3, 2, 4}},
		// Each round twice as fast, though the rounds differ by more than that.
		"paired":     {[]float64{20, 200}, []float64{10, 100}, Summary{2, 2, 2, 2}},
		"unpaired":   {[]float64{20, 30, 40}, []float64{5, 10}, Summary{2, 4, 2, 8}},
		"none":       {nil, []float64{1}, Summary{}},
		"to nothing": {[]float64{1}, nil, Summary{}},
		"to zero":    {[]float64{1}, []float64{0}, Summary{}},
	} {
		if got := Ratio(c.of, c.to); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestVerdicts(t *testing.T) {
	a, b, none := Key{"s", "a", "m"}, Key{"s", "b", "m"}, Key{"s", "c", "m"}
	var f Figures
	for _, v := range []float64{15, 14, 16} {
		f.Add(a, v)
		f.Add(b, 10)
	}
	for _, c := range []struct {
		want    Want
		bounds  string
		verdict Verdict
	}{
		{Want{Of: a, To: b, AtLeast: true, Bound: 1.5}, "≥ 1.5", Held},
		{Want{Of: a, To: b, AtLeast: true, Bound: 1.51}, "≥ 1.51", Missed},
		{Want{Of: a, To: b, AtLeast: true, Strict: true, Bound: 1.5}, "> 1.5", Missed},
		{Want{Of: b, To: a, Bound: 0.67}, "≤ 0.67", Held},
		{Want{Of: b, To: a, Bound: 0.5}, "≤ 0.5", Missed},
		{Want{Of: a, Bound: 15, Unit: "ms"}, "≤ 15 ms", Held},
		{Want{Of: a, Bound: 15, Strict: true, Unit: "ms"}, "< 15 ms", Missed},
		{Want{Of: none, Bound: 15}, "≤ 15", NotMeasured},
		{Want{Of: a, To: none, Bound: 15}, "≤ 15", NotMeasured},
		{Want{Of: none, To: a, AtLeast: true}, "≥ 0", NotMeasured},
	} {
		_, verdict := f.Judge(c.want)
		if verdict != c.verdict || c.want.Bounds() != c.bounds {
			t.Errorf("%+v: %s, %s", c.want, verdict, c.want.Bounds())
		}
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1", 1.5: "1.5", 1.234: "1.23", 12.345: "12.3", 123.45: "123", 1234.5: "1,234", 999.6: "1,000", 1234567: "1,234,567",
		0.05: "0.05", 0.012345: "0.0123", -1234: "-1,234", -0.5: "-0.5", 100: "100", 10: "10", math.Inf(1): "–",
	} {
		if got := Number(v); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
}

func TestTablesLeaveOutWhatWasNotMeasured(t *testing.T) {
	table := Table{Scenario: "s", Note: "fsync", Rows: []Row{{"a", "yes"}, {"b", "no"}}, Columns: []Column{{"records/s", "rate"}, {"p99 ms", "p99"}}}
	var f Figures
	if got := table.Markdown(&f); got != "" {
		t.Errorf("an empty table: %q", got)
	}
	f.Add(Key{"s", "b", "rate"}, 1000)
	f.Add(Key{"s", "b", "rate"}, 2000)
	want := "|  | fsync | records/s |\n|---|---|---:|\n| b | no | 1,500 (1,000–2,000) |\n"
	if got := table.Markdown(&f); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

func TestWantsSayWhatWasMeasured(t *testing.T) {
	var f Figures
	f.Add(Key{"s", "a", "m"}, 3)
	f.Add(Key{"s", "b", "m"}, 2)
	got := Wants(&f, []Want{{What: "a / b", Of: Key{"s", "a", "m"}, To: Key{"s", "b", "m"}, AtLeast: true, Bound: 2}})
	want := "| | wanted | measured | |\n|---|---:|---:|---|\n| a / b | ≥ 2 | 1.5 | missed |\n"
	if got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
}

func TestSectionsAreReplacedAndNothingElse(t *testing.T) {
	const (
		b1, e1 = "<!-- compare: begin -->", "<!-- compare: end -->"
		b2, e2 = "<!-- curves: begin -->", "<!-- curves: end -->"
	)
	for name, c := range map[string]struct{ text, want string }{
		"an empty file":  {"", b1 + "\nnew\n" + e1 + "\n"},
		"no section":     {"# T\n\nwhy\n\n\n", "# T\n\nwhy\n\n" + b1 + "\nnew\n" + e1 + "\n"},
		"between others": {"# T\n  why\n" + b2 + "\nx\n" + e2 + "\nbecause \n" + b1 + "\nold\n\nold\n" + e1 + "\n\nend", "# T\n  why\n" + b2 + "\nx\n" + e2 + "\nbecause \n" + b1 + "\nnew\n" + e1 + "\n\nend"},
		"nothing inside": {"a" + b1 + e1 + "b", "a" + b1 + "\nnew\n" + e1 + "b"},
	} {
		got, err := Replace(c.text, "compare", "\nnew\n\n")
		if err != nil || got != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, got, c.want)
		}
		if again, err := Replace(got, "compare", "new"); err != nil || again != got {
			t.Errorf("%s: not the same when it is done again: %v\n%s", name, err, again)
		}
	}
	for name, text := range map[string]string{
		"only a beginning": b1, "only an end": e1, "the wrong way round": e1 + b1, "two of them": b1 + e1 + b1 + e1, "two beginnings": b1 + b1,
	} {
		if got, err := Replace(text, "compare", "new"); err == nil {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestAFileThatCannotBeUnderstoodStaysAsItIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "BENCHMARKS.md")
	if err := WriteSection(path, "compare", "one"); err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(text), "# Benchmarks\n") || !strings.Contains(string(text), "\none\n") {
		t.Errorf("%s", text)
	}
	broken := []byte("<!-- compare: end -->\n")
	if err := os.WriteFile(path, broken, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteSection(path, "compare", "two"); err == nil || !strings.Contains(err.Error(), "BENCHMARKS.md") {
		t.Errorf("%v", err)
	}
	if text, _ := os.ReadFile(path); string(text) != string(broken) {
		t.Errorf("%s", text)
	}
}

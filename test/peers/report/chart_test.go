package report

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"strings"
	"testing"
)

func TestRoundNumbersAroundAValue(t *testing.T) {
	for v, want := range map[float64][2]float64{1: {0.5, 2}, 1.5: {1, 2}, 2: {1, 5}, 7: {5, 10}, 10: {5, 20}, 99: {50, 100}, 0.03: {0.02, 0.05}} {
		if b, a := below(v), above(v); math.Abs(b-want[0]) > 1e-9 || math.Abs(a-want[1]) > 1e-9 {
			t.Errorf("around %v: %v and %v, want %v", v, b, a, want)
		}
	}
}

func TestChartsAreWellFormed(t *testing.T) {
	for name, c := range map[string]Chart{
		"empty":           {Title: "<nothing>"},
		"one point":       {Lines: []Line{{Name: "a & b", Points: []Point{{1, Summarize([]float64{5})}}}}},
		"zero":            {Lines: []Line{{Name: "a", Points: []Point{{0, Summarize([]float64{5})}, {1, Summarize([]float64{0})}}}}},
		"spread":          {Lines: []Line{{Name: "a", Points: []Point{{1, Summarize([]float64{5, 6, 7})}, {1000, Summarize([]float64{1e6})}}}}},
		"two lines":       {Lines: []Line{{Name: "a", Points: []Point{{1, Summarize([]float64{5})}}}, {Name: "b", Points: []Point{{10, Summarize([]float64{7})}}}}},
		"a gap":           {Lines: []Line{{Name: "a", Points: []Point{{1, Summarize([]float64{5})}, {2, Summary{}}, {4, Summarize([]float64{9})}}}}},
		"the same thrice": {Lines: []Line{{Name: "a", Points: []Point{{1, Summarize([]float64{5})}, {2, Summarize([]float64{5})}}}}},
	} {
		svg := c.SVG()
		if strings.Contains(svg, "NaN") || strings.Contains(svg, "Inf") {
			t.Errorf("%s has no place:\n%s", name, svg)
		}
		for d := xml.NewDecoder(strings.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Errorf("%s: %v\n%s", name, err, svg)
				break
			}
		}
	}
}

func TestChartsSayWhatTheyShow(t *testing.T) {
	c := Chart{Title: "Producing", XLabel: "partitions", YLabel: "records/s", Lines: []Line{{"fsync", []Point{{1, Summarize([]float64{500})}, {10, Summarize([]float64{1500})}}}}}
	const want = `aria-label="Producing: records/s against partitions. fsync: 500 at 1, 1,500 at 10."`
	if svg := c.SVG(); !strings.Contains(svg, want) {
		t.Errorf("no %s in\n%s", want, svg)
	}
}

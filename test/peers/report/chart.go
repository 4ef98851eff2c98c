package report

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// A Chart draws medians over one quantity, with bars for their spreads, as SVG.
// Both axes are logarithmic, because what scales is a straight line then.
type Chart struct {
	Title  string
	XLabel string
	YLabel string // with its unit
	Lines  []Line
}

// A Line is a metric's points, from left to right. Those that are not above 0
// have no place on a logarithmic axis and are left out.
type Line struct {
	Name   string
	Points []Point
}

// A Point is where a line passes.
type Point struct {
	X float64
	Y Summary
}

// The geometry of a chart, in pixels.
const (
	chartWidth, chartHeight        = 640.0, 360.0
	chartLeft, chartRight          = 84.0, 44.0
	chartTop, chartBottom          = 56.0, 52.0
	plotWidth                      = chartWidth - chartLeft - chartRight
	plotHeight                     = chartHeight - chartTop - chartBottom
	chartFont                      = `font-family="system-ui, sans-serif" font-size="12"`
	chartInk, chartGrid, chartPage = "#24292f", "#d8dee4", "#ffffff"
)

// colours of lines, in their order, told apart without red and green.
var colours = []string{"#0969da", "#bc4c00", "#6639ba", "#57606a"}

// SVG draws the chart, on a ground of its own so that it can be read on any page.
func (c Chart) SVG() string {
	minX, maxX, minY, maxY := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, l := range c.Lines {
		for _, p := range l.Points {
			if p.drawn() {
				minX, maxX = min(minX, p.X), max(maxX, p.X)
				minY, maxY = min(minY, p.Y.Min), max(maxY, p.Y.Max)
			}
		}
	}
	if maxX == 0 {
		minX, maxX, minY, maxY = 1, 10, 1, 10
	}
	// Down and up to the next 1, 2 or 5 of a power of ten.
	x := scale{math.Log10(minX), math.Log10(maxX), chartLeft, chartLeft + plotWidth}
	y := scale{math.Log10(below(minY)), math.Log10(above(maxY)), chartTop + plotHeight, chartTop}
	if x.to-x.from < 1e-9 {
		x.from, x.to = x.from-0.5, x.to+0.5
	}

	var b strings.Builder
	w := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	w(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%g" height="%g" role="img" aria-label="%s" %s fill="%s">`,
		chartWidth, chartHeight, chartWidth, chartHeight, html.EscapeString(c.describe()), chartFont, chartInk)
	w(`<rect width="100%%" height="100%%" fill="%s"/>`, chartPage)
	w(`<text x="%g" y="22" font-size="15" font-weight="600">%s</text>`, chartLeft, html.EscapeString(c.Title))
	for _, at := range y.ticks() {
		w(`<line x1="%g" x2="%g" y1="%.1f" y2="%.1f" stroke="%s"/><text x="%g" y="%.1f" text-anchor="end">%s</text>`,
			chartLeft, chartLeft+plotWidth, y.at(at), y.at(at), chartGrid, chartLeft-8, y.at(at)+4, Number(at))
	}
	// The horizontal axis is marked where something was measured.
	seen := make(map[float64]bool)
	for _, l := range c.Lines {
		for _, p := range l.Points {
			if p.drawn() && !seen[p.X] {
				seen[p.X] = true
				w(`<text x="%.1f" y="%g" text-anchor="middle">%s</text>`, x.at(p.X), chartTop+plotHeight+18, Number(p.X))
			}
		}
	}
	w(`<text x="%g" y="%g" text-anchor="middle">%s</text>`, chartLeft+plotWidth/2, chartHeight-12, html.EscapeString(c.XLabel))
	w(`<text x="16" y="%g" text-anchor="middle" transform="rotate(-90 16 %g)">%s</text>`, chartTop+plotHeight/2, chartTop+plotHeight/2, html.EscapeString(c.YLabel))
	for i, l := range c.Lines {
		colour := colours[i%len(colours)]
		var path []string
		for _, p := range l.Points {
			if !p.drawn() {
				continue
			}
			path = append(path, fmt.Sprintf("%.1f,%.1f", x.at(p.X), y.at(p.Y.Median)))
			if p.Y.Min < p.Y.Max {
				w(`<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="1"/>`, x.at(p.X), x.at(p.X), y.at(p.Y.Min), y.at(p.Y.Max), colour)
			}
			w(`<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"><title>%s: %s %s</title></circle>`, x.at(p.X), y.at(p.Y.Median), colour,
				html.EscapeString(l.Name), p.Y, html.EscapeString(c.YLabel))
		}
		w(`<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`, strings.Join(path, " "), colour)
		if len(c.Lines) > 1 {
			at := chartLeft + float64(i)*160
			w(`<circle cx="%g" cy="40" r="4" fill="%s"/><text x="%g" y="44">%s</text>`, at+4, colour, at+14, html.EscapeString(l.Name))
		}
	}
	w("</svg>")
	return b.String()
}

// drawn tells whether a point has a place on logarithmic axes.
func (p Point) drawn() bool { return p.Y.N > 0 && p.X > 0 && p.Y.Min > 0 }

// describe says in words what the chart shows, for those who hear it.
func (c Chart) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s against %s.", c.Title, c.YLabel, c.XLabel)
	for _, l := range c.Lines {
		var points []string
		for _, p := range l.Points {
			if p.Y.N > 0 {
				points = append(points, fmt.Sprintf("%s at %s", Number(p.Y.Median), Number(p.X)))
			}
		}
		fmt.Fprintf(&b, " %s: %s.", l.Name, strings.Join(points, ", "))
	}
	return b.String()
}

// A scale places the logarithms from … to on the pixels first … last.
type scale struct{ from, to, first, last float64 }

func (s scale) at(v float64) float64 {
	return s.first + (s.last-s.first)*(math.Log10(v)-s.from)/(s.to-s.from)
}

// ticks are the powers of ten within the scale, and with few of them what lies
// between.
func (s scale) ticks() (at []float64) {
	steps := []float64{1}
	if s.to-s.from < 3 {
		steps = roundSteps
	}
	for e := math.Floor(s.from); e <= math.Ceil(s.to); e++ {
		for _, m := range steps {
			if l := e + math.Log10(m); l >= s.from-1e-9 && l <= s.to+1e-9 {
				at = append(at, m*math.Pow(10, e))
			}
		}
	}
	return at
}

// roundSteps are the round numbers of each power of ten.
var roundSteps = []float64{1, 2, 5}

// below is the largest round number that is smaller than v.
func below(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	best := power / 2
	for _, m := range roundSteps {
		if m*power < v*(1-1e-9) {
			best = m * power
		}
	}
	return best
}

// above is the smallest round number that is larger than v.
func above(v float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range roundSteps {
		if m*power > v*(1+1e-9) {
			return m * power
		}
	}
	return 10 * power
}

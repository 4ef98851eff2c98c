package load

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Chart shows lines, and bars behind them, over one horizontal axis.
type Chart struct {
	Title  string
	XLabel string
	YLabel string // with its unit
	LogY   bool   // where values differ by a factor of 20 or more: a logarithmic axis

	// Percentiles: X is from 0 to 100, and the axis gives each further nine the
	// same room.
	Percentiles bool

	Bars  []XY   // nil: none
	Bar   string // what they are
	Lines []Line
}

// A Line is drawn from point to point.
type Line struct {
	Name   string
	Points []XY
}

// An XY is a point of a chart.
type XY struct{ X, Y float64 }

// The geometry of a drawing, in units of its view box.
const (
	drawWidth, drawHeight    = 760.0, 300.0
	left, right, top, bottom = 84.0, 16.0, 14.0, 46.0
	plotWidth, plotHeight    = drawWidth - left - right, drawHeight - top - bottom
	markers                  = 60 // points of a line up to which each is marked
)

// A drawing is a chart turned into coordinates.
type drawing struct {
	Title, Description string
	XLabel, YLabel     string
	Width, Height      float64
	Left, Right        float64
	Top, Bottom        float64
	MiddleX, MiddleY   float64
	AxisX              float64 // where the label of the horizontal axis stands
	XTicks, YTicks     []tick
	Bars               []box
	Bar                string
	Lines              []path
}

type tick struct {
	At    float64
	Label string
}

type box struct {
	X, Y, Width, Height float64
	Tip                 string
}

type path struct {
	Name   string
	Class  int // which colour, from 0
	D      string
	Points []mark
}

type mark struct {
	X, Y float64
	Tip  string
}

func (c Chart) draw() *drawing {
	d := &drawing{
		Title: c.Title, XLabel: c.XLabel, YLabel: c.YLabel, Width: drawWidth, Height: drawHeight,
		Left: left, Right: drawWidth - right, Top: top, Bottom: drawHeight - bottom,
		MiddleX: left + plotWidth/2, MiddleY: top + plotHeight/2, AxisX: drawHeight - 8, Bar: c.Bar,
	}
	minX, maxX := math.Inf(1), math.Inf(-1)
	minY, maxY := math.Inf(1), 0.0 // of what is above 0
	see := func(points []XY, width float64) {
		for _, p := range points {
			minX, maxX = min(minX, p.X), max(maxX, p.X+width)
			if p.Y > 0 {
				minY = min(minY, p.Y)
			}
			maxY = max(maxY, p.Y)
		}
	}
	for _, l := range c.Lines {
		see(l.Points, 0)
	}
	see(c.Bars, 0)
	if math.IsInf(minX, 1) {
		minX, maxX = 0, 1
	}
	if maxY == 0 {
		minY, maxY = 1, 1
	}
	x := c.xScale(d, minX, maxX)
	y := c.yScale(d, minY, maxY)

	if len(c.Bars) > 0 {
		width := plotWidth
		if len(c.Bars) > 1 {
			width = x(c.Bars[1].X) - x(c.Bars[0].X)
		}
		for _, b := range c.Bars {
			at := y(b.Y)
			d.Bars = append(d.Bars, box{fixed(x(b.X) - 0.4*width), fixed(at), fixed(0.8 * width), fixed(d.Bottom - at), c.tip(c.Bar, b)})
		}
	}
	for i, l := range c.Lines {
		p := path{Name: l.Name, Class: i % 4}
		var b strings.Builder
		for j, at := range l.Points {
			if j == 0 {
				b.WriteByte('M')
			} else {
				b.WriteByte('L')
			}
			fmt.Fprintf(&b, "%.1f %.1f", x(at.X), y(at.Y))
		}
		p.D = b.String()
		if len(l.Points) <= markers {
			for _, at := range l.Points {
				p.Points = append(p.Points, mark{fixed(x(at.X)), fixed(y(at.Y)), c.tip(l.Name, at)})
			}
		}
		d.Lines = append(d.Lines, p)
	}
	d.Description = c.describe(maxY)
	return d
}

// tip is what a point says when it is pointed at.
func (c Chart) tip(name string, p XY) string {
	return fmt.Sprintf("%s, %s %s: %s %s", name, c.XLabel, strconv.FormatFloat(p.X, 'g', 8, 64), figure(p.Y), c.YLabel)
}

// describe says in a sentence what a chart shows, for those who hear it.
func (c Chart) describe(maxY float64) string {
	var names []string
	if len(c.Bars) > 0 {
		names = append(names, c.Bar)
	}
	for _, l := range c.Lines {
		names = append(names, l.Name)
	}
	return fmt.Sprintf("%s: %s over %s, up to %s %s.", c.Title, strings.Join(names, ", "), c.XLabel, figure(maxY), c.YLabel)
}

// xScale lays out the horizontal axis.
func (c Chart) xScale(d *drawing, low, high float64) func(float64) float64 {
	if c.Percentiles {
		// 90 stands at 1, 99 at 2, 99.9 at 3: so many nines.
		nines := func(p float64) float64 { return -math.Log10(1 - min(p, 99.999999)/100) }
		last := max(nines(high), 1)
		at := func(p float64) float64 { return left + plotWidth*nines(p)/last }
		for _, p := range []float64{0, 50, 90, 99, 99.9, 99.99, 99.999, 99.9999, 99.99999} {
			if nines(p) <= last+1e-9 {
				d.XTicks = append(d.XTicks, tick{fixed(at(p)), strconv.FormatFloat(p, 'f', -1, 64) + " %"})
			}
		}
		return at
	}
	pad := 0.0
	if len(c.Bars) > 0 {
		pad = 0.5
	}
	low, high = low-pad, high+pad
	if high-low < 1 {
		high = low + 1
	}
	at := func(v float64) float64 { return left + plotWidth*(v-low)/(high-low) }
	step := stepOf(high-low, 10, 1)
	for i := math.Ceil(low/step - 1e-9); i*step <= high+step*1e-9; i++ {
		d.XTicks = append(d.XTicks, tick{fixed(at(i * step)), label(i*step, step)})
	}
	return at
}

// yScale lays out the vertical axis.
func (c Chart) yScale(d *drawing, low, high float64) func(float64) float64 {
	bottom := top + plotHeight
	if c.LogY && high/low >= 20 {
		from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
		at := func(v float64) float64 {
			if v <= 0 {
				return bottom
			}
			return bottom - plotHeight*(math.Log10(v)-from)/(to-from)
		}
		for e := from; e <= to; e++ {
			d.YTicks = append(d.YTicks, tick{fixed(at(math.Pow(10, e))), figure(math.Pow(10, e))})
		}
		return at
	}
	step := stepOf(high, 7, 0)
	end := step * math.Ceil(high/step*1.02)
	at := func(v float64) float64 { return bottom - plotHeight*v/end }
	for i := 0.0; i*step <= end*(1+1e-9); i++ {
		d.YTicks = append(d.YTicks, tick{fixed(at(i * step)), label(i*step, step)})
	}
	return at
}

// stepOf returns a round number that divides a range into n parts or fewer, and is
// no smaller than least.
func stepOf(size float64, n int, least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(size/float64(n))))
	for _, times := range []float64{1, 2, 5} {
		if size/(power*times) <= float64(n) {
			return max(power*times, least)
		}
	}
	return max(power*10, least)
}

// label writes a multiple of step with the digits that tell it from the next.
func label(v, step float64) string {
	if v == 0 {
		return "0"
	}
	if step >= 1 {
		return grouped(v)
	}
	return strconv.FormatFloat(v, 'f', int(math.Ceil(-math.Log10(step)-1e-9)), 64)
}

// fixed rounds a coordinate, so that the page stays small.
func fixed(f float64) float64 { return math.Round(f*10) / 10 }

package term

import (
	"fmt"
	"io"
	"time"
)

// A Progress is a line on a terminal that is rewritten while work goes on.
// Where there is no terminal it says nothing. Not safe for concurrent use.
type Progress struct {
	w     io.Writer // nil: silent
	shown time.Time
}

// NewProgress begins a progress line on w, unless w is no terminal or it is unwanted.
func NewProgress(w io.Writer, wanted bool) Progress {
	if !wanted || !IsTerminal(w) {
		return Progress{}
	}
	return Progress{w: w}
}

// Show rewrites the line, ten times a second at most.
func (p *Progress) Show(text func() string) {
	if p.w == nil || time.Since(p.shown) < 100*time.Millisecond {
		return
	}
	p.shown = time.Now()
	fmt.Fprintf(p.w, "\r\x1b[K%s", text())
}

// Clear takes the line away.
func (p *Progress) Clear() {
	if p.w != nil && !p.shown.IsZero() {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// Tally sums work up: "200,000 records, 18 MB in 4.10 s, 48,780 records/s, 4.39 MB/s". Less
// than a second, or than a thousand records, says nothing of how fast something is.
func Tally(records, bytes int64, took time.Duration) string {
	s := fmt.Sprintf("%s, %s in %s", Count(records, "record"), Size(bytes), Seconds(took))
	if took >= time.Second && records >= 1000 {
		s += fmt.Sprintf(", %s records/s, %s/s", Number(int64(float64(records)/took.Seconds())), Size(int64(float64(bytes)/took.Seconds())))
	}
	return s
}

// Size writes bytes with three digits: "812 B", "1.78 MB". Powers of ten, as disks and networks count.
func Size(bytes int64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	f, unit := float64(bytes), ""
	for _, u := range []string{"kB", "MB", "GB", "TB", "PB", "EB"} {
		f, unit = f/1000, u
		if f < 999.5 {
			break
		}
	}
	switch {
	case f < 9.995:
		return fmt.Sprintf("%.2f %s", f, unit)
	case f < 99.95:
		return fmt.Sprintf("%.1f %s", f, unit)
	}
	return fmt.Sprintf("%.0f %s", f, unit)
}

// Seconds writes a duration for people: "3 ms", "0.41 s", "12.3 s".
func Seconds(d time.Duration) string {
	switch {
	case d < 100*time.Millisecond:
		return fmt.Sprintf("%.0f ms", float64(d)/float64(time.Millisecond))
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

package main

import (
	"strings"
	"testing"
	"time"
)

func TestMedianAndSpread(t *testing.T) {
	for _, c := range []struct {
		s      sample
		median float64
		cell   string
	}{
		{nil, 0, "-"},
		{sample{4}, 4, "4.0"},
		{sample{3, 1, 2}, 2, "2.0 (1.0–3.0)"},
		{sample{4, 1, 3, 2}, 2.5, "2.5 (1.0–4.0)"},
	} {
		if got := c.s.median(); got != c.median {
			t.Errorf("median of %v is %v, want %v", c.s, got, c.median)
		}
		if got := c.s.cell("%.1f"); got != c.cell {
			t.Errorf("%v is written %q, want %q", c.s, got, c.cell)
		}
	}
}

// A demand is held by the numbers alone, and one without numbers is not held.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		d    demand
		want string
	}{
		{ratio("", sample{15}, sample{10}, 1.5, false), "held"},
		{ratio("", sample{14.9}, sample{10}, 1.5, false), "**missed**"},
		{ratio("", sample{5}, sample{10}, 0.5, true), "held"},
		{ratio("", sample{5.1}, sample{10}, 0.5, true), "**missed**"},
		{ratio("", nil, sample{10}, 0.5, true), "not measured"},
		{ratio("", sample{5}, nil, 0.5, true), "not measured"},
		{absolute("", "%.0f", sample{3000}, 3000, true), "held"},
		{absolute("", "%.0f", sample{3001}, 3000, true), "**missed**"},
		{absolute("", "%.0f", nil, 3000, true), "not measured"},
	} {
		if got := c.d.verdict(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.d, got, c.want)
		}
	}
}

// A command rewrites its own section, and nothing that people wrote around it.
func TestSectionsAreReplacedInPlace(t *testing.T) {
	doc := replaceSection("# Benchmarks\n\nBy hand.\n", "compare", "one\n")
	doc = replaceSection(doc, "curves", "two")
	doc = strings.Replace(doc, "<!-- end of compare -->\n", "<!-- end of compare -->\n\nWhy: because.\n", 1)
	again := replaceSection(doc, "compare", "three")
	want := strings.Replace(doc, "one\n", "three\n", 1)
	if again != want {
		t.Errorf("got\n%s\nwant\n%s", again, want)
	}
	for _, part := range []string{"By hand.", "Why: because.", "two"} {
		if strings.Count(again, part) != 1 {
			t.Errorf("%q is there %d times", part, strings.Count(again, part))
		}
	}
}

func TestProcIsParsed(t *testing.T) {
	stat := "1234 (a (b) c) S 1 2 3 4 5 6 7 8 9 10 150 250 0 0 20 0 1 0 99"
	if got := parseStat([]byte(stat)); got != 4*time.Second {
		t.Errorf("processor time %v, want 4s", got)
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1 2"} {
		if got := parseStat([]byte(bad)); got != 0 {
			t.Errorf("%q: %v", bad, got)
		}
	}
	status := "Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t    1024 kB\n"
	if hwm, rss := parseStatus([]byte(status), "VmHWM"), parseStatus([]byte(status), "VmRSS"); hwm != 2<<20 || rss != 1<<20 {
		t.Errorf("VmHWM %d, VmRSS %d", hwm, rss)
	}
}

package slowlog

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines is a handler that keeps what is written: message, attributes and the place.
type lines struct {
	mu   sync.Mutex
	said []string
	pcs  []uintptr
	from slog.Level
}

func (l *lines) Enabled(_ context.Context, level slog.Level) bool { return level >= l.from }
func (l *lines) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *lines) WithGroup(string) slog.Handler                    { return l }

func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %s", r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool { fmt.Fprintf(&b, " %v", a); return true })
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, b.String())
	l.pcs = append(l.pcs, r.PC)
	return nil
}

func (l *lines) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

func TestOneLineAWhileSaysHowManyWereWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		to := slog.New(&out)
		var l Limit
		for range 5 { // 500 ms
			l.Warn(to, "a", "first", "n", 1)
			l.Error(to, "b", "second")
			time.Sleep(100 * time.Millisecond)
		}
		if got, want := out.take(), []string{"WARN first n=1", "ERROR second"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		time.Sleep(500*time.Millisecond - time.Nanosecond)
		l.Warn(to, "a", "first", "n", 2)
		time.Sleep(time.Nanosecond)
		l.Warn(to, "a", "first", "n", 3)
		l.Warn(to, "a", "first", "n", 4)
		if got, want := out.take(), []string{"WARN first n=3 withheld=5"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		time.Sleep(time.Hour)
		if got := out.take(); got != nil {
			t.Errorf("%q by itself", got)
		}
		if withheld, ok := l.Pass("a"); withheld != 1 || !ok {
			t.Errorf("after an hour: %d withheld, passes: %v; want 1, true", withheld, ok)
		}
		if withheld, ok := l.Pass("a"); withheld != 0 || ok {
			t.Errorf("at once: %d withheld, passes: %v", withheld, ok)
		}
	})
}

func TestEveryIsTheTimeBetweenLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		l := Limit{Every: 5 * time.Second}
		for range 60 {
			l.Warn(slog.New(&out), "a", "m")
			time.Sleep(time.Second)
		}
		if got := out.take(); len(got) != 12 || got[11] != "WARN m withheld=4" {
			t.Errorf("%q in a minute", got)
		}
	})
}

func TestWhatLastsIsSaidEverMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		to := slog.New(&out)
		l := Limit{Every: 10 * time.Second}
		var got []string
		for second := range 1800 {
			l.Lasting(to, "dial 3", "no connection to a peer")
			for _, line := range out.take() {
				got = append(got, fmt.Sprintf("%d s: %s", second, line))
			}
			time.Sleep(time.Second)
		}
		want := []string{
			"10 s: WARN no connection to a peer withheld=10",
			"70 s: WARN no connection to a peer withheld=59",
			"430 s: WARN no connection to a peer withheld=359",
			"1030 s: WARN no connection to a peer withheld=599",
			"1630 s: WARN no connection to a peer withheld=599",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		l.Over("dial 3")
		l.Lasting(to, "dial 3", "no connection to a peer")
		time.Sleep(9 * time.Second)
		l.Lasting(to, "dial 3", "no connection to a peer")
		if got := out.take(); got != nil {
			t.Errorf("%q, of what was over and came back for 9 s", got)
		}
		time.Sleep(time.Second)
		l.Lasting(to, "dial 3", "no connection to a peer")
		if got := out.take(); len(got) != 1 {
			t.Errorf("%q, of what was over and has lasted for 10 s again", got)
		}
	})
}

// full gives a limit all keys that there is place for, each with a line just now.
func full(l *Limit) {
	for i := range maxKeys {
		l.Pass(fmt.Sprint(i))
	}
}

// A key is forgotten when its next line would pass, and not to make room: strangers would
// free a line by asking for others.
func TestRoomIsMadeOfWhatWouldPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		full(&l)
		time.Sleep(time.Second / 2)
		l.Pass("one more")
		if _, ok := l.Pass("0"); ok {
			t.Error("a second line in half the time passed")
		}
		time.Sleep(time.Second)
		l.Pass("and one more")
		if _, ok := l.Pass("0"); !ok || len(l.keys) > 3 {
			t.Errorf("after its time: passes %v, %d keys are remembered", ok, len(l.keys))
		}
	})
}

// To look through all keys for each line would be work that strangers can ask for.
func TestKeysAreLookedThroughOnceAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		full(&l)
		l.Pass("one more")
		began := time.Now()
		for time.Since(began) < 10*time.Second {
			full(&l) // none may be forgotten, that is
			l.Pass("one more")
			if d := l.swept.Sub(began); d%time.Second != 0 {
				t.Fatalf("the keys were looked through after %v", d)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// Where there is no place for a key, what lasts is said as often as anything else: it is
// of many.
func TestWhatLastsWithoutAPlaceIsSaidEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		var l Limit
		full(&l)
		for range 100 {
			full(&l)
			l.Lasting(slog.New(&out), "one more", "m")
			time.Sleep(100 * time.Millisecond)
		}
		if got := out.take(); len(got) != 10 {
			t.Errorf("%q in 10 s", got)
		}
	})
}

// Strangers choose the keys, a new one each time, ten thousand times a second.
func TestKeysWithoutEndFillNeitherLogNorMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		to := slog.New(&out)
		var l Limit
		begin := time.Now()
		tries, withheld, n := 0, 0, 0
		for time.Since(begin) < 10*time.Second {
			for range 1000 {
				if tries%2 == 0 {
					l.Warn(to, fmt.Sprint(tries), "m")
				} else {
					l.Lasting(to, fmt.Sprint(tries), "m")
				}
				tries++
			}
			time.Sleep(100 * time.Millisecond)
			if len(l.keys) > maxKeys {
				t.Fatalf("%d keys are remembered", len(l.keys))
			}
		}
		for _, line := range out.take() {
			n++
			var w int
			fmt.Sscanf(line, "WARN m withheld=%d", &w)
			withheld += w
		}
		if most := 10 * (maxKeys + 1); n > most {
			t.Errorf("%d lines in 10 s, want %d at most", n, most)
		}
		left := l.rest.withheld
		for _, k := range l.keys {
			left += k.withheld
		}
		if n+withheld+left != tries {
			t.Errorf("%d lines, %d said to be withheld and %d to be said; there were %d", n, withheld, left, tries)
		}
		// An old key is a key like any other while it is heard of.
		time.Sleep(time.Minute)
		l.Warn(to, "after", "m")
		if got := out.take(); len(got) != 1 {
			t.Errorf("after a minute of silence: %q", got)
		}
	})
}

// The level of a line is set by the package it stands in, which its program counter tells.
func TestLineBelongsToWhoCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lines
		to := slog.New(&out)
		var l Limit
		l.Warn(to, "warn", "m")
		l.Error(to, "error", "m")
		l.Lasting(to, "lasting", "m")
		time.Sleep(time.Second)
		l.Lasting(to, "lasting", "m")
		if len(out.pcs) != 3 {
			t.Fatalf("%d lines, want 3", len(out.pcs))
		}
		for i, pc := range out.pcs {
			frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
			if !strings.Contains(frame.Function, "TestLineBelongsToWhoCalls") {
				t.Errorf("%s is said by %s", out.said[i], frame.Function)
			}
		}
	})
}

func TestLevelThatIsOffIsNotWritten(t *testing.T) {
	out := lines{from: slog.LevelError}
	var l Limit
	l.Warn(slog.New(&out), "a", "m")
	l.Error(slog.New(&out), "b", "m")
	if got, want := out.take(), []string{"ERROR m"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// What is withheld costs little: a client may cause it as often as it likes.
func TestWithheldLineAllocatesNothingOfItsOwn(t *testing.T) {
	l := Limit{Every: time.Hour}
	l.Pass("a")
	if n := testing.AllocsPerRun(100, func() { l.Pass("a") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

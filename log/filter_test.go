package log

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"millrace/segment/record"
)

// TestFilterKeepsTheNewestOfEachKey applies a filter to one batch, without a log.
func TestFilterKeepsTheNewestOfEachKey(t *testing.T) {
	const now = 1_700_000_000_000
	rec := func(key, value string) record.Record {
		r := record.Record{Key: []byte(key), Timestamp: now - 1000}
		if key == "" {
			r.Key = nil
		}
		if value != "" {
			r.Value = []byte(value)
		}
		return r
	}
	batch := func(base int64, records ...record.Record) record.Batch {
		b, err := record.Build(record.LZ4, records...)
		if err != nil {
			t.Fatal(err)
		}
		b.Assign(base, 3)
		return b
	}
	first := batch(10, rec("a", "1"), rec("b", "1"), rec("", "no key"), rec("c", ""))
	second := batch(14, rec("a", "2"))
	kept := func(f *filter, b record.Batch) string {
		t.Helper()
		left, err := f.apply(b)
		if err != nil {
			t.Fatal(err)
		}
		if left == nil {
			return "nothing"
		}
		if left.BaseOffset() != b.BaseOffset() || left.NextOffset() != b.NextOffset() {
			t.Errorf("offsets [%d,%d) of [%d,%d)", left.BaseOffset(), left.NextOffset(), b.BaseOffset(), b.NextOffset())
		}
		var what []string
		for r, err := range left.Records() {
			if err != nil {
				t.Fatal(err)
			}
			what = append(what, fmt.Sprintf("%d:%s=%s", r.Offset, r.Key, r.Value))
		}
		if h, ok := left.DeleteHorizon(); ok {
			what = append(what, fmt.Sprintf("until +%d", h-now))
		}
		return strings.Join(what, " ")
	}
	for _, c := range []struct {
		what       string
		start, now int64
		learned    []record.Batch
		batch      record.Batch
		want       string
	}{
		{"nothing is newer", 0, now, []record.Batch{first}, first, "10:a=1 11:b=1 13:c= until +3600000"},
		{"a newer record", 0, now, []record.Batch{first, second}, first, "11:b=1 13:c= until +3600000"},
		{"the newer record", 0, now, []record.Batch{first, second}, second, "14:a=2"},
		{"below the log start", 11, now, []record.Batch{first}, first, "11:b=1 13:c= until +3600000"},
		{"all below the log start", 14, now, []record.Batch{first}, first, "nothing"},
	} {
		f := newFilter(c.start, c.now, time.Hour, 100)
		for _, b := range c.learned {
			if !f.learn(b, false) {
				t.Fatalf("%s: a key too many", c.what)
			}
		}
		if got := kept(f, c.batch); got != c.want {
			t.Errorf("%s: %s, expected %s", c.what, got, c.want)
		}
	}

	// A tombstone goes with the first compaction after its horizon.
	f := newFilter(0, now, time.Hour, 100)
	f.learn(first, false)
	marked, err := f.apply(first)
	if err != nil {
		t.Fatal(err)
	}
	for later, want := range map[time.Duration]string{
		time.Hour - time.Millisecond: "10:a=1 11:b=1 13:c= until +3600000",
		time.Hour:                    "10:a=1 11:b=1 until +3600000",
	} {
		f := newFilter(0, now+later.Milliseconds(), time.Hour, 100)
		f.learn(marked, false)
		if got := kept(f, marked); got != want {
			t.Errorf("%s later: %s, expected %s", later, got, want)
		}
	}

	f = newFilter(0, now, time.Hour, 2)
	if f.learn(first, false) {
		t.Error("three keys were learned where two are allowed")
	}
	if f.learn(first, true); f.latest.n != 3 {
		t.Errorf("%d keys of a batch that had to be learned whole", f.latest.n)
	}
}

//go:build faults

package faults

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// replay has `millrace consume` read the ledger's topic from the start, from an
// offset and from a time, and compares what it prints with what is there.
func replay(t *testing.T, c *cluster, l *ledger) {
	t.Helper()
	all := l.readAll()
	partition := int32(0)
	records := all[partition]
	if len(records) < 10 {
		t.Fatalf("only %d records to replay", len(records))
	}
	consume := func(from string) []int64 {
		t.Helper()
		out, errs, status := c.run(nil, "consume", l.topic, "-p", fmt.Sprint(partition), "-o", from, "-e", "--format", "json")
		if status != 0 {
			t.Fatalf("consume -o %s: status %d: %s", from, status, errs)
		}
		var offsets []int64
		for line := range strings.Lines(out) {
			var r struct {
				Offset     int64
				Key, Value string
			}
			if err := json.Unmarshal([]byte(line), &r); err != nil {
				t.Fatalf("consume -o %s printed %q: %v", from, line, err)
			}
			if i := r.Offset - records[0].Offset; i < 0 || i >= int64(len(records)) ||
				string(records[i].Value) != r.Value || string(records[i].Key) != r.Key {
				t.Errorf("consume -o %s: offset %d is %.40q, another than before", from, r.Offset, r.Value)
			}
			offsets = append(offsets, r.Offset)
		}
		return offsets
	}
	expect := func(from string, first int64) {
		t.Helper()
		got := consume(from)
		last := records[len(records)-1].Offset
		if int64(len(got)) != last-first+1 || len(got) > 0 && (got[0] != first || got[len(got)-1] != last) {
			t.Errorf("consume -o %s: %d records %v…, want offsets %d to %d", from, len(got), got[:min(3, len(got))], first, last)
			return
		}
		for i := range got {
			if got[i] != first+int64(i) {
				t.Errorf("consume -o %s: offset %d after %d", from, got[i], got[i-1])
				return
			}
		}
	}
	expect("start", records[0].Offset)
	middle := records[len(records)/2]
	expect(fmt.Sprint(middle.Offset), middle.Offset)
	// The first record that is not older than the time, wherever producers' clocks stood.
	var first int64
	for _, r := range records {
		if !r.Timestamp.Before(middle.Timestamp) {
			first = r.Offset
			break
		}
	}
	expect("@"+middle.Timestamp.UTC().Format(time.RFC3339Nano), first)
	figure(t, "replayed %d records from the start, %d from offset %d, and from %s",
		len(records), records[len(records)-1].Offset-middle.Offset+1, middle.Offset, middle.Timestamp.UTC().Format("15:04:05.000"))
}

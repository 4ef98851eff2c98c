package log

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

var testID = segment.Identity{Cluster: "AAAAAAAAAAAAAAAAAAAAAA", Topic: [16]byte{1, 2, 3}, Partition: 7}

// testClock is the timestamp of record 0 in tests.
const testClock = 1_700_000_000_000

func mustOpen(t testing.TB, dir string, cfg Config) *Log {
	t.Helper()
	l, err := Open(dir, testID, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(false) })
	return l
}

// batch returns one batch with a record for each value; record i of them has the
// timestamp ts+i.
func batch(t testing.TB, ts int64, values ...string) record.Batch {
	t.Helper()
	var bu record.Builder
	for i, v := range values {
		bu.Append(record.Record{Timestamp: ts + int64(i), Value: []byte(v)})
	}
	b, err := bu.Batch()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func command(t testing.TB, index, term uint64, values ...string) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogCommand, Data: batch(t, testClock+int64(index)*1000, values...)}
}

func noop(index, term uint64) *raft.Log {
	return &raft.Log{Index: index, Term: term, Type: raft.LogNoop}
}

// readAll returns the values of all records in [from, limit) with their offsets.
func readAll(t testing.TB, l *Log, from, limit int64) map[int64]string {
	t.Helper()
	out := map[int64]string{}
	for from < limit {
		v, err := l.Read(from, limit, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if v.Len() == 0 {
			t.Fatalf("empty view at %d, limit %d", from, limit)
		}
		p := bytes.Join(v.Bytes, nil)
		next := v.Next
		v.Release()
		for len(p) > 0 {
			b, rest, err := record.Split(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := b.Check(); err != nil {
				t.Fatal(err)
			}
			for r, err := range b.Records() {
				if err != nil {
					t.Fatal(err)
				}
				if r.Offset >= from {
					out[r.Offset] = string(r.Value)
				}
			}
			p = rest
		}
		from = next
	}
	return out
}

func TestEntriesComeBackByIndexAndByOffset(t *testing.T) {
	dir := t.TempDir() + "/p"
	cfg := Config{SegmentBytes: 4 << 10}
	l := mustOpen(t, dir, cfg)
	want := map[int64]string{}
	index := uint64(1)
	store := func(e ...*raft.Log) {
		if err := l.StoreLogs(e); err != nil {
			t.Fatal(err)
		}
		index += uint64(len(e))
	}
	store(noop(1, 1))
	for i := range 100 {
		a, b := fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)
		want[int64(3*i)], want[int64(3*i+1)], want[int64(3*i+2)] = a, b, a
		store(command(t, index, 1, a, b), command(t, index+1, 1, a))
	}
	check := func() {
		t.Helper()
		if s, e := l.StartOffset(), l.EndOffset(); s != 0 || e != 300 {
			t.Fatalf("offsets [%d,%d)", s, e)
		}
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		if first != 1 || last != 201 {
			t.Fatalf("indexes %d to %d", first, last)
		}
		got := readAll(t, l, 0, 300)
		for o, v := range want {
			if got[o] != v {
				t.Fatalf("offset %d: %q, want %q", o, got[o], v)
			}
		}
		for i := first; i <= last; i++ {
			var e raft.Log
			if err := l.GetLog(i, &e); err != nil || e.Index != i || e.Term != 1 {
				t.Fatalf("entry %d: %+v, %v", i, e, err)
			}
		}
		if err := l.Verify(1); err != nil {
			t.Fatal(err)
		}
	}
	check()
	if n := len(l.Sealed()); n < 3 {
		t.Fatalf("%d sealed segments", n)
	}
	for _, clean := range []bool{false, true, true, false} {
		if err := l.Close(clean); err != nil {
			t.Fatal(err)
		}
		l = mustOpen(t, dir, cfg)
		check()
	}
}

func batches(p []byte) []record.Batch {
	var all []record.Batch
	for len(p) > 0 {
		b, rest, err := record.Split(p)
		if err != nil {
			panic(err)
		}
		all = append(all, b)
		p = rest
	}
	return all
}

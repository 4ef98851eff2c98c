package log

import (
	"bytes"
	"crypto/sha256"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

// freeze writes testdata/segment/v1 anew. It was used once, before version 1 was
// released, and is here to show how; a new format gets a new folder.
var freeze = flag.Bool("freeze", false, "write testdata/segment/v1 anew")

const frozen = "../testdata/segment/v1"

// content describes everything that can be read of a log.
func content(t *testing.T, l *Log) string {
	t.Helper()
	m, err := observe(l)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "start=%d end=%d next=%d epochs=%v\n", m.start, l.EndOffset(), l.NextIndex(), l.Epochs())
	for _, e := range m.entries {
		fmt.Fprintf(&out, "%d term=%d %v extensions=%x data=%d %.8x\n", e.Index, e.Term, e.Type, e.Extensions, len(e.Data), sha256.Sum256(e.Data))
	}
	for o := m.start; o < l.EndOffset(); {
		v, err := l.Read(o, l.EndOffset(), 1)
		if err != nil {
			t.Fatal(err)
		}
		for r, err := range batches(v.Bytes[0])[0].Records() {
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&out, "@%d %d %.20q=%.20q\n", r.Offset, r.Timestamp, r.Key, r.Value)
		}
		o = v.Next
		v.Release()
	}
	return out.String()
}

// TestSegmentsOfVersion1StayReadable reads logs written by version 1 for good: as they were
// left by a clean stop, without their index files, and without the word of a clean stop. One
// of them has been compacted. A manifest is written byte for byte as it was.
func TestSegmentsOfVersion1StayReadable(t *testing.T) {
	if *freeze {
		os.RemoveAll(frozen)
		writeFrozen(t, "")
		writeCompacted(t, "compacted")
	}
	for _, which := range []string{"", "compacted"} {
		kept := filepath.Join(frozen, which)
		want, err := os.ReadFile(filepath.Join(kept, "content.txt"))
		if err != nil {
			t.Fatal(err)
		}
		for _, withIndexes := range []bool{true, false} {
			dir := filepath.Join(t.TempDir(), "p")
			if err := os.CopyFS(dir, os.DirFS(filepath.Join(kept, "log"))); err != nil {
				t.Fatal(err)
			}
			if !withIndexes {
				for _, p := range logFiles(t, dir) {
					os.Remove(segment.Paths(p)[1])
					os.Remove(segment.Paths(p)[2])
				}
			}
			l := mustOpen(t, dir, Config{})
			if got := content(t, l); got != string(want) {
				t.Errorf("%s, with indexes %t:\n%s\nwant\n%s", kept, withIndexes, got, want)
			}
			if compacted := len(l.Plan().Segments) > 0 && l.Plan().Segments[0].Compacted; compacted != (which == "compacted") {
				t.Errorf("%s: compacted %t", kept, compacted)
			}
			e := command(t, l.NextIndex(), 9, "it goes on")
			if err := l.StoreLog(e); err != nil {
				t.Error(err)
			}
			if err := l.Verify(1); err != nil {
				t.Error(err)
			}
			l.Close(true)
		}
		for _, path := range logFiles(t, filepath.Join(kept, "log")) {
			_, err := segment.Walk(segment.OS, path, 0, func(*segment.Frame) error { return nil }, func(e *segment.CorruptError) error { return e })
			if err != nil {
				t.Error(err)
			}
		}
		path := filepath.Join(kept, "log", manifestName)
		p := mustRead(t, path)
		if m, err := parseManifest(path, p); err != nil || !bytes.Equal(m.encode(), p) {
			t.Errorf("%s is written in another way now (%v)", path, err)
		}
	}
}

func writeFrozen(t *testing.T, which string) {
	dir := filepath.Join(t.TempDir(), "p")
	id := testID
	id.Replica = "1.frozen"
	l, err := Open(dir, id, Config{SegmentBytes: 2 << 10, Now: func() time.Time { return time.UnixMilli(testClock) }})
	if err != nil {
		t.Fatal(err)
	}
	trim := TrimEntry(3)
	trim.Index, trim.Term = 5, 2
	logs := []*raft.Log{
		{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: []byte("members")},
		noop(2, 1), command(t, 3, 1, "a", "bb", "ccc"), {Index: 4, Term: 2, Type: raft.LogBarrier}, &trim,
	}
	index := uint64(6)
	for _, c := range []record.Codec{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
		var data []byte
		for k := range 2 {
			b, err := record.Build(c,
				record.Record{Timestamp: testClock + int64(index), Key: []byte("key"), Value: []byte(strings.Repeat(c.String(), 50)), Headers: []record.Header{{Key: "h", Value: []byte{1}}}},
				record.Record{Timestamp: testClock + int64(index) - int64(k), Value: nil})
			if err != nil {
				t.Fatal(err)
			}
			data = append(data, b...)
		}
		logs = append(logs, &raft.Log{Index: index, Term: 2 + index/9, Type: raft.LogCommand, Data: data})
		index++
	}
	for _, e := range logs {
		if err := l.StoreLog(e); err != nil {
			t.Fatal(err)
		}
	}
	for i := range uint64(6) {
		if err := l.StoreLog(command(t, index+i, 4, strings.Repeat("z", 400))); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.DeleteRange(index+4, index+5); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLogs([]*raft.Log{noop(index+4, 5), command(t, index+5, 5, "end")}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Drop(3, 0); err != nil {
		t.Fatal(err)
	}
	keep(t, l, which)
}

// writeCompacted makes a log of which the first segments are compacted and the last are not.
func writeCompacted(t *testing.T, which string) {
	k := newKeyedLog(t, filepath.Join(t.TempDir(), "p"), 3, segment.OS)
	k.cfg.SegmentBytes = 1500
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	for i := range 18 {
		if err := k.update(6); err != nil {
			t.Fatal(err)
		}
		if i == 11 {
			if _, err := k.compact(); err != nil {
				t.Fatal(err)
			}
		}
	}
	keep(t, k.l, which)
}

// keep closes a log and puts its files beside a description of what they hold.
func keep(t *testing.T, l *Log, which string) {
	kept := filepath.Join(frozen, which)
	text := content(t, l)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, filepath.Join(kept, "content.txt"), []byte(text))
	for _, p := range logFiles(t, l.Dir()) { // preallocated zeros need not be kept
		if err := os.Truncate(p, 4096); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.CopyFS(filepath.Join(kept, "log"), os.DirFS(l.Dir())); err != nil {
		t.Fatal(err)
	}
}

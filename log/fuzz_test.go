package log

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

// FuzzCompactAfterGate: the records of two batches are the fuzzer's. What the gate
// lets in is stored, looked up by time and compacted, within few keys and past a
// delete horizon; what is left is what a map of keys would hold, and no batch is
// ever unreadable.
func FuzzCompactAfterGate(f *testing.F) {
	plain := func(records ...record.Record) []byte {
		b, err := record.Build(record.None, records...)
		if err != nil {
			f.Fatal(err)
		}
		return b[record.HeaderSize:]
	}
	k, w := []byte("k"), []byte("w")
	f.Add(uint8(0), int32(1), plain(record.Record{Key: k, Value: w}), int32(1), plain(record.Record{Key: k}), int64(testClock), uint8(0))
	f.Add(uint8(4), int32(2), plain(record.Record{Key: k, Value: w}, record.Record{Key: w}), int32(1), plain(record.Record{Key: k}), int64(math.MinInt64), uint8(1))
	f.Add(uint8(2), int32(2), plain(record.Record{Value: w}, record.Record{Key: w, Headers: []record.Header{{Key: "h"}}}), int32(1), plain(record.Record{Key: []byte{}}), int64(math.MaxInt64), uint8(2))
	f.Fuzz(func(t *testing.T, kind uint8, count1 int32, records1 []byte, count2 int32, records2 []byte, base int64, maxKeys uint8) {
		clock := time.UnixMilli(testClock)
		l := mustOpen(t, filepath.Join(memDir(t), "p"), Config{FS: fastFS{segment.OS}, Now: func() time.Time { return clock }})
		store := func(b record.Batch) {
			if err := l.StoreLog(&raft.Log{Index: l.NextIndex(), Term: 1, Type: raft.LogCommand, Data: b}); err != nil {
				t.Fatal(err)
			}
		}
		pass := func(count int32, records []byte) {
			b, err := record.Build(record.None, record.Record{Timestamp: base})
			if err != nil {
				t.Fatal(err)
			}
			b = append(b[:record.HeaderSize:record.HeaderSize], records...)
			binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
			binary.BigEndian.PutUint32(b[23:], uint32(count-1))
			binary.BigEndian.PutUint32(b[57:], uint32(count))
			binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
			if b, err = record.Validate(b, -1); err != nil {
				return
			}
			if b, err = b.Recompress(record.Codec(kind%5), record.DefaultLevel, -1); err != nil {
				t.Fatal(err)
			}
			if kind&0x80 != 0 {
				b.SetAppendTime(testClock)
			}
			store(b)
		}
		pass(count1, records1)
		pass(count2, records2)
		if l.EndOffset() == 0 {
			return
		}
		written, err := readRecords(l)
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(written)) != l.EndOffset() {
			t.Fatalf("%d records in %d offsets", len(written), l.EndOffset())
		}
		last := map[string]record.Record{}
		for _, r := range written {
			if r.Key != nil {
				last[string(r.Key)] = r
			}
		}
		check := func(compacted bool) {
			all, err := readRecords(l)
			if err != nil {
				t.Fatal(err)
			}
			left := map[string]bool{}
			for _, r := range all {
				w := written[r.Offset]
				if !bytes.Equal(r.Key, w.Key) || !bytes.Equal(r.Value, w.Value) || (r.Value == nil) != (w.Value == nil) || r.Timestamp != w.Timestamp || len(r.Headers) != len(w.Headers) {
					t.Fatalf("offset %d: %+v was %+v", r.Offset, r, w)
				}
				if compacted && (r.Key == nil || last[string(r.Key)].Offset != r.Offset) {
					t.Fatalf("%q is left at %d", r.Key, r.Offset)
				}
				left[string(r.Key)] = r.Key != nil
			}
			for key, r := range last {
				if !left[key] && r.Value != nil {
					t.Fatalf("%q is gone", key)
				}
			}
			for _, r := range written {
				if _, _, _, err := l.OffsetAt(r.Timestamp, l.EndOffset()); err != nil {
					t.Fatal(err)
				}
			}
			if _, _, err := l.MaxTimestamp(l.EndOffset()); err != nil {
				t.Fatal(err)
			}
			if err := l.Verify(0); err != nil {
				t.Fatal(err)
			}
		}
		for round := range 3 { // the third time beyond the delete horizon
			if err := l.Roll(); err != nil {
				t.Fatal(err)
			}
			own := record.Record{Offset: l.EndOffset(), Key: fmt.Appendf(nil, "a key of nobody else's, %d", round), Timestamp: testClock}
			b, err := record.Build(record.None, own)
			if err != nil {
				t.Fatal(err)
			}
			store(b)
			written, last[string(own.Key)] = append(written, own), own
			check(false)
			for {
				done, err := l.Compact(t.Context(), Compaction{
					MaxIndex: l.NextIndex() - 1, Limit: l.EndOffset(), DeleteRetention: time.Hour, MaxKeys: int(maxKeys),
				})
				if err != nil || done.Unreadable > 0 {
					t.Fatalf("%+v, %v", done, err)
				}
				if done.Segments == 0 {
					break
				}
			}
			clock = clock.Add(31 * time.Minute)
		}
		check(true)
	})
}

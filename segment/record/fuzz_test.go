package record

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"runtime/metrics"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// heap returns the bytes allocated since the start, freed or not. Unlike
// MemStats it stops nothing, so a fuzz target can look twice an input.
func heap() uint64 {
	s := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64()
}

// bounded fails if f allocates more than a batch of n bytes may cost: a decoder
// and twice what expansion allows where all of it is kept.
func bounded(t *testing.T, what string, limit int64, f func()) {
	t.Helper()
	before := heap()
	f()
	if n := heap() - before; n > uint64(limit) {
		t.Errorf("%s allocated %d bytes, at most %d", what, n, limit)
	}
}

func seeds(f *testing.F) [][]byte {
	var all [][]byte
	for _, c := range codecs {
		all = append(all, mustBuild(f, c, variety()[:4]...), franzBatch(f, c, variety()[:4]))
	}
	for _, name := range []string{"none", "zstd-22", "transactional", "commit"} { // the short ones: fuzzing minimizes its finds
		all = append(all, javaBatch(f, name))
	}
	return all
}

// FuzzSplit: whatever the bytes, batches and rest are exactly the bytes.
func FuzzSplit(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(append(bytes.Clone(s), s[:len(s)/2]...))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		rest := p
		var joined []byte
		for len(rest) > 0 {
			first, after, err := Split(rest)
			if err != nil {
				if !errors.Is(err, ErrShort) && class(err) == nil {
					t.Fatal(err)
				}
				break
			}
			if len(first) < HeaderSize || first.Size() != len(first) || first.Magic() != 2 {
				t.Fatalf("batch of %d bytes, size %d, magic %d", len(first), first.Size(), first.Magic())
			}
			joined = append(joined, first...)
			rest = after
		}
		if joined = append(joined, rest...); !bytes.Equal(joined, p) {
			t.Fatal("bytes lost")
		}
	})
}

// FuzzValidate: what passes the gate keeps its promises, and costs what it may.
// Lengths, magic and checksum are made right first, or nothing would get past
// them; TestGateRefusesDamagedHeaders has those.
func FuzzValidate(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		Validate(bytes.Clone(p), -1)
		if len(p) < HeaderSize {
			return
		}
		b := Batch(bytes.Clone(p))
		put32(b, 8, int64(len(b)-12))
		b[16] = magic
		b.seal()
		var got Batch
		var err error
		bounded(t, "Validate", gateMemory+4*expandLimit(len(b)), func() { got, err = Validate(b, -1) })
		if err != nil && err != ErrTransactional && err != ErrTimestamp {
			if class(err) == nil || got != nil {
				t.Fatalf("%v: no Kafka code", err)
			}
			return
		}
		promises(t, got)
	})
}

// promises checks what Validate says of a batch that has passed, and that nothing
// below it refuses what it let in.
func promises(t *testing.T, b Batch) {
	if err := b.Check(); err != nil {
		t.Fatal(err)
	}
	records := collect(t, b)
	if len(records) != int(b.Count()) || b.LastOffsetDelta() != b.Count()-1 || b.BaseOffset() != 0 || b.Attributes()&^(codecMask|transactBit) != 0 {
		t.Fatalf("%d records in %x", len(records), b[:HeaderSize])
	}
	defer staysReadable(t, b, records)
	latest, first := records[0].Timestamp, 0
	for i, r := range records {
		if r.Offset != int64(i) {
			t.Fatalf("record %d at offset %d", i, r.Offset)
		}
		if r.Timestamp > latest {
			latest, first = r.Timestamp, i
		}
	}
	if latest != b.MaxTimestamp() {
		t.Fatalf("max timestamp %d, header %d", latest, b.MaxTimestamp())
	}
	if offset, ts, err := b.MaxRecord(); err != nil || offset != int64(first) || ts != latest {
		t.Fatalf("MaxRecord %d, %d, %v; want %d, %d", offset, ts, err, first, latest)
	}
	if offset, _, ok, err := b.FirstAt(latest); err != nil || !ok || offset != int64(first) {
		t.Fatalf("FirstAt %d, %v, %v; want %d", offset, ok, err, first)
	}
}

// staysReadable takes a batch that has passed the gate through all that the
// broker does to it: append time, compression.type, compaction with and without a
// delete horizon. What is kept is the same after each.
func staysReadable(t *testing.T, b Batch, records []Record) {
	t.Helper()
	same := func(what string, got Batch, want []Record) {
		t.Helper()
		if err := got.Check(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		if found := collect(t, got); !reflect.DeepEqual(found, want) {
			t.Fatalf("%s: %d records are not the %d that they were", what, len(found), len(want))
		}
		for _, at := range []int64{got.MaxTimestamp(), math.MinInt64, 0} {
			if _, _, ok, err := got.FirstAt(at); err != nil || !ok && at <= got.MaxTimestamp() && len(want) > 0 {
				t.Fatalf("%s: FirstAt(%d): %v, %v", what, at, ok, err)
			}
		}
		if _, latest, err := got.MaxRecord(); err != nil || len(want) > 0 && latest != got.MaxTimestamp() {
			t.Fatalf("%s: MaxRecord: %d, %v; the header says %d", what, latest, err, got.MaxTimestamp())
		}
		if _, err := got.NullKeys(); err != nil {
			t.Fatalf("%s: NullKeys: %v", what, err)
		}
	}
	const horizon = 1_700_000_000_000
	var odd []Record
	for i := 1; i < len(records); i += 2 {
		odd = append(odd, records[i])
	}
	keepOdd := func(r Record) bool { return r.Offset%2 == 1 }
	stored := bytes.Clone(b)
	for _, c := range codecs {
		again, err := Batch(stored).Recompress(c, DefaultLevel, -1)
		if err != nil {
			t.Fatalf("recompressed by %v: %v", c, err)
		}
		same("recompressed by "+c.String(), again, records)
		if _, err := Validate(bytes.Clone(again), -1); err != nil && err != ErrTransactional {
			t.Fatalf("recompressed by %v: another cluster's gate: %v", c, err)
		}
		for range 2 { // also the second time over
			if again, err = again.RewriteUntil(horizon, again.Codec(), nil); err != nil {
				t.Fatal(err)
			}
			same("with a delete horizon", again, records)
		}
		if again, err = again.Rewrite(again.Codec(), keepOdd); err != nil {
			t.Fatal(err)
		}
		same("compacted", again, odd)
	}
	if !bytes.Equal(b, stored) {
		t.Fatal("changed")
	}
}

// FuzzRecord: the records are the fuzzer's, the compression ours. All codecs
// agree with each other, the gate agrees with Records, and franz-go reads the
// same.
func FuzzRecord(f *testing.F) {
	for _, records := range [][]Record{variety()[:4], variety()[5:], kib(1), {{}}} {
		f.Add(int32(len(records)), []byte(mustBuild(f, None, records...)[HeaderSize:]))
	}
	f.Fuzz(func(t *testing.T, count int32, records []byte) {
		if len(records) > 1<<20 {
			t.Skip()
		}
		plain := rawBatch(t, None, count, records)
		plain, want := Validate(plain, -1)
		for _, c := range codecs[1:] {
			b, err := Validate(rawBatch(t, c, count, records), -1)
			if (err == nil) != (want == nil) {
				t.Fatalf("plain: %v; %v: %v", want, c, err)
			}
			if err == nil && !reflect.DeepEqual(collect(t, b), collect(t, plain)) {
				t.Fatalf("%v holds other records than plain", c)
			}
		}
		if want != nil {
			return
		}
		promises(t, plain)
		var kb kmsg.RecordBatch
		if err := kb.ReadFrom(plain); err != nil {
			t.Fatal(err)
		}
		if got := franz(t, plain); !reflect.DeepEqual(got, collect(t, plain)) {
			t.Fatalf("franz-go reads\n%v, we\n%v", got, collect(t, plain))
		}
	})
}

// fuzzRecords: the bytes below the codec are the fuzzer's. Records and the gate
// end, within their memory, and agree.
func fuzzRecords(f *testing.F, c Codec) {
	for _, records := range [][]Record{variety()[:4], variety()[5:], kib(1)} {
		f.Add(int32(len(records)), []byte(mustBuild(f, c, records...)[HeaderSize:]))
		f.Add(int32(len(records)), []byte(franzBatch(f, c, records)[HeaderSize:]))
	}
	if c == Zstd {
		f.Add(int32(6), []byte(javaBatch(f, "zstd-22")[HeaderSize:]))
	}
	f.Fuzz(func(t *testing.T, count int32, compressed []byte) {
		b := wrap(c, count, compressed)
		came := bytes.Clone(b)
		var err error
		bounded(t, "Validate", gateMemory+4*expandLimit(len(b)), func() { b, err = Validate(b, -1) })
		if err != nil {
			for _, failed := range Batch(came).Records() { // it ends, and trusts no byte
				if failed != nil && class(failed) == nil {
					t.Fatal(failed)
				}
			}
			return
		}
		var failed error
		n, size := 0, int64(0)
		bounded(t, "Records", gateMemory+6*expandLimit(len(came)), func() {
			for r, err := range b.Records() {
				if err != nil {
					failed = err
					break
				}
				n++
				size += int64(len(r.Key) + len(r.Value))
			}
		})
		if size > expandLimit(len(came)) {
			t.Fatalf("%d bytes from %d", size, len(came))
		}
		if failed != nil || n != int(count) {
			t.Fatalf("passed the gate, then %d records and %v", n, failed)
		}
		promises(t, b)
	})
}

func FuzzRecordsPlain(f *testing.F)  { fuzzRecords(f, None) }
func FuzzRecordsGzip(f *testing.F)   { fuzzRecords(f, Gzip) }
func FuzzRecordsSnappy(f *testing.F) { fuzzRecords(f, Snappy) }
func FuzzRecordsLZ4(f *testing.F)    { fuzzRecords(f, LZ4) }
func FuzzRecordsZstd(f *testing.F)   { fuzzRecords(f, Zstd) }

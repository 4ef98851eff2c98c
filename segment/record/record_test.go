package record

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var codecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

// variety is records with every kind of null, emptiness and order of time.
func variety() []Record {
	return []Record{
		{Offset: 0, Timestamp: 1700000000000, Key: []byte("k"), Value: []byte("v")},
		{Offset: 1, Timestamp: 1700000000007, Key: nil, Value: []byte("no key")},
		{Offset: 2, Timestamp: 1699999999000, Key: []byte("deleted"), Value: nil},
		{Offset: 3, Timestamp: 1700000000009, Key: []byte{}, Value: []byte{}},
		{Offset: 4, Timestamp: 1700000000009, Value: bytes.Repeat([]byte("long "), 50000), Headers: []Header{
			{Key: "a", Value: []byte("1")}, {Key: "a", Value: nil}, {Key: "", Value: []byte{}},
		}},
		{Offset: 5, Timestamp: 1700000000001, Key: []byte("z"), Value: []byte("end")},
	}
}

func mustBuild(t testing.TB, c Codec, records ...Record) Batch {
	t.Helper()
	b, err := Build(c, records...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func collect(t testing.TB, b Batch) []Record {
	t.Helper()
	var all []Record
	for r, err := range b.Records() {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

func TestRecordsReturnWhatBuildWasGiven(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.String(), func(t *testing.T) {
			want := variety()
			b := mustBuild(t, c, want...)
			if _, err := Validate(b, len(b)); err != nil {
				t.Fatal(err)
			}
			if got := collect(t, b); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %.200v\nwant %.200v", got, want)
			}
			if b.Codec() != c || b.Count() != 6 || b.LastOffsetDelta() != 5 || b.Size() != len(b) || b.MaxTimestamp() != 1700000000009 {
				t.Errorf("header %x", b[:HeaderSize])
			}
		})
	}
}

// franz decodes a batch as franz-go's consumer does.
func franz(t *testing.T, b Batch) []Record {
	t.Helper()
	var kb kmsg.RecordBatch
	if err := kb.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	raw, err := kgo.DefaultDecompressor().Decompress(kb.Records, kgo.CompressionCodecType(kb.Attributes&7))
	if err != nil {
		t.Fatal(err)
	}
	var all []Record
	for range kb.NumRecords {
		var kr kmsg.Record
		if err := kr.ReadFrom(raw); err != nil {
			t.Fatal(err)
		}
		raw = raw[varintLen(int64(kr.Length))+int(kr.Length):]
		r := Record{Offset: kb.FirstOffset + int64(kr.OffsetDelta), Timestamp: kb.FirstTimestamp + kr.TimestampDelta64, Key: kr.Key, Value: kr.Value}
		for _, h := range kr.Headers {
			r.Headers = append(r.Headers, Header{Key: h.Key, Value: h.Value})
		}
		all = append(all, r)
	}
	if len(raw) != 0 {
		t.Fatalf("%d bytes after the last record", len(raw))
	}
	return all
}

func TestFranzGoReadsWhatBuildWrites(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.String(), func(t *testing.T) {
			want := variety()
			if got := franz(t, mustBuild(t, c, want...)); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %.200v\nwant %.200v", got, want)
			}
		})
	}
}

// franzBatch encodes records as franz-go's producer does.
func franzBatch(t testing.TB, c Codec, records []Record) Batch {
	t.Helper()
	var raw []byte
	var latest int64
	for i, r := range records {
		kr := kmsg.Record{TimestampDelta64: r.Timestamp - records[0].Timestamp, OffsetDelta: int32(i), Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			kr.Headers = append(kr.Headers, kmsg.Header{Key: h.Key, Value: h.Value})
		}
		kr.Length = int32(len(kr.AppendTo(nil)) - 1)
		raw = kr.AppendTo(raw)
		latest = max(latest, r.Timestamp)
	}
	compressors := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	if c != None {
		k, err := kgo.DefaultCompressor(compressors[c])
		if err != nil {
			t.Fatal(err)
		}
		p, used := k.Compress(new(bytes.Buffer), raw)
		if Codec(used) != c {
			t.Fatalf("compressed by %d", used)
		}
		raw = bytes.Clone(p)
	}
	kb := kmsg.RecordBatch{
		Length: int32(HeaderSize - 12 + len(raw)), PartitionLeaderEpoch: -1, Magic: 2, Attributes: int16(c),
		LastOffsetDelta: int32(len(records) - 1), FirstTimestamp: records[0].Timestamp, MaxTimestamp: latest,
		ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1, NumRecords: int32(len(records)), Records: raw,
	}
	b := Batch(kb.AppendTo(nil))
	b.seal()
	return b
}

func TestRecordsReadWhatFranzGoWrites(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.String(), func(t *testing.T) {
			want := variety()
			b := franzBatch(t, c, want)
			before := bytes.Clone(b)
			if _, err := Validate(b, len(b)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, before) {
				t.Error("Validate changed a batch that had nothing to repair")
			}
			if got := collect(t, b); !reflect.DeepEqual(got, want) {
				t.Errorf("got  %.200v\nwant %.200v", got, want)
			}
		})
	}
}

func TestPlainBatchPassesTheGateWithoutAllocation(t *testing.T) {
	b := mustBuild(t, None, kib(16)...)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := Validate(b, -1); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// kib is n records of 1 KiB of text that compresses about 3:1, as JSON with ids in
// it does.
func kib(n int) []Record { return texts(n, 1<<10) }

// texts is n records of size bytes each.
func texts(n, size int) []Record {
	rnd := rand.New(rand.NewPCG(1, 2))
	var records []Record
	for i := range n {
		var v []byte
		for len(v) < size {
			v = fmt.Appendf(v, `{"user":"%08x","event":"click","page":"/product/%d","session":"%016x"},`, rnd.Uint32(), rnd.IntN(10000), rnd.Uint64())
		}
		records = append(records, Record{Offset: int64(i), Timestamp: 1700000000000 + int64(i), Key: fmt.Appendf(nil, "user-%d", rnd.IntN(1000)), Value: v[:size]})
	}
	return records
}

// BenchmarkValidate passes batches of about 16 KiB through the gate: MB/s counts
// the bytes before compression, wire-B is the length on the wire. BenchmarkCheck
// is the share of the CRC-32C.
func BenchmarkValidate(b *testing.B) {
	for _, shape := range []struct{ n, size int }{{16, 1 << 10}, {160, 100}} {
		for _, c := range codecs {
			b.Run(fmt.Sprintf("%dx%d/%v", shape.n, shape.size, c), func(b *testing.B) {
				records := texts(shape.n, shape.size)
				batch := mustBuild(b, c, records...)
				b.SetBytes(int64(len(mustBuild(b, None, records...))))
				b.ReportAllocs()
				for b.Loop() {
					if _, err := Validate(batch, -1); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(batch)), "wire-B")
			})
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	batch := mustBuild(b, None, kib(16)...)
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		if err := batch.Check(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRecords(b *testing.B) {
	for _, c := range codecs {
		b.Run(c.String(), func(b *testing.B) {
			batch := mustBuild(b, c, kib(16)...)
			b.SetBytes(int64(len(mustBuild(b, None, kib(16)...))))
			b.ReportAllocs()
			for b.Loop() {
				for _, err := range batch.Records() {
					if err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

package record

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestCodecNamesAreThoseOfCompressionType(t *testing.T) {
	for _, c := range codecs {
		if got, err := ParseCodec(c.String()); err != nil || got != c {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
	if got, err := ParseCodec("uncompressed"); err != nil || got != None {
		t.Errorf("uncompressed: %v, %v", got, err)
	}
	for _, name := range []string{"", "producer", "GZIP", "codec 5"} {
		if _, err := ParseCodec(name); !errors.Is(err, ErrCodec) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if s := Codec(5).String(); s != "codec 5" {
		t.Errorf("%q", s)
	}
}

func TestCheckLooksAtTheChecksumAlone(t *testing.T) {
	b := mustBuild(t, None, Record{Value: []byte("v")})
	b.Assign(1<<40, 9) // outside
	if b.BaseOffset() != 1<<40 || b.LastOffset() != 1<<40 || b.NextOffset() != 1<<40+1 || b.Epoch() != 9 {
		t.Errorf("assigned %x", b[:HeaderSize])
	}
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	put32(b, 57, -1) // nonsense, and sealed
	b.seal()
	if err := b.Check(); err != nil {
		t.Error(err)
	}
	b[len(b)-1] ^= 1
	if err := b.Check(); !errors.Is(err, ErrChecksum) || !errors.Is(err, ErrCorrupt) {
		t.Error(err)
	}
}

func TestAppendTimeIsEveryRecordsTimestamp(t *testing.T) {
	for _, c := range codecs {
		b := mustBuild(t, c, variety()...)
		b.Assign(100, 4)
		b.SetAppendTime(1800000000000)
		if err := b.Check(); err != nil {
			t.Fatal(err)
		}
		if !b.AppendTime() || b.MaxTimestamp() != 1800000000000 || b.Codec() != c || b.BaseTimestamp() != 1700000000000 {
			t.Errorf("%v: header %x", c, b[:HeaderSize])
		}
		want := variety()
		for i := range want {
			want[i].Offset += 100
			want[i].Timestamp = 1800000000000
		}
		if got := collect(t, b); !reflect.DeepEqual(got, want) {
			t.Errorf("%v: %.200v", c, got)
		}
		if off, ts, err := b.MaxRecord(); off != 100 || ts != 1800000000000 || err != nil {
			t.Errorf("%v: max %d, %d, %v", c, off, ts, err)
		}
		if off, ts, ok, err := b.FirstAt(1700000000008); off != 100 || ts != 1800000000000 || !ok || err != nil {
			t.Errorf("%v: first %d, %d, %v, %v", c, off, ts, ok, err)
		}
	}
}

func TestFirstAtIsTheFirstRecordNotTheEarliest(t *testing.T) {
	times := []int64{50, 20, 40, 60, 60, 10}
	var records []Record
	for _, ts := range times {
		records = append(records, Record{Timestamp: ts})
	}
	for _, c := range codecs {
		b := mustBuild(t, c, records...)
		b.Assign(1000, 1)
		for at := int64(-5); at < 70; at++ {
			wantOffset, wantFound, wantOK := int64(0), int64(0), false
			for i, ts := range times {
				if ts >= at {
					wantOffset, wantFound, wantOK = 1000+int64(i), ts, true
					break
				}
			}
			offset, found, ok, err := b.FirstAt(at)
			if offset != wantOffset || found != wantFound || ok != wantOK || err != nil {
				t.Errorf("%v, %d: got %d, %d, %v, %v; want %d, %d, %v", c, at, offset, found, ok, err, wantOffset, wantFound, wantOK)
			}
		}
		if offset, ts, err := b.MaxRecord(); offset != 1003 || ts != 60 || err != nil {
			t.Errorf("%v: max %d, %d, %v", c, offset, ts, err)
		}
	}
}

func TestTimestampSearchReportsDamage(t *testing.T) {
	b := mustBuild(t, Gzip, Record{Timestamp: 5}, Record{Timestamp: 9})
	b[HeaderSize] = 0
	if _, _, _, err := b.FirstAt(7); !errors.Is(err, ErrInvalid) {
		t.Errorf("FirstAt: %v", err)
	}
	if _, _, ok, err := b.FirstAt(10); ok || err != nil {
		t.Errorf("FirstAt above the max timestamp looks into the batch: %v", err)
	}
	if _, _, err := b.MaxRecord(); !errors.Is(err, ErrInvalid) {
		t.Errorf("MaxRecord: %v", err)
	}
	if _, err := b.NullKeys(); !errors.Is(err, ErrInvalid) {
		t.Errorf("NullKeys: %v", err)
	}
	if _, err := b.Rewrite(None, nil); !errors.Is(err, ErrInvalid) {
		t.Errorf("Rewrite: %v", err)
	}
	if e := b.Emptied(); e.Check() != nil || e.NextOffset() != b.NextOffset() || e.Codec() != None || len(collect(t, e)) != 0 {
		t.Errorf("Emptied: %x", e)
	}
}

func TestNullKeysAreNotEmptyKeys(t *testing.T) {
	for _, c := range codecs {
		if got, err := mustBuild(t, c, variety()...).NullKeys(); err != nil || !reflect.DeepEqual(got, []int{1, 4}) {
			t.Errorf("%v: %v, %v", c, got, err)
		}
	}
}

func TestRewriteRecompressesWithoutChangingARecord(t *testing.T) {
	for _, from := range codecs {
		for _, to := range codecs {
			bu := Builder{Codec: from, Producer: &Producer{7, 3, 11}, Transactional: true}
			for _, r := range variety() {
				bu.Append(r)
			}
			b, err := bu.Batch()
			if err != nil {
				t.Fatal(err)
			}
			got, err := b.Rewrite(to, nil)
			if err != nil {
				t.Fatal(err)
			}
			bu.Codec = to
			want, err := bu.Batch()
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%v to %v:\ngot  %x\nwant %x", from, to, got[:HeaderSize], want[:HeaderSize])
			}
		}
	}
	if _, err := mustBuild(t, None, Record{}).Rewrite(9, nil); !errors.Is(err, ErrCodec) {
		t.Errorf("codec 9: %v", err)
	}
}

func TestRecompressKeepsAllButTheBytes(t *testing.T) {
	levels := map[Codec][]int{
		None: {DefaultLevel}, Snappy: {DefaultLevel}, Gzip: {DefaultLevel, -1, 1, 9},
		LZ4: {DefaultLevel, 1, 9, 17}, Zstd: {DefaultLevel, -131072, 3, 22},
	}
	for _, from := range codecs {
		for to, levels := range levels {
			for _, level := range levels {
				bu := Builder{Codec: from, Producer: &Producer{7, 3, 11}, Transactional: true}
				for _, r := range variety() {
					bu.Append(r)
				}
				for i := range 5000 { // several windows and blocks
					bu.Append(Record{Timestamp: int64(i), Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte{byte(i)}, i%100)})
				}
				b, err := bu.Batch()
				if err != nil {
					t.Fatal(err)
				}
				got, err := b.Recompress(to, level, -1)
				if err != nil {
					t.Fatalf("%v to %v at level %d: %v", from, to, level, err)
				}
				if got, err = Validate(got, -1); !errors.Is(err, ErrTransactional) {
					t.Fatalf("%v to %v at level %d: the gate says %v", from, to, level, err)
				}
				if got.Codec() != to || !got.IsTransactional() || got.ProducerID() != 7 || got.ProducerEpoch() != 3 || got.BaseSequence() != 11 || got.BaseTimestamp() != b.BaseTimestamp() {
					t.Errorf("%v to %v at level %d: header %x of %x", from, to, level, got[:HeaderSize], b[:HeaderSize])
				}
				if !reflect.DeepEqual(collect(t, got), collect(t, b)) {
					t.Errorf("%v to %v at level %d: other records", from, to, level)
				}
			}
		}
	}
	if _, err := mustBuild(t, None, Record{}).Recompress(9, DefaultLevel, -1); !errors.Is(err, ErrCodec) {
		t.Errorf("codec 9: %v", err)
	}
}

func TestRecompressStopsAtItsLimit(t *testing.T) {
	zeros := mustBuild(t, Zstd, Record{Value: make([]byte, 3<<20)})
	for _, to := range codecs {
		if _, err := zeros.Recompress(to, DefaultLevel, HeaderSize+10); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v: %v", to, err)
		}
		// What failed leaves nothing behind in the pools.
		b, err := mustBuild(t, None, Record{Value: []byte("v")}).Recompress(to, DefaultLevel, 1<<10)
		if err != nil {
			t.Fatalf("%v: %v", to, err)
		}
		if r := collect(t, b); len(r) != 1 || string(r[0].Value) != "v" {
			t.Errorf("%v: %v", to, r)
		}
	}
}

// One batch of 1,000 records of 1 KiB, from lz4 into each codec.
func BenchmarkRecompress(b *testing.B) {
	var records []Record
	for i := range 1000 {
		records = append(records, Record{Value: bytes.Repeat(fmt.Appendf(nil, "%08d", i), 128)})
	}
	batch := mustBuild(b, LZ4, records...)
	for _, to := range codecs {
		b.Run(to.String(), func(b *testing.B) {
			b.SetBytes(1 << 20)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := batch.Recompress(to, DefaultLevel, -1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestRewriteKeepsOffsetsOfWhatItKeeps(t *testing.T) {
	for _, c := range codecs {
		b := mustBuild(t, c, variety()...)
		b.Assign(500, 8)
		got, err := b.Rewrite(c, func(r Record) bool { return r.Offset == 501 || r.Offset == 503 })
		if err != nil {
			t.Fatal(err)
		}
		if err := got.Check(); err != nil {
			t.Fatal(err)
		}
		want := []Record{variety()[1], variety()[3]}
		want[0].Offset, want[1].Offset = 501, 503
		if all := collect(t, got); !reflect.DeepEqual(all, want) {
			t.Errorf("%v: %v", c, all)
		}
		if got.BaseOffset() != 500 || got.NextOffset() != 506 || got.Epoch() != 8 || got.Count() != 2 || got.MaxTimestamp() != 1700000000009 {
			t.Errorf("%v: header %x", c, got[:HeaderSize])
		}
		again, err := got.Rewrite(c, func(r Record) bool { return r.Offset == 501 })
		if err != nil || again.MaxTimestamp() != 1700000000007 || again.NextOffset() != 506 {
			t.Errorf("%v: again %x, %v", c, again[:HeaderSize], err)
		}

		none, err := got.Rewrite(c, func(Record) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		if len(none) != HeaderSize || none.Count() != 0 || none.NextOffset() != 506 || none.MaxTimestamp() != -1 || none.Check() != nil {
			t.Errorf("%v: empty %x", c, none)
		}
		if n := len(collect(t, none)); n != 0 {
			t.Errorf("%v: %d records in an empty batch", c, n)
		}
		if off, ts, err := none.MaxRecord(); off != -1 || ts != -1 || err != nil {
			t.Errorf("%v: max of none %d, %d, %v", c, off, ts, err)
		}
		if _, _, ok, err := none.FirstAt(-2); ok || err != nil {
			t.Errorf("%v: first of none %v, %v", c, ok, err)
		}
	}
}

func TestRewriteKeepsAppendTime(t *testing.T) {
	b := mustBuild(t, Gzip, variety()...)
	b.SetAppendTime(77)
	got, err := b.Rewrite(None, func(r Record) bool { return r.Offset == 2 })
	if err != nil {
		t.Fatal(err)
	}
	if all := collect(t, got); !got.AppendTime() || len(all) != 1 || all[0].Timestamp != 77 || all[0].Offset != 2 {
		t.Errorf("%v", all)
	}
}

func TestBuilderMakesOneBatchAfterAnother(t *testing.T) {
	var bu Builder
	if _, err := bu.Batch(); !errors.Is(err, ErrInvalid) {
		t.Errorf("empty: %v", err)
	}
	bu.Append(Record{Timestamp: 5, Value: []byte("one")})
	one, err := bu.Batch()
	if err != nil || bu.Size() != len(one) || bu.Len() != 1 {
		t.Fatal(err, bu.Size(), bu.Len())
	}
	copied := bytes.Clone(one)
	bu.Append(Record{Timestamp: 3, Value: []byte("two")})
	two, err := bu.Batch()
	if err != nil || two.Count() != 2 || !bytes.Equal(one, copied) {
		t.Fatal(err, two.Count())
	}
	bu.Reset()
	bu.Append(Record{Timestamp: 1})
	three, err := bu.Batch()
	if err != nil || three.Count() != 1 || three.BaseTimestamp() != 1 || three.MaxTimestamp() != 1 || two.Count() != 2 || two.Check() != nil {
		t.Fatal(err)
	}
	bu.Codec = 5
	if _, err := bu.Batch(); !errors.Is(err, ErrCodec) {
		t.Errorf("codec 5: %v", err)
	}
}

// Java adds a timestamp's delta without a look at its sign, so there is no pair of
// times that a batch cannot hold: neither from a client, nor when compaction counts
// from a delete horizon instead of the first record.
func TestTimestampsFarApartSurviveARewrite(t *testing.T) {
	times := []int64{math.MaxInt64, -2, math.MinInt64, -1, 0, 1_700_000_000_000, math.MinInt64 + 1_800_000_000_000}
	for _, c := range codecs {
		for _, first := range times {
			for _, second := range times {
				want := []Record{{Timestamp: first, Key: []byte("k")}, {Offset: 1, Timestamp: second, Key: []byte("k")}}
				b := mustBuild(t, c, want...)
				got, err := Validate(b, -1)
				if err != nil || got.MaxTimestamp() != max(first, second) {
					t.Fatalf("%v: %d and %d: max %d, %v", c, first, second, b.MaxTimestamp(), err)
				}
				again, err := got.RewriteUntil(1_700_000_000_000, c, nil)
				if err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(collect(t, got), want) || !reflect.DeepEqual(collect(t, again), want) {
					t.Errorf("%v: %d and %d are read as %v, and compacted as %v", c, first, second, collect(t, got), collect(t, again))
				}
				if again.MaxTimestamp() != max(first, second) {
					t.Errorf("%v: %d and %d: max timestamp %d once compacted", c, first, second, again.MaxTimestamp())
				}
				if found := franz(t, again); !reflect.DeepEqual(found, want) {
					t.Errorf("%v: %d and %d: franz-go reads %v", c, first, second, found)
				}
			}
		}
	}
}

// What expands far from few bytes passes the gate if it came in many. When
// compaction or compression.type leaves few, it is still read, and compression.type
// leaves nothing that another cluster's gate would refuse.
func TestRecompressedBatchesStayReadable(t *testing.T) {
	random := func(n int) []byte {
		p, r := make([]byte, n), rand.New(rand.NewPCG(1, 2))
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		return p
	}
	text := bytes.Repeat([]byte("a line of a log that says the same. "), 14222)
	for _, tt := range []struct {
		name    string
		codec   Codec
		value   []byte
		records int
		last    []byte
	}{
		{"text beside noise", Zstd, text, 12, random(100 << 10)},
		{"a block repeated", Gzip, bytes.Repeat(random(8<<10), 60), 12, nil},
		{"plain text", None, bytes.Repeat(text, 11), 1, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var records []Record
			for i := range tt.records {
				records = append(records, Record{Offset: int64(i), Timestamp: 1, Key: []byte("k"), Value: tt.value})
			}
			all := append(records[:len(records):len(records)], Record{Offset: int64(len(records)), Timestamp: 1, Key: []byte("noise"), Value: tt.last})
			b, err := Validate(mustBuild(t, tt.codec, all...), 10<<20)
			if err != nil {
				t.Fatal(err)
			}
			promises(t, b)
			left, err := b.Rewrite(tt.codec, func(r Record) bool { return string(r.Key) != "noise" })
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(collect(t, left), records) {
				t.Error("other records are left")
			}
			if at, _, ok, err := left.FirstAt(1); at != 0 || !ok || err != nil {
				t.Errorf("FirstAt: %d, %v, %v", at, ok, err)
			}
			// In fewer bytes than a gate would expand, the batch stays as it is.
			for _, c := range codecs {
				again, err := b.Recompress(c, DefaultLevel, -1)
				if err != nil {
					t.Fatal(err)
				}
				kept := again.Codec() != c
				if kept != (c != None && int64(len(mustBuild(t, None, all...)))-HeaderSize > expandLimit(len(mustBuild(t, c, all...))-HeaderSize)) || kept && &again[0] != &b[0] {
					t.Errorf("%d bytes by %v became %d by %v, asked for was %v", len(b), b.Codec(), len(again), again.Codec(), c)
				}
			}
		})
	}
}

func TestLargeRecordsCrossEveryWindow(t *testing.T) {
	var want []Record
	for i, n := range []int{0, 1, 4 << 10, windowSize - 20, windowSize, windowSize + 1, 3*windowSize + 7, 1 << 20, 5} {
		p := bytes.Repeat([]byte(fmt.Sprintf("%d-", i)), n/2+1)[:n]
		want = append(want, Record{Offset: int64(i), Timestamp: int64(i), Key: p[:n/3], Value: p, Headers: []Header{{Key: string(p[:n/5]), Value: p[:n/4]}}})
	}
	for _, c := range codecs {
		b := mustBuild(t, c, want...)
		if _, err := Validate(b, -1); err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		got := collect(t, b) // all kept: later records must not overwrite earlier ones
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%v differs", c)
		}
		if !reflect.DeepEqual(franz(t, b), want) {
			t.Errorf("%v: franz-go reads other records", c)
		}
	}
}

func TestMarkerIsAControlRecordToFranzGo(t *testing.T) {
	b := BuildMarker(42, 7, Marker{Type: Commit, CoordinatorEpoch: 5, Timestamp: 1234})
	if !b.IsControl() || !b.IsTransactional() || b.ProducerID() != 42 || b.ProducerEpoch() != 7 || b.BaseSequence() != -1 {
		t.Errorf("header %x", b[:HeaderSize])
	}
	r := franz(t, b)[0]
	var key kmsg.ControlRecordKey
	if err := key.ReadFrom(r.Key); err != nil || key.Version != 0 || key.Type != kmsg.ControlRecordKeyTypeCommit {
		t.Errorf("key %+v, %v", key, err)
	}
	var value kmsg.EndTxnMarker
	if err := value.ReadFrom(r.Value); err != nil || value.Version != 0 || value.CoordinatorEpoch != 5 {
		t.Errorf("value %+v, %v", value, err)
	}
}

func TestMarkerRefusesOtherBatches(t *testing.T) {
	control := func(records ...Record) Batch {
		bu := Builder{Control: true, Transactional: true, Producer: &Producer{ID: 1, Sequence: -1}}
		for _, r := range records {
			bu.Append(r)
		}
		b, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key, value := []byte{0, 0, 0, 1}, []byte{0, 0, 0, 0, 0, 9}
	for name, b := range map[string]Batch{
		"data":             mustBuild(t, None, Record{Key: key, Value: value}),
		"two records":      control(Record{Key: key, Value: value}, Record{Key: key, Value: value}),
		"no key":           control(Record{Value: value}),
		"short key":        control(Record{Key: key[:3], Value: value}),
		"negative version": control(Record{Key: []byte{0xff, 0xff, 0, 1}, Value: value}),
		"no value":         control(Record{Key: key}),
		"short value":      control(Record{Key: key, Value: value[:5]}),
	} {
		if m, err := b.Marker(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, m, err)
		}
	}
	// Other types, KRaft's leader change for one, and newer versions are read.
	m, err := control(Record{Timestamp: 3, Key: []byte{0, 0, 0, 2}}).Marker()
	if want := (Marker{Type: 2, Timestamp: 3}); err != nil || m != want {
		t.Errorf("type 2: %+v, %v", m, err)
	}
	m, err = control(Record{Key: []byte{0, 1, 0, 0, 8}, Value: []byte{0, 1, 0, 0, 0, 9, 8}}).Marker()
	if want := (Marker{Type: Abort, CoordinatorEpoch: 9}); err != nil || m != want {
		t.Errorf("version 1: %+v, %v", m, err)
	}
}

func TestRecordsOfPlainBatchAliasIt(t *testing.T) {
	b := mustBuild(t, None, Record{Key: []byte("k"), Value: []byte("value")})
	r := collect(t, b)[0]
	b[len(b)-2] = '!'
	if string(r.Value) != "valu!" {
		t.Errorf("%q", r.Value)
	}
	if cap(r.Key) != 1 {
		t.Error("appending to a key would write over the value")
	}
}

func TestRecordsMayBeLeftEarlyAndNested(t *testing.T) {
	for _, c := range codecs {
		b := mustBuild(t, c, kib(200)...)
		n := 0
		for outer, err := range b.Records() {
			if err != nil {
				t.Fatal(err)
			}
			for inner, err := range b.Records() {
				if err != nil || inner.Offset > outer.Offset {
					break
				}
			}
			if n++; n == 50 {
				break
			}
		}
		if n != 50 || len(collect(t, b)) != 200 {
			t.Errorf("%v: %d", c, n)
		}
	}
	wide := javaBatch(t, "zstd-22") // expanded in memory, one place
	for _, err := range wide.Records() {
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Validate(wide, -1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordsTrustsNoHeader(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(b Batch)
		want   error
	}{
		"codec 6":                   {func(b Batch) { b[22] = 6 }, ErrCodec},
		"count -1":                  {func(b Batch) { put32(b, 57, -1) }, ErrInvalid},
		"count 2^31-1":              {func(b Batch) { put32(b, 57, math.MaxInt32) }, ErrInvalid},
		"last offset delta too low": {func(b Batch) { put32(b, 23, 0) }, ErrInvalid},
	} {
		b := mustBuild(t, None, Record{Timestamp: 1}, Record{Timestamp: 2})
		tt.damage(b)
		var last error
		for _, err := range b.Records() {
			last = err
		}
		if !errors.Is(last, tt.want) {
			t.Errorf("%s: %v", name, last)
		}
	}
}

func TestDecodersAndEncodersServeManyAtOnce(t *testing.T) {
	wide := javaBatch(t, "zstd-22")
	var wg sync.WaitGroup
	for i := range 20 { // each worker ends by itself
		wg.Go(func() {
			want := texts(20+i, 500)
			for _, c := range codecs {
				b, err := Build(c, want...)
				if err != nil {
					t.Error(err)
					continue
				}
				if _, err := Validate(b, -1); err != nil {
					t.Errorf("%v: %v", c, err)
				}
				var got []Record
				for r, err := range b.Records() {
					if err != nil {
						t.Errorf("%v: %v", c, err)
					}
					got = append(got, r)
				}
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%v: other records", c)
				}
			}
			if _, err := Validate(bytes.Clone(wide), -1); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestEmptyBatchOfAnyCodecHasNoRecords(t *testing.T) {
	for _, c := range codecs {
		b := wrap(c, 0, nil)
		if n := len(collect(t, b)); n != 0 {
			t.Errorf("%v: %d", c, n)
		}
	}
}

func TestChecksumIsCastagnoli(t *testing.T) {
	b := javaBatch(t, "none")
	if b.Checksum() != crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)) || b.Check() != nil {
		t.Error("another checksum than Java's")
	}
}

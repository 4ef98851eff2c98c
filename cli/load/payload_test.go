package load

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// ratios compresses data as producers do, in batches of 64 KiB, and returns how
// many times smaller it becomes.
func ratios(t *testing.T, data []byte) map[string]float64 {
	t.Helper()
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	sizes := make(map[string]int)
	for rest := data; len(rest) > 0; {
		batch := rest[:min(64<<10, len(rest))]
		rest = rest[len(batch):]
		var b bytes.Buffer
		g := gzip.NewWriter(&b)
		g.Write(batch)
		g.Close()
		sizes["gzip"] += b.Len()
		b.Reset()
		l := lz4.NewWriter(&b)
		l.Write(batch)
		l.Close()
		sizes["lz4"] += b.Len()
		sizes["zstd"] += len(z.EncodeAll(batch, nil))
	}
	all := make(map[string]float64)
	for codec, size := range sizes {
		all[codec] = float64(len(data)) / float64(size)
	}
	return all
}

// values makes values of one producer, bytes of them in all.
func values(size, bytes int) []byte {
	s := newPayloads(Plan{RecordBytes: size, Run: 0xc0ffee, Seed: 1}).source(3)
	data := make([]byte, 0, bytes+size)
	at := time.UnixMicro(1767225600123456)
	for n := int64(0); len(data) < bytes; n++ {
		data = data[:len(data)+size]
		s.fill(data[len(data)-size:], at, n)
		at = at.Add(time.Duration(20+n*7919%60) * time.Microsecond)
	}
	return data
}

// Batches compress as the flights and the earthquakes do, within a quarter.
func TestPayloadsCompressLikeRealJSON(t *testing.T) {
	low, high := make(map[string]float64), make(map[string]float64)
	for _, name := range []string{"flights", "earthquakes"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "testdata", name+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		for codec, ratio := range ratios(t, b[:1<<20]) {
			if low[codec] == 0 {
				low[codec] = math.Inf(1)
			}
			low[codec], high[codec] = min(low[codec], ratio), max(high[codec], ratio)
		}
	}
	for _, size := range []int{100, 256, 1024, 10 << 10} {
		for codec, ratio := range ratios(t, values(size, 1<<20)) {
			t.Logf("%5d bytes, %-4s %.1f, real JSON %.1f to %.1f", size, codec, ratio, low[codec], high[codec])
			if ratio < low[codec]*0.75 || ratio > high[codec]*1.25 {
				t.Errorf("values of %d bytes become %.1f times smaller with %s, real JSON %.1f to %.1f", size, ratio, codec, low[codec], high[codec])
			}
		}
	}
}

func TestValuesAreJSONWithAStamp(t *testing.T) {
	for _, size := range []int{MinStamped, MinStamped + 1, 70, 80, 99, 128, 200, 333, 1000, 1024, 5000, 100_000} {
		data := values(size, 20*size)
		for n := range 20 {
			v := data[n*size:][:size]
			if !json.Valid(v) {
				t.Fatalf("%d bytes: %s", size, v)
			}
			s, ok := ReadStamp(v)
			if !ok || s.Run != 0xc0ffee || s.Producer != 3 || s.Sequence != int64(n) || n == 0 && s.At.UnixMicro() != 1767225600123456 {
				t.Fatalf("%d bytes: %+v of %s", size, s, v)
			}
		}
	}
	for size := 1; size < MinStamped; size++ {
		if _, ok := ReadStamp(values(size, size)); ok {
			t.Errorf("a stamp in %d bytes", size)
		}
	}
	for _, other := range []string{"", "{}", strings.Repeat("x", 200), `{"at":1767225600123456,"id":"3f9a01c7-0002-00000001234x","type":""}`} {
		if s, ok := ReadStamp([]byte(other)); ok {
			t.Errorf("%q has the stamp %+v", other, s)
		}
	}
}

func TestTheSameSeedMakesTheSameRecords(t *testing.T) {
	if !bytes.Equal(values(300, 30_000), values(300, 30_000)) {
		t.Error("the same seed makes other values")
	}
	one, two := newKeyer(Plan{Producers: 1, Keys: 1000, Seed: 7, Distribution: Zipf}, 0), newKeyer(Plan{Producers: 1, Keys: 1000, Seed: 7, Distribution: Zipf}, 0)
	for n := range int64(1000) {
		if a, b := string(one.fill(nil, n)), string(two.fill(nil, n)); a != b {
			t.Fatalf("key %d: %s and %s", n, a, b)
		}
	}
}

func TestKeysComeAsOftenAsTheirDistributionSays(t *testing.T) {
	count := func(how Distribution) map[string]int {
		k := newKeyer(Plan{Producers: 2, Keys: 100, Distribution: how, Seed: 1}, 1)
		seen := make(map[string]int)
		var b []byte
		for n := range int64(10_000) {
			b = k.fill(b, n)
			seen[string(b)]++
		}
		if seen["key-00000000"] == 0 || len(seen) > 100 {
			t.Errorf("%s: %d keys, without the first?", how, len(seen))
		}
		return seen
	}
	for key, n := range count(RoundRobin) {
		if n != 100 {
			t.Errorf("round-robin: %s comes %d times in 10,000, want 100", key, n)
		}
	}
	for key, n := range count(Uniform) {
		if n < 50 || n > 150 {
			t.Errorf("uniform: %s comes %d times in 10,000, want about 100", key, n)
		}
	}
	zipf := count(Zipf)
	if first, tenth := zipf["key-00000000"], zipf["key-00000009"]; first < 1500 || first < 8*tenth {
		t.Errorf("zipf: the first key comes %d times in 10,000, the tenth %d times", first, tenth)
	}
	if k := newKeyer(Plan{Producers: 1}, 0); k.fill(nil, 0) != nil {
		t.Error("a key where there are none")
	}
}

func BenchmarkValue(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(map[int]string{100: "100B", 1024: "1KiB"}[size], func(b *testing.B) {
			s := newPayloads(Plan{RecordBytes: size, Run: 1}).source(0)
			v := make([]byte, size)
			at := time.UnixMicro(1767225600123456)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for n := int64(0); b.Loop(); n++ {
				s.fill(v, at, n)
			}
		})
	}
}

package load

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
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
		n := min(64<<10, len(rest))
		batch := rest[:n]
		rest = rest[n:]
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

func TestPayloadsCompressLikeRealJSON(t *testing.T) {
	for _, name := range []string{"flights", "earthquakes"} {
		b, err := os.ReadFile(filepath.Join("..", "..", "testdata", name+".jsonl"))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %v", name, ratios(t, b))
	}
	for _, size := range []int{100, 256, 1024, 10240} {
		s := newPayloads(Plan{RecordBytes: size, Run: 1, Seed: 1}).source(0)
		data := make([]byte, 0, 2<<20)
		for n := int64(0); len(data) < 2<<20; n++ {
			v := make([]byte, size)
			s.fill(v, time.UnixMicro(1767225600000000+37*n), n)
			if !json.Valid(v) {
				t.Fatal(string(v))
			}
			data = append(data, v...)
		}
		t.Logf("%d: %v %s", size, ratios(t, data), data[:size])
	}
}

func BenchmarkProduce(b *testing.B) {
	b.ReportAllocs()
	Produce(context.Background(), Plan{Records: int64(b.N)}, []Sender{null{}}, nil)
}

type null struct{}

func (null) Send(_ context.Context, r *Record) { r.Done(nil) }
func (null) Flush(_ context.Context) error     { return nil }

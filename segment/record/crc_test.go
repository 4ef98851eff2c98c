package record

import (
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"
)

// However long two strings are, their joint CRC is what a reader of both finds.
func TestJoinedCRCsAreThoseOfTheWhole(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	p := make([]byte, 3<<20)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	lengths := []int{0, 1, 2, 3, 7, 8, 20, 255, 256, 4095, 4096, 65_537, 1 << 20, 2<<20 - 1}
	for range 50 {
		lengths = append(lengths, r.IntN(2<<20))
	}
	for _, n := range lengths {
		at := r.IntN(1 << 20)
		first, second := p[:at], p[at:at+n]
		want := crc32.Checksum(p[:at+n], castagnoli)
		if got := joinCRC(crc32.Checksum(first, castagnoli), crc32.Checksum(second, castagnoli), n); got != want {
			t.Errorf("%d and %d bytes: %08x, want %08x", at, n, got, want)
		}
	}
}

// UpdateCRC is the CRC of the bytes for batches of any length, and of what is no
// batch; a batch whose records rot after the gate no longer matches it.
func TestUpdateCRCIsThatOfTheBytes(t *testing.T) {
	var p []byte
	for i, size := range []int{0, 10, 1000, longBatch - 200, longBatch, 100_000, 1 << 20, 5} {
		b, err := Build(None, Record{Key: []byte(fmt.Sprint(i)), Value: []byte(strings.Repeat("v", size))})
		if err != nil {
			t.Fatal(err)
		}
		b.Assign(int64(i), int32(i))
		p = append(p, b...)
		if got, want := UpdateCRC(7, p), crc32.Update(7, castagnoli, p); got != want {
			t.Errorf("%d batches: %08x, want %08x", i+1, got, want)
		}
	}
	for _, junk := range []string{"", "x", strings.Repeat("no batch", 10_000)} {
		if got, want := UpdateCRC(7, []byte(junk)), crc32.Update(7, castagnoli, []byte(junk)); got != want {
			t.Errorf("%.10q…: %08x, want %08x", junk, got, want)
		}
	}
	whole := UpdateCRC(0, p)
	p[len(p)-1000] ^= 1
	if UpdateCRC(0, p) != whole || crc32.Checksum(p, castagnoli) == whole {
		t.Error("the sum does not rest on the batches' own")
	}
}

func BenchmarkUpdateCRC(b *testing.B) {
	for _, size := range []int{1 << 10, longBatch, 64 << 10, 1 << 20} {
		batch, err := Build(None, Record{Value: make([]byte, size)})
		if err != nil {
			b.Fatal(err)
		}
		for name, f := range map[string]func(uint32, []byte) uint32{
			"joined": UpdateCRC,
			"read":   func(sum uint32, p []byte) uint32 { return crc32.Update(sum, castagnoli, p) },
		} {
			b.Run(fmt.Sprintf("%d/%s", size, name), func(b *testing.B) {
				b.SetBytes(int64(len(batch)))
				for range b.N {
					f(0, batch)
				}
			})
		}
	}
}

package log

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"millrace/segment"
	"millrace/segment/record"
)

// benchEntry returns a command whose data has about size bytes, to be stored again
// and again.
func benchEntry(b *testing.B, size int) []byte {
	b.Helper()
	p, err := record.Build(record.None, record.Record{Timestamp: testClock, Value: []byte(strings.Repeat("v", max(0, size-record.HeaderSize-8)))})
	if err != nil {
		b.Fatal(err)
	}
	return p
}

// BenchmarkAppend stores entries one call each, with fdatasync and without, and
// beside it does the same bytes with a bare pwrite and fdatasync on a preallocated
// file: what the log costs is the difference.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 100 << 10} {
		for _, sync := range []bool{true, false} {
			name := fmt.Sprintf("%dB/sync=%t", size, sync)
			b.Run(name+"/log", func(b *testing.B) {
				flush := int64(1)
				if !sync {
					flush = 1 << 62
				}
				l := mustOpen(b, filepath.Join(b.TempDir(), "p"), Config{FlushMessages: flush, Cache: NewCache(8 << 20)})
				data := benchEntry(b, size)
				if err := l.StoreLog(noop(1, 1)); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(len(data)))
				index := uint64(2)
				for b.Loop() {
					// A new batch as it comes from a connection: the log stamps it.
					e := &raft.Log{Index: index, Term: 1, Data: append([]byte(nil), data...)}
					if err := l.StoreLog(e); err != nil {
						b.Fatal(err)
					}
					index++
					if index%2000 == 0 {
						b.StopTimer()
						l.Roll()
						l.Drop(l.EndOffset(), index)
						b.StartTimer()
					}
				}
			})
			b.Run(name+"/bare", func(b *testing.B) {
				f, err := os.Create(filepath.Join(b.TempDir(), "f"))
				if err != nil {
					b.Fatal(err)
				}
				defer f.Close()
				data := benchEntry(b, size)
				step := segment.FrameSize(len(data))
				var at, allocated int64
				b.SetBytes(int64(len(data)))
				n := 0
				for b.Loop() {
					if at+step > allocated {
						if err := unix.Fallocate(int(f.Fd()), 0, allocated, 16<<20); err != nil {
							b.Fatal(err)
						}
						allocated += 16 << 20
					}
					p := append([]byte(nil), data...)
					if _, err := unix.Pwrite(int(f.Fd()), p, at); err != nil {
						b.Fatal(err)
					}
					if sync {
						if err := unix.Fdatasync(int(f.Fd())); err != nil {
							b.Fatal(err)
						}
					}
					at += step
					if n++; n%2000 == 0 {
						b.StopTimer()
						f.Truncate(0)
						at, allocated = 0, 0
						b.StartTimer()
					}
				}
			})
		}
	}
}

// BenchmarkRead fetches cached data in answers of a megabyte and writes them to a
// socket, from the log's mapped pages and from plain memory with a bare writev.
func BenchmarkRead(b *testing.B) {
	for _, size := range []int{1 << 10, 100 << 10} {
		l := mustOpen(b, filepath.Join(b.TempDir(), "p"), Config{FlushMessages: 1 << 62, SegmentBytes: 64 << 20})
		data := benchEntry(b, size)
		const total = 128 << 20
		for i := range uint64(total / size) {
			if err := l.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: append([]byte(nil), data...)}); err != nil {
				b.Fatal(err)
			}
		}
		end := l.EndOffset()
		const answer = 1 << 20
		b.Run(fmt.Sprintf("%dB/log", size), func(b *testing.B) {
			c := sink(b)
			b.SetBytes(answer)
			next := int64(0)
			for b.Loop() {
				for left := answer; left > len(data); {
					v, err := l.Read(next, end, left)
					if err != nil {
						b.Fatal(err)
					}
					left -= v.Len()
					if next = v.Next; next == end {
						next = 0
					}
					bufs := net.Buffers(v.Bytes)
					if _, err := bufs.WriteTo(c); err != nil {
						b.Fatal(err)
					}
					v.Release()
				}
			}
		})
		b.Run(fmt.Sprintf("%dB/view", size), func(b *testing.B) { // without the socket
			b.SetBytes(answer)
			next := int64(0)
			for b.Loop() {
				v, err := l.Read(next, end, answer)
				if err != nil {
					b.Fatal(err)
				}
				if next = v.Next; next == end {
					next = 0
				}
				v.Release()
			}
		})
		b.Run(fmt.Sprintf("%dB/bare", size), func(b *testing.B) {
			c := sink(b)
			memory := make([]byte, total)
			b.SetBytes(answer)
			at := 0
			for b.Loop() {
				var bufs net.Buffers
				for n := 0; n+len(data) <= answer; n += len(data) {
					if at+len(data) > total {
						at = 0
					}
					bufs = append(bufs, memory[at:at+len(data)])
					at += int(segment.FrameSize(len(data)))
				}
				if _, err := bufs.WriteTo(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// sink returns a loopback connection whose other end reads and forgets.
func sink(b *testing.B) net.Conn {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		p := make([]byte, 1<<20)
		for {
			if _, err := c.Read(p); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// BenchmarkGetLog reads recent entries, as Raft's replication does, and old ones.
func BenchmarkGetLog(b *testing.B) {
	l := mustOpen(b, filepath.Join(b.TempDir(), "p"), Config{FlushMessages: 1 << 62, Cache: NewCache(16 << 20)})
	data := benchEntry(b, 1<<10)
	const n = 50_000
	for i := range uint64(n) {
		if err := l.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: append([]byte(nil), data...)}); err != nil {
			b.Fatal(err)
		}
	}
	for name, first := range map[string]uint64{"recent": n - 5000, "old": 1} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			i := uint64(0)
			var e raft.Log
			for b.Loop() {
				if err := l.GetLog(first+i%5000, &e); err != nil {
					b.Fatal(err)
				}
				i++
			}
		})
	}
}

// BenchmarkOpen opens a log whose last segment is full of 1 KiB entries, after a
// clean close and after a kill.
func BenchmarkOpen(b *testing.B) {
	for _, clean := range []bool{true, false} {
		dir := filepath.Join(b.TempDir(), "p")
		l := mustOpen(b, dir, Config{FlushMessages: 1000})
		data := benchEntry(b, 1<<10)
		for i := range uint64(200_000) {
			if err := l.StoreLog(&raft.Log{Index: i + 1, Term: 1, Data: append([]byte(nil), data...)}); err != nil {
				b.Fatal(err)
			}
		}
		if err := l.Close(clean); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("clean=%t", clean), func(b *testing.B) {
			for b.Loop() {
				l, err := Open(dir, testID, Config{})
				if err != nil {
					b.Fatal(err)
				}
				l.Close(false)
			}
		})
	}
}

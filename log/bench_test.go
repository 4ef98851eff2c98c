package log

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"golang.org/x/sys/unix"

	"millrace/segment"
	"millrace/segment/record"
)

// benchmarkID is whose log the benchmarks write.
var benchmarkID = segment.Identity{Cluster: "benchmark", Partition: 1, Replica: "1.a"}

// benchmarkBatch returns a batch of one record, n bytes in all.
func benchmarkBatch(b *testing.B, n int) record.Batch {
	b.Helper()
	value := make([]byte, max(n-record.HeaderSize-16, 1))
	for i := range value {
		value[i] = byte(i * 7)
	}
	batch, err := record.Build(record.None, record.Record{Timestamp: 1, Value: value})
	if err != nil {
		b.Fatal(err)
	}
	return batch
}

// BenchmarkAppend appends entries one by one, each with its fsync or without
// any, beside a bare loop of pwrite and fdatasync of the same bytes into a
// preallocated file. What lies between the two is what the log costs.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 100 << 10} {
		for _, sync := range []bool{true, false} {
			name := fmt.Sprintf("%dB/sync=%v", size, sync)
			b.Run(name+"/log", func(b *testing.B) { appendLog(b, size, sync) })
			b.Run(name+"/bare", func(b *testing.B) { appendBare(b, size, sync) })
		}
	}
}

func appendLog(b *testing.B, size int, sync bool) {
	cfg := Config{SegmentBytes: 1 << 30}
	if !sync {
		cfg.FlushMessages = 1 << 62
	}
	l, err := Open(b.TempDir(), benchmarkID, cfg)
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(true)
	batch := benchmarkBatch(b, size)
	b.SetBytes(int64(len(batch)))
	for i := range b.N {
		// The log owns an entry's bytes, as it does those of a request.
		data := append([]byte(nil), batch...)
		err := l.StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Type: raft.LogCommand, Data: data})
		if err != nil {
			b.Fatal(err)
		}
	}
}

func appendBare(b *testing.B, size int, sync bool) {
	f, err := os.Create(filepath.Join(b.TempDir(), "bare"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	const room = 1 << 30
	if err := unix.Fallocate(int(f.Fd()), 0, 0, room); err != nil {
		b.Skip("the file system does not preallocate: ", err)
	}
	p := make([]byte, segment.FrameSize(len(benchmarkBatch(b, size))))
	b.SetBytes(int64(size))
	at := int64(0)
	for b.Loop() {
		if at+int64(len(p)) > room {
			at = 0
		}
		if _, err := unix.Pwrite(int(f.Fd()), p, at); err != nil {
			b.Fatal(err)
		}
		if sync {
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				b.Fatal(err)
			}
		}
		at += int64(len(p))
	}
}

// BenchmarkRead sends 64 MiB of cached data over loopback, 1 MiB a read, beside
// a bare writev of as many bytes from memory: the limit.
func BenchmarkRead(b *testing.B) {
	const total, piece = 64 << 20, 1 << 20
	l, err := Open(b.TempDir(), benchmarkID, Config{SegmentBytes: 1 << 30, FlushMessages: 1 << 62})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(true)
	batch := benchmarkBatch(b, 16<<10)
	n := total / len(batch)
	for i := range n {
		data := append([]byte(nil), batch...)
		if err := l.StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Type: raft.LogCommand, Data: data}); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("log", func(b *testing.B) {
		conn := drained(b)
		b.SetBytes(int64(n * len(batch)))
		for b.Loop() {
			for offset := int64(0); offset < int64(n); {
				v, err := l.Read(offset, int64(n), piece)
				if err != nil {
					b.Fatal(err)
				}
				offset = v.Next
				pieces := net.Buffers(v.Bytes)
				if _, err := pieces.WriteTo(conn); err != nil {
					b.Fatal(err)
				}
				v.Release()
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		conn := drained(b)
		p := make([]byte, piece)
		b.SetBytes(total)
		for b.Loop() {
			for range total / piece {
				pieces := net.Buffers{p}
				if _, err := pieces.WriteTo(conn); err != nil {
					b.Fatal(err)
				}
			}
		}
	})
}

// drained returns a loopback connection whose other end is read and thrown away.
func drained(b *testing.B) net.Conn {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		p := make([]byte, 1<<20)
		for {
			if _, err := conn.Read(p); err != nil {
				return
			}
		}
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn
}

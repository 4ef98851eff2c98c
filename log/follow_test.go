package log

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

// A dropFS notes what the system is told to forget.
type dropFS struct {
	segment.FS
	forgotten *int64 // up to here
}

type dropFile struct {
	segment.File
	fs     dropFS
	synced bool
}

func (f dropFS) OpenFile(path string, flag int) (segment.File, error) {
	file, err := f.FS.OpenFile(path, flag)
	if err != nil || filepath.Ext(path) != ".log" {
		return file, err
	}
	return &dropFile{File: file, fs: f}, nil
}

func (f *dropFile) Pwritev(bufs [][]byte, off int64) error {
	f.synced = false
	return f.File.Pwritev(bufs, off)
}

func (f *dropFile) Sync() error {
	f.synced = true
	return f.File.Sync()
}

func (f *dropFile) DropCache(from, to int64) {
	if !f.synced || from > *f.fs.forgotten {
		panic(fmt.Sprintf("forget %d to %d, synced %v, forgotten before %d", from, to, f.synced, *f.fs.forgotten))
	}
	*f.fs.forgotten = to
	f.File.DropCache(from, to)
}

// A replica that follows keeps neither the page cache nor the node's own cache
// busy with records that nobody reads there; one that leads keeps both.
func TestOnlyALeaderKeepsRecordsInMemory(t *testing.T) {
	var data [2][]string
	for follows := range 2 {
		var forgotten int64
		cache := NewCache(64 << 20)
		l := mustOpen(t, t.TempDir()+"/p", Config{FS: dropFS{fastFS{segment.OS}, &forgotten}, SegmentBytes: 64 << 20, Cache: cache})
		const entries = 40
		for i := uint64(1); i <= entries; i++ {
			entry := command(t, i, 1, fmt.Sprint(i, strings.Repeat("x", 100<<10)))
			if follows == 1 {
				b := batches(entry.Data)[0]
				b.Assign(int64(i-1), 1) // as a leader of term 1 has stamped it
			}
			if err := l.StoreLogs([]*raft.Log{entry}); err != nil {
				t.Fatal(err)
			}
			l.SetCommitted(i)
		}
		switch {
		case follows == 0 && (forgotten > 0 || cache.Size() < entries*100<<10):
			t.Errorf("the leader forgot %d bytes and caches %d", forgotten, cache.Size())
		case follows == 1 && (forgotten < 3<<20 || cache.Size() > 0):
			t.Errorf("the follower forgot %d bytes and caches %d", forgotten, cache.Size())
		}
		// Both have all of it all the same.
		for i := uint64(1); i <= entries; i++ {
			var e raft.Log
			if err := l.GetLog(i, &e); err != nil {
				t.Fatal(err)
			}
			data[follows] = append(data[follows], string(e.Data))
		}
	}
	for i := range data[0] {
		if data[0][i] != data[1][i] {
			t.Errorf("entry %d differs", i+1)
		}
	}
}

// What is not committed yet stays in the cache, as far as a follower needs it to
// apply it, and none of the memory that it came in.
func TestAFollowerCachesHeadersOnlyUntilApplied(t *testing.T) {
	cache := NewCache(1 << 20)
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fastFS{segment.OS}, Cache: cache})
	var whole []string
	for i := uint64(1); i <= 10; i++ {
		entry := command(t, i, 1, fmt.Sprintf("%02d", i))
		if i == 10 {
			entry = &raft.Log{Index: i, Term: 1, Type: raft.LogConfiguration, Data: []byte("configuration, as long as a header of a batch is: sixty-one bytes")[:record.HeaderSize+1]}
		} else {
			batches(entry.Data)[0].Assign(int64(i-1), 1)
		}
		whole = append(whole, string(entry.Data))
		if err := l.StoreLogs([]*raft.Log{entry}); err != nil {
			t.Fatal(err)
		}
		clear(entry.Data)
	}
	for i := uint64(1); i <= 10; i++ {
		var e raft.Log
		if !l.HeadersOnly(i, &e) || IsHeadersOnly(&e) != (i < 10) {
			t.Fatalf("headers of entry %d: %+v", i, e)
		}
		for b := range Headers(&e) {
			if want := whole[i-1][:record.HeaderSize]; string(b) != want || b.Size() != len(whole[i-1]) {
				t.Errorf("entry %d: header %x of %d bytes, want %x of %d", i, []byte(b), b.Size(), want, len(whole[i-1]))
			}
		}
		if i < 10 {
			if err := l.StoreLog(&raft.Log{Index: 11, Term: 1, Data: e.Data, Extensions: e.Extensions}); err == nil {
				t.Fatal("a headers-only entry was stored")
			}
		}
		if err := l.GetLog(i, &e); err != nil || string(e.Data) != whole[i-1] || len(e.Extensions) > 0 {
			t.Errorf("entry %d: %q, %v; want all of it", i, e.Data, err)
		}
	}
	all := cache.Size()
	l.SetCommitted(4)
	if got := cache.Size(); got < all*59/100 || got > all*61/100 {
		t.Errorf("%d of %d bytes cached with 4 of 10 entries applied", got, all)
	}
	for i := uint64(1); i <= 10; i++ {
		var e raft.Log
		if inWindow := l.cached.get(i, &e); inWindow != (i > 4) {
			t.Errorf("entry %d in the cache: %v", i, inWindow)
		}
	}
	l.SetCommitted(10)
	if cache.Size() != 0 {
		t.Errorf("%d bytes cached with everything applied", cache.Size())
	}
}

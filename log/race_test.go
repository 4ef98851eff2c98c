package log

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

// TestReadersAgainstDeletion is S40 and B31: readers of every kind, some of which
// keep their views, beside a writer that appends, rolls, cuts and drops. What is
// read is what was written, or a refusal; a view stays valid after its segment is
// gone. MILLRACE_ROUNDS sets the number of rounds, 10⁵ for a thorough run.
func TestReadersAgainstDeletion(t *testing.T) {
	rounds := 1500
	if s := os.Getenv("MILLRACE_ROUNDS"); s != "" {
		if _, err := fmt.Sscan(s, &rounds); err != nil {
			t.Fatal(err)
		}
	}
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fastFS{segment.OS}, SegmentBytes: 8 << 10, Cache: NewCache(4 << 10)})
	// The value of each record says its offset and its term; a cut reuses offsets.
	value := func(offset int64, term uint64) string {
		return fmt.Sprintf("%d.%d.%s", offset, term, strings.Repeat("#", int(offset%300)))
	}
	var limit atomic.Int64 // below: never cut
	var stop atomic.Bool
	var reads, kept atomic.Int64
	var wg sync.WaitGroup
	check := func(p []byte) error {
		for _, b := range batches(p) {
			if err := b.Check(); err != nil {
				return err
			}
			for r, err := range b.Records() {
				if err != nil {
					return err
				}
				if string(r.Value) != value(r.Offset, uint64(b.Epoch())) {
					return fmt.Errorf("offset %d: %.30s", r.Offset, r.Value)
				}
			}
		}
		return nil
	}
	reader := func(f func(r *rand.Rand) error) {
		wg.Add(1)
		seed := rand.Uint64()
		go func() {
			defer wg.Done()
			r := rand.New(rand.NewPCG(seed, 0))
			for !stop.Load() {
				if err := f(r); err != nil {
					t.Error(err)
					return
				}
				reads.Add(1)
			}
		}()
	}
	somewhere := func(r *rand.Rand) (from, to int64) {
		from, to = l.StartOffset(), limit.Load()
		if to <= from {
			return from, from
		}
		return from + r.Int64N(to-from), to
	}
	for range 2 {
		reader(func(r *rand.Rand) error {
			from, to := somewhere(r)
			v, err := l.Read(from, to, 1+r.IntN(5000))
			if errors.Is(err, ErrOutOfRange) { // dropped meanwhile
				return nil
			}
			if err != nil {
				return err
			}
			pieces := v.Bytes
			if r.IntN(50) == 0 {
				kept.Add(1)
				time.Sleep(5 * time.Millisecond) // a slow client
			}
			err = check(bytes.Join(pieces, nil))
			v.Release()
			return err
		})
	}
	reader(func(r *rand.Rand) error {
		first, _ := l.FirstIndex()
		last, _ := l.LastIndex()
		if last <= first {
			return nil
		}
		var e raft.Log
		i := first + r.Uint64N(last-first)
		err := l.GetLog(i, &e)
		if err == raft.ErrLogNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if e.Index != i {
			return fmt.Errorf("entry %d is %d", i, e.Index)
		}
		if e.Type != raft.LogCommand {
			return nil
		}
		return check(e.Data)
	})
	reader(func(r *rand.Rand) error {
		from, to := somewhere(r)
		o, _, ok, err := l.OffsetAt(testClock+from, to)
		if err == nil && ok && o < from && o < l.StartOffset() {
			return fmt.Errorf("offset %d of timestamp %d", o, from)
		}
		if err == nil {
			_, _, err = l.MaxTimestamp(to)
		}
		return err
	})
	reader(func(r *rand.Rand) error {
		l.EpochEnd(int32(r.IntN(10)))
		l.EpochAt(limit.Load())
		l.Size()
		l.RetentionOffset(time.UnixMilli(testClock), time.Hour, 1000, limit.Load())
		p := make([]byte, 700)
		for _, i := range l.Sealed() {
			if _, err := l.ReadSegment(i.FirstIndex, i.Bytes/2, p); err != nil && err != io.EOF && !errors.Is(err, ErrNoSegment) {
				return err
			}
		}
		if err := l.Flush(); err != nil {
			return err
		}
		if err := l.Checkpoint(); err != nil {
			return err
		}
		l.UnmapIdle()
		return l.Reserve(1, r.IntN(9000))
	})

	r := rand.New(rand.NewPCG(7, 7))
	term, committed := uint64(1), uint64(0)
	if err := l.StoreLog(noop(1, 1)); err != nil {
		t.Fatal(err)
	}
	for range rounds {
		switch p := r.IntN(20); {
		case p < 14:
			var logs []*raft.Log
			o, i := l.EndOffset(), l.NextIndex()
			for range 1 + r.IntN(3) {
				logs = append(logs, &raft.Log{Index: i, Term: term, Data: batch(t, testClock+o, value(o, term), value(o+1, term))})
				o, i = o+2, i+1
			}
			if err := l.StoreLogs(logs); err != nil {
				t.Fatal(err)
			}
		case p < 16:
			if last := l.NextIndex() - 1; last > committed {
				if err := l.DeleteRange(committed+1+r.Uint64N(last-committed), last); err != nil {
					t.Fatal(err)
				}
				term++
			}
		case p < 18:
			committed = l.NextIndex() - 1
			l.SetCommitted(committed)
			limit.Store(l.EndOffset())
		case p < 19:
			if start, end := l.StartOffset(), limit.Load(); end > start {
				if _, err := l.Drop(start+r.Int64N(end-start), committed); err != nil {
					t.Fatal(err)
				}
			}
		default:
			if err := l.Roll(); err != nil {
				t.Fatal(err)
			}
		}
	}
	stop.Store(true)
	wg.Wait()
	if reads.Load() < 100 {
		t.Fatalf("only %d reads", reads.Load())
	}
	if err := l.Verify(1); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d reads, %d views kept a while", reads.Load(), kept.Load())
}

// mappings counts this process's mappings of files below dir, deleted or not.
func mappings(t *testing.T, dir string) int {
	t.Helper()
	p, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Skip("needs /proc/self/maps")
	}
	return strings.Count(string(p), dir)
}

func descriptors(t *testing.T, dir string) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc/self/fd")
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(filepath.Join("/proc/self/fd", fd.Name())); err == nil && strings.HasPrefix(to, dir) {
			n++
		}
	}
	return n
}

// TestViewsOutliveDropCutAndClose: a view holds its pages when the segment is dropped,
// cut, or the log closed; and nothing else stays (I20).
func TestViewsOutliveDropCutAndClose(t *testing.T) {
	dir := t.TempDir() + "/p"
	l := mustOpen(t, dir, Config{FS: fastFS{segment.OS}, SegmentBytes: 2 << 10, Cache: NewCache(1)})
	var want []string
	for i := range uint64(30) {
		v := strings.Repeat(string(rune('a'+i%26)), 500)
		want = append(want, v)
		if err := l.StoreLog(command(t, i+1, 1, v)); err != nil {
			t.Fatal(err)
		}
	}
	type held struct {
		release func()
		pieces  [][]byte
		offset  int64
	}
	var views []held
	for _, o := range []int64{0, 10, 29} {
		v, err := l.Read(o, 30, 1)
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, held{v.Release, v.Bytes, o})
	}
	before := mappings(t, dir)
	l.UnmapIdle()
	if n := mappings(t, dir); n != before {
		t.Errorf("%d mappings of %d are left of segments just read", n, before)
	}
	l.UnmapIdle()
	if n := mappings(t, dir); n != len(views) {
		t.Errorf("%d mappings at rest, want those of %d views", n, len(views))
	}
	readAll(t, l, 0, 30)
	if descriptors(t, dir) != 1 {
		t.Errorf("%d descriptors of an open log", descriptors(t, dir))
	}
	if _, err := l.Drop(20, 30); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRange(25, 30); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	if n := descriptors(t, dir); n != 0 {
		t.Errorf("%d descriptors of a closed log", n)
	}
	if n := mappings(t, dir); n != len(views) {
		t.Errorf("%d mappings, want those of %d views", n, len(views))
	}
	for _, v := range views {
		if !bytes.Contains(v.pieces[0], []byte(want[v.offset])) {
			t.Errorf("offset %d changed", v.offset)
		}
		v.release()
	}
	if n := mappings(t, dir); n != 0 {
		t.Errorf("%d mappings are left", n)
	}
	for what, err := range map[string]error{
		"store": l.StoreLog(noop(99, 9)), "get": l.GetLog(22, &raft.Log{}), "cut": l.DeleteRange(1, 99), "roll": l.Roll(),
		"flush": l.Flush(), "checkpoint": l.Checkpoint(), "reserve": l.Reserve(1, 1), "verify": l.Verify(0),
		"read": func() error { _, err := l.Read(22, 24, 1); return err }(), "drop": func() error { _, err := l.Drop(0, 0); return err }(),
	} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("%s on a closed log: %v", what, err)
		}
	}
}

// TestAnIdlePartitionCostsLittle: one descriptor, no mapping, one small file.
func TestAnIdlePartitionCostsLittle(t *testing.T) {
	root := t.TempDir()
	cache := NewCache(1 << 20)
	var logs []*Log
	for i := range 100 {
		l := mustOpen(t, filepath.Join(root, fmt.Sprint(i)), Config{FS: fastFS{segment.OS}, Cache: cache})
		if err := l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "x")}); err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
	}
	if n := descriptors(t, root); n != 100 {
		t.Errorf("%d descriptors", n)
	}
	if n := mappings(t, root); n != 0 {
		t.Errorf("%d mappings", n)
	}
	for _, l := range logs {
		st, err := os.Stat(logFiles(t, l.Dir())[0])
		if err != nil || st.Size() > 64<<10 {
			t.Fatalf("%d bytes, %v", st.Size(), err)
		}
	}
}

func TestTheCacheKeepsItsLimitAndItsEntries(t *testing.T) {
	c := NewCache(20 << 10)
	root := t.TempDir()
	var logs []*Log
	for i := range 3 {
		logs = append(logs, mustOpen(t, filepath.Join(root, fmt.Sprint(i)), Config{FS: fastFS{segment.OS}, Cache: c}))
	}
	r := rand.New(rand.NewPCG(5, 5))
	for range 400 {
		l := logs[r.IntN(3)]
		i := l.NextIndex()
		e := command(t, i, i/10+1, strings.Repeat("c", r.IntN(1000)))
		if r.IntN(40) == 0 {
			e = command(t, i, i/10+1, strings.Repeat("c", 30<<10)) // larger than the cache
		}
		if err := l.StoreLog(e); err != nil {
			t.Fatal(err)
		}
		if c.Size() > 20<<10 {
			t.Fatalf("%d bytes", c.Size())
		}
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil || !sameEntry(&got, e) {
			t.Fatal(err)
		}
		if len(e.Data) < 5<<10 && &got.Data[0] != &e.Data[0] {
			t.Fatal("the newest entry was copied")
		}
		if i > 3 && r.IntN(10) == 0 {
			if err := l.DeleteRange(i-2, i); err != nil {
				t.Fatal(err)
			}
			if err := l.GetLog(i-1, &got); err != raft.ErrLogNotFound {
				t.Fatalf("a deleted entry is still there: %v", err)
			}
		}
	}
	before := c.Size()
	if err := logs[0].StoreLog(command(t, logs[0].NextIndex(), 99, strings.Repeat("h", 30<<10))); err != nil {
		t.Fatal(err)
	}
	if c.Size() == 0 && before > 0 {
		t.Error("one huge entry drove out those of all logs")
	}
	for _, l := range logs {
		l.Close(true)
	}
	if c.Size() != 0 || c.oldest != nil {
		t.Fatalf("%d bytes of closed logs", c.Size())
	}
}

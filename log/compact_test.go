package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

// A keyed log is a log of updates by key, with everything that was ever written.
type keyedLog struct {
	t       testing.TB
	dir     string
	cfg     Config
	l       *Log
	r       *rand.Rand
	clock   time.Time
	term    uint64
	written map[int64]record.Record
	last    map[string]int64 // the newest offset of each key
	maxKeys int              // of a compaction

	unsynced []record.Record // written, and not acknowledged
}

const tombstoneTime = time.Hour

func newKeyedLog(t testing.TB, dir string, seed uint64, fs segment.FS) *keyedLog {
	k := &keyedLog{
		t: t, dir: dir, r: rand.New(rand.NewPCG(seed, 7)), clock: time.UnixMilli(1_700_000_000_000), term: 1,
		written: map[int64]record.Record{}, last: map[string]int64{},
	}
	k.cfg = Config{FS: fs, SegmentBytes: 3 << 10, Now: func() time.Time { return k.clock }}
	return k
}

func (k *keyedLog) open() error {
	l, err := Open(k.dir, testID, k.cfg)
	k.l = l
	return err
}

// update stores an entry of a few batches with a few records of a few keys.
func (k *keyedLog) update(keys int) error {
	return k.put(keys, func(e *raft.Log) (synced bool, err error) { return true, k.l.StoreLog(e) })
}

func (k *keyedLog) put(keys int, store func(*raft.Log) (synced bool, err error)) error {
	if err := k.l.Err(); err != nil {
		return err // nothing can have been stored
	}
	if k.r.IntN(10) == 0 {
		k.term++
		if err := k.l.StoreLog(&raft.Log{Index: k.l.NextIndex(), Term: k.term, Type: raft.LogNoop}); err != nil {
			return err
		}
	}
	var data []byte
	var all []record.Record
	for range 1 + k.r.IntN(3) {
		b := record.Builder{Codec: []record.Codec{record.None, record.Snappy, record.Zstd}[k.r.IntN(3)]}
		for range 1 + k.r.IntN(5) {
			rec := record.Record{
				Key: fmt.Appendf(nil, "key-%d", k.r.IntN(keys)), Timestamp: k.clock.UnixMilli(),
				Value: fmt.Appendf(nil, "value-%d-%s", k.r.IntN(1e9), strings.Repeat("v", k.r.IntN(60))),
			}
			if k.r.IntN(5) == 0 {
				rec.Value = nil
			}
			b.Append(rec)
			all = append(all, rec)
		}
		batch, err := b.Batch()
		if err != nil {
			return err
		}
		data = append(data, batch...)
	}
	base := k.l.EndOffset()
	synced, err := store(&raft.Log{Index: k.l.NextIndex(), Term: k.term, Type: raft.LogCommand, Data: data})
	// What a crash took may have been stored all the same.
	for i, rec := range all {
		rec.Offset = base + int64(i)
		k.written[rec.Offset] = rec
		if err == nil {
			k.unsynced = append(k.unsynced, rec)
		}
	}
	if err == nil && synced {
		k.acknowledge()
	}
	return err
}

func (k *keyedLog) compact() (Compacted, error) {
	return k.l.Compact(context.Background(), Compaction{MaxIndex: k.l.NextIndex() - 1, Limit: k.l.EndOffset(), DeleteRetention: tombstoneTime, MaxKeys: k.maxKeys})
}

// readRecords reads the log as a consumer does, from its start to its end.
func readRecords(l *Log) (all []record.Record, err error) {
	end := l.EndOffset()
	for at := l.StartOffset(); at < end; {
		v, err := l.Read(at, end, 2000)
		if err != nil {
			return nil, err
		}
		if v.Len() == 0 {
			if moved := l.EndOffset(); moved > end {
				end = moved // what was between has been superseded by what came since
				continue
			}
			return nil, fmt.Errorf("nothing to read at %d of [%d,%d): a consumer would wait for ever", at, l.StartOffset(), end)
		}
		for _, p := range v.Bytes {
			for len(p) > 0 {
				b, rest, err := record.Split(p)
				if err != nil {
					return nil, err
				}
				for r, err := range b.Records() {
					if err != nil {
						return nil, err
					}
					if r.Offset >= at {
						r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
						all = append(all, r)
					}
				}
				p = rest
			}
		}
		at = v.Next
		v.Release()
	}
	return all, nil
}

// check says what is wrong with what the log holds. Keys whose last record is a
// tombstone may be gone.
func (k *keyedLog) check(l *Log) error {
	all, err := readRecords(l)
	if err != nil {
		return err
	}
	found := map[string]int64{}
	previous := int64(-1)
	for _, r := range all {
		w, ok := k.written[r.Offset]
		if !ok || string(w.Key) != string(r.Key) || string(w.Value) != string(r.Value) || w.Timestamp != r.Timestamp {
			return fmt.Errorf("offset %d holds %q=%q at %d, written was %q=%q at %d", r.Offset, r.Key, r.Value, r.Timestamp, w.Key, w.Value, w.Timestamp)
		}
		if r.Offset <= previous {
			return fmt.Errorf("offset %d after %d", r.Offset, previous)
		}
		previous = r.Offset
		found[string(r.Key)] = r.Offset
	}
	for key, offset := range k.last {
		if offset < l.StartOffset() || offset >= l.EndOffset() {
			continue
		}
		if k.written[offset].Value == nil {
			if at, ok := found[key]; ok && at < offset {
				return fmt.Errorf("%s was deleted at %d, and is there again with what it was at %d", key, offset, at)
			}
			continue
		}
		if at, ok := found[key]; !ok || at < offset { // what a crash took may be there all the same
			return fmt.Errorf("the last record of %s is at %d, found was %d", key, offset, found[key])
		}
	}
	return l.Verify(0)
}

func TestCompactionKeepsTheLastRecordOfEveryKey(t *testing.T) {
	seeds := uint64(40)
	if testing.Short() {
		seeds = 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			k := newKeyedLog(t, t.TempDir(), seed, fastFS{segment.OS})
			if err := k.open(); err != nil {
				t.Fatal(err)
			}
			compactions := 0
			for step := range 150 {
				var err error
				what := ""
				switch p := k.r.IntN(100); {
				case p < 70:
					what, err = "update", k.update(12)
				case p < 80:
					what = "compact"
					if k.maxKeys = 0; k.r.IntN(3) > 0 {
						k.maxKeys = 1 + k.r.IntN(12)
					}
					var c Compacted
					before, _ := k.l.FirstIndex()
					if c, err = k.compact(); c.Segments > 0 {
						compactions++
						if after, _ := k.l.FirstIndex(); after <= before && after != 0 {
							t.Fatalf("step %d: the first index is %d after a compaction, it was %d", step, after, before)
						}
						if c.Wrote > c.Read && k.maxKeys == 0 {
							t.Fatalf("step %d: %+v", step, c)
						}
						if k.maxKeys > 0 && c.Keys > k.maxKeys+15 { // an entry has 15 records at most
							t.Fatalf("step %d: %d keys remembered, at most %d", step, c.Keys, k.maxKeys)
						}
					}
				case p < 85:
					k.clock = k.clock.Add(time.Duration(k.r.IntN(3)) * tombstoneTime)
				case p < 90:
					what, err = "roll", k.l.Roll()
				case p < 93:
					what = "drop"
					_, err = k.l.Drop(k.l.StartOffset()+k.r.Int64N(max(1, (k.l.EndOffset()-k.l.StartOffset())/4)), k.l.NextIndex()-1)
				default:
					what = "reopen"
					if err = k.l.Close(k.r.IntN(2) == 0); err == nil {
						err = k.open()
					}
				}
				if err == nil {
					err = k.check(k.l)
				}
				if err != nil {
					t.Fatalf("step %d, %s: %v", step, what, err)
				}
			}
			if compactions == 0 {
				t.Error("nothing was ever compacted")
			}
			k.l.Close(true)
		})
	}
}

// Deleted keys stay readable as such for delete.retention.ms, and go then.
func TestTombstonesGoAfterTheirTime(t *testing.T) {
	k := newKeyedLog(t, t.TempDir(), 1, fastFS{segment.OS})
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	tombstones := func() (n int) {
		all, err := readRecords(k.l)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if k.written[r.Offset].Value == nil && r.Offset < 40 {
				n++
			}
		}
		return n
	}
	step := func() {
		t.Helper()
		if err := k.update(1000); err != nil { // keys of their own, so that there is something to compact
			t.Fatal(err)
		}
		if err := k.l.Roll(); err != nil {
			t.Fatal(err)
		}
		if _, err := k.compact(); err != nil {
			t.Fatal(err)
		}
	}
	for k.l.EndOffset() < 40 {
		if err := k.update(1000); err != nil {
			t.Fatal(err)
		}
	}
	before := tombstones()
	step()
	step()
	k.clock = k.clock.Add(tombstoneTime / 2)
	step()
	if n := tombstones(); before == 0 || n < before-5 { // a key may have come again
		t.Errorf("%d tombstones of %d are there before their time", n, before)
	}
	k.clock = k.clock.Add(tombstoneTime)
	step()
	if n := tombstones(); n > 0 {
		t.Errorf("%d tombstones are there after their time", n)
	}
}

// A log of many updates to few keys ends up as small as its keys.
func TestCompactedLogIsSmall(t *testing.T) {
	k := newKeyedLog(t, t.TempDir(), 2, fastFS{segment.OS})
	k.cfg.SegmentBytes = 64 << 10
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	for range 5000 {
		if err := k.update(20); err != nil {
			t.Fatal(err)
		}
	}
	if err := k.l.Roll(); err != nil {
		t.Fatal(err)
	}
	if err := k.update(20); err != nil {
		t.Fatal(err)
	}
	before := k.l.Size()
	c, err := k.compact()
	if err != nil {
		t.Fatal(err)
	}
	if err := k.check(k.l); err != nil {
		t.Fatal(err)
	}
	if after := k.l.Size(); after > before/50 || c.Kept > 20 {
		t.Errorf("%d bytes of %d are left, %+v", after, before, c)
	}
}

// A segment with more keys than may be remembered is compacted in as many passes
// as it takes, and none of them remembers more.
func TestCompactionRemembersNoMoreKeysThanItMay(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "p"), Config{FS: fastFS{segment.OS}, SegmentBytes: 64 << 20})
	const most, entries, each = 20_000, 150, 800 // an entry may be taken whole beyond most
	store := func(n int, of func(i int) record.Record) {
		t.Helper()
		var bu record.Builder
		for i := range n {
			bu.Append(of(i))
		}
		b, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.StoreLog(&raft.Log{Index: l.NextIndex(), Term: 1, Type: raft.LogCommand, Data: b}); err != nil {
			t.Fatal(err)
		}
	}
	// Each key twice: first all of them, then all of them again.
	last := map[string]int64{}
	for n := range 2 * entries {
		base := l.EndOffset()
		store(each, func(i int) record.Record {
			key := fmt.Sprint(n%entries, "-", i)
			last[key] = base + int64(i)
			return record.Record{Key: []byte(key), Value: []byte("v"), Timestamp: testClock}
		})
	}
	if err := l.Roll(); err != nil {
		t.Fatal(err)
	}
	store(1, func(int) record.Record { return record.Record{Key: []byte("x"), Timestamp: testClock} })
	entriesBefore := l.NextIndex()
	passes := 0
	for ; ; passes++ {
		done, err := l.Compact(t.Context(), Compaction{MaxIndex: l.NextIndex() - 1, Limit: l.EndOffset(), MaxKeys: most})
		if err != nil {
			t.Fatal(err)
		}
		if done.Segments == 0 {
			break
		}
		if done.Keys > most || done.Keys == 0 {
			t.Fatalf("pass %d remembered %d keys, at most %d", passes, done.Keys, most)
		}
		if first, _ := l.FirstIndex(); first > entriesBefore-1 {
			t.Fatalf("pass %d: the first entry is %d", passes, first)
		}
	}
	if want := 2 * entries * each / most; passes < want || passes > want+2 {
		t.Errorf("%d passes for %d times %d keys", passes, want, most)
	}
	all, err := readRecords(l)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != len(last)+1 {
		t.Errorf("%d records are left of %d keys", len(all), len(last)+1)
	}
	for _, r := range all[:len(all)-1] {
		if last[string(r.Key)] != r.Offset {
			t.Fatalf("%s is left at %d, its last is at %d", r.Key, r.Offset, last[string(r.Key)])
		}
	}
	if err := l.Verify(0); err != nil {
		t.Error(err)
	}
}

// Where a segment is cut between two terms, what comes before ends in the first one.
func TestACompactionCutBetweenTermsKeepsBoth(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "p"), Config{FS: fastFS{segment.OS}})
	store := func(term uint64, key string) {
		t.Helper()
		var bu record.Builder
		bu.Append(record.Record{Key: []byte(key), Value: []byte("v"), Timestamp: testClock})
		b, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		if err := l.StoreLog(&raft.Log{Index: l.NextIndex(), Term: term, Type: raft.LogCommand, Data: b}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range []string{"a", "b", "a", "b"} {
		store(1, key)
	}
	store(2, "c")
	if err := l.Roll(); err != nil {
		t.Fatal(err)
	}
	store(2, "d")
	if _, err := l.Compact(t.Context(), Compaction{MaxIndex: l.NextIndex() - 1, Limit: l.EndOffset(), MaxKeys: 2}); err != nil {
		t.Fatal(err)
	}
	segments := l.state.Load().segments
	if len(segments) != 3 || len(l.state.Load().base()) != 1 {
		t.Fatalf("%d segments, %d of them compacted", len(segments), len(l.state.Load().base()))
	}
	before, after := segments[0].Info(), segments[1].Info()
	if before.LastTerm != 1 || after.PrevTerm != 1 || after.LastTerm != 2 {
		t.Errorf("cut into %+v and %+v", before, after)
	}
}

func TestKeyTable(t *testing.T) {
	for _, most := range []int{1, 2, 1000, 5000} {
		table, model := keyTable{max: most}, map[keyHash]int64{}
		r := rand.New(rand.NewPCG(uint64(most), 1))
		bytes := 0
		for i := range int64(20_000) {
			h := keyHash{r.Uint64N(uint64(2*most)) << r.IntN(60), r.Uint64N(2)}
			_, known := model[h]
			old := len(table.slots)
			if ok := table.put(h, i, false); ok != (known || len(model) < most) {
				t.Fatalf("%d of %d keys, known %v: put says %v", len(model), most, known, ok)
			} else if ok {
				model[h] = i
			}
			if len(table.slots) > old {
				bytes = max(bytes, 24*(old+len(table.slots))) // both are there for a moment
			}
		}
		if most >= 1000 && bytes > KeyBytes*most*51/50 {
			t.Errorf("%d keys took %d bytes, %d each", most, bytes, bytes/most)
		}
		for h, want := range model {
			if got, ok := table.get(h); !ok || got != want {
				t.Fatalf("key %v is at %d, %v, want %d", h, got, ok, want)
			}
		}
		if _, ok := table.get(keyHash{1, 99}); ok || table.n != len(model) {
			t.Errorf("%d keys, want %d", table.n, len(model))
		}
		for i := range uint64(3000) { // an entry that is taken whole
			if !table.put(keyHash{i << 40, 7}, int64(i), true) {
				t.Fatal("refused")
			}
		}
		if got, ok := table.get(keyHash{2999 << 40, 7}); !ok || got != 2999 {
			t.Errorf("got %d, %v", got, ok)
		}
	}
}

// S41: power is lost before each operation on a file, from the first compaction on: what
// comes before it is TestCrash's.
func TestCrashDuringCompactionIsHarmless(t *testing.T) { crashDuringCompaction(t, 0, 0) }

// The same where the dirty segment is cut in two.
func TestCrashDuringACutCompactionIsHarmless(t *testing.T) { crashDuringCompaction(t, 3, 0) }

// The same while the log is appended to, synced, checkpointed and rolled.
func TestCrashBesideACompactionIsHarmless(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 3
	}
	crashDuringCompaction(t, 0, every)
}

// crashDuringCompaction has a bystander call after so many operations of a compaction; 0: none.
func crashDuringCompaction(t *testing.T, maxKeys, every int) {
	images, cuts, first := 0, 0, 0
	for stop := math.MaxInt; ; stop++ { // the first run ends without a crash
		fs := newCrashFS(stop)
		root := filepath.Join(memDir(t), fmt.Sprint(stop))
		k := newKeyedLog(t, filepath.Join(root, "p"), 3, fs)
		k.cfg.SegmentBytes, k.maxKeys = 1500, maxKeys
		if err := os.MkdirAll(k.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		err := k.open()
		for range 2 {
			for i := 0; err == nil && i < 14; i++ {
				err = k.update(6)
			}
			if err == nil && first == 0 {
				first = fs.ops
			}
			if err == nil && every == 0 {
				_, err = k.compact()
			} else if err == nil {
				b := &bystander{k: k, every: every}
				err = errors.Join(k.compactBeside(fs, b), errors.Join(b.errs...))
				if stop == math.MaxInt && b.calls < bystanderCalls {
					t.Fatalf("only %d calls beside a compaction", b.calls)
				}
			}
			if err == nil {
				if s := k.l.state.Load(); len(s.base()) > 0 && len(s.sealed()) > len(s.base()) {
					cuts++
				}
			}
		}
		if k.l != nil {
			k.l.Close(false)
		}
		crashed := fs.ops >= stop
		if err != nil && !crashed {
			t.Fatal(err)
		}
		for name, fate := range fates(uint64(stop)) {
			target := filepath.Join(memDir(t), "image")
			if !fs.powerLoss(t, root, target, fate) {
				continue
			}
			images++
			after := *k
			after.dir, after.cfg.FS = filepath.Join(target, "p"), fastFS{segment.OS}
			if err := os.MkdirAll(after.dir, 0o755); err != nil {
				t.Fatal(err)
			}
			where := fmt.Sprintf("crash before operation %d, %s; the last were %v", stop, name, fs.trace[max(0, len(fs.trace)-6):])
			if err := after.open(); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			if err := after.check(after.l); err != nil {
				t.Fatalf("%s: %v", where, err)
			}
			end := int64(0)
			for _, o := range k.last {
				end = max(end, o+1)
			}
			if after.l.EndOffset() < end {
				t.Fatalf("%s: the log ends at %d, acknowledged was %d", where, after.l.EndOffset(), end)
			}
			if _, err := after.compact(); err != nil {
				t.Fatalf("%s: compact again: %v", where, err)
			}
			if err := after.check(after.l); err != nil {
				t.Fatalf("%s: compacted again: %v", where, err)
			}
			listedFiles := map[string]bool{}
			for _, s := range after.l.state.Load().segments {
				listedFiles[s.Path()] = true
			}
			files, err := filepath.Glob(filepath.Join(after.dir, "*.log"))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if !listedFiles[f] {
					t.Fatalf("%s: %s was left behind", where, f)
				}
			}
			after.l.Close(false)
			os.RemoveAll(target)
		}
		os.RemoveAll(root)
		switch {
		case stop == math.MaxInt:
			stop = first - 1
		case !crashed:
			t.Logf("operations %d to %d, %d images", first, stop, images)
			if maxKeys > 0 && cuts == 0 {
				t.Error("no segment was cut")
			}
			return
		}
	}
}

// A replica that is far behind gets what a compacted log has, and goes on.
func TestCompactedLogIsStagedAndInstalled(t *testing.T) {
	for _, last := range []bool{false, true} {
		k := newKeyedLog(t, t.TempDir(), 4, fastFS{segment.OS})
		if err := k.open(); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			if err := k.update(10); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.l.Roll(); err != nil {
			t.Fatal(err)
		}
		if last { // else the plan ends with what was compacted
			if err := k.update(10); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.compact(); err != nil {
			t.Fatal(err)
		}
		plan := k.l.Plan()
		if first, _ := k.l.FirstIndex(); last && plan.FirstIndex() != first {
			t.Errorf("the plan begins at entry %d, the log at %d", plan.FirstIndex(), first)
		}
		dir := filepath.Join(t.TempDir(), "copy")
		staging, err := Stage(dir, testID, plan, k.cfg)
		if err != nil {
			t.Fatal(err)
		}
		for {
			first, at, n, ok := staging.Next()
			if !ok {
				break
			}
			p := make([]byte, min(n, 700))
			got, err := k.l.ReadSegment(first, at, p)
			if got == 0 {
				t.Fatal(err)
			}
			if err := staging.Write(first, at, p[:got]); err != nil {
				t.Fatal(err)
			}
		}
		if err := Install(dir, testID, staging.Dir(), k.cfg); err != nil {
			t.Fatal(err)
		}
		copied, err := Open(dir, testID, k.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.check(copied); err != nil {
			t.Errorf("the copy: %v", err)
		}
		if copied.NextIndex() != plan.EndIndex || copied.EndOffset() != plan.EndOffset {
			t.Errorf("the copy goes on at %d, %d; the plan ends at %d, %d", copied.NextIndex(), copied.EndOffset(), plan.EndIndex, plan.EndOffset)
		}
		for i := plan.EndIndex; i < k.l.NextIndex(); i++ {
			var e raft.Log
			if err := k.l.GetLog(i, &e); err != nil {
				t.Fatal(err)
			}
			if err := copied.StoreLog(&e); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.check(copied); err != nil {
			t.Errorf("the copy with what followed: %v", err)
		}
		copied.Close(true)
		k.l.Close(true)
	}
}

// What Raft asks of a compacted log: its entries begin behind what was rewritten.
func TestRaftSeesNoCompactedEntry(t *testing.T) {
	k := newKeyedLog(t, t.TempDir(), 5, fastFS{segment.OS})
	k.cfg.Cache = NewCache(1)
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if err := k.update(10); err != nil {
			t.Fatal(err)
		}
	}
	half := k.l.NextIndex() / 2
	if _, err := k.l.Compact(t.Context(), Compaction{MaxIndex: half, Limit: math.MaxInt64}); err != nil {
		t.Fatal(err)
	}
	first, err := k.l.FirstIndex()
	if err != nil || first > half+1 || first < 3 {
		t.Fatalf("first index %d, %v; the snapshot is at %d", first, err, half)
	}
	for i := range k.l.NextIndex() + 2 {
		var e raft.Log
		err := k.l.GetLog(i, &e)
		if there := i >= first && i < k.l.NextIndex(); there != (err == nil) || !there && !errors.Is(err, raft.ErrLogNotFound) {
			t.Errorf("entry %d of [%d,%d): %v", i, first, k.l.NextIndex(), err)
		}
	}
	if _, err := k.l.OffsetOf(first - 1); err != nil {
		t.Errorf("the offset behind entry %d: %v", first-1, err)
	}
	if _, err := k.l.OffsetOf(first - 2); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("the offset behind entry %d: %v", first-2, err)
	}
	// All of it: then the snapshot alone speaks for it.
	if err := k.l.Roll(); err != nil {
		t.Fatal(err)
	}
	if _, err := k.compact(); err != nil {
		t.Fatal(err)
	}
	if first, last := rangeOf(k.l); first != 0 || last != 0 {
		t.Errorf("entries [%d,%d] are left", first, last)
	}
	if err := k.check(k.l); err != nil {
		t.Error(err)
	}
}

func rangeOf(l *Log) (first, last uint64) {
	first, _ = l.FirstIndex()
	last, _ = l.LastIndex()
	return first, last
}

// Readers, appends and compaction beside one another.
func TestReadersDoNotNoticeCompaction(t *testing.T) {
	k := newKeyedLog(t, t.TempDir(), 6, fastFS{segment.OS})
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if err := k.update(10); err != nil {
			t.Fatal(err)
		}
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Add(1)
		go func() { // a reader: ends with stop
			defer readers.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				previous := int64(-1)
				all, err := readRecords(k.l)
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range all {
					if r.Offset <= previous {
						t.Errorf("offset %d after %d", r.Offset, previous)
					}
					previous = r.Offset
				}
			}
		}()
	}
	rounds := 60
	if testing.Short() {
		rounds = 15
	}
	for range rounds {
		for range 10 {
			if err := k.update(10); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := k.compact(); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	readers.Wait()
	if err := k.check(k.l); err != nil {
		t.Error(err)
	}
}

// A batch that nobody here can read ends neither compaction nor look-ups by time:
// it stays, with what its header says, and the rest goes on. Nothing that the
// gate lets in is such a batch; an earlier version may have left one.
func TestCompactionKeepsUnreadableBatches(t *testing.T) {
	l := mustOpen(t, filepath.Join(t.TempDir(), "p"), Config{FS: fastFS{segment.OS}})
	build := func(at int64, keys ...string) record.Batch {
		var bu record.Builder
		for _, k := range keys {
			bu.Append(record.Record{Key: []byte(k), Value: []byte("v"), Timestamp: at})
		}
		b, err := bu.Batch()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	store := func(b record.Batch) {
		t.Helper()
		if err := l.StoreLog(&raft.Log{Index: l.NextIndex(), Term: 1, Type: raft.LogCommand, Data: b}); err != nil {
			t.Fatal(err)
		}
	}
	store(build(testClock, "a", "b"))
	bad := build(testClock+10, "a", "b", "c") // offsets 2 to 4
	bad[22] |= 6                              // a codec that nobody knows
	bad.SetAppendTime(testClock + 10)         // and its checksum right
	store(bad)
	store(build(testClock+5, "a", "d"))
	if err := l.Roll(); err != nil {
		t.Fatal(err)
	}
	store(build(testClock+7, "e"))
	check := func() {
		t.Helper()
		for _, tt := range []struct{ at, offset, found int64 }{
			{testClock, 0, testClock}, {testClock + 1, 2, testClock + 10}, {testClock + 6, 2, testClock + 10}, {testClock + 11, -1, 0},
		} {
			offset, found, ok, err := l.OffsetAt(tt.at, l.EndOffset())
			if err != nil || ok != (tt.offset >= 0) || ok && (offset > tt.offset || found != tt.found) {
				t.Errorf("OffsetAt(%d) = %d, %d, %v, %v; want %d, %d", tt.at-testClock, offset, found-testClock, ok, err, tt.offset, tt.found-testClock)
			}
		}
		if offset, latest, err := l.MaxTimestamp(l.EndOffset()); offset != 2 || latest != testClock+10 || err != nil {
			t.Errorf("MaxTimestamp: %d, %d, %v", offset, latest-testClock, err)
		}
	}
	check()
	for range 2 {
		done, err := l.Compact(t.Context(), Compaction{MaxIndex: l.NextIndex() - 1, Limit: l.EndOffset()})
		if err != nil || done.Unreadable != 1 || !errors.Is(done.Problem, record.ErrCodec) {
			t.Fatalf("%+v, %v", done, err)
		}
		v, err := l.Read(2, 5, 1<<20)
		if err != nil || v.Len() == 0 {
			t.Fatal(v, err)
		}
		kept := record.Batch(v.Bytes[0])
		if want := bad; kept.BaseOffset() > 2 || !strings.Contains(string(v.Bytes[0]), string(want[record.HeaderSize:])) {
			t.Errorf("%x is not among %x", want, v.Bytes[0])
		}
		v.Release()
		if err := l.Roll(); err != nil {
			t.Fatal(err)
		}
		store(build(testClock+7, "e"))
	}
	offset, _, ok, err := l.OffsetAt(testClock+1, l.EndOffset())
	if offset != 2 || !ok || err != nil {
		t.Errorf("OffsetAt after compaction: %d, %v, %v", offset, ok, err)
	}
}

// A tombstone of a time long ago, counted from a delete horizon.
func TestTombstonesOfAnyTimeAreCompacted(t *testing.T) {
	for _, at := range []int64{math.MinInt64, math.MinInt64 + 1, -1, 0, math.MaxInt64} {
		l := mustOpen(t, filepath.Join(t.TempDir(), "p"), Config{FS: fastFS{segment.OS}})
		store := func(r record.Record) {
			t.Helper()
			b, err := record.Build(record.None, r)
			if err != nil {
				t.Fatal(err)
			}
			if b, err = record.Validate(b, -1); err != nil {
				t.Fatal(err)
			}
			if err := l.StoreLog(&raft.Log{Index: l.NextIndex(), Term: 1, Type: raft.LogCommand, Data: b}); err != nil {
				t.Fatal(err)
			}
		}
		store(record.Record{Key: []byte("k"), Value: []byte("v"), Timestamp: testClock})
		store(record.Record{Key: []byte("k"), Timestamp: at})
		for range 3 {
			if err := l.Roll(); err != nil {
				t.Fatal(err)
			}
			store(record.Record{Key: []byte("other"), Value: []byte("v"), Timestamp: testClock})
			done, err := l.Compact(t.Context(), Compaction{MaxIndex: l.NextIndex() - 1, Limit: l.EndOffset(), DeleteRetention: 24 * time.Hour})
			if err != nil || done.Segments == 0 || done.Unreadable > 0 {
				t.Fatalf("a tombstone of %d: %+v, %v", at, done, err)
			}
			all, err := readRecords(l)
			if err != nil || len(all) == 0 || all[0].Timestamp != at || all[0].Value != nil {
				t.Fatalf("a tombstone of %d: %v, %v", at, all, err)
			}
		}
		if _, _, err := l.MaxTimestamp(l.EndOffset()); err != nil {
			t.Error(err)
		}
	}
}

// TestACompactedLogWithoutEntriesKnowsItsEnd: when a lost election takes all that was not
// compacted, no segment says where the log goes on. The manifest does, to who inspects it too.
func TestACompactedLogWithoutEntriesKnowsItsEnd(t *testing.T) {
	k := newKeyedLog(t, filepath.Join(t.TempDir(), "p"), 3, fastFS{segment.OS})
	k.cfg.SegmentBytes = 1500
	if err := k.open(); err != nil {
		t.Fatal(err)
	}
	for range 14 {
		if err := k.update(6); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := k.compact(); err != nil {
		t.Fatal(err)
	}
	first, _ := k.l.FirstIndex()
	last, _ := k.l.LastIndex()
	base, err := k.l.OffsetOf(first - 1)
	if err == nil {
		err = k.l.DeleteRange(first, last)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, opened := range []bool{false, true} {
		if opened {
			if err := errors.Join(k.l.Close(true), k.open()); err != nil {
				t.Fatal(err)
			}
		}
		plan := k.l.Plan()
		if got, _ := k.l.LastIndex(); got != 0 || k.l.NextIndex() != first || k.l.EndOffset() != base || plan.EndIndex != first || plan.FirstIndex() != first {
			t.Fatalf("last %d, next %d at offset %d, plan %+v; want %d at %d", got, k.l.NextIndex(), k.l.EndOffset(), plan, first, base)
		}
		sum, err := Inspect(segment.OS, k.dir, func(*segment.Frame) error { return nil }, func(e *segment.CorruptError) error { return e })
		if err != nil || sum.NextIndex != first || sum.EndOffset != base {
			t.Fatalf("inspected: %+v, %v; want %d at %d", sum, err, first, base)
		}
	}
	if err := k.l.StoreLog(command(t, first, 9, "on")); err != nil {
		t.Fatal(err)
	}
}

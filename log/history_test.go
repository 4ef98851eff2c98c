package log

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
	"millrace/segment/record"
)

// TestRandomHistoriesAgreeWithAModel does what Raft and retention may do, in any
// order, and compares everything the log answers with a slice of entries.
func TestRandomHistoriesAgreeWithAModel(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			randomHistory(t, rand.New(rand.NewPCG(uint64(seed), 99)), 120)
		})
	}
}

func randomHistory(t *testing.T, r *rand.Rand, steps int) {
	sizes := []int64{700, 2 << 10, 10 << 10, 1 << 20}
	s := &story{t: t, root: t.TempDir()}
	s.cfg = Config{FS: fastFS{segment.OS}, SegmentBytes: sizes[r.IntN(len(sizes))], Cache: NewCache(int64(r.IntN(20 << 10)))}
	s.now.first = 1
	if err := s.openLog(); err != nil {
		t.Fatal(err)
	}
	term, committed := uint64(1), uint64(0)
	var did []string
	for range steps {
		var err error
		switch p := r.IntN(100); {
		case p < 55:
			var shape [][2]int
			for range 1 + r.IntN(4) {
				switch r.IntN(10) {
				case 0:
					shape = append(shape, [2]int{})
				case 1:
					shape = append(shape, [2]int{1 + r.IntN(3), r.IntN(4000)})
				default:
					shape = append(shape, [2]int{1 + r.IntN(4), r.IntN(200)})
				}
			}
			if r.IntN(6) == 0 {
				term += 1 + r.Uint64N(3)
			}
			did = append(did, fmt.Sprintf("store %d %v", term, shape))
			err = s.store(term, shape...)
		case p < 65: // a suffix lost an election
			if last := s.now.last(); last > committed && last >= s.now.first {
				from := max(committed+1, s.now.first) + r.Uint64N(last-max(committed, s.now.first-1))
				did = append(did, fmt.Sprintf("cut %d", from))
				err = s.cut(from)
				term++
			}
		case p < 75:
			committed += r.Uint64N(s.now.last() - committed + 1)
			s.l.SetCommitted(committed)
			did = append(did, fmt.Sprintf("commit %d", committed))
		case p < 82:
			if committed >= s.now.first {
				i := s.now.first + r.Uint64N(committed-s.now.first+1)
				did = append(did, fmt.Sprintf("drop %d", i+1))
				err = s.drop(i + 1)
			}
		case p < 86:
			did = append(did, "roll")
			err = s.roll()
		case p < 90:
			c := s.cfg
			c.SegmentBytes = sizes[r.IntN(len(sizes))]
			s.l.Configure(c)
			s.cfg = c
		default:
			clean := r.IntN(2) == 0
			did = append(did, fmt.Sprintf("close %t", clean))
			err = errors.Join(s.closeLog(clean), s.openLog())
			s.l.SetCommitted(committed)
		}
		if err == nil {
			err = s.compare(r)
		}
		if err != nil {
			t.Fatalf("after %s:\n%v", strings.Join(did, "\n"), err)
		}
	}
}

// compare asks the log everything and the model the same.
func (s *story) compare(r *rand.Rand) error {
	got, err := observe(s.l)
	if err != nil {
		return err
	}
	m := s.now
	if len(m.entries) == 0 {
		got.first, got.base = m.first, m.base // an empty log does not say
	}
	if wrong := got.within(m, m, false); wrong != "" || got.last() != m.last() || got.base != m.base {
		return fmt.Errorf("last %d base %d, want %d %d: %s", got.last(), got.base, m.last(), m.base, wrong)
	}
	type rec struct {
		offset, timestamp int64
		epoch             int32
	}
	var records []rec
	var epochs []Epoch
	at := m.base
	for i := range m.entries {
		e := &m.entries[i]
		epochs = addEpoch(epochs, e.Term, at)
		if o, err := s.l.OffsetOf(e.Index - 1); err != nil || o != at {
			return fmt.Errorf("offset before entry %d: %d, want %d, %v", e.Index, o, at, err)
		}
		if e.Type != raft.LogCommand {
			continue
		}
		for _, b := range batches(e.Data) {
			for x, err := range b.Records() {
				if err != nil {
					return err
				}
				if x.Offset >= m.start {
					records = append(records, rec{x.Offset, x.Timestamp, b.Epoch()})
				}
			}
		}
		at += span(e)
	}
	if s.l.EndOffset() != at {
		return fmt.Errorf("end %d, want %d", s.l.EndOffset(), at)
	}
	limit := m.start
	if at > m.start {
		limit += r.Int64N(at - m.start + 1)
	}
	// Read to a limit between two batches.
	for i := range m.entries {
		e := &m.entries[i]
		if e.Type == raft.LogCommand {
			for _, b := range batches(e.Data) {
				if b.BaseOffset() < limit && b.NextOffset() > limit {
					limit = b.NextOffset()
				}
			}
		}
	}
	next := m.start
	for next < limit {
		v, err := s.l.Read(next, limit, r.IntN(3000))
		if err != nil {
			return err
		}
		p := bytes.Join(v.Bytes, nil)
		after := v.Next
		v.Release()
		from := next
		for _, b := range batches(p) {
			if b.Check() != nil || b.BaseOffset() > next || b.NextOffset() <= next {
				return fmt.Errorf("read %d: batch [%d,%d) where %d is next", from, b.BaseOffset(), b.NextOffset(), next)
			}
			next = b.NextOffset()
		}
		if after != next || next == from {
			return fmt.Errorf("read %d of %d: next %d, says %d", from, limit, next, after)
		}
	}
	if v, err := s.l.Read(limit, limit, 100); err != nil || v.Len() != 0 || v.Next != limit {
		return fmt.Errorf("read at the limit %d: %v", limit, err)
	}
	for _, o := range []int64{m.start - 1, limit + 1} {
		if _, err := s.l.Read(o, limit, 100); !errors.Is(err, ErrOutOfRange) {
			return fmt.Errorf("read %d of [%d,%d): %v", o, m.start, limit, err)
		}
	}
	// Timestamps.
	for range 4 {
		ts := int64(testClock - 1)
		if len(records) > 0 {
			ts = records[r.IntN(len(records))].timestamp + int64(r.IntN(3)) - 1
		}
		if r.IntN(5) == 0 {
			ts = -1 - r.Int64N(5)
		}
		want, newest := rec{offset: -1}, rec{offset: -1, timestamp: -1}
		for _, x := range records {
			if x.offset >= limit {
				break
			}
			if want.offset < 0 && x.timestamp >= ts {
				want = x
			}
			if x.timestamp > newest.timestamp {
				newest = x
			}
		}
		o, f, ok, err := s.l.OffsetAt(ts, limit)
		if err != nil || ok != (want.offset >= 0) || ok && (o != want.offset || f != want.timestamp) {
			return fmt.Errorf("offset at %d below %d: %d %d %t, want %+v, %v", ts, limit, o, f, ok, want, err)
		}
		o, f, err = s.l.MaxTimestamp(limit)
		if err != nil || o != newest.offset || f != newest.timestamp {
			return fmt.Errorf("max timestamp below %d: %d %d, want %+v, %v", limit, o, f, newest, err)
		}
	}
	// Epochs.
	for _, x := range records {
		if e := s.l.EpochAt(x.offset); e != x.epoch {
			return fmt.Errorf("epoch at %d: %d, want %d; %v", x.offset, e, x.epoch, s.l.Epochs())
		}
	}
	epochs = trimEpochs(epochs, m.start)
	table := s.l.Epochs()
	if len(table) < len(epochs) || fmt.Sprint(table[len(table)-len(epochs):]) != fmt.Sprint(epochs) {
		return fmt.Errorf("epochs %v, want %v", table, epochs)
	}
	return nil
}

// TestRetentionPastAnUncommittedSuffix is S39: a follower holds a suffix of sealed
// segments that lost its election, and is told to drop what lies beyond the
// divergence before and after it has learnt so.
func TestRetentionPastAnUncommittedSuffix(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	cfg := Config{SegmentBytes: 1 << 10, FS: fastFS{segment.OS}}
	l := mustOpen(t, dir, cfg)
	big := strings.Repeat("o", 300)
	store := func(index, term uint64) {
		t.Helper()
		if err := l.StoreLog(command(t, index, term, big)); err != nil {
			t.Fatal(err)
		}
	}
	for i := uint64(1); i <= 10; i++ {
		store(i, 1)
	}
	for i := uint64(11); i <= 60; i++ { // nobody else has these
		store(i, 2)
	}
	// A snapshot at 8 is all that is known to be committed here: the start moves as
	// far as a trim entry says, the segments that Raft needs stay.
	if _, err := l.Drop(10, 8); err != nil {
		t.Fatal(err)
	}
	if n := l.NextIndex(); n != 61 {
		t.Fatal(n)
	}
	for i := uint64(9); i <= 60; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			t.Fatalf("entry %d went: %v", i, err)
		}
	}
	l.SetCommitted(10)
	if err := l.DeleteRange(11, 60); err != nil {
		t.Fatal(err)
	}
	for i := uint64(11); i <= 30; i++ {
		store(i, 3)
	}
	l.SetCommitted(30)
	if n, err := l.Drop(25, 30); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	check := func() {
		t.Helper()
		m, err := observe(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range m.entries {
			if e.Index > 10 && e.Term != 3 {
				t.Fatalf("entry %d of term %d came back", e.Index, e.Term)
			}
		}
		if m.start != 25 || m.last() != 30 || l.EndOffset() != 30 {
			t.Fatalf("%d %d %d", m.start, m.last(), l.EndOffset())
		}
		if got := readAll(t, l, 25, 30); len(got) != 5 {
			t.Fatal(got)
		}
	}
	check()
	l.Close(false)
	l = mustOpen(t, dir, cfg)
	check()
	// The old suffix's files are gone.
	paths := logFiles(t, dir)
	if len(paths) != len(l.state.Load().segments) {
		t.Fatalf("%d files for %d segments", len(paths), len(l.state.Load().segments))
	}
}

// TestPrefixOfALargeSegmentHasTheRightTimes exercises the time index of a segment
// that is cut: look-ups behind the cut must not be led there.
func TestPrefixOfALargeSegmentHasTheRightTimes(t *testing.T) {
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fastFS{segment.OS}})
	value := strings.Repeat("v", 10_000)
	newest := map[uint64]int64{}
	top := int64(-1)
	for i := uint64(1); i <= 200; i++ { // 2 MB: some thirty entries of the time index
		ts := testClock + int64(i*7919%1000)
		e := &raft.Log{Index: i, Term: 1, Data: batch(t, ts, value)}
		if err := l.StoreLog(e); err != nil {
			t.Fatal(err)
		}
		top = max(top, ts)
		newest[i] = top
	}
	for _, n := range []uint64{199, 150, 100, 99, 31, 7, 1} {
		if err := l.DeleteRange(n+1, l.NextIndex()-1); err != nil {
			t.Fatal(err)
		}
		if _, ts, err := l.MaxTimestamp(math.MaxInt64); err != nil || ts != newest[n] {
			t.Fatalf("%d entries: %d, want %d, %v", n, ts, newest[n], err)
		}
		if got := l.Sealed()[0].MaxTimestamp; got != newest[n] {
			t.Fatalf("%d entries: info %d, want %d", n, got, newest[n])
		}
		if _, _, ok, err := l.OffsetAt(newest[n]+1, math.MaxInt64); ok || err != nil {
			t.Fatal(n, ok, err)
		}
		for _, p := range segment.Paths(logFiles(t, l.Dir())[0])[1:] {
			os.Remove(p) // the tables are in memory, or rebuilt after the next cut
		}
	}
}

// TestAppendTimeIsLookedUpByTheBatch: with LogAppendTime every record of a batch has
// the batch's timestamp.
func TestAppendTimeIsLookedUpByTheBatch(t *testing.T) {
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fastFS{segment.OS}})
	b := batch(t, testClock, "a", "b", "c")
	b.SetAppendTime(testClock + 500)
	if err := l.StoreLog(&raft.Log{Index: 1, Term: 1, Data: b}); err != nil {
		t.Fatal(err)
	}
	if o, ts, ok, err := l.OffsetAt(testClock+1, 3); err != nil || !ok || o != 0 || ts != testClock+500 {
		t.Fatal(o, ts, ok, err)
	}
}

// TestCompressedBatchesAreSearchedRecordByRecord.
func TestCompressedBatchesAreSearchedRecordByRecord(t *testing.T) {
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fastFS{segment.OS}})
	for i, c := range []record.Codec{record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
		var rs []record.Record
		for j := range 50 {
			rs = append(rs, record.Record{Timestamp: testClock + int64(100*i+2*j), Value: []byte("value")})
		}
		b, err := record.Build(c, rs...)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.StoreLog(&raft.Log{Index: uint64(i + 1), Term: 1, Data: b}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		o, ts, ok, err := l.OffsetAt(testClock+int64(100*i+31), 200)
		if err != nil || !ok || o != int64(50*i+16) || ts != testClock+int64(100*i+32) {
			t.Fatal(o, ts-testClock, ok, err)
		}
	}
	if o, ts, err := l.MaxTimestamp(75); err != nil || o != 74 || ts != testClock+148 {
		t.Fatal(o, ts-testClock, err)
	}
}

// A snapshotting owner uses its log when it has rolled.
type snapshotting struct {
	owner
	t      *testing.T
	l      *Log
	rolled []uint64
}

func (o *snapshotting) LogRolled(last uint64) {
	if _, err := o.l.LastIndex(); err != nil {
		o.t.Error(err)
	}
	if err := o.l.Checkpoint(); err != nil { // nothing is locked
		o.t.Error(err)
	}
	o.rolled = append(o.rolled, last)
}

func TestSegmentsRollByAgeAndSettingsChange(t *testing.T) {
	now := time.UnixMilli(testClock)
	owner := &snapshotting{t: t}
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fastFS{segment.OS}, Now: func() time.Time { return now }, SegmentAge: time.Hour, Owner: owner})
	owner.l = l
	if err := l.StoreLogs([]*raft.Log{noop(1, 1), command(t, 2, 1, "a")}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(59 * time.Minute)
	if did, err := l.RollIfDue(now); did || err != nil {
		t.Fatal(did, err)
	}
	l.Configure(Config{SegmentAge: 30 * time.Minute, SegmentBytes: 1 << 10})
	if did, err := l.RollIfDue(now); !did || err != nil {
		t.Fatal(did, err)
	}
	if err := l.StoreLog(command(t, 3, 1, strings.Repeat("b", 800))); err != nil {
		t.Fatal(err)
	}
	if err := l.StoreLog(command(t, 4, 1, strings.Repeat("b", 800))); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(owner.rolled) != "[2 3]" {
		t.Fatal(owner.rolled)
	}
}

// TestASegmentIsAsOldAsItsFirstEntry: a segment that has lain empty for long does not end
// with its first entry, one whose clock was set back does not wait until it is right
// again, and a restart makes no segment younger.
func TestASegmentIsAsOldAsItsFirstEntry(t *testing.T) {
	now := time.UnixMilli(testClock)
	dir := t.TempDir() + "/p"
	cfg := Config{FS: fastFS{segment.OS}, Now: func() time.Time { return now }, SegmentAge: time.Hour}
	l := mustOpen(t, dir, cfg)
	pass := func(d time.Duration, due bool) {
		t.Helper()
		now = now.Add(d)
		if did, err := l.RollIfDue(now); did != due || err != nil {
			t.Fatalf("after %v more: owner.rolled %v, %v, want %v", d, did, err, due)
		}
	}
	store := func() {
		t.Helper()
		if err := l.StoreLog(command(t, l.NextIndex(), 1, "a")); err != nil {
			t.Fatal(err)
		}
	}
	store()
	pass(time.Hour, true)
	pass(24*time.Hour, false) // empty
	store()
	pass(0, false)
	pass(59*time.Minute, false)
	store()
	pass(time.Minute, true)

	store()
	pass(-365*24*time.Hour, false)
	pass(59*time.Minute, false)
	pass(time.Minute, true)

	store()
	pass(30*time.Minute, false)
	if err := l.Close(true); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir, cfg)
	pass(29*time.Minute, false)
	pass(time.Minute, true)
}

// TestReserveCountsTheEntries: many small entries take more room than their data, and
// all of what is reserved must be there when the disk is full by then: Raft takes a full
// disk for a lost leadership.
func TestReserveCountsTheEntries(t *testing.T) {
	full := false
	l := mustOpen(t, t.TempDir()+"/p", Config{FS: fullFS{fastFS{segment.OS}, &full}, SegmentBytes: 4 << 20})
	if err := l.StoreLog(noop(1, 1)); err != nil {
		t.Fatal(err)
	}
	var logs []*raft.Log
	bytes := 0
	for bytes < 250<<10 { // room comes in powers of two, and the headers must need the next
		e := command(t, uint64(2+len(logs)), 1, "a")
		logs = append(logs, e)
		bytes += len(e.Data)
	}
	entries := len(logs)
	if err := l.Reserve(entries, bytes); err != nil {
		t.Fatal(err)
	}
	full = true
	for _, e := range logs {
		if err := l.StoreLog(e); err != nil {
			t.Fatalf("entry %d of %d: %v", e.Index, entries, err)
		}
	}
}

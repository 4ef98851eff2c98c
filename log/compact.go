package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"millrace/segment"
	"millrace/segment/record"
)

// Compaction keeps the last record of every key (cleanup.policy=compact). It
// rewrites the log's first segments, those that are compacted already and those
// that are not, into new ones, and puts them in their place with one manifest:
//
//	clean         dirty                        not yet
//	|====|====|   |----------|----------|      |-------|---...      before
//	|=======================|                  |-------|---...      after
//	                                     ^ MaxIndex
//
// Every record keeps its offset, every batch its range of offsets. Of Raft's
// entries nothing is kept: the new segments hold frames of several entries each,
// so the log's first index moves behind them, which is why only what a snapshot
// covers is rewritten. The last segment never is: it says where the log goes on.
//
// If the first dirty segment has more keys than may be remembered at once, it is
// cut in two where they end. What comes before is compacted; what follows is copied
// as it is, entry by entry, into a segment of its own, the next to be compacted:
//
//	clean         dirty
//	|====|====|   |----------------------|      before
//	|================|  |----------------|      after
//	                 ^ the first entry with a key too many
//
// What is remembered of keys behind the cut does no harm: the records that made
// the others superfluous stay.
//
// Names of new files stand among the manifest's removed ones until the switch,
// so whatever a crash leaves, the next Open deletes it: the old segments or the
// new ones.

// A Compaction says how far and by what rules a log is compacted.
type Compaction struct {
	// MaxIndex is the newest snapshot's: entries above it are left alone.
	MaxIndex uint64
	// Limit is the offset below which everything is decided; records from it on
	// are left alone.
	Limit int64
	// MinLag is how old the youngest record of a segment must be
	// (min.compaction.lag.ms).
	MinLag time.Duration
	// DeleteRetention is how long tombstones stay after the first compaction that
	// met them (delete.retention.ms).
	DeleteRetention time.Duration
	// BytesPerSecond bounds reading and writing together; 0: no bound.
	BytesPerSecond int64
	// MaxKeys bounds the keys remembered at once, KeyBytes each; beyond it the rest
	// of what is dirty is left for the next time. 0: 2 million. Only the keys of a
	// single entry may be more.
	MaxKeys int
}

// A Compacted says what a compaction did.
type Compacted struct {
	Segments    int   // read; 0: there was nothing to do
	Read, Wrote int64 // bytes of segments
	Records     int64 // read
	Kept        int64 // of them
	Keys        int   // remembered, at most MaxKeys but for one entry

	// Unreadable counts the batches that could not be read, and stay as they were;
	// Problem says what is wrong with the first.
	Unreadable int
	Problem    error
}

// errChanged ends a compaction whose segments were deleted meanwhile.
var errChanged = errors.New("log: segments were deleted during their compaction")

// ErrCompacting says that another compaction of the log is under way.
var ErrCompacting = errors.New("log: being compacted already")

const (
	defaultMaxKeys = 2_000_000
	// compactedFrame is how many bytes of batches are gathered in one frame.
	compactedFrame = 256 << 10
)

// Dirty returns the bytes of the segments that are compacted and of those that
// could be, and the timestamp, milliseconds since 1970, of the youngest record in
// the oldest of these, -1 without any.
func (l *contents) Dirty(c Compaction) (clean, dirty int64, since int64) {
	st := l.state.Load()
	for _, s := range st.base() {
		clean += s.Info().Bytes
	}
	since = -1
	for i, s := range l.dirty(st, c) {
		info := s.Info()
		if dirty += info.Bytes; i == 0 {
			since = youngest(info)
		}
	}
	return clean, dirty, since
}

// youngest is the timestamp of a segment's youngest record, or its own.
func youngest(info segment.Info) int64 {
	if info.MaxTimestamp < 0 {
		return info.Created
	}
	return info.MaxTimestamp
}

// dirty returns the segments that could be compacted and are not.
func (l *contents) dirty(st *state, c Compaction) []*segment.Reader {
	now := l.now().UnixMilli()
	k := 0
	for ; k < len(st.tail)-1; k++ {
		info := st.tail[k].Info()
		young := c.MinLag > 0 && now-youngest(info) < c.MinLag.Milliseconds()
		if info.LastIndex > c.MaxIndex || info.NextOffset > c.Limit || young {
			break
		}
	}
	return st.tail[:k]
}

// Compact compacts what c allows. It may run beside everything else, and takes
// the log's lock only for moments. Any error, ctx's included, leaves the log as
// it was; *RefusedError, ErrCompacting, a *segment.CorruptError.
func (l *Log) Compact(ctx context.Context, c Compaction) (Compacted, error) {
	if !l.compaction.TryLock() {
		return Compacted{}, ErrCompacting
	}
	defer l.compaction.Unlock()
	st := l.state.Load()
	dirty := l.dirty(st, c)
	if len(dirty) == 0 {
		return Compacted{}, nil
	}
	if c.MaxKeys <= 0 {
		c.MaxKeys = defaultMaxKeys
	}
	r := &compactor{l: l, c: c, ctx: ctx, began: time.Now(), filter: newFilter(st.start, l.now().UnixMilli(), c.DeleteRetention, c.MaxKeys)}
	covered := 0
	for _, s := range dirty {
		full, err := r.index(s)
		if err != nil {
			return Compacted{}, err
		}
		if full == 0 {
			covered++
			continue
		}
		if covered == 0 {
			r.cut = full
			covered++
		}
		break
	}
	r.sources = st.segments[:len(st.base())+covered]
	r.done.Keys = r.filter.latest.n
	err := r.writeKept()
	r.done.Records, r.done.Kept = r.filter.records, r.filter.kept
	if err == nil {
		err = r.replace()
	}
	switch {
	case err == errNothing:
		return Compacted{}, nil
	case err != nil:
		r.abandon()
		return Compacted{}, err
	}
	return r.done, nil
}

// A compactor is one compaction.
type compactor struct {
	l         *Log
	c         Compaction
	ctx       context.Context
	began     time.Time
	filter    *filter
	sources   []*segment.Reader
	cut       uint64            // the entry of the last source from which on it is copied; 0: none
	copying   bool              // the cut has been reached
	outputs   []*segment.Reader // sealed
	compacted int               // of outputs, the first; the others are copies
	output    *segment.Active   // being written, behind them; or nil
	names     []name            // theirs
	identity  segment.Identity  // theirs
	pending   segment.Frame     // gathers batches
	next      int64             // where pending's offsets end
	number    uint64            // of the next frame
	last      record.Batch      // of the sources
	moved     int64             // bytes read and written, for BytesPerSecond
	done      Compacted
}

// each calls f with the frames of a segment, their payloads copied: mapped
// memory must not be given to decoders.
func (r *compactor) each(s *segment.Reader, f func(*segment.Frame) error) error {
	return s.Entries(s.Info().FirstIndex, func(mapped *segment.Frame) error {
		frame := *mapped
		frame.Payload = bytes.Clone(mapped.Payload)
		if err := r.pace(int64(frame.PayloadLen())); err != nil {
			return err
		}
		return f(&frame)
	})
}

// pace waits until n more bytes may be moved.
func (r *compactor) pace(n int64) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if r.moved += n; r.c.BytesPerSecond <= 0 {
		return nil
	}
	ahead := time.Duration(float64(r.moved)/float64(r.c.BytesPerSecond)*float64(time.Second)) - time.Since(r.began)
	if ahead < 10*time.Millisecond {
		return nil
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
}

// batches calls f with each batch of a command.
func (r *compactor) batches(s *segment.Reader, frame *segment.Frame, f func(record.Batch) error) error {
	for p := frame.Payload; len(p) > 0; {
		b, rest, err := record.Split(p)
		if err != nil {
			return &segment.CorruptError{Path: s.Path(), Position: frame.Position, Found: err.Error(), Expected: "whole batches"}
		}
		if err := f(b); err != nil {
			return err
		}
		p = rest
	}
	return nil
}

// errFull ends the indexing of a segment that has too many keys.
var errFull = errors.New("log: too many keys")

// index notes the last offset of each key in a dirty segment. full is the first
// entry that has a key too many, 0 if there is none.
func (r *compactor) index(s *segment.Reader) (full uint64, err error) {
	err = r.each(s, func(frame *segment.Frame) error {
		if frame.Type != segment.Command {
			return nil
		}
		// The first entry is taken whole, or nothing would ever be done.
		first := r.filter.latest.n == 0
		return r.batches(s, frame, func(b record.Batch) error {
			if !r.filter.learn(b, first) {
				full = frame.Index
				return errFull
			}
			return nil
		})
	})
	if err == errFull {
		err = nil
	}
	return full, err
}

// writeKept writes what is to be kept of the sources.
func (r *compactor) writeKept() error {
	first, last := r.sources[0].Info(), r.sources[len(r.sources)-1].Info()
	if first.BaseOffset == last.NextOffset {
		return errNothing // nothing but Raft's own entries: they are small, and few
	}
	r.number, r.next = first.FirstIndex, first.BaseOffset
	r.pending = segment.Frame{Type: segment.Command, Compacted: true, BaseOffset: first.BaseOffset, Term: first.PrevTerm, MaxTimestamp: -1}
	for i, s := range r.sources {
		info := s.Info()
		r.done.Segments++
		r.done.Read += info.Bytes
		err := r.each(s, func(frame *segment.Frame) error {
			if r.cut != 0 && i == len(r.sources)-1 && frame.Index >= r.cut {
				return r.copy(s, frame)
			}
			return r.take(s, frame)
		})
		if err != nil {
			return err
		}
	}
	if !r.copying {
		return r.end(last.NextOffset, last.LastTerm)
	}
	return r.seal()
}

// end writes what is pending of the compacted segments, which end at next.
func (r *compactor) end(next int64, term uint64) error {
	if err := r.keepEnd(); err != nil {
		return err
	}
	if err := r.flush(next, term); err != nil {
		return err
	}
	return r.seal()
}

// copy adds an entry from behind the cut as it is.
func (r *compactor) copy(s *segment.Reader, frame *segment.Frame) error {
	if !r.copying {
		// The pending frame holds the last command before, so its term is right.
		if err := r.end(frame.BaseOffset, r.pending.Term); err != nil {
			return err
		}
		r.copying = true
	}
	f := segment.Frame{
		Type: frame.Type, Index: frame.Index, Term: frame.Term, BaseOffset: frame.BaseOffset, Span: frame.Span,
		MaxTimestamp: frame.MaxTimestamp, Payload: frame.Payload,
	}
	return r.append(&f, s.Header().Created)
}

// errNothing ends a compaction that would change nothing.
var errNothing = errors.New("log: nothing to compact")

// take adds what is kept of one frame to the pending one, which is written when
// it is large enough. Frames are never split, so there are never more numbers
// than there were entries.
func (r *compactor) take(s *segment.Reader, frame *segment.Frame) error {
	if frame.Type != segment.Command {
		r.pending.Term = max(r.pending.Term, frame.Term)
		return nil
	}
	var kept []byte
	newest := int64(-1)
	err := r.batches(s, frame, func(b record.Batch) error {
		r.last = b
		left, err := r.filter.apply(b)
		if err != nil {
			// It stays: who reads it may know more than we do. Only Problem says so.
			if left, r.done.Unreadable = b, r.done.Unreadable+1; r.done.Problem == nil {
				r.done.Problem = fmt.Errorf("%s at %d: the batch at offset %d: %w", s.Path(), frame.Position, b.BaseOffset(), err)
			}
		}
		if left != nil {
			kept = append(kept, left...)
			newest = max(newest, left.MaxTimestamp())
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(kept) > segment.MaxPayload { // counted from a delete horizon, its times took more bytes
		kept, newest = frame.Payload, frame.MaxTimestamp
	}
	full := len(r.pending.Payload) > 0 && len(r.pending.Payload)+len(kept) > compactedFrame
	if full || frame.NextOffset()-r.pending.BaseOffset > math.MaxInt32 && frame.BaseOffset > r.pending.BaseOffset {
		if err := r.flush(frame.BaseOffset, r.pending.Term); err != nil {
			return err
		}
	}
	r.pending.Payload = append(r.pending.Payload, kept...)
	r.pending.MaxTimestamp = max(r.pending.MaxTimestamp, newest)
	r.pending.Term = max(r.pending.Term, frame.Term)
	r.next = frame.NextOffset()
	return nil
}

// keepEnd keeps the last batch's range of offsets, if not its records: consumers
// would wait for ever before a gap at the end.
func (r *compactor) keepEnd() error {
	if r.last == nil {
		return nil
	}
	for p := r.pending.Payload; len(p) > 0; {
		b, rest, err := record.Split(p)
		if err != nil {
			return err
		}
		if b.BaseOffset() == r.last.BaseOffset() {
			return nil
		}
		p = rest
	}
	r.pending.Payload = append(r.pending.Payload, r.last.Emptied()...)
	return nil
}

// flush writes the pending frame, which ends at next, and begins another.
func (r *compactor) flush(next int64, term uint64) error {
	f := r.pending
	f.Index, f.Term, f.Span = r.number, term, uint32(next-f.BaseOffset)
	r.pending = segment.Frame{Type: segment.Command, Compacted: true, BaseOffset: next, Term: term, MaxTimestamp: -1}
	if f.Span == 0 {
		return nil
	}
	r.number++
	return r.append(&f, r.l.now().UnixMilli())
}

// append writes a frame, into a segment made at created if there has to be
// another one.
func (r *compactor) append(f *segment.Frame, created int64) error {
	if err := r.pace(int64(len(f.Payload))); err != nil {
		return err
	}
	frames := []segment.Frame{*f}
	if r.output == nil || !r.output.Fits(frames) {
		if err := r.seal(); err != nil {
			return err
		}
		if err := r.create(f, created); err != nil {
			return err
		}
	}
	err := r.output.Append(frames, false)
	r.done.Wrote += segment.Size(frames)
	return segment.Refused(err)
}

// create begins a segment with f. The manifest lists its name as removed before the file
// exists, so that the next Open deletes it after a crash.
func (r *compactor) create(f *segment.Frame, created int64) error {
	l := r.l
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	m := l.folder.manifest.clone()
	n := name{m.nextSerial, f.BaseOffset}
	m.nextSerial++
	m.removed = append(m.removed, n)
	if err := l.commitLocked(m); err != nil {
		return err
	}
	l.folder.writing[n] = true
	prev := r.sources[0].Info().PrevTerm
	if k := len(r.outputs); k > 0 {
		prev = r.outputs[k-1].Info().LastTerm
	}
	h := segment.Header{
		Identity: m.identity, FirstIndex: f.Index, BaseOffset: f.BaseOffset, PrevTerm: prev,
		Salt: newSalt(), Created: created,
	}
	capacity := max(l.cfg.SegmentBytes, segment.HeaderSize+segment.FrameSize(len(f.Payload)))
	s, err := segment.Create(l.folder.fs, l.folder.path(n.file()), h, capacity)
	if err != nil {
		return segment.Refused(err)
	}
	r.output, r.names, r.identity = s, append(r.names, n), m.identity
	return nil
}

// seal ends the segment being written, and opens it for readers.
func (r *compactor) seal() error {
	out := r.output
	if out == nil {
		return nil
	}
	if err := out.Finish(); err != nil {
		return segment.Refused(err)
	}
	info, err := out.Seal()
	if err != nil {
		return err
	}
	info.Compacted = !r.copying
	sealed, err := segment.OpenSealed(r.l.folder.fs, out.Path(), r.identity, info)
	if err != nil {
		return err
	}
	if r.output, r.outputs = nil, append(r.outputs, sealed); !r.copying {
		r.compacted++
	}
	return out.Close()
}

// replace puts the outputs in the sources' place.
func (r *compactor) replace() error {
	l := r.l
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	st := l.state.Load()
	if len(st.segments) <= len(r.sources) {
		return errChanged
	}
	for i, s := range r.sources {
		if st.segments[i] != s {
			return errChanged
		}
	}
	// The files' names must be there before the manifest that needs them.
	if err := segment.SyncDir(l.folder.fs, l.dir); err != nil {
		return l.failUnlessRefused(err)
	}
	k := len(r.sources) // all of the base, and some of the tail
	base, copied := r.outputs[:r.compacted], r.outputs[r.compacted:]
	return l.changeLocked(func(m *manifest) {
		m.removed = slices.DeleteFunc(m.removed, func(n name) bool { return l.folder.writing[n] })
		m.removeFirst(k)
		for i, s := range base {
			m.base = append(m.base, compacted{r.names[i], s.Info()})
		}
		var entries []manifestSegment
		for i, s := range copied {
			entries = append(entries, manifestSegment{r.names[len(base)+i], true, s.Info()})
		}
		m.tail = append(entries, m.tail...)
	}, func(m *manifest) *state {
		clear(l.folder.writing)
		next := *st
		next.list(base, slices.Concat(copied, st.segments[k:]))
		return &next
	})
}

// abandon deletes what was written. What it cannot delete, the next Open does.
func (r *compactor) abandon() {
	for _, s := range r.outputs {
		s.Close()
	}
	if r.output != nil {
		r.output.Close()
	}
	l := r.l
	if l.begin() != nil {
		return
	}
	defer l.finish()
	clear(l.folder.writing)
	l.folder.removeFiles(l.folder.manifest)
}

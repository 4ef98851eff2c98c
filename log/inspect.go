package log

import (
	"errors"
	"fmt"
	"path/filepath"

	"millrace/segment"
)

// A Summary says what Inspect met in a log's folder.
type Summary struct {
	Identity    segment.Identity
	Generation  uint64
	StartOffset int64
	NextIndex   uint64 // of the next entry
	EndOffset   int64
	Epochs      []Epoch // as the manifest has them: those of the last segment may be missing
	Segments    []SegmentSummary
	// Unlisted are files of segments that the manifest does not know, or calls
	// removed.
	Unlisted []string
}

// A SegmentSummary is one segment's part of a Summary.
type SegmentSummary struct {
	File   string
	Sealed bool
	Info   SegmentInfo // as found for the last segment, as listed for the others
	Torn   int64       // see segment.Found
}

// Inspect reads the log in dir from end to end without changing or locking it:
// for a log that is not open, or for a copy. frame is called for each entry, its
// payload valid during the call, problem for everything that is wrong; either
// ends the inspection by returning an error. A torn tail is no problem. When the
// manifest cannot be read the error says so, and nothing else is read.
func Inspect(fs segment.FS, dir string, frame func(*segment.Frame) error, problem func(*segment.CorruptError) error) (*Summary, error) {
	m, err := readManifest(fs, dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		return nil, fmt.Errorf("log: no manifest in %s", dir)
	}
	sum := &Summary{
		Identity: m.identity, Generation: m.generation, StartOffset: m.startOffset,
		NextIndex: m.end.index, EndOffset: m.end.offset, Epochs: m.epochs,
	}
	known := map[string]bool{}
	for i, s := range m.rows() {
		known[s.file()] = true
		got, err := inspectSegment(fs, dir, m.identity, s, frame, problem)
		if err != nil {
			return sum, err
		}
		sum.Segments = append(sum.Segments, got)
		if i >= len(m.base) { // else the manifest's end is the log's
			sum.NextIndex, sum.EndOffset = got.Info.LastIndex+1, got.Info.NextOffset
		}
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return sum, err
	}
	for _, n := range names {
		if _, ok := parseName(n); ok && !known[n] {
			sum.Unlisted = append(sum.Unlisted, n)
		}
	}
	return sum, nil
}

func inspectSegment(fs segment.FS, dir string, id segment.Identity, s manifestSegment, frame func(*segment.Frame) error, problem func(*segment.CorruptError) error) (SegmentSummary, error) {
	sum := SegmentSummary{File: s.file(), Sealed: s.sealed, Info: s.info, Torn: -1}
	path := filepath.Join(dir, s.file())
	// A sealed segment's length is known. Of the last one the frames up to the checkpoint
	// had been synced, and those behind may be torn. One walk that knows no length tells
	// them apart by the flagged frames, except for a bad frame right before the
	// checkpoint, which is reported below.
	limit := int64(0)
	if s.sealed {
		limit = s.info.Bytes
	}
	last := s.info
	if !s.sealed {
		last.LastIndex, last.NextOffset, last.LastTerm, last.MaxTimestamp = s.info.FirstIndex-1, s.info.BaseOffset, s.info.PrevTerm, -1
	}
	found, err := segment.Walk(fs, path, limit, func(f *segment.Frame) error {
		last.LastIndex, last.NextOffset, last.LastTerm = f.Index, f.NextOffset(), f.Term
		last.MaxTimestamp = max(last.MaxTimestamp, f.MaxTimestamp)
		return frame(f)
	}, problem)
	if err != nil {
		return sum, err
	}
	if found.Header.FirstIndex == 0 {
		return sum, nil // its header is bad, and was reported
	}
	if err := segment.CheckHeader(path, found.Header, id, s.info); err != nil {
		var c *segment.CorruptError
		if errors.As(err, &c) {
			err = problem(c)
		}
		if err != nil {
			return sum, err
		}
	}
	last.Bytes = found.End
	sum.Torn = found.Torn
	if !s.sealed {
		if found.End < s.info.Bytes {
			err = problem(&segment.CorruptError{
				Path: path, Position: found.End,
				Found: fmt.Sprintf("the last good frame ends at %d", found.End), Expected: fmt.Sprintf("%d, where the segment was cleanly closed", s.info.Bytes),
			})
		}
		sum.Info = last
	}
	return sum, err
}

// Digest returns the digest of the entries from index from to index to, both
// included. Replicas of a partition have the same over what is committed. The
// payloads are checked. ErrOutOfRange if it does not have all of them.
func (l *contents) Digest(from, to uint64) (string, error) {
	var d segment.Digest
	err := l.read(func(st *state) error {
		d = segment.Digest{}
		first, last := st.bounds()
		if from > to || from < first || to > last || first == 0 {
			return fmt.Errorf("%w: entries %d to %d of %d to %d", ErrOutOfRange, from, to, first, last)
		}
		stop := errors.New("stop")
		for _, s := range st.tail {
			info := s.Info()
			if info.LastIndex < from || info.FirstIndex > to {
				continue
			}
			err := s.Entries(max(from, info.FirstIndex), func(f *segment.Frame) error {
				if f.Index > to {
					return stop
				}
				d.Add(f)
				return nil
			})
			if err != nil && err != stop {
				return err
			}
		}
		return nil
	})
	return d.Sum(), err
}

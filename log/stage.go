package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"millrace/segment"
)

// A Plan is what a leader offers to a replica that is too far behind: its sealed
// segments, and what a log needs besides to go on from their end. It is plain
// data, to be sent in any encoding.
type Plan struct {
	StartOffset int64
	Epochs      []Epoch
	Segments    []SegmentInfo // without gaps, oldest first
	// EndIndex and EndOffset are where the log goes on after the last segment,
	// EndTerm the term of the entry before.
	EndIndex  uint64
	EndOffset int64
	EndTerm   uint64
}

// FirstIndex returns the index of the first entry that a log made of the plan
// has: what was compacted holds none.
func (p *Plan) FirstIndex() uint64 {
	for _, s := range p.Segments {
		if !s.Compacted {
			return s.FirstIndex
		}
	}
	return p.EndIndex
}

// Bytes returns the length of all segments.
func (p *Plan) Bytes() int64 {
	var n int64
	for _, s := range p.Segments {
		n += s.Bytes
	}
	return n
}

// Plan returns what this log can give to a replica that is too far behind. To
// offer everything up to now, Roll first.
func (l *contents) Plan() Plan {
	st := l.state.Load()
	p := Plan{StartOffset: st.start}
	for _, s := range st.sealed() {
		p.Segments = append(p.Segments, s.Info())
	}
	end := st.end()
	if st.active != nil {
		h := st.active.Header()
		end = boundary{h.FirstIndex, h.BaseOffset, h.PrevTerm}
	}
	p.StartOffset = min(p.StartOffset, end.offset)
	p.Epochs = cutEpochs(st.epochs, end)
	p.EndIndex, p.EndOffset, p.EndTerm = end.index, end.offset, end.term
	return p
}

// A Staging is a folder in which pulled segments gather until they are whole. It
// is shaped like a log of its own, the plan being its manifest, and survives a
// restart: what has arrived is not pulled again. Not safe for concurrent use.
type Staging struct {
	fs       segment.FS
	dir      string
	m        *manifest
	segments []manifestSegment // m's
	have     []int64           // bytes of each
}

// StagingDir returns the folder in which Stage gathers segments for the log in
// dir.
func StagingDir(dir string) string { return filepath.Join(dir, "staging") }

// Stage begins to gather the segments of plan for the log in dir, or goes on: what
// an earlier Stage gathered of the same segments is kept, the rest deleted. The
// log may be open meanwhile. A plan that contradicts itself is a
// *segment.CorruptError.
func Stage(dir string, id segment.Identity, plan Plan, cfg Config) (*Staging, error) {
	cfg.defaults()
	s := &Staging{fs: cfg.FS, dir: StagingDir(dir)}
	m := &manifest{
		generation: 1, identity: id, startOffset: plan.StartOffset, epochs: plan.Epochs,
		end: boundary{plan.EndIndex, plan.EndOffset, plan.EndTerm}, nextSerial: 1,
	}
	path := filepath.Join(s.dir, manifestName)
	for _, info := range plan.Segments {
		// The first index as serial: the same segment keeps its name in another plan.
		n := name{info.FirstIndex, info.BaseOffset}
		if !m.list(manifestSegment{n, true, info}) {
			return nil, &segment.CorruptError{Path: path, Position: 192, Found: "a compacted segment behind one that is not", Expected: "compacted segments at the beginning"}
		}
		m.nextSerial = max(m.nextSerial, info.FirstIndex+1)
	}
	m, err := parseManifest(path, m.encode()) // a peer sent it
	if err != nil {
		return nil, err
	}
	if m.startOffset > m.end.offset {
		return nil, &segment.CorruptError{Path: path, Position: 152, Found: fmt.Sprintf("start %d", m.startOffset), Expected: fmt.Sprintf("at most %d", m.end.offset)}
	}
	s.m, s.segments = m, m.rows()
	s.have = make([]int64, len(s.segments))
	if err := s.fs.MkdirAll(s.dir); err != nil {
		return nil, segment.Refused(err)
	}
	if err := s.keep(); err != nil {
		return nil, err
	}
	if _, err := segment.WriteFile(s.fs, path, m.encode()); err != nil {
		return nil, segment.Refused(err)
	}
	return s, nil
}

// keep counts what is there of the plan's segments and deletes everything else.
func (s *Staging) keep() error {
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return err
	}
	wanted := map[string]int{}
	for i, g := range s.segments {
		wanted[g.file()] = i
	}
	for _, n := range names {
		i, ok := wanted[n]
		if ok {
			if s.have[i], err = s.arrived(s.segments[i]); err != nil {
				return err
			}
		}
		if !ok || s.have[i] == 0 {
			if err := s.fs.Remove(filepath.Join(s.dir, n)); err != nil {
				return err
			}
		}
	}
	return nil
}

// arrived returns how many bytes of g are there and need not be pulled again. A file of
// full length is checked: it counts whole, or not at all. A shorter one counts as long as
// its header is the right one; the rest is checked when it is whole. *RefusedError: it
// could not be looked at.
func (s *Staging) arrived(g manifestSegment) (int64, error) {
	path := s.path(g)
	f, err := s.fs.OpenFile(path, os.O_RDONLY)
	if segment.Scarce(err) {
		return 0, segment.Refused(err)
	}
	if err != nil {
		return 0, nil
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil || size > g.info.Bytes {
		return 0, nil
	}
	if size == g.info.Bytes {
		if err := s.check(g); segment.IsRefused(err) {
			return 0, err
		} else if err != nil {
			return 0, nil
		}
		return size, nil
	}
	if segment.CheckStart(f, path, s.m.identity, g.info) != nil {
		return 0, nil
	}
	return size, nil
}

func (s *Staging) path(g manifestSegment) string { return filepath.Join(s.dir, g.file()) }

// check reads a whole segment and everything in it.
func (s *Staging) check(g manifestSegment) error {
	return checkSegment(s.fs, s.path(g), s.m.identity, g.info)
}

func checkSegment(fs segment.FS, path string, id segment.Identity, info SegmentInfo) error {
	seg, err := segment.OpenSealed(fs, path, id, info)
	if err != nil {
		return err
	}
	defer seg.Close()
	return seg.Check()
}

// Dir returns the folder.
func (s *Staging) Dir() string { return s.dir }

// Next says what to pull next: the segment that begins at firstIndex, from
// position at on, n bytes to its end. ok is false when everything has arrived.
func (s *Staging) Next() (firstIndex uint64, at, n int64, ok bool) {
	for i, g := range s.segments {
		if s.have[i] < g.info.Bytes {
			return g.info.FirstIndex, s.have[i], g.info.Bytes - s.have[i], true
		}
	}
	return 0, 0, 0, false
}

// Arrived returns the bytes that are there.
func (s *Staging) Arrived() int64 {
	var n int64
	for _, h := range s.have {
		n += h
	}
	return n
}

// Write takes bytes of the segment that begins at firstIndex, which must lie at
// the position that Next says. With its last byte a segment is synced and
// checked; a bad one is deleted, to be pulled again, and the error is a
// *segment.CorruptError. *RefusedError: what had arrived is still there.
func (s *Staging) Write(firstIndex uint64, at int64, p []byte) error {
	for i, g := range s.segments {
		if g.info.FirstIndex != firstIndex {
			continue
		}
		if at != s.have[i] || at+int64(len(p)) > g.info.Bytes {
			return fmt.Errorf("log: stage %d bytes at %d of segment %d, which has %d of %d", len(p), at, firstIndex, s.have[i], g.info.Bytes)
		}
		return s.write(i, p)
	}
	return fmt.Errorf("%w: entry %d in the plan", ErrNoSegment, firstIndex)
}

func (s *Staging) write(i int, p []byte) error {
	g := s.segments[i]
	f, err := s.fs.OpenFile(s.path(g), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return segment.Refused(err)
	}
	end := s.have[i] + int64(len(p))
	err = f.Pwritev([][]byte{p}, s.have[i])
	if err == nil && end == g.info.Bytes {
		if err = f.Sync(); err != nil {
			// Final for all that was written: the file is pulled again from its start.
			s.have[i] = 0
			f.Close()
			return errors.Join(err, segment.Remove(s.fs, s.path(g)))
		}
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return segment.Refused(err) // what a short write left is written over
	}
	if end == g.info.Bytes {
		if err := s.check(g); segment.IsRefused(err) {
			return err // it may be good
		} else if err != nil {
			s.have[i] = 0
			return errors.Join(err, segment.Remove(s.fs, s.path(g)))
		}
	}
	s.have[i] = end
	return nil
}

// Discard deletes the folder.
func (s *Staging) Discard() error { return removeAll(s.fs, s.dir) }

// removeAll deletes a folder of files.
func removeAll(fs segment.FS, dir string) error {
	names, err := fs.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		if err := fs.Remove(filepath.Join(dir, n)); err != nil {
			return err
		}
	}
	return fs.Remove(dir)
}

// Install replaces the content of the log in dir, which must be closed and may be
// damaged or missing, by that of the folder staged, which is checked from end to
// end first. The replacement happens in one moment: a crash leaves the old log or
// the new one, and what it leaves of the other is deleted by the next Open. The
// log start does not fall, unless below it lies the end.
//
// A *RefusedError leaves the old log and all that is staged: the same call may succeed
// later. A *segment.CorruptError that names a staged file leaves the old log. After any
// other error the next Open reports whether it is the old one or the new one; if it is the
// old one, Stage again, which finds out what there still is.
func Install(dir string, id segment.Identity, staged string, cfg Config) error {
	cfg.defaults()
	fs := cfg.FS
	next, err := readManifest(fs, staged)
	if err != nil {
		return err
	}
	if next == nil {
		return fmt.Errorf("log: nothing is staged in %s", staged)
	}
	if err := checkIdentity(filepath.Join(staged, manifestName), next.identity, id); err != nil {
		return err
	}
	for _, g := range next.rows() {
		path := filepath.Join(staged, g.file())
		if err := checkSegment(fs, path, id, g.info); err != nil {
			return err
		}
		// A life that was killed before it synced left the bytes in the page cache.
		if err := syncFile(fs, path); err != nil {
			return err
		}
	}
	old, err := prepare(fs, dir, id, next)
	if err != nil {
		return segment.Refused(err)
	}
	fresh := *next
	fresh.identity, fresh.generation, fresh.nextSerial = id, old.generation+1, old.nextSerial
	fresh.unusable = false
	// Should the log start lie beyond what was pulled, the entry that moved it there
	// comes again with what follows.
	fresh.startOffset = min(max(next.startOffset, old.startOffset), fresh.end.offset)
	fresh.base, fresh.tail = slices.Clone(next.base), slices.Clone(next.tail)
	from, to := next.names(), fresh.names()
	for i, n := range old.removed[len(old.removed)-len(to):] {
		to[i].serial = n.serial
	}
	// Both are opened before anything is moved, so that what follows is not refused for
	// want of a descriptor.
	var folders [2]segment.Dir
	for i, d := range []string{dir, staged} {
		if folders[i], err = fs.OpenDir(d); err != nil {
			return segment.Refused(err)
		}
		defer folders[i].Close()
	}
	moved := 0
	// back says what err means when the segments that were moved are where they were
	// again; if they are not, nobody can make the same call again.
	back := func(err error) error {
		for i := range moved {
			if rerr := fs.Rename(filepath.Join(dir, to[i].file()), filepath.Join(staged, from[i].file())); rerr != nil {
				return errors.Join(unrefused(err), rerr)
			}
		}
		return segment.Refused(err)
	}
	for i := range from {
		path := filepath.Join(staged, from[i].file())
		if err := fs.Rename(path, filepath.Join(dir, to[i].file())); err != nil {
			return back(err)
		}
		moved++
		segment.Remove(fs, path) // its index files
	}
	// In both folders: a segment that had kept its old name as well would be written to,
	// under that name, by the next one who stages.
	for _, d := range folders {
		if err := d.Sync(); err != nil {
			return err
		}
	}
	fresh.removed = slices.Clone(old.removed[:len(old.removed)-len(to)])
	for _, n := range old.names() {
		fresh.removed = append(fresh.removed, *n)
	}
	if renamed, err := segment.WriteFile(fs, filepath.Join(dir, manifestName), fresh.encode()); err != nil {
		if !renamed && segment.IsRefused(err) {
			return back(err)
		}
		return err
	}
	for _, n := range fresh.removed {
		if err := segment.Remove(fs, filepath.Join(dir, n.file())); err != nil {
			return err
		}
	}
	return removeAll(fs, staged)
}

// syncFile syncs a staged segment. One whose sync failed is deleted, to be pulled
// again: the page cache shows what may never be written, and the next sync succeeds.
// *RefusedError: the sync was not tried.
func syncFile(fs segment.FS, path string) error {
	f, err := fs.OpenFile(path, os.O_RDWR)
	if err != nil {
		return segment.Refused(err)
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return errors.Join(err, segment.Remove(fs, path))
	}
	return f.Close()
}

// prepare writes the manifest of the log in dir with the names that the segments of next
// are going to have, last among the removed ones, so that the next Open deletes whatever a
// crash half-way leaves. Segments in the folder that the manifest does not know join the
// removed ones. A manifest that is missing or damaged is replaced by one that calls all
// segments removed and that Open refuses.
func prepare(fs segment.FS, dir string, id segment.Identity, next *manifest) (*manifest, error) {
	if err := fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := segment.SyncDir(fs, filepath.Dir(filepath.Clean(dir))); err != nil {
		return nil, err
	}
	old, err := readManifest(fs, dir)
	if err != nil && !segment.IsCorrupt(err) {
		return nil, err
	}
	if old != nil {
		if err := checkIdentity(filepath.Join(dir, manifestName), old.identity, id); err != nil {
			return nil, err
		}
		old = old.clone()
	} else {
		old = &manifest{identity: id, generation: 1, nextSerial: 1, end: boundary{index: 1}, unusable: true}
	}
	listedNames := map[name]bool{}
	for _, n := range old.names() {
		listedNames[*n] = true
	}
	for _, n := range old.removed {
		listedNames[n] = true
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, s := range names {
		n, ok := parseName(s)
		if !ok || !strings.HasSuffix(s, ".log") {
			continue
		}
		old.nextSerial = max(old.nextSerial, n.serial+1)
		if !listedNames[n] {
			old.removed = append(old.removed, n)
		}
	}
	for _, n := range next.names() {
		old.removed = append(old.removed, name{old.nextSerial, n.baseOffset})
		old.nextSerial++
	}
	_, err = segment.WriteFile(fs, filepath.Join(dir, manifestName), old.encode())
	return old, err
}

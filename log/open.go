package log

import (
	"fmt"
	"path/filepath"
	"strings"

	"millrace/segment"
)

// Open opens the log in dir, and makes it if there is none. id names the log; a
// folder of another one is refused. Every entry the log has afterwards is
// durable. A *segment.CorruptError says that bytes which had been safe are bad:
// nothing was changed, and the log must not be used until it is repaired. After a
// *RefusedError Open can be called again.
func Open(dir string, id segment.Identity, cfg Config) (*Log, error) {
	if len(id.Cluster) > segment.MaxCluster || len(id.Replica) > maxReplica {
		return nil, fmt.Errorf("log: identity %q, %q is too long", id.Cluster, id.Replica)
	}
	cfg.defaults()
	l := &Log{dir: dir, fs: cfg.FS, now: cfg.Now, tellFailed: cfg.Failed, logger: cfg.Logger.With("log", dir), cache: cfg.Cache, cfg: cfg, writing: map[name]bool{}}
	if err := l.open(id); err != nil {
		return nil, segment.Refused(err) // another Open does again what this one has done
	}
	return l, nil
}

func (l *Log) open(id segment.Identity) error {
	m, err := readManifest(l.fs, l.dir)
	if err != nil {
		return err
	}
	if m == nil {
		m, err = l.create(id)
	} else {
		// A manifest that was renamed, but not synced, by a life that ended there: make
		// it durable before anything is done in its name.
		err = segment.SyncDir(l.fs, l.dir)
	}
	if err != nil {
		return err
	}
	if err := checkIdentity(l.path(manifestName), m.identity, id); err != nil {
		return err
	}
	if m.unusable {
		return &segment.CorruptError{Path: l.path(manifestName), Position: 20, Found: "an installation that was not finished", Expected: "a log"}
	}
	l.manifest = m
	if err := l.tidy(); err != nil {
		return err
	}
	st := &state{origin: m.end, start: m.startOffset}
	torn := false
	for _, s := range m.segments {
		if torn, err = l.openSegment(st, s); err != nil {
			for _, s := range st.segments {
				s.Close()
			}
			return err
		}
	}
	if end := st.end().offset; end < st.start {
		err = &segment.CorruptError{Path: l.path(manifestName), Position: 152, Found: fmt.Sprintf("a log that ends at offset %d", end), Expected: fmt.Sprintf("at least its start, %d", st.start)}
	}
	if err == nil {
		st.epochs, err = l.recoverEpochs(st)
		st.epochs = trimEpochs(st.epochs, st.start)
	}
	if err == nil && torn {
		err = l.sealTorn(st)
	}
	if err != nil {
		for _, s := range st.segments {
			s.Close()
		}
		return err
	}
	l.state.Store(st)
	if a := st.active; a != nil && a.Info().Frames() > 0 {
		l.began = a.Info().Created
	}
	return nil
}

// create makes a new, empty log. The manifest comes before any segment, so that
// segments without a manifest always mean that it was lost.
func (l *Log) create(id segment.Identity) (*manifest, error) {
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return nil, err
	}
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return nil, err
	}
	for _, s := range names {
		if strings.HasSuffix(s, ".log") {
			return nil, &segment.CorruptError{Path: l.path(manifestName), Found: "no manifest beside " + s, Expected: "a manifest"}
		}
	}
	if err := segment.SyncDir(l.fs, filepath.Dir(filepath.Clean(l.dir))); err != nil {
		return nil, err
	}
	m := &manifest{identity: id, nextSerial: 1, end: boundary{index: 1}, generation: 1}
	if _, err := segment.WriteFile(l.fs, l.path(manifestName), m.encode()); err != nil {
		return nil, fmt.Errorf("create log %s: %w", l.dir, err)
	}
	return m, nil
}

func checkIdentity(path string, found, want segment.Identity) error {
	if found.SameLog(want) && (want.Replica == "" || found.Replica == "" || found.Replica == want.Replica) {
		return nil
	}
	return &segment.CorruptError{
		Path: path, Position: 32,
		Found: fmt.Sprintf("the log of %s, replica %q", found, found.Replica), Expected: fmt.Sprintf("%s, replica %q", want, want.Replica),
	}
}

// tidy deletes what the manifest says was removed, temporary files, index files
// without a segment (a compaction that was still under way when the log was closed
// leaves some), and segments that a crash left before their first frame. A segment with frames whose serial
// the manifest has not given out is proof of a newer manifest: somebody put an
// older one in its place, and the log must not be used without what it lost.
func (l *Log) tidy() error {
	for _, n := range l.manifest.removed {
		if err := segment.Remove(l.fs, l.path(n.file())); err != nil {
			return fmt.Errorf("tidy log %s: %w", l.dir, err)
		}
	}
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	segments := map[string]bool{}
	for _, s := range names {
		segments[strings.TrimSuffix(s, ".log")] = strings.HasSuffix(s, ".log")
	}
	for _, s := range names {
		if base, kind, _ := strings.Cut(s, "."); kind == "index" || kind == "timeindex" {
			if _, ok := parseName(base + ".log"); ok && !segments[base] {
				if err := l.fs.Remove(l.path(s)); err != nil {
					return fmt.Errorf("tidy log %s: %w", l.dir, err)
				}
			}
			continue
		}
		if strings.HasSuffix(s, ".tmp") && (s == manifestName+".tmp" || strings.HasSuffix(s, "index.tmp")) {
			if err := l.fs.Remove(l.path(s)); err != nil {
				return fmt.Errorf("tidy log %s: %w", l.dir, err)
			}
			continue
		}
		n, ok := parseName(s)
		if !ok || n.serial < l.manifest.nextSerial {
			continue
		}
		if segment.NeverAppended(l.fs, l.path(s)) {
			err = segment.Remove(l.fs, l.path(s))
			if err != nil {
				return fmt.Errorf("tidy log %s: %w", l.dir, err)
			}
			continue
		}
		return &segment.CorruptError{
			Path: l.path(manifestName), Position: 160, Found: fmt.Sprintf("next serial %d beside %s", l.manifest.nextSerial, s),
			Expected: "a manifest at least as new as the segments",
		}
	}
	l.manifest.removed = nil
	return nil
}

// openSegment opens the next segment of the list. torn is set if the bytes behind its end
// are those of a crash.
func (l *Log) openSegment(st *state, s manifestSegment) (torn bool, err error) {
	path := l.path(s.file())
	id := l.manifest.identity
	if s.sealed {
		r, err := segment.OpenSealed(l.fs, path, id, s.info)
		if err != nil {
			return false, err
		}
		st.segments = append(st.segments, r)
		return false, nil
	}
	a, torn, err := segment.Recover(l.fs, path, id, s.info, l.cfg.SegmentBytes)
	if err != nil {
		return false, err
	}
	st.segments, st.active = append(st.segments, &a.Reader), a
	return torn, nil
}

// recoverEpochs returns the epoch table: the manifest's, which is complete up to
// the last segment or its clean end, and what the entries behind say.
func (l *Log) recoverEpochs(st *state) ([]Epoch, error) {
	n := len(l.manifest.segments)
	if n == 0 || l.manifest.segments[n-1].sealed {
		return cutEpochs(l.manifest.epochs, st.end()), nil
	}
	last := l.manifest.segments[n-1].info
	known := boundary{last.FirstIndex, last.BaseOffset, last.PrevTerm}
	if last.Bytes > 0 {
		known = endOf(last)
	}
	epochs := cutEpochs(l.manifest.epochs, known)
	for i, end := known.index, st.end().index; i < end; i++ {
		f, err := st.segments[n-1].Entry(i)
		if err != nil {
			return nil, err
		}
		epochs = addEpoch(epochs, f.Term, f.BaseOffset)
	}
	return epochs, nil
}

// sealTorn ends the last segment, whose tail is torn. A full disk does not stop
// it: whoever opens the log next finds the same end. Nor does any other refusal.
func (l *Log) sealTorn(st *state) error {
	n := len(st.segments)
	s := st.active
	end := endOf(s.Info())
	l.logger.Warn("a torn tail was cut", "segment", s.Path(), "position", s.Info().Bytes, "last_index", end.index-1)
	if err := s.Finish(); err != nil {
		return err
	}
	// The bytes behind the end stay, for whoever wants to look at them.
	m := l.manifest.clone()
	m.end, m.epochs = end, st.epochs
	if s.Info().Frames() == 0 {
		m.removed = append(m.removed, m.segments[n-1].name)
		m.segments = m.segments[:n-1]
		st.segments, st.origin = st.segments[:n-1], end
		if err := s.Close(); err != nil {
			return err
		}
	} else {
		m.segments[n-1].sealed, m.segments[n-1].info = true, s.Info()
		sealed, err := segment.OpenSealed(l.fs, s.Path(), m.identity, s.Info())
		if err != nil {
			return err
		}
		st.segments[n-1] = sealed
		if err := s.Close(); err != nil {
			return err
		}
	}
	st.active = nil
	renamed, err := segment.WriteFile(l.fs, l.path(manifestName), m.encode())
	if err != nil && (renamed || !segment.IsRefused(err)) {
		return fmt.Errorf("cut the tail of log %s: %w", l.dir, err)
	}
	l.manifest = m
	if err == nil {
		l.removeFiles(m)
	}
	return nil
}

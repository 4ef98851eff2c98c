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
	logger := cfg.Logger.With("log", dir)
	l := &Log{
		contents: contents{dir: dir, now: cfg.Now},
		folder:   folder{dir: dir, fs: cfg.FS, logger: logger, writing: map[name]bool{}},
		owner:    cfg.Owner, logger: logger, cache: cfg.Cache, cfg: cfg,
	}
	st, err := l.folder.open(id, cfg.SegmentBytes)
	if err != nil {
		return nil, segment.Refused(err) // another Open does again what this one has done
	}
	l.state.Store(st)
	if a := st.active; a != nil && a.Info().Frames() > 0 {
		l.began = a.Info().Created
	}
	return l, nil
}

// open opens the folder's log, or makes one: what Open says. capacity is for the last
// segment's file.
func (d *folder) open(id segment.Identity, capacity int64) (*state, error) {
	m, err := readManifest(d.fs, d.dir)
	if err != nil {
		return nil, err
	}
	if m == nil {
		m, err = d.create(id)
	} else {
		// A manifest that was renamed, but not synced, by a life that ended there: make
		// it durable before anything is done in its name.
		err = segment.SyncDir(d.fs, d.dir)
	}
	if err != nil {
		return nil, err
	}
	if err := checkIdentity(d.path(manifestName), m.identity, id); err != nil {
		return nil, err
	}
	if m.unusable {
		return nil, &segment.CorruptError{Path: d.path(manifestName), Position: 20, Found: "an installation that was not finished", Expected: "a log"}
	}
	d.manifest = m
	if err := d.tidy(); err != nil {
		return nil, err
	}
	st := &state{origin: m.end, start: m.startOffset}
	torn, err := d.openSegments(st, capacity)
	if err != nil {
		return nil, err
	}
	if end := st.end().offset; end < st.start {
		err = &segment.CorruptError{Path: d.path(manifestName), Position: 152, Found: fmt.Sprintf("a log that ends at offset %d", end), Expected: fmt.Sprintf("at least its start, %d", st.start)}
	}
	if err == nil {
		st.epochs, err = d.recoverEpochs(st)
		st.epochs = trimEpochs(st.epochs, st.start)
	}
	if err == nil && torn {
		err = d.sealTorn(st)
	}
	if err != nil {
		for _, s := range st.segments {
			s.Close()
		}
		return nil, err
	}
	return st, nil
}

// create makes a new, empty log. The manifest comes before any segment, so that
// segments without a manifest always mean that it was lost.
func (d *folder) create(id segment.Identity) (*manifest, error) {
	if err := d.fs.MkdirAll(d.dir); err != nil {
		return nil, err
	}
	names, err := d.fs.ReadDir(d.dir)
	if err != nil {
		return nil, err
	}
	for _, s := range names {
		if strings.HasSuffix(s, ".log") {
			return nil, &segment.CorruptError{Path: d.path(manifestName), Found: "no manifest beside " + s, Expected: "a manifest"}
		}
	}
	if err := segment.SyncDir(d.fs, filepath.Dir(filepath.Clean(d.dir))); err != nil {
		return nil, err
	}
	m := &manifest{identity: id, nextSerial: 1, end: boundary{index: 1}, generation: 1}
	if _, err := segment.WriteFile(d.fs, d.path(manifestName), m.encode()); err != nil {
		return nil, fmt.Errorf("create log %s: %w", d.dir, err)
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

// tidy deletes what earlier lives left: what the manifest calls removed, temporary files,
// index files without a segment (of a compaction that was under way when the log was closed),
// and segments that a crash left before their first frame.
//
// A segment with frames, but a serial that the manifest has not given out, is proof of a newer
// manifest: somebody put an older one in its place, and the log must not be used without what
// it lost.
func (d *folder) tidy() error {
	for _, n := range d.manifest.removed {
		if err := segment.Remove(d.fs, d.path(n.file())); err != nil {
			return fmt.Errorf("tidy log %s: %w", d.dir, err)
		}
	}
	names, err := d.fs.ReadDir(d.dir)
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
				if err := d.fs.Remove(d.path(s)); err != nil {
					return fmt.Errorf("tidy log %s: %w", d.dir, err)
				}
			}
			continue
		}
		if strings.HasSuffix(s, ".tmp") && (s == manifestName+".tmp" || strings.HasSuffix(s, "index.tmp")) {
			if err := d.fs.Remove(d.path(s)); err != nil {
				return fmt.Errorf("tidy log %s: %w", d.dir, err)
			}
			continue
		}
		n, ok := parseName(s)
		if !ok || n.serial < d.manifest.nextSerial {
			continue
		}
		if segment.NeverAppended(d.fs, d.path(s)) {
			err = segment.Remove(d.fs, d.path(s))
			if err != nil {
				return fmt.Errorf("tidy log %s: %w", d.dir, err)
			}
			continue
		}
		return &segment.CorruptError{
			Path: d.path(manifestName), Position: 160, Found: fmt.Sprintf("next serial %d beside %s", d.manifest.nextSerial, s),
			Expected: "a manifest at least as new as the segments",
		}
	}
	d.manifest.removed = nil
	return nil
}

// openSegments opens what the manifest lists, or nothing after an error. torn is set if the
// bytes behind the last segment's end are those of a crash.
func (d *folder) openSegments(st *state, capacity int64) (torn bool, err error) {
	var base, tail []*segment.Reader
	defer func() {
		if st.list(base, tail); err == nil {
			return
		}
		for _, s := range st.segments {
			s.Close()
		}
	}()
	for _, c := range d.manifest.base {
		s, err := segment.OpenSealed(d.fs, d.path(c.file()), d.manifest.identity, c.info)
		if err != nil {
			return false, err
		}
		base = append(base, s)
	}
	for _, l := range d.manifest.tail {
		if !l.sealed { // the last
			st.active, torn, err = segment.Recover(d.fs, d.path(l.file()), d.manifest.identity, l.info, capacity)
			if err != nil {
				return false, err
			}
			tail = append(tail, &st.active.Reader)
			break
		}
		s, err := segment.OpenSealed(d.fs, d.path(l.file()), d.manifest.identity, l.info)
		if err != nil {
			return false, err
		}
		tail = append(tail, s)
	}
	return torn, nil
}

// recoverEpochs returns the epoch table: the manifest's, which is complete up to
// the last segment or its clean end, and what the entries behind say.
func (d *folder) recoverEpochs(st *state) ([]Epoch, error) {
	n := len(d.manifest.tail)
	if n == 0 || d.manifest.tail[n-1].sealed {
		return cutEpochs(d.manifest.epochs, st.end()), nil
	}
	last := d.manifest.tail[n-1].info
	known := boundary{last.FirstIndex, last.BaseOffset, last.PrevTerm}
	if last.Bytes > 0 {
		known = endOf(last)
	}
	epochs := cutEpochs(d.manifest.epochs, known)
	for i, end := known.index, st.end().index; i < end; i++ {
		f, err := st.tail[n-1].Entry(i)
		if err != nil {
			return nil, err
		}
		epochs = addEpoch(epochs, f.Term, f.BaseOffset)
	}
	return epochs, nil
}

// sealTorn ends the last segment, whose tail is torn. A full disk does not stop
// it: whoever opens the log next finds the same end. Nor does any other refusal.
func (d *folder) sealTorn(st *state) error {
	n := len(st.tail)
	s := st.active
	end := endOf(s.Info())
	d.logger.Warn("a torn tail was cut", "segment", s.Path(), "position", s.Info().Bytes, "last_index", end.index-1)
	if err := s.Finish(); err != nil {
		return err
	}
	// The bytes behind the end stay, for whoever wants to look at them.
	m := d.manifest.clone()
	m.end, m.epochs = end, st.epochs
	if s.Info().Frames() == 0 {
		m.removeFrom(n - 1)
		st.origin = end
		st.list(st.base(), st.tail[:n-1])
		if err := s.Close(); err != nil {
			return err
		}
	} else {
		m.tail[n-1].sealed, m.tail[n-1].info = true, s.Info()
		sealed, err := segment.OpenSealed(d.fs, s.Path(), m.identity, s.Info())
		if err != nil {
			return err
		}
		st.tail[n-1] = sealed // and of segments
		if err := s.Close(); err != nil {
			return err
		}
	}
	st.active = nil
	renamed, err := segment.WriteFile(d.fs, d.path(manifestName), m.encode())
	if err != nil && (renamed || !segment.IsRefused(err)) {
		return fmt.Errorf("cut the tail of log %s: %w", d.dir, err)
	}
	d.manifest = m
	if err == nil {
		d.removeFiles(m)
	}
	return nil
}

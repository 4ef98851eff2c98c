// Package log is one partition's log: an ordered list of segments with two
// doors. Raft's goes by index, and the log is its LogStore; Kafka's goes by
// offset. Every record is stored once.
//
// # Who decides what
//
// Only StoreLogs adds entries, only DeleteRange takes them off the end, only
// Drop takes them off the beginning. Offsets are assigned when an entry is
// stored: a leader's StoreLogs stamps them into the batches before anybody else
// sees them, a follower's finds the same numbers there or refuses the entry.
//
// # How changes become durable
//
// Entries are appended to the last segment. Everything else (a new segment, a
// cut, a drop, an installation) happens by replacing the manifest, which lists
// the segments: files are made and synced before, and deleted after. A crash
// leaves either list. See FORMAT.md and package segment for the crash model.
//
// # When a change goes wrong
//
// A *RefusedError says that the system would not begin it, for want of room on the
// disk, of descriptors or of memory: nothing has changed, what was half made is gone,
// and the next try may succeed. A full disk is one of those, since room is taken
// before anything is written.
//
// Whatever goes wrong from the first write on that counts (a write, a sync, a
// rename) leaves the disk's state unknown, and the log failed: it can be read, but
// every change returns the same *FailedError until it is closed and opened again.
// Config.Failed is called at that moment, whoever asked for the change.
package log

import (
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"millrace/segment"
)

// Errors a caller can act on.
var (
	ErrOutOfRange = errors.New("log: offset out of range")
	// ErrNoSpace says that the disk is full. It always comes as a *RefusedError.
	ErrNoSpace = segment.ErrNoSpace
	ErrClosed  = errors.New("log: closed")
	// ErrNoSegment says that the log has no sealed segment that begins there, or
	// none any more.
	ErrNoSegment = errors.New("log: no such sealed segment")
	// ErrCommitted refuses to delete entries that are known to be committed.
	ErrCommitted = errors.New("log: entries are committed")
)

// A RefusedError says that nothing has changed, and that the same call may succeed
// later: the system lacks room on the disk, descriptors, mappings or memory.
type RefusedError = segment.RefusedError

// A FailedError says that a change began and did not end, so that nobody knows what
// the disk holds. The log takes no more changes: it has to be closed, and opened
// again, which finds out.
type FailedError struct {
	Dir string
	Err error // never a *RefusedError
}

func (e *FailedError) Error() string { return fmt.Sprintf("log %s failed: %v", e.Dir, e.Err) }

func (e *FailedError) Unwrap() error { return e.Err }

// Scarce reports whether the system ran out of something half-way through the change: of
// room, mostly. The disk is sound then, and the log can be opened again as soon as the
// system has what it lacked. If false, the disk failed. Open may well succeed even so,
// since it writes again what was not synced; but an operator should look at a disk that
// has lost a write before more is entrusted to it.
func (e *FailedError) Scarce() bool { return segment.Scarce(e.Err) }

// A MismatchError says that a follower's batch carries another offset than the
// log would give it: two replicas disagree about what precedes it. Nothing was
// stored.
type MismatchError struct {
	Dir             string
	Index           uint64
	Found, Expected int64 // offsets
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("log %s: entry %d carries offset %d, expected %d", e.Dir, e.Index, e.Found, e.Expected)
}

// SegmentInfo says what one segment holds.
type SegmentInfo = segment.Info

// Config says how a log stores. The zero value is the default of every field.
type Config struct {
	// SegmentBytes bounds a segment's file; 0: 256 MiB. An entry that is larger
	// gets a segment of its own.
	SegmentBytes int64
	// SegmentAge is how old a segment's first entry may be before RollIfDue ends the
	// segment; 0: 7 days.
	SegmentAge time.Duration
	// FlushMessages is the number of records after which StoreLogs syncs; 0 and 1:
	// every call. Entries that are no command are always synced at once.
	FlushMessages int64
	// FlushInterval is for the caller of Flush; the log itself has no clockwork.
	FlushInterval time.Duration
	// Cache is shared by the logs of a node; nil: a private one of
	// DefaultCacheBytes.
	Cache *Cache
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Failed is called once, when the log fails, on the goroutine of the change that
	// failed, with a *FailedError. It must neither block nor call the log. It may be nil.
	Failed func(error)
	// Logger takes what an operator should know; nil: none of it.
	Logger *slog.Logger
	// FS is the file system; nil: the operating system's.
	FS segment.FS
}

const (
	defaultSegmentBytes = 256 << 20
	defaultSegmentAge   = 7 * 24 * time.Hour
)

func (c *Config) defaults() {
	if c.SegmentBytes <= 0 {
		c.SegmentBytes = defaultSegmentBytes
	}
	if c.SegmentAge <= 0 {
		c.SegmentAge = defaultSegmentAge
	}
	if c.FlushMessages <= 0 {
		c.FlushMessages = 1
	}
	if c.Cache == nil {
		c.Cache = NewCache(DefaultCacheBytes)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.FS == nil {
		c.FS = segment.OS
	}
}

// A Log is one partition's log. All methods are safe for concurrent use.
// Readers take no lock of the log and wait for no disk but the pages they read;
// changes wait for one another. It has no goroutine of its own.
type Log struct {
	dir        string
	fs         segment.FS
	now        func() time.Time
	tellFailed func(error) // by fail only
	logger     *slog.Logger
	cache      *Cache
	cached     cacheRun

	state      atomic.Pointer[state]
	closed     atomic.Bool
	failed     atomic.Pointer[error]
	committed  atomic.Uint64 // nothing at or below this index is ever cut
	isFollower atomic.Bool   // what was stored last was stamped by a leader elsewhere

	changing  sync.Mutex // held by every change, also while it waits for the disk
	cfg       Config     // under changing
	manifest  *manifest  // under changing; what the disk has, or will have with the next one
	unflushed int64      // records stored since the last sync; under changing
	began     int64      // when the active segment got its first entry, see RollIfDue; under changing
	onRoll    func(lastIndex uint64)
	rolled    uint64        // last index of a segment ended by the change under way; 0: none
	writing   map[name]bool // files of the compaction under way; under changing

	compaction sync.Mutex // held by a compaction, which holds changing for moments
}

// A state is what readers see: an immutable list of segments, whose last one may
// grow. It is replaced when the list changes.
type state struct {
	segments []*segment.Segment
	origin   boundary // the end, if there are no segments or all are compacted
	start    int64    // the log start offset
	epochs   []Epoch
}

// end returns where the next entry will be.
func (st *state) end() boundary {
	if n := len(st.segments); n > 0 {
		if info := st.segments[n-1].Info(); !info.Compacted {
			return endOf(info)
		}
	}
	return st.origin
}

// active returns the segment that can be appended to, or nil.
func (st *state) active() *segment.Segment {
	if n := len(st.segments); n > 0 && !st.segments[n-1].Sealed() {
		return st.segments[n-1]
	}
	return nil
}

// byIndex returns the segment that holds the entry, or nil. What was compacted
// holds no entries.
func (st *state) byIndex(index uint64) *segment.Segment {
	if s := st.byNumber(index); s != nil && !s.Compacted() {
		return s
	}
	return nil
}

// byNumber returns the segment that holds the frame with this number, or nil.
func (st *state) byNumber(index uint64) *segment.Segment {
	i := sort.Search(len(st.segments), func(i int) bool { return st.segments[i].Header().FirstIndex > index })
	if i == 0 {
		return nil
	}
	return st.segments[i-1]
}

// compacted returns how many segments are: the first ones.
func (st *state) compacted() (n int) {
	for n < len(st.segments) && st.segments[n].Compacted() {
		n++
	}
	return n
}

// byOffset returns the number of the segment that holds the record, or would
// hold the next; -1 if none.
func (st *state) byOffset(offset int64) int {
	return sort.Search(len(st.segments), func(i int) bool { return st.segments[i].Header().BaseOffset > offset }) - 1
}

// Open opens the log in dir, and makes it if there is none. id names the log; a
// folder of another one is refused. Every entry the log has afterwards is
// durable. A *segment.CorruptError says that bytes which had been safe are bad:
// nothing was changed, and the log must not be used until it is repaired. After a
// *RefusedError Open can be called again.
func Open(dir string, id segment.Identity, cfg Config) (*Log, error) {
	if len(id.Cluster) > maxCluster || len(id.Replica) > maxReplica {
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
		seg, t, err := l.openSegment(s)
		if err != nil {
			for _, s := range st.segments {
				s.Close()
			}
			return err
		}
		torn = t
		st.segments = append(st.segments, seg)
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
	if a := st.active(); a != nil && a.Info().Frames() > 0 {
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
	if found.Cluster == want.Cluster && found.Topic == want.Topic && found.Partition == want.Partition &&
		(want.Replica == "" || found.Replica == "" || found.Replica == want.Replica) {
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

func (l *Log) openSegment(s manifestSegment) (seg *segment.Segment, torn bool, err error) {
	path := l.path(s.file())
	id := l.manifest.identity
	if s.sealed {
		seg, err = segment.OpenSealed(l.fs, path, id, s.info)
		return seg, false, err
	}
	return segment.Recover(l.fs, path, id, s.info, l.cfg.SegmentBytes)
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
	s := st.segments[n-1]
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

// removeFiles deletes the files that the manifest, which is on disk, calls removed. Those
// it cannot delete stay among them.
func (l *Log) removeFiles(m *manifest) {
	left := m.removed[:0]
	for _, n := range m.removed {
		if l.writing[n] {
			left = append(left, n)
			continue
		}
		if err := segment.Remove(l.fs, l.path(n.file())); err != nil {
			l.logger.Warn("a segment could not be deleted", "file", n.file(), "error", err)
			left = append(left, n)
		}
	}
	m.removed = left
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

// identity returns whose log it is.
func (l *Log) identity() segment.Identity {
	l.changing.Lock()
	defer l.changing.Unlock()
	return l.manifest.identity
}

// Dir returns the folder.
func (l *Log) Dir() string { return l.dir }

// Configure takes new settings: SegmentBytes, SegmentAge, FlushMessages and
// FlushInterval; the others stay. A smaller SegmentBytes ends the last segment
// with the next append.
func (l *Log) Configure(cfg Config) {
	cfg.defaults()
	l.changing.Lock()
	defer l.changing.Unlock()
	l.cfg.SegmentBytes = cfg.SegmentBytes
	l.cfg.SegmentAge = cfg.SegmentAge
	l.cfg.FlushMessages = cfg.FlushMessages
	l.cfg.FlushInterval = cfg.FlushInterval
}

// SetRollHook has f called after each roll with the last index of the segment
// that ended, on the goroutine that rolled and outside all locks. f must not
// block.
func (l *Log) SetRollHook(f func(lastIndex uint64)) {
	l.changing.Lock()
	defer l.changing.Unlock()
	l.onRoll = f
}

// Generation returns a number that grows with every change to the list of
// segments, and so tells an older copy of the folder from a newer one.
func (l *Log) Generation() uint64 {
	l.changing.Lock()
	defer l.changing.Unlock()
	return l.manifest.generation
}

// Err returns why the log takes no more changes, or nil: a *FailedError, or
// ErrClosed.
func (l *Log) Err() error {
	if l.closed.Load() {
		return ErrClosed
	}
	if p := l.failed.Load(); p != nil {
		return *p
	}
	return nil
}

// fail makes err the log's answer to every later change, and tells Config.Failed.
func (l *Log) fail(err error) error {
	err = &FailedError{Dir: l.dir, Err: unrefused(err)}
	if l.failed.CompareAndSwap(nil, &err) {
		l.logger.Error("log failed and has to be reopened", "error", err)
		l.tellFailed(err)
	}
	return *l.failed.Load()
}

// unrefused returns what the system said, where something has changed all the same.
func unrefused(err error) error {
	var refused *RefusedError
	if errors.As(err, &refused) {
		return refused.Err
	}
	return err
}

// failUnlessRefused is for a step before which nothing has changed.
func (l *Log) failUnlessRefused(err error) error {
	if segment.IsRefused(err) {
		return err
	}
	return l.fail(err)
}

// begin starts a change; finish, which must follow, ends it and calls the roll
// hook.
func (l *Log) begin() error {
	l.changing.Lock()
	if err := l.Err(); err != nil {
		l.changing.Unlock()
		return err
	}
	return nil
}

func (l *Log) finish() {
	hook, rolled := l.onRoll, l.rolled
	l.rolled = 0
	l.changing.Unlock()
	if hook != nil && rolled > 0 {
		hook(rolled)
	}
}

// commitLocked replaces the manifest by m. *RefusedError; any other error fails the
// log.
func (l *Log) commitLocked(m *manifest) error {
	renamed, err := segment.WriteFile(l.fs, l.path(manifestName), m.encode())
	if !renamed && segment.IsNoSpace(err) {
		l.releaseRoomLocked(m.removed) // even a full disk takes the change that frees it
		_, err = segment.WriteFile(l.fs, l.path(manifestName), m.encode())
	}
	if err != nil {
		return l.failUnlessRefused(fmt.Errorf("write the manifest of log %s: %w", l.dir, err))
	}
	l.manifest = m
	return nil
}

// ReleaseRoom gives back disk room that the log can take again later, at the cost of time:
// for a full disk on which something has to be written that will free more.
func (l *Log) ReleaseRoom() {
	if l.begin() != nil {
		return
	}
	defer l.finish()
	l.releaseRoomLocked(nil)
}

// releaseRoomLocked is ReleaseRoom of a log that is about to lose the segments named. It
// gives back what was preallocated, and index files: those of the segments that go, and of
// the oldest, which is read least. Readers keep what they have mapped, and the next one
// rebuilds them.
func (l *Log) releaseRoomLocked(going []name) {
	st := l.state.Load()
	if a := st.active(); a != nil {
		a.PunchTail()
	}
	for _, n := range going {
		if !l.writing[n] {
			_ = segment.RemoveIndexes(l.fs, l.path(n.file()))
		}
	}
	if len(st.segments) > 0 && st.segments[0].Sealed() {
		_ = segment.RemoveIndexes(l.fs, st.segments[0].Path())
	}
}

// rollLocked ends the last segment, if it has entries, and begins a new one with
// room for capacity bytes. *RefusedError: the new one is gone, and the last one goes
// on.
func (l *Log) rollLocked(capacity int64) error {
	st := l.state.Load()
	end := st.end()
	active := st.active()
	if active != nil {
		if err := active.Finish(); err != nil {
			return l.fail(err)
		}
	}
	m := l.manifest.clone()
	n := name{m.nextSerial, end.offset}
	m.nextSerial++
	m.epochs = st.epochs
	h := segment.Header{
		Identity: m.identity, FirstIndex: end.index, BaseOffset: end.offset, PrevTerm: end.term,
		Salt: newSalt(), Created: l.now().UnixMilli(),
	}
	abandon := func() {
		if segment.Remove(l.fs, l.path(n.file())) != nil {
			// That name is taken, until the manifest that comes next has it deleted.
			l.manifest.nextSerial++
			l.manifest.removed = append(l.manifest.removed, n)
		}
	}
	seg, err := segment.Create(l.fs, l.path(n.file()), h, capacity)
	if err != nil {
		abandon()
		return l.failUnlessRefused(err)
	}
	if err := segment.SyncDir(l.fs, l.dir); err != nil {
		seg.Close()
		abandon()
		return l.failUnlessRefused(fmt.Errorf("begin a segment of log %s: %w", l.dir, err))
	}
	segments := append([]*segment.Segment(nil), st.segments...)
	last := len(segments) - 1
	ended := false
	switch {
	case active == nil:
	case active.Info().Frames() == 0:
		m.removed = append(m.removed, m.segments[last].name)
		m.segments, segments = m.segments[:last], segments[:last]
	default:
		m.segments[last].sealed, m.segments[last].info = true, active.Info()
		ended = true
	}
	info := seg.Info()
	info.Bytes = 0
	m.segments = append(m.segments, manifestSegment{n, false, info})
	if err := l.commitLocked(m); err != nil {
		seg.Close()
		if segment.IsRefused(err) { // else only the disk knows whether it is listed
			abandon()
		}
		return err
	}
	if ended {
		l.rolled = end.index - 1
		info, err := active.Seal()
		if err != nil {
			l.logger.Warn("a sealed segment could not be closed", "segment", active.Path(), "error", err)
		}
		// Opened again it needs next to no memory. If that fails, it is read as it is.
		if sealed, err := segment.OpenSealed(l.fs, active.Path(), m.identity, info); err == nil {
			segments[last] = sealed
		}
	}
	l.state.Store(&state{segments: append(segments, seg), start: st.start, epochs: st.epochs})
	if active != nil && (!ended || segments[last] != active) {
		active.Close()
	}
	l.removeFiles(m)
	l.unflushed, l.began = 0, 0
	return nil
}

func newSalt() uint64 {
	var p [8]byte
	crand.Read(p[:]) // never fails
	return binary.BigEndian.Uint64(p[:])
}

// Roll ends the last segment, if it has any entry. *RefusedError.
func (l *Log) Roll() error {
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	if a := l.state.Load().active(); a == nil || a.Info().Frames() == 0 {
		return nil
	}
	return l.rollLocked(l.cfg.SegmentBytes)
}

// RollIfDue ends the last segment if its first entry is older than SegmentAge, and says
// whether it did. *RefusedError.
//
// An entry's age is the time for which it has been here: one that comes to a segment
// which has long lain empty does not end it. After a restart it is taken for as old as
// its segment, the only time that the disk has. A clock that was set back makes it no
// younger than just stored, so a segment waits for SegmentAge once more at most, and not
// until the clock is where it was.
func (l *Log) RollIfDue(now time.Time) (rolled bool, err error) {
	if err := l.begin(); err != nil {
		return false, err
	}
	defer l.finish()
	a := l.state.Load().active()
	if a == nil || a.Info().Frames() == 0 {
		return false, nil
	}
	l.began = min(l.began, now.UnixMilli())
	if now.UnixMilli()-l.began < l.cfg.SegmentAge.Milliseconds() {
		return false, nil
	}
	if err := l.rollLocked(l.cfg.SegmentBytes); err != nil {
		return false, err
	}
	return true, nil
}

// Flush makes everything durable that was stored before the call. It may run
// beside StoreLogs and does not hold it up. A failure fails the log.
func (l *Log) Flush() error {
	if err := l.Err(); err != nil {
		return err
	}
	err := l.read(func(st *state) error {
		if a := st.active(); a != nil {
			return a.Sync()
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrClosed) {
		return l.fail(err)
	}
	return err
}

// Close closes the log; Views already handed out stay valid. A clean close syncs
// and records how far the log was whole, so that the next Open has little to
// read and can tell rot from a torn tail. After an error the log is closed
// nevertheless, uncleanly.
func (l *Log) Close(clean bool) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	if l.closed.Load() {
		return nil
	}
	var err error
	if clean && l.failed.Load() == nil {
		err = l.checkpointLocked()
	}
	l.closed.Store(true)
	l.cache.cut(&l.cached, 0)
	for _, s := range l.state.Load().segments {
		if cerr := s.Close(); err == nil && clean {
			err = cerr
		}
	}
	return err
}

// Checkpoint syncs and records how far the log is whole, as a clean Close does:
// the next Open reads what follows, and not the whole of a segment that may be
// large. StoreLogs waits meanwhile, but not for what there is to sync. *RefusedError.
func (l *Log) Checkpoint() error {
	if err := l.Flush(); err != nil {
		return err
	}
	if err := l.begin(); err != nil {
		return err
	}
	defer l.finish()
	return l.checkpointLocked()
}

// checkpointLocked records in the manifest what the last segment holds.
func (l *Log) checkpointLocked() error {
	st := l.state.Load()
	a := st.active()
	if a == nil || a.Info() == l.manifest.segments[len(st.segments)-1].info {
		return nil
	}
	if err := a.Finish(); err != nil {
		return l.fail(err)
	}
	m := l.manifest.clone()
	m.segments[len(st.segments)-1].info = a.Info()
	m.epochs = st.epochs
	return l.commitLocked(m)
}

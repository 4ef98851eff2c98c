package log

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"millrace/segment"
)

var errCrash = errors.New("the machine has lost power")

// A crashFS is a file system that knows what would survive a loss of power: what
// was synced, and any part of the rest. It works on real files, since they are
// mapped, and syncs none of them. At operation number stop it refuses, and does
// so ever after.
type crashFS struct {
	segment.FS
	mu    sync.Mutex
	ops   int
	stop  int   // 0: never
	once  error // instead of a crash: operation number stop fails with this, and no other
	opens bool  // once is the answer to an open of a file or folder, and these are counted
	trace []string
	live  map[string]*inode // by path
	kept  map[string]*inode // names that are durable
	moves []move            // names that are not yet
	open  int               // descriptors

	images map[uint64]bool // what powerLoss has left already

	// beside is called before each operation, with its kind, and not before those that it
	// makes itself: what others do at that moment. nil: nothing.
	beside func(operation string)
}

func (c *crashFS) others(operation string) {
	if f := c.beside; f != nil {
		c.beside = nil
		f(operation)
		c.beside = f
	}
}

// An inode remembers what of a file is durable, and what was done since.
type inode struct {
	path    string // where the bytes are now
	synced  []byte
	pending []pwrite
}

type pwrite struct {
	off  int64
	data []byte // nil: the file grows to off
}

type move struct {
	dir      string
	from, to string // "" when created, or removed
	node     *inode
}

func newCrashFS(stop int) *crashFS {
	return &crashFS{FS: segment.OS, stop: stop, live: map[string]*inode{}, kept: map[string]*inode{}}
}

// adopt takes the files below root as they are, as durable.
func (c *crashFS) adopt(t testing.TB, root string) *crashFS {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		p, err := os.ReadFile(path)
		node := &inode{path: path, synced: p}
		c.live[path], c.kept[path] = node, node
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// step counts an operation that changes something.
func (c *crashFS) step(format string, args ...any) error {
	if c.opens {
		return nil
	}
	return c.count(format, args...)
}

// opening counts an open of a file or folder.
func (c *crashFS) opening(name string) error {
	if !c.opens {
		return nil
	}
	return c.count("open %s", filepath.Base(name))
}

func (c *crashFS) count(format string, args ...any) error {
	c.ops++
	if c.once != nil && c.ops == c.stop {
		c.trace = append(c.trace, fmt.Sprintf("FAILED "+format, args...))
		return c.once
	}
	if c.dead() {
		return errCrash
	}
	c.trace = append(c.trace, fmt.Sprintf(format, args...))
	return nil
}

func (c *crashFS) dead() bool { return c.once == nil && c.stop > 0 && c.ops >= c.stop }

func (c *crashFS) OpenFile(path string, flag int) (segment.File, error) {
	c.others("open")
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead() {
		return nil, errCrash
	}
	if err := c.opening(path); err != nil {
		return nil, err
	}
	node := c.live[path]
	if node == nil && flag&os.O_CREATE != 0 || flag&os.O_TRUNC != 0 {
		if err := c.step("create %s", filepath.Base(path)); err != nil {
			return nil, err
		}
	}
	f, err := c.FS.OpenFile(path, flag)
	if err != nil {
		return nil, err
	}
	if node == nil && flag&os.O_CREATE != 0 {
		node = &inode{path: path}
		c.live[path] = node
		c.moves = append(c.moves, move{dir: filepath.Dir(path), to: path, node: node})
	} else if flag&os.O_TRUNC != 0 {
		node.pending = append(node.pending, pwrite{off: -1})
	}
	c.open++
	return &crashFile{File: f, fs: c, node: node}, nil
}

func (c *crashFS) Rename(from, to string) error {
	c.others("rename")
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("rename %s %s", filepath.Base(from), filepath.Base(to)); err != nil {
		return err
	}
	if err := c.FS.Rename(from, to); err != nil {
		return err
	}
	node := c.live[from]
	delete(c.live, from)
	c.live[to] = node
	node.path = to
	if filepath.Dir(from) == filepath.Dir(to) {
		c.moves = append(c.moves, move{dir: filepath.Dir(to), from: from, to: to, node: node})
		return nil
	}
	// Two folders, each of which is durable when it is synced.
	c.moves = append(c.moves, move{dir: filepath.Dir(to), to: to, node: node}, move{dir: filepath.Dir(from), from: from, node: node})
	return nil
}

func (c *crashFS) Remove(path string) error {
	c.others("remove")
	c.mu.Lock()
	defer c.mu.Unlock()
	node := c.live[path]
	if node == nil {
		return c.FS.Remove(path) // a folder, or nothing
	}
	if err := c.step("remove %s", filepath.Base(path)); err != nil {
		return err
	}
	if err := c.FS.Remove(path); err != nil {
		return err
	}
	delete(c.live, path)
	c.moves = append(c.moves, move{dir: filepath.Dir(path), from: path, node: node})
	return nil
}

func (c *crashFS) OpenDir(dir string) (segment.Dir, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead() {
		return nil, errCrash
	}
	return &crashDir{c, dir}, c.opening(dir)
}

type crashDir struct {
	*crashFS
	name string
}

func (c *crashDir) Close() error { return nil }

func (c *crashDir) Sync() error {
	dir := c.name
	c.others("syncdir")
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.step("syncdir"); err != nil {
		return err
	}
	rest := c.moves[:0]
	for _, m := range c.moves {
		if m.dir != filepath.Clean(dir) {
			rest = append(rest, m)
			continue
		}
		m.apply(c.kept)
	}
	c.moves = rest
	return nil
}

func (m move) apply(names map[string]*inode) {
	if m.from != "" && names[m.from] == m.node {
		delete(names, m.from)
	}
	if m.to != "" {
		names[m.to] = m.node
	}
}

type crashFile struct {
	segment.File
	fs   *crashFS
	node *inode
}

func (f *crashFile) Pwritev(bufs [][]byte, off int64) error {
	f.fs.others("write")
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	p := bytes.Join(bufs, nil)
	if err := f.fs.step("write %s %d+%d", filepath.Base(f.node.path), off, len(p)); err != nil {
		return err
	}
	f.node.pending = append(f.node.pending, pwrite{off, p})
	return f.File.Pwritev(bufs, off)
}

func (f *crashFile) Allocate(from, to int64) error {
	f.fs.others("allocate")
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step("allocate %s %d", filepath.Base(f.node.path), to); err != nil {
		return err
	}
	f.node.pending = append(f.node.pending, pwrite{off: to})
	return f.File.Allocate(from, to)
}

func (f *crashFile) Punch(from, to int64) error {
	f.fs.others("punch")
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.step("punch %s %d", filepath.Base(f.node.path), from); err != nil {
		return err
	}
	f.node.pending = append(f.node.pending, pwrite{from, make([]byte, to-from)})
	return f.File.Punch(from, to)
}

func (f *crashFile) Sync() error {
	f.fs.others("sync")
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	err := f.fs.step("sync %s", filepath.Base(f.node.path))
	if err == errCrash {
		return err
	}
	if err == nil {
		f.node.synced = f.node.surviving(func() int { return 1 })
	}
	// After a failed sync the pages count as clean: no later sync writes them.
	f.node.pending = nil
	return err
}

func (f *crashFile) Close() error {
	f.fs.mu.Lock()
	f.fs.open--
	f.fs.mu.Unlock()
	return f.File.Close()
}

// surviving returns the file's bytes as a crash may leave them: of what was not
// synced, each sector is new, old or zero as fate decides. A synced byte stays,
// also when the same byte is written over it.
func (n *inode) surviving(fate func() int) []byte {
	p := bytes.Clone(n.synced)
	grow := func(size int64) {
		if size > int64(len(p)) {
			p = append(p, make([]byte, size-int64(len(p)))...)
		}
	}
	const sector = 512
	for _, w := range n.pending {
		switch {
		case w.off < 0:
			if fate() == 1 {
				p = nil
			}
		case w.data == nil:
			if fate() != 0 {
				grow(w.off)
			}
		default:
			for at := int64(0); at < int64(len(w.data)); {
				end := min(int64(len(w.data)), (w.off+at)/sector*sector+sector-w.off)
				switch fate() {
				case 1:
					grow(w.off + end)
					copy(p[w.off+at:], w.data[at:end])
				case 2:
					grow(w.off + end)
					for i := w.off + at; i < w.off+end; i++ {
						if i >= int64(len(n.synced)) || n.synced[i] != w.data[i-w.off] {
							p[i] = 0
						}
					}
				}
				at = end
			}
		}
	}
	return p
}

// powerLoss writes to target what a crash may leave of root; false if it would be
// the same as before.
func (c *crashFS) powerLoss(t testing.TB, root, target string, fate func() int) bool {
	t.Helper()
	names := map[string]*inode{}
	for n, i := range c.kept {
		names[n] = i
	}
	for _, m := range c.moves {
		if fate() == 1 {
			m.apply(names)
		}
	}
	paths := make([]string, 0, len(names))
	for p := range names {
		paths = append(paths, p)
	}
	sort.Strings(paths) // fate must not hang on the order of a map
	seen := fnv.New64a()
	files := make([][]byte, len(paths))
	for i, p := range paths {
		files[i] = names[p].surviving(fate)
		fmt.Fprintf(seen, "%s %d ", p, len(files[i]))
		seen.Write(bytes.TrimRight(files[i], "\x00"))
	}
	if c.images[seen.Sum64()] {
		return false
	}
	if c.images == nil {
		c.images = map[uint64]bool{}
	}
	c.images[seen.Sum64()] = true
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, p := range paths {
		rel, err := filepath.Rel(root, p)
		if err != nil || strings.HasPrefix(rel, "..") {
			t.Fatalf("%s outside %s", p, root)
		}
		out := filepath.Join(target, rel)
		if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(out, files[i], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return true
}

// fates are the ways unsynced bytes can go: nothing, everything, and by the dice.
func fates(seed uint64) map[string]func() int {
	all := map[string]func() int{
		"none":  func() int { return 0 },
		"all":   func() int { return 1 },
		"zeros": func() int { return 2 },
	}
	dice := uint64(4)
	if testing.Short() {
		dice = 1
	}
	for i := range dice {
		r := rand.New(rand.NewPCG(seed, i))
		all[fmt.Sprintf("dice%d", i)] = func() int { return r.IntN(3) }
		s := rand.New(rand.NewPCG(seed, 100+i))
		all[fmt.Sprintf("mostly%d", i)] = func() int {
			if s.IntN(8) == 0 {
				return s.IntN(3)
			}
			return 1
		}
	}
	return all
}

// A fastFS syncs nothing: for logs whose crash nobody looks at.
type fastFS struct{ segment.FS }

func (f fastFS) OpenDir(string) (segment.Dir, error) { return fastFile{}, nil }
func (f fastFS) OpenFile(path string, flag int) (segment.File, error) {
	g, err := f.FS.OpenFile(path, flag)
	if err != nil {
		return nil, err
	}
	return fastFile{g}, nil
}

type fastFile struct{ segment.File }

func (fastFile) Sync() error { return nil }

// Close also closes a folder, which was not opened.
func (f fastFile) Close() error {
	if f.File == nil {
		return nil
	}
	return f.File.Close()
}

// A model is what a log must hold: entries from index first on, and the start.
type model struct {
	first   uint64
	base    int64 // offset of the first entry
	entries []raft.Log
	start   int64
}

func (m model) clone() model {
	m.entries = append([]raft.Log(nil), m.entries...)
	return m
}

func (m *model) last() uint64 { return m.first + uint64(len(m.entries)) - 1 }

func lastTerm(m model) uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[len(m.entries)-1].Term
}

// observe reads everything there is in l.
func observe(l *Log) (model, error) {
	m := model{start: l.StartOffset(), first: l.NextIndex()}
	first, _ := l.FirstIndex()
	last, _ := l.LastIndex()
	if first > 0 {
		m.first = first
	}
	base, err := l.OffsetOf(m.first - 1)
	if err != nil {
		return m, err
	}
	m.base = base
	for i := first; first > 0 && i <= last; i++ {
		var e raft.Log
		if err := l.GetLog(i, &e); err != nil {
			return m, err
		}
		if e.Index != i {
			return m, fmt.Errorf("entry %d calls itself %d", i, e.Index)
		}
		m.entries = append(m.entries, e)
	}
	return m, l.Verify(1)
}

func sameEntry(a, b *raft.Log) bool {
	return a.Index == b.Index && a.Term == b.Term && a.Type == b.Type && bytes.Equal(a.Data, b.Data) && bytes.Equal(a.Extensions, b.Extensions)
}

// within says why m is not something that a crash between old and new may leave,
// "" if it is: the log's beginning of one of them, old's entries without loss
// (but those new has cut), and any part of what new added to them.
func (m model) within(old, new model, lossy bool) string {
	if m.start != old.start && m.start != new.start {
		return fmt.Sprintf("start %d, neither %d nor %d", m.start, old.start, new.start)
	}
	if m.first != old.first && m.first != new.first {
		return fmt.Sprintf("first index %d, neither %d nor %d", m.first, old.first, new.first)
	}
	find := func(in model, i uint64) *raft.Log {
		if i < in.first || i > in.last() || len(in.entries) == 0 {
			return nil
		}
		return &in.entries[i-in.first]
	}
	inOld, inNew := true, true // so far
	for i := range m.entries {
		e := &m.entries[i]
		o, n := find(old, e.Index), find(new, e.Index)
		inOld = inOld && o != nil && sameEntry(o, e)
		inNew = inNew && n != nil && sameEntry(n, e)
		if !inOld && !inNew {
			return fmt.Sprintf("entry %d of term %d and %d bytes is of neither", e.Index, e.Term, len(e.Data))
		}
	}
	if lossy {
		return ""
	}
	if m.last() < min(old.last(), new.last()) {
		return fmt.Sprintf("last index %d, before %d, after %d", m.last(), old.last(), new.last())
	}
	return ""
}

// A story is a sequence of steps on one log; the same for the log and the model.
type story struct {
	t     testing.TB
	root  string
	cfg   Config
	fs    *crashFS
	l     *Log
	now   model // what was acknowledged
	next  model // what the step under way would lead to
	lossy bool  // acknowledged entries may be unsynced
	err   error // of the step that failed; later ones do nothing

	closes bool         // the step under way works on the folder of a closed log, or beside it
	again  func() error // does again what the story ends with
}

func (s *story) dir() string { return filepath.Join(s.root, "p") }

func (s *story) step(change func(m *model), do func() error) error {
	if s.err != nil {
		return s.err
	}
	s.next, s.closes = s.now.clone(), false
	if change != nil {
		change(&s.next)
	}
	if s.err = do(); s.err == nil {
		s.now = s.next.clone()
	}
	return s.err
}

func (s *story) openLog() error {
	return s.step(nil, func() error {
		s.closes = true
		l, err := Open(s.dir(), testID, s.cfg)
		if err == nil {
			s.l = l
		}
		return err
	})
}

func (s *story) closeLog(clean bool) error {
	return s.step(nil, func() error {
		s.closes = true
		return s.l.Close(clean)
	})
}

// store appends entries, each given by its number of records and their size; 0
// records are a noop.
func (s *story) store(term uint64, shape ...[2]int) error {
	return s.put(term, shape, func(logs []*raft.Log) error { return s.l.StoreLogs(logs) })
}

// storeLater writes entries and syncs them afterwards, as a leader does.
func (s *story) storeLater(term uint64, shape ...[2]int) error {
	return s.put(term, shape, func(logs []*raft.Log) error {
		if _, err := s.l.WriteLogs(logs); err != nil {
			return err
		}
		return s.l.Flush()
	})
}

func (s *story) put(term uint64, shape [][2]int, do func([]*raft.Log) error) error {
	var logs []*raft.Log
	index := s.now.last() + 1
	for _, sh := range shape {
		e := noop(index, term)
		if sh[0] > 0 {
			values := make([]string, sh[0])
			for i := range values {
				values[i] = strings.Repeat(fmt.Sprintf("%d.%d.%d|", term, index, i), sh[1]/6+1)[:sh[1]]
			}
			e = command(s.t, index, term, values...)
		}
		logs = append(logs, e)
		index++
	}
	return s.step(func(m *model) {
		// The log stamps the very bytes; the model takes a stamped copy.
		at := m.base
		for i := range m.entries {
			at += span(&m.entries[i])
		}
		for _, e := range logs {
			c := *e
			c.Data = bytes.Clone(e.Data)
			stampTest(&c, at)
			at += span(&c)
			m.entries = append(m.entries, c)
		}
	}, func() error { return do(logs) })
}

func (s *story) cut(from uint64) error {
	return s.step(func(m *model) { m.entries = m.entries[:from-m.first] }, func() error { return s.l.DeleteRange(from, s.now.last()) })
}

func (s *story) checkpoint() error {
	return s.step(nil, func() error { return s.l.Checkpoint() })
}

// reserve asks for room as a leader does before it hands entries to Raft.
func (s *story) reserve(entries, bytes int) error {
	return s.step(nil, func() error { return s.l.Reserve(entries, bytes) })
}

func (s *story) rollIfDue() error {
	return s.step(nil, func() error {
		rolled, err := s.l.RollIfDue(time.Now().Add(8 * 24 * time.Hour))
		if err == nil && !rolled {
			s.t.Fatal("no roll was due")
		}
		return err
	})
}

func (s *story) flush() error { return s.step(nil, func() error { return s.l.Flush() }) }

func (s *story) roll() error { return s.step(nil, func() error { return s.l.Roll() }) }

// drop drops what it can below the entry with this index.
func (s *story) drop(index uint64) error {
	if s.err != nil {
		return s.err
	}
	before, err := s.l.OffsetOf(index - 1)
	if err != nil {
		return err
	}
	return s.step(func(m *model) {
		m.start = max(m.start, before)
		for _, i := range s.l.Sealed() {
			if i.NextOffset <= m.start && i.LastIndex < index {
				m.entries = m.entries[i.LastIndex+1-m.first:]
				m.first, m.base = i.LastIndex+1, i.NextOffset
			}
		}
	}, func() error {
		_, err := s.l.Drop(before, index-1)
		return err
	})
}

// install replaces the log by what another has.
func (s *story) install(source *Log) error {
	plan := source.Plan()
	return s.replace(source, func() error {
		st, err := Stage(s.dir(), testID, plan, s.cfg)
		if err != nil {
			return err
		}
		for {
			first, at, _, ok := st.Next()
			if !ok {
				break
			}
			p := make([]byte, 1500)
			n, err := source.ReadSegment(first, at, p)
			if err != nil && err != io.EOF {
				return err
			}
			if err := st.Write(first, at, p[:n]); err != nil {
				return err
			}
		}
		return Install(s.dir(), testID, st.Dir(), s.cfg)
	})
}

// replace closes the log, has install replace it by what another has, and opens it.
func (s *story) replace(source *Log, install func() error) error {
	if err := s.closeLog(true); err != nil {
		return err
	}
	return s.step(func(m *model) {
		got, err := observe(source)
		if err != nil {
			s.t.Fatal(err)
		}
		got.start = max(m.start, got.start)
		*m = got
	}, func() error {
		s.closes = true
		if err := install(); err != nil {
			return err
		}
		l, err := Open(s.dir(), testID, s.cfg)
		if err == nil {
			s.l = l
		}
		return err
	})
}

func span(e *raft.Log) int64 {
	if e.Type != raft.LogCommand || len(e.Extensions) > 0 {
		return 0
	}
	var n int64
	for _, b := range batches(e.Data) {
		n += int64(b.LastOffsetDelta()) + 1
	}
	return n
}

func stampTest(e *raft.Log, at int64) {
	if e.Type != raft.LogCommand {
		return
	}
	for _, b := range batches(e.Data) {
		b.Assign(at, int32(e.Term))
		at = b.NextOffset()
	}
}

// TestCrashesDuringRecoveryLoseNothing is S10: power is lost at every operation of
// the first Open after a crash, and again of the one after that.
func TestCrashesDuringRecoveryLoseNothing(t *testing.T) {
	cfg := Config{SegmentBytes: 4 << 10}
	for _, cut := range []int{0, 1, 3, 6} {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			t.Parallel()
			s := &story{t: t, root: t.TempDir(), cfg: cfg}
			s.cfg.FS = fastFS{segment.OS}
			s.now.first = 1
			small := [2]int{1, 40}
			if err := errors.Join(s.openLog(), s.store(1, [2]int{}, [2]int{1, 2000}), s.store(1, small), s.store(2, [2]int{1, 2500}), s.store(2, small, small), s.store(2, small)); err != nil {
				t.Fatal(err)
			}
			s.l.Close(false)
			// What the crash left: a tail torn somewhere, and things to tidy up.
			paths := logFiles(t, s.dir())
			last := paths[len(paths)-1]
			p := mustRead(t, last)
			end := bytes.LastIndexByte(bytes.TrimRight(p, "\x00"), p[len(bytes.TrimRight(p, "\x00"))-1]) + 1
			for i := end - 30*cut; i < end; i++ {
				p[i] ^= 0x5a
			}
			mustWrite(t, last, p)
			mustWrite(t, filepath.Join(s.dir(), "manifest.tmp"), []byte("half"))
			mustWrite(t, filepath.Join(s.dir(), name{99, 5}.file()), make([]byte, 4096))
			want, err := opened(copyDir(t, s.root)+"/p", testID)
			if err != nil {
				t.Fatal(err)
			}
			crashRecovery(t, s.root, cfg, want, 2)
		})
	}
}

func crashRecovery(t *testing.T, root string, cfg Config, want model, depth int) {
	for stop := 1; ; stop++ {
		at := copyDir(t, root)
		fs := newCrashFS(stop).adopt(t, at)
		c := cfg
		c.FS = fs
		l, err := Open(filepath.Join(at, "p"), testID, c)
		if err == nil {
			l.Close(false)
		}
		for name, fate := range fates(uint64(stop)) {
			target := filepath.Join(memDir(t), "image")
			if !fs.powerLoss(t, at, target, fate) {
				continue
			}
			if depth > 1 && name == "dice0" {
				crashRecovery(t, target, cfg, want, depth-1)
			}
			got, err := opened(filepath.Join(target, "p"), testID)
			if err != nil {
				t.Fatalf("crash before operation %d of %v, %s: %v", stop, fs.trace, name, err)
			}
			if wrong := got.within(want, want, false); wrong != "" || got.last() != want.last() {
				t.Fatalf("crash before operation %d of %v, %s: last %d, want %d: %s", stop, fs.trace, name, got.last(), want.last(), wrong)
			}
			os.RemoveAll(target)
		}
		os.RemoveAll(at)
		if fs.ops < stop {
			return
		}
	}
}

// reserveStory does what a replica does beside storing entries.
func reserveStory(s *story) error {
	small := [2]int{1, 40}
	return errors.Join(s.openLog(), s.reserve(1, 100), s.store(1, [2]int{}, small), s.checkpoint(), s.reserve(2, 3000), s.store(1, [2]int{1, 1400}, [2]int{1, 1400}),
		s.reserve(1, 3000), s.store(2, [2]int{1, 2000}), s.rollIfDue(), s.reserve(3, 9000), s.store(2, small), s.flush(), s.checkpoint(), s.rollIfDue(), s.store(3, small))
}

// memDir is a folder for thousands of short-lived files, in memory where there is
// such a file system.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "millrace-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func copyDir(t testing.TB, root string) string {
	t.Helper()
	to := filepath.Join(memDir(t), "copy")
	if err := os.CopyFS(to, os.DirFS(root)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestCrashAtEveryOperationLeavesBeforeOrAfter is S12: power is lost before each
// operation on a file in turn, and what was not synced goes every way it can. The
// log must open without repair, hold what was acknowledged and nothing that never
// was, take more, and hold that as well.
func TestCrashAtEveryOperationLeavesBeforeOrAfter(t *testing.T) {
	source := mustOpen(t, t.TempDir()+"/source", Config{FS: fastFS{segment.OS}, SegmentBytes: 4 << 10})
	for i := range uint64(12) {
		if err := source.StoreLog(command(t, i+1, 2+i/4, strings.Repeat("s", 900), "x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := source.Roll(); err != nil {
		t.Fatal(err)
	}
	small := [2]int{1, 40}
	stories := map[string]struct {
		cfg Config
		run func(s *story) error
	}{
		"append": {Config{}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}), s.store(1, small), s.store(1, [2]int{3, 700}, small, [2]int{2, 300}), s.store(2, [2]int{}, small))
		}},
		"append large": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}), s.store(1, [2]int{1, 9000}), s.store(1, small), s.store(1, [2]int{1, 5000}, [2]int{1, 100_000}, small))
		}},
		"roll": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.roll(), s.store(1, [2]int{}, [2]int{1, 2000}), s.store(1, [2]int{1, 2000}), s.store(1, [2]int{1, 2000}), s.roll(), s.roll(), s.store(2, [2]int{}))
		}},
		"cut": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}, [2]int{1, 2000}), s.store(1, [2]int{1, 1900}), s.store(1, small, small), s.store(2, [2]int{}, small),
				s.cut(6), s.store(3, [2]int{}, small), s.cut(3), s.cut(2), s.store(4, [2]int{}, small), s.cut(1), s.store(5, [2]int{}, small))
		}},
		"drop": {Config{SegmentBytes: 2 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}, [2]int{1, 1000}), s.store(1, [2]int{1, 1000}), s.store(2, [2]int{1, 1000}), s.store(3, [2]int{1, 1000}),
				s.drop(4), s.store(3, small), s.drop(6), s.roll(), s.drop(6), s.store(4, [2]int{}))
		}},
		"close": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}, small), s.closeLog(true), s.openLog(), s.store(1, small), s.closeLog(true), s.openLog(), s.closeLog(true),
				s.openLog(), s.store(2, small, small), s.closeLog(false), s.openLog(), s.store(2, small), s.cut(4), s.closeLog(true), s.openLog(), s.store(3, small))
		}},
		"checkpoint": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.checkpoint(), s.store(1, [2]int{}, small), s.checkpoint(), s.store(1, small), s.checkpoint(), s.checkpoint(), s.closeLog(false),
				s.openLog(), s.store(1, small, small), s.checkpoint(), s.cut(4), s.store(2, small), s.checkpoint(), s.store(2, [2]int{1, 3000}), s.checkpoint(), s.store(2, small))
		}},
		"lazy checkpoint": {Config{SegmentBytes: 4 << 10, FlushMessages: 1 << 40}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, small), s.store(1, small), s.checkpoint(), s.store(1, small), s.store(1, small), s.checkpoint(), s.store(1, small))
		}},
		"install": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}, [2]int{1, 2000}), s.store(1, [2]int{1, 1900}), s.store(1, small, small), s.install(source), s.store(9, [2]int{}, small))
		}},
		"pull": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}, [2]int{1, 2000}), s.pull(source), s.store(9, [2]int{}, small))
		}},
		"append beside a flush": {Config{SegmentBytes: 4 << 10}, func(s *story) error {
			s.fs.beside = s.flushing()
			return errors.Join(s.openLog(), s.store(1, [2]int{}), s.store(1, small), s.storeLater(1, [2]int{2, 900}), s.store(1, [2]int{1, 2000}, [2]int{1, 5000}, small),
				s.checkpoint(), s.rollIfDue(), s.storeLater(2, small), s.cut(s.now.last()), s.store(3, small))
		}},
		"reserve": {Config{SegmentBytes: 4 << 10}, reserveStory},
		"lazy": {Config{SegmentBytes: 4 << 10, FlushMessages: 1 << 40}, func(s *story) error {
			return errors.Join(s.openLog(), s.store(1, [2]int{}, small), s.store(1, small), s.store(1, [2]int{1, 900}), s.store(1, small), s.store(1, [2]int{1, 2500}),
				s.store(1, small), s.store(1, small), s.cut(7), s.store(2, small), s.store(2, small))
		}},
	}
	for name, st := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crashEverywhere(t, st.cfg, st.run)
		})
	}
}

func crashEverywhere(t *testing.T, cfg Config, run func(*story) error) {
	count, images := 0, 0
	for stop := 1; ; stop++ {
		fs := newCrashFS(stop)
		s := &story{t: t, root: filepath.Join(memDir(t), fmt.Sprint(stop)), cfg: cfg, lossy: cfg.FlushMessages > 1}
		s.cfg.FS, s.fs = fs, fs
		s.now.first = 1
		if err := os.MkdirAll(s.dir(), 0o755); err != nil {
			t.Fatal(err)
		}
		err := run(s)
		fs.beside = nil
		if s.l != nil {
			s.l.Close(false)
		}
		crashed := fs.ops >= stop
		if err != nil && !crashed {
			t.Fatalf("without a crash: %v", err)
		}
		if err == nil && s.now.last() != s.next.last() {
			t.Fatal("the model is wrong")
		}
		for name, fate := range fates(uint64(stop)) {
			target := filepath.Join(memDir(t), "image")
			if !fs.powerLoss(t, s.root, target, fate) {
				continue
			}
			where := fmt.Sprintf("crash before operation %d, %s; the last were %v", stop, name, fs.trace[max(0, len(fs.trace)-6):])
			checkImage(t, target, s, where)
			os.RemoveAll(target)
			images++
		}
		os.RemoveAll(s.root)
		count++
		if !crashed {
			break
		}
	}
	t.Logf("%d operations, %d images", count, images)
}

func checkImage(t *testing.T, root string, s *story, where string) {
	t.Helper()
	cfg := s.cfg
	cfg.FS = fastFS{segment.OS}
	dir := filepath.Join(root, "p")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, testID, cfg)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	got, err := observe(l)
	if err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if wrong := got.within(s.now, s.next, s.lossy); wrong != "" {
		t.Fatalf("%s: %s", where, wrong)
	}
	checkEpochs(t, l, got, where)
	// It goes on from there, and what it takes stays.
	more := command(t, l.NextIndex(), 99, "more")
	if err := l.StoreLog(more); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	if err := l.Close(got.last()%2 == 0); err != nil {
		t.Fatalf("%s: %v", where, err)
	}
	got.entries = append(got.entries, *more)
	l, err = Open(dir, testID, cfg)
	if err != nil {
		t.Fatalf("%s, opened again: %v", where, err)
	}
	again, err := observe(l)
	if err != nil {
		t.Fatalf("%s, opened again: %v", where, err)
	}
	if wrong := again.within(got, got, false); wrong != "" || again.last() != got.last() {
		t.Fatalf("%s, opened again: %s", where, wrong)
	}
	checkEpochs(t, l, got, where+", opened again")
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
}

// checkEpochs compares the epoch table with what the entries say, as far as they
// reach.
func checkEpochs(t *testing.T, l *Log, m model, where string) {
	t.Helper()
	var want []Epoch
	at := m.base
	for i := range m.entries {
		want = addEpoch(want, m.entries[i].Term, at)
		at += span(&m.entries[i])
	}
	want = trimEpochs(want, m.start)
	got := l.Epochs()
	// Of a log that begins exactly at its start the table may know one more.
	if len(got) < len(want) || len(got) > len(want)+1 || fmt.Sprint(got[len(got)-len(want):]) != fmt.Sprint(want) {
		t.Fatalf("%s: epochs %v, want %v", where, got, want)
	}
}

// TestOpenReadsWhatFollowsTheCheckpoint tells by a header that is bad: what lies
// below the checkpoint is found out about when it is read, what lies above when
// the log is opened.
func TestOpenReadsWhatFollowsTheCheckpoint(t *testing.T) {
	dir := t.TempDir() + "/p"
	cfg := Config{FS: fastFS{segment.OS}}
	l := mustOpen(t, dir, cfg)
	for i := range uint64(6) {
		if i == 3 {
			if err := l.Checkpoint(); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.StoreLog(command(t, i+1, 1, "value")); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Close(false); err != nil {
		t.Fatal(err)
	}
	path := logFiles(t, dir)[0]
	whole := mustRead(t, path)
	size := int(segment.FrameSize(len(command(t, 1, 1, "value").Data)))
	for entry := range uint64(6) {
		p := bytes.Clone(whole)
		p[segment.HeaderSize+int(entry)*size+20] ^= 1
		mustWrite(t, path, p)
		l, err := Open(dir, testID, cfg)
		// Nothing tells that the last one had been synced: it is a torn tail.
		var corrupt *segment.CorruptError
		if found := errors.As(err, &corrupt); found != (entry >= 2 && entry < 5) || err != nil && !found {
			t.Fatalf("entry %d is bad: opened with %v", entry+1, err)
		}
		if err != nil {
			continue
		}
		if err := l.GetLog(entry+1, new(raft.Log)); entry < 2 && !errors.As(err, &corrupt) {
			t.Errorf("entry %d is bad: read with %v", entry+1, err)
		}
		l.Close(false)
	}
}

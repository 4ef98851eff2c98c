package replication

import (
	"cmp"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"millrace/replication/controller"
	"millrace/replication/folder"
	"millrace/replication/vote"
	"millrace/segment"
)

// A testDisk is the operating system's file system, whose syncs may be held, or
// fail, and whose operations may each answer what a test wants. The node's votes and the
// controller group's files, which libraries keep, are put under it by over: there it
// sees transactions, not operations, since bbolt and raft's FileSnapshotStore open
// their files themselves and take no file system. That loses nothing for votes and the
// log: whichever operation of a transaction fails, either nothing of it is there or, where it
// was the last sync, all of it may be, and both are answers here.
type testDisk struct {
	segment.FS
	mu      sync.Mutex
	changed sync.Cond
	held    bool
	err     error
	open    func(name string, flag int) error // what an open answers; nil: nothing
	full    bool
	trouble func(op, name string) (err error, done bool)
}

func newTestDisk() *testDisk {
	d := &testDisk{FS: segment.OS}
	d.changed.L = &d.mu
	return d
}

// fill takes what room there is left.
func (d *testDisk) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.full = true
}

// set says whether syncs wait from now on, and what they return then.
func (d *testDisk) set(held bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held, d.err = held, err
	d.changed.Broadcast()
}

// refuse says what opens of files and folders answer from now on.
func (d *testDisk) refuse(open func(name string, flag int) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = open
}

// disturb says what operations answer from now on: an error, unless nil, with done if
// they do it all the same.
func (d *testDisk) disturb(trouble func(op, name string) (err error, done bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trouble = trouble
}

// do does an operation, or answers what disturb wants.
func (d *testDisk) do(op, name string, do func() error) error {
	d.mu.Lock()
	trouble := d.trouble
	d.mu.Unlock()
	if trouble == nil {
		return do()
	}
	err, done := trouble(op, name)
	if err == nil || done {
		return cmp.Or(do(), err)
	}
	return err
}

func (d *testDisk) opening(name string, flag int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.open == nil {
		return nil
	}
	return d.open(name, flag)
}

func (d *testDisk) OpenDir(name string) (dir segment.Dir, err error) {
	if err := d.opening(name, 0); err != nil {
		return nil, err
	}
	err = d.do("open", name, func() (err error) { dir, err = d.FS.OpenDir(name); return err })
	if err != nil {
		return nil, err
	}
	return &testDir{dir, d, name}, nil
}

func (d *testDisk) OpenFile(name string, flag int) (f segment.File, err error) {
	if err := d.opening(name, flag); err != nil {
		return nil, err
	}
	err = d.do("open", name, func() (err error) { f, err = d.FS.OpenFile(name, flag); return err })
	if err != nil {
		return nil, err
	}
	return &testFile{f, d, name}, nil
}

func (d *testDisk) MkdirAll(name string) error {
	return d.do("mkdir", name, func() error { return d.FS.MkdirAll(name) })
}

func (d *testDisk) Rename(from, to string) error {
	return d.do("rename", to, func() error { return d.FS.Rename(from, to) })
}

func (d *testDisk) Remove(name string) error {
	return d.do("remove", name, func() error { return d.FS.Remove(name) })
}

func (d *testDisk) ReadDir(name string) (names []string, err error) {
	err = d.do("open", name, func() (err error) { names, err = d.FS.ReadDir(name); return err })
	return names, err
}

type testDir struct {
	segment.Dir
	disk *testDisk
	name string
}

func (f *testDir) Sync() error { return f.disk.do("sync", f.name, f.Dir.Sync) }

type testFile struct {
	segment.File
	disk *testDisk
	name string
}

func (f *testFile) ReadAt(p []byte, off int64) (n int, err error) {
	err = f.disk.do("read", f.name, func() (err error) { n, err = f.File.ReadAt(p, off); return err })
	return n, err
}

func (f *testFile) Pwritev(bufs [][]byte, off int64) error {
	return f.disk.do("write", f.name, func() error { return f.File.Pwritev(bufs, off) })
}

func (f *testFile) Allocate(from, to int64) error {
	f.disk.mu.Lock()
	full := f.disk.full
	f.disk.mu.Unlock()
	if full {
		return syscall.ENOSPC
	}
	return f.disk.do("allocate", f.name, func() error { return f.File.Allocate(from, to) })
}

func (f *testFile) Punch(from, to int64) error {
	return f.disk.do("punch", f.name, func() error { return f.File.Punch(from, to) })
}

func (f *testFile) Sync() error {
	d := f.disk
	d.mu.Lock()
	for d.held {
		d.changed.Wait()
	}
	err := d.err
	d.mu.Unlock()
	if err != nil {
		return err
	}
	return d.do("sync", f.name, f.File.Sync)
}

// over puts the votes and the controller group's files of a node under the disk, before
// it starts.
func (d *testDisk) over(n *Node) {
	votes := filepath.Join(n.cfg.DataDir, folder.VotesName)
	n.votes.Intercept(func(below vote.Disk) vote.Disk { return testVotes{below, d, votes} })
	meta := filepath.Join(n.cfg.DataDir, folder.MetaName)
	n.cfg.metaFiles = testMetaFiles{d, meta}
}

// A testMetaFiles is where the controller group's files are.
type testMetaFiles struct {
	disk *testDisk
	dir  string
}

func (f testMetaFiles) Log(below controller.Log) controller.Log {
	return &testMeta{below, f.disk, filepath.Join(f.dir, folder.LogName)}
}

func (f testMetaFiles) Snapshots(below raft.SnapshotStore) raft.SnapshotStore {
	return &testSnapshots{below, f.disk, filepath.Join(f.dir, "snapshots")}
}

// testVotes are the votes of partitions.
type testVotes struct {
	below vote.Disk
	disk  *testDisk
	name  string
}

func (v testVotes) Commit(records map[string][]byte) error {
	return v.disk.do("commit", v.name, func() error { return v.below.Commit(records) })
}

// A testMeta is the controller group's log and votes.
type testMeta struct {
	controller.Log
	disk *testDisk
	name string
}

func (m *testMeta) StoreLogs(logs []*raft.Log) error {
	return m.disk.do("commit", m.name, func() error { return m.Log.StoreLogs(logs) })
}

func (m *testMeta) DeleteRange(min, max uint64) error {
	return m.disk.do("commit", m.name, func() error { return m.Log.DeleteRange(min, max) })
}

func (m *testMeta) Set(key, value []byte) error {
	return m.disk.do("commit", m.name, func() error { return m.Log.Set(key, value) })
}

func (m *testMeta) SetUint64(key []byte, value uint64) error {
	return m.disk.do("commit", m.name, func() error { return m.Log.SetUint64(key, value) })
}

// A testSnapshots is the controller group's snapshots.
type testSnapshots struct {
	raft.SnapshotStore
	disk *testDisk
	name string
}

func (s *testSnapshots) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64, t raft.Transport) (sink raft.SnapshotSink, err error) {
	err = s.disk.do("open", s.name, func() (err error) {
		sink, err = s.SnapshotStore.Create(v, index, term, c, cIndex, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &testSink{sink, s}, nil
}

type testSink struct {
	raft.SnapshotSink
	of *testSnapshots
}

func (s *testSink) Write(p []byte) (n int, err error) {
	err = s.of.disk.do("write", s.of.name, func() (err error) { n, err = s.SnapshotSink.Write(p); return err })
	return n, err
}

func (s *testSink) Close() error {
	closed := false
	err := s.of.disk.do("sync", s.of.name, func() error { closed = true; return s.SnapshotSink.Close() })
	if !closed {
		s.SnapshotSink.Cancel()
	}
	return err
}

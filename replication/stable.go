package replication

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
)

// A stableStore keeps the votes and terms of all partition groups of a node in
// one file. It is safe for concurrent use.
//
// Raft must not answer a vote before the vote is on disk. When a node dies,
// every group it led holds an election at once, and if each wrote for itself
// the groups would wait for each other's fsyncs. So writers hand what they
// write to one goroutine, the committer, and wait; it takes all that has
// gathered meanwhile into one bbolt transaction.
//
//	group 1   SetUint64 ──┐ waits ······················ returns
//	group 2   Set ────────┤ waits ······················ returns
//	group 3               │        SetUint64 ─┐ waits ·······················
//	committer             └ commit {1, 2} ────┴ commit {3} ─────────
//
// 300 groups that elect at once are done in 3 ms, with five commits, where a
// commit for each key takes 277 ms (BenchmarkElections, two cores).
//
// Reads never wait for the disk: everything is in memory too, about 100 bytes a
// group, and changes there only after the commit.
//
// # On disk
//
// A bbolt file with one bucket, "stable". A key is the group's number, 8 bytes
// big-endian, and the name Raft uses. A value is the CRC-32C of key and data,
// 4 bytes big-endian, and the data. bbolt itself has no checksums over data, so
// one more key, of group 2⁶⁴−1 and with the name "sum", holds how many others
// there are and the sum of their checksums, 8 bytes each: a page that went
// missing, or an old one that came back, is found as well.
//
// The file is created aside and renamed, so that one that exists was whole
// once: an empty or cut file is damage, never a fresh start. See readStable for
// what is checked when it is opened.
//
// # Errors
//
// Raft panics when it cannot save its current term, and a full disk must not
// end the process. So a write that fails is tried again, with everything that
// has gathered since, until it succeeds or the store is closed; its caller
// waits, which holds up its own group and no other.
//
// Once the store is closed, Set returns errStableClosed, which Raft survives,
// and SetUint64 of the current term ends the calling goroutine instead of
// returning: with an error Raft would panic, and without one it would go on as
// if its term were safe. The goroutine is Raft's main one; its deferred calls
// run, so Shutdown of the group does not hang.
type stableStore struct {
	path    string
	logger  *slog.Logger
	db      *bbolt.DB
	created bool

	// commit writes one transaction: data by key, nil deletes. It is the
	// committer's alone, and replaced in tests.
	commit func(map[string][]byte) error

	// recovered is told of a group whose writes are done that had to wait for the disk to
	// take them; nil: nobody is. It must not block. Set before the first write.
	recovered func(group uint64)

	work chan struct{} // one token: something was queued
	stop chan struct{} // closed by Close
	done chan struct{} // closed by the committer when it ends

	mu     sync.Mutex
	groups map[uint64]*stableState
	queue  []*stableWrite // what the committer has not taken yet
	total  stableSum      // of what is on disk
	closed bool
}

// A stableState is what the store knows of one group.
type stableState struct {
	values map[string][]byte // on disk
	// staged is the LastVoteTerm that waits for its LastVoteCand, nil if none
	// does. Half a vote is worth nothing on disk, and never gets there.
	staged []byte
}

// A stableWrite is one caller's wait for the disk.
type stableWrite struct {
	group  uint64
	values map[string][]byte // by name; not written to after it is queued
	forget bool              // instead: delete all of the group
	done   chan error        // gets one: nil, or errStableClosed
}

// A stableSum covers all records: how many there are and the sum of their checksums.
type stableSum struct{ count, sum uint64 }

const (
	// Raft's names, raft.go: keyCurrentTerm and so on.
	currentTermKey   = "CurrentTerm"
	lastVoteTermKey  = "LastVoteTerm"
	lastVoteVoterKey = "LastVoteCand"

	sumGroup = 1<<64 - 1
	sumName  = "sum"

	// A commit that failed is tried again after stableRetryFirst, then after
	// twice as long each time. A disk that was full is seen to have room again
	// within stableRetryMost.
	stableRetryFirst = 20 * time.Millisecond
	stableRetryMost  = 2 * time.Second
	// While commits fail, one line in this time says so.
	stableLogInterval = 10 * time.Second
)

var stableBucket = []byte("stable")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// errStableNotFound is told apart by Raft by its text, which may therefore not be wrapped.
	errStableNotFound = errors.New("not found")
	errStableClosed   = errors.New("replication: stable store is closed")
	// errStableDamaged wraps nothing that retrying would help: the votes are
	// lost, and the node must come back as a new incarnation.
	errStableDamaged = errors.New("replication: stable store is damaged")
)

// openStable opens the store at path or, if there is no file, creates it in its
// folder, which must exist. It starts the committer; Close stops it.
//
// errStableDamaged, with the path, the position and what is wrong there, if the
// file cannot be what was written. Nothing is changed then.
func openStable(path string, logger *slog.Logger) (*stableStore, error) {
	s := &stableStore{
		path: path, logger: logger,
		work: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	s.commit = s.commitBolt
	p, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createStable(path); err != nil {
			return nil, err
		}
		s.created = true
		p, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("read stable store: %w", err)
	}
	if err := s.load(p); err != nil {
		return nil, fmt.Errorf("stable store %s: %w", path, err)
	}
	if s.db, err = openBolt(path); errors.Is(err, bbolterrors.ErrTimeout) {
		by := "another process"
		if pid := lockHolder(path); pid > 0 {
			by = fmt.Sprintf("pid %d", pid)
		}
		return nil, fmt.Errorf("in use by %s; stop it, or choose another folder with --data-dir", by)
	} else if err != nil {
		return nil, fmt.Errorf("open stable store %s: %w", path, err)
	}
	go s.runCommitter()
	return s, nil
}

// createStable makes an empty store. A crash leaves it whole or not at all.
func createStable(path string) error {
	aside := path + ".new"
	if err := os.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("create stable store: %w", err)
	}
	db, err := openBolt(aside)
	if err != nil {
		return fmt.Errorf("create stable store %s: %w", aside, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucket(stableBucket)
		if err != nil {
			return err
		}
		key := stableKey(sumGroup, sumName)
		return b.Put([]byte(key), stableRecord(key, stableSum{}.encode()))
	})
	if err := cmp.Or(err, db.Close()); err != nil {
		return fmt.Errorf("create stable store %s: %w", aside, err)
	}
	if err := os.Rename(aside, path); err != nil {
		return fmt.Errorf("create stable store: %w", err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("create stable store: %w", err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("create stable store: sync %s: %w", folder.Name(), err)
	}
	return nil
}

// openBolt opens the database. What bbolt finds wrong while it opens comes as a
// panic, and a page the disk cannot read as a fault in the mapping. readStable
// has found both before, unless the disk reads differently now.
func openBolt(path string) (db *bbolt.DB, err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer recovered(&err)
	return bbolt.Open(path, 0o644, &bbolt.Options{
		Timeout: time.Second, // for a lock that another process holds
		// The list of free pages is found again by walking the file, which at
		// this size takes no time. Stored, it would be a page more to write in
		// every commit and one more that can rot.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
	})
}

// recovered makes an error of a panic. It must be deferred by itself.
func recovered(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("bbolt: %v", r)
	}
}

// load fills the memory from the file's bytes.
func (s *stableStore) load(p []byte) error {
	records, err := readStable(p)
	if err != nil {
		return err
	}
	s.groups = make(map[uint64]*stableState)
	for key, data := range records {
		group, name := splitStableKey(key)
		s.state(group).values[name] = data
		s.total = s.total.with(key, data)
	}
	return nil
}

// Created tells that openStable found no file. A node that has partitions then has lost its votes.
func (s *stableStore) Created() bool { return s.created }

// Known tells whether the group has anything on disk. A known group whose
// folder is missing has lost its data.
func (s *stableStore) Known(group uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.groups[group].on()) > 0
}

// Groups lists the groups that are known, in order.
func (s *stableStore) Groups() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var known []uint64
	for group, state := range s.groups {
		if len(state.values) > 0 {
			known = append(known, group)
		}
	}
	slices.Sort(known)
	return known
}

// Forget deletes all of a group from disk and returns when it is gone. The
// group's Raft must have been shut down, and a committed change must have
// deleted the group: a vote that is forgotten can be given again.
// errStableClosed.
func (s *stableStore) Forget(group uint64) error {
	s.mu.Lock()
	if len(s.groups[group].on()) == 0 {
		delete(s.groups, group)
		s.mu.Unlock()
		return nil
	}
	w, err := s.enqueueLocked(&stableWrite{group: group, forget: true})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return <-w.done
}

// Close commits what was queued, unless the disk refuses, ends the committer
// and closes the file. Callers that still wait are let go as the type's comment says.
func (s *stableStore) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if !closed {
		close(s.stop)
	}
	<-s.done
	if closed || s.db == nil {
		return nil
	}
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("close stable store %s: %w", s.path, err)
	}
	return nil
}

// Group is the part of the store that is one group's, a raft.StableStore. It
// begins without half a vote that an earlier use of the group may have left.
func (s *stableStore) Group(id uint64) *groupStable {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state(id).staged = nil
	return &groupStable{store: s, group: id}
}

// state finds a group's or begins it. s.mu is held, or nobody else knows s yet.
func (s *stableStore) state(group uint64) *stableState {
	state, ok := s.groups[group]
	if !ok {
		state = &stableState{values: make(map[string][]byte)}
		s.groups[group] = state
	}
	return state
}

// on is what is on disk; a group nobody asked for has nothing.
func (state *stableState) on() map[string][]byte {
	if state == nil {
		return nil
	}
	return state.values
}

func (s *stableStore) get(group uint64, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state(group)
	if name == lastVoteTermKey && state.staged != nil {
		return bytes.Clone(state.staged), nil
	}
	data, ok := state.values[name]
	if !ok {
		return nil, errStableNotFound
	}
	return append([]byte{}, data...), nil // never nil: Raft takes a nil candidate for no vote
}

// stage keeps the first half of a vote until the second comes.
func (s *stableStore) stage(group uint64, term []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errStableClosed
	}
	state := s.state(group)
	state.staged = nil
	if on, ok := state.values[lastVoteTermKey]; !ok || !bytes.Equal(on, term) {
		state.staged = term
	}
	return nil
}

// set writes one value, with the half of a vote that waits for it, and returns
// when both are on disk. data is not retained.
func (s *stableStore) set(group uint64, name string, data []byte) error {
	s.mu.Lock()
	state := s.state(group)
	values := make(map[string][]byte, 2)
	if on, ok := state.values[name]; !ok || !bytes.Equal(on, data) {
		values[name] = append([]byte{}, data...)
	}
	if name == lastVoteVoterKey && state.staged != nil {
		values[lastVoteTermKey] = state.staged
	}
	if len(values) == 0 { // after Close too: it is on disk
		s.mu.Unlock()
		return nil
	}
	w, err := s.enqueueLocked(&stableWrite{group: group, values: values})
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return <-w.done
}

func (s *stableStore) enqueueLocked(w *stableWrite) (*stableWrite, error) {
	if s.closed {
		return nil, errStableClosed
	}
	w.done = make(chan error, 1)
	s.queue = append(s.queue, w)
	select {
	case s.work <- struct{}{}:
	default: // the committer will see it with what it was woken for
	}
	return w, nil
}

// runCommitter is the goroutine "stable committer": openStable starts it, Close
// stops it. It is the only one that writes to the file.
func (s *stableStore) runCommitter() {
	defer close(s.done)
	debug.SetPanicOnFault(true) // for this goroutine: a page that cannot be read is an error like any other
	for {
		select {
		case <-s.stop:
			s.finish(nil)
			return
		case <-s.work:
		}
		batch := s.take()
		if len(batch) == 0 {
			continue // it went with an earlier batch
		}
		var since, said time.Time
		for wait := stableRetryFirst; ; wait = min(2*wait, stableRetryMost) {
			err := s.write(batch)
			if err == nil {
				break
			}
			now := time.Now()
			if since.IsZero() {
				since = now
			}
			if said.IsZero() || now.Sub(said) >= stableLogInterval {
				said = now
				s.logger.Error("votes and terms cannot be saved, the groups that need it wait",
					"path", s.path, "groups", len(batch), "since", now.Sub(since), "error", err)
			}
			select {
			case <-s.stop:
				s.finish(batch)
				return
			case <-time.After(wait):
			}
			batch = append(batch, s.take()...)
		}
		if !since.IsZero() {
			s.logger.Info("votes and terms are saved again", "path", s.path, "after", time.Since(since))
			if s.recovered != nil {
				for _, w := range batch {
					s.recovered(w.group)
				}
			}
		}
	}
}

// take empties the queue.
func (s *stableStore) take() []*stableWrite {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.queue
	s.queue = nil
	return batch
}

// finish is the committer's last act: one attempt for all who wait, who are
// told that the store is closed if it fails. The disk may then hold what they
// were told was not saved; a vote nobody heard of harms nobody.
func (s *stableStore) finish(batch []*stableWrite) {
	batch = append(batch, s.take()...)
	if len(batch) == 0 {
		return
	}
	if err := s.write(batch); err != nil {
		s.logger.Error("votes and terms were not saved before the store closed", "path", s.path, "groups", len(batch), "error", err)
		for _, w := range batch {
			w.done <- errStableClosed
		}
	}
}

// write commits a batch, shows it to readers and lets the writers go. After an
// error nothing has happened, and the same batch may be written again, with
// others behind it.
func (s *stableStore) write(batch []*stableWrite) error {
	type place struct {
		group uint64
		name  string
	}
	// In the order they came: of two writes to one key the later counts. nil deletes.
	changed := make(map[place][]byte)
	s.mu.Lock()
	for _, w := range batch {
		if w.forget {
			for at := range changed {
				if at.group == w.group {
					changed[at] = nil
				}
			}
			for name := range s.groups[w.group].on() {
				changed[place{w.group, name}] = nil
			}
		}
		for name, data := range w.values {
			changed[place{w.group, name}] = data
		}
	}
	total := s.total
	records := make(map[string][]byte, len(changed)+1)
	for at, data := range changed {
		key := stableKey(at.group, at.name)
		if old, ok := s.groups[at.group].on()[at.name]; ok {
			total = total.without(key, old)
		}
		records[key] = nil
		if data != nil {
			records[key] = stableRecord(key, data)
			total = total.with(key, data)
		}
	}
	s.mu.Unlock()
	sumKey := stableKey(sumGroup, sumName)
	records[sumKey] = stableRecord(sumKey, total.encode())

	if err := s.commit(records); err != nil {
		return err
	}

	s.mu.Lock()
	s.total = total
	for at, data := range changed {
		state := s.state(at.group)
		if at.name == lastVoteTermKey {
			state.staged = nil
		}
		if data != nil {
			state.values[at.name] = data
			continue
		}
		delete(state.values, at.name)
		if len(state.values) == 0 {
			delete(s.groups, at.group)
		}
	}
	s.mu.Unlock()
	for _, w := range batch {
		w.done <- nil
	}
	return nil
}

// commitBolt writes one transaction. After an error the disk holds the state
// before it or the state after: bbolt writes data to free pages, syncs, and then
// a meta page, so only the last sync can fail with the outcome open. To write
// the same again is right in both cases, and writes every page of it again.
func (s *stableStore) commitBolt(records map[string][]byte) (err error) {
	defer recovered(&err)
	return s.db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(stableBucket)
		for _, key := range slices.Sorted(maps.Keys(records)) {
			record := records[key]
			if record == nil {
				if err := b.Delete([]byte(key)); err != nil {
					return err
				}
				continue
			}
			if err := b.Put([]byte(key), record); err != nil {
				return err
			}
		}
		return nil
	})
}

// A groupStable is one group's part of a stableStore: Raft's StableStore. Raft
// calls it from one goroutine; others may read.
type groupStable struct {
	store *stableStore
	group uint64
}

// Get returns a copy of what Set saved, or the error Raft knows by its text.
func (g *groupStable) Get(key []byte) ([]byte, error) {
	return g.store.get(g.group, string(key))
}

// Set saves val and returns when it is on disk, at once if it is there already.
// Neither slice is retained. errStableClosed, and no other error.
//
// Raft saves a vote in two calls, SetUint64 of LastVoteTerm and Set of
// LastVoteCand. Both halves are written with the second.
func (g *groupStable) Set(key, val []byte) error {
	return g.store.set(g.group, string(key), val)
}

// GetUint64 returns what SetUint64 saved, the half of a vote that is not on
// disk yet included, or the error Raft knows by its text.
func (g *groupStable) GetUint64(key []byte) (uint64, error) {
	data, err := g.store.get(g.group, string(key))
	if err != nil {
		return 0, err
	}
	if len(data) != 8 {
		return 0, fmt.Errorf("replication: %s of group %d has %d bytes, is not a number", key, g.group, len(data))
	}
	return binary.BigEndian.Uint64(data), nil
}

// SetUint64 saves a number as Set does, save that LastVoteTerm waits for its
// other half. errStableClosed, and no other error.
//
// SetUint64 of CurrentTerm does not return at all if the store is closed before
// the term is on disk: it ends the calling goroutine, see stableStore. Raft
// calls it from its main goroutine; raft.BootstrapCluster does from its
// caller's, which must therefore not be one that others wait for.
func (g *groupStable) SetUint64(key []byte, val uint64) error {
	data := binary.BigEndian.AppendUint64(nil, val)
	if string(key) == lastVoteTermKey {
		return g.store.stage(g.group, data)
	}
	err := g.store.set(g.group, string(key), data)
	if err != nil && string(key) == currentTermKey {
		runtime.Goexit()
	}
	return err
}

// The form of keys and records.

func stableKey(group uint64, name string) string {
	return string(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(name)), group)) + name
}

func splitStableKey(key string) (group uint64, name string) {
	return binary.BigEndian.Uint64([]byte(key[:8])), key[8:]
}

func stableRecord(key string, data []byte) []byte {
	return append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(data)), stableChecksum(key, data)), data...)
}

func stableChecksum(key string, data []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(key), castagnoli), castagnoli, data)
}

func (t stableSum) with(key string, data []byte) stableSum {
	return stableSum{t.count + 1, t.sum + uint64(stableChecksum(key, data))}
}

func (t stableSum) without(key string, data []byte) stableSum {
	return stableSum{t.count - 1, t.sum - uint64(stableChecksum(key, data))}
}

func (t stableSum) encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, t.count), t.sum)
}

// readStable reads all records out of the bytes of a stable store: data by key,
// without the sum. It trusts nothing, so that bbolt, which follows any page
// number and any length it finds, is only ever given a file that is sound:
//
//   - both meta pages are valid. bbolt would take the older one if the newer is
//     not, and so forget the last commit, which may have been a vote. A meta
//     page fits a sector, so a power failure leaves it whole;
//   - the file is as long as the meta page says;
//   - every page of the tree is where its number says, is reached once, and has
//     its elements inside; keys ascend, and each page begins with the key under
//     which the branch above has it. bbolt looks a page up by its first key when
//     it replaces it, and would keep the old one beside it if that differed;
//   - there is the one bucket, every record has its checksum, and the sum is right.
//
// The layout is bbolt's: its internal/common, version 2 of its format, in the
// byte order of the machine.
func readStable(p []byte) (map[string][]byte, error) {
	f := &boltFile{p: p}
	root, err := f.open()
	if err != nil {
		return nil, err
	}
	var bucket []byte
	var bucketAt int
	err = f.walk(root, func(at int, isBucket bool, key, value []byte) error {
		if !isBucket || bucket != nil || !bytes.Equal(key, stableBucket) || len(value) < 16 {
			return damaged(at, "expected the bucket %q and nothing else, found %.40q", stableBucket, key)
		}
		bucket, bucketAt = value, at
		return nil
	})
	if err != nil {
		return nil, err
	}
	if bucket == nil {
		return nil, damaged(0, "the bucket %q is missing", stableBucket)
	}

	records := make(map[string][]byte)
	record := func(at int, isBucket bool, key, value []byte) error {
		if isBucket || len(key) < 8 || len(value) < 4 {
			return damaged(at, "found no record of a group under %.40q", key)
		}
		sum, data := binary.BigEndian.Uint32(value), value[4:]
		if want := stableChecksum(string(key), data); sum != want {
			return damaged(at, "record %.40q has checksum %08x, its bytes %08x", key, sum, want)
		}
		records[string(key)] = bytes.Clone(data)
		return nil
	}
	// A small bucket lies inside its own entry, as a page behind the 16 bytes of its header.
	if child := binary.NativeEndian.Uint64(bucket); child != 0 {
		err = f.walk(child, record)
	} else {
		err = f.leaf(boltPage{at: bucketAt, bytes: bucket[16:]}, new(boltOrder), record)
	}
	if err != nil {
		return nil, err
	}

	key := stableKey(sumGroup, sumName)
	found, ok := records[key]
	if !ok {
		return nil, damaged(0, "the sum of all records is missing")
	}
	delete(records, key)
	var total stableSum
	for key, data := range records {
		total = total.with(key, data)
	}
	if want := total.encode(); !bytes.Equal(found, want) {
		return nil, damaged(0, "the sum of all records is %x, of the %d found %x", found, total.count, want)
	}
	return records, nil
}

func damaged(at int, format string, args ...any) error {
	return fmt.Errorf("%w: at byte %d: %s", errStableDamaged, at, fmt.Sprintf(format, args...))
}

// A boltFile is a bbolt file being checked.
type boltFile struct {
	p        []byte
	pageSize uint64
	pages    uint64 // that the newest meta page counts
	reached  []bool // by page
}

// A boltPage is a page with those that continue it.
type boltPage struct {
	at    int // in the file
	bytes []byte
}

const (
	boltMagic     = 0xED0CDAED
	boltVersion   = 2
	boltHeader    = 16 // of a page: id u64, flags u16, count u16, overflow u32
	boltMeta      = 64 // magic, version, page size, flags u32; root, sequence, free list, pages, transaction, checksum u64
	boltElement   = 16 // of a branch: position, key u32, page u64; of a leaf: flags, position, key, value u32
	boltBranch    = 0x01
	boltLeaf      = 0x02
	boltSubBucket = 0x01
	boltNoList    = 1<<64 - 1
)

// open checks the meta pages and returns the root's page.
func (f *boltFile) open() (root uint64, err error) {
	if len(f.p) < boltHeader+boltMeta {
		return 0, damaged(len(f.p), "the file ends before its first meta page does")
	}
	f.pageSize = uint64(binary.NativeEndian.Uint32(f.p[boltHeader+8:]))
	if f.pageSize < 1024 || f.pageSize > 1<<16 || f.pageSize&(f.pageSize-1) != 0 {
		return 0, damaged(boltHeader+8, "a page cannot have %d bytes", f.pageSize)
	}
	var newest uint64
	for i := range 2 {
		at := i*int(f.pageSize) + boltHeader
		if at+boltMeta > len(f.p) {
			return 0, damaged(len(f.p), "the file ends before its meta pages do")
		}
		meta := f.p[at : at+boltMeta]
		hash := fnv.New64a()
		hash.Write(meta[:56])
		u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(meta[i:]) }
		u64 := func(i int) uint64 { return binary.NativeEndian.Uint64(meta[i:]) }
		if u32(0) != boltMagic || u32(4) != boltVersion || uint64(u32(8)) != f.pageSize || u64(56) != hash.Sum64() {
			return 0, damaged(at, "meta page %d is not valid", i)
		}
		if transaction := u64(48); i == 0 || transaction > newest {
			newest = transaction
			root, f.pages = u64(16), u64(40)
			if u64(32) != boltNoList {
				return 0, damaged(at, "there is a list of free pages, which this store never writes")
			}
		}
	}
	if f.pages > uint64(len(f.p))/f.pageSize {
		return 0, damaged(len(f.p), "the file ends here, its %d pages of %d bytes do not", f.pages, f.pageSize)
	}
	f.reached = make([]bool, f.pages)
	return root, nil
}

// A boltOrder checks that keys ascend over all pages of a tree.
type boltOrder struct {
	last []byte // nil before the first
}

func (o *boltOrder) next(at int, key []byte) error {
	if len(key) == 0 || o.last != nil && bytes.Compare(key, o.last) <= 0 {
		return damaged(at, "key %.40q follows %.40q", key, o.last)
	}
	o.last = key
	return nil
}

type boltVisit func(at int, isBucket bool, key, value []byte) error

// walk visits the entries of the tree at a page, in order.
func (f *boltFile) walk(root uint64, visit boltVisit) error {
	return f.tree(root, nil, new(boltOrder), visit)
}

// tree visits a page that begins with a key, or with any if first is nil.
func (f *boltFile) tree(id uint64, first []byte, order *boltOrder, visit boltVisit) error {
	page, err := f.page(id)
	if err != nil {
		return err
	}
	switch flags := binary.NativeEndian.Uint16(page.bytes[8:]); flags {
	case boltLeaf:
		if first != nil && binary.NativeEndian.Uint16(page.bytes[10:]) == 0 {
			return damaged(page.at, "page %d is empty, should begin with key %.40q", id, first)
		}
		return f.leaf(page, order, func(at int, isBucket bool, key, value []byte) error {
			if first != nil && !bytes.Equal(key, first) {
				return damaged(at, "page %d begins with key %.40q, the page above says %.40q", id, key, first)
			}
			first = nil
			return visit(at, isBucket, key, value)
		})
	case boltBranch:
		return f.branch(page, first, order, visit)
	default:
		return damaged(page.at, "page %d is of kind %#x, expected one of the tree", id, flags)
	}
}

func (f *boltFile) branch(page boltPage, first []byte, order *boltOrder, visit boltVisit) error {
	empty := true
	err := page.elements(func(at int) error {
		element := page.bytes[at:]
		key, _, err := page.element(at, binary.NativeEndian.Uint32(element), binary.NativeEndian.Uint32(element[4:]), 0)
		if err != nil {
			return err
		}
		if len(key) == 0 || empty && first != nil && !bytes.Equal(key, first) {
			return damaged(page.at+at, "a branch page begins with key %.40q, the page above says %.40q", key, first)
		}
		empty = false
		return f.tree(binary.NativeEndian.Uint64(element[8:]), key, order, visit)
	})
	if err == nil && empty {
		return damaged(page.at, "a branch page is empty")
	}
	return err
}

func (f *boltFile) leaf(page boltPage, order *boltOrder, visit boltVisit) error {
	if len(page.bytes) < boltHeader || binary.NativeEndian.Uint16(page.bytes[8:]) != boltLeaf {
		return damaged(page.at, "expected a leaf page")
	}
	return page.elements(func(at int) error {
		element := page.bytes[at:]
		u32 := func(i int) uint32 { return binary.NativeEndian.Uint32(element[i:]) }
		key, value, err := page.element(at, u32(4), u32(8), u32(12))
		if err != nil {
			return err
		}
		if flags := u32(0); flags > boltSubBucket {
			return damaged(page.at+at, "an entry has flags %#x", flags)
		}
		if err := order.next(page.at+at, key); err != nil {
			return err
		}
		return visit(page.at+at, u32(0) == boltSubBucket, key, value)
	})
}

// page finds a page that was not reached before, with those that continue it.
func (f *boltFile) page(id uint64) (boltPage, error) {
	if id < 2 || id >= f.pages {
		return boltPage{}, damaged(0, "page %d of %d is referred to", id, f.pages)
	}
	at := id * f.pageSize
	header := f.p[at : at+boltHeader]
	if found := binary.NativeEndian.Uint64(header); found != id {
		return boltPage{}, damaged(int(at), "page %d says it is page %d", id, found)
	}
	end := id + 1 + uint64(binary.NativeEndian.Uint32(header[12:]))
	if end > f.pages {
		return boltPage{}, damaged(int(at), "page %d goes on to page %d of %d", id, end, f.pages)
	}
	for i := id; i < end; i++ {
		if f.reached[i] {
			return boltPage{}, damaged(int(at), "page %d is part of the tree twice", i)
		}
		f.reached[i] = true
	}
	return boltPage{at: int(at), bytes: f.p[at : end*f.pageSize]}, nil
}

// elements calls visit with the position in the page of each element.
func (page boltPage) elements(visit func(at int) error) error {
	count := int(binary.NativeEndian.Uint16(page.bytes[10:]))
	if boltHeader+count*boltElement > len(page.bytes) {
		return damaged(page.at, "%d elements do not fit a page of %d bytes", count, len(page.bytes))
	}
	for i := range count {
		if err := visit(boltHeader + i*boltElement); err != nil {
			return err
		}
	}
	return nil
}

// element cuts out key and value, which begin pos bytes behind the element's own position.
func (page boltPage) element(at int, pos, keySize, valueSize uint32) (key, value []byte, err error) {
	from := uint64(at) + uint64(pos)
	middle := from + uint64(keySize)
	to := middle + uint64(valueSize)
	if to > uint64(len(page.bytes)) {
		return nil, nil, damaged(page.at+at, "an entry ends %d bytes into a page of %d", to, len(page.bytes))
	}
	return page.bytes[from:middle:middle], page.bytes[middle:to:to], nil
}
